"""How commands speak: results to stdout, progress to stderr, plain uncut lines, JSON where asked, honest exit codes."""

from __future__ import annotations

import json
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any, NoReturn

import click
import durationpy

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

OK, FAILED, USAGE, NOT_PROVEN, NO_STORE, LOST, REFUSED = 0, 1, 2, 3, 4, 5, 6
INTERRUPTED, TERMINATED = 130, 143
SCHEMA = 1

_CODES: tuple[tuple[type[Error], int], ...] = (
    (ConfigurationError, USAGE),
    (StoreUnreachable, NO_STORE),
    (NoRecord, NO_STORE),
    (UnreadableRecord, NO_STORE),
    (LostRace, LOST),
    (NotYours, REFUSED),
    (NotConfirmed, NOT_PROVEN),
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


def exit_code(error: Error) -> int:
    """Return the exit code that stands for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def printable(text: str) -> str:
    """Return text with what a terminal would obey (escape sequences, line breaks, direction marks) made visible."""
    return "".join(
        c
        if c == " " or unicodedata.category(c) not in ("Cc", "Cf", "Zl", "Zp", "Cs", "Co")
        else f"\\x{ord(c):02x}"
        for c in text
    )


class Output:
    """One command's voice.

    Args:
        as_json: One JSON object a line on stdout, and nothing else there.
        site: The site's name, in each object.
    """

    def __init__(self, *, as_json: bool, site: str = "") -> None:
        self.as_json = as_json
        self.site = site

    def line(self, text: str = "") -> None:
        """Print a line of the result."""
        if not self.as_json:
            click.echo(text)

    def note(self, text: str) -> None:
        """Print a line of progress."""
        if not self.as_json:
            click.echo(text, err=True)

    def event(self, event: str, **fields: Any) -> None:
        """Print one object, if JSON was asked for."""
        if self.as_json:
            document = {"schema": SCHEMA, "event": event, "site": self.site, **fields}
            click.echo(json.dumps(document, default=_plain, ensure_ascii=False))

    def result(self, code: int, **fields: Any) -> NoReturn:
        """Print the last object, if JSON was asked for, and end with an exit code."""
        self.event("result", exit=code, **fields)
        raise Exit(code)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


def rfc3339(value: datetime) -> str:
    """Return an instant as RFC 3339 in UTC, whole seconds."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock_time(value: datetime, now: datetime) -> str:
    """Return an instant as people say it: with the date only where it is not today's."""
    value, now = value.astimezone(UTC), now.astimezone(UTC)
    return value.strftime("%H:%M:%S UTC" if value.date() == now.date() else "%Y-%m-%d %H:%M:%S UTC")


def spoken(seconds: float) -> str:
    """Return a stretch of time as people say it."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


class Duration(click.ParamType[timedelta]):
    """`45m`, `1h30m`, `90s`: a unit is needed, and it must be longer than nothing."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read a duration."""
        if isinstance(value, timedelta):
            return value
        text = str(value).strip()
        if text.replace(".", "", 1).isdigit() and float(text) > 0:
            self.fail(f"{text} what? Write {text}m or {text}s", param, ctx)
        try:
            found = durationpy.from_str(text)
        except (durationpy.DurationError, ValueError, OverflowError):
            self.fail(f"{text!r} is no duration: write 45m, 1h30m or 90s", param, ctx)
        if not isinstance(found, timedelta) or found <= timedelta(0):
            self.fail(f"{text!r} is not longer than nothing: write 45m, 1h30m or 90s", param, ctx)
        return found


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into `Interrupted`, so that a command can say what stands before it ends."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(TERMINATED if number == signal.SIGTERM else INTERRUPTED)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(command: Callable[[], None], output: Output) -> NoReturn:
    """Run a command's body and end the process with the code that stands for what happened."""
    try:
        command()
    except Exit as done:
        code = done.code
    except Error as error:
        code = exit_code(error)
        output.event("error", error=type(error).__name__, message=str(error))
        output.event("result", exit=code)
        click.echo(f"readonlyctl: {printable(str(error))}", err=True)
    else:
        output.event("result", exit=OK)
        code = OK
    sys.stdout.flush()
    sys.exit(code)
