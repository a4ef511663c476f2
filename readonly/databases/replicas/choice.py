"""Which replica is read from: those that have reached a position and did not just fail. Knows no database."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

# What a replica holds is looked at no more often than this, by whoever chooses then.
PROBE_SECONDS = 0.25
# One that failed is left out so long, twice as long after each further failure, and never longer than the cap.
LEFT_OUT_SECONDS, LEFT_OUT_CAP_SECONDS = 1.0, 30.0


class Replica(Generic[T]):
    """One server to read from, and what is known of it.

    Attributes:
        target: What is handed out.
        suspect: It failed, its time is over, and nobody has read from it since: try it before it is used.
    """

    def __init__(
        self,
        target: T,
        *,
        probe: Callable[[], int | None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target = target
        self.suspect = False
        self._declared: int | None = None
        self._probe = probe
        self._probed: int | None = None
        self._probed_at = float("-inf")
        self._probing = threading.Lock()
        self._monotonic = monotonic
        self._failures = 0
        self._out_until = float("-inf")

    def reached(self, position: int) -> None:
        """Take somebody's word that it has reached a position; never goes back."""
        if self._declared is None or position > self._declared:
            self._declared = position

    def position(self) -> int | None:
        """Return the position it has reached, as far as is known; None: nobody knows."""
        # One looks; the others go by what was seen last, but for the very first look.
        if (
            self._probe is not None
            and self._monotonic() - self._probed_at >= PROBE_SECONDS
            and self._probing.acquire(blocking=self._probed_at == float("-inf"))
        ):
            try:
                self._probed = self._probe()
                self._probed_at = self._monotonic()
            finally:
                self._probing.release()
        known = [p for p in (self._declared, self._probed) if p is not None]
        return max(known, default=None)

    @property
    def left_out(self) -> bool:
        """True for a while after it failed."""
        return self._monotonic() < self._out_until

    def failed(self) -> None:
        """Leave it out for a while."""
        if self.left_out:  # several users of one failure are one failure
            return
        self._failures += 1
        seconds = min(LEFT_OUT_SECONDS * 2 ** (self._failures - 1), LEFT_OUT_CAP_SECONDS)
        self._out_until = self._monotonic() + seconds
        self.suspect = True

    def works(self) -> None:
        """Say that it was read from."""
        self.suspect = False
        self._failures = 0


class Replicas(Generic[T]):
    """The replicas of one primary."""

    def __init__(self, replicas: Sequence[Replica[T]]) -> None:
        self.all = tuple(replicas)
        self._turn = itertools.count()

    def __bool__(self) -> bool:
        return bool(self.all)

    def choose(self, required: int, newest: int, *, turn: int | None = None) -> Replica[T] | None:
        """Return a replica that has reached `required`, or None if there is none: then the primary is read.

        Args:
            required: The position it must have reached.
            newest: The highest position there is. One that claims more holds another site's past (a store that was
                emptied and began again to count).
            turn: Equal turns get the same replica while the fit ones stay the same; None: each gets the next.
        """
        fit = [r for r in self.all if not r.left_out and _between(required, r.position(), newest)]
        if not fit:
            return None
        return fit[(next(self._turn) if turn is None else turn) % len(fit)]


def _between(lowest: int, position: int | None, highest: int) -> bool:
    return position is not None and lowest <= position <= highest
