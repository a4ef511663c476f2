"""Wall clock, and a clock that runs through suspend; a Protocol, so that tests hand time in."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


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
