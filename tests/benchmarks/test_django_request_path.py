"""What a request costs a Django project with the middleware, beside one with a middleware that does nothing.

Small views behind a URLconf of ordinary size (measured as `beside.py` says), under WSGI and under ASGI. A refusal is
compared with what a site would write by hand: a middleware that returns a static 503.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from benchmarks.beside import Beside, Round, in_state, wsgi_round
from support.apps import Request

if importlib.util.find_spec("django") is None:
    pytest.skip("Django is not installed", allow_module_level=True)

from support.django_site import SETTINGS, configure

configure()

from asgiref.sync import iscoroutinefunction, markcoroutinefunction  # noqa: E402
from django.core.handlers.asgi import ASGIHandler  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.urls import path  # noqa: E402

from readonly_django import conf  # noqa: E402

pytestmark = pytest.mark.bench

REQUESTS = 100
COSTS = Beside("Django", rounds=10)
OURS = "readonly_django.middleware.ReadOnlyMiddleware"

GET, POST = Request("GET", "/articles/7"), Request("POST", "/articles/7/comments")
ORDINARY = [each for each in SETTINGS["MIDDLEWARE"] if "Csrf" not in each]


def words(request: HttpRequest, **_: Any) -> HttpResponse:
    """Answer."""
    return HttpResponse("words")


async def awords(request: HttpRequest, **_: Any) -> HttpResponse:
    """Answer, as a coroutine."""
    return HttpResponse("words")


urlpatterns = [
    *(path(f"part{number}/<str:name>/<int:page>", words) for number in range(50)),
    path("articles/<int:number>", words),
    path("articles/<int:number>/comments", words),
    path("async/<int:number>", awords),
]


class NoOp:
    """A middleware that does nothing, as most are written."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self.awaited(request) if self.is_async else self.answer(request)

    def answer(self, request: HttpRequest) -> Any:
        """Hand it on."""
        return self.get_response(request)

    async def awaited(self, request: HttpRequest) -> Any:
        """Hand it on."""
        return await self.get_response(request)


class ByHand(NoOp):
    """A middleware that refuses."""

    def answer(self, request: HttpRequest) -> Any:
        """Refuse."""
        response = HttpResponse('{"detail": "The site is read-only at the moment."}', status=503)
        response.headers["Retry-After"] = "60"
        response.headers["Cache-Control"] = "no-store"
        response._has_been_logged = True  # type: ignore[attr-defined]
        return response


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        name: What is measured.
        request: What is asked.
        state: What the switch says.
        target: The ratio that is aimed at, or None for a line that is only shown.
        stack: Django's usual middleware is behind it.
        refused: Compared with a refusal by hand, instead of the middleware that does nothing.
        asgi: Under ASGI.
    """

    name: str
    request: Request
    state: str
    target: float | None
    stack: bool = False
    refused: bool = False
    asgi: bool = False


CASES = [
    Case("writable GET", GET, "writable", 1.05),
    Case("writable GET, with sessions and messages", GET, "writable", 1.05, stack=True),
    Case("writable POST, counted", POST, "writable", 1.25),
    Case("read-only GET, resolved twice", GET, "read-only", 3.0),
    Case("read-only GET, with sessions and messages", GET, "read-only", 3.0, stack=True),
    Case("GET after off", GET, "over", None),
    Case("refused POST", POST, "read-only", None, refused=True),
    Case("writable GET, ASGI", Request("GET", "/async/7"), "writable", 1.05, asgi=True),
    Case("writable POST, counted, ASGI", Request("POST", "/async/7"), "writable", 1.25, asgi=True),
    Case("read-only GET, ASGI", Request("GET", "/async/7"), "read-only", 3.0, asgi=True),
]


def made(case: Case, first: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a handler with a middleware in front, in the state of a case."""
    switch = in_state(case.state)
    # What the middleware has a real one do.
    switch.guarded = True
    switch.writing = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setattr(conf, "current_switch", switch.as_switch)
    middleware = [first, *(ORDINARY if case.stack else [])]
    with override_settings(MIDDLEWARE=middleware):
        return ASGIHandler() if case.asgi else WSGIHandler()


async def an_async_round(handler: Any, request: Request) -> float:
    """Return the same under ASGI."""
    scope = {"type": "http", "method": request.method, "path": request.path, "raw_path": request.path.encode()}
    scope |= {"query_string": b"", "headers": [(b"host", b"testserver")], "http_version": "1.1", "root_path": ""}
    gone = asyncio.Event()

    async def send(message: Any) -> None:
        pass

    begun = time.process_time_ns()
    for _ in range(REQUESTS):
        messages = [{"type": "http.request", "body": b""}]

        async def receive(messages: list[Any] = messages) -> Any:
            if not messages:
                await gone.wait()
            return messages.pop()

        await handler(dict(scope), receive, send)
    return (time.process_time_ns() - begun) / REQUESTS


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_cost_of_a_request_to_django(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request costs more than twice its target."""

    def a_round(first: str) -> Round:
        handler = made(case, first, monkeypatch)
        if case.asgi:
            return lambda: asyncio.run(an_async_round(handler, case.request))
        return wsgi_round(handler, case.request, REQUESTS)

    other = f"{__name__}.{'ByHand' if case.refused else 'NoOp'}"
    with override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"]):
        COSTS.check(case.name, case.target, lambda: [a_round(other), a_round(OURS)])


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Print the table at the end."""
    yield
    COSTS.show()
