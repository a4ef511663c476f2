"""A TCP proxy on 127.0.0.1 that can be told to lose what it carries: for faults of the network."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from enum import StrEnum
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
# SO_LINGER on, for no time at all: closing sends a reset.
_RESET = struct.pack("ii", 1, 0)
_CALL_SECONDS = 60.0  # on a machine that does much else


class Mode(StrEnum):
    """What the proxy does with what it is given.

    A connection that lost something stays silent for ever, also after the proxy passes again: that is a half-open
    connection, whose other end is gone without a word. What was stalled goes on, late and complete. `HANG` lets one
    more question and its answer pass, and then stalls the one connection that asks the next.
    """

    PASS = "pass"
    SWALLOW = "swallow"
    SWALLOW_ANSWERS = "swallow answers"
    STALL = "stall"
    HANG = "hang"
    RESET = "reset"
    REFUSE = "refuse"


class _Link:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.writers = [client]
        self.lost = {"question": False, "answer": False}
        self.hangs = False

    def end(self, *, reset: bool) -> None:
        for writer in self.writers:
            found = writer.get_extra_info("socket")
            if reset and found is not None:
                with contextlib.suppress(OSError):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class TcpProxy:
    """Carries connections to a port, in a thread of its own. `set` may be called by any thread.

    Args:
        upstream: The port on 127.0.0.1 that it connects to.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.mode = Mode.PASS
        self.carried = 0
        self._passes = 0
        self._loop = asyncio.new_event_loop()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)
        self._thread.start()
        self.port: int = self._call(self._listen(0))

    def set(self, mode: Mode) -> None:
        """Change what happens from now on, to open connections as well; it is in force when this returns."""
        self._call(self._set(mode))

    def close(self) -> None:
        """End every connection and the thread; may be called twice."""
        if self._loop.is_closed():
            return
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_SECONDS)
        self._loop.close()

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_SECONDS)

    async def _listen(self, port: int) -> int:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", port)
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def _set(self, mode: Mode) -> None:
        self.mode = mode
        self._passes = 1
        for link in self._links:
            link.hangs = False
        self._changed.set()
        self._changed = asyncio.Event()
        if mode in (Mode.RESET, Mode.REFUSE):
            for link in list(self._links):
                link.end(reset=True)
        if mode is Mode.REFUSE and self._server is not None:
            self._server.close()
            self._server = None
        elif mode is not Mode.REFUSE and self._server is None:
            await self._listen(self.port)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in list(self._links):
            link.end(reset=False)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _while(self, *modes: Mode) -> None:
        while self.mode in modes:
            await self._changed.wait()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = _Link(writer)
        self._links.add(link)
        try:
            if self.mode is Mode.RESET:
                link.end(reset=True)
                return
            # The kernel has accepted it; whether the other side ever hears of that is another matter.
            await self._while(Mode.STALL, Mode.SWALLOW)
            self.carried += 1
            theirs, upstream = await asyncio.open_connection("127.0.0.1", self.upstream)
            link.writers.append(upstream)
            ways = [
                asyncio.create_task(self._pump(reader, upstream, link, "question")),
                asyncio.create_task(self._pump(theirs, writer, link, "answer")),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            link.end(reset=False)
            self._links.discard(link)
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link, way: str) -> None:
        while True:
            data = await reader.read(65536)
            await self._while(Mode.STALL)
            if self.mode is Mode.HANG and way == "question" and data and self._passes >= 0:
                self._passes -= 1
                link.hangs = self._passes < 0
            while link.hangs:
                await self._changed.wait()
            if self.mode is Mode.SWALLOW or (self.mode is Mode.SWALLOW_ANSWERS and way == "answer"):
                link.lost[way] = True
            if link.lost[way]:
                if not data:
                    # That one side has hung up is lost as well, as long as anything is.
                    await self._while(Mode.SWALLOW, Mode.SWALLOW_ANSWERS)
                    return
                continue
            if not data:
                return
            writer.write(data)
            await writer.drain()
