"""Commands that let somebody through a read-only site: bypass, bypass list, bypass revoke."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import click

from ..bypass import HEADER, LINK_PATH
from ..record import FENCE, Bypass
from ..rules import rule
from ..state import State
from . import common
from .options import Duration, json_option
from .terminal import OK, Output, run
from .words import clock_time, printable, spoken

LONGEST = timedelta(hours=24)


class _Group(click.Group):
    """Takes what is no command of it for the name of somebody to be let through."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put in the command that was meant."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [give.name or "", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Group, short_help="Let somebody through while the site is read-only.")
def bypass() -> None:
    """Let somebody through while the site is read-only: `bypass NAME --for 30m`.

    Past the gate, with their session, and past the guard; never past a fence. It ends with the read-only time.
    """


@bypass.command("give", hidden=True, short_help="Let NAME through.")
@click.argument("name")
@click.option("--for", "lasting", type=Duration(), default="30m", metavar="30m", help="How long (default: 30m).")
@click.option("--path", "paths", multiple=True, metavar="RULE", help="Only here: `/admin/*`, `POST /hook`. Repeatable.")
@click.option("--url", metavar="URL", help="Where the site is, for the link: https://shop.example")
@json_option
@click.pass_obj
def give(
    options: common.Options, name: str, lasting: timedelta, paths: Sequence[str], url: str | None, as_json: bool
) -> None:
    """Let NAME through, by a link that is good once, and by a header for programs."""
    output = Output(as_json=as_json or options.as_json, command="bypass")

    def body() -> None:
        rules = [str(rule(path)) for path in paths]
        address = _address(url)
        if lasting > LONGEST:
            raise click.UsageError(f"--for {spoken(lasting.total_seconds())}: a bypass is good for a day at most.")
        site = options.site()
        look = common.headline(site, options, output)
        change, made, link, token = site.let_through(name, lasting=lasting, paths=rules, operator=options.operator())
        at = change.reading.at
        where = ", ".join(rules) if rules else "everywhere"
        output.line(f"{made.name} is let through until {clock_time(made.until, at)}: {where}.")
        output.line(f"Link, good once, for one browser: {address}{LINK_PATH}{link}")
        if _is_plain(address):
            output.line(
                "  That is plain http: no browser keeps the cookie there, and the link is used up for nothing. Name "
                "the https address, or use the header."
            )
        output.line(f"Header, for programs:             {HEADER}: {token}")
        output.line("Neither is kept anywhere: whoever has them is let through.")
        fences = [c for c in change.record.causes if c.kind == FENCE and c.fence is not None]
        for cause in fences:
            output.line(
                f"The fence {printable(cause.id)} stands: at that database their writes are refused all the same."
            )
        safe = site.judge(look).safe
        if safe and not fences:
            output.line("Their writes commit from now on, whatever `on` has confirmed.")
        output.line(f"Taken back by: {options.typed(f'bypass revoke {made.name}')}; it ends with the read-only time.")
        fields = _fields(made, State.at(at, change.record), at)
        output.result(OK, bypass=fields, link=f"{address}{LINK_PATH}{link}", header=HEADER, token=token)

    run(body, output)


@bypass.command("list", short_help="Who is let through.")
@json_option
@click.pass_obj
def list_(options: common.Options, as_json: bool) -> None:
    """List who is let through, and who was in the last week."""
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        look = common.headline(site, options, output)
        at = look.census.reading.at
        found = look.record.bypasses if look.record is not None else ()
        for one in found:
            output.line(line(one, look.state, at))
        if not found:
            output.line("nobody is let through")
        output.result(OK, bypasses=[_fields(one, look.state, at) for one in found])

    run(body, output)


@bypass.command(short_help="Take a bypass back.")
@click.argument("name", required=False)
@click.option("--all", "everybody", is_flag=True, help="Take back every one.")
@json_option
@click.pass_obj
def revoke(options: common.Options, name: str | None, everybody: bool, as_json: bool) -> None:
    """Take NAME's bypass back, or everybody's."""
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        if (name is None) != everybody:
            raise click.UsageError("Whose? Name one, or say --all.")
        site = options.site()
        common.headline(site, options, output)
        revoked = site.let_nobody_through(name, operator=options.operator())
        names = ", ".join(printable(one.name) for one in revoked) or "nobody was let through"
        output.line(f"Taken back: {names}.")
        if revoked:
            waits = options.typed("wait")
            output.line(f"Processes know within a moment; what has begun goes on to its end, which {waits} waits for.")
        output.result(OK, revoked=[one.name for one in revoked])

    run(body, output)


def live(one: Bypass, state: State, at: datetime) -> bool:
    """Return whether a bypass lets anybody through now."""
    return not one.revoked and at < one.until and not {c.id for c in state.causes}.isdisjoint(one.causes)


def line(one: Bypass, state: State, at: datetime) -> str:
    """Return one bypass as `bypass list` and `status` show it."""
    if one.revoked:
        what = "taken back"
    elif at >= one.until:
        what = f"ran out {clock_time(one.until, at)}"
    elif not live(one, state, at):
        what = "ended with its read-only time"
    else:
        what = f"until {clock_time(one.until, at)}" + ("" if one.link else ", link used")
    where = printable(", ".join(one.paths)) if one.paths else "everywhere"
    return f"bypass {printable(one.name)}   {where}   {what}   by {printable(one.by)}"


def lines(state: State, at: datetime) -> list[str]:
    """Return a line for each bypass that lets somebody through now."""
    return [line(one, state, at) for one in _good(state, at)]


def let_through(state: State, at: datetime) -> list[str]:
    """Return the names of those who are let through now, and whose writes no "safe" is about."""
    return [one.name for one in _good(state, at)]


def _good(state: State, at: datetime) -> list[Bypass]:
    found = state.record.bypasses if state.record is not None else ()
    return [one for one in found if live(one, state, at)]


def _address(url: str | None) -> str:
    if url is None:
        return "https://YOUR-SITE"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise click.UsageError(f"--url {url}: write the site's address, as in https://shop.example")
    return url.rstrip("/")


def _is_plain(address: str) -> bool:
    parts = urlsplit(address)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1") or (parts.hostname or "").endswith(".localhost")
    return parts.scheme == "http" and not local


def _fields(one: Bypass, state: State, at: datetime) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "by": one.by,
        "host": one.host,
        "since": one.since,
        "until": one.until,
        "paths": list(one.paths),
        "used": not one.link,
        "revoked": one.revoked,
        "live": live(one, state, at),
    }
