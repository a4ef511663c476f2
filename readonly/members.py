"""What processes say about themselves, as it stands in the store."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .record_format import VERSION

# A member that missed so many of its own intervals is silent; one report may be late, two in a row hardly are. Where
# intervals are long, since members are many, lateness is no longer for that: who fails tries again within seconds.
MISSED_INTERVALS = 3
LATE_AT_MOST_SECONDS = 10.0
SLACK_SECONDS = 1.0
# Members of lost registries that one process keeps asking after: a few of them for each loss that it lives through.
KNEW_AT_MOST = 500


@dataclass(frozen=True, slots=True)
class Guarded:
    """One guarded database, as a member reports it.

    Attributes:
        name: The database's name in the application.
        proof: "" when a harmless write was refused as it must be, "pending" until that was tried, else what is wrong.
        server: Identity of what it writes to, without secrets.
    """

    name: str
    proof: str = ""
    server: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """What one process says about itself.

    Attributes:
        id: 128 random bits, drawn after the process id was compared; host, pid and start are labels.
        host, pid, start, namespace: Where it runs; `start` is the kernel's start time of the process, `namespace` its
            process-id namespace, both "" where they can't be had.
        role: `web`, `celery`, `job`, or what READONLY_ROLE says.
        library: Version of readonly-mode.
        reads_version: The highest record version it reads.
        epoch: Epoch of its view.
        causes: Ids of the causes in force in its view, windows included, local ones not.
        closed: It refuses writes.
        in_flight: Writes admitted and not over.
        oldest_seconds: For how long the oldest of them has been seen in flight, at least.
        synced: It has read the state and trusts it.
        counter: Rises with every report; a second process with the same id would show.
        interval: Seconds between its reports.
        lease: Seconds it admits writes without the store, or None for ever.
        boot: `closed` or `open`.
        runs: What it runs, as the application says.
        guards: Its guarded databases.
        local: Causes that only it sees, one sentence each.
        inert: READONLY_DISABLED is set: it refuses nothing.
        gone: Its last words.
        found_gone: Not its own words: a member of the same host found that its process is over.
        registry: The registry that it had reported to when it built this: whom it knew in that one, `knew` does not
            say. "" before its first report was answered.
        knew: Ids of members that it knew of before the store lost its registry, and has not seen there since.
        tally: Counters since it started.
        lacks: Features that the record needs to be known, and that this member does without.
        rehearsal: What it has counted in the rehearsal that goes on, or went on last; empty without one, or once that
            was kept in the store.
        doubts: What it doubts about its own set-up: `cookie sid`.
        lets: Ids of the bypasses that let somebody through in its view.
    """

    id: str
    host: str
    pid: int
    role: str
    start: str = ""
    namespace: str = ""
    library: str = ""
    reads_version: int = VERSION
    epoch: int = 0
    causes: tuple[str, ...] = ()
    closed: bool = True
    in_flight: int = 0
    oldest_seconds: float = 0.0
    synced: bool = False
    counter: int = 0
    interval: float = 1.0
    lease: float | None = None
    boot: str = "closed"
    runs: str = ""
    guards: tuple[Guarded, ...] = ()
    local: tuple[str, ...] = ()
    inert: bool = False
    gone: bool = False
    found_gone: bool = False
    registry: str = ""
    knew: tuple[str, ...] = ()
    tally: Mapping[str, Any] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()
    rehearsal: Mapping[str, Any] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    lets: tuple[str, ...] = ()

    def dump(self) -> bytes:
        """Return the report as it is sent: JSON, UTF-8."""
        # Text that is no UTF-8 (a name from the environment) becomes \udcxx, which is JSON for itself.
        return json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False).encode(errors="backslashreplace")

    @classmethod
    def load(cls, member: str, raw: bytes) -> Report:
        """Read a report; fields of newer versions are ignored, and one that can't be read proves nothing."""
        try:
            document = json.loads(raw)
            values = {f.name: _checked(f.name, document[f.name]) for f in fields(cls) if f.name in document}
            return cls(**values)
        except (ValueError, TypeError, KeyError, RecursionError):
            return cls(id=member, host="?", pid=0, role="unreadable", reads_version=0, closed=False)

    @property
    def name(self) -> str:
        """What people call it: role, host and pid."""
        return f"{self.role} {self.host}/{self.pid}"


_LIKE = Report(id="", host="", pid=0, role="")


def _checked(name: str, value: Any) -> Any:
    """Return a report's value as it is kept; what is of another type than it should be proves nothing."""
    like = getattr(_LIKE, name)
    if name == "guards":
        return tuple(
            Guarded(_text(g["name"]), _text(g.get("proof", "pending")), dict(g.get("server", {}))) for g in value
        )
    if name == "lease" and value is None:
        return None
    if isinstance(like, tuple):
        return tuple(_text(item) for item in value)
    if name == "lease" or isinstance(like, float):
        if type(value) not in (int, float) or not math.isfinite(value):
            raise TypeError(f"{name}={value!r} is no number")
    elif isinstance(like, Mapping):
        return dict(value)
    elif type(value) is not type(like):
        raise TypeError(f"{name}={value!r} is no {type(like).__name__}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class Others:
    """Whom one process has in mind, so that a store that forgets its members is found out (design rule 6).

    Each member remembers a few others, and every member is remembered by a few: none has to know all. It is one value,
    and swapped whole: what a report says of it must not be half old and half new.

    Attributes:
        registry: What the last answer named the registry, "" before the first one.
        neighbours: Whom that answer named.
        knew: Whom earlier registries named before they were lost, and no answer has named since.
        named: Those of the neighbours whom this registry was told of: a new one may write once somebody has said that
            it is remembered, for an answer that was lost on its way makes nobody remember.
    """

    registry: str = ""
    neighbours: tuple[str, ...] = ()
    knew: tuple[str, ...] = ()
    named: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """Whom the next report must name."""
        return tuple(other for other in self.neighbours if other not in self.named)

    def after(self, registry: str, neighbours: tuple[str, ...], *, names: Collection[str] = ()) -> Others:
        """Return what a process has in mind after the next answer, to a report that named these."""
        knew = self.knew
        told = {*names, *(self.named if registry == self.registry else ())}
        if self.registry not in ("", registry):
            knew = (*knew, *self.neighbours)
        missing = tuple(dict.fromkeys(member for member in knew if member not in neighbours))
        return Others(registry, neighbours, missing[-KNEW_AT_MOST:], frozenset(told.intersection(neighbours)))


def overdue_seconds(interval: float) -> float:
    """Return how long after one report the next one can't be merely late."""
    return interval + min((MISSED_INTERVALS - 1) * interval, LATE_AT_MOST_SECONDS)


def ttl_seconds(report: Report) -> float:
    """Return after how many seconds without a report a member is silent."""
    return overdue_seconds(report.interval) + SLACK_SECONDS
