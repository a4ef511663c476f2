"""The cookie of Starlette's own SessionMiddleware is found without being listed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from itsdangerous import TimestampSigner
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from readonly import Policy, SessionCookie, Switch
from readonly_starlette import ReadOnlyMiddleware
from readonly_starlette.sessions import session_cookies


@pytest.fixture
def switch() -> Iterator[Switch]:
    """A switch of its own."""
    switch = Switch.from_url("memory://")
    yield switch
    switch.close()


async def login(request: Request) -> Response:
    """Sign in."""
    request.session["name"] = "ada"
    return JSONResponse("in")


async def who(request: Request) -> Response:
    """Say who is signed in."""
    return JSONResponse(request.session.get("name"))


ROUTES = [Route("/login", login, methods=["POST"]), Route("/", who, methods=["GET", "POST"])]
OPTIONS: dict[str, Any] = {
    "secret_key": "key",
    "session_cookie": "sid",
    "path": "/shop",
    "domain": "shop.example",
    "max_age": 60,
    "https_only": True,
}
FOUND = SessionCookie("sid", path="/shop", domain="shop.example", max_age_seconds=60, signed=True)


@pytest.mark.parametrize(
    ("app", "found"),
    [
        (Starlette(), []),
        (Starlette(middleware=[Middleware(SessionMiddleware, secret_key="key")]), ["session"]),
        (Starlette(middleware=[Middleware(SessionMiddleware, "key", "sid")]), ["sid"]),
        (GZipMiddleware(SessionMiddleware(Starlette(), "key")), ["session"]),
        (
            Starlette(
                middleware=[
                    Middleware(GZipMiddleware),
                    Middleware(SessionMiddleware, "a"),
                    Middleware(SessionMiddleware, "b", "c"),
                ]
            ),
            ["session", "c"],
        ),
        (lambda scope, receive, send: None, []),
    ],
)
def test_where_it_is_found(app: Any, found: list[str]) -> None:
    """In the list of an application and in what is put around it."""
    assert [cookie.name for cookie in session_cookies(app)] == found


def test_it_is_expired_as_it_is_set() -> None:
    """Or no browser would."""
    assert session_cookies(Starlette(middleware=[Middleware(SessionMiddleware, **OPTIONS)])) == [FOUND]
    partitioned = SessionMiddleware(Starlette(), "key")
    partitioned.security_flags += "; partitioned"
    assert session_cookies(partitioned)[0].partitioned


def inside(switch: Switch, policy: Policy | None) -> Any:
    """First in the list, as the page says."""
    return Starlette(
        routes=ROUTES,
        middleware=[
            Middleware(ReadOnlyMiddleware, switch=switch, policy=policy),
            Middleware(GZipMiddleware),
            Middleware(SessionMiddleware, secret_key="key"),
        ],
    )


def outside(switch: Switch, policy: Policy | None) -> Any:
    """Around the application."""
    app = Starlette(routes=ROUTES, middleware=[Middleware(SessionMiddleware, secret_key="key")])
    return ReadOnlyMiddleware(app, switch, policy=policy)


@pytest.mark.parametrize("make", [inside, outside])
def test_a_session_ends_that_nobody_listed(switch: Switch, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While read-only the visitor is anonymous, and after it the session from before has ended; a new one lives."""
    with TestClient(make(switch, Policy(login=["/login"]))) as client:
        assert client.post("/login").status_code == 200
        old = client.cookies["session"]
        assert client.get("/").json() == "ada"
        switch.on(expected=timedelta(minutes=5))
        assert client.get("/").json() is None
        assert client.post("/login").status_code == 503
        switch.off()
        client.cookies.set("session", old)
        assert client.get("/").json() is None
        client.cookies.clear()
        # Signed to the second: one of the very second of `on` is taken for one from before it.
        now = int(time.time()) + 2
        monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda self: now)
        client.post("/login")
        assert client.get("/").json() == "ada"


@pytest.mark.parametrize(
    "policy",
    [Policy(sessions="keep"), Policy(session_cookies=[SessionCookie("other", signed=True)])],
    ids=["kept", "others are named"],
)
def test_what_the_policy_says_holds(switch: Switch, policy: Policy) -> None:
    """Who wants sessions kept says so; who names cookies has named them all."""
    with TestClient(inside(switch, policy)) as client:
        client.post("/login")
        switch.on()
        assert client.get("/").json() == "ada"
