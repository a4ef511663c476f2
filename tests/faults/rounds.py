"""One round: servers, workers and clients are started, cycles are gone through, the history is written and judged."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from faults import sabotage, versions
from faults.arena import LEASE_SECONDS, SITE, Arena
from faults.checker import Verdict, Wanted, check
from faults.history import Began, Fault, Note, Recorder, Tail, Write, of, read
from faults.nemesis import (
    ANSWERED,
    BEFORE,
    INSIDE,
    LEAVING,
    NAMES,
    TWO_OPERATORS,
    WAITING,
    Cycle,
    Nemesis,
    schedule,
)
from faults.operators import Person
from faults.truth import Truth
from readonly import changes
from readonly.changes import Operator
from readonly.errors import LostRace, NoRecord, NotYours, StoreUnreachable
from readonly.stores import store_from_url
from support import children
from support.postgres_server import PostgresServer
from support.redis_server import RedisServer
from support.redis_topology import Topology

# From the first fault that may come before `on` until `on`.
LEAD_SECONDS = 0.3
# After everything has been healed the site is writable again in so many seconds, or something has latched.
OPENS_SECONDS = 60.0
# A worker that was started and has not begun yet (Python takes its time where much else runs) may take so long for it.
STARTS_SECONDS = 120.0
LOOKS_SECONDS = 2.0
CYCLE_SECONDS = 120.0
# So long an operator tries to have `off` taken; where something was broken on purpose, it may never be.
OFF_SECONDS, IMPATIENT_SECONDS = 30.0, 1.0
STEP_SECONDS = 0.05
_MOMENTS = {"on": WAITING, "answered": INSIDE, "leaving": LEAVING}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a round is told.

    Attributes:
        seed: What its schedule is drawn from.
        seconds: No cycle is begun after so many.
        cycles: No more cycles than these.
        kinds: Names of the faults it may choose from.
        sabotaged: What is broken on purpose, of `sabotage.WORKER` or `sabotage.OPERATOR`; "" for nothing.
        newer: A copy of the library that one worker runs; "" for none.
        pairs: Share of the cycles in which two things go wrong.
        faketime: libfaketime, if clocks are to be set for real.
    """

    seed: int
    seconds: float = 600.0
    cycles: int = 1_000_000
    kinds: Sequence[str] = NAMES
    sabotaged: str = ""
    newer: str = ""
    pairs: float = 1.0
    faketime: Path | None = None

    def schedule(self) -> Iterator[Cycle]:
        """Return its cycles."""
        return takewhile(
            lambda cycle: cycle.number < self.cycles, schedule(self.seed, kinds=self.kinds, pairs=self.pairs)
        )


class Round:
    """One round, from start to verdict.

    Args:
        plan: What it is told.
        folder: For logs and the history.
        postgres: A running server.
        database: A database on it that nobody else uses.
        redis: A running server that nobody else uses; or a primary, its replica and Sentinels.
        say: Called with a line for each cycle.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        folder: Path,
        postgres: PostgresServer,
        database: str,
        redis: RedisServer | Topology,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.postgres = postgres
        self.database = database
        self.redis = redis
        self.say = say
        self._recorder = Recorder(folder / "round.jsonl")
        self._bell = threading.Event()

    def run(self) -> None:
        """Go through the cycles; what happened is in the folder then."""
        plan = self.plan
        broken = plan.sabotaged if plan.sabotaged in {*sabotage.WORKER, *sabotage.WITH_FAKETIME} else ""
        with ExitStack() as stack:
            stack.callback(self._recorder.close)
            if plan.sabotaged in sabotage.OPERATOR:
                stack.enter_context(sabotage.OPERATOR[plan.sabotaged]())
            truth = stack.enter_context(Truth(self.postgres, self.database))
            truth.prepare()
            arena = stack.enter_context(
                Arena(self.folder, truth.url, self.redis, self._recorder, sabotage=broken, faketime=self.plan.faketime)
            )
            # Sentinels, and where they stand, are known to all by their own addresses: no proxy is in between.
            load = Tail(arena.load_events)
            stack.callback(load.close)
            self._recorder.record(Began(plan.seed, time.monotonic(), tuple(plan.kinds), plan.sabotaged))
            start = truth.mark("start")
            self._begin(arena)
            nemesis = Nemesis(arena, self._recorder, patient=bool(plan.sabotaged))
            deadline = time.monotonic() + plan.seconds
            for cycle in plan.schedule():
                if time.monotonic() > deadline or not self._opens(arena, load):
                    break
                nemesis.end_extra()
                self.say(str(cycle))
                self._cycle(cycle, arena, nemesis, load)
            if not plan.sabotaged:
                self._opens(arena, load)
            if plan.newer:
                self._kept_the_field(arena)
            arena.end_load()
            self._record_truth(truth, start)

    def verdict(self, wanted: Wanted) -> Verdict:
        """Judge what was recorded."""
        return check(read(self.folder / "round.jsonl", self.folder / "load.jsonl"), wanted)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _begin(self, arena: Arena) -> None:
        if self.plan.newer:
            self._initialise_by_the_newer(arena)
        else:
            with contextlib.closing(store_from_url(arena.url(None))) as store:
                changes.initialise(store, Operator("anna", "desk"))
        arena.add_slot(0)
        arena.add_slot(1, code=self.plan.newer, runs="newer" if self.plan.newer else "")
        arena.add_slot(2, lease=LEASE_SECONDS)
        arena.start_load()
        for number in arena.slots:
            arena.start_worker(number)
        for number in arena.slots:
            arena.wait_for_worker(number)
            arena.load(number)

    def _initialise_by_the_newer(self, arena: Arena) -> None:
        # The first record has a field that only the newer version understands.
        subprocess.run(
            [sys.executable, "-m", "readonly", "--store", arena.url(None), "init", SITE],
            env=children.without_ours(os.environ) | {"PYTHONPATH": self.plan.newer},
            cwd=self.folder,
            check=True,
            capture_output=True,
        )

    def _kept_the_field(self, arena: Arena) -> None:
        with contextlib.closing(store_from_url(arena.url(None))) as store:
            record = store.read().record
        if not versions.knows_the_field(record):
            self._recorder.record(
                Note("what only the newer version understands was lost", time.monotonic(), repr(record), broken=True)
            )

    def _cycle(self, cycle: Cycle, arena: Arena, nemesis: Nemesis, load: Tail) -> None:
        moments = {BEFORE: time.monotonic()}
        leads, quiet, over, hangs = (threading.Event() for _ in range(4))

        def moment(name: str) -> None:
            now = time.monotonic()
            moments.setdefault(_MOMENTS[name], now)
            if name == "answered":
                moments[ANSWERED] = now
            self._bell.set()

        def person(name: str, after: float, *, first: bool) -> None:
            with contextlib.closing(Truth(self.postgres, self.database)) as truth:
                somebody = Person(
                    name,
                    arena=arena,
                    truth=truth,
                    recorder=self._recorder,
                    load=load,
                    by_command=first and cycle.by_command,
                    moment=moment if first else lambda _: None,
                    changes_mind=hangs if first and cycle.changes_mind else None,
                    patience=IMPATIENT_SECONDS if self.plan.sabotaged else OFF_SECONDS,
                    broken=bool(self.plan.sabotaged),
                )
                threading.Event().wait(after)
                leads.wait(CYCLE_SECONDS)
                somebody.read_only_time(cycle.hold, quiet, over)

        people = [threading.Thread(target=person, args=("anna", LEAD_SECONDS), kwargs={"first": True}, daemon=True)]
        if cycle.second is not None:
            after = LEAD_SECONDS + cycle.second
            people.append(threading.Thread(target=person, args=("ben", after), kwargs={"first": False}, daemon=True))
        nemesis.plan(cycle)
        moments[BEFORE] = time.monotonic()
        for thread in people:
            thread.start()
        began = time.monotonic()
        while any(thread.is_alive() for thread in people) or not nemesis.over():
            self._bell.clear()
            patience = nemesis.step(dict(moments))
            for event, now in ((leads, nemesis.leads()), (hangs, nemesis.hangs())):
                if now:
                    event.set()
            if nemesis.over(but=LEAVING) and INSIDE in moments:
                quiet.set()
            if nemesis.over():
                over.set()
            if time.monotonic() - began > CYCLE_SECONDS:
                self._recorder.record(Note("a cycle never ended", time.monotonic(), str(cycle), broken=True))
                break
            self._bell.wait(min(patience, STEP_SECONDS))
        nemesis.heal()
        for thread in people:
            thread.join(CYCLE_SECONDS)
        if cycle.second is not None:
            self._recorder.record(_two_operators(moments[BEFORE]))

    def _opens(self, arena: Arena, load: Tail) -> bool:
        """Wait until every slot has accepted a write; help as a person would, and say so."""
        began = time.monotonic()
        missing: set[int] = set()
        pause = threading.Event()
        store = store_from_url(arena.url(None))
        looked = began
        with contextlib.closing(store):
            while time.monotonic() < self._open_until(arena, began):
                late = [w for w in of(load.look()[-2000:], Write) if w.status == 201 and w.start > began]
                missing = set(arena.slots) - {w.slot for w in late}
                missing -= {s.number for s in arena.slots.values() if s.process is None or s.process.poll() is not None}
                if not missing:
                    arena.look_for_lives()
                    return True
                if time.monotonic() - looked > LOOKS_SECONDS:
                    looked = time.monotonic()
                    self._lift_strays(store)
                pause.wait(STEP_SECONDS)
        what = f"slots {sorted(missing)} took no write within {OPENS_SECONDS:g} s after all was healed and had begun"
        with contextlib.suppress(Exception), contextlib.closing(store):
            what += f"; the store holds {store.read().record!r}"
        self._recorder.record(Note("the site did not open again", time.monotonic(), what, broken=True))
        return False

    @staticmethod
    def _open_until(arena: Arena, healed: float) -> float:
        """Return until when every slot must have accepted a write: it can't before its process has begun."""
        begun = {life["pid"]: life["at"] for life in arena.look_for_lives()}
        alive = [s.process.pid for s in arena.slots.values() if s.process is not None and s.process.poll() is None]
        if not begun.keys() >= set(alive):
            return healed + STARTS_SECONDS
        return max([healed, *(float(str(begun[pid])) for pid in alive)]) + OPENS_SECONDS

    def _lift_strays(self, store: object) -> None:
        """Lift what an `on` has set although its operator was told that it failed, and had nothing to lift."""
        for name in ("anna", "ben"):
            with contextlib.suppress(StoreUnreachable, NoRecord, NotYours, LostRace):
                change = changes.turn_off(store, Operator(name, "desk"))  # type: ignore[arg-type]  # a store
                if change.changed:
                    self._recorder.record(
                        Note("an on took effect after its operator had left", time.monotonic(), name, broken=True)
                    )

    def _record_truth(self, truth: Truth, start: int) -> None:
        end = truth.mark("end")
        for row in truth.all_rows():
            self._recorder.record(row)
        for commit in truth.commits(start, end):
            self._recorder.record(commit)


def _two_operators(began: float) -> Fault:
    return Fault(TWO_OPERATORS, BEFORE, began, time.monotonic())


__all__ = ["SITE", "Plan", "Round"]
