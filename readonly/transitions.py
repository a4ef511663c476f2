"""Every change of a record, as a pure function; the stores, the switch and the model checker run these very functions.

Records join, they do not overrule each other: a cause ends only by being lifted, never because a record with a
higher epoch does not mention it (design rule 3). The one exception is a greater lineage, which only a person
makes, by `init`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from . import schedules
from .errors import UnreadableRecord
from .record import TOMBSTONE_AGE, Bypass, Cause, Lift, Record, Rehearsal, Window, new_id, ordered
from .record_format import dump, load

Item = TypeVar("Item", Cause, Window)
# A bypass that has run out is remembered so long.
BYPASS_AGE = timedelta(days=7)


# --- changes that a person (or a command) makes ------------------------------------------------------------------


def first_record(
    site: str,
    *,
    at: datetime,
    by: str,
    protected: bool = False,
    replacing: Record | None = None,
    end_sessions: bool = False,
) -> Record:
    """Return the first record of a site: writable, of a new lineage.

    Args:
        site: The site's name.
        at: Now, by the store's clock.
        by: Who typed `init`.
        protected: Whether commands will want the site's name.
        replacing: The record that is being reset on purpose; everything that stands in it is lifted.
        end_sessions: End every session issued before now: after a total loss the old cut-off is unknown.
    """
    fresh = Record(
        site=site,
        epoch=1,
        id=new_id(),
        # Ordered by time, then by chance: of two `init`s one wins everywhere (protocol.md 1.6).
        lineage=f"{at.isoformat(timespec='microseconds')}-{new_id()}",
        changed_at=at,
        changed_by=by,
        protected=protected,
        sessions_floor=at if end_sessions else None,
    )
    if replacing is None:
        return fresh
    standing = [*(c.id for c in replacing.causes), *(w.id for w in replacing.windows)]
    closed = without_causes(replacing, standing, at=at, by=by)
    sessions, unsaid = schedules.floors((w for w in closed.windows if w.ended), closed)
    return replace(
        fresh,
        epoch=closed.epoch + 1,
        lifted=closed.lifted,
        extra=closed.extra,
        sessions_floor=at if end_sessions else sessions,
        windows_floor=unsaid,
    )


def with_cause(record: Record | None, cause: Cause, *, site: str, at: datetime, by: str) -> Record:
    """Return the record with one cause more, or with that cause changed if it stands already.

    Over no record the result is partial: it closes and can't open (design rule 5).
    """
    if record is None:
        record = Record(site=site, epoch=0, id="", lineage="", changed_at=at)
    standing = record.cause(cause.id)
    if standing is None:
        cause = replace(cause, epoch=record.epoch + 1)
    else:
        cause = replace(cause, epoch=standing.epoch, since=standing.since, revision=standing.revision + 1)
    others = tuple(c for c in record.causes if c.id != cause.id)
    return changed(replace(record, causes=(*others, cause)), at=at, by=by)


def without_causes(record: Record, ids: Iterable[str], *, at: datetime, by: str, undone: bool = False) -> Record:
    """Return the record with these causes lifted, and windows that are in force ended; other ids are ignored.

    Args:
        record: The record as it is.
        ids: Causes to lift; a window in force has its id as a cause.
        at: Now, by the store's clock.
        by: Who lifts.
        undone: Withdraw the session cut-off of these causes, too.
    """
    wanted = set(ids)
    lifted: dict[str, Lift] = dict(record.lifted)
    for cause in record.causes:
        if cause.id in wanted:
            lifted[cause.id] = Lift(
                id=cause.id,
                at=at,
                by=by,
                since=cause.since,
                sessions=cause.sessions,
                undone=undone,
                epoch=cause.epoch,
            )
    windows = tuple(
        replace(
            window,
            ended=True,
            ended_at=at,
            revision=window.revision + 1,
            # One that is taken back has ended nobody's session.
            sessions="keep" if undone else window.sessions,
        )
        if window.id in wanted and window.in_force(at)
        else window
        for window in record.windows
    )
    return trimmed(changed(replace(record, lifted=lifted, windows=windows), at=at, by=by), at=at)


def with_bypass(record: Record, bypass: Bypass, *, at: datetime, by: str) -> Record:
    """Return the record with one bypass more, or with that bypass changed if it is there already."""
    known = {one.id: one.revision for one in record.bypasses}
    others = tuple(one for one in record.bypasses if one.id != bypass.id)
    bypass = replace(bypass, revision=known.get(bypass.id, 0) + 1)
    return trimmed(changed(replace(record, bypasses=(*others, bypass)), at=at, by=by), at=at)


def with_rehearsal(record: Record, rehearsal: Rehearsal, *, at: datetime, by: str) -> Record:
    """Return the record with another rehearsal, or with that one changed if it is the record's already."""
    known = record.rehearsal
    revision = known.revision + 1 if known is not None and known.id == rehearsal.id else 1
    return changed(replace(record, rehearsal=replace(rehearsal, revision=revision)), at=at, by=by)


def trimmed(record: Record, *, at: datetime, needed: Collection[str] = ()) -> Record:
    """Return the record without tombstones older than `TOMBSTONE_AGE`; the cut-offs they carried stay.

    Args:
        record: The record as it is.
        at: Now, by the store's clock.
        needed: Tombstones that stay, whatever their age.
    """
    bypasses = tuple(one for one in record.bypasses if not _spent(one, at))
    if len(bypasses) < len(record.bypasses):
        record = replace(record, bypasses=bypasses)
    old = {key: lift for key, lift in record.lifted.items() if _old(lift, at) and key not in needed}
    if not old:
        return record
    floors = [
        lift.since
        for lift in old.values()
        if lift.since is not None and not lift.undone and lift.sessions in (None, "end")
    ]
    if record.sessions_floor is not None:
        floors.append(record.sessions_floor)
    return replace(
        record,
        lifted={key: lift for key, lift in record.lifted.items() if key not in old},
        sessions_floor=max(floors, default=None),
    )


def _old(lift: Lift, at: datetime) -> bool:
    return at - lift.at > TOMBSTONE_AGE


def _spent(bypass: Bypass, at: datetime) -> bool:
    # Kept a while, so that a copy of an older record does not bring back one that was revoked, and for `bypass list`.
    return at - bypass.until > BYPASS_AGE


def changed(record: Record, *, at: datetime, by: str) -> Record:
    """Return a record that was changed just now: with the next epoch, a new id, and who changed it."""
    rehearsal = record.rehearsal
    if rehearsal is not None and rehearsal.ended_at is None and rehearsal.until <= at:
        # Nobody has to write down that its time was up; who writes anyway says so, and readers need not know of it.
        record = replace(record, rehearsal=replace(rehearsal, ended_at=rehearsal.until))
    # The store's clock may have gone back (a failover); an instant of change never does.
    return ordered(
        replace(record, epoch=record.epoch + 1, id=new_id(), changed_at=max(at, record.changed_at), changed_by=by)
    )


# --- joining -----------------------------------------------------------------------------------------------------


def adds(mine: Record, theirs: Record) -> bool:
    """Return whether `mine` knows anything that `theirs` does not: a cause, a lift, a window, a cut-off, an epoch."""
    if mine.epoch > theirs.epoch:
        return True
    if mine.lineage != theirs.lineage and mine.lineage:
        if mine.lineage > theirs.lineage:  # "" (partial) is the smallest of all
            return True
        if theirs.lineage:
            mine = _younger(mine, theirs.lineage)
    now = max(mine.changed_at, theirs.changed_at)
    recurring, known = schedules.joined(mine.schedules, theirs.schedules), _by_id(theirs.windows)
    return (
        any(c.id not in theirs.lifted and _newer(c, theirs.cause(c.id)) for c in mine.causes)
        # Who remembers a tombstone that others have dropped for its age does not bring it back for ever.
        or any(
            _one_lift(lift, theirs.lifted.get(key)) != theirs.lifted.get(key)
            and (not _old(lift, now) or theirs.cause(key) is not None)
            for key, lift in mine.lifted.items()
        )
        or recurring != theirs.schedules
        or _adds_bypass(mine.bypasses, theirs.bypasses, now)
        or any(
            _newer(w, known.get(w.id))
            and not schedules.over(w, recurring)
            # One that ended so long ago that others have dropped it does not come back, as no tombstone does.
            and (w.id in known or not _long_over(w, now))
            for w in mine.windows
        )
        or _one_rehearsal(mine.rehearsal, theirs.rehearsal) != theirs.rehearsal
        or _latest(mine.sessions_floor, theirs.sessions_floor) != theirs.sessions_floor
        or _latest(mine.windows_floor, theirs.windows_floor) != theirs.windows_floor
        or (mine.protected and not theirs.protected)
    )


def join(mine: Record, theirs: Record, *, at: datetime) -> Record:
    """Return what both records know together: the union of causes, lifts and windows.

    A partial record joined with a whole one is whole. Of two lineages the greater one stands, since a person made it to
    overrule the other: what the lesser one holds counts only as far as it came later than that, in a store that had
    gone back to before it.

    Returns:
        `theirs` itself, unchanged, when `mine` adds nothing to it; else a record with a new id and an epoch above both.
    """
    if not adds(mine, theirs):
        return theirs
    epoch = max(mine.epoch, theirs.epoch)
    at = max(at, mine.changed_at, theirs.changed_at)
    if mine.lineage and theirs.lineage and mine.lineage != theirs.lineage:
        lesser, newer = sorted((mine, theirs), key=lambda r: r.lineage)
        older = _younger(lesser, newer.lineage)
    else:
        older, newer = sorted((mine, theirs), key=lambda r: (r.epoch, r.id))
    recurring = schedules.joined(older.schedules, newer.schedules)
    lifted = dict(newer.lifted)
    for key, lift in older.lifted.items():
        lifted[key] = _one_lift(lift, lifted.get(key))
    joined = ordered(
        replace(
            newer,
            epoch=epoch + 1,
            id=new_id(),
            lineage=max(mine.lineage, theirs.lineage),
            protected=older.protected or newer.protected,
            changed_at=at,
            causes=_merged(older.causes, newer.causes),
            lifted=lifted,
            windows=tuple(w for w in _merged(older.windows, newer.windows) if not schedules.over(w, recurring)),
            schedules=recurring,
            bypasses=_all_bypasses(older.bypasses, newer.bypasses),
            rehearsal=_one_rehearsal(older.rehearsal, newer.rehearsal),
            sessions_floor=_latest(older.sessions_floor, newer.sessions_floor),
            windows_floor=_latest(older.windows_floor, newer.windows_floor),
            needs=tuple(sorted({*older.needs, *newer.needs})),
            extra={**older.extra, **newer.extra},
        )
    )
    # One that has lifted something just now is needed by others who know that cause.
    return trimmed(joined, at=at, needed={c.id for c in (*older.causes, *newer.causes)})


def _younger(record: Record, lineage: str) -> Record:
    """Return what is left of a record that a greater lineage overrules: causes and lifts that are younger than it.

    Who typed `init` had not seen them. They come from a store that went back to before it, where an operator has
    closed the site since (windows do not say when they were made: those go).
    """
    made = lineage_made(lineage)
    return replace(
        record,
        causes=tuple(c for c in record.causes if made is not None and c.since >= made),
        # What is lifted is at least as old as its lift, whatever a clock that went back says: where the cause counts,
        # its lift does, too.
        lifted={
            key: lift
            for key, lift in record.lifted.items()
            if made is not None and max(lift.at, lift.since or lift.at) >= made
        },
        windows=(),
        schedules=(),
        rehearsal=None,
        sessions_floor=None,
        windows_floor=None,
        protected=False,
        needs=(),
        extra={},
    )


def lineage_made(lineage: str) -> datetime | None:
    """Return when a person typed the `init` that a lineage comes from; None for one that a store made by itself."""
    try:
        made = datetime.fromisoformat(lineage.rpartition("-")[0])
    except ValueError:
        return None
    return made if made.tzinfo is not None else None


def _latest(mine: datetime | None, theirs: datetime | None) -> datetime | None:
    return max((f for f in (mine, theirs) if f is not None), default=None)


def _long_over(window: Window, at: datetime) -> bool:
    return window.ended and window.ended_at is not None and at - window.ended_at > TOMBSTONE_AGE


def _one_bypass(mine: Bypass, theirs: Bypass | None) -> Bypass:
    """Return the bypass that counts where two records speak of one: what was revoked on either side stays revoked."""
    if theirs is None or theirs == mine:
        return mine
    return max(theirs, mine, key=lambda one: (one.revoked, one.revision, repr(one)))


def _adds_bypass(mine: Iterable[Bypass], theirs: Iterable[Bypass], now: datetime) -> bool:
    known = {one.id: one for one in theirs}
    return any(not _spent(one, now) and _one_bypass(one, known.get(one.id)) != known.get(one.id) for one in mine)


def _all_bypasses(older: Iterable[Bypass], newer: Iterable[Bypass]) -> tuple[Bypass, ...]:
    found = {one.id: one for one in newer}
    return tuple((found | {one.id: _one_bypass(one, found.get(one.id)) for one in older}).values())


def _one_rehearsal(mine: Rehearsal | None, theirs: Rehearsal | None) -> Rehearsal | None:
    """Return the one that stands of two: the later one; what was ended on either side stays ended."""
    if mine is None or theirs is None or mine == theirs:
        return mine if theirs is None else theirs
    return max(mine, theirs, key=lambda one: (one.since, one.id, one.ended_at is not None, one.revision, repr(one)))


def _one_lift(mine: Lift, theirs: Lift | None) -> Lift:
    """Return the tombstone that everybody agrees on, where a cause was lifted on both sides of a split."""
    if theirs is None or mine == theirs:
        return mine
    found = max(mine, theirs, key=lambda lift: repr(replace(lift, undone=False)))
    return replace(found, undone=mine.undone or theirs.undone)


def _by_id(items: Iterable[Item]) -> dict[str, Item]:
    return {item.id: item for item in items}


def _rank(item: Cause | Window) -> tuple[int, bool, str]:
    # Two changes of one revision come from a split store; any order will do, as long as everybody uses the same.
    return (item.revision, isinstance(item, Window) and item.ended, repr(item))


def _newer(mine: Cause | Window, theirs: Cause | Window | None) -> bool:
    return theirs is None or (mine != theirs and _rank(mine) > _rank(theirs))


def _merged(older: Iterable[Item], newer: Iterable[Item]) -> tuple[Item, ...]:
    found: dict[str, Item] = _by_id(newer)
    for item in older:
        if _newer(item, found.get(item.id)):
            found[item.id] = item
    return tuple(found.values())


# --- what a process makes of a reading ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What one process knows: the join of all that it has read, and how much that is worth.

    Attributes:
        record: The join, or None before anything was read.
        raw: The bytes of `record` where it is, unchanged, what a store held.
        settled: A whole record was read from a store that is not too young to know better (design rule 8).
        fresh: False for what outlived its lease or comes from a file: it may close others and can't open anybody,
            until a whole record from the store confirms it (protocol.md 1.19).
        unreadable: Bytes of a record of another version, last seen; they go back byte for byte if the store loses
            them.
        problem: Why the last reading could not be used, else "".
    """

    record: Record | None = None
    raw: bytes | None = None
    settled: bool = False
    fresh: bool = True
    unreadable: bytes | None = None
    problem: str = ""

    @property
    def may_open(self) -> bool:
        """True when nothing that this process knows of keeps it from admitting writes, windows left out."""
        return (
            self.record is not None
            and self.settled
            and not self.record.partial
            and not self.record.causes
            and not self.problem
        )


def lapsed(known: Knowledge) -> Knowledge:
    """Return what is left of knowledge when its lease has run out: it may close others, and can't open anybody.

    Causes and lifts are kept: a lapsed process that forgot its lifts would bring lifted causes back.
    """
    return replace(known, settled=False, fresh=False)


def recalled(raw: bytes) -> Knowledge:
    """Return what a process may take from the last record that its host remembers: as much as a lapsed one's."""
    try:
        return Knowledge(record=load(raw), raw=raw, fresh=False)
    except UnreadableRecord as error:
        return Knowledge(fresh=False, unreadable=None if error.corrupt else raw)


def learn(
    known: Knowledge, stored: bytes | None, *, site: str, young: bool, at: datetime
) -> tuple[Knowledge, bytes | None]:
    """Take in what the store holds.

    Args:
        known: What the process knew.
        stored: The store's record, or None where there is none.
        site: The site this process belongs to.
        young: The store's incarnation is so young that others may know more and not have written it back yet.
        at: Now, by the store's clock.

    Returns:
        What the process knows now, and the bytes it must write back over `stored` (by compare-and-set), or None.
    """
    if stored is None:
        return _learn_nothing(known)
    try:
        theirs = load(stored)
    except UnreadableRecord as error:
        return replace(known, unreadable=None if error.corrupt else stored, problem=error.why), None
    if theirs.site != site:
        why = f"the store holds the record of the site {theirs.site!r}, not of {site!r}"
        return replace(known, problem=why), None
    settled = known.settled or (not young and not theirs.partial)
    fresh = known.fresh or settled
    mine = _worth(known, theirs)
    if mine is None or not adds(mine, theirs):
        return Knowledge(theirs, stored, settled, fresh), None
    joined = join(mine, theirs, at=at)
    raw = dump(joined)
    return Knowledge(joined, raw, settled, fresh), raw


def lacks_whole(stored: bytes | None) -> bool:
    """Return whether a store holds no whole record, so that what is written back may make it whole.

    Then the store was emptied, and its members with it: a whole record says that they are accounted for. So only a
    member writes it back that has told the new registry whom it knew in the old one (design rule 6).
    """
    return stored is None or load(stored).partial


def noted(*, left: float | None, alone: bool, young: bool) -> bool:
    """Return whether a process that has only just begun may admit its first write: others know that it is there.

    Else nobody would ask after it, should it stand still from then on and the store forget it (design rule 7).

    Args:
        left: Seconds until nobody is alive any more who has not reported since it came, and was told of it then; None
            once another member has said that it remembers it.
        alone: Nobody else is alive.
        young: The registry is so young that others may be at work and not have reported to it yet.
    """
    return left is None or (not young and (alone or left < 0.0))


def _worth(known: Knowledge, theirs: Record | None) -> Record | None:
    """Return the record that this process may join with `theirs`: what is not settled makes nothing whole.

    That is what outlived its lease, what a file remembers, and what was read from a store too young to know.
    """
    record = known.record
    if record is None or known.settled:
        return record
    if theirs is not None and theirs.lineage > record.lineage:
        return record  # overruled by a person's `init`; joining says so
    return replace(record, lineage="")


def _learn_nothing(known: Knowledge) -> tuple[Knowledge, bytes | None]:
    if known.unreadable is not None:
        return known, known.unreadable
    known = replace(known, problem="")
    mine = _worth(known, None)
    if mine is None:
        return known, None
    if mine.partial:
        # Nothing but its causes is worth writing: a partial record can close and can't open.
        return known, dump(mine) if mine.causes else None
    return known, (known.raw or dump(mine)) if mine.causes or known.settled else None


# --- who may lift what -------------------------------------------------------------------------------------------


def contradicts(
    base: Record | None, now: Record | None, *, closes: bool, windows: bool = False, after: datetime | None = None
) -> bool:
    """Return whether somebody made a change that contradicts ours since we read `base` (design rule 2).

    Args:
        base: The record our decision was based on.
        now: The record that stands.
        closes: True if ours closes (`on`), False if it opens (`off`).
        windows: Whether ours may end a window, so that one that was moved contradicts it.
        after: Only what was decided since then counts: the rest was decided before, lost by the store, and brought back
            by a member. None: all counts, since ours is about whatever stands.
    """
    if base is None or now is None:
        return False
    if closes:
        return any(key not in base.lifted and (after is None or lift.at >= after) for key, lift in now.lifted.items())
    before: Mapping[str, Cause] = _by_id(base.causes)
    known = {w.id: w.revision for w in base.windows}
    # What was planned for later, by a person or by a member that topped up a schedule, closes nothing yet.
    if windows and any(w.in_force(now.changed_at) and w.revision > known.get(w.id, 0) for w in now.windows):
        return True
    return any(
        c.revision > before[c.id].revision if c.id in before else after is None or c.since >= after for c in now.causes
    )


def undo_until(cause: Cause, *, grace: timedelta) -> datetime:
    """Return until when a cause can be taken back with its session cut-off."""
    return cause.since + grace
