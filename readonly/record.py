"""What is stored: one record a site. `record_format` writes it down, and understands another version's."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

# Those that a reader may do without end in this.
MAY = "?"
REHEARSAL = "rehearsal" + MAY
# Features that this version knows, by the names that stand in `needs`.
FEATURES: frozenset[str] = frozenset({REHEARSAL})
# Tombstones are kept as long as a stopped process may come back with an old cause (protocol.md 1.3).
TOMBSTONE_AGE = timedelta(days=90)
OPERATOR, RUN, WINDOW, BLOCK, FENCE, LOCAL = "operator", "run", "window", "block", "fence", "local"
# What a cause says about sessions, mildest first.
SESSIONS = ("keep", "suspend", "end")


class Mode(StrEnum):
    """What a site is, for one process, at one moment."""

    WRITABLE = "writable"
    READ_ONLY = "read-only"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class FenceMark:
    """Where a fence stands: all that the record holds of it; what was taken away is kept at that very server.

    Attributes:
        name: Its name in the operator's configuration.
        server: Host, port and database, for people.
        system: The identity of the server; positions of two can't be compared.
        timeline: Which of the histories that began with this system it wrote, where the server tells: a standby that
            was promoted goes on with another one. "" where it does not.
        position: The position in its log behind which no earlier write is; "" while it is being raised.
        level: What it is worth; "" while it is being raised.
        schema: The schema version that was there then, its parts joined by commas; "" where nobody asked.
    """

    name: str
    server: str = ""
    system: str = ""
    position: str = ""
    level: str = ""
    schema: str = ""
    timeline: str = ""


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason to be read-only.

    Attributes:
        id: Random, short enough to be typed.
        kind: `operator`, `run`, `window`, `block`, `fence`, or `local` (seen by one process, never stored).
        by: Who owns it.
        since: Start of the read-only time by the store's clock, UTC.
        reason: For colleagues; never shown to visitors.
        message: For visitors.
        expected_end: An announcement, UTC; opens nothing.
        sessions: `end`, `suspend`, `keep`, or None for what each site's policy says.
        host: The machine it was typed on.
        epoch: The epoch at which it was added.
        revision: Rises when its owner changes it; a join takes the higher one.
        fence: For a `fence`, where it stands.
        extra: Fields of newer versions, kept.
    """

    id: str
    kind: str
    by: str
    since: datetime
    reason: str = ""
    message: str = ""
    expected_end: datetime | None = None
    sessions: str | None = None
    host: str = ""
    epoch: int = 0
    revision: int = 1
    fence: FenceMark | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lift:
    """The tombstone of a cause: it was lifted, and no copy of an older record brings it back.

    Attributes:
        id: The cause's id.
        at: When it was lifted, UTC.
        by: Who lifted it.
        since: The cause's own start: the session cut-off that it leaves behind; None when it leaves none.
        epoch: The epoch at which the cause was added.
        sessions: What the cause said about sessions.
        undone: The cut-off was withdrawn (`off --undo`).
        extra: Fields of newer versions, kept.
    """

    id: str
    at: datetime
    by: str
    since: datetime | None = None
    sessions: str | None = None
    undone: bool = False
    epoch: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Window:
    """A scheduled stretch of read-only time, as UTC instants.

    It closes by the clock, at `start`; it opens by the record alone, when `ended` was written (design rule 14).

    Attributes:
        id: Short enough to be typed; of an occurrence, its schedule's and its local time.
        start: When it begins, UTC.
        end: When it is over, UTC; None for one that only `off` ends.
        by: Who owns it.
        reason: For colleagues; never shown to visitors.
        message: For visitors.
        sessions: As a cause's.
        ended: It is over, and does not begin again.
        ended_at: When that was: one that was cancelled before its start has ended nobody's session.
        revision: Rises when a person changes it; not when its time is up, so that an extension wins against that.
        expected_end: An announcement, for one without an end; opens nothing.
        typed: The local time that was typed, or that its rule gives.
        zone: The zone that it was typed in.
        mark: What the zone's clocks did to that local time: `gap`, `fold`, or "".
        schedule: Id of the recurring one that it is an occurrence of, or "".
        extra: Fields of newer versions, kept.
    """

    id: str
    start: datetime
    end: datetime | None
    by: str
    reason: str = ""
    message: str = ""
    sessions: str | None = None
    ended: bool = False
    ended_at: datetime | None = None
    revision: int = 1
    expected_end: datetime | None = None
    typed: str = ""
    zone: str = ""
    mark: str = ""
    schedule: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def in_force(self, at: datetime) -> bool:
        """Return whether it keeps the site read-only at an instant."""
        return self.start <= at and not self.ended


@dataclass(frozen=True, slots=True)
class Schedule:
    """A recurring window: its rule and its zone. What is in force are its occurrences, which stand among the windows.

    Attributes:
        id: Short enough to be typed.
        rule: A cron expression of five fields, by the zone's clocks.
        zone: Its name in the time zone database.
        seconds: How long an occurrence is, in elapsed time.
        by: Who owns it.
        through: Local time of the last occurrence that was worked out, ISO 8601 without a zone; the next ones follow.
        past: Its occurrences that begin at or before this instant are over, also those that the record holds no more.
        reason: For colleagues; never shown to visitors.
        message: For visitors.
        sessions: As a cause's.
        typed: The rule as it was typed.
        cancelled_at: When it was cancelled; None while it goes on.
        revision: Rises with each change of it.
        extra: Fields of newer versions, kept.
    """

    id: str
    rule: str
    zone: str
    seconds: float
    by: str
    through: str = ""
    past: datetime | None = None
    reason: str = ""
    message: str = ""
    sessions: str | None = None
    typed: str = ""
    cancelled_at: datetime | None = None
    revision: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bypass:
    """What lets its holder through while the site is read-only. Tokens are random; only their hashes are stored.

    Attributes:
        id: Random, short.
        name: What people and logs call it.
        by: Who gave it.
        since: When it was given, UTC.
        until: When it ends by itself, UTC.
        causes: Those that stood when it was given: it is worth nothing when the last of them is lifted.
        paths: Rules of paths that it is good for; none: all.
        link: SHA-256 of the token in its link, hexadecimal; "" once that was used.
        keys: SHA-256 of the tokens that let through: the header's, and after the link was used the cookie's.
        host: The machine it was typed on.
        revoked: Taken back.
        revision: Rises with each change of it.
        extra: Fields of newer versions, kept.
    """

    id: str
    name: str
    by: str
    since: datetime
    until: datetime
    causes: tuple[str, ...]
    paths: tuple[str, ...] = ()
    link: str = ""
    keys: tuple[str, ...] = ()
    host: str = ""
    revoked: bool = False
    revision: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A stretch of time in which nothing is refused, and all that would have been is counted.

    Of two, the one that began later stands.

    Attributes:
        id: Random, short.
        by: Who asked for it.
        since: When it begins, UTC.
        until: When it is over by itself, UTC.
        host: The machine it was typed on.
        ended_at: When somebody ended it before that; None: nobody has.
        revision: Rises with each change of it.
        extra: Fields of newer versions, kept.
    """

    id: str
    by: str
    since: datetime
    until: datetime
    host: str = ""
    ended_at: datetime | None = None
    revision: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict)

    def in_force(self, at: datetime) -> bool:
        """Return whether it goes on at an instant."""
        return self.ended_at is None and self.since <= at < self.until


@dataclass(frozen=True, slots=True)
class Record:
    """What a store holds for one site.

    Attributes:
        site: The site's name.
        epoch: Rises with every change; for people, it decides nothing.
        id: Random, new with every change.
        lineage: Made by `init` alone, ordered by time; "" marks a partial record, which closes and can't open.
        protected: Whether commands want the site's name.
        changed_at: Store's clock, UTC.
        changed_by: Who made the last change.
        causes: Those that stand, ordered by start and id.
        lifted: Tombstones, by cause id.
        windows: Ordered by start and id.
        schedules: Recurring windows, ordered by id.
        bypasses: Who is let through, ordered by start and id.
        rehearsal: The last one, also when it is over; None if there was none.
        sessions_floor: Cut-off that stays when the tombstones it came from are dropped.
        windows_floor: The same of windows that said nothing about sessions: it counts where a policy ends them.
        needs: Features that a reader must know.
        extra: Fields of newer versions, kept.
    """

    site: str
    epoch: int
    id: str
    lineage: str
    changed_at: datetime
    changed_by: str = ""
    protected: bool = False
    causes: tuple[Cause, ...] = ()
    lifted: Mapping[str, Lift] = field(default_factory=dict)
    windows: tuple[Window, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    bypasses: tuple[Bypass, ...] = ()
    rehearsal: Rehearsal | None = None
    sessions_floor: datetime | None = None
    windows_floor: datetime | None = None
    needs: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def partial(self) -> bool:
        """True for a record that was made over an empty store: it closes and can't open (design rule 5)."""
        return not self.lineage

    @property
    def mode(self) -> Mode:
        """What the stored causes alone say, windows left out."""
        return Mode.READ_ONLY if self.causes or self.partial else Mode.WRITABLE

    @property
    def lacks(self) -> tuple[str, ...]:
        """Features that its writer uses, and that this version does not know and does without."""
        return tuple(need.removesuffix(MAY) for need in self.needs if need not in FEATURES)

    def sessions_ended_before(self, default: str = "end") -> datetime | None:
        """Return the instant before which sessions were ended, or None.

        Args:
            default: What the site's policy does where a cause says nothing: `end`, `suspend` or `keep`.
        """
        found = [c.since for c in self.causes if (c.sessions or default) == "end"]
        found += [
            lift.since
            for lift in self.lifted.values()
            if lift.since is not None and not lift.undone and (lift.sessions or default) == "end"
        ]
        if self.sessions_floor is not None:
            found.append(self.sessions_floor)
        if self.windows_floor is not None and default == "end":
            found.append(self.windows_floor)
        return max(found, default=None)

    def cause(self, cause_id: str) -> Cause | None:
        """Return the standing cause of that id, or None."""
        return next((c for c in self.causes if c.id == cause_id), None)


def new_id() -> str:
    """Return a random id for a record."""
    return secrets.token_hex(8)


def new_cause_id() -> str:
    """Return a random id for a cause, short enough to be typed at night."""
    return "c" + secrets.token_hex(4)


def new_token() -> str:
    """Return a random token, for a header, a cookie or a link; scanners for secrets find it by its beginning."""
    return "rombp_" + secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """Return what is stored of a token: its SHA-256. It is long and random, so that nothing slower is needed."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def ordered(record: Record) -> Record:
    """Return the record with lifted causes dropped and the rest in one order, so that equal records are equal.

    That it needs to be known that a rehearsal goes on, or no longer, follows from that rehearsal.
    """
    going_on = record.rehearsal is not None and record.rehearsal.ended_at is None
    return replace(
        record,
        needs=tuple(sorted({*record.needs} - {REHEARSAL} | ({REHEARSAL} if going_on else set()))),
        causes=tuple(sorted((c for c in record.causes if c.id not in record.lifted), key=lambda c: (c.since, c.id))),
        windows=tuple(sorted(record.windows, key=lambda w: (w.start, w.id))),
        schedules=tuple(sorted(record.schedules, key=lambda one: one.id)),
        bypasses=tuple(sorted(record.bypasses, key=lambda one: (one.since, one.id))),
    )
