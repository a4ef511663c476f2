"""A store in Redis or Valkey (6.2 or newer): for a site of several machines.

One connection for commands and one that listens, both made at first use and each owned by one process.
Connections are redis-py's, used bare: its client would connect again by itself, and a restart that nobody
notices is what this store must not miss.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import selectors
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from readonly.errors import StoreUnreachable

from . import (
    DEFAULT_ALIVE_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    ENDED_SECONDS,
    FORGOTTEN_SECONDS,
    LATELY_SECONDS,
    NEIGHBOURS,
    NEIGHBOURS_AT_MOST,
    SILENT_AT_MOST,
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
    NoAnswer,
    NoScript,
    OneServer,
    Place,
    Refused,
    address_of,
    ask,
    explain,
    info,
)

T = TypeVar("T")

# A connection that listens is given up when a ping on it is not answered for so long. TCP alone may take
# minutes.
DEAD_SECONDS = 1.5
# Pings are for a connection that listens and is dead while the other one lives, which is rare; what is lost by it the
# next heartbeat finds. A ping costs the server a third of one, so those of many members are rarer than these.
PING_SECONDS = 1.0
PINGS_PER_SECOND = 10.0

# How often one call follows a server that says that another one takes the writes.
REDIRECTIONS = 3

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _NotAfter:
    """Among the arguments of a script: the time at which whoever calls it has given up."""


_NOT_AFTER = _NotAfter()


class Script:
    """A Lua script, called by its hash."""

    def __init__(self, body: str) -> None:
        self.text = body.strip() + "\n"
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


# Every script gets the same nine keys, which are all that it touches:
#   KEYS[1] …:state        hash: `record`, and `since:<cause>`, the time in ms at which the store got that cause
#   KEYS[2] …:members      hash: member -> report
#   KEYS[3] …:seen         sorted set: member -> time in ms of its last report
#   KEYS[4] …:incarnation  hash with one field: run id of the server -> time in ms at which a member first met it
#   KEYS[5] …:ring         sorted set, all scores 0: members that have not left, by id
#   KEYS[6] …:forgotten    sorted set: member that a person vouched for -> time in ms
#   KEYS[7] …:living       sorted set: member that has not ended -> time in ms of its last report
#   KEYS[8] …:new          sorted set: new member that nobody has named -> time in ms until which one of those may be
#                          alive that were there before it
#   KEYS[9] …:until        sorted set: member that has not ended -> time in ms until which it is alive, by its own word
# ARGV[1] is the run id of the server, as learnt when the connection was made. All times are the server's.
_HEAD = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local now_ms = string.format('%.0f', now)
local born = redis.call('HGET', KEYS[4], ARGV[1])
"""
# A restart and a failover have another run id, FLUSHALL has taken the hash with it: either way it is young
# again.
_STAMP = """
if not born or tonumber(born) > now then
  redis.call('DEL', KEYS[4])
  redis.call('HSET', KEYS[4], ARGV[1], now_ms)
  born = now_ms
end
"""
# Members that have left, or were killed, stay registered for days, and no interval should grow with their number.
_LATELY = f"string.format('%.0f', now - {LATELY_SECONDS:.0f} * 1000)"
_READING = (
    f"redis.call('HGET', KEYS[1], 'record'), clock[1], clock[2], born, redis.call('ZCOUNT', KEYS[3], {_LATELY}, '+inf')"
)

READ = Script(f"""
-- Reads readonly:{{site}}:state, :seen, :incarnation. Writes nothing, so that a replica and a full server answer, too.
{_HEAD}
return {{{_READING}}}
""")

REPLACE = Script(f"""
-- Owns readonly:{{site}}:state and :incarnation. Publishes on ARGV[5].
-- ARGV[2] '1' if ARGV[3] must stand there, '0' if nothing may; ARGV[4] the new record; ARGV[6] the time in ms after
-- which nobody waits for it any more; ARGV[7]… the causes in it.
{_HEAD}
local stands = redis.call('HGET', KEYS[1], 'record')
local expected = not stands
if ARGV[2] == '1' then expected = stands == ARGV[3] end
if expected and now <= tonumber(ARGV[6]) then
  -- First, so that a user who may not publish has changed nothing. Nobody reads before this script is over.
  redis.call('PUBLISH', ARGV[5], '')
  {_STAMP}
  if not stands then redis.call('DEL', KEYS[1]) end
  local standing = {{}}
  for i = 7, #ARGV do standing['since:' .. ARGV[i]] = true end
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(name, 1, 6) == 'since:' and not standing[name] then redis.call('HDEL', KEYS[1], name) end
  end
  for name in pairs(standing) do redis.call('HSETNX', KEYS[1], name, now_ms) end
  redis.call('HSET', KEYS[1], 'record', ARGV[4])
end
return {{{_READING}}}
""")

REPORT = Script(f"""
-- Owns readonly:{{site}}:members, :seen, :ring, :living, :until, :new and :incarnation; reads :state. Publishes on
-- ARGV[5] unless it is empty. ARGV[2] member, ARGV[3] report, ARGV[4] ms after which silent members are dropped,
-- ARGV[6] for last words 'ended' or 'left', ARGV[7] ms within which who has reported is alive; ARGV[8] '' or, from a
-- new member, the ms for which this registry proves nothing; ARGV[9] the channels of members, without their ids;
-- ARGV[10]… whom the sender remembers.
{_HEAD}
if ARGV[5] ~= '' then redis.call('PUBLISH', ARGV[5], '') end
{_STAMP}
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('ZADD', KEYS[3], now_ms, ARGV[2])
local joins = 0
if ARGV[6] == 'left' then redis.call('ZREM', KEYS[5], ARGV[2]) else joins = redis.call('ZADD', KEYS[5], 0, ARGV[2]) end
if ARGV[6] == '' then redis.call('ZADD', KEYS[7], now_ms, ARGV[2]) else redis.call('ZREM', KEYS[7], ARGV[2]) end
local oldest = '(' .. string.format('%.0f', now - tonumber(ARGV[4]))
local silent = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', oldest, 'LIMIT', 0, 1000)
if #silent > 0 then
  redis.call('HDEL', KEYS[2], unpack(silent))
  redis.call('ZREM', KEYS[3], unpack(silent))
  redis.call('ZREM', KEYS[5], unpack(silent))
  redis.call('ZREM', KEYS[7], unpack(silent))
  redis.call('ZREM', KEYS[8], unpack(silent))
  redis.call('ZREM', KEYS[9], unpack(silent))
end
-- Round the ring up to the third that is alive. Who has ended long ago is met once, and leaves it then.
local alive, ended, near, living = now - tonumber(ARGV[7]), now - {ENDED_SECONDS:.0f} * 1000, {{}}, 0
local function walk(from, to)
  local most = {NEIGHBOURS}
  while true do
    local found = redis.call('ZRANGEBYLEX', KEYS[5], from, to, 'LIMIT', 0, most)
    for _, other in ipairs(found) do
      if living == {NEIGHBOURS} or #near == {NEIGHBOURS_AT_MOST} then return end
      local heard = redis.call('ZSCORE', KEYS[7], other)
      if heard or tonumber(redis.call('ZSCORE', KEYS[3], other) or 0) >= ended then
        near[#near + 1] = other
        if heard and tonumber(heard) >= alive then living = living + 1 end
      else
        redis.call('ZREM', KEYS[5], other)
      end
    end
    if #found < most then return end
    from, most = '(' .. found[#found], 20
  end
end
walk('(' .. ARGV[2], '+')
if living < {NEIGHBOURS} then walk('-', '(' .. ARGV[2]) end
if #ARGV > 9 then redis.call('ZREM', KEYS[8], unpack(ARGV, 10)) end
-- `transitions.noted`: a new member is one until somebody has named it, or nobody is there who could.
local noted = 1
if ARGV[8] ~= '' then
  redis.call('ZREM', KEYS[9], ARGV[2])
  local last = redis.call('ZREVRANGE', KEYS[9], 0, 0, 'WITHSCORES')[2]
  if joins == 1 then redis.call('ZADD', KEYS[8], last or now_ms, ARGV[2]) end
  local wait = redis.call('ZSCORE', KEYS[8], ARGV[2])
  local alone = not last or tonumber(last) < now
  if wait and ((not alone and tonumber(wait) >= now) or now - tonumber(born) < tonumber(ARGV[8])) then noted = 0 end
  if noted == 1 then redis.call('ZREM', KEYS[8], ARGV[2]) end
end
if ARGV[6] == '' then
  redis.call('ZADD', KEYS[9], string.format('%.0f', now + tonumber(ARGV[7])), ARGV[2])
else
  redis.call('ZREM', KEYS[9], ARGV[2])
end
-- The last three before it that are alive will have it for a neighbour: they are asked to report now.
if noted == 0 and joins == 1 then
  local looked, asked = 0, 0
  local function back(from, to)
    while true do
      local found = redis.call('ZREVRANGEBYLEX', KEYS[5], from, to, 'LIMIT', 0, 20)
      for _, other in ipairs(found) do
        if asked == {NEIGHBOURS} or looked == {NEIGHBOURS_AT_MOST} then return end
        looked = looked + 1
        if tonumber(redis.call('ZSCORE', KEYS[9], other) or 0) >= now then
          redis.call('PUBLISH', ARGV[9] .. other, '')
          asked = asked + 1
        end
      end
      if #found < 20 then return end
      from = '(' .. found[#found]
    end
  end
  back('(' .. ARGV[2], '-')
  if asked < {NEIGHBOURS} then back('+', '(' .. ARGV[2]) end
end
return {{{_READING}, near, noted}}
""")

CENSUS = Script(f"""
-- Reads readonly:{{site}}:state, :members, :seen, :incarnation and :forgotten in one step.
{_HEAD}
return {{{_READING}, redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]),
  redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES'), redis.call('ZRANGE', KEYS[6], 0, -1)}}
""")

SILENT = Script(f"""
-- Reads readonly:{{site}}:members and :living. ARGV[2], ARGV[3]: ms of silence, at least and at most; ARGV[4]: only
-- those that reported before this time in ms, '' for all.
{_HEAD}
local from, to = now - tonumber(ARGV[3]), now - tonumber(ARGV[2])
if ARGV[4] ~= '' then to = math.min(to, tonumber(ARGV[4])) end
local heard = redis.call('ZREVRANGEBYSCORE', KEYS[7], '(' .. string.format('%.0f', to),
  '(' .. string.format('%.0f', from), 'WITHSCORES', 'LIMIT', 0, {SILENT_AT_MOST})
local found = {{}}
for i = 1, #heard, 2 do
  found[#found + 1] = {{heard[i], redis.call('HGET', KEYS[2], heard[i]) or '', heard[i + 1]}}
end
return found
""")

FORGET = Script(f"""
-- Owns readonly:{{site}}:members, :seen, :ring, :living, :until, :new and :forgotten. ARGV[2] the member.
{_HEAD}
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('ZREM', KEYS[5], ARGV[2])
redis.call('ZREM', KEYS[7], ARGV[2])
redis.call('ZREM', KEYS[8], ARGV[2])
redis.call('ZREM', KEYS[9], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', string.format('%.0f', now - {FORGOTTEN_SECONDS:.0f} * 1000))
redis.call('ZADD', KEYS[6], now_ms, ARGV[2])
return {{}}
""")

MARK = Script(f"""
-- Owns readonly:{{site}}:incarnation. Writes there what stands there: what is asked of replicas and disk afterwards
-- (WAIT counts from the last write of its own connection) is true of all that was written before.
{_HEAD}
{_STAMP}
redis.call('HSET', KEYS[4], ARGV[1], born)
return {{}}
""")

APPEND = Script("""
-- Owns KEYS[1], readonly:{site}:log:<name>, a list. ARGV[1] the entry, ARGV[2] how many are kept.
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[2]), -1)
return {}
""")


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


@dataclass(slots=True)
class _Listener:
    """The connection that listens.

    Attributes:
        connection: It.
        selector: Watches it and the waker.
        channels: What it is subscribed to.
        heard: When something last came from it, on the monotonic clock.
        pinged: When a ping was sent that was not answered, or None.
        looked: When it was last looked at.
    """

    connection: Connection
    selector: selectors.BaseSelector
    channels: frozenset[str]
    heard: float
    pinged: float | None
    looked: float


class _Waker:
    """A pipe to itself: the one way to end a wait for a socket that a signal handler may use."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        os.set_blocking(self._write_end, False)

    def ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it rings already
            os.write(self._write_end, b"\0")

    def quiet(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.read_end, 65536)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.read_end)
            os.close(self._write_end)


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
        self._listener: _Listener | None = None
        self._waker: _Waker | None = None
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
                self._waker = _Waker()
            listener = self._listener
            if listener is not None and listener.channels >= wanted:
                try:
                    return self._listen(listener, self._waker, deadline, wanted)
                except FAILURES:
                    # Perhaps only this connection is gone. Whatever was published meanwhile is lost, so that
                    # subscribing again is a hint.
                    pass
            self._subscribe(self._waker, frozenset(wanted))
            return True
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

    def _subscribe(self, waker: _Waker, channels: frozenset[str]) -> None:
        self._stop_listening()
        connection = self._place.connect()
        try:
            connection.send_command("SUBSCRIBE", *sorted(channels))
            for _ in channels:
                connection.read_response()
            selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
            selector.register(connection._sock, selectors.EVENT_READ)
            selector.register(waker.read_end, selectors.EVENT_READ)
        except BaseException:
            connection.disconnect()
            raise
        now = time.monotonic()
        self._listener = _Listener(connection, selector, channels, heard=now, pinged=None, looked=now)

    def _listen(self, listener: _Listener, waker: _Waker, deadline: float, wanted: Collection[str]) -> bool:
        """Wait for a hint; raises what redis-py raises where the connection is lost."""
        connection = listener.connection
        if listener.pinged is not None:
            # Nobody looked for an answer while nobody waited.
            listener.pinged += time.monotonic() - listener.looked
        ping_seconds = max(PING_SECONDS, self._members / PINGS_PER_SECOND)
        while True:
            hint = False
            # Also what redis-py or TLS has read already, and no selector will show again.
            while connection.can_read(0):
                hint = self._is_hint(connection.read_response(), wanted) or hint
                listener.heard, listener.pinged = time.monotonic(), None
            if hint:
                return True
            if self._woken:
                waker.quiet()
                self._woken = False
                return False
            now = listener.looked = time.monotonic()
            if now >= deadline:
                return False
            if listener.pinged is None and now - listener.heard >= ping_seconds:
                connection.send_command("PING")
                listener.pinged = now
            if listener.pinged is None:
                due = listener.heard + ping_seconds
            elif now - listener.pinged < DEAD_SECONDS:
                due = listener.pinged + DEAD_SECONDS
            else:
                raise NoAnswer(f"no answer to a ping for {DEAD_SECONDS:g} s")
            listener.selector.select(min(deadline, due) - now)
            listener.looked = time.monotonic()

    def _is_hint(self, message: Any, wanted: Collection[str]) -> bool:
        # [b"message", channel, data]; [b"pong", b""]; a second [b"subscribe", …] is a connection made again.
        kind, channel = bytes(message[0]), bytes(message[1])
        if kind == b"message":
            return channel.decode(errors="replace") in wanted
        return kind != b"pong"

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.selector.close()
            listener.connection.disconnect()

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
