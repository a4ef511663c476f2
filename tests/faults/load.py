"""Clients, in a process of their own: `python load.py LOG WRITERS READERS`, until its standard input is closed.

So many writers and readers for each slot. Lines on its input: `add SLOT PORT`, `remove SLOT`; each is answered by the
same line, a removal when the clients have had their last answer. Each request is one event in LOG when it is over.
A read that gets no answer is tried again at the other slots.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.history import Read, Recorder, Write

# Of a machine that does much else, too: a read that is still not answered after that hangs.
ANSWER_SECONDS = 20.0
RETRY_SECONDS = 30.0
# A refused client comes back soon: that is the hardest load for a gate, and no good manners.
PAUSE_SECONDS = 0.02
GONE_PAUSE_SECONDS = 0.05


class Client:
    """One connection to one slot, kept open as a browser does."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self) -> bool:
        """Connect if need be; return whether there is anybody."""
        if self._writer is None:
            try:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
        return True

    async def ask(self, line: str) -> tuple[int, str]:
        """Return status and body; 0 if no answer came."""
        reader, writer = self._reader, self._writer
        if reader is None or writer is None:
            return 0, ""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                writer.write(f"{line} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".encode())
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].split(b"\r\n")[0].strip()
                body = await reader.readexactly(int(length or b"0"))
            if b"connection: close" in head:
                self.close()
            return int(head.split(b" ", 2)[1]), body.decode(errors="replace")
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
            self.close()
            return 0, ""

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None


class Load:
    """All clients."""

    def __init__(self, log: Recorder, writers: int, readers: int) -> None:
        self.log = log
        self.writers = writers
        self.readers = readers
        self.ports: dict[int, int] = {}
        self._clients: dict[int, list[asyncio.Task[None]]] = {}
        self._number = 0

    def add(self, slot: int, port: int) -> None:
        """Begin with a slot."""
        self.ports[slot] = port
        self._clients[slot] = [asyncio.create_task(self._write(slot)) for _ in range(self.writers)]
        self._clients[slot] += [asyncio.create_task(self._read(slot)) for _ in range(self.readers)]

    async def remove(self, slot: int) -> None:
        """End with a slot; what was asked is still answered."""
        self.ports.pop(slot, None)
        await asyncio.gather(*self._clients.pop(slot, ()))

    async def leave(self) -> None:
        """Have all clients leave at once: nobody waits for the answers of workers that are stopped."""
        clients = [task for tasks in self._clients.values() for task in tasks]
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _write(self, slot: int) -> None:
        client = Client(self.ports[slot])
        while slot in self.ports:
            if not await client.connect():
                await asyncio.sleep(GONE_PAUSE_SECONDS)
                continue
            self._number += 1
            key = f"w{slot}-{self._number}"
            start = time.monotonic()
            status, body = await client.ask(f"POST /write?key={key}")
            row, pid = (int(word) for word in body.split()) if status == 201 else (0, 0)
            self.log.record(Write(key, slot, start, time.monotonic(), status, pid=pid, row=row))
            await asyncio.sleep(PAUSE_SECONDS)
        client.close()

    async def _read(self, slot: int) -> None:
        client = Client(self.ports[slot])
        while slot in self.ports:
            start = time.monotonic()
            await client.connect()
            status, _ = await client.ask("GET /read")
            end = time.monotonic()
            retried = 0 if status else await self._try_elsewhere(slot)
            self.log.record(Read(slot, start, end, status, retried, 0.0 if status else time.monotonic()))
            await asyncio.sleep(PAUSE_SECONDS if status else GONE_PAUSE_SECONDS)
        client.close()

    async def _try_elsewhere(self, slot: int) -> int:
        deadline = time.monotonic() + RETRY_SECONDS
        status = 0
        while status == 0 and time.monotonic() < deadline:
            for port in [port for other, port in self.ports.items() if other != slot]:
                client = Client(port)
                await client.connect()
                status, _ = await client.ask("GET /read")
                client.close()
                if status:
                    break
            else:
                await asyncio.sleep(PAUSE_SECONDS)
        return status


async def _main(path: str, writers: int, readers: int) -> None:
    log = Recorder(Path(path))
    load = Load(log, writers, readers)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        match line.split():
            case ["add", slot, port]:
                load.add(int(slot), int(port))
            case ["remove", slot]:
                await load.remove(int(slot))
        print(line.strip(), flush=True)
    await load.leave()
    log.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
