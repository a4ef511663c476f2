"""What is hooked into one engine: each connection's transactions are counted, or begin read-only."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, PoolProxiedConnection, event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

from readonly.context import current
from readonly.databases import Server
from readonly.inflight import InFlight

logger = logging.getLogger("readonly")

# Called when a transaction (or a raw check-out) begins: True if it may write, and then it must stay counted.
MayWrite = Callable[[], bool]


# The four letters that nearly every statement begins with; none of them is transaction control.
_HARMLESS = frozenset({"SELE", "INSE", "UPDA", "DELE", "WITH"})


class Held:
    """What is known of one DBAPI connection.

    Attributes:
        guarded: It was told to refuse writes, and not told otherwise since.
        memory: What the server's module found there.
        transaction: Key of the transaction in flight that may write, else None.
        raw: Key of a check-out that no `Connection` has taken over: it may begin anything at any time.
    """

    __slots__ = ("guarded", "memory", "raw", "transaction")

    def __init__(self) -> None:
        self.guarded = False
        self.memory: dict[str, Any] = {}
        self.transaction: object | None = None
        self.raw: object | None = None


class Hooks:
    """The guard on one engine, until `remove`.

    The end of a transaction is taken from the dialect's own methods, and not from the events: those fire before the
    COMMIT is sent, and a drain that trusted them would call a commit over that is still under way.

    A transaction whose COMMIT failed with the connection (nobody knows what became of it) stays counted until that
    connection is closed, which the pool does at once. The server may still commit it a moment later; only a fence
    rules that out.

    Args:
        engine: The engine.
        server: What its database is told.
        inflight: Where transactions are counted; None for a replica: there nothing may ever write.
        admit: Decides, after the count, whether a transaction may write.
        failed: Turns a driver's error into ours, or returns None.
        lifts: Makes the error for a statement that would lift the guard.
    """

    def __init__(
        self,
        engine: Engine,
        server: Server,
        *,
        inflight: InFlight | None,
        admit: MayWrite,
        failed: Callable[[ExceptionContext, bool], BaseException | None],
        lifts: Callable[[str], BaseException],
    ) -> None:
        self.engine = engine
        self.server = server
        self._inflight = inflight
        self._admit = admit
        self._failed = failed
        self._lifts = lifts
        self._key = ("readonly", id(self))
        self._leaving: dict[int, Held] = {}
        self._counted: set[Held] = set()
        self._touched: dict[int, ConnectionPoolEntry] = {}
        self._removed = False
        self._listeners: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
            ("checkout", self._checkout, {}),
            ("checkin", self._checkin, {}),
            ("reset", self._reset, {}),
            ("detach", self._detach, {}),
            ("close", self._close, {}),
            ("engine_connect", self._engine_connect, {}),
            # First of all: a listener of the application may send SQL, and that begins the driver's transaction.
            ("begin", self._begin, {"insert": True}),
            ("begin_twophase", self._begin_twophase, {"insert": True}),
            ("handle_error", self._handle_error, {}),
            ("before_cursor_execute", self._soften, {"retval": True}),
        ]
        for name, listener, options in self._listeners:
            event.listen(engine, name, listener, **options)
        self._wrapped = tuple(
            self._wrap(name) for name in ("do_commit", "do_rollback", "do_commit_twophase", "do_rollback_twophase")
        ) + tuple(self._wrap_closing(name) for name in ("do_close", "do_terminate"))

    def remove(self) -> None:
        """Take everything off the engine again."""
        self._removed = True
        for name, listener, _ in self._listeners:
            event.remove(self.engine, name, listener)
        for name, found in self._wrapped:
            if found is None:
                del self.engine.dialect.__dict__[name]  # the class's method shows again
            else:
                setattr(self.engine.dialect, name, found)
        for held in list(self._counted):
            self._end(held)
        for entry in list(self._touched.values()):
            # In use elsewhere right now: it must not come back to the pool as it is.
            entry.invalidate(soft=True)
        self._touched.clear()

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
            found = info[self._key] = Held()
        return found

    def begin(self, proxied: PoolProxiedConnection) -> None:
        """A transaction begins on this connection: count it, or make it read-only."""
        held = self.held(proxied)
        if held is None:
            return
        self._end_transaction(held)
        key = self._count(held, "transaction")
        self._end_raw(held)  # only now: what may write is counted at every moment
        self._tell(proxied.dbapi_connection, held, read_only=key is None)

    # --- counting ----------------------------------------------------------------------------------------------------

    def _count(self, held: Held, what: str) -> object | None:
        """Count, look, and stay counted or not."""
        if self._inflight is None:
            return None
        work = current()
        # Part of work that was admitted: it may begin though the process is closed, and is drained as well.
        key = self._inflight.begin(part=work is not None and work.may_write)
        try:
            admitted = self._admit()
        except BaseException:
            self._inflight.end(key)
            raise
        if not admitted:
            self._inflight.end(key)
            return None
        setattr(held, what, key)
        self._counted.add(held)
        return key

    def _end_transaction(self, held: Held) -> None:
        key, held.transaction = held.transaction, None
        if key is not None and self._inflight is not None:
            self._inflight.end(key)
            if held.raw is None:
                self._counted.discard(held)

    def _end_raw(self, held: Held) -> None:
        key, held.raw = held.raw, None
        if key is not None and self._inflight is not None:
            self._inflight.end(key)
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
            self.server.restore(connection, held.memory)
            held.guarded = False

    # --- events of the pool ------------------------------------------------------------------------------------------

    def _checkout(self, connection: Any, entry: ConnectionPoolEntry, proxied: PoolProxiedConnection) -> None:
        """Somebody takes a connection, and may use it raw: count the check-out, or guard all that comes."""
        held = self.held(proxied)
        if held is None:  # pragma: no cover - a check-out always has an info
            return
        self._end(held)
        key = self._count(held, "raw")
        self._touched[id(entry)] = entry
        self._tell(connection, held, read_only=key is None)

    def _engine_connect(self, connection: Connection) -> None:
        """It was not raw: its transactions will be counted one by one."""
        held = self.held(connection.connection)
        if held is not None:
            self._end_raw(held)

    def _checkin(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        held = entry.info.get(self._key)
        self._touched.pop(id(entry), None)
        if not isinstance(held, Held):
            return
        try:
            if held.guarded and connection is not None:
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
            self._touched.pop(id(entry), None)
        if held is not None:
            self._end(held)

    def _detach(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        held = entry.info.get(self._key)
        self._touched.pop(id(entry), None)
        if isinstance(held, Held):
            self._leaving[id(connection)] = held

    def _close(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        self._detach(connection, entry)

    # --- events of the engine ----------------------------------------------------------------------------------------

    def _begin(self, connection: Connection) -> None:
        self.begin(connection.connection)

    def _begin_twophase(self, connection: Connection, xid: object) -> None:
        self.begin(connection.connection)

    def _soften(
        self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> tuple[str, Any]:
        if statement[:4].upper() not in _HARMLESS:
            held = self.held(connection.connection)
            if held is not None and held.guarded:
                softened = self.server.softened(statement)
                if softened is None:
                    raise self._lifts(statement)
                statement = softened
        return statement, parameters

    def _handle_error(self, context: ExceptionContext) -> BaseException | None:
        guarded = False
        connection = context.connection
        if connection is not None and not connection.closed and not connection.invalidated:
            held = self.held(connection.connection)
            guarded = held is not None and held.guarded
        return self._failed(context, guarded)

    # --- methods of the dialect --------------------------------------------------------------------------------------

    def _wrap(self, name: str) -> tuple[str, Any]:
        """Have a transaction end when the method that ends it has returned, or the driver says that it is over."""
        dialect = self.engine.dialect
        original = getattr(dialect, name)

        def ended(target: Any, *args: Any, **kwargs: Any) -> Any:
            # Two-phase methods are given the Connection, the others what the pool handed out.
            proxied = target.connection if isinstance(target, Connection) else target
            held = self.held(proxied) if isinstance(proxied, PoolProxiedConnection) else None
            try:
                result = original(target, *args, **kwargs)
            except BaseException:
                if held is not None and self.server.is_idle(proxied.dbapi_connection):
                    self._end_transaction(held)
                raise
            if held is not None:
                self._end_transaction(held)
            return result

        found = dialect.__dict__.get(name)
        setattr(dialect, name, ended)
        return name, found

    def _wrap_closing(self, name: str) -> tuple[str, Any]:
        dialect = self.engine.dialect
        original = getattr(dialect, name)

        def closed(connection: Any) -> Any:
            try:
                return original(connection)
            finally:
                held = self._leaving.pop(id(connection), None)
                if held is not None:
                    self._end(held)

        found = dialect.__dict__.get(name)
        setattr(dialect, name, closed)
        return name, found
