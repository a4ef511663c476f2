"""What a fence could do at a PostgreSQL server, and every way to write that it would leave: asked, nothing changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from . import _pg_privileges as privileges
from . import _pg_state as state
from . import _pg_triggers as triggers
from ._pg_state import Connection
from .values import FenceRefused, Level, Preflight, Strategy, Way

# How many names a sentence holds before it says "and N more".
_NAMED = 5

_ROLES = """
WITH RECURSIVE reach AS (
    SELECT oid FROM pg_catalog.pg_roles WHERE rolname = ANY(%s)
    UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN reach ON m.member = reach.oid)
SELECT r.rolname, r.rolsuper FROM pg_catalog.pg_roles r JOIN reach USING (oid) ORDER BY 1
"""
_OWNED = """
SELECT pg_catalog.pg_get_userbyid(c.relowner), count(*)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'readonly_fence')
  AND pg_catalog.pg_get_userbyid(c.relowner) = ANY(%s)
GROUP BY 1 ORDER BY 1
"""
# Who else may log in and write: not a writer by the configuration, and so not stopped by taking the writers' rights.
_OTHERS = """
SELECT r.rolname FROM pg_catalog.pg_roles r
WHERE r.rolcanlogin AND NOT r.rolsuper AND r.rolname <> ALL(%(known)s) AND EXISTS (
    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         CROSS JOIN LATERAL (
             SELECT a.* FROM pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) a
             UNION ALL
             SELECT a.* FROM pg_catalog.pg_attribute t, pg_catalog.aclexplode(t.attacl) a WHERE t.attrelid = c.oid) a
    WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'readonly_fence')
      AND a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
      -- What everybody has, or has through a writer's group, is taken from the writers' group and from everybody.
      AND a.grantee <> 0 AND pg_catalog.pg_get_userbyid(a.grantee) <> ALL(%(taken)s)
      AND pg_catalog.pg_has_role(r.oid, a.grantee, 'MEMBER'))
ORDER BY 1
"""
_DEFINERS = """
SELECT p.oid::pg_catalog.regprocedure::text
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'readonly_fence')
  AND pg_catalog.pg_get_userbyid(p.proowner) <> ALL(%(roles)s)
  AND EXISTS (SELECT FROM unnest(%(roles)s::text[]) AS role
              WHERE pg_catalog.has_function_privilege(role, p.oid, 'EXECUTE'))
ORDER BY 1
"""
_SUBSCRIPTIONS = """
SELECT s.subname FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
WHERE d.datname = pg_catalog.current_database() AND s.subenabled ORDER BY 1
"""
_FOREIGN = """
SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'f' ORDER BY 1
"""
# What is missing where the gate is asked for; the fence's name belongs behind it.
INSTALL = "readonlyctl fence install"
_WRITE_ALL = "pg_write_all_data"
_SIGNAL = "pg_signal_backend"
_STATS = "pg_read_all_stats"


@dataclass(frozen=True, slots=True)
class Roles:
    """Who is to be stopped.

    Attributes:
        writers: As configured.
        reach: The writers, and every role that they are members of, whether they inherit from it or `SET ROLE` to it.
        superusers: Those of them that no privilege binds.
        migrators: Who must go on writing, as configured.
    """

    writers: tuple[str, ...]
    reach: tuple[str, ...]
    superusers: tuple[str, ...]
    migrators: tuple[str, ...]

    @property
    def grantees(self) -> tuple[str, ...]:
        """Who a privilege may have been granted to so that a writer has it."""
        return (*self.reach, privileges.PUBLIC)


def roles(connection: Connection, writers: Sequence[str], migrators: Sequence[str]) -> Roles:
    """Return who is to be stopped.

    Raises:
        FenceRefused: A role that was named does not exist.
    """
    found = connection.execute(_ROLES, [list(writers)]).fetchall()
    there = {name for name, _ in found}
    missing = [name for name in writers if name not in there]
    if missing:
        raise FenceRefused(
            f"writers={missing!r}: there is no such role at {state.described(connection)}; nothing was changed. "
            "Name the roles that the application connects as"
        )
    return Roles(
        tuple(writers), tuple(name for name, _ in found), tuple(name for name, is_super in found if is_super),
        tuple(migrators),
    )  # fmt: skip


def preflight(connection: Connection, who: Roles, *, strategy: Strategy | None = None) -> Preflight:
    """Return the best that can be done now; with `strategy`, what that one could do.

    The strongest level wins, then what changes least. What would be stronger and lacks a right is `advised`.
    """
    if strategy is not None:
        return _LOOKS[strategy](connection, who)
    # In this order where they are equally strong: what changes least at the server first.
    order = [Strategy.REVOKE, Strategy.EACH, Strategy.DEFAULTS]
    if state.adopted(connection):
        order.insert(1, Strategy.GATE)
    found = [_LOOKS[one](connection, who) for one in order]
    usable = [one for one in found if one.possible and one.level is not Level.APP_ONLY]
    ranks = [Level.HARD, Level.COOPERATIVE, Level.APP_ONLY]
    if not usable:
        # Say what the strongest of them lacks.
        return min(found, key=lambda one: ranks.index(one.level))
    best = min(usable, key=lambda one: ranks.index(one.level))
    advised = list(best.advised)
    for one in found:
        if one.missing and ranks.index(one.level) < ranks.index(best.level):
            advised += [f"{statement}  -- for {one.level}, by {one.strategy}" for statement in one.missing]
    return Preflight(
        best.strategy, best.level, best.why, best.ways, best.missing, tuple(advised), best.tables, best.server
    )


def ways_left(connection: Connection, who: Roles, strategy: Strategy) -> tuple[Way, ...]:
    """Return every way to write that a fence of this strategy leaves, those that any client may take first."""
    found: list[Way] = []
    by_privilege = strategy is Strategy.REVOKE
    by_trigger = strategy in {Strategy.GATE, Strategy.EACH}
    if who.superusers:
        found.append(
            Way(f"{_names(who.superusers)} is a superuser, whom no privilege binds", insists=False,
                remedy=f"ALTER ROLE {_quoted(connection, who.superusers[0])} NOSUPERUSER", writers=True)
        )  # fmt: skip
    subscriptions = _column(connection, _SUBSCRIPTIONS)
    if subscriptions:
        found.append(
            Way(f"the subscription {_names(subscriptions)} writes what another server sends", insists=False,
                remedy=f"ALTER SUBSCRIPTION {_quoted(connection, subscriptions[0])} DISABLE")
        )  # fmt: skip
    if by_privilege:
        found += _ways_past_privileges(connection, who)
    owned = connection.execute(_OWNED, [list(who.reach)]).fetchall()
    if owned and by_trigger:
        role, count = owned[0]
        found.append(Way(f"{role} owns {count} tables, so its own DDL is not stopped", insists=True))
    if by_trigger:
        found.append(Way("sequences", insists=True))
    if strategy is Strategy.DEFAULTS:
        found.append(Way("every client that asks for READ WRITE", insists=True))
    large = int(_value(connection, "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata"))
    found.append(Way(f"large objects, of which there are {large}" if large else "large objects", insists=not large))
    foreign = _column(connection, _FOREIGN)
    if foreign:
        found.append(Way(f"what others write at the server behind {_names(foreign)}", insists=True))
    return tuple(sorted(found, key=lambda way: way.insists))


def _ways_past_privileges(connection: Connection, who: Roles) -> list[Way]:
    found: list[Way] = []
    definers = _column(connection, _DEFINERS, {"roles": [*who.reach, privileges.PUBLIC]})
    if definers:
        found.append(
            Way(f"{_names(definers)} runs with its owner's rights (SECURITY DEFINER)", insists=False,
                remedy=f"REVOKE EXECUTE ON FUNCTION {definers[0]} FROM PUBLIC, {who.writers[0]}")
        )  # fmt: skip
    if _WRITE_ALL in who.reach:
        found.append(
            Way(f"{_names(who.writers)} is a member of {_WRITE_ALL}", insists=False,
                remedy=f"REVOKE {_WRITE_ALL} FROM {_quoted(connection, who.writers[0])}", writers=True)
        )  # fmt: skip
    fencer = _value(connection, "SELECT current_user")
    known = [*who.reach, *who.migrators, fencer]
    others = _column(connection, _OTHERS, {"known": known, "taken": list(who.reach)})
    if others:
        found.append(
            Way(f"{_names(others)} may write and is not among the writers", insists=False,
                remedy=f'add {others[0]!r} to writers, or to migrators if it is who migrates')
        )  # fmt: skip
    return found


def _revoke(connection: Connection, who: Roles) -> Preflight:
    owners = connection.execute(_OWNED, [list(who.reach)]).fetchall()
    taken = privileges.granted(connection, who.grantees)
    missing = _missing_schema(connection)
    why = "the writers own nothing: what lets them write can be taken away"
    level = Level.HARD
    if owners:
        why = f"{owners[0][0]} owns what it writes, and an owner can give himself back what was taken"
        level = Level.APP_ONLY
    if who.superusers:
        why = f"{_names(who.superusers)} is a superuser, from whom nothing can be taken"
        level = Level.APP_ONLY
    if _WRITE_ALL in who.reach:
        why = f"{_names(who.writers)} may write everything as a member of {_WRITE_ALL}, whatever is taken"
        level = Level.APP_ONLY
    through = [role for role in who.migrators if role in who.reach]
    if through:
        why = f"{_names(through)} migrates, and would lose its rights as well"
        level = Level.APP_ONLY
    for grantor in sorted({privilege.grantor for privilege in taken}):
        if not _may_become(connection, grantor):
            missing.append(_grant(connection, grantor))
    ways = ways_left(connection, who, Strategy.REVOKE)
    if level is Level.HARD and any(not way.insists for way in ways):
        level = Level.COOPERATIVE
    tables = len({p.object for p in taken if p.kind in {"table", "column"}})
    return _answer(connection, Strategy.REVOKE, level, why, ways, missing, tables)


def _gate(connection: Connection, who: Roles) -> Preflight:
    why = "the gate that was installed at adoption is shut: no lock on any table"
    return _by_trigger(connection, who, Strategy.GATE, why)


def _each(connection: Connection, who: Roles) -> Preflight:
    why = "a trigger is put on each table, since the writers own what they write"
    return _by_trigger(connection, who, Strategy.EACH, why)


def _by_trigger(connection: Connection, who: Roles, strategy: Strategy, why: str) -> Preflight:
    tables = to_cover(connection, who)
    missing = _missing_schema(connection)
    bare = [table for table in tables if not (strategy is Strategy.GATE and table.fenced)]
    for owner in sorted({table.owner for table in bare}):
        if not _may_become(connection, owner):
            missing.append(_grant(connection, owner))
    if strategy is Strategy.GATE and not state.adopted(connection):
        missing.append(INSTALL)
    ways = ways_left(connection, who, strategy)
    level = Level.COOPERATIVE if any(not way.insists for way in ways) else Level.HARD
    return _answer(connection, strategy, level, why, ways, missing, len(tables))


def to_cover(connection: Connection, who: Roles) -> tuple[triggers.Table, ...]:
    """Return the tables that a fence of triggers covers: all that anybody who may log in can write."""
    everybody = _column(connection, "SELECT rolname FROM pg_catalog.pg_roles WHERE rolcanlogin AND NOT rolsuper")
    return triggers.tables(
        connection, list(dict.fromkeys([*who.grantees, *everybody])), everything=bool(who.superusers)
    )  # fmt: skip


def _defaults(connection: Connection, who: Roles) -> Preflight:
    missing = _missing_schema(connection)
    for role in who.writers:
        if not may_set(connection, role):
            missing.append(f"ALTER ROLE {_fencer(connection)} CREATEROLE")
            if connection.info.server_version >= 160000:
                missing[-1] = f"GRANT {_quoted(connection, role)} TO {_fencer(connection)} WITH ADMIN OPTION"
    # Without the second nobody can tell which sessions are older than the change.
    missing += [_grant(connection, role) for role in (_SIGNAL, _STATS) if not _has(connection, role)]
    why = "the writers' new transactions are read-only unless they ask for more, and their old sessions are ended"
    level = Level.COOPERATIVE
    ways = ways_left(connection, who, Strategy.DEFAULTS)
    return _answer(connection, Strategy.DEFAULTS, level, why, ways, list(dict.fromkeys(missing)), 0)


_LOOKS = {
    Strategy.REVOKE: _revoke,
    Strategy.GATE: _gate,
    Strategy.EACH: _each,
    Strategy.DEFAULTS: _defaults,
}


def may_set(connection: Connection, role: str) -> bool:
    """Tell whether the fencer may ALTER ROLE … SET for a role (PostgreSQL manual, ALTER ROLE)."""
    if _value(connection, "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"):
        return True
    if connection.info.server_version >= 160000:
        return bool(
            _value(connection, "SELECT pg_catalog.pg_has_role(current_user, %s, 'USAGE WITH ADMIN OPTION')", [role])
        )
    return bool(_value(connection, "SELECT rolcreaterole FROM pg_catalog.pg_roles WHERE rolname = current_user"))


def _answer(
    connection: Connection, strategy: Strategy, level: Level, why: str, ways: Sequence[Way], missing: Sequence[str],
    tables: int,
) -> Preflight:  # fmt: skip
    advised = []
    if not _has(connection, _SIGNAL):
        advised.append(f"{_grant(connection, _SIGNAL)}  -- to end what will not finish")
    if not _has(connection, _STATS):
        advised.append(f"{_grant(connection, _STATS)}  -- to show what is waited for")
    return Preflight(
        strategy, level, why, tuple(ways), tuple(dict.fromkeys(missing)), tuple(advised), tables,
        state.described(connection),
    )  # fmt: skip


def _missing_schema(connection: Connection) -> list[str]:
    if state.exists(connection):
        mine = _value(
            connection,
            "SELECT pg_catalog.pg_has_role(current_user, nspowner, 'USAGE') FROM pg_catalog.pg_namespace"
            " WHERE nspname = 'readonly_fence'",
        )
        return [] if mine else [f"ALTER SCHEMA readonly_fence OWNER TO {_fencer(connection)}"]
    database = connection.info.dbname
    if _value(connection, "SELECT pg_catalog.has_database_privilege(current_user, %s, 'CREATE')", [database]):
        return []
    return [f"GRANT CREATE ON DATABASE {_quoted(connection, database)} TO {_fencer(connection)}"]


def _may_become(connection: Connection, role: str) -> bool:
    # MEMBER: may SET ROLE to it. From version 16 on a membership can be given without that.
    if connection.info.server_version >= 160000:
        return bool(_value(connection, "SELECT pg_catalog.pg_has_role(current_user, %s, 'SET')", [role]))
    return bool(_value(connection, "SELECT pg_catalog.pg_has_role(current_user, %s, 'MEMBER')", [role]))


def _has(connection: Connection, role: str) -> bool:
    return bool(_value(connection, "SELECT pg_catalog.pg_has_role(current_user, %s, 'USAGE')", [role]))


def _grant(connection: Connection, role: str) -> str:
    return f"GRANT {_quoted(connection, role)} TO {_fencer(connection)}"


def _fencer(connection: Connection) -> str:
    return _quoted(connection, str(_value(connection, "SELECT current_user")))


def _quoted(connection: Connection, name: str) -> str:
    return str(_value(connection, "SELECT pg_catalog.quote_ident(%s)", [name]))


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _column(connection: Connection, query: str, values: Any = None) -> list[str]:
    return [row[0] for row in connection.execute(sql.SQL(query), values).fetchall()]


def _value(connection: Connection, query: str, values: Sequence[Any] | None = None) -> Any:
    row = connection.execute(sql.SQL(query), values).fetchone()
    return None if row is None else row[0]
