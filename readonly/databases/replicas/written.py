"""Has a transaction written, and where does the primary's log stand behind its commit? Asked on its own connection.

One or two short questions for each commit of a request that is followed, and none for any other. What they begin is
rolled back: it holds nothing, and is nothing that anybody counts.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Protocol

from readonly.databases.postgresql import sqlstate

from .positions import behind_header

_ABORTED = "25P02"  # in_failed_sql_transaction
_LAST_GTID = "readonly_last_gtid"


class Mark(Protocol):
    """How one kind of server is asked."""

    def before(self, connection: Any, memory: MutableMapping[str, Any]) -> object:
        """Ask inside the transaction, before it is committed; False: it has written nothing, anything else: see after.

        Args:
            connection: The driver's.
            memory: What was kept of this connection, for as long as it is open.

        Raises:
            Exception: The driver's; the transaction is then as it would be after any statement that failed.
        """
        ...

    def after(self, connection: Any, before: object, memory: MutableMapping[str, Any]) -> str | None:
        """Return the position behind the commit, or None where it turns out that nothing was written."""
        ...


class _PostgreSQL:
    def before(self, connection: Any, memory: MutableMapping[str, Any]) -> object:
        # Assigned by the first write; a view, a function or a rule that writes is seen as well.
        question = (
            "SELECT CASE WHEN pg_catalog.txid_current_if_assigned() IS NULL THEN NULL"
            " ELSE pg_catalog.current_setting('synchronous_commit') END"
        )
        try:
            return _value(connection, question) or False
        except Exception as error:
            if sqlstate(error) == _ABORTED:  # by the application, which has been told; nothing of it will be written
                return False
            raise

    def after(self, connection: Any, before: object, memory: MutableMapping[str, Any]) -> str | None:
        # One that waited for the disk is flushed; of another one only the whole log is sure to hold it, though that may
        # be flushed late (and read by standbys late) on a server at rest.
        where = "insert" if before in ("off", None) else "flush"
        try:
            return behind_header(str(_value(connection, f"SELECT pg_catalog.pg_current_wal_{where}_lsn()::text")))
        finally:
            connection.rollback()


class _MariaDB:
    def before(self, connection: Any, memory: MutableMapping[str, Any]) -> object:
        # Not asked: by now it may have committed, by DDL, by hand or in a table without transactions. What differs from
        # what was there after this connection's last commit was written since.
        return (memory.get(_LAST_GTID, ""),)

    def after(self, connection: Any, before: object, memory: MutableMapping[str, Any]) -> str | None:
        try:
            gtid = str(_value(connection, "SELECT @@last_gtid") or "")
        finally:
            connection.rollback()
        memory[_LAST_GTID] = gtid
        return None if not gtid or (gtid,) == before else gtid


# MySQL tells no such thing; there it goes by time, as with files.
MARKS: dict[str, Mark] = {"postgresql": _PostgreSQL(), "mariadb": _MariaDB()}


# The same for connections that commit each statement by itself, asked at any time after it.
POSITION_AFTER = {
    "postgresql": (
        "SELECT CASE pg_catalog.current_setting('synchronous_commit')"
        " WHEN 'off' THEN pg_catalog.pg_current_wal_insert_lsn()"
        " ELSE pg_catalog.pg_current_wal_flush_lsn() END::text"
    ),
    "mariadb": "SELECT @@last_gtid",
}


def _value(connection: Any, statement: str) -> Any:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        row = cursor.fetchone()
        return None if row is None else row[0]
    finally:
        cursor.close()
