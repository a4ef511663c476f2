"""The site of tests/endtoend, with a note of each accepted write: when it came in and when its answer was out.

On CLOCK_MONOTONIC, seen around the whole application, one file in $TEST_TIMES for each process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from endtoend.written_site import app as site

Message = MutableMapping[str, Any]

_log = (Path(os.environ["TEST_TIMES"]) / f"{os.getpid()}.times").open("a", buffering=1)


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer one request."""
    if scope["type"] != "http" or scope["method"] != "POST":
        await site(scope, receive, send)
        return
    status = 0

    async def noting(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        await send(message)

    begun = time.monotonic()
    await site(scope, receive, noting)
    if status == 201:
        _log.write(f"{begun:.6f} {time.monotonic():.6f}\n")
