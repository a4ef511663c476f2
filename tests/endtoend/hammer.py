"""Load from a process of its own: `python hammer.py PORT WRITERS READERS LOG`, until its standard input is closed.

Every request is one line in LOG when it ends: kind, key, status, start and end on CLOCK_MONOTONIC, so that another
process of this machine can lay its own instants beside them. Status 0: no answer came.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from typing import TextIO

# The first clients come back at once, refused or not: that is the hardest load for a gate, and no good manners. The
# others leave the processes time for what is asked of them besides: readers always, writers when they were refused.
HARD = 1
PAUSE_SECONDS, LONG_PAUSE_SECONDS = 0.002, 0.02
# A server of several processes accepts on a socket on which asyncio does not switch Nagle's algorithm off: the body of
# each answer would wait for our delayed acknowledgement of its head, 40 ms, and most of the load would be waiting.
QUICKACK = getattr(socket, "TCP_QUICKACK", None)


def _acknowledge_at_once(writer: asyncio.StreamWriter) -> None:
    if QUICKACK is not None:  # the kernel forgets it, so it is said again for each answer
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)


async def _client(kind: str, name: str, port: int, log: TextIO, stop: asyncio.Event, *, hard: bool) -> None:
    number = 0
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    while not stop.is_set():
        number += 1
        key = f"{name}-{number}"
        start = time.monotonic()
        status = 0
        try:
            if writer is None or reader is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            line = f"POST /write?key={key}" if kind == "write" else "GET /read"
            writer.write(f"{line} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".encode())
            _acknowledge_at_once(writer)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            status = int(head.split(b" ", 2)[1])
            lower = head.lower()
            length = lower.partition(b"content-length:")[2].split(b"\r\n")[0].strip()
            await reader.readexactly(int(length or b"0"))
            if b"connection: close" in lower:
                writer.close()
                writer = None
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
            if writer is not None:
                writer.close()
            writer = None
        log.write(f"{kind} {key} {status} {start:.6f} {time.monotonic():.6f}\n")
        await asyncio.sleep(PAUSE_SECONDS if hard or status == 201 else LONG_PAUSE_SECONDS)


async def _main(port: int, writers: int, readers: int, path: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    closed = loop.run_in_executor(None, sys.stdin.read)
    with open(path, "w", buffering=1) as log:  # noqa: PTH123 - a script; line by line, so that it can be followed
        clients = [
            asyncio.create_task(_client("write", f"w{n}", port, log, stop, hard=n < HARD)) for n in range(writers)
        ]
        clients += [asyncio.create_task(_client("read", f"r{n}", port, log, stop, hard=False)) for n in range(readers)]
        await closed
        stop.set()
        await asyncio.gather(*clients)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
