"""What a request costs a Starlette application with the adapter, beside one with a middleware that does nothing.

Small endpoints behind a router of ordinary size (measured as `beside.py` says). A refusal is compared with what a site
would write by hand: a middleware that sends a static 503.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.beside import Beside, NoOp, Round, asgi_round, in_state
from readonly import writes
from readonly_starlette import ReadOnlyMiddleware
from support.apps import Request

pytestmark = pytest.mark.bench

REQUESTS = 150
COSTS = Beside("Starlette", rounds=10)

COOKIE = (("Cookie", "theme=dark; session=x.y.z"),)
GET, POST = Request("GET", "/articles/7"), Request("POST", "/articles/7/comments")
SIGNED_IN = Request("GET", "/articles/7", headers=COOKIE)


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        name: What is measured.
        request: What is asked.
        state: What the switch says.
        target: The ratio that is aimed at, or None for a line that is only shown.
        marked: Some endpoint of the process is marked `@writes`.
        refused: Compared with a refusal by hand, instead of the middleware that does nothing.
        sessions: Starlette's sessions are behind it.
    """

    name: str
    request: Request
    state: str
    target: float | None
    marked: bool = False
    refused: bool = False
    sessions: bool = False


CASES = [
    Case("writable GET", GET, "writable", 1.0),
    Case("writable GET of somebody signed in", SIGNED_IN, "writable", 1.0, sessions=True),
    Case("writable GET, where some endpoint is marked", GET, "writable", None, marked=True),
    Case("writable POST, routed and counted", POST, "writable", 1.25),
    Case("read-only GET", GET, "read-only", 3.0),
    Case("read-only GET of somebody signed in", SIGNED_IN, "read-only", 3.0, sessions=True),
    Case("GET after off", GET, "over", None, sessions=True),
    Case("refused POST", POST, "read-only", None, refused=True),
]


class ByHand:
    """A middleware that refuses."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"Retry-After": "60", "Cache-Control": "no-store"}
        answer = JSONResponse({"detail": "The site is read-only at the moment."}, 503, headers)
        await answer(scope, receive, send)


async def words(request: StarletteRequest) -> PlainTextResponse:
    """Answer."""
    return PlainTextResponse("words")


def site(*first: Middleware, case: Case, marked: bool = False) -> Starlette:
    """Return an application of ordinary size."""
    sessions = [Middleware(SessionMiddleware, secret_key="key")] if case.sessions else []
    return Starlette(
        routes=[
            Mount("/parts", routes=[Route(f"/part{number}/{{name}}/{{page:int}}", words) for number in range(25)]),
            *(Route(f"/page{number}/{{name}}", words) for number in range(25)),
            Route("/articles/{number:int}", words),
            Route("/articles/{number:int}/comments", words, methods=["POST"]),
            *([Route("/ping", writes(lambda request: None))] if marked else []),
        ],
        middleware=[*first, *sessions],
    )


def ours(case: Case) -> Starlette:
    """Return that application with the adapter, in the state of a case."""
    return site(Middleware(ReadOnlyMiddleware, switch=in_state(case.state).as_switch()), case=case, marked=case.marked)


def others(case: Case) -> Starlette:
    """Return it with the middleware that does nothing, or that refuses by hand."""
    return site(Middleware(ByHand if case.refused else NoOp), case=case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_cost_of_a_request_to_starlette(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request costs more than twice its target."""
    # A mark counts for the whole process, and other tests have set some.
    monkeypatch.setattr("readonly.marks._seen_marks", set())

    def candidates() -> list[Round]:
        return [asgi_round(app, case.request, REQUESTS) for app in (site(case=case), others(case), ours(case))]

    COSTS.check(case.name, case.target, candidates)


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Print the table at the end."""
    yield
    COSTS.show()
