"""An interrupt between any two lines, where a signal that arrives by itself would have to be lucky."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any


class Interruption(BaseException):
    """What a signal handler raises."""


def interrupted_at(line: int, call: Callable[[], object], modules: Collection[str]) -> bool:
    """Make a call and interrupt it before it runs a line of its own.

    Args:
        line: Which of the lines that it runs in `modules`, counted from 0.
        call: It.
        modules: Names of modules; what they share with everybody (`contextlib`) is among the lines only if named.

    Returns:
        False where the call was over before.
    """
    left = line

    def local(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left < 0:
                raise Interruption
        return local

    def entered(frame: FrameType, _event: str, _argument: Any) -> Any:
        return local if frame.f_globals.get("__name__") in modules else None

    # Whoever traces as well (a coverage tool) goes on afterwards.
    before = sys.gettrace()
    sys.settrace(entered)
    try:
        call()
    except Interruption:
        return True
    finally:
        sys.settrace(before)
    return False


def every_interruption(call: Callable[[], object], modules: Collection[str], after: Callable[[], object]) -> int:
    """Make a call once for each of its lines, interrupted before it, and something else after each; return how many."""
    line = 0
    while interrupted_at(line, call, modules):
        after()
        line += 1
    return line
