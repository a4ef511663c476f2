"""What a fence keeps at the PostgreSQL server that it fences: whose it is, who holds it, and what was taken away.

It is made before the first change and in the same transaction, so that whoever reaches the database can lift the fence
without the store, and a dump of that night says whose fence it carries. Nothing in it is secret: everybody may read it,
since `pg_dump` as the application's role would fail on a table that it may not.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from .values import FenceError, Holder

Connection = psycopg.Connection[tuple[Any, ...]]

SCHEMA = "readonly_fence"
# Every change of a fence is made under this transaction-level advisory lock: "readonly" in ASCII.
LOCK = 0x726561646F6E6C79

_MAKE = """
CREATE TABLE IF NOT EXISTS readonly_fence.fence (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    site text NOT NULL, name text NOT NULL, strategy text NOT NULL, level text NOT NULL,
    run text NOT NULL, pass text NOT NULL, raised_by text NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    system text NOT NULL, position text, horizon text);
CREATE TABLE IF NOT EXISTS readonly_fence.holder (
    cause text PRIMARY KEY, by text NOT NULL, at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    epoch bigint NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS readonly_fence.before (relation oid PRIMARY KEY);
CREATE TABLE IF NOT EXISTS readonly_fence.taken (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL, object oid NOT NULL, schema text NOT NULL, name text NOT NULL, part text NOT NULL,
    grantor text NOT NULL, grantee text NOT NULL, privilege text NOT NULL, grantable boolean NOT NULL,
    number int NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS readonly_fence.adopted (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    site text NOT NULL, by text NOT NULL, at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp());
GRANT USAGE ON SCHEMA readonly_fence TO PUBLIC;
GRANT SELECT ON ALL TABLES IN SCHEMA readonly_fence TO PUBLIC;
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """The fence's row.

    `position` is None until it was safe for the first time.
    """

    site: str
    name: str
    strategy: str
    level: str
    run: str
    raised_by: str
    raised_at: datetime
    system: str
    position: str | None
    horizon: str | None
    holders: tuple[Holder, ...] = ()


def lock(connection: Connection) -> None:
    """Wait for whoever changes this database's fence; held to the end of the transaction."""
    connection.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", [LOCK])


def make(connection: Connection) -> None:
    """Make the fence's schema and tables, where they are missing."""
    if not exists(connection):
        connection.execute("CREATE SCHEMA readonly_fence")
    connection.execute(_MAKE)


def exists(connection: Connection) -> bool:
    """Tell whether the fence's schema is there."""
    return _one(connection, "SELECT pg_catalog.to_regclass('readonly_fence.fence') IS NOT NULL") is True


def standing(connection: Connection) -> Standing | None:
    """Return the fence that stands in this database, or None."""
    if not exists(connection):
        return None
    row = connection.execute(
        "SELECT site, name, strategy, level, run, raised_by, raised_at, system, position, horizon"
        " FROM readonly_fence.fence"
    ).fetchone()
    return None if row is None else replace(Standing(*row), holders=holders(connection))


def holders(connection: Connection) -> tuple[Holder, ...]:
    """Return who holds the fence, the first one first."""
    if not exists(connection):
        return ()
    rows = connection.execute("SELECT cause, by, at, epoch FROM readonly_fence.holder ORDER BY at, cause").fetchall()
    return tuple(Holder(*one) for one in rows)


def still_held(connection: Connection, kept: Collection[Holder]) -> None:
    """See that one of these has held the fence all the time since they were read; with the lock held.

    One that was lifted and raised again has a later instant: what was written in between was not waited for.

    Raises:
        FenceError: It was lifted meanwhile.
    """
    since = {(holder.cause, holder.at) for holder in kept}
    if since.isdisjoint((holder.cause, holder.at) for holder in required(connection).holders):
        raise FenceError(f"the fence at {described(connection)} was lifted by somebody else meanwhile: raise it again")


def adopted(connection: Connection) -> bool:
    """Tell whether the gate's triggers were installed at adoption."""
    if not exists(connection):
        return False
    return _one(connection, "SELECT EXISTS (SELECT FROM readonly_fence.adopted)") is True


def begin(
    connection: Connection, *, site: str, name: str, strategy: str, level: str, run: str, hashed: str, by: str
) -> None:
    """Write the fence's row, and remember which relations there are."""
    connection.execute(
        "INSERT INTO readonly_fence.fence (site, name, strategy, level, run, pass, raised_by, system)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        [site, name, strategy, level, run, hashed, by, system(connection)],
    )
    connection.execute("DELETE FROM readonly_fence.before")
    connection.execute("INSERT INTO readonly_fence.before SELECT oid FROM pg_catalog.pg_class")


def hold(connection: Connection, cause: str, by: str, *, epoch: int) -> None:
    """Add a cause to those that hold the fence; adding it again keeps the higher epoch."""
    connection.execute(
        "INSERT INTO readonly_fence.holder AS held (cause, by, epoch) VALUES (%s, %s, %s)"
        " ON CONFLICT (cause) DO UPDATE SET epoch = EXCLUDED.epoch WHERE held.epoch < EXCLUDED.epoch",
        [cause, by, epoch],
    )


def forget(connection: Connection) -> None:
    """Remove the fence's row, whose lift was begun and not finished; the next one begins anew."""
    connection.execute("DELETE FROM readonly_fence.fence")


def restarted(connection: Connection) -> None:
    """Keep this moment as the fence's start, after it was committed: sessions that are older may know nothing of it."""
    connection.execute("UPDATE readonly_fence.fence SET raised_at = pg_catalog.clock_timestamp()")


def required(connection: Connection) -> Standing:
    """Return the fence that stands.

    Raises:
        FenceError: It is gone: somebody lifted it meanwhile.
    """
    found = standing(connection)
    if found is None:
        raise FenceError(f"the fence at {described(connection)} was lifted by somebody else meanwhile: raise it again")
    return found


def release(connection: Connection, cause: str | None) -> bool:
    """Take a cause (None: all) from those that hold the fence, and tell whether none is left."""
    if cause is None:
        connection.execute("DELETE FROM readonly_fence.holder")
    else:
        connection.execute("DELETE FROM readonly_fence.holder WHERE cause = %s", [cause])
    return _one(connection, "SELECT NOT EXISTS (SELECT FROM readonly_fence.holder)") is True


def settle(connection: Connection, *, position: str, level: str) -> None:
    """Keep the position at which the fence was safe; the first one stays, since only that has no write behind it.

    But for one of another system: the fence came here with a copy, and positions of its origin mean nothing here.
    """
    connection.execute(
        "UPDATE readonly_fence.fence SET level = %(level)s, system = %(here)s,"
        " position = CASE WHEN system = %(here)s THEN coalesce(position, %(position)s) ELSE %(position)s END,"
        " horizon = coalesce(CASE WHEN system = %(here)s THEN horizon END,"
        " (pg_catalog.pg_current_xact_id()::text::numeric + 1)::text)",
        {"level": level, "position": position, "here": system(connection)},
    )


def end(connection: Connection) -> None:
    """Remove what the fence kept; the gate's triggers of a site that adopted them stay, and so does their schema."""
    if adopted(connection):
        for table in ("fence", "holder", "before", "taken"):
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(SCHEMA, table)))
    else:
        connection.execute("DROP SCHEMA readonly_fence CASCADE")


def system(connection: Connection) -> str:
    """Return the system identifier, the same for a primary and all its standbys and no other server.

    Source: PostgreSQL manual, pg_control_system().
    """
    return str(_one(connection, "SELECT system_identifier FROM pg_catalog.pg_control_system()"))


def described(connection: Connection) -> str:
    """Return host, port and database for people."""
    info = connection.info
    return f"{info.host}:{info.port}/{info.dbname}"


def _one(connection: Connection, query: str, values: list[Any] | None = None) -> Any:
    row = connection.execute(query, values).fetchone()
    return None if row is None else row[0]
