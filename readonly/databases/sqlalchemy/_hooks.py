"""What is hooked into one engine: each connection's transactions are counted, or begin read-only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakSet

from sqlalchemy import Connection, Engine, PoolProxiedConnection, event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState, SingletonThreadPool, StaticPool

from readonly.databases import Server
from readonly.databases.admission import Admission
from readonly.databases.detection import Detection, looking

logger = logging.getLogger("readonly")

AUTOCOMMIT: Final = "AUTOCOMMIT"
# The four letters that nearly every statement begins with; none of them is transaction control.
_HARMLESS = frozenset({"SELE", "INSE", "UPDA", "DELE", "WITH"})


class Held:
    """What is known of one DBAPI connection.

    Attributes:
        born: How often the primary had been found writable again when it was opened.
        guarded: It was told to refuse writes, and not told otherwise since.
        memory: What the server's module found there.
        transaction: Key of the transaction in flight that may write, else None.
        raw: Key of a check-out that no `Connection` has taken over: it may begin anything at any time.
        deciding: A prepared transaction that may be committed is being committed on it.
    """

    __slots__ = ("born", "deciding", "guarded", "memory", "raw", "transaction")

    def __init__(self, born: int = 0) -> None:
        self.born = born
        self.guarded = False
        self.memory: dict[str, Any] = {}
        self.transaction: object | None = None
        self.raw: object | None = None
        self.deciding = False


class Hooks:
    """The guard on one engine, until `remove`.

    Transactions are taken from the dialect's own methods and not from the engine's events. `commit` and `rollback`
    fire before anything is sent, and a drain that trusted them would call a commit over that is still under way; and
    one listener on an engine makes SQLAlchemy look for listeners at a dozen places of every statement, which costs
    more than all that is done here.

    A transaction whose COMMIT failed with the connection (nobody knows what became of it) stays counted until that
    connection is closed, which the pool does at once. The server may still commit it a moment later; only a fence
    rules that out.

    Attributes:
        autocommit: Somebody has asked for connections in autocommit: there the guard is another one.

    Args:
        engine: The engine.
        server: What its database is told.
        admission: Counts its transactions, and says which may write.
        is_open: Whether the site is known to be writable; never asks anybody.
        failed: Turns a driver's error into ours, or returns None.
        lifts: Makes the error for a statement that would lift the guard.
        detection: Watches the primary; None on a replica.
    """

    def __init__(
        self,
        engine: Engine,
        server: Server,
        *,
        admission: Admission,
        is_open: Callable[[], bool],
        failed: Callable[[ExceptionContext, bool], BaseException | None],
        lifts: Callable[[str], BaseException],
        detection: Detection | None = None,
    ) -> None:
        self.engine = engine
        self.server = server
        self._admission = admission
        self._is_open = is_open
        self._failed = failed
        self._lifts = lifts
        self._detection = detection
        self.autocommit = AUTOCOMMIT in (
            getattr(engine.dialect, "_on_connect_isolation_level", None),
            engine.get_execution_options().get("isolation_level"),
        )
        # Text, whose hash is kept: it is looked up several times for each transaction.
        self._key = f"readonly-{id(self)}"
        # A pool that holds one connection for good may hold the only one to a database in memory: it can't be replaced
        # in `remove`, and so is put back each time.
        self._lasting = server.lasting and not isinstance(engine.pool, (SingletonThreadPool, StaticPool))
        self._leaving: dict[int, Held] = {}
        self._counted: set[Held] = set()
        self._told: WeakSet[ConnectionPoolEntry] = WeakSet()
        self._listeners: dict[str, Callable[..., Any]] = {
            "connect": self._connect,
            "checkout": self._checkout,
            "checkin": self._checkin,
            "reset": self._reset,
            "detach": self._detach,
            "close": self._detach,
            "handle_error": self._handle_error,
        }
        for name, listener in self._listeners.items():
            # Before the application's own, which may write.
            event.listen(engine, name, listener, insert=name in ("connect", "checkout"))
        self._replaced: list[tuple[object, str, Any]] = []
        dialect = engine.dialect
        self._replace(engine, "connect", self._connecting)
        if not admission.never:
            self._replace(engine, "raw_connection", self._taking)
        for name in ("do_begin", "do_begin_twophase"):
            self._replace(dialect, name, self._beginning)
        for name in ("do_commit", "do_rollback", "do_commit_twophase", "do_rollback_twophase"):
            self._replace(dialect, name, self._ending)
        self._replace(dialect, "do_commit_twophase", self._deciding)
        for name in ("do_close", "do_terminate"):
            self._replace(dialect, name, self._closing)
        for name in ("do_execute", "do_execute_no_params"):
            self._replace(dialect, name, self._executing)
        self._replace(dialect, "set_isolation_level", self._isolating)

    def remove(self) -> None:
        """Take everything off the engine again."""
        for name, listener in self._listeners.items():
            event.remove(self.engine, name, listener)
        for target, name, found in reversed(self._replaced):
            if found is None:
                del vars(target)[name]  # the class's method shows again
            else:
                vars(target)[name] = found
        for held in list(self._counted):
            self._end(held)
        for entry in list(self._told):
            known = entry.info.get(self._key)
            if isinstance(known, Held) and known.guarded:
                # It may be in use right now, in any thread: it is not put back but replaced at the next check-out.
                entry.invalidate(soft=True)

    def guarded(self, connection: Connection) -> bool:
        """Tell whether the connection's transaction can't write; begins one if there is none."""
        if not connection.in_transaction():
            connection.begin()
        held = self.held(connection.connection)
        return held is not None and held.guarded

    def held(self, proxied: PoolProxiedConnection) -> Held | None:
        """Return what is known of a connection; None while SQLAlchemy itself is looking at a new one."""
        try:
            info = proxied.info
        except NotImplementedError:
            return None
        found = info.get(self._key)
        if not isinstance(found, Held):
            found = info[self._key] = Held(0 if self._detection is None else self._detection.renewed)
        return found

    def begin(self, proxied: PoolProxiedConnection) -> Held | None:
        """A transaction begins on this connection: count it, or make it read-only."""
        held = self.held(proxied)
        if held is None:
            return None
        self._end_transaction(held)
        key = self._count(held, "transaction")
        self._end_raw(held)  # only now: what may write is counted at every moment
        self._tell(proxied.dbapi_connection, held, read_only=key is None)
        if held.guarded:
            self._end_transaction(held)
        return held

    # --- counting ----------------------------------------------------------------------------------------------------

    def _count(self, held: Held, what: str) -> object | None:
        """Count, look, and stay counted or not."""
        key = self._admission.begin()
        if key is None:
            return None
        setattr(held, what, key)
        self._counted.add(held)
        return key

    def _end_transaction(self, held: Held) -> None:
        key, held.transaction = held.transaction, None
        if key is not None:
            self._admission.end(key)
            if held.raw is None:
                self._counted.discard(held)

    def _end_raw(self, held: Held) -> None:
        key, held.raw = held.raw, None
        if key is not None:
            self._admission.end(key)
            if held.transaction is None:
                self._counted.discard(held)

    def _end(self, held: Held) -> None:
        self._end_transaction(held)
        self._end_raw(held)

    # --- telling the server ------------------------------------------------------------------------------------------

    def _tell(self, connection: Any, held: Held, *, read_only: bool) -> None:
        if read_only:
            self.server.guard(connection, held.memory)
            held.guarded = True
        elif held.guarded:
            # A transaction that a listener of the application has begun, read-only, can't be opened any more: then it
            # stays what it is, and the next one is open.
            held.guarded = not self.server.restore(connection, held.memory)

    # --- events of the pool ------------------------------------------------------------------------------------------

    def _connect(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        """A new connection: the application's own listeners are next, and may write on it."""
        if looking():
            return
        if self._detection is not None and self.server.is_suspect(connection):
            self._detection.suspect()
        held = entry.info[self._key] = Held(0 if self._detection is None else self._detection.renewed)
        if not self._admission.may_write():
            self._told.add(entry)
            self._tell(connection, held, read_only=True)

    def _checkout(self, connection: Any, entry: ConnectionPoolEntry, proxied: PoolProxiedConnection) -> None:
        """Somebody takes a connection, and may use it raw: count the check-out, or guard all that comes."""
        if looking():
            return
        known = entry.info.get(self._key)
        if self._detection is not None:
            if not isinstance(known, Held):  # opened before there was a guard
                if self.server.is_suspect(connection):
                    self._detection.suspect()
            elif known.born != self._detection.renewed:
                # It may lead to the old primary.
                raise DisconnectionError("it was opened before its server took writes again")
        held = known if isinstance(known, Held) else self.held(proxied)
        if held is None:  # pragma: no cover - a check-out always has an info
            return
        self._end(held)
        key = self._count(held, "raw")
        if key is None:
            self._told.add(entry)
        self._tell(connection, held, read_only=key is None)

    def _checkin(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        held = entry.info.get(self._key)
        if not isinstance(held, Held):
            return
        try:
            # A replica's connections stay guarded in their pool: there is no other way to use them.
            if self._admission.never or connection is None:
                return
            if not self._lasting or self._is_open():
                self._tell(connection, held, read_only=False)
        except Exception as error:
            logger.warning("readonly: a connection could not be put back as it was, and is closed: %s", error)
            entry.invalidate(error)
        finally:
            self._end(held)

    def _reset(self, connection: Any, entry: ConnectionPoolEntry | None, state: PoolResetState) -> None:
        """See connections off that nobody will close: async ones, without a loop, of a driver that can't do without."""
        dialect = self.engine.dialect
        if not state.terminate_only or not dialect.is_async or dialect.has_terminate:
            return
        held = self._leaving.pop(id(connection), None)
        if held is None and entry is not None:
            held = entry.info.pop(self._key, None)
        if held is not None:
            self._end(held)

    def _detach(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        """It leaves its entry, to be closed now or later: `_closing` must still find what is known of it."""
        held = entry.info.get(self._key)
        if isinstance(held, Held):
            self._leaving[id(connection)] = held

    # --- statements --------------------------------------------------------------------------------------------------

    def _executing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def execute(cursor: Any, statement: str, *args: Any, **kwargs: Any) -> Any:
            # The context comes last. Without one SQLAlchemy looks at a new connection.
            if statement[:4].upper() not in _HARMLESS and args:
                statement = self._softened(statement, kwargs.get("context", args[-1]))
            return original(cursor, statement, *args, **kwargs)

        return execute

    def _softened(self, statement: str, context: Any) -> str:
        connection = getattr(context, "root_connection", None)
        held = None if connection is None else self.held(connection.connection)
        if held is None or not held.guarded or held.deciding:
            return statement
        softened = self.server.softened(statement)
        if softened is None:
            raise self._lifts(statement)
        return softened

    # --- errors ------------------------------------------------------------------------------------------------------

    def _handle_error(self, context: ExceptionContext) -> BaseException | None:
        guarded = False
        connection = context.connection
        if connection is not None and not connection.closed and not connection.invalidated:
            held = self.held(connection.connection)
            guarded = held is not None and held.guarded
        return self._failed(context, guarded)

    # --- methods of the engine and the dialect -----------------------------------------------------------------------

    def _replace(self, target: object, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        found = vars(target).get(name)
        vars(target)[name] = wrap(getattr(target, name))
        self._replaced.append((target, name, found))

    def _connecting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def connect() -> Connection:
            """Not raw: the transactions of a Connection are counted one by one.

            Until it is there it is: listeners of the application's own may write on it, or keep another one.
            """
            connection: Connection = original()
            held = self.held(connection.connection)
            if held is not None and held.raw is not None:
                self._end_raw(held)
            return connection

        return connect

    def _taking(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def raw_connection() -> PoolProxiedConnection:
            """Counted until it is there, since a new one is not: listeners of the application's own may write on it."""
            key = self._admission.begin()
            try:
                connection: PoolProxiedConnection = original()
            finally:
                self._admission.end(key)
            return connection

        return raw_connection

    def _beginning(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def begin(target: Any, *args: Any) -> Any:
            proxied = proxied_of(target)
            held = None if proxied is None else self.begin(proxied)
            try:
                return original(target, *args)
            except BaseException:
                if held is not None:
                    self._end_transaction(held)
                raise

        return begin

    def _ending(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def end(target: Any, *args: Any, **kwargs: Any) -> Any:
            """The transaction is over when this has returned, or when the driver says so."""
            proxied = proxied_of(target)
            held = None if proxied is None else self.held(proxied)
            if proxied is None or held is None:
                return original(target, *args, **kwargs)
            try:
                result = original(target, *args, **kwargs)
            except BaseException:
                if self.server.is_idle(proxied.dbapi_connection):
                    self._end_transaction(held)
                raise
            self._end_transaction(held)
            if held.guarded and not self._admission.never and self._is_open():
                self._tell(proxied.dbapi_connection, held, read_only=False)
            return result

        return end

    def _deciding(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def commit(target: Connection, xid: Any, *args: Any, **kwargs: Any) -> Any:
            """No server refuses this in a read-only session: what others have prepared is a write like another."""
            held = self.held(target.connection)
            if held is None:
                return original(target, xid, *args, **kwargs)
            own = getattr(target.get_transaction(), "xid", None) == xid  # counted, or read-only, since it began
            key = None if own else self._admission.begin()
            if key is None and not own:
                raise self._lifts(f"COMMIT PREPARED {xid}")
            held.deciding = True
            try:
                return original(target, xid, *args, **kwargs)
            finally:
                held.deciding = False
                self._admission.end(key)

        return commit

    def _isolating(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def set_isolation_level(connection: Any, level: Any) -> Any:
            if level == AUTOCOMMIT:
                self.autocommit = True
            return original(connection, level)

        return set_isolation_level

    def _closing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def close(connection: Any) -> Any:
            try:
                return original(connection)
            finally:
                held = self._leaving.pop(id(connection), None)
                if held is not None:
                    self._end(held)

        return close


def proxied_of(target: Any) -> PoolProxiedConnection | None:
    """Return what the pool handed out: two-phase methods are given the Connection, others that itself."""
    if isinstance(target, Connection):
        return target.connection
    return target if isinstance(target, PoolProxiedConnection) else None


@contextmanager
def instead_of_commit(dialect: Any, target: Any, *phase: Any) -> Iterator[None]:
    """Roll back what an error keeps from being committed, and raise it.

    SQLAlchemy takes a commit that failed for the end of the transaction: its pool would hand out one that is open.

    Args:
        dialect: The engine's.
        target: What its `do_commit` or `do_commit_twophase` was given.
        phase: The rest of what the latter was given.
    """
    try:
        yield
    except Exception:
        try:
            if isinstance(target, Connection):
                dialect.do_rollback_twophase(target, *phase)
            else:
                dialect.do_rollback(target)
        except Exception as error:
            # It is broken, most likely: closed as soon as somebody asks the pool for it.
            proxied = proxied_of(target)
            if proxied is not None:
                proxied.invalidate(error, soft=True)
        raise
