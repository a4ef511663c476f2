"""What a transaction has written, by the word of its server: asked at its end, while a rehearsal goes on.

PostgreSQL gives a transaction an id once it has written, and holds a lock on what it wrote until it is over. SQLite
counts the rows that a connection changed, and its schemas. MySQL and MariaDB count statements by connection. SQL text
is not looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from readonly.rehearsal_counts import MAX_JOBS, cleaned, count
from readonly.switch import Switch

from .postgresql import answered, sqlstate

Answer = TypeVar("Answer")

# How often a process looks who else is writing.
LOOK_SECONDS: Final = 1.0

# A transaction that has written holds these on its tables; FOR UPDATE and its like, which a read-only transaction is
# refused as well, the last one. A row that another table refers to is locked so, too: it counts where nothing else is.
# So does a sequence that numbers a table's rows, by that table's name: its lock and the number that was drawn outlive a
# savepoint that is taken back.
_TABLES: Final = """
SELECT n.nspname, c.relname, CASE WHEN d.refobjid IS NULL THEN l.mode ELSE 'number' END
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_class r ON r.oid = l.relation
LEFT JOIN pg_catalog.pg_depend d ON r.relkind = 'S' AND d.objid = r.oid AND d.deptype IN ('a', 'i')
  AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
  AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
JOIN pg_catalog.pg_class c ON c.oid = coalesce(d.refobjid, r.oid)
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted
  AND l.mode <> 'AccessShareLock' AND r.relkind IN ('r', 'p', 'm', 'S', 'v') AND c.relpersistence <> 't'
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


_NO_TRANSACTION: Final = "25P01"  # no_active_sql_transaction
_ABORTED: Final = "25P02"  # in_failed_sql_transaction


class Unasked(Exception):
    """A question was not answered, and the transaction that it was asked in is as it was before it."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How a server's connections are asked. Each takes a PEP 249 connection.

    Attributes:
        before: Asked when a transaction begins; what it returns is handed to `wrote`.
        wrote: Asked right before its commit: the tables that it has written, as far as the server tells, or None.
        writers: Asked now and then: who this connection is, and who else is writing at this moment, as far as its user
            may see that.
        apart: Asks inside a transaction that is about to be committed, so that a question that fails does not cost it
            what it wrote: raises `Unasked` then, and whatever else only where the transaction may be lost.
    """

    before: Callable[[Any], object]
    wrote: Callable[[Any, object], tuple[str, ...] | None]
    writers: Callable[[Any], tuple[str, tuple[str, ...]]] = lambda _connection: ("", ())
    apart: Callable[[Any, Callable[[], Any]], Any] = lambda _connection, ask: _as_it_is(ask)


class Around:
    """Sees, once in a while, who else is writing to one database: clients that no process of this site accounts for.

    Args:
        switch: The process's switch.
        name: The database's name in reports.
    """

    def __init__(self, switch: Switch, name: str) -> None:
        self._switch = switch
        self._name = name
        self.next_look = float("-inf")

    def look(self, connection: Any, ask: Asking) -> None:
        """Look, if it is time to, on a connection that is about to commit."""
        now = time.monotonic()
        rehearsal = self._switch.view.state.rehearsal
        if now < self.next_look or rehearsal is None:
            return
        self.next_look = now + LOOK_SECONDS
        own, others = ask.writers(connection)
        with self._switch.rehearsed.adding(rehearsal.id) as numbers:
            if own:
                count(numbers.own, cleaned(f"{self._name} {own}"), most=MAX_JOBS)
            for who in others:
                count(numbers.clients, cleaned(f"{self._name} {who}"), most=MAX_JOBS)


def asking(server: str) -> Asking | None:
    """Return how to ask connections of such a server (`postgresql`, `sqlite`, `mysql`); None where there is no way."""
    return _ASKING.get(server)


def _postgresql(connection: Any, _before: object) -> tuple[str, ...] | None:
    if _rows(connection, "SELECT pg_catalog.txid_current_if_assigned()")[0][0] is None:
        return None
    found = [(str(schema), str(table), str(mode)) for schema, table, mode in _rows(connection, _TABLES)]
    numbered = [row for row in found if row[2] == "number"]
    written = [row for row in found if row[2] not in ("RowShareLock", "number")] or numbered or found
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


def _behind_a_savepoint(connection: Any, ask: Callable[[], Answer]) -> Answer | None:
    """Ask where a statement that fails spoils its transaction, and COMMIT then is a ROLLBACK that reports success.

    PostgreSQL's manual: SAVEPOINT, and "Transactions" in its tutorial. A rollback to the savepoint that fails is raised
    as it is: nobody may be told that such a transaction was committed.
    """
    try:
        _run(connection, "SAVEPOINT readonly_asks")
    except Exception as error:
        if sqlstate(error) == _NO_TRANSACTION:  # each statement is one by itself
            return _as_it_is(ask)
        if sqlstate(error) == _ABORTED:  # by the application, which has been told; nothing of it will be written
            return None
        raise
    try:
        with answered(connection):
            answer = ask()
    except Exception as error:
        _run(connection, "ROLLBACK TO SAVEPOINT readonly_asks")
        _run(connection, "RELEASE SAVEPOINT readonly_asks")
        raise Unasked from error
    _run(connection, "RELEASE SAVEPOINT readonly_asks")
    return answer


def _while_it_lasts(connection: Any, ask: Callable[[], Answer]) -> Answer:
    """Ask where some errors end the transaction, and a commit of none succeeds (sqlite.org/lang_transaction.html)."""
    driver = getattr(connection, "driver_connection", connection)
    was_open = driver.in_transaction
    try:
        return ask()
    except Exception as error:
        if was_open and not driver.in_transaction:
            raise
        raise Unasked from error


def _as_it_is(ask: Callable[[], Answer]) -> Answer:
    try:
        return ask()
    except Exception as error:
        raise Unasked from error


def _sqlite_before(connection: Any) -> object:
    # aiosqlite, as SQLAlchemy adapts it, keeps the driver's connection inside.
    changes = getattr(connection, "driver_connection", connection).total_changes
    return changes, _rows(connection, "PRAGMA schema_version")


def _counters(connection: Any) -> object:
    return tuple(sorted((str(name), str(value)) for name, value in _rows(connection, _COUNTERS)))


def _by_difference(ask: Callable[[Any], object], **more: Any) -> Asking:
    return Asking(ask, lambda connection, before: () if ask(connection) != before else None, **more)


def _run(connection: Any, statement: str) -> None:
    cursor = connection.cursor()
    try:
        with answered(connection):
            cursor.execute(statement)
    finally:
        cursor.close()


def _rows(connection: Any, statement: str) -> list[tuple[Any, ...]]:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        return [tuple(row) for row in cursor.fetchall()]
    finally:
        cursor.close()


_ASKING: Final = {
    "postgresql": Asking(lambda _connection: None, _postgresql, _writers, _behind_a_savepoint),
    "sqlite": _by_difference(_sqlite_before, apart=_while_it_lasts),
    "mysql": _by_difference(_counters),
}
