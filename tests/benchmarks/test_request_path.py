"""What a request costs, beside a no-op middleware of the same kind (measured as `beside.py` says).

The application answers nothing but an empty 200, so that a ratio is as bad as it can be: behind a framework the same
nanoseconds are lost in the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import pytest

from benchmarks.beside import Beside, NoOp, WsgiNoOp, asgi_round, in_state, wsgi_round
from readonly import Policy, SessionCookie, asgi, wsgi
from readonly.asgi import Receive, Scope, Send
from readonly.clock import boottime
from support.apps import HandSwitch, Request

pytestmark = pytest.mark.bench

REQUESTS = 2_000
COSTS = Beside("", rounds=15, width=58)

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
    switch = in_state(case.state)
    switch.guarded = case.guarded
    if case.leased:
        switch.monotonic = boottime
    return switch


# --- ASGI ----------------------------------------------------------------------------------------------------------


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
@pytest.mark.parametrize("kind", KINDS)
def test_cost_of_a_request(kind: str, case: Case) -> None:
    """No request costs more than twice its target."""
    candidates, a_round = KINDS[kind]
    COSTS.check(
        f"{kind} {case.name}",
        case.target,
        lambda: [a_round(app, case.request, REQUESTS, fresh=False) for app in candidates(case)],
    )


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterable[None]:
    """Print the table at the end."""
    yield
    COSTS.show()
