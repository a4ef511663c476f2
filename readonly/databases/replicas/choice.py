"""Which replica is read from: one that does for what a reader needs, and did not just fail. Knows no database."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from .values import Need, Standing, why_unfit

T = TypeVar("T")

# What is looked at by whoever chooses (files) is looked at no more often than this.
PROBE_SECONDS = 0.25
# What is looked at in the background is not known any more when nothing was heard for so long: several looks failed to
# come back, and the server or this process hangs.
STALE_SECONDS = 5.0
# One that failed is left out so long, twice as long after each further failure, and never longer than the cap.
LEFT_OUT_SECONDS, LEFT_OUT_CAP_SECONDS = 1.0, 30.0


class Replica(Generic[T]):
    """One server to read from, and what is known of it.

    Attributes:
        target: What is handed out.
        name: What people call it.
        suspect: It failed, its time is over, and nobody has read from it since: try it before it is used.

    Args:
        target: What is handed out.
        name: What people call it.
        probe: Looks at it at once, for what costs next to nothing to look at; None: somebody else looks, and says
            what was found with `found`, or nobody does and all goes by what is declared.
        watched: Somebody else looks.
        monotonic: The clock.
    """

    def __init__(
        self,
        target: T,
        *,
        name: str = "",
        probe: Callable[[], Standing] | None = None,
        watched: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target = target
        self.name = name
        self.suspect = False
        self._declared: int | None = None
        self._probe = probe
        self._watched = watched
        self._standing: Standing | None = None
        self._looked_at = float("-inf")
        self._probing = threading.Lock()
        self._monotonic = monotonic
        self._failures = 0
        self._out_until = float("-inf")

    def reached(self, epoch: int) -> None:
        """Take somebody's word that it has reached an epoch; never goes back."""
        if self._declared is None or epoch > self._declared:
            self._declared = epoch

    def found(self, standing: Standing) -> None:
        """Take in what a look found; called by who looks in the background."""
        self._standing, self._looked_at = standing, self._monotonic()

    @property
    def standing(self) -> Standing | None:
        """What the last look found, if it is still worth anything; None: nobody knows."""
        if self._probe is not None:
            # One looks; the others go by what was seen last, but for the very first look.
            first = self._looked_at == float("-inf")
            if self._monotonic() - self._looked_at >= PROBE_SECONDS and self._probing.acquire(blocking=first):
                try:
                    self._standing = self._probe()
                    self._looked_at = self._monotonic()
                finally:
                    self._probing.release()
            return self._standing
        if not self._watched:
            return Standing()
        if self._standing is not None and self._monotonic() - self._looked_at > STALE_SECONDS:
            return Standing(problem=f"was not heard for {STALE_SECONDS:g} s")
        return self._standing

    def look_now(self) -> Standing | None:
        """Return what it is now, for a report: what others choose by is left as it is."""
        return self._probe() if self._probe is not None else self.standing

    def why_unfit(self, need: Need, found: Standing | None = None) -> str:
        """Return why it can't be read from here and now, as the end of a sentence; "" if it can.

        Args:
            need: What the reader needs.
            found: What to judge by; None: by what is known.
        """
        if self.left_out:
            return "failed a moment ago"
        found = found or self.standing
        if not self._watched and self._probe is None and self._declared is None:
            return "is not known to have reached anything"
        return why_unfit(found, need, declared=self._declared)

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

    def choose(
        self, need: Need, *, before: Replica[T] | None = None, besides: Sequence[Replica[T]] = ()
    ) -> Replica[T] | None:
        """Return a replica that does for what a reader needs, or None if there is none; each gets the next one.

        Args:
            need: What the reader needs.
            before: What the reader read from before: that one again, as long as it does.
            besides: Those that the reader was let down by.
        """
        if before is not None and before not in besides and not before.why_unfit(need):
            return before
        fit = [r for r in self.all if r not in besides and not r.why_unfit(need)]
        return fit[next(self._turn) % len(fit)] if fit else None
