"""Websockets of which each message is judged: they stay open at the switch, and take no more of what may write."""

from __future__ import annotations

import contextlib

from ..answers import Dialogue
from ..context import Work
from ..gate import Act
from ..handling import Handling
from ..rules import Facts
from ..switch import Switch
from ._responses import Refusal
from ._sockets import SERVICE_RESTART, Closed
from ._types import Message, Receive, Send

# What the protocols of GraphQL close a socket with that says what they can't understand; of the range for private use.
NOT_UNDERSTOOD = 4400


class Conversation:
    """One open websocket: passes on, but for what may write while the site is read-only.

    What may write and was admitted is in flight until the application says that it has ended, or the socket has.
    """

    def __init__(
        self,
        switch: Switch,
        handling: Handling[Refusal],
        facts: Facts,
        act: Act,
        dialogue: Dialogue,
        work: Work | None,
        receive: Receive,
        send: Send,
    ) -> None:
        self._switch = switch
        self._handling = handling
        self._facts = facts
        self._act = act
        self._dialogue = dialogue
        self._work = work
        self._receive = receive
        self._send = send
        self._keys: dict[str, list[object]] = {}
        self._withdrawn: str | None = None
        self._closed = False

    async def receive(self) -> Message:
        """Receive for the application what it may see."""
        if self._withdrawn is not None:
            # Whoever asks for the next message has dealt with this one: what the client took back is over.
            self._end(self._withdrawn)
            self._withdrawn = None
        while not self._closed:
            message = await self._receive()
            if message["type"] != "websocket.receive":
                return message
            text = message.get("text")
            data: str | bytes = message.get("bytes") or b"" if text is None else text
            try:
                operation = self._dialogue.asks(data)
                self._withdrawn = self._dialogue.withdraws(data)
            except ValueError:
                self._closed = True
                # Whoever is at the other end has left, perhaps: then there is nothing to tell.
                with contextlib.suppress(Exception):
                    await self._send({"type": "websocket.close", "code": NOT_UNDERSTOOD, "reason": "not understood"})
                break
            if operation is None or await self._admitted(operation):
                return message
        return {"type": "websocket.disconnect", "code": SERVICE_RESTART}

    async def send(self, message: Message) -> None:
        """Send for the application."""
        if self._closed:
            if message["type"] == "websocket.close":
                return
            raise Closed("a message was not understood: this socket was closed")
        await self._send(message)
        if self._keys and message["type"] == "websocket.send":
            text = message.get("text")
            ended = self._dialogue.ends(message.get("bytes") or b"" if text is None else text)
            if ended is not None:
                self._end(ended)

    def end(self) -> None:
        """Uncount what was in flight: the socket has ended."""
        for operation in list(self._keys):
            self._end(operation)

    async def _admitted(self, operation: str) -> bool:
        inflight = self._switch.inflight
        # Count, then look: a change that came before the look is seen by it, one after it sees the count.
        key = inflight.begin()
        try:
            state = await self._switch.aadmit()
        except BaseException:
            inflight.end(key)
            raise
        if state is None:
            self._keys.setdefault(operation, []).append(key)
            if self._work is not None:
                self._work.admit(key)
            return True
        inflight.end(key)
        refusal = self._handling.told(self._act, self._facts, state)
        for text in self._dialogue.refuses(operation, refusal):
            await self._send({"type": "websocket.send", "text": text})
        return False

    def _end(self, operation: str) -> None:
        for key in self._keys.pop(operation, ()):
            self._switch.inflight.end(key)
        if self._work is not None and self._keys:
            # Others are still under way, and go on writing.
            self._work.admit(next(iter(self._keys.values()))[-1])
