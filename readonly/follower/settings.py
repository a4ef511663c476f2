"""What a switch was told when it was made; the same in every process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ..errors import ConfigurationError

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

    def checked(self) -> Settings:
        """Return these settings, if they can be right.

        Raises:
            ConfigurationError: One of them can't.
        """
        lease, interval = self.lease, self.interval
        if self.boot not in ("closed", "open"):
            raise ConfigurationError(
                f"boot={self.boot!r} is not a choice: use 'closed' to refuse writes until the store was read once, "
                "'open' to accept them."
            )
        if not 0 < interval < math.inf:
            raise ConfigurationError(f"interval={interval!r} is no time: use a number of seconds above 0.")
        if lease is not None and not 3 * interval <= lease < math.inf:
            raise ConfigurationError(
                f"lease={lease!r} will not do: it is renewed every {interval:g} s and must outlast two missed "
                f"reports: use {3 * interval:g} s or more, or None for no lease."
            )
        if not 0 <= self.announce_seconds < math.inf:
            raise ConfigurationError(
                f"announce_seconds={self.announce_seconds!r} is no time: use a number of seconds, or 0 to announce "
                "nothing."
            )
        return self
