"""The fences of a site, one by one: fence status, plan, raise, lift, install."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, NoReturn

import click

from ..databases.fence import Fence, FenceError, FenceRefused, Holdup, Preflight
from ..errors import ConfigurationError, StoreUnreachable
from ..fencing import Lowered, Raised, standing_fences
from ..record import FENCE, LOCAL
from ..site import Site
from . import common
from .frozen import frozen_lines, thaw
from .options import Duration, json_option, timeout_option
from .terminal import NOT_PROVEN, OK, REFUSED, Output, run
from .words import printable

CHARACTERS_OF_STATEMENT = 60


def holdup_line(holdup: Holdup) -> str:
    """Return one transaction that is waited for, in words."""
    said = printable(str(holdup))
    if holdup.since is not None:
        said += f", since {holdup.since:%H:%M:%S} UTC"
    if holdup.doing:
        doing = printable(" ".join(holdup.doing.split()))
        said += f": {doing[:CHARACTERS_OF_STATEMENT]}" + ("…" if len(doing) > CHARACTERS_OF_STATEMENT else "")
    return said


def holdup_fields(holdup: Holdup) -> dict[str, Any]:
    """Return one transaction that is waited for as JSON fields."""
    return {
        "pid": holdup.pid,
        "user": holdup.user,
        "application": holdup.application,
        "since": holdup.since,
        "doing": holdup.doing,
        "prepared": holdup.prepared,
    }


def say_lowered(down: Lowered, output: Output) -> None:
    """Say what became of the fences before the gate opens."""
    output.event(
        "fences",
        down=[one.name for one in down.lifted if one.down],
        standing=list(down.standing),
        lost=list(down.said),
    )
    for one in down.lifted:
        if one.down and one.given_back:
            output.line(f"Lifted   fence {printable(one.name)}: {one.given_back} privileges or triggers put back")
    for sentence in down.said:
        output.line(f"warning: {printable(sentence)}")
    for sentence in down.standing:
        output.line(f"Not lifted: {printable(sentence)}")


@click.group(short_help="What the databases refuse: status, plan, raise, lift, install.")
def fence() -> None:
    """Look at the fences that readonly.toml names; raise or lift them one by one. `on` and `off` do both for you."""


def _chosen(site: Site, name: str | None) -> list[Fence]:
    known = [one.name for one in site.fences.fences]
    if not known:
        raise ConfigurationError(
            f"no fence is configured for {site.name} on this machine: readonly.toml needs a table [fence.main] with "
            "url and writers. Nothing was changed"
        )
    if name is not None and name not in known:
        raise ConfigurationError(f"there is no [fence.{name}]; configured: {', '.join(known)}. Nothing was changed")
    return [one for one in site.fences.fences if name in (None, one.name)]


@fence.command("status", short_help="Which fences stand, who holds them, and what they do not cover.")
@click.argument("name", required=False)
@json_option
@click.pass_obj
def status(options: common.Options, name: str | None, as_json: bool) -> None:
    """Ask each database which fence stands in it. Needs no store. Exits 0 if all stand and cover everything, else 3."""
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        from .concluding import fenced_fields

        site = options.site()
        output.site = site.name
        fields: list[dict[str, Any]] = []
        for one in _chosen(site, name):
            try:
                up = one.status()
                bare = one.open_tables() if up is not None else ()
            except FenceError as error:
                output.line(f"{printable(one.name)}: {printable(str(error))}")
                fields.append({"name": one.name, "stands": None, "problem": str(error)})
                continue
            if up is None:
                output.line(f"{printable(one.name)}: no fence stands; the database takes writes")
                fields.append({"name": one.name, "stands": False})
                continue
            where = f"at {up.position}" if up.position is not None else "not yet safe: earlier writers may commit"
            whose = "" if up.site == site.name else f" of the site {printable(up.site)}"
            output.line(
                f"{printable(one.name)}: a fence{whose} stands, {up.level} by {up.strategy}, {where}   "
                f"{printable(up.server)}"
            )
            for holder in up.holders:
                since = f"{holder.at:%Y-%m-%d %H:%M:%S} UTC"
                output.line(f"  held by {printable(holder.by)} for {printable(holder.cause)} since {since}")
            for what in bare:
                output.line(f"  not covered: {printable(what)}")
            if bare:
                output.line(f"  cover that as well: {options.typed(f'fence raise {one.name}')}")
            ours = up.site == site.name
            fields.append({**fenced_fields(up), "stands": ours, "site": up.site, "not_covered": list(bare)})
        replicas = [
            line
            for group in site.standbys.groups
            if name in (None, group.fence.name)
            for line in frozen_lines(site, [standby.name for standby in group.freezable])
        ]
        for line in replicas:
            output.line(f"  replica {line}")
        whole = all(f.get("stands") and f.get("position") and not f.get("not_covered") for f in fields)
        output.result(OK if whole else NOT_PROVEN, fences=fields, replicas=replicas)

    run(body, output)


@fence.command("plan", short_help="What a fence would do, what it lacks, and what it would leave open.")
@click.argument("name", required=False)
@json_option
@click.pass_obj
def plan(options: common.Options, name: str | None, as_json: bool) -> None:
    """Ask each database what a fence could do there; nothing is changed. Exits 3 if something is missing."""
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        output.site = site.name
        fields = []
        for one in _chosen(site, name):
            try:
                found = one.preflight()
            except FenceError as error:
                output.line(f"{printable(one.name)}: {printable(str(error))}")
                fields.append({"name": one.name, "possible": False, "problem": str(error)})
                continue
            for line in plan_lines(one.name, found):
                output.line(line)
            fields.append(plan_fields(one.name, found))
        output.result(OK if all(f["possible"] for f in fields) else NOT_PROVEN, fences=fields)

    run(body, output)


def plan_lines(name: str, found: Preflight) -> list[str]:
    """Return what a preflight found, in words."""
    lines = [
        f"{printable(name)}: {found.level} by {found.strategy}: {printable(found.why)}   {printable(found.server)}",
    ]
    if found.tables:
        lines.append(f"  covers {found.tables} tables")
    if found.pooled:
        lines.append("  not the server itself: a pooler answers there; url names the server")
    for way in found.ways:
        mark = "leaves open" if not way.insists else "but for"
        lines.append(
            f"  {mark}: {printable(way.what)}" + (f"   close it: {printable(way.remedy)}" if way.remedy else "")
        )
    lines += [f"  missing, run as who may:  {printable(statement)}" for statement in found.missing]
    lines += [f"  advised:  {printable(statement)}" for statement in found.advised]
    return lines


def plan_fields(name: str, found: Preflight) -> dict[str, Any]:
    """Return what a preflight found as JSON fields."""
    return {
        "name": name,
        "possible": found.possible,
        "level": str(found.level),
        "strategy": str(found.strategy),
        "why": found.why,
        "tables": found.tables,
        "server": found.server,
        "left_open": [way.what for way in found.ways],
        "missing": list(found.missing),
        "advised": list(found.advised),
    }


@fence.command("raise", short_help="Raise fences for what stands, or cover what was made since.")
@click.argument("name", required=False)
@timeout_option
@click.option("--end-writers-after", "end_after", type=Duration(), metavar="30s", help="End what is waited for then.")
@json_option
@click.pass_obj
def raise_(
    options: common.Options, name: str | None, timeout: timedelta, end_after: timedelta | None, as_json: bool
) -> None:
    """Raise fences for the cause that stands; where one stands already, cover what was made since.

    The site must be read-only: a fence on a writable site would give its visitors errors.
    """
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        chosen = _chosen(site, name)
        look = common.headline(site, options, output)
        causes = [c for c in look.state.causes if c.kind not in (FENCE, LOCAL)]
        mine = [c for c in causes if c.by == site.operator.name] or causes
        if not mine:
            raise FenceRefused(
                f"{site.name} is not read-only, and a fence would give its visitors errors: {options.typed('on')} "
                "raises fences after the gate is closed. Nothing was changed"
            )
        started = time.monotonic()

        def waiting(of: str, holdups: Sequence[Holdup]) -> None:
            output.note(f"  fence {printable(of)} waits for " + "; ".join(map(holdup_line, holdups)))

        raised = site.fences.put_up(
            mine[0].id,
            timeout=timeout.total_seconds(),
            end_after=None if end_after is None else end_after.total_seconds(),
            waiting=waiting,
            only=[one.name for one in chosen],
        )
        _conclude(raised, output, seconds=time.monotonic() - started)

    run(body, output)


def _conclude(raised: Raised, output: Output, *, seconds: float) -> NoReturn:
    from .concluding import fence_fields, fence_lines

    for line in fence_lines(raised):
        output.line(line)
    for problem in raised.problems:
        output.line(f"NOT FENCED: {printable(problem)}")
    output.result(
        NOT_PROVEN if raised.problems else OK,
        fences=fence_fields(raised),
        missing=list(raised.problems),
        seconds=round(seconds, 3),
    )


@fence.command("lift", short_help="Lift a fence at its database; the site stays read-only.")
@click.argument("name")
@click.option("--orphan", is_flag=True, help="One of another site, that came with a copy of its database.")
@json_option
@click.pass_obj
def lift(options: common.Options, name: str, orphan: bool, as_json: bool) -> None:
    """Lift a fence whoever holds it. It needs the database alone; the record is told when the store answers.

    The site stays as it is: what else closes it still stands. Refused for a fence of another site, but with --orphan.
    """
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        output.site = site.name
        (one,) = _chosen(site, name)
        down = one.lift(site=site.name, orphan=orphan)
        if not down.down:  # its triggers were being taken off when somebody came
            held = ", ".join(f"{holder.by} ({holder.cause})" for holder in down.held_by)
            output.line(f"Not lifted: {printable(held)} raised it again meanwhile")
            output.result(NOT_PROVEN, name=name, given_back=down.given_back, lost=list(down.lost), record_told=False)
        told = True
        try:
            look = site.look()
            for cause in standing_fences(look.record):
                if cause.fence is not None and cause.fence.name == name:
                    for sentence in site.fences.lift((), record=look.record, only=[name]).standing:
                        output.line(f"Not lifted: {printable(sentence)}")
        except StoreUnreachable:
            told = False
            output.line("The store does not answer: the record still says that the fence stands, until `off`.")
        output.line(f"{printable(name)}: no fence stands; {down.given_back} privileges or triggers put back")
        for sentence in down.lost:
            output.line(f"  warning: {printable(sentence)}")
        output.result(OK, name=name, given_back=down.given_back, lost=list(down.lost), record_told=told)

    run(body, output)


@fence.command("install", short_help="Put an open gate on every table, once: raising then locks no table.")
@click.argument("name")
@click.option("--remove", is_flag=True, help="Take it off again.")
@json_option
@click.pass_obj
def install(options: common.Options, name: str, remove: bool, as_json: bool) -> None:
    """Put the gate's triggers on every table, open: for sites whose application owns its tables."""
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        output.site = site.name
        (one,) = _chosen(site, name)
        if remove:
            count = one.uninstall(site=site.name)
            output.line(f"{printable(name)}: the gate was taken off {count} tables")
            output.result(OK, name=name, tables=[], removed=count)
        try:
            tables = one.install(site=site.name, by=site.operator.name)
        except FenceRefused as error:
            for statement in error.missing:
                output.line(f"  missing, run as who may:  {printable(statement)}")
            output.line(printable(str(error)))
            output.result(REFUSED, name=name, missing=list(error.missing))
        output.line(f"{printable(name)}: an open gate is on {len(tables)} more tables: {_names(tables)}")
        output.result(OK, name=name, tables=list(tables), removed=0)

    run(body, output)


def _names(tables: Iterable[str]) -> str:
    return ", ".join(map(printable, tables)) or "none was without"


fence.add_command(thaw)
