"""Planning read-only time, and moving its end: what a person or a program wants, put into the record of a store.

What may be a slip (a window that has begun already, a very long one, one across another) is refused until whoever asks
is sure of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import durationpy

from . import schedules, windows
from .changes import LONGEST_EXPECTED, Change, Operator, read_in, rewrite
from .errors import ConfigurationError, Error, NoRecord, NotYours, StoreUnreachable
from .record import BLOCK, OPERATOR, RUN, WINDOW, Cause, Record, Schedule, Window
from .state import State
from .stores import Store, redacted
from .transitions import changed

# Who waits for a window looks at the store's clock so often, and tries again so soon while it does not answer.
LOOK_SECONDS, RETRY_SECONDS = 30.0, 1.0
Make = Callable[[Record | None, datetime], tuple[Record | None, Sequence[str]]]


class Unsure(NotYours):
    """What was asked for may be a slip; nothing was changed.

    Attributes:
        doubts: What speaks against it, one sentence each.
    """

    def __init__(self, doubts: Sequence[str]) -> None:
        super().__init__(f"is that meant? {'; '.join(doubts)}. Nothing was changed", causes=[])
        self.doubts = tuple(doubts)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A window as somebody asks for it: exactly one of `at`, `ahead`, `every` and `cron`.

    Attributes:
        at: When it begins: an instant, or a local time as it was typed.
        ahead: How long from now it begins.
        every: `Sun 02:00`.
        cron: A cron expression of five fields.
        lasting: How long it is, in elapsed time; None: until `off`, which nothing that recurs can be.
        expected: For one until `off`: how long visitors are told that it takes.
        zone: The zone of the local time, by its name; "" if nobody said.
        reason: For colleagues.
        message: For visitors.
        sessions: `end`, `suspend`, `keep`, or None for what each site's policy says.
        sure: It may begin at once, be long, or lie across another.
    """

    at: str | datetime | None = None
    ahead: timedelta | None = None
    every: str | None = None
    cron: str | None = None
    lasting: timedelta | None = None
    expected: timedelta | None = None
    zone: str = ""
    reason: str = ""
    message: str = ""
    sessions: str | None = None
    sure: bool = False

    @property
    def rule(self) -> str:
        """The rule of one that recurs, as a cron expression, or ""."""
        if self.every is not None:
            return schedules.rule_every(self.every)
        return "" if self.cron is None else schedules.checked_rule(self.cron)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """What was planned.

    Attributes:
        change: The change of the record.
        windows: The window, or the first occurrences of one that recurs.
        schedule: The recurring one, or None.
        overlaps: Each with another one that is in force at the same time.
        was: What had been announced, and was changed to this; None: nothing had.
    """

    change: Change
    windows: tuple[Window, ...]
    schedule: Schedule | None
    overlaps: tuple[tuple[Window, Window], ...]
    was: Window | None = None


def schedule(store: Store, operator: Operator, wanted: Wanted) -> Scheduled:
    """Plan a window, or one that recurs.

    Raises:
        ConfigurationError: What is wanted makes no sense, or a time is of no zone.
        schedules.NoSuchTime: The clocks of its zone never show that time, or twice.
        Unsure: It may be a slip.
        NoRecord: There is no whole record that it could stand in.
    """
    named = [one for one in (wanted.at, wanted.ahead, wanted.every, wanted.cron) if one is not None]
    if len(named) != 1:
        raise ConfigurationError("when? Say one of at, every and cron, and only one. Nothing was changed")
    if wanted.lasting is None and (wanted.every is not None or wanted.cron is not None):
        raise ConfigurationError("for how long? What recurs has an end: say how long each time. Nothing was changed")
    made: list[tuple[Schedule | None, tuple[Window, ...]]] = []
    overlaps: list[tuple[Window, Window]] = []
    before: list[Window] = []
    shown: list[Window] = []

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        whole = _whole(store, record)
        if not made:  # the same once more, when another change came in between: its id is told already
            made.append(_plan(wanted, operator, at))
        plan, found = made[0]
        if wanted.ahead is not None and wanted.lasting is None:
            # Typed again, it changes what was said before.
            standing = windows.announced(whole, at=at, by=operator.name)
            before[:] = [standing] if standing is not None else []
            found = (windows.announced_anew(standing, found[0]),) if standing is not None else found
        overlaps[:] = windows.overlapping(whole, found)
        doubts = _doubts(found, overlaps, at, rule=plan.rule if plan is not None else "")
        if doubts and not wanted.sure:
            raise Unsure(doubts)
        if plan is None and found[0].start < at:
            found = (replace(found[0], start=at.astimezone(UTC)),)
            made[0] = plan, found
        shown[:] = found
        ids = [window.id for window in found] if plan is None else [plan.id]
        return windows.with_windows(whole, found, plan, at=at, by=operator.name), ids

    change = rewrite(
        store, make, closes=None, operator=operator, what="scheduled", reason=wanted.reason, message=wanted.message
    )
    return Scheduled(change, tuple(shown), made[0][0], tuple(overlaps), next(iter(before), None))


def _whole(store: Store, record: Record | None) -> Record:
    if record is None or record.partial:
        whole = "whole " if record is not None else ""
        raise NoRecord(
            f"the store {redacted(store.url)} holds no {whole}record for {store.site}, so there is nothing to plan in. "
            f"New site? readonlyctl init {store.site}. Nothing was changed"
        )
    return record


def _plan(wanted: Wanted, operator: Operator, at: datetime) -> tuple[Schedule | None, tuple[Window, ...]]:
    rule = wanted.rule
    if rule and wanted.lasting is not None:
        if not wanted.zone:
            raise ConfigurationError(
                f"{wanted.every or wanted.cron!r} by whose clocks? Say --tz Europe/Berlin (or timezone = "
                '"Europe/Berlin" in readonly.toml, or READONLY_TIMEZONE). Nothing was changed'
            )
        return windows.recurring(
            rule, zone=wanted.zone, lasting=wanted.lasting, by=operator.name, at=at, reason=wanted.reason,
            message=wanted.message, sessions=wanted.sessions, typed=wanted.every or wanted.cron or "",
        )  # fmt: skip
    zone = schedules.zone_named(wanted.zone) if wanted.zone else None
    if isinstance(wanted.at, str):
        start, typed = schedules.instant_of(wanted.at, zone), wanted.at
    else:
        ahead = wanted.ahead or timedelta()
        start, typed = (
            (wanted.at, "") if wanted.at is not None else (at + ahead, "" if wanted.lasting else windows.AHEAD)
        )
    found = windows.planned(
        start=start, lasting=wanted.lasting, expected=wanted.expected, by=operator.name, reason=wanted.reason,
        message=wanted.message, sessions=wanted.sessions, typed=typed, zone=wanted.zone,
    )  # fmt: skip
    if found.end is not None and found.end <= at:
        raise ConfigurationError(
            f"that window is over: it would have ended at {_utc(found.end)}, and now it is {_utc(at)}. Nothing was "
            "changed"
        )
    if found.start - at > LONGEST_EXPECTED:
        raise ConfigurationError(f"{_utc(found.start)} is more than ten years ahead. Nothing was changed")
    return None, (found,)


def _doubts(
    found: Sequence[Window], overlaps: Sequence[tuple[Window, Window]], at: datetime, *, rule: str
) -> list[str]:
    doubts = []
    first = found[0]
    if schedules.either_day(rule):
        doubts.append(
            f"{rule!r} comes on each of its days of the month, and on each of its weekdays as well: so cron reads it "
            "(the first Sunday of a month is SUN#1)"
        )
    if first.start < at:
        doubts.append(f"{_utc(first.start)} has passed (now it is {_utc(at)}): the site turns read-only at once")
    if first.end is not None and first.end - first.start > windows.LONG:
        doubts.append(f"it lasts {durationpy.to_str(first.end - first.start)}, longer than a day")
    # Of one that recurs the first that it meets stands for all of them.
    others: dict[str, list[Window]] = {}
    for other in {other.id: other for _, other in overlaps}.values():
        others.setdefault(other.schedule or other.id, []).append(other)
    for same in others.values():
        more = f" (and {len(same) - 1} more of {same[0].schedule})" if len(same) > 1 else ""
        until = "`off`" if same[0].end is None else _utc(same[0].end)
        doubts.append(
            f"it lies across {same[0].id} by {same[0].by}, {_utc(same[0].start)} to {until}{more}: each ends by "
            "itself, and the site opens after both"
        )
    return doubts


def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def cancel(store: Store, operator: Operator, name: str) -> Change:
    """Cancel a window that has not begun, or all that is left of one that recurs.

    Raises:
        NotYours: There is none, or it has begun.
        NoRecord: There is no whole record.
    """
    return rewrite(
        store, _leaving(store, operator, name, windows.without_window), closes=None, operator=operator, what="cancelled"
    )


def skip(store: Store, operator: Operator, name: str) -> Change:
    """Leave out one occurrence: the one named, or the next one of a schedule; those after it stay.

    Raises:
        NotYours: There is none, or it has begun.
        NoRecord: There is no whole record.
    """
    return rewrite(
        store, _leaving(store, operator, name, windows.without_occurrence), closes=None, operator=operator,
        what="skipped",
    )  # fmt: skip


def await_start(store: Store, name: str, *, waiting: Callable[[Window | Error, datetime], None]) -> Window:
    """Wait until a window has begun by the store's clock, and return it.

    Args:
        store: Where it stands.
        name: Its id; or a schedule's, for its occurrence that is in force, else the next one.
        waiting: Told at the beginning, and of each change, what is waited for, and the store's clock; or once what
            keeps the store from answering, or has emptied it, which ends no wait.

    Raises:
        NotYours: There is none, or it is over or cancelled, perhaps meanwhile.
        NoRecord: There was no whole record at the beginning.
        StoreUnreachable: The store did not answer at the beginning.
    """
    pause = threading.Event()
    told: object = None
    trouble = ""
    while True:
        try:
            reading = store.read()
            window = _named(_whole(store, read_in(store, reading)), name, reading.at)
            name, trouble = window.id, ""
            left = (window.start - reading.at).total_seconds()
            if left <= 0:
                return window
            if window != told:
                told = window
                waiting(window, reading.at)
            # Any change of the record is a hint; and clocks are asked again now and then.
            store.wait(min(left, LOOK_SECONDS))
        except (StoreUnreachable, NoRecord) as error:
            if told is None:
                raise
            if type(error).__name__ != trouble:
                trouble = type(error).__name__
                waiting(error, datetime.now(UTC))
            pause.wait(RETRY_SECONDS)


def _named(record: Record, name: str, at: datetime) -> Window:
    # One whose end has passed is over, also where no process was there to write that: nothing begins with it.
    of_schedule = [w for w in record.windows if w.schedule == name and not windows.is_over(w, record, at=at)]
    found = next(iter(of_schedule), None) or next((w for w in record.windows if w.id == name), None)
    if found is None or windows.is_over(found, record, at=at):
        gone = "is over, or was cancelled" if found is not None else "is not there"
        raise NotYours(
            f"window {name} {gone}; there are: {windows.there(record, at=at)}. Nothing was changed", causes=[]
        )
    return found


def _leaving(store: Store, operator: Operator, name: str, leave: Callable[..., tuple[Record, tuple[str, ...]]]) -> Make:
    # The next one of a schedule is decided once: another change in between must not make it the one after.
    ids: list[str] = []

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        found, left = leave(_whole(store, record), ids[0] if ids else name, at=at, by=operator.name)
        if left and not ids and leave is windows.without_occurrence:
            ids[:] = left
        return (found, left) if left else (None, (name,))

    return make


def extend(
    store: Store,
    operator: Operator,
    *,
    longer: timedelta | None = None,
    until: datetime | None = None,
    cause: str | None = None,
) -> Change:
    """Move the end of what stands: an announcement of a cause, the end itself of a window.

    Args:
        store: Where the record is.
        operator: Who moves it.
        longer: By so much, from its end or, where that has passed, from now.
        until: To this instant. Neither: until `off`.
        cause: This one, whosever it is; None: one's own.

    Raises:
        NotYours: Nothing of one's own stands, or what stands is over.
        ConfigurationError: The new end makes no sense.
        NoRecord: There is no record.
    """

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        if record is None:
            raise NoRecord(f"the store {redacted(store.url)} holds no record for {store.site}: nothing was changed")
        chosen = _standing(record, operator, cause, at)
        end = _new_end(chosen, longer, until, at)
        held = any(c.kind == RUN for c in record.causes)
        by_id = {window.id: window for window in record.windows}
        moved = {c.id: windows.moved(by_id[c.id], until=end, at=at, held=held) for c in chosen if c.kind == WINDOW}
        announced = {c.id: replace(c, expected_end=end, revision=c.revision + 1) for c in chosen if c.kind != WINDOW}
        new = replace(
            record,
            causes=tuple(announced.get(c.id, c) for c in record.causes),
            windows=tuple(moved.get(w.id, w) for w in record.windows),
        )
        return changed(new, at=at, by=operator.name), [c.id for c in chosen]

    return rewrite(store, make, closes=None, operator=operator, what="extended")


def _standing(record: Record, operator: Operator, cause: str | None, at: datetime) -> list[Cause]:
    there = [c for c in State.at(at, record).causes if c.kind in (OPERATOR, RUN, BLOCK, WINDOW)]
    found = [c for c in there if c.id == cause] if cause is not None else [c for c in there if c.by == operator.name]
    if not found:
        planned = next((w for w in record.windows if w.id == cause and not w.ended and w.start > at), None)
        if planned is not None:
            raise NotYours(
                f"{planned.id} has not begun, it will at {_utc(planned.start)}, and only what stands is extended: "
                f"schedule cancel {planned.id}, and plan a longer one. Nothing was changed",
                causes=[],
            )
        what = f"no cause {cause}" if cause is not None else f"nothing of yours ({operator.name})"
        lines = "; ".join(f"{c.kind} {c.id} by {c.by}" for c in there)
        raise NotYours(
            f"{what} stands: {f'there is {lines} (extend --cause ID)' if lines else 'the site is not read-only'}. "
            "Nothing was changed",
            causes=[c.id for c in there],
        )
    held = any(c.kind == RUN for c in record.causes)
    ends = {w.id: w.end for w in record.windows}
    over = [c for c in found if not held and (end := ends.get(c.id)) is not None and end <= at]
    # A window whose end has passed says so itself, if there is nothing else to extend.
    return [c for c in found if c not in over] or found


def _new_end(
    chosen: Sequence[Cause], longer: timedelta | None, until: datetime | None, at: datetime
) -> datetime | None:
    if longer is None and until is None:
        return None
    last = max((c.expected_end for c in chosen if c.expected_end is not None), default=at)
    end = until.astimezone(UTC) if until is not None else max(last, at) + (longer or timedelta())
    if end <= at or end - at > LONGEST_EXPECTED:
        raise ConfigurationError(
            f"{_utc(end)} makes no sense: now it is {_utc(at)}. To open: readonlyctl off. Nothing was changed"
        )
    if end < last:
        raise ConfigurationError(
            f"{_utc(end)} is earlier than {_utc(last)}, which was announced: `extend` makes it longer; `off` opens. "
            "Nothing was changed"
        )
    return end
