"""What the router knows, however an application is put together: mounts, hosts, included routers, classes, wrappers."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from readonly import Policy, Switch, reads, writes
from readonly_starlette import ReadOnlyMiddleware


@pytest.fixture
def switch() -> Iterator[Switch]:
    """A switch of its own."""
    switch = Switch.from_url("memory://")
    yield switch
    switch.close()


def view(request: Request) -> Response:
    """Answer."""
    return PlainTextResponse("done")


@reads
def search(request: Request) -> Response:
    """A POST that only reads."""
    return PlainTextResponse("found")


@writes
def ping(request: Request) -> Response:
    """A GET that writes."""
    return PlainTextResponse("noted")


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a view, as decorators do."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Views:
    """Views as methods of an object."""

    @reads
    async def search(self) -> str:
        """A POST that only reads."""
        return "found"

    @writes
    async def ping(self) -> str:
        """A GET that writes."""
        return "noted"


class Pages(HTTPEndpoint):
    """An endpoint of which one method writes though it is a GET, and one reads though it is a POST."""

    @writes
    async def get(self, request: Request) -> Response:
        """Write."""
        return PlainTextResponse("noted")

    @reads
    async def post(self, request: Request) -> Response:
        """Read."""
        return PlainTextResponse("found")


@writes
class Noted(HTTPEndpoint):
    """All of it writes, but for what says otherwise."""

    async def get(self, request: Request) -> Response:
        """Write."""
        return PlainTextResponse("noted")

    @reads
    async def post(self, request: Request) -> Response:
        """Read."""
        return PlainTextResponse("found")


class Inherits(Noted):
    """`writes` is inherited."""


INNER = [Route("/search", search, methods=["POST"]), Route("/ping", ping), Route("/plain", view, methods=["POST"])]


class Wrapped:
    """Middleware that tells what is inside, as most of it does."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def hidden(app: Any) -> Any:
    """Middleware that is a plain function, and tells nothing."""

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return middleware


def fastapi_with_routers() -> FastAPI:
    """Routers in routers, with prefixes; a router with its own views as methods; a mounted application."""
    app, outer, inner, methods = FastAPI(), APIRouter(prefix="/outer"), APIRouter(prefix="/inner"), APIRouter()
    views = Views()
    inner.add_api_route("/search/{word}", views.search, methods=["POST"])
    inner.add_api_route("/ping", views.ping)
    inner.add_api_route("/plain", lambda: "done", methods=["POST"], name="plain")
    methods.add_api_route("/search", functools.partial(views.search), methods=["POST"])
    outer.include_router(inner)
    outer.add_api_route("/ping", decorated(views.ping))
    outer.routes.append(Mount("/mounted", routes=INNER, name="mounted"))
    app.include_router(outer, prefix="/v1")
    app.include_router(methods, prefix="/methods")
    app.mount("/sub", Starlette(routes=INNER))
    return app


STARLETTE: list[Any] = [
    Route("/partial", functools.partial(search), methods=["POST"]),
    Route("/decorated", decorated(ping)),
    Route("/pages", Pages),
    Route("/noted", Noted),
    Route("/inherits", Inherits),
    Route("/items/{item:int}", ping),
    Route("/items/{item}", search, methods=["POST"]),
    Mount("/mount", routes=INNER, name="mount"),
    Mount("/router", app=Router(INNER)),
    Mount("/nested", routes=[Mount("/deep", app=Starlette(routes=INNER), name="deep")], name="nested"),
    Mount("/zipped", app=GZipMiddleware(Starlette(routes=INNER))),
    Mount("/layers", app=Wrapped(Wrapped(Router(INNER)))),
    Mount("/listed", routes=INNER, middleware=[Middleware(GZipMiddleware), Middleware(hidden)]),
    Mount("/static", app=hidden(Starlette(routes=[Route("/file", view)])), name="static"),
    Host("api.example.org", app=Router([*INNER, Route("/plain", view, methods=["POST"])]), name="api"),
    Host("{shop}.shops.example", app=Starlette(routes=INNER)),
]
POLICY = Policy(reads=["POST name:nested:deep:view", "POST name:api:view", "POST name:plain"])

ASKED = [
    ("starlette", "POST", "/partial", True),
    ("starlette", "GET", "/decorated", False),
    ("starlette", "GET", "/pages", False),
    ("starlette", "HEAD", "/pages", False),
    ("starlette", "POST", "/pages", True),
    ("starlette", "PUT", "/pages", False),
    ("starlette", "GET", "/noted", False),
    ("starlette", "POST", "/noted", True),
    ("starlette", "GET", "/inherits", False),
    ("starlette", "GET", "/items/7", False),
    ("starlette", "POST", "/items/seven", True),
    ("starlette", "GET", "/items/seven", True),  # which the router answers with 405
    *(
        ("starlette", "POST", f"/{at}/search", True)
        for at in ("mount", "router", "nested/deep", "zipped", "layers", "listed")
    ),
    *(
        ("starlette", "GET", f"/{at}/ping", False)
        for at in ("mount", "router", "nested/deep", "zipped", "layers", "listed")
    ),
    ("starlette", "POST", "/mount/plain", False),
    ("starlette", "POST", "/nested/deep/plain", True),
    ("starlette", "GET", "/static/file", True),
    ("starlette", "POST", "/static/file", False),
    ("starlette", "POST", "//api.example.org/search", True),
    ("starlette", "GET", "//api.example.org/ping", False),
    ("starlette", "POST", "//api.example.org/plain", True),
    ("starlette", "POST", "//a.shops.example/search", True),
    ("starlette", "GET", "//a.shops.example/ping", False),
    ("starlette", "POST", "//a.shops.example/plain", False),
    ("starlette", "POST", "//other.example/search", False),
    ("fastapi", "POST", "/v1/outer/inner/search/goal", True),
    ("fastapi", "GET", "/v1/outer/inner/ping", False),
    ("fastapi", "GET", "/v1/outer/ping", False),
    ("fastapi", "POST", "/v1/outer/inner/plain", True),
    ("fastapi", "POST", "/methods/search", True),
    ("fastapi", "POST", "/v1/mounted/search", True),
    ("fastapi", "GET", "/v1/mounted/ping", False),
    ("fastapi", "POST", "/v1/mounted/plain", False),
    ("fastapi", "POST", "/sub/search", True),
    ("fastapi", "GET", "/sub/ping", False),
    ("fastapi", "GET", "/openapi.json", True),
]


NOWHERE = ("//other.example/search",)


def listed(app: Any, switch: Switch) -> Any:
    """The middleware in the application's own list."""
    app.add_middleware(ReadOnlyMiddleware, switch=switch, policy=POLICY)
    return app


def around(app: Any, switch: Switch) -> Any:
    """The middleware around the application."""
    return ReadOnlyMiddleware(app, switch, policy=POLICY)


def around_layers(app: Any, switch: Switch) -> Any:
    """The middleware around the application, with others in between."""
    return ReadOnlyMiddleware(GZipMiddleware(Wrapped(app)), switch, policy=POLICY)


@pytest.mark.parametrize("place", [listed, around, around_layers])
def test_the_gate_knows_what_the_router_would_choose(switch: Switch, place: Any) -> None:
    """Every way to put an application together; asked while writable, so that the routes are there, and read-only."""
    clients = {
        kind: TestClient(place(app, switch))
        for kind, app in (("starlette", Starlette(routes=STARLETTE)), ("fastapi", fastapi_with_routers()))
    }
    for read_only in (False, True):
        if read_only:
            switch.on()
        for kind, method, path, passes in ASKED:
            host, _, rest = path[2:].partition("/") if path.startswith("//") else ("testserver", "", path[1:])
            answer = clients[kind].request(method, f"/{rest}", headers={"host": host})
            assert answer.status_code != 404 or path in NOWHERE
            refused = read_only and not passes
            assert (answer.status_code == 503) is refused, (method, path, answer.status_code)


# --- which application it is ---------------------------------------------------------------------------------------


def test_a_mounted_application_is_judged_by_its_own_routes(switch: Switch) -> None:
    """Not by those of the application around it, which has another view at the same place."""
    inner = Starlette(routes=[Route("/search", view, methods=["POST"]), Route("/find", search, methods=["POST"])])
    outer = Starlette(
        routes=[
            Mount("/api", app=ReadOnlyMiddleware(inner, switch)),
            Route("/search", search, methods=["POST"]),
            Mount("/hidden", app=ReadOnlyMiddleware(hidden(inner), switch)),
        ]
    )
    client = TestClient(outer)
    switch.on()
    assert client.post("/api/search").status_code == 503
    assert client.post("/api/find").status_code == 200
    assert client.post("/hidden/search").status_code == 503


def test_behind_a_function_in_the_same_list(switch: Switch) -> None:
    """It tells nothing of what is inside; the scope names the application, and that is this one."""
    app = Starlette(routes=INNER, middleware=[Middleware(ReadOnlyMiddleware, switch=switch), Middleware(hidden)])
    client = TestClient(app)
    switch.on()
    assert client.post("/search").status_code == 200
    assert client.get("/ping").status_code == 503


def test_routes_that_nobody_tells_of_are_a_warning(switch: Switch, caplog: pytest.LogCaptureFixture) -> None:
    """One, which says what to do; what the methods say holds all the same."""
    client = TestClient(ReadOnlyMiddleware(hidden(Starlette(routes=INNER)), switch))
    switch.on()
    with caplog.at_level(logging.WARNING, "readonly"):
        assert client.post("/search").status_code == 503
        assert client.get("/search").status_code == 405
    # Other threads may have warnings of their own.
    said = [record.getMessage() for record in caplog.records if "tells of no routes" in record.getMessage()]
    assert [one.count("own list, first") for one in said] == [1]


def test_a_root_path_with_mounts(switch: Switch) -> None:
    """Below a prefix that the server knows of."""
    app = Starlette(routes=STARLETTE, middleware=[Middleware(ReadOnlyMiddleware, switch=switch)])
    switch.on()
    for root in ("/shop", "/shop/eu"):
        client = TestClient(app, root_path=root)
        assert client.post(f"{root}/mount/search").status_code == 200
        assert client.get(f"{root}/nested/deep/ping").status_code == 503


def test_a_route_that_is_added_later(switch: Switch) -> None:
    """To an application that had none when the middleware was put around it."""
    app = Starlette()
    client = TestClient(ReadOnlyMiddleware(app, switch))
    assert client.post("/search").status_code == 404
    app.router.routes.append(Route("/search", search, methods=["POST"]))
    switch.on()
    assert client.post("/search").status_code == 200


# --- websockets ------------------------------------------------------------------------------------------------------


async def chat(websocket: WebSocket) -> None:
    """Say back what was said."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


@reads
async def scores(websocket: WebSocket) -> None:
    """Only tell."""
    await chat(websocket)


@reads
class Scores(WebSocketEndpoint):
    """Only tell."""

    encoding = "text"

    async def on_receive(self, websocket: WebSocket, data: str) -> None:
        """Say it back."""
        await websocket.send_text(data)


def sockets_in_starlette() -> Any:
    """Functions and a class."""
    return Starlette(
        routes=[WebSocketRoute("/chat", chat), WebSocketRoute("/scores", scores), WebSocketRoute("/class", Scores)]
    )


def sockets_in_fastapi() -> Any:
    """The same in an included router."""
    app, router = FastAPI(), APIRouter()
    router.add_api_websocket_route("/chat", chat)
    router.add_api_websocket_route("/scores", scores)
    router.add_websocket_route("/class", Scores)  # type: ignore[arg-type]  # a class, as Starlette takes them
    app.include_router(router)
    return app


@pytest.mark.parametrize("make", [sockets_in_starlette, sockets_in_fastapi])
def test_sockets(switch: Switch, make: Callable[[], Any]) -> None:
    """Those that are marked as reads stay open and are opened; others are closed at the switch, and refused then."""
    with TestClient(listed(make(), switch)) as client:
        with (
            client.websocket_connect("/chat") as closed,
            client.websocket_connect("/scores") as marked,
            client.websocket_connect("/class") as of_class,
        ):
            assert switch.inflight.count() == 1
            switch.on()
            with pytest.raises(WebSocketDisconnect) as gone:
                closed.receive_text()
            assert gone.value.code == 1012
            for socket in (marked, of_class):
                socket.send_text("goal")
                assert socket.receive_text() == "goal"
        with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/chat"):
            pytest.fail("this was to be refused")
        assert refused.value.status_code == 503
        assert refused.value.json()["code"] == "READ_ONLY"
        for path in ("/scores", "/class"):
            with client.websocket_connect(path) as socket:
                socket.send_text("goal")
                assert socket.receive_text() == "goal"


PREFLIGHT = {"Origin": "https://other.example", "Access-Control-Request-Method": "POST"}


def test_a_preflight_is_for_what_answers_other_origins(switch: Switch) -> None:
    """Whatever is marked or declared: the request that it asks about is refused when it comes, and can be read."""
    routes = [Route("/ping", ping), Route("/noted", Noted), Route("/cart", view)]
    cors = Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"])
    ours = Middleware(ReadOnlyMiddleware, switch=switch, policy=Policy(writes=["/cart"]))
    client = TestClient(Starlette(routes=routes, middleware=[ours, cors]))
    switch.on()
    for path in ("/ping", "/noted", "/cart"):
        asked = client.options(path, headers=PREFLIGHT)
        assert (asked.status_code, asked.headers["Access-Control-Allow-Origin"]) == (200, "*")
        refused = client.get(path, headers={"Origin": PREFLIGHT["Origin"]})
        assert refused.status_code == 503
        assert refused.headers["Access-Control-Allow-Origin"] == PREFLIGHT["Origin"]
        # Without what makes a preflight of it, also right after one.
        assert client.options(path).status_code == 503


def test_a_preflight_does_not_run_what_takes_every_method(switch: Switch) -> None:
    """An ASGI application in place of a view is handed whatever comes."""
    ran = []

    @writes
    class Counter:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            ran.append(scope["method"])
            await PlainTextResponse("counted")(scope, receive, send)

    ours = Middleware(ReadOnlyMiddleware, switch=switch)
    client = TestClient(Starlette(routes=[Route("/counter", Counter())], middleware=[ours]))
    assert client.options("/counter", headers=PREFLIGHT).status_code == 200
    switch.on()
    assert client.options("/counter", headers=PREFLIGHT).status_code == 503
    assert ran == ["OPTIONS"]
