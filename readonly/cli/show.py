"""Commands that only look: status, members."""

from __future__ import annotations

import importlib.metadata

import click

from ..members import Condition, Confirmation, confirm, parse_expect
from ..record import Mode
from ..site import Look, Site, no_record
from . import common
from .terminal import NO_STORE, NOT_PROVEN, OK, Output, clock_time, printable, run, spoken


def judged(look: Look, site: Site) -> Confirmation:
    """Return every member's condition for what is in force now."""
    state = look.state
    standing = [c.id for c in state.causes]
    return confirm(
        look.record,
        look.census.reports,
        causes=standing or (tuple(look.record.lifted) if look.record is not None else ()),
        closing=state.read_only,
        at=look.census.reading.at,
        expect=site.expect if state.read_only else None,
        here_since=look.census.reading.here_since,
        incarnation_seconds=look.census.reading.incarnation_seconds,
    )


@click.command()
@click.option("--expect", "wanted", metavar="writable|read-only|safe", help="Exit 0 if it is so, 3 if not.")
@common.json_option
@click.pass_obj
def status(options: common.Options, wanted: str | None, as_json: bool) -> None:
    """Say what the site is now. Exits 0 whenever it could answer."""
    output = Output(as_json=as_json)

    def body() -> None:
        if wanted is not None and wanted not in ("writable", "read-only", "safe"):
            raise click.UsageError(f"--expect {wanted}: choose writable, read-only or safe")
        site = options.site()
        look = common.headline(site, options, output)
        found = judged(look, site)
        _show_status(look, found, site, output)
        two_owners = _other_owners()
        if two_owners:
            output.line(
                f"warning: {', '.join(two_owners)} also install a top-level `readonly` package: uninstall them"
            )
        mode = look.state.mode
        safe = found.safe and found.closing and look.record is not None and mode is Mode.READ_ONLY
        is_so = {
            None: True,
            "writable": mode is Mode.WRITABLE,
            "read-only": mode is Mode.READ_ONLY,
            "safe": safe,
        }
        code = OK if is_so[wanted] else NOT_PROVEN
        if look.record is None and wanted is not None:
            code = NO_STORE
        elif wanted is not None and code != OK:
            output.line(
                f"not {wanted}" + (": " + "; ".join(map(printable, found.missing)) if found.missing else "")
            )
        output.result(
            code,
            **common.state_fields(look.state),
            **{k: v for k, v in common.confirmation_fields(found).items() if k != "epoch"},
            safe=safe,
            missing=list(found.missing),
            protected=look.record.protected if look.record is not None else None,
            store=site.shown_store,
            warnings=two_owners,
        )

    run(body, output)


def _show_status(look: Look, found: Confirmation, site: Site, output: Output) -> None:
    state, at = look.state, look.census.reading.at
    if look.record is None:
        output.line(f"UNKNOWN: {no_record(site.store)}")
        return
    if state.mode is Mode.UNKNOWN:
        output.line(f"UNKNOWN, epoch {state.epoch}: {state.unknown_because}. Writes are refused.")
    elif state.mode is Mode.WRITABLE:
        changed = clock_time(look.record.changed_at, at)
        output.line(f"WRITABLE, epoch {state.epoch}, since {changed} ({printable(look.record.changed_by)})")
    else:
        since = spoken((at - state.since).total_seconds()) if state.since else "?"
        until = f", expected until {clock_time(state.expected_end, at)}" if state.expected_end else ""
        output.line(f"READ-ONLY for {since}{until}{common.overdue(state, at)}, epoch {state.epoch}")
        for line in common.cause_lines(state):
            output.line("  " + line)
    if state.next_window is not None:
        output.line(f"  next window {state.next_window.id}: {clock_time(state.next_window.start, at)}")
    for role in sorted({m.report.role for m in found.members}):
        members = [m for m in found.members if m.report.role == role]
        done = sum(not m.blocks for m in members)
        libraries = sorted({m.report.library for m in members})
        verb = "obey, drained" if found.closing else "follow"
        output.line(
            f"  {printable(role):<8} {done} of {len(members)} {verb}   library {', '.join(map(printable, libraries))}"
        )
    if state.mode is not Mode.WRITABLE or found.members:
        for problem in found.missing:
            output.line("  missing  " + printable(problem))


@click.command()
@click.option("--all", "show_all", is_flag=True, help="Ids and what each runs, too.")
@click.option("--expect", default=None, metavar="web=4,…", help="Exit 3 if fewer are there.")
@common.json_option
@click.pass_obj
def members(options: common.Options, show_all: bool, expect: str | None, as_json: bool) -> None:
    """List the processes that report, the silent ones first."""
    output = Output(as_json=as_json)

    def body() -> None:
        site = options.site()
        if expect is not None:
            site.expect.update(parse_expect(expect))
        look = common.headline(site, options, output)
        found = judged(look, site)
        silent = (Condition.LOST, Condition.EXPIRED, Condition.GONE)
        for m in sorted(
            found.members, key=lambda m: (m.condition not in silent, m.report.role, m.report.host)
        ):
            r = m.report
            text = f"{printable(r.role):<8} {printable(r.host)}/{r.pid}  {m.condition}  epoch {r.epoch}"
            text += f"  {r.in_flight} in flight  {m.silent_seconds:.1f} s ago"
            if r.inert:
                text += "  INERT"
            if m.why:
                text += f"  ({printable(m.why)})"
            if show_all:
                text += f"  id {printable(r.id)}  library {printable(r.library)}  {printable(r.runs)}"
            output.line(text)
        there = common.living(look)
        short = [
            f"{role}: {n} report, expected {wanted}"
            for role, wanted in site.expect.items()
            for n in [sum(m.report.role == role for m in there)]
            if not wanted.met_by(n)
        ]
        for line in short:
            output.line(f"missing  {printable(line)}")
        output.result(NOT_PROVEN if short else OK, **common.confirmation_fields(found), missing=short)

    run(body, output)


def _other_owners() -> list[str]:
    """Return other distributions that install a top-level `readonly` package: pip overwrites without asking."""
    owners = importlib.metadata.packages_distributions().get("readonly", [])
    return sorted({o for o in owners if o != "readonly-mode"})
