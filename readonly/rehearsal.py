"""A rehearsal, seen by whoever asks for it: begun and ended in the record, and what members counted is added up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from .changes import Change, Operator, rewrite
from .errors import ConfigurationError, NoRecord, NotYours
from .members import Report
from .record import Record, Rehearsal, new_cause_id
from .rehearsal_attendance import attendance
from .rehearsal_counts import KEEP, LOG, Numbers
from .site import Look, Site
from .state import State
from .stores import Store, redacted
from .transitions import with_rehearsal

LONGEST: Final = timedelta(days=7)


def begin(store: Store, operator: Operator, *, lasting: timedelta) -> Change:
    """Begin a rehearsal: nothing is refused from now on, and everything that would be is counted.

    Args:
        store: Where the record is.
        operator: Who asks for it.
        lasting: After how long it ends by itself.

    Raises:
        ConfigurationError: It would last too long, or no time at all; nothing was changed.
        NotYours: One goes on already, or the site is read-only; nothing was changed.
        NoRecord: The store holds none, or a partial one; nothing was changed.
    """
    if not timedelta(0) < lasting <= LONGEST:
        raise ConfigurationError(
            f"a rehearsal of {lasting} makes no sense: every request is looked at more closely for as long as it "
            f"lasts, which is to be more than nothing and {LONGEST.days} days at most. Nothing was changed"
        )
    mine = "r" + new_cause_id()[1:]

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        record = _whole(store, record)
        at = at.astimezone(UTC)
        state = State.at(at, record)
        if state.read_only:
            raise NotYours(
                f"{record.site} is read-only ({state.reason}): there is nothing to rehearse. Nothing was changed",
                causes=[c.id for c in state.causes],
            )
        known = record.rehearsal
        if known is not None and known.in_force(at):
            raise NotYours(
                f"{known.by} rehearses already, until {known.until:%H:%M} UTC: `rehearse stop` ends that, `rehearse "
                "report` tells what it has found. Nothing was changed",
                causes=(),
            )
        new = Rehearsal(id=mine, by=operator.name, since=at, until=at + lasting, host=operator.host)
        return with_rehearsal(record, new, at=at, by=operator.name), (mine,)

    return rewrite(store, make, closes=None, operator=operator, what="rehearse")


def stop(store: Store, operator: Operator) -> Change:
    """End the rehearsal that goes on; anybody may, since nothing is opened or closed by it.

    Returns:
        The change; `changed` is False if none goes on.

    Raises:
        NoRecord: The store holds none, or a partial one.
    """

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        record = _whole(store, record)
        at = at.astimezone(UTC)
        known = record.rehearsal
        if known is None or not known.in_force(at):
            return None, ()
        return with_rehearsal(record, replace(known, ended_at=at), at=at, by=operator.name), (known.id,)

    return rewrite(store, make, closes=None, operator=operator, what="rehearsed")


def _whole(store: Store, record: Record | None) -> Record:
    if record is None or record.partial:
        raise NoRecord(
            f"the store {redacted(store.url)} holds no {'whole ' if record is not None else ''}record for "
            f"{store.site}: nothing was changed. New site? readonlyctl init {store.site}"
        )
    return record


@dataclass(frozen=True, slots=True)
class Found:
    """What a rehearsal has found so far.

    Attributes:
        rehearsal: Which one.
        at: Until when, by the store's clock: now, or its end.
        numbers: What all members have counted.
        members: How many have counted.
        without: Who takes no part in it, one sentence each: what their requests would have met is not in it.
        going_on: It is not over.
    """

    rehearsal: Rehearsal
    at: datetime
    numbers: Numbers
    members: int
    without: tuple[str, ...]
    going_on: bool


def found(site: Site, look: Look | None = None) -> Found | None:
    """Add up what members have counted in the last rehearsal; None if there never was one.

    Args:
        site: The site.
        look: What was read just now, if it was.

    Raises:
        StoreUnreachable: The store did not answer.
    """
    look = site.look() if look is None else look
    rehearsal = None if look.record is None else look.record.rehearsal
    if rehearsal is None:
        return None
    at = look.census.reading.at
    going_on = rehearsal.in_force(at)
    kept: dict[str, Mapping[str, Any]] = {}
    for raw in site.store.entries(LOG, last=KEEP):
        document = _read(raw)
        if document.get("id") == rehearsal.id:
            kept[str(document.get("member"))] = document
    reports = [Report.load(seen.member, seen.report) for seen in look.census.reports]
    counted = {**kept, **{r.id: r.rehearsal for r in reports if r.rehearsal.get("id") == rehearsal.id}}
    numbers = Numbers()
    for document in counted.values():
        numbers.add(document)
    end = min(at, rehearsal.until, rehearsal.ended_at or at)
    # Who has kept its numbers has said all; so has who never counted, as far as that goes.
    heard = {seen.member: seen.at for seen in look.census.reports}
    there = attendance(
        site,
        look,
        rehearsal,
        over=None if going_on else lambda r: r.id in kept or r.id not in counted or heard[r.id] > end,
    )
    without = tuple(f"{m.report.name}: {m.why}" for m in there.members if m.why)
    return Found(rehearsal, end, numbers, len(counted), without, going_on)


def _read(raw: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(raw)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
