"""Trying the read-only mode without refusing anything: rehearse, rehearse report, rehearse stop."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from .. import rehearsal as rehearsals
from ..errors import Error, NotYours
from ..rehearsal import Found
from ..rehearsal_advice import advice, discards, lines, notes, policy
from ..rehearsal_page import page
from . import common
from .options import Duration, json_option
from .terminal import NOT_PROVEN, OK, Output, run
from .words import clock_time, counted, printable, spoken

SHOWN = 40


@click.group(
    invoke_without_command=True,
    short_help="Refuse nothing, and count all that would have been refused.",
)
@click.option("--for", "lasting", type=Duration(), metavar="1h", help="How long; it ends by itself.")
@json_option
@click.pass_context
def rehearse(context: click.Context, lasting: timedelta | None, as_json: bool) -> None:
    """Rehearse: nothing is refused, and all that would have been is counted. `rehearse --for 1h`.

    A real `on`, and a window, win. What was found, and the policy lines to add: `rehearse report`.
    """
    options: common.Options = context.obj
    if context.invoked_subcommand is not None:
        if lasting is not None:
            raise click.UsageError(
                f"--for belongs to `rehearse` alone, not to `rehearse {context.invoked_subcommand}`."
            )
        options.as_json = options.as_json or as_json
        return
    if lasting is None:
        raise click.UsageError("For how long? rehearse --for 1h. Or: rehearse report, rehearse stop.")
    output = Output(as_json=as_json or options.as_json, command="rehearse")

    def body() -> None:
        site = options.site()
        common.headline(site, options, output)
        change = rehearsals.begin(site.store, options.operator(), lasting=lasting)
        made = change.record.rehearsal
        if made is None:
            raise AssertionError("a rehearsal that has begun stands in the record")
        output.line(f"Rehearsing until {clock_time(made.until, change.reading.at)}. Nothing is refused, by nobody.")
        output.hints(
            ("what it has found", options.typed("rehearse report")),
            ("end it", options.typed("rehearse stop")),
        )
        output.result(OK, changed=True, rehearsal=_fields(made.id, made.by, made.since, made.until, going_on=True))

    run(body, output)


@rehearse.command(short_help="End it now.")
@json_option
@click.pass_obj
def stop(options: common.Options, as_json: bool) -> None:
    """End the rehearsal that goes on; what it has found stays."""
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        common.headline(site, options, output)
        change = rehearsals.stop(site.store, options.operator())
        if change.changed:
            output.line("The rehearsal is over.")
            output.hints(("what it has found", options.typed("rehearse report")))
        else:
            output.line("No rehearsal goes on.")
        output.result(OK, changed=change.changed)

    run(body, output)


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
        found = rehearsals.found(site, look)
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
        f"{found.members} {'process' if found.members == 1 else 'processes'})"
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


def _fields(name: str, by: str, since: Any, until: Any, *, going_on: bool) -> dict[str, Any]:
    return {"id": name, "by": by, "since": since, "until": until, "going_on": going_on}


def _report_fields(found: Found) -> dict[str, Any]:
    numbers, made = found.numbers, found.rehearsal
    what = advice(numbers)
    return {
        "rehearsal": _fields(made.id, made.by, made.since, made.until, going_on=found.going_on),
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
