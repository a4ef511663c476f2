"""Windows as changes of a record: planning, moving, ending and keeping them up. Pure functions.

A window closes by the clock and opens by the record alone (design rule 14): `kept` is what some member writes once the
store's clock has passed an end. That leaves the window's revision as it is, so that an extension which a failover has
lost wins against it when it comes back; what a person does to a window raises it.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import durationpy

from .errors import ConfigurationError, NotYours
from .record import RUN, SESSIONS, TOMBSTONE_AGE, Record, Schedule, Window
from .schedules import Occurrence, floors, occurrences, zone_named
from .transitions import changed

logger = logging.getLogger("readonly")

# A recurring window is stored with so many occurrences, and gets more when fewer than that are left (issue 6).
OCCURRENCES: Final = 12
FEWEST_LEFT: Final = 6
# Occurrences that are over stay so long: an extension that a failover has lost may come back for one. After that their
# schedule remembers that they are over, and the record their cut-offs.
KEEP_OVER: Final = timedelta(days=1)
# Who plans a longer one may have typed days for hours.
LONG: Final = timedelta(days=1)
# What stands as the time that was typed of a window by `on --in`.
AHEAD: Final = "on --in"
# Zones are at most a day apart from UTC.
_A_DAY: Final = timedelta(days=1)
_complained_of: set[str] = set()


def new_window_id() -> str:
    """Return a random id for a window, short enough to be typed."""
    return "w" + secrets.token_hex(3)


def new_schedule_id() -> str:
    """Return a random id for a recurring window."""
    return "s" + secrets.token_hex(2)


def planned(
    *,
    start: datetime,
    lasting: timedelta | None,
    by: str,
    expected: timedelta | None = None,
    reason: str = "",
    message: str = "",
    sessions: str | None = None,
    typed: str = "",
    zone: str = "",
) -> Window:
    """Return a single window.

    Args:
        start: When it begins, timezone-aware.
        lasting: How long it is, in elapsed time; None: until `off`.
        by: Who plans it.
        expected: For one without an end: how long visitors are told that it takes.
        reason: For colleagues.
        message: For visitors.
        sessions: `end`, `suspend`, `keep`, or None for what each site's policy says.
        typed: The local time that was typed.
        zone: The zone that it was typed in.

    Raises:
        ConfigurationError: What was asked for makes no sense.
    """
    _check(lasting if lasting is not None else expected, sessions)
    if start.tzinfo is None:
        raise ConfigurationError(f"{start!r} has no time zone: say by whose clocks")
    start = start.astimezone(UTC)
    return Window(
        id=new_window_id(),
        start=start,
        end=None if lasting is None else start + lasting,
        by=by,
        reason=reason,
        message=message,
        sessions=sessions,
        expected_end=None if lasting is not None or expected is None else start + expected,
        typed=typed,
        zone=zone,
    )


def recurring(
    rule: str,
    *,
    zone: str,
    lasting: timedelta,
    by: str,
    at: datetime,
    reason: str = "",
    message: str = "",
    sessions: str | None = None,
    typed: str = "",
) -> tuple[Schedule, tuple[Window, ...]]:
    """Return a recurring window: its rule, and its first occurrences after an instant.

    Args:
        rule: A cron expression of five fields.
        zone: The name of the zone whose clocks it is about.
        lasting: How long each is, in elapsed time.
        by: Who plans it.
        at: Now, by the store's clock.
        reason: For colleagues.
        message: For visitors.
        sessions: As for `planned`.
        typed: The rule as it was typed.

    Raises:
        ConfigurationError: What was asked for makes no sense, or the site would not open between two occurrences.
    """
    _check(lasting, sessions)
    after = at.astimezone(zone_named(zone)).replace(tzinfo=None)
    schedule = Schedule(
        id=new_schedule_id(), rule=rule, zone=zone, seconds=lasting.total_seconds(), by=by, through=after.isoformat(),
        reason=reason, message=message, sessions=sessions, typed=typed or rule,
    )  # fmt: skip
    found = _next(schedule, (), at=at, count=OCCURRENCES, running=False)
    for one, other in itertools.pairwise(found):
        if other.local - one.local <= lasting:
            raise ConfigurationError(
                f"{schedule.typed!r} comes again after {durationpy.to_str(other.local - one.local)}, and each would "
                f"last {durationpy.to_str(lasting)}, so that the site would not open in between: make it shorter, or "
                "rarer. Nothing was changed"
            )
    return _made(schedule, found)


def _check(lasting: timedelta | None, sessions: str | None) -> None:
    if sessions is not None and sessions not in SESSIONS:
        # Stored, it would make the record unreadable for everybody.
        raise ConfigurationError(f"sessions={sessions!r} is not a choice: use 'end', 'suspend' or 'keep'")
    if lasting is not None and lasting <= timedelta(0):
        raise ConfigurationError(f"lasting={lasting} makes no sense: say how long it is, more than nothing")


def _next(
    schedule: Schedule, there: Sequence[Window], *, at: datetime, count: int, running: bool = True
) -> list[Occurrence]:
    """Return the next occurrences that the record does not hold; `running` ones that have begun as well."""
    zone = zone_named(schedule.zone)
    length = timedelta(seconds=schedule.seconds)
    # Who comes back after months need not go through all that nobody was there for.
    latest = (at.astimezone(UTC) - length - _A_DAY - _A_DAY).replace(tzinfo=None)
    after = max(datetime.fromisoformat(schedule.through), latest)
    known = {window.id for window in there}
    found = (
        one
        for one in occurrences(schedule.rule, zone, after=after)
        if (one.start + length > at if running else one.start > at) and _id(schedule, one) not in known
    )
    return list(itertools.islice(found, count))


def _id(schedule: Schedule, one: Occurrence) -> str:
    # By its local time: two processes whose zones differ work out one occurrence, not two.
    return f"{schedule.id}-{one.local:%Y%m%dT%H%M}"


def _made(schedule: Schedule, found: Sequence[Occurrence]) -> tuple[Schedule, tuple[Window, ...]]:
    length = timedelta(seconds=schedule.seconds)
    windows = tuple(
        Window(
            id=_id(schedule, one),
            start=one.start,
            end=one.start + length,
            by=schedule.by,
            reason=schedule.reason,
            message=schedule.message,
            sessions=schedule.sessions,
            typed=one.local.isoformat(sep=" ", timespec="minutes"),
            zone=schedule.zone,
            mark=one.mark,
            schedule=schedule.id,
        )
        for one in found
    )
    through = found[-1].local.isoformat() if found else schedule.through
    return replace(schedule, through=max(schedule.through, through)), windows


# --- what people do --------------------------------------------------------------------------------------------------


def with_windows(
    record: Record, windows: Sequence[Window], schedule: Schedule | None, *, at: datetime, by: str
) -> Record:
    """Return the record with windows more, or changed ones; and with the schedule that they are occurrences of."""
    ids = {window.id for window in windows}
    made = replace(
        record,
        windows=(*(w for w in record.windows if w.id not in ids), *windows),
        schedules=record.schedules if schedule is None else (*record.schedules, schedule),
    )
    return changed(made, at=at, by=by)


def announced(record: Record, *, at: datetime, by: str) -> Window | None:
    """Return the window that somebody announced by `on --in`, and that has not begun; None if there is none."""
    mine = (w for w in record.windows if w.typed == AHEAD and w.by == by and w.start > at and not w.ended)
    return next(mine, None)


def announced_anew(window: Window, wanted: Window) -> Window:
    """Return an announced window as it is to be now: what is given anew replaces what was said before."""
    lasting = None if window.expected_end is None else window.expected_end - window.start
    return replace(
        window,
        start=wanted.start,
        expected_end=wanted.expected_end or (None if lasting is None else wanted.start + lasting),
        reason=wanted.reason or window.reason,
        message=wanted.message or window.message,
        sessions=wanted.sessions or window.sessions,
        revision=window.revision + 1,
    )


def overlapping(record: Record, windows: Sequence[Window]) -> tuple[tuple[Window, Window], ...]:
    """Return pairs of one of `windows` and another one of the record that are in force at one time."""
    return tuple(
        (mine, other)
        for mine in windows
        for other in record.windows
        if other.id != mine.id
        and not other.ended
        and (other.end is None or mine.start < other.end)
        and (mine.end is None or other.start < mine.end)
    )


def without_window(record: Record, name: str, *, at: datetime, by: str) -> tuple[Record, tuple[str, ...]]:
    """Return the record with a window, or a whole schedule, cancelled; what has begun goes on.

    Args:
        record: The record as it is.
        name: A window's id, or a schedule's.
        at: Now, by the store's clock.
        by: Who cancels.

    Returns:
        The record, and the ids of the windows that will not be; empty if it was so already.

    Raises:
        NotYours: There is none of that id, or it has begun; nothing was changed.
    """
    schedule = next((one for one in record.schedules if one.id == name), None)
    if schedule is None:
        window = _window(record, name, at)
        if window.ended:
            return record, ()
        _not_begun(window, at)
        return _ended(record, window, at=at, by=by), (window.id,)
    if schedule.cancelled_at is not None:
        return record, ()
    gone = tuple(w.id for w in record.windows if w.schedule == name and w.start > at and not w.ended)
    windows = tuple(w for w in record.windows if not (w.schedule == name and w.start > at))
    cancelled = replace(schedule, cancelled_at=at.astimezone(UTC), revision=schedule.revision + 1)
    schedules = tuple(cancelled if one.id == name else one for one in record.schedules)
    return changed(replace(record, windows=windows, schedules=schedules), at=at, by=by), (*gone, name)


def without_occurrence(record: Record, name: str, *, at: datetime, by: str) -> tuple[Record, tuple[str, ...]]:
    """Return the record with one occurrence left out: the one named, or the next one of a schedule.

    Raises:
        NotYours: There is none, or it has begun; nothing was changed.
    """
    of_schedule = [w for w in record.windows if w.schedule == name and not w.ended and w.start > at]
    window = of_schedule[0] if of_schedule else _window(record, name, at)
    if not window.schedule:
        raise NotYours(
            f"{window.id} does not recur, so there is nothing to go on with after it: cancel {window.id}. "
            "Nothing was changed",
            causes=[],
        )
    if window.ended:
        return record, ()
    _not_begun(window, at)
    return _ended(record, window, at=at, by=by), (window.id,)


def _window(record: Record, name: str, at: datetime) -> Window:
    found = next((w for w in record.windows if w.id == name), None)
    if found is None:
        raise NotYours(f"there is no window {name}; there are: {there(record, at=at)}. Nothing was changed", causes=[])
    return found


def there(record: Record, *, at: datetime, none: str = "none") -> str:
    """Return the windows that are left, by their ids; of one that recurs its own, for all of its occurrences."""
    recurring = [one.id for one in record.schedules if one.cancelled_at is None]
    single = [w.id for w in record.windows if not is_over(w, record, at=at) and w.schedule not in recurring]
    return ", ".join([*single, *recurring]) or none


def _not_begun(window: Window, at: datetime) -> None:
    if window.start <= at:
        raise NotYours(
            f"{window.id} has begun at {window.start:%Y-%m-%d %H:%M:%S} UTC: `off` ends it (off --cause {window.id}). "
            "Nothing was changed",
            causes=[window.id],
        )


def _ended(record: Record, window: Window, *, at: datetime, by: str) -> Record:
    over = replace(window, ended=True, ended_at=at.astimezone(UTC), revision=window.revision + 1)
    windows = tuple(over if w.id == window.id else w for w in record.windows)
    return changed(replace(record, windows=windows), at=at, by=by)


def moved(window: Window, *, until: datetime | None, at: datetime, held: bool) -> Window:
    """Return a window in force with another end.

    Args:
        window: As it is.
        until: Its new end, timezone-aware; None: until `off`. One that has no end gets an announcement.
        at: Now, by the store's clock.
        held: A run keeps it from ending though its end has passed.

    Raises:
        NotYours: Its end has passed, so it is over for everybody as soon as one member has written that.
    """
    if window.ended or (window.end is not None and window.end <= at and not held):
        raise NotYours(
            f"{window.id} is over: it ended at {window.end or at:%Y-%m-%d %H:%M:%S} UTC, and what has ended is not "
            "extended. To go on: readonlyctl on. Nothing was changed",
            causes=[window.id],
        )
    if until is None:
        return replace(window, end=None, expected_end=None, revision=window.revision + 1)
    if window.end is None:
        return replace(window, expected_end=until.astimezone(UTC), revision=window.revision + 1)
    return replace(window, end=until.astimezone(UTC), revision=window.revision + 1)


# --- what members do -------------------------------------------------------------------------------------------------


def next_due(record: Record, *, at: datetime) -> datetime | None:
    """Return when the next window in force is to be ended, or None: there is none, or a run holds them."""
    if _held(record):
        return None
    return min((w.end for w in record.windows if w.in_force(at) and w.end is not None), default=None)


def is_over(window: Window, record: Record, *, at: datetime) -> bool:
    """Return whether a window is over, or will be as soon as some member has written that."""
    return window.ended or (_up(window, at) and not _held(record))


def kept(record: Record, *, at: datetime) -> Record | None:
    """Return the record with windows ended whose time is up, and schedules topped up; None if nothing is due.

    Any member writes it, in one compare-and-set over the very record that it was made from: whoever extends a window
    at that moment has changed the record, and this is made anew from that.

    Args:
        record: What the store holds.
        at: The store's clock, read with it.
    """
    # While a run stands, no window ends below it.
    due = () if _held(record) else tuple(w for w in record.windows if _up(w, at))
    fresh = [_more(one, record, at) for one in record.schedules if one.cancelled_at is None]
    added = [found for found in fresh if found is not None]
    if not due and not added:
        return None
    ended = {w.id: replace(w, ended=True, ended_at=at.astimezone(UTC)) for w in due}
    topped = {schedule.id: schedule for schedule, _ in added}
    made = replace(
        record,
        windows=(
            *(ended.get(w.id, w) for w in record.windows),
            *(window for _, windows in added for window in windows),
        ),
        schedules=tuple(topped.get(one.id, one) for one in record.schedules),
    )
    by = f"the end of {', '.join(ended)}" if ended else f"the rule of {', '.join(topped)}"
    return changed(without_old(made, at=at), at=at, by=by)


def _held(record: Record) -> bool:
    return any(cause.kind == RUN for cause in record.causes)


def _up(window: Window, at: datetime) -> bool:
    return not window.ended and window.end is not None and window.end <= at


def _more(schedule: Schedule, record: Record, at: datetime) -> tuple[Schedule, tuple[Window, ...]] | None:
    mine = [w for w in record.windows if w.schedule == schedule.id]
    left = sum(not w.ended and w.start > at for w in mine)
    if left >= FEWEST_LEFT:
        return None
    try:
        found = _next(schedule, mine, at=at, count=OCCURRENCES - left)
    except (ConfigurationError, ValueError) as error:
        # Another process knows that zone, or the rule; `list` says how many are left. Said once: this is asked often.
        if schedule.id not in _complained_of:
            _complained_of.add(schedule.id)
            logger.warning("readonly: %s can't be topped up by this process: %s", schedule.id, error)
        return None
    return _made(schedule, found) if found else None


def without_old(record: Record, *, at: datetime) -> Record:
    """Return the record without windows that nobody needs any more; the cut-offs that they carried stay.

    Occurrences go a day after their end, from the first on: their schedule then says that they are over. Others stay
    as long as a stopped process may come back that has them in force.
    """
    gone: list[Window] = []
    schedules: list[Schedule] = []
    for schedule in record.schedules:
        mine = sorted((w for w in record.windows if w.schedule == schedule.id), key=lambda w: w.start)
        old = list(itertools.takewhile(lambda w: _over_for(w, KEEP_OVER, at), mine))
        # Two may begin at one instant, behind a gap: both go, or none.
        kept_start = next((w.start for w in mine[len(old) :]), None)
        old = [w for w in old if w.start != kept_start]
        gone += old
        past = [p for p in (schedule.past, *(w.start for w in old)) if p is not None]
        if schedule.cancelled_at is None or at - schedule.cancelled_at <= TOMBSTONE_AGE or len(old) < len(mine):
            schedules.append(replace(schedule, past=max(past, default=None)))
    known = {one.id for one in record.schedules}
    gone += [w for w in record.windows if w.schedule not in known and _over_for(w, TOMBSTONE_AGE, at)]
    sessions, unsaid = floors(gone, record)
    left = {w.id for w in gone}
    return replace(
        record,
        windows=tuple(w for w in record.windows if w.id not in left),
        schedules=tuple(schedules),
        sessions_floor=sessions,
        windows_floor=unsaid,
    )


def _over_for(window: Window, age: timedelta, at: datetime) -> bool:
    # One that was cancelled waits for its time: until then an old copy could still bring it back.
    return window.ended and max(window.start, window.ended_at or window.start) + age < at
