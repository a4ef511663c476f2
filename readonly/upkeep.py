"""What any member does for windows: end those whose time is up, and top up recurring ones, in one compare-and-set.

So no scheduler has to live: whoever reports after an end writes it down, and the others see that somebody was faster.
"""

from __future__ import annotations

import logging

from . import history, windows
from .processes import host_name
from .record import Record
from .record_format import dump
from .stores import Reading, Store
from .transitions import Knowledge

logger = logging.getLogger("readonly")


def keep_windows(store: Store, known: Knowledge, reading: Reading) -> Reading | None:
    """Write what is due by the store's clock; return what stands then, or None where nothing was.

    Args:
        store: The store.
        known: What this process knows; only one that trusts its whole record opens anything by it.
        reading: The answer that `known` comes from.

    Raises:
        StoreUnreachable: The store did not answer.
    """
    before = known.record
    if before is None or not known.settled or known.problem or before.partial or known.raw != reading.record:
        return None
    # The store's own clock, read with the very record that is replaced: it can only be later when this is written.
    after = windows.kept(before, at=reading.at)
    if after is None:
        return None
    raw = dump(after)
    found = store.replace(raw, was=reading.record, causes=[c.id for c in after.causes])
    if found.record == raw:
        _say(store, before, after)
    return found


def _say(store: Store, before: Record, after: Record) -> None:
    over = {w.id for w in before.windows if w.ended}
    for window in (w for w in after.windows if w.ended and w.id not in over):
        logger.info("readonly: window %s is over: ended by this process, by the store's clock", window.id)
        history.write(
            store,
            None,
            history.Entry(
                at=history.instant(after.changed_at),
                site=store.site,
                what="ended",
                by=window.by,
                host=host_name(),
                epoch=after.epoch,
                causes=(window.id,),
                seconds=round((after.changed_at - window.start).total_seconds(), 1),
                reason=window.reason,
            ),
        )
