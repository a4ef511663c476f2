"""How the site's processes use an SQLite file together: readers go on while somebody writes, writers take turns."""

from __future__ import annotations

from typing import Any, Final

PRAGMAS: Final = ("journal_mode=WAL", "busy_timeout=10000", "synchronous=NORMAL", "foreign_keys=ON")


def on_connect(connection: Any, _record: Any) -> None:
    """Set up a new connection: a listener for SQLAlchemy's `connect`."""
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
