"""One process's switch as its users meet it: threads run, the store is shared memory, time is the machine's."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from readonly import Switch
from readonly.changes import Operator, lift_exactly, turn_off, turn_on
from readonly.confirmation import Condition, Confirmation
from readonly.errors import (
    ConfigurationError,
    Error,
    LostRace,
    NoRecord,
    NotConfirmed,
    NotYours,
    ReadOnlyError,
    StoreUnreachable,
)
from readonly.follower.contact import KEEP_SECONDS
from readonly.record import Mode, Record
from readonly.record_format import dump, load
from readonly.state import State
from readonly.stores import Reading
from readonly.stores.memory import MemoryStore
from support.records import record
from support.waiting import eventually, eventually_async

ANN, BOB = Operator("ann", "desk-1"), Operator("bob", "desk-2")
FAST = 0.05
# Of processes whose next heartbeat no test waits for. They are not taken for silent either, where the machine stands
# still for a second.
SELDOM = 300.0
# A call over shared memory fails at once where it fails; else it may take as long as a busy machine takes for it.
PATIENT = 20.0


class Meddled(MemoryStore):
    """A store in which a test does something at the moment of a call."""

    before_census: Callable[[], object] | None = None
    before_replace: Callable[[], object] | None = None

    def reopened(self) -> Meddled:
        twin = Meddled(site=self.site)
        twin._attach(self._memory, self._link)
        twin.timeout = self.timeout
        twin.of = self  # type: ignore[attr-defined]
        return twin

    def census(self) -> Any:
        step, owner = None, getattr(self, "of", self)
        step, owner.before_census = owner.before_census, None
        if step is not None:
            step()
        return super().census()

    def replace(self, record: bytes, *, was: bytes | None, causes: Sequence[str] = ()) -> Reading:
        owner = getattr(self, "of", self)
        step, owner.before_replace = owner.before_replace, None
        if step is not None:
            step()
        return super().replace(record, was=was, causes=causes)


class Site:
    """A site of several processes, all in this one."""

    def __init__(self) -> None:
        self.store = Meddled(site="shop", timeout=PATIENT)
        self.stack = ExitStack()

    def process(self, store: MemoryStore | None = None, *, begun: bool = True, **settings: Any) -> Switch:
        """Return another process's switch, as a rule one that has begun."""
        settings = {"interval": FAST, "role": "web", **settings}
        switch = Switch(store or self.store.peer(), **settings)
        self.stack.callback(switch.close)
        if begun:
            switch.start()
        return switch

    @property
    def stored(self) -> Record | None:
        """The record that stands."""
        raw = self.store.peer().read().record
        return None if raw is None else load(raw)

    def holds(self, found: Record | bytes | None) -> None:
        """Put a record there, whatever stands."""
        self.store._memory.record = dump(found) if isinstance(found, Record) else found


@pytest.fixture
def site() -> Iterator[Site]:
    """A site, writable, without processes."""
    site = Site()
    with site.stack:
        yield site


@pytest.fixture
def switch(site: Site) -> Switch:
    """Its first process, which has told of its beginning those who wanted to know."""
    switch = site.process()
    switch.members()
    return switch


def writes(switch: Switch) -> bool:
    """Try to write."""
    try:
        with switch.writing():
            return True
    except ReadOnlyError:
        return False


def threads() -> set[threading.Thread]:
    """Return our threads; what an earlier test has left may end at any time."""
    return {t for t in threading.enumerate() if t.name.startswith("readonly")}


# --- beginning and ending -------------------------------------------------------------------------------------------


def test_nothing_starts_when_it_is_constructed(site: Site) -> None:
    """No thread, no call to the store, no member; the first use starts it."""
    before = threads()
    site.store.break_()
    switch = site.process(site.store, begun=False)
    assert threads() <= before
    assert repr(switch) == "<Switch memory:// unknown>"
    site.store.mend()
    assert site.store.census().reports == ()
    assert switch.state.mode in (Mode.UNKNOWN, Mode.WRITABLE)
    eventually(lambda: switch.state.mode is Mode.WRITABLE)
    assert len(threads() - before) == 1


def test_the_first_write_waits_for_the_first_look(site: Site) -> None:
    """Not refused because the process just began, and not admitted unseen."""
    assert writes(site.process(begun=False))
    turn_on(site.store, ANN)
    assert not writes(site.process(begun=False))


def test_many_first_writes_at_once_make_one_member(site: Site) -> None:
    """Twenty threads, one thread of ours."""
    switch = site.process(begun=False)
    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(lambda _: writes(switch), range(20)))
    assert len(switch.members()) == 1


def test_a_closed_switch_starts_anew_as_another_member(switch: Switch) -> None:
    """Its old self has said goodbye; what it is then told it obeys."""
    (old,) = switch.members()
    switch.close()
    assert switch.view.admit_until == float("-inf")
    switch.close()
    assert writes(switch)
    found = {report.id: report.gone for report in switch.members()}
    assert found.pop(old.id) is True
    assert list(found.values()) == [False]
    switch.on(by="ann")
    assert not writes(switch)


def test_closing_ends_what_waits(site: Site, switch: Switch) -> None:
    """Nobody waits for a thread that is gone."""
    held = site.process()
    with held.writing(), ThreadPoolExecutor(1) as pool:
        epoch = switch.on(by="ann").epoch
        looked = threading.Event()
        waiting = pool.submit(switch.confirm, epoch, timeout=30, progress=lambda _: looked.set())
        assert looked.wait(60)
        switch.close()
        with pytest.raises(Error, match="closed"):
            waiting.result(60)


def test_the_role_is_what_was_said_first(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument, READONLY_ROLE, a middleware's word, `job`."""
    monkeypatch.delenv("READONLY_ROLE", raising=False)
    job = site.process(role=None)
    assert [report.role for report in job.members()] == ["job"]
    job.takes_role("web")
    job.takes_role("other")
    eventually(lambda: [report.role for report in job.members()] == ["web"])
    monkeypatch.setenv("READONLY_ROLE", "celery")
    cron = site.process(role=None)
    cron.takes_role("web")
    assert sorted(report.role for report in cron.members()) == ["celery", "web"]


# --- on and off -----------------------------------------------------------------------------------------------------


def test_on_is_obeyed_when_it_returns(site: Site, switch: Switch) -> None:
    """By this switch at once, by the others soon; `off` likewise."""
    other = site.process()
    state = switch.on(reason="disk", message="Back soon", expected=timedelta(hours=1), by="ann", sessions="keep")
    assert not writes(switch)
    assert (state.read_only, state.mode, state.epoch) == (True, Mode.READ_ONLY, 2)
    (found,) = state.causes
    assert (found.by, found.reason, found.message, found.sessions) == ("ann", "disk", "Back soon", "keep")
    assert state.expected_end is not None
    eventually(lambda: not writes(other))
    state = switch.off(by="ann")
    assert not state.read_only
    assert writes(switch)
    eventually(lambda: writes(other))


def test_off_says_what_still_stands(site: Site, switch: Switch) -> None:
    """Others' causes keep it closed, and are not lifted by accident."""
    switch.on(by="ann")
    turn_on(site.store, BOB)
    assert [c.by for c in switch.off(by="ann").causes] == ["bob"]
    with pytest.raises(NotYours):
        switch.off(by="ann")
    assert not switch.off(every=True, by="ann").read_only


def test_changes_fail_as_the_store_does(site: Site, switch: Switch) -> None:
    """By name; and the thread goes on."""
    switch.on(by="ann")
    switch.store.break_()  # type: ignore[attr-defined]
    with pytest.raises(StoreUnreachable):
        switch.off(by="ann")
    with pytest.raises(StoreUnreachable):
        switch.members()
    switch.store.mend()  # type: ignore[attr-defined]
    switch.off(by="ann")
    assert writes(switch)


def test_off_over_an_empty_store_opens_nothing(site: Site) -> None:
    """There is nothing that could be opened."""
    site.store.lose()
    switch = site.process()
    with pytest.raises(NoRecord):
        switch.off(by="ann")
    assert not writes(switch)


def test_a_lost_race_is_no_read_only_error(site: Site) -> None:
    """It says who was faster."""
    switch = site.process(site.store)
    switch.on(by="ann")
    site.store.before_replace = lambda: turn_on(site.store.peer(), BOB)
    with pytest.raises(LostRace) as lost:
        switch.off(by="ann")
    assert lost.value.by == "bob"
    assert not writes(switch)


@pytest.mark.parametrize("arguments", [{"sessions": "frozen"}, {"expected": timedelta(0)}])
def test_words_that_make_no_sense_change_nothing(switch: Switch, arguments: dict[str, Any]) -> None:
    """They are named."""
    with pytest.raises(ConfigurationError):
        switch.on(by="ann", **arguments)
    assert writes(switch)


def test_changes_may_be_asked_for_by_many_threads(site: Site, switch: Switch) -> None:
    """Ten people at once, on and off: nothing is lost, everybody is told."""
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda n: switch.on(by=f"p{n}"), range(10)))
        assert {c.by for c in switch.state.causes} == {f"p{n}" for n in range(10)}
        list(pool.map(lambda n: switch.off(by=f"p{n}"), range(10)))
    assert writes(switch)
    assert site.stored is not None
    assert (site.stored.epoch, site.stored.causes) == (21, ())


# --- a store that is away, or forgets -------------------------------------------------------------------------------


def test_a_process_that_begins_without_its_store_turns_writable_by_itself(site: Site) -> None:
    """It serves reads, refuses writes, says it is not synced; then it has read the state."""
    link = site.store.peer()
    link.break_()
    switch = site.process(link)
    assert (switch.state.synced, switch.state.mode, writes(switch)) == (False, Mode.UNKNOWN, False)
    assert switch.state.sessions("end") == "keep"
    link.mend()
    eventually(lambda: writes(switch))
    assert switch.state.synced


def test_boot_open_writes_without_its_store(site: Site) -> None:
    """In writing."""
    link = site.store.peer()
    link.break_()
    switch = site.process(link, boot="open")
    assert (switch.state.synced, writes(switch)) == (False, True)
    turn_on(site.store, ANN)
    link.mend()
    eventually(lambda: not writes(switch))


@pytest.mark.parametrize("closed", [True, False])
def test_a_store_that_is_emptied_is_filled_again(site: Site, switch: Switch, closed: bool) -> None:
    """Read-only it refuses all the time, writable it admits all the time; the record returns, awaited as an event."""
    if closed:
        switch.on(by="ann")
    assert site.stored is not None
    epoch = site.stored.epoch
    site.store.lose()
    wrong: list[bool] = []

    def returned() -> bool:
        wrong.append(writes(switch) is closed)
        return site.stored is not None

    eventually(returned, poll_seconds=0.001)
    assert not any(wrong)
    assert (site.stored.epoch >= epoch, bool(site.stored.causes), site.stored.partial) == (True, closed, False)


def test_an_emptied_store_whose_processes_are_all_new_stays_shut(site: Site) -> None:
    """And says how to go on."""
    site.process().on(by="ann")
    site.stack.close()
    site.store.lose()
    switch = site.process()
    assert not writes(switch)
    assert "readonlyctl init shop" in switch.state.reason


def test_a_process_that_begins_on_a_young_store_waits_for_those_who_know(site: Site, switch: Switch) -> None:
    """The store went back to before `on`: the new process takes no write until that was written back."""
    before = site.store.read().record
    switch.store.break_()  # type: ignore[attr-defined]
    turn_on(site.store, ANN)
    switch.store.mend()  # type: ignore[attr-defined]
    eventually(lambda: not writes(switch))
    switch.store.break_()  # type: ignore[attr-defined]
    eventually(lambda: switch._follower().problem != "")
    site.store.lose()
    site.holds(before)
    booted = site.process(interval=20.0)
    assert (writes(booted), booted.state.mode) == (False, Mode.UNKNOWN)
    switch.store.mend()  # type: ignore[attr-defined]
    eventually(lambda: booted.state.mode is Mode.READ_ONLY)


def test_a_store_that_hangs_delays_no_request(switch: Switch) -> None:
    """While somebody looked lately, a request reads attributes only."""
    switch.store.break_()  # type: ignore[attr-defined]
    follower = switch._follower()
    eventually(lambda: follower.problem != "")
    assert switch.monotonic() < switch.view.admit_until
    assert writes(switch)


# --- lease ----------------------------------------------------------------------------------------------------------


class SetClock:
    """A boot clock that a test moves; the wall clock is the machine's."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def boottime(self) -> float:
        return self.seconds


def test_nothing_is_admitted_after_the_lease(site: Site) -> None:
    """Handed-in time: one moment it admits, the next it does not, and with the store back it does."""
    clock, link = SetClock(), site.store.peer()
    switch = site.process(link, lease=30.0, clock=clock)
    assert writes(switch)
    link.break_()
    clock.seconds += 28.4
    assert writes(switch)
    clock.seconds += 0.2
    assert not writes(switch)
    assert "lease is over" in switch.state.reason
    link.mend()
    eventually(lambda: writes(switch))


def test_a_stopped_process_looks_again_before_it_writes(site: Site) -> None:
    """A laptop that slept: one inline heartbeat, and the write goes on, or is refused for what happened meanwhile."""
    clock = SetClock()
    # Its own thread waits meanwhile: who asks while that looks is told what was known before.
    switch = site.process(lease=30.0, interval=10.0, clock=clock)
    clock.seconds += 10_000
    assert writes(switch)
    turn_on(site.store, ANN)
    clock.seconds += 10_000
    assert not writes(switch)


# --- confirming -----------------------------------------------------------------------------------------------------


def test_safe_is_said_when_the_last_write_ended(site: Site, switch: Switch) -> None:
    """Three processes, one with a write in flight: it is waited for, named, and then it is safe at once."""
    others = [site.process() for _ in range(2)]
    seen: list[Confirmation] = []
    draining = threading.Event()

    def progress(found: Confirmation) -> None:
        seen.append(found)
        if [m.condition for m in found.members].count(Condition.OBEYS) == 2 and found.of(Condition.DRAINS):
            draining.set()

    with ThreadPoolExecutor(1) as pool:
        with others[0].writing():
            state = switch.on(by="ann")
            confirmed = pool.submit(switch.confirm, state.epoch, timeout=30, progress=progress)
            assert draining.wait(60)
            assert not confirmed.done()
            assert "1 write in flight" in " ".join(seen[-1].missing)
        found = confirmed.result(60)
    assert found.safe
    assert found.closing
    assert len(found.members) == 3
    assert found.causes == tuple(c.id for c in state.causes)
    assert not any(writes(one) for one in (switch, *others))


def test_the_end_of_the_last_write_is_reported_at_once(site: Site, switch: Switch) -> None:
    """Not at the next heartbeat, which may be far."""
    rare = site.process(interval=SELDOM)
    drains = threading.Event()

    def progress(found: Confirmation) -> None:
        if found.of(Condition.DRAINS):
            drains.set()

    with ThreadPoolExecutor(1) as pool:
        with rare.writing():
            confirmed = pool.submit(switch.confirm, switch.on(by="ann").epoch, timeout=60, progress=progress)
            assert drains.wait(60)
        assert confirmed.result(60).safe


def test_a_confirmation_that_runs_out_names_who_is_missing(site: Site) -> None:
    """It is read-only all the same."""
    switch, other = site.process(interval=SELDOM), site.process(interval=SELDOM)
    with other.writing():
        found = switch.confirm(switch.on(by="ann").epoch, timeout=0.2)
        assert not found.safe
        with pytest.raises(NotConfirmed) as error:
            found.require_safe()
    assert len(error.value.missing) == 1
    assert not writes(switch)


def test_a_process_that_is_cut_off_is_missing(site: Site, switch: Switch) -> None:
    """It has not seen the change: nobody may call that safe."""
    link = site.store.peer()
    other = site.process(link)
    link.break_()
    eventually(lambda: other.store_problem)  # and no heartbeat is under way that had begun before
    assert not switch.confirm(switch.on(by="ann").epoch, timeout=0.2).safe
    assert writes(other)
    link.mend()
    assert switch.confirm(timeout=20).safe
    assert not writes(other)


def test_writable_again_is_confirmed_too(site: Site, switch: Switch) -> None:
    """Every process has opened."""
    other = site.process()
    switch.confirm(switch.on(by="ann").epoch, timeout=20).require_safe()
    found = switch.confirm(switch.off(by="ann").epoch, timeout=20)
    assert (found.safe, found.closing) == (True, False)
    assert writes(other)


def test_a_confirmation_without_an_epoch_is_of_what_is_in_force(site: Site, switch: Switch) -> None:
    """Whoever set it."""
    assert switch.confirm(timeout=20).closing is False
    (mine,) = turn_on(site.store, ANN).causes
    eventually(lambda: switch.state.read_only)
    found = switch.confirm(timeout=20)
    assert (found.safe, found.closing, found.causes) == (True, True, (mine,))


def test_a_cause_that_was_lifted_meanwhile_is_never_safe(site: Site, switch: Switch) -> None:
    """Everybody is open, and agrees: that must not pass for the answer to `on`."""
    state = switch.on(by="ann")
    turn_off(site.store, BOB, cause=state.causes[0].id)
    eventually(lambda: writes(switch))
    found = switch.confirm(state.epoch, timeout=0.2)
    assert (found.safe, found.closing) == (False, True)
    assert "does not hold" in found.missing[0]


def test_a_cause_that_is_lifted_while_it_is_confirmed_is_never_safe(site: Site, switch: Switch) -> None:
    """Also for who asked for what is in force, and had set nothing."""
    (mine,) = turn_on(site.store, ANN).causes
    eventually(lambda: switch.state.read_only)
    other = site.process()
    looked = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        stack = ExitStack()
        lift_exactly(site.store, ANN, mine)
        eventually(lambda: writes(other))
        stack.enter_context(other.writing())
        (mine,) = turn_on(site.store, ANN).causes
        eventually(lambda: switch.state.read_only)
        waiting = pool.submit(switch.confirm, timeout=1.0, progress=lambda _: looked.set())
        assert looked.wait(60)
        lift_exactly(site.store, ANN, mine)
        stack.close()
        assert not waiting.result(20).safe


def test_an_epoch_that_never_comes_is_not_confirmed(switch: Switch) -> None:
    """An older record proves nothing about a newer one."""
    with pytest.raises(StoreUnreachable, match="older record"):
        switch.confirm(99, timeout=0.1)


def test_a_confirmation_restores_what_the_store_lost(site: Site) -> None:
    """While it waits it is a member of the memory; a registry that was lost with it proves nothing yet."""
    switch = site.process()
    other = site.process()
    lost = threading.Event()
    seen: list[Confirmation] = []

    def progress(found: Confirmation) -> None:
        seen.append(found)
        if not lost.is_set():
            lost.set()
            site.store.lose()

    with other.writing():
        state = switch.on(by="ann")
        switch.confirm(state.epoch, timeout=0.5, progress=progress)
        eventually(lambda: site.stored)
    assert site.stored is not None
    assert site.stored.cause(state.causes[0].id) is not None
    assert not any(found.safe for found in seen)


def test_a_process_on_probation_makes_nothing_whole_by_confirming(site: Site) -> None:
    """What a store too young to know has said closes others, and its record can't open (design rule 8)."""
    turn_on(site.store, ANN)
    raw = site.store.read().record
    site.store.lose()
    site.holds(raw)
    switch = site.process(site.store, interval=20.0)
    assert not switch.state.synced
    # Lost once more, between its heartbeat and its look: it is the look that writes back.
    site.store.before_census = site.store.lose
    assert not switch.confirm(timeout=0.2).safe
    assert site.stored is not None
    assert [c.by for c in site.stored.causes] == ["ann"]
    assert site.stored.partial


@pytest.mark.parametrize("closed", [True, False])
def test_what_the_store_can_lose_is_not_confirmed(site: Site, closed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that lacks it, a disk that does: it waits for them, and says so when they take too long."""
    switch = site.process(interval=SELDOM)
    lacking = ["the store can lose it"]

    def made_up(_: Confirmation) -> None:
        lacking.clear()
        site.store.hint()  # that somebody looks again

    monkeypatch.setattr(MemoryStore, "settled", lambda self, timeout: "".join(lacking))
    epoch = switch.on(by="ann").epoch if closed else None
    found = switch.confirm(epoch, timeout=0.1)
    assert (found.safe, found.closing, len(found.members)) == (False, closed, 1)
    assert found.missing[0].startswith("the store can lose it")
    with ThreadPoolExecutor(1) as pool:
        waited = pool.submit(switch.confirm, epoch, timeout=60, progress=made_up)
        assert waited.result(60).safe


def test_a_progress_that_fails_fails_the_caller(switch: Switch) -> None:
    """And not the thread."""

    def progress(_: Confirmation) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        switch.confirm(switch.on(by="ann").epoch, timeout=10, progress=progress)
    switch.off(by="ann")


def test_members_are_what_the_registry_holds(site: Site, switch: Switch) -> None:
    """Each once, with what it is."""
    site.process(role="celery", runs="shop 7")
    assert sorted((report.role, report.runs) for report in switch.members()) == [("celery", "shop 7"), ("web", "")]
    site.store.report("strange", b"?", keep_seconds=KEEP_SECONDS)
    assert "unreadable" in [report.role for report in switch.members()]


def test_an_inert_process_obeys_nothing_and_says_so(site: Site) -> None:
    """READONLY_DISABLED: it admits all, and nobody can call that safe."""
    switch, inert = site.process(interval=SELDOM), site.process(interval=SELDOM, inert=True)
    found = switch.confirm(switch.on(by="ann").epoch, timeout=0.5)
    assert writes(inert)
    assert inert.state.read_only is False
    assert not found.safe
    assert [m.condition for m in found.members if m.blocks] == [Condition.INERT]


# --- blocks ---------------------------------------------------------------------------------------------------------


def test_a_block_is_read_only_and_restores_what_it_found(site: Site, switch: Switch) -> None:
    """Confirmed inside; nested blocks each lift their own; an operator's cause stays."""
    other = site.process()
    with switch.read_only(reason="backup", timeout=20) as confirmed:
        assert confirmed.safe
        assert not writes(other)
        with switch.read_only(timeout=20):
            assert len(switch.state.causes) == 2
        assert not writes(switch)
        switch.on(by="ann")
    assert [c.kind for c in switch.state.causes] == ["operator"]
    switch.off(by="ann")
    assert writes(switch)


def test_a_block_that_fails_opens_again(switch: Switch) -> None:
    """Its exception goes on."""
    with pytest.raises(ZeroDivisionError), switch.read_only(timeout=20):
        raise ZeroDivisionError
    assert writes(switch)


def test_a_block_that_cannot_be_proven_does_not_begin(site: Site, switch: Switch) -> None:
    """Its cause is lifted again."""
    other = site.process()
    with other.writing(), pytest.raises(NotConfirmed), switch.read_only(timeout=0.2):
        pytest.fail("this was not to begin")
    assert writes(switch)


def test_a_block_that_somebody_lifts_does_not_begin(site: Site) -> None:
    """All processes agree that the site is open: that is no proof that it is closed."""
    switch = site.process(site.store)
    other = site.process()

    def lift() -> None:
        assert site.stored is not None
        (found,) = site.stored.causes
        lift_exactly(site.store.peer(), BOB, found.id)

    site.store.before_census = lift
    with pytest.raises(NotConfirmed), switch.read_only(timeout=0.5):
        pytest.fail("this was not to begin")
    assert site.store.before_census is None
    assert writes(switch)
    eventually(lambda: writes(other))


def test_a_block_ends_though_others_close_in_that_moment(site: Site) -> None:
    """It gives up its own cause; a lost race would leave it there for ever."""
    switch = site.process(site.store)
    with switch.read_only(timeout=20):
        site.store.before_replace = lambda: turn_on(site.store.peer(), BOB)
    assert [c.by for c in switch.state.causes] == ["bob"]
    assert [c.kind for c in switch.state.causes] == ["operator"]


@pytest.mark.parametrize("awaited", [False, True])
def test_a_block_that_ends_while_the_store_is_away_is_over_when_that_is_back(site: Site, awaited: bool) -> None:
    """It says that it could not open; nobody else would lift its cause."""
    switch = site.process(site.store)
    times = [3]

    def away() -> None:
        times[0] -= 1
        if times[0]:
            site.store.before_replace = away
        raise StoreUnreachable("the store did not answer")

    async def block() -> None:
        async with switch.aread_only(timeout=20):
            site.store.before_replace = away

    if awaited:
        with pytest.raises(StoreUnreachable):
            asyncio.run(block())
    else:
        with pytest.raises(StoreUnreachable), switch.read_only(timeout=20):
            site.store.before_replace = away
    assert eventually(lambda: not switch.state.read_only)
    assert times == [0]
    assert writes(switch)


def test_a_block_that_is_given_up_while_it_is_set_stays_open(site: Site) -> None:
    """A task that is cancelled in that moment: the cause is lifted all the same."""
    switch = site.process(site.store)
    entered, go = threading.Event(), threading.Event()

    def held() -> None:
        entered.set()
        go.wait(60)

    async def main() -> None:
        async def block() -> None:
            async with switch.aread_only(timeout=20):
                pytest.fail("this was not to begin")

        site.store.before_replace = held
        task = asyncio.ensure_future(block())
        await asyncio.to_thread(entered.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        await eventually_async(lambda: site.stored is not None and site.stored.epoch == 3)

    asyncio.run(main())
    eventually(lambda: writes(switch))


# --- callbacks ------------------------------------------------------------------------------------------------------


def test_callbacks_are_told_each_change(switch: Switch) -> None:
    """In the switch's thread; one given twice is called twice, one stopped no more."""
    told: list[tuple[str, bool, str]] = []

    def callback(state: State) -> None:
        told.append(("", state.read_only, threading.current_thread().name))

    stop, stop_other = switch.on_change(callback), switch.on_change(callback)
    switch.on(by="ann")
    eventually(lambda: len(told) == 2)
    stop()
    stop()
    switch.off(by="ann")
    eventually(lambda: len(told) == 3)
    stop_other()
    switch.on(by="ann")
    switch.members()
    assert [closed for _, closed, _ in told] == [True, True, False]
    assert {name for _, _, name in told} == {"readonly-follower"}


def test_a_callback_may_change_the_state(switch: Switch) -> None:
    """It runs in the thread that would have to do it: no dead end."""
    opened = threading.Event()

    def callback(state: State) -> None:
        if state.read_only:
            switch.off(by="ann")
        else:
            opened.set()

    switch.on_change(callback)
    switch.on(by="ann")
    assert opened.wait(60)
    eventually(lambda: writes(switch))


def test_a_callback_that_waits_is_told_that_it_cannot(switch: Switch) -> None:
    """At once, and the thread goes on."""
    failures: list[Exception] = []
    done = threading.Event()

    def callback(_: State) -> None:
        try:
            switch.confirm(timeout=60)
        except Error as error:
            failures.append(error)
        done.set()

    stop = switch.on_change(callback)
    switch.on(by="ann")
    assert done.wait(60)
    stop()
    assert "callback" in str(failures[0])
    switch.off(by="ann")


def test_a_callback_that_fails_is_logged(switch: Switch, caplog: pytest.LogCaptureFixture) -> None:
    """The next one is called all the same."""
    told = threading.Event()

    def fails(_: State) -> None:
        raise ZeroDivisionError

    switch.on_change(fails)
    switch.on_change(lambda _: told.set())
    with caplog.at_level(logging.ERROR, "readonly"):
        switch.on(by="ann")
        assert told.wait(60)
    assert "a callback for changes failed" in caplog.text


def test_callbacks_from_many_threads_are_all_kept(switch: Switch) -> None:
    """Jobs that wait for the opening register at the same moment; none may be lost."""
    told: list[int] = []
    start = threading.Barrier(16)

    def register(n: int) -> list[Callable[[], None]]:
        start.wait(60)
        return [switch.on_change(lambda _: told.append(n)) for _ in range(200)]

    with ThreadPoolExecutor(16) as pool:
        stops = [stop for each in pool.map(register, range(16)) for stop in each]
        switch.on(by="ann")
        eventually(lambda: len(told) == 16 * 200)
        list(pool.map(lambda stop: stop(), stops))
    switch.off(by="ann")
    switch.members()
    assert len(told) == 16 * 200


# --- waiting for the opening ----------------------------------------------------------------------------------------


def test_consumers_wait_until_the_site_is_writable(switch: Switch) -> None:
    """At once where it is, for as long as they said where it is not."""
    assert switch.wait_writable(0)
    switch.on(by="ann")
    assert not switch.wait_writable(0.05)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(switch.wait_writable, 30) for _ in range(8)]
        eventually(lambda: len(switch._callbacks) == 8)
        switch.off(by="ann")
        assert all(one.result(60) for one in waiting)
    assert not len(switch._callbacks)


def test_work_that_waits_goes_on_when_the_site_opens(switch: Switch) -> None:
    """Sync and async, in the same process."""
    switch.on(by="ann")

    def sync() -> bool:
        with switch.writing(wait=30):
            return True

    async def awaited() -> bool:
        async with switch.writing(wait=30):
            return True

    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(sync), pool.submit(lambda: asyncio.run(awaited()))]
        eventually(lambda: len(switch._callbacks) == 2)
        switch.off(by="ann")
        assert [one.result(60) for one in waiting] == [True, True]


# --- async ----------------------------------------------------------------------------------------------------------


def test_the_async_twins_do_the_same(site: Site) -> None:
    """On, confirm, a block, off; the loop goes on while the store is asked."""
    other = site.process()
    switch = site.process(site.store)
    asked, ticked = threading.Event(), threading.Event()
    went_on: list[bool] = []

    def slow() -> None:
        asked.set()
        went_on.append(ticked.wait(60))

    async def main() -> None:
        async def tick() -> None:
            await eventually_async(asked.is_set)
            ticked.set()

        ticking = asyncio.ensure_future(tick())
        site.store.before_replace = slow
        state = await switch.aon(by="ann")
        assert state.read_only
        await ticking
        with pytest.raises(ReadOnlyError):
            async with switch.writing():
                pytest.fail("this was not to begin")
        found = await switch.aconfirm(state.epoch, timeout=20)
        assert found.safe
        assert not (await switch.aoff(by="ann")).read_only
        async with switch.aread_only(timeout=20) as confirmed:
            assert confirmed.safe
            assert not writes(other)
        async with switch.writing():
            assert switch.inflight.count() == 1
        assert await switch.await_writable(0)

    asyncio.run(main())
    assert went_on == [True]


def test_a_first_async_write_does_not_block_the_loop(site: Site) -> None:
    """The first look is made in another thread."""
    switch = site.process(begun=False)

    async def main() -> None:
        async with switch.writing():
            assert switch.inflight.count() == 1

    asyncio.run(main())


def test_changes_can_be_iterated(switch: Switch) -> None:
    """The state now, and again after each change; what comes in between may be skipped, the last never is."""

    async def main() -> list[bool]:
        seen: list[bool] = []
        states = switch.changes()
        async for state in states:
            seen.append(state.read_only)
            if len(seen) == 1:
                await switch.aon(by="ann")
            elif len(seen) == 2:
                await switch.aoff(by="ann")
            elif not state.read_only:
                break
        await states.aclose()  # type: ignore[attr-defined]
        return seen

    seen = asyncio.run(main())
    assert seen[0] is False
    assert seen[-1] is False
    assert True in seen
    assert not len(switch._callbacks)
    switch.on(by="ann")


def test_whoever_gives_up_confirming_disturbs_nobody(site: Site, switch: Switch) -> None:
    """The task is cancelled; the thread goes on, and forgets the question."""
    other = site.process()

    async def main() -> None:
        looked = asyncio.Event()
        loop = asyncio.get_running_loop()

        def progress(_: Confirmation) -> None:
            loop.call_soon_threadsafe(looked.set)

        with other.writing():
            state = await switch.aon(by="ann")
            task = asyncio.ensure_future(switch.aconfirm(state.epoch, timeout=60, progress=progress))
            await looked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await eventually_async(lambda: not switch._follower()._errands.awaited)
        await switch.aoff(by="ann")

    asyncio.run(main())
    assert writes(switch)


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"boot": "half"}, "boot="),
        ({"interval": 0}, "interval="),
        ({"interval": -1}, "interval="),
        ({"interval": float("nan")}, "interval="),
        ({"interval": float("inf")}, "interval="),
        ({"lease": 2.9}, "lease="),
        ({"lease": float("nan")}, "lease="),
        ({"lease": float("inf")}, "lease="),
    ],
)
def test_a_setting_that_cannot_be_right_is_named(settings: dict[str, Any], named: str) -> None:
    """When the switch is made, not at night."""
    with pytest.raises(ConfigurationError, match=named):
        Switch(MemoryStore(), **settings)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "READONLY_STORE"),
        ({"READONLY_STORE": ""}, "READONLY_STORE"),
        ({"READONLY_STORE": "postgresql://db/shop"}, "READONLY_STORE"),
        ({"READONLY_STORE": "redis://host/0"}, "READONLY_STORE.*site="),
        ({"READONLY_LEASE": "soon"}, "READONLY_LEASE"),
        ({"READONLY_LEASE": "1"}, "READONLY_LEASE"),
        ({"READONLY_LEASE": "-5"}, "READONLY_LEASE"),
        ({"READONLY_LEASE": "nan"}, "READONLY_LEASE"),
        ({"READONLY_LEASE": "inf"}, "READONLY_LEASE"),
        ({"READONLY_BOOT": "ajar"}, "READONLY_BOOT"),
        ({"READONLY_DISABLED": "perhaps"}, "READONLY_DISABLED"),
    ],
)
def test_a_variable_that_cannot_be_right_is_named(environ: dict[str, str], named: str) -> None:
    """By the name that was typed."""
    with pytest.raises(ConfigurationError, match=named):
        Switch.from_env({"READONLY_STORE": "memory://?site=shop", **environ} if environ else {})


def test_the_environment_makes_a_switch() -> None:
    """All of it."""
    made = Switch.from_env(
        {
            "READONLY_STORE": "memory://?site=shop",
            "READONLY_LEASE": "30",
            "READONLY_BOOT": "open",
            "READONLY_RUNS": "shop 1",
            "READONLY_ROLE": "celery",
            "READONLY_DISABLED": "1",
        }
    )
    assert made.site == "shop"
    found, role = made._settings, made._telling.role
    assert (found.lease, found.boot, found.runs, found.inert, role) == (30.0, "open", "shop 1", True, "celery")


@pytest.mark.parametrize(
    ("word", "inert"),
    [("", False), ("0", False), ("no", False), (" False ", False), ("1", True), ("YES", True), ("on", True)],
)
def test_a_process_is_disabled_by_a_word_of_a_closed_list(
    word: str, inert: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The word "0" is never "on"; a switch that is made by URL obeys the variable, too."""
    assert Switch.from_env({"READONLY_STORE": "memory://", "READONLY_DISABLED": word})._settings.inert is inert
    monkeypatch.setenv("READONLY_DISABLED", word)
    assert Switch.from_url("memory://")._settings.inert is inert


# --- local causes and guards ----------------------------------------------------------------------------------------


def test_a_primary_found_read_only_closes_this_process_alone(site: Site, switch: Switch) -> None:
    """Until it is over; the record is not touched."""
    other = site.process()
    before = site.stored
    switch.detected("main", "the primary is read-only")
    assert not writes(switch)
    assert writes(other)
    eventually(lambda: ("the primary is read-only",) in [report.local for report in switch.members()])
    switch.detected("main", None)
    assert writes(switch)
    assert site.stored == before


def test_a_guard_must_prove_itself_before_it_is_safe(site: Site, switch: Switch) -> None:
    """A write that it let through is named; its name is its own."""

    class Guard:
        name = "main"
        proof = "a write was let through"

        def prove(self) -> str:
            return self.proof

        def describe(self) -> dict[str, str]:
            return {"server": "db1"}

    guard = Guard()
    switch.add_guard(guard)
    with pytest.raises(ConfigurationError, match="'main' is taken"):
        switch.add_guard(Guard())
    assert switch.guarded
    epoch = switch.on(by="ann").epoch
    eventually(lambda: "a write was let through" in " ".join(switch.confirm(epoch, timeout=0.2).missing))
    switch.off(by="ann")
    guard.proof = ""
    assert switch.confirm(switch.on(by="ann").epoch, timeout=20).safe
    switch.remove_guard(guard)
    assert not switch.guarded


def test_starting_over_an_empty_store_says_what_to_do(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """In the log of the process."""
    site.holds(None)
    with caplog.at_level(logging.WARNING, "readonly"):
        site.process()
    assert "readonlyctl init shop" in caplog.text


def test_a_record_that_cannot_be_read_refuses_writes(site: Site, switch: Switch) -> None:
    """By every process, and for as long as it stands."""
    site.holds(dump(record(epoch=9)).replace(b'"v":1', b'"v":2'))
    eventually(lambda: not writes(switch))
    assert "upgrade readonly-mode" in switch.state.reason


def test_another_store_is_another_site() -> None:
    """Nothing of the old one is known there, and the old one is as it was when it is used again."""
    switch = Switch.from_url("memory://?site=shop")
    old, new = switch.store, MemoryStore("memory://?site=other", site="other")
    try:
        first = switch.on()
        assert switch.confirm(first.epoch, timeout=10).safe
        switch.use(new)
        switch.start()
        assert (switch.site, switch.state.mode) == ("other", Mode.WRITABLE)
        second = switch.on()
        assert second.epoch == first.epoch
        # By its own causes, though another store had an epoch of that number.
        assert switch.confirm(second.epoch, timeout=10).safe
        switch.use(old)
        switch.start()
        assert switch.state.epoch == first.epoch
        assert switch.state.causes == first.causes
    finally:
        switch.close()
