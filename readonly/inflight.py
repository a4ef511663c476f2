"""Writes in flight: count, look, admit; in that order, without a lock on the request path.

The other order, look and then count, lets a write slip between the two: the command counts nothing in flight, says
"safe", and the write that had looked before commits after it (protocol.md C18).
"""

from __future__ import annotations

from collections.abc import Callable


class InFlight:
    """The writes that this process has admitted and not yet seen the end of.

    A write is a key in a set: adding and discarding are single operations of the interpreter, atomic under the GIL
    and internally locked without one, so that no lock is taken and no count is ever lost.
    """

    __slots__ = ("_drained", "_open", "waiting")

    def __init__(self, drained: Callable[[], None] = lambda: None) -> None:
        self._open: set[object] = set()
        self._drained = drained
        # True while somebody waits for the last write: the request path pays one attribute read for it.
        self.waiting = False

    def begin(self) -> object:
        """Count one write and return its key. Look at the state only after this."""
        key = object()
        self._open.add(key)
        return key

    def end(self, key: object) -> None:
        """Uncount it: it was not admitted, or its commit is decided. Ending twice does no harm."""
        self._open.discard(key)
        if self.waiting and not self._open:
            self._drained()

    def count(self) -> int:
        """Return how many writes are in flight. Read it only after the closed state can be seen by all threads."""
        return len(self._open)

    def keys(self) -> frozenset[object]:
        """Return the keys in flight, for whoever measures their age from outside."""
        return frozenset(self._open.copy())

    def forget(self) -> None:
        """Drop what a forked child has inherited: those writes are the parent's."""
        self._open.clear()
