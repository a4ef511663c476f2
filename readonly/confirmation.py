"""Is a change true of every process? What members say is judged here, by pure functions.

A silent member never proves anything (design rule 11): it is *gone* (it said goodbye, or its process is proven to be
over), *expired* (its lease and a margin are over, so that it admits nothing), or *lost*. What it had begun may still
commit, unless its last words were "nothing in flight, and refusing".
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from .errors import ConfigurationError, NotConfirmed
from .members import SLACK_SECONDS, Report, ttl_seconds
from .processes import is_gone
from .record import Record
from .state import State
from .stores import DEFAULT_ALIVE_SECONDS, ENDED_SECONDS, Seen

NOBODY = "no process of the site reports: is the middleware installed, and does it use this very store?"
# Clocks of two machines may differ by so much in speed: a lease is over for others only after this share more.
LEASE_DRIFT = 0.05
# A member that has been gone for longer than any transaction may last has nothing left that could commit.
LONGEST_TRANSACTION_SECONDS = 600.0
# Members of a role that is not there any more spoke last within so long of each other: who had left before is left out.
CREW_SECONDS = 60.0


class Condition(StrEnum):
    """Where one member stands, seen from a change that is being confirmed."""

    OBEYS = "obeys"
    DRAINS = "drains"
    LATE = "late"
    UNPROVEN = "unproven"
    INERT = "inert"
    LOST = "lost"
    EXPIRED = "expired"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Member:
    """A report, how old it is, and what that makes of its sender.

    Attributes:
        report: What it said last.
        silent_seconds: How long ago that was.
        condition: Where it stands.
        why: Why it does not prove anything, as the end of a sentence; "" if it does.
        accepted: A person accepts that it does not, in words that they typed.
        held: A hard fence keeps it from writing, whatever it does.
    """

    report: Report
    silent_seconds: float
    condition: Condition
    why: str = ""
    accepted: bool = False
    held: bool = False

    @property
    def blocks(self) -> bool:
        """True while this member keeps a change from being proven."""
        return bool(self.why) and not self.accepted and not self.held


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The answer to "is it true yet?", from one atomic read of record and registry.

    Attributes:
        epoch: Epoch of the record that was read, 0 without one.
        causes: Ids of the causes that were asked for.
        closing: True if it was asked whether writes have stopped, False if it was asked whether they may go on.
        at: Store's clock, UTC.
        members: Every registered member that counts.
        problems: What is missing apart from members, one sentence each.
        roster: Every role that reported lately, and how many seconds ago it did last.
        crews: How many of each role there were then.
        settled: The store has been known for so long that whoever knows more than it holds has said so.
    """

    epoch: int
    causes: tuple[str, ...]
    closing: bool
    at: datetime
    members: tuple[Member, ...]
    problems: tuple[str, ...] = ()
    roster: Mapping[str, float] = field(default_factory=dict)
    crews: Mapping[str, int] = field(default_factory=dict)
    settled: bool = True

    def of(self, *conditions: Condition) -> tuple[Member, ...]:
        """Return the members in these conditions."""
        return tuple(m for m in self.members if m.condition in conditions)

    @property
    def missing(self) -> tuple[str, ...]:
        """What keeps this from being proven, one sentence each; empty when it is."""
        return (*self.problems, *(f"{m.report.name}: {m.why}" for m in self.members if m.blocks))

    @property
    def safe(self) -> bool:
        """True when what was asked for is true of every process that is known, or accepted of those that are over."""
        return not self.missing

    @property
    def accepted(self) -> tuple[str, ...]:
        """What a person accepted instead of a proof, one sentence each; empty where nothing had to be."""
        return tuple(f"{m.report.name}: {m.why}" for m in self.members if m.why and m.accepted)

    @property
    def held(self) -> tuple[str, ...]:
        """Who proves nothing and is kept from writing by a hard fence, one sentence each."""
        return tuple(f"{m.report.name}: {m.why}" for m in self.members if m.why and m.held)

    def require_safe(self) -> Confirmation:
        """Return self if safe.

        Raises:
            NotConfirmed: Something is missing.
        """
        if not self.safe:
            raise NotConfirmed("not confirmed: " + "; ".join(self.missing), missing=self.missing)
        return self


def accepting_leases(found: Confirmation, *, waited: float = math.inf) -> Confirmation:
    """Return a confirmation in which members that admit nothing any more hold nothing up: the level of a lease.

    Those are the expired and the gone. What they had begun may still commit: only a person can accept that.

    Args:
        found: What was found.
        waited: For how many seconds, by the clock of whoever asks, the causes have been in the store. Who is expired is
            told by the store's wall clock, and a clock that is set forwards ends no lease.
    """
    if not found.closing:
        return found

    def over(member: Member) -> bool:
        lease = member.report.lease
        expired = member.condition is Condition.EXPIRED and lease is not None and waited > _over_after(lease)
        return bool(member.why) and (expired or member.condition is Condition.GONE)

    members = (replace(m, accepted=True) if over(m) else m for m in found.members)
    return replace(found, members=tuple(members))


def held_by_fence(found: Confirmation, *, lost: bool = False) -> Confirmation:
    """Return a confirmation in which members that a hard fence keeps from writing hold nothing up.

    Those that ended, or whose lease is over, admit nothing; what they had begun is waited for by the fence, or refused.

    Args:
        found: The confirmation.
        lost: Count on the fence for silent members of which nothing is known, and for inert ones, too: they may still
            admit requests, and their visitors get errors.
    """
    if not found.closing:
        return found
    over = {Condition.EXPIRED, Condition.GONE} | ({Condition.LOST, Condition.INERT} if lost else set())
    members = (replace(m, held=True) if m.why and m.condition in over else m for m in found.members)
    return replace(found, members=tuple(members))


def confirm(
    record: Record | None,
    reports: Sequence[Seen],
    *,
    causes: Iterable[str],
    closing: bool,
    at: datetime,
    expect: Mapping[str, Expected] | None = None,
    here_since: Mapping[str, datetime] | None = None,
    registry: str = "",
    incarnation_seconds: float = float("inf"),
    forgotten: Collection[str] = (),
    longest_transaction: float = LONGEST_TRANSACTION_SECONDS,
) -> Confirmation:
    """Judge every member against a change: by cause, not by epoch (design rule 11).

    Args:
        record: The record, read in the same step as the reports, or None.
        reports: The registry.
        causes: Ids of the causes that must (closing) or must not (opening) be in force everywhere.
        closing: Whether writes must have stopped.
        at: Store's clock, UTC.
        expect: How many of each role must be there.
        here_since: For each cause, when it came into this store.
        registry: What names the registry, as it does in reports of members that know it; "" asks nobody.
        incarnation_seconds: How long this store has been known; a registry younger than a member's silence may be
            missing somebody who is still at work (design rule 6).
        forgotten: Ids of members that a person vouched for.
        longest_transaction: Seconds after its end from which a process has nothing left that could commit.
    """
    wanted = tuple(causes)
    problems: list[str] = []
    state = State.at(at, record)
    present = {c.id for c in state.causes}
    good = {one.id for one in state.bypasses if at < one.until}
    if closing and not wanted:
        # Members of an emptied store refuse, too, until one that knows more writes the whole record back.
        problems.append("no cause keeps the site read-only: it may open by itself")
    if closing and record is not None and record.partial:
        # Nobody who reports remembers anything of before, so nobody remembers who had begun to write, either.
        problems.append(
            "the store was emptied, and no process that knew the site before has reported since: what others had "
            f"begun may still commit; when all of them are over: readonlyctl init {record.site}"
        )
    for cause in wanted:
        if closing and cause not in present:
            problems.append(f"the store does not hold {cause} any more")
        if not closing and cause in present:
            problems.append(f"the store holds {cause} again")
    loaded = [(Report.load(s.member, s.report), s) for s in reports]
    heard = [(report.role, max(0.0, (at - s.at).total_seconds())) for report, s in loaded]
    roster: dict[str, float] = {}
    for role, ago in heard:
        roster[role] = min(roster.get(role, ago), ago)
    crews = Counter(role for role, ago in heard if ago <= roster[role] + CREW_SECONDS)
    found = [
        _judge(report, s, wanted, present, good, closing, at, here_since or {}, registry, longest_transaction)
        for report, s in loaded
    ]
    members = tuple(sorted((m for m in found if m is not None), key=lambda m: (m.report.role, m.report.name)))
    alive = [m for m in members if m.condition not in (Condition.LOST, Condition.EXPIRED, Condition.GONE)]
    if closing and not alive:
        problems.append(NOBODY)
    problems += roles_missing(expect or {}, [m.report for m in alive])
    settled_after = max((ttl_seconds(m.report) for m in alive), default=DEFAULT_ALIVE_SECONDS)
    settled = incarnation_seconds >= settled_after
    if not settled and not closing:
        problems.append(
            f"the store is known for {incarnation_seconds:.1f} s only: who knows of a cause that it has lost has until "
            f"{settled_after:.1f} s to bring it back"
        )
    if closing and alive:
        if not settled:
            problems.append(
                f"the store is known for {incarnation_seconds:.1f} s only: who was there before has until "
                f"{settled_after:.1f} s to report again"
            )
        elif incarnation_seconds < longest_transaction - ENDED_SECONDS:
            # Those that ended so long before the loss were remembered by nobody.
            problems.append(
                f"the store is known for {incarnation_seconds:.0f} s only: what processes had begun that ended before "
                f"may still commit until {longest_transaction - ENDED_SECONDS:.0f} s, since a transaction may last "
                f"{longest_transaction:.0f} s"
            )
    if closing:
        # Age alone proves nothing: a member that stood still when the store forgot it may wake up at any time.
        known_now = {s.member for s in reports} | set(forgotten)
        problems += [
            f"member {lost} was known before the store lost its registry and has not reported since: if its process "
            f"is over, readonlyctl members forget {lost}"
            for lost in sorted({known for report, _ in loaded for known in report.knew} - known_now)
        ]
    return Confirmation(
        epoch=record.epoch if record is not None else 0,
        causes=wanted,
        closing=closing,
        at=at,
        members=members,
        problems=tuple(problems),
        roster=roster,
        crews=crews,
        settled=settled,
    )


def roles_missing(expect: Mapping[str, Expected], alive: Sequence[Report]) -> list[str]:
    """Return of which roles fewer (or more) report than are expected, one sentence each."""
    there = Counter(report.role for report in alive)
    return [
        f"{role}: {there[role]} report, expected {expected}"
        for role, expected in expect.items()
        if not expected.met_by(there[role])
    ]


def _judge(
    report: Report,
    seen: Seen,
    causes: Sequence[str],
    present: Collection[str],
    good: Collection[str],
    closing: bool,
    at: datetime,
    here_since: Mapping[str, datetime],
    registry: str,
    longest_transaction: float,
) -> Member | None:
    silent = max(0.0, (at - seen.at).total_seconds())

    def member(condition: Condition, why: str = "") -> Member:
        return Member(report, silent, condition, why)

    # Who lets somebody through that nobody else does any more may have let writes begin that nobody counts.
    over = not set(report.lets).issubset(good)
    idle = report.closed and report.synced and not report.in_flight and set(causes) <= set(report.causes) and not over
    if report.gone:
        # Its last words settle it: nothing in flight, so nothing of its own can commit any more.
        if not report.in_flight or silent > longest_transaction:
            return None
        return member(
            Condition.GONE,
            f"ended with {_writes(report)} in flight, which may still commit" if closing else "",
        )
    if silent > ttl_seconds(report) or report.found_gone:
        if not closing:
            return member(Condition.GONE if report.found_gone or is_gone(report) else Condition.LOST)
        begun = f"{_writes(report)} in flight then" if report.in_flight else "it may have begun writes since"
        if report.found_gone or is_gone(report):
            if silent > longest_transaction:
                return None
            return member(Condition.GONE, "" if idle else f"its process has ended; {begun}")
        if _expired(report, causes, at, here_since):
            return member(Condition.EXPIRED, "" if idle else f"its lease is over, it admits nothing; {begun}")
        if idle:
            return member(Condition.LOST, f"silent for {silent:.0f} s; it obeyed then, with nothing in flight")
        return member(Condition.LOST, f"silent for {silent:.0f} s and may still accept writes; {begun}")
    if report.inert:
        return member(Condition.INERT, "inert (READONLY_DISABLED is set there): it refuses nothing" if closing else "")
    if closing:
        return _judge_closing(report, causes, registry, member, over=over)
    held = sorted(set(causes) & set(report.causes))
    if held:
        return member(Condition.LATE, f"still holds {', '.join(held)}")
    if report.closed and not set(report.causes) & set(present):
        # Not for a cause of the record: it takes no writes all the same, and "writable" would not be true of it.
        lost = f"it holds {', '.join(sorted(report.causes))}, which the store does not" if report.causes else ""
        why = "; ".join(report.local) or lost or "it has not read a state yet that it may trust"
        return member(Condition.LATE, f"still refuses writes: {why}")
    return member(Condition.OBEYS)


def _writes(report: Report) -> str:
    return "1 write" if report.in_flight == 1 else f"{report.in_flight} writes"


def _forgetful(report: Report) -> str:
    if report.registry:
        return "has not said yet whom it knew before the store lost its list of members"
    return (
        "does not say which list of members it reports to: it has only just begun, or runs a version of readonly-mode "
        f"that can't ({report.library or 'unknown'}): start it again with this one"
    )


def _judge_closing(report: Report, causes: Sequence[str], registry: str, member: Any, *, over: bool) -> Member:
    found: Member
    missing = sorted(set(causes) - set(report.causes))
    if not report.closed or missing:
        found = member(Condition.LATE, "has not taken the change in yet")
    elif over:
        found = member(Condition.LATE, "still lets somebody through by a bypass that is over")
    elif report.in_flight:
        found = member(
            Condition.DRAINS,
            f"{_writes(report)} in flight, the oldest for {report.oldest_seconds:.1f} s or more",
        )
    elif any(g.proof for g in report.guards):
        what = "; ".join(f"{g.name}: {g.proof}" for g in report.guards if g.proof)
        found = member(Condition.UNPROVEN, f"its database guard has not proven itself ({what})")
    elif registry and report.registry != registry:
        # Nobody asks this of the silent: what they said of their own writes is as true as before, and for those who
        # can't say any more whom they knew, every member is known to several.
        found = member(Condition.LATE, _forgetful(report))
    else:
        found = member(Condition.OBEYS)
    return found


def _expired(report: Report, causes: Sequence[str], at: datetime, here_since: Mapping[str, datetime]) -> bool:
    # Counted from when the cause came into this very store, and again whenever it was lost (protocol.md 1.22).
    if report.lease is None:
        return False
    since = [here_since.get(cause, at) for cause in causes]
    if not since:
        return False
    return (at - max(since)).total_seconds() > _over_after(report.lease)


def _over_after(lease: float) -> float:
    """Return after how many seconds a lease is over for others."""
    return lease * (1 + LEASE_DRIFT) + SLACK_SECONDS


@dataclass(frozen=True, slots=True)
class Expected:
    """How many members of a role must be there."""

    count: int
    at_least: bool = True

    def met_by(self, there: int) -> bool:
        """Return whether so many are right."""
        return there >= self.count

    def __str__(self) -> str:
        return f"{self.count}" + (" or more" if self.at_least else "")


_EXPECT = re.compile(r"\s*(?P<role>[\w.-]+)\s*(?P<sign>>=|=)\s*(?P<count>\d+)\s*")


def parse_expect(text: str) -> dict[str, Expected]:
    """Read `"web=4,celery>=2"`. More than were expected never keeps a change from being proven; fewer do.

    Raises:
        ConfigurationError: It can't be read.
    """
    found: dict[str, Expected] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        match = _EXPECT.fullmatch(part)
        if match is None:
            raise ConfigurationError(f"expect={text!r}: {part!r} can't be read: write role=number, as in 'web=4'")
        found[match["role"]] = Expected(int(match["count"]), at_least=match["sign"] == ">=")
    return found
