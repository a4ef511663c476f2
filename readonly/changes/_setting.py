"""What does a command set: the first record, an operator's cause, a run's, a fence's?"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ..errors import ConfigurationError, NoRecord, NotYours
from ..record import FENCE, OPERATOR, RUN, SESSIONS, Cause, FenceMark, Record, new_cause_id
from ..stores import Store, redacted
from ..transitions import first_record, with_cause
from ._operator import Operator
from ._rewriting import Change, rewrite

# Who expects a read-only time to take longer has made a typing error.
LONGEST_EXPECTED = timedelta(days=3650)


def initialise(
    store: Store,
    operator: Operator,
    *,
    protected: bool = False,
    replace_existing: bool = False,
    end_sessions: bool = False,
    floor: int = 0,
) -> Change:
    """Write the first record of a site.

    Args:
        store: Where it goes.
        operator: Who does it.
        protected: Whether commands will want the site's name.
        replace_existing: Reset on purpose, lifting everything that stands; the one way out of a corrupt record.
        end_sessions: End every session issued before now.
        floor: An epoch that was there before, as far as anybody remembers: the new one is above it.

    Raises:
        NotYours: There is a record, and it was not told to replace it.
        UnreadableRecord: There is one that this version can't read; only a corrupt one can be replaced.
    """

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        if record is not None and not record.partial and not replace_existing:
            raise NotYours(
                f"{store.site} has a record already (epoch {record.epoch}, {record.mode}): nothing was changed. "
                "To start anew on purpose, lifting all that stands: init --replace",
                causes=[c.id for c in record.causes],
            )
        causes = [c.id for c in record.causes] if record is not None else []
        new = first_record(
            store.site,
            at=at,
            by=operator.name,
            protected=protected,
            replacing=record,
            end_sessions=end_sessions,
        )
        new = replace(new, epoch=max(new.epoch, floor + 1))
        if record is not None and record.partial and not replace_existing:
            # An `on` over the empty store stays: making the record whole opens nothing by itself.
            lifted = {key: lift for key, lift in new.lifted.items() if key not in causes}
            new = replace(new, causes=record.causes, windows=record.windows, schedules=record.schedules, lifted=lifted)
        return new, causes

    return rewrite(store, make, closes=False, operator=operator, what="init", over_corrupt=replace_existing)


def turn_on(
    store: Store,
    operator: Operator,
    *,
    reason: str = "",
    message: str = "",
    expected: timedelta | None = None,
    sessions: str | None = None,
    kind: str = OPERATOR,
) -> Change:
    """Set the operator's cause, or change it if it stands: what is given anew replaces what was said before.

    Raises:
        ConfigurationError: `expected` or `sessions` make no sense; nothing was changed.
        LostRace: Somebody lifted a cause meanwhile.
    """
    if sessions is not None and sessions not in SESSIONS:
        # Stored, it would make the record unreadable for everybody.
        raise ConfigurationError(f"sessions={sessions!r} is not a choice: use 'end', 'suspend' or 'keep'")
    if expected is not None and not timedelta(0) < expected < LONGEST_EXPECTED:
        raise ConfigurationError(
            f"expected={expected} makes no sense: say how long it will take, more than nothing and less than "
            f"{LONGEST_EXPECTED.days} days"
        )
    mine = new_cause_id()

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        at = at.astimezone(UTC)
        end = at + expected if expected is not None else None
        standing = next(
            (
                c
                for c in (record.causes if record is not None else ())
                if c.kind == kind == OPERATOR and c.by == operator.name
            ),
            None,
        )
        if standing is not None:
            cause = replace(
                standing,
                reason=reason or standing.reason,
                message=message or standing.message,
                expected_end=end or standing.expected_end,
                sessions=sessions or standing.sessions,
                host=operator.host,
            )
            if cause == standing:
                return None, [cause.id]
        else:
            cause = Cause(
                id=mine,
                kind=kind,
                by=operator.name,
                since=at,
                reason=reason,
                message=message,
                expected_end=end,
                sessions=sessions,
                host=operator.host,
            )
        return with_cause(record, cause, site=store.site, at=at, by=operator.name), [cause.id]

    return rewrite(store, make, closes=True, operator=operator, what="on", reason=reason, message=message)


def start_run(
    store: Store,
    operator: Operator,
    run: str,
    *,
    reason: str = "",
    message: str = "",
    expected: timedelta | None = None,
    sessions: str | None = None,
) -> Change:
    """Set the cause of a run, whose id is the run's.

    Raises:
        NotYours: Another run stands, also one that was started at the same moment; nothing was changed.
        NoRecord: There is no record, so nobody would know that the run stands.
        LostRace: Somebody lifted a cause meanwhile.
    """

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        if record is None or record.partial:
            raise NoRecord(
                f"the store {redacted(store.url)} holds no whole record for {store.site}: a run is not started over "
                f"that. New site? readonlyctl init {store.site}. Nothing was changed"
            )
        for standing in record.causes:
            if standing.kind == RUN and standing.id != run:
                raise NotYours(
                    f"run {standing.id} by {standing.by} stands since {standing.since:%Y-%m-%d %H:%M} UTC: one run at "
                    "a time. Nothing was changed",
                    causes=[standing.id],
                )
        at = at.astimezone(UTC)
        cause = Cause(
            id=run, kind=RUN, by=operator.name, since=at, reason=reason, message=message,
            expected_end=at + expected if expected is not None else None, sessions=sessions, host=operator.host,
        )  # fmt: skip
        return with_cause(record, cause, site=store.site, at=at, by=operator.name), [run]

    return rewrite(store, make, closes=True, operator=operator, what="run", reason=reason, message=message)


def set_fence(store: Store, operator: Operator, mark: FenceMark) -> Change:
    """Set the cause of a fence, or say more of the one that stands; before the first step and after the last.

    Set first: whoever dies in the middle leaves a closed site that says why, and not an open one that meets errors.
    """
    mine = f"{FENCE}:{mark.name}:{secrets.token_hex(2)}"

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        standing = fence_of(record, mark.name)
        if standing is None:
            cause = Cause(
                id=mine, kind=FENCE, by=operator.name, since=at.astimezone(UTC), host=operator.host, fence=mark,
                sessions="keep",
            )  # fmt: skip
        elif standing.fence == mark or not mark.level:
            return None, [standing.id]
        else:
            cause = replace(standing, fence=mark)
        return with_cause(record, cause, site=store.site, at=at, by=operator.name), [cause.id]

    return rewrite(store, make, closes=None, operator=operator, what="fence")


def fence_of(record: Record | None, name: str) -> Cause | None:
    """Return the standing cause of the fence of that name, or None."""
    causes = record.causes if record is not None else ()
    return next((c for c in causes if c.kind == FENCE and c.fence is not None and c.fence.name == name), None)
