"""Planning from code: the same as typed, sync and async."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from readonly.errors import ConfigurationError, NotYours
from readonly.stores.memory import MemoryStore
from readonly.switch import Switch
from support.waiting import eventually

HOUR = timedelta(hours=1)


@pytest.fixture
def switch() -> Iterator[Switch]:
    """One of a site of its own."""
    found = Switch(MemoryStore(site="shop"), interval=0.1)
    found.start()
    yield found
    found.close()


def test_a_window_turns_this_very_process(switch: Switch) -> None:
    """By itself, and back, with a callback for each; known as soon as it is planned."""
    seen: list[bool] = []
    switch.on_change(lambda state: seen.append(state.read_only))
    start = datetime.now(UTC) + timedelta(milliseconds=200)
    (window,) = switch.schedule(start, lasting=timedelta(milliseconds=200), reason="INC-441", by="ann")
    assert (window.start, window.by, window.reason) == (start, "ann", "INC-441")
    assert switch.state.next_window == window
    eventually(lambda: True in seen and seen[-1] is False)
    assert switch.state.next_window is None
    assert switch.state.sessions_ended_before("end") == start


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
