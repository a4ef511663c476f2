"""Read-your-writes for WSGI applications: a signed cookie follows a visitor from a write to the pages after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from ..recent import COOKIE, SECONDS, Cookie, following

__all__ = ["RecentWrites"]


def RecentWrites(  # noqa: N802 - a factory that is used like a class, as its neighbour is
    app: WSGIApplication,
    *,
    secret: str | Sequence[str],
    cookie: str = COOKIE,
    seconds: float = SECONDS,
    path: str = "/",
    domain: str | None = None,
) -> WSGIApplication:
    """Return the application, followed: who has just written reads it from where it is, though replicas are behind.

    For sites that read from replicas while writable (`always=True`); on others it does nothing but cost a little. Its
    place is outside of all that talks to the database. What a body reads while it is sent is read as elsewhere.

    Args:
        app: The application.
        secret: What signs the cookie, or several: the first signs, all of them verify.
        cookie: Its name.
        seconds: How long a write is recent.
        path: The path that it is sent for.
        domain: The domain that it is sent to; None: the host alone.

    Raises:
        ConfigurationError: There is no secret, or `seconds` can't be right.
    """
    signed = Cookie(secret, name=cookie, seconds=seconds, path=path, domain=domain)

    def middleware(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with following(signed.read(environ.get("HTTP_COOKIE", ""))) as recent:

            def with_cookie(
                status: str, headers: list[tuple[str, str]], error: Any = None
            ) -> Callable[[bytes], object]:
                said = signed.write(recent, secure=environ.get("wsgi.url_scheme") == "https")
                if said is not None:
                    headers = [*headers, ("Set-Cookie", said)]
                return start_response(status, headers, error) if error is not None else start_response(status, headers)

            return app(environ, with_cookie)

    return middleware
