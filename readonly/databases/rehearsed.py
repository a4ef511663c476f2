"""What a transaction has written, by the word of its server: asked at its end, while a rehearsal goes on.

PostgreSQL gives a transaction an id once it has written, and holds a lock on what it wrote until it is over. SQLite
counts the rows that a connection changed, and its schemas. MySQL and MariaDB count statements by connection. SQL text
is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

# A transaction that has written holds these on its tables; FOR UPDATE and its like, which a read-only transaction is
# refused as well, the last one. A row that another table refers to is locked so, too: it counts where nothing else is.
_TABLES: Final = """
SELECT n.nspname, c.relname, l.mode
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_class c ON c.oid = l.relation
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted
  AND l.mode <> 'AccessShareLock' AND c.relkind IN ('r', 'p', 'm', 'S', 'v') AND c.relpersistence <> 't'
  AND n.nspname <> 'pg_catalog'
ORDER BY 1, 2
LIMIT 50
"""
# Of other users' sessions the transaction's id is only shown to those who may (pg_read_all_stats).
_WRITING: Final = """
SELECT pid = pg_catalog.pg_backend_pid(), usename, client_addr::text, application_name
FROM pg_catalog.pg_stat_activity
WHERE datname = pg_catalog.current_database()
  AND (pid = pg_catalog.pg_backend_pid() OR (backend_xid IS NOT NULL AND backend_type = 'client backend'))
LIMIT 50
"""
_COUNTED: Final = (
    "Com_insert",
    "Com_insert_select",
    "Com_update",
    "Com_update_multi",
    "Com_delete",
    "Com_delete_multi",
    "Com_replace",
    "Com_replace_select",
    "Com_load",
    "Com_truncate",
    "Com_create_table",
    "Com_alter_table",
    "Com_drop_table",
)
_COUNTERS: Final = f"SHOW SESSION STATUS WHERE Variable_name IN ({', '.join(repr(name) for name in _COUNTED)})"


@dataclass(frozen=True, slots=True)
class Asking:
    """How a server's connections are asked. Each takes a PEP 249 connection.

    Attributes:
        before: Asked when a transaction begins; what it returns is handed to `wrote`.
        wrote: Asked right before its commit: the tables that it has written, as far as the server tells, or None.
        writers: Asked now and then: who this connection is, and who else is writing at this moment, as far as its user
            may see that.
    """

    before: Callable[[Any], object]
    wrote: Callable[[Any, object], tuple[str, ...] | None]
    writers: Callable[[Any], tuple[str, tuple[str, ...]]] = lambda _connection: ("", ())


def asking(server: str) -> Asking | None:
    """Return how to ask connections of such a server (`postgresql`, `sqlite`, `mysql`); None where there is no way."""
    return _ASKING.get(server)


def _postgresql(connection: Any, _before: object) -> tuple[str, ...] | None:
    if _rows(connection, "SELECT pg_catalog.txid_current_if_assigned()")[0][0] is None:
        return None
    found = [(str(schema), str(table), str(mode)) for schema, table, mode in _rows(connection, _TABLES)]
    written = [row for row in found if row[2] != "RowShareLock"] or found
    tables = dict.fromkeys(table if schema == "public" else f"{schema}.{table}" for schema, table, _ in written)
    # A temporary table may be written in a read-only transaction as well.
    return tuple(tables) or None


def _writers(connection: Any) -> tuple[str, tuple[str, ...]]:
    own, others = "", []
    for mine, user, address, application in _rows(connection, _WRITING):
        who = f"{user}@{address or 'local'} {application or '-'}"
        if mine:
            own = who
        else:
            others.append(who)
    return own, tuple(dict.fromkeys(others))


def _sqlite_before(connection: Any) -> object:
    # aiosqlite, as SQLAlchemy adapts it, keeps the driver's connection inside.
    changes = getattr(connection, "driver_connection", connection).total_changes
    return changes, _rows(connection, "PRAGMA schema_version")


def _counters(connection: Any) -> object:
    return tuple(sorted((str(name), str(value)) for name, value in _rows(connection, _COUNTERS)))


def _by_difference(ask: Callable[[Any], object]) -> Asking:
    return Asking(ask, lambda connection, before: () if ask(connection) != before else None)


def _rows(connection: Any, statement: str) -> list[tuple[Any, ...]]:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        return [tuple(row) for row in cursor.fetchall()]
    finally:
        cursor.close()


_ASKING: Final = {
    "postgresql": Asking(lambda _connection: None, _postgresql, _writers),
    "sqlite": _by_difference(_sqlite_before),
    "mysql": _by_difference(_counters),
}
