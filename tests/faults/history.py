"""What happened in a round: events as they are recorded, one JSON object a line, and read again by the checker.

Instants are CLOCK_MONOTONIC, which all processes of a machine share; `wall` is the machine's own wall clock, which
PostgreSQL stamps its commit records with and nobody steps.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Write:
    """One write that a client tried. Status 0: no answer came, and nobody knows whether it was done."""

    key: str
    slot: int
    start: float
    end: float
    status: int
    pid: int = 0
    row: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """One read. Status 0: it was cut, or not answered in time; `retried` is then what a second try was answered."""

    slot: int
    start: float
    end: float
    status: int
    retried: int = 0
    retried_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Rows:
    """The committed rows at one moment: how many, and the ids of the latest."""

    count: int
    latest: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class On:
    """One `on`: what became of it, and when. `level` is "" for one that was not confirmed."""

    operator: str
    start: float
    end: float
    outcome: str
    level: str = ""
    missing: tuple[str, ...] = ()
    by: str = "site"


@dataclass(frozen=True, slots=True)
class Span:
    """A read-only time that was confirmed: from "safe" to just before `off` was typed."""

    operator: str
    level: str
    safe: float
    off: float
    wall_safe: float
    wall_off: float
    rows_safe: Rows
    rows_off: Rows
    lsn_safe: int
    lsn_off: int


@dataclass(frozen=True, slots=True)
class Expired:
    """An operator was told that this process's lease is over: that it admits nothing until the `off`."""

    pid: int
    at: float
    until: float


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault that the nemesis brought about, and when it was over."""

    kind: str
    moment: str
    start: float
    end: float
    slot: int = -1


@dataclass(frozen=True, slots=True)
class Life:
    """A worker serves (`began`), or was ended by the nemesis."""

    slot: int
    pid: int
    at: float
    began: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table, at the end of the round."""

    id: int
    key: str
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit record in PostgreSQL's log."""

    xid: int
    lsn: int
    wall: float


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a person had to do, or that never happened."""

    what: str
    at: float
    detail: str = ""
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Began:
    """The first line: what the round was told."""

    seed: int
    at: float
    kinds: tuple[str, ...] = ()
    sabotage: str = ""


Event = Write | Read | On | Span | Expired | Fault | Life | Row | Commit | Note | Began
_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind for kind in (Write, Read, On, Span, Expired, Fault, Life, Row, Commit, Note, Began)
}


def dumped(event: Event) -> str:
    """Return an event as one line."""
    return json.dumps({"is": type(event).__name__, **asdict(event)}, separators=(",", ":"))


def loaded(line: str) -> Event:
    """Read one line."""
    document: dict[str, Any] = json.loads(line)
    kind = _KINDS[document.pop("is")]
    values = {f.name: _value(document[f.name]) for f in fields(kind) if f.name in document}
    return kind(**values)


def _value(found: Any) -> Any:
    if isinstance(found, list):
        return tuple(found)
    if isinstance(found, dict):
        return Rows(found["count"], tuple(found["latest"]))
    return found


class Recorder:
    """Appends events to a file. Any thread may record."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()

    def record(self, event: Event) -> None:
        """Write one event."""
        line = dumped(event) + "\n"
        with self._lock:
            self._file.write(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Tail:
    """Follows a file of events that another process writes. Any thread may look."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r", encoding="utf-8")
        self._rest = ""
        self._lock = threading.Lock()
        self.events: list[Event] = []

    def look(self) -> list[Event]:
        """Return all events up to now."""
        with self._lock:
            lines = (self._rest + self._file.read()).split("\n")
            self._rest = lines.pop()
            self.events.extend(loaded(line) for line in lines)
            return self.events

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(*paths: Path) -> list[Event]:
    """Read whole histories; a last line that is cut (its writer was killed) is left out."""
    found: list[Event] = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        found += [loaded(line) for line in text.split("\n")[:-1] if line]
    return found


def of(events: Iterable[Event], kind: type[T]) -> list[T]:
    """Return the events of one kind."""
    return [event for event in events if isinstance(event, kind)]
