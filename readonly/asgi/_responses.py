"""Answering: refusals, and responses of the application on their way out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from ..context import Work
from ..handling import Handling, Judged
from ..rejection import Answer
from ..rules import Endpoint, Facts
from ..state import State
from ._requests import facts_of
from ._types import Message, RawHeaders, Receive, Scope, Send

Refusal = tuple[int, RawHeaders, bytes]


# --- headers ---------------------------------------------------------------------------------------------------------


def raw(headers: Iterable[tuple[str, str]]) -> RawHeaders:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def edited(
    headers: Iterable[tuple[bytes, bytes]], scope: Scope, handling: Handling[Refusal], judged: Judged
) -> RawHeaders:
    """Return a response's headers as they may leave."""
    taken = judged.taken
    if taken.edits or judged.private:
        headers = list(headers)
        cookies = any(name.lower() == b"set-cookie" for name, _ in headers)
        if taken.lost or taken.expire or judged.private or cookies:
            text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
            return raw(handling.response(text, judged, secure=scope.get("scheme") in ("https", "wss")))
    return [*headers, *raw_marks(handling, judged.state)]


def raw_marks(handling: Handling[Refusal], state: State) -> RawHeaders:
    known = handling.raw_marks
    if known[0] is not state:
        known = handling.raw_marks = (state, raw(handling.marks(state)))
    return known[1]


# --- refusals --------------------------------------------------------------------------------------------------------


async def respond(scope: Scope, send: Send, answer: Answer) -> None:
    await refuse(scope, send, (answer.status, raw(answer.headers), answer.body), dict(scope["headers"]))


async def refuse(
    scope: Scope, send: Send, refusal: Refusal, request: dict[bytes, bytes], receive: Receive | None = None
) -> None:
    status, headers, body = refusal
    headers = headers.copy()
    if closes(scope, request, receive):
        headers.append(CLOSE)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


CLOSE = (b"connection", b"close")
# An unread body of this size is thrown away sooner than another connection is made.
DISCARDED_BYTES: Final = 64 * 1024


def closes(scope: Scope, request: dict[bytes, bytes], receive: Receive | None = None) -> bool:
    """Return whether a refusal ends the connection: nobody reads the body, and the next request comes after it."""
    if scope.get("http_version", "1.1") not in ("1.0", "1.1"):
        return False
    if b"transfer-encoding" in request:
        return True
    length = request.get(b"content-length", b"0")
    if length == b"0":
        return False
    # Whoever asked whether to send it may not do so now: then what follows would be taken for it.
    small = b"expect" not in request and length.isdigit() and int(length[:20]) <= DISCARDED_BYTES
    return not (small and _throws_bodies_away(receive))


def _throws_bodies_away(receive: Receive | None) -> bool:
    # uvicorn does so by itself. Told to close, it closes at once; with a part of the body unread the kernel then resets
    # the connection, and what of the answer has not left yet is lost (RFC 9112, section 9.6): one in twenty small forms
    # whose client sends them apart from their headers, as many do. Other servers have to be told.
    server = getattr(receive, "__self__", None)
    return server is not None and type(server).__module__.startswith("uvicorn.")


# --- the application's responses --------------------------------------------------------------------------------------


class Seen:
    """What the last state that was seen means for a read that carries nothing."""

    __slots__ = ("edits", "marks", "state")

    def __init__(self) -> None:
        self.state: State | None = None
        self.marks: RawHeaders = []
        self.edits = False

    def take_in(self, state: State, handling: Handling[Refusal]) -> None:
        """Take in another state; the name of the state comes last, so that no thread sees half of it."""
        self.state = None
        self.marks = raw_marks(handling, state)
        self.edits = handling.anonymous(state).taken.edits
        self.state = state


def marking_send(send: Send, marks: RawHeaders) -> Send:
    # No coroutine of its own: what it returns is awaited all the same, and a response has two messages at least.
    def marking(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *marks]}
        return send(message)

    return marking


def announcing_send(send: Send, handling: Handling[Refusal]) -> Send:
    """Return what says on each response that a window is about to begin, for as long as that is true."""

    def announcing(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *raw(handling.announcement)]}
        return send(message)

    return announcing


def late_send(scope: Scope, send: Send, handling: Handling[Refusal]) -> Send:
    view = handling.view

    def late(message: Message) -> Awaitable[None]:
        if not view.open and message["type"] == "http.response.start":
            judged = handling.late()
            if judged is not None:
                message = {**message, "headers": edited(message.get("headers", ()), scope, handling, judged)}
        return send(message)

    return late


def dropping_send(scope: Scope, send: Send, marks: RawHeaders, handling: Handling[Refusal], judged: Judged) -> Send:
    def dropping(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), *marks]
            if b"set-cookie" in [name.lower() for name, _ in headers]:
                headers = edited(message["headers"], scope, handling, judged)
            message = {**message, "headers": headers}
        return send(message)

    return dropping


class Response:
    """A response on its way out: its headers are edited, and where a guard refused a write the 503 takes its place.

    A framework has turned the guard's error into a 500 by the time that it is seen here (or raises it, having
    answered or not); the guard has marked the work.
    """

    __slots__ = ("_endpoint", "_handling", "_judged", "_scope", "_send", "_work", "replaced", "started")

    def __init__(
        self,
        scope: Scope,
        send: Send,
        handling: Handling[Refusal],
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
            judged = self._handling.current(self._judged)
            if judged.noted is not None:
                judged.noted.answered(
                    [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())],
                    message.get("status", 0),
                )
            message = {**message, "headers": edited(message.get("headers", ()), self._scope, self._handling, judged)}
        await self._send(message)

    def facts(self) -> Facts:
        """Return the facts, for the rare response that has to be named or replaced."""
        return facts_of(self._scope, self._endpoint)

    async def replace(self) -> bool:
        """Answer for the application if a guard has refused it a write and nothing was sent; return whether so."""
        if self.replaced:
            return True
        if self.started or self._work is None or self._work.escape is None:
            return False
        self.replaced = True
        await respond(self._scope, self._send, self._handling.escape(self._judged, self.facts()))
        return True
