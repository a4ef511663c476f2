"""Who is still missing, while a command waits: live on a terminal, one plain line a change elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from ..errors import Error, StoreUnreachable
from ..members import Confirmation
from .terminal import Output
from .words import confirmation_fields, counted, names, obeying, printable

if TYPE_CHECKING:
    from rich.status import Status

# Ages grow all the time: a line is said again for them alone only so often.
AGAIN_SECONDS = 10.0
NAMED = 3


class Progress:
    """Shows looks at the members. Use as a context manager.

    Attributes:
        last: The last look, None before the first.
    """

    def __init__(self, output: Output) -> None:
        self.last: Confirmation | None = None
        self._output = output
        self._said: object = None
        self._said_at = float("-inf")
        self._status: Status | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and not self._output.as_json:
            # Only here: most commands never wait on a terminal, and all of them should start fast.
            from rich.console import Console

            console = Console(stderr=True, highlight=False)
            if not console.is_dumb_terminal:
                self._status = console.status("asking…")
                self._status.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, found: Confirmation) -> None:
        """Take in a look at the members."""
        self.last = found
        meaning = (
            found.problems and len(found.problems),
            *((m.report.id, m.condition, m.report.in_flight if m.blocks else 0) for m in found.members),
        )
        missing = [m for m in found.members if m.blocks]
        text = f"{obeying(found)} of {counted(len(found.members), 'member')} there"
        if missing:
            text += f"; missing: {names(missing, most=NAMED)}"
        elif found.problems:
            text += f"; {printable(found.problems[0])}"
        if self._say(meaning, text):
            self._output.event("progress", **confirmation_fields(found))

    def trouble(self, error: Error) -> None:
        """Take in what keeps the wait from going on."""
        # A store that is away fails with ever new words; that it holds no record is said once in each of its ways.
        meaning = type(error) if isinstance(error, StoreUnreachable) else str(error)
        if self._say(meaning, f"waiting: {printable(str(error))}"):
            self._output.event("waiting", error=type(error).__name__, message=str(error))

    def _say(self, meaning: object, text: str) -> bool:
        if self._status is not None:
            from rich.text import Text

            # Plain text: nothing that a member or an operator wrote is taken for markup.
            self._status.update(Text(text))
            return False
        now = time.monotonic()
        if meaning == self._said and now - self._said_at < AGAIN_SECONDS:
            return False
        self._said, self._said_at = meaning, now
        self._output.note("  " + text)
        return True
