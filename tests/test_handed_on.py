"""What an admitted write hands on: a greenlet, a task, a thread, a child. What is counted of it, and what is not.

A count ends with the block or the request that began it. What goes on after that is counted where it says so itself,
by `switch.writing()`, and is refused once the site has closed. (Forked children: test_switch_fork.py.)
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from readonly.errors import ReadOnlyError
from readonly.switch import Switch
from readonly.testing import memory_switch

ROOT = Path(__file__).parents[1]
# Interpreters without a global lock, as their installers call them.
FREE_THREADED = ("python3.14t", "python3.13t")


@pytest.fixture
def switch() -> Iterator[Switch]:
    """One of a site that is open."""
    made = memory_switch()
    made.start()
    yield made
    made.close()


def test_greenlets_are_counted_apart() -> None:
    """Two of one thread, as under gevent: neither is part of the other's work, and both are drained."""
    greenlet = pytest.importorskip("greenlet").greenlet
    switch = memory_switch()
    switch.start()
    main, seen = greenlet.getcurrent(), []

    def work() -> None:
        with switch.writing():
            main.switch()
            # Admitted before the site closed: what it is made of may begin.
            with switch.writing():
                main.switch()

    def late() -> None:
        try:
            with switch.writing():
                seen.append("begun")
        except ReadOnlyError:
            seen.append("refused")

    one, two = greenlet(work), greenlet(work)
    one.switch()
    two.switch()
    assert switch.inflight.count() == 2
    epoch = switch.on().epoch
    one.switch()
    greenlet(late).switch()
    assert seen == ["refused"]
    assert not switch.confirm(epoch, timeout=0.2).safe
    one.switch()
    assert switch.inflight.count() == 1
    two.switch()
    two.switch()
    assert switch.confirm(epoch, timeout=20).safe
    switch.close()


def test_a_task_that_outlives_its_write_is_not_counted(switch: Switch) -> None:
    """`on` does not wait for it, and what it begins then is refused; with a count of its own it is waited for."""

    async def main() -> None:
        go, begun = asyncio.Event(), asyncio.Event()

        async def handed_on(*, counted: bool) -> str:
            if counted:
                async with switch.writing():
                    begun.set()
                    await go.wait()
                    return "done"
            await go.wait()
            try:
                async with switch.writing():
                    return "done"
            except ReadOnlyError:
                return "refused"

        async with switch.writing():
            tasks = [asyncio.ensure_future(handed_on(counted=counted)) for counted in (False, True)]
            await begun.wait()
            assert switch.inflight.count() == 2
        assert switch.inflight.count() == 1
        epoch = (await switch.aon()).epoch
        assert not (await switch.aconfirm(epoch, timeout=0.2)).safe
        go.set()
        assert await asyncio.gather(*tasks) == ["refused", "done"]
        assert (await switch.aconfirm(epoch, timeout=20)).safe

    asyncio.run(main())


def test_a_thread_that_outlives_its_write_is_not_counted(switch: Switch) -> None:
    """The same for a pool: work that was handed to it begins anew, whoever handed it on."""
    go, begun = threading.Event(), threading.Event()

    def handed_on(*, counted: bool) -> str:
        if counted:
            with switch.writing():
                begun.set()
                go.wait(20)
                return "done"
        go.wait(20)
        try:
            with switch.writing():
                return "done"
        except ReadOnlyError:
            return "refused"

    with ThreadPoolExecutor(2) as pool:
        with switch.writing():
            jobs = [pool.submit(handed_on, counted=counted) for counted in (False, True)]
            begun.wait(20)
            assert switch.inflight.count() == 2
        assert switch.inflight.count() == 1
        epoch = switch.on().epoch
        assert not switch.confirm(epoch, timeout=0.2).safe
        go.set()
        assert [job.result() for job in jobs] == ["refused", "done"]
    assert switch.confirm(epoch, timeout=20).safe


HAMMER = """
import sys, threading
from readonly.inflight import InFlight

sys.setswitchinterval(1e-6)  # where there is a global lock, it changes hands as often as it can
drained = threading.Event()
inflight = InFlight(drained.set)
kept = [inflight.begin() for _ in range(100)]

def hammer():
    for _ in range(int(sys.argv[1])):
        inflight.end(inflight.begin())

threads = [threading.Thread(target=hammer) for _ in range(8)]
for thread in threads: thread.start()
inflight.close()
for thread in threads: thread.join()
assert inflight.count() == 100, inflight.count()

def end(keys):
    for key in keys: inflight.end(key)

threads = [threading.Thread(target=end, args=(kept[n::8],)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert inflight.count() == 0
assert drained.wait(10)
"""


@pytest.mark.parametrize(
    ("python", "times"),
    [(sys.executable, 500), *((where, 20_000) for where in map(shutil.which, FREE_THREADED) if where is not None)],
)
def test_threads_at_the_same_moment_lose_no_count(python: str, times: int) -> None:
    """In this interpreter, and in each one here that has no global lock."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [python, "-c", HAMMER, str(times)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
