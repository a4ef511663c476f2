"""The operator's side: on until it is safe, off until it is open, and what the store can do to who waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from readonly import ReadOnlyError, Switch
from readonly.changes import Operator, lift_exactly, turn_on
from readonly.confirmation import Condition, Confirmation, Expected
from readonly.errors import (
    ConfigurationError,
    LostRace,
    NoRecord,
    NotConfirmed,
    NotYours,
    StoreUnreachable,
    UnreadableRecord,
)
from readonly.record import Record
from readonly.record_format import dump, load
from readonly.site import Site
from readonly.stores.memory import MemoryStore
from support.records import cause, minutes, record, window
from support.waiting import eventually

ANN, BOB = Operator("ann", "desk-1"), Operator("bob", "desk-2")


class Running:
    """A site with processes, and its operator beside them."""

    def __init__(self) -> None:
        # A call fails at once where it fails; else it may take as long as a busy machine takes for it.
        self.store = MemoryStore(site="shop", timeout=20.0)
        self.switches: list[Switch] = []
        self.site = self.operator()

    def operator(self, **settings: Any) -> Site:
        """Return an operator's side with a link of its own."""
        return Site(Switch(self.store.peer()), **settings)

    def process(self, **settings: Any) -> Switch:
        """Begin one more process."""
        switch = Switch(self.store.peer(), **{"interval": 0.05, "role": "web", **settings})
        self.switches.append(switch)
        switch.start()
        return switch

    def holds(self, found: Record | bytes | None) -> None:
        """Put a record there, whatever stands."""
        self.store._memory.record = dump(found) if isinstance(found, Record) else found

    @property
    def stored(self) -> Record:
        """The record that stands."""
        raw = self.store.read().record
        assert raw is not None
        return load(raw)


@pytest.fixture
def running() -> Iterator[Running]:
    """A site with two processes."""
    made = Running()
    made.process()
    made.process()
    yield made
    for switch in made.switches:
        switch.close()


@pytest.fixture
def empty() -> Running:
    """A site without processes."""
    return Running()


@pytest.fixture
def deadline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what has the deadline of whoever waits pass: it is not reached before."""
    now = [0.0]
    monkeypatch.setattr("readonly.proving.time", SimpleNamespace(monotonic=lambda: now[0]))

    def passes() -> None:
        now[0] += 3600.0

    return passes


def writes(switch: Switch) -> bool:
    """Try to write."""
    try:
        with switch.writing():
            return True
    except ReadOnlyError:
        return False


# --- on -------------------------------------------------------------------------------------------------------------


def test_on_is_safe_when_every_process_obeys_and_has_drained(running: Running) -> None:
    """It returns then, and says at which level; `off` returns when every process has opened."""
    safety = running.site.on(operator=ANN, reason="disk", timeout=20)
    assert safety.safe
    assert safety.require_safe() is safety
    assert (safety.problems, safety.level, len(safety.confirmation.members)) == ((), "app only", 2)
    assert not any(writes(switch) for switch in running.switches)
    change, found = running.site.off(operator=ANN, timeout=20)
    assert change.causes == safety.change.causes
    assert (found.safe, found.closing) == (True, False)
    assert all(writes(switch) for switch in running.switches)


def test_on_waits_for_a_write_in_flight(running: Running) -> None:
    """Its end is the event that ends the wait; the next heartbeat is far."""
    rare = running.process(interval=300.0)
    draining = threading.Event()

    def progress(found: Confirmation) -> None:
        if found.of(Condition.DRAINS) and found.of(Condition.OBEYS):
            draining.set()

    with ThreadPoolExecutor(1) as pool:
        with rare.writing():
            waiting = pool.submit(running.site.on, operator=ANN, timeout=120, progress=progress)
            assert draining.wait(60)
            assert not waiting.done()
        assert waiting.result(60).safe


def test_on_that_runs_out_of_time_is_not_safe(running: Running) -> None:
    """It names who is missing; the site is read-only all the same."""
    with running.switches[0].writing():
        safety = running.site.on(operator=ANN, timeout=0.1)
    assert not safety.safe
    with pytest.raises(NotConfirmed, match="not safe") as error:
        safety.require_safe()
    assert error.value.missing == safety.problems
    assert running.stored.causes


def test_nobody_there_is_never_safe(empty: Running) -> None:
    """It is set, and nothing is proven."""
    safety = empty.site.on(operator=ANN, timeout=0)
    assert not safety.safe
    assert "no process" in safety.problems[0]


def test_fewer_than_expected_is_never_safe(running: Running) -> None:
    """Two of three; then the third comes."""
    operator = running.operator(expect={"web": Expected(3)})
    assert not operator.on(operator=ANN, timeout=0.3).safe
    running.process()
    assert operator.on(operator=ANN, timeout=20).safe


def test_two_operators_are_both_safe(running: Running) -> None:
    """At once, each with their own cause."""
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(running.operator().on, operator=who, timeout=20) for who in (ANN, BOB)]
        assert all(one.result(60).safe for one in both)
    assert {c.by for c in running.stored.causes} == {"ann", "bob"}


def test_who_lifts_what_another_waits_for_is_named(running: Running) -> None:
    """The one who waits is told, and not that it is safe."""
    waiting = threading.Event()
    with ThreadPoolExecutor(1) as pool, running.switches[0].writing():
        confirming = pool.submit(running.site.on, operator=ANN, timeout=30, progress=lambda _: waiting.set())
        assert waiting.wait(60)
        lift_exactly(running.store, BOB, running.stored.causes[0].id)
        with pytest.raises(LostRace, match="bob lifted") as lost:
            confirming.result(60)
    assert lost.value.by == "bob"


def test_the_waiting_command_brings_its_cause_back(empty: Running, deadline: Callable[[], None]) -> None:
    """The store is emptied while it waits, and no process is there that could (design rule 12)."""
    waiting = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        confirming = pool.submit(empty.site.on, operator=ANN, timeout=30, progress=lambda _: waiting.set())
        assert waiting.wait(60)
        empty.store.lose()
        eventually(lambda: empty.store.read().record is not None)
        deadline()
        assert not confirming.result(60).safe
    assert [c.by for c in empty.stored.causes] == ["ann"]


def test_a_registry_that_was_lost_says_nothing_for_a_while(running: Running) -> None:
    """Everybody obeys, and it is not yet safe: somebody may be missing."""
    began = time.monotonic()
    running.store.lose()
    assert running.site.on(operator=ANN, timeout=20).safe
    assert time.monotonic() - began > 1.0


# --- wait -----------------------------------------------------------------------------------------------------------


def test_wait_is_for_what_is_in_force(running: Running) -> None:
    """Closed: until it is safe. Open: until everybody is."""
    assert running.site.wait(timeout=20).closing is False
    turn_on(running.store, BOB)
    found = running.site.wait(timeout=20)
    assert (found.safe, found.closing) == (True, True)


def test_wait_over_a_partial_record_that_holds_nothing_is_never_safe(running: Running) -> None:
    """Processes refuse, and may open as soon as one that knows more has written back."""
    for switch in running.switches:
        switch.close()
    running.switches.clear()
    running.store.lose()
    (mine,) = turn_on(running.store, ANN).causes
    lift_exactly(running.store, ANN, mine)
    process = running.process()
    assert not writes(process)
    assert not running.site.wait(timeout=0.2).safe


def test_wait_without_a_record_says_what_to_do(empty: Running) -> None:
    """Or with one that can't be read."""
    empty.store.lose()
    with pytest.raises(NoRecord, match="readonlyctl init shop"):
        empty.site.wait(timeout=1)
    empty.holds(b"rubbish")
    with pytest.raises(UnreadableRecord):
        empty.site.wait(timeout=1)


# --- off ------------------------------------------------------------------------------------------------------------


def test_off_waits_for_a_member_to_write_the_record_back(running: Running) -> None:
    """Over an emptied store; the trouble is told meanwhile."""
    assert running.site.on(operator=ANN, timeout=20).safe
    told: list[Exception] = []
    for switch in running.switches:
        switch.store.break_()  # type: ignore[attr-defined]
    running.store.lose()

    def trouble(error: Exception) -> None:
        told.append(error)
        for switch in running.switches:
            switch.store.mend()  # type: ignore[attr-defined]

    _, found = running.site.off(operator=ANN, timeout=20, trouble=trouble)
    assert found.safe
    assert isinstance(told[0], NoRecord)
    assert all(writes(switch) for switch in running.switches)


def test_off_that_nobody_helps_says_what_to_do(empty: Running) -> None:
    """After its timeout; nothing was changed."""
    empty.store.lose()
    with pytest.raises(NoRecord, match="readonlyctl init shop"):
        empty.site.off(operator=ANN, timeout=0.1)
    assert empty.store.read().record is None


@pytest.mark.parametrize("others", [False, True])
def test_off_waits_for_a_cause_that_a_failover_has_lost(running: Running, others: bool) -> None:
    """There is nothing to lift, or nothing of one's own, until it is brought back; then it is lifted."""
    if others:
        turn_on(running.store, BOB)
    before = running.store.read().record
    (mine,) = running.site.on(operator=ANN, timeout=20).change.causes
    for switch in running.switches:
        switch.store.break_()  # type: ignore[attr-defined]
    running.store.lose()
    running.holds(before)
    told: list[Exception] = []

    def trouble(error: Exception) -> None:
        told.append(error)
        for switch in running.switches:
            switch.store.mend()  # type: ignore[attr-defined]

    change, found = running.site.off(operator=ANN, timeout=20, trouble=trouble)
    assert isinstance(told[0], NotYours if others else NotConfirmed)
    assert (change.changed, change.causes, found.safe) == (True, (mine,), True)
    assert [c.by for c in running.stored.causes] == (["bob"] if others else [])
    assert all(writes(switch) is not others for switch in running.switches)


def test_off_in_a_store_that_may_have_lost_something_says_so(empty: Running) -> None:
    """Nobody is there who could tell: it opens nothing, and does not say that all is open."""
    before = empty.store.read().record
    empty.store.lose()
    empty.holds(before)
    change, found = empty.site.off(operator=ANN, timeout=0.05)
    assert (change.changed, found.safe) == (False, False)
    assert "known for" in found.missing[0]
    with pytest.raises(NotYours):
        empty.site.off(operator=ANN, cause="c404", timeout=0.05)


def test_off_says_what_still_stands(running: Running) -> None:
    """One's own is lifted, and that is confirmed."""
    turn_on(running.store, BOB)
    assert running.site.on(operator=ANN, timeout=20).safe
    change, found = running.site.off(operator=ANN, timeout=20)
    assert (found.safe, [c.by for c in change.record.causes]) == (True, ["bob"])
    assert not any(writes(switch) for switch in running.switches)
    with pytest.raises(NotYours):
        running.site.off(operator=ANN, timeout=1)


def test_off_all_ends_a_window_in_force(running: Running) -> None:
    """Every process writes again, as with any other cause."""
    at = running.store.read().at
    running.holds(replace(running.stored, windows=(window(start=at, end=at + minutes(60)),)))
    running.store.hint()
    assert running.site.wait(timeout=20).closing
    change, found = running.site.off(operator=ANN, every=True, timeout=20)
    assert (change.causes, found.safe) == (("w1",), True)
    assert all(writes(switch) for switch in running.switches)


def test_off_of_an_open_site_confirms_that_it_is_open(running: Running) -> None:
    """Nothing was changed."""
    change, found = running.site.off(operator=ANN, timeout=20)
    assert (change.changed, found.safe) == (False, True)


# --- a store that is away --------------------------------------------------------------------------------------------


def test_a_store_that_goes_away_while_waiting(running: Running, deadline: Callable[[], None]) -> None:
    """What was confirmed is said, and what it means; one that comes back in time is waited for."""
    waiting = threading.Event()
    troubled: list[Exception] = []

    def trouble(error: Exception) -> None:
        troubled.append(error)
        deadline()

    operator = running.operator()
    with ThreadPoolExecutor(1) as pool, running.switches[0].writing():
        change = operator.set(operator=ANN)
        gone = pool.submit(operator.wait_closed, change, timeout=30, progress=lambda _: waiting.set(), trouble=trouble)
        assert waiting.wait(60)
        eventually(lambda: not writes(running.switches[1]))
        operator.store.break_()  # type: ignore[attr-defined]
        with pytest.raises(StoreUnreachable, match=r"Set at epoch 2; . of 2 had confirmed"):
            gone.result(60)
        assert troubled
        back = pool.submit(operator.wait_closed, change, timeout=30)
        operator.store.mend()  # type: ignore[attr-defined]
        running.switches[0].inflight.forget()
        assert back.result(60).safe


def test_a_store_that_was_never_there(empty: Running) -> None:
    """Nothing could be confirmed, or set."""
    operator = empty.operator()
    change = operator.set(operator=ANN)
    operator.store.break_()  # type: ignore[attr-defined]
    with pytest.raises(StoreUnreachable):
        operator.on(operator=ANN, timeout=0)
    with pytest.raises(StoreUnreachable, match="nothing about it could be confirmed"):
        operator.wait_closed(change, timeout=0)
    with pytest.raises(StoreUnreachable):
        operator.look()


# --- looking --------------------------------------------------------------------------------------------------------


def test_a_look_is_no_membership(running: Running) -> None:
    """The operator is nobody's process; the state is by the store's clock."""
    look = running.site.look()
    assert look.record == running.stored
    assert (len(look.census.reports), look.state.read_only) == (2, False)
    assert (running.site.name, running.site.shown_store) == ("shop", "memory://")


def test_a_look_tells_what_cannot_be_read(empty: Running) -> None:
    """As part of its answer; another site's record is an error."""
    empty.holds(b"rubbish")
    look = empty.site.look()
    assert look.record is None
    assert look.unreadable is not None
    assert look.unreadable.corrupt
    empty.holds(record(cause("c1"), site="blog"))
    with pytest.raises(ConfigurationError, match="'blog'"):
        empty.site.look()


def test_a_command_never_makes_a_store(tmp_path: Path) -> None:
    """Typed in another folder it would confirm an empty one."""
    path = tmp_path / "flag.db"
    site = Site.from_config(store=f"sqlite:///{path}?site=shop", environ={})
    with pytest.raises(StoreUnreachable):
        site.look()
    assert not path.exists()


def test_a_site_is_made_from_its_file(tmp_path: Path) -> None:
    """With who must be there."""
    path = tmp_path / "readonly.toml"
    path.write_text(f'store = "sqlite:///{tmp_path}/flag.db?site=shop"\nexpect = "web=4"\n', encoding="utf-8")
    site = Site.from_config(path, environ={})
    assert (site.name, site.expect) == ("shop", {"web": Expected(4, at_least=False)})
