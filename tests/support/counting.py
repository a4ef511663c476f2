"""A pytest plugin: under coverage, tests of whole sites are not counted; what they drive is counted where it is tested.

A process that is counted is half as fast, and so is a site under load, a search through millions of states, or a page
that is typed. The processes that such tests start are not counted either.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from coverage import Coverage

WHOLE = (
    "tests/browser/",
    "tests/conformance/",
    "tests/demo/",
    "tests/docs/",
    "tests/endtoend/",
    "tests/faults/",
    "tests/model/",
    "tests/rehearsal/test_demo_rehearsal.py",
    "tests/torture/",
)

_paused: Coverage | None = None
_told: dict[str, str] = {}


def told() -> dict[str, str]:
    """Return what tells a process that it is counted, where tests that are not have taken it from the environment."""
    return dict(_told)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Count or don't, from before the first fixture on."""
    if item.nodeid.startswith(WHOLE):
        _pause()
    else:
        _go_on()
    return (yield)


def pytest_sessionfinish() -> None:
    """Leave it as it was: what was counted is kept by whoever began."""
    _go_on()


def _pause() -> None:
    global _paused
    # Asked of the modules: where nobody counts, nothing is loaded for it.
    coverage = sys.modules.get("coverage")
    running: Coverage | None = None if coverage is None else coverage.Coverage.current()
    if running is None:
        return
    running.stop()
    _paused = running
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        _told[name] = os.environ.pop(name)


def _go_on() -> None:
    global _paused
    if _paused is not None:
        _paused.start()
        _paused = None
        os.environ.update(_told)
        _told.clear()
