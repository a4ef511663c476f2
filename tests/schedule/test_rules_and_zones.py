"""What a zone's clocks make of a time, and rules: worked out once, by whoever plans."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readonly.errors import ConfigurationError
from readonly.schedules import (
    FOLD,
    GAP,
    NoSuchTime,
    checked_rule,
    instant_of,
    occurrences,
    resolved,
    rule_every,
    zone_named,
)

BERLIN = ZoneInfo("Europe/Berlin")


def utc(*numbers: int) -> datetime:
    """Return an instant."""
    return datetime(*numbers, tzinfo=UTC)  # type: ignore[arg-type,misc]


def local(*numbers: int) -> datetime:
    """Return a local time."""
    return datetime(*numbers)  # type: ignore[arg-type]  # noqa: DTZ001


@pytest.mark.parametrize(
    ("zone", "typed", "start", "mark"),
    [
        ("Europe/Berlin", local(2026, 11, 29, 2), utc(2026, 11, 29, 1), ""),
        ("Europe/Berlin", local(2027, 3, 28, 2), utc(2027, 3, 28, 1), GAP),
        ("Europe/Berlin", local(2027, 3, 28, 2, 59), utc(2027, 3, 28, 1), GAP),
        ("Europe/Berlin", local(2027, 3, 28, 1, 59), utc(2027, 3, 28, 0, 59), ""),
        ("Europe/Berlin", local(2027, 3, 28, 3), utc(2027, 3, 28, 1), ""),
        ("Europe/Berlin", local(2026, 10, 25, 2, 30), utc(2026, 10, 25, 0, 30), FOLD),
        ("Europe/Berlin", local(2026, 10, 25, 3), utc(2026, 10, 25, 2), ""),
        # Half an hour, and a whole day that was left out.
        ("Australia/Lord_Howe", local(2026, 10, 4, 2, 15), utc(2026, 10, 3, 15, 30), GAP),
        ("Pacific/Apia", local(2011, 12, 30, 12), utc(2011, 12, 30, 10), GAP),
    ],
)
def test_a_local_time_is_one_instant(zone: str, typed: datetime, start: datetime, mark: str) -> None:
    """The first one after a gap, the first of two."""
    assert resolved(typed, ZoneInfo(zone)) == (start, mark)


@given(
    st.datetimes(local(2000, 1, 1), local(2037, 1, 1)).map(lambda at: at.replace(microsecond=0)),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "UTC"]),
)
def test_a_local_time_comes_back_unless_it_is_in_a_gap(typed: datetime, name: str) -> None:
    """And what is in one begins with the first local time that there is."""
    zone = ZoneInfo(name)
    start, mark = resolved(typed, zone)
    back = start.astimezone(zone).replace(tzinfo=None)
    if mark == GAP:
        assert back > typed
        before = (start - timedelta(seconds=1)).astimezone(zone).replace(tzinfo=None)
        assert before < typed
    else:
        assert back == typed


@pytest.mark.parametrize(
    ("typed", "says", "candidates"),
    [
        ("2027-03-28 02:30", "does not exist", ["2027-03-28 03:00", "2027-03-28 03:30"]),
        ("2026-10-25 02:30", "exists twice", ["2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"]),
    ],
)
def test_a_single_one_is_refused_with_what_may_be_meant(typed: str, says: str, candidates: list[str]) -> None:
    """Each of them is an instant if it is typed."""
    with pytest.raises(NoSuchTime, match=says) as refused:
        instant_of(typed, BERLIN)
    assert [candidate for candidate, _ in refused.value.candidates] == candidates
    for candidate, what in refused.value.candidates:
        assert f"{instant_of(candidate, BERLIN):%Y-%m-%d %H:%M} UTC" in what


@pytest.mark.parametrize(
    "typed", ["2026-11-29T02:00+01:00", "2026-11-29 01:00Z", "2026-11-29 01:00 UTC", "2026-11-28T20:00-05:00"]
)
def test_an_offset_needs_no_zone(typed: str) -> None:
    """What was typed says whose clocks are meant."""
    assert instant_of(typed, None) == utc(2026, 11, 29, 1)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("2026-11-29 02:00", "by whose clocks"),
        ("2026-11-29", "no date and time"),
        ("tomorrow", "no date and time"),
        ("02:00", "no date and time"),
        ("0001-01-01T00:00+14:00", "no date and time"),
    ],
)
def test_a_time_that_is_none(typed: str, says: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ConfigurationError, match=says):
        instant_of(typed, None)


@pytest.mark.parametrize(
    ("typed", "rule"),
    [
        ("Sun 02:00", "0 2 * * SUN"),
        ("mon-fri 22:30", "30 22 * * MON-FRI"),
        ("Tuesday,Thu 1:05", "5 1 * * TUE,THU"),
        ("day 03:00", "0 3 * * *"),
        ("03:00", "0 3 * * *"),
    ],
)
def test_every(typed: str, rule: str) -> None:
    """As people say it, and as it is kept."""
    assert rule_every(typed) == rule


@pytest.mark.parametrize("typed", ["Sund 02:00", "Sun", "Sun 25:00", "Sun 2", "", "Fri-Mon 02:00"])
def test_every_that_is_none(typed: str) -> None:
    """A misspelt day is not another one."""
    with pytest.raises(ConfigurationError):
        rule_every(typed)


@pytest.mark.parametrize("typed", ["0 2 30 2 *", "0 2 * *", "0 0 2 * * SUN", "x 2 * * *", "0 2 31 4,6 *"])
def test_a_rule_that_is_none(typed: str) -> None:
    """Also one that never comes true, or has seconds."""
    with pytest.raises(ConfigurationError):
        checked_rule(typed)


def test_the_first_sunday_of_each_month_in_winter_and_summer() -> None:
    """By the zone's clocks: in UTC it moves."""
    found = occurrences(checked_rule("0 2 * * sun#1"), BERLIN, after=local(2027, 2, 1))
    starts = [one.start for one in itertools.islice(found, 4)]
    assert starts == [utc(2027, 2, 7, 1), utc(2027, 3, 7, 1), utc(2027, 4, 4, 0), utc(2027, 5, 2, 0)]


def test_occurrences_across_both_changes_are_marked() -> None:
    """Each Sunday has one: in spring it begins with the first instant after the gap, in autumn once."""
    found = list(itertools.islice(occurrences("30 2 * * SUN", BERLIN, after=local(2026, 10, 20)), 53))
    assert [(one.start, one.mark) for one in found if one.mark] == [
        (utc(2026, 10, 25, 0, 30), FOLD),
        (utc(2027, 3, 28, 1), GAP),
    ]
    assert [one.local.date() for one in found] == [
        local(2026, 10, 25).date() + timedelta(weeks=week) for week in range(53)
    ]


@pytest.mark.parametrize(
    "name",
    ["Berlin", "Europe", "../etc/passwd", "Europe/Nowhere", "x" * 300, "localtime", "Factory", "right/Europe/Berlin"],
)
def test_a_zone_that_is_none(name: str) -> None:
    """Named as the database does; the nearest is offered."""
    with pytest.raises(ConfigurationError, match="is no time zone") as refused:
        zone_named(name)
    assert ("Europe/Berlin" in str(refused.value)) or name == "Europe/Nowhere" or name == "Europe"


def test_a_zone_with_a_fixed_offset() -> None:
    """It has no gaps."""
    assert resolved(local(2027, 3, 28, 2, 30), timezone(timedelta(hours=1))) == (utc(2027, 3, 28, 1, 30), "")
