"""What does one change make of a record: a cause set or lifted, a bypass, a rehearsal, and what is too old to keep?"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from .. import schedules
from ..record import TOMBSTONE_AGE, Bypass, Cause, Lift, Record, Rehearsal, new_id, ordered

# A bypass that has run out is remembered so long.
BYPASS_AGE = timedelta(days=7)


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
    bypasses = tuple(one for one in record.bypasses if not is_spent(one, at))
    if len(bypasses) < len(record.bypasses):
        record = replace(record, bypasses=bypasses)
    old = {key: lift for key, lift in record.lifted.items() if is_old(lift, at) and key not in needed}
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


def is_old(lift: Lift, at: datetime) -> bool:
    """Tell whether a tombstone has stood so long that nobody needs it any more."""
    return at - lift.at > TOMBSTONE_AGE


def is_spent(bypass: Bypass, at: datetime) -> bool:
    """Tell whether a bypass ran out so long ago that it is forgotten."""
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
