"""What commands say of databases whose server is another one now, or of members that do not agree which it is."""

from __future__ import annotations

from typing import Any, NoReturn

from ..confirmation import Confirmation
from ..fencing import standing_fences
from ..site import Look
from ..switchover import MovedAway, Split, fenced_at, identity, of_fence
from . import common
from .terminal import REFUSED, Output
from .words import clock_time, counted, printable, state_fields

# Members of a server with the fewest of them are named: those are the ones to restart.
NAMED = 5


def split_lines(split: Split, look: Look) -> list[str]:
    """Return where a database was fenced, and where it is now, one line each."""
    lines = []
    mark = split.fence.fence if split.fence is not None else None
    rows: list[tuple[str, str, str, str]] = []
    if split.fence is not None and mark is not None:
        since = f"fenced at {clock_time(split.fence.since, look.census.reading.at)}"
        rows.append((since, mark.server, str(fenced_at(mark) or "not known"), ""))
    for index, seen in enumerate(split.seen):
        count = counted(len(seen.members), "member")
        rows.append(("now" if not index else "", seen.where, str(seen.identity), f"({count}{_who(split, index)})"))
    if split.here is not None and all(seen.identity != split.here for seen in split.seen):
        rows.append(("this machine", f"[fence.{split.name}]", str(split.here), ""))
    widths = [max(len(printable(row[column])) for row in rows) for column in range(3)]
    for row in rows:
        cells = [printable(cell).ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append(f"  {'   '.join(cells)}   {printable(row[3])}".rstrip())
    return lines


def split_fields(split: Split) -> dict[str, Any]:
    """Return the same as JSON fields."""
    mark = split.fence.fence if split.fence is not None else None
    fenced = None if mark is None else fenced_at(mark)
    return {
        "name": split.name,
        "why": split.why,
        "fenced": None
        if mark is None or fenced is None
        else {"server": mark.server, "system": fenced.system, "timeline": fenced.timeline},
        "now": [
            {
                "server": seen.where,
                "system": seen.identity.system,
                "timeline": seen.identity.timeline,
                "members": list(seen.members),
            }
            for seen in split.seen
        ],
    }


def refuse_split(refused: MovedAway, look: Look, options: common.Options, output: Output) -> NoReturn:
    """Say where each database is, and the two ways on, and end."""
    for split in refused.splits:
        output.line(f"REFUSED: {printable(split.why)}.")
        for line in split_lines(split, look):
            output.line(line)
    output.line("Opening now would let two servers take writes. Nothing was changed.")
    for split in refused.splits:
        first = "it has moved there" if len(split.seen) < 2 else "restart those that have not moved, then"
        output.hints(
            (f"{first}:", options.typed(f"off --moved {split.name}")),
            (f"it stays at {_stays_at(split)}:", options.typed(f"off --stay {split.name}")),
        )
    output.event("error", error="MovedAway", message=str(refused))
    output.result(
        REFUSED, **state_fields(look.state), changed=False, splits=[split_fields(split) for split in refused.splits]
    )


def replaced(look: Look, found: Confirmation) -> tuple[str, ...]:
    """Return the names of fences whose server is another one now, as members say: it may be one that never had them."""
    marks = [cause.fence for cause in standing_fences(look.record) if cause.fence is not None]
    guarded = [(member.report, one) for member in found.members for one in member.report.guards]
    names = []
    for mark in marks:
        now = [which for _, one in of_fence(mark, marks, guarded) if (which := identity(one)) is not None]
        fenced = fenced_at(mark)
        if fenced is not None and any(not which.is_same(fenced) for which in now):
            names.append(mark.name)
    return tuple(names)


def _who(split: Split, index: int) -> str:
    # The most used first: whoever is on another one than that is who has not moved, or was not to.
    if not index or len(split.seen[index].members) > NAMED:
        return ""
    return ": " + ", ".join(split.seen[index].members)


def _stays_at(split: Split) -> str:
    mark = split.fence.fence if split.fence is not None else None
    return printable(mark.server) if mark is not None and mark.server else "the old server"
