"""The site's own page for refusals, as `READONLY["PAGE"]` names it."""

from __future__ import annotations

from typing import Any

from django.template.loader import render_to_string
from django.utils import translation
from django.utils.module_loading import import_string

from readonly.pages import Page, Refused

from .conf import SettingsError


def own_page(said: str | Page | None) -> Page | None:
    """Return what renders the site's own page, in the visitor's language; None where there is none.

    Args:
        said: A template's name, a function, or the dotted path of one.

    Raises:
        SettingsError: The path leads to no function.
    """
    if said is None:
        return None
    render = _template(said) if isinstance(said, str) and ("/" in said or said.endswith(".html")) else _function(said)

    def page(refused: Refused) -> str | bytes:
        with translation.override(refused.language):
            return render(refused)

    return page


def _template(name: str) -> Page:
    # Without the request: it is the same for all who read its language, and context processors may want a session.
    return lambda refused: render_to_string(name, {"refused": refused})


def _function(said: Any) -> Page:
    if isinstance(said, str):
        try:
            said = import_string(said)
        except ImportError as error:
            raise SettingsError(
                f'READONLY["PAGE"]: {error}; give a template, or the dotted path of a function.'
            ) from error
    if not callable(said):
        raise SettingsError(f'READONLY["PAGE"]={said!r} is no page: give a template, or a function.')
    return said  # type: ignore[no-any-return]  # called as a page, and replaced by ours if it fails
