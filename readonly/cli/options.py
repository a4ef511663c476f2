"""Options that commands share, and what may stand in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click
import durationpy

from ..freezing import DEFAULT_LIMIT

F = TypeVar("F", bound=Callable[..., Any])
# Longer is a slip of the finger, not maintenance; and further on instants end (the year 9999).
LONGEST = timedelta(days=366)
_UNITS = ("K", "M", "G", "T")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])i?b?", re.IGNORECASE)

if TYPE_CHECKING:
    DurationType = click.ParamType[timedelta]
    TextType = click.ParamType[str]
    SizeType = click.ParamType[int]
else:  # before click 8.4 a ParamType takes no type argument at run time
    DurationType = TextType = SizeType = click.ParamType


class Duration(DurationType):
    """`45m`, `1h30m`, `90s`: a unit is needed, and it must be longer than nothing."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read a duration."""
        if isinstance(value, timedelta):
            return value
        text = str(value).strip()
        if text.replace(".", "", 1).isdigit() and float(text) > 0:
            self.fail(f"{text} what? Write {text}m or {text}s.", param, ctx)
        try:
            found = durationpy.from_str(text)
        except (durationpy.DurationError, ValueError, OverflowError):
            self.fail(f"{text!r} is no duration: write 45m, 1h30m or 90s.", param, ctx)
        if found <= timedelta(0):
            self.fail(f"{text!r} is not longer than nothing: write 45m, 1h30m or 90s.", param, ctx)
        if found > LONGEST:
            self.fail(f"{text!r} is longer than a year: write 45m, 1h30m or 90s.", param, ctx)
        return found


class Size(SizeType):
    """`20GB`, `512MB`: a unit is needed; in powers of 1024, as PostgreSQL writes them."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a size."""
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(str(value).strip())
        if found is None or float(found[1]) == 0:
            self.fail(f"{value!r} is no size: write 512MB or 20GB.", param, ctx)
        return int(float(found[1]) * 1024 ** (_UNITS.index(found[2].upper()) + 1))


class Text(TextType):
    """Any text; bytes that are no UTF-8 are replaced, since no command fails at night for a wrong character."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Make it storable."""
        return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def json_option(function: F) -> F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object a line; the last is the result.")(
        function
    )


def timeout_option(function: F) -> F:
    """Add --timeout."""
    return click.option(
        "--timeout", type=Duration(), default="60s", metavar="60s", help="How long to wait for proof (default: 60s)."
    )(function)


def zone_option(function: F) -> F:
    """Add --tz."""
    return click.option(
        "--tz",
        "zone",
        type=Text(),
        metavar="Europe/Berlin",
        help="Whose clocks are meant (READONLY_TIMEZONE, `timezone` in readonly.toml).",
    )(function)


def expect_option(function: F) -> F:
    """Add --expect for members."""
    return click.option(
        "--expect", default=None, metavar="web=4,…", help="How many members of each role must be there."
    )(function)


def accept_option(function: F) -> F:
    """Add --accept."""
    return click.option(
        "--accept",
        type=click.Choice(["lease"]),
        help="`lease`: do with it that silent processes admit nothing any more. What they had begun may still commit.",
    )(function)


def yes_option(function: F) -> F:
    """Add --yes."""
    return click.option("--yes", is_flag=True, help="Don't ask for a protected site's name on a terminal.")(function)


def accept_fenced_option(function: F) -> F:
    """Add --accept-fenced."""
    return click.option(
        "--accept-fenced", is_flag=True, help="Silent processes that a hard fence holds back at the database will do."
    )(function)


def freeze_options(function: F) -> F:
    """Add what becomes of replicas while a command runs."""
    function = click.option(
        "--freeze-limit", type=Size(), default=DEFAULT_LIMIT, metavar="20GB",
        help="Thaw a frozen replica before so much log waits for it (default: 10GB); said at half.",
    )(function)  # fmt: skip
    return click.option(
        "--freeze", is_flag=True, help="Pause the replicas that readonly.toml lets be frozen, at the fence."
    )(function)


def fence_options(function: F) -> F:
    """Add what commands that may raise fences take: whether, how long, and how strong it must be."""
    function = click.option(
        "--require",
        type=click.Choice(["hard", "cooperative", "app"]),
        help="Exit 3 when it is safe by a weaker level than this.",
    )(function)
    function = click.option(
        "--end-writers-after",
        "end_after",
        type=Duration(),
        metavar="30s",
        help="End the database transactions that a fence still waits for then.",
    )(function)
    return click.option(
        "--fence/--no-fence", default=True, help="Raise the fences that readonly.toml names (the default)."
    )(function)
