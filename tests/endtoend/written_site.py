"""A small site for tests that count rows: POST /write puts one row into PostgreSQL, GET /read reads.

Its writes take their time between statement and commit, as real ones do. It has no guard: what keeps a write out
here is the gate and the drain alone.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import asyncpg

from readonly import Policy, Switch
from readonly.asgi import ReadOnlyMiddleware

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

SLOWEST_SECONDS = 0.01

switch = Switch.from_url(os.environ["READONLY_STORE"], interval=float(os.environ.get("TEST_INTERVAL", "1")))
_pool: asyncpg.Pool | None = None


async def site(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    if _pool is None:
        raise RuntimeError("the pool is made at start-up")
    if scope["method"] == "POST":
        key = parse_qs(scope["query_string"].decode())["key"][0]
        async with _pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO written (key) VALUES ($1)", key)
            await asyncio.sleep(random.random() * SLOWEST_SECONDS)  # the slow part of a real write
        await _answer(send, 201, b"written")
    else:
        found = await _pool.fetchval("SELECT count(*) FROM written WHERE key = $1", "nobody")
        await _answer(send, 200, str(found).encode())


async def _live(receive: Receive, send: Send) -> None:
    global _pool
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            _pool = await asyncpg.create_pool(os.environ["TEST_DATABASE"], min_size=2, max_size=8)
            await send({"type": "lifespan.startup.complete"})
        else:
            if _pool is not None:
                await _pool.close()
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _answer(send: Send, status: int, body: bytes) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})


app = ReadOnlyMiddleware(site, switch, policy=Policy())
