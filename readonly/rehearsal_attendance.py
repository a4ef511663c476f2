"""Who takes part in a rehearsal, and who has ended it: looked at once, or until it is true of every process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from . import changes
from .changes import Change
from .confirmation import NOBODY, Condition, Confirmation, Member, roles_missing
from .errors import LostRace, StoreUnreachable
from .members import Report
from .proving import LOOK_AGAIN_SECONDS, Progress, Trouble
from .record import REHEARSAL, Record, Rehearsal
from .rehearsal_counts import WHOLE
from .site import Look, Site
from .state import State

# Who has fallen silent comes back by then, or is found dead by another process of its host.
LONG_SILENT_SECONDS: Final = 20.0
# Where many processes report more seldom than this, nobody waits for the next time that all of them do.
ANEW_SECONDS: Final = 3.0
_SILENT: Final = (Condition.LOST, Condition.EXPIRED)

Over = Callable[[Report], bool]


def attendance(site: Site, look: Look, rehearsal: Rehearsal, *, over: Over | None = None) -> Confirmation:
    """Return where every member stands, seen from a rehearsal.

    Args:
        site: The site.
        look: What was read just now.
        rehearsal: Which one.
        over: Given: whether a member has ended it. None: each is to take part.
    """
    found = site.judge(look, expect=False)
    members = tuple(_judged(member, rehearsal, over) for member in found.members)
    problems: list[str] = []
    if over is None:
        alive = [m.report for m in members if m.condition not in (Condition.LOST, Condition.GONE)]
        problems += [NOBODY] if not alive else roles_missing(site.expect, alive)
        if not found.settled:
            problems.append("the store has only just begun to know its members: some may not have reported again yet")
    return replace(found, closing=False, members=members, problems=tuple(problems))


def _judged(member: Member, rehearsal: Rehearsal, over: Over | None) -> Member:
    report, condition, why = member.report, Condition.OBEYS, ""
    said_all = over is not None and over(report)
    if member.condition is Condition.GONE:
        condition = Condition.GONE
    elif member.condition in _SILENT:
        condition = Condition.LOST
        why = "" if said_all else f"silent for {member.silent_seconds:.0f} s: what it was asked since is not counted"
    elif report.role == "unreadable":
        condition, why = Condition.UNPROVEN, "its report can't be read"
    elif REHEARSAL.removesuffix("?") in report.lacks:
        condition = Condition.UNPROVEN
        why = f"its readonly-mode {report.library} knows no rehearsals: upgrade it"
    elif report.inert:
        condition, why = Condition.INERT, "READONLY_DISABLED is set"
    elif over is not None:
        if not said_all:
            condition, why = Condition.LATE, "it has not said yet all that it has counted"
    elif report.rehearsal.get("id") != rehearsal.id:
        condition, why = Condition.LATE, "it has not said yet that it takes part"
    elif not report.rehearsal.get(WHOLE):
        condition, why = Condition.LATE, "it counts requests, and does not look at its databases yet"
    return replace(member, condition=condition, why=why, accepted=False, held=False)


@dataclass(frozen=True, slots=True)
class Attended:
    """The end of a wait.

    Attributes:
        found: The last look.
        at: From when on every request is counted, or up to when it was: whole seconds of the store's clock. None where
            that is not proven.
    """

    found: Confirmation
    at: datetime | None


def wait_begun(
    site: Site, change: Change, *, timeout: float, progress: Progress | None = None, trouble: Trouble | None = None
) -> Attended:
    """Wait until every process counts, those apart that can't; or for `timeout` seconds.

    Raises:
        StoreUnreachable: The store did not answer at the end.
        LostRace: Somebody has ended it meanwhile.
    """
    rehearsal = rehearsal_of(change)

    def look(record: Record | None, seen: Look) -> tuple[Confirmation, bool]:
        now = record.rehearsal if record is not None else None
        if now is None or now.id != rehearsal.id or now.ended_at is not None:
            by = record.changed_by if record is not None else "?"
            raise LostRace(
                f"{by} has ended the rehearsal, while this was waiting for all processes to take part",
                by=by,
                epoch=record.epoch if record is not None else 0,
            )
        found = attendance(site, seen, rehearsal)
        state = State.at(found.at, record)
        why = ""
        if state.read_only:
            why = f"the site is read-only ({state.reason}): the rehearsal goes on when that is over"
        elif not now.in_force(found.at):
            why = "it is over already: it was too short for all processes to take part"
        return replace(found, problems=(*found.problems, *([why] if why else ()))), not why

    return _wait(site, change.record, look, timeout=timeout, progress=progress, trouble=trouble)


def wait_over(
    site: Site, change: Change, *, timeout: float, progress: Progress | None = None, trouble: Trouble | None = None
) -> Attended:
    """Wait until every process has said all that it counted, or for `timeout` seconds.

    What requests that still run have to say comes with their end.

    Raises:
        StoreUnreachable: The store did not answer at the end.
    """
    rehearsal = rehearsal_of(change)

    def look(_record: Record | None, seen: Look) -> tuple[Confirmation, bool]:
        # A report of that epoch was made after the end was taken in.
        found = attendance(site, seen, rehearsal, over=lambda report: report.epoch >= change.record.epoch)
        # Who takes no part has nothing to end.
        idle = (Condition.UNPROVEN, Condition.INERT)
        members = (replace(m, why="") if m.condition in idle else m for m in found.members)
        return replace(found, members=tuple(members)), True

    return _wait(site, change.record, look, timeout=timeout, progress=progress, trouble=trouble)


def heard_anew(site: Site, look: Look, *, timeout: float = ANEW_SECONDS) -> Look:
    """Return a look in which every process has told what it counted up to the first one, or to the rehearsal's end.

    Args:
        site: The site.
        look: What was read just now.
        timeout: Seconds to wait at most. Processes that report more seldom are not waited for.

    Raises:
        StoreUnreachable: The store did not answer.
    """
    deadline = time.monotonic() + timeout
    rehearsal = None if look.record is None else look.record.rehearsal
    if rehearsal is None:
        return look
    until = min(look.census.reading.at, rehearsal.until, rehearsal.ended_at or rehearsal.until)
    while True:
        at = look.census.reading.at
        late = [
            member
            for member in site.judge(look, expect=False).members
            if member.report.rehearsal.get("id") == rehearsal.id
            and member.report.interval <= timeout
            and member.condition not in (*_SILENT, Condition.GONE)
            and at - timedelta(seconds=member.silent_seconds) < until
        ]
        left = deadline - time.monotonic()
        if not late or left <= 0:
            return look
        site.hint(min(left, LOOK_AGAIN_SECONDS))
        look = site.look()


def rehearsal_of(change: Change) -> Rehearsal:
    """Return the rehearsal that a change has begun, or ended."""
    if change.record.rehearsal is None:
        raise AssertionError("a rehearsal that was begun or ended stands in the record")
    return change.record.rehearsal


def _wait(
    site: Site,
    known: Record,
    look: Callable[[Record | None, Look], tuple[Confirmation, bool]],
    *,
    timeout: float,
    progress: Progress | None,
    trouble: Trouble | None,
) -> Attended:
    deadline = time.monotonic() + timeout
    while True:
        try:
            # While it waits, the command is a member of the memory (design rule 12).
            record, census = changes.survey(site.store, known)
            found, worth_it = look(record, Look(record, census))
        except StoreUnreachable as error:
            if time.monotonic() >= deadline:
                raise StoreUnreachable(
                    f"{str(error).rstrip('.')}. The change was set before; who has taken it up is not known"
                ) from error
            if trouble is not None:
                trouble(error)
        else:
            if progress is not None:
                progress(found)
            if found.safe:
                return Attended(found, _whole_second(found.at))
            # Those that are too old, were told to obey nothing, or have long been silent, are not waited for.
            silent = [m for m in found.of(Condition.LOST) if m.why and m.silent_seconds < LONG_SILENT_SECONDS]
            worth_it = worth_it and bool(found.problems or silent or found.of(Condition.LATE))
            if not worth_it or time.monotonic() >= deadline:
                return Attended(found, None)
        site.hint(max(0.0, min(deadline - time.monotonic(), LOOK_AGAIN_SECONDS)))


def _whole_second(at: datetime) -> datetime:
    # Never the one that was not over: what is shown of it is cut off.
    return at.replace(microsecond=0) + timedelta(seconds=1) if at.microsecond else at
