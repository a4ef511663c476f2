"""Changing the record in a store: read, change, write if unchanged, else read again (design rule 2).

Both sides use this, an application's switch in its thread and the operator's command in its own; it knows the store
and nothing of processes.
"""

from __future__ import annotations

import getpass
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from . import history
from .confirmation import Confirmation
from .errors import ConfigurationError, LostRace, NoRecord, NotYours, UnreadableRecord
from .hostfile import state_folder
from .processes import host_name
from .record import FENCE, LOCAL, OPERATOR, RUN, SESSIONS, WINDOW, Cause, FenceMark, Record, new_cause_id
from .record_format import dump, load
from .state import as_cause
from .stores import Census, Reading, Store, redacted
from .transitions import adds, contradicts, first_record, join, with_cause, without_causes

# `off --undo` takes a slip back, session cut-off included, for so long (and no cookie is expired before).
UNDO_GRACE = timedelta(seconds=60)
# A change meets others' changes rarely; more often than this something else is wrong.
TRIES = 50
# Who expects a read-only time to take longer has made a typing error.
LONGEST_EXPECTED = timedelta(days=3650)
# A disk that is written to every second has it by then; copies have it long before, or are not well.
SETTLE_SECONDS = 2.0
# Whoever races with a change has read the record no longer before it, in timeouts of the store: to read and to write
# may take two of them each.
RACE_TIMEOUTS = 4


@dataclass(frozen=True, slots=True)
class Operator:
    """Who changes something.

    Attributes:
        name: The person, wherever they sit; a bare system user is qualified by its host, since `root` on two
            machines may be two people.
        host: The machine it was typed on.
    """

    name: str
    host: str

    @classmethod
    def here(cls, named: str | None = None, environ: Mapping[str, str] | None = None) -> Operator:
        """Return who is at work here: `named`, READONLY_OPERATOR, SUDO_USER, else the system's user and host."""
        environ = os.environ if environ is None else environ
        host = host_name()
        person = named or environ.get("READONLY_OPERATOR") or environ.get("SUDO_USER")
        if person:
            return cls(person, host)
        try:
            user = getpass.getuser()
        except (OSError, KeyError):  # a user id without a name, as in many containers
            user = f"uid-{os.getuid()}" if hasattr(os, "getuid") else "unknown"
        return cls(f"{user}@{host}", host)


@dataclass(frozen=True, slots=True)
class Change:
    """What a change did.

    Attributes:
        record: The record that stands now.
        reading: The reading that proved it.
        causes: Ids of the causes that were set or lifted.
        changed: False if everything was already so.
    """

    record: Record
    reading: Reading
    causes: tuple[str, ...]
    changed: bool = True


def read_in(store: Store, reading: Reading) -> Record | None:
    """Return the record in a reading, made sure that it is the record of the store's site.

    Raises:
        UnreadableRecord: This version can't read it.
        ConfigurationError: It is another site's.
    """
    if reading.record is None:
        return None
    record = load(reading.record)
    if record.site != store.site:
        raise ConfigurationError(
            f"the store {redacted(store.url)} holds the record of the site {record.site!r}, not of {store.site!r}: "
            f"end its URL with ?site={record.site}, or name another store. Nothing was changed"
        )
    return record


def rewrite(
    store: Store,
    make: Callable[[Record | None, datetime], tuple[Record | None, Sequence[str]]],
    *,
    closes: bool | None,
    operator: Operator,
    what: str,
    over_corrupt: bool = False,
    windows: bool = False,
    of_all: bool = False,
    reason: str = "",
    message: str = "",
) -> Change:
    """Read the record, make another one of it, and write that if nobody was faster; else again.

    Args:
        store: Where it is.
        make: Makes it of the record that stands, and the store's clock; with the ids that it is about. None: nothing
            is to be changed.
        closes: Whether it closes the site or opens it; None: it contradicts nobody.
        operator: Who changes it.
        what: What the history calls it.
        over_corrupt: A record that is corrupt counts as none.
        windows: Whether it may end a window.
        of_all: It is about whatever stands.
        reason: For the history.
        message: For the history.

    Raises:
        LostRace: Somebody made a contradicting change meanwhile.
    """
    base: Record | None = None
    raced: datetime | None = None
    for attempt in range(TRIES):
        reading = store.read()
        try:
            record = read_in(store, reading)
        except UnreadableRecord as error:
            if not (over_corrupt and error.corrupt):
                raise
            record = None
        # None: what gives up a cause of its own contradicts nobody.
        if closes is not None and attempt and base is not None and record is not None:
            _refuse_contradiction(base, record, closes=closes, windows=windows, after=None if of_all else raced)
        if not attempt:
            base, raced = record, reading.at - timedelta(seconds=RACE_TIMEOUTS * store.timeout)
        new, causes = make(record, reading.at)
        if new is None:
            if record is None:
                raise AssertionError("a change over nothing must make something")
            return Change(record, reading, tuple(causes), changed=False)
        raw = dump(new)
        after = store.replace(raw, was=reading.record, causes=[c.id for c in new.causes])
        if after.record == raw:
            change = Change(new, after, tuple(causes))
            history.write(store, state_folder(), _entry(store, operator, what, change, reason, message))
            return change
    raise LostRace(
        f"the record of {store.site} changed {TRIES} times while this was tried; nothing of yours was changed",
        by=record.changed_by if record is not None else "?",
        epoch=record.epoch if record is not None else 0,
    )


def _entry(store: Store, operator: Operator, what: str, change: Change, reason: str, message: str) -> history.Entry:
    lifted = [change.record.lifted[c] for c in change.causes if c in change.record.lifted]
    since = min((lift.since for lift in lifted if lift.since is not None), default=None)
    return history.Entry(
        at=history.instant(change.record.changed_at),
        site=store.site,
        what=what,
        by=operator.name,
        host=operator.host,
        epoch=change.record.epoch,
        causes=change.causes,
        # For `off`: how long those causes stood.
        seconds=round((change.record.changed_at - since).total_seconds(), 1) if since is not None else None,
        reason=reason,
        message=message,
    )


def _refuse_contradiction(base: Record, record: Record, *, closes: bool, windows: bool, after: datetime | None) -> None:
    if contradicts(base, record, closes=closes, windows=windows, after=after):
        by, did = _winner(base, record, closes=closes)
        raise LostRace(
            f"{by} was faster and {did}: epoch {record.epoch} stands, and nothing of yours was changed",
            by=by,
            epoch=record.epoch,
        )


def _winner(base: Record, record: Record, *, closes: bool) -> tuple[str, str]:
    """Say who made the contradicting change, and what it was."""
    if closes:
        lift = max((lift for key, lift in record.lifted.items() if key not in base.lifted), key=lambda lift: lift.at)
        return lift.by, f"lifted {lift.id}"
    at = record.changed_at
    before, now = ((*r.causes, *(as_cause(w) for w in r.windows if w.in_force(at))) for r in (base, record))
    standing = {c.id: c.revision for c in before}
    cause = max((c for c in now if c.revision > standing.get(c.id, 0)), key=lambda c: c.since)
    return cause.by, f"set {cause.id}"


def initialise(
    store: Store,
    operator: Operator,
    *,
    protected: bool = False,
    replace_existing: bool = False,
    end_sessions: bool = False,
    floor: int = 0,
) -> Change:
    """Write the first record of a site.

    Args:
        store: Where it goes.
        operator: Who does it.
        protected: Whether commands will want the site's name.
        replace_existing: Reset on purpose, lifting everything that stands; the one way out of a corrupt record.
        end_sessions: End every session issued before now.
        floor: An epoch that was there before, as far as anybody remembers: the new one is above it.

    Raises:
        NotYours: There is a record, and it was not told to replace it.
        UnreadableRecord: There is one that this version can't read; only a corrupt one can be replaced.
    """

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        if record is not None and not record.partial and not replace_existing:
            raise NotYours(
                f"{store.site} has a record already (epoch {record.epoch}, {record.mode}): nothing was changed. "
                "To start anew on purpose, lifting all that stands: init --replace",
                causes=[c.id for c in record.causes],
            )
        causes = [c.id for c in record.causes] if record is not None else []
        new = first_record(
            store.site,
            at=at,
            by=operator.name,
            protected=protected,
            replacing=record,
            end_sessions=end_sessions,
        )
        new = replace(new, epoch=max(new.epoch, floor + 1))
        if record is not None and record.partial and not replace_existing:
            # An `on` over the empty store stays: making the record whole opens nothing by itself.
            lifted = {key: lift for key, lift in new.lifted.items() if key not in causes}
            new = replace(new, causes=record.causes, windows=record.windows, schedules=record.schedules, lifted=lifted)
        return new, causes

    return rewrite(store, make, closes=False, operator=operator, what="init", over_corrupt=replace_existing)


def turn_on(
    store: Store,
    operator: Operator,
    *,
    reason: str = "",
    message: str = "",
    expected: timedelta | None = None,
    sessions: str | None = None,
    kind: str = OPERATOR,
) -> Change:
    """Set the operator's cause, or change it if it stands: what is given anew replaces what was said before.

    Raises:
        ConfigurationError: `expected` or `sessions` make no sense; nothing was changed.
        LostRace: Somebody lifted a cause meanwhile.
    """
    if sessions is not None and sessions not in SESSIONS:
        # Stored, it would make the record unreadable for everybody.
        raise ConfigurationError(f"sessions={sessions!r} is not a choice: use 'end', 'suspend' or 'keep'")
    if expected is not None and not timedelta(0) < expected < LONGEST_EXPECTED:
        raise ConfigurationError(
            f"expected={expected} makes no sense: say how long it will take, more than nothing and less than "
            f"{LONGEST_EXPECTED.days} days"
        )
    mine = new_cause_id()

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        at = at.astimezone(UTC)
        end = at + expected if expected is not None else None
        standing = next(
            (
                c
                for c in (record.causes if record is not None else ())
                if c.kind == kind == OPERATOR and c.by == operator.name
            ),
            None,
        )
        if standing is not None:
            cause = replace(
                standing,
                reason=reason or standing.reason,
                message=message or standing.message,
                expected_end=end or standing.expected_end,
                sessions=sessions or standing.sessions,
                host=operator.host,
            )
            if cause == standing:
                return None, [cause.id]
        else:
            cause = Cause(
                id=mine,
                kind=kind,
                by=operator.name,
                since=at,
                reason=reason,
                message=message,
                expected_end=end,
                sessions=sessions,
                host=operator.host,
            )
        return with_cause(record, cause, site=store.site, at=at, by=operator.name), [cause.id]

    return rewrite(store, make, closes=True, operator=operator, what="on", reason=reason, message=message)


def turn_off(
    store: Store,
    operator: Operator,
    *,
    cause: str | None = None,
    every: bool = False,
    undo: bool = False,
    asked: datetime | None = None,
    kind: str = OPERATOR,
) -> Change:
    """Lift causes: the operator's own, or the one named, or all that may be lifted by anybody.

    Args:
        store: Where the record is.
        operator: Who lifts.
        cause: Lift this one, whosever it is.
        every: Lift operators' causes, and end windows that are in force; never a run that reports, a fence that stands
            or a local one.
        undo: Withdraw the session cut-off as well; only within `UNDO_GRACE` of the start.
        asked: When it was, by the store's clock, where `undo_in_time` has been asked and something was done since.
        kind: The kind of one's own causes.

    Raises:
        NoRecord: The store holds none, or a partial one: there is nothing that could be opened.
        NotYours: Only others' causes stand; or the one named can't be lifted like this.
        LostRace: Somebody closed the site meanwhile.
    """

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        if record is None or record.partial:
            raise NoRecord(
                f"the store {redacted(store.url)} holds no {'whole ' if record is not None else ''}record for "
                f"{store.site}, so there is nothing to lift: a process that knew the state writes it back; "
                f"if none is left: readonlyctl init {store.site}"
            )
        chosen = _chosen(record, operator, cause=cause, every=every, kind=kind, at=at)
        if undo:
            _refuse_late(chosen, asked or at)
        if not chosen:
            return None, ()
        ids = [c.id for c in chosen]
        return without_causes(record, ids, at=at, by=operator.name, undone=undo), ids

    return rewrite(
        store,
        make,
        closes=False,
        operator=operator,
        what="undo" if undo else "off",
        windows=every or cause is not None,
        # Nobody has seen what a member has just brought back.
        of_all=every,
    )


def undo_in_time(store: Store, operator: Operator, *, cause: str | None = None, every: bool = False) -> datetime:
    """Return when it is, by the store's clock, if `turn_off` would still take back what it lifts.

    Raises:
        NotYours: As `turn_off` does; nothing was changed.
    """
    reading = store.read()
    record = read_in(store, reading)
    if record is not None:
        _refuse_late(_chosen(record, operator, cause=cause, every=every, kind=OPERATOR, at=reading.at), reading.at)
    return reading.at


def _refuse_late(chosen: Sequence[Cause], at: datetime) -> None:
    late = [c for c in chosen if at - c.since > UNDO_GRACE]
    if late:
        raise NotYours(
            f"{late[0].id} stands since {late[0].since:%H:%M:%S} UTC: sessions can be given back for "
            f"{UNDO_GRACE.total_seconds():.0f} s only. Nothing was changed; without --undo `off` opens the site and "
            "sessions stay ended",
            causes=[c.id for c in late],
        )


def would_lift(record: Record, operator: Operator, *, cause: str | None = None, every: bool = False) -> tuple[str, ...]:
    """Return the ids of the causes that `turn_off` would lift of a record.

    Raises:
        NotYours: As `turn_off` does.
    """
    return tuple(c.id for c in _chosen(record, operator, cause=cause, every=every, kind=OPERATOR))


def _chosen(
    record: Record,
    operator: Operator,
    *,
    cause: str | None,
    every: bool,
    kind: str,
    at: datetime | None = None,
) -> list[Cause]:
    # A window in force is a cause, and ends like one.
    windows = [as_cause(w) for w in record.windows if not w.ended and (at is None or w.in_force(at))]
    begun = windows if at is not None else []
    if cause is not None:
        named = record.cause(cause) or next((w for w in windows if w.id == cause), None)
        if named is None:
            if cause in record.lifted or any(w.id == cause and w.ended for w in record.windows):
                return []
            planned = next((w for w in record.windows if w.id == cause), None)
            if planned is not None:
                raise NotYours(
                    f"{cause} has not begun, it will at {planned.start:%Y-%m-%d %H:%M:%S} UTC, so there is nothing to "
                    f"lift: schedule cancel {cause}. Nothing was changed",
                    causes=[],
                )
            stands = ", ".join(c.id for c in (*record.causes, *windows)) or "none"
            raise NotYours(f"there is no cause {cause}; standing: {stands}. Nothing was changed", causes=[])
        if named.kind == RUN:
            raise NotYours(
                f"{named.id} is a run: its end lifts it, or a person who gives it up: readonlyctl abandon {named.id}. "
                "Nothing was changed",
                causes=[named.id],
            )
        if named.kind in (FENCE, LOCAL):
            raise NotYours(
                f"{named.id} is a {named.kind} that is still at work: it is not lifted from here. Nothing was changed",
                causes=[named.id],
            )
        return [named]
    if every:
        return [*(c for c in record.causes if c.kind in (OPERATOR, WINDOW)), *windows]
    standing = (*record.causes, *begun)
    mine = [c for c in standing if c.kind in (kind, WINDOW) and c.by == operator.name]
    # What is left of a fence is nobody's to lift here: `off` has tried, and says why it stands.
    if not mine and any(c.kind != FENCE for c in standing):
        lines = "; ".join(
            f"{c.kind} {c.id} by {c.by} since {c.since:%Y-%m-%d %H:%M} UTC" + (f" ({c.reason})" if c.reason else "")
            for c in standing
        )
        raise NotYours(
            f"{record.site} is read-only because of others, not you ({operator.name}): {lines}. Nothing was changed",
            causes=[c.id for c in standing],
        )
    return mine


def start_run(
    store: Store,
    operator: Operator,
    run: str,
    *,
    reason: str = "",
    message: str = "",
    expected: timedelta | None = None,
    sessions: str | None = None,
) -> Change:
    """Set the cause of a run, whose id is the run's.

    Raises:
        NotYours: Another run stands, also one that was started at the same moment; nothing was changed.
        NoRecord: There is no record, so nobody would know that the run stands.
        LostRace: Somebody lifted a cause meanwhile.
    """

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        if record is None or record.partial:
            raise NoRecord(
                f"the store {redacted(store.url)} holds no whole record for {store.site}: a run is not started over "
                f"that. New site? readonlyctl init {store.site}. Nothing was changed"
            )
        for standing in record.causes:
            if standing.kind == RUN and standing.id != run:
                raise NotYours(
                    f"run {standing.id} by {standing.by} stands since {standing.since:%Y-%m-%d %H:%M} UTC: one run at "
                    "a time. Nothing was changed",
                    causes=[standing.id],
                )
        at = at.astimezone(UTC)
        cause = Cause(
            id=run, kind=RUN, by=operator.name, since=at, reason=reason, message=message,
            expected_end=at + expected if expected is not None else None, sessions=sessions, host=operator.host,
        )  # fmt: skip
        return with_cause(record, cause, site=store.site, at=at, by=operator.name), [run]

    return rewrite(store, make, closes=True, operator=operator, what="run", reason=reason, message=message)


def set_fence(store: Store, operator: Operator, mark: FenceMark) -> Change:
    """Set the cause of a fence, or say more of the one that stands; before the first step and after the last.

    Set first: whoever dies in the middle leaves a closed site that says why, and not an open one that meets errors.
    """
    mine = f"{FENCE}:{mark.name}:{secrets.token_hex(2)}"

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        standing = fence_of(record, mark.name)
        if standing is None:
            cause = Cause(
                id=mine, kind=FENCE, by=operator.name, since=at.astimezone(UTC), host=operator.host, fence=mark,
                sessions="keep",
            )  # fmt: skip
        elif standing.fence == mark or not mark.level:
            return None, [standing.id]
        else:
            cause = replace(standing, fence=mark)
        return with_cause(record, cause, site=store.site, at=at, by=operator.name), [cause.id]

    return rewrite(store, make, closes=None, operator=operator, what="fence")


def fence_of(record: Record | None, name: str) -> Cause | None:
    """Return the standing cause of the fence of that name, or None."""
    causes = record.causes if record is not None else ()
    return next((c for c in causes if c.kind == FENCE and c.fence is not None and c.fence.name == name), None)


def lift_exactly(store: Store, operator: Operator, cause_id: str, *, window: str | None = None) -> Change:
    """Lift one cause by its id, if it stands: for whoever made it and gives it up.

    Args:
        store: Where the record is.
        operator: Who gives it up.
        cause_id: The cause.
        window: A window that ends with it, if it is in force.
    """

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        if record is None:
            raise NoRecord(f"the store {redacted(store.url)} holds no record for {store.site}: nothing was changed")
        if record.cause(cause_id) is None:
            return None, [cause_id]
        ids = [cause_id, *(w.id for w in record.windows if w.id == window and w.in_force(at))]
        return without_causes(record, ids, at=at, by=operator.name), ids

    return rewrite(store, make, closes=None, operator=operator, what="off")


def survey(store: Store, known: Record | None) -> tuple[Record | None, Census]:
    """Read record and registry in one step; write back first what the store has lost of what the caller knows.

    Raises:
        StoreUnreachable: The store did not answer.
        UnreadableRecord: This version can't read what it holds.
    """
    for _ in range(TRIES):
        census = store.census()
        record = load(census.reading.record) if census.reading.record is not None else None
        if known is None or (record is not None and record.site != known.site):
            return record, census
        # Others may have closed the site since the caller read it: what the store lost goes back closed, and only
        # members make it whole (design rule 5).
        mine = known if record is not None and not record.partial else replace(known, lineage="")
        if record is not None and not adds(mine, record):
            return record, census
        joined = mine if record is None else join(mine, record, at=census.reading.at)
        if record is None and not joined.causes:
            # A writable record goes back by members whose own knowledge is fresh, not by a command (design rule 4).
            return None, census
        store.replace(dump(joined), was=census.reading.record, causes=[c.id for c in joined.causes])
    return record, census


def settled(store: Store, found: Confirmation, *, wait: float) -> Confirmation:
    """Add what keeps a store from surviving its server with what it was just read for: copies or a disk that lack it.

    Args:
        store: The handle that the confirmation was read with (design rule 12).
        found: The confirmation.
        wait: Seconds to wait for copies and disk at most; what can't be there by `SETTLE_SECONDS` is not well.
    """
    lacking = store.settled(max(0.0, min(wait, SETTLE_SECONDS)))
    if not lacking:
        return found
    if not found.closing:
        lacking += ": the site may come back read-only"
    return replace(found, problems=(*found.problems, lacking))
