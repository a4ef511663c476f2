"""The round with libfaketime: the wall clock of workers and Redis is set for real, as they see it.

What nobody sets (CLOCK_MONOTONIC, CLOCK_BOOTTIME) stays as it is: that is what leases are to be counted on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Where Debian, Fedora, Homebrew and a build from source put it.
PLACES = (
    *Path("/usr/lib").glob("*/faketime/libfaketime.so.1"),
    Path("/usr/lib/faketime/libfaketime.so.1"),
    Path("/usr/lib64/faketime/libfaketime.so.1"),
    Path("/usr/local/lib/faketime/libfaketime.so.1"),
)
MISSING = (
    "libfaketime is not installed here (apt-get install libfaketime): the round with clocks that are set was NOT run"
)
# What a process is asked that is to have a faked clock: does its wall clock obey, and do the others not.
_TRIAL = "import time; print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))"
HOURS = 5 * 3600.0


def find() -> Path | None:
    """Return the library, or None if there is none, or none that works here."""
    found = next((place for place in PLACES if place.exists()), None)
    return found if found is not None and _works(found) else None


def environment(library: Path, clock: Path) -> dict[str, str]:
    """Return what is added to the environment of a process whose wall clock a file sets."""
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def step(clock: Path, seconds: float) -> None:
    """Set the clocks of all processes with that file, from now on."""
    # Replaced as a whole: it is read at every look at a clock.
    new = clock.with_suffix(".new")
    new.write_text(f"{seconds:+.0f}\n")
    new.replace(clock)


def _works(library: Path) -> bool:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder) / "clock"
        step(clock, HOURS)
        plain, faked = (
            subprocess.run(
                [sys.executable, "-c", _TRIAL],
                env=dict(os.environ) | more,
                capture_output=True,
                text=True,
                check=False,
            ).stdout.split()
            for more in ({}, environment(library, clock))
        )
    if len(plain) != 3 or len(faked) != 3:
        return False
    ahead = [float(b) - float(a) for a, b in zip(plain, faked, strict=True)]
    return ahead[0] > HOURS / 2 and max(ahead[1:]) < HOURS / 2
