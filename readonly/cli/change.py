"""Commands that change the site or wait for a change: on, wait, off."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click

from ..changes import Change, Operator
from ..databases.fence import Holdup
from ..errors import ConfigurationError, NotYours, StoreUnreachable
from ..fencing import Raised
from ..record import FENCE, LOCAL, WINDOW, Mode
from ..scheduling import Wanted
from ..site import LEASE, Look, Site
from ..state import State
from ..switchover import MovedAway
from . import common
from .announce import announce
from .concluding import conclude_closed, conclude_open
from .fence import holdup_fields, holdup_line, say_lowered
from .groups import obeying
from .moving import refuse_split
from .options import (
    Duration,
    Text,
    accept_fenced_option,
    accept_option,
    expect_option,
    fence_options,
    json_option,
    timeout_option,
    yes_option,
)
from .progress import Progress
from .terminal import OK, REFUSED, Interrupted, Output, run, unbroken
from .words import (
    cause_line,
    cause_lines,
    clock_time,
    expected_end,
    printable,
    state_fields,
)


@click.command(short_help="Refuse writes and sign-ins; keep serving reads.")
@click.option(
    "--for", "expected", type=Duration(), metavar="45m", help="What visitors are told. It never opens the site."
)
@click.option("--in", "ahead", type=Duration(), metavar="10m", help="Announce it now, and turn then.")
@click.option("--reason", type=Text(), default="", help="For colleagues: status and history. Not shown to visitors.")
@click.option("--message", type=Text(), default="", help="For visitors.")
@click.option(
    "--sessions",
    type=click.Choice(["end", "suspend", "keep"]),
    help="What happens to signed-in visitors (default: the site's setting). `end` can't be undone after 60 s.",
)
@timeout_option
@click.option("--wait/--no-wait", default=True, help="Wait for proof (the default), or set it and return.")
@expect_option
@accept_option
@accept_fenced_option
@fence_options
@yes_option
@json_option
@click.pass_obj
def on(
    options: common.Options,
    expected: timedelta | None,
    ahead: timedelta | None,
    reason: str,
    message: str,
    sessions: str | None,
    timeout: timedelta,
    wait: bool,
    expect: str | None,
    accept: str | None,
    accept_fenced: bool,
    fence: bool,
    end_after: timedelta | None,
    require: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Refuse writes and sign-ins; keep serving reads.

    Returns when no write can commit any more, or says who is missing. Typed again, it changes what you said before.
    """
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site(expect)
        _need_fences(site, accept_fenced and fence, accept_fenced)
        look = common.headline(site, options, output)
        common.check_site(options, site, look, f"Turn {site.name} read-only?", yes=yes)
        output.standing = lambda _: common.stands_now(site, output)
        if ahead is not None:
            wanted = Wanted(
                ahead=ahead, expected=expected, reason=reason, message=message, sessions=sessions, sure=True
            )
            announce(site, wanted, options, output, wait=wait)
        progress = _progress(output, timeout, options)
        with unbroken():
            change = site.set(
                reason=reason, expected=expected, message=message, sessions=sessions, operator=options.operator()
            )
            output.standing = lambda why: _stands_unproven(why, change, progress, options, site, output)
        _say_set(change, options, output)
        # Asked for when it is set: nothing may delay that.
        warnings = site.warnings()
        for warning in warnings:
            output.line(f"warning: {printable(warning)}")
        if not wait:
            output.line(f"Set, not confirmed. Start nothing irreversible before: {options.typed('wait')}")
            state = State.at(change.reading.at, change.record)
            output.result(
                OK,
                **state_fields(state),
                safe=False,
                level=None,
                confirmed=False,
                cause=change.causes[0],
                warnings=list(warnings),
            )
        started = time.monotonic()
        with progress:
            found = site.wait_closed(
                change,
                timeout=timeout.total_seconds(),
                accept_leases=accept == LEASE,
                accept_fenced=accept_fenced,
                fence=fence,
                progress=progress.show,
                trouble=progress.trouble,
            )
        raised = _raise(site, change.causes[0], fence, timeout, started, end_after, output)
        raised = site.still_raised(change.record, change.causes, raised)
        conclude_closed(
            found,
            State.at(found.at, change.record) if raised is None else site.look().state,
            timeout,
            options,
            output,
            seconds=time.monotonic() - started,
            raised=raised,
            require=require,
            cause=change.causes[0],
            warnings=list(warnings),
        )

    run(body, output)


def _need_fences(site: Site, counted_on: bool, asked: bool) -> None:
    """Refuse --accept-fenced where no database holds anybody back."""
    if not asked or (counted_on and site.fences):
        return
    raise ConfigurationError(
        f"--accept-fenced: no fence is configured for {site.name}, or none is wanted, so no database holds anybody "
        "back, and there is nothing to accept. Without one: `members forget ID --reason …` for a process that you know "
        "to be over, `--accept lease` for those whose lease is over. Nothing was changed"
    )


def _raise(
    site: Site,
    cause: str,
    fence: bool,
    timeout: timedelta,
    started: float,
    end_after: timedelta | None,
    output: Output,
) -> Raised | None:
    """Raise the fences with the time that is left, wait for the replicas, and say whom that takes."""

    def waiting(name: str, holdups: Sequence[Holdup]) -> None:
        output.note(f"  fence {printable(name)} waits for " + "; ".join(holdup_line(holdup) for holdup in holdups))
        output.event("fence_waiting", fence=name, holdups=[holdup_fields(holdup) for holdup in holdups])

    def behind(why: str) -> None:
        output.note(f"  replica {printable(why)}")

    def left() -> float:
        return max(0.0, timeout.total_seconds() - (time.monotonic() - started))

    raised = site.raise_fences(
        cause,
        timeout=left(),
        end_after=None if end_after is None else end_after.total_seconds(),
        waiting=waiting,
        fence=fence,
    )
    return site.wait_replicas(raised, timeout=left(), waiting=behind)


def _progress(output: Output, timeout: timedelta, options: common.Options) -> Progress:
    return Progress(output, seconds=timeout.total_seconds(), all_of_them=options.typed("members"))


def _say_set(change: Change, options: common.Options, output: Output) -> None:
    at = change.reading.at
    state = State.at(at, change.record)
    output.event("set", **state_fields(state), cause=change.causes[0], changed=change.changed)
    since = f" since {clock_time(state.since, at)}" if state.since is not None else ""
    output.line(f"READ-ONLY{since}{expected_end(state, at)}, epoch {state.epoch}")
    for line in cause_lines(state.causes, at):
        output.line("  " + line)
    if not change.changed:
        output.line("It stood already, just so: nothing was changed.")
    if change.record.partial:
        output.line(
            f"The store held no record of {change.record.site}: was it emptied, or is it another site's? `off` will "
            f"need a process that knew the state, or: {options.typed(f'init {change.record.site}')}"
        )


def _stands_unproven(
    why: BaseException, change: Change, progress: Progress, options: common.Options, site: Site, output: Output
) -> dict[str, Any]:
    if not isinstance(why, Interrupted | StoreUnreachable):
        return common.stands_now(site, output)
    last = progress.last
    if isinstance(why, Interrupted):
        done = f", {obeying(last)} of {len(last.members)} confirmed" if last is not None else ""
        output.note(f"READ-ONLY stands (epoch {change.record.epoch}{done}). Not safe yet.")
    output.note(f"  keep waiting   {options.typed('wait')}")
    output.note(f"  take it back   {options.typed('off --undo')}   (for 60 s; later: off)")
    return {
        "mode": str(Mode.READ_ONLY),
        "epoch": change.record.epoch,
        "cause": change.causes[0],
        "safe": False,
        "confirmed": False,
        "missing": list(last.missing) if last is not None else None,
    }


@click.command(short_help="Wait until what is in force is true of every process.")
@timeout_option
@expect_option
@accept_option
@accept_fenced_option
@fence_options
@json_option
@click.pass_obj
def wait(
    options: common.Options,
    timeout: timedelta,
    expect: str | None,
    accept: str | None,
    accept_fenced: bool,
    fence: bool,
    end_after: timedelta | None,
    require: str | None,
    as_json: bool,
) -> None:
    """Wait until what is in force is true of every process: closed and drained, or open again."""
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site(expect)
        _need_fences(site, accept_fenced and fence, accept_fenced)
        common.headline(site, options, output)
        output.standing = lambda _: common.stands_now(site, output)
        started = time.monotonic()
        with _progress(output, timeout, options) as progress:
            found = site.wait(
                timeout=timeout.total_seconds(),
                accept_leases=accept == LEASE,
                accept_fenced=accept_fenced,
                fence=fence,
                progress=progress.show,
                trouble=progress.trouble,
            )
        if found.closing:
            raised = None
            holder = _holder(site)
            known = site.look().record
            if holder is not None and known is not None:
                raised = _raise(site, holder, fence, timeout, started, end_after, output)
                raised = site.still_raised(known, found.causes, raised, every=False)
            seconds = time.monotonic() - started
            state = site.look().state
            conclude_closed(found, state, timeout, options, output, seconds=seconds, raised=raised, require=require)
        conclude_open(found, site, options, output)

    run(body, output)


def _holder(site: Site) -> str | None:
    """Return the cause for which `wait` goes on raising fences: the operator's own, else whichever closed the site.

    A window is none: it ends by itself, and nobody would lower the fence then.
    """
    causes = [c for c in site.look().state.causes if c.kind not in (FENCE, LOCAL, WINDOW)]
    mine = [c for c in causes if c.by == site.operator.name]
    return next((c.id for c in (*mine, *causes)), None)


@click.command(short_help="Lift what YOU set; exit 3 while something else stands.")
@click.option("--cause", default=None, metavar="ID", help="Lift this one, whosever it is.")
@click.option("--all", "every", is_flag=True, help="Lift all that operators and windows have set.")
@click.option("--undo", is_flag=True, help="Take back a slip: within 60 s of `on`, sessions go on as well.")
@click.option("--moved", multiple=True, metavar="NAME", help="This database is at another server now.")
@click.option("--stay", multiple=True, metavar="NAME", help="This database stays at the server that was fenced.")
@timeout_option
@yes_option
@json_option
@click.pass_obj
def off(
    options: common.Options,
    cause: str | None,
    every: bool,
    undo: bool,
    moved: tuple[str, ...],
    stay: tuple[str, ...],
    timeout: timedelta,
    yes: bool,
    as_json: bool,
) -> None:
    """Lift what YOU set. The site opens when nothing else stands; exit 3 while something does.

    Over an empty store it waits for a process that knew the state to write it back. Refused while processes write to
    two servers, or to another one than was fenced, until you say which it is: `--moved` or `--stay`.
    """
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        if cause is not None and every:
            raise ConfigurationError(
                "--cause and --all exclude each other: name one cause, or lift all. Nothing was changed"
            )
        site = options.site()
        look = common.headline(site, options, output)
        common.check_site(options, site, look, f"Open {site.name} for writes?", yes=yes)
        operator = options.operator()
        output.standing = lambda _: common.stands_now(site, output)
        try:
            with _progress(output, timeout, options) as progress:
                change, found = site.off(
                    cause=cause,
                    every=every,
                    undo=undo,
                    moved=moved,
                    stay=stay,
                    timeout=timeout.total_seconds(),
                    operator=operator,
                    progress=progress.show,
                    trouble=progress.trouble,
                    lowered=lambda down: say_lowered(down, output),
                )
        except MovedAway as refused:
            refuse_split(refused, look, options, output)
        except NotYours as refused:
            if cause is None and refused.causes:
                _refused(refused, look, operator, options, output)
            raise
        _say_lifted(change, look, output)
        conclude_open(found, site, options, output, change=change)

    run(body, output)


def _refused(refused: NotYours, look: Look, operator: Operator, options: common.Options, output: Output) -> None:
    """Say whose the causes are, if they are all others'."""
    others = [c for c in look.state.causes if c.by != operator.name]
    if not set(refused.causes) <= {c.id for c in others}:
        return
    output.line(f"REFUSED: {output.site} is read-only because of others, not you ({printable(operator.name)}):")
    for line in cause_lines(others, look.census.reading.at):
        output.line("  " + line)
    output.line("Nothing was changed. If you are sure:")
    output.hints(*((f"lift {c}:", options.typed(f"off --cause {c}")) for c in refused.causes))
    output.event("error", error="NotYours", message=str(refused))
    output.result(REFUSED, **state_fields(look.state), changed=False)


def _say_lifted(change: Change, look: Look, output: Output) -> None:
    if not change.changed:
        return
    output.event("lifted", lifted=list(change.causes), epoch=change.record.epoch)
    for cause_id in change.causes:
        cause = next((c for c in look.state.causes if c.id == cause_id), None)
        what = cause_line(cause, change.reading.at) if cause is not None else cause_id
        output.line(f"Lifted   {what}")
