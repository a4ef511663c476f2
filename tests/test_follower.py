"""One process's following, without its thread: each heartbeat is made by hand, and time stands still in between."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from readonly.changes import Operator, turn_off, turn_on
from readonly.errors import StoreUnreachable
from readonly.follower import Follower, Settings, View, funerals
from readonly.follower.contact import KEEP_SECONDS, NEW_CAP_SECONDS
from readonly.follower.heartbeat import ROUNDS
from readonly.hostfile import HostFile
from readonly.inflight import InFlight
from readonly.members import Report
from readonly.record import Mode, Record
from readonly.record_format import dump, load
from readonly.state import State
from readonly.stores import SILENT_AT_MOST, Reading
from readonly.stores.memory import MemoryStore
from support.records import cause, minutes, record, window
from support.waiting import eventually

ANN, BOB = Operator("ann", "desk-1"), Operator("bob", "desk-2")
START = datetime(2026, 5, 1, 12, tzinfo=UTC)


class SetClock:
    """Wall clock and boot clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def boottime(self) -> float:
        return self.seconds


class Watched(MemoryStore):
    """A store that notes what is done with it, and lets others be faster."""

    def __init__(self, clock: SetClock) -> None:
        super().__init__(site="shop", clock=clock)

    def holds(self, found: Record | bytes | None) -> None:
        """Put a record there, whatever stands."""
        self._memory.record = dump(found) if isinstance(found, Record) else found

    @property
    def stored(self) -> Record | None:
        """The record that stands."""
        raw = self.read().record
        return None if raw is None else load(raw)


class Linked:
    """What one process has of a store: counts reports, and calls `before` ahead of each call that it names."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.url, self.site, self.timeout = store.url, store.site, store.timeout
        self.reports_sent: list[tuple[Report, bool]] = []
        self.replaced: list[bytes] = []
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.closed = 0

    def _step(self, name: str) -> None:
        step = self.before.pop(name, None)
        if step is not None:
            step()

    def report(self, member: str, report: bytes, *, keep_seconds: float, **rest: Any) -> Reading:
        self._step("report")
        assert keep_seconds == KEEP_SECONDS
        self.reports_sent.append((Report.load(member, report), rest.get("announce", False)))
        reading = self._store.report(member, report, keep_seconds=keep_seconds, **rest)
        step = self.after.pop("report", None)
        if step is not None:
            step()
        return reading

    def replace(self, record: bytes, *, was: bytes | None, causes: Sequence[str] = ()) -> Reading:
        self._step("replace")
        self.replaced.append(record)
        return self._store.replace(record, was=was, causes=causes)

    def wait(self, timeout: float, *, for_reports: bool = False, member: str = "") -> bool:
        self._step("wait")
        return self._store.wait(timeout, for_reports=for_reports, member=member)

    def reopened(self) -> Linked:
        return self

    def close(self) -> None:
        self.closed += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Process:
    """One process of the site, whose heartbeats are made by the test."""

    def __init__(
        self,
        store: MemoryStore,
        clock: SetClock,
        *,
        memory: HostFile | None = None,
        monotonic: Callable[[], float] | None = None,
        **settings: Any,
    ) -> None:
        self.link = Linked(store.peer())
        self.clock = clock
        self.view = View()
        self.inflight = InFlight()
        self.states: list[State] = []
        self.guards: tuple[Guard, ...] = ()
        self.follower = Follower(
            self.link,
            view=self.view,
            inflight=self.inflight,
            settings=Settings(**settings),
            clock=clock,
            monotonic=monotonic or clock.boottime,
            describe=lambda: {"host": "web-1", "role": "web"},
            guards=lambda: self.guards,
            changed=self.states.append,
            memory=memory or HostFile("memory://", "shop", None),
            after=lambda _: self.afterwards(),
        )
        self.afterwards: Callable[[], None] = lambda: None

    def beat(self) -> Process:
        """Make one heartbeat, now."""
        self.follower._heart.beat_safely(self.link)
        return self

    def admits(self) -> bool:
        """Tell what a request would be told: the quick look, else the slow one without I/O."""
        if self.clock.boottime() < self.view.admit_until:
            return True
        self.follower.republish()
        return not self.view.state.read_only

    @property
    def mode(self) -> Mode:
        return self.view.state.mode

    @property
    def proof(self) -> str:
        """What would be reported of its guard by now."""
        return self.follower._proofs.told(read_only=True)[0].proof

    @property
    def last(self) -> Report:
        """What the registry holds of it."""
        return self.link.reports_sent[-1][0]


@pytest.fixture
def clock() -> SetClock:
    """Noon."""
    return SetClock()


@pytest.fixture
def store(clock: SetClock) -> Watched:
    """A store that is old, and writable."""
    return Watched(clock)


@pytest.fixture
def process(store: Watched, clock: SetClock) -> Process:
    """A process that has not begun."""
    return Process(store, clock)


# --- the first look -------------------------------------------------------------------------------------------------


def test_a_process_is_a_member_before_it_admits_a_write(process: Process) -> None:
    """Registering and reading are one round trip; before it nothing is admitted (design rule 7)."""
    assert not process.admits()
    assert (process.mode, process.view.open) == (Mode.UNKNOWN, False)
    admitted: list[bool] = []
    process.link.before["report"] = lambda: admitted.append(process.admits())
    process.beat()
    assert admitted == [False]
    assert process.admits()
    assert process.view.open
    first, last = process.link.reports_sent[0][0], process.last
    assert (first.closed, first.synced, last.closed, last.synced) == (True, False, False, True)
    assert [announced for _, announced in process.link.reports_sent] == [True, True]


def test_a_reading_by_another_way_makes_no_member(process: Process, store: Watched) -> None:
    """What `on` or `off` read opens nobody who has not reported."""
    process.follower.apply(store.read())
    assert not process.admits()
    process.beat()
    assert process.admits()


def test_a_store_that_was_never_reached_refuses_writes_and_heals_by_itself(process: Process) -> None:
    """The state is unknown, says why, and ends no session; then the store is there."""
    process.link.break_()
    process.beat()
    assert (process.mode, process.admits()) == (Mode.UNKNOWN, False)
    assert "was never reached" in process.view.state.reason
    assert "cut by a test" in process.view.state.reason
    process.link.mend()
    process.beat()
    assert (process.mode, process.admits()) == (Mode.WRITABLE, True)


def test_boot_open_admits_until_the_store_was_reached_once(store: Watched, clock: SetClock) -> None:
    """Over an empty store it is worth nothing (protocol C17)."""
    process = Process(store, clock, boot="open")
    process.link.break_()
    assert process.beat().admits()
    assert not process.view.state.synced
    process.link.mend()
    store.holds(None)
    assert not process.beat().admits()
    process.link.break_()
    assert not process.beat().admits()


def test_boot_open_obeys_what_the_process_detected(store: Watched, clock: SetClock) -> None:
    """A primary found read-only is no matter of the store."""
    process = Process(store, clock, boot="open")
    process.link.break_()
    process.beat()
    process.follower.detected("main", "the primary is read-only")
    assert not process.admits()


def test_an_empty_store_is_unknown_and_the_command_is_named(process: Process, store: Watched) -> None:
    """Design rule 1; no write-back comes from who knows nothing."""
    store.holds(None)
    process.beat()
    assert (process.mode, process.admits(), process.link.replaced) == (Mode.UNKNOWN, False, [])
    assert "readonlyctl init shop" in process.view.state.reason


def test_a_young_store_is_on_probation(process: Process, store: Watched, clock: SetClock) -> None:
    """Who boots takes no "writable" from it before it is two intervals old; a cause at once (design rule 8)."""
    raw = store.read().record
    store.lose()
    store.holds(raw)
    process.beat()
    assert (process.mode, process.admits()) == (Mode.UNKNOWN, False)
    clock.seconds += 1.9
    assert not process.beat().admits()
    turn_on(store, ANN)
    process.beat()
    assert process.mode is Mode.READ_ONLY
    turn_off(store, ANN)
    clock.seconds += 0.2
    assert process.beat().admits()


def test_who_knew_stays_open_on_a_young_store(process: Process, store: Watched) -> None:
    """A restart that kept the record shuts nobody out."""
    process.beat()
    raw = store.read().record
    store.lose()
    store.holds(raw)
    assert process.beat().admits()


# --- a process that others do not know of yet ----------------------------------------------------------------


def test_a_new_process_admits_no_write_before_another_one_knows_of_it(
    process: Process, store: Watched, clock: SetClock
) -> None:
    """Else nobody would miss it, should it stand still and the store forget it (design rule 7)."""
    assert process.beat().admits(), "nobody else is there"
    new = Process(store, clock)
    assert not new.beat().admits()
    assert (new.mode, new.last.closed, new.last.synced) == (Mode.UNKNOWN, True, False)
    assert "only just begun" in new.view.state.reason
    assert not new.beat().admits()
    process.beat()
    assert new.follower.member in process.follower._contact.others.neighbours
    assert new.beat().admits()
    assert (new.last.closed, new.last.synced) == (False, True)


def test_an_answer_that_was_lost_makes_nobody_remember(process: Process, store: Watched, clock: SetClock) -> None:
    """A report is not enough: it is the next one that says who is remembered."""
    process.beat()
    new = Process(store, clock).beat()

    def lost() -> None:
        raise StoreUnreachable("cut by a test")

    process.link.after["report"] = lost
    process.beat()
    assert process.follower._contact.others.neighbours == ()
    assert not new.beat().admits()
    process.beat()
    assert new.beat().admits()


def test_a_new_process_does_not_wait_for_ever(process: Process, store: Watched, clock: SetClock) -> None:
    """One that stands still is not alive any more after a while: nobody else could have been told by then."""
    process.beat()
    new = Process(store, clock).beat()
    clock.seconds += 3.9
    assert not new.beat().admits()
    clock.seconds += 0.2
    assert new.beat().admits()


def test_of_two_new_processes_the_first_admits_and_the_second_waits_for_it(store: Watched, clock: SetClock) -> None:
    """However many begin at once, none waits for one that came later."""
    first, second, third = (Process(store, clock).beat() for _ in range(3))
    assert [process.admits() for process in (first, second, third)] == [True, False, False]
    # One that is new itself is as good as any for knowing of another: nobody waits for the first one.
    assert [process.beat().admits() for process in (second, third)] == [True, True]


def test_a_store_that_was_emptied_shows_nobody_and_proves_nothing(
    process: Process, store: Watched, clock: SetClock
) -> None:
    """Others may not have reported to it yet: to be alone there is no reason to begin."""
    process.beat()
    new = Process(store, clock).beat()
    store.lose()
    assert not new.beat().admits()
    clock.seconds += 1.9
    assert not new.beat().admits()
    process.beat()
    assert new.beat().admits()


def test_one_that_others_know_of_goes_on_whatever_the_store_forgets(process: Process, store: Watched) -> None:
    """They have it in mind from then on: it need not wait again."""
    process.beat()
    store.lose()
    assert process.beat().admits()


def test_a_dead_process_of_the_same_host_holds_nobody_up(
    process: Process, store: Watched, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server starts another one in its place before it is silent."""
    process.beat()
    clock.seconds += 0.5
    new = Process(store, clock).beat()
    monkeypatch.setattr(funerals, "is_gone", lambda report: report.id == process.follower.member)
    # It looks for the dead when it has waited for a while.
    while new.follower._contact.new_pause < NEW_CAP_SECONDS:
        assert new.follower._patience() <= NEW_CAP_SECONDS
    new.beat()
    assert new.beat().admits()


# --- obeying --------------------------------------------------------------------------------------------------------


def test_a_change_is_obeyed_and_reported_in_one_heartbeat(process: Process, store: Watched) -> None:
    """The view is swapped, the count is read after that, and only then is it sent (protocol 1.12)."""
    process.beat()
    key = process.inflight.begin()
    (mine,) = turn_on(store, ANN).causes
    sent = len(process.link.reports_sent)
    process.beat()
    assert not process.admits()
    old, new = (report for report, _ in process.link.reports_sent[sent:])
    assert (old.closed, old.causes) == (False, ())
    assert (new.closed, new.causes, new.in_flight, new.epoch) == (True, (mine,), 1, 2)
    assert new.counter == old.counter + 1
    process.inflight.end(key)
    process.beat()
    assert (process.last.in_flight, process.link.reports_sent[-1][1]) == (0, True)


def test_a_write_that_slips_in_while_the_view_is_swapped_is_counted(process: Process, store: Watched) -> None:
    """Whatever was admitted before the report that says "closed" is in that report."""
    process.beat()
    turn_on(store, ANN)
    # The request counts, looks, and is admitted between the reading and its taking in.
    admitted: list[bool] = []

    def write() -> None:
        process.inflight.begin()
        admitted.append(process.admits())

    process.link.after["report"] = write
    process.beat()
    assert admitted == [True]
    assert (process.last.closed, process.last.in_flight) == (True, 1)


def test_what_is_refused_is_not_waited_for(process: Process, store: Watched) -> None:
    """Writes that come after the closing are counted, look and are refused: they hold up no drain."""
    process.beat()
    admitted = process.inflight.begin()
    turn_on(store, ANN)
    process.beat()
    refused = process.inflight.begin()
    process.inflight.end(admitted)
    process.beat()
    assert process.last.in_flight == 0
    process.inflight.end(refused)


def test_who_is_stopped_lets_go_of_nothing_that_is_watched(process: Process, store: Watched) -> None:
    """Its thread may outlive it, in a call that hangs, and the switch be used again: then another one watches it."""
    process.beat()
    admitted = process.inflight.begin()
    turn_on(store, ANN)
    process.beat()
    refused = process.inflight.begin()
    process.follower.stop(0)
    turn_off(store, ANN)
    process.beat()
    assert process.inflight.keys() == {admitted}
    assert not process.view.open
    process.inflight.end(refused)


def test_a_lift_opens(process: Process, store: Watched) -> None:
    """And is reported at once, for those who wait for it."""
    turn_on(store, ANN)
    process.beat()
    turn_off(store, ANN)
    process.beat()
    assert process.admits()
    assert (process.last.closed, process.last.causes, process.link.reports_sent[-1][1]) == (False, (), True)


def test_nothing_new_is_one_quiet_report(process: Process) -> None:
    """An idle process costs one round trip, and wakes nobody."""
    process.beat()
    for _ in range(3):
        sent = len(process.link.reports_sent)
        process.beat()
        assert [announced for _, announced in process.link.reports_sent[sent:]] == [False]


def test_a_busy_writable_process_wakes_nobody(process: Process) -> None:
    """Its count is 0 at one look and 9 at the next; only of a closed one anybody waits for it."""
    process.beat()
    keys: list[object] = []
    for _ in range(4):
        sent = len(process.link.reports_sent)
        process.link.after["report"] = lambda: (
            keys.append(process.inflight.begin()) if not keys else process.inflight.end(keys.pop())
        )
        process.beat()
        assert [announced for _, announced in process.link.reports_sent[sent:]] == [False]


def test_a_heartbeat_ends_though_everything_changes_all_the_time(process: Process, store: Watched) -> None:
    """A bounded number of rounds; the rest is for the next one."""
    process.beat()
    names = iter(range(1000))

    def change() -> None:
        turn_on(store, Operator(f"p{next(names)}", "x"))
        process.link.before["report"] = change

    process.link.before["report"] = change
    sent = len(process.link.reports_sent)
    process.beat()
    assert len(process.link.reports_sent) - sent == ROUNDS


# --- a store that forgets --------------------------------------------------------------------------------------------


def test_a_lost_record_returns_while_read_only(process: Process, store: Watched) -> None:
    """FLUSHALL: no write is accepted, the record comes back byte for byte."""
    turn_on(store, ANN)
    process.beat()
    before = store.read().record
    store.lose()
    process.beat()
    assert store.read().record == before
    assert not process.admits()
    assert store.census().reading.here_since.keys() == {c.id for c in load(before or b"").causes}


def test_a_lost_record_returns_while_writable(process: Process, store: Watched) -> None:
    """Nothing is refused meanwhile."""
    process.beat()
    before = store.read().record
    store.lose()
    process.link.before["replace"] = lambda: admitted.append(process.admits())
    admitted: list[bool] = []
    process.beat()
    assert (admitted, process.admits(), store.read().record) == ([True], True, before)


def test_an_on_over_an_emptied_store_is_joined_by_who_knew(process: Process, store: Watched) -> None:
    """It was partial and could not open; with what the process knew it is whole again (design rule 5)."""
    process.beat()
    store.lose()
    (mine,) = turn_on(store, ANN).causes
    process.beat()
    assert store.stored is not None
    assert (store.stored.partial, [c.id for c in store.stored.causes]) == (False, [mine])
    assert not process.admits()


def test_a_write_back_that_loses_its_race_is_not_forced(process: Process, store: Watched) -> None:
    """By compare-and-set; what the faster one wrote is taken in at once."""
    turn_on(store, ANN)
    process.beat()
    store.lose()
    process.link.before["replace"] = lambda: turn_on(store, BOB)
    process.beat()
    process.beat()
    assert store.stored is not None
    assert {c.by for c in store.stored.causes} == {"ann", "bob"}
    assert {c.by for c in process.view.state.causes} == {"ann", "bob"}


def test_a_regressed_store_gets_back_what_it_lost(process: Process, store: Watched) -> None:
    """A failover that lost `on`: the process goes on refusing, and the epoch rises above both."""
    before = store.read().record
    turn_on(store, ANN)
    process.beat()
    store.holds(before)
    turn_on(store, BOB)
    turn_off(store, BOB)
    process.beat()
    assert store.stored is not None
    assert ([c.by for c in store.stored.causes], store.stored.epoch) == (["ann"], 4)
    assert not process.admits()


def test_members_of_one_site_agree_after_a_loss(store: Watched, clock: SetClock) -> None:
    """Five of them, each with a part: what one knew all know, and nobody writes for ever."""
    processes = [Process(store, clock) for _ in range(5)]
    for n, one in enumerate(processes):
        turn_on(store, Operator(f"p{n}", "x"))
        one.beat()
    store.lose()
    for _ in range(3):
        for one in processes:
            one.beat()
    written = [len(one.link.replaced) for one in processes]
    for one in processes:
        one.beat()
        assert {c.by for c in one.view.state.causes} == {f"p{n}" for n in range(5)}
    assert [len(one.link.replaced) for one in processes] == written


def test_members_of_a_lost_registry_are_asked_after(process: Process, store: Watched, clock: SetClock) -> None:
    """Until they have reported again; no longer than a silent member would have been remembered."""
    store.report("zzz", b"{}", keep_seconds=KEEP_SECONDS)
    process.beat()
    store.lose()
    process.beat().beat()
    assert process.last.knew == ("zzz",)
    clock.seconds += KEEP_SECONDS - 1
    assert process.beat().last.knew == ("zzz",)
    clock.seconds += 2
    assert process.beat().beat().last.knew == ()
    store.lose()
    process.beat()
    store.report("zzz", b"{}", keep_seconds=KEEP_SECONDS)
    assert process.beat().beat().last.knew == ()


def test_a_lost_registry_is_told_at_once_whom_a_process_knew(process: Process, store: Watched) -> None:
    """The first report was built before the loss was known; the second one follows in the same heartbeat."""
    store.report("zzz", b"{}", keep_seconds=KEEP_SECONDS)
    process.beat()
    store.lose()
    sent = len(process.link.reports_sent)
    process.beat()
    told = process.link.reports_sent[sent:]
    assert [report.knew for report, _ in told] == [(), ("zzz",)]
    assert [announced for _, announced in told] == [False, True]
    assert told[0][0].registry != told[1][0].registry == store.census().reading.registry


@pytest.mark.parametrize("partial", [True, False])
def test_the_record_is_whole_only_when_the_registry_knows(process: Process, store: Watched, partial: bool) -> None:
    """Who writes it back says first whom it knew: a whole record tells everybody that nobody is missing."""
    store.report("zzz", b"{}", keep_seconds=KEEP_SECONDS)
    process.beat()
    store.lose()
    if partial:
        turn_on(store, ANN)
    knew: list[Any] = []
    process.link.before["replace"] = lambda: knew.append(process.last.knew)
    process.beat()
    assert knew == [("zzz",)]
    assert store.stored is not None
    assert not store.stored.partial


def test_a_cause_goes_back_into_a_whole_record_at_once(process: Process, store: Watched) -> None:
    """A failover that lost it: who boots in that moment must find it."""
    before = store.read().record
    turn_on(store, ANN)
    process.beat()
    store.lose()
    store.holds(before)
    sent = len(process.link.reports_sent)
    rounds: list[int] = []
    process.link.before["replace"] = lambda: rounds.append(len(process.link.reports_sent) - sent)
    process.beat()
    assert rounds == [1]


def test_every_silent_member_is_looked_at_in_turn(
    process: Process, store: Watched, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds on other hosts, whose death can't be seen from here, do not hide the one that can."""
    dead = Report(id="dead", host="web-1", pid=7, role="web")
    monkeypatch.setattr(funerals, "is_gone", lambda report: report.id == "dead")
    store.report("dead", dead.dump(), keep_seconds=KEEP_SECONDS)
    for n in range(2 * SILENT_AT_MOST):
        clock.seconds += 0.001
        store.report(f"m{n}", replace(dead, id=f"m{n}").dump(), keep_seconds=KEEP_SECONDS)
    looks = []
    for _ in range(4):
        clock.seconds += 3600.0
        process.beat()
        found = {seen.member: Report.load(seen.member, seen.report).found_gone for seen in store.census().reports}
        looks.append([name for name in found if found[name]])
    assert looks == [[], [], ["dead"], ["dead"]]
    # It is over, and may have begun something: known to all, looked for by nobody.
    assert "dead" not in {seen.member for seen in store.silent(longer_than=0.0, shorter_than=1e9)}
    assert store._memory.ended == {"dead"}


def test_last_words_to_a_new_registry_are_said_again(process: Process, store: Watched) -> None:
    """With whom the process knew in the lost one: it will not be there to ask after them."""
    store.report("zzz", b"{}", keep_seconds=KEEP_SECONDS)
    process.beat()
    process.follower._heart.say_goodbye(process.link)
    assert [report.gone for report, _ in process.link.reports_sent[-2:]] == [False, True]
    store.lose()
    process.follower._heart.say_goodbye(process.link)
    first, last = (report for report, _ in process.link.reports_sent[-2:])
    assert (first.gone, first.knew, last.gone, last.knew) == (True, (), True, ("zzz",))
    assert last.registry == store.census().reading.registry


# --- what can't be read ---------------------------------------------------------------------------------------------


def test_an_unreadable_record_closes_and_stays(
    process: Process, store: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, as an error; no session ends; a record that can be read opens again."""
    process.beat()
    good = store.read().record
    newer = dump(record(epoch=9)).replace(b'"v":1', b'"v":2')
    store.holds(newer)
    with caplog.at_level(logging.ERROR, "readonly"):
        process.beat().beat()
    assert (process.mode, process.admits(), store.read().record) == (Mode.READ_ONLY, False, newer)
    assert process.view.state.sessions("end") == "keep"
    assert sum("version 2" in line for line in caplog.messages) == 1
    assert process.last.local
    assert process.last.causes == ()
    store.lose()
    process.beat()
    assert store.read().record == newer
    store.holds(good)
    assert process.beat().admits()


def test_another_sites_record_closes_and_stays(process: Process, store: Watched) -> None:
    """A wrong URL must not open one site by another's record, nor close the other."""
    process.beat()
    store.holds(record(site="blog", epoch=9))
    process.beat()
    assert not process.admits()
    assert (process.link.replaced, "'blog'" in process.view.state.reason) == ([], True)


# --- a store that is away --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [True, False])
def test_a_store_that_goes_away_changes_nothing(
    process: Process, store: Watched, clock: SetClock, closed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a lease the last state stays (design rule 9); one log line for each change of condition."""
    if closed:
        turn_on(store, ANN)
    process.beat()
    process.link.break_()
    with caplog.at_level(logging.WARNING, "readonly"):
        for _ in range(5):
            clock.seconds += 1000
            assert process.beat().admits() is not closed
        process.link.mend()
        process.beat()
    assert len(caplog.messages) == 2
    assert "keeps what it knew" in caplog.messages[0]
    assert "answers again" in caplog.messages[1]


def test_a_fault_of_ours_is_survived(process: Process, store: Watched, caplog: pytest.LogCaptureFixture) -> None:
    """A heartbeat that fails otherwise ends nothing: the next one follows."""
    process.beat()

    def fails() -> None:
        raise ZeroDivisionError

    process.link.before["report"] = fails
    process.beat()
    assert "a heartbeat failed" in caplog.text
    turn_on(store, ANN)
    assert not process.beat().admits()


def test_what_follows_a_heartbeat_ends_no_thread(
    process: Process, store: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong with a line for the history, or with what is counted: the process goes on obeying."""

    def fails() -> None:
        raise ZeroDivisionError

    process.afterwards = fails
    process.beat()
    assert "what follows a heartbeat failed" in caplog.text
    assert process.admits()
    turn_on(store, ANN)
    assert not process.beat().admits()


# --- lease ----------------------------------------------------------------------------------------------------------

LEASE = 10.0


@pytest.fixture
def leased(store: Watched, clock: SetClock) -> Process:
    """A process with a lease of ten seconds, that has begun."""
    return Process(store, clock, lease=LEASE).beat()


def test_nothing_is_admitted_when_the_lease_has_run_out(leased: Process, clock: SetClock) -> None:
    """Neither by the quick look nor by the slow one; a little earlier than others may believe."""
    leased.link.break_()
    clock.seconds = LEASE * 0.95 - 0.001
    leased.beat()
    assert leased.admits()
    clock.seconds = LEASE * 0.95 + 0.001
    assert not leased.admits()
    assert leased.mode is Mode.UNKNOWN
    assert "lease is over" in leased.view.state.reason


def test_the_lease_is_counted_from_when_it_was_sent(leased: Process, clock: SetClock) -> None:
    """Not from when the answer came (protocol C11)."""

    def slow() -> None:
        clock.seconds += 4.0

    leased.link.after["report"] = slow
    leased.beat()
    leased.link.break_()
    clock.seconds = LEASE * 0.95 + 0.001
    leased.beat()
    assert not leased.admits()


def test_only_an_accepted_heartbeat_renews_the_lease(leased: Process, store: Watched, clock: SetClock) -> None:
    """No reading does: an isolated old master answers reads (protocol C10)."""
    clock.seconds = 9.0
    leased.follower.apply(store.read())
    clock.seconds = LEASE
    leased.follower.apply(store.read())
    assert not leased.admits()


def test_a_lease_that_is_renewed_never_runs_out(leased: Process, clock: SetClock) -> None:
    """For hours."""
    for _ in range(1000):
        clock.seconds += LEASE / 3
        assert leased.beat().admits()


def test_a_lapsed_process_comes_back_by_itself(leased: Process, clock: SetClock) -> None:
    """With a whole record from the store."""
    leased.link.break_()
    clock.seconds = 1000.0
    assert not leased.beat().admits()
    leased.link.mend()
    assert leased.beat().admits()


def test_a_lapsed_process_restores_no_writable_record(leased: Process, store: Watched, clock: SetClock) -> None:
    """Protocol C12: the store was emptied while it was cut off; its "writable" is worth nothing."""
    leased.link.break_()
    clock.seconds = 1000.0
    leased.beat()
    store.lose()
    leased.link.mend()
    clock.seconds += 100
    leased.beat()
    assert (store.read().record, leased.admits(), leased.mode) == (None, False, Mode.UNKNOWN)


def test_a_lapsed_process_still_closes(leased: Process, store: Watched, clock: SetClock) -> None:
    """What it knew of causes goes back, in a record that can't open."""
    turn_on(store, ANN)
    leased.beat()
    leased.link.break_()
    clock.seconds = 1000.0
    leased.beat()
    assert leased.mode is Mode.READ_ONLY
    store.lose()
    leased.link.mend()
    leased.beat()
    assert store.stored is not None
    assert store.stored.partial
    assert [c.by for c in store.stored.causes] == ["ann"]


def test_a_lapsed_process_is_on_probation_with_a_young_store(leased: Process, store: Watched, clock: SetClock) -> None:
    """Others may know more (design rule 8)."""
    raw = store.read().record
    leased.link.break_()
    clock.seconds = 1000.0
    leased.beat()
    store.lose()
    store.holds(raw)
    leased.link.mend()
    assert not leased.beat().admits()
    clock.seconds += 2.1
    assert leased.beat().admits()


def test_a_lease_is_reported_three_times_as_often_as_it_runs_out(store: Watched, clock: SetClock) -> None:
    """However many members there are."""
    process = Process(store, clock, lease=4.0)
    for n in range(200):
        store.report(f"m{n}", b"{}", keep_seconds=KEEP_SECONDS)
    process.beat()
    assert process.follower.interval == pytest.approx(4.0 / 3)
    assert process.last.lease == 4.0


def test_reports_grow_rarer_with_the_number_of_members(store: Watched, clock: SetClock) -> None:
    """Twenty-five a second together; of those who are there, not of all that were there this week."""
    process = Process(store, clock)
    assert process.beat().follower.interval == 1.0
    for n in range(999):
        store.report(f"m{n}", b"{}", keep_seconds=KEEP_SECONDS)
    assert process.beat().follower.interval == pytest.approx(1000 / 25)
    assert process.beat().last.interval == pytest.approx(1000 / 25)
    clock.seconds += 3600.0
    assert process.beat().follower.interval == 1.0
    assert len(store.census().reports) == 1000


# --- windows --------------------------------------------------------------------------------------------------------


def test_a_window_closes_at_its_start_though_nobody_looked(store: Watched, clock: SetClock) -> None:
    """The quick look ends there: no thread, no store and no heartbeat is needed."""
    begins = START + timedelta(seconds=2)
    store.holds(record(windows=(window(start=begins, end=begins + minutes(1)),), changed_at=START))
    process = Process(store, clock).beat()
    clock.seconds = 1.99
    assert process.admits()
    clock.seconds = 2.0
    assert not process.admits()
    assert [c.id for c in process.view.state.causes] == ["w1"]
    assert process.beat().last.causes == ("w1",)


def test_a_window_never_opens_by_the_clock(store: Watched, clock: SetClock) -> None:
    """Past its end, marked by nobody, with the store away: closed."""
    planned = record(windows=(window(start=START - minutes(10), end=START + minutes(1)),), changed_at=START)
    store.holds(planned)
    process = Process(store, clock).beat()
    process.link.break_()
    clock.seconds = 100_000.0
    assert not process.beat().admits()
    process.link.mend()
    (found,) = planned.windows
    store.holds(replace(planned, windows=(replace(found, ended=True),), epoch=6, id="r6"))
    assert process.beat().admits()


def test_windows_go_by_the_stores_clock(store: Watched, clock: SetClock) -> None:
    """A process whose own clock is behind closes with the others."""
    behind = SetClock()
    behind.seconds = -300.0
    begins = START + timedelta(seconds=2)
    store.holds(record(windows=(window(start=begins, end=begins + minutes(1)),), changed_at=START))
    process = Process(store, clock)
    process.follower.time.clock = behind
    process.beat()
    assert process.admits()
    behind.seconds += 2
    clock.seconds += 2
    assert not process.admits()


# --- what one process sees alone -------------------------------------------------------------------------------------


def test_a_detected_cause_closes_this_process_alone(process: Process, store: Watched) -> None:
    """It is in its report, never in the record, and ends when its cause does (design rule 15)."""
    process.beat()
    before = store.read().record
    process.follower.detected("main", "the primary is read-only")
    assert not process.admits()
    process.beat()
    assert (process.last.closed, process.last.causes, process.last.local) == (True, (), ("the primary is read-only",))
    assert store.read().record == before
    since = process.view.state.since
    process.follower.detected("main", "still")
    assert process.view.state.since == since
    process.follower.detected("main", None)
    assert process.admits()
    process.follower.detected("main", None)


def test_a_detected_cause_overrides_no_operator(process: Process, store: Watched) -> None:
    """Its end opens nothing that somebody closed."""
    turn_on(store, ANN)
    process.beat()
    process.follower.detected("main", "the primary is read-only")
    process.follower.detected("main", None)
    assert not process.admits()


# --- guards ---------------------------------------------------------------------------------------------------------


class Guard:
    """A database guard that proves itself when it is let."""

    name = "main"

    def __init__(self, proof: str | Exception = "") -> None:
        self.proof = proof
        self.proved = 0

    def prove(self) -> str:
        self.proved += 1
        if isinstance(self.proof, Exception):
            raise self.proof
        return self.proof

    def describe(self) -> Mapping[str, Any]:
        return {"server": "db1"}


@pytest.mark.parametrize(
    ("proof", "said"),
    [("", ""), ("a write was let through", "a write was let through"), (OSError("x"), "could not be tried: x")],
)
def test_a_guard_proves_itself_each_time_the_site_closes(
    process: Process, store: Watched, proof: str | Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In a thread of its own; until then it is pending, and while writable nothing is asked."""
    guard = Guard(proof)
    process.guards = (guard,)
    process.beat()
    assert (guard.proved, process.last.guards[0].proof) == (0, "")
    for times in (1, 2):
        turn_on(store, ANN)
        process.beat()
        eventually(
            lambda: process.follower._proofs.told(read_only=True)[0].proof != "pending", what="the guard was tried"
        )
        process.beat()
        assert (process.last.guards[0].proof, process.last.guards[0].server) == (said, {"server": "db1"})
        assert guard.proved == times
        turn_off(store, ANN)
        process.beat()


# --- looking for oneself ---------------------------------------------------------------------------------------------


def test_a_request_looks_for_itself_when_nobody_did(process: Process, store: Watched, clock: SetClock) -> None:
    """Where no thread runs between requests."""
    assert process.follower._contact.stale()
    process.follower.refresh()
    assert process.admits()
    turn_on(store, ANN)
    process.follower.refresh()
    assert process.admits()
    clock.seconds += process.follower._contact.stale_after + 0.01
    assert clock.boottime() > process.view.admit_until
    process.follower.refresh()
    assert not process.admits()


def test_one_request_looks_at_a_time(store: Watched, clock: SetClock) -> None:
    """The others wait for it, bounded, and go on with what it found."""
    process = Process(store, clock)
    entered, go = threading.Event(), threading.Event()

    def held() -> None:
        entered.set()
        go.wait(60)

    process.link.before["report"] = held
    threads = [threading.Thread(target=process.follower.refresh) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert entered.wait(60)
    go.set()
    for thread in threads:
        thread.join(60)
    assert len({report.counter for report, _ in process.link.reports_sent}) == len(process.link.reports_sent) == 2
    assert process.admits()


def test_a_request_that_must_wait_too_long_goes_on_refused(store: Watched, clock: SetClock) -> None:
    """A store that hangs holds up no request for longer than its timeout."""
    process = Process(store, clock)
    process.link.timeout = 0.01
    entered, go = threading.Event(), threading.Event()

    def held() -> None:
        entered.set()
        go.wait(60)

    process.link.before["report"] = held
    thread = threading.Thread(target=process.follower.refresh)
    thread.start()
    assert entered.wait(60)
    process.follower.refresh()
    assert not process.admits()
    assert process.link.reports_sent == [], "the other one still hangs"
    go.set()
    thread.join(60)
    assert process.admits()


# --- the thread -----------------------------------------------------------------------------------------------------


@pytest.fixture
def running(store: Watched, clock: SetClock) -> Iterator[Process]:
    """A process whose thread runs, by the machine's clock."""
    process = Process(store, clock, monotonic=time.monotonic, interval=0.02)
    process.follower.ensure()
    eventually(lambda: process.mode is Mode.WRITABLE)
    yield process
    process.follower.stop(60)


def test_a_process_reports_at_once_for_one_that_is_new(store: Watched, clock: SetClock) -> None:
    """It is asked to: the next report by itself may be half a minute away."""
    old = Process(store, clock, interval=3600.0)
    old.follower.ensure()
    try:
        eventually(lambda: old.view.open, what="it has begun")
        # Held up, or it may have answered before the new one has looked for the second time.
        go = threading.Event()
        old.link.before["report"] = lambda: go.wait(60)
        new = Process(store, clock)
        assert not new.beat().admits()
        go.set()
        eventually(lambda: new.beat().admits(), what="the other one has said that it knows of it")
    finally:
        old.follower.stop(60)


def test_requests_of_a_new_process_wait_until_others_know_of_it(store: Watched, clock: SetClock) -> None:
    """As they wait for its first look: a moment later they are admitted, not refused."""
    other = Process(store, clock).beat()
    new = Process(store, clock, interval=0.01)
    new.follower.ensure()
    try:
        eventually(lambda: len(new.link.reports_sent) > 3, what="it looks again and again")
        assert not new.follower.tried.is_set()
        other.beat()
        assert new.follower.tried.wait(60)
        assert new.admits()
    finally:
        new.follower.stop(60)


def test_whoever_gives_up_waiting_does_not_end_the_thread(running: Process, store: Watched) -> None:
    """A cancelled task cancels the future in the very moment that its answer, or its failure, comes."""

    class Look:
        """One that lasts until whoever asked has given up."""

        def __init__(self, *, fails: bool) -> None:
            self.fails = fails
            self.begun, self.given_up = threading.Event(), threading.Event()

        def __call__(self, _store: object) -> int:
            self.begun.set()
            self.given_up.wait(60)
            if self.fails:
                raise KeyError
            return 1

    for fails in (True, False):
        look = Look(fails=fails)
        future: Future[Any] = running.follower.watch_for(look, 60)
        assert look.begun.wait(60)
        assert future.cancel()
        look.given_up.set()
    sent = len(running.link.reports_sent)
    eventually(lambda: len(running.link.reports_sent) > sent + 2, what="the thread goes on")
    assert running.follower.submit(lambda _: 5).result(60) == 5


def test_a_store_that_fails_to_wait_does_not_end_the_thread(running: Process, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises: the record is read at an interval all the same."""
    failed = threading.Event()

    def fails() -> None:
        failed.set()
        raise ZeroDivisionError

    running.link.before["wait"] = fails
    assert failed.wait(60)
    sent = len(running.link.reports_sent)
    eventually(lambda: len(running.link.reports_sent) > sent, what="the thread goes on")
    assert "waiting for hints failed" in caplog.text


def test_stopping_shuts_the_view_for_good(running: Process) -> None:
    """Also if a heartbeat was just about to open it."""

    class Opening(View):
        """Has `stop` called while the view is being opened."""

        __slots__ = ()

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "open" and value and not follower._contact.stopping:
                follower._contact.stopping = True
                super().shut()
            super().__setattr__(name, value)

    follower = running.follower
    running.view = Opening()
    follower._publisher._view = running.view
    follower.republish()
    assert not running.view.open
    assert running.clock.boottime() >= running.view.admit_until == float("-inf")


def test_the_last_words_are_a_goodbye(running: Process, store: Watched) -> None:
    """With what is in flight; connections are closed, nothing is admitted."""
    running.inflight.begin()
    running.follower.stop(60)
    assert (running.last.gone, running.last.in_flight, running.link.reports_sent[-1][1]) == (True, 1, True)
    assert running.link.closed == 1
    assert running.view.admit_until == float("-inf")
    assert not running.view.open


def test_a_goodbye_that_cannot_be_said_ends_all_the_same(running: Process) -> None:
    """The store is away."""
    running.link.break_()
    running.follower.stop(60)
    assert running.link.closed == 1


def test_a_thread_that_cannot_be_started_is_done_without(
    store: Watched, clock: SetClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests look for themselves; it is said once."""

    def refuses(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    process = Process(store, clock)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuses)
        process.follower.ensure()
        process.follower.ensure()
        process.follower.refresh()
    assert process.admits()
    assert len([line for line in caplog.messages if "no thread could be started" in line]) == 1


def test_unreachable_is_what_the_store_says(store: Watched) -> None:
    """The fault that the tests above lean on."""
    store.break_()
    with pytest.raises(StoreUnreachable):
        store.read()


# --- the host's memory -----------------------------------------------------------------------------------------------


def test_a_host_remembers_a_cause_and_opens_nothing(store: Watched, clock: SetClock, tmp_path: Any) -> None:
    """All processes restarted after a FLUSHALL: the cause comes back, in a record that can't open."""

    def remembering() -> HostFile:
        return HostFile("redis://flag/0", "shop", tmp_path)

    turn_on(store, ANN)
    Process(store, clock, memory=remembering()).beat()
    store.lose()
    clock.seconds += 100
    process = Process(store, clock, memory=remembering()).beat()
    assert process.mode is Mode.READ_ONLY
    assert store.stored is not None
    assert store.stored.partial
    assert [c.by for c in store.stored.causes] == ["ann"]


def test_a_host_that_remembers_writable_waits_for_init(store: Watched, clock: SetClock, tmp_path: Any) -> None:
    """Its memory opens nothing."""

    def remembering() -> HostFile:
        return HostFile("redis://flag/0", "shop", tmp_path)

    Process(store, clock, memory=remembering()).beat()
    store.lose()
    clock.seconds += 100
    process = Process(store, clock, memory=remembering()).beat()
    assert (process.mode, process.admits(), store.read().record) == (Mode.UNKNOWN, False, None)


def test_a_host_that_slept_too_long_has_forgotten(store: Watched, clock: SetClock, tmp_path: Any) -> None:
    """Older than tombstones are kept: the cause it remembers may have been lifted, and nobody knows that any more."""
    turn_on(store, ANN)
    memory = HostFile("redis://flag/0", "shop", tmp_path)
    Process(store, clock, memory=memory).beat()
    assert memory.path is not None
    for days, mode in ((89, Mode.READ_ONLY), (91, Mode.UNKNOWN)):
        then = (clock.now() - timedelta(days=days)).timestamp()
        os.utime(memory.path, (then, then))
        process = Process(store, clock, memory=HostFile("redis://flag/0", "shop", tmp_path))
        process.link.break_()
        assert process.beat().mode is mode


def test_a_known_cause_closes_before_the_store_is_reached(store: Watched, clock: SetClock, tmp_path: Any) -> None:
    """The host's memory is read first; `boot="open"` does not overrule it."""
    turn_on(store, ANN)
    Process(store, clock, memory=HostFile("redis://flag/0", "shop", tmp_path)).beat()
    process = Process(store, clock, memory=HostFile("redis://flag/0", "shop", tmp_path), boot="open")
    process.link.break_()
    assert not process.beat().admits()
    assert process.mode is Mode.READ_ONLY


def test_the_view_of_a_cause_that_was_made_elsewhere_is_the_record(process: Process, store: Watched) -> None:
    """What a request reads is what the store said."""
    store.holds(record(cause("c7", message="Back at one"), epoch=3, changed_at=START))
    process.beat()
    assert (process.view.state.message, process.view.state.epoch) == ("Back at one", 3)
