"""For pytest: the fixture `read_only_walk`, and a line at the end that says how much it looked at.

One line in a site's top `conftest.py` turns it on: `pytest_plugins = ["readonly.testing.pytest_plugin"]`. Importing
`readonly` or `readonly.testing` loads neither this module nor pytest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import pytest

from .findings import Walk
from .walking import walk

_SUMMARIES = pytest.StashKey[list[str]]()


@pytest.fixture
def read_only_walk(request: pytest.FixtureRequest) -> Callable[..., Walk]:
    """Call it like `readonly.testing.walk`: the test fails if any route writes while the site is read-only."""
    summaries = request.config.stash.setdefault(_SUMMARIES, [])

    @wraps(walk)
    def walked(*args: object, **kwargs: object) -> Walk:
        found = walk(*args, **kwargs)  # type: ignore[arg-type]  # handed on as they are
        summaries.append(f"{request.node.nodeid}: {found.summary}")
        if not found.ok:
            # The text says where to look; a traceback through the walk would only hide it.
            pytest.fail(found.text(), pytrace=False)
        return found

    return walked


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much was walked through: a green run that looked at nothing looks the same otherwise."""
    summaries = terminalreporter.config.stash.get(_SUMMARIES, [])
    if summaries:
        terminalreporter.section("read-only walks")
        for summary in summaries:
            terminalreporter.write_line(summary)
