"""`readonlyctl run` that kills itself at a step, as by `kill -9`: STEP WHAT, and then what is typed.

WHAT is what the journal says of the step (`begins`, `done`), when it has just been written; or `middle`: the step was
done, and the journal does not know yet.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence

from readonly.cli import main as readonlyctl
from readonly.run import Journal
from readonly.run.steps import AFTER, BEFORE, Action

MIDDLE = "middle"


def die() -> None:
    """End as by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_when_written(step: str, what: str) -> None:
    """Have the runner die when a step's line was written to the journal."""
    write = Journal.write

    def written(self: Journal, which: str, did: str, said: str = "", **more: object) -> None:
        write(self, which, did, said, **more)
        if (str(which), did) == (step, what):
            die()

    Journal.write = written  # type: ignore[method-assign, assignment]


def die_when_done(step: str) -> None:
    """Have the runner die when it has done a step, before it can say so."""
    (action,) = (action for action in (*BEFORE, *AFTER) if action.step == step)
    do: Callable[[Action], str] = action.do

    def done(self: Action) -> str:
        do(self)
        die()
        return ""

    action.do = done  # type: ignore[method-assign, assignment]


def main(arguments: Sequence[str]) -> None:
    """Run the command line that follows the first two words."""
    step, what, *words = arguments
    if what == MIDDLE:
        die_when_done(step)
    else:
        die_when_written(step, what)
    readonlyctl(words)
