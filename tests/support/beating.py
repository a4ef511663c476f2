"""Processes whose heartbeats a test makes, on one store, by a clock that the test moves."""

from __future__ import annotations

from datetime import datetime, timedelta

from readonly.follower import Follower, Settings, View
from readonly.hostfile import HostFile
from readonly.inflight import InFlight
from readonly.record import Record
from readonly.record_format import dump, load
from readonly.stores.memory import MemoryStore


class SetClock:
    """A wall clock and a boot clock that a test moves."""

    def __init__(self, start: datetime) -> None:
        self.start = start
        self.seconds = 0.0

    def now(self) -> datetime:
        """Return the time that it was set to."""
        return self.start + timedelta(seconds=self.seconds)

    def boottime(self) -> float:
        """Return seconds since the test began."""
        return self.seconds

    def to(self, instant: datetime) -> datetime:
        """Go to an instant."""
        self.seconds = (instant - self.start).total_seconds()
        return instant


class Site:
    """A store that is old, and what it holds."""

    def __init__(self, clock: SetClock) -> None:
        self.clock = clock
        self.store = MemoryStore(site="shop", clock=clock)

    @property
    def record(self) -> Record:
        """The record that stands."""
        raw = self.store.read().record
        assert raw is not None
        return load(raw)

    def holds(self, found: Record) -> None:
        """Put a record there, whatever stands."""
        self.store._memory.record = dump(found)


class Beating:
    """One process of the site."""

    def __init__(self, site: Site, *, clock: SetClock | None = None, start: bool = True) -> None:
        clock = clock or site.clock
        self.clock = clock
        self.view = View()
        self.link = site.store.peer()
        self.follower = Follower(
            self.link,
            view=self.view,
            inflight=InFlight(),
            settings=Settings(),
            clock=clock,
            monotonic=clock.boottime,
            describe=lambda: {"host": "web-1", "role": "web"},
            guards=lambda: (),
            changed=lambda state: None,
            memory=HostFile("memory://", "shop", None),
        )
        if start:
            self.beat()

    def beat(self) -> Beating:
        """Make one heartbeat, now."""
        self.follower._heart.beat_safely(self.link)
        return self

    def admits(self) -> bool:
        """Tell what a request would be told: by the quick look, else by the slow one without I/O."""
        if self.clock.boottime() < self.view.admit_until:
            return True
        self.follower.republish()
        return not self.view.state.read_only
