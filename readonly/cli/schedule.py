"""Planning read-only time: schedule add, list, cancel, skip."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import click
import durationpy

from .. import scheduling
from ..changes import Change, Operator
from ..errors import NoRecord
from ..record import Record
from ..schedules import NoSuchTime
from ..scheduling import Scheduled, Unsure, Wanted
from ..site import Site, no_record
from ..stores import Store
from ..windows import FEWEST_LEFT
from . import common
from .options import Duration, Text, json_option, yes_option, zone_option
from .planned import recurring_fields, recurring_line, refuse_time, span, window_fields, window_line
from .terminal import OK, REFUSED, Output, run
from .words import printable, spoken

SHOWN = 3


@click.group(short_help="Plan read-only time: add, list, cancel, skip.")
def schedule() -> None:
    """Plan read-only time. Every process turns by itself at the instant, by the store's clock, and back at the end."""


@schedule.command(short_help="Plan a window, or one that recurs.")
@click.option("--at", type=Text(), metavar='"2026-11-29 02:00"', help="When it begins, by --tz or with an offset.")
@click.option("--every", type=Text(), metavar='"Sun 02:00"', help="It recurs: on these days, at this time.")
@click.option("--cron", type=Text(), metavar='"0 2 * * SUN#1"', help="It recurs: by a cron expression.")
@zone_option
@click.option("--for", "lasting", type=Duration(), required=True, metavar="90m", help="How long, in elapsed time.")
@click.option("--reason", type=Text(), default="", help="For colleagues: list, status and history.")
@click.option("--message", type=Text(), default="", help="For visitors.")
@click.option("--sessions", type=click.Choice(["end", "suspend", "keep"]), help="What happens to signed-in visitors.")
@click.option("--yes", is_flag=True, help="It is meant: begun already, longer than a day, or across another one.")
@json_option
@click.pass_obj
def add(
    options: common.Options,
    at: str | None,
    every: str | None,
    cron: str | None,
    zone: str | None,
    lasting: timedelta,
    reason: str,
    message: str,
    sessions: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Plan a window, or one that recurs. It begins and ends by itself; no process has to live for that.

    What the zone's clocks make of the time is worked out now, once, and shown: the window is an instant from then on.
    """
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        wanted = Wanted(
            at=at, every=every, cron=cron, lasting=lasting, zone=options.zone(zone), reason=reason, message=message,
            sessions=sessions, sure=yes,
        )  # fmt: skip
        site = options.site()
        look = common.headline(site, options, output)
        common.check_site(options, site, look, f"Plan read-only time for {site.name}?", yes=yes)
        output.standing = lambda _: common.stands_now(site, output)
        try:
            found = scheduling.schedule(site.store, options.operator(), wanted)
        except NoSuchTime as error:
            refuse_time(error, lambda at: _typed(wanted, at=at), options, output)
        except Unsure as error:
            output.line(f"REFUSED: {printable(str(error))}. If it is:")
            output.hints(("it is meant:", options.typed(_typed(wanted) + " --yes")))
            output.event("error", error=type(error).__name__, message=str(error))
            output.result(REFUSED, changed=False)
        _say_scheduled(found, options, output)
        windows, plan = found.windows, found.schedule
        output.result(
            OK,
            changed=True,
            epoch=found.change.record.epoch,
            windows=[window_fields(w, found.change.reading.at) for w in windows],
            schedules=[recurring_fields(plan, found.change.record, found.change.reading.at)] if plan else [],
        )

    run(body, output)


def _typed(wanted: Wanted, *, at: str | None = None) -> str:
    """Return what was typed, with another time."""
    pairs = [
        ("--at", at or wanted.at),
        ("--every", wanted.every),
        ("--cron", wanted.cron),
        ("--tz", wanted.zone),
        ("--for", None if wanted.lasting is None else durationpy.to_str(wanted.lasting)),
        ("--reason", wanted.reason),
        ("--message", wanted.message),
        ("--sessions", wanted.sessions),
    ]
    words = [f"{option} {shlex.quote(str(value))}" for option, value in pairs if value]
    return " ".join(["schedule add", *words])


def _say_scheduled(found: Scheduled, options: common.Options, output: Output) -> None:
    at = found.change.reading.at
    if found.schedule is None:
        (window,) = found.windows
        output.line(f"Scheduled {printable(window.id)}   {span(window)}, {distance(window.start, at)}")
    else:
        output.line(f"Scheduled {recurring_line(found.schedule)}. The first of them:")
        for index, window in enumerate(found.windows):
            if index < SHOWN or window.mark:
                output.line("  " + window_line(window, at))
    for other in {other.id: other for _, other in found.overlaps}.values():
        output.line(f"  across {window_line(other, at)}: the site opens after both")
    _say_no_process(found.schedule.id if found.schedule is not None else found.windows[0].id, options, output)


def distance(start: datetime, at: datetime) -> str:
    """Return how far an instant is."""
    left = (start - at).total_seconds()
    return f"in {spoken(left)}" if left > 0 else "now"


def _say_no_process(name: str, options: common.Options, output: Output) -> None:
    output.line(
        'A window has no process that could raise a fence or wait for "safe". For a migration that starts with it: '
        + options.typed(f"run --window {name} -- COMMAND")
    )


@schedule.command("list", short_help="Say what is planned.")
@json_option
@click.pass_obj
def list_(options: common.Options, as_json: bool) -> None:
    """Say what is planned, by UTC and by the clocks of its zone; what those clocks do to a time is marked."""
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        look = common.headline(site, options, output)
        if look.record is None:
            raise NoRecord(no_record(site.store))
        if look.record.partial:
            raise NoRecord(
                f"the store of {site.name} was emptied, and no process has written the whole record back yet: what is "
                "planned stands in that"
            )
        record, at = look.record, look.census.reading.at
        windows = [w for w in record.windows if not w.ended or w.start > at]
        plans = [one for one in record.schedules if one.cancelled_at is None]
        for window in (w for w in windows if not w.schedule):
            output.line(window_line(window, at) + _across(window.id, record, at))
        for plan in plans:
            output.line(recurring_line(plan) + (f'   "{printable(plan.reason)}"' if plan.reason else ""))
            mine = [w for w in windows if w.schedule == plan.id]
            for window in mine:
                output.line("  " + window_line(window, at) + _across(window.id, record, at))
            left = sum(not w.ended and w.start > at for w in mine)
            if left < FEWEST_LEFT:
                output.line(
                    f"  warning: {left} are left, and no process of the site has added more: does one report, and is "
                    f"{printable(plan.zone)} known there?"
                )
        # Of a schedule that was cancelled the occurrence that has begun goes on.
        known = {plan.id for plan in plans}
        for window in (w for w in windows if w.schedule and w.schedule not in known):
            output.line(window_line(window, at))
        if any(not w.ended for w in windows):
            _say_no_process("ID", options, output)
        else:
            output.line("Nothing is planned.")
        output.result(
            OK,
            epoch=record.epoch,
            windows=[window_fields(w, at) for w in windows],
            schedules=[recurring_fields(one, record, at) for one in plans],
        )

    run(body, output)


def _across(name: str, record: Record, at: datetime) -> str:
    mine = next(w for w in record.windows if w.id == name)
    if mine.ended:
        return ""
    others = [
        other.id
        for other in record.windows
        if other.id != name
        and not other.ended
        and (other.end is None or (other.end > mine.start and other.end > at))
        and (mine.end is None or other.start < mine.end)
    ]
    return f"   across {', '.join(map(printable, others))}" if others else ""


@schedule.command(short_help="Cancel a window, or all that is left of one that recurs.")
@click.argument("name", metavar="ID")
@yes_option
@json_option
@click.pass_obj
def cancel(options: common.Options, name: str, yes: bool, as_json: bool) -> None:
    """Cancel window ID before it begins, or all that is left of the recurring window ID. What has begun `off` ends."""
    _leave(options, name, yes, as_json, scheduling.cancel, "Cancelled")


@schedule.command(short_help="Leave out one occurrence.")
@click.argument("name", metavar="ID")
@yes_option
@json_option
@click.pass_obj
def skip(options: common.Options, name: str, yes: bool, as_json: bool) -> None:
    """Leave out the occurrence ID, or the next one of the recurring window ID; those after it stay."""
    _leave(options, name, yes, as_json, scheduling.skip, "Skipped")


def _leave(
    options: common.Options,
    name: str,
    yes: bool,
    as_json: bool,
    leave: Callable[[Store, Operator, str], Change],
    done: str,
) -> None:
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        look = common.headline(site, options, output)
        common.check_site(options, site, look, f"Change what is planned for {site.name}?", yes=yes)
        output.standing = lambda _: common.stands_now(site, output)
        change = leave(site.store, options.operator(), name)
        if change.changed:
            output.line(f"{done} {', '.join(map(printable, change.causes))}")
            at = change.reading.at
            for window in (w for w in change.record.windows if w.schedule == name and w.in_force(at)):
                output.line(f"One has begun, and goes on: {window_line(window, at)}")
                output.hints(("end it, too:", options.typed(f"off --cause {window.id}")))
        else:
            output.line(
                f"{printable(name)} will not be anyway: it was {done.lower()} before, or is over. Nothing was changed."
            )
        output.result(OK, **_left_fields(site, change))

    run(body, output)


def _left_fields(site: Site, change: Change) -> dict[str, Any]:
    return {
        "changed": change.changed,
        "epoch": change.record.epoch,
        "left_out": list(change.causes) if change.changed else [],
    }
