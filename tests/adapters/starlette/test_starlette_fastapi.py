"""FastAPI: dependencies that count, and the refusals in its schema."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Form, HTTPException
from fastapi.responses import StreamingResponse
from starlette.testclient import TestClient

from readonly import Policy, SessionCookie, Switch, reads, rule, writes
from readonly.forms import form_without
from readonly_starlette import ReadOnlyMiddleware, document_refusals, writing


@pytest.fixture
def switch() -> Iterator[Switch]:
    """A switch of its own."""
    switch = Switch.from_url("memory://")
    yield switch
    switch.close()


def behind(app: FastAPI, switch: Switch, policy: Policy | None = None) -> TestClient:
    """Return a client of an application with the middleware; what the application raises is the server's to log."""
    app.add_middleware(ReadOnlyMiddleware, switch=switch, policy=policy)
    return TestClient(app, raise_server_exceptions=False)


# --- Depends(writing(switch)) ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("where", ["endpoint", "parameter", "router"])
def test_the_first_request_that_a_dependency_refuses_gets_the_503(switch: Switch, where: str, sync: bool) -> None:
    """Also if nothing was ever counted in this process: a GET, which the gate lets through, is no 500."""
    app, router = FastAPI(), APIRouter(dependencies=[Depends(writing(switch))] if where == "router" else [])
    ran: list[int] = []

    def work() -> str:
        ran.append(switch.inflight.count())
        return "done"

    async def awork(counted: None = Depends(writing(switch))) -> str:
        return work()

    def swork(counted: None = Depends(writing(switch))) -> str:
        return work()

    async def plain() -> str:
        return work()

    if where == "parameter":
        router.add_api_route("/count", swork if sync else awork)
    else:
        dependencies = [Depends(writing(switch))] if where == "endpoint" else []
        router.add_api_route("/count", work if sync else plain, dependencies=dependencies)
    app.include_router(router, prefix="/api")
    client = behind(app, switch)
    switch.on(message="Back at nine")
    refused = client.get("/api/count", headers={"accept": "application/json"})
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.json()["code"], refused.json()["detail"]) == ("READ_ONLY", "Back at nine")
    assert refused.headers["retry-after"]
    assert client.get("/api/count", headers={"accept": "text/html"}).text.startswith("<!doctype html>")
    assert ran == []
    switch.off()
    assert client.get("/api/count").status_code == 200
    assert (ran, switch.inflight.count()) == ([1], 0)


def test_a_dependency_inside_a_request_that_was_admitted(switch: Switch) -> None:
    """The site closes between the two: the request goes on, and is waited for as a whole."""
    app = FastAPI()
    done: list[int] = []

    async def switching() -> None:
        await switch.aon()

    @app.post("/import", dependencies=[Depends(switching), Depends(writing(switch))])
    async def run_import() -> str:
        done.append(switch.inflight.count())
        return "done"

    client = behind(app, switch)
    assert client.post("/import").status_code == 200
    assert (done, switch.inflight.count()) == ([2], 0)
    assert client.post("/import").status_code == 503
    assert done == [2]


def test_a_dependency_counts_until_the_response_has_gone(switch: Switch) -> None:
    """A stream, and what is done in the background after it, are part of the work."""
    app = FastAPI()
    counted: list[int] = []

    def note() -> None:
        counted.append(switch.inflight.count())

    @app.get("/stream", dependencies=[Depends(writing(switch))])
    async def stream(background: BackgroundTasks) -> StreamingResponse:
        async def parts() -> Any:
            for _ in range(2):
                note()
                await asyncio.sleep(0)
                yield b"x"

        background.add_task(note)
        return StreamingResponse(parts(), background=background)

    client = behind(app, switch)
    assert client.get("/stream").content == b"xx"
    assert counted[:2] == [1, 1]
    assert switch.inflight.count() == 0


def test_an_error_of_the_application_stays_one(switch: Switch) -> None:
    """Below a dependency that was let in: nothing is refused, and nothing is left in flight."""
    app = FastAPI()

    @app.get("/broken", dependencies=[Depends(writing(switch))])
    async def broken() -> None:
        raise LookupError

    @app.get("/missing", dependencies=[Depends(writing(switch))])
    async def missing() -> None:
        raise HTTPException(404)

    client = behind(app, switch)
    assert client.get("/broken").status_code == 500
    assert client.get("/missing").status_code == 404
    assert switch.inflight.count() == 0


def test_a_dependency_may_wait(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wait` is for what is worth it: the request is answered when the site is writable again."""
    app = FastAPI()
    waiting = threading.Event()
    awaited = switch.await_writable

    async def await_writable(timeout: float) -> bool:
        waiting.set()
        return await awaited(timeout)

    monkeypatch.setattr(switch, "await_writable", await_writable)

    @app.get("/count", dependencies=[Depends(writing(switch, wait=120.0))])
    async def count() -> str:
        return "done"

    client = behind(app, switch)
    switch.on()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.get, "/count")
        assert waiting.wait(60)
        switch.off()
        assert asked.result(60).status_code == 200


# --- the schema ------------------------------------------------------------------------------------------------------


def described() -> tuple[FastAPI, Policy]:
    """Return an application with every kind of operation, and its policy."""
    app, router = FastAPI(), APIRouter(prefix="/stories")

    @router.get("/{story}")
    async def story(story: int) -> str:
        return ""

    @router.post("/{story}/comments")
    async def comment(story: int) -> str:
        return ""

    @router.post("/search", name="search")
    @reads
    async def search() -> str:
        return ""

    @router.get("/{story}/like")
    @writes
    async def like(story: int) -> str:
        return ""

    @router.delete("/{story}", responses={503: {"description": "Ours"}})
    async def remove(story: int) -> str:
        return ""

    app.include_router(router)

    @app.post("/login")
    async def login(name: Annotated[str, Form()]) -> str:
        return ""

    @app.get("/callback/{provider}")
    async def callback(provider: str) -> str:
        return ""

    @app.post("/find")
    async def find(q: Annotated[str, Form()]) -> str:
        return ""

    @app.post("/compare", name="compare")
    async def compare() -> str:
        return ""

    @app.post("/hooks/in")
    async def hook() -> str:
        return ""

    @app.post("/logout")
    async def logout() -> str:
        return ""

    policy = Policy(
        exempt=["/hooks/*"],
        login=["/login", "GET /callback/{provider}"],
        logout=["/logout"],
        reads=["POST name:compare", rule("POST /find", when=form_without("save"))],
        session_cookies=[SessionCookie("session", signed=True)],
    )
    return app, policy


def statuses(schema: dict[str, Any]) -> dict[str, set[str]]:
    """Return what each operation says of refusals."""
    return {
        f"{method.upper()} {path}": {"403", "503"} & set(operation["responses"])
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    }


def test_the_schema_says_which_operations_are_refused() -> None:
    """As the gate judges them: by method, rules, route names and marks."""
    app, policy = described()
    document_refusals(app, policy=policy)
    assert statuses(app.openapi()) == {
        "GET /stories/{story}": set(),
        "POST /stories/{story}/comments": {"403", "503"},
        "POST /stories/search": set(),
        "GET /stories/{story}/like": {"403", "503"},
        "DELETE /stories/{story}": {"403", "503"},
        "POST /login": {"503"},
        "GET /callback/{provider}": {"503"},
        "POST /find": {"403", "503"},  # by its body: it may be refused
        "POST /compare": set(),
        "POST /hooks/in": set(),
        "POST /logout": set(),
    }


def test_what_the_schema_says_is_what_is_answered(switch: Switch) -> None:
    """Each operation that has the 503 is answered so, each other one is not, and the body is as described."""
    app, policy = described()
    document_refusals(app, policy=policy)
    client = behind(app, switch, policy)
    schema = client.get("/openapi.json").json()
    problem = schema["components"]["schemas"]["ReadOnlyProblem"]
    switch.on()
    for operation, said in statuses(schema).items():
        method, path = operation.split()
        answer = client.request(method, path.replace("{story}", "7").replace("{provider}", "x"), data={"save": "1"})
        assert (answer.status_code == 503) is ("503" in said), operation
        if answer.status_code == 503:
            document = answer.json()
            assert set(problem["required"]) <= set(document) <= set(problem["properties"])
            assert document["code"] in problem["properties"]["code"]["enum"]
            described_headers = schema["paths"]["/login"]["post"]["responses"]["503"]["headers"]
            assert {"Retry-After", "X-Read-Only"} <= {name for name in described_headers if name in answer.headers}


def test_what_an_operation_says_itself_stays() -> None:
    """The site knows better."""
    app, policy = described()
    document_refusals(app, policy=policy)
    assert app.openapi()["paths"]["/stories/{story}"]["delete"]["responses"]["503"]["description"] == "Ours"


def test_the_schema_is_made_once_and_follows_the_routes() -> None:
    """As FastAPI's own; an operation that is added later is in it, and nothing is added twice."""
    app, _ = described()
    plain = app.openapi()
    document_refusals(app)
    first = app.openapi()
    assert app.openapi() is first
    assert "ReadOnlyProblem" not in plain.get("components", {}).get("schemas", {})
    assert statuses(first)["POST /logout"] == {"503"}

    @app.put("/late")
    async def late() -> str:
        return ""

    app.openapi_schema = None
    assert statuses(app.openapi())["PUT /late"] == {"503"}


def test_a_schema_without_refusals_says_nothing() -> None:
    """An application that only reads."""
    app = FastAPI()

    @app.get("/")
    async def home() -> str:
        return ""

    document_refusals(app)
    assert "ReadOnlyProblem" not in str(app.openapi())
