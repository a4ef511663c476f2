"""What `run`, `status` and `attach` say of a run: how far it came, what holds now, and each way on as a command."""

from __future__ import annotations

import shlex
from typing import Any

from ..databases.fence import FenceError
from ..run import Progress
from ..run.journal import WATCH
from ..site import Site
from . import common
from .fence import holdup_line
from .frozen import frozen_lines
from .words import clock_time, printable, spoken

# What was noticed of frozen replicas is said by its last lines.
NOTICED = 3


def run_lines(found: Progress, site: Site, options: common.Options) -> list[str]:
    """Return how far a run came, what holds now, and the ways on, each as a command."""
    lines = []
    cause = found.cause
    at = site.look().census.reading.at
    if cause is not None:
        reason = f'   "{printable(cause.reason)}"' if cause.reason else ""
        since = clock_time(cause.since, at)
        lines.append(f"run {found.id}   {printable(cause.by)} @ {printable(cause.host)}{reason}   since {since}")
    if found.command:
        lines.append(f"  command  {printable(shlex.join(found.command))}")
    lines.append(f"  done     {' · '.join(found.done) or 'nothing'}")
    lines += [
        f"  schema   {printable(name)} at {printable(v) or '(none)'} at the fence" for name, v in found.schema.items()
    ]
    lines += [f"  noticed  {printable(entry.said)}" for entry in found.entries if entry.step == WATCH][-NOTICED:]
    if cause is None:
        return lines
    lines += [f"  frozen   {line}" for line in frozen_lines(site, found.frozen)]
    if found.reports:
        lines.append("  now      at work")
        lines.append(f"  its output, on that machine:  {options.typed(f'attach {found.id}')}")
        return lines
    if found.heard_seconds is not None and not _ended(found):
        lines.append(f"  STOPPED REPORTING {spoken(min(found.heard_seconds, _longest(found, at)))} ago")
    if found.frozen:
        lines.append(
            f"  nobody looks after the log that waits there; thaw without opening:  {options.typed('fence thaw')}"
        )
    still = _sessions(found, site)
    lines += [f"  STILL AT WORK at the database: {line}" for line in still]
    again = options.typed(f"resume {found.id} -- {printable(shlex.join(found.command)) or 'COMMAND'}")
    give_up = options.typed(f"abandon {found.id}")
    if found.log and found.command_began:
        lines.append(f"  log of the command: {printable(found.log)}")
    if still:
        lines.append(f"  wait for it, or end it and open the site:   {give_up} --end-sessions")
    if not found.command_began:
        lines.append("  the command was never started")
        lines.append(f"  go on:                 {again}")
    elif found.exit_code is None:
        lines.append("  how the command ended is not known: read its log, look at the database")
        lines.append(f"  it had succeeded:      {options.typed(f'resume {found.id}')}")
        lines.append(f"  it had failed:         {again}      (runs it again)")
    elif found.exit_code == 0:
        lines.append(f"  go on:                 {options.typed(f'resume {found.id}')}")
    else:
        lines.append(f"  the command ended with {found.exit_code}")
        lines.append(f"  try again:             {again}")
    lines.append(f"  open the site as is:   {give_up}")
    return lines


def _ended(found: Progress) -> bool:
    return found.exit_code is not None


def _longest(found: Progress, at: Any) -> float:
    began = min((entry.at for entry in found.entries), default=at)
    return float(max(0.0, (at - began).total_seconds()))


def _sessions(found: Progress, site: Site) -> list[str]:
    lines = []
    for one in site.fences.fences:
        try:
            lines += [holdup_line(holdup) for holdup in one.sessions_of(found.id)]
        except FenceError as error:
            lines.append(f"not known: {printable(str(error))}")
    return lines
