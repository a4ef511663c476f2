"""Wait for something to become true, bounded, and say what was seen last when it does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

# Short enough that waiting costs a test nothing, long enough not to be load of its own.
POLL_SECONDS = 0.01
# A timeout says how long something takes at most on a machine with nothing else to do. One that runs several workers
# and whatever else is slower, and waiting for what does happen costs nothing.
PATIENCE = 6.0


class NeverHappened(AssertionError):
    """The condition was not met by the deadline."""


def eventually(
    predicate: Callable[[], T],
    timeout: float = 10.0,
    *,
    what: str = "",
    ignoring: type[Exception] | tuple[type[Exception], ...] = (),
    poll_seconds: float = POLL_SECONDS,
) -> T:
    """Call `predicate` until what it returns is true, and return that.

    Args:
        predicate: Asked at once and then at each poll.
        timeout: Seconds until giving up, on a quiet machine: `PATIENCE` times that are waited.
        what: What is waited for, for the message.
        ignoring: Exceptions that count as "not yet".
        poll_seconds: Pause between two questions.

    Raises:
        NeverHappened: At the deadline, with the last answer or exception.
    """
    deadline = time.monotonic() + timeout * PATIENCE
    while True:
        failure: Exception | None = None
        answer: T | None = None
        try:
            answer = predicate()
        except ignoring as error:
            failure = error
        else:
            if answer:
                return answer
        if time.monotonic() >= deadline:
            raise _never(predicate, what, timeout, failure or answer) from failure
        time.sleep(poll_seconds)


async def eventually_async(
    predicate: Callable[[], object],
    timeout: float = 10.0,
    *,
    what: str = "",
    ignoring: type[Exception] | tuple[type[Exception], ...] = (),
    poll_seconds: float = POLL_SECONDS,
) -> Any:
    """Do the same on an event loop; `predicate` may be a coroutine function."""
    deadline = time.monotonic() + timeout * PATIENCE
    while True:
        failure: Exception | None = None
        answer: object = None
        try:
            given = predicate()
            answer = await given if isinstance(given, Awaitable) else given
        except ignoring as error:
            failure = error
        else:
            if answer:
                return answer
        if time.monotonic() >= deadline:
            raise _never(predicate, what, timeout, failure or answer) from failure
        await asyncio.sleep(poll_seconds)


def _never(predicate: Callable[[], object], what: str, timeout: float, last: object) -> NeverHappened:
    name = what or getattr(predicate, "__qualname__", repr(predicate))
    return NeverHappened(f"{name}: not within {timeout * PATIENCE:g} s; last seen: {last!r}")
