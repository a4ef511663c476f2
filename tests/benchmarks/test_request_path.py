"""What a request costs, beside a no-op middleware of the same kind, in one interleaved run.

The application answers nothing but an empty 200, so that a ratio is as bad as it can be: behind a framework the same
nanoseconds are lost in the noise. CPU time of this process; the best of several rounds, each of which runs every
candidate in turn, so that a busy machine is busy for all of them.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import pytest

from readonly import Policy, SessionCookie, asgi, wsgi
from readonly.asgi import Message, Receive, Scope, Send
from readonly.clock import boottime
from support.apps import HandSwitch, Request, asgi_scope, wsgi_environ

pytestmark = pytest.mark.bench

REQUESTS, ROUNDS = 2_000, 15
# Beyond twice a target something is broken; between the two it is a matter for `make bench` and its table.
TOLERANCE = 2.0

POLICY = Policy(
    exempt=["/healthz"],
    login=["/login", "GET /oauth/{provider}/callback"],
    logout=["/logout"],
    reads=["POST /search"],
    session_cookies=[SessionCookie("session", signed=True)],
)
BROWSER = (
    ("Host", "news.example"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-GB,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Connection", "keep-alive"),
)
GET, POST = Request("GET", "/articles/7"), Request("POST", "/articles/7/comments")
BROWSED = Request("POST", "/articles/7/comments", headers=(*BROWSER, ("Origin", "https://news.example")))
READ = Request("GET", "/articles/7", headers=BROWSER)
SIGNED_IN = Request("GET", "/articles/7", headers=(*BROWSER, ("Cookie", "theme=dark; session=x.y.z")))

RESULTS: dict[str, tuple[float, float | None, float, float]] = {}


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        name: What is measured.
        request: What is asked.
        state: What the switch says.
        target: The ratio that is aimed at, or None for a line that is only shown.
        policy: The site's.
        refused: Compared with a hand-written check that sends a static 503, instead of a no-op middleware.
        guarded: A database guard is installed.
        leased: The switch has a lease, so that its clock is one that runs through suspend.
    """

    name: str
    request: Request
    state: str
    target: float | None
    policy: Policy = Policy()
    refused: bool = False
    guarded: bool = False
    leased: bool = False


CASES = [
    Case("writable GET", GET, "writable", 1.0),
    Case("writable GET, with a policy and sessions", READ, "writable", 1.0, POLICY),
    Case("writable POST, counted", POST, "writable", 1.25),
    Case("writable POST, counted, with a lease", POST, "writable", 1.5, leased=True),
    Case("writable POST, with a policy and sessions", POST, "writable", None, POLICY),
    Case("read-only GET", GET, "read-only", 3.0),
    Case("read-only GET of a browser", READ, "read-only", 3.0),
    Case("read-only GET, with a policy and sessions", READ, "read-only", None, POLICY),
    Case("read-only GET of somebody signed in", SIGNED_IN, "read-only", None, POLICY),
    Case("read-only GET, guarded", READ, "read-only", None, guarded=True),
    Case("GET after off, anonymous", READ, "over", None, POLICY),
    Case("rehearsing GET", READ, "rehearsing", None, POLICY),
    Case("rehearsing GET of somebody signed in", SIGNED_IN, "rehearsing", None, POLICY),
    Case("rehearsing POST", BROWSED, "rehearsing", None, POLICY),
    Case("refused POST", POST, "read-only", 1.25, refused=True),
    Case("refused POST, negotiated", BROWSED, "read-only", 2.0, refused=True),
    Case("refused POST, with a policy and sessions", BROWSED, "read-only", None, POLICY, refused=True),
]


def switched(case: Case) -> HandSwitch:
    """Return a switch in the state of a case."""
    switch = HandSwitch()
    switch.guarded = case.guarded
    if case.leased:
        switch.monotonic = boottime
    if case.state == "read-only":
        switch.read_only(expected=timedelta(minutes=40))
    elif case.state == "over":
        switch.over()
    elif case.state == "rehearsing":
        switch.rehearsing()
    return switch


# --- ASGI ----------------------------------------------------------------------------------------------------------


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


class NoOp:
    """A middleware that does nothing, as most are written."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Flag:
    """What a process would keep by hand."""

    __slots__ = ("read_only",)

    def __init__(self, read_only: bool) -> None:
        self.read_only = read_only


UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
BODY = b'{"title": "Service Unavailable", "status": 503, "detail": "The site is read-only at the moment."}'


class ByHand:
    """What a site would write by itself on the evening before: a static 503."""

    def __init__(self, app: Any, flag: Flag) -> None:
        self.app = app
        self.flag = flag

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.flag.read_only and scope["type"] == "http" and scope["method"] in UNSAFE:
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(BODY)),
                (b"retry-after", b"60"),
                (b"cache-control", b"no-store"),
            ]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": BODY})
            return
        await self.app(scope, receive, send)


async def receive() -> Message:
    """Return an empty body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    """Take a message."""


def asgi_round(app: Any, request: Request) -> Callable[[], float]:
    """Return what measures one round: nanoseconds of CPU for each request."""
    scope = asgi_scope(request)

    async def work() -> float:
        begun = time.process_time_ns()
        for _ in range(REQUESTS):
            await app(scope, receive, send)
        return (time.process_time_ns() - begun) / REQUESTS

    return lambda: asyncio.run(cast(Any, work()))


def asgi_candidates(case: Case) -> tuple[Any, Any, Any]:
    """Return the bare application, what it is compared with, and ours."""
    other: Any = ByHand(asgi_app, Flag(read_only=True)) if case.refused else NoOp(asgi_app)
    ours = asgi.ReadOnlyMiddleware(asgi_app, switched(case).as_switch(), policy=case.policy)
    return asgi_app, other, ours


# --- WSGI ----------------------------------------------------------------------------------------------------------


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer nothing."""
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]


class WsgiNoOp:
    """A middleware that does nothing, as most are written."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        found: Iterable[bytes] = self.app(environ, start_response)
        return found


class WsgiByHand:
    """The same static 503."""

    def __init__(self, app: Any, flag: Flag) -> None:
        self.app = app
        self.flag = flag

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self.flag.read_only and environ["REQUEST_METHOD"] in UNSAFE:
            headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(BODY))),
                ("Retry-After", "60"),
                ("Cache-Control", "no-store"),
            ]
            start_response("503 Service Unavailable", headers)
            return [BODY]
        found: Iterable[bytes] = self.app(environ, start_response)
        return found


def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
    """Take a start."""
    return lambda data: None


def wsgi_round(app: Any, request: Request) -> Callable[[], float]:
    """Return what measures one round: nanoseconds of CPU for each request, read and closed as a server does."""
    environ = wsgi_environ(request)

    def work() -> float:
        begun = time.process_time_ns()
        for _ in range(REQUESTS):
            result = app(environ, start_response)
            for _part in result:
                pass
            if hasattr(result, "close"):
                result.close()
        return (time.process_time_ns() - begun) / REQUESTS

    return work


def wsgi_candidates(case: Case) -> tuple[Any, Any, Any]:
    """Return the bare application, what it is compared with, and ours."""
    other: Any = WsgiByHand(wsgi_app, Flag(read_only=True)) if case.refused else WsgiNoOp(wsgi_app)
    ours = wsgi.ReadOnlyMiddleware(cast(Any, wsgi_app), switched(case).as_switch(), policy=case.policy)
    return wsgi_app, other, ours


# --- measuring -----------------------------------------------------------------------------------------------------

KINDS: Mapping[str, tuple[Any, Any]] = {
    "ASGI": (asgi_candidates, asgi_round),
    "WSGI": (wsgi_candidates, wsgi_round),
}


def measure(kind: str, case: Case) -> float:
    """Return our cost as a multiple of the other's, best of all rounds, and keep it for the table."""
    candidates, make_round = KINDS[kind]
    rounds = [make_round(app, case.request) for app in candidates(case)]
    best = [float("inf")] * len(rounds)
    for _ in range(ROUNDS):
        for position, run in enumerate(rounds):
            best[position] = min(best[position], run())
    bare, other, ours = best
    RESULTS[f"{kind} {case.name}"] = (ours / other, case.target, other - bare, ours - bare)
    return ours / other


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
@pytest.mark.parametrize("kind", KINDS)
def test_cost_of_a_request(kind: str, case: Case) -> None:
    """No request costs more than twice its target."""
    if sys.gettrace() is not None or "coverage" in sys.modules:
        pytest.skip("measured without coverage")
    ratio = measure(kind, case)
    limit = TOLERANCE * case.target if case.target is not None else float("inf")
    for _ in range(2):
        # A machine that was busy for all rounds gets another chance: what is broken stays broken.
        if ratio <= limit:
            break
        ratio = min(ratio, measure(kind, case))
    assert ratio <= limit, f"{kind} {case.name}: {ratio:.2f} times the other, target {case.target}"


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterable[None]:
    """Print the table at the end."""
    yield
    print(f"\n\n{'':58}{'ratio':>7}{'target':>8}{'other adds':>13}{'ours adds':>12}")
    for name in sorted(RESULTS):
        ratio, target, other, ours = RESULTS[name]
        aim = f"{target:.2f}" if target is not None else "-"
        print(f"{name:58}{ratio:7.2f}{aim:>8}{other:10.0f} ns{ours:9.0f} ns")
