"""Does the store still hold what its caller knows, and would it survive its server with that?"""

from __future__ import annotations

from dataclasses import replace

from ..confirmation import Confirmation
from ..record import Record
from ..record_format import dump, load
from ..stores import Census, Store
from ..transitions import adds, join
from ._rewriting import TRIES

# A disk that is written to every second has it by then; copies have it long before, or are not well.
SETTLE_SECONDS = 2.0


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
