"""What do two records know together, and does one know anything that the other does not?

A cause ends only by being lifted, never because a record with a higher epoch does not mention it (design rule 3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from .. import schedules
from ..record import TOMBSTONE_AGE, Bypass, Cause, Lift, Record, Rehearsal, Window, new_id, ordered
from ._changing import is_old, is_spent, trimmed

Item = TypeVar("Item", Cause, Window)


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
            and (not is_old(lift, now) or theirs.cause(key) is not None)
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
    return any(not is_spent(one, now) and _one_bypass(one, known.get(one.id)) != known.get(one.id) for one in mine)


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
