"""Fence by trigger: for sites whose application owns its tables, and migrates as the role that it runs as.

A statement-level trigger on each table calls one function. Turning the gate is replacing that function: one row of the
catalog, and no lock on any table. A row that the trigger reads would not do: a REPEATABLE READ transaction goes on
reading the old one. Who shows the run's token in the setting `readonly.run` is let through; the server is told its
SHA-256 alone.

Source: PostgreSQL manual, CREATE TRIGGER; ALTER TABLE, ENABLE ALWAYS TRIGGER (also with session_replication_role).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from ._pg_state import Connection

# A trigger waits this long for its table at a time: whoever queues behind it waits as long.
LOCK_TIMEOUT = "250ms"
# The name of the setting that a run's sessions carry; PGOPTIONS="-c readonly.run=TOKEN" sets it.
SETTING = "readonly.run"

# Ordinary, partitioned and foreign tables that any of the roles may write, as owner or by a privilege.
_TABLES = """
SELECT c.oid, n.nspname, c.relname, c.relkind::text, pg_catalog.pg_get_userbyid(c.relowner),
       EXISTS (SELECT FROM pg_catalog.pg_trigger t
               WHERE t.tgrelid = c.oid AND t.tgname = 'readonly_fence' AND t.tgenabled = 'A')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'readonly_fence') AND n.nspname NOT LIKE 'pg\\_toast%%'
  AND (%(everything)s OR EXISTS (
    SELECT FROM unnest(%(roles)s::text[]) AS role
    WHERE pg_catalog.has_table_privilege(role, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
       OR pg_catalog.has_any_column_privilege(role, c.oid, 'INSERT, UPDATE')))
ORDER BY c.oid
"""
_FENCED = """
SELECT c.oid, n.nspname, c.relname, c.relkind::text, pg_catalog.pg_get_userbyid(c.relowner), true
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE t.tgname = 'readonly_fence' AND NOT t.tgisinternal ORDER BY c.oid
"""
# OPERATOR(pg_catalog.=): the function runs with the search_path of whoever writes, who may have an "=" of his own.
_SHUT = """
BEGIN
    IF pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(
        coalesce(pg_catalog.current_setting('readonly.run', true), ''), 'UTF8')), 'hex')
        OPERATOR(pg_catalog.=) {hashed}
    THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION USING ERRCODE = '25006', MESSAGE = {message}, HINT = {hint}, TABLE = TG_TABLE_NAME,
        SCHEMA = TG_TABLE_SCHEMA;
END
"""
_OPEN = """
BEGIN
    RETURN NULL;
END
"""
_REPLACE = "CREATE OR REPLACE FUNCTION readonly_fence.gate() RETURNS trigger LANGUAGE plpgsql AS {}"


@dataclass(frozen=True, slots=True)
class Table:
    """One table that a fence of triggers covers, or should."""

    oid: int
    schema: str
    name: str
    kind: str
    owner: str
    fenced: bool

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> sql.Identifier:
        """The name as SQL takes it."""
        return sql.Identifier(self.schema, self.name)


def hashed(token: str) -> str:
    """Return what the server is told of a run's token."""
    return hashlib.sha256(token.encode()).hexdigest()


def tables(connection: Connection, roles: Sequence[str], *, everything: bool) -> tuple[Table, ...]:
    """Return the tables that any of the roles may write.

    Args:
        connection: To the fenced database.
        roles: Writers and every role they are members of, and `public`.
        everything: True where one of them is a superuser.
    """
    rows = connection.execute(_TABLES, {"roles": list(roles), "everything": everything}).fetchall()
    return tuple(Table(*row) for row in rows)


def fenced(connection: Connection) -> tuple[Table, ...]:
    """Return the tables that carry the trigger, in whatever state."""
    return tuple(Table(*row) for row in connection.execute(_FENCED).fetchall())


def shut(connection: Connection, *, message: str, hint: str, token: str = "") -> None:
    """Make the gate refuse, but for the one who shows the token."""
    body = sql.SQL(_SHUT).format(
        # Nobody's hash where there is no run: no text has the digest "".
        hashed=sql.Literal(hashed(token) if token else ""),
        message=sql.Literal(message),
        hint=sql.Literal(hint),
    )
    # The body is a literal and not between dollar signs: a reason may hold whatever somebody typed.
    connection.execute(sql.SQL(_REPLACE).format(sql.Literal(body.as_string(connection))))


def open_(connection: Connection) -> None:
    """Make the gate let everybody through."""
    connection.execute(sql.SQL(_REPLACE).format(sql.Literal(_OPEN)))


def put_on(connection: Connection, table: Table) -> None:
    """Put the trigger on one table, in a transaction of its own: several in one would deadlock with writers."""
    events = "INSERT OR UPDATE OR DELETE" + ("" if table.kind == "f" else " OR TRUNCATE")  # 42809 on foreign tables
    with connection.transaction():
        connection.execute("SELECT pg_catalog.set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        connection.execute(
            sql.SQL(
                "CREATE OR REPLACE TRIGGER readonly_fence BEFORE {events} ON {table}"
                " FOR EACH STATEMENT EXECUTE FUNCTION readonly_fence.gate()"
            ).format(events=sql.SQL(events), table=table.quoted)
        )
        kind = "FOREIGN TABLE" if table.kind == "f" else "TABLE"
        connection.execute(
            sql.SQL("ALTER {kind} {table} ENABLE ALWAYS TRIGGER readonly_fence").format(
                kind=sql.SQL(kind), table=table.quoted
            )
        )


def take_off(connection: Connection, table: Table) -> None:
    """Take the trigger off one table."""
    with connection.transaction():
        connection.execute("SELECT pg_catalog.set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        connection.execute(sql.SQL("DROP TRIGGER IF EXISTS readonly_fence ON {}").format(table.quoted))
