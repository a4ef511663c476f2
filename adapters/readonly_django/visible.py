"""What visitors may see of the state."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest
from django.utils import translation
from django.utils.functional import SimpleLazyObject
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


def kept_by_nobody(request: HttpRequest | None) -> None:
    """Note that a page carries the banner: kept by a cache it would go on saying so when it is over, and to others."""
    if request is not None:
        setattr(request, BANNER, True)
        # Django's own cache of whole pages asks this.
        request._cache_update_cache = False  # type: ignore[attr-defined]


def shown(request: HttpRequest | None = None) -> dict[str, Any]:
    """Return the state for templates: instants in UTC, or None; and the banner, for whoever sent the request."""
    state = conf.current_switch().state
    notice = notice_for(request)
    language = translation.get_language() or settings.LANGUAGE_CODE

    def carried() -> str:
        if notice is not None:
            kept_by_nobody(request)
        return mark_safe(banner(notice, catalog_of(language), language))  # noqa: S308 - all of it was escaped

    return {
        "notice": notice,
        # Only a page that shows it is not kept; most pages' templates are given it, and few have it.
        "banner": SimpleLazyObject(carried),
        "read_only": state.read_only,
        "message": state.message,
        "since": state.since,
        "expected_end": state.expected_end,
    }
