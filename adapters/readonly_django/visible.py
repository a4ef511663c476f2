"""What visitors may see of the state."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest
from django.utils import translation
from django.utils.safestring import mark_safe

from readonly import Switch
from readonly.notices import Notice, Notices, banner

from . import conf
from .requests import cookies_of, facts_of
from .words import catalog_of

# A request whose page carries the banner has this attribute.
BANNER: Final = "_readonly_banner"


@lru_cache(maxsize=2)
def _notices(switch: Switch) -> Notices:
    return Notices(switch)


def notice_for(request: HttpRequest | None) -> Notice | None:
    """Return what there is to say to whoever sent a request."""
    # The process's switch is another one when a test has changed the settings.
    notices = _notices(conf.current_switch())
    return notices.of() if request is None else notices.of(facts_of(request), cookies_of(request))


def shown(request: HttpRequest | None = None) -> dict[str, Any]:
    """Return the state for templates: instants in UTC, or None; and the banner, for whoever sent the request."""
    state = conf.current_switch().state
    notice = notice_for(request)
    language = translation.get_language() or settings.LANGUAGE_CODE
    return {
        "notice": notice,
        "banner": mark_safe(banner(notice, catalog_of(language), language)),  # noqa: S308 - all of it was escaped
        "read_only": state.read_only,
        "message": state.message,
        "since": state.since,
        "expected_end": state.expected_end,
    }
