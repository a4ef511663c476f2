"""Freeze: a standby stops replaying at the fence, so that readers keep one steady copy while the primary is migrated.

Without it a lock that the migration takes is replayed on the standby too, and readers there wait as they would at the
primary. The log goes on arriving meanwhile, so what is paused is watched, and resumed before the disk is full.
"""

from .standby import Standby
from .values import Frozen, NotFrozen, Pause, Seen, StandbyError, StandbyUnreachable

__all__ = ["Frozen", "NotFrozen", "Pause", "Seen", "Standby", "StandbyError", "StandbyUnreachable"]
