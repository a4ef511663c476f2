"""The middleware and the status routes for ASGI 3 applications; any framework, or none.

Source: asgi.readthedocs.io, specs "www" 2.5 and "lifespan" 2.0, extension "websocket.http.response".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Hashable, Iterable, MutableMapping, Sequence
from time import monotonic
from typing import Any, Final

from .context import Work, enter, leave
from .gate import Act
from .handling import NEGOTIATED, OVERRIDES, Handling, Judged, Status
from .pages import Page
from .policy import Policy
from .rejection import Answer
from .rules import BODY_LIMIT_BYTES, SAFE_METHODS, Endpoint, Facts
from .state import State
from .switch import Switch
from .tally import route_group

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

TRY_AGAIN_LATER, SERVICE_RESTART = 1013, 1012  # RFC 6455's registry of close codes


def ReadOnlyMiddleware(
    app: ASGIApp,
    switch: Switch,
    *,
    policy: Policy = Policy(),
    page: Page | None = None,
    endpoint: Callable[[Scope], Endpoint | None] | None = None,
) -> ASGIApp:
    """Return `app` behind the read-only mode. Make it the outermost middleware.

    While the site is writable, a read costs one look at an attribute and a write is counted; nothing is wrapped for
    a read. While it is read-only, writes and logins are refused without their body being read, sessions are taken
    off, and every response says so.

    Args:
        app: The application, ASGI 3.
        switch: The process's switch. It is started and closed with the server's lifespan, where there is one.
        policy: What counts as a write, a login, a session.
        page: The site's own page for refusals.
        endpoint: Tells the router's name and marks for a scope. Reads of a writable site are not routed twice for it
            until some view is marked with `@writes`; an attribute `reads_matter` on it, True or False, says that they
            always or never are.

    Returns:
        An `async def` closure: every server takes that for ASGI 3.
    """
    handling: Handling[_Refusal] = Handling(switch, policy, page, endpoint)
    gate, sessions = handling.gate, handling.sessions
    view = switch.view
    inflight = switch.inflight
    begin, end = inflight.begin, inflight.end
    clock = switch.monotonic  # what `view.admit_until` is measured by
    sockets = _Sockets(switch)
    seen = _Seen()
    # Nothing below is looked up twice: a name of the closure costs less than an attribute.
    plain, known = handling.plain, handling.kept
    cookies_matter, stamping = handling.cookies_matter, sessions.stamping
    any_read, any_closed_read = handling.any_read, handling.any_closed_read
    any_write, counted = handling.trivial_unsafe, handling.counted
    notable = frozenset(
        name.encode()
        for name in (
            *OVERRIDES,
            *(["cookie"] if cookies_matter else []),
            *(["authorization"] if policy.bearer == "end" else []),
        )
    )

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        method = scope.get("method")
        if view.open:
            if method in SAFE_METHODS:
                if (any_read or _place(scope) in plain) and (
                    not (cookies_matter and view.sessions_cut)
                    or not (stamping or b"cookie" in [name for name, _ in scope["headers"]])
                ):
                    await app(scope, receive, send)
                    return
            elif (
                method is not None
                and (any_write or _place(scope) in counted)
                and not (cookies_matter and view.sessions_cut)
            ):
                key = begin()
                # Count, then look: a change that came before the look is seen by it, one after it sees the count.
                if clock() < view.admit_until:
                    try:
                        if switch.guarded:
                            await guarded(scope, receive, send, view.state, key)
                        else:
                            await app(scope, receive, _late(scope, send, handling) if cookies_matter else send)
                    finally:
                        end(key)
                    return
                end(key)
        elif method in SAFE_METHODS:
            if seen.state is view.state and monotonic() < handling.next_look and not switch.guarded and not seen.edits:
                query = scope.get("query_string")
                if (
                    (any_closed_read or _place(scope) in plain)
                    and not (query and (b"%" in query or b"_method" in query.lower()))
                    and dict(scope["headers"]).keys().isdisjoint(notable)
                ):
                    await app(scope, receive, _marking(send, seen.marks))
                    return
            if await quick(scope, receive, send):
                return
        elif method is not None and await quick(scope, receive, send):
            return
        kind = scope["type"]
        if kind == "http":
            await http(scope, receive, send)
        elif kind == "websocket":
            await websocket(scope, receive, send)
        elif kind == "lifespan":
            await _lifespan(app, switch, scope, receive, send)
        else:
            await app(scope, receive, send)

    async def quick(scope: Scope, receive: Receive, send: Send) -> bool:
        """Serve a request that a read-only site has much of, if nothing about it needs a closer look."""
        pairs = scope["headers"]
        found = dict(pairs)
        query = scope.get("query_string")
        if (
            not found.keys().isdisjoint(notable)
            or len(found) != len(pairs)
            or (query and (b"%" in query or b"_method" in query.lower()))
        ):
            return False
        state, now = view.state, monotonic()
        if scope["method"] not in SAFE_METHODS:
            kept = known.get(_key(scope, found))
            if kept is None or kept.ready is None or kept.state is not state or now >= kept.until:
                return False
            kept.count()
            status, headers, body = next(kept.ready)
            # Copied, since whoever is outside may edit what is sent.
            headers = headers.copy()
            if _closes(scope, found):
                headers.append(_CLOSE)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return True
        if now >= handling.next_look or not state.read_only:
            return False
        if not any_closed_read and _place(scope) not in plain:
            return False
        if seen.state is not state:
            seen.take_in(state, handling)
        if switch.guarded:
            await guarded(scope, receive, send, state, None)
        elif seen.edits:
            await app(scope, receive, _dropping(scope, send, seen.marks, handling, handling.anonymous(state)))
        else:
            await app(scope, receive, _marking(send, seen.marks))
        return True

    async def guarded(scope: Scope, receive: Receive, send: Send, state: State, key: object) -> None:
        work = Work(switch, key=key, name=f"{scope['method']} {route_group(scope['path'])}")
        response = _Response(scope, send, handling, handling.anonymous(state), work, endpoint)
        token = enter(work)
        try:
            await app(scope, receive, response.send)
        except Exception:
            if not await response.replace():
                raise
        finally:
            leave(token)
            if work.escape is not None:
                facts = response.facts()
                work.name = handling.route(gate.classify(facts), facts)
                handling.count_escape(work, work.escape)
            work.end()

    async def looked_at() -> State:
        if view.open or not handling.due():
            return view.state
        handling.looked()
        return await switch.alook()

    async def http(scope: Scope, receive: Receive, send: Send) -> None:
        headers = _Headers(scope["headers"])
        cookies = headers.all(b"cookie")
        if view.open and any_read and scope["method"] in SAFE_METHODS and not (stamping or sessions.carried(cookies)):
            # A cut-off is known, so that sessions matter: but this visitor has none.
            await app(scope, receive, send)
            return
        facts = _facts(scope, headers, endpoint)
        if gate.needs_body and gate.wants_body(facts):
            receive = await _peek(facts, receive)
        act = gate.classify(facts)
        handling.remember(act, _place(scope))
        key: object = None
        try:
            if act.may_write:
                key = begin()
                closed = await switch.aadmit()
                if closed is not None:
                    end(key)
                    key = None
                    handling.looked()
                state = closed or view.state
            else:
                state = await looked_at()
            judged = handling.judge(act, facts, cookies, state)
            if not judged.verdict.passed:
                end(key)
                secure = scope.get("scheme") in ("https", "wss")
                client = scope.get("client")
                answer = handling.refusal(judged, facts, secure=secure, client=client[0] if client else None)
                refusal = (answer.status, _raw(answer.headers), answer.body)
                found = dict(scope["headers"])
                if len(found) == len(scope["headers"]) and found.keys().isdisjoint(notable):
                    handling.keep(_key(scope, found), judged, facts, refusal)
                await _refuse(scope, send, refusal, found)
                return
            await passed(scope, receive, send, facts, judged, key)
        finally:
            end(key)

    async def passed(scope: Scope, receive: Receive, send: Send, facts: Facts, judged: Judged, key: object) -> None:
        read_only = judged.state.read_only
        admitted = key is not None
        scope = _stripped(scope, judged)
        bypass = judged.verdict.bypass
        work: Work | None = None
        if switch.guarded and (read_only or admitted or bypass):
            work = Work(switch, key=key, bypass=bypass, name=handling.route(judged.verdict.act, facts))
        # For a write that was admitted, the site may be read-only when its response starts.
        if not (read_only or work is not None or judged.taken.edits or (admitted and cookies_matter)):
            await app(scope, receive, send)
            return
        response = _Response(scope, send, handling, judged, work, endpoint)
        if work is None:
            await app(scope, receive, response.send)
            return
        token = enter(work)
        try:
            await app(scope, receive, response.send)
        except Exception:
            if not await response.replace():
                raise
        finally:
            leave(token)
            if work.escape is not None:
                handling.count_escape(work, work.escape)
            work.end()

    async def websocket(scope: Scope, receive: Receive, send: Send) -> None:
        headers = _Headers(scope["headers"])
        facts = _facts(scope, headers, endpoint)
        act = gate.classify(facts)
        if act.may_write:
            await undeclared_socket(scope, receive, send, facts, act)
            return
        state = await looked_at()
        judged = handling.judge(act, facts, headers.all(b"cookie"), state)
        if state.read_only or judged.taken.edits:
            send = _Response(scope, send, handling, judged, None, endpoint).send
        await app(_stripped(scope, judged), receive, send)

    async def undeclared_socket(scope: Scope, receive: Receive, send: Send, facts: Facts, act: Act) -> None:
        # A socket that may write is a write in flight for as long as it is open.
        key = begin()
        work = Work(switch, key=key, name=handling.route(act, facts))
        socket = sockets.add(scope, receive, send, handling, facts, act)
        token = None
        try:
            state = await switch.aadmit()
            if state is not None or socket.closing.is_set():
                end(key)
                await socket.deny(state or view.state)
                return
            judged = handling.judge(act, facts, _Headers(scope["headers"]).all(b"cookie"), view.state)
            if not judged.verdict.passed:
                end(key)
                await socket.deny(judged.state, judged)
                return
            if switch.guarded:
                token = enter(work)
            socket.judged = judged
            await app(_stripped(scope, judged), socket.receive, socket.send)
            if socket.closing.is_set() and not socket.answered:
                await socket.deny(view.state)  # it was told that the client has gone, and so has not answered
        except Exception as error:
            # The application went on sending to a socket that we had closed; frameworks wrap what that raises.
            if not _is_ours(error):
                raise
        finally:
            if token is not None:
                leave(token)
            if work.escape is not None:
                handling.count_escape(work, work.escape)
            work.end()
            sockets.remove(socket)
            end(key)

    return middleware


# --- what a read-only site has much of -------------------------------------------------------------------------------

_Refusal = tuple[int, RawHeaders, bytes]
_NEGOTIATED: Final = frozenset(name.encode() for name in NEGOTIATED)


def _place(scope: Scope) -> Hashable:
    return scope["method"], scope["path"], scope.get("raw_path"), scope.get("root_path")


def _key(scope: Scope, headers: dict[bytes, bytes]) -> Hashable:
    if headers.keys().isdisjoint(_NEGOTIATED):
        return _place(scope)
    get = headers.get
    return (
        _place(scope),
        get(b"accept"),
        get(b"content-type"),
        get(b"origin"),
        get(b"hx-request"),
        get(b"x-requested-with"),
        get(b"sec-fetch-dest"),
    )


class _Seen:
    """What the last state that was seen means for a read that carries nothing."""

    __slots__ = ("edits", "marks", "state")

    def __init__(self) -> None:
        self.state: State | None = None
        self.marks: RawHeaders = []
        self.edits = False

    def take_in(self, state: State, handling: Handling[_Refusal]) -> None:
        """Take in another state; the name of the state comes last, so that no thread sees half of it."""
        self.state = None
        self.marks = _raw_marks(handling, state)
        self.edits = handling.anonymous(state).taken.edits
        self.state = state


def _marking(send: Send, marks: RawHeaders) -> Send:
    # No coroutine of its own: what it returns is awaited all the same, and a response has two messages at least.
    def marking(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *marks]}
        return send(message)

    return marking


def _late(scope: Scope, send: Send, handling: Handling[_Refusal]) -> Send:
    view = handling.view

    def late(message: Message) -> Awaitable[None]:
        if not view.open and message["type"] == "http.response.start":
            judged = handling.late()
            if judged is not None:
                message = {**message, "headers": _edited(message.get("headers", ()), scope, handling, judged)}
        return send(message)

    return late


def _dropping(scope: Scope, send: Send, marks: RawHeaders, handling: Handling[_Refusal], judged: Judged) -> Send:
    def dropping(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), *marks]
            if b"set-cookie" in [name.lower() for name, _ in headers]:
                headers = _edited(message["headers"], scope, handling, judged)
            message = {**message, "headers": headers}
        return send(message)

    return dropping


# --- reading a scope -------------------------------------------------------------------------------------------------


class _Headers:
    """Looks request headers up; made once for a request that is classified."""

    __slots__ = ("_found", "_raw")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = pairs = raw if isinstance(raw, (list, tuple)) else list(raw)
        self._found = dict(pairs)
        if len(self._found) != len(pairs):
            joined: dict[bytes, bytes] = {}
            for name, value in pairs:
                joined[name] = joined[name] + b"," + value if name in joined else value
            self._found = joined

    def get(self, name: str, /) -> str | None:
        value = self._found.get(name.encode())
        return None if value is None else value.decode("latin-1")

    def all(self, name: bytes) -> Sequence[str]:
        """Return each value of a header that may be repeated."""
        if name not in self._found:
            return ()
        return [value.decode("latin-1") for found, value in self._raw if found == name]


def _facts(scope: Scope, headers: _Headers, endpoint: Callable[[Scope], Endpoint | None] | None) -> Facts:
    path: str = scope["path"]
    raw = (scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1")
    root: str = scope.get("root_path", "")
    if root:
        path, raw = _below(path, root), _below(raw, root)
    return Facts(
        scope.get("method", "GET"),
        path,
        raw,
        scope.get("query_string", b"").decode("latin-1"),
        headers,
        scope["type"],
        endpoint(scope) if endpoint is not None else None,
    )


def _below(path: str, root: str) -> str:
    """Return a path relative to the mount, as Starlette's routing does: servers differ in whether it holds the root."""
    if not path.startswith(root):
        return path
    rest = path[len(root) :]
    return rest if not rest or rest[0] == "/" else path


async def _peek(facts: Facts, receive: Receive) -> Receive:
    """Read as much of a body as a predicate may see, and return a `receive` that plays it back."""
    messages: list[Message] = []
    body = bytearray()
    complete = False
    while len(body) <= BODY_LIMIT_BYTES and not complete:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request":
            break  # the client has left
        body += message.get("body", b"")
        complete = not message.get("more_body", False)
    facts.body = bytes(body[:BODY_LIMIT_BYTES])
    facts.body_complete = complete and len(body) <= BODY_LIMIT_BYTES
    messages.reverse()

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed


def _stripped(scope: Scope, judged: Judged) -> Scope:
    """Return the scope without the cookies and tokens that were taken off; a copy, if there are any."""
    taken = judged.taken
    if taken.cookies is None and not taken.bearer:
        return scope
    kept = None if taken.cookies is None else [cookie.encode("latin-1") for cookie in reversed(taken.cookies)]
    headers: RawHeaders = []
    for name, value in scope["headers"]:
        if name == b"cookie" and kept is not None:
            if kept:
                headers.append((name, kept.pop()))
        elif not (taken.bearer and name == b"authorization" and value[:7].lower() == b"bearer "):
            headers.append((name, value))
    return {**scope, "headers": headers}


# --- answering -------------------------------------------------------------------------------------------------------


def _raw(headers: Iterable[tuple[str, str]]) -> RawHeaders:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _edited(
    raw: Iterable[tuple[bytes, bytes]], scope: Scope, handling: Handling[_Refusal], judged: Judged
) -> RawHeaders:
    taken = judged.taken
    if taken.edits:
        headers = list(raw)
        if taken.lost or taken.expire or any(name.lower() == b"set-cookie" for name, _ in headers):
            text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
            return _raw(handling.response(text, judged, secure=scope.get("scheme") in ("https", "wss")))
        raw = headers
    return [*raw, *_raw_marks(handling, judged.state)]


def _raw_marks(handling: Handling[_Refusal], state: State) -> RawHeaders:
    known = handling.raw_marks
    if known[0] is not state:
        known = handling.raw_marks = (state, _raw(handling.marks(state)))
    return known[1]


async def _respond(scope: Scope, send: Send, answer: Answer) -> None:
    await _refuse(scope, send, (answer.status, _raw(answer.headers), answer.body), dict(scope["headers"]))


async def _refuse(scope: Scope, send: Send, refusal: _Refusal, request: dict[bytes, bytes]) -> None:
    status, headers, body = refusal
    headers = headers.copy()
    if _closes(scope, request):
        headers.append(_CLOSE)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_CLOSE = (b"connection", b"close")


def _closes(scope: Scope, request: dict[bytes, bytes]) -> bool:
    # Nobody reads the body, so the next request on this connection would begin in the middle of it.
    has_body = request.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in request
    return has_body and scope.get("http_version", "1.1") in ("1.0", "1.1")


class _Response:
    """A response on its way out: its headers are edited, and where a guard refused a write the 503 takes its place.

    A framework has turned the guard's error into a 500 by the time that it is seen here (or raises it, having
    answered or not); the guard has marked the work.
    """

    __slots__ = ("_endpoint", "_handling", "_judged", "_scope", "_send", "_work", "replaced", "started")

    def __init__(
        self,
        scope: Scope,
        send: Send,
        handling: Handling[_Refusal],
        judged: Judged,
        work: Work | None,
        endpoint: Callable[[Scope], Endpoint | None] | None,
    ) -> None:
        self._scope = scope
        self._send = send
        self._handling = handling
        self._judged = judged
        self._work = work
        self._endpoint = endpoint
        self.started = False
        self.replaced = False

    async def send(self, message: Message) -> None:
        """Send on what the application says."""
        if self.replaced:
            return
        kind = message["type"]
        if kind in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
            if kind == "http.response.start" and message["status"] >= 500 and await self.replace():
                return
            self.started = True
            judged = self._judged
            if not judged.state.read_only:
                judged = self._handling.late(judged) or judged
            message = {**message, "headers": _edited(message.get("headers", ()), self._scope, self._handling, judged)}
        await self._send(message)

    def facts(self) -> Facts:
        """Return the facts, for the rare response that has to be named or replaced."""
        return _facts(self._scope, _Headers(self._scope["headers"]), self._endpoint)

    async def replace(self) -> bool:
        """Answer for the application if a guard has refused it a write and nothing was sent; return whether so."""
        if self.replaced:
            return True
        if self.started or self._work is None or self._work.escape is None:
            return False
        self.replaced = True
        await _respond(self._scope, self._send, self._handling.escape(self._judged, self.facts()))
        return True


# --- websockets that are not declared as reads -----------------------------------------------------------------------


class _Closed(OSError):
    """The application sends to a socket that was closed at the switch (ASGI 2.4: send raises OSError then)."""


def _is_ours(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, _Closed):
        error = error.__cause__ or error.__context__
    return error is not None


class _Socket:
    """One open websocket: passes on, until the site turns read-only."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, handling: Handling[_Refusal], facts: Facts, act: Act
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.closing = asyncio.Event()
        self.judged: Judged | None = None
        self._scope = scope
        self._receive = receive
        self._send = send
        self._handling = handling
        self._facts = facts
        self._act = act
        self._accepted = self._closed = False
        self._closer: asyncio.Task[None] | None = None

    @property
    def answered(self) -> bool:
        """True once the handshake was accepted or refused."""
        return self._accepted or self._closed

    def close(self) -> None:
        """Close it, on its own loop."""
        if not self.closing.is_set():
            self.closing.set()
            if self._accepted:
                self._closer = self.loop.create_task(self._close())

    async def _close(self) -> None:
        if not self._closed:
            self._closed = True
            # Whoever is at the other end has left, perhaps: then there is nothing to tell.
            with contextlib.suppress(Exception):
                await self._send({"type": "websocket.close", "code": SERVICE_RESTART, "reason": "read-only"})

    async def deny(self, state: State, judged: Judged | None = None) -> None:
        """Refuse it before it is accepted."""
        if judged is None:
            judged = self._handling.judge(
                self._act, self._facts, _Headers(self._scope["headers"]).all(b"cookie"), state
            )
        self._closed = True
        client = self._scope.get("client")
        answer = self._handling.refusal(
            judged, self._facts, secure=self._scope.get("scheme") == "wss", client=client[0] if client else None
        )
        if "websocket.http.response" in (self._scope.get("extensions") or ()):
            headers = _raw(answer.headers)
            await self._send({"type": "websocket.http.response.start", "status": answer.status, "headers": headers})
            await self._send({"type": "websocket.http.response.body", "body": answer.body})
        else:
            await self._send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": "read-only"})

    async def receive(self) -> Message:
        """Receive for the application; once it is closed, that the client has gone."""
        if not self.closing.is_set():
            theirs = asyncio.ensure_future(self._receive())
            ours = asyncio.ensure_future(self.closing.wait())
            try:
                await asyncio.wait({theirs, ours}, return_when=asyncio.FIRST_COMPLETED)
                if theirs.done():
                    return theirs.result()
            finally:
                theirs.cancel()
                ours.cancel()
        return {"type": "websocket.disconnect", "code": SERVICE_RESTART, "reason": "read-only"}

    async def send(self, message: Message) -> None:
        """Send for the application."""
        kind = message["type"]
        if self.closing.is_set():
            if kind == "websocket.accept" and not self._closed:
                await self.deny(self._handling.view.state)
            elif kind != "websocket.close":
                raise _Closed("the site is read-only: this socket was closed")
            return
        if kind == "websocket.accept":
            self._accepted = True
            if self.judged is not None and self.judged.taken.edits:
                edited = _edited(message.get("headers", ()), self._scope, self._handling, self.judged)
                message = {**message, "headers": edited}
        elif kind == "websocket.close":
            self._closed = True
        await self._send(message)


class _Sockets:
    """The open sockets that may write, of all loops; one callback closes them all."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._open: set[_Socket] = set()
        self._watching = False

    def add(
        self, scope: Scope, receive: Receive, send: Send, handling: Handling[_Refusal], facts: Facts, act: Act
    ) -> _Socket:
        """Take in a socket before the state is looked at, so that no change passes it by."""
        socket = _Socket(scope, receive, send, handling, facts, act)
        self._open.add(socket)
        if not self._watching:
            self._watching = True
            self._switch.on_change(self._changed)
        return socket

    def remove(self, socket: _Socket) -> None:
        """Forget one that has ended."""
        self._open.discard(socket)

    def _changed(self, state: State) -> None:
        if not state.read_only:
            return
        for socket in self._open.copy():
            # Its loop may have ended without it.
            with contextlib.suppress(RuntimeError):
                socket.loop.call_soon_threadsafe(socket.close)


# --- lifespan --------------------------------------------------------------------------------------------------------


async def _lifespan(app: ASGIApp, switch: Switch, scope: Scope, receive: Receive, send: Send) -> None:
    """Start the switch with the server, so that an idle worker is a member, and say goodbye with it."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, switch.start)
    waited: list[bool] = []
    loop.call_soon(waited.append, True)
    await app(scope, receive, send)
    # Whoever returns without having waited once knows nothing of lifespans, and the server goes on serving.
    if waited:
        # Not awaited: uvicorn ends by the signal it got as soon as its loop comes round, and the goodbye with it. No
        # request is left to be kept waiting.
        switch.close()


# --- readiness and status --------------------------------------------------------------------------------------------


def status_app(switch: Switch) -> ASGIApp:
    """Return an application with the routes `/-/readonly/ready` and `/-/readonly/status`, to be mounted.

    A process that never reached the store is not ready for its first 30 s, then ready as a reader; read-only itself
    never fails a probe. Answers are small JSON objects that no cache keeps, and say nothing that is not public.
    """
    status = Status(switch)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"readonly.asgi.status_app answers http requests, not {scope['type']}")
        method = scope["method"]
        found = status.document(_below(scope["path"], scope.get("root_path", "")), await switch.alook())
        code, document = found or (404, {"error": "not found"})
        if found is not None and method not in ("GET", "HEAD"):
            code, document = 405, {"error": "method not allowed"}
        body = json.dumps(document).encode()
        headers: RawHeaders = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        if code == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": code, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})

    return application
