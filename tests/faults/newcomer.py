"""A process of the site that does one write, and stands still when it has been admitted: `python newcomer.py CONFIG`.

CONFIG is the JSON of `Settings`. It says when it is ready to begin (`about`), begins when it may (`go`), stops itself
between the look that admits its first write and the statement (`begun`), and ends when that is committed, or when it
is told to give up (`over`). These are files in a folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from readonly import ReadOnlyError, Switch
from readonly.stores import store_from_url

LOOKS_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Settings:
    """What it is told.

    Attributes:
        slot: The number that it goes by in the history.
        store: The store's URL.
        database: The database's URL.
        events: File to which it adds the line that says that it begins.
        folder: Where the files are by which it is told what to do.
        interval, timeout: As a switch takes them.
        sabotage: What is broken in it on purpose.
    """

    slot: int
    store: str
    database: str
    events: str
    folder: str
    interval: float
    timeout: float
    sabotage: str = ""


def main() -> None:
    """Do that."""
    settings = Settings(**json.loads(sys.argv[1]))
    folder = Path(settings.folder)
    switch = Switch(store_from_url(settings.store, timeout=settings.timeout), interval=settings.interval, role="web")
    if settings.sabotage:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from faults import sabotage

        sabotage.WORKER[settings.sabotage](switch, lambda *_: None)  # type: ignore[arg-type,return-value]  # no site
    with psycopg.connect(settings.database, autocommit=True) as database:
        (folder / "about").touch()
        _until(folder / "go", folder / "over")
        member = switch._follower().member
        line = {"slot": settings.slot, "pid": os.getpid(), "member": member, "at": time.monotonic()}
        with open(settings.events, "a") as file:  # noqa: PTH123 - a script
            file.write(json.dumps(line) + "\n")
        while not (folder / "over").exists():
            with suppress(ReadOnlyError), switch.writing():
                (folder / "begun").touch()
                if not (folder / "over").exists():
                    os.kill(os.getpid(), signal.SIGSTOP)
                database.execute("INSERT INTO written (key) VALUES (%s)", [f"first-{os.getpid()}"])
                break
            time.sleep(LOOKS_SECONDS)
    switch.close()


def _until(*files: Path) -> None:
    while not any(file.exists() for file in files):
        time.sleep(LOOKS_SECONDS)


if __name__ == "__main__":
    main()
