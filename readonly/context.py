"""The request (or job) that the current code runs for, as the database guard needs to know it.

A guard can't answer a request: an exception that it raises is a 500 by the time it leaves the framework. So the
middleware puts one mutable object into a context variable, the guard marks it, and the middleware, outside the
framework, turns a marked 500 into the 503. Guard and middleware know this module and not each other.

One process may hold several switches (two Flask applications, a test's own). Work belongs to one of them, and says
nothing to the guard of another: each asks for the work of its own switch.

The variable is set for writes and bypasses when a guard is installed, and for every request while read-only;
never for a read of a writable site.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from .errors import ReadOnlyError


class _Counts(Protocol):
    def holds(self, key: object, /) -> bool: ...
    def lets(self, key: object, /) -> bool: ...


class Owner(Protocol):
    """What work needs of the switch that it belongs to."""

    @property
    def inflight(self) -> _Counts:
        """The writes that were admitted."""
        ...

    def lets_through(self, by: str, /) -> bool:
        """Return whether a bypass, by its id, still lets anybody through."""
        ...


class Notes(Protocol):
    """Takes in what a rehearsal sees of a piece of work."""

    def transaction(
        self,
        tables: dict[str, str],
        *,
        dropped: bool = False,
        droppable: Collection[str] = (),
        raw: bool = False,
        taken_back: bool = False,
    ) -> None:
        """Say that a transaction of it has ended.

        Args:
            tables: What it wrote, and where in the code.
            dropped: It also wrote what is dropped while read-only.
            droppable: Those of the tables that were written by statements which could be dropped.
            raw: Something was written that could not be: by SQL text, or by a function.
            taken_back: Something was written and rolled back.
        """
        ...


class Work:
    """One request or job, for as long as it runs.

    Attributes:
        of: The switch that it belongs to.
        by: Id of the bypass that lets it through; "" if none of the record's does.
        name: Route or job, for the log.
        escape: The first refusal of a guard inside this work, else None.
        reads_from: The replica that each database is read from, by whoever chose it.
        noted: What a rehearsal notes of it, while one goes on.
    """

    __slots__ = ("_bypass", "_key", "by", "escape", "name", "noted", "of", "reads_from")

    def __init__(self, of: Owner, *, key: object = None, bypass: bool = False, by: str = "", name: str = "") -> None:
        """Describe a piece of work.

        Args:
            of: The switch that it belongs to.
            key: What it is counted by, if it was admitted or let through: it is for as long as that is in flight.
            bypass: A bypass lets it write.
            by: That bypass's id, if it is one of the record's.
            name: Route or job, for the log.
        """
        self.of = of
        self._key = key
        self._bypass = bypass
        self.by = by
        self.name = name
        self.escape: ReadOnlyError | None = None
        self.reads_from: dict[object, object] | None = None
        self.noted: Notes | None = None

    @property
    def admitted(self) -> bool:
        """True while it is in flight as a write that was admitted: what it begins is part of that, and drained."""
        # Not a flag: that would be true for ever in a child that was forked meanwhile, whose count begins at nothing.
        return self._key is not None and self.of.inflight.holds(self._key)

    @property
    def bypass(self) -> bool:
        """True if it may write whatever the state, as part of what a bypass has let through or by one that still does.

        What was let through as a write goes on to its end, and is counted until then. A read that lives on when its
        bypass is over begins no write any more.
        """
        if not self._bypass or not self.by:
            return self._bypass
        return (self._key is not None and self.of.inflight.lets(self._key)) or self.of.lets_through(self.by)

    @property
    def may_write(self) -> bool:
        """True if the guard lets its transactions write."""
        return self.bypass or self.admitted

    def admit(self, key: object) -> None:
        """Say that it was counted after all, and admitted."""
        self._key = key

    def mark(self, refusal: ReadOnlyError) -> None:
        """Remember that a guard refused a write inside this work."""
        if self.escape is None:
            self.escape = refusal

    def end(self) -> None:
        """Say that it is over: what inherited the context and lives on writes no more."""
        self._key = None
        self._bypass = False


# Innermost first: an application may call another in the same process, and each has a switch of its own.
_works: ContextVar[tuple[Work, ...]] = ContextVar("readonly_work", default=())


def current(of: Owner) -> Work | None:
    """Return the innermost work of a switch that the calling code belongs to, or None outside of any."""
    for work in _works.get():
        if work.of is of:
            return work
    return None


def admitted(of: Owner) -> bool:
    """Return whether the calling code belongs to work of a switch that was admitted, and is not over."""
    return any(work.of is of and work.admitted for work in _works.get())


def enter(work: Work) -> Token[tuple[Work, ...]]:
    """Make `work` the current one of its switch; hand the token to `leave` in the same context."""
    return _works.set((work, *_works.get()))


def leave(token: Token[tuple[Work, ...]]) -> None:
    """Put back what `enter` found."""
    _works.reset(token)


@contextmanager
def working(work: Work) -> Iterator[Work]:
    """Make `work` the current one of its switch inside a with block."""
    token = enter(work)
    try:
        yield work
    finally:
        leave(token)
