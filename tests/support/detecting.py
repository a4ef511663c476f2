"""What tests of detection share: looks that come at once, a file that nobody can write, a database set read-only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from readonly import Switch
from readonly.databases import detection
from support.postgres_server import PostgresServer
from support.waiting import eventually


def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, so that nobody waits for what a primary would be given."""
    monkeypatch.setattr(detection, "LOOK_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(detection, "LOOK_CAP_SECONDS", 0.05)
    monkeypatch.setattr(detection, "CALM_FIRST_SECONDS", 0.02)
    monkeypatch.setattr(detection, "CALM_CAP_SECONDS", 0.1)
    monkeypatch.setattr(detection, "DISMISSED_SECONDS", 0.0)


def found(switch: Switch) -> str:
    """Wait until a local cause is in force, and return what it says."""
    eventually(lambda: switch.state.read_only, what="it is found")
    [cause] = switch.state.causes
    assert (cause.kind, cause.sessions) == ("local", "keep")
    return cause.reason


def over(switch: Switch) -> None:
    """Wait until nothing is found any more."""
    eventually(lambda: not switch.state.read_only, what="it is over")


def set_format(path: Path, version: int) -> None:
    """Make an SQLite file one that this SQLite may read and not write (3), or again what it was (1); also for root."""
    with path.open("r+b") as file:
        file.seek(18)
        file.write(bytes([version]))
        file.seek(24)
        counter = int.from_bytes(file.read(4), "big")
        file.seek(24)
        file.write((counter + 1).to_bytes(4, "big"))


@contextmanager
def read_only_by_default(server: PostgresServer, url: str) -> Iterator[None]:
    """Make what new sessions of a database begin read-only, as an operator would."""
    name = url.rsplit("/", 1)[1]
    server.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        yield
    finally:
        server.sql(f"ALTER DATABASE {name} RESET default_transaction_read_only")
