"""Fence by privilege: what lets the writers write is taken away by name, kept, and given back by name.

An access list is never overwritten: what somebody grants while the fence stands stays, and what was taken is added to
it again, one privilege at a time (PostgreSQL manual, 5.8 Privileges). Nothing that reads is touched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from ._pg_state import Connection

PUBLIC = "public"
# What changes rows, moves a sequence on, or makes a table to write to.
_TABLE = "'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'"

# kind, object, schema, name, part (a column's name, or what a default privilege is for), grantor, grantee, ...
_GRANTED = f"""
WITH role AS (SELECT pg_catalog.unnest(%(roles)s::text[]) AS name),
entry AS (
    SELECT CASE WHEN c.relkind = 'S' THEN 'sequence' ELSE 'table' END AS kind,
           c.oid AS object, n.nspname AS schema, c.relname AS name, '' AS part, 0 AS number, a.*
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
         pg_catalog.aclexplode(c.relacl) a
    WHERE c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'readonly_fence')
      AND (c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.privilege_type IN ({_TABLE})
           OR c.relkind = 'S' AND a.privilege_type IN ('USAGE', 'UPDATE'))
    UNION ALL
    SELECT 'column', c.oid, n.nspname, c.relname, t.attname, t.attnum, a.*
    FROM pg_catalog.pg_attribute t JOIN pg_catalog.pg_class c ON c.oid = t.attrelid
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, pg_catalog.aclexplode(t.attacl) a
    WHERE NOT t.attisdropped AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'readonly_fence')
      AND a.privilege_type IN ({_TABLE})
    UNION ALL
    SELECT 'schema', n.oid, n.nspname, n.nspname, '', 0, a.*
    FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
    WHERE a.privilege_type = 'CREATE' AND n.nspname <> 'readonly_fence'
    UNION ALL
    SELECT 'database', d.oid, '', d.datname, '', 0, a.*
    FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a
    WHERE d.datname = pg_catalog.current_database() AND a.privilege_type = 'CREATE'
    UNION ALL
    SELECT 'default', coalesce(n.oid, 0), coalesce(n.nspname, ''), pg_catalog.pg_get_userbyid(d.defaclrole),
           CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' ELSE 'SEQUENCES' END, 0, a.*
    FROM pg_catalog.pg_default_acl d LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace,
         pg_catalog.aclexplode(d.defaclacl) a
    WHERE d.defaclobjtype = 'r' AND a.privilege_type IN ({_TABLE})
       OR d.defaclobjtype = 'S' AND a.privilege_type IN ('USAGE', 'UPDATE'))
SELECT e.kind, e.object, e.schema, e.name, e.part, pg_catalog.pg_get_userbyid(e.grantor),
       CASE WHEN e.grantee = 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(e.grantee) END,
       e.privilege_type, e.is_grantable, e.number
FROM entry e
     JOIN role ON role.name = CASE WHEN e.grantee = 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(e.grantee) END
WHERE NOT (e.kind = 'default' AND e.grantee = e.grantor)
ORDER BY 1, 2, 5, 6, 7, 8
"""  # noqa: S608  # our own constants


# Schema, name, and part (a column, or what a default privilege is for) of what a privilege is given back on.
_Place = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Privilege:
    """One privilege as an access list holds it: who may do what with which object, and who granted it."""

    kind: str
    object: int
    schema: str
    name: str
    part: str
    grantor: str
    grantee: str
    privilege: str
    grantable: bool
    # Of the column: a rename keeps it, as it keeps the table's.
    number: int = 0

    def __str__(self) -> str:
        where = ".".join(word for word in (self.schema if self.kind != "schema" else "", self.name) if word)
        if self.kind == "default":
            where = f"{self.part.lower()} that {self.name} makes" + (f" in {self.schema}" if self.schema else "")
        elif self.part:
            where += f" ({self.part})"
        return f"{self.privilege} on {where} for {self.grantee}"


def granted(connection: Connection, roles: Sequence[str]) -> tuple[Privilege, ...]:
    """Return every privilege that lets one of the roles write, as the catalogs hold it.

    Args:
        connection: To the fenced database.
        roles: Writers and every role they are members of, and `public`.
    """
    return tuple(Privilege(*row) for row in connection.execute(_GRANTED, {"roles": list(roles)}).fetchall())


def take(connection: Connection, privileges: Iterable[Privilege]) -> None:
    """Keep these privileges in the fence's table and take them away; inside the caller's transaction.

    Raises:
        psycopg.Error: One can't be taken, for example because its holder granted it on (2BP01).
    """
    found = list(privileges)
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO readonly_fence.taken"
            " (kind, object, schema, name, part, grantor, grantee, privilege, grantable, number)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (p.kind, p.object, p.schema, p.name, p.part, p.grantor, p.grantee, p.privilege, p.grantable, p.number)
                for p in found
            ],
        )
    for grantor, theirs in _by_grantor(found):
        _become(connection, grantor)
        # What stands for one object and grantee goes in one statement: a table privilege takes its columns' with it.
        for _, some in _grouped(theirs):
            connection.execute(_statement("REVOKE", some, some[0].name, some[0].schema))
    _become(connection, None)


def kept(connection: Connection) -> tuple[Privilege, ...]:
    """Return what the fence has taken, in the order in which it was."""
    rows = connection.execute(
        "SELECT kind, object, schema, name, part, grantor, grantee, privilege, grantable, number"
        " FROM readonly_fence.taken ORDER BY id"
    ).fetchall()
    return tuple(Privilege(*row) for row in rows)


def give_back(connection: Connection) -> tuple[int, tuple[str, ...]]:
    """Give back what the fence has taken; inside the caller's transaction.

    An object, and a column, is looked for by its number, which a rename keeps, and by its name, which a rebuilt one
    has; if both are there both get it. Tables that were made under the fence get what the default privileges would have
    given them.

    Returns:
        How many privileges were given back, and what could not be, one sentence each.
    """
    lost: list[str] = []
    pending: list[tuple[Privilege, _Place]] = []
    for privilege in kept(connection):
        places = _places(connection, privilege)
        if not places:
            lost.append(f"{privilege}: it is gone")
        pending += [(privilege, place) for place in places]
    wanted = len(pending)
    grantees = sorted({privilege.grantee for privilege, _ in pending})
    problems: dict[tuple[Privilege, _Place], str] = {}
    # What somebody granted who was himself granted it can only be given after that: go on while it helps. Whether it
    # helped is looked at, since a GRANT without the right to grant is a warning and no error.
    while pending:
        for privilege, place in pending:
            problems[(privilege, place)] = _give(connection, privilege, place)
        there = {_spot(p, (p.schema, p.name, p.part)) for p in granted(connection, grantees)}
        left = [(privilege, place) for privilege, place in pending if _spot(privilege, place) not in there]
        if len(left) == len(pending):
            lost += [
                f"{privilege}: {problems[(privilege, place)] or 'the server did not grant it'}"
                for privilege, place in left
            ]
            wanted -= len(left)
            break
        pending = left
    return wanted, tuple(dict.fromkeys(lost))


def _spot(privilege: Privilege, place: _Place) -> tuple[str, ...]:
    """Return what tells that a privilege is held somewhere."""
    schema, name, part = place
    kind = privilege.kind
    if kind == "default" and part not in {"TABLES", "SEQUENCES"}:
        kind = "sequence" if privilege.part == "SEQUENCES" else "table"
    if kind == "database":
        schema = ""
    return (kind, schema, name, part, privilege.grantee, privilege.privilege, "g" if privilege.grantable else "")


def _give(connection: Connection, privilege: Privilege, place: _Place) -> str:
    """Give one privilege back in one place; returns what keeps it from being given."""
    schema, name, part = place
    statement = _statement("GRANT", [privilege], name, schema, part)
    problem = ""
    # As whoever granted it; failing that (he is gone, or may no more), as the fencer.
    for giver in (privilege.grantor, None):
        try:
            with connection.transaction():  # a savepoint
                _become(connection, giver)
                connection.execute(statement)
                _become(connection, None)
            return ""
        except psycopg.Error as error:
            problem = problem or error.diag.message_primary or str(error)
    return problem


def _places(connection: Connection, privilege: Privilege) -> list[_Place]:
    """Return schema, name and part of each object that a privilege is to be given back on."""
    if privilege.kind == "schema":
        rows = connection.execute(
            "SELECT nspname FROM pg_catalog.pg_namespace WHERE oid = %s OR nspname = %s",
            [privilege.object, privilege.name],
        ).fetchall()
        return [(name, name, "") for (name,) in rows]
    if privilege.kind == "database":
        return [("", connection.info.dbname, "")]
    if privilege.kind == "default":
        return _default_places(connection, privilege)
    rows = connection.execute(
        "SELECT n.nspname, c.relname, c.oid FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE (c.oid = %s OR (n.nspname = %s AND c.relname = %s))"
        " AND (c.relkind = 'S') = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')",
        [privilege.object, privilege.schema, privilege.name, privilege.kind == "sequence"],
    ).fetchall()
    if privilege.kind != "column":
        return [(schema, name, "") for schema, name, _ in rows]
    columns = connection.execute(
        "SELECT attrelid, attname FROM pg_catalog.pg_attribute WHERE attrelid = ANY(%s) AND NOT attisdropped"
        " AND (attname = %s OR (attrelid = %s AND attnum = %s))",
        [[oid for _, _, oid in rows], privilege.part, privilege.object, privilege.number],
    ).fetchall()
    tables = {oid: (schema, name) for schema, name, oid in rows}
    return [(*tables[oid], column) for oid, column in columns]


def _default_places(connection: Connection, privilege: Privilege) -> list[_Place]:
    """Return the default privilege's own place, and every table or sequence that was made while it was taken."""
    rows = connection.execute(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE pg_catalog.pg_get_userbyid(c.relowner) = %s AND (%s = 0 OR n.oid = %s)"
        " AND c.relkind = ANY(%s) AND c.relpersistence <> 't'"
        " AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'readonly_fence')"
        " AND NOT EXISTS (SELECT FROM readonly_fence.before b WHERE b.relation = c.oid)"
        # One that took the place of an old one gets what that had, and nothing else.
        " AND NOT EXISTS (SELECT FROM readonly_fence.taken t"
        "                 JOIN readonly_fence.before o ON o.relation = t.object"
        "                 WHERE t.schema = n.nspname AND t.name = c.relname AND t.kind IN ('table', 'sequence'))",
        [
            privilege.name,
            privilege.object,
            privilege.object,
            ["S"] if privilege.part == "SEQUENCES" else ["r", "p", "v", "m", "f"],
        ],
    ).fetchall()
    return [(privilege.schema, privilege.name, privilege.part), *((schema, name, "") for schema, name in rows)]


def _statement(verb: str, privileges: Sequence[Privilege], name: str, schema: str, part: str = "") -> sql.Composed:
    """Return the GRANT or REVOKE of privileges that share object, grantee, and whether they may be granted on."""
    first = privileges[0]
    grant = verb == "GRANT"
    words = sql.SQL(", ").join(sql.SQL(p.privilege) for p in dict.fromkeys(privileges))
    grantee = sql.SQL("PUBLIC") if first.grantee == PUBLIC else sql.Identifier(first.grantee)
    tail = sql.SQL(" WITH GRANT OPTION") if grant and first.grantable else sql.SQL("")
    link = sql.SQL(" TO " if grant else " FROM ")
    by_default = first.kind == "default" and (not grant or part in {"TABLES", "SEQUENCES"})
    if by_default:
        place = sql.SQL("IN SCHEMA {} ").format(sql.Identifier(schema)) if schema else sql.SQL("")
        return sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} {}{} {} ON {}{}{}{}").format(
            sql.Identifier(first.name), place, sql.SQL(verb), words, sql.SQL(first.part), link, grantee, tail
        )  # fmt: skip
    if first.kind == "column":
        words = sql.SQL(", ").join(
            sql.SQL("{} ({})").format(sql.SQL(p.privilege), sql.Identifier(part or p.part)) for p in privileges
        )
    kind = {"schema": "SCHEMA", "database": "DATABASE", "sequence": "SEQUENCE"}.get(first.kind, "TABLE")
    if first.kind == "default" and first.part == "SEQUENCES":
        kind = "SEQUENCE"
    single = first.kind in {"schema", "database"}
    where = sql.Identifier(name) if single else sql.Identifier(schema, name)
    return sql.SQL("{} {} ON {} {}{}{}{}").format(
        sql.SQL(verb), words, sql.SQL(kind), where, link, grantee, tail
    )  # fmt: skip


def _by_grantor(privileges: Iterable[Privilege]) -> list[tuple[str, list[Privilege]]]:
    found: dict[str, list[Privilege]] = defaultdict(list)
    for privilege in privileges:
        found[privilege.grantor].append(privilege)
    return list(found.items())


def _grouped(privileges: Iterable[Privilege]) -> list[tuple[tuple[str, int, str, str], list[Privilege]]]:
    found: dict[tuple[str, int, str, str], list[Privilege]] = defaultdict(list)
    for p in privileges:
        # Columns before their table: taking a privilege on the table takes it on every column as well.
        found[(p.kind, p.object, p.name + "/" + p.part, p.grantee)].append(p)
    return sorted(found.items(), key=lambda item: item[0][0] != "column")


def _become(connection: Connection, role: str | None) -> None:
    """Act as a role until told otherwise, or the transaction ends: a privilege is taken back by whoever granted it."""
    if role is None:
        connection.execute("RESET ROLE")
    else:
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
