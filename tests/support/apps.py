"""Small applications in ASGI and WSGI, a client for each, and a switch that is set by hand."""

from __future__ import annotations

import asyncio
import io
import time
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import WSGIWarning, validator

from readonly import asgi, context, wsgi
from readonly.doubts import Doubts
from readonly.errors import ReadOnlyError
from readonly.follower import View
from readonly.inflight import InFlight
from readonly.policy import Policy
from readonly.record import Cause, Lift, Record, Rehearsal
from readonly.rehearsal_counts import Counts
from readonly.state import UNKNOWN, State
from readonly.switch import Switch
from readonly.tally import Tally
from support.asgi_validator import Message, Receive, Scope, Send, validated

Headers = Sequence[tuple[str, str]]
RECORD = Record(site="news", epoch=1, id="r", lineage="l", changed_at=datetime(2026, 3, 1, tzinfo=UTC))


class HandSwitch:
    """What a middleware uses of a switch, set by hand: no thread, no store."""

    site = "news"

    def __init__(self) -> None:
        self.view = View()
        self.inflight = InFlight()
        self.tally = Tally()
        self.rehearsed = Counts()
        self.doubts = Doubts()
        self.guarded = False
        self.looks = 0
        # The machine's clock, behind the store's.
        self.behind = timedelta(0)
        self.calls: list[str] = []
        # What the store says, and the view does not know yet: a look finds it.
        self.coming: State | None = None
        self._callbacks: list[Callable[[State], None]] = []
        self.monotonic = time.monotonic
        self.writable()

    def as_switch(self) -> Switch:
        """Return it for those who ask for the real one."""
        return cast(Switch, self)

    def latest(self) -> datetime:
        """Return the store's clock."""
        return datetime.now(UTC) + self.behind

    def lets_through(self, by: str) -> bool:
        """Return whether a bypass still lets anybody through."""
        return Switch.lets_through(self.as_switch(), by)

    # --- set by the test ------------------------------------------------------------------------------------------

    def set(self, state: State) -> None:
        """Take in a state, as the switch's thread does."""
        self.view.state = state
        self.view.open = not state.read_only and state.rehearsal is None
        self.view.admit_until = float("-inf") if state.read_only else float("inf")
        self.view.sessions_cut = state.sessions_ended_before("end") is not None
        for callback in self._callbacks:
            callback(state)

    def writable(self) -> None:
        """Never read-only so far."""
        self.set(State.at(datetime.now(UTC), RECORD))

    def unknown(self) -> None:
        """Never reached the store."""
        self.set(UNKNOWN)

    def read_only(
        self,
        *,
        for_: timedelta = timedelta(minutes=5),
        expected: timedelta | None = None,
        sessions: str | None = None,
        message: str = "",
    ) -> None:
        """Read-only since `for_` ago."""
        now = datetime.now(UTC)
        end = now + expected if expected is not None else None
        cause = Cause(
            id="c1", kind="operator", by="ann", since=now - for_, sessions=sessions, expected_end=end, message=message
        )
        self.set(State.at(now, replace(RECORD, epoch=2, causes=(cause,))))

    def rehearsing(self) -> None:
        """Writable, and every request is looked at."""
        now = datetime.now(UTC)
        going_on = Rehearsal("r1", "ann", now - timedelta(minutes=5), now + timedelta(hours=1))
        self.set(State.at(now, replace(RECORD, rehearsal=going_on)))

    def over(self, *, ago: timedelta = timedelta(minutes=5), undone: bool = False) -> None:
        """Writable again; it turned read-only `ago`."""
        now = datetime.now(UTC)
        lift = Lift(id="c1", at=now - ago / 2, by="ann", since=now - ago, undone=undone)
        self.set(State.at(now, replace(RECORD, epoch=3, lifted={"c1": lift})))

    # --- used by the middleware -----------------------------------------------------------------------------------

    def takes_role(self, role: str) -> None:
        self.calls.append(f"role {role}")

    def look(self) -> State:
        self.looks += 1
        if self.coming is not None:
            coming, self.coming = self.coming, None
            self.set(coming)
        return self.view.state

    async def alook(self) -> State:
        return self.look()

    def admit(self) -> State | None:
        if time.monotonic() < self.view.admit_until:
            return None
        state = self.look()
        return state if state.read_only else None

    async def aadmit(self) -> State | None:
        return self.admit()

    def on_change(self, callback: Callable[[State], None]) -> Callable[[], None]:
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def start(self) -> None:
        self.calls.append("start")

    def close(self) -> None:
        self.calls.append("close")


@dataclass
class Seen:
    """One request, as the application got it."""

    method: str
    path: str
    cookie: str | None
    authorization: str | None
    body: bytes = b""
    may_write: bool | None = None
    in_flight: int = 0


@dataclass
class Reply:
    """A response, as the client got it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    seen: list[Seen] = field(default_factory=list)
    body_was_read: bool = False

    def get(self, name: str) -> str | None:
        """Return a header's value; repeated ones are joined."""
        values = self.all(name)
        return ", ".join(values) if values else None

    def all(self, name: str) -> list[str]:
        """Return each value of a header."""
        return [value for found, value in self.headers if found.lower() == name.lower()]


@dataclass(frozen=True)
class Request:
    """A request, before anybody speaks ASGI or WSGI."""

    method: str = "GET"
    path: str = "/"
    headers: Headers = ()
    body: bytes = b""
    query: str = ""
    root: str = ""
    raw_path: str | None = None
    scheme: str = "http"
    client: str = "203.0.113.9"
    chunked: bool = False


@dataclass
class Behaviour:
    """What the application does with a request.

    Attributes:
        status: Of its response.
        headers: Of its response.
        parts: Of its response's body.
        reads: It reads the whole body.
        during: Called when it has begun.
        between: Called after each part but the last.
        escapes: Its database guard refuses a write.
        fails: It raises what the guard (or anybody) has raised: before, after, or instead of its response.
    """

    status: int = 200
    headers: Headers = (("Content-Type", "text/plain"),)
    parts: Sequence[bytes] = (b"hello",)
    reads: bool = True
    during: Callable[[], None] = lambda: None
    between: Callable[[], None] = lambda: None
    escapes: bool = False
    fails: str = ""


class Broken(Exception):
    """What an application raises."""


def innermost() -> context.Work | None:
    """Return the work that the calling code runs in, whatever switch that belongs to."""
    return next(iter(context._works.get()), None)


def _mark() -> None:
    work = innermost()
    if work is not None:
        work.mark(ReadOnlyError(database="main", table="views"))


class Site:
    """One application behind the middleware, in ASGI or WSGI; `ask` asks it, and checks every message."""

    kind = ""

    def __init__(self, switch: HandSwitch, policy: Policy | None = None, **options: Any) -> None:
        self.switch = switch
        self.behaviour = Behaviour()
        self.seen: list[Seen] = []
        self.policy = policy or Policy()
        self.options = options

    def ask(self, request: Request, *, check: bool = True) -> Reply:
        """Send a request and return the whole response."""
        raise NotImplementedError

    def _begin(self, method: str, path: str, cookie: str | None, authorization: str | None) -> Seen:
        work = innermost()
        seen = Seen(method, path, cookie, authorization, may_write=None if work is None else work.may_write)
        seen.in_flight = self.switch.inflight.count()
        self.seen.append(seen)
        self.behaviour.during()
        if self.behaviour.escapes:
            _mark()
        if self.behaviour.fails == "before":
            raise Broken
        return seen


class AsgiSite(Site):
    """The site in ASGI."""

    kind = "asgi"

    def __init__(self, switch: HandSwitch, policy: Policy | None = None, **options: Any) -> None:
        super().__init__(switch, policy, **options)
        inner = validated(self._app)
        self.app = validated(
            asgi.ReadOnlyMiddleware(cast(Any, inner), switch.as_switch(), policy=self.policy, **options)
        )

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        behaviour = self.behaviour
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        cookies = [value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"]
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        seen = self._begin(scope["method"], path, "; ".join(cookies) or None, headers.get("authorization"))
        if behaviour.reads:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                seen.body += message.get("body", b"")
                more = message.get("more_body", False)
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in behaviour.headers]
        await send({"type": "http.response.start", "status": behaviour.status, "headers": raw})
        parts = [b""] if scope["method"] == "HEAD" else list(behaviour.parts)
        for part in parts[:-1]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
            behaviour.between()
        await send({"type": "http.response.body", "body": parts[-1]})
        if behaviour.fails == "after":
            raise Broken

    def ask(self, request: Request, *, check: bool = True) -> Reply:
        """Send a request and return the whole response."""
        return asyncio.run(self.aask(request, check=check))

    async def aask(self, request: Request, *, check: bool = True, hang_up: bool = False) -> Reply:
        """Do the same on a running loop."""
        scope = asgi_scope(request)
        incoming: list[Message] = []
        chunks = [request.body[i : i + 65536] for i in range(0, len(request.body), 65536)] or [b""]
        for number, chunk in enumerate(chunks):
            more = hang_up or number < len(chunks) - 1
            incoming.append({"type": "http.request", "body": chunk, "more_body": more})
        received = 0
        reply = Reply(0, [], b"")
        before = len(self.seen)

        async def receive() -> Message:
            nonlocal received
            received += 1
            if received <= len(incoming):
                return incoming[received - 1]
            if hang_up:
                return {"type": "http.disconnect"}
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                reply.status = message["status"]
                reply.headers = [(n.decode(), v.decode("latin-1")) for n, v in message["headers"]]
            else:
                reply.body += message.get("body", b"")

        await self.app(scope, receive, send)
        reply.seen = self.seen[before:]
        reply.body_was_read = received > 0
        return reply


def asgi_scope(request: Request) -> Scope:
    """Return the scope that a server makes of a request."""
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers]
    if request.chunked:
        headers.append((b"transfer-encoding", b"chunked"))
    elif request.body:
        headers.append((b"content-length", str(len(request.body)).encode()))
    path = request.root + request.path
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.scheme,
        "path": path,
        "raw_path": (request.root + (request.raw_path or request.path)).encode(),
        "query_string": request.query.encode(),
        "root_path": request.root,
        "headers": headers,
        "client": (request.client, 1),
        "server": ("testserver", 80),
        "extensions": {},
    }


class Body(io.BytesIO):
    """A request's body that says whether somebody has read it."""

    was_read = False

    def read(self, size: int | None = -1, /) -> bytes:
        self.was_read = True
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        self.was_read = True
        return super().readline(size)


class WsgiSite(Site):
    """The site in WSGI."""

    kind = "wsgi"

    def __init__(self, switch: HandSwitch, policy: Policy | None = None, **options: Any) -> None:
        super().__init__(switch, policy, **options)
        self.checked = validator(
            cast(
                Any,
                wsgi.ReadOnlyMiddleware(
                    cast(Any, validator(cast(Any, self._app))), switch.as_switch(), policy=self.policy, **options
                ),
            )
        )
        self.unchecked = wsgi.ReadOnlyMiddleware(
            cast(Any, self._app), switch.as_switch(), policy=self.policy, **options
        )

    def _app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        behaviour = self.behaviour
        seen = self._begin(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"],
            environ.get("HTTP_COOKIE"),
            environ.get("HTTP_AUTHORIZATION"),
        )
        if behaviour.reads:
            length = int(environ.get("CONTENT_LENGTH") or -1)
            if length >= 0 or environ.get("wsgi.input_terminated"):
                seen.body = environ["wsgi.input"].read(length)
        headers = list(behaviour.headers)
        if not any(name == "Content-Type" for name, _ in headers):
            headers.append(("Content-Type", "text/plain"))
        start_response(f"{behaviour.status} Whatever", headers)
        parts = [b""] if environ["REQUEST_METHOD"] == "HEAD" else list(behaviour.parts)
        return self._parts(parts)

    def _parts(self, parts: list[bytes]) -> Iterable[bytes]:
        yield parts[0]
        for part in parts[1:]:
            self.behaviour.between()
            yield part
        if self.behaviour.fails == "after":
            raise Broken

    def ask(self, request: Request, *, check: bool = True) -> Reply:
        """Send a request and return the whole response."""
        environ = wsgi_environ(request)
        stream = environ["wsgi.input"]  # the validator puts one of its own around it
        before = len(self.seen)
        reply = Reply(0, [], b"")

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            reply.status, reply.headers = int(status[:3]), headers
            return lambda data: None

        with warnings.catch_warnings():
            # It knows the methods of its time.
            warnings.filterwarnings("ignore", "Unknown REQUEST_METHOD", WSGIWarning)
            result = (self.checked if check else self.unchecked)(environ, start_response)
        try:
            for part in result:
                reply.body += part
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        reply.seen = self.seen[before:]
        reply.body_was_read = stream.was_read
        return reply


def wsgi_environ(request: Request) -> dict[str, Any]:
    """Return the environ that a server makes of a request."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": request.root,
        "PATH_INFO": request.path.encode().decode("latin-1"),
        "QUERY_STRING": request.query,
        "REMOTE_ADDR": request.client,
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": Body(request.body),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "RAW_URI": request.root + (request.raw_path or request.path) + ("?" + request.query if request.query else ""),
    }
    if request.chunked:
        environ |= {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    elif request.body:
        environ["CONTENT_LENGTH"] = str(len(request.body))
    grouped: dict[str, list[str]] = {}
    for name, value in request.headers:
        grouped.setdefault(name.upper().replace("-", "_"), []).append(value)
    for name, values in grouped.items():
        key = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
        environ[key] = ("; " if name == "COOKIE" else ",").join(values)
    setup_testing_defaults(environ)
    return environ


SITES: Mapping[str, type[Site]] = {"asgi": AsgiSite, "wsgi": WsgiSite}


def run(coroutine: Awaitable[Any]) -> Any:
    """Run a coroutine to its end on a loop of its own."""

    async def outer() -> Any:
        return await coroutine

    return asyncio.run(outer())
