"""How `on`, `wait` and `off` end: what is true now, how strong that is, who is missing, and what to type next."""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import Any, NoReturn

from ..changes import Change
from ..members import Condition, Confirmation, accepting_leases
from ..site import APP_ONLY, LEASE, Site, level_of
from ..state import State
from . import common
from .groups import SILENT, holding_up, role_lines, shortened
from .terminal import NOT_PROVEN, OK, Output
from .words import cause_lines, confirmation_fields, counted, printable, spoken, state_fields

LEVELS_MEAN = {
    APP_ONLY: "the site's own processes refuse; cron, consoles and other programs can still write to the database",
    LEASE: "you accepted that what these had begun may still commit; only a fence at the database would hold it back",
}
# Who is missing is named in so many lines; a site of hundreds has `members` for all of them.
LINES_OF_MISSING = 20
HOSTS_NAMED = 3


def conclude_closed(
    found: Confirmation,
    state: State,
    timeout: timedelta,
    options: common.Options,
    output: Output,
    *,
    seconds: float,
    **said: Any,
) -> NoReturn:
    """Say whether writes have stopped, and end with 0 or 3: who is missing, what that means, what to type."""
    for line in role_lines(found):
        output.line("  " + line)
    level = level_of(found)
    fields = {**state_fields(state), **confirmation_fields(found), "seconds": round(seconds, 3), **said}
    if found.safe:
        who = counted(len(found.members), "member")
        what = (
            f"no write of {who} can commit any more" if level == APP_ONLY else f"none of {who} admits a write any more"
        )
        output.line(f"SAFE ({level}) after {seconds:.1f} s: {what}, until `off`.")
        if found.accepted:
            output.line(f"  {LEASE}: {LEVELS_MEAN[LEASE]}:")
            for line in shortened([printable(a) for a in found.accepted], LINES_OF_MISSING, how=_everybody(options)):
                output.line("    " + line)
        output.line(f"  {APP_ONLY}: {LEVELS_MEAN[APP_ONLY]}.")
        output.result(OK, **fields, safe=True, level=level)
    output.line(
        f"NOT CONFIRMED after {spoken(timeout.total_seconds())}. The site is read-only; start nothing irreversible. "
        "Missing:"
    )
    for line in shortened(holding_up(found), LINES_OF_MISSING, how=_everybody(options)):
        output.line("  " + line)
    if found.of(Condition.EXPIRED, Condition.GONE) and any(m.blocks for m in found.members):
        output.line("What an ended process had begun, only the database knows of: a fence there would close that gap.")
    output.hints(*_ways_on(found, options))
    output.result(NOT_PROVEN, **fields, safe=False, level=None)


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
        if state.causes:
            output.hints(*((f"lift {c.id}:", options.typed(f"off --cause {c.id}")) for c in state.causes))
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
    output.result(OK, **fields)
