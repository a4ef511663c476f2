"""The cookie that follows a visitor from a write: what it holds, what is made of one that is not ours, when it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from readonly import recent
from readonly.asgi.recent import RecentWrites as AsgiRecentWrites
from readonly.errors import ConfigurationError
from readonly.recent import COOKIE, Cookie, Recent, Wrote
from readonly.wsgi.recent import RecentWrites as WsgiRecentWrites

SECRET = "tests only"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def sent(said: str | None) -> str:
    """Return the Cookie header that a browser sends after a Set-Cookie header."""
    assert said is not None
    return said.partition(";")[0]


def test_a_write_is_remembered_for_a_while() -> None:
    """With its position, for each database, and no longer than it matters."""
    clock = Clock()
    cookie = Cookie(SECRET, now=clock)
    first = Recent()
    assert cookie.write(first, secure=True) is None
    first.wrote("main", system="7301", at="0/3A", now=clock)
    said = cookie.write(first, secure=True)
    assert said is not None
    assert {"Path=/", "Max-Age=60", "HttpOnly", "SameSite=Lax", "Secure"} <= set(said.split("; "))
    clock.now += 5
    second = cookie.read(f"session=x; {sent(said)}; theme=dark")
    assert second.of("main", now=clock) == Wrote("7301", "0/3A", 5.0)
    assert second.of("stats", now=clock) is None
    assert cookie.write(second, secure=False) is None  # only read: the one that is there goes on
    second.wrote("stats", now=clock)
    clock.now += 56
    third = cookie.read(sent(cookie.write(second, secure=False)))
    assert third.of("main", now=clock) is None
    assert third.of("stats", now=clock) == Wrote("", "", 56.0)
    assert "Secure" not in str(cookie.write(second, secure=False))


@pytest.mark.parametrize("value", ["", "x", "eyJhIjoxfQ.AAAA", '"quoted"'])
def test_one_that_is_not_ours(value: str) -> None:
    """Nobody knows what that visitor wrote: reads stay on the primary, once, and the cookie is taken back."""
    cookie = Cookie(SECRET)
    found = cookie.read(f"{COOKIE}={value}")
    assert found.doubtful
    assert found.of("main") == Wrote()
    said = cookie.write(found, secure=False)
    assert said is not None
    assert said.startswith(f"{COOKIE}=; ")
    assert "Max-Age=0" in said
    found.wrote("main")
    assert "Max-Age=60" in str(cookie.write(found, secure=False))


def test_signed_by_somebody_else_or_by_an_older_key() -> None:
    """A key that is no longer the first one still verifies."""
    wrote = Recent()
    wrote.wrote("main")
    said = sent(Cookie("old").write(wrote, secure=False))
    assert Cookie("new").read(said).doubtful
    rotated = Cookie(["new", "old"])
    assert not rotated.read(said).doubtful
    assert Cookie("new").read(sent(rotated.write(wrote, secure=False))).of("main") is not None
    from itsdangerous import URLSafeSerializer

    for strange in ([1], {"main": 1}, {"main": ["a", "b", "c"]}, {"main": ["a", "b"]}):
        text = URLSafeSerializer("new", salt=recent.SALT).dumps(strange)
        assert Cookie("new").read(f"{COOKIE}={text}").doubtful
    assert not Cookie("new").read(f"x{COOKIE}=1").doubtful  # another cookie's name


def test_settings_that_can_not_be_right() -> None:
    """No secret, or no time."""
    for wrong in ("", [], ["new", ""]):
        with pytest.raises(ConfigurationError, match="secret="):
            Cookie(wrong)
    with pytest.raises(ConfigurationError, match="seconds="):
        Cookie(SECRET, seconds=0)


def test_outside_of_requests_nothing_is_followed() -> None:
    """A job says nothing, and is asked for nothing."""
    assert recent.current() is None
    recent.wrote("main")
    with recent.following(Recent()) as here:
        recent.wrote("main")
        assert here.of("main") is not None
    assert recent.current() is None


def test_both_middlewares_follow() -> None:
    """The same cookie out of either; what is no request passes."""

    def wsgi(environ: dict[str, Any], start: Any) -> list[bytes]:
        recent.wrote("main")
        start("200 OK", [("X-Own", "1")])
        return [b"ok"]

    answered: list[Any] = []
    followed = WsgiRecentWrites(wsgi, secret=SECRET)  # type: ignore[arg-type]
    followed({"wsgi.url_scheme": "https"}, lambda *said: answered.append(said))  # type: ignore[arg-type,return-value]
    ((_, headers),) = answered
    assert headers[0] == ("X-Own", "1")
    assert "Secure" in headers[1][1]
    known = Cookie(SECRET).read(sent(headers[1][1]))
    assert known.of("main") is not None

    seen: list[Any] = []

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        request = recent.current()
        seen.append(None if request is None else request.of("main"))
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    sent_out: list[Any] = []

    async def send(message: Any) -> None:
        sent_out.append(message)

    async def nothing() -> Any:
        raise AssertionError("nothing is received")

    app = AsgiRecentWrites(asgi, secret=SECRET)
    told = sent(headers[1][1]).encode()

    async def run() -> None:
        await app({"type": "http", "headers": [(b"cookie", b"a=b"), (b"cookie", told)]}, nothing, send)
        await app({"type": "http", "headers": [(b"cookie", f"{COOKIE}=forged".encode())]}, nothing, send)
        await app({"type": "lifespan"}, nothing, send)

    asyncio.run(run())
    assert seen[0].at == ""
    assert seen[1] == Wrote()
    assert seen[2] is None
    starts = [message for message in sent_out if message["type"] == "http.response.start"]
    assert starts[0]["headers"] == []
    assert b"Max-Age=0" in starts[1]["headers"][0][1]
