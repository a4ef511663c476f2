"""What a PostgreSQL server says of itself: is it a standby, of which system, how far, and with which schema.

Plain functions over a driver's connection (psycopg, psycopg2, asyncpg as SQLAlchemy adapts it) that the caller owns
alone: each begins a transaction, bounds it, and rolls it back. Application and operator use the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .positions import behind_header, reached
from .schema import Schema
from .values import Standing

# No look may hold anybody up, or be held up: a migration's lock above all.
STATEMENT_MILLISECONDS, LOCK_MILLISECONDS = 2000, 100
# What was inserted without a commit (a page's image, a rolled back row) is flushed when somebody has a reason to, which
# on a primary at rest may be long: no standby gets there before. Every commit that was acknowledged before is flushed
# at the latest after three of the log writer's pauses, with synchronous_commit off as well (PostgreSQL manual, 30.4).
# Longer pauses than this are not waited out: the whole log then counts, which is never too little.
FLUSH_MILLISECONDS = 1500
_FLUSHED = """
SELECT pg_catalog.pg_current_wal_flush_lsn()::text,
       (SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'wal_writer_delay')
"""
_PAUSE_SECONDS = 0.02
# A standby that has replayed all that it received is as good as its primary, as long as it is connected to it; one
# that is not has no say about what it lacks, but for the time of the last transaction that it saw.
_LOOK = """
SELECT s.recovering,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
       CASE WHEN s.recovering THEN pg_catalog.pg_last_wal_replay_lsn()
            ELSE pg_catalog.pg_current_wal_insert_lsn() END::text,
       CASE WHEN s.recovering THEN pg_catalog.pg_is_wal_replay_paused() ELSE false END,
       CASE WHEN NOT s.recovering THEN 0
            WHEN pg_catalog.pg_last_wal_receive_lsn() <= pg_catalog.pg_last_wal_replay_lsn()
                 AND EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver) THEN 0
            ELSE extract(epoch FROM clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()) END::float8,
       CASE WHEN s.recovering THEN NULL
            ELSE pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8) END
  FROM (SELECT pg_catalog.pg_is_in_recovery() AS recovering) AS s
"""


def look(connection: Any, schema: Schema | None = None) -> Standing:
    """Return what a server is, and how far it is.

    Args:
        connection: A connection of the caller's own, with no transaction open.
        schema: How to ask for the schema version; None: don't.

    Raises:
        Exception: The driver's, where the server can't be asked. A schema version that can't be had (a lock, no such
            table) is no such error but part of the answer.
    """
    with _bounded(connection):
        [(recovering, system, at, paused, lag, timeline)] = _rows(connection, _LOOK)
        if not recovering:
            at = _committed(connection, behind_header(at))
    version: tuple[str, ...] | None = None
    no_schema = ""
    if schema is not None:
        try:
            with _bounded(connection):
                version = schema.seen(_rows(connection, schema.query))
        except Exception as error:
            if _is_over(connection):
                raise
            no_schema = str(error).partition("\n")[0]
    return Standing(
        replica=bool(recovering),
        system=str(system or ""),
        at=at or "",
        lag=None if lag is None else max(0.0, float(lag)),
        paused=bool(paused),
        schema=version,
        no_schema=no_schema,
        timeline="" if timeline is None else str(int(timeline, 16)),
    )


def _committed(connection: Any, inserted: str) -> str:
    """Return a position that standbys will reach, with every commit before it that was acknowledged by now.

    Args:
        connection: To a primary, in a transaction.
        inserted: Where its log ends.
    """
    waited = 0.0
    while True:
        [(flushed, delay)] = _rows(connection, _FLUSHED)
        if reached(flushed, inserted):
            return inserted
        longest = 3 * int(delay)
        if longest > FLUSH_MILLISECONDS:
            return inserted
        if waited * 1000 >= longest:
            return str(flushed)
        # On the server: a pause here would hold up an event loop, and so any look under way beside this one.
        _rows(connection, f"SELECT pg_catalog.pg_sleep({_PAUSE_SECONDS})")
        waited += _PAUSE_SECONDS


@contextmanager
def _bounded(connection: Any) -> Iterator[None]:
    """Run a block in a transaction that waits for nothing, and ends with it.

    SET LOCAL, since behind a pooler a session's settings would stay with a connection that others use next.
    """
    explicit = getattr(connection, "autocommit", False) is True
    if explicit:
        _run(connection, "BEGIN READ ONLY")
    try:
        _run(connection, f"SET LOCAL statement_timeout = {STATEMENT_MILLISECONDS}")
        _run(connection, f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")
        yield
    finally:
        if not _is_over(connection):
            _run(connection, "ROLLBACK") if explicit else connection.rollback()


def _is_over(connection: Any) -> bool:
    """Tell whether the driver knows that the connection is lost."""
    closed = getattr(connection, "closed", False)
    driver: Any = getattr(connection, "driver_connection", None)
    if hasattr(driver, "is_closed"):  # asyncpg
        return bool(driver.is_closed())
    if driver is not None and hasattr(driver, "closed"):  # psycopg's own, as SQLAlchemy adapts it
        closed = driver.closed
    return bool(closed)


def _run(connection: Any, statement: str) -> None:
    cursor = connection.cursor()
    try:
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
