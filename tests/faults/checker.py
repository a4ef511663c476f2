"""Reads a recorded history and says what in it broke the promise, or why it proves nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from faults.history import Began, Commit, Event, Expired, Fault, Life, Note, On, Read, Row, Span, Write, of

# A worker that was killed is back some time after its successor said that it begins; a stopped one goes on when the
# machine gets round to it.
GRACE_SECONDS = 2.0
LATE_SECONDS = 1.0
REFUSED, DONE = 503, 201


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a round must have had to be worth anything.

    Attributes:
        spans: Confirmed read-only times.
        tries: Writes tried inside them, in all.
        kinds: Faults, each of which must have happened.
        positions: Whether commits must have been compared by their position in the log.
    """

    spans: int = 1
    tries: int = 1
    kinds: Collection[str] = ()
    positions: bool = True


@dataclass(slots=True)
class Verdict:
    """What the checker found."""

    violations: list[str] = field(default_factory=list)
    void: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_read: float = 0.0
    seed: int = 0

    @property
    def good(self) -> bool:
        """True when nothing was broken, and the round was worth something."""
        return not self.violations and not self.void

    def lines(self, *, most: int = 20) -> list[str]:
        """Return it for people."""
        found = [f"seed {self.seed}: " + ", ".join(f"{count} {name}" for name, count in self.counts.items())]
        found.append("outcomes of on: " + ", ".join(f"{c} {name}" for name, c in sorted(self.outcomes.items())))
        found.append("faults: " + ", ".join(f"{c} {name}" for name, c in sorted(self.faults.items())))
        found.append(f"slowest read of a worker that was neither stopped nor killed: {self.slowest_read:.2f} s")
        for title, texts in (("VIOLATION", self.violations), ("VOID", self.void)):
            found += [f"{title}: {text}" for text in texts[:most]]
            if len(texts) > most:
                found.append(f"... and {len(texts) - most} more")
        found.append(f"{len(self.violations)} violations" + (", and void" if self.void else ""))
        return found


def check(events: Sequence[Event], wanted: Wanted) -> Verdict:
    """Judge a history."""
    verdict = Verdict()
    began = of(events, Began)
    verdict.seed = began[0].seed if began else 0
    spans, writes, reads = of(events, Span), of(events, Write), of(events, Read)
    rows, commits, ons = of(events, Row), of(events, Commit), of(events, On)
    verdict.faults.update(fault.kind for fault in of(events, Fault))
    verdict.outcomes.update(on.outcome if not on.level else f"{on.outcome} ({on.level})" for on in ons)
    tries = [sum(span.safe <= w.start < span.off for w in writes) for span in spans]
    verdict.counts = {
        "writes tried": len(writes),
        "acknowledged": sum(w.status == DONE for w in writes),
        "refused": sum(w.status == REFUSED for w in writes),
        "without an answer": sum(w.status == 0 for w in writes),
        "rows": len(rows),
        "reads": len(reads),
        "reads cut or late": 0,
        "confirmed read-only times": len(spans),
        "writes tried inside them": sum(tries),
        "lease claims": len(of(events, Expired)),
    }
    verdict.counts["helped by hand"] = sum(not note.broken for note in of(events, Note))
    _spans(verdict, spans, writes, rows, commits)
    _leases(verdict, of(events, Expired), writes)
    _acknowledged(verdict, writes, rows)
    _reads(verdict, reads, _troubles(of(events, Fault), of(events, Life)))
    verdict.violations += [f"{note.what} ({note.detail})" for note in of(events, Note) if note.broken]
    _void(verdict, wanted, tries, commits, rows)
    return verdict


def _spans(
    verdict: Verdict, spans: Iterable[Span], writes: Sequence[Write], rows: Sequence[Row], commits: Sequence[Commit]
) -> None:
    by_id = {row.id: row for row in rows}
    keys = {row.xid: row.key for row in rows}
    for span in spans:
        name = f"confirmed time of {span.operator} ({span.level}) at {span.safe:.3f}"
        if span.rows_safe.count != span.rows_off.count:
            new = sorted(set(span.rows_off.latest) - set(span.rows_safe.latest))
            named = ", ".join(by_id[row].key if row in by_id else str(row) for row in new[:5])
            grown = span.rows_off.count - span.rows_safe.count
            verdict.violations.append(f"{name}: {grown} rows more before off than after safe: {named}")
        late = [w for w in writes if w.status == DONE and span.safe <= w.start and w.end <= span.off]
        verdict.violations += [
            f"{name}: {w.key} was begun after it, and process {w.pid} in slot {w.slot} said that it was done"
            for w in late[:5]
        ]
        # A commit is stamped before its record is written: one that is stamped after "safe" was committed after it.
        verdict.violations += [
            f"{name}: {keys[c.xid]} is stamped {c.wall - span.wall_safe:.3f} s after it"
            for c in commits
            if c.xid in keys and span.wall_safe < c.wall < span.wall_off
        ]
        verdict.violations += [
            f"{name}: {keys[c.xid]} stands {c.lsn - span.lsn_safe} bytes behind its marker"
            for c in commits
            if c.xid in keys and span.lsn_safe < c.lsn <= span.lsn_off
        ]


def _leases(verdict: Verdict, claims: Iterable[Expired], writes: Sequence[Write]) -> None:
    for claim in claims:
        verdict.violations += [
            f"process {write.pid} was said to admit nothing, its lease being over, and {claim.at:.3f} + "
            f"{write.start - claim.at:.3f} s later it did {write.key}"
            for write in writes
            # One that is answered later may have waited to be admitted until the site was writable again.
            if write.pid == claim.pid and write.status == DONE and claim.at < write.start and write.end <= claim.until
        ]


def _acknowledged(verdict: Verdict, writes: Iterable[Write], rows: Iterable[Row]) -> None:
    kept = {row.key: row.id for row in rows}
    for write in writes:
        if write.status == DONE and kept.get(write.key) != write.row:
            verdict.violations.append(f"{write.key} was acknowledged as row {write.row} and is not there")
        elif write.status not in (0, DONE, REFUSED):
            verdict.violations.append(f"{write.key} was answered with {write.status} by slot {write.slot}")


@dataclass(frozen=True, slots=True)
class _Trouble:
    slot: int
    start: float
    end: float


def _troubles(faults: Iterable[Fault], lives: Sequence[Life]) -> list[_Trouble]:
    """Return when a worker was stopped, or dead and not back yet."""
    found = [_Trouble(f.slot, f.start, f.end + GRACE_SECONDS) for f in faults if f.kind == "stop"]
    for ended in (life for life in lives if not life.began):
        back = [life.at for life in lives if life.began and life.slot == ended.slot and life.at > ended.at]
        found.append(_Trouble(ended.slot, ended.at, min(back, default=float("inf")) + GRACE_SECONDS))
    return found


def _reads(verdict: Verdict, reads: Iterable[Read], troubles: Sequence[_Trouble]) -> None:
    for read in reads:
        excused = any(t.slot == read.slot and t.start <= read.end and read.start <= t.end for t in troubles)
        late = read.end - read.start > LATE_SECONDS
        if not excused:
            verdict.slowest_read = max(verdict.slowest_read, read.end - read.start)
        if read.status == 200:
            verdict.counts["reads cut or late"] += excused and late
        elif read.status:
            verdict.violations.append(f"a read of slot {read.slot} was answered with {read.status} at {read.start:.3f}")
        elif not excused:
            verdict.violations.append(
                f"a read of slot {read.slot} at {read.start:.3f} was not answered within "
                f"{read.end - read.start:.1f} s, and its worker was neither stopped nor killed"
            )
        elif read.retried != 200:
            verdict.violations.append(f"a read that was cut at {read.start:.3f} failed when tried again")
        else:
            verdict.counts["reads cut or late"] += 1


def _void(
    verdict: Verdict, wanted: Wanted, tries: Sequence[int], commits: Sequence[Commit], rows: Sequence[Row]
) -> None:
    if len(tries) < wanted.spans:
        verdict.void.append(f"{len(tries)} confirmed read-only times, and {wanted.spans} are needed to prove anything")
    if sum(tries) < wanted.tries:
        verdict.void.append(f"{sum(tries)} writes were tried inside them, and {wanted.tries} are needed")
    verdict.void += [f"no {kind} happened" for kind in wanted.kinds if not verdict.faults[kind]]
    if not verdict.counts["reads"]:
        verdict.void.append("nobody read")
    if wanted.positions and not {c.xid for c in commits} & {row.xid for row in rows}:
        verdict.void.append("no commit was found in PostgreSQL's log")
