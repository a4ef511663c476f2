"""What commands say about instants, causes and members: as lines for people and as fields for programs."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from ..members import Condition, Confirmation, Member
from ..record import Cause
from ..state import State

# Silent members: what they do now is not known.
SILENT = (Condition.LOST, Condition.EXPIRED, Condition.GONE)
_OBEYED = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def printable(text: str) -> str:
    """Return text with what a terminal would obey (escape sequences, line breaks, direction marks) made visible."""
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in _OBEYED else c for c in text)


def rfc3339(value: datetime) -> str:
    """Return an instant as RFC 3339 in UTC, whole seconds."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock_time(value: datetime, now: datetime) -> str:
    """Return an instant as people say it: with the date only where it is not today's."""
    value, now = value.astimezone(UTC), now.astimezone(UTC)
    return value.strftime("%H:%M:%S UTC" if value.date() == now.date() else "%Y-%m-%d %H:%M:%S UTC")


def local_too(value: datetime, now: datetime) -> str:
    """Return an instant by UTC, and by this machine's time zone where that is another one."""
    local = value.astimezone()
    there = f" ({local:%H:%M %Z})" if local.utcoffset() else ""
    return clock_time(value, now) + there


def spoken(seconds: float) -> str:
    """Return a stretch of time as people say it."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    hours, minutes = divmod(whole // 60, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def counted(number: int, thing: str) -> str:
    """Return `1 member`, `2 members`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def expected_end(state: State, at: datetime) -> str:
    """Return the announced end with how far it is, or how long ago, or "" if none was announced."""
    if state.expected_end is None:
        return ""
    left = (state.expected_end - at).total_seconds()
    distance = f"in {spoken(left)}" if left >= 0 else f"overdue {spoken(-left)}"
    return f", expected until {local_too(state.expected_end, at)}, {distance}"


def cause_line(cause: Cause, at: datetime) -> str:
    """Return one cause as `on`, `off` and `status` show it."""
    text = f"{printable(cause.kind)} {printable(cause.id)}   {printable(cause.by)}"
    if cause.host and not cause.by.endswith("@" + cause.host):
        text += f" @ {printable(cause.host)}"
    text += f"   since {clock_time(cause.since, at)}"
    if cause.expected_end is not None:
        text += f", expected until {clock_time(cause.expected_end, at)}"
    if cause.sessions is not None:
        text += f"   sessions: {printable(cause.sessions)}"
    if cause.reason:
        text += f'   "{printable(cause.reason)}"'
    return text


def cause_lines(causes: Iterable[Cause], at: datetime) -> list[str]:
    """Return one line a cause, and one more for what it tells visitors."""
    lines = []
    for cause in causes:
        lines.append(cause_line(cause, at))
        if cause.message:
            lines.append(f'  visitors read: "{printable(cause.message)}"')
    return lines


def state_fields(state: State) -> dict[str, Any]:
    """Return a state as JSON fields."""
    return {
        "mode": str(state.mode),
        "epoch": state.epoch,
        "since": state.since,
        "expected_end": state.expected_end,
        "causes": [
            {
                "id": c.id,
                "kind": c.kind,
                "by": c.by,
                "host": c.host,
                "since": c.since,
                "reason": c.reason,
                "message": c.message,
                "expected_end": c.expected_end,
                "sessions": c.sessions,
            }
            for c in state.causes
        ],
    }


# --- members -----------------------------------------------------------------------------------------------------


def obeying(found: Confirmation) -> int:
    """Return how many members do what was asked for."""
    return sum(not m.blocks for m in found.members)


def role_lines(found: Confirmation) -> list[str]:
    """Return one line a role: how many of its members do what was asked for."""
    lines = []
    for role in sorted({m.report.role for m in found.members}):
        members = [m for m in found.members if m.report.role == role]
        silent = sum(m.condition in SILENT for m in members)
        if found.closing:
            done = sum(not m.blocks for m in members)
            text = f"{done} of {len(members)} obey and have drained"
        else:
            done = sum(not m.blocks and m.condition not in SILENT for m in members)
            text = f"{done} of {len(members)} follow"
        libraries = Counter(m.report.library or "?" for m in members)
        text += f", {silent} silent" if silent else ""
        versions = ", ".join(
            printable(version) + (f" ({number})" if len(libraries) > 1 else "")
            for version, number in sorted(libraries.items())
        )
        lines.append(f"{printable(role):<8}  {text}   readonly-mode {versions}")
    for role in sorted(set(found.roster) - {m.report.role for m in found.members}):
        lines.append(f"{printable(role):<9} 0 now, last seen {spoken(found.roster[role])} ago")
    return lines


def missing_lines(found: Confirmation) -> list[str]:
    """Return what keeps it from being proven, one line each."""
    return [printable(problem) for problem in found.missing]


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
        text += f"   runs {printable(report.runs)}" if report.runs else ""
    return text


def group_line(members: list[Member]) -> str:
    """Return members of one role, host and condition as a line."""
    first = members[0].report
    flying = sum(m.report.in_flight for m in members)
    epochs = sorted({m.report.epoch for m in members})
    silent = max(m.silent_seconds for m in members)
    return (
        f"{printable(first.role):<8}  {printable(first.host)}   {len(members)} {members[0].condition}"
        f"   epoch {', '.join(map(str, epochs))}   {counted(flying, 'write')} in flight   heard {silent:.1f} s ago"
    )


def confirmation_fields(found: Confirmation) -> dict[str, Any]:
    """Return a confirmation as JSON fields."""
    return {
        "epoch": found.epoch,
        "confirmed": found.safe,
        "members": [member_fields(m) for m in found.members],
        "missing": list(found.missing),
    }


def member_fields(member: Member) -> dict[str, Any]:
    """Return a member as JSON fields."""
    report = member.report
    return {
        "id": report.id,
        "role": report.role,
        "host": report.host,
        "pid": report.pid,
        "condition": str(member.condition),
        "why": member.why,
        "silent_seconds": round(member.silent_seconds, 1),
        "epoch": report.epoch,
        "in_flight": report.in_flight,
        "library": report.library,
        "runs": report.runs,
        "lease": report.lease,
        "inert": report.inert,
    }


def names(members: Iterable[Member], *, most: int) -> str:
    """Return why members are missing, the first few by name."""
    found = [f"{printable(m.report.name)}: {printable(m.why)}" for m in members]
    rest = len(found) - most
    return "; ".join(found[:most]) + (f"; and {rest} more" if rest > 0 else "")
