"""One look at the store: report, read, take in, write back what it lacks, and report again what that has changed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ..clock import Clock
from ..errors import StoreUnreachable
from ..hostfile import HostFile
from ..record import TOMBSTONE_AGE
from ..stores import Newcomer, Store
from ..transitions import lacks_whole, recalled
from ..upkeep import keep_windows
from .contact import BACKOFF_FIRST_SECONDS, Contact
from .funerals import Funerals
from .publishing import Publisher
from .reporting import Reports
from .view import View

logger = logging.getLogger("readonly")

# Rounds of read, join and write back within one heartbeat before it waits for the next one.
ROUNDS: Final = 8
# Last words to a registry that is a new one are said again.
GOODBYES: Final = 2


class Heartbeat:
    """The heartbeats of one process. The thread makes them, and a request may where nobody has for too long.

    Args:
        contact: What this process knows; its lock is held while an answer is taken in, until requests are told.
        publisher: Tells requests.
        reports: What is reported.
        funerals: Looks for the dead.
        view: What requests are told, for the log.
        clock: The wall clock.
        memory: What this host remembers of the record.
        after: Called after each heartbeat, well or badly ended.
    """

    def __init__(
        self,
        contact: Contact,
        publisher: Publisher,
        reports: Reports,
        funerals: Funerals,
        *,
        view: View,
        monotonic: Callable[[], float],
        clock: Clock,
        memory: HostFile,
        after: Callable[[Store], None],
    ) -> None:
        self._contact = contact
        self._publisher = publisher
        self._reports = reports
        self._funerals = funerals
        self._view = view
        self._monotonic = monotonic
        self._clock = clock
        self._memory = memory
        self._after = after
        self._recalled = False

    def beat_safely(self, store: Store) -> None:
        """Make one, whatever happens. Never raises."""
        try:
            self.beat(store)
        except StoreUnreachable as error:
            self.failed(error)
        except Exception:
            # A fault of ours must not end the thread: the site would follow nothing any more.
            logger.exception("readonly: a heartbeat failed; the state stays as it is, the next one follows")
            self._contact.problem = self._contact.problem or "a heartbeat failed"
        try:
            self._after(store)
        except Exception:
            logger.exception("readonly: what follows a heartbeat failed")

    def beat(self, store: Store) -> None:
        """Report, read, take in, write back what the store lacks, and report again what that has changed.

        Raises:
            StoreUnreachable: The store did not answer.
        """
        self._recall()
        contact, publisher, reports = self._contact, self._publisher, self._reports
        for _ in range(ROUNDS):
            contact.attempted = self._monotonic()
            report = reports.next()
            announce = reports.is_news(report)
            sent, asked = self._monotonic(), contact.time.asked()
            names = contact.others.names
            new = None if contact.noted else Newcomer(young_seconds=contact.young_seconds)
            reading = reports.send(store, report, announce=announce, names=names, new=new)
            reports.was_said(report)
            with contact.lock:
                contact.renew_lease(sent)
                contact.noted = contact.noted or reading.noted
                back = contact.take_in(reading, heartbeat=True, asked=asked, names=names)
                causes = [c.id for c in contact.known.record.causes] if contact.known.record is not None else []
                self._answered()
                publisher.publish()
            # Who has not told this registry yet whom it knew in a lost one does so first, in the next round.
            if back is not None and (reading.registry == report.registry or not lacks_whole(reading.record)):
                after = store.replace(back, was=reading.record, causes=causes)
                logger.warning(
                    "readonly: the store lacked what this process knew; %s",
                    "written back" if after.record == back else "another process was faster",
                )
                with contact.lock:
                    contact.take_in(after, heartbeat=False)
                    publisher.publish()
            kept = keep_windows(store, contact.known, reading) if back is None else None
            if kept is not None:
                with contact.lock:
                    contact.take_in(kept, heartbeat=False)
                    publisher.publish()
            self._memory.remember(contact.known.raw)
            # Whoever has been heard of just now is named at once: it may be waiting for that.
            if not reports.is_news(reports.next(count=False)) and not contact.others.names:
                break
        # Last, so that no change waits for it.
        self._funerals.look(store)

    def _recall(self) -> None:
        """Begin with what this host remembers, the first time."""
        if self._recalled:
            return
        self._recalled = True
        last = self._memory.recall()
        # Beyond that nobody knows any more what was lifted (protocol.md 1.3).
        if last is not None and self._clock.now() - last[1] <= TOMBSTONE_AGE:
            with self._contact.lock:
                self._contact.known = recalled(last[0])

    def say_goodbye(self, store: Store) -> None:
        """Report that this process ends. Never raises."""
        try:
            for _ in range(GOODBYES):
                report = replace(self._reports.next(), gone=True)
                # What is in flight may commit after the store has lost this report: then others must ask after it.
                leaves = not report.in_flight
                reading = self._reports.send(store, report, announce=True, ended=True, leaves=leaves)
                if reading.registry == report.registry:
                    break
                # Whom it knew in a registry that was lost is asked after only if it says so.
                self._contact.remember_members(reading, ())
        except StoreUnreachable as error:
            logger.info("readonly: could not say goodbye to the store: %s", error)
        except Exception:
            logger.exception("readonly: could not say goodbye to the store")

    def failed(self, error: StoreUnreachable) -> None:
        """Go on without the store; said once, until it answers again."""
        contact = self._contact
        first = not contact.problem
        contact.problem = str(error)
        with contact.lock:
            self._publisher.publish()
        if first:
            state = self._view.state
            logger.error(
                "readonly: %s. This process keeps what it knew: %s",
                error,
                state.mode if state.record is not None else "nothing, so it refuses writes and serves reads",
            )

    def _answered(self) -> None:
        if self._contact.problem:
            logger.warning("readonly: the store answers again")
        self._contact.problem = ""
        self._contact.backoff = BACKOFF_FIRST_SECONDS
