"""Whether the promises were kept, judged from what clients, the rogue and the database say. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from demo_app.seen import Seen
from demo_app.verdict import BROKEN, KEPT, TOO_SMALL, Minimum, Promise, percentile

__all__ = [
    "BROKEN", "KEPT", "TOO_SMALL", "Act", "Attempt", "Column", "Evidence", "Latency", "Minimum", "Promise", "Verdict",
    "judge",
]  # fmt: skip

NANOSECONDS: Final = 1e9

ROWS: Final = 10_000
QUIET_READS: Final = 200
QUIET_TRANSACTIONS: Final = 1_000
ROGUE_COMMITS: Final = 300
"""Below these a run proves nothing: a small table is migrated in no time, and nobody is in anybody's way."""
READS_A_SECOND: Final = 20
REFUSED_A_SECOND: Final = 10
"""For each second that the lock is held."""

# What asks for the busiest table; the other pages would flatter.
ROUTES: Final = frozenset(
    {
        "GET /", "GET /articles/{slug}", "GET /sections/{section}", "GET /api/articles",
        "GET /api/articles/{id}/comments", "POST /search",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Attempt:
    """One write of the rogue's; `code` is what it was refused with, or ""."""

    start: int
    end: int
    what: str
    text: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Act:
    """One migration.

    Attributes:
        name: For people.
        frozen: Whether the standby was to be frozen.
        typed: When `run` was typed, in ns of CLOCK_MONOTONIC.
        returned: When it was over.
        locked: When the migration had the lock.
        released: When it let go of it.
        appeared: What others had written between its begin and its end.
    """

    name: str
    frozen: bool
    typed: int
    returned: int
    locked: int
    released: int
    appeared: int

    @property
    def held(self) -> int:
        """How long the lock was held, in ns."""
        return self.released - self.locked

    def during(self, start: int) -> bool:
        """Tell whether something began while the lock was held."""
        return self.locked <= start <= self.released


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is judged.

    Attributes:
        seen: Every request.
        attempts: Every write of the rogue's.
        controls: Begin and end of each read on the primary.
        waiting: When somebody looked at the standby, and how many waited for the busiest table there then.
        acts: The migrations, in their order.
        stored: The texts of all comments, when everything was over.
        rows: How many the busiest table had at the begin.
        transactions: How many the primary committed before the first migration.
    """

    seen: Sequence[Seen]
    attempts: Sequence[Attempt]
    controls: Sequence[tuple[int, int]]
    waiting: Sequence[tuple[int, int]]
    acts: Sequence[Act]
    stored: frozenset[str]
    rows: int
    transactions: int


@dataclass(frozen=True, slots=True)
class Latency:
    """How long something took, in ms; None where there was none of it."""

    count: int
    failed: int
    p50: float | None
    p99: float | None
    longest: float | None


@dataclass(frozen=True, slots=True)
class Column:
    """One phase: what visitors' reads and those on the primary took, and what became of the rogue's writes."""

    name: str
    pages: Latency
    primary: Latency
    rogue_committed: int
    rogue_refused: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The whole result."""

    columns: tuple[Column, ...]
    promises: tuple[Promise, ...]
    minimums: tuple[Minimum, ...]

    @property
    def exit_code(self) -> int:
        """Return what the demonstration exits with; a broken promise outweighs a small load."""
        if any(promise.broken for promise in self.promises):
            return BROKEN
        return KEPT if all(minimum.met for minimum in self.minimums) else TOO_SMALL


def judge(evidence: Evidence, *, hold_seconds: float) -> Verdict:
    """Judge a run whose migrations were to hold the lock for so long."""
    first = evidence.acts[0]
    quiet = _column(evidence, "quiet", lambda _start, end: end < first.typed)
    columns = [quiet]
    promises = [
        _promise(
            "rows written by others while a fence stood, in the database",
            *(f"{act.name}: {act.appeared}" for act in evidence.acts for _ in range(act.appeared)),
        ),
        _promise("acknowledged writes that are missing", *_lost(evidence)),
        _promise("reads that failed", *(_told(seen) for seen in evidence.seen if seen.action == "read" and seen.error)),
    ]
    minimums = [
        Minimum("rows in the table that is migrated", evidence.rows, ROWS),
        Minimum("transactions of the primary, quiet", evidence.transactions, QUIET_TRANSACTIONS),
        Minimum("pages read, quiet", quiet.pages.count, QUIET_READS),
        Minimum("writes of the rogue committed, quiet", quiet.rogue_committed, ROGUE_COMMITS),
    ]
    for act in evidence.acts:
        column = _column(evidence, act.name, _during(act))
        columns.append(column)
        waited = [max(0, end - start) for start, end in evidence.controls if act.during(start) and end > act.released]
        seen_waiting = sum(count for at, count in evidence.waiting if act.during(at))
        if act.frozen:
            promises += [
                _promise("reads found waiting for the lock at the frozen standby", *["seen"] * seen_waiting),
                _promise(
                    "pages that took half as long as the lock was held, while frozen",
                    *(_told(seen) for seen in _pages(evidence.seen) if act.during(seen.start) and _slow(seen, act)),
                ),
            ]  # fmt: skip
        else:
            minimums.append(Minimum("reads found waiting at the standby that was not frozen", seen_waiting, 1))
        seconds = act.held / NANOSECONDS
        minimums += [
            Minimum(f"{act.name}: ms that the lock was held", int(1000 * seconds), int(1000 * hold_seconds)),
            Minimum(f"{act.name}: reads on the primary that waited until it was released", len(waited), 1),
            Minimum(f"{act.name}: writes of the rogue refused", column.rogue_refused, int(REFUSED_A_SECOND * seconds)),
        ]
        if act.frozen:
            wanted = int(READS_A_SECOND * seconds)
            minimums.append(Minimum(f"{act.name}: pages read while the lock was held", column.pages.count, wanted))
    return Verdict(tuple(columns), tuple(promises), tuple(minimums))


def _column(evidence: Evidence, name: str, within: Callable[[int, int], bool]) -> Column:
    pages = [seen for seen in _pages(evidence.seen) if within(seen.start, seen.end)]
    failed = sum(bool(seen.error) for seen in pages)
    rogue = [attempt for attempt in evidence.attempts if within(attempt.start, attempt.end)]
    return Column(
        name,
        pages=_latency([seen.end - seen.start for seen in pages if not seen.error], failed),
        primary=_latency([end - start for start, end in evidence.controls if within(start, end)], 0),
        rogue_committed=sum(not attempt.code for attempt in rogue),
        rogue_refused=sum(bool(attempt.code) for attempt in rogue),
    )


def _during(act: Act) -> Callable[[int, int], bool]:
    return lambda start, _end: act.during(start)


def _pages(seen: Iterable[Seen]) -> Iterable[Seen]:
    return (found for found in seen if found.action == "read" and found.route in ROUTES)


def _slow(seen: Seen, act: Act) -> bool:
    return 2 * (seen.end - seen.start) > act.held


def _latency(nanoseconds: Iterable[int], failed: int) -> Latency:
    took = sorted(each / 1e6 for each in nanoseconds)
    return Latency(len(took), failed, percentile(took, 0.5), percentile(took, 0.99), took[-1] if took else None)


def _lost(evidence: Evidence) -> Iterable[str]:
    for attempt in evidence.attempts:
        if attempt.what == "comment" and not attempt.code and attempt.text not in evidence.stored:
            yield attempt.text
    for seen in evidence.seen:
        if seen.kind == "comment" and seen.accepted and seen.text not in evidence.stored:
            yield _told(seen)


def _promise(text: str, *cases: str) -> Promise:
    return Promise(text, len(cases), tuple(dict.fromkeys(cases))[:5])


def _told(seen: Seen) -> str:
    took = (seen.end - seen.start) / 1e6
    return f"{seen.client}: {seen.route} ({seen.error or f'{took:.0f} ms'})"
