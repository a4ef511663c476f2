"""`readonlyctl job -- COMMAND`: anything in a crontab takes part, counted and drained like a request."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType

import click

from ..errors import ReadOnlyError
from ..switch import Switch
from . import common
from .options import Duration, Text, json_option
from .terminal import NO_STORE, Output, Refusal, run

SKIPPED = 75  # EX_TEMPFAIL of sysexits.h: what cron, procmail and systemd take for "try again later"
NOT_EXECUTABLE, NOT_FOUND = 126, 127
# Longer than the time for which a process takes no write from a store that is young (design rule 8).
SETTLING_SECONDS = 4.0


@click.command(
    short_help="Run a command that writes, or skip it while read-only.",
    context_settings={"ignore_unknown_options": True},
)
@click.option("--name", type=Text(), default="", help="What it is, shown by `members` (default: the command).")
@click.option("--wait", "patience", type=Duration(), metavar="2h", help="Wait so long for the site to be writable.")
@json_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def job(
    options: common.Options, name: str, patience: timedelta | None, command: tuple[str, ...], as_json: bool
) -> None:
    """Run COMMAND while the site is writable; `on` waits until it has ended. Exits 75 when it was skipped.

    Put -- before it. Its exit code is passed through; 126 and 127 as in a shell. What it leaves behind in the
    background is not waited for.
    """
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        program = shutil.which(command[0])
        if program is None:
            raise Refusal(f"{command[0]}: there is no such command. It was not run", NOT_FOUND)
        site = options.site()
        output.site = site.name
        # A member like any other, with the environment's lease and role.
        settings = {
            "READONLY_ROLE": "job",
            "READONLY_RUNS": name or Path(command[0]).name,
            **os.environ,
            "READONLY_STORE": site.store.url,
        }
        switch = Switch.from_env(settings, create=False)
        try:
            switch.start()
            seconds = patience.total_seconds() if patience is not None else 0.0
            if not switch.state.synced and not switch.state.causes:
                # A store that has just come up may not know all yet; a moment later it does, or holds nothing.
                seconds = max(seconds, SETTLING_SECONDS)
            with switch.writing(wait=seconds):
                output.result(_run([program, *command[1:]], command[0]))
        except ReadOnlyError as refusal:
            state = switch.state
            if not state.causes and not state.synced:
                raise Refusal(f"{state.unknown_because}. The job was not run", NO_STORE) from refusal
            raise Refusal(f"{site.name} is read-only ({state.reason}): the job was skipped", SKIPPED) from refusal
        finally:
            switch.close()

    run(body, output)


def _run(words: Sequence[str], typed: str) -> int:
    """Run a command and return its exit code, or 128 and the signal that ended it, as shells do."""
    with _passing_on() as (children, early):
        try:
            child = subprocess.Popen(words)  # noqa: S603 - the operator's own command, no shell
        except OSError as error:
            raise Refusal(f"{typed}: can't be run: {error.strerror}", NOT_EXECUTABLE) from error
        children.append(child)
        for number in early:
            child.send_signal(number)
        code = child.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _passing_on() -> Iterator[tuple[list[subprocess.Popen[bytes]], list[int]]]:
    """Hand SIGTERM and SIGINT on to the child and go on waiting: the job is over when the child is.

    Yields:
        Where the child is to be put, and what arrived before it was there, which is its as well.
    """
    children: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def hand_on(number: int, _frame: FrameType | None) -> None:
        # A terminal's Ctrl-C has reached the child already, which is in the same process group.
        if number == signal.SIGINT:
            return
        if not children:
            early.append(number)
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield children, early
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
