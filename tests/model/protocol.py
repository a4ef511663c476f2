"""A model of the protocol, small enough for every reachable state to be visited.

The model owns what a program can't choose: who runs, who is stopped, what the store loses. What processes and
operators make of what they read is the library's own code: `transitions.learn` and `lapsed`, `changes.turn_on`,
`turn_off` and `survey` over a store that is a value, `confirmation.confirm`, `State.at` and `stores.neighbours_of`. The
little that it says itself of a process's thread is held to the code by the replay of traces.

Time is a tick. A process that is up and reaches the store sends a heartbeat between any two ticks (synchrony), a
write-back included; nothing else is assumed about speed. A lease, a member's patience and a store's youth are counted
in ticks as the library counts them in seconds.

Everything that a state holds is numbered: a state is a tuple of small numbers, and what one process or operator does
with one server is worked out once for each pair of their values.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast
from unittest.mock import patch

from readonly import changes, confirmation, stores
from readonly.changes import Operator, _setting
from readonly.confirmation import Condition, Confirmation, confirm
from readonly.errors import NoRecord, NotYours
from readonly.members import Others, Report
from readonly.record import LOCAL, Record
from readonly.record_format import dump, load
from readonly.state import State
from readonly.stores import DEFAULT_ALIVE_SECONDS, Census, Reading, Seen, Store, neighbours_of
from readonly.transitions import Knowledge, _changing, _joining, first_record, lacks_whole, lapsed, learn, noted

from . import words
from .search import Broken, Event, Point, Step
from .values import (
    ADMITTED,
    BEHIND,
    CLOSED,
    COUNTED,
    CUT,
    DEAD,
    DOWN,
    FIRST_EPOCH,
    I1,
    I1_LEASE,
    I2,
    I3,
    ID,
    IDLE,
    INTERVAL_SECONDS,
    LATE,
    LEASE_SECONDS,
    LEASE_TICKS,
    LEASED,
    LINKED,
    LOOKED,
    NONE,
    OLD_CAUSE,
    OLD_REPORT,
    OLD_STORE,
    OPENED,
    SAFE,
    SITE,
    STOPPED,
    T0,
    TICK_SECONDS,
    UP,
    Config,
    Desk,
    Memo,
    Process,
    Server,
    Table,
)

ADMITS, COMMITS = "admits", "commits"
PROMISES = {SAFE: "safe", LEASED: "safe by lease"}


class Undone(Exception):
    """A step has undone what was acknowledged."""

    def __init__(self, promise: str) -> None:
        super().__init__(promise)
        self.promise = promise


class Shelf:
    """A store that is a value: what `changes` needs of one."""

    url = "model://"
    site = SITE
    timeout = 1.0

    def __init__(self, model: Model, server: Server) -> None:
        self._model = model
        self.server = server

    def read(self) -> Reading:
        """Read the record."""
        return Reading(self._model.records[self.server.record], at=T0)

    def replace(self, record: bytes, *, was: bytes | None, causes: Sequence[str] = ()) -> Reading:
        """Put a record in place of another, by compare-and-set."""
        if self._model.records[self.server.record] == was:
            self.server = self._model.replaced(self.server, self._model.records.number(record), causes)
        return self.read()

    def census(self) -> Census:
        """Read record and registry."""
        model, server = self._model, self.server
        reading = Reading(
            model.records[server.record],
            at=T0,
            incarnation_seconds=server.seconds,
            here_since={cause: T0 - timedelta(seconds=TICK_SECONDS * age) for cause, age in server.here},
            registry=server.name,
        )
        seen = (
            Seen(member, model.reports[report], T0 - timedelta(seconds=TICK_SECONDS * age))
            for member, report, age in server.registry
        )
        return Census(reading, tuple(seen))

    def append(self, log: str, entry: bytes, *, keep: int) -> None:
        """Keep no history: it never affects the state."""


class Model:
    """The protocol under one configuration, with every rule in force. Each ablation is a subclass.

    A state is: server, replica, old primary, operators, faults that are left, holders of the fence, and the processes.
    """

    # Functions of the library that an ablation swaps: (module, name, function).
    swapped: tuple[tuple[Any, str, Any], ...] = ()
    # What is looked at on the way: an ablation may be followed past the first sign of it.
    promises: tuple[str, ...] = (I1, I1_LEASE, I2, I3)
    # Count, then look; an ablation turns it round.
    first_step = COUNTED
    # Who has only just begun waits until others know that it is there.
    waits_to_be_noted = True

    def __init__(self, config: Config) -> None:
        self.config = config
        self.records: Table[bytes | None] = Table(None)
        self.reports: Table[bytes] = Table()
        self.processes: Table[Process] = Table()
        self.servers: Table[Server | None] = Table(None)
        self.desks: Table[tuple[Desk, ...]] = Table()
        self.budgets: Table[tuple[tuple[str, int], ...]] = Table()
        self._knowledge_keys: Table[tuple[object, ...]] = Table()
        self._knowledge: list[Knowledge] = []
        self._nothing = self.knowledge_number(Knowledge())
        # What `new_cause_id` and `is_gone` answer: who is typing, and whose processes are over.
        self._typing = 0
        self._over: frozenset[str] = frozenset()
        self._loaded = Memo(lambda number: load(cast(bytes, self.records[number])))
        self._learnt = Memo(self._learn)
        self._views = Memo(self._view)
        self._reported = Memo(self._report)
        self._left = Memo(lambda report: self.left(Report.load("", self.reports[report])))
        self._ended_by = Memo(lambda report: self.ended(Report.load("", self.reports[report])))
        self._last_words = Memo(self._ending)
        self._funerals = Memo(lambda *of: tuple(self._bury(*of)))
        self._alone = Memo(lambda *of: tuple(self._alone_steps(*of)))
        self._linked = Memo(lambda *of: tuple(self._linked_steps(*of)))
        self._operated = Memo(lambda *of: tuple(self._operator_steps(*of)))
        self._faults = Memo(lambda *of: tuple(self._server_faults(*of)))
        self._spent = Memo(self._spend)
        self._ready = Memo(lambda p: self._is_ready(self.processes[p]))
        self._ended = Memo(self._lives_over)
        self._promised = Memo(self._promise)
        self._ticked = Memo(self._tick)
        self._server_ticked = Memo(self._tick_server)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make the library's randomness and its look at the system's processes the model's own."""
        with ExitStack() as stack:
            stack.enter_context(patch.dict(os.environ, READONLY_STATE_DIR=""))
            # The same few hundred reports are read over and over.
            stack.enter_context(patch.object(Report, "load", staticmethod(functools.cache(Report.load))))
            for module, name, function in (
                (_changing, "new_id", lambda: ID),
                (_joining, "new_id", lambda: ID),
                (_setting, "new_cause_id", lambda: f"c{self._typing}"),
                (confirmation, "is_gone", lambda report: report.id in self._over),
                # One is as good as three for as many as there are here, and shows whether it is the right one.
                (stores, "NEIGHBOURS", 1),
                *self.swapped,
            ):
                stack.enter_context(patch.object(module, name, function))
            yield

    def typing(self, who: int) -> None:
        """Say whose cause the next one is."""
        self._typing = who

    def say_over(self, point: Point) -> None:
        """Say which processes are over in a state, for whoever asks."""
        self._over = frozenset().union(*(self._ended[slot, p] for slot, p in enumerate(point[6:])))

    # --- the rules that an ablation takes out, one method each -----------------------------------------------------

    def young(self, server: Server, *, heartbeat: bool) -> bool:
        """Say whether "writable" is not to be believed yet (rules 7 and 8)."""
        return not heartbeat or server.seconds < 2 * INTERVAL_SECONDS

    def renewed(self, process: Process, *, heartbeat: bool) -> tuple[int, int]:
        """Return knowledge and lease after the store has answered (rules 8 and 10)."""
        if not self.config.leases or not heartbeat:
            return process.known, process.lease
        known = self.outlived(process.known) if process.lease_over else process.known
        return known, process.packed[1]

    def outlived(self, known: int) -> int:
        """Return what is left of knowledge that has outlived its lease (rule 8)."""
        return self.knowledge_number(lapsed(self._knowledge[known]))

    def written(self, server: Server, was: int) -> bool:
        """Say whether a write-back takes effect (rule 2)."""
        return server.record == was

    def judged(self, record: Record | None, census: Census, cause: str, known: Record) -> Confirmation:
        """Say whether a cause is obeyed everywhere (rules 6 and 11)."""
        return confirm(
            record,
            census.reports,
            causes=(cause,),
            closing=True,
            at=census.reading.at,
            here_since=census.reading.here_since,
            registry=census.reading.registry,
            incarnation_seconds=census.reading.incarnation_seconds,
        )

    def noted(self, server: Server, left: float | None, *, alone: bool) -> bool:
        """Say whether others know of a process that has only just begun (rule 7)."""
        return noted(left=left, alone=alone, young=self.young(server, heartbeat=True))

    def named(self, process: Process, server: Server, name: str) -> Collection[str]:
        """Return whom a report notes (rule 7)."""
        return process.others.names

    def told_others(self, process: Process, server: Server) -> bool:
        """Say whether a process has told a registry whom it knew in a lost one (rule 6)."""
        return process.others.registry == server.name

    def left(self, report: Report) -> bool:
        """Say whether a member is nobody's neighbour any more (rule 6)."""
        return report.gone and not report.in_flight

    @staticmethod
    def ended(report: Report) -> bool:
        """Say whether a process is over, by its own word or another's."""
        return report.gone or report.found_gone

    def lowered(self, fence: int, operator: int) -> int:
        """Return who holds the fence after one operator has let go (rule 13)."""
        return fence & ~(1 << operator)

    # --- the library's functions, on numbers -----------------------------------------------------------------------

    def record(self, number: int) -> Record | None:
        """Return a record by its number."""
        return cast(Record, self._loaded[number,]) if number else None

    def server(self, number: int) -> Server:
        """Return a server that is there."""
        return cast(Server, self.servers[number])

    def knowledge(self, number: int) -> Knowledge:
        """Return what a process knows, by its number."""
        return self._knowledge[number]

    def knowledge_number(self, known: Knowledge) -> int:
        """Return the number of what a process knows."""
        record = dump(known.record) if known.record is not None else None
        key = (record, known.raw, known.settled, known.fresh, known.unreadable, known.problem)
        number = self._knowledge_keys.number(key)
        if number == len(self._knowledge):
            self._knowledge.append(known)
        return number

    def _learn(self, known: int, record: int, young: bool) -> tuple[int, int]:
        """Return what a process knows after a reading, and the record that it must write back, or -1."""
        after, back = learn(self._knowledge[known], self.records[record], site=SITE, young=young, at=T0)
        return self.knowledge_number(after), -1 if back is None else self.records.number(back)

    def replaced(self, server: Server, record: int, causes: Sequence[str]) -> Server:
        """Return a server that has taken a record."""
        self._never_undone(self.record(server.record), self.record(record))
        here: tuple[tuple[str, int], ...] = ()
        if self.config.leases:
            since = dict(server.here) if server.record else {}
            here = tuple(sorted((cause, since.get(cause, 0)) for cause in causes))
        return server._replace(record=record, here=here, age=max(server.age, 0))

    def _never_undone(self, before: Record | None, after: Record | None) -> None:
        """Check that neither a cause nor a lift is forgotten: what was acknowledged is undone by nobody's memory."""
        if before is None:
            return
        causes = {c.id for c in after.causes} if after is not None else set()
        lifted = set(after.lifted) if after is not None else set()
        if {c.id for c in before.causes} - causes - lifted and I2 in self.promises:
            raise Undone(I2)
        if set(before.lifted) - lifted and I3 in self.promises:
            raise Undone(I3)

    def view(self, process: Process) -> State:
        """Return what a process says and does, now."""
        return cast(
            State, self._views[process.known, self.config.leases and process.lease_over, self._is_known(process)]
        )

    def _is_known(self, process: Process) -> bool:
        return process.noted or not self.waits_to_be_noted

    def _view(self, known: int, lease_over: bool, is_noted: bool) -> State:
        # What `Publisher.publish` does, without windows and local causes; the replay holds the two together.
        knowledge = self._knowledge[known]
        because = ""
        if lease_over:
            because = "the lease is over"
        elif knowledge.record is None:
            because = "no record"
        elif not knowledge.settled and not knowledge.record.partial:
            because = "probation"
        elif not is_noted:
            because = "new"
        return State.at(T0, knowledge.record, unknown_because=because)

    def reported(self, slot: int, process: Process) -> int:
        """Return the number of the report that a process makes of itself now."""
        in_flight = process.write in (COUNTED, ADMITTED)
        over = self.config.leases and process.lease_over
        others = process.others.registry, process.others.knew
        return cast(
            int, self._reported[process.name(slot), process.known, over, self._is_known(process), in_flight, *others]
        )

    def _report(
        self,
        name: str,
        known: int,
        lease_over: bool,
        is_noted: bool,
        in_flight: bool,
        registry: str,
        knew: tuple[str, ...],
    ) -> int:
        state = cast(State, self._views[known, lease_over, is_noted])
        made = Report(
            id=name,
            host="model",
            pid=0,
            role="web",
            # Nothing goes by the epoch, so that leaving it out makes fewer states; the ablation that does needs it.
            epoch=state.epoch if self.config.packs else 0,
            causes=tuple(c.id for c in state.causes if c.kind != LOCAL),
            closed=state.read_only,
            in_flight=int(in_flight),
            synced=state.synced,
            interval=INTERVAL_SECONDS,
            lease=LEASE_SECONDS if self.config.leases else None,
            registry=registry,
            knew=knew,
        )
        return self.reports.number(made.dump())

    # --- one process and one server --------------------------------------------------------------------------------

    def _linked_steps(self, slot: int, p: int, s: int, old: int) -> Iterator[tuple[Event, Any]]:
        """Return what a process may do with a store: (process, server) after it, or what it broke."""
        process = self.processes[p]
        if process.status != UP or process.link == CUT:
            return
        # An old primary answers reads, and takes no writes (min-replicas-to-write).
        kinds = ["peek"] if process.link == BEHIND else ["restore"] if process.back[0] >= 0 else []
        if not kinds:
            kinds = ["beat"] if process.packed[0] >= 0 or not self.config.packs else []
            kinds += ["peek"] if self.config.peeks else []
            kinds += [fault for fault in ("leave", "deaf") if fault in self.config.faults]
        for kind in kinds:
            at = old if process.link == BEHIND else s
            try:
                after, server = getattr(self, f"_{kind}")(slot, process, self.server(at))
            except Undone as undone:
                yield Event(kind, slot), Broken(undone.promise)
                continue
            if after.write == LATE and not self.view(after).read_only:
                after = after._replace(write=COUNTED)  # it may look now, and be admitted
            reached = (self.processes.number(after), s if process.link == BEHIND else self.servers.number(server))
            if reached != (p, s):
                yield Event(kind, slot), reached

    def _beat(self, slot: int, process: Process, server: Server) -> tuple[Process, Server]:
        """Report, register, read and take in: one script at the store, and then the write-back."""
        before, name = process.known, process.name(slot)
        sent = process.packed[0] if process.packed[0] >= 0 else self.reported(slot, process)
        server, is_noted = self._reports(name, process, server, sent)
        told = self.told_others(process, server)
        known, lease = self.renewed(process, heartbeat=True)
        others = self._met(name, process, server, process.others.names)
        process = process._replace(lease=lease, packed=(-1, 0), others=others, noted=is_noted)
        known, back = self._learnt[known, server.record, self.young(server, heartbeat=True)]
        self._never_undone(self._knowledge[before].record, self._knowledge[known].record)
        process = process._replace(known=known, beaten=told and back < 0)
        if back >= 0 and (told or not lacks_whole(self.records[server.record])):
            process = process._replace(back=(back, server.record))
            if not self.config.races:
                return self._restore(slot, process, server)
        return process, server

    def _deaf(self, slot: int, process: Process, server: Server) -> tuple[Process, Server]:
        """Report, and never get the answer."""
        server, _ = self._reports(process.name(slot), process, server, self.reported(slot, process))
        return process, server

    def _reports(self, name: str, process: Process, server: Server, words: int) -> tuple[Server, bool]:
        """Return the server after a report, and whether others know of its sender then."""
        joins = not process.noted and name not in (member for member, _, _ in server.registry)
        server = self._heard(server, name, words)
        named = self.named(process, server, name)
        new = {member: age for member, age in server.new if member not in named}
        ages = [age for member, age in self._alive(server).items() if member != name]
        if joins:
            new[name] = min(ages, default=OLD_REPORT)
        is_noted = process.noted
        if not is_noted:
            age = new.get(name)
            left = None if age is None else DEFAULT_ALIVE_SECONDS - TICK_SECONDS * age
            is_noted = self.noted(server, left, alone=not ages)
        if is_noted:
            new.pop(name, None)
        return server._replace(new=tuple(sorted(new.items()))), is_noted

    def _restore(self, slot: int, process: Process, server: Server) -> tuple[Process, Server]:
        """Write back what the store lacked, by compare-and-set."""
        back, was = process.back
        done = self.written(server, was)
        if done:
            server = self.replaced(server, back, [c.id for c in cast(Record, self.record(back)).causes])
        return self._taken_in(process._replace(back=(-1, -1), beaten=done), process.known, server), server

    def _peek(self, slot: int, process: Process, server: Server) -> tuple[Process, Server]:
        """Read the record without reporting, and take it in."""
        known, lease = self.renewed(process, heartbeat=False)
        return self._taken_in(process._replace(lease=lease), known, server), server

    def _leave(self, slot: int, process: Process, server: Server) -> tuple[Process, Server]:
        """Say goodbye, once more to a registry that was not known; a write that is in flight may still commit."""
        if not self.told_others(process, server):
            process = process._replace(others=self._met(process.name(slot), process, server))
        server = self._heard(server, process.name(slot), self._last_words[self.reported(slot, process), "gone"])
        orphan = process.orphan or process.write == ADMITTED
        return Process(status=DEAD, birth=process.birth, known=self._nothing, orphan=orphan), server

    def _bury(self, slot: int, p: int, s: int, over: frozenset[str]) -> Iterator[tuple[Event, int]]:
        """Say of a silent member of one's host that its process is over: the server after it."""
        process = self.processes[p]
        if process.status != UP or process.link != LINKED or process.back[0] >= 0:
            return
        server = self.server(s)
        for member, report, age in server.registry:
            # One that is held up by a dead one does not wait until that is silent.
            held_up = self.knowledge(process.known).may_open and not process.noted and age > 0
            if member in over and (age >= OLD_REPORT or held_up) and not self._ended_by[report,]:
                words = self._last_words[report, "found_gone"]
                yield Event("bury", slot), self.servers.number(self._heard(server, member, words))

    def _ending(self, report: int, how: str) -> int:
        last: Any = {how: True}
        return self.reports.number(replace(Report.load("", self.reports[report]), **last).dump())

    def _heard(self, server: Server, member: str, words: int) -> Server:
        entries = (*(e for e in server.registry if e[0] != member), (member, words, 0))
        return server._replace(registry=tuple(sorted(entries)), age=max(server.age, 0))

    def _taken_in(self, process: Process, known: int, server: Server) -> Process:
        known, _ = self._learnt[known, server.record, self.young(server, heartbeat=False)]
        self._never_undone(self._knowledge[process.known].record, self._knowledge[known].record)
        return process._replace(known=known)

    def _alive(self, server: Server) -> dict[str, int]:
        return {m: age for m, report, age in server.registry if age < OLD_REPORT and not self._ended_by[report,]}

    def _met(self, name: str, process: Process, server: Server, names: tuple[str, ...] = ()) -> Others:
        """Return whom a process has in mind after an answer of a server, to a report that named some."""
        there = [member for member, report, _ in server.registry if not self._left[report,]]
        return process.others.after(server.name, neighbours_of(name, there, self._alive(server)), names=names)

    # --- one process by itself -------------------------------------------------------------------------------------

    def _alone_steps(self, slot: int, p: int, budget: int) -> Iterator[tuple[Event, int, int, str]]:
        """Return what a process may do, or suffer, without a store: the process after it, faults left, effect."""
        for kind, after, effect in self._by_itself(slot, self.processes[p]):
            if slot not in self.config.only.get(kind, (slot,)):
                continue
            left = self._spent[budget, kind] if kind in ("boot", "stop", "cut", "kill") else budget
            if left >= 0:
                yield Event(kind, slot), self.processes.number(after), left, effect

    def _by_itself(self, slot: int, process: Process) -> Iterator[tuple[str, Process, str]]:
        if process.orphan:
            yield "orphan", process._replace(orphan=False), COMMITS
        if process.status in (DOWN, DEAD):
            birth = process.birth + (process.status == DEAD)
            yield "boot", Process(birth=birth, known=self._nothing, orphan=process.orphan), ""
            return
        if process.status == STOPPED:
            yield "continue", process._replace(status=UP), ""
        else:
            yield "stop", process._replace(status=STOPPED), ""
            if process.link != LINKED:
                yield "heal", process._replace(link=LINKED), ""
            else:
                yield "cut", process._replace(link=CUT, beaten=False, back=(-1, -1)), ""
                if self.config.packs and process.packed[0] < 0:
                    yield "pack", process._replace(packed=(self.reported(slot, process), 0)), ""
            if self.config.quiet <= slot < self.config.writers:
                yield from self._writing(process)
        orphan = process.orphan or process.write == ADMITTED
        yield "kill", Process(status=DEAD, birth=process.birth, known=self._nothing, orphan=orphan), ""

    def _writing(self, process: Process) -> Iterator[tuple[str, Process, str]]:
        is_open = not self.view(process).read_only
        admitted = process._replace(write=ADMITTED)
        if process.write == ADMITTED:
            yield "commit", process._replace(write=NONE), COMMITS
        elif not self.config.counts:
            if is_open:  # one that is refused leaves no trace
                yield "admit", admitted, ADMITS
        elif process.write == NONE:
            # Counted first: whatever the state. Looked first: only who saw "writable" goes on.
            if self.first_step == COUNTED or is_open:
                kind, write = (
                    ("count", COUNTED if is_open else LATE) if self.first_step == COUNTED else ("look", LOOKED)
                )
                yield kind, process._replace(write=write), ""
        elif process.write in (COUNTED, LATE):
            yield "look", admitted if is_open else process._replace(write=NONE), ADMITS if is_open else ""
        else:
            yield "count", admitted, ADMITS

    # --- operators -------------------------------------------------------------------------------------------------

    def _operator_steps(self, desks: int, s: int, r: int, over: frozenset[str]) -> Iterator[tuple[Event, Any]]:
        """Return what operators may do at a server: (server, operators) after it, or what it broke."""
        row = self.desks[desks]
        for who, desk in enumerate(row):
            for kind in ("on", "confirm", "off"):
                if kind == "on" and self.config.first not in (-1, who) and row[self.config.first].phase == IDLE:
                    continue
                self._typing, self._over = who, over
                try:
                    found = self._typed(kind, who, desk, s, r)
                except Undone as undone:
                    yield Event(kind, who), Broken(undone.promise)
                    continue
                if found is None:
                    continue
                server, after = found
                reached = (self.servers.number(server), self.desks.number((*row[:who], after, *row[who + 1 :])))
                if reached != (s, desks):
                    told = PROMISES.get(after.phase, "confirm") if after.phase != desk.phase else "confirm"
                    yield Event(told if kind == "confirm" else kind, who), reached

    def _typed(self, kind: str, who: int, desk: Desk, s: int, r: int) -> tuple[Server, Desk] | None:
        shelf = Shelf(self, self.server(s))
        store, operator, cause = cast(Store, shelf), Operator(f"op{who}", "model"), f"c{who}"
        if kind == "on" and desk.phase == IDLE:
            changes.turn_on(store, operator)
            return shelf.server, Desk(CLOSED, shelf.server.record)
        if kind == "confirm" and desk.phase in (CLOSED, LEASED):
            known = cast(Record, self.record(desk.known))
            record, census = changes.survey(store, known)
            found = self.judged(record, census, cause, known)
            if found.safe and self._on_replica(cause, r):
                return shelf.server, Desk(SAFE)
            blocking = [m for m in found.members if m.blocks]
            leased = blocking and not found.problems and all(m.condition is Condition.EXPIRED for m in blocking)
            return shelf.server, Desk(LEASED if leased else desk.phase, desk.known)
        if kind == "off" and self.config.offs and desk.phase in (CLOSED, LEASED, SAFE):
            try:
                changes.turn_off(store, operator)
            except (NoRecord, NotYours):
                return None
            return shelf.server, Desk(OPENED)
        return None

    def _on_replica(self, cause: str, r: int) -> bool:
        if not self.config.durable or not r:
            return True
        record = self.record(self.server(r).record)
        return record is not None and record.cause(cause) is not None

    def _fence_steps(self, point: Point) -> Iterator[Step]:
        """Raise the fence, wait out what had begun at the database, and say SAFE, whatever the members say."""
        row = self.desks[point[3]]
        for who, desk in enumerate(row):
            if desk.phase in (CLOSED, LEASED):
                desks = self.desks.number((*row[:who], Desk(SAFE), *row[who + 1 :]))
                yield Event("fence", who), (*point[:3], desks, point[4], point[5] | 1 << who, *point[6:])

    # --- time and faults -------------------------------------------------------------------------------------------

    def _spend(self, budget: int, fault: str) -> int:
        """Return what is left after one fault, or -1 where there is none left."""
        left = dict(self.budgets[budget])
        if not left.get(fault):
            return -1
        left[fault] -= 1
        return self.budgets.number(tuple(sorted(left.items())))

    @staticmethod
    def _is_ready(process: Process) -> bool:
        """Return whether a tick may pass for this process: it has sent its heartbeat, or can't."""
        return process.status != UP or process.link != LINKED or process.beaten

    def _tick(self, p: int, slow: bool) -> int:
        process = self.processes[p]
        lease, packed = process.lease, process.packed
        if self.config.leases and lease >= 0 and not slow:
            lease = min(lease + 1, LEASE_TICKS)
        if self.config.leases and packed[0] >= 0:
            packed = (packed[0], min(packed[1] + 1, LEASE_TICKS))
        return self.processes.number(process._replace(beaten=False, lease=lease, packed=packed))

    def _tick_server(self, s: int) -> int:
        server = self.servers[s]
        if server is None:
            return s
        return self.servers.number(
            server._replace(
                registry=tuple((m, report, min(age + 1, OLD_REPORT)) for m, report, age in server.registry),
                new=tuple((m, min(age + 1, OLD_REPORT)) for m, age in server.new),
                age=min(server.age + 1, OLD_STORE) if server.age >= 0 else -1,
                here=tuple((cause, min(age + 1, OLD_CAUSE)) for cause, age in server.here),
            )
        )

    def _after_tick(self, point: Point, slow: int = -1) -> Point:
        s, r, old, desks, budget, fence = point[:6]
        ps = [self._ticked[p, slot == slow] for slot, p in enumerate(point[6:])]
        servers = [self._server_ticked[server,] for server in (s, r, old)]
        return (*servers, desks, budget, fence, *ps)

    def _server_faults(self, s: int, r: int, old: int, budget: int) -> Iterator[tuple[Event, Point]]:
        """Return what may befall the servers: server, replica, old primary and faults left after it."""
        server = self.server(s)
        left = self._spent[budget, "flush"]
        if left >= 0:
            emptied = self.servers.number(Server(0, generation=server.generation + 1))
            yield Event("flush"), (emptied, r, old, left)
        if r and r != s:
            yield Event("sync"), (s, s, old, budget)
        heir = self.servers.number(self.server(r or s)._replace(age=-1, generation=server.generation + 1))
        left = self._spent[budget, "failover"]
        if left >= 0:
            yield Event("failover"), (heir, 0, old, left)
        left = self._spent[budget, "split"]
        if left >= 0:
            yield Event("split"), (heir, 0, s, left)

    def _behind(self, p: int) -> int:
        process = self.processes[p]
        if process.status not in (UP, STOPPED) or process.link != LINKED:
            return p
        return self.processes.number(process._replace(link=BEHIND, beaten=False, back=(-1, -1)))

    # --- what is searched ------------------------------------------------------------------------------------------

    def initial(self) -> Sequence[Point]:
        """Return the one state that it begins in: every process that is up knows that the site is writable."""
        config = self.config
        first = replace(first_record(SITE, at=T0, by="model"), epoch=FIRST_EPOCH)
        server = Server(self.records.number(dump(first)), age=OLD_STORE)
        ps = [Process(status=UP if n < config.up else DOWN, known=self._nothing) for n in range(config.processes)]
        for _ in range(3):  # each is registered, knows the others, and has reported that it is open
            for slot in range(config.up):
                ps[slot], server = self._beat(slot, ps[slot], server)
        s = r = self.servers.number(server)
        if config.unheard:
            known = tuple(entry for entry in server.registry if entry[0] != ps[0].name(0))
            r = self.servers.number(server._replace(registry=known))
        desks = self.desks.number((Desk(),) * config.operators)
        budget = self.budgets.number(tuple(sorted(config.faults.items())))
        numbers = [self.processes.number(process._replace(beaten=False)) for process in ps]
        return [(s, r if config.lags else 0, 0, desks, budget, 0, *numbers)]

    def promised(self, point: Point) -> str:
        """Return what operators were told and may rely on."""
        return cast(str, self._promised[point[3],])

    def _promise(self, desks: int) -> str:
        told = [desk.phase for desk in self.desks[desks]]
        return next((name for phase, name in PROMISES.items() if phase in told), "")

    def _lives_over(self, slot: int, p: int) -> frozenset[str]:
        process = self.processes[p]
        lives = process.birth + (process.status == DEAD) if self.config.proven else 0
        return frozenset(Process(birth=life).name(slot) for life in range(lives))

    def steps(self, point: Point) -> Iterator[Step]:
        """Return everything that may happen in a state."""
        s, r, old, desks, budget, fence, *ps = point
        promise = self.promised(point)
        over: frozenset[str] = frozenset()
        ready = True
        for slot, p in enumerate(ps):
            before, after = ps[:slot], ps[slot + 1 :]
            over |= self._ended[slot, p]
            ready = ready and self._ready[p,]
            for event, q, left, effect in self._alone[slot, p, budget]:
                if effect == COMMITS and promise == "safe" and not fence:
                    yield event, Broken(I1)
                elif effect == ADMITS and promise == "safe by lease":
                    yield event, Broken(I1_LEASE)
                else:
                    yield event, (s, r, old, desks, left, fence, *before, q, *after)
            for event, found in self._linked[slot, p, s, old]:
                left = self._spent[budget, event.kind] if event.kind in ("leave", "deaf") else budget
                if isinstance(found, Broken):
                    yield event, found
                elif left >= 0:
                    yield event, (found[1], r, old, desks, left, fence, *before, found[0], *after)
        if over:
            for slot, p in enumerate(ps):
                for event, s2 in self._funerals[slot, p, s, over]:
                    yield event, (s2, r, old, desks, budget, fence, *ps)
        for event, found in self._operated[desks, s, r if self.config.durable else 0, over]:
            if isinstance(found, Broken):
                yield event, found
            else:
                holders = self.lowered(fence, event.who) if event.kind == "off" and fence else fence
                yield event, (found[0], r, old, found[1], budget, holders, *ps)
        if self.config.fence:
            yield from self._fence_steps(point)
        if ready:
            yield Event("tick"), self._after_tick(point)
            left = self._spent[budget, "drift"]
            if left >= 0:
                for slot in range(len(ps)):
                    slow = self._after_tick(point, slot)
                    yield Event("drift", slot), (*slow[:4], left, *slow[5:])
        for event, (s2, r2, old2, left) in self._faults[s, r, old, budget]:
            moved = [self._behind(p) for p in ps] if event.kind == "split" else ps
            yield event, (s2, r2, old2, desks, left, fence, *moved)

    def shown(self, point: Point) -> str:
        """Return a state in one line."""
        return words.shown(self, point)

    def told(self, event: Event) -> str:
        """Return an event as people would tell it."""
        return words.told(event)
