"""The clock that leases are counted on is one that nobody sets."""

from __future__ import annotations

import sys
import time

import pytest

from readonly.clock import SystemClock, boottime


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has CLOCK_BOOTTIME")
def test_leases_count_on_the_time_since_boot() -> None:
    """Not on the wall clock, which is set, nor on a clock that stands still while a machine sleeps."""
    for read in (boottime, SystemClock().boottime):
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert before <= read() <= time.clock_gettime(time.CLOCK_BOOTTIME)
