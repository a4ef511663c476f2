"""Whether the promises were kept, judged from what clients saw and what the database holds. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from demo_app.seen import Seen
from demo_app.snapshot import Snapshot, differences

KEPT: Final = 0
BROKEN: Final = 1
TOO_SMALL: Final = 3
"""Nothing was broken, and too little happened for that to mean anything."""

WRITES_ACCEPTED_BEFORE: Final = 200
WRITES_REFUSED_DURING: Final = 200
READS_DURING: Final = 1000
SESSIONS_ENDED: Final = 20
"""Below these a run proves nothing: the issue that asked for this demonstration names them."""

NANOSECONDS: Final = 1e9


class Phase(StrEnum):
    """Where a request falls. One that was under way while the mode changed belongs to the change."""

    BEFORE = "before"
    TURNING_ON = "turning on"
    READ_ONLY = "read-only"
    TURNING_OFF = "turning off"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Moments:
    """When the commands were typed and when they returned, in nanoseconds of CLOCK_MONOTONIC."""

    on_typed: int
    on_returned: int
    off_typed: int
    off_returned: int

    def phase(self, seen: Seen) -> Phase:
        """Return the phase of a request."""
        if seen.end < self.on_typed:
            return Phase.BEFORE
        if seen.start < self.on_returned:
            return Phase.TURNING_ON
        if seen.end <= self.off_typed:
            return Phase.READ_ONLY
        if seen.start < self.off_returned:
            return Phase.TURNING_OFF
        return Phase.AFTER


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is judged.

    Attributes:
        seen: Every request.
        moments: When the mode changed.
        closed: The database just after `on` said "safe".
        opening: The database just before `off` was typed.
        final: The database when everything was over.
    """

    seen: Sequence[Seen]
    moments: Moments
    closed: Snapshot
    opening: Snapshot
    final: Snapshot


@dataclass(frozen=True, slots=True)
class Figures:
    """What happened in one phase; milliseconds are None where nothing was measured."""

    phase: Phase
    reads_served: int
    reads_failed: int
    read_p50_ms: float | None
    read_p99_ms: float | None
    writes_accepted: int
    writes_refused: int
    logins_accepted: int
    logins_refused: int


@dataclass(frozen=True, slots=True)
class Promise:
    """Something that must not happen, how often it did, and the first few cases."""

    text: str
    broken: int
    cases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Minimum:
    """How much must have happened for the rest to mean anything."""

    text: str
    found: int
    wanted: int

    @property
    def met(self) -> bool:
        """Whether enough happened."""
        return self.found >= self.wanted


@dataclass(frozen=True, slots=True)
class Verdict:
    """The whole result.

    Attributes:
        figures: One column for each phase.
        promises: What must be 0.
        minimums: What must be large.
        seconds_to_last_commit: From typing `on` to the last acknowledged write among those sent before it returned.
    """

    figures: tuple[Figures, ...]
    promises: tuple[Promise, ...]
    minimums: tuple[Minimum, ...]
    seconds_to_last_commit: float

    @property
    def exit_code(self) -> int:
        """Return what the demonstration exits with; a broken promise outweighs a small load."""
        if any(promise.broken for promise in self.promises):
            return BROKEN
        if not all(minimum.met for minimum in self.minimums):
            return TOO_SMALL
        return KEPT


def judge(evidence: Evidence, *, share: float = 1.0) -> Verdict:
    """Judge a run.

    Args:
        evidence: What there is.
        share: So much of the smallest loads is enough.
    """
    moments = evidence.moments
    by_phase: dict[Phase, list[Seen]] = {phase: [] for phase in Phase}
    for seen in evidence.seen:
        by_phase[moments.phase(seen)].append(seen)
    figures = tuple(_figures(phase, found) for phase, found in by_phase.items())
    during = by_phase[Phase.READ_ONLY]
    read_only = _of(figures, Phase.READ_ONLY)
    ended, survivors = sessions(evidence.seen, moments)
    committed = differences(evidence.closed, evidence.opening)
    return Verdict(
        figures=figures,
        promises=(
            _promise(
                "writes committed between `on` and `off`, in the database",
                (f"{found.table} row {found.rowid} {found.what}" for found in committed),
            ),
            _promise("acknowledged writes that are missing or doubled", _lost(evidence)),
            _promise("refused writes that are in the database", _refused_yet_stored(evidence)),
            _promise("reads that failed", map(_told, filter(_failed_read, evidence.seen))),
            _promise(
                "writes not refused while read-only",
                (_told(seen) for seen in during if seen.action == "write" and not seen.refused),
            ),
            _promise(
                "logins not refused while read-only",
                (_told(seen) for seen in during if seen.action == "login" and not _refused_login(seen)),
            ),
            _promise("sessions that outlived `on`", (_told(seen) for seen in survivors)),
            _promise(
                "other errors (no answer, or one that says nothing of being read-only)",
                (_told(seen) for seen in evidence.seen if _other_error(seen)),
            ),
        ),
        minimums=tuple(
            Minimum(name, found, math.ceil(share * wanted))
            for name, found, wanted in (
                ("writes accepted before", _of(figures, Phase.BEFORE).writes_accepted, WRITES_ACCEPTED_BEFORE),
                ("writes refused while read-only", read_only.writes_refused, WRITES_REFUSED_DURING),
                ("reads served while read-only", read_only.reads_served, READS_DURING),
                ("logged-in clients whose session ended", len(ended), SESSIONS_ENDED),
            )
        ),
        seconds_to_last_commit=max(
            (
                seen.end - moments.on_typed
                for seen in evidence.seen
                if seen.accepted and seen.start < moments.on_returned
            ),
            default=0,
        )
        / NANOSECONDS,
    )


def sessions(seen: Iterable[Seen], moments: Moments) -> tuple[frozenset[str], tuple[Seen, ...]]:
    """Follow the sessions across the change.

    Returns:
        The clients that were greeted by name before `on`, and afterwards by nobody in the same session; and every
        answer that still greeted somebody in a session from before `on` returned, or in any while read-only.
    """
    greeted: dict[str, int] = {}
    ended: set[str] = set()
    survivors: list[Seen] = []
    for found in sorted(seen, key=lambda each: each.start):
        if found.session is None or found.signed_in is None:
            continue
        if found.end < moments.on_typed:
            if found.signed_in:
                greeted[found.client] = found.session
        elif found.start >= moments.on_returned:
            old = found.session < moments.on_returned
            if found.signed_in and (old or moments.phase(found) is Phase.READ_ONLY):
                survivors.append(found)
            elif not found.signed_in and greeted.get(found.client) == found.session:
                ended.add(found.client)
    return frozenset(ended - {found.client for found in survivors}), tuple(survivors)


def _figures(phase: Phase, seen: Sequence[Seen]) -> Figures:
    reads = [found for found in seen if found.action == "read"]
    served = sorted((found.end - found.start) / 1e6 for found in reads if not _failed_read(found))
    return Figures(
        phase=phase,
        reads_served=len(served),
        reads_failed=len(reads) - len(served),
        read_p50_ms=percentile(served, 0.50),
        read_p99_ms=percentile(served, 0.99),
        writes_accepted=sum(found.accepted and found.action == "write" for found in seen),
        writes_refused=sum(found.refused and found.action == "write" for found in seen),
        logins_accepted=sum(found.entered and found.action == "login" for found in seen),
        logins_refused=sum(found.action == "login" and _refused_login(found) for found in seen),
    )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the value that this share of an ordered sequence does not exceed."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _of(figures: Sequence[Figures], phase: Phase) -> Figures:
    return next(found for found in figures if found.phase is phase)


def _failed_read(seen: Seen) -> bool:
    return seen.action == "read" and bool(seen.error)


def _refused_login(seen: Seen) -> bool:
    return seen.refused and not seen.entered


def _other_error(seen: Seen) -> bool:
    if seen.action == "read":
        return False
    if seen.status == 503:
        return not (seen.retry_after.isdigit() and int(seen.retry_after) >= 1 and seen.read_only)
    return seen.status == 0 or seen.status >= 500 or (400 <= seen.status < 500 and not seen.refused)


def _lost(evidence: Evidence) -> Iterable[str]:
    bodies = evidence.final.column("comment", "body")
    times_stored = Counter(bodies.values())
    names = dict(
        zip(
            evidence.final.column("account", "name").values(),
            evidence.final.column("account", "display_name").values(),
            strict=True,
        )
    )
    renamed: dict[str, list[Seen]] = {}
    for seen in sorted(evidence.seen, key=lambda each: each.start):
        if seen.kind == "comment" and seen.accepted:
            if seen.row is None or bodies.get(seen.row) != seen.text or times_stored[seen.text] != 1:
                yield _told(seen)
        elif seen.kind == "account" and seen.accepted:
            if seen.text not in names:
                yield _told(seen)
        elif seen.kind == "name":
            if seen.accepted:
                # A later name replaces an earlier one, so only the last one can be looked for.
                renamed[seen.client] = [seen]
            elif seen.status == 0 and seen.client in renamed:
                # Sent, and never answered: either name is right.
                renamed[seen.client].append(seen)
    for client, possible in renamed.items():
        if names.get(client) not in {seen.text for seen in possible}:
            yield _told(possible[0])


def _refused_yet_stored(evidence: Evidence) -> Iterable[str]:
    stored = {
        "comment": set(evidence.final.column("comment", "body").values()),
        "name": set(evidence.final.column("account", "display_name").values()),
        "account": set(evidence.final.column("account", "name").values()),
    }
    for seen in evidence.seen:
        if seen.refused and seen.kind and seen.text in stored[seen.kind]:
            yield _told(seen)


def _promise(text: str, cases: Iterable[str]) -> Promise:
    found = list(cases)
    return Promise(text, len(found), tuple(found[:5]))


def _told(seen: Seen) -> str:
    what = seen.error or f"status {seen.status}"
    greeted = f", greeted {seen.signed_in}" if seen.signed_in else ""
    return f"{seen.client}: {seen.route} ({what}{greeted})"
