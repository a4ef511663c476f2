"""What PostgreSQL itself says, through connections that nothing of the library touches."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import psycopg

from faults.history import Commit, Row, Rows
from support.postgres_server import PostgresServer

TABLE = """
CREATE TABLE written (
    id bigserial PRIMARY KEY,
    key text NOT NULL UNIQUE,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id()
)
"""
# Writes are few a second and none lasts a second: whatever is new in a confirmed time is among the latest so many.
LATEST = 300
_COMMIT = re.compile(r"tx:\s+(\d+), lsn: ([0-9A-F]+/[0-9A-F]+),.*desc: COMMIT (\S+ \S+) UTC")


def position(text: str) -> int:
    """Return a log position as a number."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


class Truth:
    """One connection. Not for two threads at once."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.server = server
        self.url = server.url(database)
        self._connection = psycopg.connect(self.url, autocommit=True, application_name="faults-truth")

    def _row(self, statement: str, *values: Any) -> Any:
        found = self._connection.execute(statement, values).fetchone()
        assert found is not None
        return found

    def prepare(self) -> None:
        """Make the table."""
        self._connection.execute(TABLE)

    def rows(self) -> Rows:
        """Return the committed rows, from one snapshot."""
        count, latest = self._row(
            "SELECT (SELECT count(*) FROM written),"
            " ARRAY(SELECT id FROM written ORDER BY id DESC LIMIT %s)", LATEST,
        )  # fmt: skip
        return Rows(count, tuple(latest))

    def mark(self, what: str) -> int:
        """Write a marker into the log, synchronously, and return how far the log is flushed behind it."""
        self._connection.execute("SET synchronous_commit = on")
        self._row("SELECT pg_logical_emit_message(true, 'faults', %s)::text", what)
        return position(self._row("SELECT pg_current_wal_flush_lsn()::text")[0])

    def writers(self, pids: set[int] | None = None) -> list[str]:
        """Return the sessions of workers (of these processes, or of all) that have a transaction open."""
        found = self._connection.execute(
            "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'faults-%%-%%'"
            " AND (backend_xid IS NOT NULL OR state <> 'idle')"
        ).fetchall()
        names = [name for (name,) in found]
        return [n for n in names if pids is None or int(n.rpartition("-")[2]) in pids]

    def all_rows(self) -> list[Row]:
        """Return every committed row."""
        found = self._connection.execute("SELECT id, key, xid::text FROM written ORDER BY id").fetchall()
        # The log has the lower half of an id; a server that was just made has used no more.
        return [Row(number, key, int(xid) & 0xFFFFFFFF) for number, key, xid in found]

    def commits(self, start: int, end: int) -> list[Commit]:
        """Return the commit records between two positions in the log.

        Raises:
            RuntimeError: The log could not be read.
        """
        told = self.server._run(
            "pg_waldump",
            *("-p", os.fspath(self.server.data / "pg_wal"), "-r", "Transaction"),
            *("-s", _text(start), "-e", _text(end)),
        )
        found = []
        for line in told.splitlines():
            match = _COMMIT.search(line)
            if match:
                at = datetime.fromisoformat(match[3]).replace(tzinfo=UTC)
                found.append(Commit(int(match[1]), position(match[2]), at.timestamp()))
        return found

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def __enter__(self) -> Truth:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _text(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
