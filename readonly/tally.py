"""What was refused, escaped, bypassed and ended: counters with a bounded number of labels, and few log lines.

A refusal is no error, and an open tab that posts every ten seconds must not fill a log: each route has one line a
minute, which says how many it stands for. An escape (a write that only the database guard stopped) is a rule that is
missing: it is logged at ERROR, equally rarely.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from .clock import Clock, SystemClock
from .errors import ReadOnlyError

logger = logging.getLogger("readonly")

# Whoever scans a site for unknown addresses must not fill the memory of its processes: the rest is one label.
MAX_LABELS = 200
OTHER = "other"
SECONDS_PER_LINE = 60.0
# So many lines of who was let through go into the history with one heartbeat: what comes next waits for the next one.
USES_AT_ONCE = 20
_GROUP_SEGMENTS = 2
_GROUP_LENGTH = 80


def route_group(path: str) -> str:
    """Return the label of a path that no rule or endpoint names: its first two segments, safe to be logged.

    Args:
        path: The path relative to the mount, decoded or not.
    """
    segments = path.split("/", _GROUP_SEGMENTS + 1)[1 : _GROUP_SEGMENTS + 1]
    # A decoded path may hold line breaks, with which a client could write log lines of its own.
    return ("/" + "/".join(segments)).encode("ascii", "backslashreplace").decode().translate(_CONTROLS)[:_GROUP_LENGTH]


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)}


class _Line:
    """What the log was told last about one label, and how many events it has to tell of since."""

    __slots__ = ("due", "pending")

    def __init__(self) -> None:
        self.due = float("-inf")
        self.pending = 0

    def count(self, now: float) -> int:
        """Count one event; return how many a line that is due now stands for, or 0."""
        self.pending += 1
        return 0 if now < self.due else self.told(now)

    def told(self, now: float) -> int:
        """Return how many events a line stands for that is written now."""
        self.due = now + SECONDS_PER_LINE
        pending, self.pending = self.pending, 0
        return pending


class _Events:
    """A number, and the line that tells of it. All but `more` is used with the lock held."""

    __slots__ = ("_more", "_reads", "_settled", "line", "number")

    def __init__(self, line: _Line) -> None:
        self.line = line
        self.number = 0
        self._more = itertools.count()
        self._reads = self._settled = 0

    @property
    def more(self) -> Callable[[], object]:
        """What counts one more, without the lock: a single operation of the interpreter."""
        return self._more.__next__

    def settle(self) -> None:
        """Take over what was counted without the lock. Looking at that counter counts, too."""
        so_far = next(self._more) - self._reads
        self._reads += 1
        new = so_far - self._settled
        self._settled = so_far
        self.number += new
        self.line.pending += new


class Tally:
    """Counters of one process since it started. Any thread may call any method; a call costs about a microsecond."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Start at zero.

        Args:
            clock: Tells when a minute is over; the machine's if None.
        """
        # A site's own tests want to know of each escape, and not only how many there were.
        self.on_escape: Callable[[ReadOnlyError], None] | None = None
        self._boottime = (clock or SystemClock()).boottime
        self._lock = threading.Lock()
        self._refused: dict[tuple[str, str], _Events] = {}
        self._escaped: dict[tuple[str, str], _Events] = {}
        self._bypassed: dict[tuple[str, str], _Events] = {}
        self._allowed: dict[tuple[str, str], _Events] = {}
        # Of what bypasses let through, what the history was not told of yet.
        self._uses: dict[tuple[str, str], _Line] = {}
        self._ended = 0
        self._lines: dict[tuple[int, str], _Line] = {}

    def refused(self, route: str, kind: str) -> None:
        """Count a request that was refused.

        Args:
            route: Name of the rule or endpoint, or a `route_group`.
            kind: Why, in a word of the gate's own.
        """
        (route, _), events = self._events(self._refused, route, kind)
        due = self._count(events)
        if due:
            logger.info(
                "refused %s (%s), %d since the last line",
                route,
                kind,
                due,
                extra={"event": "refused", "route": route, "kind": kind, "count": due},
            )

    def more_refused(self, route: str, kind: str) -> Callable[[], object]:
        """Return what counts one more refusal of a route that was just counted, for whoever has many of them.

        It costs next to nothing, and writes no line: the next `refused` of that route tells of what it counted.
        """
        return self._events(self._refused, route, kind)[1].more

    def escaped(self, route: str, refusal: ReadOnlyError) -> None:
        """Count a write that the gate let through and a database guard stopped: a rule is missing.

        Args:
            route: Name of the rule or endpoint, or a `route_group`.
            refusal: What the guard said.
        """
        if self.on_escape is not None:
            self.on_escape(refusal)
        (route, _), events = self._events(self._escaped, route, "")
        due = self._count(events)
        if due:
            logger.error(
                "%s tried to write while read-only and was stopped by %s%s (%d since the last line): "
                "declare it in Policy(writes=[...]), or name the table in discard=[...]",
                route,
                f"the guard of {refusal.database}" if refusal.database else "switch.writing()",
                f", table {refusal.table}" if refusal.table else "",
                due,
                extra={
                    "event": "escaped",
                    "route": route,
                    "database": refusal.database,
                    "table": refusal.table,
                    "count": due,
                },
            )

    def bypassed(self, name: str, route: str) -> None:
        """Count a request that a bypass let through.

        Args:
            name: The bypass's name in the record; never its token.
            route: Name of the rule or endpoint, or a `route_group`.
        """
        (route, name), events = self._events(self._bypassed, route, name)
        due = self._count(events)
        with self._lock:
            self._uses.setdefault((name, route), _Line()).pending += 1
        if due:
            logger.info(
                "bypass %s let %s through, %d since the last line",
                name,
                route,
                due,
                extra={"event": "bypassed", "bypass": name, "route": route, "count": due},
            )

    def allowed(self, route: str, kind: str) -> None:
        """Count a request of an unsafe method that a read-only site let through, as its rules say.

        Args:
            route: Name of the rule or endpoint, or a `route_group`.
            kind: What it was taken for: exempt, a declared read, a logout.
        """
        self._count(self._events(self._allowed, route, kind)[1])

    @property
    def used(self) -> bool:
        """Whether there is a use that the history was not told of."""
        with self._lock:
            return any(line.pending for line in self._uses.values())

    def uses(self, *, last: bool = False) -> list[tuple[str, str, int]]:
        """Take out what is due for the history of bypasses: name, route, and how often since that was last told.

        Each of these is told of at once, and then once a minute, so that in the end every use is counted.

        Args:
            last: Nobody will ask again: all of it.
        """
        now = self._boottime()
        with self._lock:
            due = [key for key, line in self._uses.items() if line.pending and (last or now >= line.due)]
            return [(*key, self._uses[key].told(now)) for key in due[: None if last else USES_AT_ONCE]]

    def ended(self, number: int = 1) -> None:
        """Count session cookies that a browser was told to forget, because their session has ended."""
        with self._lock:
            self._ended += number

    def totals(self) -> Mapping[str, Any]:
        """Return the counters, as a report carries them: numbers, and by route the largest first."""
        with self._lock:
            for events in self._refused.values():
                events.settle()
            refused = {key: events.number for key, events in self._refused.items()}
            escaped = {route: events.number for (route, _), events in self._escaped.items()}
            bypassed = {key: events.number for key, events in self._bypassed.items()}
            ended = self._ended
        by_route: dict[str, int] = {}
        by_kind: dict[str, int] = {}
        for (route, kind), count in refused.items():
            by_route[route] = by_route.get(route, 0) + count
            by_kind[kind] = by_kind.get(kind, 0) + count
        by_name: dict[str, int] = {}
        for (_, name), count in bypassed.items():
            by_name[name] = by_name.get(name, 0) + count
        return {
            "refused": sum(refused.values()),
            "refused_by_kind": _largest_first(by_kind),
            "refused_by_route": _largest_first(by_route),
            "escaped": sum(escaped.values()),
            "escaped_by_route": _largest_first(escaped),
            "bypassed": sum(bypassed.values()),
            "bypassed_by_name": _largest_first(by_name),
            "ended": ended,
        }

    def counts(self) -> Mapping[str, Mapping[tuple[str, str], int]]:
        """Return all counters since the process started: by what happened, then by route and detail."""
        with self._lock:
            for events in self._refused.values():
                events.settle()
            kinds = {
                "refused": self._refused,
                "allowed": self._allowed,
                "bypassed": self._bypassed,
                "escaped": self._escaped,
            }
            found = {what: {key: events.number for key, events in by.items()} for what, by in kinds.items()}
            return {**found, "ended": {("", ""): self._ended}}

    def _events(
        self, counts: dict[tuple[str, str], _Events], route: str, detail: str
    ) -> tuple[tuple[str, str], _Events]:
        """Return the counter for (route, detail), or one for "other" when there are too many, and its labels."""
        with self._lock:
            key = (route, detail)
            if key not in counts and len(counts) >= MAX_LABELS:
                key = (OTHER, detail)
                # Of kinds there are few; somebody may give a new name to the bypass of each night, or each deployment.
                if key not in counts and len(counts) >= 2 * MAX_LABELS:
                    key = (OTHER, OTHER)
            found = counts.get(key)
            if found is None:
                # Routes share a line among the kinds of their refusals, not among those who were let through.
                label = " ".join(key) if counts is self._bypassed else key[0]
                line = self._lines.setdefault((id(counts), label), _Line())
                found = counts[key] = _Events(line)
            return key, found

    def _count(self, events: _Events) -> int:
        with self._lock:
            events.settle()
            events.number += 1
            return events.line.count(self._boottime())


def _largest_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
