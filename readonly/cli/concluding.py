"""How `on`, `wait` and `off` end: what is true now, how strong that is, who is missing, and what to type next."""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import Any, NoReturn

from ..changes import Change
from ..confirmation import Condition, Confirmation, accepting_leases
from ..databases.fence import Fenced
from ..fencing import Raised
from ..record import LOCAL, RUN
from ..site import APP_ONLY, LEASE, Site, fence_problems, level_of
from ..state import State
from . import common
from .bypass import let_through
from .bypass import lines as bypass_lines
from .groups import SILENT, holding_up, role_lines, shortened
from .terminal import NOT_PROVEN, OK, Output
from .words import (
    cause_lines,
    coming,
    confirmation_fields,
    counted,
    local_too,
    opens_at,
    printable,
    spoken,
    state_fields,
)

LEVELS_MEAN = {
    APP_ONLY: "the site's own processes refuse; cron, consoles and other programs can still write to the database",
    LEASE: "you accepted that what these had begun may still commit; only a fence at the database would hold it back",
}
# Levels that only a fence reaches, and what they mean.
FENCED = ("hard", "cooperative")
FENCED_MEAN = {
    "hard": "the database refuses every client",
    "cooperative": "the database refuses every client that does not insist",
}
# Who is missing is named in so many lines; a site of hundreds has `members` for all of them.
LINES_OF_MISSING = 20
# A window so far ahead is news to whoever opens the site, or waits; a later one `schedule list` knows.
SOON = timedelta(days=1)
HOSTS_NAMED = 3


def conclude_closed(
    found: Confirmation,
    state: State,
    timeout: timedelta,
    options: common.Options,
    output: Output,
    *,
    seconds: float,
    raised: Raised | None = None,
    require: str | None = None,
    **said: Any,
) -> NoReturn:
    """Say whether writes have stopped, and end with 0 or 3: who is missing, what that means, what to type."""
    for line in role_lines(found):
        output.line("  " + line)
    level = level_of(found, raised)
    problems = fence_problems(found, raised)
    fields = {
        **state_fields(state),
        **confirmation_fields(found),
        "seconds": round(seconds, 3),
        "fences": fence_fields(raised),
        "replicas": _replicas(raised),
        "let_through": let_through(state, found.at),
        **said,
    }
    fields["missing"] = [*found.missing, *problems]
    safe = found.safe and not problems
    fields["confirmed"] = safe
    end = opens_at(state)
    until = "until `off`"
    if end is not None:
        until = f"until {local_too(end, found.at)}: then it opens by itself"
        until = until if end > found.at else "until a process has noticed that its window is over"
    for line in fence_lines(raised):
        output.line("  " + line)
    if safe and level in FENCED:
        for line in found.held:
            output.line(f"  held by the fence: {printable(line)}")
        weak = _weaker(level, require)
        output.line(
            f"SAFE ({level}) after {seconds:.1f} s: {FENCED_MEAN[level]}, {until}."
            + (f" You asked for {require}." if weak else "")
        )
        output.result(NOT_PROVEN if weak else OK, **fields, safe=not weak, level=level)
    if safe:
        who = counted(len(found.members), "member")
        what = (
            f"no write of {who} can commit any more" if level == APP_ONLY else f"none of {who} admits a write any more"
        )
        output.line(f"SAFE ({level}) after {seconds:.1f} s: {what}, {until}.")
        if found.accepted:
            output.line(f"  {LEASE}: {LEVELS_MEAN[LEASE]}:")
            for line in shortened([printable(a) for a in found.accepted], LINES_OF_MISSING, how=_everybody(options)):
                output.line("    " + line)
        output.line(f"  {APP_ONLY}: {LEVELS_MEAN[APP_ONLY]}.")
        for line in bypass_lines(state, found.at):
            output.line(f"  But who is let through still writes: {line}")
        weak = _weaker(level, require)
        if weak:
            output.line(f"  You asked for {require}: that takes a fence at the database, see `readonlyctl fence plan`.")
        if end is not None:
            output.hints(("it will take longer:", options.typed("extend 30m")))
        output.result(NOT_PROVEN if weak else OK, **fields, safe=not weak, level=level)
    output.line(
        f"NOT CONFIRMED after {spoken(timeout.total_seconds())}. The site is read-only; start nothing irreversible. "
        "Missing:"
    )
    missing = [*holding_up(found), *(printable(problem) for problem in problems)]
    for line in shortened(missing, LINES_OF_MISSING, how=_everybody(options)):
        output.line("  " + line)
    if found.of(Condition.EXPIRED, Condition.GONE) and any(m.blocks for m in found.members):
        output.line("What an ended process had begun, only the database knows of: a fence there would close that gap.")
    output.hints(*_ways_on(found, options))
    output.result(NOT_PROVEN, **fields, safe=False, level=None)


def _weaker(level: str, require: str | None) -> bool:
    order = ["", LEASE, "app", APP_ONLY, "cooperative", "hard"]
    wanted = APP_ONLY if require == "app" else require or ""
    return order.index(level) < order.index(wanted)


def fence_lines(raised: Raised | None) -> list[str]:
    """Return a line for each fence that stands: what it is worth, where, and what it leaves open."""
    lines = []
    for fenced in raised.fenced if raised is not None else ():
        where = f" at {fenced.position}" if fenced.position is not None else ""
        lines.append(f"fence {printable(fenced.name)}: {printable(str(fenced))}{where}   {printable(fenced.server)}")
        lines += [f"  left open: {printable(way.what)}" for way in fenced.ways if not way.insists]
        lines += [f"  ended: {printable(str(holdup))}" for holdup in fenced.ended]
        lines += [f"  covered since: {printable(what)}" for what in fenced.found]
    if raised is not None and raised.replicas:
        lines.append(f"replicas: {raised.there} of {len(raised.replicas)} there")
    return lines


def _replicas(raised: Raised | None) -> dict[str, int] | None:
    """Return as JSON how many replicas have passed the fences; None where there is none to ask after."""
    if raised is None or not raised.replicas:
        return None
    return {"there": raised.there, "of": len(raised.replicas)}


def fence_fields(raised: Raised | None) -> list[dict[str, Any]]:
    """Return fences as JSON fields."""
    return [fenced_fields(fenced) for fenced in (raised.fenced if raised is not None else ())]


def fenced_fields(fenced: Fenced) -> dict[str, Any]:
    """Return one fence as JSON fields."""
    return {
        "name": fenced.name,
        "server": fenced.server,
        "level": str(fenced.level),
        "strategy": str(fenced.strategy),
        "position": str(fenced.position) if fenced.position is not None else None,
        "system": fenced.position.server if fenced.position is not None else None,
        "raised_at": fenced.raised_at,
        "run": fenced.run,
        "holders": [{"cause": holder.cause, "by": holder.by, "at": holder.at} for holder in fenced.holders],
        "left_open": [way.what for way in fenced.ways],
        "ended": [str(holdup) for holdup in fenced.ended],
        "found": list(fenced.found),
    }


def _everybody(options: common.Options) -> str:
    return options.typed("members")


def _ways_on(found: Confirmation, options: common.Options) -> list[tuple[str, str]]:
    """Return what an operator may type next, and what it means to type it."""
    ways = [("keep waiting:", options.typed("wait --timeout 10m")), ("who is there:", options.typed("members"))]
    lost = [m for m in found.of(Condition.LOST) if m.blocks]
    at_work = {m.report.host for m in found.members if m.condition not in SILENT}
    # A host of which nobody reports is forgotten as a whole; of another one, process by process.
    named = dict.fromkeys(m.report.host if m.report.host not in at_work else m.report.id for m in lost)
    names = {m.report.id: m.report.name for m in lost}
    for name in list(named)[:HOSTS_NAMED]:
        ways.append(
            (
                f"{printable(names.get(name, name))} is over, you checked:",
                options.typed(f'members forget {shlex.quote(name)} --reason "how you know"'),
            )
        )
    only_leases = accepting_leases(found)
    if only_leases.accepted and only_leases.safe:
        ways.append(("what they had begun may commit:", options.typed("wait --accept lease")))
    return [*ways, ("open again:", options.typed("off"))]


def _lifting(state: State, options: common.Options) -> list[tuple[str, str]]:
    """Return what to type to lift what stands."""
    ways = []
    for cause in state.causes:
        command = f"off --cause {cause.id}"
        if cause.fence is not None:
            command = f"fence lift {shlex.quote(cause.fence.name)}"
        elif cause.kind == RUN:
            command = f"abandon {cause.id}"
        elif cause.kind == LOCAL:
            continue
        ways.append((f"lift {cause.id}:", options.typed(command)))
    return ways


def conclude_open(
    found: Confirmation, site: Site, options: common.Options, output: Output, *, change: Change | None = None
) -> NoReturn:
    """Say whether the site is open, and end with 0 or 3: what still stands, who does not follow yet."""
    # Somebody may have closed the site since: what is said last comes from a look made last.
    look = site.look()
    state, at = look.state, look.census.reading.at
    fields: dict[str, Any] = {**confirmation_fields(found), **state_fields(state)}
    if change is not None:
        fields |= {"lifted": list(change.causes) if change.changed else [], "changed": change.changed}
    if state.read_only:
        output.line(f"Still READ-ONLY, epoch {state.epoch}:" if state.causes else f"UNKNOWN: {state.unknown_because}")
        for line in cause_lines(state.causes, at):
            output.line("  " + line)
        ways = _lifting(state, options)
        if ways:
            output.hints(*ways)
        output.result(NOT_PROVEN, **fields | {"confirmed": False})
    for line in role_lines(found):
        output.line("  " + line)
    if not found.safe:
        output.line(f"WRITABLE by the record, epoch {state.epoch}; NOT CONFIRMED. These may still refuse writes:")
        for line in shortened(holding_up(found), LINES_OF_MISSING, how=_everybody(options)):
            output.line("  " + line)
        output.line(f"Processes follow by themselves. Keep watching: {options.typed('wait')}")
        output.result(NOT_PROVEN, **fields)
    following = sum(m.condition not in SILENT for m in found.members)
    who = f"{counted(following, 'member')} {'follows' if following == 1 else 'follow'}" if following else common.NOBODY
    before = " It was writable before; nothing was changed." if change is not None and not change.changed else ""
    output.line(f"WRITABLE, epoch {state.epoch}: {who}.{before}".replace("?.", "?"))
    window = state.next_window
    if window is not None and window.start - at <= SOON:
        # Who takes back what was announced, or waits for it, must not take this for the last word.
        output.line(f"It will not stay so: {coming(state, at)}.")
        output.hints(
            ("not after all:", options.typed(f"schedule {'skip' if window.schedule else 'cancel'} {window.id}"))
        )
    output.result(OK, **fields)
