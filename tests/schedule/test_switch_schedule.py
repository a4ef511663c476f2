"""Planning from code: the same as typed, sync and async."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from readonly.clock import SystemClock, boottime
from readonly.errors import ConfigurationError, NotYours
from readonly.stores.memory import MemoryStore
from readonly.switch import Switch
from support.waiting import eventually

HOUR = timedelta(hours=1)


class Moved(SystemClock):
    """A wall clock that a test sets forwards."""

    ahead = timedelta(0)

    def now(self) -> datetime:
        """Return what it shows."""
        return super().now() + self.ahead


@pytest.fixture
def switch() -> Iterator[Switch]:
    """One of a site of its own."""
    found = Switch(MemoryStore(site="shop"), interval=0.1)
    found.start()
    yield found
    found.close()


def test_a_window_turns_this_very_process() -> None:
    """By itself, and back, with a callback for each; known as soon as it is planned."""
    clock = Moved()
    switch = Switch(MemoryStore(site="shop", clock=clock), interval=0.1, clock=clock)
    switch.start()
    seen: list[bool] = []
    switch.on_change(lambda state: seen.append(state.read_only))
    start = clock.now() + HOUR
    (window,) = switch.schedule(start, lasting=HOUR, reason="INC-441", by="ann")
    assert (window.start, window.by, window.reason) == (start, "ann", "INC-441")
    assert switch.state.next_window == window
    clock.ahead = HOUR
    eventually(lambda: seen[-1:] == [True], what="its start")
    clock.ahead = 2 * HOUR
    eventually(lambda: seen[-1:] == [False], what="its end")
    assert switch.state.next_window is None
    assert switch.state.sessions_ended_before("end") == start
    switch.close()


def test_a_machine_that_slept_through_the_start_admits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a lease not even before its thread, whose wait stood still meanwhile, has looked again."""
    slept = [0.0]

    def asleep() -> float:
        return boottime() + slept[0]

    monkeypatch.setattr("readonly.switch.boottime", asleep)
    monkeypatch.setattr("readonly.clock.boottime", asleep)
    switch = Switch(MemoryStore(site="shop"), interval=3 * 3600.0, lease=9 * 3600.0)
    switch.schedule(datetime.now(UTC) + HOUR, lasting=HOUR)
    assert switch.admit() is None
    slept[0] = 3300.0
    assert switch.admit() is None
    slept[0] = 3900.0
    assert switch.admit() is not None
    switch.close()


@pytest.mark.anyio
async def test_awaited(switch: Switch) -> None:
    """One that recurs."""
    found = await switch.aschedule(every="Sun 02:00", zone="Europe/Berlin", lasting=HOUR)
    assert [w.typed[-5:] for w in found] == ["02:00"] * 12
    with pytest.raises(ConfigurationError, match="only one"):
        await switch.aschedule("2035-01-01T00:00Z", every="Sun 02:00", zone="UTC", lasting=HOUR)


def test_a_local_time_goes_by_a_zone(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named, or the environment's."""
    with pytest.raises(ConfigurationError, match="by whose clocks"):
        switch.schedule("2035-11-25 02:00", lasting=HOUR)
    (named,) = switch.schedule("2035-11-25 02:00", zone="Europe/Berlin", lasting=HOUR)
    monkeypatch.setenv("READONLY_TIMEZONE", "Asia/Tokyo")
    (ours,) = switch.schedule("2035-11-25 02:00", lasting=HOUR)
    assert (named.start.hour, ours.start.hour) == (1, 17)


def test_what_may_be_a_slip_wants_sure(switch: Switch) -> None:
    """As `--yes`; what makes no sense is refused all the same."""
    start = datetime.now(UTC) + HOUR
    switch.schedule(start, lasting=HOUR)
    with pytest.raises(NotYours, match="lies across"):
        switch.schedule(start, lasting=HOUR)
    assert switch.schedule(start, lasting=HOUR, sure=True)
    for wrong in (datetime(2020, 1, 1, tzinfo=UTC), datetime(2035, 1, 1)):  # noqa: DTZ001 - that is what is refused
        with pytest.raises(ConfigurationError, match=r"is over|no time zone"):
            switch.schedule(wrong, lasting=HOUR, sure=True)
    with pytest.raises(ConfigurationError, match="more than nothing"):
        switch.schedule(start, lasting=timedelta(0))
    with pytest.raises(ConfigurationError, match="is not a choice"):
        switch.schedule(start, lasting=HOUR, sessions="forget", sure=True)
