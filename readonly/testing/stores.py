"""The contract that authors of stores inherit.

Needs pytest to run, and imports nothing of it.
"""

# ruff: noqa: S101 - these are tests
from __future__ import annotations

import os
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, timedelta
from typing import ClassVar

from ..stores import NEIGHBOURS_AT_MOST, SILENT_AT_MOST, Newcomer, Reading, Store

# How long a test waits for something that must happen; it is there much sooner, or the test fails. Much longer than
# anything takes that does happen, also on a machine that stands still for a while.
PATIENCE_SECONDS = 30.0
# How long a test waits for something that must not happen.
QUIET_SECONDS = 0.15
# For how long members are alive by their own word: longer than a test takes.
ALIVE_SECONDS = 600.0
NEW = Newcomer()


class StoreContract:
    """What every store does; inherit it as `class TestMyStore(StoreContract)` and give `make_store`.

    Each test has a new store of its own. Whether it begins with a record is the store's affair.

    Attributes:
        between_processes: Whether a forked child sees the same store.
    """

    between_processes: ClassVar[bool] = True

    def make_store(self) -> Store:
        """Return a handle on a new store. Called once a test; the other handles are reopened from it."""
        raise NotImplementedError

    # --- the record ---------------------------------------------------------------------------------------

    def test_what_was_put_is_read_byte_for_byte(self) -> None:
        """A record is bytes: also those that no version of the library can read come back unchanged."""
        with self._opened() as store:
            for record in (b"{}", b"", bytes(range(256)), "ä\u2028\0".encode() * 5000):
                assert put(store, record).record == record
                assert store.read().record == record
                assert store.reopened().read().record == record

    def test_reading_changes_nothing(self) -> None:
        """A look is not a membership and not a record."""
        with self._opened() as store:
            first = store.read()
            assert store.read().record == first.record
            assert store.census().reports == ()
            assert store.census().reading.record == first.record

    def test_readings_carry_the_stores_clock(self) -> None:
        """The clock is UTC, and goes on."""
        with self._opened() as store:
            first, second = store.read(), put(store, b"1")
            assert first.at.utcoffset() == timedelta(0)
            assert first.at <= second.at <= first.at + timedelta(seconds=60)

    def test_a_record_is_replaced_only_where_the_expected_one_stands(self) -> None:
        """The loser of a race changes nothing and is told what stands."""
        with self._opened() as store:
            put(store, b"1")
            for wrong in (b"0", b"", b"1 ", None):
                assert store.replace(b"2", was=wrong).record == b"1"
            assert store.read().record == b"1"
            assert store.replace(b"2", was=b"1").record == b"2"
            assert store.read().record == b"2"

    def test_of_racing_changes_none_is_lost(self) -> None:
        """Threads with handles of their own count to a number together, by compare-and-set."""
        with self._opened() as store:
            put(store, b"")
            threads = [threading.Thread(target=count_up, args=(store.reopened(), 25)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert counted(store) == 100

    def test_a_lost_race_keeps_the_time_of_causes(self) -> None:
        """A change that was refused does not touch what the store knows of causes."""
        with self._opened() as store:
            put(store, b"1", "a")
            before = store.census().reading.here_since
            assert store.replace(b"2", was=b"0", causes=["b"]).record == b"1"
            assert store.census().reading.here_since == before

    def test_the_store_knows_since_when_it_holds_a_cause(self) -> None:
        """A cause that stays keeps its time, a new one gets one, one that left and came back begins anew."""
        with self._opened() as store:
            put(store, b"1", "a")
            first = store.census().reading
            assert set(first.here_since) == {"a"}
            assert first.at - timedelta(seconds=60) <= first.here_since["a"] <= first.at
            tick(store)
            put(store, b"2", "a", "b")
            second = store.census().reading.here_since
            assert second["a"] == first.here_since["a"] < second["b"]
            put(store, b"3", "b")
            assert store.census().reading.here_since == {"b": second["b"]}
            tick(store)
            put(store, b"4", "a", "b")
            assert store.census().reading.here_since["a"] > second["b"]

    def test_an_incarnation_grows_older(self) -> None:
        """Nothing but a loss makes a store young."""
        with self._opened() as store:
            store.report("m", b"{}", keep_seconds=60)
            first = store.read().incarnation_seconds
            assert 0 <= first <= store.reopened().read().incarnation_seconds

    # --- members ------------------------------------------------------------------------------------------

    def test_a_report_registers_and_reads_in_one_step(self) -> None:
        """What a report returns is the record, and the member is on the registry."""
        with self._opened() as store:
            put(store, b"1")
            reading = store.report("m1", b'{"a":1}', keep_seconds=60)
            assert (reading.record, reading.members) == (b"1", 1)
            assert store.reopened().report("m2", b"\xff\0", keep_seconds=60).members == 2
            census = store.census()
            assert census.reading.record == b"1"
            assert {seen.member: seen.report for seen in census.reports} == {"m1": b'{"a":1}', "m2": b"\xff\0"}
            assert all(seen.at.tzinfo == UTC and seen.at <= census.reading.at for seen in census.reports)

    def test_a_report_replaces_the_members_last_one(self) -> None:
        """One member, one report, and the time of the last one."""
        with self._opened() as store:
            store.report("m", b"1", keep_seconds=60)
            (first,) = store.census().reports
            tick(store)
            store.report("m", b"2", keep_seconds=60)
            (second,) = store.census().reports
            assert second.report == b"2"
            assert second.at > first.at

    def test_members_go_by_being_forgotten(self) -> None:
        """Forgetting takes off that member alone, and an unknown one is no error."""
        with self._opened() as store:
            store.report("m1", b"1", keep_seconds=60)
            store.report("m2", b"2", keep_seconds=60)
            store.forget("m1")
            store.forget("nobody")
            assert [seen.member for seen in store.census().reports] == ["m2"]
            assert store.read().members == 1
            tick(store)
            assert [seen.member for seen in store.silent(longer_than=0.0, shorter_than=60.0)] == ["m2"]

    def test_who_was_forgotten_by_a_person_is_remembered(self) -> None:
        """Also one that is not registered: it may be asked after by those who knew it in a lost registry."""
        with self._opened() as store:
            store.report("m1", b"1", keep_seconds=60)
            store.forget("m1")
            store.forget("of a lost registry")
            assert store.census().forgotten == {"m1", "of a lost registry"}

    def test_each_member_is_told_a_few_others(self) -> None:
        """The next ones in a ring by id; nobody who has left, been forgotten, or fallen silent and been dropped."""
        with self._opened() as store:
            for name in ("a", "b", "c", "d", "e"):
                alive(store, name)
            assert alive(store, "a").neighbours == ("b", "c", "d")
            assert alive(store, "d").neighbours == ("e", "a", "b")
            store.report("e", b"{}", keep_seconds=60, leaves=True)
            store.forget("a")
            assert alive(store, "d").neighbours == ("b", "c")
            alive(store, "e")
            assert alive(store, "d").neighbours == ("e", "b", "c")

    def test_no_dead_neighbour_hides_one_that_is_alive(self) -> None:
        """Who has ended or fallen silent is remembered for what it may have begun, and remembers nobody itself."""
        with self._opened() as store:
            for name in ("d", "e", "f", "g"):
                store.report(name, b"{}", keep_seconds=60, ended=True)
            for name in ("h", "i", "k", "l", "b"):
                alive(store, name)
            assert alive(store, "c").neighbours == tuple("defghik")
            # Nobody has spoken within so short a time: all are silent, and all are remembered.
            tick(store)
            found = store.report("k", b"{}", keep_seconds=60, alive_seconds=0.001)
            assert found.neighbours == tuple("lbcdefghi")

    def test_a_crowd_of_the_dead_is_remembered_up_to_a_bound(self) -> None:
        """An answer does not grow with all that ever died."""
        with self._opened() as store:
            names = [f"m{number:03}" for number in range(NEIGHBOURS_AT_MOST + 5)]
            for name in names:
                store.report(name, b"{}", keep_seconds=60, ended=True)
            assert store.report("a", b"{}", keep_seconds=60).neighbours == tuple(names[:NEIGHBOURS_AT_MOST])
            assert store.report("m100", b"{}", keep_seconds=60).neighbours[:5] == (*names[101:], "a")

    def test_who_fell_silent_can_be_asked_for(self) -> None:
        """Those that have been silent for so long, and not longer; not those that are known to have ended."""
        with self._opened() as store:
            store.report("silent", b"1", keep_seconds=60)
            store.report("left", b"2", keep_seconds=60, leaves=True)
            store.report("ended", b"2", keep_seconds=60, ended=True)
            tick(store)
            (found,) = store.silent(longer_than=0.0, shorter_than=60.0)
            assert (found.member, found.report) == ("silent", b"1")
            assert found.at.tzinfo == UTC
            assert store.silent(longer_than=50.0, shorter_than=60.0) == ()
            store.report("ended", b"3", keep_seconds=60)
            tick(store)
            assert len(store.silent(longer_than=0.0, shorter_than=60.0)) == 2

    def test_the_last_that_fell_silent_is_asked_for_first(self) -> None:
        """However many ended before it; and where there are more than fit, who asks on is told the others."""
        with self._opened() as store:
            for number in range(SILENT_AT_MOST):
                store.report(f"m{number}", b"1", keep_seconds=60, ended=True, leaves=number % 2 == 0)
            for name in ("n0", "n1", "n2"):
                tick(store)
                store.report(name, b"1", keep_seconds=60)
            tick(store)
            found = store.silent(longer_than=0.0, shorter_than=60.0)
            assert [seen.member for seen in found] == ["n2", "n1", "n0"]
            rest = store.silent(longer_than=0.0, shorter_than=60.0, before=found[0].at)
            assert [seen.member for seen in rest] == ["n1", "n0"]
            for number in range(SILENT_AT_MOST):
                store.report(f"m{number}", b"1", keep_seconds=60)
            tick(store)
            assert len(store.silent(longer_than=0.0, shorter_than=60.0)) == SILENT_AT_MOST

    def test_one_registry_has_one_name(self) -> None:
        """It stays the same for every member for as long as nothing is lost."""
        with self._opened() as store:
            names = {store.report(name, b"{}", keep_seconds=60).registry for name in ("a", "b", "a")}
            assert len(names) == 1
            assert names != {""}
            # What members name in their reports is held against what a census says.
            assert store.census().reading.registry in names
            assert store.reopened().report("c", b"{}", keep_seconds=60).registry in names

    def test_a_new_member_is_noted_once_another_one_names_it(self) -> None:
        """Not by its own reports, however often it asks, nor by others' that do not name it; and then for good."""
        with self._opened() as store:
            alive(store, "b")
            assert not alive(store, "a", new=NEW).noted
            assert alive(store.reopened(), "b", names=["c"]).noted
            assert not alive(store, "a", new=NEW).noted
            assert alive(store.reopened(), "b", names=["c", "a"]).neighbours == ("a",)
            assert alive(store, "a", new=NEW).noted
            assert alive(store, "a", new=NEW).noted

    def test_a_new_member_that_is_alone_is_noted_at_once(self) -> None:
        """Beside those that have ended, too; not in a registry that others may not have reported to yet."""
        with self._opened() as store:
            store.report("left", b"1", keep_seconds=60, leaves=True)
            store.report("ended", b"1", keep_seconds=60, ended=True)
            young = Newcomer(young_seconds=1e9)
            assert store.report("a", b"1", keep_seconds=60, new=young).noted == (
                store.read().incarnation_seconds == float("inf")
            )
            assert store.report("a", b"1", keep_seconds=60, new=NEW).noted

    def test_whoever_is_alive_has_reported_after_so_long(self) -> None:
        """Then a new member that nobody has named holds up nothing any more."""
        with self._opened() as store:
            # From before it reports: the answer's time may be a moment after the one that the store goes by.
            until = store.read().at + timedelta(seconds=QUIET_SECONDS)
            alive(store, "b", alive_seconds=QUIET_SECONDS)
            # By b's own word, whatever the new one takes for long.
            found = alive(store, "a", alive_seconds=0.001, new=NEW)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not found.noted:
                assert time.monotonic() < deadline
                alive(store, "c")
                tick(store)
                found = alive(store, "a", new=NEW)
            early = until - found.at
            assert early <= timedelta(milliseconds=2), early  # cut to milliseconds, both of them

    def test_those_before_a_new_member_are_asked_to_report(self) -> None:
        """At once, since it waits for them; nobody else is."""
        with self._opened() as store:
            for name in ("b", "c", "d", "e"):
                alive(store, name)
            settle(store, member="b")
            waiter = Waiter(store, member="b")
            alive(store.reopened(), "a", new=NEW)
            # Those before it are c, d and e, round the ring.
            store.wake()
            assert waiter.result() is False
            settle(store, member="d")
            waiter = Waiter(store, member="d")
            alive(store.reopened(), "dd", new=NEW)
            assert waiter.result() is True

    def test_members_that_report_no_more_are_dropped_after_a_while(self) -> None:
        """Any member's report drops those that were silent for longer than it says."""
        with self._opened() as store:
            store.report("old", b"1", keep_seconds=60)
            tick(store)
            assert store.report("new", b"2", keep_seconds=60).members == 2
            tick(store)
            found = store.report("new", b"3", keep_seconds=0.0)
            assert (found.members, found.neighbours) == (1, ())
            assert [seen.member for seen in store.census().reports] == ["new"]
            tick(store)
            assert [seen.member for seen in store.silent(longer_than=0.0, shorter_than=60.0)] == ["new"]

    # --- hints --------------------------------------------------------------------------------------------

    def test_a_change_ends_a_wait(self) -> None:
        """Every waiter is told, whoever made the change."""
        with self._opened() as store:
            put(store, b"1")
            waiters = [Waiter(store.reopened()) for _ in range(3)]
            put(store.reopened(), b"2")
            assert [waiter.result() for waiter in waiters] == [True, True, True]

    def test_a_change_before_the_wait_is_not_missed(self) -> None:
        """What changes between a reading and the wait that follows it ends that wait."""
        with self._opened() as store:
            other = store.reopened()
            settle(store)
            store.read()
            put(other, b"2")
            assert store.wait(PATIENCE_SECONDS)

    def test_a_wait_ends_at_its_timeout(self) -> None:
        """Nothing happened: no hint, and no longer than was asked for."""
        with self._opened() as store:
            settle(store)
            began = time.monotonic()
            assert store.wait(QUIET_SECONDS) is False
            assert QUIET_SECONDS * 0.5 < time.monotonic() - began < PATIENCE_SECONDS / 2

    def test_reports_wake_only_those_who_wait_for_them(self) -> None:
        """An announced report ends a wait for reports; others end none."""
        with self._opened() as store:
            other = store.reopened()
            settle(store)
            settle(store, for_reports=True)
            other.report("m", b"1", keep_seconds=60)
            assert store.wait(QUIET_SECONDS, for_reports=True) is False
            waiter = Waiter(store, for_reports=True)
            other.report("m", b"2", keep_seconds=60, announce=True)
            assert waiter.result() is True
            settle(store)
            other.report("m", b"3", keep_seconds=60, announce=True)
            assert store.wait(QUIET_SECONDS) is False

    def test_wake_ends_a_running_wait(self) -> None:
        """Any thread may end a wait; that is no hint."""
        with self._opened() as store:
            settle(store)
            waiter = Waiter(store)
            store.wake()
            assert waiter.result() is False

    def test_wake_ends_the_next_wait(self) -> None:
        """A wake that comes too early is kept, and used up by one wait."""
        with self._opened() as store:
            settle(store)
            store.wake()
            began = time.monotonic()
            assert store.wait(PATIENCE_SECONDS) is False
            assert time.monotonic() - began < PATIENCE_SECONDS / 2
            assert store.wait(QUIET_SECONDS) is False
            assert time.monotonic() - began >= QUIET_SECONDS * 0.5

    def test_wake_is_for_one_handle(self) -> None:
        """Handles are woken one by one."""
        with self._opened() as store:
            other = store.reopened()
            settle(other)
            store.wake()
            assert other.wait(QUIET_SECONDS) is False
            other.close()

    # --- logs ---------------------------------------------------------------------------------------------

    def test_logs_are_bounded_and_apart(self) -> None:
        """The oldest entries go; logs know nothing of each other or of the record."""
        with self._opened() as store:
            before = store.read().record
            assert list(store.entries("history", last=10)) == []
            for number in range(7):
                store.append("history", b"%d\0" % number, keep=5)
            store.append("refused", b"x", keep=5)
            assert list(store.entries("history", last=10)) == [b"2\0", b"3\0", b"4\0", b"5\0", b"6\0"]
            assert list(store.entries("history", last=2)) == [b"5\0", b"6\0"]
            assert list(store.reopened().entries("refused", last=1)) == [b"x"]
            assert store.read().record == before

    # --- what may be lost ---------------------------------------------------------------------------------

    def test_what_was_written_settles(self) -> None:
        """Where nothing is missing nothing is said; waiting for it changes neither record nor registry."""
        with self._opened() as store:
            put(store, b"1", "a")
            store.report("m", b"{}", keep_seconds=60)
            before = store.census()
            assert store.settled(PATIENCE_SECONDS) == ""
            after = store.census()
            assert (after.reading.record, after.reports) == (b"1", before.reports)
            assert after.reading.here_since == before.reading.here_since

    def test_warnings_are_sentences(self) -> None:
        """Whatever the store's settings are here: it tells, and changes nothing."""
        with self._opened() as store:
            before = store.read().record
            assert "" not in store.warnings()
            assert store.read().record == before

    def test_a_write_is_tried_without_one(self) -> None:
        """It would be taken; nothing changes, and nobody is woken."""
        with self._opened() as store:
            put(store, b"1", "a")
            before = store.census()
            store.try_write()
            after = store.census()
            assert (after.reading.record, after.reports) == (b"1", before.reports)
            assert after.reading.here_since == before.reading.here_since

    # --- handles ------------------------------------------------------------------------------------------

    def test_a_closed_handle_connects_again(self) -> None:
        """Closing drops connections, nothing else; closing twice is no error."""
        with self._opened() as store:
            put(store, b"1")
            store.close()
            store.close()
            assert store.read().record == b"1"

    def test_a_reopened_handle_is_independent(self) -> None:
        """It names the same store, and outlives the one it was made from."""
        with self._opened() as store:
            put(store, b"1")
            other = store.reopened()
            assert (other.url, other.site, other.timeout) == (store.url, store.site, store.timeout)
            store.close()
            assert other.read().record == b"1"
            other.close()

    def test_a_forked_child_has_connections_of_its_own(self) -> None:
        """A child uses the parent's handle and a reopened one, and the parent goes on as before."""
        if not (self.between_processes and hasattr(os, "fork")):
            return
        with self._opened() as store:
            put(store, b"")
            settle(store)

            def child() -> None:
                count_up(store, 10)
                store.report("child", b"1", keep_seconds=60)
                other = store.reopened()
                count_up(other, 10)
                store.close()
                other.close()

            waiter = Waiter(store)
            in_child(child)
            assert waiter.result() is True
            count_up(store, 10)
            assert counted(store) == 30
            assert [seen.member for seen in store.census().reports] == ["child"]

    @contextmanager
    def _opened(self) -> Iterator[Store]:
        store = self.make_store()
        try:
            yield store
        finally:
            store.close()


class Waiter:
    """A thread that waits at a store; `result` is what its wait returned. It may be hinted at once, once."""

    def __init__(self, store: Store, *, for_reports: bool = False, member: str = "") -> None:
        self._results: list[bool | BaseException] = []
        settle(store, for_reports=for_reports, member=member)
        self._thread = threading.Thread(target=self._wait, args=(store, for_reports, member), daemon=True)
        self._thread.start()

    def _wait(self, store: Store, for_reports: bool, member: str) -> None:
        try:
            self._results.append(store.wait(PATIENCE_SECONDS, for_reports=for_reports, member=member))
        except BaseException as error:
            self._results.append(error)

    def result(self) -> bool:
        """Return what the wait returned, which must be long before its timeout; raise what it raised."""
        self._thread.join(PATIENCE_SECONDS * 0.8)
        assert self._results, "nothing ended the wait"
        (result,) = self._results
        if isinstance(result, BaseException):
            raise result
        return result


def alive(
    store: Store,
    member: str,
    *,
    alive_seconds: float = ALIVE_SECONDS,
    names: Sequence[str] = (),
    new: Newcomer | None = None,
) -> Reading:
    """Have a member report that is alive for longer than a test takes."""
    return store.report(member, b"1", keep_seconds=60, alive_seconds=alive_seconds, names=names, new=new)


def put(store: Store, record: bytes, *causes: str) -> Reading:
    """Put a record in the place of whatever stands there."""
    reading = store.read()
    while reading.record != record:
        reading = store.replace(record, was=reading.record, causes=causes)
    return reading


def count_up(store: Store, times: int) -> None:
    """Add one to the number that the record begins with, so many times, against whoever does the same."""
    for _ in range(times):
        reading = store.read()
        while True:
            # As in real records, something random tells ours from one that says the same.
            ours = b"%d %s" % (_number(reading) + 1, secrets.token_hex(8).encode())
            reading = store.replace(ours, was=reading.record)
            if reading.record == ours:
                break


def counted(store: Store) -> int:
    """Return the number that `count_up` has left in the record."""
    return _number(store.read())


def _number(reading: Reading) -> int:
    return int((reading.record or b"0").split(b" ")[0] or b"0")


def tick(store: Store) -> None:
    """Return when the store's clock, cut to milliseconds, has moved on."""
    first = store.read().at
    while store.read().at - first < timedelta(milliseconds=2):
        pass


def settle(store: Store, *, for_reports: bool = False, member: str = "") -> None:
    """Use up the hints that are there already: a new subscription is one."""
    while store.wait(0.05, for_reports=for_reports, member=member):
        pass


def in_child(act: Callable[[], None]) -> None:
    """Run something in a forked child, and fail if it fails."""
    with warnings.catch_warnings():
        # From Python 3.12 on a fork beside threads is warned of: servers do it, and that is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with {status}"
