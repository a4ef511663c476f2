"""Frozen replicas are looked after: the log that waits for them, and whether they are still paused.

What waits takes space where it waits, at the replica itself and, where that follows by a slot and is away, at its
primary; so it is thawed before a limit. A replica that is restarted loses its pause: it is paused again, unless it
would keep a lock of the migration by that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from .databases.fence import FenceError
from .databases.freeze import Frozen, NotFrozen, Pause, Seen, Standby
from .errors import Error
from .following import Followers, Standbys, fenced_at, size

# How often the log that waits is looked at. It grows by what a server can write: seldom above a gigabyte in that time.
WATCH_SECONDS = 2.0
# From this share of its limit on it is said.
WARN_AT = 0.5
DEFAULT_LIMIT = 10 * 2**30
# What a replica that lost its pause gets to take it up again.
AGAIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something that became of a frozen replica.

    Attributes:
        name: Which.
        what: `half full`, `thawed`, `paused again`, `not frozen` or `out of sight`.
        said: In words, with what it means.
    """

    name: str
    what: str
    said: str


@dataclass(slots=True)
class _Kept:
    """What is known of one frozen replica."""

    group: Followers
    standby: Standby
    frozen: Frozen
    bytes: int | None = None
    warned: bool = False
    unseen: bool = False


class Watch:
    """Looks after frozen replicas: the log that waits, and whether they are still paused. Use as a context manager.

    What it notices is kept until `noticed` is called; it has a thread of its own, which thaws at once.

    Args:
        standbys: All of them.
        frozen: Those that were frozen.
        limit: Bytes of log that may wait for one, at itself or at its primary.
    """

    def __init__(self, standbys: Standbys, frozen: Sequence[Frozen], *, limit: int) -> None:
        by_name = {one.name: one for one in frozen}
        self._kept = [
            _Kept(group, standby, by_name[standby.name])
            for group in standbys.groups
            for standby in group.freezable
            if standby.name in by_name
        ]
        self._limit = limit
        self._noticed: list[Noticed] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def noticed(self) -> tuple[Noticed, ...]:
        """Return what happened since this was called last."""
        with self._lock:
            found, self._noticed = tuple(self._noticed), []
        return found

    def look(self) -> None:
        """Look at each once: warn, thaw, pause again."""
        for kept in tuple(self._kept):
            try:
                self._look(kept)
            except Error as error:
                if not kept.unseen:
                    self._say(kept, "out of sight", f"{error}. Its log is not watched until it answers again")
                kept.unseen = True
            else:
                kept.unseen = False

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        """Look every few seconds while the block runs."""
        if not self._kept:
            yield self
            return
        thread = threading.Thread(target=self._run, name="readonly-freeze-watch", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(WATCH_SECONDS):
            self.look()

    def _look(self, kept: _Kept) -> None:
        seen = kept.standby.look()
        if seen.pause is not Pause.YES and self._lost(kept):
            return
        waiting, where = _waiting(kept, seen)
        # What came since the last look may come once more before the next one.
        growth = 0 if kept.bytes is None else max(0, waiting - kept.bytes)
        kept.bytes = waiting
        if waiting + growth >= self._limit:
            kept.standby.thaw()
            self._kept.remove(kept)
            self._say(
                kept, "thawed",
                f"{kept.standby.name} replays again: {size(waiting)} of log waited {where}, and may be "
                f"{size(self._limit)} (--freeze-limit). Readers there see the migration, and wait for its locks",
            )  # fmt: skip
        elif waiting >= self._limit * WARN_AT and not kept.warned:
            kept.warned = True
            self._say(
                kept, "half full",
                f"{size(waiting)} of log wait {where} for {kept.standby.name}: it is thawed before "
                f"{size(self._limit)} (--freeze-limit)",
            )  # fmt: skip

    def _lost(self, kept: _Kept) -> bool:
        """Pause a replica again that lost its pause; returns whether it is given up."""
        position = fenced_at(kept.group.fence)
        why = f"{kept.standby.name} had lost its pause (was it restarted?)"
        try:
            kept.frozen = kept.standby.freeze(position, timeout=AGAIN_SECONDS)
        except NotFrozen as error:
            self._kept.remove(kept)
            self._say(kept, "not frozen", f"{why}: {error}. Readers there see the migration, and wait for its locks")
            return True
        self._say(
            kept, "paused again",
            f"{why} and was paused again: {kept.frozen}. What the migration had committed by then is seen there",
        )  # fmt: skip
        return False

    def _say(self, kept: _Kept, what: str, said: str) -> None:
        with self._lock:
            self._noticed.append(Noticed(kept.standby.name, what, said))


def _waiting(kept: _Kept, seen: Seen) -> tuple[int, str]:
    """Return how much log waits for a replica, and where the most of it does."""
    try:
        behind = kept.group.fence.kept_for(seen.slot) if seen.slot else None
    except FenceError:  # what waits at the replica itself is known all the same
        behind = None
    if behind is not None and behind > seen.waiting_bytes:
        return behind, f"at the primary, behind the slot {seen.slot}"
    return seen.waiting_bytes, "there"


__all__ = ["DEFAULT_LIMIT", "Noticed", "Watch"]
