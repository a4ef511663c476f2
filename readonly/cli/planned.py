"""What commands say about windows and schedules, by UTC and by the clocks of their zone, and as fields for programs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

from ..errors import ConfigurationError
from ..record import Record, Schedule, Window
from ..schedules import MARKS_MEAN, NoSuchTime, zone_named
from . import common
from .terminal import USAGE, Output
from .words import printable, spoken


def _zone(window: Window) -> ZoneInfo | None:
    try:
        return zone_named(window.zone) if window.zone else None
    except ConfigurationError:  # this machine does not know it; UTC is what counts
        return None


def span(window: Window) -> str:
    """Return when a window is, by UTC and by the clocks of its zone."""
    text = _from_to(window, UTC)
    zone = _zone(window)
    if zone is not None and zone.key != "UTC":
        text += f" ({_from_to(window, zone, today=window.start)}, {printable(window.zone)})"
    if window.end is not None:
        text += f", {spoken((window.end - window.start).total_seconds())}"
    return text


def _from_to(window: Window, zone: Any, *, today: datetime | None = None) -> str:
    start = window.start.astimezone(zone)
    seconds = ":%S" if window.start.second or (window.end is not None and window.end.second) else ""
    date = "" if today is not None and today.date() == start.date() else "%Y-%m-%d "
    if window.end is None:
        return f"{start:{date}%H:%M{seconds} %Z} until `off`"
    end = window.end.astimezone(zone)
    day = "" if end.date() == start.date() else "%Y-%m-%d "
    # A change of the clocks in between is seen by the two names of the zone.
    name = "" if start.tzname() == end.tzname() else " %Z"
    return f"{start:{date}%H:%M{seconds}{name}} to {end:{day}%H:%M{seconds} %Z}"


def window_line(window: Window, at: datetime) -> str:
    """Return one window as `list` shows it."""
    text = f"{printable(window.id)}   {span(window)}"
    if window.ended:
        text += "   skipped" if window.schedule else "   cancelled"
    elif window.start <= at:
        text += "   in force"
        if window.end is not None and window.end <= at:
            text += ", its end has passed"
    else:
        text += f"   in {spoken((window.start - at).total_seconds())}"
    if not window.schedule:
        text += f"   {printable(window.by)}"
        text += f'   "{printable(window.reason)}"' if window.reason else ""
    if window.mark:
        text += f"   {printable(window.mark)}: {MARKS_MEAN.get(window.mark, 'the clocks change')}"
    return text


def recurring_line(plan: Schedule) -> str:
    """Return a recurring window's rule."""
    rule = f"cron {printable(plan.rule)}"
    if plan.typed.upper() != plan.rule:
        rule = f"every {printable(plan.typed)} ({rule})"
    return (
        f"{printable(plan.id)}   {rule} by the clocks of {printable(plan.zone)}, {spoken(plan.seconds)} each, "
        f"by {printable(plan.by)}"
    )


def refuse_time(error: NoSuchTime, typed: Callable[[str], str], options: common.Options, output: Output) -> NoReturn:
    """Refuse a local time that its zone's clocks never show, or twice, with what may be meant, each as a command.

    Args:
        error: Which time, and what may be meant.
        typed: The command for one of those times.
        options: How commands are typed here.
        output: Where to say it.
    """
    output.line(f"REFUSED: {printable(str(error))}. Nothing was changed. One of these may be meant:")
    output.hints(*((what, options.typed(typed(at))) for at, what in error.candidates))
    output.event("error", error=type(error).__name__, message=str(error))
    output.result(USAGE, changed=False)


def window_fields(window: Window, at: datetime) -> dict[str, Any]:
    """Return a window as JSON fields."""
    zone = _zone(window)
    stands = "in force" if window.start <= at else "planned"
    return {
        "id": window.id,
        "status": ("skipped" if window.schedule else "cancelled") if window.ended else stands,
        "start": window.start,
        "end": window.end,
        "local_start": window.start.astimezone(zone).isoformat() if zone is not None else None,
        "local_end": window.end.astimezone(zone).isoformat() if zone is not None and window.end is not None else None,
        "zone": window.zone,
        "typed": window.typed,
        "mark": window.mark,
        "by": window.by,
        "reason": window.reason,
        "message": window.message,
        "sessions": window.sessions,
        "schedule_id": window.schedule,
    }


def recurring_fields(plan: Schedule, record: Record, at: datetime) -> dict[str, Any]:
    """Return a recurring window as JSON fields."""
    return {
        "id": plan.id,
        "rule": plan.rule,
        "typed": plan.typed,
        "zone": plan.zone,
        "lasting_seconds": plan.seconds,
        "by": plan.by,
        "reason": plan.reason,
        "message": plan.message,
        "sessions": plan.sessions,
        "left": sum(w.schedule == plan.id and not w.ended and w.start > at for w in record.windows),
    }
