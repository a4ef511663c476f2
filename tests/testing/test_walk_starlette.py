"""The walk over a Starlette application: what was planted is found, and a clean site passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

from readonly import reads
from readonly.testing import Kind, Visitor, Walk, recorded_writes, walk
from readonly_starlette import ReadOnlyMiddleware
from readonly_starlette.testing import routes, visitor
from testing.shop import EXAMPLES, POLICY, Shop, opened


def site(shop: Shop) -> Starlette:
    """The shop on Starlette."""

    def front(request: Request) -> Response:
        return PlainTextResponse(f"{shop.front()}, {request.session.get('who', 'nobody')}")

    def item(request: Request) -> Response:
        found = shop.item(request.path_params["number"])
        return PlainTextResponse(found or "no such item", 200 if found else 404)

    def buy(request: Request) -> Response:
        return PlainTextResponse(shop.buy(request.path_params["number"]))

    def cart(request: Request) -> Response:
        return PlainTextResponse(shop.cart(request.path_params["number"]))

    @reads
    async def search(request: Request) -> Response:
        async with request.form() as form:
            return PlainTextResponse(shop.search(str(form["words"])))

    async def export(request: Request) -> Response:
        return PlainTextResponse(f"{shop.export()} {(await request.json())['since']}")

    async def login(request: Request) -> Response:
        request.session["who"] = "sam"
        return RedirectResponse("/", 303)

    def health(request: Request) -> Response:
        return PlainTextResponse(shop.health())

    return Starlette(
        routes=[
            Route("/", front, name="front"),
            Route("/items/{number:int}", item, name="item"),
            Route("/items/{number:int}", buy, methods=["POST"], name="buy"),
            Mount("/cart", name="cart", routes=[Route("/{number:int}", cart, name="add")]),
            Route("/search", search, methods=["POST"], name="search"),
            Route("/export", export, methods=["POST"], name="export"),
            Route("/login", login, methods=["POST"], name="login"),
            Route("/healthz", health, name="health"),
        ],
        middleware=[
            Middleware(ReadOnlyMiddleware, switch=shop.switch, policy=POLICY),
            Middleware(SessionMiddleware, secret_key="only for tests"),
        ],
    )


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is closed after the test."""
    with ExitStack() as stack:
        yield stack


def visitors(app: Starlette, stack: ExitStack) -> dict[str, Visitor]:
    """Somebody, and somebody who has logged in."""
    known, stranger = (stack.enter_context(TestClient(app)) for _ in range(2))
    assert known.post("/login", follow_redirects=False).status_code == 303
    return {"anonymous": visitor(stranger), "logged in": visitor(known)}


def walked(stack: ExitStack, folder: Path, *planted: str, guarded: bool = True, **more: Any) -> Walk:
    """Walk through the shop with these faults."""
    shop = stack.enter_context(opened(folder, *planted, guarded=guarded))
    app = site(shop)
    people = visitors(app, stack)
    return walk(routes(app), shop.switch, people, examples=EXAMPLES, witnesses=[recorded_writes(shop.engine)], **more)


def test_a_clean_site_passes(stack: ExitStack, tmp_path: Path) -> None:
    """Every route is asked by both visitors; what is incidental is dropped, and the site is writable again."""
    with opened(tmp_path) as shop:
        app = site(shop)
        people = visitors(app, stack)
        found = walk(routes(app), shop.switch, people, examples=EXAMPLES, witnesses=[recorded_writes(shop.engine)])
        assert found.check() is found
        assert (found.routes, found.served, found.refused) == (8, 12, 4)
        assert not shop.switch.state.read_only
        assert shop.sessions().execute(shop_views()).scalar_one() == 0


def shop_views() -> Any:
    """The question how often the item was looked at."""
    from sqlalchemy import text

    return text("SELECT views FROM item")


@pytest.mark.parametrize("guarded", [True, False])
def test_a_get_that_writes_is_found(stack: ExitStack, tmp_path: Path, guarded: bool) -> None:
    """With the guard its write is refused, without one it takes place; both are told, with the line to add."""
    found = walked(stack, tmp_path, "cart", guarded=guarded)
    told = {finding.route.path: finding for finding in found.findings if finding.route}
    assert set(told) == ({"/cart/{number}"} if guarded else {"/cart/{number}", "/items/{number}"})
    finding = told["/cart/{number}"]
    assert (finding.kind, finding.method) == (Kind.WRITES_ON_READ if guarded else Kind.WROTE, "GET")
    assert finding.visitors == ("anonymous", "logged in")
    assert [write.table for write in finding.writes] == ["cart"]
    with pytest.raises(AssertionError) as told_text:
        found.check()
    for line in (
        "GET /cart/{number} (cart:add)  [anonymous, logged in]",
        'writes=["GET /cart/{number}"]',
        'discard=["cart"]',
        "to cart in main: INSERT INTO cart (item) VALUES (?)",
        f"GET /cart/1 was answered with {503 if guarded else 200}",
    ):
        assert line in str(told_text.value)


def test_a_declared_read_that_writes_is_found(stack: ExitStack, tmp_path: Path) -> None:
    """The policy lets it through, and the guard stops it: the rule is wrong."""
    (finding,) = walked(stack, tmp_path, "export").findings
    assert (finding.kind, finding.method, str(finding.route)) == (
        Kind.WRITES_THOUGH_DECLARED,
        "POST",
        "/export (export)",
    )
    assert 'writes=["POST /export"]' in finding.text()


def test_a_page_that_fails_is_found(stack: ExitStack, tmp_path: Path) -> None:
    """A 500 that no guard has caused is told with what was raised."""
    (finding,) = walked(stack, tmp_path, "broken").findings
    assert (finding.kind, finding.route and finding.route.path) == (Kind.FAILED, "/healthz")
    assert "RuntimeError: nobody thought of that" in finding.text()


def test_what_is_routed_in_every_way() -> None:
    """Methods, mounts, classes, converters, included routers; what is mounted whole wants an example of a path."""
    from fastapi import APIRouter, FastAPI
    from starlette.endpoints import HTTPEndpoint

    class Comments(HTTPEndpoint):
        """A class."""

        def get(self, request: Request) -> Response:
            """Read."""
            return Response()

        @reads
        def post(self, request: Request) -> Response:
            """Preview."""
            return Response()

    async def live(socket: Any) -> None:
        """Refused before it is accepted."""

    router = APIRouter(prefix="/wares")

    @router.get("/{ware}")
    def ware(ware: str) -> str:
        return ware

    @router.websocket("/live")
    async def wares_live(websocket: Any) -> None:
        """Refused as well."""

    app = FastAPI(openapi_url=None)
    app.include_router(router, prefix="/api")
    app.mount(
        "/{lang}",
        Starlette(
            routes=[
                Route("/comments", Comments),
                Route("/files/{rest:path}", Comments, methods=["PUT"]),
                WebSocketRoute("/live", live),
                Mount("/static", StaticFiles(directory="."), name="static"),
            ]
        ),
        name="inner",
    )
    found = {route.path: route for route in routes(app)}
    assert {path: route.methods for path, route in found.items()} == {
        "/api/wares/{ware}": ("GET",),
        "/{lang}/comments": ("GET", "POST"),
        "/{lang}/files/{rest:path}": ("PUT",),
        "/{lang}/static/{path:path}": ("GET",),
    }
    assert [route.rule("GET") for route in found.values()] == [
        "GET /api/wares/{ware}",
        "GET /{lang}/comments",
        "GET /{lang}/files/*",
        "GET /{lang}/static/*",
    ]
    assert found["/{lang}/comments"].marks == {"reads:POST"}
    assert found["/{lang}/static/{path:path}"].name == "inner:static"


def test_cookies_are_those_of_the_beginning(tmp_path: Path, stack: ExitStack) -> None:
    """An answer that ends the visitor's session ends it for nobody: every request is sent by the same somebody."""
    shop = stack.enter_context(opened(tmp_path))
    seen: list[str | None] = []

    async def logout(request: Request) -> Response:
        seen.append(request.session.pop("who", None))
        return PlainTextResponse("bye")

    app = site(shop)
    app.routes.append(Route("/logout", logout))
    send = visitors(app, stack)["logged in"]
    from readonly.testing import Request as Sent

    for _ in range(2):
        send(Sent("GET", "/logout"))
    assert seen == ["sam", "sam"]
