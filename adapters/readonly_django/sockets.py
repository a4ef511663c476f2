"""Whether websockets go past the middleware: Django's own knows nothing of them, and Channels has a router beside it.

Nothing is imported to look: what a server has loaded is looked at, the project's ASGI application and what it hands on
to.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Final

from django.conf import settings as django_settings
from django.core.handlers.base import BaseHandler

from readonly.nested import is_middleware

# An application is a chain of few things. What is none must not keep anybody busy.
_MOST: Final = 500


def application_path() -> str:
    """Return where the project's ASGI application is, dotted: as the setting says, else beside the URLconf."""
    named = getattr(django_settings, "ASGI_APPLICATION", None)
    return named if isinstance(named, str) else f"{django_settings.ROOT_URLCONF.rpartition('.')[0]}.asgi.application"


def loaded_past() -> tuple[str, ...] | None:
    """Return the consumers that websockets reach without the middleware; None: nothing was loaded that has any."""
    module, _, name = application_path().rpartition(".")
    # A module is there from its first line on; what it holds, when it was run.
    application = getattr(sys.modules.get(module), name, None)
    return None if application is None else past(application)


def past(application: Any) -> tuple[str, ...]:
    """Return the consumers that websockets reach in an application without coming by the middleware.

    Args:
        application: An ASGI application; one without a router of Channels has none.
    """
    routing = sys.modules.get("channels.routing")
    if routing is None:
        return ()
    found: dict[str, None] = {}
    known: dict[int, Any] = {}
    left: list[tuple[Any, bool]] = [(application, False)]
    while left and len(known) < _MOST:
        one, sockets = left.pop()
        if id(one) in known or is_middleware(one) or isinstance(one, BaseHandler):
            continue
        known[id(one)] = one  # kept, so that its id is nobody else's meanwhile
        consumer = vars(one).get("consumer_class") if isinstance(one, FunctionType) else None
        if consumer is None:
            left += [(inner, sockets or below) for inner, below in _inside(one, routing)]
        elif sockets:
            found[f"{consumer.__module__}.{consumer.__qualname__}"] = None
    return tuple(sorted(found))


def _inside(one: Any, routing: Any) -> Iterator[tuple[Any, bool]]:
    """Yield what an application may hand on to, and whether it hands on nothing but websockets."""
    if isinstance(one, routing.ProtocolTypeRouter):
        yield one.application_mapping.get("websocket"), True
    elif isinstance(one, routing.URLRouter):
        yield from ((getattr(route, "callback", None), False) for route in one.routes)
    elif isinstance(one, partial):
        yield from ((inner, False) for inner in (one.func, *one.args, *one.keywords.values()))
    elif isinstance(one, MethodType):
        yield one.__self__, False
    elif isinstance(one, FunctionType):
        yield from ((inner, False) for inner in _cells(one) if _hands_on(inner))
    elif one is not None:
        yield from ((inner, False) for inner in getattr(one, "__dict__", {}).values() if _hands_on(inner))


def _cells(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            continue  # nothing is in it yet


def _hands_on(inner: Any) -> bool:
    return callable(inner) and not isinstance(inner, type)
