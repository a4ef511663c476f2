"""What an SQLite database holds at a moment, row by row, read by a connection that has nothing to do with the site."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every row of every table.

    Attributes:
        columns: The columns of each table that were looked at, in order.
        rows: The rows of each table, by rowid.
    """

    columns: Mapping[str, tuple[str, ...]]
    rows: Mapping[str, Mapping[int, Row]]

    def column(self, table: str, name: str) -> dict[int, Any]:
        """Return one column of a table, by rowid."""
        place = self.columns[table].index(name)
        return {rowid: row[place] for rowid, row in self.rows[table].items()}


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that is not as it was."""

    table: str
    rowid: int
    what: Literal["added", "removed", "changed"]


def take(path: Path, *, like: Snapshot | None = None) -> Snapshot:
    """Read everything that is committed, in one transaction.

    Args:
        path: The database.
        like: Another snapshot: only its tables and columns are read, so that what a migration has added does not show.
    """
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        columns = dict(like.columns) if like is not None else dict(_columns(connection))
        rows = {
            table: {
                rowid: tuple(row)
                for rowid, *row in connection.execute(
                    f"SELECT rowid, {', '.join(map(_quoted, names))} FROM {_quoted(table)}"  # noqa: S608 - quoted names
                )
            }
            for table, names in columns.items()
        }
        connection.execute("COMMIT")
    return Snapshot(columns, rows)


def _columns(connection: sqlite3.Connection) -> Iterator[tuple[str, tuple[str, ...]]]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    for (table,) in connection.execute(query).fetchall():
        names = connection.execute("SELECT name FROM pragma_table_info(?) ORDER BY cid", (table,)).fetchall()
        yield table, tuple(name for (name,) in names)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def differences(first: Snapshot, second: Snapshot) -> list[Difference]:
    """Return every row that is not in both snapshots as it was in the first."""
    found: list[Difference] = []
    for table, was in first.rows.items():
        now = second.rows.get(table, {})
        for rowid in sorted({*was, *now}):
            if rowid not in now:
                found.append(Difference(table, rowid, "removed"))
            elif rowid not in was:
                found.append(Difference(table, rowid, "added"))
            elif was[rowid] != now[rowid]:
                found.append(Difference(table, rowid, "changed"))
    return found
