"""What is measured beside the visitors: reads on the primary, and who waits for a lock at the standby."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from demo_app.postgres.migration import BUSIEST

CONTROLS: Final = 3
PAUSE_SECONDS: Final = 0.05
_READ: Final = f"SELECT count(*) FROM {BUSIEST} WHERE article_id = 1"  # noqa: S608 - a table of ours
_WAITING: Final = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{BUSIEST}'::regclass"  # noqa: S608


@dataclass(slots=True)
class Measured:
    """What was found so far.

    Attributes:
        controls: Begin and end of each read on the primary, in ns of CLOCK_MONOTONIC.
        waiting: When somebody looked, and how many sessions at the standby were waiting for the busiest table then.
        problems: What went wrong with a read or a look.
    """

    controls: list[tuple[int, int]] = field(default_factory=list)
    waiting: list[tuple[int, int]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@contextmanager
def measuring(primary: str, standby: str) -> Iterator[Measured]:
    """Read the primary and look at the standby, over and over, until the end."""
    found = Measured()
    ending = threading.Event()

    def read(connection: psycopg.Connection[Any]) -> None:
        begun = time.monotonic_ns()
        connection.execute(_READ)
        found.controls.append((begun, time.monotonic_ns()))

    def look(connection: psycopg.Connection[Any]) -> None:
        row = connection.execute(_WAITING).fetchone()
        found.waiting.append((time.monotonic_ns(), int(row[0]) if row is not None else 0))

    def repeat(url: str, what: Callable[[psycopg.Connection[Any]], None]) -> None:
        try:
            with psycopg.connect(url, autocommit=True, application_name="control") as connection:
                while not ending.wait(PAUSE_SECONDS):
                    what(connection)
        except psycopg.Error as error:
            found.problems.append(str(error).strip().partition("\n")[0])

    threads = [threading.Thread(target=repeat, args=(primary, read)) for _ in range(CONTROLS)]
    threads.append(threading.Thread(target=repeat, args=(standby, look)))
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        ending.set()
        for thread in threads:
            thread.join()
