"""What a standby is asked for and what it answers: values alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ...errors import Error
from ..replicas import Standing


class Pause(StrEnum):
    """Whether a standby replays: PostgreSQL's own words (manual, 9.28.4)."""

    NO = "not paused"
    REQUESTED = "pause requested"
    YES = "paused"


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a standby, as an operator needs it.

    Attributes:
        name: Host, port and database, for people.
        standing: What any reader sees: is it a replica, of which system, how far, with which schema.
        pause: Whether it replays.
        waiting_bytes: What has arrived of the log and was not replayed.
        log_bytes: What its log takes on disk in all, or None where the role may not see that.
        slot: The primary's slot that it follows by, or "".
        grace: How long a read may hold up its replay, as that server writes it.
        delay: By how much it replays late on purpose, as that server writes it; "0" for a usual one.
        lacks: What this role lacks to pause and resume it, as the end of a sentence; "" for nothing.
    """

    name: str
    standing: Standing
    pause: Pause = Pause.NO
    waiting_bytes: int = 0
    log_bytes: int | None = None
    slot: str = ""
    grace: str = ""
    delay: str = "0"
    lacks: str = ""


@dataclass(frozen=True, slots=True)
class Frozen:
    """A standby that does not replay.

    Attributes:
        name: Host, port and database, for people.
        at: Where it stands in the log.
        behind: How many bytes of log it had replayed past the position that was asked for; 0: it stands right there.
        grace: How long a read may hold up its replay, as that server writes it.
    """

    name: str
    at: str
    behind: int
    grace: str = ""

    def __str__(self) -> str:
        where = "right at the fence" if self.behind == 0 else f"{self.behind} bytes of log after the fence"
        return f"{self.name} at {self.at}, {where}"


class StandbyError(Error):
    """A standby is not what it should be, or did not do what it was told; what it does now is in the message."""


class StandbyUnreachable(StandbyError):
    """It did not answer, or did not let this role in."""


class NotFrozen(StandbyError):
    """It replays: pausing it was not possible, or would have done more harm than good; the message says which."""
