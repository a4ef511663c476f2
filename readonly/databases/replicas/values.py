"""What a look at a server found, what a reader needs, and why the one does not do for the other. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass

from readonly.errors import Error

from ..fence.values import Position
from .positions import reached

# A replica may be so far behind where no position says what must be there.
LAG_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Standing:
    """What one look at a server found.

    Attributes:
        replica: It replays what another server has written, and nobody can write to it; False for a primary.
        system: The identity of the system whose data it holds, the same for a primary and all its replicas and for no
            other server; "" where the server does not tell.
        at: Its position: what a replica has replayed, what a primary has written. "" where it can't be told.
        lag: Seconds that it is behind, as the replica itself knows; None where nobody can tell.
        paused: Replay was paused (a frozen replica).
        epoch: For a copy of a file, the epoch that it was taken at.
        schema: The schema version that it holds, as texts in order; None where it was not asked for or can't be told.
        problem: Why it can't be read from, whatever a reader needs; "" if it can.
        no_schema: Why the schema version can't be told, though it was asked for.
        timeline: For a primary, which of the histories of this system it writes: a number that rises when a standby is
            promoted, and so tells the new primary from the old one. "" where the server does not tell.
        itself: Which server it is, where `system` can't say that of a replica (MariaDB); "" elsewhere.
    """

    replica: bool = True
    system: str = ""
    at: str = ""
    lag: float | None = None
    paused: bool = False
    epoch: int | None = None
    schema: tuple[str, ...] | None = None
    problem: str = ""
    no_schema: str = ""
    timeline: str = ""
    itself: str = ""

    @property
    def position(self) -> Position | None:
        """Its position with the system that it belongs to; None where it can't be told."""
        return Position(self.system, self.at) if self.at else None


@dataclass(frozen=True, slots=True)
class Need:
    """What a reader needs of a replica.

    Attributes:
        epochs: For copies, and for what a person declared: the lowest epoch it must have been taken at, and the highest
            that there is. One that claims more holds another site's past.
        unknown: Why nobody knows which position it must have reached, as the end of a sentence; "" if that is known.
        positions: It must have reached each.
        system: The system that it must be a replica of; "": not known.
        lag: Seconds that it may be behind; None: no matter.
        schema: The schema version that the reader's code was written for; None: no matter.
        frozen: The one that a replica which is paused must have instead: it can't follow a migration, and is not to.
    """

    epochs: tuple[int, int] | None = None
    unknown: str = ""
    positions: tuple[Position, ...] = ()
    system: str = ""
    lag: float | None = None
    schema: tuple[str, ...] | None = None
    frozen: tuple[str, ...] | None = None


def why_unfit(found: Standing | None, need: Need, *, declared: int | None = None) -> str:
    """Return why a replica can't be read from, as the end of a sentence that begins with its name; "" if it can.

    Args:
        found: The last look at it; None: there was none yet.
        need: What the reader needs.
        declared: The epoch that a person says it has reached.
    """
    if found is None:
        return "was not looked at yet"
    if found.problem:
        return found.problem
    if not found.replica:
        return "takes writes: it is a primary (was it promoted?)"
    return _why_behind(found, need, declared) or _why_other_schema(found, need)


def has_reached(found: Standing, position: Position) -> str:
    """Return why a server is not known to have reached a position, as the end of a sentence; "" if it has.

    A position that can't be had never counts as reached, and one of another system means nothing.
    """
    if found.system and position.server and found.system != position.server:
        return (
            f"is of system {found.system}, not a replica of the primary that was fenced ({position.server}): positions "
            "of one system mean nothing on another"
        )
    if not found.at:
        return "does not tell its position"
    try:
        there = reached(found.at, position.at)
    except Error as error:
        return f"is at a position that can't be compared: {error}"
    if not there:
        return f"is at {found.at} and has not reached {position.at}" + (" (replay is paused)" if found.paused else "")
    return ""


def _why_behind(found: Standing, need: Need, declared: int | None) -> str:
    if need.system and found.system and need.system != found.system:
        return f"is of system {found.system}, not a replica of this primary ({need.system})"
    known = [epoch for epoch in (declared, found.epoch) if epoch is not None]
    if known and need.epochs is not None:
        lowest, highest = need.epochs
        if lowest <= max(known) <= highest:
            return ""
        if found.epoch is not None:
            later = found.epoch > highest
            return f"was copied at epoch {found.epoch}, " + ("which is still to come" if later else f"before {lowest}")
    if need.unknown:
        return need.unknown
    for position in need.positions:
        behind = has_reached(found, position)
        if behind:
            return behind
    if need.lag is None:
        return ""
    if found.lag is None:
        return "does not tell how far it is behind" + (" (replay is paused)" if found.paused else "")
    if found.lag > need.lag:
        return f"is {found.lag:.1f} s behind, and may be {need.lag:g}"
    return ""


def _why_other_schema(found: Standing, need: Need) -> str:
    wanted = need.frozen if found.paused and need.frozen is not None else need.schema
    if wanted is None or found.schema == wanted:
        return ""
    if found.schema is None:
        return f"does not tell its schema version: {found.no_schema or 'nobody asked'}"
    return f"has schema version {spelled(found.schema)}, and this code was written for {spelled(wanted)}"


def spelled(version: tuple[str, ...]) -> str:
    """Return a schema version for people."""
    return ", ".join(version) or "(none)"
