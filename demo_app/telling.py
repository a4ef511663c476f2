"""How a demonstration ends: what it says of its promises, and the code that it exits with."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.table import Table

from demo_app.verdict import BROKEN, KEPT, TOO_SMALL, Minimum, Promise


class Judged(Protocol):
    """What every verdict has."""

    @property
    def promises(self) -> tuple[Promise, ...]:
        """What must be 0."""
        ...

    @property
    def minimums(self) -> tuple[Minimum, ...]:
        """What must be large."""
        ...

    @property
    def exit_code(self) -> int:
        """What the demonstration exits with."""
        ...


def table(title: str, columns: Sequence[str]) -> Table:
    """Return a table whose columns are figures, each row with a name before them."""
    made = Table(title=title, title_justify="left")
    made.add_column("")
    for column in columns:
        made.add_column(column, justify="right")
    return made


def milliseconds(value: float | None) -> str:
    """Return how a latency is shown; None: there was none."""
    return "-" if value is None else f"{value:.1f}"


def say(result: Judged, console: Console) -> None:
    """Print each promise, whether enough happened for it to mean anything, and what that comes to."""
    for promise in result.promises:
        mark = "[red]BROKEN[/red]" if promise.broken else "[green]kept[/green]  "
        console.print(mark, f"{promise.broken:>5} {promise.text}", highlight=False)
        for case in promise.cases:
            console.print(f"               {case}", markup=False, highlight=False)
    for minimum in result.minimums:
        mark = "[green]enough[/green]" if minimum.met else "[red]FEW[/red]   "
        console.print(mark, f"{minimum.found:>5} {minimum.text} (at least {minimum.wanted})", highlight=False)
    console.print()
    console.print(
        {
            KEPT: "Every promise was kept.",
            BROKEN: "A promise was BROKEN.",
            TOO_SMALL: "Nothing was broken, but the load was too small for that to mean anything.",
        }[result.exit_code],
        highlight=False,
    )


def give(play: Callable[[Path, Console], int], *failures: type[Exception], keep: Path | None = None) -> int:
    """Give a demonstration in a folder of its own, which is removed, and return what to exit with.

    Args:
        play: Plays, prints and returns it, given the folder.
        failures: What it raises where it could not be given.
        keep: Where the folder is left to be looked at.
    """
    console = Console(soft_wrap=True)
    folder = Path(tempfile.mkdtemp(prefix="readonly-demo-"))
    try:
        return play(folder, console)
    except failures as failed:
        console.print(str(failed), markup=False, highlight=False, style="red")
        return BROKEN
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return 130
    finally:
        if keep is not None:
            shutil.copytree(folder, keep, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
