"""Whom a fence at a MariaDB server waits for: the transactions that have begun to write before it goes up.

`SET GLOBAL read_only` refuses their COMMIT, so this is no matter of safety but of kindness: who is asked to finish may.
Transactions that began later are not waited for, or a client that does not stop would hold the fence up for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from datetime import UTC

import pymysql

from ._maria_server import ER_NO_SUCH_THREAD, ER_NOT_OWNER, Session, number, said
from .values import Holdup

# `innodb_trx` is served from a cache that is only renewed when nobody has asked for 100 ms: a faster poll sees a
# transaction that has ended for as long as it polls. So do two of them in turns, hence the lock.
POLL_SECONDS = 0.15
_LOOK = "readonly_fence_look"
_LOOK_SECONDS = 30

# A transaction that has changed a row, or whose statement holds a table to change one. The join leaves out what the
# cache still shows of a session that is gone; a thread of 0 is a prepared transaction without a session.
_WRITERS = """
SELECT t.trx_id, t.trx_mysql_thread_id, p.USER, t.trx_started, COALESCE(t.trx_query, p.INFO)
FROM information_schema.INNODB_TRX t LEFT JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id
WHERE (t.trx_rows_modified > 0 OR t.trx_tables_locked > 0) AND t.trx_mysql_thread_id <> CONNECTION_ID()
  AND p.ID IS NOT NULL
ORDER BY t.trx_started, t.trx_mysql_thread_id
"""
# What a lock on everything waits for: any statement that runs.
_RUNNING = """
SELECT ID, USER, INFO FROM information_schema.PROCESSLIST
WHERE COMMAND IN ('Query', 'Execute') AND ID <> CONNECTION_ID() AND INFO IS NOT NULL ORDER BY TIME DESC, ID
"""
_SESSIONS = """
SELECT ID, USER, INFO FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() ORDER BY ID
"""

# (transaction's id, session's number): a session may have begun another one by now.
Transaction = tuple[int, int]


class Look:
    """One look at who writes."""

    def __init__(self, rows: Sequence[tuple[Transaction, Holdup]], prepared: Sequence[Holdup]) -> None:
        self.writers = dict(rows)
        self.prepared = tuple(prepared)

    def holdups(self, waited_for: Collection[Transaction]) -> tuple[Holdup, ...]:
        """Return those of the transactions that are still there, and what is prepared."""
        return (*(holdup for key, holdup in self.writers.items() if key in waited_for), *self.prepared)


def look(session: Session, *, but: Collection[str], again: threading.Event | None = None) -> Look:
    """Return who writes now, but for the accounts of these names (who go on writing behind the fence).

    Args:
        session: At the server.
        but: Names of accounts.
        again: Not the first look of this command: the server's cache is given the time that it needs, on this event.
    """
    session.value("SELECT GET_LOCK(%s, %s)", [_LOOK, _LOOK_SECONDS])
    try:
        if again is not None:
            again.wait(POLL_SECONDS)
        rows = [
            ((int(transaction), int(pid)), Holdup(int(pid), user or "", "", since.replace(tzinfo=UTC), query or ""))
            for transaction, pid, user, since, query in session.rows(_WRITERS)
            if user not in but
        ]
        return Look(rows, prepared(session))
    finally:
        session.value("SELECT RELEASE_LOCK(%s)", [_LOOK])


def prepared(session: Session) -> tuple[Holdup, ...]:
    """Return the prepared transactions of this server: they keep their locks, and wait for somebody's XA COMMIT."""
    found = []
    for _format, length, _branch, data in session.rows("XA RECOVER"):
        raw = data if isinstance(data, bytes) else str(data).encode()
        found.append(Holdup(None, prepared=raw[: int(length)].decode(errors="replace")))
    return tuple(found)


def running(session: Session) -> tuple[Holdup, ...]:
    """Return the sessions that run a statement now."""
    return tuple(Holdup(int(pid), user or "", doing=info or "") for pid, user, info in session.rows(_RUNNING))


def sessions_of(session: Session, users: Collection[str]) -> tuple[Holdup, ...]:
    """Return the sessions of accounts, but for ours."""
    return tuple(
        Holdup(int(pid), user or "", doing=info or "") for pid, user, info in session.rows(_SESSIONS) if user in users
    )


def end(session: Session, holdups: Sequence[Holdup]) -> tuple[tuple[Holdup, ...], tuple[str, ...]]:
    """End sessions.

    Returns:
        Those that were told to end, and for each other one why not.
    """
    ended, refused = [], []
    for holdup in holdups:
        if holdup.pid is None:
            continue
        try:
            session.rows(f"KILL CONNECTION {int(holdup.pid)}")
            ended.append(holdup)
        except pymysql.MySQLError as error:
            if number(error) == ER_NO_SUCH_THREAD:
                continue
            if number(error) != ER_NOT_OWNER:
                raise
            refused.append(f"{holdup} may not be ended by this account: {said(error)}")
    return tuple(ended), tuple(refused)
