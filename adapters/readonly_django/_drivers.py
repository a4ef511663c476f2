"""The connections of three drivers, so that nothing is sent on one without its `Held` being asked.

Django's own hooks come too late or not at all: `connection_created` is sent when the driver has connected, an
`execute_wrapper` does not see `copy()`, `callproc()` or a cursor of the driver. So the driver's connection itself is
of a class that is made here, from whatever class it had: psycopg takes its connection's `lock` around everything that
it sends, PyMySQL sends everything by a handful of methods, and sqlite3 makes connections and cursors of the classes
that it is given.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator
from typing import Any

from readonly.errors import ConfigurationError

from ._held import Guarding, Held

_HELD = "_readonly_held"


def held_of(connection: Any) -> Held | None:
    """Return what is known of a driver's connection, or None if it is none of ours (or there is none)."""
    found = getattr(connection, _HELD, None)
    return found if isinstance(found, Held) else None


def name_of(wrapper: Any) -> str:
    """Return the name of the driver that one of Django's connection objects uses."""
    return str(wrapper.Database.__name__).partition(".")[0]


def check(wrapper: Any) -> None:
    """Look whether connections of this alias can be guarded; nothing is connected.

    Raises:
        ConfigurationError: They can't; the message says why.
    """
    driver = name_of(wrapper)
    if driver not in ("psycopg", "pymysql", "sqlite3"):
        raise ConfigurationError(
            f"DATABASES[{wrapper.alias!r}] goes through {driver}, which has no guard: PostgreSQL is guarded through "
            "psycopg 3 (pip install 'psycopg[binary]'), MySQL and MariaDB through PyMySQL (pip install PyMySQL, and "
            "pymysql.install_as_MySQLdb() in manage.py, wsgi.py and asgi.py, before Django is set up), "
            "SQLite through sqlite3. If the read-only mode is not about "
            f'this database, leave it out: READONLY = {{"UNGUARDED": [{wrapper.alias!r}]}}'
        )


def prepare(parameters: dict[str, Any], vendor: str) -> dict[str, Any]:
    """Return what to connect with, so that the connection can be guarded."""
    if vendor != "sqlite":
        return parameters
    return {**parameters, "factory": _sqlite_connection(parameters.get("factory", sqlite3.Connection))}


def attach(connection: Any, guard: Guarding, alias: str) -> None:
    """Put a driver's connection under a guard; one that comes out of a pool may be under it already.

    Raises:
        ConfigurationError: It is none of the driver's own, or not of the class that it was asked for.
    """
    held = held_of(connection)
    if held is not None:
        held.guard = guard
        return
    base: Any = type(connection)
    own = getattr(connection, "__dict__", {})
    if "lock" in own and "pgconn" in own:
        connection.__class__ = _psycopg_connection(base)
    elif any(kind.__module__ == "pymysql.connections" for kind in base.__mro__):
        connection.__class__ = _pymysql_connection(base)
    elif not issubclass(base, sqlite3.Connection) or base is sqlite3.Connection:
        connection.close()
        raise ConfigurationError(
            f"DATABASES[{alias!r}] connects with {base.__module__}.{base.__qualname__}, which can't be guarded: a "
            "backend or pool stands between Django and the driver. Use Django's own backend, and psycopg's pool in its "
            f"OPTIONS; or, if the read-only mode is not about this database, leave it out by UNGUARDED = [{alias!r}]"
        )
    held = Held(guard)
    setattr(connection, _HELD, held)
    held.watch(connection)


# --- psycopg ---------------------------------------------------------------------------------------------------------


class _Lock:
    """A connection's lock, for one use of it: the guard is asked before it is taken, and told after it was given back.

    Before, because the guard sends statements of its own, which take it too.
    """

    __slots__ = ("_connection", "_held", "_lock")

    def __init__(self, connection: Any, lock: Any, held: Held) -> None:
        self._connection = connection
        self._lock = lock
        self._held = held

    def __enter__(self) -> None:
        if not self._in_two_phases():
            self._held.before(self._connection)
        self._lock.__enter__()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self._lock.__exit__(kind, error, traceback)
        finally:
            if not self._in_two_phases():
                self._held.after(self._connection, error)

    def _in_two_phases(self) -> bool:
        # To the server it is idle between the phases, and the second one commits.
        return getattr(self._connection, "_tpc", None) is not None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)


@functools.cache
def _psycopg_connection(base: type) -> type:
    class GuardedConnection(base):  # type: ignore[misc]  # the base is only known when it runs
        @property
        def lock(self) -> Any:
            own = vars(self)
            held = own.get(_HELD)
            return own["lock"] if held is None else _Lock(self, own["lock"], held)

        @lock.setter
        def lock(self, value: Any) -> None:
            self.__dict__["lock"] = value

        def close(self) -> None:
            super().close()
            held = held_of(self)
            # A pool may have taken it back instead, and rolls back what is open in a thread of its own.
            if held is not None and self.closed:
                held.over()

    return _named_like(GuardedConnection, base)


# --- PyMySQL ---------------------------------------------------------------------------------------------------------


@functools.cache
def _pymysql_connection(base: type) -> type:
    class GuardedConnection(base):  # type: ignore[misc]  # the base is only known when it runs
        # Something was sent since an answer said that no transaction is open: rows come without such a word.
        readonly_asked = False

        @property
        def closed(self) -> bool:
            return not self.open

        def query(self, sql: Any, unbuffered: bool = False) -> Any:
            unread = self._result
            if unread is not None and unread.unbuffered_active:
                # As the driver does next; only then the statement before is over, and this one can be judged.
                unread._finish_unbuffered_query()
            with _told(self, begins=True):
                return self._readonly_read(super().query, sql, unbuffered)

        def next_result(self, unbuffered: bool = False) -> Any:
            with _told(self):
                return self._readonly_read(super().next_result, unbuffered)

        def _readonly_read(self, read: Any, *args: Any) -> Any:
            held = held_of(self)
            if held is not None and not held.telling:
                self.readonly_asked = True
            affected = read(*args)
            if self._result.server_status is not None:
                self.readonly_asked = bool(self._result.server_status & 1)
            return affected

        def _read_ok_packet(self) -> Any:
            answer = super()._read_ok_packet()
            self.readonly_asked = bool(answer.server_status & 1)
            return answer

        def begin(self) -> None:
            with _told(self, begins=True):
                super().begin()

        def commit(self) -> None:
            with _told(self):
                super().commit()

        def rollback(self) -> None:
            with _told(self):
                super().rollback()

        def autocommit(self, value: Any) -> None:
            # True commits what is open.
            with _told(self):
                super().autocommit(value)

        def close(self) -> None:
            super().close()
            held = held_of(self)
            if held is not None:
                held.over()

    return _named_like(GuardedConnection, base)


# --- sqlite3 ---------------------------------------------------------------------------------------------------------


@functools.cache
def _sqlite_connection(base: type) -> type:
    class GuardedConnection(base):  # type: ignore[misc]  # the base is only known when it runs
        def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
            return super().cursor(_sqlite_cursor(factory) if isinstance(factory, type) else factory)

        # The driver's own make a cursor past the method above.
        def execute(self, *args: Any) -> Any:
            return self.cursor().execute(*args)

        def executemany(self, *args: Any) -> Any:
            return self.cursor().executemany(*args)

        def executescript(self, *args: Any) -> Any:
            return self.cursor().executescript(*args)

        def commit(self) -> None:
            with _told(self):
                super().commit()

        def rollback(self) -> None:
            with _told(self):
                super().rollback()

        def close(self) -> None:
            super().close()
            held = held_of(self)
            if held is not None:
                held.over()

        def blobopen(self, *args: Any, **options: Any) -> Any:
            with _told(self, begins=True):
                return super().blobopen(*args, **options)

        @property
        def isolation_level(self) -> Any:
            return base.isolation_level.__get__(self)  # type: ignore[attr-defined]

        @isolation_level.setter
        def isolation_level(self, value: Any) -> None:
            # None commits what is open.
            with _told(self):
                base.isolation_level.__set__(self, value)  # type: ignore[attr-defined]

    return _named_like(GuardedConnection, base)


@functools.cache
def _sqlite_cursor(base: type) -> type:
    """A cursor that keeps its transaction in flight while rows are unread.

    In autocommit, what an INSERT ... RETURNING wrote is committed when its last row was read, and nobody can ask
    SQLite whether that is still to come.
    """

    class GuardedCursor(base):  # type: ignore[misc]  # the base is only known when it runs
        _readonly_key: object | None = None

        def execute(self, *args: Any) -> Any:
            with _told(self.connection, begins=True, cursor=self):
                return super().execute(*args)

        def executemany(self, *args: Any) -> Any:
            with _told(self.connection, begins=True, cursor=self):
                return super().executemany(*args)

        def executescript(self, *args: Any) -> Any:
            with _told(self.connection, begins=True, cursor=self):
                return super().executescript(*args)

        def fetchone(self) -> Any:
            row = super().fetchone()
            if row is None:
                self._readonly_over()
            return row

        def fetchmany(self, size: int | None = None) -> Any:
            size = self.arraysize if size is None else size
            rows = super().fetchmany(size)
            if len(rows) < size:
                self._readonly_over()
            return rows

        def fetchall(self) -> Any:
            rows = super().fetchall()
            self._readonly_over()
            return rows

        def __iter__(self) -> Iterator[Any]:
            return self

        def __next__(self) -> Any:
            try:
                return super().__next__()
            except StopIteration:
                self._readonly_over()
                raise

        def close(self) -> None:
            super().close()
            self._readonly_over()

        def __del__(self) -> None:
            self._readonly_over()

        def _readonly_over(self) -> None:
            key, self._readonly_key = self._readonly_key, None
            if key is not None:
                held = held_of(self.connection)
                if held is not None:
                    held.guard.admission.end(key)

    return _named_like(GuardedCursor, base)


class _told:  # noqa: N801 - reads like a function
    """Asks the guard before something is sent, if it may begin a transaction, and tells it afterwards."""

    __slots__ = ("_connection", "_cursor", "_held")

    def __init__(self, connection: Any, *, begins: bool = False, cursor: Any = None) -> None:
        self._connection = connection
        self._cursor = cursor
        self._held = held = held_of(connection)
        if held is not None and begins:
            held.before(connection)

    def __enter__(self) -> None:
        if self._cursor is not None:
            self._cursor._readonly_over()  # its statement before is over

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        held = self._held
        if held is None:
            return
        if self._cursor is not None and self._cursor.description and not self._connection.in_transaction:
            self._cursor._readonly_key = held.handed_over()
        held.after(self._connection, error)


def _named_like(made: type, base: type) -> type:
    """Name it for what it is made from: it shows in messages."""
    made.__module__ = base.__module__
    made.__qualname__ = base.__qualname__
    made.__name__ = base.__name__
    return made
