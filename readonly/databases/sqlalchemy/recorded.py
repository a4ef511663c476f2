"""Recorded: what an engine has written, by the word of its server; for tests. Two questions frame each statement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from sqlalchemy import Connection, Delete, Engine, Insert, Update, event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from readonly.databases import server_for
from readonly.databases.written import UNKNOWN, Word, word_of
from readonly.errors import ConfigurationError


class Told(Protocol):
    """Who is told; `readonly.testing.Witness` is one."""

    def saw(self) -> None:
        """A statement was sent, whatever it does."""

    def wrote(self, *, refused: bool, table: str | None = "", statement: str = "") -> None:
        """A write took place, or was refused as read-only."""

    def settling(self, settle: Callable[[], None]) -> None:
        """Before anybody reads what was told: call this."""


@contextmanager
def recorded(engine: Engine | AsyncEngine, witness: Told) -> Iterator[None]:
    """Tell a witness of every write on an engine, inside a with block; see `readonly.testing.recorded_writes`."""
    if isinstance(engine, AsyncEngine):
        engine = engine.sync_engine
    if not isinstance(engine, Engine):
        raise ConfigurationError(f"engine={engine!r} is no engine: pass what create_engine returned")
    kind = engine.dialect.name
    recorder = _Recorder(witness, word_of(kind), server_for(kind).is_refusal)
    listeners: dict[str, Callable[..., Any]] = {
        "before_cursor_execute": recorder.before,
        "after_cursor_execute": recorder.after,
        "handle_error": recorder.failed,
        "checkin": recorder.checkin,
    }
    for event_name, listener in listeners.items():
        event.listen(engine, event_name, listener)
    witness.settling(recorder.settle)
    try:
        yield
    finally:
        recorder.settle()
        for event_name, listener in listeners.items():
            event.remove(engine, event_name, listener)


class _Recorder:
    """The listeners of one engine."""

    def __init__(self, witness: Told, word: Word, is_refusal: Callable[[BaseException], bool]) -> None:
        self._witness = witness
        self._word = word
        self._is_refusal = is_refusal
        # What each connection said last, and after which statement.
        self._last: dict[int, tuple[Any, object, str, str]] = {}
        self._before: dict[int, object] = {}

    def before(
        self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        self._witness.saw()
        asked = connection.connection.dbapi_connection
        self._look(asked)
        self._before[id(asked)] = self._word.now(asked)

    def after(
        self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        asked = connection.connection.dbapi_connection
        before, after = self._before.pop(id(asked), UNKNOWN), self._word.now(asked)
        if UNKNOWN in (before, after):
            return
        # What SQLAlchemy knows to write has written, also where the transaction had its id already.
        known = bool(context is not None and (context.isinsert or context.isupdate or context.isdelete))
        if self._word.wrote(before, after, cursor) or (known and cursor.rowcount != 0):
            self._witness.wrote(refused=False, table=_table(context), statement=statement)
        else:
            self._last[id(asked)] = (asked, self._word.late(asked), _table(context), statement)

    def failed(self, context: ExceptionContext) -> None:
        if self._is_refusal(context.original_exception):
            table = _table(context.execution_context)
            self._witness.wrote(refused=True, table=table, statement=context.statement or "a raw connection")

    def checkin(self, connection: Any, _entry: ConnectionPoolEntry) -> None:
        self._look(connection)

    def settle(self) -> None:
        """Look whether a statement has written after all, when its rows were fetched."""
        for asked, *_ in list(self._last.values()):
            self._look(asked)

    def _look(self, asked: Any) -> None:
        _, before, table, statement = self._last.pop(id(asked), (None, UNKNOWN, "", ""))
        after = UNKNOWN if before is UNKNOWN else self._word.late(asked)
        if after is not UNKNOWN and after != before:
            self._witness.wrote(refused=False, table=table, statement=statement)


def _table(context: Any) -> str:
    """Return the table of a statement that SQLAlchemy compiled, else "": SQL text is not looked into."""
    statement = getattr(getattr(context, "compiled", None), "statement", None)
    if isinstance(statement, (Insert, Update, Delete)):
        return str(getattr(statement.table, "name", ""))
    return ""
