"""One process of the site under fault: `python worker.py CONFIG`, where CONFIG is the JSON of `Settings`.

POST /write puts one row into PostgreSQL and answers its id and this process's; GET /read reads. It has no guard: what
keeps a write out here is the gate and the drain alone. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import asyncpg
import uvicorn

from readonly import Policy, Switch
from readonly.asgi import ReadOnlyMiddleware
from readonly.clock import boottime
from readonly.stores import store_from_url

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Between statement and commit, as in real writes; one in twenty takes its time, so that the drain has work.
USUAL_SECONDS, SLOW_SECONDS, SLOW_SHARE = 0.02, 0.3, 0.05


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker is told.

    Attributes:
        slot: Its number; one that was killed is followed by another in the same slot.
        port: Where it listens.
        store: The store's URL, through a proxy.
        database: The database's URL.
        events: File to which it adds the line that says that it serves.
        clock: File with what is added to its wall clock, one double of seconds.
        hold: While this file is there, admitted writes wait before they begin.
        interval, timeout, lease: As a switch takes them.
        sabotage: What is broken in it on purpose.
        runs: What it reports that it runs.
    """

    slot: int
    port: int
    store: str
    database: str
    events: str
    clock: str
    hold: str
    interval: float
    timeout: float
    lease: float | None = None
    sabotage: str = ""
    runs: str = ""


class SteppedClock:
    """The machine's wall clock, and what the nemesis adds to it."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)

    def now(self) -> datetime:
        """Return the wall clock as this process is to see it."""
        (offset,) = struct.unpack("d", self._map[:8])
        return datetime.now(UTC) + timedelta(seconds=offset)

    def boottime(self) -> float:
        """Return seconds since boot: nobody steps those."""
        return boottime()


class Site:
    """The application."""

    def __init__(self, settings: Settings, switch: Switch) -> None:
        self.settings = settings
        self.switch = switch
        self.hold = Path(settings.hold)
        self.reached = Path(settings.hold + ".reached")
        self._pool: asyncpg.Pool | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self._pool is not None
        if scope["method"] == "POST":
            await self._wait_while_held()
            key = parse_qs(scope["query_string"].decode())["key"][0]
            async with self._pool.acquire() as connection, connection.transaction():
                row = await connection.fetchval("INSERT INTO written (key) VALUES ($1) RETURNING id", key)
                await asyncio.sleep(SLOW_SECONDS if random.random() < SLOW_SHARE else random.random() * USUAL_SECONDS)
            await _answer(send, 201, f"{row} {os.getpid()}")
        else:
            found = await self._pool.fetchval("SELECT count(*) FROM written WHERE id < 0")
            await _answer(send, 200, str(found))

    async def _wait_while_held(self) -> None:
        if self.hold.exists():
            self.reached.touch()
            while self.hold.exists():
                await asyncio.sleep(0.005)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._pool = await asyncpg.create_pool(
                    self.settings.database,
                    min_size=1,
                    max_size=4,
                    server_settings={"application_name": f"faults-{self.settings.slot}-{os.getpid()}"},
                )
                self._say_that_it_begins()
                await send({"type": "lifespan.startup.complete"})
            else:
                if self._pool is not None:
                    await self._pool.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _say_that_it_begins(self) -> None:
        follower = self.switch._followers[os.getpid()]
        line = {
            "slot": self.settings.slot,
            "pid": os.getpid(),
            "member": follower.member,
            "at": time.monotonic(),
        }
        with open(self.settings.events, "a") as file:  # noqa: PTH123 - a script
            file.write(json.dumps(line) + "\n")


async def _answer(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def made(settings: Settings) -> App:
    """Return the application behind the middleware, sabotaged if it is to be."""
    switch = Switch(
        store_from_url(settings.store, timeout=settings.timeout),
        interval=settings.interval,
        lease=settings.lease,
        runs=settings.runs,
        clock=SteppedClock(Path(settings.clock)),
    )
    site: App = Site(settings, switch)
    if settings.sabotage:
        # Never loaded by a worker that is to be trusted.
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from faults import sabotage

        site = {**sabotage.WORKER, **sabotage.WITH_FAKETIME}[settings.sabotage](switch, site)
    return ReadOnlyMiddleware(site, switch, policy=Policy())


def _end_with_input() -> None:
    with contextlib.suppress(OSError):
        sys.stdin.read()
    os._exit(3)


def main() -> None:
    """Serve until told to end."""
    settings = Settings(**json.loads(sys.argv[1]))
    threading.Thread(target=_end_with_input, daemon=True).start()
    # Before it says that it begins, so that nobody who comes after that is turned away.
    listening = socket.create_server(("127.0.0.1", settings.port))
    config = uvicorn.Config(
        made(settings),
        log_level="warning",
        # A connection is ended by faults alone, and not by a machine that stands still for uvicorn's own five seconds.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=3,
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
