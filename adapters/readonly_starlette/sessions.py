"""The session cookie of Starlette's own middleware, found without being listed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from starlette.middleware.sessions import SessionMiddleware
from starlette.types import Receive, Scope, Send

from readonly import SessionCookie

_DEPTH = 64


def session_cookies(app: Any) -> list[SessionCookie]:
    """Return the cookies of the `SessionMiddleware` in and around an application.

    Args:
        app: An application, or what Starlette's list of middleware hands over.
    """
    found = {cookie.name: cookie for cookie in _found(app)}
    return list(found.values())


def _found(app: Any) -> Iterator[SessionCookie]:
    for _ in range(_DEPTH):
        if app is None:
            return
        if isinstance(app, SessionMiddleware):
            yield _cookie(
                name=app.session_cookie,
                path=getattr(app, "path", "/"),
                max_age=app.max_age,
                flags=app.security_flags,
            )
        for listed in getattr(app, "user_middleware", ()):
            cls = getattr(listed, "cls", None)
            if isinstance(cls, type) and issubclass(cls, SessionMiddleware):
                yield from _found(cls(_nobody, *listed.args, **listed.kwargs))
        app = getattr(app, "app", None)


async def _nobody(scope: Scope, receive: Receive, send: Send) -> None:
    """The application of a middleware that is only asked how it was configured."""


def _cookie(*, name: str, path: str, max_age: float | None, flags: str) -> SessionCookie:
    domain = re.search(r"domain=([^;\s]+)", flags)
    return SessionCookie(
        name,
        path=path,
        domain=None if domain is None else domain[1],
        partitioned="partitioned" in flags,
        max_age_seconds=max_age,
        # It signs with a timestamp, always: no key is needed to tell a session's age.
        signed=True,
    )
