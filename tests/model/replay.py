"""Traces of the model, driven through real switches: after each step, model and code must say the same.

The switches are the library's, over one `MemoryStore`, each by a link of its own. Their threads do not run: the replay
stands in for them and calls one heartbeat at a time. Time is handed in.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest

from readonly import changes, confirmation
from readonly.changes import Operator
from readonly.confirmation import Condition, Confirmation, confirm
from readonly.errors import StoreUnreachable
from readonly.follower import Follower, funerals, heartbeat
from readonly.follower.contact import NEW_CAP_SECONDS
from readonly.members import Report
from readonly.record import Record
from readonly.record_format import load
from readonly.stores import Census
from readonly.stores.memory import MemoryStore
from readonly.switch import Switch

from .protocol import Model, Shelf
from .search import Broken, Event, Point, Result, way
from .values import (
    CLOSED,
    COUNTED,
    DEAD,
    DOWN,
    INTERVAL_SECONDS,
    LEASE_SECONDS,
    LEASED,
    LINKED,
    SITE,
    T0,
    TICK_SECONDS,
    Process,
)


class HandedClock:
    """A clock that the replay moves."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def now(self) -> datetime:
        """Return the wall clock."""
        return T0 + timedelta(seconds=self.seconds)

    def boottime(self) -> float:
        """Return the boot clock."""
        return self.seconds


@dataclass
class Life:
    """One life of a process: its switch, its link to the store, its clock, and the write it has counted."""

    switch: Switch
    link: MemoryStore
    clock: HandedClock
    write: object = None

    @property
    def follower(self) -> Follower:
        """What its thread would run."""
        return self.switch._follower()


@contextmanager
def by_hand() -> Iterator[None]:
    """Have each heartbeat be one round, as the model counts them, and look at processes as the model does."""

    def is_gone(report: Report) -> bool:
        found: bool = vars(confirmation)["is_gone"](report)  # the model's, where it is in its place
        return found

    with patch.object(heartbeat, "ROUNDS", 1), patch.object(funerals, "is_gone", is_gone):
        yield


class Replay:
    """Real switches in a state of the model's, and the steps from one to the next."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.clock = HandedClock()
        self.store = MemoryStore(site=SITE, clock=self.clock)
        self.memory = self.store._memory
        self.memory.registry = model.server(model.initial()[0][0]).generation
        self.desk = self.store.peer()
        self.lives: dict[int, Life] = {}
        self.known: dict[int, Record] = {}
        self.point = model.initial()[0]
        self.memory.record = model.records[model.server(self.point[0]).record]
        for _ in range(3):
            for slot in range(model.config.up):
                if slot not in self.lives:
                    self._boot(slot, f"p{slot}")
                self._beat(self.lives[slot])
        self.replica = self._copied()
        if model.config.unheard:
            del self.replica[2]["p0"]
        self.check()

    # --- steps -----------------------------------------------------------------------------------------------------

    def able(self, event: Event) -> bool:
        """Say whether a step can be driven: not a look that makes a switch send a heartbeat of its own first."""
        if event.kind != "look":
            return True
        process = self._process(event.who)
        return process.link != LINKED or not self.lives[event.who].follower.overdue()

    def step(self, event: Event, after: Point) -> None:
        """Do what happens, and compare."""
        before, self.point = self.point, after
        do = getattr(self, "_" + event.kind.replace(" ", "_"))
        if event.who < 0:
            do(before)
        else:
            do(event.who)
        self.check()

    def _process(self, slot: int) -> Process:
        return self.model.processes[self.point[6 + slot]]

    def _boot(self, slot: int, name: str = "") -> None:
        late = self.lives[slot].clock.seconds if slot in self.lives else self.clock.seconds
        self._end(slot)
        link, clock = self.store.peer(), HandedClock(late)
        lease = LEASE_SECONDS if self.model.config.leases else None
        switch = Switch(link, interval=INTERVAL_SECONDS, lease=lease, clock=clock, role="web", inert=False)
        switch.monotonic = clock.boottime
        life = self.lives[slot] = Life(switch, link, clock)
        heart = life.follower
        heart._contact.member = name or self._process(slot).name(slot)
        # The replay is its thread; and it has no host to look after.
        heart._thread = threading.current_thread()
        heart._funerals.due = float("inf")
        heart.tried.set()

    def _end(self, slot: int) -> None:
        life = self.lives.pop(slot, None)
        if life is not None:
            life.switch._followers.clear()

    def close(self) -> None:
        """Leave no switch behind that says goodbye when the tests end."""
        for slot in list(self.lives):
            self._end(slot)

    def _beat(self, of: int | Life) -> None:
        life = of if isinstance(of, Life) else self.lives[of]
        life.follower._heart.beat(life.follower.store)
        life.follower._publisher.changes.clear()

    def _deaf(self, slot: int) -> None:
        life = self.lives[slot]
        heart = life.follower
        answer = heart.store.report

        def lost(*args: Any, **rest: Any) -> Any:
            answer(*args, **rest)
            raise StoreUnreachable("the answer is lost on its way")

        with patch.object(heart.store, "report", lost), pytest.raises(StoreUnreachable):
            heart._heart.beat(heart.store)

    def _peek(self, slot: int) -> None:
        life = self.lives[slot]
        life.follower.apply(life.follower.store.read())

    def _count(self, slot: int) -> None:
        life = self.lives[slot]
        life.write = life.switch.inflight.begin()

    def _look(self, slot: int) -> None:
        life = self.lives[slot]
        if life.switch.admit() is not None:
            life.switch.inflight.end(life.write)
            life.write = None

    def _commit(self, slot: int) -> None:
        life = self.lives[slot]
        life.switch.inflight.end(life.write)
        life.write = None

    def _kill(self, slot: int) -> None:
        self._end(slot)

    def _leave(self, slot: int) -> None:
        follower = self.lives[slot].follower
        follower._heart.say_goodbye(follower.store)
        self._end(slot)

    def _bury(self, slot: int) -> None:
        self.model.say_over(self.point)
        heart = self.lives[slot].follower
        heart._funerals.due = float("-inf")
        heart._contact.new_pause = NEW_CAP_SECONDS  # it has waited for a while
        heart._funerals.look(heart.store)
        heart._funerals.due = float("inf")

    def _orphan(self, slot: int) -> None:
        """The database does that."""

    def _stop(self, slot: int) -> None:
        """Nothing of it runs from here on."""

    def _continue(self, slot: int) -> None:
        """And now it does again."""

    def _cut(self, slot: int) -> None:
        self.lives[slot].link.break_()

    def _heal(self, slot: int) -> None:
        self.lives[slot].link.mend()

    def _tick(self, before: Point, slow: int = -1) -> None:
        self.clock.seconds += TICK_SECONDS
        for slot, life in self.lives.items():
            if slot != slow:
                life.clock.seconds += TICK_SECONDS
        if self.model.server(before[0]).age < 0 and self.memory.emptied is not None:
            # Redis counts from the first report, this store from its loss.
            self.memory.emptied += TICK_SECONDS

    def _drift(self, slot: int) -> None:
        self._tick(self.point, slow=slot)

    def _flush(self, before: Point) -> None:
        self.store.lose()

    def _copied(self) -> tuple[Any, ...]:
        memory = self.memory
        there = dict(memory.members), set(memory.ended), set(memory.left), dict(memory.new)
        return memory.record, dict(memory.since), *there

    def _sync(self, before: Point) -> None:
        self.replica = self._copied()

    def _failover(self, before: Point) -> None:
        memory = self.memory
        memory.record, since, there, ended, left, new = self.replica if before[1] else self._copied()
        memory.since, memory.members, memory.ended, memory.left = dict(since), dict(there), set(ended), set(left)
        memory.new = dict(new)
        memory.registry += 1
        memory.emptied = self.clock.boottime()

    def _on(self, who: int) -> None:
        self.model.typing(who)
        self.known[who] = changes.turn_on(self.desk, Operator(f"op{who}", "model")).record

    def _off(self, who: int) -> None:
        changes.turn_off(self.desk, Operator(f"op{who}", "model"))

    def _confirm(self, who: int) -> Confirmation:
        record, census = changes.survey(self.desk, self.known[who])
        return self._judged(record, census, who)

    def _safe(self, who: int) -> None:
        assert self._confirm(who).safe

    def _safe_by_lease(self, who: int) -> None:
        blocking = [m.condition for m in self._confirm(who).members if m.blocks]
        assert blocking == [Condition.EXPIRED] * len(blocking)

    # --- what must be the same ---------------------------------------------------------------------------------------

    def _judged(self, record: Record | None, census: Census, who: int) -> Confirmation:
        self.model.say_over(self.point)
        return confirm(
            record,
            census.reports,
            causes=(f"c{who}",),
            closing=True,
            at=census.reading.at,
            here_since=census.reading.here_since,
            registry=census.reading.registry,
            incarnation_seconds=census.reading.incarnation_seconds,
        )

    def check(self) -> None:
        """Compare what model and code say: the record, the registry, each process, and whoever waits."""
        model = self.model
        server = model.server(self.point[0])
        same("record", _meaning(self.store.read().record), _meaning(model.records[server.record]))
        real = {seen.member: _said(seen.report) for seen in self.memory.members.values()}
        said = {member: Report.load("", model.reports[report]) for member, report, _ in server.registry}
        same("who has left", self.memory.left, {member for member in said if model.left(said[member])})
        same("who is over", self.memory.ended, {member for member in said if model.ended(said[member])})
        same("who is new", set(self.memory.new), {member for member, _ in server.new})
        same("registry", real, {member: _said(model.reports[report]) for member, report, _ in server.registry})
        for slot in range(model.config.processes):
            process = self._process(slot)
            if process.status not in (DOWN, DEAD):
                self._check_process(self.lives[slot], process, slot)
        shelf = Shelf(model, server)
        for who, desk in enumerate(model.desks[self.point[3]]):
            if desk.phase in (CLOSED, LEASED):
                expected = self._judged(model.record(server.record), shelf.census(), who)
                raw = self.store.read().record
                found = self._judged(load(raw) if raw is not None else None, self.store.census(), who)
                same(f"what op{who} would be told", _verdict(found), _verdict(expected))

    def _check_process(self, life: Life, process: Process, slot: int) -> None:
        heart, known = life.follower, self.model.knowledge(process.known)
        name = process.name(slot)
        same("member", heart.member, name)
        same(f"{name}: settled, fresh", (heart.known.settled, heart.known.fresh), (known.settled, known.fresh))
        heart.republish()
        same(f"{name}: view", _view(life.switch.view.state), _view(self.model.view(process)))
        same(f"{name}: in flight", life.write is not None, process.write >= COUNTED)
        same(f"{name}: members", heart._contact.others, process.others)
        same(f"{name}: noted", heart._contact.noted, process.noted)


def same(what: str, found: object, expected: object) -> None:
    """Compare what the code says with what the model says."""
    assert found == expected, f"{what}: the code says {found}, the model {expected}"


def _meaning(raw: bytes | None) -> object:
    if raw is None:
        return None
    record = load(raw)
    causes = sorted((c.id, c.epoch, c.revision) for c in record.causes)
    return record.epoch, record.lineage, causes, sorted(record.lifted)


def _said(raw: bytes) -> object:
    report = Report.load("", raw)
    ended = report.gone, report.found_gone
    others = report.registry, report.knew
    return sorted(report.causes), report.closed, report.in_flight, report.synced, report.lease, others, ended


def _verdict(found: Confirmation) -> object:
    return found.safe, len(found.problems), sorted((m.report.id, m.condition, m.blocks) for m in found.members)


def _view(state: Any) -> object:
    return state.read_only, state.mode, state.epoch, state.synced, sorted(c.id for c in state.causes)


Pair = tuple[str, str]


def walk(model: Model, *, seed: int, steps: int, seen: set[Pair]) -> None:
    """Drive one random trace, with a liking for pairs of events that no trace had so far.

    Args:
        model: Where the trace comes from; it must be running.
        seed: Makes it the same every time.
        steps: How long it is.
        seen: Pairs of events, one right after the other, that were driven; more are added.
    """
    chance = random.Random(seed)

    def next_step(replay: Replay, last: str) -> tuple[Event, Point]:
        found = [
            (event, after)
            for event, after in model.steps(replay.point)
            if not isinstance(after, Broken) and replay.able(event)
        ]
        fresh = [step for step in found if (last, step[0].kind) not in seen]
        return chance.choice(fresh if fresh and chance.random() < 0.7 else found)

    _drive(model, f"seed {seed}", steps, next_step, seen)


def along(model: Model, trace: Sequence[tuple[Event, Point]], seen: set[Pair]) -> None:
    """Drive one trace that a search has found, up to a step that can't be driven."""
    left = iter(trace)

    def next_step(replay: Replay, last: str) -> tuple[Event, Point] | None:
        step = next(left)
        return step if replay.able(step[0]) else None

    _drive(model, "a trace", len(trace), next_step, seen)


def one_for_each_pair(result: Result) -> list[list[tuple[Event, Point]]]:
    """Return traces in which every pair of events occurs that follow each other on a shortest way somewhere."""
    ends: dict[Pair, Point] = {}
    for point, step in result.points.items():
        before = result.points[step[0]] if step is not None else None
        if step is not None and before is not None:
            ends.setdefault((before[1].kind, step[1].kind), point)
    traces: list[list[tuple[Event, Point]]] = []
    missing = set(ends)
    # The longest first: shorter ones are part of them, more often than not.
    for trace in sorted((way(result.points, point)[1] for point in ends.values()), key=len, reverse=True):
        kinds = [event.kind for event, _ in trace]
        pairs = set(itertools.pairwise(kinds))
        if pairs & missing:
            traces.append(trace)
            missing -= pairs
    return traces


def _drive(
    model: Model,
    name: str,
    steps: int,
    next_step: Callable[[Replay, str], tuple[Event, Point] | None],
    seen: set[Pair],
) -> None:
    replay = Replay(model)
    trace: list[str] = []
    last = ""
    try:
        for _ in range(steps):
            step = next_step(replay, last)
            if step is None:
                break
            event, after = step
            trace.append(model.told(event))
            replay.step(event, after)
            seen.add((last, event.kind))
            last = event.kind
    except Exception as error:
        told = "\n".join(f"{number:>3} {line}" for number, line in enumerate(trace, 1))
        error.add_note(f"{name} of {model.config.name!r}, after\n{told}\n{model.shown(replay.point)}")
        raise
    finally:
        replay.close()
