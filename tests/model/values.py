"""What a state of the model is made of: processes, servers, operators, and tables that number them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from readonly.members import Others

T = TypeVar("T", bound=Hashable)

T0 = datetime(2026, 1, 1, tzinfo=UTC)
SITE = "model"
ID = "0" * 16
# The site has been switched before: a record over an empty store has a smaller epoch than what processes know.
FIRST_EPOCH = 5

# A store is young for two ticks (2 s), a member is silent after three (4 s), and so long a registry proves nothing; a
# lease of 3 s is over for its holder after two (2.85 s) and for others after three (4.15 s).
TICK_SECONDS = 1.9
INTERVAL_SECONDS = 1.0
LEASE_SECONDS = 3.0
LEASE_TICKS = 2
# Beyond these, more ticks make no difference to anybody.
OLD_REPORT, OLD_STORE, OLD_CAUSE = 3, 3, 3

DOWN, UP, STOPPED, DEAD = range(4)
# A write that was counted while the process was closed is LATE: it is refused, and not waited for.
NONE, COUNTED, LOOKED, ADMITTED, LATE = range(5)
LINKED, CUT, BEHIND = range(3)
IDLE, CLOSED, SAFE, LEASED, OPENED = range(5)

I1 = "after an operator was told SAFE, a write commits before that operator's off"
I1_LEASE = "after an operator was told that silent members admit nothing, one admits a write"
I2 = "an acknowledged on is undone without a lift"
I3 = "an acknowledged off is undone"


class Process(NamedTuple):
    """One process.

    Attributes:
        status: DOWN (not begun), UP, STOPPED or DEAD.
        birth: How often it was begun again: each life is another member.
        known: What it knows.
        write: How far its one write at a time has come.
        lease: Ticks since it last sent a heartbeat that was accepted, -1 before the first.
        link: LINKED to the store, CUT from it, or BEHIND: still with the old primary.
        beaten: It has sent its heartbeat since the last tick.
        others: Its memory of other members.
        back: The record that it is about to write back and the one that it must replace.
        packed: A report that was built and not sent yet, and for how many ticks.
        orphan: A write of an earlier life that may still commit at the database.
        noted: Others know that it is there.
    """

    status: int = UP
    birth: int = 0
    known: int = 0
    write: int = NONE
    lease: int = -1
    link: int = LINKED
    beaten: bool = False
    others: Others = Others()
    back: tuple[int, int] = (-1, -1)
    packed: tuple[int, int] = (-1, 0)
    orphan: bool = False
    noted: bool = False

    def name(self, slot: int) -> str:
        """Return the id of the member that it is in this life."""
        return f"p{slot}" + "'" * self.birth

    @property
    def lease_over(self) -> bool:
        """True when its lease has run out, by its own clock."""
        return self.lease >= LEASE_TICKS


class Server(NamedTuple):
    """What one server holds; ages in ticks.

    Attributes:
        record: The record's number, 0 for none.
        registry: Member, number of its last report, age.
        age: Since the first report that this incarnation has taken, -1 before.
        generation: Tells one incarnation of the registry from another.
        here: Since when each cause has been here; counted where leases are.
        new: Members that nobody has said to remember, and how old by now the youngest report is that others had sent
            when they came.
    """

    record: int
    registry: tuple[tuple[str, int, int], ...] = ()
    age: int = -1
    generation: int = 1
    here: tuple[tuple[str, int], ...] = ()
    new: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        """What members call this incarnation of the registry."""
        return str(self.generation)

    @property
    def seconds(self) -> float:
        """How long this incarnation has been known, as the library would be told."""
        return float("inf") if self.age >= OLD_STORE else TICK_SECONDS * max(self.age, 0)


class Desk(NamedTuple):
    """One operator: IDLE, CLOSED (on was acknowledged), LEASED or SAFE (was told so), OPENED (off was acknowledged)."""

    phase: int = IDLE
    known: int = 0


@dataclass(frozen=True)
class Config:
    """What may happen.

    Attributes:
        name: What it is called.
        faults: How often each may happen: flush, stop, kill, boot, failover, split, cut, drift, and an answer to a
            report that is lost on its way (deaf).
        processes: How many there are.
        up: How many of them run from the beginning.
        writers: How many of them ever write, with those that do not.
        quiet: How many of them never do, the first ones.
        operators: How many, each with one `on` and one `off`.
        offs: Operators switch off.
        leases: Processes have leases.
        fence: Operators may raise a fence at the database, and are told SAFE when it stands.
        proven: A killed process is proven to be over, as where members share a host.
        lags: There is a replica, which lags behind its primary by any time.
        unheard: At first the replica has not heard of the first process.
        durable: SAFE waits until the replica holds the cause (`WAIT`).
        peeks: Processes also read without reporting, as for a change that they make.
        counts: Counting and looking are two steps.
        packs: Building a report and sending it are two steps.
        races: Others may come between a heartbeat and its write-back.
        only: Whom a fault may befall, where not everybody: another one is another configuration.
        first: Which of two operators begins, -1 for either.
        limit: States after which the search is cut off.
    """

    name: str
    faults: Mapping[str, int] = field(default_factory=dict)
    processes: int = 2
    up: int = 2
    writers: int = 2
    quiet: int = 0
    operators: int = 1
    offs: bool = True
    leases: bool = False
    fence: bool = False
    proven: bool = True
    lags: bool = False
    unheard: bool = False
    durable: bool = False
    peeks: bool = False
    counts: bool = False
    packs: bool = False
    races: bool = False
    only: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    first: int = -1
    limit: int = 2_000_000


class Table(Generic[T]):
    """Values by number."""

    def __init__(self, *first: T) -> None:
        self._numbers: dict[T, int] = {}
        self._values: list[T] = []
        for value in first:
            self.number(value)

    def number(self, value: T) -> int:
        """Return the value's number, a new one if it was never seen."""
        found = self._numbers.setdefault(value, len(self._values))
        if found == len(self._values):
            self._values.append(value)
        return found

    def __getitem__(self, number: int) -> T:
        return self._values[number]


class Memo(dict[Any, Any]):
    """What a function returns for its arguments, worked out once: `memo[arguments]`."""

    def __init__(self, work: Callable[..., Any]) -> None:
        super().__init__()
        self._work = work

    def __missing__(self, key: Any) -> Any:
        found = self[key] = self._work(*key)
        return found
