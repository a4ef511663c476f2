"""A model of the protocol, small enough for every reachable state to be visited.

The model owns what a program can't choose: who runs, who is stopped, what the store loses. What the processes and the
operators do with what they read is the library's own code: `transitions.learn`, `with_cause`, `without_causes`,
`lapsed`, and `members.confirm`. A search that is breadth first finds the shortest trace to a broken promise.

Time is a tick, longer than a heartbeat's interval and a member's patience. Between two ticks every process that runs
and reaches the store has sent a heartbeat (synchrony); nothing else is assumed about speed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from readonly import members, transitions
from readonly.errors import NoRecord
from readonly.members import Report, confirm
from readonly.record import OPERATOR, Cause, Record, dump, load
from readonly.stores import Seen
from readonly.transitions import Knowledge, adds, first_record, join, lapsed, learn, with_cause, without_causes

T0 = datetime(2026, 1, 1, tzinfo=UTC)
SITE = "model"
# One tick is longer than a member's patience (three intervals of one second, and one) and than the shortest lease.
TICK = timedelta(seconds=5)
LEASE = 4.0
# Ages are counted up to here; older makes no difference to anybody.
OLD = 3

DOWN, UP, STOPPED, DEAD = "down", "up", "stopped", "dead"
NONE, COUNTED, LOOKED, ADMITTED = "none", "counted", "looked", "admitted"


class Process(NamedTuple):
    """One process: what it knows (an index), what it is doing, and what it has left to do."""

    status: str = DOWN
    knowledge: int = 0
    member: bool = False
    write: str = NONE
    writes_left: int = 1
    lease: int = 0
    neighbours: frozenset[str] = frozenset()
    registry: int = 0
    knew: frozenset[str] = frozenset()
    name: str = ""
    cut_off: bool = False
    beaten: bool = False


class Entry(NamedTuple):
    """A member's last report, and how many ticks ago it came."""

    held: frozenset[str]
    closed: bool
    in_flight: bool
    synced: bool
    knew: frozenset[str]
    age: int


class Server(NamedTuple):
    """What one store holds: a record (an index, -1 for none), the registry, and ages in ticks."""

    record: int = -1
    registry: tuple[tuple[str, Entry], ...] = ()
    age: int = OLD
    generation: int = 1
    here: tuple[tuple[str, int], ...] = ()


class Op(NamedTuple):
    """One operator: idle, closed (on was acknowledged), safe (was told so), opened (off was acknowledged)."""

    phase: str = "idle"
    cause: str = ""
    known: int = -1


class State(NamedTuple):
    """Everything."""

    store: Server
    replica: Server | None
    old: Server | None
    processes: tuple[Process, ...]
    operators: tuple[Op, ...]
    faults: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Config:
    """What may happen, and which rule is taken out.

    Attributes:
        processes: How many.
        operators: How many, each with one `on` and one `off`.
        faults: How often each may happen: flush, stop, kill, boot, failover, partition, regress, split, drift.
        leases: Whether processes have leases.
        without: The rule that is taken out, or "".
        writes: Writes that each process tries.
        limit: States after which the search is cut off.
    """

    processes: int = 2
    operators: int = 1
    faults: Mapping[str, int] = field(default_factory=dict)
    leases: bool = False
    without: str = ""
    writes: int = 1
    limit: int = 400_000
