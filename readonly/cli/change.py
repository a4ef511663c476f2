"""Commands that change the site or wait for a change: init, on, wait, off."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import click
from rich.console import Console

from ..changes import Change, initialise
from ..errors import ConfigurationError, NotYours
from ..members import Condition, Confirmation, parse_expect
from ..record import Cause
from ..site import Look, Site
from ..state import State
from ..stores import redacted, store_from_url
from . import common
from .terminal import (
    NOT_PROVEN,
    OK,
    Duration,
    Interrupted,
    Output,
    clock_time,
    interruptible,
    printable,
    run,
    spoken,
)

LEVEL = "app only"
LEVEL_MEANS = (
    "the site's own processes refuse; cron, consoles and other programs can still write to the database"
)


@click.command()
@click.argument("name")
@click.option("--protected", is_flag=True, help="Commands will want the site's name before they change it.")
@click.option(
    "--replace", "replace_existing", is_flag=True, help="Reset on purpose: lift everything and start anew."
)
@click.option(
    "--end-sessions", is_flag=True, help="End sessions issued before now: after a total loss of the store."
)
@common.json_option
@click.pass_obj
def init(
    options: common.Options,
    name: str,
    protected: bool,
    replace_existing: bool,
    end_sessions: bool,
    as_json: bool,
) -> None:
    """Make the site's first record; until there is one, the site refuses writes.

    The only command that may create a store. It refuses when there is a record already.
    """
    output = Output(as_json=as_json, site=name)

    def body() -> None:
        url = options.store_url()
        named = _with_site(url, name)
        store = store_from_url(named, create=True)
        common.refuse_memory(named)
        if options.expected_site not in (None, name):
            raise ConfigurationError(
                f"--site {options.expected_site} and init {name} name two sites: nothing was done"
            )
        if replace_existing:
            existing = Look(*common.survey(store)).record
            if existing is not None and existing.protected:
                common.ask_for_name(
                    options, name, f"Reset the record of {name}, lifting everything that stands?"
                )
        change = initialise(
            store,
            options.operator(),
            protected=protected,
            replace_existing=replace_existing,
            end_sessions=end_sessions,
        )
        state = State.at(change.reading.at, change.record)
        output.line(
            f"{name}: created in {redacted(named)}. {state.mode.capitalize()}, epoch {change.record.epoch}"
            + (", protected." if protected else ".")
        )
        output.line(f"On every machine that runs or operates the site:  READONLY_STORE='{redacted(named)}'")
        output.result(
            OK, epoch=change.record.epoch, mode=state.mode, store=redacted(named), protected=protected
        )

    run(body, output)


def _with_site(url: str, name: str) -> str:
    parts = urlsplit(url)
    if "site=" not in parts.query:
        url = f"{url}{'&' if parts.query else '?'}site={name}"
    elif f"site={name}" not in parts.query.split("&"):
        raise ConfigurationError(
            f"the store's URL names another site than {name}: {redacted(url)}. Nothing was done; end it with ?site={name}"
        )
    return url


@click.command()
@click.option(
    "--for", "expected", type=Duration(), help="What visitors are told (45m). It never opens the site."
)
@click.option("--reason", default="", help="For colleagues: status and history. Not shown to visitors.")
@click.option("--message", default="", help="For visitors.")
@click.option(
    "--sessions",
    type=click.Choice(["end", "suspend", "keep"]),
    help="Sign visitors out (default: the site's own setting).",
)
@click.option(
    "--timeout", type=Duration(), default="60s", show_default=True, help="How long to wait for proof."
)
@click.option("--wait/--no-wait", default=True, help="Wait until no write can commit any more (the default).")
@click.option("--expect", default=None, metavar="web=4,…", help="How many of each role must be there.")
@click.option("--yes", is_flag=True, help="Don't ask for a protected site's name on a terminal.")
@common.json_option
@click.pass_obj
def on(
    options: common.Options,
    expected: timedelta | None,
    reason: str,
    message: str,
    sessions: str | None,
    timeout: timedelta,
    wait: bool,
    expect: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Refuse writes and sign-ins; keep serving reads. Returns when no write can commit any more, or says who is missing."""
    output = Output(as_json=as_json)

    def body() -> None:
        site = options.site()
        if expect is not None:
            site.expect.update(parse_expect(expect))
        look = common.headline(site, options, output)
        common.check_site(options, site, look, f"Turn {site.name} read-only?", yes=yes)
        with interruptible():
            change = site.set(
                reason=reason,
                expected=expected,
                message=message,
                sessions=sessions,
                operator=options.operator(),
            )
            state = State.at(change.reading.at, change.record)
            cause = change.record.cause(change.causes[0])
            output.event("set", **common.state_fields(state), cause=change.causes[0], changed=change.changed)
            output.note(_read_only_line(state, cause))
            if not wait:
                output.line("Set, not confirmed. Start nothing irreversible before: readonlyctl wait")
                output.result(OK, **common.state_fields(state), safe=False, confirmed=False)
            _wait_closed(site, change, timeout, output)

    run(body, output)


@click.command()
@click.option(
    "--timeout", type=Duration(), default="60s", show_default=True, help="How long to wait for proof."
)
@click.option("--expect", default=None, metavar="web=4,…", help="How many of each role must be there.")
@common.json_option
@click.pass_obj
def wait(options: common.Options, timeout: timedelta, expect: str | None, as_json: bool) -> None:
    """Wait until what is in force is true of every process: closed and drained, or open again."""
    output = Output(as_json=as_json)

    def body() -> None:
        site = options.site()
        if expect is not None:
            site.expect.update(parse_expect(expect))
        common.headline(site, options, output)
        with interruptible():
            try:
                with _Progress(output) as progress:
                    found = site.wait(timeout=timeout.total_seconds(), progress=progress)
            except Interrupted as stopped:
                output.note("Interrupted; nothing was changed.")
                output.result(stopped.code)
        _conclude(found, timeout, output)

    run(body, output)


@click.command()
@click.option("--cause", default=None, metavar="ID", help="Lift this cause, whosever it is.")
@click.option("--all", "every", is_flag=True, help="Lift all that operators and windows have set.")
@click.option("--undo", is_flag=True, help="Take back a slip: sessions go on, too. Within 60 s of `on`.")
@click.option(
    "--timeout", type=Duration(), default="60s", show_default=True, help="How long to wait for proof."
)
@click.option("--yes", is_flag=True, help="Don't ask for a protected site's name on a terminal.")
@common.json_option
@click.pass_obj
def off(
    options: common.Options,
    cause: str | None,
    every: bool,
    undo: bool,
    timeout: timedelta,
    yes: bool,
    as_json: bool,
) -> None:
    """Lift what YOU set. The site opens when nothing else stands; exit 3 while something does."""
    output = Output(as_json=as_json)

    def body() -> None:
        if cause is not None and every:
            raise ConfigurationError(
                "--cause and --all exclude each other: name one cause, or lift all. Nothing was done"
            )
        site = options.site()
        look = common.headline(site, options, output)
        common.check_site(options, site, look, f"Open {site.name} for writes?", yes=yes)
        operator = options.operator()
        with interruptible():
            try:
                change, found = site.off(
                    cause=cause,
                    every=every,
                    undo=undo,
                    timeout=timeout.total_seconds(),
                    operator=operator,
                )
            except NotYours as refused:
                if refused.causes and cause is None:
                    output.note(
                        "If you are sure:   "
                        + "  or  ".join(f"readonlyctl off --cause {c}" for c in refused.causes)
                    )
                raise
            except Interrupted as stopped:
                output.note("Interrupted. What stands now: readonlyctl status")
                output.result(stopped.code)
        _opened(change, found, site, output)

    run(body, output)


def _opened(change: Change, found: Confirmation, site: Site, output: Output) -> None:
    state = State.at(found.at, change.record)
    fields: dict[str, Any] = {
        **common.state_fields(state),
        "lifted": list(change.causes),
        "confirmed": found.safe,
    }
    if state.read_only:
        output.line(f"Still READ-ONLY, epoch {change.record.epoch}:")
        for line in common.cause_lines(state):
            output.line("  " + line)
        output.result(NOT_PROVEN, **fields)
    count = len([m for m in found.members if m.condition is Condition.OBEYS])
    if not found.safe:
        output.line(f"Set to writable at epoch {change.record.epoch}; not confirmed:")
        for problem in found.missing:
            output.line("  " + printable(problem))
        output.line("Processes follow by themselves. Keep watching: readonlyctl wait")
        output.result(NOT_PROVEN, **fields, missing=list(found.missing))
    verb = "" if change.changed else " It was before; nothing was changed."
    who = f"{count} of {len(found.members)} members" if found.members else "no process of the site reports"
    output.line(f"WRITABLE, epoch {change.record.epoch}: {who}.{verb}")
    output.result(OK, **fields)


def _wait_closed(site: Site, change: Change, timeout: timedelta, output: Output) -> None:
    last: list[Confirmation] = []
    started = time.monotonic()
    try:
        with _Progress(output, last) as progress:
            found = site.wait_closed(change, timeout=timeout.total_seconds(), progress=progress)
    except Interrupted as stopped:
        done = f", {_obeying(last[0])} of {len(last[0].members)} confirmed" if last else ""
        output.note(f"Interrupted. READ-ONLY stands (epoch {change.record.epoch}{done}). Not safe yet.")
        output.note("  keep waiting   readonlyctl wait")
        output.note("  take it back   readonlyctl off")
        output.result(stopped.code, safe=False, epoch=change.record.epoch)
    _conclude(found, timeout, output, seconds=time.monotonic() - started)


def _conclude(
    found: Confirmation, timeout: timedelta, output: Output, *, seconds: float | None = None
) -> None:
    for line in _role_lines(found):
        output.line("  " + line)
    fields = common.confirmation_fields(found)
    if found.safe and found.closing:
        took = f" after {seconds:.1f} s" if seconds is not None else ""
        output.line(
            f"SAFE ({LEVEL}){took}: no write of {len(found.members)} members can commit any more, until `off`."
        )
        output.line(f"  {LEVEL}: {LEVEL_MEANS}.")
        output.result(OK, **fields, safe=True, level=LEVEL)
    if found.safe:
        output.line(f"WRITABLE, epoch {found.epoch}: {len(found.members)} members.")
        output.result(OK, **fields, safe=False)
    waited = f"NOT CONFIRMED after {spoken(timeout.total_seconds())}."
    if found.closing:
        output.line(f"{waited} The site is read-only; start nothing irreversible. Missing:")
    else:
        output.line(f"{waited} The record says writable. Missing:")
    for problem in found.missing:
        output.line("  " + printable(problem))
    output.line("  keep waiting                 readonlyctl wait --timeout 10m")
    if found.closing:
        output.line("  undo                         readonlyctl off")
    output.result(NOT_PROVEN, **fields, safe=False, missing=list(found.missing))


def _read_only_line(state: State, cause: Cause | None) -> str:
    since = f" since {clock_time(state.since, state.since)}" if state.since else ""
    what = f" (cause {cause.id} by {printable(cause.by)})" if cause is not None else ""
    return f"READ-ONLY{since}, epoch {state.epoch}{what}. Waiting for every process…"


def _obeying(found: Confirmation) -> int:
    return sum(not m.blocks for m in found.members)


def _role_lines(found: Confirmation) -> list[str]:
    lines: list[str] = []
    for role in sorted({m.report.role for m in found.members}):
        members = [m for m in found.members if m.report.role == role]
        done = sum(not m.blocks for m in members)
        verb = "obey, drained" if found.closing else "follow"
        lines.append(f"{printable(role):<8} {done} of {len(members)} {verb}")
    return lines


class _Progress:
    """Shows who is missing while a command waits: live on a terminal, one plain line a change elsewhere."""

    def __init__(self, output: Output, last: list[Confirmation] | None = None) -> None:
        self._output = output
        self._last = last if last is not None else []
        self._said = ""
        console = Console(stderr=True)
        self._status = console.status("asking…") if console.is_terminal and not output.as_json else None

    def __enter__(self) -> Callable[[Confirmation], None]:
        if self._status is not None:
            self._status.start()
        return self._show

    def __exit__(self, *_exc: object) -> None:
        if self._status is not None:
            self._status.stop()

    def _show(self, found: Confirmation) -> None:
        self._last[:] = [found]
        said = "; ".join(found.missing) or "all there"
        if said == self._said:
            return
        self._said = said
        self._output.event("progress", **common.confirmation_fields(found), missing=list(found.missing))
        text = f"{_obeying(found)} of {len(found.members)} members there" + (
            f"; missing: {printable(found.missing[0])}" if found.missing else ""
        )
        if self._status is not None:
            # Plain text: nothing that a member or an operator wrote is taken for markup.
            from rich.text import Text

            self._status.update(Text(text))
        else:
            self._output.note("  " + text)


def main_is_terminal() -> bool:
    """Return whether a person can be asked."""
    return sys.stdin.isatty()
