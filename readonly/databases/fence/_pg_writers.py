"""Whom a fence waits for: the transactions that may still commit what they wrote before it stood.

Only the transactions that held a writer's lock at the moment after the flip are waited for. That is enough, because a
statement takes its lock on the table before it looks at privileges and triggers, and taking the lock processes what was
changed in the catalogs: it either shows here, or it sees the fence (PostgreSQL manual, 13.3.1 and pg_locks).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import psycopg

from ._pg_state import Connection
from .values import Holdup

# Modes that a statement which changes rows takes, or stronger ones. Relations below 16384 are the catalogs, but 2613
# holds large objects. VACUUM takes the first mode on indexes alone: it changes no row, and may take hours.
_WRITERS = """
SELECT DISTINCT l.virtualtransaction, l.pid
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_class c ON c.oid = l.relation
WHERE l.locktype = 'relation' AND l.granted AND l.pid IS NOT NULL AND l.pid <> pg_catalog.pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  AND (l.relation >= 16384 OR l.relation = 2613)
  AND (c.relkind IS NULL OR c.relkind NOT IN ('i', 'I'))
  AND c.relnamespace IS DISTINCT FROM pg_catalog.to_regnamespace('readonly_fence')
"""
# A session that is older than the change has read its settings before it, and keeps them.
_OLD_SESSIONS = """
SELECT 'session', a.pid FROM pg_catalog.pg_stat_activity a
WHERE a.datname = pg_catalog.current_database() AND a.usename = ANY(%s) AND a.pid <> pg_catalog.pg_backend_pid()
  AND a.backend_start <= %s
"""
_SEEN = """
SELECT a.pid, a.usename, a.application_name, a.xact_start, a.query
FROM pg_catalog.pg_stat_activity a WHERE a.pid = ANY(%s)
"""
_PREPARED = """
SELECT gid, owner, prepared FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()
"""
_OF_RUN = """
SELECT pid, usename, application_name, xact_start FROM pg_catalog.pg_stat_activity
WHERE application_name = %s AND pid <> pg_catalog.pg_backend_pid()
"""
_END = """
SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a
WHERE a.pid = %s AND a.datname = pg_catalog.current_database()
"""

# (virtual transaction, pid): neither alone is unique over time.
Transaction = tuple[str, int]


def writers(connection: Connection) -> frozenset[Transaction]:
    """Return the transactions that hold a writer's lock on a table of this database now."""
    return frozenset((virtual, pid) for virtual, pid in connection.execute(_WRITERS).fetchall())


def writers_of(connection: Connection, table: int) -> frozenset[Transaction]:
    """Return the transactions that hold a writer's lock on one table."""
    rows = connection.execute(_WRITERS + " AND l.relation = %s", [table]).fetchall()
    return frozenset((virtual, pid) for virtual, pid in rows)


def old_sessions(connection: Connection, roles: Sequence[str], started: datetime) -> frozenset[Transaction]:
    """Return the sessions of these roles that began at or before an instant of the server's clock."""
    rows = connection.execute(_OLD_SESSIONS, [list(roles), started]).fetchall()
    return frozenset((word, pid) for word, pid in rows)


def sessions_of(connection: Connection, run: str) -> tuple[Holdup, ...]:
    """Return the sessions that carry a run's name."""
    rows = connection.execute(_OF_RUN, [f"readonly-run-{run}"]).fetchall()
    return tuple(Holdup(pid, user or "", name, since) for pid, user, name, since in rows)


def prepared(connection: Connection) -> tuple[Holdup, ...]:
    """Return the prepared transactions of this database: whoever commits one gets past every fence."""
    return tuple(
        Holdup(None, user=owner, since=since, prepared=name)
        for name, owner, since in connection.execute(_PREPARED).fetchall()
    )


def described(connection: Connection, transactions: Collection[Transaction]) -> tuple[Holdup, ...]:
    """Return what the server shows of these transactions' sessions; a role without rights sees the pid alone."""
    pids = sorted({pid for _, pid in transactions})
    rows = {row[0]: row for row in connection.execute(_SEEN, [pids]).fetchall()}
    found = []
    for pid in pids:
        _, user, application, since, query = rows.get(pid, (pid, "", "", None, ""))
        found.append(Holdup(pid, user or "", application or "", since, _seen(query)))
    return tuple(found)


def end(connection: Connection, holdups: Sequence[Holdup]) -> tuple[tuple[Holdup, ...], tuple[str, ...]]:
    """End sessions.

    Returns:
        Those that were told to end, and for each one that may not be ended why; one that is gone is neither.

    Source: PostgreSQL manual, pg_terminate_backend(); it needs pg_signal_backend for the sessions of other roles.
    """
    ended, refused = [], []
    for holdup in holdups:
        if holdup.pid is None:
            continue
        try:
            # Seen again at this moment: it may have ended by itself since it was looked at.
            if connection.execute(_END, [holdup.pid]).fetchall():
                ended.append(holdup)
        except psycopg.errors.InsufficientPrivilege as error:
            refused.append(f"{holdup} may not be ended by this role: {error.diag.message_primary}")
    return tuple(ended), tuple(refused)


def _seen(query: str | None) -> str:
    # Without pg_read_all_stats the server writes this instead of the statement.
    return "" if query is None or query == "<insufficient privilege>" else query
