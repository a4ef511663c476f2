"""What `on` adds to the change itself: what an emptied store has forgotten, and whether the fences stand to the end."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from .. import changes
from ..changes import Change
from ..databases.fence import Strategy
from ..errors import LostRace, UnreadableRecord
from ..fencing import Fences, Raised
from ..hostfile import HostFile
from ..record import FENCE, TOMBSTONE_AGE, Record
from ..record_format import load
from ..state import State
from ..stores import Store


def with_what_is_remembered(store: Store, change: Change, memory: HostFile, fences: Fences) -> Change:
    """Put what this host remembers back into a store that was emptied, above the epochs that standing fences remember.

    Args:
        store: The store.
        change: What was set over the empty store: its record is partial.
        memory: What this host saw last; it closes and opens nothing (design rule 5).
        fences: Those that this machine can reach.
    """
    change = _with_what_this_host_knows(store, change, memory)
    floor = fences.epoch()
    if floor <= change.record.epoch:
        return change
    record, census = changes.survey(store, replace(change.record, epoch=floor))
    return replace(change, record=record, reading=census.reading) if record is not None else change


def _with_what_this_host_knows(store: Store, change: Change, memory: HostFile) -> Change:
    last = memory.recall()
    if last is None or change.reading.at - last[1] > TOMBSTONE_AGE:
        return change
    try:
        record, census = changes.survey(store, load(last[0]))
    except UnreadableRecord:
        return change
    return replace(change, record=record, reading=census.reading) if record is not None else change


def still_raised(store: Store, known: Record, causes: Collection[str], raised: Raised, *, every: bool) -> Raised:
    """Look once more whether what was confirmed and fenced still stands; see `Site.still_raised`.

    Raises:
        LostRace: Somebody has lifted what was confirmed.
    """
    record, census = changes.survey(store, known)
    standing = State.at(census.reading.at, record).causes
    lifts = record.lifted if record is not None else {}
    gone = [lifts[c] for c in causes if c in lifts]
    if gone if every else {c.id for c in standing if c.kind != FENCE}.isdisjoint(causes):
        by, epoch = (record.changed_by, record.epoch) if record is not None else ("?", 0)
        by, what = (gone[0].by, gone[0].id) if gone else (by, "what kept the site read-only")
        raise LostRace(f"{by} lifted {what}, while this was raising the fences", by=by, epoch=epoch)
    named = {c.fence.name for c in standing if c.fence is not None}
    fell = [up.name for up in raised.fenced if up.strategy is not Strategy.BARRIER and up.name not in named]
    again = tuple(f"the fence {name} was lifted meanwhile: readonlyctl fence raise {name}" for name in fell)
    return replace(raised, problems=(*raised.problems, *again))
