"""`make demo` tells a site that keeps its promises from one that does not."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from demo_app import verdict
from demo_app.dresses import DRESSES
from support import children

PROJECT = Path(__file__).parents[2]
# Where other tests run beside it, each demonstration takes several times as long as alone.
DEADLINE_SECONDS = 300

SABOTAGED = {
    "gate taken out": ("--app", "tests.demo.sabotage:without_gate"),
    "sessions kept": ("--app", "tests.demo.sabotage:with_sessions_kept"),
    "`on` returns at once": ("--on-option=--no-wait",),
}
BROKEN = {
    "gate taken out": ("writes committed between `on` and `off`", "writes not refused", "logins not refused"),
    "sessions kept": ("sessions that outlived `on`",),
    "`on` returns at once": ("writes committed between `on` and `off`",),
}


def _begin(output: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        return children.start(
            [sys.executable, "-m", "demo_app.demo", *arguments],
            output=file,
            when_we_die="TERM",
            folder=PROJECT,
        )


def _end(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(DEADLINE_SECONDS)
    finally:
        children.end(process, signal.SIGTERM)


def _given(folder: Path, arguments: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[int, str]]:
    """Give demonstrations, all at once: what one waits for, another uses the cores for."""
    running = {name: _begin(folder / f"{number}.txt", *words) for number, (name, words) in enumerate(arguments.items())}
    codes = {name: _end(process) for name, process in running.items()}
    return {name: (codes[name], (folder / f"{number}.txt").read_text()) for number, name in enumerate(arguments)}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[int, str]]:
    """Exit code and output of each broken demonstration, which needs no large load to be found out."""
    arguments = {name: ("--seconds", "2", "--patience", "0.3", *how) for name, how in SABOTAGED.items()}
    return _given(tmp_path_factory.mktemp("sabotaged"), arguments)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[int, str]]:
    """The same of one for each dress: short on a quick machine, and a slow one takes the time that it needs."""
    # By hand, and in `make demo`, the load is four times as large.
    arguments = {
        name: ("--framework", name, "--seconds", "2", "--patience", "120", "--share", "0.25") for name in DRESSES
    }
    return _given(tmp_path_factory.mktemp("honest"), arguments)


@pytest.mark.timeout(3 * DEADLINE_SECONDS)
@pytest.mark.parametrize("how", SABOTAGED)
def test_a_broken_promise_is_found(how: str, given: Mapping[str, tuple[int, str]]) -> None:
    """Each way to break the site makes the demonstration fail, and for that reason."""
    code, output = given[how]
    assert code == verdict.BROKEN, output
    broken = [line for line in output.splitlines() if line.startswith("BROKEN")]
    for promise in BROKEN[how]:
        assert any(promise in line for line in broken), output


@pytest.mark.timeout(3 * DEADLINE_SECONDS)
def test_only_what_was_sabotaged_is_broken(given: Mapping[str, tuple[int, str]]) -> None:
    """With sessions kept, the sessions are all that is wrong."""
    _, output = given["sessions kept"]
    assert [line.split(maxsplit=2)[2] for line in output.splitlines() if line.startswith("BROKEN")] == [
        "sessions that outlived `on`"
    ], output


@pytest.mark.timeout(3 * DEADLINE_SECONDS)
@pytest.mark.parametrize("dress", DRESSES)
def test_a_site_that_is_not_broken(dress: str, honest: Mapping[str, tuple[int, str]]) -> None:
    """The demonstration itself, shortened: every promise is kept, and the load was large enough to say so."""
    code, output = honest[dress]
    assert code == verdict.KEPT, output
    assert f"on {dress} with 2 worker processes" in output
