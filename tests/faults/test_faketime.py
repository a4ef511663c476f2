"""The round with libfaketime is not run here, since many machines have none; that it says so is."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from faults import faketime
from faults.nemesis import FAKED_NAMES, NAMES, SCATTERED, schedule


def test_a_machine_without_it_is_told_its_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No round that was not run may look like one that found nothing."""
    monkeypatch.setattr(faketime, "PLACES", ())
    monkeypatch.setattr(sys, "argv", ["tests.faults", "--faketime"])
    with pytest.raises(SystemExit):
        runpy.run_module("faults.__main__", run_name="__main__")
    assert "libfaketime is not installed" in (said := capsys.readouterr().out)
    assert "NOT run" in said


def test_a_library_that_does_not_work_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of that name proves nothing: a process is asked for the time."""
    library = tmp_path / "libfaketime.so.1"
    library.write_bytes(b"")
    monkeypatch.setattr(faketime, "PLACES", (library,))
    assert faketime.find() is None


def test_clocks_are_set_in_that_round_alone() -> None:
    """Elsewhere nothing could set Redis's."""
    assert SCATTERED in FAKED_NAMES
    assert SCATTERED not in NAMES
    cycles = schedule(3, kinds=FAKED_NAMES)
    names = {fault.kind.name for _ in range(40) for fault in next(cycles).faults}
    assert SCATTERED in names
    assert names <= set(FAKED_NAMES)
