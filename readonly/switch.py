"""Switch: one process's live view of the state; the only thing the request path reads."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Literal

from . import lifetimes, twins, waiting
from .asking import Asking
from .clock import Clock, SystemClock, boottime
from .doubts import Doubts
from .environment import flag, told_by
from .errors import ConfigurationError
from .follower import ANNOUNCE_SECONDS, Follower, Guard, Settings, View
from .hostfile import HostFile, state_folder
from .inflight import InFlight, Writing
from .members import Report
from .record import RUN
from .rehearsal_counts import MAX_JOBS, Counts, caller, cleaned, count
from .state import State
from .stores import Store, redacted, store_from_url
from .tally import Tally
from .telling import Telling
from .waiting import Listeners

logger = logging.getLogger("readonly")

GOODBYE_SECONDS = 1.0
# A process that just started waits so long, in timeouts of the store, for its first heartbeat to end.
FIRST_LOOK_TIMEOUTS = 2


class Switch(Asking):
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
        if inert is None:
            inert = flag("READONLY_DISABLED", os.environ.get("READONLY_DISABLED", ""))
        self.store = store
        self.site = store.site
        self.view = View()
        self.tally = Tally()
        # What would have been refused, while a rehearsal goes on.
        self.rehearsed = Counts()
        self.doubts = Doubts()
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
        ).checked()
        self._run = os.environ.get("READONLY_RUN") or ""
        self._clock = clock or SystemClock()
        # Only a lease must know of suspended time; without one the cheaper clock will do.
        self.monotonic: Callable[[], float] = time.monotonic
        if lease is not None:
            self.monotonic = boottime if clock is None else clock.boottime
        self._followers: dict[int, Follower] = {}
        self._telling = Telling(
            role=role or os.environ.get("READONLY_ROLE") or "",
            view=self.view,
            clock=self._clock,
            follower=lambda: self._followers.get(os.getpid()),
            tally=lambda: self.tally,
            rehearsed=self.rehearsed,
            doubts=self.doubts,
        )
        self._guards: tuple[Guard, ...] = ()
        self._callbacks: Listeners[[State]] = Listeners("a callback for changes")
        self._observers: Listeners[[]] = Listeners("what observes this process")
        self._set: dict[int, tuple[str, ...]] = {}
        # Where in the application's code it was made, for a process that makes two.
        self._place = caller()
        lifetimes.begins(self, forked=lambda switch: switch._after_fork(hook=True), ends=Switch.close)

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
        told = told_by(os.environ if environ is None else environ, create=create)
        try:
            return cls(
                told.store,
                lease=told.lease,
                boot=told.boot,
                runs=told.runs,
                role=told.role,
                inert=told.inert,
                announce_seconds=told.announce_seconds,
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

    def latest(self) -> datetime:
        """Return the latest that the store's clock can be, as far as this process knows. No I/O.

        By that clock things were given an end, and machines' clocks may be apart.
        """
        follower = self._followers.get(os.getpid())
        return self._clock.now() if follower is None else follower.latest()

    def lets_through(self, by: str) -> bool:
        """Return whether a bypass, by its id, still lets its holder through, as far as this process knows. No I/O."""
        return any(one.id == by and self.latest() < one.until for one in self.view.state.bypasses)

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

    def begins(self, name: str) -> None:
        """Say that work outside of any request begins, which a rehearsal counts.

        Args:
            name: Of what was decorated; "": whoever calls.
        """
        rehearsal = self.view.state.rehearsal
        if rehearsal is not None:
            with self.rehearsed.adding(rehearsal.id) as numbers:
                count(numbers.jobs, cleaned(name or caller() or "switch.writing()"), most=MAX_JOBS)

    def sampled(self) -> None:
        """Say that a request was looked at closely: the next ones may go on as fast as before."""
        follower = self._followers.get(os.getpid())
        if follower is not None:
            follower.sampled()

    def takes_role(self, role: str) -> None:
        """Say what this process is, unless it was told; a middleware says `web`."""
        self._telling.role = self._telling.role or role

    # --- waiting and watching ----------------------------------------------------------------------------------------

    def wait_writable(self, timeout: float) -> bool:
        """Wait until the site is writable, for consumers, before they fetch. It is a hint: count before you write."""
        return waiting.wait_writable(self, timeout)

    async def await_writable(self, timeout: float) -> bool:
        """Do what `wait_writable` does, awaited."""
        return await waiting.await_writable(self, timeout)

    def changes(self) -> AsyncIterator[State]:
        """Yield the state now, and again after each change, on the caller's loop. Changes in between may be skipped."""
        return waiting.states(self)

    def on_change(self, callback: Callable[[State], None]) -> Callable[[], None]:
        """Have `callback` called in the switch's thread after each change; returns what stops it.

        It must not block: reports wait for it. What it raises is logged.
        """
        return self._callbacks.add(callback)

    def on_heartbeat(self, observer: Callable[[], None]) -> Callable[[], None]:
        """Have `observer` called after each look at the store, well or badly ended; returns what stops it.

        In whichever thread looked: the switch's own, or a request's where threads can't be trusted. It must not block.
        """
        return self._observers.add(observer)

    @property
    def at_work(self) -> bool:
        """Whether it follows the store in this very process: it was used here, or started."""
        return os.getpid() in self._followers

    @property
    def store_answers(self) -> bool:
        """Whether the store answered this process the last time that it was asked."""
        follower = self._followers.get(os.getpid())
        return follower is not None and follower.reached and not follower.problem

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
        ending = self._followers.get(os.getpid())
        if ending is not None:
            self._telling.ends(ending, timeout=GOODBYE_SECONDS + self.store.timeout)
        follower = self._followers.pop(os.getpid(), None)
        if follower is not None:
            twins.ends(follower.member)
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
            describe=self._telling.described,
            guards=lambda: self._guards,
            changed=self._tell,
            memory=HostFile(store.url, store.site, state_folder()),
            after=self._after_heartbeat,
        )
        # One atomic step decides which of two threads made it; the loser's has started nothing.
        found = self._followers.setdefault(pid, made)
        if found is made:
            twins.begins(made.member, made, url=store.url, place=self._place)
            places = twins.places(made.member)
            if places:
                logger.warning(
                    "readonly: two switches of this process follow %s, made at %s: what obeys the one knows nothing of "
                    "the other. Make one, and give that object to middleware, databases and jobs",
                    redacted(store.url),
                    places,
                )
            lifetimes.say_goodbye_in_children(self, ends=Switch.close)
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
        self.rehearsed.forget()
        self.doubts.forget()
        self._telling.forget()
        if hook:
            # Only right after the fork: later, a request of this very process may have been counted already.
            self.inflight.forget()
        for other in list(self._followers):
            # One by one: another thread of this process may be putting in ours.
            if hook or other != pid:
                # Kept, not collected: closing the parent's connections here could disturb the parent.
                inherited = self._followers.pop(other, None)
                lifetimes.keep(inherited)
                if inherited is not None:
                    twins.ends(inherited.member)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _after_heartbeat(self, store: Store) -> None:
        self._telling.beaten(store)
        self._observers.tell()

    def _drained(self) -> None:
        follower = self._followers.get(os.getpid())
        if follower is not None:
            follower.wake()

    def _tell(self, state: State) -> None:
        self._telling.turned(state)
        self._callbacks.tell(state)
        # Only now: databases are hooked into by a callback. Whoever began the rehearsal waits for this.
        follower = self._followers.get(os.getpid())
        if state.rehearsal is not None and self.rehearsed.take_part(state.rehearsal.id) and follower is not None:
            follower.wake()
