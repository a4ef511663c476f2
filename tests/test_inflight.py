"""Writes in flight: counted before anybody looks, never lost, and over when the work is over."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import itertools
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readonly.context import Work, current, working
from readonly.errors import ConfigurationError, ReadOnlyError
from readonly.inflight import InFlight, Writing
from readonly.state import UNKNOWN, State
from support.records import NOON, cause, minutes, record

CLOSED = State.at(NOON, record(cause(reason="migration", expected_end=NOON + minutes(9))))
OPEN = State.at(NOON, record())


class Gatekeeper:
    """As much of a switch as work needs: open or closed, and what it saw when it was asked."""

    def __init__(self, *, closed: bool = False) -> None:
        self.closed = closed
        self.inflight = InFlight()
        self.counted_when_asked: list[int] = []
        self.waited: list[float] = []
        self.opens_after_waits = 0
        self.fails = False
        self.in_run = False
        self.began: list[str] = []

    def admit(self) -> State | None:
        self.counted_when_asked.append(self.inflight.count())
        if self.fails:
            raise RuntimeError("a bug")
        return CLOSED if self.closed else None

    async def aadmit(self) -> State | None:
        await asyncio.sleep(0)
        return self.admit()

    def wait_writable(self, timeout: float) -> bool:
        self.waited.append(timeout)
        self.opens_after_waits -= 1
        if self.opens_after_waits == 0:
            self.closed = False
        return self.opens_after_waits >= 0

    async def await_writable(self, timeout: float) -> bool:
        return self.wait_writable(timeout)

    def begins(self, name: str) -> None:
        self.began.append(name)

    def lets_through(self, by: str) -> bool:
        return False

    @property
    def count(self) -> int:
        return self.inflight.count()


@pytest.fixture
def switch() -> Gatekeeper:
    """One that is open."""
    return Gatekeeper()


def run(main: Callable[[], Any]) -> Any:
    """Run a coroutine function on a loop of its own."""
    return asyncio.run(main())


# --- the count -------------------------------------------------------------------------------------------------------


def test_a_write_is_counted_until_it_ends() -> None:
    """Ending twice does no harm, ending what never began neither."""
    inflight = InFlight()
    one, other = inflight.begin(), inflight.begin()
    assert (inflight.count(), inflight.keys()) == (2, frozenset({one, other}))
    inflight.end(one)
    inflight.end(one)
    inflight.end(object())
    assert (inflight.count(), inflight.holds(one), inflight.holds(other)) == (1, False, True)
    inflight.forget()
    assert inflight.count() == 0


def test_the_last_write_tells_whoever_waits() -> None:
    """Only the last one of those that were there when the process closed: what is refused later tells nobody."""
    told: list[str] = []
    inflight = InFlight(lambda: told.append("drained"))
    inflight.end(inflight.begin())
    inflight.end(inflight.begin(part=True))
    assert told == []
    one, other = inflight.begin(), inflight.begin()
    inflight.close()
    refused = inflight.begin()
    assert inflight.count() == 2
    inflight.end(one)
    inflight.end(refused)
    assert told == []
    inflight.end(other)
    assert told == ["drained"]
    assert inflight.count() == 0


def test_what_is_refused_is_not_waited_for() -> None:
    """A drain ends though refused writes come without a pause: those counted after closing can't be admitted."""
    inflight = InFlight()
    admitted = inflight.begin()
    inflight.close()
    always_one = inflight.begin()
    assert inflight.count() == 1
    inflight.end(admitted)
    assert inflight.count() == 0
    assert inflight.holds(always_one)


def test_a_part_of_admitted_work_is_waited_for_though_it_begins_late() -> None:
    """A request that was admitted may begin another transaction after the closing; it is drained, too."""
    inflight = InFlight()
    request = inflight.begin()
    inflight.close()
    inflight.close()
    transaction = inflight.begin(part=True)
    inflight.end(request)
    assert inflight.count() == 1
    inflight.end(transaction)
    assert inflight.count() == 0


def test_reopened_everything_counts_again() -> None:
    """What was refused a moment ago and looks again after the opening is admitted, and counted at the next closing."""
    inflight = InFlight()
    inflight.close()
    late = inflight.begin()
    inflight.reopen()
    assert inflight.count() == 1
    inflight.close()
    assert inflight.count() == 1
    inflight.end(late)
    assert inflight.count() == 0


def count_between(inflight: InFlight, instruction: int, first: Callable[[], None]) -> int | None:
    """Close; return what another thread counts before that instruction of it, None if it has no so many."""
    seen, found = 0, None

    def between(frame: FrameType, what: str, _: object) -> Any:
        nonlocal seen, found
        frame.f_trace_opcodes = True
        if what == "opcode":
            if seen == instruction:
                first()
                found = inflight.count()
            seen += 1
        return between

    before = sys.gettrace()
    sys.settrace(lambda frame, *_: between if frame.f_code is InFlight.close.__code__ else None)
    try:
        inflight.close()
    finally:
        sys.settrace(before)
    return found


@pytest.mark.parametrize("part", [False, True])
def test_nobody_who_counts_while_it_closes_misses_a_write(part: bool) -> None:
    """Between any two instructions of the closing another thread may report, or begin a part and end the rest."""
    for instruction in itertools.count():
        inflight = InFlight()
        request = inflight.begin()

        def changes(inflight: InFlight = inflight, request: object = request) -> None:
            if part:
                inflight.begin(part=True)
                inflight.end(request)

        counted = count_between(inflight, instruction, changes)
        assert inflight.count() == 1
        if counted is None:
            break
        assert counted == 1
    assert instruction > 10


@given(st.lists(st.integers(0, 9), max_size=60))
def test_the_count_is_begun_less_ended(steps: list[int]) -> None:
    """For every order of beginning and ending."""
    inflight = InFlight()
    keys: list[object] = []
    ended: set[object] = set()
    for step in steps:
        if step < 5 or not keys:
            keys.append(inflight.begin())
        else:
            key = keys[step % len(keys)]
            inflight.end(key)
            ended.add(key)
        assert inflight.count() == len(keys) - len(ended)
        assert inflight.keys() == frozenset(keys) - ended


def test_threads_lose_no_count() -> None:
    """Eight of them, switched as often as the interpreter can, while a ninth takes pictures."""
    inflight, kept = InFlight(), []
    done = threading.Event()

    def hammer() -> None:
        for n in range(2000):
            key = inflight.begin()
            if n % 100 == 0:
                kept.append(key)
            else:
                inflight.end(key)

    def watch() -> None:
        while not done.is_set():
            assert len(inflight.keys()) <= 8 * 21

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(9) as pool:
            watcher = pool.submit(watch)
            for future in [pool.submit(hammer) for _ in range(8)]:
                future.result()
            done.set()
            watcher.result()
    finally:
        sys.setswitchinterval(interval)
    assert inflight.count() == len(kept) == 8 * 20


def test_a_drain_that_is_over_has_no_admitted_write() -> None:
    """Eight threads write, with parts, while a ninth closes and opens: at a count of 0 nobody admitted is at work."""
    inflight = InFlight()
    closed, over = threading.Event(), threading.Event()
    working_now = [0] * 8

    def write(n: int) -> None:
        while not over.is_set():
            key = inflight.begin()
            if not closed.is_set():
                working_now[n] = 1
                part = inflight.begin(part=True)
                assert inflight.holds(key)
                if n % 2:
                    inflight.end(key)  # the part goes on alone
                working_now[n] = 0
                inflight.end(part)
            inflight.end(key)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            writing = [pool.submit(write, n) for n in range(8)]
            try:
                for _ in range(60):
                    closed.set()
                    inflight.close()
                    while inflight.count():
                        pass
                    assert not any(working_now)
                    inflight.reopen()
                    closed.clear()
            finally:
                over.set()
            for one in writing:
                one.result(20)
    finally:
        sys.setswitchinterval(interval)
    assert inflight.count() == 0


# --- work ------------------------------------------------------------------------------------------------------------


def test_work_is_counted_before_anybody_looks(switch: Gatekeeper) -> None:
    """Count, look, admit: the other order lets a write slip through (protocol C18)."""
    with Writing(switch):
        assert switch.count == 1
    assert (switch.counted_when_asked, switch.count) == ([1], 0)


def test_work_that_is_refused_is_not_counted() -> None:
    """The error says why, and until when."""
    switch = Gatekeeper(closed=True)
    with pytest.raises(ReadOnlyError, match="migration") as refusal, Writing(switch):
        pytest.fail("this was not to begin")
    assert (switch.counted_when_asked, switch.count) == ([1], 0)
    assert refusal.value.expected_end == NOON + minutes(9)


def test_an_unknown_state_refuses_work() -> None:
    """And says what it is waiting for."""
    switch = Gatekeeper()
    switch.admit = lambda: UNKNOWN  # type: ignore[method-assign]
    with pytest.raises(ReadOnlyError, match="never read"), Writing(switch):
        pytest.fail("this was not to begin")
    assert switch.count == 0


def test_a_look_that_fails_leaves_no_count(switch: Gatekeeper) -> None:
    """Sync and async."""
    switch.fails = True

    async def main() -> None:
        async with Writing(switch):
            pytest.fail("this was not to begin")

    with pytest.raises(RuntimeError), Writing(switch):
        pytest.fail("this was not to begin")
    with pytest.raises(RuntimeError):
        run(main)
    assert switch.count == 0


def test_work_that_fails_is_over(switch: Gatekeeper) -> None:
    """Its exception goes on."""
    with pytest.raises(KeyError), Writing(switch):
        raise KeyError
    assert (switch.count, current(switch)) == (0, None)


def test_inside_work_the_guard_lets_writes_pass_and_not_after(switch: Gatekeeper) -> None:
    """Also not in what inherited the context and lives on."""
    with Writing(switch):
        work = current(switch)
        inherited = contextvars.copy_context()
        assert work is not None
        assert work.may_write
    assert current(switch) is None
    assert not work.may_write
    seen = inherited.run(current, switch)
    assert seen is None or not seen.may_write


def test_refused_work_marks_the_request_it_belongs_to() -> None:
    """An exception is a 500 by the time it leaves the framework; the mark makes it the 503."""
    closed = Gatekeeper(closed=True)
    request = Work(closed)
    with working(request), pytest.raises(ReadOnlyError) as refusal, Writing(closed):
        pass
    assert request.escape is refusal.value


def test_nested_work_is_counted_apart(switch: Gatekeeper) -> None:
    """Of the same object, and of others; the outer one goes on when the inner one ends."""
    same = Writing(switch)
    with same:
        outer = current(switch)
        with same, Writing(switch):
            assert switch.count == 3
        assert (switch.count, current(switch)) == (1, outer)
        assert outer is not None
        assert outer.may_write
    assert switch.count == 0


def test_work_that_was_admitted_may_begin_its_parts(switch: Gatekeeper) -> None:
    """The site closed meanwhile: what was admitted ends properly, and is waited for."""
    with Writing(switch):
        switch.closed = True
        with Writing(switch):
            assert switch.count == 2
    with pytest.raises(ReadOnlyError), Writing(switch):
        pass


def test_a_part_of_an_admitted_request_begins(switch: Gatekeeper) -> None:
    """The request was counted when the site closed: what it does goes on, and is waited for until both are over."""
    key = switch.inflight.begin()
    with working(Work(switch, key=key)) as request:
        switch.closed = True
        switch.inflight.close()
        with Writing(switch):
            assert switch.count == 2
        switch.inflight.end(key)
        with pytest.raises(ReadOnlyError), Writing(switch):
            pass
    assert request.escape is not None
    assert switch.count == 0


def test_a_bypass_begins_and_nobody_waits_for_it(switch: Gatekeeper) -> None:
    """Sync and async: while the site is closed it counts for nothing, and its own parts may write."""
    switch.closed = True
    switch.inflight.close()

    async def main() -> None:
        async with Writing(switch):
            work = current(switch)
            assert work is not None
            assert (work.may_write, work.admitted) == (True, False)
            assert switch.count == 0

    with working(Work(switch, bypass=True)), Writing(switch):
        assert switch.count == 0
        run(main)
    with pytest.raises(ReadOnlyError):
        run(main)


@pytest.mark.parametrize("bypass", [False, True])
def test_work_of_another_switch_opens_nothing(switch: Gatekeeper, bypass: bool) -> None:
    """Two applications in one process: one's admitted work is no part of anything of the other's."""
    other = Gatekeeper(closed=True)
    other.inflight.close()

    async def main() -> None:
        async with Writing(other):
            pytest.fail("this was not to begin")

    with Writing(switch), working(Work(switch, bypass=bypass)) as request:
        with pytest.raises(ReadOnlyError), Writing(other):
            pytest.fail("this was not to begin")
        with pytest.raises(ReadOnlyError):
            run(main)
        assert request.escape is None
        assert other.count == 0


def test_each_switch_has_its_own_work_in_one_context(switch: Gatekeeper) -> None:
    """One application calls the other: each of them finds its own, whoever was entered last."""
    other = Gatekeeper()
    with Writing(switch):
        mine = current(switch)
        assert (current(other), mine is None) == (None, False)
        with Writing(other):
            assert current(switch) is mine
            assert current(other) is not mine
            switch.closed = True
            with Writing(switch):
                assert (switch.count, other.count) == (2, 1)
        assert current(other) is None
    assert current(switch) is None


def test_work_ends_with_its_count_whoever_ends_that(switch: Gatekeeper) -> None:
    """A forked child has counted nothing: what it inherited is admitted no more."""
    with Writing(switch):
        work = current(switch)
        assert work is not None
        assert work.admitted
        switch.inflight.forget()
        assert not work.may_write


def test_what_outlives_admitted_work_begins_nothing(switch: Gatekeeper) -> None:
    """A task that was started inside and is still there when the work was over and the site had closed."""

    async def later(over: asyncio.Event) -> None:
        await over.wait()
        with Writing(switch):
            pytest.fail("this was not to begin")

    async def main() -> None:
        over = asyncio.Event()
        async with Writing(switch):
            task = asyncio.ensure_future(later(over))
            await asyncio.sleep(0)
            switch.closed = True
        over.set()
        with pytest.raises(ReadOnlyError):
            await task

    run(main)
    assert switch.count == 0


def test_a_thread_that_was_started_inside_begins_nothing_of_its_own(switch: Gatekeeper) -> None:
    """Its work is not part of ours."""
    with Writing(switch):
        switch.closed = True
        with ThreadPoolExecutor(1) as pool, pytest.raises(ReadOnlyError):
            pool.submit(Writing(switch).__enter__).result()


def test_the_two_halves_may_run_in_two_contexts(switch: Gatekeeper) -> None:
    """As a thread pool runs the halves of a framework's dependency: the count ends all the same."""
    writing = Writing(switch)
    with writing:
        contextvars.copy_context().run(writing.__enter__)
        assert switch.count == 2
        contextvars.copy_context().run(writing.__exit__, None, None, None)
        assert switch.count == 1
    assert switch.count == 0
    for _ in range(3):
        contextvars.copy_context().run(writing.__enter__)
    for left in (2, 1, 0):
        contextvars.Context().run(writing.__exit__, None, None, None)
        assert switch.count == left
    with ThreadPoolExecutor(1) as pool:
        pool.submit(writing.__enter__).result()
    assert switch.count == 1
    writing.__exit__(None, None, None)
    assert switch.count == 0


def test_blocks_may_end_in_another_order(switch: Gatekeeper) -> None:
    """Whoever mixes them up counts right all the same."""

    def mixed_up() -> None:
        one, other = Writing(switch), Writing(switch)
        one.__enter__()
        other.__enter__()
        one.__exit__(None, None, None)
        assert switch.count == 1
        other.__exit__(None, None, None)
        assert switch.count == 0

    contextvars.copy_context().run(mixed_up)


def test_an_exit_without_entry_uncounts_nobody(switch: Gatekeeper) -> None:
    """It is an error of the caller's, and must not end others' work."""
    with Writing(switch):
        with pytest.raises(RuntimeError):
            Writing(switch).__exit__(None, None, None)
        assert switch.count == 1


# --- async -----------------------------------------------------------------------------------------------------------


def test_tasks_share_one_object(switch: Gatekeeper) -> None:
    """Twenty at once, on one loop; each ends its own."""
    writing = Writing(switch)

    async def work(n: int) -> None:
        async with writing:
            await asyncio.sleep(0)
            if n % 3 == 0:
                raise KeyError(n)
            await asyncio.sleep(0)

    async def main() -> list[Any]:
        return await asyncio.gather(*(work(n) for n in range(20)), return_exceptions=True)

    assert sum(isinstance(one, KeyError) for one in run(main)) == 7
    assert switch.count == 0


def test_threads_share_one_object(switch: Gatekeeper) -> None:
    """Two hundred pieces of work in eight threads."""
    writing, most = Writing(switch), []

    @writing
    def work() -> None:
        most.append(switch.count)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work) for _ in range(200)]:
            future.result()
    assert (switch.count, len(most), min(most)) == (0, 200, 1)


@pytest.mark.parametrize("turns", range(4))
def test_cancelled_work_is_over(switch: Gatekeeper, turns: int) -> None:
    """Wherever it is cancelled: before it began, while it looked, in the middle."""

    async def work() -> None:
        async with Writing(switch):
            await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.ensure_future(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)
    assert switch.count == 0


def test_async_work_is_refused_like_sync_work() -> None:
    """And not counted."""
    switch = Gatekeeper(closed=True)

    async def main() -> None:
        async with Writing(switch):
            pytest.fail("this was not to begin")

    with pytest.raises(ReadOnlyError):
        run(main)
    assert switch.count == 0


# --- the decorator ---------------------------------------------------------------------------------------------------


def test_each_call_of_a_function_is_one_piece_of_work(switch: Gatekeeper) -> None:
    """Arguments, result and name stay."""

    @Writing(switch)
    def work(a: int, *, b: int) -> tuple[int, int]:
        """Add."""
        return a + b, switch.count

    assert work(1, b=2) == (3, 1)
    assert (work.__name__, work.__doc__, switch.count) == ("work", "Add.", 0)


def test_each_call_of_a_coroutine_function_is_one_piece_of_work(switch: Gatekeeper) -> None:
    """Counted while it runs; a call that nobody awaits is none."""

    @Writing(switch)
    async def work(a: int) -> tuple[int, int]:
        await asyncio.sleep(0)
        return a, switch.count

    call = work(1)
    assert switch.count == 0
    call.close()
    assert run(lambda: work(2)) == (2, 1)
    assert switch.count == 0


def test_whatever_is_awaited_is_counted_until_it_is_done(switch: Gatekeeper) -> None:
    """A partial of a coroutine function, and an object whose call is one."""

    async def plain(a: int) -> tuple[int, int]:
        await asyncio.sleep(0)
        return a, switch.count

    class Job:
        async def __call__(self, a: int) -> tuple[int, int]:
            return await plain(a)

    assert run(Writing(switch)(functools.partial(plain, 5))) == (5, 1)
    assert run(functools.partial(Writing(switch)(Job()), 5)) == (5, 1)
    assert switch.count == 0


def test_a_function_that_only_hands_out_work_is_refused(switch: Gatekeeper) -> None:
    """It returns before the work is done, which would not be counted: that must show, the first time."""

    def generator() -> Iterator[int]:
        yield 1

    async def agenerator() -> AsyncIterator[int]:
        yield 1

    async def work() -> None:
        pytest.fail("this was not to run")

    for function in (generator, agenerator):
        with pytest.raises(ConfigurationError, match="generator"):
            Writing(switch)(function)
    for handed_out in (work, generator, agenerator):
        with pytest.raises(TypeError, match="before"):
            Writing(switch)(lambda made=handed_out: made())()
    assert switch.count == 0


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_work_may_wait_until_the_site_is_writable() -> None:
    """Counted and looked again after each wake-up, since somebody may close again in between."""
    switch = Gatekeeper(closed=True)
    switch.opens_after_waits = 3
    with Writing(switch, wait=9.0):
        assert switch.count == 1
    assert switch.counted_when_asked == [1, 1, 1, 1]
    assert [0 <= left <= 9.0 for left in switch.waited] == [True] * 3
    assert switch.waited == sorted(switch.waited, reverse=True)


def test_waiting_ends_with_the_refusal() -> None:
    """Sync and async; nothing is counted while it waits, nor after."""
    for closed in (Gatekeeper(closed=True), Gatekeeper(closed=True)):

        async def main(switch: Gatekeeper = closed) -> None:
            async with Writing(switch, wait=5.0):
                pytest.fail("this was not to begin")

        with pytest.raises(ReadOnlyError):
            run(main)
        with pytest.raises(ReadOnlyError), Writing(closed, wait=5.0):
            pytest.fail("this was not to begin")
        assert (len(closed.waited), closed.count) == (2, 0)


def test_async_work_waits_too() -> None:
    """The same, awaited."""
    switch = Gatekeeper(closed=True)
    switch.opens_after_waits = 1

    async def main() -> int:
        async with Writing(switch, wait=9.0):
            return switch.count

    assert run(main) == 1
    assert switch.count == 0
