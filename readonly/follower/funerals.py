"""Which members of this host fell silent because their processes are over: only here can that be known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from ..members import Report
from ..processes import is_gone
from ..stores import SILENT_AT_MOST, Store
from .contact import NEW_CAP_SECONDS, Contact
from .reporting import Reports

# How often a member looks whether others of its host are over; all of them together so many times a second (to look
# costs the store as much as a report, and one of a host's members is enough); and for how long after its last report
# that is worth knowing.
SECONDS_BETWEEN_FUNERALS: Final = 5.0
FUNERALS_PER_SECOND: Final = 5.0
ASKED_AFTER_SECONDS: Final = 24 * 3600.0


class Funerals:
    """Says of the dead that they are.

    Args:
        contact: What this process knows.
        reports: What is said of a dead one goes by these.
        monotonic: The clock that the looks go by.
        first_seconds: When this process has been around for a while: its predecessors may just be ending.

    Attributes:
        due: When the next look is due, on the monotonic clock.
    """

    def __init__(
        self, contact: Contact, reports: Reports, *, monotonic: Callable[[], float], first_seconds: float
    ) -> None:
        self.due = monotonic() + first_seconds
        self._contact = contact
        self._reports = reports
        self._monotonic = monotonic
        self._buried_to: datetime | None = None

    def look(self, store: Store) -> None:
        """Say of members of this host that fell silent whether their processes are over, if it is time for that.

        What is found stands in their own last report, so that it outlives whoever found it.

        Raises:
            StoreUnreachable: The store did not answer.
        """
        now, contact = self._monotonic(), self._contact
        # One that has begun in place of a dead one is held up by it.
        held_up = contact.is_new() and contact.new_pause == NEW_CAP_SECONDS
        if now < self.due and not held_up:
            return
        self.due = now + max(SECONDS_BETWEEN_FUNERALS, contact.members / FUNERALS_PER_SECOND)
        longer_than = 0.0 if held_up else 4 * contact.interval + 1.0
        found = store.silent(longer_than=longer_than, shorter_than=ASKED_AFTER_SECONDS, before=self._buried_to)
        # Where more are silent than fit into one answer, those of other hosts for instance, the next look goes on.
        self._buried_to = found[-1].at if len(found) >= SILENT_AT_MOST else None
        for seen in found:
            report = Report.load(seen.member, seen.report)
            if seen.member != contact.member and not report.found_gone and is_gone(report):
                # It stays a neighbour: whatever it said last, it may have begun a write since, which still commits.
                gone = replace(report, id=seen.member, found_gone=True)
                self._reports.send(store, gone, announce=True, ended=True)
