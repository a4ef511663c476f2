"""What this process says of itself: its report, when that is news, and how it is sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ..inflight import InFlight
from ..members import SLACK_SECONDS, Report, overdue_seconds
from ..record import LOCAL
from ..rehearsal_counts import WHOLE
from ..stores import Reading, Store
from .contact import KEEP_SECONDS, Contact
from .proofs import Proofs
from .settings import Settings
from .view import View


class Reports:
    """The reports of one process.

    Args:
        contact: What it knows.
        view: What its requests are told.
        inflight: Its writes.
        settings: What it was told.
        monotonic: The clock that the age of writes is measured by.
        describe: Returns what else stands in a report.
        proofs: What its guards have proven.
    """

    def __init__(
        self,
        contact: Contact,
        *,
        view: View,
        inflight: InFlight,
        settings: Settings,
        monotonic: Callable[[], float],
        describe: Callable[[], Mapping[str, Any]],
        proofs: Proofs,
    ) -> None:
        self._contact = contact
        self._view = view
        self._inflight = inflight
        self._settings = settings
        self._monotonic = monotonic
        self._describe = describe
        self._proofs = proofs
        self._pid = os.getpid()
        self._counter = 0
        self._first_seen: dict[object, float] = {}
        self._said: tuple[object, ...] = ()

    def next(self, *, count: bool = True) -> Report:
        """Return what there is to report now.

        Args:
            count: It is going to be sent.
        """
        # The order is what makes a report worth something: the view was swapped before, the count is read after,
        # and only then is it sent (protocol.md 1.12).
        contact = self._contact
        state, others = self._view.state, contact.others
        latest = contact.latest()
        lets = tuple(one.id for one in state.bypasses if latest < one.until)
        # What a bypass lets write is nobody's to wait for; what one that is over has let write is. Of a process that
        # ends nobody can ask later.
        keys = self._inflight.keys() | self._inflight.left(() if contact.stopping else lets)
        now = self._monotonic()
        self._first_seen = {key: self._first_seen.get(key, now) for key in keys}
        if count:
            self._counter += 1
        settings = self._settings
        return Report(
            id=contact.member,
            pid=self._pid,
            epoch=state.epoch,
            causes=tuple(c.id for c in state.causes if c.kind != LOCAL),
            closed=state.read_only and not settings.inert,
            in_flight=len(keys),
            oldest_seconds=round(now - min(self._first_seen.values(), default=now), 3),
            synced=state.synced,
            counter=self._counter,
            interval=contact.interval,
            lease=settings.lease,
            boot=settings.boot,
            runs=settings.runs,
            guards=self._proofs.told(read_only=state.read_only),
            local=tuple(c.reason for c in state.causes if c.kind == LOCAL),
            inert=settings.inert,
            registry=others.registry,
            knew=others.knew,
            lacks=contact.known.record.lacks if contact.known.record is not None else (),
            lets=lets,
            **self._describe(),
        )

    def is_news(self, report: Report) -> bool:
        """Return whether others wait for what is in it."""
        return _essence(report) != self._said

    def was_said(self, report: Report) -> None:
        """Remember what the store was told last."""
        self._said = _essence(report)

    def send(self, store: Store, report: Report, **rest: Any) -> Reading:
        """Send a report, of this process or of one that is over, with what else the store wants to be told of it.

        Raises:
            StoreUnreachable: The store did not answer.
        """
        return store.report(
            report.id,
            report.dump(),
            keep_seconds=KEEP_SECONDS,
            alive_seconds=overdue_seconds(self._contact.shared_interval) + SLACK_SECONDS,
            **rest,
        )


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
