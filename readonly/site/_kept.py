"""What does the history keep of a wait for the members, and of fences that were raised?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .. import history
from ..changes import Change, Operator
from ..confirmation import Confirmation
from ..errors import StoreUnreachable
from ..fencing import Raised
from ..hostfile import state_folder
from ..members import Report
from ..safety import level_of
from ..stores import Store
from ._look import Look


def keep_wait(
    store: Store,
    what: str,
    found: Confirmation,
    operator: Operator,
    *,
    seconds: float | None = None,
    tally: Mapping[str, Any] | None = None,
) -> None:
    """Write down how a wait ended.

    Args:
        store: Whose history it is.
        what: What the history calls it.
        found: The last look at the members.
        operator: Who waited.
        seconds: How long; None: not told.
        tally: What all members counted meanwhile.
    """
    conditions = Counter(str(m.condition) for m in found.members)
    history.write(
        store,
        state_folder(),
        history.Entry(
            at=history.instant(found.at),
            site=store.site,
            what=what,
            by=operator.name,
            host=operator.host,
            epoch=found.epoch,
            causes=found.causes,
            seconds=seconds,
            level=level_of(found),
            members=dict(conditions),
            missing=found.missing,
            accepted=found.accepted,
            tally=tally or {},
        ),
    )


def keep_fences(store: Store, cause: str, raised: Raised, look: Look, operator: Operator, *, seconds: float) -> None:
    """Write down what became of the fences that were raised for a cause, and at which look at the record."""
    history.write(
        store,
        state_folder(),
        history.Entry(
            at=history.instant(look.census.reading.at),
            site=store.site,
            what="not fenced" if raised.problems else "fenced",
            by=operator.name,
            host=operator.host,
            epoch=look.record.epoch if look.record is not None else 0,
            causes=(cause,),
            seconds=seconds,
            level="" if raised.problems else str(raised.level),
            missing=raised.problems,
        ),
    )


def counted_while_closed(store: Store, change: Change) -> dict[str, Any]:
    """Return what all members counted while the causes that a change lifted stood."""
    since = min((lift.epoch for lift in map(change.record.lifted.get, change.causes) if lift), default=0)
    try:
        reports = [Report.load(seen.member, seen.report) for seen in store.census().reports]
    except StoreUnreachable:
        return {}
    tallies = (r.tally for r in reports if isinstance(r.tally.get("epoch"), int) and r.tally["epoch"] >= since)
    return history.tally_of({k: v for k, v in tally.items() if k != "epoch"} for tally in tallies)
