"""Trying the read-only mode without refusing anything: rehearse, rehearse report, rehearse stop."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .. import rehearsal as rehearsals
from ..changes import Change
from ..confirmation import Condition, Confirmation
from ..errors import Error, NotYours
from ..record import Rehearsal
from ..rehearsal import Found
from ..rehearsal_advice import advice, discards, lines, notes, policy
from ..rehearsal_attendance import Attended, attendance, heard_anew, rehearsal_of, wait_begun, wait_over
from ..rehearsal_page import page
from ..site import Site
from . import common
from .groups import holding_up, role_lines, shortened
from .options import Duration, json_option
from .progress import Progress
from .terminal import NOT_PROVEN, OK, Output, run, unbroken
from .words import clock_time, counted, printable, spoken

SHOWN = 40
LINES_OF_MISSING = 20

_how_long = click.option(
    "--timeout",
    type=Duration(),
    default="60s",
    metavar="60s",
    help="How long to wait for processes (default: 60s).",
)
_wait_option = click.option("--wait/--no-wait", default=True, help="Wait for all processes (the default), or return.")


@click.group(
    invoke_without_command=True,
    short_help="Refuse nothing, and count all that would have been refused.",
)
@click.option("--for", "lasting", type=Duration(), metavar="1h", help="How long; it ends by itself.")
@_how_long
@_wait_option
@json_option
@click.pass_context
def rehearse(context: click.Context, lasting: timedelta | None, timeout: timedelta, wait: bool, as_json: bool) -> None:
    """Rehearse: nothing is refused, and all that would have been is counted. `rehearse --for 1h`.

    Returns when every process counts, or says which do not. A real `on`, and a window, win. What was found, and the
    policy lines to add: `rehearse report`.
    """
    options: common.Options = context.obj
    if context.invoked_subcommand is not None:
        for name, option in (("lasting", "--for"), ("timeout", "--timeout"), ("wait", "--wait/--no-wait")):
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(
                    f"{option} before `{context.invoked_subcommand}` belongs to `rehearse` alone, not to `rehearse "
                    f"{context.invoked_subcommand}`."
                )
        options.as_json = options.as_json or as_json
        return
    if lasting is None:
        raise click.UsageError("For how long? rehearse --for 1h. Or: rehearse report, rehearse stop.")
    output = Output(as_json=as_json or options.as_json, command="rehearse")

    def body() -> None:
        site = options.site()
        common.headline(site, options, output)
        with unbroken():
            change = rehearsals.begin(site.store, options.operator(), lasting=lasting)
            made = rehearsal_of(change)
            output.standing = lambda _: _stands(made, options, output)
        output.line(f"Rehearsing until {clock_time(made.until, change.reading.at)}. Nothing is refused, by nobody.")
        fields = {"changed": True, "rehearsal": _fields(made, going_on=True)}
        if not wait:
            output.line("Not every process counts yet: which do not, `rehearse report` says.")
            _hint(options, output)
            output.result(OK, **fields, whole_from=None, confirmed=False, missing=[])
        attended = _waited(wait_begun, site, change, timeout, options, output)
        found, whole = attended.found, attended.at
        for line in role_lines(found):
            output.line("  " + line)
        if whole is not None:
            there = _processes(len(found.of(Condition.OBEYS)))
            output.line(f"Whole from {clock_time(whole, found.at)} on: every request of {there} is counted.")
        else:
            output.line("NOT WHOLE. The rehearsal goes on; what these are asked is not counted:")
            _say_missing(found, options, output)
        _hint(options, output)
        code = NOT_PROVEN if whole is None else OK
        output.result(code, **fields, whole_from=whole, confirmed=found.safe, missing=list(found.missing))

    run(body, output)


@rehearse.command(short_help="End it now.")
@_how_long
@_wait_option
@json_option
@click.pass_obj
def stop(options: common.Options, timeout: timedelta, wait: bool, as_json: bool) -> None:
    """End the rehearsal that goes on; what it has found stays.

    Returns when every process has said all that it counted, or says which have not.
    """
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        look = common.headline(site, options, output)
        with unbroken():
            change = rehearsals.stop(site.store, options.operator())
            if change.changed:
                output.standing = lambda _: _ended(options, output)
        if not change.changed:
            output.line("No rehearsal goes on.")
            output.result(OK, changed=False, confirmed=True, missing=[])
        if not wait:
            output.line("The rehearsal is over; not every process has said yet what it counted.")
            _hint(options, output, ended=True)
            output.result(OK, changed=True, confirmed=False, missing=[])
        # Afterwards nobody says any more that it knows no rehearsals.
        before = attendance(site, look, rehearsal_of(change)).of(Condition.UNPROVEN, Condition.INERT)
        attended = _waited(wait_over, site, change, timeout, options, output)
        found, whole = attended.found, attended.at
        if whole is not None:
            output.line("The rehearsal is over, and all that was counted is told; what still runs comes with its end.")
        else:
            output.line("The rehearsal is over. These have not said all that they counted:")
            _say_missing(found, options, output)
        for member in before:
            output.line(f"Note: {printable(member.report.name)} took no part: {printable(member.why)}")
        _hint(options, output, ended=True)
        code = NOT_PROVEN if whole is None else OK
        output.result(code, changed=True, confirmed=found.safe, missing=list(found.missing))

    run(body, output)


def _waited(
    wait: Callable[..., Attended],
    site: Site,
    change: Change,
    timeout: timedelta,
    options: common.Options,
    output: Output,
) -> Attended:
    with Progress(output, seconds=timeout.total_seconds(), all_of_them=options.typed("members")) as progress:
        return wait(
            site, change, timeout=timeout.total_seconds(), progress=progress.show, trouble=progress.trouble
        )  # fmt: skip


def _say_missing(found: Confirmation, options: common.Options, output: Output) -> None:
    for line in shortened(holding_up(found), LINES_OF_MISSING, how=options.typed("members")):
        output.line("  " + line)


def _hint(options: common.Options, output: Output, *, ended: bool = False) -> None:
    report = ("what it has found", options.typed("rehearse report"))
    output.hints(report) if ended else output.hints(report, ("end it", options.typed("rehearse stop")))


def _stands(made: Rehearsal, options: common.Options, output: Output) -> dict[str, Any]:
    output.note("The rehearsal goes on, and nothing is refused; whether every process counts is not known.")
    output.note(f"  end it   {options.typed('rehearse stop')}")
    return {
        "changed": True,
        "rehearsal": _fields(made, going_on=True),
        "whole_from": None,
        "confirmed": False,
        "missing": [],
    }


def _ended(options: common.Options, output: Output) -> dict[str, Any]:
    output.note("The rehearsal is over; whether every process has said what it counted is not known.")
    output.note(f"  what it has found   {options.typed('rehearse report')}")
    return {"changed": True, "confirmed": False, "missing": []}


@rehearse.command(short_help="What it has found, and what to add to the policy.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page, too.")
@json_option
@click.pass_obj
def report(options: common.Options, html: Path | None, as_json: bool) -> None:
    """Tell what the last rehearsal has found so far, with the policy lines to add.

    Exits 0 if it was clean, 3 if there is something to do, or if nothing was asked of the site yet.
    """
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        look = common.headline(site, options, output)
        found = rehearsals.found(site, heard_anew(site, look))
        if found is None:
            raise NotYours(f"{site.name} was never rehearsed: {options.typed('rehearse --for 1h')}", causes=())
        _say(found, output)
        if html is not None:
            try:
                html.write_text(page(site.name, found), encoding="utf-8")
            except OSError as error:
                raise Error(
                    f"the page could not be written to {html}: {error.strerror}. The report is above"
                ) from error
            output.line(f"Page: {printable(str(html))}")
        code = NOT_PROVEN if advice(found.numbers) or not found.numbers.requests else OK
        output.result(code, **_report_fields(found), page=None if html is None else str(html))

    run(body, output)


def _say(found: Found, output: Output) -> None:
    numbers, made = found.numbers, found.rehearsal
    until = "goes on until" if found.going_on else "was over at"
    end = made.until if found.going_on else found.at
    output.line(
        f"Rehearsal by {printable(made.by)} from {clock_time(made.since, found.at)}, {until} "
        f"{clock_time(end, found.at)} ({spoken((found.at - made.since).total_seconds())}, "
        f"{_processes(found.members)})"
    )
    output.line(f"{counted(numbers.requests, 'request')}, none refused")
    if numbers.signed_in:
        output.line(
            f"{numbers.signed_in} with a session, of about {counted(numbers.readers.number(), 'reader')}; "
            f"{numbers.signed_out} of them would have been without it"
        )
    if numbers.bearers:
        output.line(f"{numbers.bearers} with a bearer token")
    shown = sorted(numbers.routes.items(), key=lambda item: (-item[1].refused, -item[1].wrote, item[0]))
    if shown:
        output.line()
        output.line("refused  wrote  route")
    for rule, route in shown[:SHOWN]:
        by = ", ".join(f"{printable(name)} {number}" for name, number in sorted(route.families.items()))
        output.line(
            f"{route.refused:7}  {route.wrote:5}  {printable(rule)}   {printable(route.act)}"
            + (f"   {by}" if by else "")
        )
        for table, where in route.tables.items():
            output.line(f"                  writes {printable(table)}" + (f" at {printable(where)}" if where else ""))
    if len(shown) > SHOWN:
        output.line(f"                and {len(shown) - SHOWN} more: --json and --html have them all")
    for name, number in sorted(numbers.jobs.items()):
        output.line(f"{number:7}         work outside of requests: {printable(name)}")
    output.line()
    what = advice(numbers)
    if what:
        output.line("To do before the night:")
        for one in what:
            output.line(f"  {printable(one.where)}: {printable(one.value)}   {printable(one.why)}")
        if added := lines(what):
            output.line("As lines of the policy:")
            for line in added:
                output.line(f"    {printable(line)}")
    else:
        output.line(
            "Clean: all that would have been refused is declared."
            if numbers.requests
            else "Nothing was asked of the site yet, so this says nothing."
        )
    for said in (*notes(numbers), *found.without):
        output.line(f"Note: {printable(said)}")


def _processes(number: int) -> str:
    return f"{number} {'process' if number == 1 else 'processes'}"


def _fields(made: Rehearsal, *, going_on: bool) -> dict[str, Any]:
    return {"id": made.id, "by": made.by, "since": made.since, "until": made.until, "going_on": going_on}


def _report_fields(found: Found) -> dict[str, Any]:
    numbers, made = found.numbers, found.rehearsal
    what = advice(numbers)
    return {
        "rehearsal": _fields(made, going_on=found.going_on),
        "at": found.at,
        "processes": found.members,
        "without": list(found.without),
        "clean": not what and numbers.requests > 0,
        "requests": numbers.requests,
        "signed_in": numbers.signed_in,
        "signed_out": numbers.signed_out,
        "readers": numbers.readers.number(),
        "bearers": numbers.bearers,
        "running_out": numbers.running_out.number(),
        "jobs": dict(numbers.jobs),
        "routes": {
            rule: {
                "act": route.act,
                "refused": route.refused,
                "passed": route.passed,
                "wrote": route.wrote,
                "tables": dict(route.tables),
                "families": dict(route.families),
                "sessions_begun": route.begun,
                "example": route.example,
            }
            for rule, route in sorted(numbers.routes.items())
        },
        "advice": [{"where": one.where, "value": one.value, "why": one.why} for one in what],
        "policy": policy(what),
        "discard": discards(what),
        "notes": list(notes(numbers)),
    }
