"""Whether a connection has written, by the word of its server: what is asked before and after a statement, in tests.

On PostgreSQL a transaction has an id once it has written, and outside of one the next id moves on; on SQLite a
connection counts the rows that it has changed, and the file counts its schemas. SQL text is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from readonly.errors import ConfigurationError

Word = Callable[[Any], object]

UNKNOWN: Final = object()
"""The server did not say."""


def word_of(server: str) -> Word:
    """Return what asks a server's connections; two answers that differ say that something was written in between.

    Args:
        server: `postgresql` or `sqlite`. What is returned takes a PEP 249 connection, and gives `UNKNOWN` where the
            connection takes no question.

    Raises:
        ConfigurationError: There is no way to ask such a server.
    """
    if server not in _WORDS:
        raise ConfigurationError(f"a {server} server can't be asked what has written; {' and '.join(_WORDS)} can")
    ask = _WORDS[server]

    def word(connection: Any) -> object:
        try:
            return ask(connection)
        except Exception:
            # A transaction that has failed takes no question, and nothing can be written in it either.
            return UNKNOWN

    return word


def _postgresql(connection: Any) -> object:
    # Others of the same server move the next id as well: it is asked only where there is no transaction (autocommit).
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


_WORDS: Final[dict[str, Word]] = {"postgresql": _postgresql, "sqlite": _sqlite}
