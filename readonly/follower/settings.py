"""What a switch was told when it was made; the same in every process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# How long before a window visitors are told: time to finish a long form, and not so long that nobody looks any more.
ANNOUNCE_SECONDS: Final = 1800.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What a switch was told.

    Attributes:
        lease: Seconds for which writes are admitted without the store, or None for ever.
        boot: `closed` or `open`, for a process that never reached the store.
        interval: Seconds between reports, at least.
        runs: What the process runs, as the application says.
        inert: READONLY_DISABLED: obey nothing, and report that.
        trust_threads: Whether a background thread is known to run here at all times.
        announce_seconds: How long before it begins visitors are told of a window.
    """

    lease: float | None = None
    boot: str = "closed"
    interval: float = 1.0
    runs: str = ""
    inert: bool = False
    trust_threads: bool = True
    announce_seconds: float = ANNOUNCE_SECONDS
