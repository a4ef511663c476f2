"""Fence by default: new sessions of the writers begin read-only, and who insists may still write."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from ._pg_state import Connection


def take(connection: Connection, roles: Sequence[str]) -> None:
    """Make new sessions of these roles read-only by default, and keep what was set before."""
    database = connection.info.dbname
    for role in roles:
        found = connection.execute(
            "SELECT pg_catalog.split_part(setting, '=', 2) FROM pg_catalog.pg_db_role_setting s"
            " JOIN pg_catalog.pg_roles r ON r.oid = s.setrole"
            " JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase, pg_catalog.unnest(s.setconfig) setting"
            " WHERE r.rolname = %s AND d.datname = %s AND setting LIKE 'default_transaction_read_only=%%'",
            [role, database],
        ).fetchone()
        connection.execute(
            "INSERT INTO readonly_fence.taken"
            " (kind, object, schema, name, part, grantor, grantee, privilege, grantable)"
            " VALUES ('setting', 0, '', %s, '', '', %s, %s, false)",
            [database, role, "" if found is None else found[0]],
        )
        connection.execute(
            sql.SQL("ALTER ROLE {} IN DATABASE {} SET default_transaction_read_only = on").format(
                sql.Identifier(role), sql.Identifier(database)
            )
        )


def give_back(connection: Connection) -> int:
    """Set what was set before; returns for how many roles."""
    rows = connection.execute(
        "SELECT grantee, privilege FROM readonly_fence.taken WHERE kind = 'setting' ORDER BY id"
    ).fetchall()
    database = sql.Identifier(connection.info.dbname)
    for role, before in rows:
        name = sql.Identifier(role)
        statement = sql.SQL("ALTER ROLE {} IN DATABASE {} RESET default_transaction_read_only").format(name, database)
        if before:
            statement = sql.SQL("ALTER ROLE {} IN DATABASE {} SET default_transaction_read_only = {}").format(
                name, database, sql.Literal(before)
            )
        connection.execute(statement)
    return len(rows)
