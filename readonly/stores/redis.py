"""A store in Redis or Valkey (6.2 or newer): for a site of several machines.

One connection for commands and one that listens, both made at first use and each owned by one process.
Connections are redis-py's, used bare: its client would connect again by itself, and a restart that nobody
notices is what this store must not miss.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from readonly.errors import StoreUnreachable

from . import (
    DEFAULT_ALIVE_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    Census,
    Newcomer,
    Reading,
    Seen,
    redacted,
    redis_durability,
)
from .redis_connection import (
    FAILURES,
    Address,
    Connection,
    Misplaced,
    NoScript,
    OneServer,
    Place,
    Refused,
    address_of,
    ask,
    explain,
    info,
)
from .redis_listening import Listener, Waker
from .redis_scripts import APPEND, CENSUS, FORGET, MARK, READ, REPLACE, REPORT, SILENT, Script

T = TypeVar("T")

# How often one call follows a server that says that another one takes the writes.
REDIRECTIONS = 3

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _NotAfter:
    """Among the arguments of a script: the time at which whoever calls it has given up."""


_NOT_AFTER = _NotAfter()


@dataclass(slots=True)
class _Commands:
    """The connection that commands go over.

    Attributes:
        connection: It.
        run_id: The run id of the server that it was made to.
        ahead: Seconds by which the server's clock is ahead of our monotonic one, at least; None before it was looked
            at.
    """

    connection: Connection
    run_id: str
    ahead: float | None = None

    @property
    def address(self) -> Address:
        return address_of(self.connection)


class RedisStore:
    """The `Store` contract over one Redis server at a time. It connects at the first call.

    The store's clock is the server's. Its incarnation is as old as the first report that its present run has
    taken: a restart, a failover and a FLUSHALL begin a new one.

    Args:
        url: Shown, and handed on by `reopened`.
        site: The site's name.
        place: Where the server is.
        timeout: Seconds for one answer, and for making a connection.
    """

    def __init__(self, url: str, *, site: str, place: Place, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self.url = url
        self.site = site
        self.timeout = timeout
        self._place = place
        self._prefix = f"readonly:{{{site}}}:"
        names = ("state", "members", "seen", "incarnation", "ring", "forgotten", "living", "new", "until")
        self._keys = [self._prefix + name for name in names]
        self._changes = self._prefix + "changes"
        self._reports = self._prefix + "reports"
        self._asked = self._prefix + "member:"
        self._pid = os.getpid()
        self._commands: _Commands | None = None
        self._listener: Listener | None = None
        self._waker: Waker | None = None
        self._woken = False
        self._members = 0

    @classmethod
    def from_url(cls, url: str, *, site: str, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> RedisStore:
        """Return the store that a URL names.

        Args:
            url: `redis://`, `redis+sentinel://` or `redis+cluster://`, with TLS `rediss…`; options of the query that
                are not this store's are redis-py's.
            site: The site's name.
            timeout: Seconds for one answer, and for making a connection.

        Raises:
            ConfigurationError: The URL can't be right.
        """
        kind = urlsplit(url).scheme.lower().partition("+")[2]
        place: Place
        if kind == "sentinel":
            from .redis_sentinel import Sentinels

            place = Sentinels(url, timeout=timeout)
        elif kind == "cluster":
            from .redis_cluster import Cluster

            place = Cluster(url, key=f"readonly:{{{site}}}:state", timeout=timeout)
        else:
            place = OneServer(url, timeout=timeout)
        return cls(url, site=site, place=place, timeout=timeout)

    # --- the contract -------------------------------------------------------------------------------------

    def read(self) -> Reading:
        """Read the record. Writes nothing: a replica and a server that is full answer, too."""
        return self._reading(self._run(READ))

    def replace(self, record: bytes, *, was: bytes | None, causes: Sequence[str] = ()) -> Reading:
        """Put `record` in place of `was`, if that is what stands there."""
        expected = ("0", b"") if was is None else ("1", was)
        return self._reading(self._run(REPLACE, *expected, record, self._changes, _NOT_AFTER, *causes))

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
        """Register a member and read the record, in one round trip."""
        keep = round(keep_seconds * 1000)
        channel = self._reports if announce else ""
        last = "left" if leaves else "ended" if ended else ""
        alive = round(alive_seconds * 1000)
        young = "" if new is None else round(new.young_seconds * 1000)
        *reading, near, noted = self._run(
            REPORT, member, report, keep, channel, last, alive, young, self._asked, *names
        )
        neighbours = tuple(other.decode() for other in near)
        registry = self._registry(reading)
        return replace(self._reading(reading), registry=registry, neighbours=neighbours, noted=noted == 1)

    def census(self) -> Census:
        """Read record and registry in one step."""
        *reading, state, members, seen, forgotten = self._run(CENSUS)
        since = {
            name[len(b"since:") :].decode(): _instant(at) for name, at in _pairs(state) if name.startswith(b"since:")
        }
        reports, times = dict(_pairs(members)), dict(_pairs(seen))
        # A server that evicts may have lost one of the two: such a member is shown, not left out.
        found = (
            Seen(member.decode(), reports.get(member, b""), _instant(times.get(member, b"0")))
            for member in sorted({*reports, *times})
        )
        known = replace(self._reading(reading, since), registry=self._registry(reading))
        return Census(known, tuple(found), frozenset(m.decode() for m in forgotten))

    def silent(self, *, longer_than: float, shorter_than: float, before: datetime | None = None) -> tuple[Seen, ...]:
        """Return members that have been silent for so long, and have not ended; the last that spoke first."""
        asked = "" if before is None else _milliseconds(before)
        found = self._run(SILENT, round(longer_than * 1000), round(shorter_than * 1000), asked)
        return tuple(Seen(member.decode(), report, _instant(at)) for member, report, at in found)

    def forget(self, member: str) -> None:
        """Take one member off the registry, and remember that a person vouched for it."""
        self._run(FORGET, member)

    def wait(self, timeout: float, *, for_reports: bool = False, member: str = "") -> bool:
        """Wait until the record may have changed, or this member is asked to report at once."""
        deadline = time.monotonic() + timeout
        wanted = {self._changes}
        wanted |= {self._reports} if for_reports else set()
        wanted |= {self._asked + member} if member else set()
        self._in_this_process()
        try:
            if self._waker is None:
                self._waker = Waker()
            return self._hint(deadline, self._waker, wanted)
        except FAILURES as error:
            self._stop_listening()
            self._give_up(error)
        except BaseException:
            # Left half read it would be connected again by redis-py, and hear nothing.
            self._stop_listening()
            raise

    def wake(self) -> None:
        """Make a running or the next `wait` return."""
        # In this order: a wait that is just making its waker looks at `_woken` afterwards.
        self._woken = True
        waker = self._waker
        if waker is not None and self._pid == os.getpid():
            waker.ring()

    def append(self, log: str, entry: bytes, *, keep: int) -> None:
        """Append to a bounded log."""
        self._call(APPEND, [f"{self._prefix}log:{log}"], entry, keep)

    def entries(self, log: str, *, last: int) -> Sequence[bytes]:
        """Return the last entries of a log, oldest first."""
        found = self._guarded(
            lambda commands: ask(commands.connection, "LRANGE", f"{self._prefix}log:{log}", -last, -1)
        )
        return tuple(found) if last > 0 else ()

    def settled(self, timeout: float) -> str:
        """Return "" when the replicas, and the disk where it counts, have all that was written so far; else a sentence.

        It blocks for `timeout` seconds at most, beside what a call takes.
        """
        before = self._commands.run_id if self._commands is not None else None
        self._run(MARK)

        def look(commands: _Commands) -> str:
            if before not in (None, commands.run_id):
                return "another server took over just now: what it holds has to be looked at again"
            return redis_durability.lacking(
                commands.connection, known_replicas=self._place.replicas, wait=timeout, timeout=self.timeout
            )

        return self._guarded(look)

    def warnings(self) -> tuple[str, ...]:
        """Return what in the server's settings can lose the record."""
        return self._guarded(
            lambda commands: redis_durability.warnings(commands.connection, known_replicas=self._place.replicas)
        )

    def try_write(self) -> None:
        """See whether a write would be taken now: by this server, from this user, with the memory that is left."""
        # A write like any other to whoever judges it, of a key that is never there.
        self._guarded(lambda commands: ask(commands.connection, "SET", f"{self._prefix}none", "", "XX"))

    def reopened(self) -> RedisStore:
        """Return the same store with connections of its own."""
        return RedisStore(self.url, site=self.site, place=self._place.reopened(), timeout=self.timeout)

    def close(self) -> None:
        """Close the connections that this process opened."""
        self._in_this_process()
        self._leave()
        self._place.close()

    # --- commands -----------------------------------------------------------------------------------------

    def _run(self, script: Script, *args: str | bytes | int | _NotAfter) -> list[Any]:
        return self._call(script, self._keys, None, *args)

    def _call(self, script: Script, keys: Sequence[str], *args: str | bytes | int | _NotAfter | None) -> list[Any]:
        """Run a script; None among its arguments stands for the server's run id."""

        def call(commands: _Commands) -> list[Any]:
            words = [
                commands.run_id if arg is None else self._not_after(commands) if isinstance(arg, _NotAfter) else arg
                for arg in args
            ]
            try:
                found = ask(commands.connection, "EVALSHA", script.sha, len(keys), *keys, *words)
            except NoScript:
                found = ask(commands.connection, "EVAL", script.text, len(keys), *keys, *words)
            return list(found)

        return self._guarded(call)

    def _not_after(self, commands: _Commands) -> int:
        """Return the time on the server's clock, in ms, at which whoever calls now has given up."""
        if commands.ahead is None:
            seconds, microseconds = ask(commands.connection, "TIME")
            commands.ahead = int(seconds) + int(microseconds) / 1e6 - time.monotonic()
        return int((time.monotonic() + commands.ahead + self.timeout) * 1000)

    def _guarded(self, call: Callable[[_Commands], T]) -> T:
        self._in_this_process()
        sent_on = 0
        while True:
            try:
                return call(self._connected())
            except Refused as error:  # the server answered: its connection is as good as before
                # One that sends us on has changed nothing: it refuses a script's keys, or the first write in it.
                commands = self._commands
                sent_on += 1
                if commands is None or sent_on == REDIRECTIONS or not self._place.is_elsewhere(commands.address, error):
                    self._give_up(error)
            except FAILURES as error:
                # An answer that comes too late must not be taken for that of the next call.
                self._hang_up()
                self._give_up(error)
            except BaseException:
                self._hang_up()
                raise
            self._leave()

    def _connected(self) -> _Commands:
        commands = self._commands
        if commands is not None:
            try:
                stale = commands.connection._sock is None or commands.connection.can_read(0)
            except FAILURES:
                stale = True
            if not stale:
                if not self._place.has_moved(commands.address):
                    return commands
                self._leave()
            # The server hung up since the last call (a restart, an idle limit): that is no failure yet.
            self._hang_up()
        connection = self._place.connect()
        try:
            # Once for each connection, since it is far too long an answer for every heartbeat.
            told = info(connection, "server")
            if "sentinel" in (told.get("redis_mode"), told.get("server_mode")):
                raise Misplaced("it is a Sentinel: write redis+sentinel://host:port/SERVICE?site=NAME")
        except BaseException:
            connection.disconnect()
            raise
        self._commands = commands = _Commands(connection, told.get("run_id", "unknown"))
        if self._listener is not None and address_of(self._listener.connection) != commands.address:
            # Changes are published where they are made.
            self._stop_listening()
        return commands

    def _hang_up(self) -> None:
        commands, self._commands = self._commands, None
        if commands is not None:
            commands.connection.disconnect()

    def _leave(self) -> None:
        """Let go of the server altogether."""
        self._stop_listening()
        self._hang_up()

    # --- listening ----------------------------------------------------------------------------------------

    def _hint(self, deadline: float, waker: Waker, wanted: Set[str]) -> bool:
        listener = self._listener
        if listener is not None and listener.channels >= wanted:
            try:
                return listener.listen(deadline, wanted, members=self._members, woken=partial(self._was_woken, waker))
            except FAILURES:
                # Perhaps only this connection is gone. Whatever was published meanwhile is lost, so that
                # subscribing again is a hint.
                pass
        self._stop_listening()
        self._listener = Listener(self._place.connect(), waker, wanted)
        return True

    def _was_woken(self, waker: Waker) -> bool:
        if not self._woken:
            return False
        waker.quiet()
        self._woken = False
        return True

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    # --- inside -------------------------------------------------------------------------------------------

    def _in_this_process(self) -> None:
        """Let go of what a parent opened: its sockets are closed here without a word to the server."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._commands = self._listener = self._waker = None
            self._place = self._place.reopened()

    def _reading(self, answer: Sequence[Any], since: dict[str, datetime] | None = None) -> Reading:
        record, seconds, microseconds, born, members = answer
        at = EPOCH + timedelta(seconds=int(seconds), microseconds=int(microseconds))
        self._members = int(members)
        if self._commands is not None:
            # Taken when the answer is here, so that it is behind by as long as that was on its way, never ahead.
            self._commands.ahead = int(seconds) + int(microseconds) / 1e6 - time.monotonic()
        return Reading(
            record=None if record is None else bytes(record),
            at=at,
            incarnation_seconds=0.0 if born is None else max(0.0, (at - _instant(born)).total_seconds()),
            members=self._members,
            here_since=since or {},
        )

    def _registry(self, answer: Sequence[Any]) -> str:
        """Return what names the registry that an answer came from: no member knows one that nobody has met yet."""
        run_id = self._commands.run_id if self._commands is not None else ""
        born = answer[3]
        return f"{run_id}-{'unmet' if born is None else int(born)}"

    def _give_up(self, error: Exception) -> NoReturn:
        raise StoreUnreachable(f"store {redacted(self.url)}: {explain(error, self.timeout)}") from error


def _instant(milliseconds: bytes) -> datetime:
    return EPOCH + timedelta(milliseconds=int(milliseconds))


def _milliseconds(at: datetime) -> int:
    return round((at - EPOCH) / timedelta(milliseconds=1))


def _pairs(flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
