"""A store inside one process: for tests, for development, and for a site that is one process anyway."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue

from readonly.clock import Clock, SystemClock
from readonly.errors import StoreUnreachable
from readonly.transitions import noted

from . import (
    DEFAULT_ALIVE_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    ENDED_SECONDS,
    LATELY_SECONDS,
    SILENT_AT_MOST,
    Census,
    Newcomer,
    Reading,
    Seen,
    automatic_record,
    neighbours_of,
    preceding,
    redacted,
)


class _Memory:
    """What all handles on one store share. `lock` guards every other attribute."""

    def __init__(self, record: bytes, clock: Clock) -> None:
        self.lock = threading.Lock()
        self.pid = os.getpid()
        self.clock = clock
        self.record: bytes | None = record
        self.since: dict[str, datetime] = {}
        self.members: dict[str, Seen] = {}
        self.logs: dict[str, list[bytes]] = {}
        # Of the members: those that are over, and of those the ones that had nothing begun.
        self.ended: set[str] = set()
        self.left: set[str] = set()
        self.forgotten: set[str] = set()
        # Until when each is alive, by its own word. Those that nobody has named yet, and until when one of those may be
        # alive that were there before; and those that are asked to report for their sake.
        self.until: dict[str, datetime] = {}
        self.new: dict[str, datetime] = {}
        self.asked: set[str] = set()
        self.registry = 0
        # None: this memory was never emptied, so nobody can know more than it does.
        self.emptied: float | None = None
        self.changes = 0
        self.announced = 0
        self.handles: weakref.WeakSet[MemoryStore] = weakref.WeakSet()

    @property
    def name(self) -> str:
        """What tells this registry from those that were lost."""
        return str(self.registry)


@dataclass(slots=True)
class _Link:
    """How the handles of one process reach the memory: tests cut it."""

    cut: bool = False


class MemoryStore:
    """The `Store` contract over shared memory. All handles made from one object share what it holds.

    It starts initialised and writable. Two stores made from the same URL stay two: what is not passed on is
    not shared. Unlike other stores it may be used by several threads at once, except for `wait`.

    Tests use what real stores suffer: `lose` (a FLUSHALL), `break_` and `mend` (the network), `peer` (what
    another process would hold: the same memory over a link of its own).

    Args:
        url: What to show as this store's URL.
        site: The site's name.
        timeout: Kept for the contract; nothing here takes any time.
        clock: The store's clock.
    """

    def __init__(
        self,
        url: str = "memory://",
        *,
        site: str = "memory",
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        self.url = url
        self.site = site
        self.timeout = timeout
        clock = clock or SystemClock()
        self._attach(_Memory(automatic_record(site, at=clock.now(), by="memory store"), clock), _Link())

    def _attach(self, memory: _Memory, link: _Link) -> None:
        self._memory = memory
        self._link = link
        # A SimpleQueue, because its put() is the one notification that is safe inside a signal handler.
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._woken = False
        with memory.lock:
            self._changes = memory.changes
            self._announced = memory.announced
            memory.handles.add(self)

    # --- the contract --------------------------------------------------------------------------------------

    def read(self) -> Reading:
        """Read the record."""
        self._check()
        with self._memory.lock:
            return self._reading()

    def replace(self, record: bytes, *, was: bytes | None, causes: Sequence[str] = ()) -> Reading:
        """Put `record` in place of `was`, if that is what stands there."""
        self._check()
        memory = self._memory
        with memory.lock:
            if memory.record != was:
                return self._reading()
            now = memory.clock.now()
            memory.since = {cause: memory.since.get(cause, now) for cause in causes}
            memory.record = bytes(record)
            memory.changes += 1
            self._ring()
            return self._reading()

    def report(
        self,
        member: str,
        report: bytes,
        *,
        keep_seconds: float,
        alive_seconds: float = DEFAULT_ALIVE_SECONDS,
        announce: bool = False,
        ended: bool = False,
        leaves: bool = False,
        new: Newcomer | None = None,
        names: Sequence[str] = (),
    ) -> Reading:
        """Register a member and read the record."""
        self._check()
        memory = self._memory
        with memory.lock:
            now = memory.clock.now()
            joins = new is not None and member not in memory.members
            oldest = now - timedelta(seconds=keep_seconds)
            memory.members = {key: seen for key, seen in memory.members.items() if seen.at >= oldest}
            memory.members[member] = Seen(member, bytes(report), now)
            memory.ended = memory.ended - {member} | ({member} if ended or leaves else set())
            memory.left = memory.left - {member} | ({member} if leaves else set())
            memory.ended &= set(memory.members)
            memory.left &= set(memory.members)
            if announce:
                memory.announced += 1
                self._ring()
            ago = {key: (now - seen.at).total_seconds() for key, seen in memory.members.items()}
            alive = {key for key in ago if key not in memory.ended and ago[key] <= alive_seconds}
            over = {key for key in memory.ended if key in memory.left or ago[key] > ENDED_SECONDS}
            near = neighbours_of(member, ago.keys() - over, alive)
            memory.new = {key: at for key, at in memory.new.items() if key in memory.members and key not in names}
            memory.asked.discard(member)
            over = {*memory.ended, member}
            until = [at for key, at in memory.until.items() if key in memory.members and key not in over]
            memory.until[member] = now + timedelta(seconds=alive_seconds)
            if joins:
                memory.new[member] = max([now, *until])
            found = replace(self._reading(), registry=memory.name, neighbours=near)
            if new is None:
                return found
            last = memory.new.get(member)
            is_noted = noted(
                left=None if last is None else (last - now).total_seconds(),
                alone=all(at < now for at in until),
                young=found.incarnation_seconds < new.young_seconds,
            )
            if is_noted:
                memory.new.pop(member, None)
            elif joins:
                memory.asked.update(preceding(member, {key for key, at in memory.until.items() if at >= now} - over))
                self._ring()
            return replace(found, noted=is_noted)

    def census(self) -> Census:
        """Read record and registry at one moment."""
        self._check()
        with self._memory.lock:
            memory = self._memory
            reading = replace(self._reading(since=True), registry=memory.name)
            return Census(reading, tuple(memory.members.values()), frozenset(memory.forgotten))

    def silent(self, *, longer_than: float, shorter_than: float, before: datetime | None = None) -> tuple[Seen, ...]:
        """Return members that have been silent for so long, and have not ended; the last that spoke first."""
        self._check()
        memory = self._memory
        with memory.lock:
            now = memory.clock.now()
            found = [
                seen
                for key, seen in memory.members.items()
                if key not in memory.ended and longer_than < (now - seen.at).total_seconds() < shorter_than
            ]
        found.sort(key=lambda seen: seen.at, reverse=True)
        return tuple([seen for seen in found if before is None or seen.at < before][:SILENT_AT_MOST])

    def forget(self, member: str) -> None:
        """Take one member off the registry, and remember that a person vouched for it."""
        self._check()
        with self._memory.lock:
            self._memory.members.pop(member, None)
            self._memory.forgotten.add(member)

    def wait(self, timeout: float, *, for_reports: bool = False, member: str = "") -> bool:
        """Wait until the record may have changed, or this member is asked to report at once."""
        deadline = time.monotonic() + timeout
        while True:
            self._check()
            memory = self._memory
            with memory.lock:
                hint = self._changes != memory.changes or (for_reports and self._announced != memory.announced)
                hint = hint or member in memory.asked
                memory.asked.discard(member)
                self._changes, self._announced = memory.changes, memory.announced
            woken, self._woken = self._woken, False
            if hint or woken:
                return hint
            try:
                self._bell.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                return False

    def wake(self) -> None:
        """Make a running or the next `wait` return."""
        self._woken = True
        self._bell.put(None)

    def append(self, log: str, entry: bytes, *, keep: int) -> None:
        """Append to a bounded log."""
        self._check()
        with self._memory.lock:
            entries = self._memory.logs.setdefault(log, [])
            entries.append(bytes(entry))
            del entries[: max(0, len(entries) - keep)]

    def entries(self, log: str, *, last: int) -> Sequence[bytes]:
        """Return the last entries of a log, oldest first."""
        self._check()
        with self._memory.lock:
            entries = self._memory.logs.get(log, [])
            return tuple(entries[max(0, len(entries) - last) :])

    def settled(self, timeout: float) -> str:
        """Return "": it has no copy that could be behind."""
        return ""

    def warnings(self) -> tuple[str, ...]:
        """Return nothing: it has no such setting."""
        return ()

    def try_write(self) -> None:
        """Do nothing, if its link is whole: whoever has it may write to it."""
        self._check()

    def reopened(self) -> MemoryStore:
        """Return a handle on the same memory; a forked child has a copy, which no other process sees."""
        return self._handle(self._link)

    def close(self) -> None:
        """Do nothing: there is no connection."""

    # --- what tests do to it -------------------------------------------------------------------------------

    def peer(self) -> MemoryStore:
        """Return what another process would hold: the same memory, over a link that is cut on its own."""
        return self._handle(_Link())

    def lose(self) -> None:
        """Forget everything, as FLUSHALL does: record, registry and logs. Nobody is told."""
        memory = self._memory
        with memory.lock:
            memory.record = None
            memory.since, memory.members, memory.logs = {}, {}, {}
            memory.ended, memory.left, memory.forgotten = set(), set(), set()
            memory.until, memory.new, memory.asked = {}, {}, set()
            memory.registry += 1
            memory.emptied = memory.clock.boottime()

    def hint(self) -> None:
        """Wake all waiters for nothing, as a renewed subscription does."""
        with self._memory.lock:
            self._memory.changes += 1
            self._ring()

    @property
    def unreachable(self) -> bool:
        """Whether calls of this process's handles raise `StoreUnreachable`; may be set."""
        return self._link.cut

    @unreachable.setter
    def unreachable(self, cut: bool) -> None:
        self._link.cut = cut
        # A cut ends running waits; a mended link counts as a renewed subscription.
        self.hint()

    def break_(self) -> None:
        """Make every call of this handle, and of those reopened from it, raise `StoreUnreachable`."""
        self.unreachable = True

    def mend(self) -> None:
        """Undo `break_`."""
        self.unreachable = False

    # --- inside --------------------------------------------------------------------------------------------

    def _handle(self, link: _Link) -> MemoryStore:
        memory = self._memory
        if memory.pid != os.getpid():
            # Another thread of the parent may have held the lock when this process was forked.
            memory.pid = os.getpid()
            memory.lock = threading.Lock()
            memory.handles = weakref.WeakSet()
        twin = object.__new__(MemoryStore)
        twin.url, twin.site, twin.timeout = self.url, self.site, self.timeout
        twin._attach(memory, link)
        return twin

    def _check(self) -> None:
        if self._link.cut:
            raise StoreUnreachable(f"store {redacted(self.url)} does not answer: its link was cut by a test")

    def _ring(self) -> None:
        for handle in self._memory.handles:
            if handle._bell.empty():
                handle._bell.put(None)

    def _reading(self, *, since: bool = False) -> Reading:
        memory = self._memory
        now = memory.clock.now()
        lately = now - timedelta(seconds=LATELY_SECONDS)
        return Reading(
            record=memory.record,
            at=now,
            incarnation_seconds=float("inf") if memory.emptied is None else memory.clock.boottime() - memory.emptied,
            members=sum(seen.at >= lately for seen in memory.members.values()),
            here_since=dict(memory.since) if since else {},
        )
