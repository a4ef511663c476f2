"""What one process counts while a rehearsal goes on: numbers by route, bounded, as its reports carry them.

Visitors choose paths, names of cookies and User-Agents. So what is kept of them is cut, cleaned, and of so many kinds
at most; the rest is one label.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import os
import re
import sys
import sysconfig
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from .errors import StoreUnreachable
from .stores import Store

logger = logging.getLogger("readonly")

LOG: Final = "rehearsal"
# Routes that are called like one by which people sign in.
SIGNS_IN: Final = re.compile(r"callback|log_?in|sign_?in|oauth|oidc|saml|sso|authorize|magic", re.IGNORECASE)
# As `readonly.gate.ActKind` has it.
DECLARED_READ: Final = "declared read"
# Of a report's numbers: all that is looked at is looked at since, databases included.
WHOLE: Final = "whole"
# Members whose numbers are kept when they end, or the rehearsal does: the last ones.
KEEP: Final = 500
MAX_ROUTES: Final = 200
# Routes that travel with a report: those with most to say. The others are one.
ROUTES_SENT: Final = 50
MAX_INSIDE: Final = 8
# A request may outlive the rehearsal that it began in, and some that follow.
PAST: Final = 50
MAX_JOBS: Final = 30
TEXT_LENGTH: Final = 120
OTHER: Final = "other"
# The smallest so many hashes of whoever was seen say how many there were: to a tenth, more or less (Bar-Yossef et al.,
# "Counting distinct elements in a data stream"). Two processes' are put together by keeping the smallest of both.
SKETCH: Final = 64
_HASH_BYTES: Final = 6
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}


# Whose code is nobody's to mend at this site.
_OTHERS: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_STANDARD: Final = sysconfig.get_path("stdlib") + os.sep
_PACKAGE: Final = str(Path(__file__).parent) + os.sep
_FRAMES: Final = 200


def caller() -> str:
    """Return the innermost place of the application's own code that leads here, `folder/file.py:12 in function`; or "".

    Under SQLAlchemy's asyncio the driver's side runs in a greenlet of its own: the way goes on in its parent.
    """
    frame: FrameType | None = sys._getframe(1)
    greenlets = sys.modules.get("greenlet")
    green: Any = greenlets.getcurrent() if greenlets is not None else None
    for _ in range(_FRAMES):
        if frame is None:
            green = getattr(green, "parent", None)
            frame = getattr(green, "gr_frame", None)
            if frame is None:
                break
        file = frame.f_code.co_filename
        if not (
            file.startswith((_PACKAGE, _STANDARD, "<")) or any(part in file for part in _OTHERS) or _is_adapter(file)
        ):
            return f"{'/'.join(_parts(file)[-2:])}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return ""


def _is_adapter(file: str) -> bool:
    return any(part.startswith("readonly_") for part in _parts(file)[-3:-1])


def _parts(file: str) -> list[str]:
    return file.replace(os.sep, "/").rsplit("/", 3)


def cleaned(text: str) -> str:
    """Return text as a label: without control characters, bidirectional marks and the like, and not too long."""
    return text.translate(_CONTROLS).encode("ascii", "backslashreplace").decode()[:TEXT_LENGTH]


@dataclass(slots=True)
class Route:
    """What was seen of one route.

    Attributes:
        act: What the gate took its requests for.
        refused: Requests that would have been refused.
        passed: Requests that would have passed.
        wrote: Requests of either kind that wrote, by the word of the database's server.
        dropped: Requests that wrote only what the guard drops while read-only.
        raw: Requests that wrote what no guard could drop.
        tried: Requests that wrote nothing but what was rolled back.
        asked: Requests that had a guarded transaction, so that it is known whether they wrote.
        redirected: Requests that were answered with another address.
        absent: Requests that were answered with 404 or 405.
        begun: Requests without a session that were answered with one.
        renewed: Requests with a session that were answered with another one; where people may sign in, since some
            sites do so always.
        ended: Requests that were answered by forgetting a session.
        families: Requests by client family.
        tables: What was written, `database.table`, and where in the code.
        droppable: The tables that statements wrote which a guard could drop.
        cookies: Session cookies that were begun.
        example: A path.
    """

    act: str = ""
    refused: int = 0
    passed: int = 0
    wrote: int = 0
    dropped: int = 0
    raw: int = 0
    tried: int = 0
    asked: int = 0
    redirected: int = 0
    absent: int = 0
    begun: int = 0
    renewed: int = 0
    ended: int = 0
    families: dict[str, int] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)
    droppable: dict[str, int] = field(default_factory=dict)
    cookies: dict[str, int] = field(default_factory=dict)
    example: str = ""

    @property
    def notable(self) -> bool:
        """True if there is more to say of it than that it was read; that a rule declares it to be a read is more."""
        counted = self.refused or self.wrote or self.tried or self.dropped or self.begun or self.renewed or self.ended
        return bool(counted or self.act == DECLARED_READ)

    @property
    def requests(self) -> int:
        """How many there were."""
        return self.refused + self.passed

    def dump(self) -> dict[str, Any]:
        """Return what is not nothing."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name))}

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> Route:
        """Read what `dump` returned; what is of another type than it should be is left out."""
        made = cls()
        for name in cls.__slots__:
            like, value = getattr(made, name), document.get(name)
            if isinstance(like, dict) and isinstance(value, Mapping):
                kind = str if name == "tables" else int
                setattr(made, name, {str(k): v for k, v in value.items() if type(v) is kind})
            elif type(value) is type(like) and not isinstance(like, dict):
                setattr(made, name, value)
        return made

    def add(self, other: Route) -> None:
        """Take in what was seen of the same route elsewhere."""
        for name in self.__slots__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, int):
                setattr(self, name, mine + theirs)
            elif name == "tables":
                for table, where in theirs.items():
                    keep(self.tables, table, where)
            elif isinstance(mine, dict):
                for label, number in theirs.items():
                    count(mine, label, number)
            else:
                setattr(self, name, mine or theirs)


def named(rule: str, route: Route) -> str:
    """Return the rule that names a route, also of one that is counted in parts."""
    return rule.removesuffix(f" ({route.act})")


def count(found: dict[str, int], label: str, number: int = 1, *, most: int = MAX_INSIDE) -> None:
    """Count under a label; past so many labels they are one."""
    if label not in found and len(found) >= most:
        label = OTHER
    found[label] = found.get(label, 0) + number


def keep(found: dict[str, str], label: str, text: str, *, most: int = MAX_INSIDE) -> None:
    """Remember a text by a label, the first one; past so many labels no more."""
    if label in found:
        found[label] = found[label] or text
    elif len(found) < most:
        found[label] = text


class Sketch:
    """How many different ones there were, in little space; nobody can be told from it."""

    __slots__ = ("_heap", "_known")

    def __init__(self, hashes: Iterable[int] = ()) -> None:
        self._heap: list[int] = []  # negated: the largest is the first
        self._known: set[int] = set()
        for one in hashes:
            self._add(one)

    def add(self, salt: str, value: str) -> None:
        """Take in one, by the rehearsal's id and what tells it from others."""
        digest = hashlib.blake2b(f"{salt}\0{value}".encode("utf-8", "replace"), digest_size=_HASH_BYTES).digest()
        self._add(int.from_bytes(digest, "big"))

    def _add(self, one: int) -> None:
        if one in self._known or (len(self._heap) >= SKETCH and one >= -self._heap[0]):
            return
        self._known.add(one)
        if len(self._heap) < SKETCH:
            heapq.heappush(self._heap, -one)
        else:
            self._known.discard(-heapq.heapreplace(self._heap, -one))

    def merge(self, hashes: Iterable[Any]) -> None:
        """Take in another one's."""
        for one in hashes:
            if type(one) is int and one >= 0:
                self._add(one)

    def dump(self) -> list[int]:
        """Return what it consists of."""
        return sorted(self._known)

    def number(self) -> int:
        """Return about how many there were; exactly, up to `SKETCH`."""
        if len(self._heap) < SKETCH:
            return len(self._heap)
        return round((SKETCH - 1) * float(1 << 8 * _HASH_BYTES) / -self._heap[0])


@dataclass(slots=True)
class Numbers:
    """All that was counted, by one process or by many.

    Attributes:
        requests: All of them.
        signed_in: Those that came with a session.
        signed_out: Those of them whose session would not have lived through it.
        readers: Who they were.
        bearers: Requests that came with a bearer token.
        running_out: Tokens that run out before the end, and could not have been renewed.
        ended_bearers: Requests whose token would have been taken off.
        jobs: Work outside requests that would have been refused.
        outside: What wrote outside of any request or job, by its place in the code: the tables.
        unnamed: Cookies that look like sessions, and that no policy names.
        clients: Database sessions that wrote, by `database user@address application`.
        own: The same, of this site's processes.
        routes: By the rule that names it.
    """

    requests: int = 0
    signed_in: int = 0
    signed_out: int = 0
    readers: Sketch = field(default_factory=Sketch)
    bearers: int = 0
    running_out: Sketch = field(default_factory=Sketch)
    ended_bearers: int = 0
    jobs: dict[str, int] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)
    unnamed: dict[str, int] = field(default_factory=dict)
    clients: dict[str, int] = field(default_factory=dict)
    own: dict[str, int] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)

    def route(self, rule: str, act: str = "") -> Route:
        """Return what is counted of a route; past so many of them they are one.

        Args:
            rule: The rule that names it.
            act: What the gate took a request for. A route of which it takes some for one thing and some for another
                (by their bodies, or by the policies of two versions) is counted in parts; see `named`.
        """
        found = self.routes.get(rule)
        if found is not None and act and found.act not in ("", act) and rule != OTHER:
            rule = f"{rule} ({act})"
            found = self.routes.get(rule)
        if found is None:
            if len(self.routes) >= MAX_ROUTES:
                rule = OTHER
            found = self.routes.setdefault(rule, Route())
        found.act = found.act or act
        return found

    def dump(self) -> dict[str, Any]:
        """Return it as JSON that fits into a report."""
        notable = {rule: one for rule, one in self.routes.items() if one.notable}
        ordered = sorted(notable, key=lambda rule: (-notable[rule].refused - notable[rule].wrote, rule))
        sent = {rule: notable[rule].dump() for rule in ordered[:ROUTES_SENT]}
        rest = Route()
        for rule in ordered[ROUTES_SENT:]:
            rest.add(notable[rule])
        if rest.requests:
            known = Route.load(sent.get(OTHER, {}))
            known.add(rest)
            sent[OTHER] = known.dump()
        document: dict[str, Any] = {"routes": sent}
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, Sketch):
                value = value.dump()
            if value and name != "routes":
                document[name] = dict(value) if isinstance(value, dict) else value
        return document

    def add(self, document: Mapping[str, Any]) -> None:
        """Take in what a process reported; what can't be read of it is left out."""
        for name in self.__slots__:
            mine, theirs = getattr(self, name), document.get(name)
            if isinstance(mine, Sketch):
                mine.merge(theirs if isinstance(theirs, list) else ())
            elif type(mine) is int:
                setattr(self, name, mine + (theirs if type(theirs) is int else 0))
            elif not isinstance(theirs, Mapping):
                continue
            elif name == "routes":
                for rule, one in theirs.items():
                    if isinstance(one, Mapping):
                        route = Route.load(one)
                        self.route(named(str(rule), route), route.act).add(route)
            elif name == "outside":
                for where, tables in theirs.items():
                    keep(self.outside, str(where), str(tables), most=MAX_JOBS)
            else:
                for label, number in theirs.items():
                    if type(number) is int:
                        count(mine, str(label), number, most=MAX_JOBS)


class Counts:
    """One process's numbers of the rehearsal that goes on, or went on last. Any thread may call any method.

    Attributes:
        of: That rehearsal's id; "" before the first.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.of = ""
        self._lock = threading.Lock()
        self._numbers = Numbers()
        self._kept = False
        self._whole = False
        self._past: deque[str] = deque(maxlen=PAST)

    def take_part(self, rehearsal: str) -> bool:
        """Say that from now on all is looked at for this rehearsal; begin anew if this is another one.

        Returns:
            Whether that is news.
        """
        with self._lock:
            if self.of != rehearsal:
                self._begin(rehearsal)
            known, self._whole = self._whole, True
            return not known

    def adding(self, rehearsal: str) -> _Adding:
        """Return the numbers to add to, in a with block which nobody else is in."""
        return _Adding(self, rehearsal)

    def totals(self) -> dict[str, Any]:
        """Return what a report carries: nothing once it was kept in the store."""
        with self._lock:
            if not self.of or self._kept:
                return {}
            return {"id": self.of, **({WHOLE: True} if self._whole else {}), **self._numbers.dump()}

    def store(self, store: Store, member: str) -> None:
        """Keep the numbers in the store, now that they are final; later if that fails."""
        totals = self.totals()
        if not totals:
            return
        try:
            store.append(LOG, json.dumps({"member": member, **totals}).encode(), keep=KEEP)
        except StoreUnreachable as error:
            logger.info("readonly: what was counted in the rehearsal could not be kept yet: %s", error)
            return
        self._kept = self.of == totals["id"]

    def forget(self) -> None:
        """Begin with none, in a child that was forked: the lock may be held by a thread that is not here."""
        self._lock = threading.Lock()
        self.of, self._numbers, self._kept, self._whole = "", Numbers(), False, False

    def _begin(self, rehearsal: str) -> Numbers:
        if rehearsal in self._past:
            return Numbers()  # of one before: another one has begun since, and takes no harm from it
        if self.of != rehearsal:
            self._past.append(self.of)
            self.of, self._numbers, self._whole = rehearsal, Numbers(), False
        # Who comes late (a request that was still running) has more to say.
        self._kept = False
        return self._numbers


class _Adding:
    __slots__ = ("_counts", "_rehearsal")

    def __init__(self, counts: Counts, rehearsal: str) -> None:
        self._counts = counts
        self._rehearsal = rehearsal

    def __enter__(self) -> Numbers:
        self._counts._lock.acquire()
        return self._counts._begin(self._rehearsal)

    def __exit__(self, *exc: object) -> None:
        self._counts._lock.release()
