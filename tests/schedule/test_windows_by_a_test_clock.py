"""Windows on processes that follow one store, by a clock that the test moves: a year, and both changes in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from unittest import mock
from zoneinfo import ZoneInfo

import pytest

from readonly import windows
from readonly.changes import Operator, lift_exactly, turn_off, turn_on
from readonly.clock import StoreClock
from readonly.errors import NotYours
from readonly.record import RUN, Record, Window
from readonly.record_format import dump, load
from readonly.scheduling import Unsure, Wanted, cancel, extend, schedule, skip
from readonly.state import State
from readonly.windows import FEWEST_LEFT, OCCURRENCES
from support.beating import Beating, SetClock, Site
from support.records import cause

ANN, BEN = Operator("ann", "desk"), Operator("ben", "desk")
BERLIN = ZoneInfo("Europe/Berlin")
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
WEEKLY = Wanted(every="Sun 02:30", zone="Europe/Berlin", lasting=90 * MINUTE)


@pytest.fixture
def site() -> Site:
    """A writable site, on a Tuesday in September."""
    return Site(SetClock(datetime(2026, 9, 1, 12, tzinfo=UTC)))


@pytest.fixture
def process(site: Site) -> Beating:
    """A process of it."""
    return Beating(site)


def planned(site: Site, ahead: timedelta = HOUR, lasting: timedelta | None = HOUR, **rest: object) -> Window:
    """Have ann plan a window, so far ahead."""
    return schedule(site.store, ANN, Wanted(ahead=ahead, lasting=lasting, **rest)).windows[0]  # type: ignore[arg-type]


@contextmanager
def another_database() -> Iterator[None]:
    """Have a process whose zone data know no summer time in Berlin."""
    with (files("tzdata.zoneinfo") / "Africa" / "Lagos").open("rb") as data:
        lagos = ZoneInfo.from_file(data, key="Europe/Berlin")
    with mock.patch.object(windows, "zone_named", return_value=lagos):
        yield


# --- one window ------------------------------------------------------------------------------------------------------


def test_it_closes_and_opens_by_itself(site: Site, process: Beating) -> None:
    """To the second, also where nobody looks; its start is no change of the record."""
    found = planned(site)
    process.beat()
    assert process.view.state.next_window == found
    epoch = site.record.epoch
    site.clock.to(found.start - SECOND)
    assert process.admits()
    site.clock.to(found.start)
    assert not process.admits()
    assert process.beat().view.state.causes[0].id == found.id
    assert site.record.epoch == epoch
    assert found.end is not None
    site.clock.to(found.end - SECOND)
    assert not process.beat().admits()
    site.clock.to(found.end)
    assert not process.admits()
    assert process.beat().admits()
    assert [(w.ended, w.ended_at, w.revision) for w in site.record.windows] == [(True, found.end, 1)]


def test_who_was_down_at_the_start_comes_up_read_only(site: Site) -> None:
    """Inside, however late; and ends it if its end has passed while nobody was there."""
    found = planned(site)
    site.clock.to(found.start + 30 * MINUTE)
    assert not Beating(site).admits()
    site.clock.to(found.start + 10 * HOUR)
    assert Beating(site).admits()
    assert site.record.windows[0].ended


def test_an_extension_wins_against_a_process_that_does_not_know_of_it(site: Site, process: Beating) -> None:
    """It opens by the record alone (C16b)."""
    found = planned(site)
    process.beat()
    site.clock.to(found.start + MINUTE)
    process.beat()
    process.link.break_()
    extend(site.store, ANN, longer=HOUR)
    site.clock.to(found.start + HOUR + MINUTE)
    assert not process.beat().admits()
    process.link.mend()
    assert not process.beat().admits()
    site.clock.to(found.start + 2 * HOUR)
    assert process.beat().admits()


def test_an_extension_that_a_failover_lost_wins_when_it_comes_back(site: Site, process: Beating) -> None:
    """A mark that somebody wrote for the old end does not outlive it."""
    found = planned(site)
    site.clock.to(found.start + MINUTE)
    before = site.record
    extend(site.store, ANN, longer=HOUR)
    process.beat()
    site.holds(before)
    site.clock.to(found.start + HOUR)
    process.link.break_()
    other = Beating(site)
    assert other.admits()
    process.link.mend()
    process.beat()
    assert not other.beat().admits()


def test_what_has_ended_is_not_extended(site: Site, process: Beating) -> None:
    """Though nobody has written it down yet (C16c)."""
    found = planned(site)
    site.clock.to(found.start + HOUR)
    with pytest.raises(NotYours, match="is over"):
        extend(site.store, ANN, longer=HOUR)
    process.beat()
    with pytest.raises(NotYours, match="nothing of yours"):
        extend(site.store, ANN, longer=HOUR)


def test_a_run_holds_it_past_its_end(site: Site, process: Beating) -> None:
    """And may still move its end; without it the window ends with the next heartbeat."""
    found = planned(site)
    site.clock.to(found.start)
    site.holds(replace(site.record, causes=(cause("r1", kind=RUN, by="ann", since=found.start),)))
    site.clock.to(found.start + 2 * HOUR)
    assert not process.beat().admits()
    assert not site.record.windows[0].ended
    extend(site.store, ANN, longer=MINUTE)
    lift_exactly(site.store, ANN, "r1")
    assert not process.beat().admits()
    site.clock.to(found.start + 2 * HOUR + MINUTE)
    assert process.beat().admits()


def test_off_ends_the_occurrence_and_it_does_not_begin_again(site: Site, process: Beating) -> None:
    """Inside the window and after it."""
    found = planned(site)
    site.clock.to(found.start + MINUTE)
    assert turn_off(site.store, ANN).causes == (found.id,)
    assert process.beat().admits()
    site.clock.to(found.start + 2 * MINUTE)
    assert process.beat().admits()
    with pytest.raises(NotYours, match="nothing of yours"):
        extend(site.store, ANN, longer=HOUR)


def test_on_during_a_window_outlasts_it(site: Site, process: Beating) -> None:
    """Each has its own end."""
    found = planned(site)
    site.clock.to(found.start + MINUTE)
    turn_on(site.store, BEN)
    site.clock.to(found.start + HOUR)
    assert not process.beat().admits()
    assert [c.kind for c in process.view.state.causes] == ["operator"]
    turn_off(site.store, BEN)
    assert process.beat().admits()


def test_two_that_overlap_each_lift_their_own(site: Site, process: Beating) -> None:
    """The site opens after both; planning the second is asked about."""
    found = planned(site)
    with pytest.raises(Unsure, match=f"it lies across {found.id} by ann"):
        planned(site, HOUR + 30 * MINUTE)
    other = planned(site, HOUR + 30 * MINUTE, sure=True)
    site.clock.to(found.start + HOUR)
    assert not process.beat().admits()
    assert [c.id for c in process.view.state.causes] == [other.id]
    site.clock.to(other.start + HOUR)
    assert process.beat().admits()


def test_without_an_end_only_off_opens(site: Site, process: Beating) -> None:
    """What `on --in` announces; an extension of it announces, too, and `extend --until-off` takes an end away."""
    found = planned(site, lasting=None, expected=10 * MINUTE)
    site.clock.to(found.start + HOUR)
    assert not process.beat().admits()
    assert process.view.state.expected_end == found.start + 10 * MINUTE
    extend(site.store, ANN, longer=MINUTE)
    assert process.beat().view.state.expected_end == found.start + HOUR + MINUTE
    site.clock.to(found.start + 2 * HOUR)
    assert not process.beat().admits()
    turn_off(site.store, ANN)
    other = planned(site)
    site.clock.to(other.start)
    extend(site.store, ANN)
    site.clock.to(other.start + 5 * HOUR)
    assert not process.beat().admits()
    assert process.view.state.expected_end is None
    turn_off(site.store, ANN)
    assert process.beat().admits()


def test_one_of_several_members_ends_it(site: Site) -> None:
    """Whoever is first; the others see that, and the epoch rises once."""
    found = planned(site)
    processes = [Beating(site) for _ in range(4)]
    epoch = site.record.epoch
    site.clock.to(found.start + HOUR)
    for process in processes:
        process.beat()
    assert all(process.admits() for process in processes)
    assert site.record.epoch == epoch + 1


def test_who_knows_less_ends_nothing(site: Site, process: Beating) -> None:
    """A store that was emptied, and a record made over nothing: the window goes on."""
    found = planned(site)
    site.clock.to(found.start + HOUR)
    site.holds(replace(site.record, lineage=""))
    assert not Beating(site).admits()
    assert not site.record.windows[0].ended


# --- recurring ones --------------------------------------------------------------------------------------------------


def test_a_year_of_a_weekly_window_on_two_processes(site: Site) -> None:
    """One of which has other zone data: they agree on every instant, and nobody else is there after it was planned."""
    schedule(site.store, ANN, WEEKLY)
    one, other = Beating(site), Beating(site)
    sizes: list[int] = []
    for week in range(52):
        (found, *_) = sorted((w for w in site.record.windows if not w.ended), key=lambda w: w.start)
        assert found.typed == f"{datetime(2026, 9, 6, tzinfo=UTC) + timedelta(weeks=week):%Y-%m-%d} 02:30"
        site.clock.to(found.start - SECOND)
        assert one.beat().admits()
        with another_database():
            assert other.beat().admits()
        assert one.view.state.next_window == other.view.state.next_window
        site.clock.to(found.start)
        assert not one.admits()
        assert not other.admits()
        assert found.end == found.start + 90 * MINUTE
        site.clock.to(found.end)
        # Whoever is first ends it, and tops up where few are left, by its own data.
        if week % 2:
            one.beat()
        with another_database():
            assert other.beat().admits()
        assert one.beat().admits()
        left = [w for w in site.record.windows if not w.ended]
        assert FEWEST_LEFT <= len(left) <= OCCURRENCES
        # Sessions from before this start have ended, also for who was down all through it: all that is in the record.
        read = State.at(site.clock.now(), load(dump(site.record)))
        assert (read.sessions_ended_before("end"), read.sessions_ended_before("keep")) == (found.start, None)
        sizes.append(len(dump(site.record)))
    assert max(sizes) < 8_000, "the record comes with every report"


def test_who_was_down_for_one_and_the_next_three_knows_whose_session_ended(site: Site, process: Beating) -> None:
    """One that said nothing about sessions, then three that kept them: a session from before the first has ended."""
    (first, *others) = schedule(site.store, ANN, WEEKLY).windows
    kept = tuple(replace(w, sessions="keep", revision=2) for w in others)
    site.holds(replace(site.record, windows=(first, *kept)))
    for window in (first, *others[:3]):
        assert window.end is not None
        site.clock.to(window.end)
        process.beat()
    assert first.id not in {w.id for w in site.record.windows}
    late = Beating(site)
    process.beat()  # which knows of it then
    assert late.beat().admits()
    assert late.view.state.sessions_ended_before("end") == first.start
    assert late.view.state.sessions_ended_before("keep") is None
    assert late.view.sessions_cut


def test_a_year_with_one_zone_database(site: Site, process: Beating) -> None:
    """Both changes of the clocks: 52 Sundays, each at half past two by the clocks, or right after the gap."""
    schedule(site.store, ANN, WEEKLY)
    seen: list[Window] = []
    for _ in range(52):
        (found, *_) = sorted((w for w in site.record.windows if not w.ended), key=lambda w: w.start)
        seen.append(found)
        site.clock.to(found.start - SECOND)
        assert process.beat().admits()
        site.clock.to(found.start)
        assert not process.admits()
        assert found.end is not None
        site.clock.to(found.end)
        assert process.beat().admits()
    local = [w.start.astimezone(BERLIN) for w in seen]
    assert [w.mark for w in seen if w.mark] == ["fold", "gap"]
    assert {f"{at:%a %H:%M}" for at in local} == {"Sun 02:30", "Sun 03:00"}
    assert sum(at.hour == 3 for at in local) == 1
    days = [at.date() for at in local]
    assert all(later - day == timedelta(weeks=1) for day, later in itertools.pairwise(days))
    assert len(site.record.windows) <= OCCURRENCES + 1


def test_zone_data_that_differ_make_neither_two_of_one_nor_none(site: Site) -> None:
    """Instants are agreed on; the next ones follow by local time, whoever works them out."""
    schedule(site.store, ANN, replace(WEEKLY, every="day 02:30", lasting=HOUR))
    process = Beating(site)
    days: list[str] = []
    for day in range(70):
        (found, *_) = sorted((w for w in site.record.windows if not w.ended), key=lambda w: w.start)
        days.append(found.typed)
        assert found.end is not None
        site.clock.to(found.end)
        if day % 8 < 4:
            process.beat()
        else:
            with another_database():
                process.beat()
    assert days == [f"{datetime(2026, 9, 2, tzinfo=UTC) + timedelta(days=day):%Y-%m-%d} 02:30" for day in range(70)]


def test_a_process_without_that_zone_leaves_it_to_others(
    site: Site, process: Beating, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends windows all the same, and says once why it adds none."""
    schedule(site.store, ANN, replace(WEEKLY, zone="Pacific/Apia"))
    (unknown,) = site.record.schedules
    site.holds(replace(site.record, schedules=(replace(unknown, zone="Mars/Olympus"),)))
    for window in site.record.windows[:8]:
        assert window.end is not None
        site.clock.to(window.end)
        assert process.beat().admits()
    assert sum(not w.ended for w in site.record.windows) == 4
    assert caplog.text.count("Mars/Olympus") == 1
    site.holds(replace(site.record, schedules=(unknown,)))
    process.beat()
    assert sum(not w.ended for w in site.record.windows) == OCCURRENCES


def test_nobody_there_for_months(site: Site) -> None:
    """What passed meanwhile is over, what is going on is in force, and the rest is worked out anew."""
    (first, *_) = schedule(site.store, ANN, WEEKLY).windows
    site.clock.to(first.start + timedelta(weeks=20) + HOUR + 30 * MINUTE)  # in winter the same local time is later
    process = Beating(site)
    assert not process.admits()
    assert [w.typed for w in site.record.windows if w.in_force(site.clock.now())] == ["2027-01-24 02:30"]
    assert sum(not w.ended and w.start > site.clock.now() for w in site.record.windows) >= FEWEST_LEFT


def test_skipping_and_cancelling(site: Site, process: Beating) -> None:
    """One is left out and the next one stands; cancelled, none is left, and no old copy brings one back."""
    plan = schedule(site.store, ANN, WEEKLY)
    assert plan.schedule is not None
    first, second, *_ = plan.windows
    assert skip(site.store, BEN, plan.schedule.id).causes == (first.id,)
    assert not skip(site.store, BEN, first.id).changed
    site.clock.to(first.start + MINUTE)
    assert process.beat().admits()
    assert process.view.state.sessions_ended_before("end") is None
    site.clock.to(second.start + MINUTE)
    assert not process.beat().admits()
    with pytest.raises(NotYours, match="has begun"):
        skip(site.store, ANN, second.id)
    with pytest.raises(NotYours, match="has begun"):
        cancel(site.store, ANN, second.id)
    stale = site.record
    assert len(cancel(site.store, ANN, plan.schedule.id).causes) == OCCURRENCES - 1
    assert not cancel(site.store, ANN, plan.schedule.id).changed
    # What has begun goes on to its end.
    assert not process.beat().admits()
    site.clock.to(second.start + 2 * HOUR)
    assert process.beat().admits()
    # A failover to a copy from before; a process that knew better.
    site.holds(stale)
    process.beat()
    assert process.beat().admits()
    assert process.view.state.next_window is None
    for name in ("w0", "nothing"):
        with pytest.raises(NotYours, match="there is no window"):
            cancel(site.store, ANN, name)


def test_a_single_one_is_cancelled_and_not_skipped(site: Site, process: Beating) -> None:
    """Cancelled before it began, it has ended nobody's session."""
    found = planned(site)
    with pytest.raises(NotYours, match="does not recur"):
        skip(site.store, ANN, found.id)
    assert cancel(site.store, ANN, found.id).causes == (found.id,)
    site.clock.to(found.start + MINUTE)
    assert process.beat().admits()
    assert process.view.state.sessions_ended_before("end") is None


def test_occurrences_that_are_over_go_and_their_cut_offs_stay(site: Site, process: Beating) -> None:
    """By what each said about sessions; and an old copy in a process that comes back brings none of them back."""
    first = schedule(site.store, ANN, replace(WEEKLY, every="day 01:00", sessions="end")).windows[0]
    late = Beating(site)
    late.link.break_()
    for _ in range(5):
        (found, *_) = sorted((w for w in site.record.windows if not w.ended), key=lambda w: w.start)
        assert found.end is not None
        site.clock.to(found.end)
        process.beat()
    record = site.record
    assert first.id not in {w.id for w in record.windows}
    assert record.sessions_floor is not None
    assert (record.schedules[0].past, record.sessions_floor) == (record.sessions_floor, record.schedules[0].past)
    assert State.at(site.clock.now(), record).sessions_ended_before("keep") == found.start
    late.link.mend()
    assert late.beat().admits()
    assert late.beat().admits()
    assert {w.id for w in site.record.windows} == {w.id for w in record.windows}


# --- clocks ----------------------------------------------------------------------------------------------------------


class Two:
    """A wall clock and a boot clock that go their own ways."""

    def __init__(self) -> None:
        self.wall, self.boot = datetime(2026, 9, 1, 12, tzinfo=UTC), 100.0

    def now(self) -> datetime:
        return self.wall

    def boottime(self) -> float:
        return self.boot

    def pass_(self, seconds: float, *, wall: float | None = None) -> None:
        """Let time pass, by the wall clock perhaps another one."""
        self.boot += seconds
        self.wall += timedelta(seconds=seconds if wall is None else wall)


def test_the_stores_clock_is_never_taken_for_earlier_than_it_can_be() -> None:
    """By as much as the answer took, and as clocks drift: windows close early by that, and not late."""
    clock, noon = Two(), datetime(2026, 9, 1, 9, tzinfo=UTC)
    found = StoreClock(clock)
    asked = found.asked()
    clock.pass_(0.4)  # anywhere in there the store looked at its clock
    found.heard(noon, asked=asked)
    assert found.now() == noon
    assert found.slack == pytest.approx(0.4)
    assert found.latest() >= noon + timedelta(seconds=0.4)
    clock.pass_(1000.0)
    assert found.latest() >= noon + timedelta(seconds=1000.4 + 0.1)
    assert found.latest() <= noon + timedelta(seconds=1000.4 + 0.5)


@pytest.mark.parametrize("wall", [-7200.0, 0.0])
def test_a_wall_clock_that_is_set_back_closes_no_later(wall: float) -> None:
    """The clock that nobody sets goes on."""
    clock, nine = Two(), datetime(2026, 9, 1, 9, tzinfo=UTC)
    found = StoreClock(clock)
    found.heard(nine, asked=found.asked())
    clock.pass_(60.0, wall=wall)
    assert found.latest() >= nine + MINUTE


def test_what_was_known_is_not_taken_back_by_a_slow_answer() -> None:
    """Closed once, a process does not open again for a moment before the start; a clock that was wrong by much ends."""
    clock, nine = Two(), datetime(2026, 9, 1, 9, tzinfo=UTC)
    found = StoreClock(clock)
    asked = found.asked()
    clock.pass_(2.0)
    found.heard(nine, asked=asked)
    before = found.latest()
    found.heard(nine, asked=found.asked())
    assert found.latest() == before
    found.heard(nine - HOUR, asked=found.asked())
    assert found.latest() == nine - HOUR


def test_a_record_without_windows_is_as_it_was(site: Site) -> None:
    """Byte for byte: nothing is written where nothing is due."""
    before: Record = site.record
    assert windows.kept(before, at=site.clock.now()) is None
    assert b"schedule" not in dump(before)
