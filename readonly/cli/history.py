"""Commands for the morning after, and a person's word about a lost member: history, history show, members forget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import click

from ..history import KEEP, LET_THROUGH, Entry, instant
from . import common
from .groups import by_route
from .options import Text, json_option
from .terminal import FAILED, OK, Output, Refusal, run
from .words import counted, printable, spoken


@click.group(invoke_without_command=True, short_help="What was done, by whom, and what it was worth.")
@click.option("--last", type=click.IntRange(1, KEEP), default=20, show_default=True, help="So many entries.")
@json_option
@click.pass_context
def history(context: click.Context, last: int, as_json: bool) -> None:
    """Show what was done to the site: by whom, from where, why, for how long, and whether it was proven.

    The store's history, and what this host remembers of it; a lost one never affects the site.
    """
    if context.invoked_subcommand is not None:
        return
    options: common.Options = context.obj
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        output.site = site.name
        found = site.history(last=last)
        output.line(f"{site.name} · {site.shown_store} · {len(found)} entries")
        for entry in found:
            output.line(_line(entry))
            output.event("entry", **_fields(entry))
        output.result(OK, count=len(found))

    run(body, output)


@history.command(short_help="One read-only time, as proof for the morning after.")
@click.argument("epoch", type=click.IntRange(1))
@json_option
@click.pass_obj
def show(options: common.Options, epoch: int, as_json: bool) -> None:
    """Show the read-only time that EPOCH belongs to: who, why, confirmed or not, what was refused, who opened it."""
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        output.site = site.name
        time = _time_of(site.history(), epoch)
        if time is None:
            raise Refusal(f"the history knows no read-only time of epoch {epoch}. readonlyctl history lists it", FAILED)
        found = time.entries
        output.line(f"{site.name}   {time.since} - {found[-1].at if time.over else 'still read-only'}")
        for entry in found:
            output.line("  " + _line(entry))
            for line in _details(entry):
                output.line("      " + line)
        output.result(OK, entries=[_fields(entry) for entry in found])

    run(body, output)


@dataclass(slots=True)
class _Time:
    """One read-only time.

    Attributes:
        since: When it began.
        entries: What was done in it, what was planned of a window included.
        over: Something ended it.
    """

    since: str
    entries: list[Entry]
    over: bool = False


_CLOSING = ("on", "run")
_OPENING = ("off", "undo", "ended")
# They follow what opened the site, and belong to it.
_AFTERWARDS = ("opened", "not confirmed open", "ended")


def _time_of(entries: Sequence[Entry], epoch: int) -> _Time | None:
    """Return the read-only time of that epoch: from the first `on` or `run` at or before it to what opened it.

    A window begins by itself, and stands in no entry of its own: its time is told by the one that ended it.
    """
    times: list[_Time] = []
    standing: set[str] = set()
    for entry in entries:
        if entry.what in _CLOSING:
            if not standing:
                times.append(_Time(entry.at, []))
            standing |= set(entry.causes)
        elif not times or times[-1].over:
            if times and entry.what in _AFTERWARDS and entry.epoch == times[-1].entries[-1].epoch:
                times[-1].entries.append(entry)
            elif entry.what in _OPENING:
                times.append(_of_window(entry, entries))
            continue
        last = times[-1]
        last.entries.append(entry)
        if entry.what in (*_OPENING, "init"):
            standing -= set(entry.causes) if entry.what != "init" else standing
            last.over = not standing
    for time in times:
        # What was planned of a window may lie far before it, and other times in between.
        first = time.entries[0] if time.entries[0].what in _CLOSING else time.entries[-1]
        if first.epoch <= epoch <= time.entries[-1].epoch or any(e.epoch == epoch for e in time.entries):
            return time
    return None


def _of_window(end: Entry, entries: Sequence[Entry]) -> _Time:
    names = {*end.causes, *(cause.partition("-")[0] for cause in end.causes)}
    since = end.at
    if end.seconds is not None:
        since = instant(datetime.fromisoformat(end.at) - timedelta(seconds=end.seconds))
    before = [e for e in entries if e.epoch < end.epoch and (names & set(e.causes) or since <= e.at <= end.at)]
    return _Time(since, [*before, end], over=True)


# What is told with the ids that it was about.
_NAMED = ("on", "off", "undo", "run", "scheduled", "cancelled", "skipped", "extended", "ended")


def _line(entry: Entry) -> str:
    when = entry.at[:19].replace("T", " ")
    text = f"{when} UTC  epoch {entry.epoch}  {printable(entry.what):<13}  {printable(entry.by)}"
    if entry.host and not entry.by.endswith("@" + entry.host):
        text += f" @ {printable(entry.host)}"
    if entry.what in _OPENING and entry.seconds is not None:
        text += f"   after {spoken(entry.seconds)}"
    elif entry.seconds is not None:
        text += f"   {entry.seconds:.1f} s"
    if entry.level:
        text += f"   SAFE ({entry.level})"
    if entry.causes and entry.what in _NAMED:
        text += f"   {printable(', '.join(entry.causes))}"
    if entry.what == "forgot":
        text += f"   {printable(', '.join(entry.missing))}"
    if entry.reason:
        text += f'   "{printable(entry.reason)}"'
    if entry.what == LET_THROUGH:
        text += f"   {counted(int(entry.tally.get('bypassed', 0)), 'request')}"
    return text


def _details(entry: Entry) -> list[str]:
    lines = []
    if entry.message:
        lines.append(f'visitors read   "{printable(entry.message)}"')
    if entry.members:
        lines.append(
            "members         " + ", ".join(f"{n} {printable(what)}" for what, n in sorted(entry.members.items()))
        )
    if entry.what != "forgot":
        lines += [f"missing         {printable(what)}" for what in entry.missing]
    lines += [f"accepted        {printable(what)}" for what in entry.accepted]
    for key in ("refused", "escaped", "bypassed", "ended"):
        number = entry.tally.get(key)
        if isinstance(number, int) and number:
            lines.append(f"{key:<15} {number}{by_route(entry.tally.get(f'{key}_by_route'))}")
    return lines


def _fields(entry: Entry) -> dict[str, Any]:
    fields = asdict(entry)
    fields.pop("site")
    return {**fields, **{name: list(fields[name]) for name in ("causes", "missing", "accepted")}}


@click.command(short_help="Take a member off whose process is over, on your word.")
@click.argument("member", type=Text())
@click.option("--reason", type=Text(), required=True, help="How you know that its process is over. In the history.")
@json_option
@click.pass_obj
def forget(options: common.Options, member: str, reason: str, as_json: bool) -> None:
    """Take MEMBER (its id, or enough of it; or a host, for all of it) off the registry: nobody waits for it any more.

    If its process lives on, it may still commit writes after "safe". `members --all` shows the ids.
    """
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        common.headline(site, options, output)
        reports = site.forget(member, reason=reason)
        name = ", ".join(printable(r.name) for r in reports) or f"{printable(member)} (not registered)"
        output.line(f"Forgotten: {name}. On your word; it is in the history.")
        output.result(OK, forgotten=[r.id for r in reports] or [member], registered=bool(reports))

    run(body, output)
