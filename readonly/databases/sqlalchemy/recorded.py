"""Recorded: what an engine has written, by the word of its server; for tests.

Each statement is framed by two questions. On PostgreSQL a transaction has an id once it has written, and the id of the
next one moves on; on SQLite a connection counts the rows that it changed, and the file counts its schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Delete, Engine, Insert, Update, event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine

from readonly.databases import server_for
from readonly.errors import ConfigurationError

Word = Callable[[Any], object]
_UNKNOWN: Final = object()


class Told(Protocol):
    """Who is told; `readonly.testing.Witness` is one."""

    def saw(self) -> None:
        """A statement was sent, whatever it does."""

    def wrote(self, *, refused: bool, table: str | None = "", statement: str = "") -> None:
        """A write took place, or was refused as read-only."""


def _postgresql(connection: Any) -> object:
    # The id of this transaction, if it has written; outside of one (autocommit) the first id that is not given out yet,
    # which others of the same server move as well.
    assigned, ahead = _row(connection, "SELECT txid_current_if_assigned(), txid_snapshot_xmax(txid_current_snapshot())")
    return ahead if getattr(connection, "autocommit", False) else assigned


def _sqlite(connection: Any) -> object:
    # aiosqlite, as SQLAlchemy adapts it, keeps the driver's connection inside.
    driver = getattr(connection, "driver_connection", connection)
    return driver.total_changes, *_row(connection, "PRAGMA schema_version")


def _row(connection: Any, statement: str) -> tuple[Any, ...]:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        return tuple(cursor.fetchone())
    finally:
        cursor.close()


_WORDS: dict[str, Word] = {"postgresql": _postgresql, "sqlite": _sqlite}


@contextmanager
def recorded(engine: Engine | AsyncEngine, witness: Told) -> Iterator[None]:
    """Tell a witness of every write on an engine, inside a with block; see `readonly.testing.recorded_writes`."""
    if isinstance(engine, AsyncEngine):
        engine = engine.sync_engine
    if not isinstance(engine, Engine):
        raise ConfigurationError(f"engine={engine!r} is no engine: pass what create_engine returned")
    kind = engine.dialect.name
    if kind not in _WORDS:
        raise ConfigurationError(
            f"engine={engine!r}: a {kind} server can't be asked what has written; {' and '.join(_WORDS)} can"
        )
    recorder = _Recorder(witness, _WORDS[kind], server_for(kind).is_refusal)
    listeners: dict[str, Callable[..., Any]] = {
        "before_cursor_execute": recorder.before,
        "after_cursor_execute": recorder.after,
        "handle_error": recorder.failed,
    }
    for event_name, listener in listeners.items():
        event.listen(engine, event_name, listener)
    try:
        yield
    finally:
        for event_name, listener in listeners.items():
            event.remove(engine, event_name, listener)


class _Recorder:
    """The listeners of one engine."""

    def __init__(self, witness: Told, word: Word, is_refusal: Callable[[BaseException], bool]) -> None:
        self._witness = witness
        self._word = word
        self._is_refusal = is_refusal
        self._key = ("readonly.recorded", id(self))

    def before(
        self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        self._witness.saw()
        connection.info[self._key] = self._ask(connection)

    def after(
        self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        before, after = connection.info.pop(self._key, _UNKNOWN), self._ask(connection)
        if before is _UNKNOWN or after is _UNKNOWN:
            return
        # What SQLAlchemy knows to write has written, also where the transaction had its id already.
        known = bool(context is not None and (context.isinsert or context.isupdate or context.isdelete))
        if after != before or (known and cursor.rowcount != 0):
            self._witness.wrote(refused=False, table=_table(context), statement=statement)

    def failed(self, context: ExceptionContext) -> None:
        if self._is_refusal(context.original_exception):
            table = _table(context.execution_context)
            self._witness.wrote(refused=True, table=table, statement=context.statement or "a raw connection")

    def _ask(self, connection: Connection) -> object:
        try:
            return self._word(connection.connection.dbapi_connection)
        except Exception:
            # A transaction that has failed takes no question, and nothing can be written in it either.
            return _UNKNOWN


def _table(context: Any) -> str:
    """Return the table of a statement that SQLAlchemy compiled, else "": SQL text is not looked into."""
    statement = getattr(getattr(context, "compiled", None), "statement", None)
    if isinstance(statement, (Insert, Update, Delete)):
        return str(getattr(statement.table, "name", ""))
    return ""
