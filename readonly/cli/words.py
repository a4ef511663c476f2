"""What commands say about instants and causes, and all that they say as fields for programs."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from ..confirmation import Confirmation, Member
from ..record import WINDOW, Cause
from ..state import State

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


def opens_at(state: State) -> datetime | None:
    """Return when the site opens by itself: at the end of the last window; None where anything else stands."""
    windows = {w.id: w.end for w in (state.record.windows if state.record is not None else ())}
    ends = [windows.get(cause.id) if cause.kind == WINDOW else None for cause in state.causes]
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) else None


def coming(state: State, at: datetime) -> str:
    """Return when the site turns read-only by itself, and by whom, or "" if nothing is planned."""
    window = state.next_window
    if window is None:
        return ""
    left = (window.start - at).total_seconds()
    return (
        f"window {printable(window.id)} by {printable(window.by)} begins at {local_too(window.start, at)}, "
        f"in {spoken(left)}"
    )


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


def confirmation_fields(found: Confirmation) -> dict[str, Any]:
    """Return a confirmation as JSON fields."""
    return {
        "epoch": found.epoch,
        "confirmed": found.safe,
        "members": [member_fields(m) for m in found.members],
        "counts": condition_counts(found),
        "missing": list(found.missing),
        "accepted": list(found.accepted),
    }


def progress_fields(found: Confirmation) -> dict[str, Any]:
    """Return the same, with those members alone that hold things up: there may be hundreds, and many looks at them."""
    return {**confirmation_fields(found), "members": [member_fields(m) for m in found.members if m.blocks]}


def condition_counts(found: Confirmation) -> dict[str, int]:
    """Return how many members stand in which condition."""
    return dict(sorted(Counter(str(m.condition) for m in found.members).items()))


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
        "accepted": member.accepted,
        "silent_seconds": round(member.silent_seconds, 1),
        "epoch": report.epoch,
        "causes": list(report.causes),
        "local": list(report.local),
        "in_flight": report.in_flight,
        "oldest_seconds": round(report.oldest_seconds, 1),
        "library": report.library,
        "runs": report.runs,
        "lease": report.lease,
        "inert": report.inert,
        "guards": [{"name": g.name, "proof": g.proof, "server": dict(g.server)} for g in report.guards],
    }
