"""Replicas at the command: what is said of those that are frozen, and `fence thaw`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from ..databases.freeze import Pause, Seen, StandbyError
from ..errors import ConfigurationError
from ..following import Standbys, size
from ..site import Site
from . import common
from .options import json_option
from .terminal import NOT_PROVEN, OK, Output, run
from .words import printable


def frozen_lines(site: Site, names: Iterable[str]) -> list[str]:
    """Return a line for each replica that a run froze: where it stands, and what waits for it."""
    known = {standby.name: standby for standby in site.standbys.freezable}
    lines = []
    for name in names:
        if name not in known:
            lines.append(f"{printable(name)}: nothing on this machine says how to reach it")
            continue
        try:
            lines.append(replica_line(known[name].look()))
        except StandbyError as error:
            lines.append(printable(str(error)))
    return lines


def replica_line(seen: Seen) -> str:
    """Return one replica in words: where it stands, whether it replays, and what waits for it."""
    if not seen.standing.replica:
        return f"{printable(seen.name)}: is no standby, it takes writes of its own"
    waiting = f"{size(seen.waiting_bytes)} of log wait there"
    if seen.log_bytes is not None:
        waiting += f", its log takes {size(seen.log_bytes)} in all"
    does = {Pause.YES: "paused", Pause.REQUESTED: "about to pause", Pause.NO: "follows"}[seen.pause]
    return f"{printable(seen.name)}: {does} at {seen.standing.at}, {waiting}"


@click.command("thaw", short_help="Have frozen replicas replay again; fence and site stay as they are.")
@click.argument("name", required=False)
@json_option
@click.pass_obj
def thaw(options: common.Options, name: str | None, as_json: bool) -> None:
    """Have the replicas of fence NAME (or of all) replay again, whoever paused them. It needs the replicas alone.

    For the night when the log that waits is about to fill a disk, and nobody is at work on the run that froze them.
    """
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        output.site = site.name
        groups = [group for group in site.standbys.groups if name in (None, group.fence.name)]
        standbys = Standbys(groups)
        if not standbys.freezable:
            raise ConfigurationError(
                f"no replica that may be frozen is named on this machine: freeze = […] in [fence.{name or 'NAME'}]. "
                "Nothing was changed"
            )
        thawed, problems = standbys.thaw()
        for one in standbys.freezable:
            if one.name in thawed:
                output.line(f"{printable(one.name)}: replays again")
            elif not any(problem.startswith(one.name) for problem in problems):
                output.line(f"{printable(one.name)}: was not paused")
        for problem in problems:
            output.line(f"NOT THAWED: {printable(problem)}")
        output.result(NOT_PROVEN if problems else OK, thawed=list(thawed), missing=list(problems))

    run(body, output)
