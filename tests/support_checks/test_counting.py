"""The plugin that says which tests are counted under coverage."""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from support import counting


class Counter:
    """Stands for coverage's own object."""

    def __init__(self) -> None:
        self.counts = True

    def stop(self) -> None:
        self.counts = False

    def start(self) -> None:
        self.counts = True


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """One that counts."""
    # What goes on around this test is left alone, whoever counts it.
    monkeypatch.setattr(counting, "_paused", None)
    monkeypatch.setattr(counting, "_told", {})
    found = Counter()
    coverage = ModuleType("coverage")
    coverage.Coverage = SimpleNamespace(current=lambda: found if found.counts else None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "coverage", coverage)
    monkeypatch.setenv("COVERAGE_PROCESS_CONFIG", "how")
    return found


def _around(nodeid: str) -> None:
    around = counting.pytest_runtest_protocol(SimpleNamespace(nodeid=nodeid))  # type: ignore[arg-type]  # all it asks for
    next(around)


def test_a_whole_site_is_not_counted_and_what_follows_is(counter: Counter) -> None:
    """Neither in this process nor in those that it starts."""
    for _ in range(2):
        _around("tests/model/test_model.py::test_it")
        assert not counter.counts
        assert "COVERAGE_PROCESS_CONFIG" not in os.environ
        assert counting.told()["COVERAGE_PROCESS_CONFIG"] == "how"
    _around("tests/test_gate.py::test_it")
    assert counter.counts
    assert os.environ["COVERAGE_PROCESS_CONFIG"] == "how"
    assert counting.told() == {}


def test_at_the_end_it_counts_again(counter: Counter) -> None:
    """Whoever began it saves what was counted."""
    _around("tests/demo/test_site.py::test_it")
    counting.pytest_sessionfinish()
    assert counter.counts


def test_without_coverage_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite runs in places that do not have it."""
    monkeypatch.setattr(counting, "_paused", None)
    monkeypatch.delitem(sys.modules, "coverage", raising=False)
    _around("tests/model/test_model.py::test_it")
    assert counting._paused is None
    assert "coverage" not in sys.modules
