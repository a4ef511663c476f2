"""For tests: the proof that no route of a site writes while read-only, a switch of its own, contracts for authors.

A site's own tests use `walk`, `recorded_writes` and `memory_switch`; whoever writes a store inherits `StoreContract`,
whoever writes a guard for another server `ServerContract`.
Nothing here imports pytest but `readonly.testing.pytest_plugin`, which nothing here imports.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..switch import Switch
from .findings import Finding, Kind, Walk
from .routes import Answer, Example, Request, Route, Visitor
from .servers import ServerContract
from .stores import StoreContract, Waiter, count_up, counted, in_child, put, settle, tick
from .walking import CONFIRM_SECONDS, walk
from .witness import Witness, Write

__all__ = [
    "Answer",
    "Example",
    "Finding",
    "Kind",
    "Request",
    "Route",
    "ServerContract",
    "StoreContract",
    "Visitor",
    "Waiter",
    "Walk",
    "Witness",
    "Write",
    "count_up",
    "counted",
    "in_child",
    "memory_switch",
    "put",
    "recorded_writes",
    "settle",
    "tick",
    "walk",
]


def memory_switch(read_only: bool = False) -> Switch:
    """Return a switch of this process alone, started; no two share anything.

    Args:
        read_only: Turn it on at once, proven.
    """
    switch = Switch.from_url("memory://?site=tests")
    switch.start()
    switch.look()
    if read_only:
        state = switch.on(reason="a test")
        switch.confirm(state.epoch, timeout=CONFIRM_SECONDS).require_safe()
    return switch


@contextmanager
def recorded_writes(engine: Any, name: str = "main") -> Iterator[Witness]:
    """Witness every write that an SQLAlchemy engine sends, inside a with block; or give it to `walk`.

    What a write is, the server says: on PostgreSQL a statement has written if its transaction has an id afterwards, on
    SQLite if rows or the schema have changed; and one that was refused as read-only wanted to write. SQL text is not
    looked at. It changes nothing of what the application does; each statement costs two small queries more.

    Args:
        engine: An Engine or AsyncEngine on PostgreSQL or SQLite, the one that the application uses.
        name: How reports call it; by default `main`, like a `Database`.

    Raises:
        ConfigurationError: It is no engine, or there is no way to ask its server.
    """
    from ..databases.sqlalchemy.recorded import recorded

    witness = Witness(name)
    with recorded(engine, witness):
        yield witness
