"""Forks: a child is a member of its own, counts its own writes, and trusts nothing that it inherited.

Each test forks in a process of its own, since a fork of the test runner would be a second test runner.
"""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import pytest

from support.processes import run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

BEGINNING = """
import os, sys, threading, time, types
from readonly import ReadOnlyError, Switch
from readonly.changes import Operator, turn_off, turn_on
from readonly.stores import store_from_url

URL = sys.argv[1]
ANN = Operator("ann", "desk-1")

def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.005)

def writes():
    try:
        with switch.writing():
            return True
    except ReadOnlyError:
        return False

def in_child(body, fork=os.fork):
    "Run body in a child; return how it ended."
    pid = fork()
    if pid == 0:
        code = 1
        try:
            threading.Timer(100, os._exit, [99]).start()
            body()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def alive():
    return [report for report in switch.members() if not report.gone]

def made(**settings):
    "Return a switch whose calls may take as long as a busy machine takes for them."
    return Switch(store_from_url(URL, timeout=20), interval=0.05, **settings)

# A store that is old enough to be believed by who begins.
until(lambda: store_from_url(URL).read().incarnation_seconds > 1.0)
switch = made(role="web")
"""


def forks(tmp_path: Path, script: str) -> str:
    """Run a script that forks; it must end well, and soon."""
    url = f"sqlite:///{tmp_path}/flag.db?site=shop"
    done = run(
        sys.executable,
        "-W",
        "ignore",
        "-c",
        BEGINNING + textwrap.dedent(script),
        url,
        timeout=240,
        environment={"READONLY_STATE_DIR": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_child_is_a_member_of_its_own(tmp_path: Path) -> None:
    """Another id, a thread of its own; its parent goes on reporting, and is not said goodbye for."""
    forks(
        tmp_path,
        """
        switch.start()
        parent = switch._follower()

        def child():
            assert switch._followers == {}
            assert writes()
            mine = switch._follower()
            assert mine.member != parent.member
            assert mine.pid == os.getpid() != parent.pid
            assert {report.pid for report in switch.members()} == {mine.pid, parent.pid}
            switch.close()

        assert in_child(child) == 0
        assert switch._follower() is parent
        before = parent._heart._reports._counter
        until(lambda: parent._heart._reports._counter > before + 2)
        (own,) = alive()
        assert (own.id, own.pid) == (parent.member, os.getpid())
        assert writes()
        """,
    )


def test_a_child_trusts_nothing_it_inherited(tmp_path: Path) -> None:
    """Its view is shut until it has looked: the site was closed after the parent last looked."""
    forks(
        tmp_path,
        """
        switch.start()
        assert writes()
        other = store_from_url(URL)

        def child():
            assert switch.view.open is False
            assert switch.view.admit_until == float("-inf")
            turn_on(other, ANN)
            assert not writes()

        assert in_child(child) == 0
        until(lambda: not writes())
        """,
    )


def test_a_childs_count_is_its_own(tmp_path: Path) -> None:
    """What its parent has in flight is its parent's, and stays there."""
    forks(
        tmp_path,
        """
        switch.start()
        held, go = threading.Event(), threading.Event()

        def work():
            with switch.writing():
                held.set()
                go.wait(100)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        held.wait(60)

        def child():
            assert switch.inflight.count() == 0
            with switch.writing():
                assert switch.inflight.count() == 1
            state = switch.on(by="ann")
            looks = []

            def parent_drains():
                looks.append(switch.confirm(state.epoch, timeout=0.2))
                return any(f"/{os.getppid()}:" in one and "in flight" in one for one in looks[-1].missing)

            until(parent_drains)  # its report of that may be on its way
            assert not any(found.safe for found in looks)
            switch.off(by="ann")
            switch.close()

        assert in_child(child) == 0
        assert switch.inflight.count() == 1
        go.set()
        thread.join(60)
        assert switch.inflight.count() == 0
        assert switch.confirm(switch.on(by="ann").epoch, timeout=60).safe
        """,
    )


def test_locks_that_other_threads_hold_do_not_stop_a_child(tmp_path: Path) -> None:
    """Every lock of ours is held at the moment of the fork, by threads that the child does not have."""
    forks(
        tmp_path,
        """
        switch.start()
        parent = switch._follower()
        held, go = threading.Barrier(4), threading.Event()

        def holding(lock):
            with lock:
                held.wait(60)
                go.wait(100)

        locks = [switch.tally._lock, parent._contact.lock, parent._inline]
        threads = [threading.Thread(target=holding, args=(lock,), daemon=True) for lock in locks]
        for thread in threads:
            thread.start()
        held.wait(60)

        def child():
            assert writes()
            switch.tally.ended()
            assert switch.on(by="ann").read_only
            assert not writes()
            switch.off(by="ann")
            switch.close()

        assert in_child(child) == 0
        go.set()
        for thread in threads:
            thread.join(60)
        until(writes)
        """,
    )


def test_forks_under_load(tmp_path: Path) -> None:
    """Threads write, count and look while their process forks, again and again; each child works at once."""
    forks(
        tmp_path,
        """
        switch.start()
        over = threading.Event()

        def load():
            while not over.is_set():
                writes()
                switch.look()
                switch.tally.ended()
                switch.on_change(print)()

        threads = [threading.Thread(target=load, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()

        def child():
            assert writes()
            assert switch.inflight.count() == 0

        for _ in range(12):
            assert in_child(child) == 0
        over.set()
        for thread in threads:
            thread.join(60)
        assert switch.inflight.count() == 0
        """,
    )


def test_a_childs_counters_begin_at_zero(tmp_path: Path) -> None:
    """Also those that are told since the last closing: none is ever less than nothing."""
    forks(
        tmp_path,
        """
        switch.start()
        for _ in range(5):
            switch.tally.ended()
        switch.on(by="ann")
        until(lambda: switch._telling._tally_then.get("ended") == 5)

        def child():
            switch.start()
            switch.tally.ended()
            until(lambda: [report.tally["ended"] for report in alive() if report.pid == os.getpid()] == [1])

        assert in_child(child) == 0
        """,
    )


def test_a_child_that_exits_says_goodbye_for_nobody_else(tmp_path: Path) -> None:
    """It never used the switch, or it did: its parent's registration stays."""
    forks(
        tmp_path,
        """
        switch.start()
        for use in (False, True):
            pid = os.fork()
            if pid == 0:
                assert not use or writes()
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            (own,) = alive()
            assert own.pid == os.getpid()
        assert writes()
        """,
    )


def test_a_switch_that_nobody_used_is_forked_as_it_is(tmp_path: Path) -> None:
    """As a preloading server does; a grandchild of a child that never used it begins, too."""
    forks(
        tmp_path,
        """
        def grandchild():
            assert writes()
            assert len(alive()) == 1
            switch.close()

        def child():
            assert in_child(grandchild) == 0

        assert in_child(child) == 0
        assert switch._followers == {}
        assert writes()
        """,
    )


def test_a_parents_switch_is_not_its_childs_twin(tmp_path: Path) -> None:
    """A master has used two; a worker that uses one has one."""
    forks(
        tmp_path,
        """
        from readonly import twins

        second = made()
        switch.start()
        second.start()

        def twin(one):
            return twins.places(one._follower().member)

        def child():
            switch.start()
            assert twin(switch) == ""
            second.start()
            assert "twice" in twin(second) or " and " in twin(second)

        assert "twice" in twin(switch) or " and " in twin(switch)
        assert in_child(child) == 0
        """,
    )


def test_a_closed_parent_forks_open_children(tmp_path: Path) -> None:
    """Read-only when it forked, writable when the child looks: the count begins at the child's own opening."""
    forks(
        tmp_path,
        """
        switch.start()
        switch.on(by="ann")
        other = store_from_url(URL)

        def child():
            assert not writes()
            turn_off(other, ANN)
            until(writes)
            with switch.writing():
                assert switch.inflight.count() == 1
                turn_on(other, ANN)
                until(lambda: switch.state.read_only)
                assert switch.inflight.count() == 1
            assert switch.inflight.count() == 0

        assert in_child(child) == 0
        """,
    )


def test_a_fork_that_python_is_not_told_of(tmp_path: Path) -> None:
    """As uWSGI forks: no hook runs and the dead thread says it is alive; the process id tells."""
    forks(
        tmp_path,
        """
        import ctypes
        sys.modules["uwsgi"] = types.ModuleType("uwsgi")
        switch = made(role="web")
        switch.start()
        parent = switch._follower()
        other = store_from_url(URL)

        # In the middle of SQLite's own work the parent's thread holds locks that nobody would give back in the child.
        resting, go = threading.Event(), threading.Event()
        parent.store.wait = lambda timeout, **_: (resting.set(), go.wait()) == ()
        parent.wake()
        assert resting.wait(60)

        def child():
            assert switch.view.admit_until == float("-inf")
            assert parent._thread.is_alive()
            turn_on(other, ANN)
            assert not writes()
            assert switch._follower().member != parent.member
            turn_off(other, ANN)
            until(writes)
            assert len(alive()) == 2

        # With the interpreter's lock held, as in uWSGI: the child goes on as the thread that forked.
        assert in_child(child, ctypes.PyDLL(None).fork) == 0
        go.set()
        assert switch._follower() is parent
        until(writes)  # the child closed and opened the site a moment ago
        """,
    )


def test_processes_that_a_pool_forks_are_members(tmp_path: Path) -> None:
    """multiprocessing, as a job may use it."""
    forks(
        tmp_path,
        """
        import multiprocessing
        switch.start()

        def job(n):
            return writes(), switch._follower().member, os.getpid()

        with multiprocessing.get_context("fork").Pool(3) as pool:
            found = pool.map(job, range(12), chunksize=1)
        assert all(wrote for wrote, _, _ in found)
        assert len({member for _, member, _ in found}) == len({pid for _, _, pid in found})
        assert switch._follower().member not in {member for _, member, _ in found}
        """,
    )
