"""`run --dry-run`: every privilege, process and replica is looked at, nothing is changed and nothing is run."""

from __future__ import annotations

from typing import Any, NoReturn

from ..confirmation import Confirmation
from ..errors import Error
from ..run import standing_run
from ..site import Site
from . import common
from .fence import plan_fields, plan_lines
from .groups import holding_up, shortened
from .terminal import NOT_PROVEN, OK, Output
from .words import printable


def look_only(site: Site, options: common.Options, output: Output, *, fence: bool, freeze: bool) -> NoReturn:
    """Look at all that a run needs, change nothing, and end with 0 or 3."""
    problems: list[str] = []
    plans: list[dict[str, Any]] = []
    standing = standing_run(site.look().record)
    if standing is not None:
        problems.append(f"run {standing.id} by {standing.by} stands: one at a time")
    found: Confirmation = site.judge(site.look())
    problems += [printable(problem) for problem in found.problems]
    for line in shortened(holding_up(found), 5, how=options.typed("members")):
        output.line("  " + line)
    for one in site.fences.fences if fence else ():
        try:
            plan = one.preflight()
        except Error as error:
            problems.append(printable(str(error)))
            continue
        for line in plan_lines(one.name, plan):
            output.line(line)
        plans.append(plan_fields(one.name, plan))
        problems += [f"{one.name} lacks: {printable(statement)}" for statement in plan.missing]
    replicas: list[str] = []
    if fence:
        replicas, unfit = site.standbys.fitness(freeze=freeze)
        problems += map(printable, unfit)
        for line in replicas:
            output.line(f"replica {printable(line)}")
    if freeze and not (fence and site.standbys.freezable):
        problems.append("--freeze, and no replica that may be frozen is named: freeze = […] in [fence.NAME]")
    if not site.fences:
        output.line("no fence is configured: cron, consoles and other programs could still write")
    for problem in problems:
        output.line(f"not ready: {problem}")
    output.line("Nothing was changed, nothing was run." + ("" if problems else " A run could start."))
    output.result(NOT_PROVEN if problems else OK, fences=plans, replicas=replicas, missing=problems)
