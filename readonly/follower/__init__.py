"""One process's thread: it follows the record, reports, and is the only one that talks to the store.

Everything that a fork would break (process id, lock, thread, connections, knowledge) is in one object, which a child
replaces; whether this process has one is decided by comparing process ids, since fork hooks and `is_alive()` both lie
under some servers.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import datetime
from typing import Any, Final, TypeVar

from .. import windows
from ..clock import Clock, StoreClock
from ..errors import Error, StoreUnreachable
from ..hostfile import HostFile
from ..inflight import InFlight
from ..state import State
from ..stores import Reading, Store
from ..transitions import Knowledge
from .contact import NEW_CAP_SECONDS, REPORTS_PER_SECOND, Contact
from .errands import Errands
from .funerals import Funerals
from .heartbeat import Heartbeat
from .proofs import Guard, Proofs
from .publishing import Publisher
from .reporting import Reports
from .settings import ANNOUNCE_SECONDS, Settings
from .view import View

__all__ = ["ANNOUNCE_SECONDS", "Follower", "Guard", "Settings", "View"]

# Of our own: a thread that draws from everybody's would change what a program draws that has seeded it.
_random = random.SystemRandom()  # which forked processes draw from apart
T = TypeVar("T")
logger = logging.getLogger("readonly")

BACKOFF_CAP_SECONDS: Final = 2.0
# Requests of a process that has only just begun wait until others know of it as long as they wait for its first look,
# in timeouts of the store.
NEW_TIMEOUTS: Final = 2


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
        self.store = store
        # Set when the first heartbeat has ended, well or badly: before that there is nothing to go by. Where others do
        # not know of this process yet, that is waited for, too; a while.
        self.tried = threading.Event()
        self._view = view
        self._settings = settings
        self._monotonic = monotonic
        self._changed = changed
        self._contact = contact = Contact(store, settings=settings, clock=clock, monotonic=monotonic)
        self._proofs = Proofs(guards, view=view, lock=contact.lock, wake=self.wake)
        self._publisher = Publisher(
            contact, view=view, inflight=inflight, settings=settings, monotonic=monotonic, proofs=self._proofs
        )
        reports = Reports(
            contact,
            view=view,
            inflight=inflight,
            settings=settings,
            monotonic=monotonic,
            describe=describe,
            proofs=self._proofs,
        )
        self._funerals = Funerals(contact, reports, monotonic=monotonic, first_seconds=settings.interval)
        self._heart = Heartbeat(
            contact,
            self._publisher,
            reports,
            self._funerals,
            view=view,
            monotonic=monotonic,
            clock=clock,
            memory=memory,
            after=after,
        )
        self._errands = Errands(monotonic)
        self._inline = threading.Lock()
        self._inline_store: Store | None = None
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()
        self._complaint = ""

    # --- from any thread ---------------------------------------------------------------------------------------------

    def ensure(self) -> None:
        """Start the thread if there is none. The caller has compared the process id."""
        if self._thread is None or not self._thread.is_alive():
            with self._contact.lock:
                if self._thread is None or not (self._thread.is_alive() or self._contact.stopping):
                    # Known before it runs: what it calls back must find itself in the thread.
                    self._thread = threading.Thread(target=self._run, name="readonly-follower", daemon=True)
                    try:
                        self._thread.start()
                    except RuntimeError as error:  # no more threads here, or the interpreter is going down
                        self._thread = None
                        self._complain_once(f"no thread could be started ({error}): requests look for themselves")

    @property
    def member(self) -> str:
        """By what others know this process."""
        return self._contact.member

    @property
    def known(self) -> Knowledge:
        """What is known of the record."""
        return self._contact.known

    @property
    def time(self) -> StoreClock:
        """The store's clock."""
        return self._contact.time

    @property
    def interval(self) -> float:
        """Seconds between two reports; grows with the number of members."""
        return self._contact.interval

    @property
    def reached(self) -> bool:
        """Whether the store ever answered."""
        return self._contact.reached

    @property
    def problem(self) -> str:
        """Why the store could not be reached last time, or ""."""
        return self._contact.problem

    def latest(self) -> datetime:
        """Return the latest that the store's clock can be."""
        return self._contact.latest()

    def overdue(self) -> bool:
        """Return whether whoever asks had better look for itself."""
        return self._contact.overdue()

    def refresh(self) -> None:
        """Look for oneself, in the calling thread: bounded, and one at a time. Never raises."""
        if not self._inline.acquire(timeout=self.store.timeout):
            return
        try:
            if not self.overdue():
                return  # somebody else has just looked
            if self._inline_store is None:
                self._inline_store = self.store.reopened()
            self._heart.beat_safely(self._inline_store)
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
        if self.inside():
            self._errands.do(run, future, self.store)
        else:
            self._errands.bring(run, future)
            self.ensure()
            self.wake()
        return future

    def watch_for(self, look: Callable[[Store], T | None], timeout: float) -> Future[T | None]:
        """Have `look` called at every hint and report until it returns something, or for `timeout` seconds."""
        future: Future[T | None] = Future()
        self._errands.wait(look, future, timeout=timeout)
        self.ensure()
        self.wake()
        return future

    def detected(self, name: str, reason: str | None) -> None:
        """Add (or, with None, take away) a cause that only this process sees; it is never written to the record."""
        with self._contact.lock:
            if not self._publisher.detected(name, reason):
                return
        self.wake()

    def republish(self) -> None:
        """Work out again what is known, now: a window may have begun, a lease may have run out."""
        with self._contact.lock:
            self._publisher.publish()

    def apply(self, reading: Reading) -> None:
        """Take in a reading that somebody else made with this store, and obey it before returning."""
        with self._contact.lock:
            self._contact.take_in(reading, heartbeat=False)
            self._publisher.publish()

    def sampled(self) -> None:
        """Have requests go the fast way again for a while, now that one was looked at closely."""
        with self._contact.lock:
            self._publisher.sampled()

    def stop(self, timeout: float) -> None:
        """Say goodbye and end the thread; the switch may be used again, then with a new follower."""
        self._contact.stopping = True
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
        contact, changes = self._contact, self._publisher.changes
        new_until = self._monotonic() + NEW_TIMEOUTS * self.store.timeout
        try:
            while not contact.stopping:
                self._woken.clear()
                self._heart.beat_safely(self.store)
                if not contact.is_new() or self._monotonic() >= new_until:
                    self.tried.set()
                while changes:
                    self._changed(changes.popleft())
                if self._errands.do_all(self.store):
                    continue  # what they changed is reported at once
                self._errands.look(self.store, failed=self._heart.failed)
                if not contact.stopping:
                    self._wait()
            self._heart.say_goodbye(self.store)
        finally:
            # Whatever ended this thread, no request may go on trusting what it left behind.
            self._view.shut()
            self._errands.fail_all(Error("the switch was closed"))
            self.store.close()
            self._close_inline()

    def _wait(self) -> None:
        contact = self._contact
        timeout = self._patience()
        if contact.problem:
            # The store's own wait needs the store; an event needs nothing.
            self._woken.wait(min(timeout, contact.backoff * _random.uniform(0.5, 1.0)))
            contact.backoff = min(contact.backoff * 2, BACKOFF_CAP_SECONDS)
            return
        if self._woken.is_set():
            return
        try:
            self.store.wait(timeout, for_reports=self._errands.awaited, member=contact.member)
        except StoreUnreachable as error:
            self._heart.failed(error)
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
        contact = self._contact
        due = [contact.interval * _random.uniform(0.9, 1.0)]  # so that members do not report in step
        now = self._monotonic()
        if contact.is_new():
            due.append(contact.new_pause * _random.uniform(0.5, 1.0))
            contact.new_pause = min(contact.new_pause * 2, NEW_CAP_SECONDS)
        left = self._errands.left_seconds()
        if left is not None:
            due.append(left)
        if self._settings.lease is not None and self._view.open:
            due.append(max(0.0, contact.lease_until - now))
        window = self._view.state.next_window
        if window is not None:
            left = (window.start - contact.time.latest()).total_seconds()
            due.append(max(0.0, left))
            if left > self._settings.announce_seconds:
                due.append(left - self._settings.announce_seconds)
        record, at = contact.known.record, contact.now()
        end = windows.next_due(record, at=at) if record is not None else None
        if end is not None and end > at:
            # One of many is enough: they don't come all at once.
            late = min(contact.members / REPORTS_PER_SECOND, 1.0) * _random.random()
            due.append((end - at).total_seconds() + late)
        return min(due)

    def _complain_once(self, what: str) -> None:
        if what != self._complaint:
            self._complaint = what
            logger.warning("readonly: %s", what)
