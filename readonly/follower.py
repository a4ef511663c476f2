"""One process's thread: it follows the record, reports, and is the only one that talks to the store.

Everything that a fork would break (process id, lock, thread, connections, knowledge) is in one object, which a child
replaces; whether this process has one is decided by comparing process ids, since fork hooks and `is_alive()` both lie
under some servers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol, TypeVar

from . import windows
from .clock import Clock, StoreClock
from .errors import Error, StoreUnreachable
from .hostfile import HostFile
from .inflight import InFlight
from .members import SLACK_SECONDS, Guarded, Others, Report, overdue_seconds
from .processes import is_gone
from .record import LOCAL, TOMBSTONE_AGE, Cause, Mode, Window
from .rehearsal_counts import WHOLE
from .state import UNKNOWN, State
from .stores import SILENT_AT_MOST, Newcomer, Reading, Store, redacted
from .transitions import Knowledge, lacks_whole, lapsed, learn, recalled
from .upkeep import keep_windows

# Of our own: a thread that draws from everybody's would change what a program draws that has seeded it.
_random = random.SystemRandom()  # which forked processes draw from apart
T = TypeVar("T")
logger = logging.getLogger("readonly")

# At such rates a server's caches are cold, and a report costs two to three bare pings: forty a second are about 1% of a
# core that is busy with much else (docs/measurements.md). So the interval grows with the number of members, and
# together they stay at this.
REPORTS_PER_SECOND = 25.0
# How long before a window visitors are told: time to finish a long form, and not so long that nobody looks any more.
ANNOUNCE_SECONDS = 1800.0
# The roster of a week, so that `on` can say who was there yesterday.
KEEP_SECONDS = 7 * 24 * 3600.0
# How often a member looks whether others of its host are over; all of them together so many times a second (to look
# costs the store as much as a report, and one of a host's members is enough); and for how long after its last report
# that is worth knowing.
SECONDS_BETWEEN_FUNERALS = 5.0
FUNERALS_PER_SECOND = 5.0
ASKED_AFTER_SECONDS = 24 * 3600.0
# Rounds of read, join and write back within one heartbeat before it waits for the next one.
ROUNDS = 8
# Last words to a registry that is a new one are said again.
GOODBYES = 2
BACKOFF_FIRST_SECONDS, BACKOFF_CAP_SECONDS = 0.1, 2.0
# A process that has only just begun looks so often whether others know of it. They are asked to report at once, so that
# milliseconds will do; who has died without a word holds it up the longest.
NEW_FIRST_SECONDS, NEW_CAP_SECONDS = 0.02, 0.5
# Requests of such a process wait for that as long as they wait for its first look, in timeouts of the store.
NEW_TIMEOUTS = 2
# Of a writable site's requests, most of which nobody looks at, so often one is, for what there may be to doubt.
SAMPLE_FIRST_SECONDS, SAMPLE_SECONDS = 20.0, 60.0
# Clocks drift; a lease ends here earlier than others may believe (rule 10).
LEASE_SLACK = 0.05


class Guard(Protocol):
    """A database guard, as the switch needs it."""

    name: str

    def prove(self) -> str:
        """Try a harmless write that must fail; return "" if it was refused, else what is wrong."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return what server, database and user it writes to, without secrets; `problem`: what it found since."""
        ...


class View:
    """What the request path reads: attributes only, no lock, no I/O.

    Attributes:
        open: True only while this process knows, here and now, that the site is writable.
        admit_until: Until when writes may be admitted without a second look, on the switch's monotonic clock;
            minus infinity while closed.
        sample: The next request of a writable site is to be looked at closely.
        sessions_cut: A session cut-off is known: requests with a session cookie need a look, writable or not.
        state: The state behind it.
        announced: The window that visitors of a writable site are told of by now, or None.
    """

    __slots__ = ("admit_until", "announced", "open", "sample", "sessions_cut", "state")

    def __init__(self) -> None:
        self.open = False
        self.admit_until = float("-inf")
        self.sessions_cut = False
        self.sample = False
        self.state: State = UNKNOWN
        self.announced: Window | None = None

    @property
    def writable(self) -> bool:
        """Whether the site is known to be writable, though requests may be looked at more closely than that needs."""
        return self.open or ((self.sample or self.state.rehearsal is not None) and not self.state.read_only)

    def shut(self) -> None:
        """Send every request to the slow path, which looks for itself."""
        self.open = False
        self.admit_until = float("-inf")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a switch was told; the same in every process.

    Attributes:
        lease: Seconds for which writes are admitted without the store, or None for ever.
        boot: `closed` or `open`, for a process that never reached the store.
        interval: Seconds between reports, at least.
        runs: What the process runs, as the application says.
        inert: READONLY_DISABLED: obey nothing, and report that.
        trust_threads: Whether a background thread is known to run here at all times.
        announce_seconds: How long before it begins visitors are told of a window.
    """

    lease: float | None = None
    boot: str = "closed"
    interval: float = 1.0
    runs: str = ""
    inert: bool = False
    trust_threads: bool = True
    announce_seconds: float = ANNOUNCE_SECONDS


@dataclass(slots=True)
class _Job:
    """Something to be done in the thread, with its store."""

    run: Callable[[Store], Any]
    future: Future[Any]


@dataclass(slots=True)
class _Waiter:
    """Somebody who waits for a condition of the registry: looked at on every report and hint."""

    look: Callable[[Store], Any | None]
    future: Future[Any]
    deadline: float


class Follower:
    """Follows the store in one process. Any thread may call `ensure`, `refresh`, `submit`, `watch_for`, `wake`."""

    def __init__(
        self,
        store: Store,
        *,
        view: View,
        inflight: InFlight,
        settings: Settings,
        clock: Clock,
        monotonic: Callable[[], float],
        describe: Callable[[], Mapping[str, Any]],
        guards: Callable[[], tuple[Guard, ...]],
        changed: Callable[[State], None],
        memory: HostFile,
        after: Callable[[Store], None] = lambda _: None,
    ) -> None:
        self.pid = os.getpid()
        self.member = secrets.token_hex(16)
        self.store = store
        self.known = Knowledge()
        self.attempted = float("-inf")
        # Set when the first heartbeat has ended, well or badly: before that there is nothing to go by. Where others do
        # not know of this process yet, that is waited for, too; a while.
        self.tried = threading.Event()
        self._view = view
        self._inflight = inflight
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._describe = describe
        self._guards = guards
        self._changed = changed
        self._memory = memory
        self._after = after
        self._recalled = False
        # The first one is due when this process has been around for a while: its predecessors may just be ending.
        self._next_funeral = monotonic() + settings.interval
        self._buried_to: datetime | None = None
        self._next_sample: float | None = None
        self._lock = threading.RLock()
        self._inline = threading.Lock()
        self._inline_store: Store | None = None
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()
        self._stopping = False
        self._jobs: deque[_Job] = deque()
        self._waiters: list[_Waiter] = []
        self._local: dict[str, Cause] = {}
        self._problem = ""
        self._reached = False
        self._counter = 0
        self._members = 1
        self._others = Others()
        # Others know that this process is there, so that it may admit writes (design rule 7).
        self._noted = False
        self._new_pause = NEW_FIRST_SECONDS
        self._knew_until = float("inf")
        self.time = StoreClock(clock)
        self._lease_until = float("inf")
        self._was_leased = False
        self._first_seen: dict[object, float] = {}
        self._proofs: dict[str, str] = {}
        self._proving: tuple[str, ...] = ()
        self._backoff = BACKOFF_FIRST_SECONDS
        self._said: tuple[object, ...] = ()
        self._complaint = ""
        self._changes: deque[State] = deque()

    # --- from any thread ---------------------------------------------------------------------------------------------

    def ensure(self) -> None:
        """Start the thread if there is none. The caller has compared the process id."""
        if self._thread is None or not self._thread.is_alive():
            with self._lock:
                if self._thread is None or not (self._thread.is_alive() or self._stopping):
                    # Known before it runs: what it calls back must find itself in the thread.
                    self._thread = threading.Thread(target=self._run, name="readonly-follower", daemon=True)
                    try:
                        self._thread.start()
                    except RuntimeError as error:  # no more threads here, or the interpreter is going down
                        self._thread = None
                        self._complain_once(f"no thread could be started ({error}): requests look for themselves")

    @property
    def stale_after(self) -> float:
        """Seconds without an attempt to reach the store after which a request looks for itself."""
        return overdue_seconds(self.interval) + self.store.timeout

    @property
    def interval(self) -> float:
        """Seconds between two reports; grows with the number of members."""
        wanted = self._shared_interval
        return wanted if self._settings.lease is None else min(wanted, self._settings.lease / 3)

    @property
    def _shared_interval(self) -> float:
        """Seconds between two reports of others: it grows with their number, and a lease shortens only one's own."""
        return max(self._settings.interval, self._members / REPORTS_PER_SECOND)

    @property
    def reached(self) -> bool:
        """Whether the store ever answered."""
        return self._reached

    @property
    def problem(self) -> str:
        """Why the store could not be reached last time, or ""."""
        return self._problem

    def stale(self) -> bool:
        """Return whether nobody has even tried to reach the store for too long."""
        return self._monotonic() - self.attempted > self.stale_after

    def lease_over(self) -> bool:
        """Return whether the lease has run out, and nobody has tried to renew it just now."""
        now = self._monotonic()
        return now > self._lease_until and now - self.attempted > self.interval

    def overdue(self) -> bool:
        """Return whether whoever asks had better look for itself."""
        late = self._is_new() and self._monotonic() - self.attempted > NEW_CAP_SECONDS
        return late or self.stale() or self.lease_over()

    def refresh(self) -> None:
        """Look for oneself, in the calling thread: bounded, and one at a time. Never raises."""
        if not self._inline.acquire(timeout=self.store.timeout):
            return
        try:
            if not self.overdue():
                return  # somebody else has just looked
            if self._inline_store is None:
                self._inline_store = self.store.reopened()
            self._beat_safely(self._inline_store)
            self.tried.set()
        finally:
            self._inline.release()

    def wake(self) -> None:
        """Make the thread look at once."""
        self._woken.set()
        self.store.wake()

    def submit(self, run: Callable[[Store], T]) -> Future[T]:
        """Have something done in the thread, with its store; in the thread itself it is done at once."""
        future: Future[T] = Future()
        job = _Job(run, future)
        if self.inside():
            self._do(job)
        else:
            self._jobs.append(job)
            self.ensure()
            self.wake()
        return future

    def watch_for(self, look: Callable[[Store], T | None], timeout: float) -> Future[T | None]:
        """Have `look` called at every hint and report until it returns something, or for `timeout` seconds."""
        future: Future[T | None] = Future()
        self._waiters.append(_Waiter(look, future, self._monotonic() + timeout))
        self.ensure()
        self.wake()
        return future

    def detected(self, name: str, reason: str | None) -> None:
        """Add (or, with None, take away) a cause that only this process sees; it is never written to the record."""
        with self._lock:
            if reason is None:
                if self._local.pop(name, None) is None:
                    return
            else:
                known = self._local.get(name)
                if known is not None and known.reason == reason:
                    return
                since = known.since if known is not None else self.now()
                self._local[name] = Cause(
                    id=name, kind=LOCAL, by="this process", since=since, reason=reason, sessions="keep"
                )
            self._publish()
        self.wake()

    def republish(self) -> None:
        """Work out again what is known, now: a window may have begun, a lease may have run out."""
        with self._lock:
            self._publish()

    def apply(self, reading: Reading) -> None:
        """Take in a reading that somebody else made with this store, and obey it before returning."""
        with self._lock:
            self._take_in(reading, heartbeat=False)
            self._publish()

    def sampled(self) -> None:
        """Have requests go the fast way again for a while, now that one was looked at closely."""
        with self._lock:
            self._next_sample = self._monotonic() + SAMPLE_SECONDS
            self._publish()

    def now(self) -> datetime:
        """Return the wall clock, corrected by the store's."""
        return self.time.now()

    def latest(self) -> datetime:
        """Return the latest that the store's clock can be."""
        with self._lock:
            return self.time.latest()

    def stop(self, timeout: float) -> None:
        """Say goodbye and end the thread; the switch may be used again, then with a new follower."""
        self._stopping = True
        self._view.shut()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        self.wake()
        thread.join(timeout)

    def inside(self) -> bool:
        """Return whether the caller runs in the thread itself, as callbacks do."""
        return threading.current_thread() is self._thread

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        new_until = self._monotonic() + NEW_TIMEOUTS * self.store.timeout
        try:
            while not self._stopping:
                self._woken.clear()
                self._beat_safely(self.store)
                if not self._is_new() or self._monotonic() >= new_until:
                    self.tried.set()
                while self._changes:
                    self._changed(self._changes.popleft())
                if self._jobs:
                    while self._jobs:
                        self._do(self._jobs.popleft())
                    continue  # what they changed is reported at once
                self._look_for_waiters()
                if not self._stopping:
                    self._wait()
            self._say_goodbye()
        finally:
            # Whatever ended this thread, no request may go on trusting what it left behind.
            self._view.shut()
            self._fail_all(Error("the switch was closed"))
            self.store.close()
            self._close_inline()

    def _wait(self) -> None:
        timeout = self._patience()
        if self._problem:
            # The store's own wait needs the store; an event needs nothing.
            self._woken.wait(min(timeout, self._backoff * _random.uniform(0.5, 1.0)))
            self._backoff = min(self._backoff * 2, BACKOFF_CAP_SECONDS)
            return
        if self._woken.is_set():
            return
        try:
            self.store.wait(timeout, for_reports=bool(self._waiters), member=self.member)
        except StoreUnreachable as error:
            self._store_failed(error)
        except Exception:
            logger.exception("readonly: waiting for hints failed; the state is read at an interval all the same")
            self._woken.wait(min(timeout, BACKOFF_CAP_SECONDS))

    def _close_inline(self) -> None:
        if self._inline.acquire(timeout=self.store.timeout):
            store, self._inline_store = self._inline_store, None
            self._inline.release()
            if store is not None:
                store.close()

    def _patience(self) -> float:
        """Seconds until something is due by the clock."""
        due = [self.interval * _random.uniform(0.9, 1.0)]  # so that members do not report in step
        now = self._monotonic()
        if self._is_new():
            due.append(self._new_pause * _random.uniform(0.5, 1.0))
            self._new_pause = min(self._new_pause * 2, NEW_CAP_SECONDS)
        if self._waiters:
            due.append(max(0.0, min(w.deadline for w in self._waiters) - now))
        if self._settings.lease is not None and self._view.open:
            due.append(max(0.0, self._lease_until - now))
        window = self._view.state.next_window
        if window is not None:
            left = (window.start - self.time.latest()).total_seconds()
            due.append(max(0.0, left))
            if left > self._settings.announce_seconds:
                due.append(left - self._settings.announce_seconds)
        record, at = self.known.record, self.now()
        end = windows.next_due(record, at=at) if record is not None else None
        if end is not None and end > at:
            # One of many is enough: they don't come all at once.
            late = min(self._members / REPORTS_PER_SECOND, 1.0) * _random.random()
            due.append((end - at).total_seconds() + late)
        return min(due)

    def _do(self, job: _Job) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        try:
            job.future.set_result(job.run(self.store))
        except BaseException as error:
            job.future.set_exception(error)

    def _look_for_waiters(self) -> None:
        for waiter in list(self._waiters):
            result: Any | None = None
            try:
                if not waiter.future.cancelled():
                    result = waiter.look(self.store)
            except StoreUnreachable as error:
                self._store_failed(error)
            except BaseException as error:
                self._waiters.remove(waiter)
                _fail(waiter.future, error)
                continue
            if waiter.future.cancelled():
                self._waiters.remove(waiter)
            elif result is not None or self._monotonic() >= waiter.deadline:
                self._waiters.remove(waiter)
                with contextlib.suppress(InvalidStateError):
                    waiter.future.set_result(result)

    def _fail_all(self, error: Error) -> None:
        for job in self._jobs:
            _fail(job.future, error)
        self._jobs.clear()
        for waiter in self._waiters:
            _fail(waiter.future, error)
        self._waiters.clear()

    def _say_goodbye(self) -> None:
        try:
            for _ in range(GOODBYES):
                report = replace(self._report(), gone=True)
                # What is in flight may commit after the store has lost this report: then others must ask after it.
                leaves = not report.in_flight
                reading = self._send(self.store, report, announce=True, ended=True, leaves=leaves)
                if reading.registry == report.registry:
                    break
                # Whom it knew in a registry that was lost is asked after only if it says so.
                self._remember_members(reading, ())
        except StoreUnreachable as error:
            logger.info("readonly: could not say goodbye to the store: %s", error)
        except Exception:
            logger.exception("readonly: could not say goodbye to the store")

    # --- heartbeat ---------------------------------------------------------------------------------------------------

    def _beat_safely(self, store: Store) -> None:
        try:
            self._beat(store)
        except StoreUnreachable as error:
            self._store_failed(error)
        except Exception:
            # A fault of ours must not end the thread: the site would follow nothing any more.
            logger.exception("readonly: a heartbeat failed; the state stays as it is, the next one follows")
            self._problem = self._problem or "a heartbeat failed"
        try:
            self._after(store)
        except Exception:
            logger.exception("readonly: what follows a heartbeat failed")

    def _beat(self, store: Store) -> None:
        """Report, read, take in, write back what the store lacks, and report again what that has changed."""
        if not self._recalled:
            self._recalled = True
            last = self._memory.recall()
            # Beyond that nobody knows any more what was lifted (protocol.md 1.3).
            if last is not None and self._clock.now() - last[1] <= TOMBSTONE_AGE:
                with self._lock:
                    self.known = recalled(last[0])
        for _ in range(ROUNDS):
            self.attempted = self._monotonic()
            report = self._report()
            announce = self._essence(report) != self._said
            sent, asked = self._monotonic(), self.time.asked()
            names = self._others.names
            new = None if self._noted else Newcomer(young_seconds=self._young_seconds)
            reading = self._send(store, report, announce=announce, names=names, new=new)
            self._said = self._essence(report)
            with self._lock:
                self._renew_lease(sent)
                self._noted = self._noted or reading.noted
                back = self._take_in(reading, heartbeat=True, asked=asked, names=names)
                causes = [c.id for c in self.known.record.causes] if self.known.record is not None else []
                self._store_answered()
                self._publish()
            # Who has not told this registry yet whom it knew in a lost one does so first, in the next round.
            if back is not None and (reading.registry == report.registry or not lacks_whole(reading.record)):
                after = store.replace(back, was=reading.record, causes=causes)
                logger.warning(
                    "readonly: the store lacked what this process knew; %s",
                    "written back" if after.record == back else "another process was faster",
                )
                with self._lock:
                    self._take_in(after, heartbeat=False)
                    self._publish()
            kept = keep_windows(store, self.known, reading) if back is None else None
            if kept is not None:
                with self._lock:
                    self._take_in(kept, heartbeat=False)
                    self._publish()
            self._memory.remember(self.known.raw)
            # Whoever has been heard of just now is named at once: it may be waiting for that.
            if self._essence(self._report(count=False)) == self._said and not self._others.names:
                break
        # Last, so that no change waits for it.
        self._look_for_the_dead(store)

    def _look_for_the_dead(self, store: Store) -> None:
        """Say of members of this host that fell silent whether their processes are over: only here can that be known.

        What is found stands in their own last report, so that it outlives whoever found it.
        """
        now = self._monotonic()
        # One that has begun in place of a dead one is held up by it.
        held_up = self._is_new() and self._new_pause == NEW_CAP_SECONDS
        if now < self._next_funeral and not held_up:
            return
        self._next_funeral = now + max(SECONDS_BETWEEN_FUNERALS, self._members / FUNERALS_PER_SECOND)
        longer_than = 0.0 if held_up else 4 * self.interval + 1.0
        found = store.silent(longer_than=longer_than, shorter_than=ASKED_AFTER_SECONDS, before=self._buried_to)
        # Where more are silent than fit into one answer, those of other hosts for instance, the next look goes on.
        self._buried_to = found[-1].at if len(found) >= SILENT_AT_MOST else None
        for seen in found:
            report = Report.load(seen.member, seen.report)
            if seen.member != self.member and not report.found_gone and is_gone(report):
                # It stays a neighbour: whatever it said last, it may have begun a write since, which still commits.
                self._send(store, replace(report, id=seen.member, found_gone=True), announce=True, ended=True)

    def _send(self, store: Store, report: Report, **rest: Any) -> Reading:
        return store.report(
            report.id,
            report.dump(),
            keep_seconds=KEEP_SECONDS,
            alive_seconds=overdue_seconds(self._shared_interval) + SLACK_SECONDS,
            **rest,
        )

    def _report(self, *, count: bool = True) -> Report:
        # The order is what makes a report worth something: the view was swapped before, the count is read after,
        # and only then is it sent (protocol.md 1.12).
        state, others = self._view.state, self._others
        latest = self.latest()
        lets = tuple(one.id for one in state.bypasses if latest < one.until)
        # What a bypass lets write is nobody's to wait for; what one that is over has let write is. Of a process that
        # ends nobody can ask later.
        keys = self._inflight.keys() | self._inflight.left(() if self._stopping else lets)
        now = self._monotonic()
        self._first_seen = {key: self._first_seen.get(key, now) for key in keys}
        if count:
            self._counter += 1
        settings = self._settings
        return Report(
            id=self.member,
            pid=self.pid,
            epoch=state.epoch,
            causes=tuple(c.id for c in state.causes if c.kind != LOCAL),
            closed=state.read_only and not settings.inert,
            in_flight=len(keys),
            oldest_seconds=round(now - min(self._first_seen.values(), default=now), 3),
            synced=state.synced,
            counter=self._counter,
            interval=self.interval,
            lease=settings.lease,
            boot=settings.boot,
            runs=settings.runs,
            guards=tuple(self._guarded(g, read_only=state.read_only) for g in self._guards()),
            local=tuple(c.reason for c in state.causes if c.kind == LOCAL),
            inert=settings.inert,
            registry=others.registry,
            knew=others.knew,
            lacks=self.known.record.lacks if self.known.record is not None else (),
            lets=lets,
            **self._describe(),
        )

    def _guarded(self, guard: Guard, *, read_only: bool) -> Guarded:
        """Return what is reported of a guard: its proof stands until it finds a problem."""
        said = {**guard.describe()}
        problem = str(said.pop("problem", ""))
        return Guarded(guard.name, self._proofs.get(guard.name, "pending") or problem if read_only else "", said)

    @staticmethod
    def _essence(report: Report) -> tuple[object, ...]:
        """What others wait for: if this changes, it is reported at once and announced."""
        return (
            report.epoch,
            report.causes,
            report.lets,
            report.closed,
            report.synced,
            # Of a writable process nobody waits for this, and under load it would change with every look.
            report.in_flight == 0 or not report.closed,
            [(g.name, g.proof, {**g.server, "replicas": None}) for g in report.guards],  # those move all the time
            # A report to a registry that its sender did not know of proves nothing.
            report.registry,
            report.rehearsal.get(WHOLE),
        )

    def _renew_lease(self, sent: float) -> None:
        lease = self._settings.lease
        if lease is None:
            return
        if self._was_leased and sent > self._lease_until:
            self.known = lapsed(self.known)
        self._was_leased = True
        # From when it was sent, not from when the answer came (protocol.md C11).
        self._lease_until = sent + lease * (1 - LEASE_SLACK)

    def _take_in(
        self, reading: Reading, *, heartbeat: bool, asked: float | None = None, names: tuple[str, ...] = ()
    ) -> bytes | None:
        if asked is not None or not self._reached:
            self.time.heard(reading.at, asked=asked if asked is not None else self.time.asked())
        self._reached = True
        if heartbeat:
            self._members = max(1, reading.members)
            self._remember_members(reading, names)
        # Only a heartbeat makes this process a member; before one was accepted it admits nothing (design rule 7).
        young = not heartbeat or reading.incarnation_seconds < self._young_seconds
        before = self.known.problem
        self.known, back = learn(self.known, reading.record, site=self.store.site, young=young, at=reading.at)
        if self.known.problem and self.known.problem != before:
            logger.error("readonly: %s; writes are refused until that is over", self.known.problem)
        return back

    @property
    def _young_seconds(self) -> float:
        """For how long a store may not know all that others know."""
        return 2 * self._shared_interval

    def _is_new(self) -> bool:
        """Return whether this process waits for nothing but that others know of it: that takes milliseconds."""
        return self.known.may_open and not self._noted and not self._problem

    def _remember_members(self, reading: Reading, names: tuple[str, ...]) -> None:
        """Keep in mind who was there when the store forgets its members (design rule 6)."""
        others, now = self._others, self._monotonic()
        if others.registry not in ("", reading.registry):
            self._knew_until = now + KEEP_SECONDS
        elif now > self._knew_until:
            # A registry forgets the silent by then, too; who has come back and left since is in none any more.
            others = replace(others, knew=())
        self._others = others.after(reading.registry, reading.neighbours, names=names)

    def _unknown_because(self) -> str:
        known, shown = self.known, redacted(self.store.url)
        if self._settings.lease is not None and self._was_leased and self._monotonic() > self._lease_until:
            return f"the lease is over: the store {shown} has not been reached for {self._settings.lease:g} s"
        if not self._reached:
            return f"the store {shown} was never reached" + (f": {self._problem}" if self._problem else "")
        if known.record is None:
            return (
                f"the store {shown} holds no record for the site {self.store.site!r}. New installation? "
                f"readonlyctl init {self.store.site}. Existing site? The store was emptied; a process that knew the "
                "state writes it back within seconds. readonlyctl status tells more"
            )
        if not known.settled and not known.record.partial:
            return "this process waits until those who may know more than a store this young have written it back"
        if not self._noted and not known.record.partial:
            return "this process has only just begun, and waits until another one has said that it knows of it"
        return ""

    def _publish(self) -> None:
        """Make the view say what is known now. Called with the lock held."""
        local = tuple(self._local.values())
        if self.known.problem:
            problem = self.known.problem
            local += (Cause("unreadable", LOCAL, "this process", self.now(), reason=problem, sessions="keep"),)
        because = self._unknown_because()
        before = self._view.state
        # Windows close early by what this process can't know of the store's clock, and open by the record alone.
        state = State.at(self.time.latest(), self.known.record, local=local, unknown_because=because)
        if not self._reached and self._settings.boot == "open" and not state.causes:
            state = replace(state, read_only=False)
        view = self._view
        if state.read_only and not self._settings.inert:
            view.shut()
            view.state = state
            self._inflight.close()
        else:
            self._inflight.reopen()
            view.state = state if not self._settings.inert else replace(state, read_only=False, rehearsal=None)
            trusted = self._settings.trust_threads and not self._stopping
            view.admit_until = self._admit_until(state) if trusted else float("-inf")
            # Every request is looked at while a rehearsal goes on; writes are admitted as ever.
            if self._next_sample is None:
                self._next_sample = self._monotonic() + SAMPLE_FIRST_SECONDS
            view.sample = self._monotonic() >= self._next_sample
            view.open = trusted and view.state.rehearsal is None and not view.sample
            if self._stopping:
                view.shut()  # `stop` shut it in between
        view.sessions_cut = state.sessions_ended_before("end") is not None
        view.announced = self._announced(view.state)
        if _meaning(before) != _meaning(view.state):
            self._log_change(before, view.state)
            if view.state.read_only and not before.read_only:
                self._proofs = {}
            self._changes.append(view.state)
        if view.state.read_only:
            self._prove_guards()

    def _announced(self, state: State) -> Window | None:
        """Return the window that visitors are told of by now."""
        window = state.next_window
        if window is None or state.read_only:
            return None
        left = (window.start - self.time.latest()).total_seconds()
        return window if left <= self._settings.announce_seconds else None

    def _admit_until(self, state: State) -> float:
        """Until when a writable state may be trusted unseen: somebody looked lately, the lease, the next window."""
        until = min(self.attempted + self.stale_after, self._lease_until)
        if state.next_window is not None:
            until = min(until, self._monotonic() + (state.next_window.start - self.time.latest()).total_seconds())
        return until

    def _prove_guards(self) -> None:
        """Have each guard try a harmless write, in a thread of its own: a database that hangs must not silence us."""
        guards = tuple(g for g in self._guards() if g.name not in self._proofs and g.name not in self._proving)
        if not guards or not self._view.state.causes:
            return
        self._proving = (*self._proving, *(g.name for g in guards))

        def prove() -> None:
            for guard in guards:
                try:
                    proof = guard.prove()
                except Exception as error:
                    logger.exception("readonly: the guard of %s could not be tried", guard.name)
                    proof = f"could not be tried: {error}"
                with self._lock:
                    self._proving = tuple(n for n in self._proving if n != guard.name)
                    if self._view.state.read_only:
                        self._proofs[guard.name] = proof
            self.wake()

        threading.Thread(target=prove, name="readonly-proof", daemon=True).start()

    # --- words -------------------------------------------------------------------------------------------------------

    def _store_failed(self, error: StoreUnreachable) -> None:
        first = not self._problem
        self._problem = str(error)
        with self._lock:
            self._publish()
        if first:
            state = self._view.state
            logger.error(
                "readonly: %s. This process keeps what it knew: %s",
                error,
                state.mode if state.record is not None else "nothing, so it refuses writes and serves reads",
            )

    def _store_answered(self) -> None:
        if self._problem:
            logger.warning("readonly: the store answers again")
        self._problem = ""
        self._backoff = BACKOFF_FIRST_SECONDS

    def _complain_once(self, what: str) -> None:
        if what != self._complaint:
            self._complaint = what
            logger.warning("readonly: %s", what)

    def _log_change(self, before: State, after: State) -> None:
        logger.log(
            # Every process is new for a few milliseconds.
            logging.WARNING if after.mode is Mode.UNKNOWN and not self._is_new() else logging.INFO,
            "readonly: %s is %s (epoch %d)%s",
            self.store.site,
            after.mode,
            after.epoch,
            f": {after.reason}" if after.read_only else ", rehearsing" if after.rehearsal is not None else "",
            extra={
                "event": "changed",
                "readonly_site": self.store.site,
                "readonly_mode": str(after.mode),
                "readonly_epoch": after.epoch,
                "readonly_was": str(before.mode),
                "readonly_reason": after.reason,
            },
        )


def _fail(future: Future[Any], error: BaseException) -> None:
    # Whoever waited may have given up in this very moment; that must not end the thread.
    with contextlib.suppress(InvalidStateError):
        future.set_exception(error)


def _meaning(state: State) -> tuple[object, ...]:
    return (state.mode, state.epoch, state.causes, state.read_only, state.unknown_because, state.rehearsal)
