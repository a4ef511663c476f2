"""What a "safe" is worth: its level, and what keeps it from being one."""

from __future__ import annotations

from dataclasses import dataclass

from .changes import Change
from .confirmation import Confirmation
from .databases.fence import Level
from .errors import NotConfirmed
from .fencing import Raised

# How strong a "safe" is without a fence: every process answered for itself; or some only can't admit anything any more,
# and what they had begun was accepted unproven.
APP_ONLY, LEASE = "app only", "lease"


def level_of(found: Confirmation, raised: Raised | None = None) -> str:
    """Return how strong a proof is that writes have stopped; "" where there is none."""
    if not found.closing or not found.safe or fence_problems(found, raised):
        return ""
    if raised is not None and raised.level is not Level.APP_ONLY:
        return str(raised.level)
    return LEASE if found.accepted else APP_ONLY


@dataclass(frozen=True, slots=True)
class Safety:
    """What `on` reached.

    Attributes:
        change: What was set.
        confirmation: The last look at the members.
        raised: What became of the fences; None where none is configured, or none was wanted.
    """

    change: Change
    confirmation: Confirmation
    raised: Raised | None = None

    @property
    def safe(self) -> bool:
        """True when no write can commit until `off`, by the level that `level` says, what was accepted apart."""
        return not self.problems

    @property
    def level(self) -> str:
        """How strong that is: `hard`, `cooperative`, `app only`, or `lease`; "" while it is not safe."""
        return level_of(self.confirmation, self.raised) if self.safe else ""

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps it from being safe, one sentence each."""
        return (*self.confirmation.missing, *fence_problems(self.confirmation, self.raised))

    def require_safe(self) -> Safety:
        """Return self if safe.

        Raises:
            NotConfirmed: Something is missing.
        """
        if not self.safe:
            raise NotConfirmed("not safe: " + "; ".join(self.problems), missing=self.problems)
        return self


def fence_problems(found: Confirmation, raised: Raised | None) -> tuple[str, ...]:
    """Return what keeps fences from making it safe, and whom they were to hold and do not."""
    if raised is None:
        return found.held
    return (*raised.problems, *raised.behind, *(found.held if raised.level is not Level.HARD else ()))
