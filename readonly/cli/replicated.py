"""What `status` says of the replicas that members read from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..confirmation import Confirmation
from ..replicating import Reported, at_work, reported
from .words import counted, printable


def known_replicas(found: Confirmation) -> tuple[Reported, ...]:
    """Return the replicas that members at work report."""
    return reported(at_work(found))


def replica_lines(replicas: Sequence[Reported]) -> list[str]:
    """Return what each replica is, and why members don't read from it, one line each."""
    lines = []
    for one in replicas:
        said = [f"fit for {one.fit} of {counted(one.members, 'member')}"]
        if one.at:
            said.append(f"at {one.at}")
        if one.paused:
            said.append("frozen")
        if one.lag is not None:
            said.append(f"{one.lag:.1f} s behind")
        if one.schema:
            said.append(f"schema {one.schema}")
        lines.append(f"replica {printable(one.name)} of {printable(one.database)}: {printable(', '.join(said))}")
        lines += [f"  not for {counted(count, 'member')}: it {printable(why)}" for why, count in one.unfit]
    return lines


def replica_fields(replicas: Sequence[Reported]) -> list[dict[str, Any]]:
    """Return the same as JSON fields."""
    return [
        {
            "database": one.database,
            "name": one.name,
            "members": one.members,
            "fit": one.fit,
            "unfit": [{"why": why, "members": count} for why, count in one.unfit],
            "lag": one.lag,
            "at": one.at,
            "frozen": one.paused,
            "schema": one.schema,
        }
        for one in replicas
    ]
