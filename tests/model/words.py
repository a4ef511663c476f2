"""States and events of the model, as people would tell them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from readonly.record import Record

from .search import Event, Point
from .values import CLOSED, DEAD, DOWN, IDLE, LEASED, OPENED, SAFE

if TYPE_CHECKING:
    from .protocol import Model

OPERATORS = ("on", "safe", "safe by lease", "confirm", "off", "fence")
WORDS = {
    "on": "{who}: on, acknowledged",
    "off": "{who}: off, acknowledged",
    "safe": "{who}: is told SAFE",
    "safe by lease": "{who}: is told SAFE BY LEASE",
    "confirm": "{who} looks, and waits on",
    "fence": "{who}: raises the fence, is told SAFE",
    "beat": "{who} sends a heartbeat",
    "pack": "{who} builds a report",
    "deaf": "{who} reports, the answer is lost",
    "peek": "{who} reads without reporting",
    "restore": "{who} writes back",
    "count": "{who} counts a write",
    "look": "{who} looks",
    "admit": "{who} counts, looks, admits a write",
    "commit": "{who} COMMIT",
    "orphan": "COMMIT of what {who} had begun",
    "stop": "{who} is stopped",
    "continue": "{who} continues",
    "kill": "{who} is killed",
    "leave": "{who} says goodbye and ends",
    "bury": "{who} finds a silent process over",
    "boot": "{who} boots",
    "cut": "{who} loses its link to the store",
    "heal": "{who} reaches the store again",
    "tick": "time passes",
    "drift": "time passes, but not on {who}'s clock",
    "flush": "FLUSHALL",
    "sync": "the replica catches up",
    "failover": "failover to the replica",
    "split": "the replica leads, and the old primary",
}


def told(event: Event) -> str:
    """Return an event in a few words."""
    who = f"op{event.who}" if event.kind in OPERATORS else f"p{event.who}"
    return WORDS[event.kind].format(who=who)


def record_shown(record: Record | None) -> str:
    """Return a record as people write it: e2=RO{c0}, with a question mark where it is partial."""
    if record is None:
        return "nothing"
    causes = "RO{" + " ".join(c.id for c in record.causes) + "}" if record.causes else "W"
    lifted = " -" + " ".join(sorted(record.lifted)) if record.lifted else ""
    return f"e{record.epoch}={causes}{lifted}" + ("?" if record.partial else "")


def shown(model: Model, point: Point) -> str:
    """Return a state in one line."""
    s, r, old, desks, _, fence, *ps = point
    parts = [f"store {_server(model, s)}"]
    parts += [f"replica {_server(model, r)}"] if r else []
    parts += [f"old {_server(model, old)}"] if old else []
    parts += [_process(model, slot, p) for slot, p in enumerate(ps)]
    told_so = {IDLE: "", CLOSED: "on", SAFE: "told SAFE", LEASED: "told SAFE BY LEASE", OPENED: "off"}
    parts += [f"op{i} {told_so[desk.phase]}" for i, desk in enumerate(model.desks[desks]) if desk.phase]
    holders = [f"op{i}" for i in range(model.config.operators) if fence >> i & 1]
    parts += ["fence held by " + ", ".join(holders)] if holders else []
    return " | ".join(parts)


def _server(model: Model, number: int) -> str:
    server = model.server(number)
    there = ",".join(member for member, _, _ in server.registry) or "nobody"
    return f"{record_shown(model.record(server.record))} ({there})"


def _process(model: Model, slot: int, p: int) -> str:
    process = model.processes[p]
    name = process.name(slot)
    status = ("down", "", "stopped", "dead")[process.status]
    if process.status in (DOWN, DEAD):
        return f"{name} {status}" + (", its COMMIT is on its way" if process.orphan else "")
    said = [record_shown(model.knowledge(process.known).record)]
    said.append("closed" if model.view(process).read_only else "open")
    said.append(status)
    said.append(("", "cut off", "with the old primary")[process.link])
    said.append(("", "counted", "looked", "ADMITTED", "counted late")[process.write])
    said.append(f"asks after {' '.join(process.others.knew)}" if process.others.knew else "")
    said.append("a COMMIT of its last life is on its way" if process.orphan else "")
    return f"{name} " + ", ".join(filter(None, said))
