"""Checks that both sides of an ASGI 3 connection keep the specification: what wsgiref.validate is for WSGI.

`validated(app)` is an application around another one. It looks at the scope, at each message that comes from the
server's side and at each that the application sends: keys, types, order, and that nothing is missing at the end.
Put it around a middleware to check what the middleware says to a server, and around what is inside it to check what
the middleware says to an application.

Source: asgi.readthedocs.io, specs "www" 2.5 and "lifespan" 2.0, extension "websocket.http.response".
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+\Z")
_BODILESS = frozenset({204, 304})


class Violation(AssertionError):
    """One side did what the specification forbids."""


def validated(app: App) -> App:
    """Return `app` with everything that passes through it checked.

    A violation is raised where it happens, and once more at the end, in case the application swallowed it.
    """

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        _check_scope(scope)
        connection = _CONNECTIONS[scope["type"]](scope)

        async def checked_receive() -> Message:
            message = await receive()
            connection.guarded(connection.received, message)
            return message

        async def checked_send(message: Message) -> None:
            connection.guarded(connection.sent, message)
            await send(message)

        try:
            await app(scope, checked_receive, checked_send)
        except Violation:
            raise
        except BaseException:
            # It has failed, and may: then it owes nothing more, but what it did before still counts.
            connection.report()
            raise
        connection.report()
        connection.guarded(connection.ended)

    return checked


def need(condition: object, what: str) -> None:
    """Raise a violation unless `condition`."""
    if not condition:
        raise Violation(what)


def _typed(message: Mapping[str, Any], key: str, kind: type | tuple[type, ...], *, optional: bool = False) -> Any:
    name = message.get("type", "scope")
    if key not in message:
        need(optional, f"{name}: {key!r} is missing")
        return None
    value = message[key]
    # bool is an int, and no status.
    right = isinstance(value, kind) and (kind is not int or not isinstance(value, bool))
    need(right, f"{name}: {key!r} is {value!r}, expected {kind}")
    return value


def _check_headers(name: str, headers: Any) -> None:
    need(not isinstance(headers, (str, bytes, Mapping)), f"{name}: headers={headers!r} is no list of pairs")
    for pair in headers:
        need(isinstance(pair, (tuple, list)) and len(pair) == 2, f"{name}: header {pair!r} is no pair")
        key, value = pair
        need(isinstance(key, bytes), f"{name}: header name {key!r} is not bytes")
        need(isinstance(value, bytes), f"{name}: value {value!r} of {key!r} is not bytes")
        need(_TOKEN.match(key), f"{name}: header name {key!r} is no lower-case token")
        need(not re.search(rb"[\x00\r\n]", value), f"{name}: value {value!r} of {key!r} holds a line break")


def _check_scope(scope: Any) -> None:
    need(isinstance(scope, dict), f"scope: {type(scope).__name__} is no dict")
    kind = _typed(scope, "type", str)
    need(kind in _CONNECTIONS, f"scope: type {kind!r} is unknown")
    _typed(scope, "asgi", dict)
    if kind == "lifespan":
        return
    if kind == "http":
        method = _typed(scope, "method", str)
        need(method == method.upper(), f"scope: method {method!r} is not in upper case")
    else:
        _typed(scope, "subprotocols", (list, tuple), optional=True)
    _typed(scope, "path", str)
    _typed(scope, "raw_path", (bytes, type(None)), optional=True)
    _typed(scope, "query_string", bytes)
    _typed(scope, "root_path", str, optional=True)
    _check_headers("scope", _typed(scope, "headers", (list, tuple)))


class _Connection:
    """One connection's state, and the first violation on it."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.violation: Violation | None = None
        self.disconnected = False

    def guarded(self, check: Callable[..., None], *arguments: Any) -> None:
        """Run a check and remember its violation."""
        try:
            check(*arguments)
        except Violation as violation:
            self.violation = self.violation or violation
            raise

    def report(self) -> None:
        """Raise the violation that was swallowed."""
        if self.violation is not None:
            raise self.violation

    def has_extension(self, name: str) -> bool:
        return name in (self.scope.get("extensions") or {})

    def received(self, message: Any) -> None:
        need(isinstance(message, dict), f"receive: {message!r} is no dict")
        _typed(message, "type", str)

    def sent(self, message: Any) -> None:
        need(isinstance(message, dict), f"send: {message!r} is no dict")
        _typed(message, "type", str)

    def ended(self) -> None:
        raise NotImplementedError


class _Response:
    """A response that is being sent; the messages' names differ by a prefix."""

    def __init__(self, prefix: str, *, head: bool = False) -> None:
        self.prefix = prefix
        self.head = head
        self.started = self.complete = self.trailers = False
        self.length: int | None = None
        self.sent_bytes = 0

    def sent(self, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        need(not self.complete, f"{kind} after the response was complete")
        if kind == f"{self.prefix}.start":
            self._start(message)
        elif kind == f"{self.prefix}.body":
            self._body(message)
        elif kind == f"{self.prefix}.trailers" and self.trailers:
            _check_headers(kind, message.get("headers", ()))
            self.complete = not _typed(message, "more_trailers", bool, optional=True)
        else:
            raise Violation(f"{kind} is no message of this connection")

    def _start(self, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        need(not self.started, f"{kind} for a second time")
        status = _typed(message, "status", int)
        need(200 <= status <= 599, f"{kind}: status {status} can't end a request")
        headers = message.get("headers", ())
        _check_headers(kind, headers)
        lengths = [value for name, value in headers if name == b"content-length"]
        need(len(lengths) <= 1, f"{kind}: content-length is there {len(lengths)} times")
        if lengths and not self.head and status not in _BODILESS:
            need(lengths[0].isdigit(), f"{kind}: content-length {lengths[0]!r} is no number")
            self.length = int(lengths[0])
        if self.head or status in _BODILESS:
            self.length = 0
        self.trailers = bool(_typed(message, "trailers", bool, optional=True))
        self.started = True

    def _body(self, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        need(self.started, f"{kind} before the start of the response")
        body = _typed(message, "body", bytes, optional=True) or b""
        more = _typed(message, "more_body", bool, optional=True) or False
        self.sent_bytes += len(body)
        need(
            self.length is None or self.sent_bytes <= self.length,
            f"{kind}: {self.sent_bytes} bytes, where {self.length} were announced or allowed",
        )
        if not more:
            need(
                self.length is None or self.sent_bytes == self.length,
                f"{kind}: ends after {self.sent_bytes} bytes, where {self.length} were announced",
            )
            self.complete = not self.trailers


class _Http(_Connection):
    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self.request_complete = False
        self.response = _Response("http.response", head=scope["method"] == "HEAD")

    def received(self, message: Any) -> None:
        super().received(message)
        kind = message["type"]
        if kind == "http.request":
            need(not self.disconnected, "http.request after http.disconnect")
            need(not self.request_complete, "http.request after the last part of the body")
            _typed(message, "body", bytes, optional=True)
            self.request_complete = not (_typed(message, "more_body", bool, optional=True) or False)
        else:
            need(kind == "http.disconnect", f"receive: {kind} is no message of http")
            self.disconnected = True

    def sent(self, message: Any) -> None:
        super().sent(message)
        self.response.sent(message)

    def ended(self) -> None:
        need(self.response.complete or self.disconnected, "the application ended before its response was complete")


class _WebSocket(_Connection):
    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self.connected = self.accepted = self.closed = False
        self.denial: _Response | None = None

    def received(self, message: Any) -> None:
        super().received(message)
        kind = message["type"]
        if kind == "websocket.connect":
            need(not self.connected, "websocket.connect for a second time")
            self.connected = True
        elif kind == "websocket.receive":
            need(self.accepted, "websocket.receive before the connection was accepted")
            need(not self.disconnected, "websocket.receive after websocket.disconnect")
            self._one_of(message)
        else:
            need(kind == "websocket.disconnect", f"receive: {kind} is no message of websocket")
            need(self.connected, "websocket.disconnect before websocket.connect")
            self.disconnected = True

    def sent(self, message: Any) -> None:
        super().sent(message)
        kind = message["type"]
        need(not self.closed, f"{kind} after websocket.close")
        if kind == "websocket.accept":
            need(not self.accepted and self.denial is None, "websocket.accept after an answer was given")
            _typed(message, "subprotocol", (str, type(None)), optional=True)
            _check_headers(kind, message.get("headers", ()))
            self.accepted = True
        elif kind == "websocket.send":
            need(self.accepted, "websocket.send before websocket.accept")
            self._one_of(message)
        elif kind == "websocket.close":
            need(self.denial is None, "websocket.close after a denial was begun")
            code = _typed(message, "code", int, optional=True)
            need(code is None or 1000 <= code <= 4999, f"websocket.close: code {code} is none")
            _typed(message, "reason", (str, type(None)), optional=True)
            self.closed = True
        else:
            known = kind.startswith("websocket.http.response.") and self.has_extension("websocket.http.response")
            need(known, f"{kind} is no message of this connection")
            need(not self.accepted, f"{kind} after websocket.accept")
            self.denial = self.denial or _Response("websocket.http.response")
            self.denial.sent(message)

    @staticmethod
    def _one_of(message: Mapping[str, Any]) -> None:
        data = _typed(message, "bytes", (bytes, type(None)), optional=True)
        text = _typed(message, "text", (str, type(None)), optional=True)
        need((data is None) != (text is None), f"{message['type']}: exactly one of bytes and text is wanted")

    def ended(self) -> None:
        if self.denial is not None:
            need(self.denial.complete or self.disconnected, "the application ended before its denial was complete")
        elif not self.accepted:
            need(self.closed or self.disconnected, "the application ended without accepting or closing")


class _Lifespan(_Connection):
    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self.phase = ""
        self.asked = self.answered = ""

    def received(self, message: Any) -> None:
        super().received(message)
        kind = message["type"]
        order = {"lifespan.startup": "", "lifespan.shutdown": "lifespan.startup"}
        need(kind in order, f"receive: {kind} is no message of lifespan")
        need(self.asked == order[kind] == self.answered, f"{kind} out of order")
        self.asked = kind

    def sent(self, message: Any) -> None:
        super().sent(message)
        kind, _, outcome = message["type"].rpartition(".")
        need(outcome in ("complete", "failed"), f"{message['type']} is no message of lifespan")
        need(kind == self.asked != self.answered, f"{message['type']} out of order")
        _typed(message, "message", str, optional=True)
        self.answered = kind

    def ended(self) -> None:
        need(self.asked == self.answered, f"the application ended without answering {self.asked}")


_CONNECTIONS: Mapping[str, Callable[[Scope], _Connection]] = {
    "http": _Http,
    "websocket": _WebSocket,
    "lifespan": _Lifespan,
}
