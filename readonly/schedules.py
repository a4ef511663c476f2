"""Rules of recurring windows, and what a zone's clocks make of a local time: pure, and the one user of zone data.

A rule is worked out in local time without a zone, and each local time is then turned into an instant, once, by whoever
schedules or tops up. Instants are what the record holds, so that processes with other zone data agree (issue 6).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from .errors import ConfigurationError
from .record import Record, Schedule, Window

GAP, FOLD = "gap", "fold"
# What `list` says of such an occurrence.
MARKS_MEAN: Final = {
    GAP: "the clocks are put forward over that time: it begins at the first instant after",
    FOLD: "the clocks are put back, and that time comes twice: it begins at the first of the two",
}
# Files beside the zones: what these are differs from machine to machine, or no clock goes by it.
_MACHINES_OWN: Final = ("localtime", "posixrules", "Factory")
_DAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_EVERY = re.compile(r"(?:(?P<days>[a-z,\-]+)\s+)?(?P<hour>[0-2]?\d):(?P<minute>[0-5]\d)", re.IGNORECASE)
_CRON_FIELDS: Final = 5


class NoSuchTime(ConfigurationError):
    """A local time that does not exist, or exists twice.

    Attributes:
        candidates: What may have been meant: a time to type with its offset or by the zone, and what it is.
        instants: The same as instants, UTC.
    """

    def __init__(
        self, message: str, *, candidates: tuple[tuple[str, str], ...], instants: tuple[datetime, ...]
    ) -> None:
        super().__init__(message)
        self.candidates = candidates
        self.instants = instants


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time of a rule.

    Attributes:
        local: By the zone's clocks, without a zone.
        start: The instant, UTC.
        mark: `gap`, `fold` or "".
    """

    local: datetime
    start: datetime
    mark: str


# --- zones -----------------------------------------------------------------------------------------------------------


def zone_named(name: str) -> ZoneInfo:
    """Return a zone of the time zone database: the system's, else that of the package tzdata.

    Raises:
        ConfigurationError: There is none of that name.
    """
    try:
        if name in _MACHINES_OWN or name.startswith(("posix/", "right/")):
            raise KeyError(name)
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:  # not found, a folder of it, a name that is no path in it
        last = name.rpartition("/")[2].casefold()
        known = available_timezones() - {*_MACHINES_OWN}
        like = sorted(one for one in known if last and last in one.casefold())[:3]
        raise ConfigurationError(
            f"{name!r} is no time zone that is known here: write it as the time zone database does, "
            + (f"such as {' or '.join(like)}" if like else "such as Europe/Berlin or UTC")
        ) from error


def instant_of(typed: str, zone: tzinfo | None) -> datetime:
    """Return the instant that somebody typed.

    Args:
        typed: `2026-11-29 02:00`, with its own offset or `Z`, or by `zone`.
        zone: Whose clocks are meant where it has no offset; None: nobody said.

    Raises:
        NoSuchTime: Those clocks never show it, or show it twice.
        ConfigurationError: It is no time, or nobody said of which zone.
    """
    text = re.sub(r"\s*(?:UTC|GMT)\Z", "Z", typed.strip())
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or ":" not in text:
        raise ConfigurationError(f"{typed!r} is no date and time: write 2026-11-29 02:00")
    try:
        if found.tzinfo is not None:
            return found.astimezone(UTC)
        if zone is None:
            raise ConfigurationError(
                f'{typed!r} by whose clocks? Say --tz Europe/Berlin (or timezone = "Europe/Berlin" in readonly.toml, '
                "or READONLY_TIMEZONE), or write the offset: 2026-11-29T02:00+01:00, 2026-11-29T02:00Z"
            )
        start, mark = resolved(found, zone)
    except OverflowError as error:
        raise ConfigurationError(f"{typed!r} is no date and time: write 2026-11-29 02:00") from error
    if mark == GAP:
        shifted = _at(found, zone, fold=0)
        raise NoSuchTime(
            f"{found:%Y-%m-%d %H:%M} does not exist in {zone}: the clocks are put forward over it",
            candidates=tuple(
                (f"{at.astimezone(zone):%Y-%m-%d %H:%M}", f"{at:%Y-%m-%d %H:%M} UTC, {what}")
                for at, what in (
                    (start, "the first instant after the gap"),
                    (shifted, "as long after midnight as it would have been"),
                )
            ),
            instants=(start, shifted),
        )
    if mark == FOLD:
        second = _at(found, zone, fold=1)
        raise NoSuchTime(
            f"{found:%Y-%m-%d %H:%M} exists twice in {zone}: the clocks are put back over it",
            candidates=tuple(
                (at.astimezone(zone).isoformat(timespec="minutes"), f"{at:%Y-%m-%d %H:%M} UTC, {what}")
                for at, what in ((start, "the first of the two"), (second, "the second"))
            ),
            instants=(start, second),
        )
    return start


def resolved(local: datetime, zone: tzinfo) -> tuple[datetime, str]:
    """Return the instant of a local time, UTC, and what the clocks did to it.

    One that does not exist is the first instant after the gap, one that exists twice the first of the two.

    Source: PEP 495 for what `fold` means inside a gap.
    """
    first, second = _at(local, zone, fold=0), _at(local, zone, fold=1)
    if first.astimezone(zone).replace(tzinfo=None) == local:
        return first, FOLD if second > first else ""
    # In a gap the two stand on either side of the change: it is looked for in between, to the second.
    before, after = second, first
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == before.astimezone(zone).utcoffset():
            before = middle
        else:
            after = middle
    return after, GAP


def _at(local: datetime, zone: tzinfo, *, fold: int) -> datetime:
    return local.replace(tzinfo=zone, fold=fold).astimezone(UTC)


# --- rules -----------------------------------------------------------------------------------------------------------


def rule_every(typed: str) -> str:
    """Return the cron expression for `Sun 02:00`, `Mon-Fri 22:30`, `Tue,Thu 01:00` or `day 03:00`.

    Raises:
        ConfigurationError: It can't be read.
    """
    match = _EVERY.fullmatch(typed.strip())
    days = (match["days"] or "day") if match is not None else ""
    found = "*" if days.lower() in ("day", "daily") else re.sub(r"[a-z]+", _day, days, flags=re.IGNORECASE)
    if match is None or "?" in found:
        raise ConfigurationError(
            f"every {typed!r} can't be read: write 'Sun 02:00', 'Mon-Fri 22:30', 'Tue,Thu 01:00' or 'day 03:00'; for "
            "all else --cron"
        )
    return checked_rule(f"{int(match['minute'])} {int(match['hour'])} * * {found}")


def _day(match: re.Match[str]) -> str:
    short = match[0][:3].upper()
    whole = {"SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY"}
    return short if short in _DAYS and (len(match[0]) == len(short) or match[0].upper() in whole) else "?"


def checked_rule(typed: str) -> str:
    """Return a cron expression as it is kept.

    Raises:
        ConfigurationError: It can't be read, has seconds, or never comes true.
    """
    rule = " ".join(typed.split()).upper()
    if rule.count(" ") + 1 != _CRON_FIELDS:
        raise ConfigurationError(
            f"{typed!r} is no cron expression of five fields (minute, hour, day, month, day of week): write "
            "'0 2 * * SUN#1' for the first Sunday of each month"
        )
    # Any day will do: it looks fifty years ahead.
    if next(local_times(rule, after=datetime(2026, 1, 1)), None) is None:  # noqa: DTZ001 - local time has no zone here
        raise ConfigurationError(
            f"{typed!r} never comes true: write '0 2 * * SUN#1' for the first Sunday of each month"
        )
    return rule


def either_day(rule: str) -> bool:
    """Return whether a rule names days of the month and weekdays, of which one is enough, as crontab(5) has it."""
    fields = rule.split()
    return len(fields) == _CRON_FIELDS and not fields[2].startswith("*") and not fields[4].startswith("*")


def local_times(rule: str, *, after: datetime) -> Iterator[datetime]:
    """Yield the local times of a rule, in order, without a zone; for those of one day that the clocks skip as well.

    Raises:
        ConfigurationError: The rule can't be read.
    """
    from cronsim import CronSim, CronSimError  # only where something recurs

    try:
        yield from CronSim(rule, after)
    except CronSimError as error:
        raise ConfigurationError(
            f"{rule!r} is no cron expression ({error}): write '0 2 * * SUN#1' for the first Sunday of each month"
        ) from error
    except (OverflowError, ValueError):  # the end of the calendar
        return


def occurrences(rule: str, zone: tzinfo, *, after: datetime) -> Iterator[Occurrence]:
    """Yield the occurrences of a rule.

    Args:
        rule: A cron expression of five fields.
        zone: Whose clocks it is about.
        after: A local time, without a zone; it is itself none of them.
    """
    for local in local_times(rule, after=after):
        start, mark = resolved(local, zone)
        yield Occurrence(local, start, mark)


# --- joining ---------------------------------------------------------------------------------------------------------


def joined(mine: Iterable[Schedule], theirs: Iterable[Schedule]) -> tuple[Schedule, ...]:
    """Return what both know of schedules: what is over stays over, and what was cancelled stays cancelled."""
    found = {one.id: one for one in theirs}
    for one in mine:
        other = found.get(one.id)
        found[one.id] = one if other is None else _joined(one, other)
    return tuple(sorted(found.values(), key=lambda one: one.id))


def _joined(mine: Schedule, theirs: Schedule) -> Schedule:
    past = [at for at in (mine.past, theirs.past) if at is not None]
    cancelled = [at for at in (mine.cancelled_at, theirs.cancelled_at) if at is not None]
    return replace(
        max(mine, theirs, key=lambda one: (one.revision, repr(replace(one, through="", past=None, cancelled_at=None)))),
        through=max(mine.through, theirs.through),
        past=max(past, default=None),
        cancelled_at=min(cancelled, default=None),
    )


def over(window: Window, schedules: Iterable[Schedule]) -> bool:
    """Return whether its schedule says that an occurrence is over, or was cancelled: no old copy brings it back."""
    return any(
        one.id == window.schedule
        and (
            (one.past is not None and window.start <= one.past)
            or (one.cancelled_at is not None and window.start > one.cancelled_at)
        )
        for one in schedules
    )


def floors(windows: Iterable[Window], record: Record) -> tuple[datetime | None, datetime | None]:
    """Return both session cut-offs of a record that loses these windows, which are over."""
    begun = [w for w in windows if w.start <= (w.ended_at or record.changed_at)]
    said = [record.sessions_floor, *(w.start for w in begun if w.sessions == "end")]
    unsaid = [record.windows_floor, *(w.start for w in begun if w.sessions is None)]
    return (
        max((at for at in said if at is not None), default=None),
        max((at for at in unsaid if at is not None), default=None),
    )
