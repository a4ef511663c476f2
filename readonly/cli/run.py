"""The whole night in one command: run; and what follows when it went wrong: resume, abandon, attach."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NoReturn

import click

from ..databases.fence import Holdup
from ..errors import ConfigurationError, Error
from ..record import Window
from ..run import Freezing, RunFailed, Runner, Step, Voice, attach, read, standing_run
from ..scheduling import await_start
from ..site import Site
from . import common
from .dry_run import look_only
from .fence import holdup_line
from .options import Duration, Text, freeze_options, json_option, timeout_option, yes_option
from .planned import window_fields, window_line
from .progress import Progress as Live
from .standing import run_lines
from .terminal import OK, Interrupted, Output
from .terminal import run as run_body
from .words import cause_lines, printable, state_fields


def _voice(output: Output, live: Live | None) -> Voice:
    def step(which: Step, what: str, said: str) -> None:
        output.event("step", step=str(which), what=what, said=said)
        if what != "begins" or which is Step.COMMAND:
            output.note(f"  {which}: {what}" + (f"   {printable(said)}" if said else ""))

    def waiting(name: str, holdups: Sequence[Holdup]) -> None:
        output.note(f"  fence {printable(name)} waits for " + "; ".join(map(holdup_line, holdups)))

    def behind(why: str) -> None:
        output.note(f"  replica {printable(why)}")

    def out(chunk: bytes) -> None:
        if output.as_json:
            output.event("output", text=chunk.decode("utf-8", "replace"))
            return
        try:
            binary = getattr(sys.stdout, "buffer", None)  # not where a framework's command captures it
            if binary is not None:
                binary.write(chunk)
            else:
                sys.stdout.write(chunk.decode("utf-8", "replace"))
            sys.stdout.flush()
        except (OSError, ValueError):  # nobody reads on: the terminal is closed; the file keeps it
            return

    return Voice(
        step=step, progress=live.show if live is not None else None, waiting=waiting, behind=behind, output=out
    )


class _Dashed(click.Command):
    """A command with another one after `--`: an option of that one's must never be taken for ours."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Cut at the first `--`, and hand what is behind it on as `command`."""
        mine, dashes, theirs = args, [], []
        if "--" in args:
            at = args.index("--")
            mine, dashes, theirs = args[:at], args[at : at + 1], args[at + 1 :]
        try:
            rest = super().parse_args(ctx, mine)
        except click.UsageError as error:
            if dashes:
                raise
            more = f"{error.format_message()} (write -- before the command that is to be run)"
            raise click.UsageError(more, ctx) from error
        ctx.params["command"] = tuple(theirs)
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Name it in the usage."""
        return [*super().collect_usage_pieces(ctx), "-- COMMAND…"]


@click.command(cls=_Dashed, short_help="Read-only, fenced, COMMAND, open again: all of it in one.")
@click.option("--for", "expected", type=Duration(), metavar="45m", help="What visitors are told. Opens nothing.")
@click.option("--reason", type=Text(), default="", help="For colleagues: status and history.")
@click.option("--message", type=Text(), default="", help="For visitors.")
@click.option("--sessions", type=click.Choice(["end", "suspend", "keep"]), help="What happens to signed-in visitors.")
@timeout_option
@click.option("--fence/--no-fence", default=True, help="Raise the fences that readonly.toml names (the default).")
@click.option(
    "--end-writers-after", "end_after", type=Duration(), metavar="30s", help="End what a fence waits for then."
)
@freeze_options
@click.option("--window", type=Text(), metavar="ID", help="Start with this window, keep it from ending, end with it.")
@click.option("--dry-run", is_flag=True, help="Look at every privilege, process and replica; change nothing.")
@yes_option
@json_option
@click.pass_obj
def run(
    options: common.Options,
    expected: timedelta | None,
    reason: str,
    message: str,
    sessions: str | None,
    timeout: timedelta,
    fence: bool,
    end_after: timedelta | None,
    freeze: bool,
    freeze_limit: int,
    window: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Turn the site read-only, wait for proof, fence, wait for replicas, run COMMAND, lift, open again.

    If COMMAND fails, is interrupted, or this machine dies, the site STAYS read-only and fenced; `status` says how to go
    on. Exits with COMMAND's own code; 123 if it succeeded and the site is not open again, 125 if it was never started.
    """
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        if not command and not dry_run:
            raise ConfigurationError("run what? readonlyctl run -- COMMAND. Nothing was changed")
        site = options.site()
        look = common.headline(site, options, output)
        if dry_run:
            look_only(site, options, output, fence=fence, freeze=freeze)
        common.check_site(options, site, look, f"Turn {site.name} read-only and run {command[0]}?", yes=yes)
        if not any(m.report.host == site.operator.host for m in common.living(site, look)):
            output.note(
                f"This machine runs no part of {site.name}. If it sleeps, the command may die with it: better a shell "
                "on one that does, in tmux or the like."
            )
        begun = None if window is None else _begun(site, window, options, output)
        # What visitors were told before stays so, where nothing else is said.
        until = None if begun is None or begun.end is None else begun.end - site.look().census.reading.at
        lasting = until if expected is None and until is not None and until > timedelta(0) else expected
        with Live(output, seconds=timeout.total_seconds(), all_of_them=options.typed("members")) as live:
            runner = Runner(
                site,
                voice=_voice(output, live),
                timeout=timeout.total_seconds(),
                end_after=None if end_after is None else end_after.total_seconds(),
                fence=fence,
            )
            _end(
                site,
                lambda: runner.run(
                    command,
                    reason=reason,
                    expected=lasting,
                    message=message,
                    sessions=sessions,
                    window=None if begun is None else begun.id,
                    freezing=Freezing(freeze, freeze_limit),
                ),
                options,
                output,
            )

    run_body(body, output)


def _begun(site: Site, name: str, options: common.Options, output: Output) -> Window:
    """Wait until a window has begun, and say what is waited for."""

    def waiting(what: Window | Error, at: datetime) -> None:
        if isinstance(what, Window):
            output.event("scheduled", windows=[window_fields(what, at)])
            output.note(f"  waiting for {window_line(what, at)}")
            output.standing = lambda why: _stands(why, what, options, output)
        else:
            output.note(f"  {printable(str(what))}: waiting all the same")

    before = output.standing
    found = await_start(site.store, name, waiting=waiting)
    output.standing = before
    return found


def _stands(why: BaseException, window: Window, options: common.Options, output: Output) -> dict[str, Any]:
    """Say that a window comes, whoever waited for it."""
    what = "The command was not started, and will not be" if isinstance(why, Interrupted) else "Nothing was changed"
    output.note(f"{what}. {printable(window.id)} stands: the site turns read-only by itself.")
    which = "skip" if window.schedule else "cancel"
    output.note(f"  not after all   {options.typed(f'schedule {which} {window.id}')}")
    return {"changed": False}


@click.command(cls=_Dashed, short_help="Go on with a run whose runner is gone.")
@click.argument("run_id", metavar="ID")
@timeout_option
@click.option("--end-writers-after", "end_after", type=Duration(), metavar="30s", help="End what a fence waits for.")
@json_option
@click.pass_obj
def resume(
    options: common.Options,
    run_id: str,
    timeout: timedelta,
    end_after: timedelta | None,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Go on with run ID. Without COMMAND: it had succeeded, do what comes after it. With: run COMMAND (again) first.

    Refused while the old runner reports, or a session of its command is still at work at the database.
    """
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        common.headline(site, options, output)
        with Live(output, seconds=timeout.total_seconds(), all_of_them=options.typed("members")) as live:
            runner = Runner(
                site,
                voice=_voice(output, live),
                timeout=timeout.total_seconds(),
                end_after=None if end_after is None else end_after.total_seconds(),
            )
            _end(site, lambda: runner.resume(run_id, command), options, output)

    run_body(body, output)


@click.command(short_help="Open the site as it is, and give a run up.")
@click.argument("run_id", metavar="ID")
@click.option("--end-sessions", is_flag=True, help="End its command's sessions at the database first.")
@timeout_option
@yes_option
@json_option
@click.pass_obj
def abandon(
    options: common.Options, run_id: str, end_sessions: bool, timeout: timedelta, yes: bool, as_json: bool
) -> None:
    """Lift what run ID raised and open the site. The database is left as the command left it: nothing is undone there.

    Refused while the runner reports, or a session of its command is still at work.
    """
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        look = common.headline(site, options, output)
        common.check_site(options, site, look, f"Open {site.name} as it is?", yes=yes)
        runner = Runner(site, voice=_voice(output, None), timeout=timeout.total_seconds())

        def give_up() -> int:
            runner.abandon(run_id, end_sessions=end_sessions)
            return OK

        output.note("The database is left as the command left it: nothing is undone there.")
        _end(site, give_up, options, output)

    run_body(body, output)


@click.command("attach", short_help="Show a run's output again, on the machine that it runs on.")
@click.argument("run_id", metavar="ID")
@click.pass_obj
def attach_(options: common.Options, run_id: str) -> None:
    """Show the output of run ID from its begin, and go on until it is over. Ctrl-C ends the showing, not the run."""
    output = Output(as_json=options.as_json)

    def body() -> None:
        site = options.site()
        output.site = site.name
        voice = _voice(output, None)
        attach(run_id, voice.output, over=lambda: not read(site, run_id).reports)
        found = read(site, run_id)
        for line in run_lines(found, site, options):
            output.line(line)
        output.result(OK, run=run_id, exit_code=found.exit_code)

    run_body(body, output)


def _end(site: Site, work: Any, options: common.Options, output: Output) -> NoReturn:
    """Do the work, say what stands, and end with the code that `run` promises."""
    try:
        code = work()
    except RunFailed as error:
        output.note(f"readonlyctl: {printable(str(error))}")
        output.event("error", error="RunFailed", message=str(error))
        code = error.code
    state = site.look().state
    left = standing_run(site.look().record)
    if left is not None:
        found = read(site, left.id)
        output.line(f"READ-ONLY, epoch {state.epoch}: the site stays closed, for you to decide.")
        for line in run_lines(found, site, options):
            output.line("  " + line)
    elif state.read_only:
        output.line(f"Still READ-ONLY, epoch {state.epoch}:")
        for line in cause_lines(state.causes, site.look().census.reading.at):
            output.line("  " + line)
    else:
        output.line(f"WRITABLE, epoch {state.epoch}.")
    output.result(code, **state_fields(state), run=left.id if left is not None else None)
