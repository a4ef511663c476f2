"""What others have done in the thread, which alone talks to the store: once, or until there is an answer."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import Error, StoreUnreachable
from ..stores import Store

T = TypeVar("T")


@dataclass(slots=True)
class _Job:
    """Something to be done in the thread, with its store."""

    run: Callable[[Store], Any]
    future: Future[Any]


@dataclass(slots=True)
class _Waiter:
    """Somebody who waits for a condition of the registry: looked at on every report and hint."""

    look: Callable[[Store], Any | None]
    future: Future[Any]
    deadline: float


class Errands:
    """Jobs and waiters. Any thread may bring one; the rest is the thread's own.

    Adding to either list is a single operation of the interpreter.

    Args:
        monotonic: The clock that deadlines go by.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._jobs: deque[_Job] = deque()
        self._waiters: list[_Waiter] = []

    def bring(self, run: Callable[[Store], T], future: Future[T]) -> None:
        """Have something done when the thread comes to it."""
        self._jobs.append(_Job(run, future))

    def wait(self, look: Callable[[Store], T | None], future: Future[T | None], *, timeout: float) -> None:
        """Have `look` called until it returns something, or for `timeout` seconds."""
        self._waiters.append(_Waiter(look, future, self._monotonic() + timeout))

    @property
    def awaited(self) -> bool:
        """Whether anybody waits for what others report."""
        return bool(self._waiters)

    def left_seconds(self) -> float | None:
        """Return how long until somebody has waited for long enough; None: nobody waits."""
        if not self._waiters:
            return None
        return max(0.0, min(waiter.deadline for waiter in self._waiters) - self._monotonic())

    @staticmethod
    def do(run: Callable[[Store], T], future: Future[T], store: Store) -> None:
        """Do one, now, in the calling thread."""
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(run(store))
        except BaseException as error:
            future.set_exception(error)

    def do_all(self, store: Store) -> bool:
        """Do what was brought; return whether there was anything."""
        if not self._jobs:
            return False
        while self._jobs:
            job = self._jobs.popleft()
            self.do(job.run, job.future, store)
        return True

    def look(self, store: Store, *, failed: Callable[[StoreUnreachable], None]) -> None:
        """Look for everybody who waits.

        Args:
            store: Where to look.
            failed: Told where the store does not answer; who waits goes on waiting.
        """
        for waiter in list(self._waiters):
            result: Any | None = None
            try:
                if not waiter.future.cancelled():
                    result = waiter.look(store)
            except StoreUnreachable as error:
                failed(error)
            except BaseException as error:
                self._waiters.remove(waiter)
                _fail(waiter.future, error)
                continue
            if waiter.future.cancelled():
                self._waiters.remove(waiter)
            elif result is not None or self._monotonic() >= waiter.deadline:
                self._waiters.remove(waiter)
                with contextlib.suppress(InvalidStateError):
                    waiter.future.set_result(result)

    def fail_all(self, error: Error) -> None:
        """Tell all of them that nobody does it any more."""
        for job in self._jobs:
            _fail(job.future, error)
        self._jobs.clear()
        for waiter in self._waiters:
            _fail(waiter.future, error)
        self._waiters.clear()


def _fail(future: Future[Any], error: BaseException) -> None:
    # Whoever waited may have given up in this very moment; that must not end the thread.
    with contextlib.suppress(InvalidStateError):
        future.set_exception(error)
