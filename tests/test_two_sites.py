"""Two applications in one process, one inside the other, each behind a middleware with a switch of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from readonly import ReadOnlyError, asgi, wsgi
from readonly.context import current
from support.apps import HandSwitch, Request, asgi_scope, wsgi_environ

Ask = Callable[[Request], tuple[int, bytes]]


class Sites:
    """A news site that hands what is below /shop to a shop; the shop's handler does what the test says."""

    def __init__(self) -> None:
        self.news, self.shop = HandSwitch(), HandSwitch()
        for switch in (self.news, self.shop):
            switch.guarded = True
        self.seen: list[tuple[bool | None, bool | None]] = []
        self.refuses: HandSwitch | None = None

    def handle(self) -> int:
        """Note who may write, and have a database's guard refuse; return the status, as a framework would."""
        works = [current(switch.as_switch()) for switch in (self.news, self.shop)]
        news, shop = (None if work is None else work.may_write for work in works)
        self.seen.append((news, shop))
        if self.refuses is None:
            return 200
        work = current(self.refuses.as_switch())
        if work is not None:
            work.mark(ReadOnlyError(database="main"))
        return 500


def in_asgi(sites: Sites) -> Ask:
    """In ASGI."""

    async def shop(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": sites.handle(), "headers": []})
        await send({"type": "http.response.body", "body": b""})

    inner = asgi.ReadOnlyMiddleware(shop, sites.shop.as_switch())

    async def news(scope: Any, receive: Any, send: Any) -> None:
        await (inner if scope["path"].startswith("/shop") else shop)(scope, receive, send)

    outer = asgi.ReadOnlyMiddleware(news, sites.news.as_switch())

    def ask(request: Request) -> tuple[int, bytes]:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(cast(Any, outer(asgi_scope(request), receive, send)))
        return sent[0]["status"], sent[1]["body"]

    return ask


def in_wsgi(sites: Sites) -> Ask:
    """In WSGI."""

    def shop(environ: Any, start_response: Any) -> list[bytes]:
        start_response(f"{sites.handle()} Whatever", [])
        return [b""]

    inner: Any = wsgi.ReadOnlyMiddleware(cast(Any, shop), sites.shop.as_switch())

    def news(environ: Any, start_response: Any) -> Any:
        return (inner if environ["PATH_INFO"].startswith("/shop") else shop)(environ, start_response)

    outer: Any = wsgi.ReadOnlyMiddleware(cast(Any, news), sites.news.as_switch())

    def ask(request: Request) -> tuple[int, bytes]:
        statuses: list[int] = []
        result = outer(wsgi_environ(request), lambda status, headers, exc_info=None: statuses.append(int(status[:3])))
        body = b"".join(result)
        if hasattr(result, "close"):
            result.close()
        return statuses[-1], body

    return ask


@pytest.fixture(params=[in_asgi, in_wsgi])
def sites_and_ask(request: pytest.FixtureRequest) -> tuple[Sites, Ask]:
    """The two sites, and how to ask them."""
    sites = Sites()
    return sites, request.param(sites)


POST = Request("POST", "/shop/cart")


def test_each_guard_finds_its_own_request(sites_and_ask: tuple[Sites, Ask]) -> None:
    """Both admit while writable; what only the news have admitted says nothing to the shop's guard."""
    sites, ask = sites_and_ask
    assert ask(POST)[0] == 200
    assert ask(Request("POST", "/comments"))[0] == 200
    sites.shop.read_only()
    assert ask(Request("POST", "/comments"))[0] == 200
    assert ask(Request("GET", "/shop"))[0] == 200
    assert sites.seen == [(True, True), (True, None), (True, None), (None, False)]
    assert (sites.news.inflight.count(), sites.shop.inflight.count()) == (0, 0)


def test_the_site_that_is_read_only_refuses(sites_and_ask: tuple[Sites, Ask]) -> None:
    """One of them, and the other goes on."""
    sites, ask = sites_and_ask
    sites.shop.read_only()
    assert ask(POST)[0] == 503
    assert ask(Request("POST", "/comments"))[0] == 200
    sites.shop.writable()
    sites.news.read_only()
    assert ask(POST)[0] == 503
    assert len(sites.seen) == 1


def test_a_guard_s_refusal_is_answered_by_its_own_site(sites_and_ask: tuple[Sites, Ask]) -> None:
    """The shop's database in the shop: the shop's 503. In the news, which are writable: an error like any other."""
    sites, ask = sites_and_ask
    sites.shop.read_only()
    sites.refuses = sites.shop
    status, body = ask(Request("GET", "/shop"))
    assert (status, b"READ_ONLY" in body) == (503, True)
    assert ask(Request("POST", "/comments")) == (500, b"")
    assert sites.shop.tally.totals()["escaped"] == 1
    assert sites.news.tally.totals()["escaped"] == sites.news.tally.totals()["refused"] == 0
