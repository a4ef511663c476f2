"""The replicas that members read from, as they report them, and which have passed the fence. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .confirmation import Condition, Confirmation
from .members import Report
from .record import Record

# Members that serve requests, so that what they say of replicas is true of what is read now.
_AT_WORK = frozenset({Condition.OBEYS, Condition.DRAINS, Condition.LATE, Condition.UNPROVEN, Condition.INERT})


@dataclass(frozen=True, slots=True)
class Reported:
    """One replica, as the members that may read from it see it.

    Attributes:
        database: The name of its primary in the application.
        name: What they call it.
        lag: Seconds that it is behind, the most that any of them found; None where it does not tell.
        at: The position that it was seen at.
        paused: It does not replay.
        schema: The schema version that it has; "" where nobody asked.
        behind: Why it has not passed the fence, "" if it has or is not there.
        unfit: Why it is not fit for members, each reason once, and for how many.
        members: How many report it.
    """

    database: str
    name: str
    lag: float | None
    at: str
    paused: bool
    schema: str
    behind: str
    unfit: tuple[tuple[str, int], ...]
    members: int

    @property
    def fit(self) -> int:
        """For how many members it is fit."""
        return self.members - sum(count for _, count in self.unfit)


def at_work(found: Confirmation) -> list[Report]:
    """Return the reports of members that read now."""
    return [member.report for member in found.members if member.condition in _AT_WORK]


def reported(reports: Iterable[Report]) -> tuple[Reported, ...]:
    """Return every replica that members report, in order of their names."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for report in reports:
        for guarded in report.guards:
            for replica in _list(guarded.server.get("replicas")):
                found.setdefault((guarded.name, str(replica.get("name", "?"))), []).append(replica)
    return tuple(_together(database, name, seen) for (database, name), seen in sorted(found.items()))


def names(reports: Iterable[Report]) -> tuple[str, ...]:
    """Return what members call the replicas that they report."""
    return tuple(dict.fromkeys(one.name for one in reported(reports)))


def missing(record: Record, reports: Iterable[Report]) -> tuple[str, ...]:
    """Return which replicas have not passed the fences that stand, one sentence each, and who can't tell yet.

    A replica that is not there is none of them: nobody reads from it.

    Args:
        record: What stands.
        reports: The last words of every member that reads.
    """
    reports = list(reports)
    fences = {c.id for c in record.causes if c.fence is not None and c.fence.position}
    if not fences:
        return ()
    unaware = [r for r in reports if _has_replicas(r) and not fences <= set(r.causes)]
    behind = [r for r in reports if _has_replicas(r) and fences <= set(r.causes)]
    sentences = [f"{one.name} {one.behind}" for one in reported(behind) if one.behind]
    if unaware:
        sentences.append(f"{unaware[0].name} has not said yet where its replicas are" + _more(len(unaware)))
    return tuple(sentences)


def _together(database: str, name: str, seen: list[Mapping[str, Any]]) -> Reported:
    lags = [float(one["lag"]) for one in seen if isinstance(one.get("lag"), (int, float))]
    whys: dict[str, int] = {}
    for one in seen:
        why = str(one.get("unfit", ""))
        if why:
            whys[why] = whys.get(why, 0) + 1
    last = seen[-1]
    return Reported(
        database,
        name,
        max(lags, default=None),
        str(last.get("at", "")),
        any(bool(one.get("paused")) for one in seen),
        str(last.get("schema") or ""),
        next((str(one["behind"]) for one in seen if one.get("behind")), ""),
        tuple(sorted(whys.items(), key=lambda item: -item[1])),
        len(seen),
    )


def _has_replicas(report: Report) -> bool:
    return any(_list(guarded.server.get("replicas")) for guarded in report.guards)


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list | tuple) else []


def _more(count: int) -> str:
    return f", and {count - 1} more" if count > 1 else ""


__all__ = ["Reported", "at_work", "missing", "names", "reported"]
