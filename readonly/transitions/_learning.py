"""What does one process make of what it reads in the store, and when may it open, or write back?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from ..errors import UnreadableRecord
from ..record import Record
from ..record_format import dump, load
from ._joining import adds, join


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
