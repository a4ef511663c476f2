"""Wall clock, and a clock that runs through suspend; a Protocol, so that tests hand time in."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

# By so much two clocks may drift apart: crystals are good to 100 parts in a million, each.
DRIFT: Final = 0.0002
# What was known of the time is not taken back by so little: a slow answer says less of it than a quick one before.
STEP_BACK: Final = timedelta(seconds=5)

# Past this a clock is no longer a second or two off, which whatever compares times has to bear with.
APART_SECONDS: Final = 2.0


class Clock(Protocol):
    """What the library asks about time."""

    def now(self) -> datetime:
        """Return the wall clock, timezone-aware, UTC."""
        ...

    def boottime(self) -> float:
        """Return seconds on a clock that no one sets and that runs through suspend."""
        ...


if hasattr(time, "CLOCK_BOOTTIME"):
    # CLOCK_MONOTONIC stands still while a machine sleeps; a lease must not (clock_gettime(2)).
    _BOOTTIME = time.CLOCK_BOOTTIME

    def boottime() -> float:
        """Return seconds since boot, suspend included. Costs about 50 ns."""
        return time.clock_gettime(_BOOTTIME)

else:  # pragma: no cover - platforms without CLOCK_BOOTTIME (macOS, Windows)
    boottime = time.monotonic


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Return the machine's wall clock in UTC."""
        return datetime.now(UTC)

    def boottime(self) -> float:
        """Return seconds since boot, suspend included."""
        return boottime()


class StoreClock:
    """The store's clock, as one process knows it: from what the store said last, and how long that took.

    The wall clock may be set and the boot clock may be wrong about a machine that was paused, so both are asked, and
    the later answer counts where the question is whether a time has come. Used with its owner's lock held.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._offset = timedelta(0)
        # The boot clock when the store was asked last, and what it said: its own clock is that far on by now, at most.
        self._asked: tuple[float, datetime] | None = None
        self._latest = datetime.min.replace(tzinfo=UTC)
        self.slack = 0.0

    def asked(self) -> float:
        """Return what `heard` wants to know: when a question was sent, by the boot clock."""
        return self.clock.boottime()

    def heard(self, at: datetime, *, asked: float) -> None:
        """Take in what the store's clock was, in the answer to a question that was sent at `asked`."""
        self._offset = at - self.clock.now()
        self._asked = (asked, at)
        self.slack = max(0.0, self.clock.boottime() - asked)

    def now(self) -> datetime:
        """Return the store's clock as it is at least: the wall clock, corrected by what the store said."""
        return self.clock.now() + self._offset

    def ahead_seconds(self) -> float:
        """Return by how much this machine's clock is ahead of the store's, at least; negative where it is behind."""
        ahead = -self._offset.total_seconds()
        # When the store looked at its clock is known to within `slack`, and only ever earlier than it was heard of.
        return ahead if ahead < 0.0 else max(0.0, ahead - self.slack)

    def latest(self) -> datetime:
        """Return the latest that the store's clock can be. Windows close by this: early by the slack, never late."""
        if self._asked is None:
            return self.now()
        asked, at = self._asked
        gone = max(0.0, self.clock.boottime() - asked)
        drift = timedelta(seconds=DRIFT * gone)
        found = max(self.now() + timedelta(seconds=self.slack), at + timedelta(seconds=gone)) + drift
        if not timedelta(0) < self._latest - found < STEP_BACK:
            self._latest = found
        return self._latest
