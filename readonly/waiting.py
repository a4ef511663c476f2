"""Who is told when the site turns: callbacks, in the switch's thread; and threads and tasks that wait for it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import Generic, ParamSpec, Protocol

from .follower import View
from .state import State

P = ParamSpec("P")
logger = logging.getLogger("readonly")


class Listeners(Generic[P]):
    """Those who are told of one thing. Any thread may add one, or take it out again.

    Args:
        what: What they are, for the log.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        # Adding and taking out are single operations of the interpreter: jobs in many threads wait by these.
        self._listeners: dict[object, Callable[P, object]] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._listeners)

    def add(self, listener: Callable[P, object]) -> Callable[[], None]:
        """Have it told from now on; returns what stops it."""
        key = object()
        self._listeners[key] = listener

        def stop() -> None:
            self._listeners.pop(key, None)

        return stop

    def tell(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell all of them, in the order they came. What one raises is logged."""
        for listener in list(self._listeners.values()):
            try:
                listener(*args, **kwargs)
            except Exception:
                logger.exception("readonly: %s failed", self._what)


class _Turning(Protocol):
    """What a wait needs of a switch."""

    @property
    def state(self) -> State: ...
    @property
    def view(self) -> View: ...
    def on_change(self, callback: Callable[[State], None], /) -> Callable[[], None]: ...


def wait_writable(switch: _Turning, timeout: float) -> bool:
    """Wait until the site is writable, for so many seconds at most; return whether it is."""
    happened = threading.Event()
    stop = switch.on_change(lambda state: None if state.read_only else happened.set())
    try:
        return not switch.state.read_only or happened.wait(timeout) or not switch.view.state.read_only
    finally:
        stop()


async def await_writable(switch: _Turning, timeout: float) -> bool:
    """Do what `wait_writable` does, awaited."""
    loop = asyncio.get_running_loop()
    happened = asyncio.Event()
    stop = switch.on_change(lambda state: None if state.read_only else _call_soon(loop, happened.set))
    try:
        if not switch.state.read_only:
            return True
        await asyncio.wait_for(happened.wait(), timeout)
        return True
    except TimeoutError:
        return not switch.view.state.read_only
    finally:
        stop()


async def states(switch: _Turning) -> AsyncIterator[State]:
    """Yield the state now, and again after each change, on the caller's loop. Changes in between may be skipped."""
    loop = asyncio.get_running_loop()
    happened = asyncio.Event()
    stop = switch.on_change(lambda _: _call_soon(loop, happened.set))
    try:
        yield switch.state
        while True:
            await happened.wait()
            happened.clear()
            yield switch.view.state
    finally:
        stop()


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    # The loop may have ended while the switch lives on.
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)
