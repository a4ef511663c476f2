"""In which language a refusal is, and its translation: by Django's own catalogs, those of the site first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Final

from django.conf import settings
from django.conf.urls.i18n import is_language_prefix_patterns_used
from django.http import parse_cookie
from django.utils import translation

from readonly.pages import Catalog
from readonly.rules import Facts
from readonly.words import Words

_words: Final = Words()


class _Catalog:
    """Django's catalogs in one language, whichever is active; what they do not know is asked of the core's."""

    def __init__(self, language: str) -> None:
        self._language = language
        self._core = _words.catalog(language)

    def gettext(self, message: str) -> str:
        """Return the translation."""
        with translation.override(self._language):
            found: str = translation.gettext(message)
        return found if found != message else self._core.gettext(message)

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        """Return the translation for so many of something."""
        with translation.override(self._language):
            found: str = translation.ngettext(msgid1, msgid2, n)
        return found if found not in (msgid1, msgid2) else self._core.ngettext(msgid1, msgid2, n)


_catalogs: Final[dict[str, Catalog]] = {}


def languages(facts: Facts) -> tuple[str, Catalog]:
    """Return the language that Django would answer a request in, and its catalog.

    The request has not come to LocaleMiddleware: what that goes by is looked at here.
    """
    language = _language(facts) if settings.USE_I18N else settings.LANGUAGE_CODE
    return language, catalog_of(language)


def catalog_of(language: str) -> Catalog:
    """Return the catalog of one of the site's languages."""
    catalog = _catalogs.get(language)
    if catalog is None:
        # As many as there are languages of the site: the visitor can't name others.
        catalog = _catalogs[language] = _Catalog(language)
    return catalog


def _language(facts: Facts) -> str:
    cookie = facts.headers.get("cookie")
    request = SimpleNamespace(
        path_info=facts.path,
        COOKIES=parse_cookie(cookie) if cookie else {},
        META={"HTTP_ACCEPT_LANGUAGE": facts.headers.get("accept-language") or ""},
    )
    try:
        in_path = is_language_prefix_patterns_used(settings.ROOT_URLCONF)[0]
    except Exception:
        in_path = False  # the URLconf is broken: a refusal needs none
    found: str = translation.get_language_from_request(request, check_path=in_path)  # type: ignore[arg-type]
    return found
