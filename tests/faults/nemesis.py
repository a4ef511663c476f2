"""What goes wrong, and when: a schedule from a seed, and the hands that carry it out.

The schedule is a pure function of its seed and of the kinds it may choose from: a round is replayed by them. What
then meets what is up to the machine, so that a replay does the same and need not show the same.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from faults.arena import OPERATORS, Arena
from faults.history import Fault, Life, Recorder
from support.redis_server import RedisServer
from support.tcp_proxy import Mode

# When a fault begins: before `on` is typed, while it waits, once it said "safe", or just before `off` is typed.
BEFORE, WAITING, INSIDE, LEAVING = "before on", "while on waits", "inside", "before off"
# When the latest `on` was answered: an operator may change its mind.
ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: What the schedule and the summary call it.
        group: Two faults of one cycle are of two groups: each then has something left to break.
        moments: When it may begin.
        shortest, longest: Seconds that it lasts.
        outlives: If `on` is answered while it lasts, it ends so many seconds later: that is when it hurts most.
        target: What it is aimed at: nothing in particular, a worker, the operators' connection, the leased worker.
    """

    name: str
    group: str
    moments: tuple[str, ...]
    shortest: float = 0.0
    longest: float = 0.0
    outlives: float | None = None
    target: str = ""


ANY_TIME = (BEFORE, WAITING, INSIDE, LEAVING)
ACROSS = (BEFORE, WAITING, LEAVING)
TWO_OPERATORS, CHANGE_HANGS = "two operators", "a change hangs"
# One begins, is admitted its first write, and stands still; the store is emptied before anybody else could report.
FIRST_WRITE = "flush after a first write"
KINDS: tuple[Kind, ...] = (
    Kind("kill redis, restart it empty", "store", ANY_TIME, 0.1, 1.2),
    Kind("flush", "store", ANY_TIME),
    Kind(FIRST_WRITE, "store", (BEFORE,), 3.0, 3.4, outlives=0.2),
    Kind("pause all commands", "store", ANY_TIME, 0.3, 1.5),
    Kind("pause writes", "store", ANY_TIME, 0.3, 1.5),
    Kind("debug sleep", "store", ANY_TIME, 0.3, 1.5),
    Kind("half-open connection", "network", ANY_TIME, 0.5, 2.8, outlives=0.5, target="worker"),
    Kind("lost answers", "network", ANY_TIME, 0.5, 2.0, target="worker"),
    Kind("stalled connection", "network", ANY_TIME, 0.5, 2.0, target="worker"),
    Kind("reset", "network", ANY_TIME, 0.1, 1.0, target="worker"),
    Kind("refused", "network", ANY_TIME, 0.3, 1.5, target="worker"),
    Kind("operator cut off", "network", ACROSS, 0.5, 1.5, target="operators"),
    Kind("lease runs out", "network", (BEFORE,), 6.0, 6.0, outlives=0.6, target="leased"),
    Kind("stop", "worker", (BEFORE, WAITING, INSIDE, LEAVING), 1.0, 2.8, outlives=0.2, target="worker"),
    Kind("kill worker", "worker", ANY_TIME, 0.0, 0.8, target="worker"),
    Kind("worker starts in the middle", "worker", ANY_TIME),
    Kind("hold", "worker", (BEFORE,), 1.5, 2.5, outlives=0.2),
    Kind("clock an hour forwards", "clock", ANY_TIME, 0.5, 1.5),
    Kind("clock an hour back", "clock", ANY_TIME, 0.5, 1.5),
    Kind(TWO_OPERATORS, "operators", (BEFORE,)),
    # `off` is sent and hangs; its operator gives up on it, types `on` again, and is told "safe" before it goes on.
    Kind(CHANGE_HANGS, "operators", (LEAVING,), 1.8, 2.2, outlives=0.2, target="operators"),
)
# Only where there is a replica: the primary is killed, and Sentinels make the other one primary. In the second kind the
# replica was cut off before, so that whatever was written meanwhile is lost.
FAILOVERS: tuple[Kind, ...] = (
    Kind("failover", "store", ANY_TIME),
    Kind("failover that loses writes", "store", ANY_TIME, 0.4, 1.5),
)
# Only with libfaketime, which sets clocks for real: every worker's and that of Redis, each by itself, again and again.
SCATTERED = "clocks set hours back and forth"
CLOCKS: tuple[Kind, ...] = (Kind(SCATTERED, "clock", ANY_TIME, 1.0, 2.5),)
NAMES: tuple[str, ...] = tuple(kind.name for kind in KINDS)
FAKED_NAMES: tuple[str, ...] = (
    *(kind.name for kind in KINDS if kind.group in ("clock", "worker")),
    *("half-open connection", "lost answers", "lease runs out", "flush", "kill redis, restart it empty"),
    *(TWO_OPERATORS, SCATTERED),
)
SENTINEL_NAMES: tuple[str, ...] = (
    *(kind.name for kind in FAILOVERS),
    *("pause all commands", "pause writes", "flush"),
    *(kind.name for kind in KINDS if kind.group in ("worker", "clock") or kind.name == TWO_OPERATORS),
)
# What the operators' connection suffers when it is cut off: they can't know whether they were heard.
CUTS = (Mode.SWALLOW, Mode.SWALLOW_ANSWERS, Mode.STALL, Mode.RESET)
_LINKS = {
    "half-open connection": Mode.SWALLOW,
    "lost answers": Mode.SWALLOW_ANSWERS,
    "stalled connection": Mode.STALL,
    "reset": Mode.RESET,
    "refused": Mode.REFUSE,
    "lease runs out": Mode.SWALLOW,
    CHANGE_HANGS: Mode.HANG,
}
BY_COMMAND_SHARE = 0.1
MOST_DELAY_SECONDS = 0.3
SCATTER_SECONDS = 0.15
# A process that waits for nobody has begun its write by then; the others, stopped meanwhile, are not silent yet. After
# longer they may be: then it is right to begin.
FIRST_WRITE_SECONDS, ALONE_SECONDS = 0.3, 1.0
# Where something is broken on purpose, the machine may take its time to show it.
SHOWN_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault as it is planned."""

    kind: Kind
    moment: str
    delay: float
    seconds: float
    slot: int
    mode: Mode = Mode.PASS


@dataclass(frozen=True, slots=True)
class Cycle:
    """From writable to read-only and back.

    Attributes:
        number: Its number.
        faults: What goes wrong meanwhile.
        hold: Seconds for which the site is kept read-only, at least.
        second: When a second operator types `on`, in seconds after the first; None: there is none.
        by_command: `on` is typed at a terminal, not called.
    """

    number: int
    faults: tuple[Planned, ...]
    hold: float
    second: float | None
    by_command: bool

    @property
    def changes_mind(self) -> bool:
        """Whether the first operator types `on` again when the `off` fails."""
        return any(fault.kind.name == CHANGE_HANGS for fault in self.faults)

    def __str__(self) -> str:
        faults = "; ".join(
            f"{f.kind.name} {f.moment} +{f.delay:.2f} s for {f.seconds:.2f} s"
            + (f" at slot {f.slot}" if f.slot >= 0 else "")
            + (f" ({f.mode})" if f.mode is not Mode.PASS else "")
            for f in self.faults
        )
        who = "" if self.second is None else f", a second operator after {self.second:.2f} s"
        how = ", by command" if self.by_command else ""
        return f"cycle {self.number}: {faults}{who}{how}"


def schedule(
    seed: int, *, kinds: Sequence[str] = NAMES, slots: Sequence[int] = (0, 1, 2), leased: int = 2, pairs: float = 1.0
) -> Iterator[Cycle]:
    """Yield cycles for ever, the same for the same arguments. Each kind comes once before any comes again.

    Args:
        seed: What it is drawn from.
        kinds: Names of the kinds it may choose from.
        slots: Workers that faults may be aimed at.
        leased: The worker with a lease.
        pairs: Share of the cycles in which two things go wrong.
    """
    # A text, so that the same number gives another schedule than it gives other users of `random`.
    chance = random.Random(f"faults {seed}")
    deck: list[Kind] = []

    def draw(*, but: str = "") -> Kind | None:
        if not [kind for kind in deck if kind.group != but]:
            more = [kind for kind in (*KINDS, *FAILOVERS, *CLOCKS) if kind.name in kinds]
            chance.shuffle(more)
            deck.extend(more)
        found = next((kind for kind in deck if kind.group != but), None)
        if found is not None:
            deck.remove(found)
        return found

    def planned(kind: Kind) -> Planned:
        slot, mode = -1, _LINKS.get(kind.name, Mode.PASS)
        if kind.target == "worker":
            slot = chance.choice(list(slots))
        elif kind.target == "leased":
            slot = leased
        elif kind.target == "operators":
            slot, mode = OPERATORS, _LINKS.get(kind.name) or chance.choice(CUTS)
        delay = 0.0 if kind.name in (CHANGE_HANGS, FIRST_WRITE) else chance.uniform(0, MOST_DELAY_SECONDS)
        return Planned(
            kind, chance.choice(kind.moments), delay, chance.uniform(kind.shortest, kind.longest), slot, mode
        )

    for number in count():
        first = draw()
        assert first is not None, "there is at least one kind to choose from"
        second = draw(but=first.group) if chance.random() < pairs else None
        chosen = [kind for kind in (first, second) if kind is not None]
        yield Cycle(
            number,
            tuple(planned(kind) for kind in chosen if kind.name != TWO_OPERATORS),
            hold=chance.uniform(0.2, 0.6),
            second=chance.uniform(0, 0.6) if any(kind.name == TWO_OPERATORS for kind in chosen) else None,
            by_command=chance.random() < BY_COMMAND_SHARE,
        )


@dataclass(slots=True)
class _Running:
    planned: Planned
    began: float
    until: float
    heal: Callable[[], None]


class Nemesis:
    """Carries out the faults of one cycle after the other, in the thread that owns the arena.

    Args:
        arena: What it breaks.
        recorder: Where it says what it did.
        patient: Something is broken on purpose: a fault waits for what it is to meet, however long that takes.
    """

    def __init__(self, arena: Arena, recorder: Recorder, *, patient: bool = False) -> None:
        self.arena = arena
        self.recorder = recorder
        self.patient = patient
        self.extra = max(arena.slots) + 1
        self._due: list[Planned] = []
        self._running: list[_Running] = []

    def plan(self, cycle: Cycle) -> None:
        """Take up the faults of a cycle; every earlier one is over."""
        self._due = list(cycle.faults)
        if any(planned.kind.name == FIRST_WRITE for planned in self._due):
            self.arena.start_newcomer()

    def step(self, moments: dict[str, float]) -> float:
        """Begin and end what is due, and return for how many seconds nothing more will be.

        Args:
            moments: When each moment of this cycle came, of those that have.
        """
        now = time.monotonic()
        for planned in list(self._due):
            if planned.moment in moments and now >= moments[planned.moment] + planned.delay:
                self._due.remove(planned)
                self._begin(planned)
        for running in list(self._running):
            until, outlives = running.until, running.planned.kind.outlives
            if outlives is not None:
                answered = moments.get(ANSWERED, 0.0)
                ends = answered + outlives if answered > running.began else float("inf")
                until = min(ends, running.began + SHOWN_SECONDS if self.patient else until)
            if time.monotonic() >= until:
                self._end(running)
        waits = [r.until for r in self._running]
        waits += [moments[p.moment] + p.delay for p in self._due if p.moment in moments]
        return max(0.0, min(waits, default=float("inf")) - time.monotonic())

    def leads(self) -> bool:
        """Return whether `on` may be typed: what has to come first has come."""
        first = [planned for planned in self._due if planned.kind.name == FIRST_WRITE]
        if not self.patient:
            return not first
        held = [running for running in self._running if running.planned.kind.name == "hold"]
        return not [planned for planned in self._due if planned.moment == BEFORE] and (
            not held or self.arena.writes_are_held
        )

    def hangs(self) -> bool:
        """Return whether the change that is to hang would."""
        return any(running.planned.kind.name == CHANGE_HANGS for running in self._running)

    def over(self, *, but: str = "") -> bool:
        """Return whether nothing is left to begin or to end, apart from what belongs to the moment `but`."""
        left = [*self._due, *(running.planned for running in self._running)]
        return all(planned.moment == but for planned in left)

    def heal(self) -> None:
        """End everything at once, and begin nothing more."""
        self._due.clear()
        for running in list(self._running):
            self._end(running)

    def _begin(self, planned: Planned) -> None:
        began = time.monotonic()
        heal = self._break(planned)
        self._running.append(_Running(planned, began, began + planned.seconds, heal))

    def _end(self, running: _Running) -> None:
        self._running.remove(running)
        running.heal()
        planned = running.planned
        self.recorder.record(
            Fault(planned.kind.name, planned.moment, running.began, time.monotonic(), slot=planned.slot)
        )

    # --- how each is done, and undone --------------------------------------------------------------------------------

    def _break(self, planned: Planned) -> Callable[[], None]:
        """Bring a fault about; return what ends it."""
        arena, redis, seconds = self.arena, self.arena.redis, planned.seconds
        milliseconds = str(round(seconds * 1000))
        if planned.mode is not Mode.PASS:
            proxy = arena.operators if planned.slot == OPERATORS else arena.slots[planned.slot].proxy
            proxy.set(planned.mode)
            return lambda: proxy.set(Mode.PASS)
        match planned.kind.name:
            case "kill redis, restart it empty":
                redis.kill()
                return redis.restart
            case "flush":
                redis.flush()
            case "flush after a first write":
                return self._flush_after_first_write()
            case "pause all commands":
                redis.command("CLIENT", "PAUSE", milliseconds, "ALL")
            case "pause writes":
                redis.command("CLIENT", "PAUSE", milliseconds, "WRITE")
            case "debug sleep":
                return self._sleep(seconds)
            case "failover":
                return self._fail_over(redis)
            case "failover that loses writes":
                assert arena.topology is not None
                arena.topology.isolate(redis)
                return lambda: self._fail_over(redis)()
            case "stop":
                arena.stop_worker(planned.slot)
                return lambda: arena.continue_worker(planned.slot)
            case "kill worker":
                arena.kill_worker(planned.slot)
                return lambda: arena.start_worker(planned.slot)
            case "worker starts in the middle":
                self._start_extra()
            case "hold":
                arena.hold_writes()
                return arena.release_writes
            case "clock an hour forwards":
                arena.step_clock(3600.0)
                return lambda: arena.step_clock(0.0)
            case "clock an hour back":
                arena.step_clock(-3600.0)
                return lambda: arena.step_clock(0.0)
            case "clocks set hours back and forth":
                return self._scatter_clocks(planned.delay)
            case other:
                raise ValueError(f"{other!r} is no kind of fault")
        return lambda: None

    def _fail_over(self, primary: RedisServer) -> Callable[[], None]:
        topology = self.arena.topology
        assert topology is not None
        primary.kill()

        def heal() -> None:
            topology.failed_over(primary)
            topology.heal()

        return heal

    def _flush_after_first_write(self) -> Callable[[], None]:
        arena = self.arena
        others = [number for number in arena.slots if not arena.is_stopped(number)]
        began = time.monotonic()
        for number in others:
            arena.stop_worker(number)
        begun = arena.let_newcomer_write(SHOWN_SECONDS if self.patient else FIRST_WRITE_SECONDS)
        # On a machine that has stood still meanwhile the others are gone by all that anybody can know.
        if not begun or self.patient or time.monotonic() - began < ALONE_SECONDS:
            arena.redis.flush()
        for number in others:
            arena.continue_worker(number)
        return arena.end_newcomer

    def _scatter_clocks(self, seed: float) -> Callable[[], None]:
        chance, over = random.Random(seed), threading.Event()

        def scatter() -> None:
            while not over.is_set():
                self.arena.scatter_clocks(chance)
                over.wait(SCATTER_SECONDS)

        thread = threading.Thread(target=scatter, daemon=True)
        thread.start()

        def heal() -> None:
            over.set()
            thread.join()
            self.arena.gather_clocks()

        return heal

    def _sleep(self, seconds: float) -> Callable[[], None]:
        # Answered when it is over; nobody waits for that.
        connection = socket.create_connection(("127.0.0.1", self.arena.redis.port), timeout=seconds + 5)
        connection.sendall(f"DEBUG SLEEP {seconds:.3f}\r\n".encode())

        def wake() -> None:
            with contextlib.closing(connection), contextlib.suppress(OSError):
                connection.recv(64)

        return wake

    def _start_extra(self) -> None:
        if self.extra not in self.arena.slots:
            self.arena.add_slot(self.extra)
        self.arena.start_worker(self.extra)
        # Until it says that it begins, nobody can expect an answer of it.
        self.recorder.record(Life(self.extra, 0, time.monotonic(), began=False))
        self.arena.load(self.extra)

    def end_extra(self) -> None:
        """End the worker that started in the middle; its clients leave first."""
        slot = self.arena.slots.get(self.extra)
        if slot is not None and slot.process is not None and slot.process.poll() is None:
            self.arena.unload(self.extra)
            self.arena.end_worker(self.extra)
