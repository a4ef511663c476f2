"""What a fence is asked for and what it answers: values alone, the same for every kind of server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from ...errors import Error


class Level(StrEnum):
    """How strong a "safe" is; ordered by `at_least`."""

    HARD = "hard"
    COOPERATIVE = "cooperative"
    APP_ONLY = "app only"

    def at_least(self, wanted: Level) -> bool:
        """Tell whether this level promises what `wanted` does, or more."""
        order = (Level.APP_ONLY, Level.COOPERATIVE, Level.HARD)
        return order.index(self) >= order.index(wanted)


class Strategy(StrEnum):
    """How a server is made to refuse.

    `REVOKE` takes the writers' privileges away. `GATE` turns the triggers that `install` put on every table, `EACH`
    puts them there when the fence goes up. `DEFAULTS` makes the writers' new transactions read-only unless they insist.
    `GLOBAL` is MariaDB's `read_only`. `BARRIER` only waits out who writes: SQLite has no server that could refuse.
    """

    REVOKE = "revoke"
    GATE = "gate"
    EACH = "each"
    DEFAULTS = "defaults"
    GLOBAL = "global"
    BARRIER = "barrier"


@dataclass(frozen=True, slots=True)
class Position:
    """A point in one server's log.

    Attributes:
        server: The identity of the system whose log it is: PostgreSQL's system identifier; positions of two systems
            can't be compared.
        at: The position as that server writes it: an LSN, a GTID set.
        horizon: The next transaction id to be given out, where the server tells it: equal later, nobody has written.
    """

    server: str
    at: str
    horizon: str = ""

    def __str__(self) -> str:
        return self.at


@dataclass(frozen=True, slots=True)
class Way:
    """A way to write that is left although the fence stands.

    Attributes:
        what: One sentence with the names.
        insists: True where only a client that means to get round the fence takes it: the level stays what it is and
            this is said beside it. False where any client may take it by accident: the level falls.
        remedy: What closes it, as a statement or a sentence; "" where nothing does.
        writers: True where the writers themselves take it: those whom the fence is for.
    """

    what: str
    insists: bool
    remedy: str = ""
    writers: bool = False


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a fence could do, asked without changing anything.

    Attributes:
        strategy: What would be chosen.
        level: What it would reach.
        why: Why this one, in a sentence.
        ways: What it would leave open.
        missing: Statements that would give the fencer what it lacks, to be run by somebody who may; with any of them
            missing the fence can't be raised.
        advised: Statements that are not needed, and what each would help with.
        tables: How many tables it would cover.
        server: Which server and database was asked, for people.
        pooled: Something stands between the fencer and the server, so that what was asked may be true of another
            session, or of another role.
    """

    strategy: Strategy
    level: Level
    why: str
    ways: tuple[Way, ...] = ()
    missing: tuple[str, ...] = ()
    advised: tuple[str, ...] = ()
    tables: int = 0
    server: str = ""
    pooled: bool = False

    @property
    def possible(self) -> bool:
        """True if nothing is missing."""
        return not self.missing


@dataclass(frozen=True, slots=True)
class Holdup:
    """One transaction that the fence waits for.

    Attributes:
        pid: The server's number for the session; None for a prepared transaction.
        user: Its role, where it may be seen.
        application: What it calls itself.
        since: Start of its transaction by the server's clock, or None where that may not be seen.
        doing: Its last statement, where it may be seen.
        prepared: The name of a prepared transaction, else "".
    """

    pid: int | None
    user: str = ""
    application: str = ""
    since: datetime | None = None
    doing: str = ""
    prepared: str = ""

    def __str__(self) -> str:
        if self.prepared:
            return f"prepared transaction {self.prepared!r}"
        named = ", ".join(part for part in (self.user, self.application) if part)
        return f"session {self.pid}" + (f" ({named})" if named else "")


@dataclass(frozen=True, slots=True)
class Holder:
    """One cause that holds a fence.

    Attributes:
        cause: The id of the record's cause.
        by: Who raised it.
        at: When, by the server's clock.
        epoch: The record's epoch then, which stays known here when store and members have forgotten; 0: not told.
    """

    cause: str
    by: str
    at: datetime
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Fenced:
    """A fence that stands.

    Attributes:
        name: The fence's name in the configuration.
        server: Host, port and database, for people.
        site: Whose fence it is.
        run: The run that may pass it, or "".
        strategy: How the server refuses.
        level: What that is worth.
        position: The log's position with every earlier write behind it; None while it is being raised.
        raised_at: By the server's clock.
        holders: The causes that hold it.
        ways: What it leaves open.
        ended: The sessions that were ended to raise it.
        found: What a second look had to fence as well: tables made or swapped since.
    """

    name: str
    server: str
    site: str
    strategy: Strategy
    level: Level
    position: Position | None
    raised_at: datetime
    run: str = ""
    holders: tuple[Holder, ...] = ()
    ways: tuple[Way, ...] = ()
    ended: tuple[Holdup, ...] = ()
    found: tuple[str, ...] = ()

    def __str__(self) -> str:
        but = [way.what for way in self.ways if way.insists]
        return f"{self.level}" + (f", but for: {'; '.join(but)}" if but else "")


@dataclass(frozen=True, slots=True)
class Lifted:
    """What `lift` did.

    Attributes:
        name: The fence's name in the configuration.
        down: True when no fence stands any more; False while others hold it.
        held_by: Who they are.
        given_back: How many privileges were given back, or triggers taken off.
        lost: What could not be given back, because it or its owner is gone, one sentence each.
    """

    name: str
    down: bool
    held_by: tuple[Holder, ...] = ()
    given_back: int = 0
    lost: tuple[str, ...] = ()


# Told which transactions are waited for, each time that this changes.
Waiting = Callable[[Sequence[Holdup]], None]


class FenceError(Error):
    """A fence could not be raised, looked at or lifted; what stands is in the message."""


class FenceUnreachable(FenceError):
    """The database server did not answer, or did not let the fencer in."""


class FenceRefused(FenceError):
    """The fence was not raised, because something is missing; nothing was changed.

    Attributes:
        missing: The statements that would help.
    """

    def __init__(self, message: str, *, missing: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.missing = tuple(missing)


class NotOurFence(FenceError):
    """A fence stands that another site raised, or that came with a copy of its database; it was left as it is.

    Attributes:
        site: Whose it says it is.
        by: Who raised it.
        at: When.
    """

    def __init__(self, message: str, *, site: str, by: str, at: datetime) -> None:
        super().__init__(message)
        self.site = site
        self.by = by
        self.at = at


class StillWriting(FenceError):
    """Transactions that had begun before the fence have not ended in time; the fence stands, and is not yet safe.

    Attributes:
        holdups: Which they are.
    """

    def __init__(self, message: str, *, holdups: Sequence[Holdup]) -> None:
        super().__init__(message)
        self.holdups = tuple(holdups)


@dataclass(frozen=True, slots=True)
class Pass:
    """What lets one run's sessions through a fence of triggers.

    Attributes:
        run: The run's id.
        token: Random; its hash alone is told to the server.
    """

    run: str
    token: str = field(repr=False)
