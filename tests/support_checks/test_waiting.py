"""Waiting ends when the condition is met, and says what it saw when it is not."""

from __future__ import annotations

import pytest

from support.timing import folder_of
from support.waiting import NeverHappened, eventually, eventually_async


def test_returns_the_first_true_answer() -> None:
    """Falsy answers are asked again, the first other one is returned."""
    answers = iter([0, "", None, "there"])
    assert eventually(lambda: next(answers), poll_seconds=0) == "there"


def test_gives_up_with_what_was_seen_last() -> None:
    """The message holds the name, the time and the last answer."""
    with pytest.raises(NeverHappened, match=r"the moon rises: not within 0\.12 s; last seen: 0"):
        eventually(lambda: 0, 0.02, what="the moon rises")


def test_ignored_exceptions_count_as_not_yet() -> None:
    """A named exception is waited out and is the cause of the failure; another one passes through."""
    empty: dict[str, str] = {}
    with pytest.raises(NeverHappened) as failed:
        eventually(lambda: empty["key"], 0.02, ignoring=KeyError)
    assert isinstance(failed.value.__cause__, KeyError)
    with pytest.raises(KeyError):
        eventually(lambda: empty["key"], 0.02)


@pytest.mark.anyio
async def test_waits_on_the_loop() -> None:
    """The async twin takes functions and coroutine functions."""
    answers = iter([False, True])

    async def asked() -> bool:
        return next(answers)

    assert await eventually_async(asked, poll_seconds=0)
    with pytest.raises(NeverHappened):
        await eventually_async(lambda: None, 0.02)


@pytest.mark.parametrize(
    ("nodeid", "folder"),
    [
        ("tests/test_gate.py::test_a", "tests/"),
        ("tests/stores/test_redis_store.py::test_a[x/y]", "tests/stores/"),
        ("tests/stores/deep/test_b.py::test_a", "tests/stores/"),
    ],
)
def test_times_are_added_by_folder(nodeid: str, folder: str) -> None:
    """Everything below one folder of tests/ counts as one."""
    assert folder_of(nodeid) == folder
