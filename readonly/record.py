"""What is stored: one record a site, versioned JSON, and what every version must be able to say about it.

A record that another version wrote is handled by four rules. Fields that this version does not know are kept when
the record is rewritten. A record of a higher version, or with a `needs` that this version does not know, raises
`UnreadableRecord`: nobody here may overwrite it, and it counts as read-only. A need that ends in a question mark is one
that a reader may do without (it keeps nobody from writing): who does not know it goes on, and says so. `epoch`, `id`
and `mode` stay where they are for ever, so that any version can say which record it could not read.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from .errors import UnreadableRecord

VERSION = 1
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


def _instant_out(value: datetime | None) -> str | None:
    if value is None:
        return None
    if value.tzinfo is None:
        # Python would take it for local time, silently.
        raise ValueError(f"{value!r} has no time zone")
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _instant(value: Any) -> datetime:
    found = datetime.fromisoformat(value)
    if found.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    try:
        return found.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{value!r} is no instant") from error


def _maybe_instant(value: Any) -> datetime | None:
    return None if value is None else _instant(value)


def dump(record: Record) -> bytes:
    """Return the record as it is stored: JSON, UTF-8, keys sorted, so that equal records are equal bytes."""
    document: dict[str, Any] = {
        **record.extra,
        "v": VERSION,
        "epoch": record.epoch,
        "id": record.id,
        "mode": str(record.mode),
        "site": record.site,
        "lineage": record.lineage,
        "protected": record.protected,
        "changed_at": _instant_out(record.changed_at),
        "changed_by": record.changed_by,
        "causes": [_cause_out(c) for c in record.causes],
        "lifted": {key: _lift_out(lift) for key, lift in record.lifted.items()},
        "windows": [_window_out(w) for w in record.windows],
        "sessions_ended_before": _instant_out(record.sessions_ended_before()),
        "sessions_floor": _instant_out(record.sessions_floor),
        **({"schedules": [_schedule_out(one) for one in record.schedules]} if record.schedules else {}),
        **({"bypasses": [_bypass_out(one) for one in record.bypasses]} if record.bypasses else {}),
        **({"rehearsal": _rehearsal_out(record.rehearsal)} if record.rehearsal is not None else {}),
        **({"windows_floor": _instant_out(record.windows_floor)} if record.windows_floor is not None else {}),
        "needs": list(record.needs),
    }
    # A lone surrogate (a byte that a terminal sent and that is no text) becomes \udcxx, which is JSON for itself.
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        errors="backslashreplace"
    )


def _cause_out(cause: Cause) -> dict[str, Any]:
    return {
        **cause.extra,
        "id": cause.id,
        "kind": cause.kind,
        "by": cause.by,
        "since": _instant_out(cause.since),
        "reason": cause.reason,
        "message": cause.message,
        "expected_end": _instant_out(cause.expected_end),
        "sessions": cause.sessions,
        "host": cause.host,
        "epoch": cause.epoch,
        "revision": cause.revision,
        **({} if cause.fence is None else {"fence": asdict(cause.fence)}),
    }


def _lift_out(lift: Lift) -> dict[str, Any]:
    return {
        **lift.extra,
        "at": _instant_out(lift.at),
        "by": lift.by,
        "since": _instant_out(lift.since),
        "sessions": lift.sessions,
        "undone": lift.undone,
        "epoch": lift.epoch,
    }


def _window_out(window: Window) -> dict[str, Any]:
    return {
        **window.extra,
        "id": window.id,
        "start": _instant_out(window.start),
        "end": _instant_out(window.end),
        "by": window.by,
        "reason": window.reason,
        "message": window.message,
        "sessions": window.sessions,
        "ended": window.ended,
        "ended_at": _instant_out(window.ended_at),
        "revision": window.revision,
        # Every report brings the record back: what few windows have is left out of the others.
        **({"expected_end": _instant_out(window.expected_end)} if window.expected_end is not None else {}),
        **{key: value for key in _WINDOW_TEXTS if (value := getattr(window, key))},
    }


def _schedule_out(schedule: Schedule) -> dict[str, Any]:
    return {
        **schedule.extra,
        "id": schedule.id,
        "rule": schedule.rule,
        "zone": schedule.zone,
        "seconds": schedule.seconds,
        "by": schedule.by,
        "through": schedule.through,
        "past": _instant_out(schedule.past),
        "reason": schedule.reason,
        "message": schedule.message,
        "sessions": schedule.sessions,
        "typed": schedule.typed,
        "cancelled_at": _instant_out(schedule.cancelled_at),
        "revision": schedule.revision,
    }


def _bypass_out(bypass: Bypass) -> dict[str, Any]:
    return {
        **bypass.extra,
        "id": bypass.id,
        "name": bypass.name,
        "by": bypass.by,
        "since": _instant_out(bypass.since),
        "until": _instant_out(bypass.until),
        "causes": list(bypass.causes),
        "paths": list(bypass.paths),
        "link": bypass.link,
        "keys": list(bypass.keys),
        "host": bypass.host,
        "revoked": bypass.revoked,
        "revision": bypass.revision,
    }


def _rehearsal_out(rehearsal: Rehearsal) -> dict[str, Any]:
    return {
        **rehearsal.extra,
        "id": rehearsal.id,
        "by": rehearsal.by,
        "since": _instant_out(rehearsal.since),
        "until": _instant_out(rehearsal.until),
        "host": rehearsal.host,
        "ended_at": _instant_out(rehearsal.ended_at),
        "revision": rehearsal.revision,
    }


_WINDOW_TEXTS = ("typed", "zone", "mark", "schedule")
_ANY = datetime.min.replace(tzinfo=UTC)
_CAUSE_FIELDS = frozenset(_cause_out(Cause("", "", "", _ANY, fence=FenceMark(""))))
_LIFT_FIELDS = frozenset(_lift_out(Lift("", _ANY, "")))
_WINDOW_FIELDS = frozenset([*_window_out(Window("", _ANY, _ANY, "", expected_end=_ANY)), *_WINDOW_TEXTS])
_SCHEDULE_FIELDS = frozenset(_schedule_out(Schedule("", "", "", 0.0, "")))
_BYPASS_FIELDS = frozenset(_bypass_out(Bypass("", "", "", _ANY, _ANY, ())))
_REHEARSAL_FIELDS = frozenset(_rehearsal_out(Rehearsal("", "", _ANY, _ANY)))
_RECORD_FIELDS = frozenset(
    [
        "v",
        "epoch",
        "id",
        "mode",
        "site",
        "lineage",
        "protected",
        "changed_at",
        "changed_by",
        "causes",
        "lifted",
        "windows",
        "schedules",
        "bypasses",
        "rehearsal",
        "sessions_ended_before",
        "sessions_floor",
        "windows_floor",
        "needs",
    ]
)


def load(raw: bytes) -> Record:
    """Read a stored record.

    Raises:
        UnreadableRecord: It is corrupt, of a higher version, or needs a feature that this version does not know.
    """
    try:
        document = json.loads(raw)
        if not isinstance(document, dict):
            raise TypeError(f"expected an object, found {type(document).__name__}")
        epoch = document.get("epoch")
        epoch = epoch if type(epoch) is int else None
        version = document["v"]
        if type(version) is not int or version < 1:
            raise ValueError(f"v={version!r} is no version")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UnreadableRecord(f"the record is corrupt ({_explain(error)}): {_excerpt(raw)}", corrupt=True) from error
    if version > VERSION:
        raise UnreadableRecord(
            f"the record has version {version}; this library reads up to version {VERSION}: upgrade readonly-mode",
            epoch=epoch,
        )
    needs = document.get("needs") or []
    unknown = sorted({str(n) for n in needs if not _is_soft(n)} - FEATURES) if isinstance(needs, list) else ["?"]
    if unknown:
        raise UnreadableRecord(
            f"the record needs {', '.join(unknown)}, which this library does not know: upgrade readonly-mode",
            epoch=epoch,
        )
    try:
        return _load_v1(document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnreadableRecord(
            f"the record is corrupt ({_explain(error)}): {_excerpt(raw)}", epoch=epoch, corrupt=True
        ) from error


def _is_soft(need: object) -> bool:
    return isinstance(need, str) and need.endswith(MAY)


def _load_v1(document: dict[str, Any]) -> Record:
    causes = [
        Cause(
            id=_text(item["id"]),
            kind=_text(item["kind"]),
            by=_text(item["by"]),
            since=_instant(item["since"]),
            reason=_text(item.get("reason", "")),
            message=_text(item.get("message", "")),
            expected_end=_maybe_instant(item.get("expected_end")),
            sessions=_sessions(item.get("sessions")),
            host=_text(item.get("host", "")),
            epoch=_number(item.get("epoch", 0)),
            revision=_number(item.get("revision", 1)),
            fence=_fence(item.get("fence")),
            extra=_rest(item, _CAUSE_FIELDS),
        )
        for item in _list(document["causes"])
    ]
    lifted = {
        key: Lift(
            id=key,
            at=_instant(item["at"]),
            by=_text(item.get("by", "")),
            since=_maybe_instant(item.get("since")),
            sessions=_sessions(item.get("sessions")),
            undone=_flag(item.get("undone", False)),
            epoch=_number(item.get("epoch", 0)),
            extra=_rest(item, _LIFT_FIELDS),
        )
        for key, item in document["lifted"].items()
    }
    windows = [
        Window(
            id=_text(item["id"]),
            start=_instant(item["start"]),
            end=_maybe_instant(item["end"]),
            by=_text(item.get("by", "")),
            reason=_text(item.get("reason", "")),
            message=_text(item.get("message", "")),
            sessions=_sessions(item.get("sessions")),
            ended=_flag(item.get("ended", False)),
            ended_at=_maybe_instant(item.get("ended_at")),
            revision=_number(item.get("revision", 1)),
            expected_end=_maybe_instant(item.get("expected_end")),
            **{key: _text(item.get(key, "")) for key in _WINDOW_TEXTS},
            extra=_rest(item, _WINDOW_FIELDS),
        )
        for item in _list(document.get("windows", []))
    ]
    schedules = [
        Schedule(
            id=_text(item["id"]),
            rule=_text(item["rule"]),
            zone=_text(item["zone"]),
            seconds=_seconds(item["seconds"]),
            by=_text(item.get("by", "")),
            through=_text(item.get("through", "")),
            past=_maybe_instant(item.get("past")),
            reason=_text(item.get("reason", "")),
            message=_text(item.get("message", "")),
            sessions=_sessions(item.get("sessions")),
            typed=_text(item.get("typed", "")),
            cancelled_at=_maybe_instant(item.get("cancelled_at")),
            revision=_number(item.get("revision", 1)),
            extra=_rest(item, _SCHEDULE_FIELDS),
        )
        for item in _list(document.get("schedules", []))
    ]
    bypasses = [
        Bypass(
            id=_text(item["id"]),
            name=_text(item["name"]),
            by=_text(item.get("by", "")),
            since=_instant(item["since"]),
            until=_instant(item["until"]),
            causes=_texts(item["causes"]),
            paths=_texts(item.get("paths", [])),
            link=_text(item.get("link", "")),
            keys=_texts(item.get("keys", [])),
            host=_text(item.get("host", "")),
            revoked=_flag(item.get("revoked", False)),
            revision=_number(item.get("revision", 1)),
            extra=_rest(item, _BYPASS_FIELDS),
        )
        for item in _list(document.get("bypasses", []))
    ]
    return ordered(
        Record(
            site=_text(document["site"]),
            epoch=_number(document["epoch"]),
            id=_text(document["id"]),
            lineage=_text(document.get("lineage", "")),
            protected=_flag(document.get("protected", False)),
            changed_at=_instant(document["changed_at"]),
            changed_by=_text(document.get("changed_by", "")),
            causes=tuple(causes),
            lifted=lifted,
            windows=tuple(windows),
            schedules=tuple(schedules),
            bypasses=tuple(bypasses),
            rehearsal=_rehearsal(document.get("rehearsal")),
            sessions_floor=_maybe_instant(document.get("sessions_floor")),
            windows_floor=_maybe_instant(document.get("windows_floor")),
            needs=tuple(document.get("needs") or ()),
            extra=_rest(document, _RECORD_FIELDS),
        )
    )


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


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(item) for item in _list(value))


def _sessions(value: Any) -> str | None:
    # What a reader must know and does not stands in `needs`: here there are no words to come.
    if value is not None and value not in SESSIONS:
        raise ValueError(f"sessions={value!r} is none of {', '.join(SESSIONS)}")
    return None if value is None else _text(value)


def _fence(value: Any) -> FenceMark | None:
    if value is None:
        return None
    # A newer version may say more of it; what it says more is lost to nobody, since it stands at the server.
    return FenceMark(**{name: _text(value.get(name, "")) for name in FenceMark.__dataclass_fields__})


def _rehearsal(value: Any) -> Rehearsal | None:
    if value is None:
        return None
    return Rehearsal(
        id=_text(value["id"]),
        by=_text(value.get("by", "")),
        since=_instant(value["since"]),
        until=_instant(value["until"]),
        host=_text(value.get("host", "")),
        ended_at=_maybe_instant(value.get("ended_at")),
        revision=_number(value.get("revision", 1)),
        extra=_rest(value, _REHEARSAL_FIELDS),
    )


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a whole number from 0, found {value!r}")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise ValueError(f"expected a number of seconds above 0, found {value!r}")
    return float(value)


def _flag(value: Any) -> bool:
    # By its type: "false" is a true string.
    if not isinstance(value, bool):
        raise TypeError(f"expected true or false, found {value!r}")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, found {type(value).__name__}")
    return value


def _rest(item: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key not in known}


def _explain(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _excerpt(raw: bytes) -> str:
    shown = raw[:60].decode("utf-8", "replace")
    return repr(shown) + ("…" if len(raw) > 60 else "")
