"""What becomes of a process's switches when it forks, and when it ends."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple


class _Told(NamedTuple):
    """What is called with a switch. Neither may hold it: then it would never be collected."""

    forked: Callable[[Any], None]
    ends: Callable[[Any], None]


_live: weakref.WeakKeyDictionary[object, _Told] = weakref.WeakKeyDictionary()
_inherited: list[object] = []


def begins(switch: object, *, forked: Callable[[Any], None], ends: Callable[[Any], None]) -> None:
    """Have a switch told of forks, and closed when this process ends, for as long as it is there.

    Args:
        switch: The switch.
        forked: Called with it in a child, right after the fork.
        ends: Called with it when the process ends.
    """
    _live[switch] = _Told(forked, ends)


def keep(inherited: object) -> None:
    """Keep what a child inherited: to collect it would close the parent's connections, and could disturb it."""
    _inherited.append(inherited)


def say_goodbye_in_children(switch: object, *, ends: Callable[[Any], None]) -> None:
    """Close the switch when a child of multiprocessing ends: it runs no atexit functions (uvicorn's workers)."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(switch, ends, args=(switch,), exitpriority=0)


def _in_child() -> None:
    for switch, told in list(_live.items()):
        told.forked(switch)


def _at_exit() -> None:
    for switch, told in list(_live.items()):
        told.ends(switch)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
atexit.register(_at_exit)
