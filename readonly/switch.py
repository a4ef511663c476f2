"""Switch: one process's live view of the state; the only thing the request path reads."""

from __future__ import annotations

import asyncio
import atexit
import functools
import logging
import math
import os
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from . import bypassing, changes, history
from .changes import Change, Operator
from .clock import Clock, SystemClock, boottime
from .errors import ConfigurationError, Error, StoreUnreachable
from .follower import ANNOUNCE_SECONDS, Follower, Guard, Settings, View
from .hostfile import HostFile, state_folder
from .inflight import InFlight, Writing
from .members import Confirmation, Report, confirm, host_name, process_namespace, process_start
from .record import BLOCK, OPERATOR, RUN, Window
from .scheduling import Scheduled, Wanted, schedule
from .state import State
from .stores import Store, redacted, store_from_url
from .tally import Tally

T = TypeVar("T")
logger = logging.getLogger("readonly")

# A call that goes through the thread waits for its turn behind one heartbeat and its own steps.
CALL_TIMEOUTS = 6
GOODBYE_SECONDS = 1.0
# Labels of each counter that travel with a report: what is refused on 200 routes would make it ten times as long.
LABELS_SENT = 10
# Changes of its own that a switch remembers for `confirm`.
SET_AT_MOST = 64
# A process that just started waits so long, in timeouts of the store, for its first heartbeat to end.
FIRST_LOOK_TIMEOUTS = 2
_WORDS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
    "": False,
}

_live: weakref.WeakSet[Switch] = weakref.WeakSet()


class Switch:
    """One per process: give the same object to middleware, databases and jobs.

    Nothing starts when it is constructed. A daemon thread starts on first use in each process and owns all I/O; the
    request path reads attributes. Forked children start their own.

    Args:
        store: Where the record lives.
        lease: Seconds for which this process admits writes without reaching the store; None: for ever, with what it
            last knew.
        boot: What a process does that never reached the store: `closed` refuses writes, `open` accepts them.
        runs: What this process runs (a name and version), shown beside it.
        role: What this process is; None: READONLY_ROLE, else `web` behind a middleware and `job` elsewhere.
        inert: Obey nothing and say so to everybody (READONLY_DISABLED=1).
        interval: Seconds between two reports, at least; grows with the number of members.
        clock: Where wall-clock time comes from.
        announce_seconds: How long before it begins visitors are told of a window; 0: not at all.

    Raises:
        ConfigurationError: A setting can't be right.
    """

    def __init__(
        self,
        store: Store,
        *,
        lease: float | None = None,
        boot: Literal["closed", "open"] = "closed",
        runs: str = "",
        role: str | None = None,
        inert: bool | None = None,
        interval: float = 1.0,
        clock: Clock | None = None,
        announce_seconds: float = ANNOUNCE_SECONDS,
    ) -> None:
        if boot not in ("closed", "open"):
            raise ConfigurationError(
                f"boot={boot!r} is not a choice: use 'closed' to refuse writes until the store was read once, "
                "'open' to accept them."
            )
        if not 0 < interval < math.inf:
            raise ConfigurationError(f"interval={interval!r} is no time: use a number of seconds above 0.")
        if lease is not None and not 3 * interval <= lease < math.inf:
            raise ConfigurationError(
                f"lease={lease!r} will not do: it is renewed every {interval:g} s and must outlast two missed "
                f"reports: use {3 * interval:g} s or more, or None for no lease."
            )
        if not 0 <= announce_seconds < math.inf:
            raise ConfigurationError(
                f"announce_seconds={announce_seconds!r} is no time: use a number of seconds, or 0 to announce nothing."
            )
        if inert is None:
            inert = _flag("READONLY_DISABLED", os.environ.get("READONLY_DISABLED", ""))
        self.store = store
        self.site = store.site
        self.view = View()
        self.tally = Tally()
        # Somebody may refuse a write inside a request (a guard, or `writing`): requests carry what they mark.
        self.guarded = False
        self._counts_work = False
        self.inflight = InFlight(self._drained)
        # uWSGI forks without telling Python, and may run no threads between requests: there every request looks.
        trust_threads = "uwsgi" not in sys.modules
        self._settings = Settings(
            lease=lease,
            boot=boot,
            interval=interval,
            runs=runs,
            inert=inert,
            trust_threads=trust_threads,
            announce_seconds=announce_seconds,
        )
        self._role = role or os.environ.get("READONLY_ROLE") or ""
        self._run = os.environ.get("READONLY_RUN") or ""
        self._clock = clock or SystemClock()
        # Only a lease must know of suspended time; without one the cheaper clock will do.
        self.monotonic: Callable[[], float] = time.monotonic
        if lease is not None:
            self.monotonic = boottime if clock is None else clock.boottime
        self._followers: dict[int, Follower] = {}
        self._guards: tuple[Guard, ...] = ()
        # Adding and taking out are single operations of the interpreter: jobs in many threads wait by these.
        # Counters are told since the last closing: that is what the morning after asks for.
        self._tally_then: Mapping[str, Any] = {}
        self._tally_epoch = 0
        self._tally_closed = False
        self._callbacks: dict[object, Callable[[State], None]] = {}
        self._observers: dict[object, Callable[[], None]] = {}
        # What `on` has set, by the epoch that it returned: `confirm` asks for these very causes.
        self._set: dict[int, tuple[str, ...]] = {}
        _live.add(self)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        lease: float | None = None,
        boot: Literal["closed", "open"] = "closed",
        runs: str = "",
        role: str | None = None,
        interval: float = 1.0,
        announce_seconds: float = ANNOUNCE_SECONDS,
    ) -> Switch:
        """Return a switch for the store that a URL names, such as `redis://host/0?site=shop`.

        Raises:
            ConfigurationError: The URL or a setting can't be right.
        """
        return cls(
            store_from_url(url),
            lease=lease,
            boot=boot,
            runs=runs,
            role=role,
            interval=interval,
            announce_seconds=announce_seconds,
        )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, create: bool = True) -> Switch:
        """Return a switch as the environment says.

        READONLY_STORE, _LEASE, _BOOT, _RUNS, _ROLE, _DISABLED, _ANNOUNCE_SECONDS.

        Args:
            environ: The environment; None: this process's.
            create: Whether an SQLite store may be made: the site may, a command may not.

        Raises:
            ConfigurationError: A variable is missing or can't be right; the message names it.
        """
        environ = os.environ if environ is None else environ
        url = environ.get("READONLY_STORE")
        if not url:
            raise ConfigurationError(
                "READONLY_STORE is not set: give it the store's URL, such as redis://flag.internal/0?site=shop"
            )
        lease: float | None = None
        if environ.get("READONLY_LEASE"):
            try:
                lease = float(environ["READONLY_LEASE"])
                if not math.isfinite(lease):
                    raise ValueError
            except ValueError:
                raise ConfigurationError(
                    f"READONLY_LEASE={environ['READONLY_LEASE']!r} is no number of seconds: write 30, or leave it out"
                ) from None
        boot = environ.get("READONLY_BOOT") or "closed"
        if boot not in ("closed", "open"):
            raise ConfigurationError(f"READONLY_BOOT={boot!r} is not a choice: use 'closed' or 'open'")
        announce = ANNOUNCE_SECONDS
        if environ.get("READONLY_ANNOUNCE_SECONDS"):
            try:
                announce = float(environ["READONLY_ANNOUNCE_SECONDS"])
                if not 0 <= announce < math.inf:
                    raise ValueError
            except ValueError:
                raise ConfigurationError(
                    f"READONLY_ANNOUNCE_SECONDS={environ['READONLY_ANNOUNCE_SECONDS']!r} is no number of seconds: "
                    "write 900, or 0 to announce nothing"
                ) from None
        inert = _flag("READONLY_DISABLED", environ.get("READONLY_DISABLED", ""))
        try:
            store = store_from_url(url, create=create)
        except ConfigurationError as error:
            raise ConfigurationError(f"READONLY_STORE: {error}") from error
        try:
            return cls(
                store,
                lease=lease,
                boot=boot,  # type: ignore[arg-type]  # narrowed by the check above, which mypy can't follow
                runs=environ.get("READONLY_RUNS", ""),
                role=environ.get("READONLY_ROLE"),
                inert=inert,
                announce_seconds=announce,
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"READONLY_LEASE: {error}") from error

    def __repr__(self) -> str:
        return f"<Switch {redacted(self.store.url)} {self.view.state.mode}>"

    # --- what the request path uses --------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What this process knows, now. No I/O; the first use starts the thread."""
        self._follower().ensure()
        return self.view.state

    @property
    def in_run(self) -> bool:
        """Whether this process was started by the run that the site is read-only for, so that it may write.

        READONLY_RUN names that run; a process that outlives it is let through no more.
        """
        return self._run != "" and any(c.kind == RUN and c.id == self._run for c in self.state.causes)

    def admit(self) -> State | None:
        """Say whether a write that was counted before may go on. Never raises.

        May block for the store's timeout when nobody has looked for too long (a process that just started, one
        without threads): then the calling request looks for itself, one at a time.

        Returns:
            None if it is admitted; else the state to refuse it by, and the caller uncounts it.
        """
        if self.monotonic() < self.view.admit_until:
            return None
        state = self.look()
        return state if state.read_only else None

    async def aadmit(self) -> State | None:
        """Do what `admit` does without blocking the event loop."""
        if self.monotonic() < self.view.admit_until:
            return None
        state = await self.alook()
        return state if state.read_only else None

    def look(self) -> State:
        """Return the state, after a look at the store if nobody has looked for too long. Never raises."""
        follower = self._follower()
        follower.ensure()
        if not follower.tried.is_set():
            follower.tried.wait(FIRST_LOOK_TIMEOUTS * self.store.timeout)
        if follower.overdue():
            follower.refresh()
        follower.republish()
        return self.view.state

    async def alook(self) -> State:
        """Do what `look` does without blocking the event loop."""
        follower = self._follower()
        if follower.tried.is_set() and not follower.overdue():
            follower.republish()
            return self.view.state
        return await asyncio.get_running_loop().run_in_executor(None, self.look)

    def writing(self, *, wait: float = 0.0) -> Writing:
        """Return a context manager (with, async with) and decorator for work outside HTTP that writes.

        It is counted, so that `on` waits for it. There is no way to only ask: a look without a count is a race.

        Args:
            wait: Seconds to wait for the site to be writable, before `ReadOnlyError` is raised.
        """
        self.guarded = self._counts_work = True
        return Writing(self, wait=wait)

    def takes_role(self, role: str) -> None:
        """Say what this process is, unless it was told; a middleware says `web`."""
        self._role = self._role or role

    # --- changes -----------------------------------------------------------------------------------------------------

    def on(
        self,
        *,
        reason: str = "",
        expected: timedelta | None = None,
        by: str | None = None,
        message: str = "",
        sessions: str | None = None,
    ) -> State:
        """Make the site read-only. It is set when this returns, and NOT yet safe: see `confirm`.

        Args:
            reason: For colleagues; never shown to visitors.
            expected: How long it is expected to take; an announcement, it opens nothing.
            by: Who does it; None: the system's user on this host.
            message: For visitors.
            sessions: `end`, `suspend` or `keep`; None: what the policy says.

        Returns:
            The new state, which this switch obeys already.

        Raises:
            StoreUnreachable: The store did not answer; the change may still take effect.
            LostRace: Somebody switched off at the same moment.
        """
        return self._wait_for(self._on(reason, expected, by, message, sessions))

    async def aon(
        self,
        *,
        reason: str = "",
        expected: timedelta | None = None,
        by: str | None = None,
        message: str = "",
        sessions: str | None = None,
    ) -> State:
        """Do what `on` does, awaited."""
        return await asyncio.wrap_future(self._on(reason, expected, by, message, sessions))

    def off(self, *, every: bool = False, by: str | None = None) -> State:
        """Lift one's own cause, or (`every`) all that operators and windows have set.

        Returns:
            The new state; it may still be read-only for other causes.

        Raises:
            StoreUnreachable: The store did not answer; the change may still take effect.
            NoRecord: The store is empty; nothing can be opened.
            NotYours: Only others' causes stand; nothing was changed.
            LostRace: Somebody switched on at the same moment.
        """
        return self._wait_for(self._off(every, by))

    async def aoff(self, *, every: bool = False, by: str | None = None) -> State:
        """Do what `off` does, awaited."""
        return await asyncio.wrap_future(self._off(every, by))

    def schedule(
        self,
        at: str | datetime | None = None,
        *,
        lasting: timedelta,
        every: str | None = None,
        cron: str | None = None,
        zone: str = "",
        reason: str = "",
        message: str = "",
        sessions: str | None = None,
        by: str | None = None,
        sure: bool = False,
    ) -> tuple[Window, ...]:
        """Plan a window, at which every process turns by itself, and which ends by itself. This one may end before.

        Args:
            at: When it begins: an instant, or a local time such as `"2026-11-29 02:00"`, by `zone`. Or, for one that
                recurs, exactly one of the next two.
            lasting: How long it is (each time), in elapsed time.
            every: `"Sun 02:00"`, `"Mon-Fri 22:30"` or `"day 03:00"`, by `zone`.
            cron: A cron expression of five fields, by `zone`.
            zone: Whose clocks are meant, as the time zone database names them; "": READONLY_TIMEZONE.
            reason: For colleagues.
            message: For visitors.
            sessions: `end`, `suspend` or `keep`; None: what the policy says.
            by: Who plans it; None: the system's user on this host.
            sure: It may have begun already, last longer than a day, or lie across another one.

        Returns:
            The window, or the first occurrences.

        Raises:
            ConfigurationError: It makes no sense, or the zone's clocks never show that time, or show it twice.
            NotYours: It may be a slip, and `sure` is not set; nothing was changed.
            StoreUnreachable: The store did not answer; the change may still take effect.
        """
        wanted = Wanted(
            at=at, every=every, cron=cron, lasting=lasting, zone=zone, reason=reason, message=message,
            sessions=sessions, sure=sure,
        )  # fmt: skip
        return self._wait_for(self._schedule(wanted, by)).windows

    async def aschedule(
        self,
        at: str | datetime | None = None,
        *,
        lasting: timedelta,
        every: str | None = None,
        cron: str | None = None,
        zone: str = "",
        reason: str = "",
        message: str = "",
        sessions: str | None = None,
        by: str | None = None,
        sure: bool = False,
    ) -> tuple[Window, ...]:
        """Do what `schedule` does, awaited."""
        wanted = Wanted(
            at=at, every=every, cron=cron, lasting=lasting, zone=zone, reason=reason, message=message,
            sessions=sessions, sure=sure,
        )  # fmt: skip
        return (await asyncio.wrap_future(self._schedule(wanted, by))).windows

    def confirm(
        self,
        epoch: int | None = None,
        *,
        timeout: float,
        progress: Callable[[Confirmation], None] | None = None,
    ) -> Confirmation:
        """Wait until every process obeys and has finished the writes it had admitted.

        With the epoch of an `on` of this switch, it is that very cause that is confirmed, and never "safe" once it was
        lifted. Else what is in force at the first look: the causes that stand, or, if none does, that every process
        that reports is writable again (`closing` tells which).

        Args:
            epoch: Wait for a record of at least this epoch; None: the one that this switch knows.
            timeout: Seconds to wait at most.
            progress: Called in the switch's thread with each look at the members.

        Returns:
            The last look; ask it for `safe`, `missing`, or `require_safe()`.

        Raises:
            StoreUnreachable: The store could not be asked even once.
        """
        future, last = self._confirm(epoch, timeout, progress)
        return self._confirmed(self._wait_for(future, timeout), last)

    async def aconfirm(
        self,
        epoch: int | None = None,
        *,
        timeout: float,
        progress: Callable[[Confirmation], None] | None = None,
    ) -> Confirmation:
        """Do what `confirm` does, awaited."""
        future, last = self._confirm(epoch, timeout, progress)
        return self._confirmed(await asyncio.wrap_future(future), last)

    @contextmanager
    def read_only(
        self, *, reason: str = "", expected: timedelta | None = None, timeout: float = 60.0
    ) -> Iterator[Confirmation]:
        """Make the site read-only for a block of code, confirmed; lift that one cause, whatever happens in it.

        Raises:
            NotConfirmed: It could not be proven in time; the cause was lifted again.
        """
        setting = self._block_on(reason, expected)
        try:
            change = self._wait_for(setting)
        except BaseException:
            # It may take effect after all; then nobody else would lift it.
            setting.add_done_callback(self._lift_again)
            raise
        try:
            future, last = self._confirm(change.record.epoch, timeout, None, change.causes)
            yield self._confirmed(self._wait_for(future, timeout), last).require_safe()
        finally:
            self._wait_for(self._block_off(change.causes[0]))

    @asynccontextmanager
    async def aread_only(
        self, *, reason: str = "", expected: timedelta | None = None, timeout: float = 60.0
    ) -> AsyncIterator[Confirmation]:
        """Do what `read_only` does, awaited."""
        setting = self._block_on(reason, expected)
        try:
            change = await asyncio.shield(asyncio.wrap_future(setting))
        except BaseException:
            setting.add_done_callback(self._lift_again)
            raise
        try:
            future, last = self._confirm(change.record.epoch, timeout, None, change.causes)
            yield self._confirmed(await asyncio.wrap_future(future), last).require_safe()
        finally:
            await asyncio.shield(asyncio.wrap_future(self._block_off(change.causes[0])))

    # --- waiting and watching ----------------------------------------------------------------------------------------

    def wait_writable(self, timeout: float) -> bool:
        """Wait until the site is writable, for consumers, before they fetch. It is a hint: count before you write."""
        happened = threading.Event()
        stop = self.on_change(lambda state: None if state.read_only else happened.set())
        try:
            return not self.state.read_only or happened.wait(timeout) or not self.view.state.read_only
        finally:
            stop()

    async def await_writable(self, timeout: float) -> bool:
        """Do what `wait_writable` does, awaited."""
        loop = asyncio.get_running_loop()
        happened = asyncio.Event()
        stop = self.on_change(lambda state: None if state.read_only else _call_soon(loop, happened.set))
        try:
            if not self.state.read_only:
                return True
            await asyncio.wait_for(happened.wait(), timeout)
            return True
        except TimeoutError:
            return not self.view.state.read_only
        finally:
            stop()

    async def changes(self) -> AsyncIterator[State]:
        """Yield the state now, and again after each change, on the caller's loop. Changes in between may be skipped."""
        loop = asyncio.get_running_loop()
        happened = asyncio.Event()
        stop = self.on_change(lambda _: _call_soon(loop, happened.set))
        try:
            yield self.state
            while True:
                await happened.wait()
                happened.clear()
                yield self.view.state
        finally:
            stop()

    def on_change(self, callback: Callable[[State], None]) -> Callable[[], None]:
        """Have `callback` called in the switch's thread after each change; returns what stops it.

        It must not block: reports wait for it. What it raises is logged.
        """
        key = object()
        self._callbacks[key] = callback

        def stop() -> None:
            self._callbacks.pop(key, None)

        return stop

    # --- bypasses ----------------------------------------------------------------------------------------------------

    def redeem_bypass(self, link: str) -> str | None:
        """Exchange the token of a bypass's link for the one of a cookie, once.

        Returns:
            The cookie's token, or None if the link does nothing (any more).

        Raises:
            StoreUnreachable: The store did not answer; the link may be used up.
        """
        return self._wait_for(self._redeem(link))

    async def aredeem_bypass(self, link: str) -> str | None:
        """Do what `redeem_bypass` does, awaited."""
        return await asyncio.wrap_future(self._redeem(link))

    def on_heartbeat(self, observer: Callable[[], None]) -> Callable[[], None]:
        """Have `observer` called after each look at the store, well or badly ended; returns what stops it.

        In whichever thread looked: the switch's own, or a request's where threads can't be trusted. It must not block.
        """
        key = object()
        self._observers[key] = observer

        def stop() -> None:
            self._observers.pop(key, None)

        return stop

    @property
    def store_problem(self) -> str:
        """Why the store could not be reached last time, or ""; a process that has not tried yet has no problem."""
        follower = self._followers.get(os.getpid())
        return follower.problem if follower is not None else ""

    def members(self) -> tuple[Report, ...]:
        """Return the last report of every registered member.

        Raises:
            StoreUnreachable: The store did not answer.
        """
        future = self._follower().submit(lambda store: store.census().reports)
        return tuple(Report.load(s.member, s.report) for s in self._wait_for(future))

    # --- guards and local causes -------------------------------------------------------------------------------------

    def add_guard(self, guard: Guard) -> None:
        """Take in a database guard: it is reported, and tried out whenever the site turns read-only."""
        if any(g.name == guard.name for g in self._guards):
            raise ConfigurationError(
                f"name={guard.name!r} is taken by another guarded database: give each Database a name of its own"
            )
        self._guards = (*self._guards, guard)
        self.guarded = True

    @property
    def guards(self) -> tuple[Guard, ...]:
        """The database guards that were added."""
        return self._guards

    def remove_guard(self, guard: Guard) -> None:
        """Forget a guard that was closed."""
        self._guards = tuple(g for g in self._guards if g is not guard)
        self.guarded = bool(self._guards) or self._counts_work

    def detected(self, name: str, reason: str | None) -> None:
        """Add a cause that only this process sees (a primary found read-only), or take it away with None.

        It lives in this process and in its report, never in the record, and overrides no operator.
        """
        self._follower().detected(name, reason)

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread now, and wait (bounded) until the state was read: for server hooks."""
        if not self.look().synced:
            logger.warning("readonly: %s", self.view.state.unknown_because)

    def close(self) -> None:
        """Say goodbye and stop the thread. Used again, the switch starts anew, as another member."""
        follower = self._followers.pop(os.getpid(), None)
        if follower is not None:
            follower.stop(GOODBYE_SECONDS + self.store.timeout)

    def use(self, store: Store) -> None:
        """Look at another store from now on, as another member: what a test does to leave the site's own one alone.

        Whatever holds this switch goes on with it: middleware, guards, jobs.
        """
        # Before it is closed: who asks in between must not start a thread for the old one.
        self.store = store
        self.site = store.site
        self.close()
        # Causes of the old one; epochs are counted from the beginning in each.
        self._set.clear()

    def _follower(self) -> Follower:
        pid = os.getpid()
        found = self._followers.get(pid)
        if found is not None:
            return found
        if self._followers:
            self._after_fork()
        store = self.store.reopened()
        made = Follower(
            store,
            view=self.view,
            inflight=self.inflight,
            settings=self._settings,
            clock=self._clock,
            monotonic=self.monotonic,
            describe=self._describe,
            guards=lambda: self._guards,
            changed=self._tell,
            memory=HostFile(store.url, store.site, state_folder()),
            after=self._after_heartbeat,
        )
        # One atomic step decides which of two threads made it; the loser's has started nothing.
        found = self._followers.setdefault(pid, made)
        if found is made:
            _say_goodbye_in_children(self)
        return found

    def _after_fork(self, *, hook: bool = False) -> None:
        """Shut what a child inherited: the parent's thread, lock and count are not its own."""
        pid = os.getpid()
        # A child may have its parent's number, in a process-id namespace of its own.
        if not hook and pid in self._followers:
            return
        self.view.shut()
        # Its lock may be held by a thread that is not here.
        self.tally = Tally()
        self._tally_then, self._tally_epoch, self._tally_closed = {}, 0, False
        if hook:
            # Only right after the fork: later, a request of this very process may have been counted already.
            self.inflight.forget()
        for other in list(self._followers):
            # One by one: another thread of this process may be putting in ours.
            if hook or other != pid:
                # Kept, not collected: closing the parent's connections here could disturb the parent.
                _inherited.append(self._followers.pop(other, None))

    # --- inside ------------------------------------------------------------------------------------------------------

    def _describe(self) -> Mapping[str, Any]:
        return {
            "host": host_name(),
            "start": process_start(os.getpid()),
            "namespace": process_namespace(),
            "role": self._role or "job",
            "library": _version(),
            "tally": {
                **history.tally_shortened(history.tally_since(self.tally.totals(), self._tally_then), LABELS_SENT),
                "epoch": self._tally_epoch,
            },
        }

    def _after_heartbeat(self, store: Store) -> None:
        # Who was let through stands in the history: a line a minute and route.
        for name, route, times in () if self.store_problem else self.tally.uses():
            entry = history.Entry(
                at=history.instant(self._clock.now()),
                site=store.site,
                what="let through",
                by=name,
                host=host_name(),
                epoch=self.view.state.epoch,
                reason=route,
                tally={"bypassed": times},
            )
            history.write(store, None, entry)
        for observer in list(self._observers.values()):
            try:
                observer()
            except Exception:
                logger.exception("readonly: what observes this process failed")

    def _drained(self) -> None:
        follower = self._followers.get(os.getpid())
        if follower is not None:
            follower.wake()

    def _tell(self, state: State) -> None:
        if state.causes and not self._tally_closed:
            self._tally_then, self._tally_epoch = self.tally.totals(), state.epoch
        self._tally_closed = bool(state.causes)
        for callback in list(self._callbacks.values()):
            try:
                callback(state)
            except Exception:
                logger.exception("readonly: a callback for changes failed")

    def _wait_for(self, future: Future[T], seconds: float = 0.0) -> T:
        follower = self._followers.get(os.getpid())
        if follower is not None and follower.inside() and not future.done():
            future.cancel()
            raise Error("a callback runs in the thread that would have to answer: wait in another thread")
        try:
            return future.result(seconds + CALL_TIMEOUTS * self.store.timeout)
        except FutureTimeout:
            future.cancel()
            raise StoreUnreachable(
                f"the store {redacted(self.store.url)} did not answer in time; the change may or may not take effect: "
                "readonlyctl status tells"
            ) from None

    def _change(self, change: Callable[[Store], Change]) -> Future[Change]:
        follower = self._follower()

        def run(store: Store) -> Change:
            done = change(store)
            follower.apply(done.reading)
            return done

        return follower.submit(run)

    def _state_after(self, change: Callable[[Store], Change], *, closes: bool) -> Future[State]:
        follower = self._follower()

        def run(store: Store) -> State:
            done = change(store)
            follower.apply(done.reading)
            state = self.view.state
            if closes:
                self._set[state.epoch] = (*self._set.get(state.epoch, ()), *done.causes)
                while len(self._set) > SET_AT_MOST:
                    del self._set[min(self._set)]
            return state

        return follower.submit(run)

    def _on(
        self, reason: str, expected: timedelta | None, by: str | None, message: str, sessions: str | None
    ) -> Future[State]:
        if sessions not in (None, "end", "suspend", "keep"):
            raise ConfigurationError(f"sessions={sessions!r} is not a choice: use 'end', 'suspend' or 'keep'")
        return self._state_after(
            lambda store: changes.turn_on(
                store,
                Operator.here(by),
                reason=reason,
                message=message,
                expected=expected,
                sessions=sessions,
                kind=OPERATOR,
            ),
            closes=True,
        )

    def _off(self, every: bool, by: str | None) -> Future[State]:
        return self._state_after(lambda store: changes.turn_off(store, Operator.here(by), every=every), closes=False)

    def _schedule(self, wanted: Wanted, by: str | None) -> Future[Scheduled]:
        follower = self._follower()
        wanted = replace(wanted, zone=wanted.zone or os.environ.get("READONLY_TIMEZONE", ""))

        def run(store: Store) -> Scheduled:
            done = schedule(store, Operator.here(by), wanted)
            follower.apply(done.change.reading)
            return done

        return follower.submit(run)

    def _redeem(self, link: str) -> Future[str | None]:
        follower = self._follower()

        def run(store: Store) -> str | None:
            change, token = bypassing.redeem(store, link)
            follower.apply(change.reading)
            return token

        return follower.submit(run)

    def _block_on(self, reason: str, expected: timedelta | None) -> Future[Change]:
        return self._change(
            lambda store: changes.turn_on(store, Operator.here(), reason=reason, expected=expected, kind=BLOCK)
        )

    def _block_off(self, cause: str) -> Future[Change]:
        return self._change(lambda store: changes.lift_exactly(store, Operator.here(), cause))

    def _lift_again(self, setting: Future[Change]) -> None:
        if not setting.cancelled() and setting.exception() is None:
            self._block_off(setting.result().causes[0])

    def _confirm(
        self,
        epoch: int | None,
        timeout: float,
        progress: Callable[[Confirmation], None] | None,
        causes: tuple[str, ...] = (),
    ) -> tuple[Future[Confirmation | None], list[Confirmation]]:
        wanted = self.view.state.epoch if epoch is None else epoch
        follower = self._follower()
        last: list[Confirmation] = []
        # Decided once: if what was asked for is lifted meanwhile, "everybody is open" must not pass for an answer.
        asked: list[str] = list(causes or self._set.get(wanted, ()))
        closing: list[bool] = [True] if asked else []

        def look(store: Store) -> Confirmation | None:
            # A member of the memory: what the store lost while we wait goes back (design rule 12).
            record, census = changes.survey(store, follower.known.record)
            if record is None or record.epoch < wanted:
                return None
            standing = [c.id for c in State.at(census.reading.at, record).causes]
            if not closing:
                closing.append(bool(standing))
                asked.extend(standing)
            found = confirm(
                record,
                census.reports,
                causes=asked if closing[0] else [*record.lifted, *standing],
                closing=closing[0],
                at=census.reading.at,
                here_since=census.reading.here_since,
                registry=census.reading.registry,
                incarnation_seconds=census.reading.incarnation_seconds,
                forgotten=census.forgotten,
            )
            if found.safe:
                # No longer than that: this is the thread that reports, and obeys others' changes.
                found = changes.settled(store, found, wait=follower.interval)
            last[:] = [found]
            if progress is not None:
                progress(found)
            return found if found.safe else None

        return follower.watch_for(look, timeout), last

    @staticmethod
    def _confirmed(found: Confirmation | None, last: list[Confirmation]) -> Confirmation:
        if found is not None:
            return found
        if last:
            return last[0]
        raise StoreUnreachable(
            "nothing could be confirmed: the store did not answer, or holds an older record than the one asked for. "
            "The site obeys what it was last told; start nothing irreversible"
        )


_inherited: list[object] = []


def _say_goodbye_in_children(switch: Switch) -> None:
    """Close the switch when a child of multiprocessing ends: it runs no atexit functions (uvicorn's workers)."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(switch, Switch.close, args=(switch,), exitpriority=0)


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    # The loop may have ended while the switch lives on.
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)


def _flag(name: str, value: str) -> bool:
    try:
        return _WORDS[value.strip().lower()]
    except KeyError:
        raise ConfigurationError(f"{name}={value!r} is not a choice: use 1 or 0") from None


@functools.cache
def _version() -> str:
    from . import __version__

    return __version__


def _in_child() -> None:
    for switch in list(_live):
        switch._after_fork(hook=True)


def _at_exit() -> None:
    for switch in list(_live):
        switch.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
atexit.register(_at_exit)
