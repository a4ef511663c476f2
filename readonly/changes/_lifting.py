"""Which causes does a command lift, whose may it, and can their session cut-off still be taken back?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from ..errors import NoRecord, NotYours
from ..record import FENCE, LOCAL, OPERATOR, RUN, WINDOW, Cause, Record
from ..state import as_cause
from ..stores import Store, redacted
from ..transitions import without_causes
from ._operator import Operator
from ._rewriting import Change, read_in, rewrite

# `off --undo` takes a slip back, session cut-off included, for so long (and no cookie is expired before).
UNDO_GRACE = timedelta(seconds=60)


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
