"""Database: guards the engines of an application, takes its transactions into the drain, and routes its reads.

Sync and async engines alike: SQLAlchemy runs the same hooks for both.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from weakref import WeakSet

from sqlalchemy import Delete, Dialect, Engine, Insert, PoolProxiedConnection, Update
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from readonly.context import current
from readonly.databases import Pooler, server_behind, server_for, way_to
from readonly.databases.admission import Admission, proving
from readonly.databases.detection import LOOK_SECONDS, Detection, look
from readonly.databases.replicas import LAG_SECONDS, Need, Replica, Replicas, Schema, schema_of
from readonly.errors import ConfigurationError, NoFitReplica, ReadOnlyError
from readonly.state import State
from readonly.switch import Switch

from ._discard import Discards
from ._dropping import Dropping
from ._engines import checked_engine, checked_replicas, sqlite_path
from ._hooks import Hooks
from ._proof import prove, takes_no_writes
from ._recent import Noting
from ._rehearsal import Rehearsed
from ._replicas import Watched
from ._routing import Routing, S

__all__ = ["Database"]

PROOF_SECONDS = 10.0
# A session that says so of itself only reads: `sessionmaker(info={"reads": True})`.
READS = "reads"

# All engines made from one with other options share its dialect.
_guarded_dialects: WeakSet[Dialect] = WeakSet()


class Database:
    """Guards a primary and its replicas from now on, until `close`.

    While read-only every new transaction on the primary is READ ONLY at the server, but for work that may write (a
    bypass, a request that was admitted before the switch). While writable, each transaction is counted, so that `on`
    waits for it; so is a connection that was checked out raw (`engine.raw_connection()`), as a whole. A refused write
    is a `ReadOnlyError`, judged by the server's code alone.

    Attributes:
        name: Its name in reports and errors.

    Args:
        primary: The engine that writes go to.
        switch: The process's switch.
        replicas: Engines that reads may go to while read-only, in sessions of classes made by `routing`. A replica is
            read only once it has everything that was written before. PostgreSQL and MariaDB are asked, in the
            background; an SQLite file says so itself (`readonly.databases.sqlite.copy_to_replica`); of any other, and
            over what a server says, see `reached`.
        discard: Incidental writes that are dropped while read-only: `"page_view"` drops every INSERT, UPDATE and
            DELETE on that table, `"user.last_seen"` an UPDATE that changes nothing else. Only what the ORM and Core
            know is judged; SQL text is refused like any other write. A dropped INSERT returns no key: the object
            stays without one, and is no longer in its session.
        always: Let sessions that only read (`info={"reads": True}`) go to a fit replica while writable, too.
        schema: How to ask a database for its schema version, and which one this process's code was written for:
            `readonly.databases.replicas.alembic("alembic.ini")`, `query("SELECT …", expected="42")`, or just
            `"alembic"`, `"django"` or a SELECT. A replica with another version is not read from. Where the wanted one
            is not known, it is the primary's, and for a frozen replica the one that was there at the fence.
        max_lag: Seconds that a replica may be behind where no position says what must be there.
        none_fit: With no fit replica read from the `"primary"`, or `"refuse"` with `NoFitReplica`.
        pooler: What stands before a PostgreSQL: `"transaction"` (PgBouncer's transaction mode: autocommit can't be
            guarded there, and `status` says so), `"session"` (a pool in which each client has a server's session of
            its own). Not declared, it is looked for, and what is found counts as the former, and as a problem where
            autocommit is used.
        name: A name that no other Database of this switch has.

    Raises:
        ConfigurationError: An argument can't be right; the message names it.
    """

    def __init__(
        self,
        primary: Engine | AsyncEngine,
        switch: Switch,
        *,
        replicas: Sequence[Engine | AsyncEngine] = (),
        discard: Sequence[str] = (),
        always: bool = False,
        schema: Schema | str | None = None,
        max_lag: float = LAG_SECONDS,
        none_fit: Literal["primary", "refuse"] = "primary",
        pooler: Pooler | None = None,
        name: str = "main",
    ) -> None:
        self.name = name
        if none_fit not in ("primary", "refuse"):
            raise ConfigurationError(f"none_fit={none_fit!r} is not a choice: write 'primary' or 'refuse'")
        if not max_lag > 0:
            raise ConfigurationError(f"max_lag={max_lag!r} is no number of seconds: write a number above 0")
        self._none_fit = none_fit
        self._switch = switch
        self._always = always
        self._async = isinstance(primary, AsyncEngine)
        self._admission = Admission(switch, name, admit=self._ask if self._async else None)
        self._engine = checked_engine("primary", primary)
        self._server = server_behind(self._engine.dialect.name, pooler)
        targets = checked_replicas(primary, replicas)
        self._discards = Discards(discard)
        for engine in (self._engine, *targets):
            if engine.dialect in _guarded_dialects:
                raise ConfigurationError(
                    f"{engine!r} is guarded already: one engine belongs to one Database; close() the other first"
                )
        _guarded_dialects.update(e.dialect for e in (self._engine, *targets))
        self._detection = Detection(switch, name, self._look)
        self._watched = Watched(
            name,
            switch,
            self._engine,
            targets,
            path_of=sqlite_path,
            schema=schema_of(schema),
            always=always,
            lag=max_lag,
        )
        self._replicas: Replicas[Engine] = self._watched.all
        self._hooks = Hooks(
            self._engine,
            self._server,
            admission=self._admission,
            is_open=self._is_open,
            failed=self._primary_failed,
            lifts=self._lifts,
            detection=self._detection,
        )
        self._replica_hooks = [self._hook_replica(r) for r in self._replicas.all]
        # Before the routing's own hooks: what is dropped must be gone when a replica's session is asked for writes.
        self._dropping = Dropping(self._discards, self._engine, self._hooks, targets) if self._discards else None
        self._routing = Routing(
            self._engine,
            self._replicas.all,
            need=self._need,
            choose=self._choose,
            works=self._works,
            refuse=self._refused_on_replica,
        )
        self._noting = Noting(self._engine, name, lambda: self._watched.watch.system) if always and targets else None
        self._rehearsed = Rehearsed(self._engine, switch, name=name, server=self._server.name, discards=self._discards)
        self._closed = False
        self._in_proof = threading.Lock()
        try:
            switch.add_guard(self)  # from now on it may be asked for a proof
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Database {self.name} {self._engine.url!r}>"

    def routing(self, session_class: type[S]) -> type[S]:
        """Return a session class like that one, whose transactions read from a replica while read-only.

        For `sessionmaker(class_=)`, and for `async_sessionmaker(sync_session_class=)`. Where a transaction goes is
        chosen when it is created, and holds for it. A flush in one that reads from a replica raises `ReadOnlyError`.
        Binds other than this database's primary, and a `bind` given with a call, are left alone.
        """
        return self._routing.routed(session_class)

    def reached(self, replica: int | Engine | AsyncEngine, epoch: int) -> None:
        """Declare that a replica holds everything that was committed before an epoch's change was confirmed.

        Args:
            replica: Its place in `replicas`, or the engine itself.
            epoch: The epoch of an `on` whose writes have drained, or (`always`) of the last `off`.

        Raises:
            ConfigurationError: There is no such replica.
        """
        if isinstance(replica, int):
            if not 0 <= replica < len(self._replicas.all):
                raise ConfigurationError(
                    f"replica={replica} is not there: {self.name} has {len(self._replicas.all)} replicas"
                )
            self._replicas.all[replica].reached(epoch)
            return
        engine = replica.sync_engine if isinstance(replica, AsyncEngine) else replica
        for known in self._replicas.all:
            if known.target is engine:
                known.reached(epoch)
                return
        raise ConfigurationError(f"replica={replica!r} is none of the replicas of {self.name}")

    def close(self) -> None:
        """Remove all hooks; the engines are as they were before, and sessions go to the primary.

        Call it when nobody uses the engines: SQLAlchemy's lists of listeners must not change while they are run.
        """
        if self._closed:
            return
        self._closed = True
        self._routing.closed = True
        self._switch.remove_guard(self)
        self._watched.close()
        self._rehearsed.close()
        self._detection.close()
        if self._in_proof.acquire(timeout=PROOF_SECONDS):
            self._in_proof.release()
        if self._noting is not None:
            self._noting.remove()
        if self._dropping is not None:
            self._dropping.remove()
        for replica in self._replicas.all:
            del vars(replica.target)["raw_connection"]  # the class's method shows again
        for hooks in (self._hooks, *self._replica_hooks):
            hooks.remove()
            _guarded_dialects.discard(hooks.engine.dialect)

    # --- what the switch asks ----------------------------------------------------------------------------------------

    def prove(self) -> str:
        """Try a harmless write, through the hooks, on a connection of its own; it must be refused.

        Returns:
            "" if it was refused, else what is wrong. Called by the switch's thread when the site turned read-only.
        """
        with self._in_proof:
            if self._closed:
                return "the guard was closed"
            try:
                with proving():
                    if not self._async:
                        return prove(self._engine, self._server, self._hooks)
                    # A loop of its own: connections of the application's pools belong to the application's loop.
                    tried = greenlet_spawn(prove, self._engine, self._server, self._hooks)
                    return asyncio.run(asyncio.wait_for(tried, PROOF_SECONDS))
            except Exception as error:
                return f"the guard could not be tried: {type(error).__name__}: {str(error).partition(chr(10))[0]}"

    def describe(self) -> Mapping[str, Any]:
        """Return which server, database and user it writes to, without secrets."""
        url = self._engine.url
        database = url.database
        if self._server.name == "sqlite" and database and database != ":memory:":
            database = str(sqlite_path(self._engine) or database)
        found = {
            "server": self._server.name,
            "driver": self._engine.dialect.driver,
            "host": url.host,
            "port": url.port,
            "database": database,
            "user": url.username,
        }
        said = {key: value for key, value in found.items() if value is not None}
        return {**said, **way_to(self._server), **self._watched.watch.describe()}

    def _look(self) -> str:
        """Return why the primary takes no writes, or ""; in a thread of its own, on a connection of its own."""
        with look():
            if not self._async:
                return takes_no_writes(self._engine, self._server)
            asked = greenlet_spawn(takes_no_writes, self._engine, self._server)
            return asyncio.run(asyncio.wait_for(asked, LOOK_SECONDS))

    # --- what the hooks ask ------------------------------------------------------------------------------------------

    def _is_open(self) -> bool:
        return self._switch.view.open

    def _ask(self) -> State | None:
        switch = self._switch
        if not switch.view.open and in_greenlet():
            # A look at the store may take its time: not on the event loop.
            state: State | None = await_only(switch.aadmit())
            return state
        return switch.admit()

    def _primary_failed(self, context: ExceptionContext, guarded: bool) -> BaseException | None:
        error = context.original_exception
        # Who is let through, or had begun before, has no guard in the way: only the fence.
        fenced = self._server.is_denied(error) and self._admission.is_fenced()
        if not (fenced or self._server.is_refusal(error)):
            return None
        if not fenced and not guarded and self._switch.view.writable:
            # The application's own read-only transaction, or the database's own doing.
            self._detection.suspect()
            connection = _dbapi_connection(context)
            if connection is None or not self._server.was_told(connection):
                return None
            # It may be the old primary: whoever connects anew may find the new one. A file does not move.
            context.is_disconnect = self._server.name != "sqlite"
        return self._refusal(
            f"database {self.name!r} refused a write: {str(error).partition(chr(10))[0]}",
            table=_table(context) or self._server.table(error),
        )

    def _hook_replica(self, replica: Replica[Engine]) -> Hooks:
        server = server_for(replica.target.dialect.name)

        def failed(context: ExceptionContext, guarded: bool) -> BaseException | None:
            error = context.original_exception
            if server.is_refusal(error):
                return self._refusal(
                    f"database {self.name!r}: a write reached a replica: {str(error).partition(chr(10))[0]}",
                    table=_table(context) or server.table(error),
                )
            if context.is_disconnect or server.is_unfit(error):
                replica.failed()
            return None

        # Drivers raise errors of their own, and of the system, when they can't connect: no event tells of those.
        connect = replica.target.raw_connection

        def raw_connection() -> PoolProxiedConnection:
            try:
                return connect()
            except PoolTimeout:
                raise  # the pool is busy; that is no fault of the replica
            except Exception:
                replica.failed()
                raise

        vars(replica.target)["raw_connection"] = raw_connection
        return Hooks(
            replica.target,
            server,
            admission=Admission(self._switch, self.name, never=True),
            is_open=lambda: False,
            failed=failed,
            lifts=self._lifts,
        )

    def _lifts(self, statement: str) -> ReadOnlyError:
        return self._refusal(
            f"database {self.name!r}: {statement!r} would lift the guard, or commit what was prepared before"
        )

    def _refusal(self, reason: str, *, table: str | None = None) -> ReadOnlyError:
        return self._admission.refusal(reason, kind=ReadOnlyError, table=table)

    # --- routing -----------------------------------------------------------------------------------------------------

    def _need(self, session: Session) -> Need | None:
        """Return what a transaction of this session needs of a replica if it begins now; None: the primary."""
        if not self._replicas:
            return None
        work = current(self._switch)
        if work is not None and work.may_write:
            return None
        if not self._switch.state.read_only and not session.info.get(READS):
            return None
        return self._watched.watch.need()

    def _choose(
        self, need: Need | None, before: Replica[Engine] | None, besides: Sequence[Replica[Engine]] = ()
    ) -> Replica[Engine] | None:
        """Return where a transaction reads that needs this; None: the primary.

        Args:
            need: What it needs.
            before: What its session read from before.
            besides: Those that have let it down.
        """
        if need is None:
            return None
        work = current(self._switch)
        if work is not None:  # one request reads from one replica, whatever reads in it
            pinned = (work.reads_from or {}).get(self)
            before = pinned if isinstance(pinned, Replica) else None
        found = self._replicas.choose(need, before=before, besides=besides)
        if found is None:
            if self._none_fit == "primary":
                return None
            whys = "; ".join(f"{r.name} {r.why_unfit(need) or 'failed just now'}" for r in self._replicas.all)
            raise NoFitReplica(
                f"database {self.name!r}: no replica can be read from ({whys}), and none_fit='refuse' keeps reads off "
                "the primary"
            )
        if work is not None:
            work.reads_from = {**(work.reads_from or {}), self: found}
        return found

    def _works(self, replica: Replica[Engine]) -> bool:
        """Try a replica that had failed, before a request is sent there again."""
        try:
            with replica.target.connect() as connection:
                connection.exec_driver_sql(self._server.trial)
        except Exception:
            replica.failed()
            return False
        replica.works()
        return True

    def _refused_on_replica(self) -> ReadOnlyError:
        return self._refusal(f"database {self.name!r}: this session's transaction reads from a replica and can't write")


def _dbapi_connection(context: ExceptionContext) -> Any:
    connection = context.connection
    if connection is None or connection.closed or connection.invalidated:
        return None
    return connection.connection.dbapi_connection


def _table(context: ExceptionContext) -> str | None:
    """Return the table of the statement, where it is one that SQLAlchemy compiled."""
    statement = getattr(getattr(context.execution_context, "compiled", None), "statement", None)
    if isinstance(statement, (Insert, Update, Delete)):
        name = getattr(statement.table, "name", None)
        return name if isinstance(name, str) else None
    return None
