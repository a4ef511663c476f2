"""Writes in flight: count, look, admit; in that order, without a lock on the request path.

The other order, look and then count, lets a write slip between the two: the command counts nothing in flight, says
"safe", and the write that had looked before commits after it (protocol.md C18).
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from .context import Work, admitted, current, enter, leave
from .errors import ConfigurationError, ReadOnlyError
from .state import State

F = TypeVar("F", bound=Callable[..., Any])


class InFlight:
    """The writes that this process has admitted and not yet seen the end of.

    A write is a key in a set: adding and discarding are single operations of the interpreter, atomic under the GIL
    and internally locked without one, so that no lock is taken and no count is ever lost.

    Once the process is closed, only those that were counted before can have been admitted: who counts later looks
    later, and is refused. So the drain watches that one group, and neither waits for the refused nor is woken by them.

    The request path spells `begin` and `end` out, since a call costs as much as either does:

        key = object(); add(key)                        # look at the state only after this
        discard(key); if inflight.draining: end(key)

    Attributes:
        add: Counts a key.
        discard: Uncounts one, of which nobody is told who waits: that is for `end`.
        draining: What was in flight when the process was closed, and still is; before that, parts of admitted work.
    """

    __slots__ = ("_asked", "_closed", "_drained", "_let", "_open", "add", "discard", "draining")

    def __init__(self, drained: Callable[[], None] = lambda: None) -> None:
        # Neither is ever replaced by another set: who is about to put a key into one must not miss it.
        self._open: set[object] = set()
        self.add = self._open.add
        self.discard = self._open.discard
        self.draining: set[object] = set()
        self._closed = False
        self._drained = drained
        # What bypasses let write, with the id of each, and which of that somebody waits for.
        self._let: dict[object, str] = {}
        self._asked: frozenset[object] = frozenset()

    def begin(self, *, part: bool = False) -> object:
        """Count one write and return its key. Look at the state only after this.

        Args:
            part: It belongs to work that was admitted, and may begin though the process is closed. Ask only after
                this whether that work is still in flight.
        """
        key = object()
        self._open.add(key)
        if part:
            self.draining.add(key)  # whoever closes in this very moment may be past what is in the other
        return key

    def end(self, key: object) -> None:
        """Uncount it: it was not admitted, or its commit is decided. Ending twice does no harm."""
        self._open.discard(key)
        draining = self.draining
        if key in draining:
            draining.discard(key)
            if self._closed and not draining:
                self._drained()
        if self._let and self._let.pop(key, None) is not None and key in self._asked:
            self._drained()

    def let(self, by: str, key: object = None) -> object:
        """Count one write that a bypass lets through, until `end`. Look only after this whether it still does.

        Nobody waits for it as long as that bypass is good: whoever says "safe" names it. Once it is not, it is waited
        for like any other write.

        Args:
            by: The bypass's id.
            key: What it is counted by; None: a new one.
        """
        key = object() if key is None else key
        self._let[key] = by
        return key

    def lets(self, key: object) -> bool:
        """Return whether that write was let through by a bypass, and is in flight."""
        return key in self._let

    def left(self, good: Collection[str]) -> frozenset[object]:
        """Return what is in flight that was let through by bypasses which let nobody through any more.

        Args:
            good: Ids of those that still do.
        """
        if not self._let:
            return frozenset()
        found = self._asked = frozenset(key for key, by in self._let.copy().items() if by not in good)
        return found

    def close(self) -> None:
        """Watch what is in flight now. Call it when every thread can see the closed state; twice does no harm."""
        if self._closed:
            return
        # All are in there before anybody counts by it: another thread's report that came in between would say that
        # nothing is in flight, and the command "safe".
        self.draining.update(self._open)
        self._closed = True
        # What ended before `end` could see it there. One by one, since others put keys in meanwhile.
        for key in self.draining.copy():
            if key not in self._open:
                self.draining.discard(key)

    def reopen(self) -> None:
        """Watch no more. Call it before any thread can see the open state."""
        self._closed = False
        self.draining.clear()

    def count(self) -> int:
        """Return how many writes are in flight: while closed, of those that may have been admitted."""
        return len(self.draining if self._closed else self._open)

    def holds(self, key: object) -> bool:
        """Return whether that write is in flight."""
        return key in self._open

    def keys(self) -> frozenset[object]:
        """Return the keys that are counted, for whoever measures their age from outside."""
        return frozenset((self.draining if self._closed else self._open).copy())

    def forget(self) -> None:
        """Drop what a forked child has inherited: those writes are the parent's."""
        self._open.clear()
        self.draining.clear()
        self._let.clear()


class _Admitting(Protocol):
    """What `Writing` needs of a switch."""

    @property
    def inflight(self) -> InFlight: ...
    @property
    def in_run(self) -> bool: ...
    def lets_through(self, by: str, /) -> bool: ...
    def admit(self) -> State | None: ...
    async def aadmit(self) -> State | None: ...
    def wait_writable(self, timeout: float) -> bool: ...
    async def await_writable(self, timeout: float) -> bool: ...
    def begins(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    """One block that is open."""

    by: Writing
    key: object
    work: Work
    token: Token[tuple[Work, ...]]


# Blocks that are open in this task or thread, outermost first: they end in the other order.
_entered: ContextVar[tuple[_Entry, ...]] = ContextVar("readonly_writing", default=())


class Writing:
    """Work outside HTTP that writes: counted, so that it is drained like a request.

    Use it as a context manager or as a decorator, sync or async alike. One object may be used any number of times,
    also by several threads and tasks at once. Inside work that was admitted, more work is admitted: the whole is
    waited for, whatever the state has become.

    Raises:
        ReadOnlyError: On entry, when the site is read-only (and still was after `wait` seconds).
    """

    __slots__ = ("_begun", "_name", "_switch", "_wait")

    def __init__(self, switch: _Admitting, *, wait: float = 0.0) -> None:
        self._switch = switch
        self._wait = wait
        self._name = ""
        self._begun: dict[object, _Entry] = {}

    def __enter__(self) -> None:
        key, state = self._try(self._switch.admit)
        if state is not None and self._wait > 0:
            deadline = time.monotonic() + self._wait
            # Somebody may close again between the wake-up and the count: go on until the time is over.
            while state is not None and self._switch.wait_writable(max(0.0, deadline - time.monotonic())):
                key, state = self._try(self._switch.admit)
        self._enter(key, state)

    def __exit__(self, *exc: object) -> None:
        self._leave()

    async def __aenter__(self) -> None:
        key, state = await self._atry()
        if state is not None and self._wait > 0:
            deadline = time.monotonic() + self._wait
            while state is not None and await self._switch.await_writable(max(0.0, deadline - time.monotonic())):
                key, state = await self._atry()
        self._enter(key, state)

    async def __aexit__(self, *exc: object) -> None:
        self._leave()

    def __call__(self, function: F) -> F:
        """Wrap a function or a coroutine function: each call is one piece of work.

        Raises:
            ConfigurationError: It is a generator: its work is done after the call, and would not be counted.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(
                f"{function!r} is a generator, which works after it was called: put `with switch.writing():` inside it"
            )
        self._name = self._name or getattr(function, "__qualname__", "")
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004 - the method itself is wanted

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                async with self:
                    return await function(*args, **kwargs)

            return cast(F, awaited)

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with self:
                result = function(*args, **kwargs)
            if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
                if inspect.iscoroutine(result):
                    result.close()
                raise TypeError(f"{function!r} returned before its work was done: decorate what does the work")
            return result

        return cast(F, called)

    def _try(self, admit: Callable[[], State | None]) -> tuple[object, State | None]:
        key = self._switch.inflight.begin(part=admitted(self._switch))
        # Asked after counting: if the work around it is in flight now, nobody can have seen nothing in flight since.
        if admitted(self._switch):
            return key, None
        try:
            state = admit()
        except BaseException:
            self._switch.inflight.end(key)
            raise
        if state is not None:
            self._switch.inflight.end(key)
        return key, state

    async def _atry(self) -> tuple[object, State | None]:
        key = self._switch.inflight.begin(part=admitted(self._switch))
        if admitted(self._switch):
            return key, None
        try:
            state = await self._switch.aadmit()
        except BaseException:
            self._switch.inflight.end(key)
            raise
        if state is not None:
            self._switch.inflight.end(key)
        return key, state

    def _enter(self, key: object, state: State | None) -> None:
        outer = current(self._switch)
        by = outer.by if outer is not None and state is not None else ""
        if by:
            self._switch.inflight.let(by, key)  # counted, and only then looked at
        bypass = (outer is not None and outer.bypass) or (state is not None and self._switch.in_run)
        if state is not None and not bypass:
            self._switch.inflight.end(key)
            refusal = ReadOnlyError(
                f"the site is read-only ({state.reason}): this work was not begun",
                expected_end=state.expected_end,
            )
            if outer is not None:
                # Inside a request: an exception would be a 500 by the time it leaves the framework.
                outer.mark(refusal)
            raise refusal
        # Of the command of a run the key counts for nothing: nobody waits for that.
        work = Work(self._switch, key=key, bypass=bypass, by=by, name="writing")
        if outer is None:
            self._switch.begins(self._name)
        elif outer.noted is not None:
            work.noted = outer.noted
            outer.noted.transaction({"switch.writing()": self._name}, dropped=False)
        entry = _Entry(self, key, work, enter(work))
        self._begun[key] = entry
        _entered.set((*_entered.get(), entry))

    def _leave(self) -> None:
        stack = _entered.get()
        entry: _Entry | None = None
        if stack and stack[-1].by is self:
            _entered.set(stack[:-1])
            with suppress(ValueError, RuntimeError):
                leave(stack[-1].token)  # it was entered in a context that this one is a copy of
            entry = self._begun.pop(stack[-1].key, None)
        if entry is None:
            # A thread pool may run the two halves in two contexts. It is a count: any block of this object will do.
            try:
                _, entry = self._begun.popitem()
            except KeyError:
                raise RuntimeError("this work was never begun, or has ended already") from None
        entry.work.end()
        self._switch.inflight.end(entry.key)
