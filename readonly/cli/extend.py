"""Moving the end of what stands: extend."""

from __future__ import annotations

import re
import shlex
from datetime import datetime, timedelta

import click

from .. import scheduling
from ..errors import ConfigurationError
from ..record import WINDOW
from ..schedules import NoSuchTime, instant_of, zone_named
from ..state import State
from . import common
from .options import Duration, Text, json_option, yes_option, zone_option
from .planned import refuse_time
from .terminal import OK, Output, run
from .words import local_too, opens_at, printable, state_fields

_TIME_OF_DAY = re.compile(r"[0-2]?\d:[0-5]\d")


@click.command(short_help="Move the end of what stands.")
@click.argument("longer", type=Duration(), required=False, metavar="30m")
@click.option("--until", type=Text(), metavar="03:30", help="To this time, by --tz, or with a date or an offset.")
@click.option("--until-off", is_flag=True, help="Take the end away: only `off` opens.")
@click.option("--cause", default=None, metavar="ID", help="This one, whosever it is.")
@zone_option
@yes_option
@json_option
@click.pass_obj
def extend(
    options: common.Options,
    longer: timedelta | None,
    until: str | None,
    until_off: bool,
    cause: str | None,
    zone: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Move the end of what YOU set, from its end on, or from now where that has passed.

    A window ends by itself at its new end; what `on` and `run` announced is an announcement still, and opens nothing.
    A window whose end has passed is over.
    """
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        if sum((longer is not None, until is not None, until_off)) != 1:
            raise ConfigurationError(
                "until when? Say one of 30m, --until 03:30 and --until-off, and only one. Nothing was changed"
            )
        site = options.site()
        look = common.headline(site, options, output)
        common.check_site(options, site, look, f"Move the end of what stands on {site.name}?", yes=yes)
        output.standing = lambda _: common.stands_now(site, output)
        named = options.zone(zone)
        try:
            end = None if until is None else _instant(until, named, look.census.reading.at)
        except NoSuchTime as error:
            which = f" --cause {shlex.quote(cause)}" if cause is not None else ""
            refuse_time(
                error, lambda at: f"extend --until {shlex.quote(at)} --tz {shlex.quote(named)}{which}", options, output
            )
        change = scheduling.extend(site.store, options.operator(), longer=longer, until=end, cause=cause)
        at = change.reading.at
        state = State.at(at, change.record)
        for one in (c for c in state.causes if c.id in change.causes):
            window = next((w for w in change.record.windows if w.id == one.id), None)
            if one.expected_end is None:
                text = "until `off`"
            elif window is not None and window.end is not None:
                then = (
                    "and opens then by itself" if opens_at(state) is not None else "and is over then; the site is not"
                )
                text = f"until {local_too(one.expected_end, at)}, {then}"
            else:
                text = f"announced until {local_too(one.expected_end, at)}; that opens nothing, `off` does"
            kind = WINDOW if window is not None else one.kind
            output.line(f"Extended {printable(kind)} {printable(one.id)}: {text}")
        output.result(OK, **state_fields(state), changed=True, extended=list(change.causes))

    run(body, output)


def _instant(typed: str, zone: str, at: datetime) -> datetime:
    """Return an instant; a time of day alone is the next one."""
    found = zone_named(zone) if zone else None
    if not _TIME_OF_DAY.fullmatch(typed.strip()):
        return instant_of(typed, found)
    if found is None:
        raise ConfigurationError(
            f'{typed!r} by whose clocks? Say --tz Europe/Berlin (or timezone = "Europe/Berlin" in readonly.toml, or '
            "READONLY_TIMEZONE). Nothing was changed"
        )
    today = at.astimezone(found).date()
    time = typed.strip().rjust(5, "0")
    for day in (today, today + timedelta(days=1), today + timedelta(days=2)):
        try:
            end = instant_of(f"{day:%Y-%m-%d} {time}", found)
        except NoSuchTime as error:
            # What lies behind can't be meant, whichever of the two it is.
            if any(instant > at for instant in error.instants):
                raise
            continue
        if end > at:
            return end
    raise AssertionError("a time of the day after tomorrow is ahead")
