"""What was refused, escaped, bypassed and ended: counters with a bounded number of labels, and few log lines.

A refusal is no error, and an open tab that posts every ten seconds must not fill a log: each route has one line a
minute, which says how many it stands for. An escape (a write that only the database guard stopped) is a rule that is
missing: it is logged at ERROR, equally rarely.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from .clock import Clock, SystemClock
from .errors import ReadOnlyError

logger = logging.getLogger("readonly")

# Whoever scans a site for unknown addresses must not fill the memory of its processes: the rest is one label.
MAX_LABELS = 200
OTHER = "other"
SECONDS_PER_LINE = 60.0
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


class Tally:
    """Counters of one process since it started. Any thread may call any method; a call costs about a microsecond."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Start at zero.

        Args:
            clock: Tells when a minute is over; the machine's if None.
        """
        self._boottime = (clock or SystemClock()).boottime
        self._lock = threading.Lock()
        self._refused: dict[tuple[str, str], int] = {}
        self._escaped: dict[str, int] = {}
        self._bypassed: dict[tuple[str, str], int] = {}
        self._ended = 0
        # For each (event, label): when its last line was written, and how many events it has to tell of since.
        self._lines: dict[tuple[str, str], tuple[float, int]] = {}

    def refused(self, route: str, kind: str) -> None:
        """Count a request that was refused.

        Args:
            route: Name of the rule or endpoint, or a `route_group`.
            kind: Why, in a word of the gate's own.
        """
        with self._lock:
            route = _count(self._refused, route, kind)
            due = self._due("refused", route)
        if due:
            logger.info(
                "refused %s (%s), %d since the last line",
                route,
                kind,
                due,
                extra={"event": "refused", "route": route, "kind": kind, "count": due},
            )

    def escaped(self, route: str, refusal: ReadOnlyError) -> None:
        """Count a write that the gate let through and a database guard stopped: a rule is missing.

        Args:
            route: Name of the rule or endpoint, or a `route_group`.
            refusal: What the guard said.
        """
        with self._lock:
            route = _bounded(self._escaped, route)
            self._escaped[route] = self._escaped.get(route, 0) + 1
            due = self._due("escaped", route)
        if due:
            logger.error(
                "%s tried to write while read-only and was stopped by the guard of %s%s (%d since the last line): "
                "declare it in Policy(writes=[...]), or name the table in discard=[...]",
                route,
                refusal.database or "a database",
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
        with self._lock:
            route = _count(self._bypassed, route, name)
            due = self._due("bypassed", f"{name} {route}")
        if due:
            logger.info(
                "bypass %s let %s through, %d since the last line",
                name,
                route,
                due,
                extra={"event": "bypassed", "bypass": name, "route": route, "count": due},
            )

    def ended(self, number: int = 1) -> None:
        """Count session cookies that a browser was told to forget, because their session has ended."""
        with self._lock:
            self._ended += number

    def totals(self) -> Mapping[str, Any]:
        """Return the counters, as a report carries them: numbers, and by route the largest first."""
        with self._lock:
            refused, escaped, bypassed = dict(self._refused), dict(self._escaped), dict(self._bypassed)
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

    def _due(self, event: str, label: str) -> int:
        """Return how many events a line that is due now stands for, or 0."""
        now = self._boottime()
        known = self._lines.get((event, label))
        if known is not None and now - known[0] < SECONDS_PER_LINE:
            self._lines[event, label] = (known[0], known[1] + 1)
            return 0
        self._lines[event, label] = (now, 0)
        return 1 + (known[1] if known is not None else 0)


def _bounded(counts: Mapping[str, int], label: str) -> str:
    return label if label in counts or len(counts) < MAX_LABELS else OTHER


def _count(counts: dict[tuple[str, str], int], route: str, kind: str) -> str:
    """Count under (route, kind), under "other" when there are too many already; return the label that was used."""
    key = (route, kind)
    if key not in counts and len(counts) >= MAX_LABELS:
        key = (OTHER, kind)
    counts[key] = counts.get(key, 0) + 1
    return key[0]


def _largest_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
