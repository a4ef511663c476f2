"""What this process has from the store: the record, the time, who else is there; and how long it may go by that."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from ..clock import Clock, StoreClock
from ..members import Others, overdue_seconds
from ..stores import Reading, Store, redacted
from ..transitions import Knowledge, lapsed, learn
from .settings import Settings

logger = logging.getLogger("readonly")

# At such rates a server's caches are cold, and a report costs two to three bare pings: forty a second are about 1% of a
# core that is busy with much else (docs/measurements.md). So the interval grows with the number of members, and
# together they stay at this.
REPORTS_PER_SECOND: Final = 25.0
# The roster of a week, so that `on` can say who was there yesterday.
KEEP_SECONDS: Final = 7 * 24 * 3600.0
# A process that has only just begun looks so often whether others know of it. They are asked to report at once, so that
# milliseconds will do; who has died without a word holds it up the longest.
NEW_FIRST_SECONDS: Final = 0.02
NEW_CAP_SECONDS: Final = 0.5
BACKOFF_FIRST_SECONDS: Final = 0.1
# Clocks drift; a lease ends here earlier than others may believe (rule 10).
LEASE_SLACK: Final = 0.05


class Contact:
    """What is known here, and since when.

    Whatever takes something in is called with the lock held. Single attributes may be read by any thread.

    Attributes:
        lock: Held by whoever takes something in, until the view says it; by nobody who waits for the store.
        member: By what others know this process.
        store: Where the record lives.
        known: The record, and how far it is to be trusted.
        time: The store's clock. Used with the lock held.
        attempted: When somebody tried to reach the store last, on the monotonic clock.
        reached: The store answered once, at least.
        problem: Why the store could not be reached last time, or "".
        backoff: Seconds to wait before it is tried again.
        members: How many there are.
        others: Whom this process has in mind.
        noted: Others know that this process is there, so that it may admit writes (design rule 7).
        new_pause: Seconds until it looks again whether they do.
        lease_until: Until when it may admit writes without the store, on the monotonic clock.
        stopping: This switch is being closed: nothing is admitted by it any more.
    """

    def __init__(self, store: Store, *, settings: Settings, clock: Clock, monotonic: Callable[[], float]) -> None:
        self.lock = threading.RLock()
        self.member = secrets.token_hex(16)
        self.store = store
        self.known = Knowledge()
        self.time = StoreClock(clock)
        self.attempted = float("-inf")
        self.reached = False
        self.problem = ""
        self.backoff = BACKOFF_FIRST_SECONDS
        self.members = 1
        self.others = Others()
        self.noted = False
        self.new_pause = NEW_FIRST_SECONDS
        self.lease_until = float("inf")
        self.stopping = False
        self._settings = settings
        self._monotonic = monotonic
        self._was_leased = False
        self._knew_until = float("inf")

    def now(self) -> datetime:
        """Return the wall clock, corrected by the store's."""
        return self.time.now()

    def latest(self) -> datetime:
        """Return the latest that the store's clock can be."""
        with self.lock:
            return self.time.latest()

    # --- how often, and how late -------------------------------------------------------------------------------------

    @property
    def interval(self) -> float:
        """Seconds between two reports; grows with the number of members."""
        wanted = self.shared_interval
        return wanted if self._settings.lease is None else min(wanted, self._settings.lease / 3)

    @property
    def shared_interval(self) -> float:
        """Seconds between two reports of others: it grows with their number, and a lease shortens only one's own."""
        return max(self._settings.interval, self.members / REPORTS_PER_SECOND)

    @property
    def young_seconds(self) -> float:
        """For how long a store may not know all that others know."""
        return 2 * self.shared_interval

    @property
    def stale_after(self) -> float:
        """Seconds without an attempt to reach the store after which a request looks for itself."""
        return overdue_seconds(self.interval) + self.store.timeout

    def stale(self) -> bool:
        """Return whether nobody has even tried to reach the store for too long."""
        return self._monotonic() - self.attempted > self.stale_after

    def lease_over(self) -> bool:
        """Return whether the lease has run out, and nobody has tried to renew it just now."""
        now = self._monotonic()
        return now > self.lease_until and now - self.attempted > self.interval

    def is_new(self) -> bool:
        """Return whether this process waits for nothing but that others know of it: that takes milliseconds."""
        return self.known.may_open and not self.noted and not self.problem

    def overdue(self) -> bool:
        """Return whether whoever asks had better look for itself."""
        late = self.is_new() and self._monotonic() - self.attempted > NEW_CAP_SECONDS
        return late or self.stale() or self.lease_over()

    # --- what is taken in --------------------------------------------------------------------------------------------

    def take_in(
        self, reading: Reading, *, heartbeat: bool, asked: float | None = None, names: tuple[str, ...] = ()
    ) -> bytes | None:
        """Learn from an answer of the store.

        Args:
            reading: The answer.
            heartbeat: It is the answer to a report.
            asked: When it was asked, by the boot clock; None: the answer says little of the time.
            names: Whom the report named.

        Returns:
            What the store lacks, to be written back, or None.
        """
        if asked is not None or not self.reached:
            self.time.heard(reading.at, asked=asked if asked is not None else self.time.asked())
        self.reached = True
        if heartbeat:
            self.members = max(1, reading.members)
            self.remember_members(reading, names)
        # Only a heartbeat makes this process a member; before one was accepted it admits nothing (design rule 7).
        young = not heartbeat or reading.incarnation_seconds < self.young_seconds
        before = self.known.problem
        self.known, back = learn(self.known, reading.record, site=self.store.site, young=young, at=reading.at)
        if self.known.problem and self.known.problem != before:
            logger.error("readonly: %s; writes are refused until that is over", self.known.problem)
        return back

    def renew_lease(self, sent: float) -> None:
        """Count the lease from when the report that the store has accepted was sent, on the monotonic clock."""
        lease = self._settings.lease
        if lease is None:
            return
        if self._was_leased and sent > self.lease_until:
            self.known = lapsed(self.known)
        self._was_leased = True
        # From when it was sent, not from when the answer came (protocol.md C11).
        self.lease_until = sent + lease * (1 - LEASE_SLACK)

    def remember_members(self, reading: Reading, names: tuple[str, ...]) -> None:
        """Keep in mind who was there when the store forgets its members (design rule 6)."""
        others, now = self.others, self._monotonic()
        if others.registry not in ("", reading.registry):
            self._knew_until = now + KEEP_SECONDS
        elif now > self._knew_until:
            # A registry forgets the silent by then, too; who has come back and left since is in none any more.
            others = replace(others, knew=())
        self.others = others.after(reading.registry, reading.neighbours, names=names)

    # --- words -------------------------------------------------------------------------------------------------------

    def unknown_because(self) -> str:
        """Return why this process does not know whether the site is writable, or "" if it does."""
        known, shown = self.known, redacted(self.store.url)
        if self._settings.lease is not None and self._was_leased and self._monotonic() > self.lease_until:
            return f"the lease is over: the store {shown} has not been reached for {self._settings.lease:g} s"
        if not self.reached:
            return f"the store {shown} was never reached" + (f": {self.problem}" if self.problem else "")
        if known.record is None:
            return (
                f"the store {shown} holds no record for the site {self.store.site!r}. New installation? "
                f"readonlyctl init {self.store.site}. Existing site? The store was emptied; a process that knew the "
                "state writes it back within seconds. readonlyctl status tells more"
            )
        if not known.settled and not known.record.partial:
            return "this process waits until those who may know more than a store this young have written it back"
        if not self.noted and not known.record.partial:
            return "this process has only just begun, and waits until another one has said that it knows of it"
        return ""
