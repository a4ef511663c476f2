"""How is a record changed while others change it too: read, change, write if unchanged, else read again?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from .. import history
from ..errors import ConfigurationError, LostRace, UnreadableRecord
from ..hostfile import state_folder
from ..record import Record
from ..record_format import dump, load
from ..state import as_cause
from ..stores import Reading, Store, redacted
from ..transitions import contradicts
from ._operator import Operator

# A change meets others' changes rarely; more often than this something else is wrong.
TRIES = 50
# Whoever races with a change has read the record no longer before it, in timeouts of the store: to read and to write
# may take two of them each.
RACE_TIMEOUTS = 4


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
