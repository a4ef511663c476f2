"""`on --in 10m`: announced at once, as a window without an end, so that it turns whether or not the command lives."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..errors import Error
from ..record import Window
from ..scheduling import Wanted, await_start, schedule
from ..site import Site
from . import common
from .planned import window_fields
from .terminal import OK, Output
from .words import local_too, printable, spoken, state_fields


def announce(site: Site, wanted: Wanted, options: common.Options, output: Output, *, wait: bool) -> None:
    """Announce read-only time and wait until it has begun; without `wait` end the command.

    Raises:
        NotYours: It was cancelled meanwhile.
    """
    found = schedule(site.store, options.operator(), wanted)
    (window,), at = found.windows, found.change.reading.at
    output.event("scheduled", windows=[window_fields(window, at)])
    left = (window.start - at).total_seconds()
    until = "until `off`"
    if window.expected_end is not None:
        until = f"expected until {local_too(window.expected_end, at)}, ends by `off`"
    before = f", instead of {local_too(found.was.start, at)}" if found.was is not None else ""
    output.line(
        f"ANNOUNCED: read-only from {local_too(window.start, at)}, in {spoken(left)}{before}, {until}   {window.id}"
    )
    if not wait:
        output.line(f"It turns by itself. Start nothing irreversible before, then:   {options.typed('wait')}")
        output.line(f"  not after all   {options.typed(f'schedule cancel {window.id}')}")
        if site.fences:
            output.line(f"  It raises no fence: for that type, when it has turned   {options.typed('on')}")
        state = site.look().state
        output.result(
            OK,
            **state_fields(state),
            safe=False,
            level=None,
            confirmed=False,
            cause=window.id,
            warnings=[],
        )

    def stands(_why: BaseException) -> dict[str, Any]:
        output.note(f"{window.id} stands: it turns by itself at {local_too(window.start, datetime.now(UTC))}.")
        output.note(f"  not after all   {options.typed(f'schedule cancel {window.id}')}")
        output.note(f"  when it turned  {options.typed('wait')}")
        return {"cause": window.id, "safe": False, "confirmed": False}

    def waiting(what: Window | Error, at: datetime) -> None:
        nonlocal window
        if not isinstance(what, Window):
            output.note(f"  {printable(str(what))}: waiting all the same")
            return
        # Known before it is said: an interrupt may come right after, and names when it turns.
        was, window = window, what
        if what.start != was.start:
            output.note(f"  {what.id} begins at {local_too(what.start, at)} now")

    output.standing = stands
    await_start(site.store, window.id, waiting=waiting)
    output.standing = lambda _: common.stands_now(site, output)
