"""Whether a connection has written, by the word of its server: what is asked before and after a statement, in tests.

On PostgreSQL a transaction has an id once it has written, and outside of one the next id moves on; on SQLite a
connection counts the rows that it has changed, and the file counts its schemas. SQL text is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from readonly.errors import ConfigurationError

UNKNOWN: Final = object()
"""The server did not say."""


@dataclass(frozen=True, slots=True)
class Word:
    """How a server's connections are asked; two answers that differ say that something was written in between.

    Both take a PEP 249 connection, and give `UNKNOWN` where it takes no question.

    Attributes:
        now: Asked before and after a statement.
        late: Asked any time later, by any thread, since some writes are only done when their rows have been fetched
            (SQLite, RETURNING); it sends nothing to the server.
    """

    now: Callable[[Any], object]
    late: Callable[[Any], object]


def word_of(server: str) -> Word:
    """Return how to ask a server's connections.

    Args:
        server: `postgresql` or `sqlite`.

    Raises:
        ConfigurationError: There is no way to ask such a server.
    """
    if server not in _WORDS:
        raise ConfigurationError(f"a {server} server can't be asked what has written; {' and '.join(_WORDS)} can")
    return _WORDS[server]


def _careful(ask: Callable[[Any], object]) -> Callable[[Any], object]:
    def asked(connection: Any) -> object:
        try:
            return ask(connection)
        except Exception:
            # A transaction that has failed takes no question, and nothing can be written in it either.
            return UNKNOWN

    return asked


def _postgresql(connection: Any) -> object:
    # Others of the same server move the next id as well: it is asked only where there is no transaction (autocommit).
    assigned, ahead = _row(connection, "SELECT txid_current_if_assigned(), txid_snapshot_xmax(txid_current_snapshot())")
    return ahead if getattr(connection, "autocommit", False) else assigned


def _sqlite(connection: Any) -> object:
    return _changes(connection), *_row(connection, "PRAGMA schema_version")


def _changes(connection: Any) -> object:
    # aiosqlite, as SQLAlchemy adapts it, keeps the driver's connection inside.
    return getattr(connection, "driver_connection", connection).total_changes


def _row(connection: Any, statement: str) -> tuple[Any, ...]:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        return tuple(cursor.fetchone())
    finally:
        cursor.close()


_WORDS: Final = {
    "postgresql": Word(_careful(_postgresql), lambda _connection: UNKNOWN),
    "sqlite": Word(_careful(_sqlite), _careful(_changes)),
}
