"""What a site looks like from outside, as numbers: of one process, and of all of them. No client library here.

`readonly.metrics.prometheus` and `readonly.metrics.opentelemetry` hand them to the two that people have, each optional.
Labels are bounded: routes by the tally (200, the rest is `other`), members by their condition and role.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ..logs import visible
from ..members import Guarded, Report
from ..record import Mode
from ..replicating import at_work, reported
from ..switch import Switch

if TYPE_CHECKING:
    from ..site import Site
    from ..state import State

Kind = Literal["gauge", "counter"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number.

    Attributes:
        name: Without the suffix that a counter has where it is shown.
        kind: A counter never falls while its process lives.
        value: In seconds where it is a time.
        labels: What it is of.
    """

    name: str
    kind: Kind
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make visible what would end a line of what is scraped, or can't be sent at all."""
        if self.labels:
            object.__setattr__(self, "labels", {name: visible(str(value)) for name, value in self.labels.items()})


HELP: Mapping[str, str] = {
    "readonly_mode": "1 for what the site is for this process: writable, read-only or unknown",
    "readonly_epoch": "Epoch of the record that this process obeys",
    "readonly_store_reachable": "1 while the store answers this process",
    "readonly_writes_in_flight": "Writes that were admitted and have not ended",
    "readonly_refused": "Requests that were refused, by route and why",
    "readonly_allowed": "Requests of unsafe methods that a read-only site let through, by route and why",
    "readonly_bypassed": "Requests that may write and were let through by a bypass, by route and holder",
    "readonly_escaped": "Writes that passed the gate and were stopped by a guard: a rule is missing",
    "readonly_sessions_ended": "Session cookies that browsers were told to forget",
    "readonly_drains": "How often this process turned read-only and finished the writes it had begun",
    "readonly_drain_seconds": "Seconds that those drains took, all together",
    "readonly_last_drain_seconds": "Seconds that the last drain took",
    "readonly_replica_fit": "1 while this process may read from a replica",
    "readonly_replica_lag_seconds": "Seconds that a replica is behind, as this process saw it last, where it tells",
    "readonly_site_mode": "1 for what the record says now",
    "readonly_site_epoch": "Epoch of the record",
    "readonly_site_store_reachable": "1 while the store answers whoever asks",
    "readonly_site_safe": "1 while every member obeys and has drained",
    "readonly_site_members": "Members of the site, by role and condition",
    "readonly_site_writes_in_flight": "Writes in flight, as the members reported them last",
    "readonly_site_read_only_seconds": "For how long the site has been read-only",
    "readonly_site_overdue_seconds": "For how long the announced end has passed",
    "readonly_site_bypasses": "Bypasses that let somebody through now",
    "readonly_site_replica_fit": "Members that may read from a replica",
    "readonly_site_replica_unfit": "Members that may not read from a replica that they know",
    "readonly_site_replica_lag_seconds": "Seconds that a replica is behind, the most that any member found",
    "readonly_site_rehearsing": "1 while a rehearsal goes on",
}

_LABELS: Mapping[str, tuple[str, str]] = {
    "refused": ("route", "kind"),
    "allowed": ("route", "kind"),
    "bypassed": ("route", "bypass"),
    "escaped": ("route", ""),
}


class Drains:
    """Measures how long a process takes to finish what it had begun, each time it turns read-only.

    By what the switch shows: it looks when the state changes, and after each heartbeat; one comes at once when the last
    write has ended.
    """

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._closed = switch.view.state.read_only
        self._begin()
        self._stops = (switch.on_change(self._changed), switch.on_heartbeat(self._look))

    def stop(self) -> None:
        """Measure no more."""
        for stop in self._stops:
            stop()

    def samples(self) -> Iterator[Sample]:
        """Yield what was measured in this process."""
        self._in_this_process()
        yield Sample("readonly_drains", "counter", self._count)
        yield Sample("readonly_drain_seconds", "counter", self._seconds)
        yield Sample("readonly_last_drain_seconds", "gauge", self._last)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._count, self._seconds, self._last = 0, 0.0, 0.0
        # When it turned read-only, until it has drained. No lock: a thread that held it may not be in a forked child.
        self._since: list[float] = []

    def _in_this_process(self) -> None:
        if self._pid != os.getpid():
            self._begin()

    def _changed(self, state: State) -> None:
        self._in_this_process()
        # Who has only just begun knows nothing for some milliseconds, and turns read-only by that no more than a
        # process does that begins while the site is.
        if state.causes and not self._closed:
            self._since[:] = [time.monotonic()]
        elif not state.read_only:
            self._since.clear()
        self._closed = state.read_only
        self._look()

    def _look(self) -> None:
        self._in_this_process()
        if self._since and not self._switch.inflight.count():
            with contextlib.suppress(IndexError):  # another thread has looked
                self._last = time.monotonic() - self._since.pop()
                # Whoever scrapes in this moment sees no drain that took no time.
                self._seconds += self._last
                self._count += 1


def of_process(switch: Switch, drains: Drains) -> Iterator[Sample]:
    """Yield what one process knows of itself. No I/O, and it begins none.

    Args:
        switch: Its switch.
        drains: Made with it.
    """
    # Not `switch.state`, which begins to follow the store: a server's first process, which only forks, is no member.
    state = switch.view.state
    yield from _modes("readonly_mode", state.mode)
    yield Sample("readonly_epoch", "gauge", state.epoch)
    yield Sample("readonly_store_reachable", "gauge", float(switch.store_answers))
    yield Sample("readonly_writes_in_flight", "gauge", switch.inflight.count())
    yield from drains.samples()
    counts = switch.tally.counts()
    for what, (first, second) in _LABELS.items():
        for (route, detail), number in sorted(counts[what].items()):
            labels = {first: route, second: detail} if second else {first: route}
            yield Sample(f"readonly_{what}", "counter", number, labels)
    yield Sample("readonly_sessions_ended", "counter", sum(counts["ended"].values()))
    seen = tuple(Guarded(guard.name, "", guard.describe()) for guard in switch.guards)
    for one in reported([Report(id="", host="", pid=0, role="", guards=seen)]):
        labels = {"database": one.database, "replica": one.name}
        yield Sample("readonly_replica_fit", "gauge", one.fit, labels)
        if one.lag is not None:
            yield Sample("readonly_replica_lag_seconds", "gauge", one.lag, labels)


def of_site(site: Site) -> Iterator[Sample]:
    """Yield what the record and all members say: one look at the store. For one exporter, not for each process.

    Args:
        site: Never changed by it. A store that does not answer is a sample like any other.
    """
    from ..errors import Error, StoreUnreachable

    try:
        look = site.look()
    except StoreUnreachable:
        yield from _modes("readonly_site_mode", Mode.UNKNOWN)
        yield Sample("readonly_site_store_reachable", "gauge", 0)
        return
    yield Sample("readonly_site_store_reachable", "gauge", 1)
    yield from _modes("readonly_site_mode", look.state.mode)
    yield Sample("readonly_site_epoch", "gauge", look.state.epoch)
    at = look.census.reading.at
    since, end = look.state.since, look.state.expected_end
    yield Sample("readonly_site_read_only_seconds", "gauge", (at - since).total_seconds() if since is not None else 0)
    late = (at - end).total_seconds() if end is not None else 0
    yield Sample("readonly_site_overdue_seconds", "gauge", max(0.0, late))
    causes = {cause.id for cause in look.state.causes}
    bypasses = look.record.bypasses if look.record is not None else ()
    live = [b for b in bypasses if not b.revoked and at < b.until and not causes.isdisjoint(b.causes)]
    yield Sample("readonly_site_bypasses", "gauge", len(live))
    yield Sample("readonly_site_rehearsing", "gauge", float(look.state.rehearsal is not None))
    try:
        found = site.judge(look)
    except Error:  # a record that can't be read: who obeys it can't be said
        return
    yield Sample("readonly_site_safe", "gauge", float(found.safe and look.state.mode is Mode.READ_ONLY))
    yield Sample("readonly_site_writes_in_flight", "gauge", sum(m.report.in_flight for m in found.members))
    for (role, condition), number in sorted(Counter((m.report.role, str(m.condition)) for m in found.members).items()):
        yield Sample("readonly_site_members", "gauge", number, {"role": role, "condition": condition})
    for one in reported(at_work(found)):
        labels = {"database": one.database, "replica": one.name}
        yield Sample("readonly_site_replica_fit", "gauge", one.fit, labels)
        yield Sample("readonly_site_replica_unfit", "gauge", one.members - one.fit, labels)
        if one.lag is not None:
            yield Sample("readonly_site_replica_lag_seconds", "gauge", one.lag, labels)


def _modes(name: str, mode: Mode) -> Iterator[Sample]:
    for one in Mode:
        yield Sample(name, "gauge", float(one is mode), {"mode": str(one)})
