"""Whether two switches of one process follow one store, and where they were made.

What obeys the one knows nothing of what the other has let through or counted, and the process is two members. It works,
until somebody gives the one a lease, or a guard to the other.
"""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from typing import Final

# What is private to a process is not one store, though its URL is the same.
_PRIVATE: Final = "memory:"
_NOWHERE: Final = "a library"


@dataclass(frozen=True, slots=True)
class _Alive:
    pid: int
    url: str
    place: str
    follower: weakref.ref[object]


# By member. No lock, which a fork could leave held: each use is a single operation of the interpreter.
_alive: dict[str, _Alive] = {}


def begins(member: str, follower: object, *, url: str, place: str) -> None:
    """Say that a switch has begun to follow a store, in this process.

    Args:
        member: Its id.
        follower: What follows; whoever drops it without a word has ended it.
        url: The store's.
        place: Where in the code the switch was made, or "".
    """
    _alive[member] = _Alive(os.getpid(), url, place or _NOWHERE, weakref.ref(follower))


def ends(member: str) -> None:
    """Say that it follows no more, or is another process's."""
    _alive.pop(member, None)


def places(member: str) -> str:
    """Return where this switch and another one of this process were made that follows the same store, or ""."""
    mine = _alive.get(member)
    if mine is None or mine.url.startswith(_PRIVATE):
        return ""
    for one in list(_alive.values()):
        if one is not mine and (one.pid, one.url) == (mine.pid, mine.url) and one.follower() is not None:
            first, second = sorted((mine.place, one.place))
            return f"{first} and {second}" if first != second else f"{first}, twice"
    return ""
