"""Commands that only look: status, members."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

import click

from ..confirmation import Confirmation, Member
from ..errors import UnreadableRecord
from ..record import Mode
from ..run import read as read_run
from ..run import standing_run
from ..site import LEASE, Look, Site, level_of, no_record
from . import common
from .bypass import let_through
from .bypass import lines as bypass_lines
from .groups import SILENT, escape_lines, group_line, holding_up, member_line, role_lines, shortened, unguarded_lines
from .history import forget
from .moving import replaced, split_fields, split_lines
from .options import accept_option, expect_option, json_option
from .replicated import known_replicas, replica_fields, replica_lines
from .standing import run_lines
from .terminal import NO_STORE, NOT_PROVEN, OK, Output, run
from .words import (
    cause_lines,
    clock_time,
    coming,
    confirmation_fields,
    expected_end,
    local_too,
    opens_at,
    printable,
    spoken,
    state_fields,
)

LINES_OF_MISSING = 20


@click.command(short_help="Say what the site is now.")
@click.option(
    "--expect",
    "wanted",
    type=click.Choice(["writable", "read-only", "safe"]),
    help="Exit 0 if it is so, 3 if not, 4 if nobody can tell.",
)
@accept_option
@json_option
@click.pass_obj
def status(options: common.Options, wanted: str | None, accept: str | None, as_json: bool) -> None:
    """Say what the site is now. Exits 0 whenever it could answer; with --expect, by what the answer is."""
    output = Output(as_json=as_json or options.as_json)
    output.standing = _unknown

    def body() -> None:
        site = options.site()
        look = common.first_line(site, options, output)
        found = site.judge(look, accept_leases=accept == LEASE)
        show(look, found, site, options, output.line)
        warnings = [*site.warnings(), *other_owners()]
        for warning in warnings:
            output.line(f"warning: {printable(warning)}")
        mode = look.state.mode
        splits = site.splits(look, ask=False)
        for split in splits:
            output.line(f"MOVED: {printable(split.why)}; `off` is refused until they agree, or you say which it is.")
            for line in split_lines(split, look):
                output.line(line)
        fallen = site.fences.fallen(look.record, replaced=replaced(look, found))
        for sentence in fallen:
            output.line(f"NOT FENCED: {printable(sentence)}")
        warnings += fallen
        safe = found.safe and mode is Mode.READ_ONLY and not fallen
        is_so = {"writable": mode is Mode.WRITABLE, "read-only": mode is Mode.READ_ONLY, "safe": safe}
        code = OK
        if wanted is not None and not is_so[wanted]:
            code = NO_STORE if look.record is None else NOT_PROVEN
            output.line(
                f"not {wanted}" + ("" if mode is not Mode.READ_ONLY or wanted == "writable" else ", see missing")
            )
        output.result(
            code,
            **confirmation_fields(found) | state_fields(look.state),
            safe=safe,
            level=level_of(found) if safe else None,
            let_through=let_through(look.state, found.at),
            protected=look.record.protected if look.record is not None else None,
            store=site.shown_store,
            unreadable=look.unreadable.why if look.unreadable is not None else None,
            warnings=warnings,
            replicas=replica_fields(known_replicas(found)),
            splits=[split_fields(split) for split in splits],
        )

    run(body, output)


def _unknown(_why: BaseException) -> dict[str, Any]:
    return {"mode": str(Mode.UNKNOWN)}


def show(look: Look, found: Confirmation, site: Site, options: common.Options, say: Callable[[str], None]) -> None:
    """Say, line by line, what the site is and who is missing."""
    state, at = look.state, look.census.reading.at
    if look.unreadable is not None:
        _show_unreadable(look.unreadable, site, options, say)
    elif look.record is None:
        say(f"UNKNOWN: {no_record(site.store)}")
    elif state.mode is Mode.UNKNOWN:
        say(f"UNKNOWN, epoch {state.epoch}: {state.unknown_because}. Writes are refused.")
        say(f"If no process is left that knew it: {options.typed(f'init {site.name}')}")
    elif state.mode is Mode.WRITABLE:
        since = clock_time(look.record.changed_at, at)
        say(f"WRITABLE, epoch {state.epoch}, changed last {since} by {printable(look.record.changed_by)}")
        if state.rehearsal is not None:
            until = clock_time(state.rehearsal.until, at)
            say(f"rehearsing until {until}, by {printable(state.rehearsal.by)}: nothing is refused for it")
    else:
        lasting = f" for {spoken((at - state.since).total_seconds())}" if state.since is not None else ""
        say(f"READ-ONLY{lasting}{expected_end(state, at)}, epoch {state.epoch}")
    for line in cause_lines(state.causes, at):
        say("  " + line)
    end = opens_at(state)
    if end is not None and end > at:
        say(f"  opens by itself at {local_too(end, at)}")
    standing = standing_run(look.record)
    if standing is not None:
        for line in run_lines(read_run(site, standing.id), site, options):
            say("  " + line)
    if look.record is not None and look.record.partial and state.causes:
        say("  the store was emptied: `off` needs a process that knew the state, or init")
    if state.next_window is not None:
        say(f"  next: {coming(state, at)}")
    for line in bypass_lines(state, at):
        say("  " + line)
    for line in (*role_lines(found), *unguarded_lines(found), *escape_lines(found)):
        say("  " + line)
    for line in replica_lines(known_replicas(found)):
        say("  " + line)
    for line in shortened(holding_up(found), LINES_OF_MISSING, how=options.typed("members")):
        say("  missing   " + line)
    for line in found.accepted:
        say("  accepted   " + printable(line))
    if not found.members and not found.closing:
        say("  " + common.NOBODY)
    if options.make_site is not None:
        say(f"Without this framework:  readonlyctl --store '{site.shown_store}' status")


def _show_unreadable(
    unreadable: UnreadableRecord, site: Site, options: common.Options, say: Callable[[str], None]
) -> None:
    epoch = f", epoch {unreadable.epoch}" if unreadable.epoch is not None else ""
    say(f"UNKNOWN{epoch}: {printable(unreadable.why)}.")
    say("Nothing here overwrites it. Processes that can't read it keep what they knew, or refuse writes.")
    if unreadable.corrupt:
        say(f"To start anew, lifting everything that stands: {options.typed(f'init --replace {site.name}')}")


@click.group(invoke_without_command=True, short_help="List the processes that report.")
@click.option("--all", "show_all", is_flag=True, help="One line each, with its id and what it runs.")
@expect_option
@json_option
@click.pass_context
def members(context: click.Context, show_all: bool, expect: str | None, as_json: bool) -> None:
    """List the processes that report, by role and host; the silent ones and those that lag first, one by one."""
    if context.invoked_subcommand is not None:
        return
    options: common.Options = context.obj
    output = Output(as_json=as_json or options.as_json)
    output.standing = _unknown

    def body() -> None:
        site = options.site(expect)
        look = common.first_line(site, options, output)
        found = site.judge(look, expect=False)
        trouble = [m for m in found.members if m.blocks or m.condition in SILENT]
        fine = [m for m in found.members if m not in trouble]
        for member in sorted(trouble, key=lambda m: (m.condition not in SILENT, *_place(m))):
            output.line(member_line(member, everything=show_all))
        if show_all:
            for member in sorted(fine, key=_place):
                output.line(member_line(member, everything=True))
        else:
            for group in sorted({(*_place(m)[:2], m.condition) for m in fine}):
                output.line(group_line([m for m in fine if (*_place(m)[:2], m.condition) == group]))
        if not found.members:
            output.line(common.NOBODY)
        there = [m.report.role for m in common.living(site, look)]
        short = [
            f"{role}: {there.count(role)} report, expected {wanted}"
            for role, wanted in site.expect.items()
            if not wanted.met_by(there.count(role))
        ]
        for line in short:
            output.line(f"missing   {printable(line)}")
        output.result(NOT_PROVEN if short else OK, **confirmation_fields(found) | {"missing": short})

    run(body, output)


def _place(member: Member) -> tuple[str, str, int]:
    return (member.report.role, member.report.host, member.report.pid)


def other_owners() -> list[str]:
    """Warn of other distributions that install a top-level `readonly` package: pip overwrites without asking."""
    owners = sorted({*importlib.metadata.packages_distributions().get("readonly", [])} - {"readonly-mode"})
    if not owners:
        return []
    return [
        f"{', '.join(owners)} also install a top-level `readonly` package: which of them is imported is chance; "
        "uninstall them"
    ]


members.add_command(forget)
