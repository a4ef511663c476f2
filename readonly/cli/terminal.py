"""How commands speak and end: results to stdout, progress to stderr, JSON where asked, honest exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import FrameType
from typing import IO, Any, NoReturn

import click

from ..databases.fence import FenceRefused, NotOurFence, StillWriting
from ..errors import (
    ConfigurationError,
    Error,
    LostRace,
    NoRecord,
    NotConfirmed,
    NotYours,
    StoreUnreachable,
    UnreadableRecord,
)
from ..switchover import MovedAway
from .words import printable, rfc3339

OK, FAILED, USAGE, NOT_PROVEN, NO_STORE, LOST, REFUSED = 0, 1, 2, 3, 4, 5, 6
INTERRUPTED, TERMINATED = 130, 143
# Rises when a field of the JSON output changes its meaning or goes away; new fields may come at any time.
SCHEMA = 1
# The command group's own name, whatever it is called by.
GROUP = "readonly"

_CODES: tuple[tuple[type[Error], int], ...] = (
    (ConfigurationError, USAGE),
    (StoreUnreachable, NO_STORE),
    (NoRecord, NO_STORE),
    (UnreadableRecord, NO_STORE),
    (LostRace, LOST),
    (NotYours, REFUSED),
    (MovedAway, REFUSED),
    (NotConfirmed, NOT_PROVEN),
    (FenceRefused, REFUSED),
    (NotOurFence, REFUSED),
    (StillWriting, NOT_PROVEN),
)


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM arrived; carries the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Exit(Exception):
    """End the command with this exit code; everything was said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Refusal(Error):
    """A command refuses by itself, before it has changed anything.

    Attributes:
        code: The exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def exit_code(error: Error) -> int:
    """Return the exit code that stands for an error."""
    if isinstance(error, Refusal):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


class Output:
    """One command's voice.

    Args:
        as_json: One JSON object a line on stdout, and nothing else there.
        site: The site's name, in each object.
        command: What was typed; None: what click is running.
    """

    def __init__(self, *, as_json: bool, site: str = "", command: str | None = None) -> None:
        self.as_json = as_json
        self.site = site
        self.command = command or _typed(click.get_current_context(silent=True))
        # Says what stands, and returns it for the result, when the command is interrupted, the store fails or a race
        # is lost. A command that has begun to change something puts its own here.
        self.standing: Callable[[BaseException], dict[str, Any]] = self._nothing_changed

    def line(self, text: str = "") -> None:
        """Print a line of the result; nothing in it is obeyed by a terminal, whoever wrote it."""
        if not self.as_json:
            _print(_unobeyed(text), sys.stdout)

    def note(self, text: str) -> None:
        """Print a line of progress."""
        if not self.as_json:
            _print(_unobeyed(text), sys.stderr)

    def hints(self, *pairs: tuple[str, str]) -> None:
        """Print what may be typed next: what for, and what, one a line."""
        width = max(len(what) for what, _ in pairs)
        for what, typed in pairs:
            self.line(f"  {what:<{width}}   {printable(typed)}")

    def event(self, event: str, **fields: Any) -> None:
        """Print one object, if JSON was asked for."""
        if self.as_json:
            document = {"schema": SCHEMA, "event": event, "command": self.command, "site": self.site, **fields}
            # Only ASCII: whoever looks at it on a terminal is safe from what operators and members wrote.
            _print(json.dumps(document, default=_plain), sys.stdout)

    def result(self, code: int, **fields: Any) -> NoReturn:
        """Print the last object, if JSON was asked for, and end with an exit code."""
        self.event("result", exit=code, **fields)
        raise Exit(code)

    def _nothing_changed(self, _why: BaseException) -> dict[str, Any]:
        self.note("Nothing was changed.")
        return {"changed": False}


def _typed(context: click.Context | None) -> str | None:
    """Return a command's name below the group (`members forget`), or None if it is not known."""
    names: list[str] = []
    while context is not None and context.command.name != GROUP:
        names.insert(0, context.command.name or "")
        context = context.parent
    return " ".join(names) if names and context is not None else None


def _unobeyed(text: str) -> str:
    # Line breaks are a command's own here: what others wrote has passed `printable` before it became part of a line.
    return "\n".join(printable(line) for line in text.split("\n"))


def _print(text: str, stream: IO[str]) -> None:
    try:
        click.echo(text, file=stream)
    except BrokenPipeError:
        # Nobody reads on (`| head -1`): that must change neither what the command does nor how it ends.
        _read_by_nobody(stream)


def _read_by_nobody(stream: IO[str]) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into `Interrupted`, so that a command can say what stands before it ends."""
    if threading.current_thread() is not threading.main_thread():  # a framework's command called from a thread
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        raise _interrupted(number)

    with _handled_by(stop):
        yield


@contextmanager
def unbroken() -> Iterator[None]:
    """Have Ctrl-C wait for the end of a change that is on its way to the store, which the store's timeout bounds.

    Cut off from its answer, nobody could say whether it takes effect. A second Ctrl-C does not wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def keep(number: int, _frame: FrameType | None) -> None:
        if arrived:
            raise _interrupted(number)
        arrived.append(number)

    with _handled_by(keep):
        yield
    if arrived:
        raise _interrupted(arrived[0])


def _interrupted(number: int) -> Interrupted:
    return Interrupted(TERMINATED if number == signal.SIGTERM else INTERRUPTED)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, found in before.items():
            signal.signal(number, found)


def run(command: Callable[[], None], output: Output) -> NoReturn:
    """Run a command's body and end the process with the code that stands for what happened."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a character gets its number; no command fails for that.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with interruptible():
        try:
            code = _ended(command, output)
        except Interrupted as stopped:
            code = stopped.code
            try:
                output.note("Interrupted.")
                output.event("result", exit=code, **output.standing(stopped))
            except Interrupted as again:
                code = again.code
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _read_by_nobody(sys.stdout)
    sys.exit(code)


def _ended(command: Callable[[], None], output: Output) -> int:
    try:
        command()
    except Exit as done:
        return done.code
    except Error as error:
        code = exit_code(error)
        output.event("error", error=type(error).__name__, message=str(error))
        say_error(str(error))
        found = output.standing(error) if isinstance(error, (StoreUnreachable, LostRace)) else {"changed": False}
        output.event("result", exit=code, **found)
        return code
    except Exception as error:
        # A fault of ours: Python shows where, and the site is as it is.
        output.event("error", error=type(error).__name__, message=str(error))
        output.event("result", exit=FAILED)
        say_error("a fault of this program, see below; what the site is now: readonlyctl status")
        raise
    output.event("result", exit=OK)
    return OK


def say_error(message: str) -> None:
    """Print an error as one line, with nothing in it that a terminal would obey."""
    _print(f"readonlyctl: {printable(message)}", sys.stderr)


def usage_error(error: click.ClickException, words: Sequence[str]) -> NoReturn:
    """End a command that was never begun, since it was typed wrongly."""
    if "--json" in words:
        context = error.ctx if isinstance(error, click.UsageError) else None
        output = Output(as_json=True, command=_typed(context))
        output.event("error", error=type(error).__name__, message=error.format_message())
        output.event("result", exit=error.exit_code, changed=False)
    error.show()
    sys.exit(error.exit_code)
