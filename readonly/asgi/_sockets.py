"""Websockets that are not declared as reads: writes in flight for as long as they are open, closed at the switch."""

from __future__ import annotations

import asyncio
import contextlib

from ..gate import Act
from ..handling import Handling, Judged
from ..rules import Facts
from ..state import State
from ..switch import Switch
from ._requests import Headers
from ._responses import Refusal, edited, raw
from ._types import Message, Receive, Scope, Send

TRY_AGAIN_LATER, SERVICE_RESTART = 1013, 1012  # RFC 6455's registry of close codes
# The same as 1012, for servers that send none of the registered codes but 1000 (daphne): of the range for private use,
# since clients take 1000 for an end that was wanted and do not come back.
OWN_SERVICE_RESTART = 4012


class Closed(OSError):
    """The application sends to a socket that was closed at the switch (ASGI 2.4: send raises OSError then)."""


def is_ours(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, Closed):
        error = error.__cause__ or error.__context__
    return error is not None


class Socket:
    """One open websocket: passes on, until the site turns read-only."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, handling: Handling[Refusal], facts: Facts, act: Act
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

    async def closed(self) -> None:
        """Wait until it has been told to close, if it was: a server may end it as soon as its application has ended."""
        if self._closer is not None:
            await asyncio.wait((self._closer,))

    async def _close(self) -> None:
        if not self._closed:
            self._closed = True
            for code in (SERVICE_RESTART, OWN_SERVICE_RESTART):
                # Whoever is at the other end has left, perhaps: then there is nothing to tell.
                with contextlib.suppress(Exception):
                    await self._send({"type": "websocket.close", "code": code, "reason": "read-only"})
                    return

    async def deny(self, state: State, judged: Judged | None = None) -> None:
        """Refuse it before it is accepted."""
        if judged is None:
            judged = self._handling.judge(self._act, self._facts, Headers(self._scope["headers"]).all(b"cookie"), state)
        self._closed = True
        client = self._scope.get("client")
        answer = self._handling.refusal(
            judged, self._facts, secure=self._scope.get("scheme") == "wss", client=client[0] if client else None
        )
        if "websocket.http.response" in (self._scope.get("extensions") or ()):
            headers = raw(answer.headers)
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
                raise Closed("the site is read-only: this socket was closed")
            return
        if kind == "websocket.accept":
            self._accepted = True
            if self.judged is not None and self.judged.taken.edits:
                headers = edited(message.get("headers", ()), self._scope, self._handling, self.judged)
                message = {**message, "headers": headers}
        elif kind == "websocket.close":
            self._closed = True
        await self._send(message)


class Sockets:
    """The open sockets that may write, of all loops; one callback closes them all."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._open: set[Socket] = set()
        self._watching = False

    def add(
        self, scope: Scope, receive: Receive, send: Send, handling: Handling[Refusal], facts: Facts, act: Act
    ) -> Socket:
        """Take in a socket before the state is looked at, so that no change passes it by."""
        socket = Socket(scope, receive, send, handling, facts, act)
        self._open.add(socket)
        if not self._watching:
            self._watching = True
            self._switch.on_change(self._changed)
        return socket

    def remove(self, socket: Socket) -> None:
        """Forget one that has ended."""
        self._open.discard(socket)

    def _changed(self, state: State) -> None:
        if not state.read_only:
            return
        for socket in self._open.copy():
            # Its loop may have ended without it.
            with contextlib.suppress(RuntimeError):
                socket.loop.call_soon_threadsafe(socket.close)
