"""Who is still missing, while a command waits: live on a terminal, one plain line a change elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from ..confirmation import Confirmation
from ..errors import Error, NotConfirmed, StoreUnreachable
from .groups import holding_up, obeying, role_lines, shortened
from .terminal import Output
from .words import counted, printable, progress_fields, spoken

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live
    from rich.text import Text

# Ages grow all the time: a line is said again for them alone only so often.
AGAIN_SECONDS = 10.0
# Many members change one after the other: so many lines at once, and then one in so many seconds.
LINES_AT_ONCE, SECONDS_A_LINE = 8, 1.0
NAMED = 3
REFRESHES_PER_SECOND = 4


class Progress:
    """Shows looks at the members. Use as a context manager.

    Args:
        output: The command's voice.
        seconds: For how long the command will wait.
        all_of_them: What to type to see every member.

    Attributes:
        last: The last look, None before the first.
    """

    def __init__(self, output: Output, *, seconds: float, all_of_them: str = "") -> None:
        self.last: Confirmation | None = None
        self._output = output
        self._seconds = seconds
        self._all_of_them = all_of_them
        self._trouble = ""
        self._began = time.monotonic()
        self._said: object = None
        self._said_at = float("-inf")
        self._lines_left = float(LINES_AT_ONCE)
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        self._began = time.monotonic()
        if sys.stderr.isatty() and not self._output.as_json:
            # Only here: most commands never wait on a terminal, and all of them should start fast.
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, highlight=False)
            if not console.is_dumb_terminal:
                self._live = Live(
                    self,
                    console=console,
                    refresh_per_second=REFRESHES_PER_SECOND,
                    # What it ends with is said in plain lines, which stay.
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self._live.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, found: Confirmation) -> None:
        """Take in a look at the members."""
        self.last = found
        self._trouble = ""
        meaning = (
            found.problems and len(found.problems),
            *((m.report.id, m.condition, m.report.in_flight if m.blocks else 0) for m in found.members),
        )
        text = f"{obeying(found)} of {counted(len(found.members), 'member')} there"
        missing = holding_up(found)
        if missing:
            text += "; missing: " + "; ".join(shortened(missing, NAMED + 1))
        if self._say(meaning, text):
            self._output.event("progress", **progress_fields(found))

    def trouble(self, error: Error) -> None:
        """Take in what keeps the wait from going on."""
        self._trouble = f"waiting: {printable(str(error))}"
        # A store that is away fails with ever new words, and one that is young grows older with each; that it holds no
        # record is said once in each of its ways.
        meaning = type(error) if isinstance(error, (StoreUnreachable, NotConfirmed)) else str(error)
        if self._say(meaning, self._trouble):
            self._output.event("waiting", error=type(error).__name__, message=str(error))

    def _say(self, meaning: object, text: str) -> bool:
        if self._live is not None:
            return False  # it looks for itself, some times a second
        now = time.monotonic()
        self._lines_left = min(
            float(LINES_AT_ONCE), self._lines_left + max(0.0, now - max(self._said_at, self._began)) / SECONDS_A_LINE
        )
        if self._lines_left < 1 or (meaning == self._said and now - self._said_at < AGAIN_SECONDS):
            return False
        self._lines_left -= 1
        self._said, self._said_at = meaning, now
        self._output.note("  " + text)
        return True

    # --- on a terminal -----------------------------------------------------------------------------------------------

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield what fits on the terminal, whole lines only: roles, then who holds things up, the worst first."""
        from rich.text import Text

        # The last row is left alone: a terminal that wrote to it has scrolled.
        rows, found = max(2, options.size.height - 1), self.last

        def line(text: str, style: str = "") -> Text:
            # Plain text: nothing that a member or an operator wrote is taken for markup. A name that is longer than
            # the terminal is wide goes on in the next row.
            return Text(text, style=style, overflow="fold", no_wrap=False)

        def height(lines: list[Text]) -> int:
            return sum(len(text.wrap(console, options.max_width)) for text in lines)

        above = [line(self._heading(), "bold")]
        if self._trouble:
            above.append(line("  " + self._trouble, "yellow"))
        missing: list[str] = []
        if found is not None:
            above += [line("  " + text) for text in role_lines(found, versions=False)]
            missing = holding_up(found)
        below: list[Text] = []
        for most in range(len(missing), 0, -1):
            below = [line("  " + text, "yellow") for text in shortened(missing, most, how=self._all_of_them)]
            if height([*above, *below]) <= rows:
                break
        shown = [*above, *below]
        while len(shown) > 1 and height(shown) > rows:
            shown.pop()
        yield from shown

    def _heading(self) -> str:
        waited = f"{spoken(time.monotonic() - self._began)} of {spoken(self._seconds)}"
        if self.last is None:
            return f"Asking every process … {waited}"
        what = "obey and have drained" if self.last.closing else "follow"
        return (
            f"Waiting until all {what}: {obeying(self.last)} of {counted(len(self.last.members), 'member')}, {waited}"
        )
