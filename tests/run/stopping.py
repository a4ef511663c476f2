"""`readonlyctl run`, in a process of its own that kills itself at a step: `python stopping.py STEP WHAT WORDS…`."""

from __future__ import annotations

import os
import signal
import sys

from readonly import run
from readonly.cli import main


def die_at(step: str, what: str) -> None:
    """Have the runner die as by `kill -9` when a step's line was written to the journal."""
    write = run.Journal.write

    def written(self: run.Journal, which: str, did: str, said: str = "", **more: object) -> None:
        write(self, which, did, said, **more)
        if (str(which), did) == (step, what):
            os.kill(os.getpid(), signal.SIGKILL)

    run.Journal.write = written  # type: ignore[method-assign]


if __name__ == "__main__":
    wanted_step, wanted_what, *words = sys.argv[1:]
    die_at(wanted_step, wanted_what)
    sys.argv = ["readonlyctl", *words]
    main(words)
