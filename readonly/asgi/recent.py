"""Read-your-writes for ASGI applications: a signed cookie follows a visitor from a write to the pages after it."""

from __future__ import annotations

from collections.abc import Sequence

from ..recent import COOKIE, SECONDS, Cookie, following
from ._types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["RecentWrites"]


def RecentWrites(  # noqa: N802 - a factory that is used like a class, as its neighbour is
    app: ASGIApp,
    *,
    secret: str | Sequence[str],
    cookie: str = COOKIE,
    seconds: float = SECONDS,
    path: str = "/",
    domain: str | None = None,
) -> ASGIApp:
    """Return the application, followed: who has just written reads it from where it is, though replicas are behind.

    For sites that read from replicas while writable (`always=True`); on others it does nothing but cost a little. Its
    place is outside of all that talks to the database.

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

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        # RFC 9113 8.2.3: HTTP/2 may split the Cookie header.
        header = "; ".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie")
        with following(signed.read(header)) as recent:

            async def with_cookie(message: Message) -> None:
                if message["type"] == "http.response.start":
                    said = signed.write(recent, secure=scope.get("scheme") == "https")
                    if said is not None:
                        headers = [*message.get("headers", ()), (b"set-cookie", said.encode("latin-1"))]
                        message = {**message, "headers": headers}
                await send(message)

            await app(scope, receive, with_cookie)

    return middleware
