"""The Starlette adapter: what the router knows reaches the gate, and templates and probes see the state."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.templating import Jinja2Templates
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from readonly import Policy, Switch, reads, writes
from readonly_starlette import ReadOnlyMiddleware, status_app, template_context, writing
from support.holding import PUBLIC, SCOPES, check, let_through


@pytest.fixture
def switch() -> Iterator[Switch]:
    """A switch of its own."""
    switch = Switch.from_url("memory://")
    yield switch
    switch.close()


async def plain(request: Request) -> Response:
    """Answer."""
    return PlainTextResponse(f"{request.method} {request.url.path}")


@reads
async def search(request: Request) -> Response:
    """A POST that only reads."""
    return PlainTextResponse("found")


@writes
async def ping(request: Request) -> Response:
    """A GET that writes."""
    return PlainTextResponse("noted")


class Comments(HTTPEndpoint):
    """A class with one method that only reads."""

    async def get(self, request: Request) -> Response:
        """Read."""
        return PlainTextResponse("comments")

    @reads
    async def post(self, request: Request) -> Response:
        """A preview."""
        return PlainTextResponse("preview")

    async def put(self, request: Request) -> Response:
        """Write."""
        return PlainTextResponse("written")


async def live(websocket: WebSocket) -> None:
    """Say hello."""
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close()


ROUTES = [
    Route("/", plain, methods=["GET", "POST"]),
    Route("/search", search, methods=["POST"]),
    Route("/ping", ping),
    Route("/comments", Comments),
    Route("/compare", plain, methods=["POST"], name="compare"),
    WebSocketRoute("/live", live, name="live"),
    Mount(
        "/api",
        name="api",
        routes=[
            Route("/compare", plain, methods=["POST"], name="compare"),
            Route("/search/{word}", search, methods=["POST"]),
            Mount("/deep", routes=[Route("/ping", ping)]),
        ],
    ),
]
POLICY = Policy(reads=["POST name:compare", "WEBSOCKET name:live"])


def starlette_inside(switch: Switch) -> Any:
    """The middleware in the application's own list."""
    return Starlette(routes=ROUTES, middleware=[Middleware(ReadOnlyMiddleware, switch=switch, policy=POLICY)])


def starlette_outside(switch: Switch) -> Any:
    """The middleware around the application."""
    return ReadOnlyMiddleware(Starlette(routes=ROUTES), switch, policy=POLICY)


def fastapi_inside(switch: Switch) -> Any:
    """The same routes in FastAPI."""
    app = FastAPI(routes=ROUTES)
    app.add_middleware(ReadOnlyMiddleware, switch=switch, policy=POLICY)
    return app


@pytest.mark.parametrize("make", [starlette_inside, starlette_outside, fastapi_inside])
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("POST", "/", 503),
        ("POST", "/search", 200),
        ("GET", "/ping", 503),
        ("HEAD", "/ping", 503),
        ("GET", "/comments", 200),
        ("POST", "/comments", 200),
        ("PUT", "/comments", 503),
        ("POST", "/compare", 200),
        ("POST", "/api/compare", 503),  # its name is api:compare
        ("POST", "/api/search/goal", 200),
        ("GET", "/api/deep/ping", 503),
        ("POST", "/nowhere", 503),
        ("GET", "/nowhere", 404),
    ],
)
def test_what_the_router_knows_decides(switch: Switch, make: Any, method: str, path: str, status: int) -> None:
    """Marks on functions, classes and methods, and names of routes, also in mounts, inside and outside."""
    with TestClient(make(switch)) as client:
        free = client.request(method, path)
        assert free.status_code in (200, 404, 405)
        switch.on()
        answer = client.request(method, path)
        assert answer.status_code == status
        assert answer.headers["x-read-only"] == "true"


@pytest.mark.parametrize("make", [starlette_inside, starlette_outside])
def test_a_websocket_declared_by_its_routes_name(switch: Switch, make: Any) -> None:
    """A websocket may be a read by name."""
    with TestClient(make(switch)) as client:
        switch.on()
        with client.websocket_connect("/live") as socket:
            assert socket.receive_text() == "hello"


def test_a_mark_counts_below_a_root_path(switch: Switch) -> None:
    """Served below a prefix, rules and routes are relative to it."""
    with TestClient(starlette_inside(switch), root_path="/shop") as client:
        switch.on()
        assert client.post("/shop/search").status_code == 200
        assert client.get("/shop/ping").status_code == 503


def test_a_fastapi_dependency_counts_and_refuses(switch: Switch) -> None:
    """`Depends(writing(switch))` is counted while it runs, and refused with the 503 where the gate let it through."""
    app = FastAPI()
    app.add_middleware(ReadOnlyMiddleware, switch=switch, policy=Policy(reads=["POST /import"]))
    counted: list[int] = []

    @app.post("/import", dependencies=[Depends(writing(switch))])
    async def run_import() -> str:
        counted.append(switch.inflight.count())
        return "done"

    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.post("/import").status_code == 200
        assert counted == [1]
        assert switch.inflight.count() == 0
        switch.on()
        refused = client.post("/import")
        assert refused.status_code == 503
        assert refused.json()["code"] == "READ_ONLY"
        assert counted == [1]


def test_templates_see_the_state(switch: Switch, tmp_path: Path) -> None:
    """The context processor gives templates what visitors may see."""
    (tmp_path / "page.html").write_text("{{ readonly.read_only }} {{ readonly.message }}")
    templates = Jinja2Templates(tmp_path, context_processors=[template_context(switch)])

    async def page(request: Request) -> Response:
        return templates.TemplateResponse(request, "page.html")

    app = Starlette(
        routes=[Route("/", page)], middleware=[Middleware(ReadOnlyMiddleware, switch=switch, policy=Policy())]
    )
    with TestClient(app) as client:
        assert client.get("/").text == "False "
        switch.on(reason="INC-441", message="<b>moving</b>")
        assert client.get("/").text == "True &lt;b&gt;moving&lt;/b&gt;"


def test_a_banner_that_needs_no_template(switch: Switch, tmp_path: Path) -> None:
    """A window that comes, in the visitor's language; HTML that is escaped already."""
    (tmp_path / "page.html").write_text("{{ readonly.banner }}")
    templates = Jinja2Templates(tmp_path, context_processors=[template_context(switch)])

    async def page(request: Request) -> Response:
        return templates.TemplateResponse(request, "page.html")

    app = Starlette(routes=[Route("/", page)], middleware=[Middleware(ReadOnlyMiddleware, switch=switch)])
    with TestClient(app) as client:
        assert client.get("/").text == ""
        switch.schedule(datetime.now(UTC) + timedelta(minutes=9), lasting=timedelta(hours=1), message="<i>new</i>")
        answer = client.get("/", headers={"Accept-Language": "de"})
        assert 'data-readonly-banner="announced" lang="de"' in answer.text
        assert "&lt;i&gt;new&lt;/i&gt;" in answer.text
        assert answer.headers["X-Read-Only-From"]


@pytest.mark.parametrize("scope", SCOPES)
def test_the_banner_of_a_bypass_is_its_holders(switch: Switch, tmp_path: Path, scope: tuple[str, ...]) -> None:
    """By a request as a browser sends it; a page that everybody may keep is then one that nobody else may."""
    (tmp_path / "page.html").write_text("{{ readonly.banner }}")
    templates = Jinja2Templates(tmp_path, context_processors=[template_context(switch)])

    async def page(request: Request) -> Response:
        return templates.TemplateResponse(request, "page.html", headers={"Cache-Control": PUBLIC})

    app = Starlette(routes=[Route("/", page)], middleware=[Middleware(ReadOnlyMiddleware, switch=switch)])
    with TestClient(app) as client:
        holder = let_through(switch, *scope)

        def get(cookie: str) -> tuple[str, Any]:
            answer = client.get("/", headers={"Cookie": cookie} if cookie else {})
            return answer.text, answer.headers

        check(get, holder)


@pytest.mark.parametrize("mount", ["/-/readonly", ""])
def test_probes_can_be_mounted(switch: Switch, mount: str) -> None:
    """Readiness and status are routes of an application; read-only itself fails no probe."""
    app = Starlette(
        routes=[Mount(mount, app=status_app(switch))],
        middleware=[Middleware(ReadOnlyMiddleware, switch=switch, policy=Policy())],
    )
    with TestClient(app) as client:
        assert client.get("/-/readonly/ready").json() == {"ready": True, "mode": "writable"}
        switch.on(reason="INC-441", message="moving")
        ready = client.get("/-/readonly/ready")
        assert (ready.status_code, ready.json()) == (200, {"ready": True, "mode": "read-only"})
        status = client.get("/-/readonly/status")
        assert status.json() == {"mode": "read-only", "read_only": True, "expected_end": None, "message": "moving"}
        assert status.headers["cache-control"] == "no-store"
        assert "INC-441" not in status.text


def test_the_middleware_says_that_it_is_web(switch: Switch) -> None:
    """A process behind a middleware reports the role `web`."""
    with TestClient(starlette_inside(switch)) as client:
        client.get("/")
        assert [m.role for m in switch.members()] == ["web"]


def test_a_view_that_is_marked_after_the_middleware_was_made(switch: Switch) -> None:
    """Views may be imported late: the mark counts from then on, writable (it is drained) and read-only (refused)."""
    counted: list[int] = []

    async def late(request: Request) -> Response:
        counted.append(switch.inflight.count())
        return PlainTextResponse("noted")

    app = Starlette(routes=[Route("/late", late)])
    with TestClient(ReadOnlyMiddleware(app, switch, policy=Policy())) as client:
        client.get("/late")
        writes(late)
        client.get("/late")
        assert counted[-1] == 1
        switch.on()
        assert client.get("/late").status_code == 503
