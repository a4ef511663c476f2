"""Members in groups, as commands show them: how many of a role do what was asked for, and who holds things up, by name.

A site may have hundreds of members. What is alike stands in one line; what is shown only in part says how much is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from ..confirmation import Condition, Confirmation, Member
from ..history import tally_of
from .words import clock_time, counted, printable, spoken

# Silent members: what they do now is not known.
SILENT = (Condition.LOST, Condition.EXPIRED, Condition.GONE)
# Who keeps an operator up longest comes first.
_WORST_FIRST = (
    Condition.LOST,
    Condition.INERT,
    Condition.UNPROVEN,
    Condition.GONE,
    Condition.EXPIRED,
    Condition.DRAINS,
    Condition.LATE,
)
# So many of one host, in one condition, are named one by one; more of them are one line.
ONE_BY_ONE = 2
PIDS_NAMED = 8
ROUTES_NAMED = 5
_COUNTED = {
    Condition.DRAINS: ("drains", "drain"),
    Condition.LATE: ("is late", "are late"),
    Condition.UNPROVEN: ("is unproven", "are unproven"),
    Condition.INERT: ("is inert", "are inert"),
}


def obeying(found: Confirmation) -> int:
    """Return how many members do what was asked for."""
    return sum(not m.blocks for m in found.members)


def role_lines(found: Confirmation, *, versions: bool = True) -> list[str]:
    """Return one line a role: how many of its members do what was asked for, and what the others do.

    Args:
        found: What was found.
        versions: Whether to say which versions of the library they run.
    """
    lines = []
    for role in sorted({m.report.role for m in found.members}):
        members = [m for m in found.members if m.report.role == role]
        lines.append(f"{printable(role):<8}  {_what_they_do(members, found.closing)}")
        if versions:
            lines[-1] += f"   readonly-mode {_versions(members)}"
    for role in sorted(set(found.roster) - {m.report.role for m in found.members}):
        crew = found.crews.get(role, 1)
        then = f", {crew} then" if crew > 1 else ""
        lines.append(f"{printable(role):<9} 0 now, last seen {spoken(found.roster[role])} ago{then}")
    return lines


def _what_they_do(members: Sequence[Member], closing: bool) -> str:
    if closing:
        text = f"{sum(not m.blocks for m in members)} of {len(members)} obey and have drained"
    else:
        done = sum(not m.blocks and m.condition not in SILENT for m in members)
        text = f"{done} of {len(members)} follow"
    held = Counter(m.condition for m in members if m.blocks)
    for condition, (one, many) in _COUNTED.items():
        if held[condition]:
            text += f", {held[condition]} {one if held[condition] == 1 else many}"
    silent = sum(m.condition in SILENT for m in members)
    return text + (f", {silent} silent" if silent else "")


def _versions(members: Iterable[Member]) -> str:
    libraries = Counter(m.report.library or "?" for m in members)
    return ", ".join(
        printable(version) + (f" ({number})" if len(libraries) > 1 else "")
        for version, number in sorted(libraries.items())
    )


def unguarded_lines(found: Confirmation) -> list[str]:
    """Return one line for each thing that can't be guarded and somebody has accepted, or found: what, and in whom."""
    counts = Counter(
        (report.role, guard.name, str(guard.server["unguarded"]))
        for report in (m.report for m in found.members)
        for guard in report.guards
        if guard.server.get("unguarded")
    )
    return [
        f"not guarded: {printable(name)} in {printable(what)} ({counted(number, 'member')} of {printable(role)})"
        for (role, name, what), number in sorted(counts.items())
    ]


def escape_lines(found: Confirmation) -> list[str]:
    """Return one line if writes got past the gate in this read-only time, and databases alone stopped them."""
    counted = tally_of(m.report.tally for m in found.members if m.report.causes)
    number, routes = counted.get("escaped"), counted.get("escaped_by_route")
    if not number:
        return []
    return [f"escaped   {number}{by_route(routes)}   only the database stopped them: a rule is missing"]


def by_route(counts: object) -> str:
    """Return routes and their numbers, the largest first, and no more than fit; "" where there are none."""
    if not isinstance(counts, Mapping):
        return ""
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:ROUTES_NAMED]
    return "".join(f"{', ' if place else '   '}{printable(str(route))} ({n})" for place, (route, n) in enumerate(most))


def holding_up(found: Confirmation) -> list[str]:
    """Return who and what keeps it from being proven, the worst first: one line a member, or a group of them."""
    lines = [printable(problem) for problem in found.problems]
    groups: dict[tuple[Condition, str, str], list[Member]] = {}
    for member in found.members:
        if member.blocks:
            groups.setdefault((member.condition, member.report.role, member.report.host), []).append(member)
    for (condition, _, _), members in sorted(groups.items(), key=lambda item: (_rank(item[0][0]), item[0][1:])):
        if len(members) <= ONE_BY_ONE:
            lines += [f"{printable(m.report.name)}: {printable(m.why)}" for m in members]
        else:
            lines.append(_group(condition, members, found))
    return lines


def _rank(condition: Condition) -> int:
    return _WORST_FIRST.index(condition) if condition in _WORST_FIRST else len(_WORST_FIRST)


def _group(condition: Condition, members: Sequence[Member], found: Confirmation) -> str:
    first = members[0].report
    flying = sum(m.report.in_flight for m in members)
    pids = ", ".join(str(m.report.pid) for m in members[:PIDS_NAMED])
    pids += f" and {len(members) - PIDS_NAMED} more" if len(members) > PIDS_NAMED else ""
    text = f"{printable(first.role)} {printable(first.host)}: {len(members)} {condition}"
    if condition in SILENT:
        heard = max(m.silent_seconds for m in members)
        text += f", heard last {clock_time(found.at - timedelta(seconds=heard), found.at)}, {spoken(heard)} ago"
        text += f", {counted(flying, 'write')} in flight then" if flying else ""
    elif condition is Condition.DRAINS:
        oldest = max(m.report.oldest_seconds for m in members)
        text += f", {counted(flying, 'write')} in flight, the oldest for {oldest:.1f} s or more"
    # What each says of itself, where that is what matters and most say the same.
    whys = Counter(m.why for m in members).most_common(1)
    meaning = _MEANS.get(condition) or printable(whys[0][0])
    return text + (f"; {meaning}" if meaning else "") + f" (pid {pids})"


_MEANS = {
    Condition.LOST: "they may still accept writes",
    Condition.EXPIRED: "their leases are over, they admit nothing; what they had begun may still commit",
    Condition.GONE: "their processes have ended; what they had begun may still commit",
    Condition.DRAINS: "they admit nothing any more",
}


def shortened(lines: Sequence[str], most: int, *, how: str = "") -> list[str]:
    """Return the first lines, so many at most; the last of them then says how many more there are.

    Args:
        lines: All of them.
        most: How many may be shown, one at least.
        how: What to type to see all.
    """
    if len(lines) <= most:
        return list(lines)
    left = len(lines) - max(0, most - 1)
    return [*lines[: max(0, most - 1)], f"and {left} more" + (f": {how}" if how else "")]


def member_line(member: Member, *, everything: bool) -> str:
    """Return one member as a line."""
    report = member.report
    text = f"{printable(report.role):<8}  {printable(report.host)}/{report.pid}   {member.condition}"
    text += f"   epoch {report.epoch}   {counted(report.in_flight, 'write')} in flight"
    text += f"   heard {member.silent_seconds:.1f} s ago"
    if report.inert and member.condition is not Condition.INERT:
        text += "   inert"
    if member.why:
        text += f"   ({printable(member.why)})"
    for cause in report.local:
        text += f"   sees: {printable(cause)}"
    if everything:
        text += f"   id {printable(report.id)}   readonly-mode {printable(report.library or '?')}"
        text += f"   lease {report.lease:g} s" if report.lease is not None else ""
        text += f"   runs {printable(report.runs)}" if report.runs else ""
    return text


def group_line(members: Sequence[Member]) -> str:
    """Return members of one role, host and condition as a line."""
    first = members[0].report
    flying = sum(m.report.in_flight for m in members)
    epochs = sorted({m.report.epoch for m in members})
    silent = max(m.silent_seconds for m in members)
    return (
        f"{printable(first.role):<8}  {printable(first.host)}   {len(members)} {members[0].condition}"
        f"   epoch {', '.join(map(str, epochs))}   {counted(flying, 'write')} in flight   heard {silent:.1f} s ago"
    )
