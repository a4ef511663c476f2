"""Between two steps of a run: the store is away, somebody interrupts, or gives up what is at work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from readonly.errors import NotYours, StoreUnreachable
from readonly.run import Progress, RunFailed, Step, Voice, abandon, read, resume, run, standing_run
from readonly.run.command import signals_to
from readonly.run.journal import Journal
from readonly.run.steps import Freeze
from readonly.site import Site
from support.fenced_site import Fenced
from support.running import psql, silent_at_once
from support.waiting import eventually

AWAY = StoreUnreachable("the store did not answer")


def fails(wanted: Callable[[dict[str, Any]], bool], error: BaseException) -> Any:
    """Have what the journal is told of the command fail, where that is wanted."""
    write = Journal.write

    def told(self: Journal, step: str, what: str, said: str = "", **more: Any) -> None:
        if step == Step.COMMAND and wanted(more):
            raise error
        write(self, step, what, said, **more)

    return mock.patch.object(Journal, "write", told)


@pytest.fixture
def left_alone() -> Iterator[None]:
    """Whose runner was interrupted is waited for by the test."""
    started: list[subprocess.Popen[Any]] = []
    make = subprocess.Popen

    def popen(*words: Any, **more: Any) -> subprocess.Popen[Any]:
        started.append(make(*words, **more))
        return started[-1]

    with mock.patch("readonly.run.runner.subprocess.Popen", popen):
        yield
    for child in started:
        child.wait(60)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A pipe: a command that reads it goes on until the test is over."""
    path = tmp_path / "held"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR)
    yield path
    os.write(end, b"over\n" * 4)
    os.close(end)


def test_the_command_goes_on_though_nobody_could_be_told_of_it(solo: Fenced, from_code: Site) -> None:
    """It was started, and the store did not answer: the runner stays with it, and its code counts."""
    with fails(lambda more: more.get("pid") is not None, AWAY):
        assert run(from_code, ["true"]) == 0
    assert not from_code.look().state.read_only
    with fails(lambda more: more.get("pid") is not None, AWAY):
        assert run(from_code, ["sh", "-c", "exit 7"]) == 7
    left = standing_run(from_code.look().record)
    assert left is not None
    assert read(from_code, left.id).exit_code == 7
    abandon(from_code, left.id)


def test_a_command_is_not_started_that_nobody_knew_of(solo: Fenced, from_code: Site, tmp_path: Path) -> None:
    """That one is to be started is written down before it is."""
    with fails(lambda more: "command" in more, AWAY), pytest.raises(RunFailed, match="was not started"):
        run(from_code, ["touch", str(tmp_path / "ran")])
    assert not (tmp_path / "ran").exists()
    assert not from_code.look().state.read_only
    assert solo.writes() == ""


@pytest.mark.usefixtures("left_alone")
def test_who_interrupts_right_after_the_start_leaves_a_command_that_is_known(
    solo: Fenced, from_code: Site, held: Path
) -> None:
    """Its process can't be told by its number: nobody opens the site while anything of that run is at work here."""
    stopped = fails(lambda more: more.get("pid") is not None, KeyboardInterrupt())
    with stopped, pytest.raises(KeyboardInterrupt):
        run(from_code, ["sh", "-c", f"read x < {held}"])
    left = standing_run(from_code.look().record)
    assert left is not None
    assert read(from_code, left.id).command_began
    with pytest.raises(NotYours, match=r"still at work here: process \d+"):
        abandon(from_code, left.id)
    assert from_code.look().state.read_only
    abandon(from_code, left.id, end_sessions=True)
    assert not from_code.look().state.read_only


def test_who_interrupts_right_at_the_end_interrupts_nothing() -> None:
    """The command is gone, and its runner has not been told yet: it goes on as if it had ended a moment sooner."""
    child = subprocess.Popen(["true"], start_new_session=True)
    child.wait(60)
    with mock.patch.object(child, "poll", return_value=None), signals_to(child):
        signal.raise_signal(signal.SIGINT)


def test_who_dies_right_before_the_start_can_go_on(solo: Fenced, from_code: Site) -> None:
    """Whether it was started is not known; with a command the run goes on, and is over."""
    stopped = mock.patch("readonly.run.runner.subprocess.Popen", side_effect=KeyboardInterrupt)
    with stopped, pytest.raises(KeyboardInterrupt):
        run(from_code, ["true"])
    left = standing_run(from_code.look().record)
    assert left is not None
    assert "how the command ended is not known" in solo.ctl("status").stdout
    assert resume(from_code, left.id, ["true"]) == 0
    assert not from_code.look().state.read_only


@pytest.mark.usefixtures("left_alone")
def test_what_a_command_left_behind_is_at_work(solo: Fenced, from_code: Site, held: Path) -> None:
    """A command that ended while the runner was gone, and something that it started, which did not."""
    with fails(lambda more: "exit_code" in more, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        run(from_code, ["sh", "-c", f"(read x < {held}) & exit 0"])
    left = standing_run(from_code.look().record)
    assert left is not None
    with pytest.raises(NotYours, match=r"still at work here: process \d+"):
        abandon(from_code, left.id)
    abandon(from_code, left.id, end_sessions=True)


def test_how_it_ended_is_said_where_it_can_not_be_written_down(solo: Fenced, from_code: Site) -> None:
    """Or whoever goes on with it would take a command that failed for one of which nobody knows."""
    steps: list[str] = []
    voice = Voice(step=lambda step, what, said: steps.append(f"{step} {what} {said}"))
    with (
        fails(lambda more: "exit_code" in more, AWAY),
        pytest.raises(RunFailed, match="ended with 7, and that could not be written down") as failed,
    ):
        run(from_code, ["sh", "-c", "exit 7"], voice=voice)
    assert failed.value.code == 7
    assert "command failed exit 7" in steps
    with fails(lambda more: "exit_code" in more, AWAY), pytest.raises(NotYours, match="one run at a time"):
        run(from_code, ["true"])
    left = standing_run(from_code.look().record)
    assert left is not None
    abandon(from_code, left.id)
    with fails(lambda more: "exit_code" in more, AWAY), pytest.raises(RunFailed, match="ended with 0") as failed:
        run(from_code, ["true"])
    assert failed.value.code == 123
    left = standing_run(from_code.look().record)
    assert left is not None
    abandon(from_code, left.id)


def test_a_run_is_at_work_before_its_thread_has_its_turn(solo: Fenced, from_code: Site) -> None:
    """From its first step on: else somebody could give it up, and open the site below the command."""
    still = mock.Mock(Event=threading.Event)  # its threads never do anything
    reports: list[bool] = []

    def step(which: Step, what: str, _said: str) -> None:
        if (which, what) == (Step.CONFIRM, "begins"):
            left = standing_run(from_code.look().record)
            assert left is not None
            reports.append(read(from_code, left.id).reports)

    with mock.patch("readonly.run.runner.threading", still):
        assert run(from_code, ["true"], fence=False, voice=Voice(step=step)) == 0
    assert still.Thread.called
    assert reports == [True]


def test_nothing_is_ended_of_a_run_that_is_at_work(solo: Fenced, from_code: Site) -> None:
    """`abandon --end-sessions` is refused while the runner reports, and says so before it has ended anything."""
    holder = solo.database.session(solo.database.owner)
    holder.execute("SELECT pg_advisory_lock(7)")
    fence = from_code.fences.fences[0]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, from_code, psql(solo, "SELECT pg_advisory_lock(7)"))
        try:
            eventually(lambda: standing_run(from_code.look().record) is not None, 30)
            left = standing_run(from_code.look().record)
            assert left is not None
            eventually(lambda: bool(fence.sessions_of(left.id)), 30)
            other = Site.from_config(solo.file)
            with pytest.raises(NotYours, match="is at work on"):
                abandon(other, left.id, end_sessions=True)
            assert fence.sessions_of(left.id)
        finally:
            holder.execute("SELECT pg_advisory_unlock(7)")
        assert running.result(60) == 0


@pytest.mark.parametrize("other", ["resume", "abandon"])
def test_of_two_who_go_on_with_a_run_one_does(solo: Fenced, from_code: Site, tmp_path: Path, other: str) -> None:
    """Both have looked before either reports: the command is run once, and nobody opens the site below it."""
    assert run(from_code, ["false"], fence=False) == 1
    left = standing_run(from_code.look().record)
    assert left is not None
    refused: list[str] = []

    def meanwhile(site: Site, of: str, looked: Callable[[Site, str], Progress] = read) -> Progress:
        found = looked(site, of)
        if not refused:
            refused.append("")
            later = Site.from_config(solo.file)
            goes_on: Callable[[], object] = (
                partial(resume, later, of, ["true"]) if other == "resume" else partial(abandon, later, of)
            )
            with pytest.raises(NotYours) as error:
                goes_on()
            refused[0] = str(error.value)
        return found

    with mock.patch("readonly.run.runner.read", meanwhile):
        assert resume(from_code, left.id, ["sh", "-c", f"echo ran >> {tmp_path}/ran"]) == 0
    assert "at this moment. Nothing was changed" in refused[0]
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert not from_code.look().state.read_only


def test_who_gave_up_going_on_is_in_nobodys_way(solo: Fenced, from_code: Site) -> None:
    """A claim ends with who made it; one that was killed is forgotten when its runner would be."""
    assert run(from_code, ["false"], fence=False) == 1
    left = standing_run(from_code.look().record)
    assert left is not None
    for _ in range(2):
        with pytest.raises(NotYours, match="ended with 1"):
            resume(from_code, left.id)
    with mock.patch("readonly.run.runner.Runner._taken_over", side_effect=KeyboardInterrupt):
        gone = mock.patch("readonly.run.journal.suppress", side_effect=KeyboardInterrupt)
        with gone, pytest.raises(KeyboardInterrupt):
            abandon(from_code, left.id)
    with pytest.raises(NotYours, match="at this moment"):
        abandon(from_code, left.id)
    with silent_at_once():
        eventually(lambda: from_code.store.read().at > at_of(from_code, left.id) + timedelta(seconds=0.05), 10)
        abandon(from_code, left.id)
    assert not from_code.look().state.read_only


def at_of(site: Site, of: str) -> datetime:
    """Return when somebody said last that they go on with a run."""
    told = [json.loads(raw) for raw in site.store.entries(f"run-{of}-claims", last=9)]
    return datetime.fromisoformat(next(one["at"] for one in reversed(told) if "claims" in one))


def test_a_slip_in_what_is_run_again_opens_nothing(solo: Fenced, from_code: Site) -> None:
    """A migration that failed halfway stands there: only before the first command is everything taken back."""
    assert run(from_code, ["sh", "-c", "exit 7"]) == 7
    left = standing_run(from_code.look().record)
    assert left is not None
    with pytest.raises(RunFailed, match="The site stays read-only: resume") as failed:
        resume(from_code, left.id, ["/nowhere/to/be/found"])
    assert failed.value.code == 127
    assert from_code.look().state.read_only
    assert solo.writes() == "25006"
    with (
        fails(lambda more: "command" in more, AWAY),
        pytest.raises(RunFailed, match="The site stays read-only: resume") as failed,
    ):
        resume(from_code, left.id, ["true"])
    assert failed.value.code == 125
    assert from_code.look().state.read_only
    assert resume(from_code, left.id, ["true"]) == 0
    assert solo.writes() == ""


def test_a_fence_that_somebody_lifts_keeps_the_command_from_starting(solo: Fenced, from_code: Site) -> None:
    """While replicas are waited for, say: it is looked at once more, and everything is taken back."""
    frozen = Freeze.wanted

    def lifted(self: Freeze) -> bool:
        assert solo.ctl("fence", "lift", "main").returncode == 0
        return bool(frozen.__get__(self))

    with (
        mock.patch.object(Freeze, "wanted", property(lifted)),
        pytest.raises(RunFailed, match=r"the fence main was lifted meanwhile.* was not started") as failed,
    ):
        run(from_code, ["true"])
    assert failed.value.code == 125
    assert not from_code.look().state.read_only


def test_a_run_that_stands_no_more_has_nothing_to_end(solo: Fenced, from_code: Site) -> None:
    """A wrong id ends nobody's sessions."""
    with pytest.raises(NotYours, match="there is no run r0"), silent_at_once():
        abandon(from_code, "r0", end_sessions=True)
