"""A PostgreSQL standby: where it stands, and how its replay is paused and resumed.

`pg_wal_replay_pause` takes effect at the next record, and its state says when (`pg_get_wal_replay_pause_state`, since
14); `recovery_target_lsn` would stop at an exact position, but is for a server that is being started. So it is paused
when it has passed the fence, and what it has replayed since is said: the fence's own marker, and what the server
writes for itself; nothing of the site's, which can't write.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg

from ...errors import ConfigurationError
from ..fence import Position
from ..replicas import Schema, Standing, has_reached
from ..replicas import postgresql as server
from .standby import Standby
from .values import Frozen, NotFrozen, Pause, Seen, StandbyError, StandbyUnreachable

Connection = psycopg.Connection[tuple[Any, ...]]

APPLICATION = "readonly-freeze"
CONNECT_SECONDS = 5
# Nothing that is asked for here takes time by itself: what does waits for a lock that is being replayed.
STATEMENT_TIMEOUT = "5s"
POLL_SECONDS = 0.01
# Whom a standby can never be: libpq would look on for a server that takes writes.
WRITERS_ONLY = frozenset({"read-write", "primary"})

_LOOK = """
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_get_wal_replay_pause_state() ELSE 'not paused' END,
       greatest(0, coalesce(pg_catalog.pg_wal_lsn_diff(
           pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()), 0))::bigint,
       pg_catalog.current_setting('primary_slot_name'), pg_catalog.current_setting('max_standby_streaming_delay'),
       pg_catalog.current_setting('recovery_min_apply_delay'),
       pg_catalog.has_function_privilege('pg_catalog.pg_wal_replay_pause()', 'EXECUTE')
       AND pg_catalog.has_function_privilege('pg_catalog.pg_wal_replay_resume()', 'EXECUTE'),
       pg_catalog.has_function_privilege('pg_catalog.pg_ls_waldir()', 'EXECUTE')
"""
_PAUSED = """
SELECT pg_catalog.pg_last_wal_replay_lsn()::text,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), %s::pg_lsn)::bigint,
       pg_catalog.current_setting('max_standby_streaming_delay')
 WHERE pg_catalog.pg_get_wal_replay_pause_state() = 'paused'
"""
# A standby shows the locks that it replays as held by nobody (a virtual transaction without a process of its own).
_LOCKED = """
SELECT coalesce(c.relname, l.relation::text) FROM pg_catalog.pg_locks l
  LEFT JOIN pg_catalog.pg_class c ON c.oid = l.relation
 WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
 ORDER BY 1 LIMIT 1
"""


class PostgresStandby(Standby):
    """A streaming standby.

    Args:
        url: Of the standby itself, as a role that may pause its replay where it is to be frozen.
        where: The setting that it comes from, for messages.

    Raises:
        ConfigurationError: The URL can never lead to a standby.
    """

    def __init__(self, url: str, *, where: str = "replicas") -> None:
        self._url = url
        self._where = where
        try:
            found = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError:  # its text repeats the URL, and so a password
            raise ConfigurationError(
                f"{where}: is no PostgreSQL URL: write postgresql://fencer@host:5432/database"
            ) from None
        wanted = parse_qs(urlsplit(url).query).get("target_session_attrs", [""])[-1]
        if wanted in WRITERS_ONLY:
            raise ConfigurationError(
                f"{where}: target_session_attrs={wanted} can never lead to a standby; leave it out, or write "
                "target_session_attrs=standby"
            )
        self.name = f"{found.get('host', 'localhost')}:{found.get('port', 5432)}/{found.get('dbname', '')}"
        self._event = threading.Event()

    def look(self, schema: Schema | None = None) -> Seen:
        """Return where it stands; nothing is changed.

        Raises:
            StandbyUnreachable: It did not answer.
        """
        with self._connect() as connection:
            standing = server.look(connection, schema)
            [row] = connection.execute(_LOOK).fetchall()
            pause, waiting, slot, grace, delay, may_pause, may_list = row
            log = None
            if may_list:
                [(log,)] = connection.execute("SELECT sum(size)::bigint FROM pg_catalog.pg_ls_waldir()").fetchall()
            return Seen(
                self.name, standing, pause=Pause(pause), waiting_bytes=waiting, log_bytes=log, slot=slot, grace=grace,
                delay=delay, lacks="" if may_pause else _may_not_pause(connection.info.user),
            )  # fmt: skip

    def behind(self, position: Position) -> str:
        """Return why it has not reached a position yet, as the end of a sentence; "" if it has.

        Raises:
            StandbyError: It never will.
        """
        with self._connect() as connection:
            return self._behind(connection, position)

    def freeze(self, position: Position, *, timeout: float) -> Frozen:
        """Pause its replay as soon as it has passed a position; one that is paused there already is left as it is.

        Raises:
            NotFrozen: It replays: it did not come that far in time, or stands amid a lock that somebody holds, which
                it would keep for as long as it is paused.
            StandbyError: It is no standby of that system, this role may not pause it, or it did not answer.
        """
        deadline = time.monotonic() + timeout
        amid = ""
        with self._connect() as connection:
            self._require_may_pause(connection)
            while True:
                why = self._behind(connection, position)
                if not why:
                    frozen = self._paused(connection, position)
                    if frozen is None:
                        # Where it was resumed for a lock a moment ago, that is what keeps it from being frozen.
                        why = amid or "was asked to pause and has not yet: a read there holds up its replay"
                    else:
                        held = connection.execute(_LOCKED).fetchone()
                        if held is None:
                            return frozen
                        # Whoever reads that table here would wait for the thaw.
                        self._resume(connection)
                        why = amid = f"stands amid a lock on {held[0]}, and would keep it for as long as it is paused"
                if time.monotonic() >= deadline:
                    self._resume(connection)
                    raise NotFrozen(f"{self.name} is not frozen and goes on following: it {why}")
                self._event.wait(POLL_SECONDS)

    def thaw(self) -> bool:
        """Have it replay again; returns whether it had been paused.

        Raises:
            StandbyError: It is no standby any more, this role may not resume it, or it did not answer.
        """
        with self._connect() as connection:
            self._required(connection)
            [(state,)] = connection.execute("SELECT pg_catalog.pg_get_wal_replay_pause_state()").fetchall()
            if state == Pause.NO:
                return False
            self._require_may_pause(connection)
            self._resume(connection)
            return True

    def _behind(self, connection: Connection, position: Position) -> str:
        standing = self._required(connection)
        if standing.system != position.server:
            raise StandbyError(f"{self.name} {has_reached(standing, position)}. Look at {self._where}")
        why = has_reached(standing, position)
        if why and standing.paused:
            [(state,)] = connection.execute("SELECT pg_catalog.pg_get_wal_replay_pause_state()").fetchall()
            if state == Pause.YES:
                raise StandbyError(
                    f"{self.name} {why}. Somebody paused it before: have it replay again there, "
                    "SELECT pg_wal_replay_resume()"
                )
        return why

    def _required(self, connection: Connection) -> Standing:
        standing = server.look(connection)
        if not standing.replica:
            raise StandbyError(
                f"{self.name} is no standby: it takes writes of its own. Was it promoted, or is it the primary's "
                f"address? Look at {self._where}"
            )
        return standing

    def _paused(self, connection: Connection, position: Position) -> Frozen | None:
        """Ask for a pause, where nobody has yet; None while it has not come about."""
        [(state,)] = connection.execute("SELECT pg_catalog.pg_get_wal_replay_pause_state()").fetchall()
        if state == Pause.NO:
            connection.execute("SELECT pg_catalog.pg_wal_replay_pause()")
        row = connection.execute(_PAUSED, [position.at]).fetchone()
        return None if row is None else Frozen(self.name, *row)

    def _resume(self, connection: Connection) -> None:
        connection.execute("SELECT pg_catalog.pg_wal_replay_resume()")

    def _require_may_pause(self, connection: Connection) -> None:
        [(may,)] = connection.execute(
            "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_wal_replay_pause()', 'EXECUTE')"
            " AND pg_catalog.has_function_privilege('pg_catalog.pg_wal_replay_resume()', 'EXECUTE')"
        ).fetchall()
        if not may:
            raise StandbyError(f"{self.name}: {_may_not_pause(connection.info.user)}")

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        try:
            connection = psycopg.connect(
                self._url, autocommit=True, application_name=APPLICATION, connect_timeout=CONNECT_SECONDS
            )
        except psycopg.Error as error:
            raise StandbyUnreachable(f"{self.name}: the replica can't be reached: {_said(error)}") from error
        try:
            with connection:
                connection.execute("SELECT pg_catalog.set_config('statement_timeout', %s, false)", [STATEMENT_TIMEOUT])
                yield connection
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise StandbyUnreachable(f"{self.name}: the connection to the replica was lost: {_said(error)}") from error
        except psycopg.Error as error:
            raise StandbyError(f"{self.name}: the replica refused: {_said(error)}") from error


def _may_not_pause(role: str) -> str:
    named = '"' + role.replace('"', '""') + '"'
    return (
        "this role may not pause its replay; nothing was changed. In this database at the primary, as a superuser: "
        f"GRANT EXECUTE ON FUNCTION pg_catalog.pg_wal_replay_pause(), pg_catalog.pg_wal_replay_resume() TO {named}"
    )


def _said(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error)).strip().partition("\n")[0]
