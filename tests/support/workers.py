"""Several workers run the tests (pytest-xdist): which tests stay together, which begin first, what a worker tells.

Tests of one file run on one worker, in the order that pytest-randomly drew, so that what a module starts is started
once. What takes longest begins first: a long file that begins last keeps one worker busy while the others have nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support import missing

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling
    from xdist.workermanage import WorkerController

# Folders whose files share what is dear to start, and files of theirs that do not.
TOGETHER = ("tests/demo/",)
APART = ("tests/demo/test_demo_is_honest.py", "tests/demo/test_postgres_demo.py")
# What takes longest, the longest first, each the beginning of some tests' ids (a file before
# its folder); all others follow as they were drawn.
LONGEST = (
    "tests/benchmarks/test_members_at_scale.py",
    "tests/demo/test_demo_is_honest.py",
    "tests/torture/",
    "tests/run/test_killed.py",
    "tests/conformance/test_cells.py",
    "tests/demo/test_postgres_demo.py",
    "tests/demo/",
    "tests/faults/test_short_round.py",
    "tests/endtoend/test_two_hundred_switches.py",
    "tests/model/",
    "tests/endtoend/",
    "tests/faults/",
    "tests/stores/test_sentinel_store.py",
    "tests/databases/fence/",
    "tests/cli/test_fence.py",
    "tests/run/",
    "tests/docs/",
    "tests/databases/",
    "tests/cli/",
)

_MISSING = "readonly_missing"


def group_of(nodeid: str) -> str:
    """Return the file or the folder whose tests run on one worker with this one."""
    path = nodeid.partition("::")[0]
    shared = next((folder for folder in TOGETHER if path.startswith(folder)), path)
    return path if path in APART else shared


def turn_of(nodeid: str) -> int:
    """Return a test's place among those that begin first; the others have the last one, all the same."""
    return next((turn for turn, begin in enumerate(LONGEST) if nodeid.startswith(begin)), len(LONGEST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Hand out whole groups in the order collected, unless another way was asked for than `--dist loadfile`."""
    if config.getvalue("dist") != "loadfile":
        return None
    # Here, not above: where tests run one by one, as they do on a wheel alone, nobody needs it.
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False  # by the number of tests, which says little about their time
    return Groups(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a worker, put first what takes longest; what was drawn decides among the others."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: turn_of(item.nodeid))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """On a worker, tell which servers were missing."""
    told: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if told is not None:
        told[_MISSING] = missing.reported()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """Take in what a worker has told; one that crashed has not, and its test is reported as failed."""
    told: dict[str, Any] = getattr(node, "workeroutput", None) or {}
    missing.remember(told.get(_MISSING, {}))
