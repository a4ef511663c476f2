"""Several workers: files stay whole, the longest begin first, and what a worker has seen is said at the end."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from support import workers
from support.processes import run

TESTS = Path(__file__).parents[1]

CONFTEST = """
from support import missing, workers
from support.timing import Timing


def pytest_configure(config):
    config.pluginmanager.register(Timing())
    config.pluginmanager.register(workers)


def pytest_terminal_summary(terminalreporter):
    for server, reason in missing.reported().items():
        terminalreporter.write_line(f"without {server}: {reason}")
"""
FILE = """
import os
import pytest
from support import missing


@pytest.mark.parametrize("number", range(4))
def test_one(number):
    print("ran {name} on", os.environ["PYTEST_XDIST_WORKER"])


def test_without_a_server():
    raise missing.outcome(missing.ServerMissing("{name}", "everything"))
"""


def test_a_file_is_a_group_and_so_is_a_folder_that_shares_servers() -> None:
    """By the ids of their tests."""
    found = [workers.group_of(f"{path}::test_it[a::b]") for path in ("tests/test_a.py", "tests/cli/test_b.py")]
    assert found == ["tests/test_a.py", "tests/cli/test_b.py"]
    assert {workers.group_of(f"tests/demo/{name}.py::test_it") for name in ("test_site", "test_wire")} == {
        "tests/demo/"
    }
    assert [workers.group_of(f"{path}::test_it") for path in workers.APART] == list(workers.APART)


def test_what_is_named_is_there() -> None:
    """A file that was renamed would lose its place silently."""
    named = {*workers.TOGETHER, *workers.APART, *workers.LONGEST}
    assert {name for name in named if not (TESTS.parent / name).exists()} == set()
    # A folder before its file would take the file's place.
    assert [workers.turn_of(name) for name in workers.LONGEST] == list(range(len(workers.LONGEST)))


def test_the_longest_begin_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order; all others come after them."""
    monkeypatch.setattr(workers, "LONGEST", ("tests/b/", "tests/test_a.py"))
    turns = [workers.turn_of(f"tests/{path}::test_it") for path in ("b/test_c.py", "test_a.py", "test_d.py")]
    assert turns == [0, 1, 2]


def test_two_workers(tmp_path: Path) -> None:
    """Each file on one of them; times and missing servers of both are in the summary."""
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for name in ("red", "blue"):
        (tmp_path / f"test_{name}.py").write_text(FILE.format(name=name))
    environment = {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "CI": ""}
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        environment[name] = ""
    done = run(sys.executable, "-m", "pytest", *("-n", "2", "--dist", "loadfile", "-rP", "-p", "no:cacheprovider"),
               environment=environment, folder=tmp_path, timeout=240)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("red", "blue"):
        assert f"without {name}: no {name} here" in done.stdout
        assert re.search(rf" s  test_{name}\.py::test_one\[3\]", done.stdout)
    ran = re.findall(r"^ran (\w+) on (gw\d)$", done.stdout, re.MULTILINE)
    assert (len(ran), len(set(ran))) == (8, 2), done.stdout
    assert re.search(r"in all  \(10 tests\)", done.stdout)
