"""Whether a connection has written, by the word of its server: what is asked before and after a statement, in tests.

On PostgreSQL a transaction has an id once it has written. Outside of one the next id moves on, which others of the same
server move as well: there the server's tag of the statement (`INSERT 0 1`) must say so, too. On SQLite a connection
counts the rows that it has changed, and the file counts its schemas. SQL text is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from readonly.errors import ConfigurationError

UNKNOWN: Final = object()
"""The server did not say."""


# Tags of statements that may write nothing themselves; a function that they call may.
_READ_TAGS: Final = frozenset({"SELECT", "SHOW", "FETCH", "BEGIN", "COMMIT", "ROLLBACK", "SET", "RESET", "DISCARD"})


@dataclass(frozen=True, slots=True)
class Word:
    """How a server's connections are asked. What is asked takes a PEP 249 connection.

    Attributes:
        now: Asked before and after a statement; `UNKNOWN` where the connection takes no question.
        late: Asked any time later, by any thread, since some writes are only done when their rows have been fetched
            (SQLite, RETURNING): another answer than before says that something was written. It sends nothing.
        tells: Takes both answers of `now` and the statement's cursor: do they say that it has written?
    """

    now: Callable[[Any], object]
    late: Callable[[Any], object]
    tells: Callable[[Any, Any, Any], bool]

    def wrote(self, before: object, after: object, cursor: Any) -> bool:
        """Return whether a statement has written, by the answers before and after it."""
        return UNKNOWN not in (before, after) and before != after and self.tells(before, after, cursor)


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
    row = _row(connection, "SELECT txid_current_if_assigned(), txid_snapshot_xmax(txid_current_snapshot())")
    return ("next", row[1]) if getattr(connection, "autocommit", False) else ("own", row[0])


def _tells(before: tuple[str, object], after: tuple[str, object], cursor: Any) -> bool:
    if "next" not in (before[0], after[0]):
        return True
    tag = getattr(cursor, "statusmessage", None)
    # A driver that keeps the tag to itself (asyncpg, below SQLAlchemy) shows at least whether there are rows.
    return str(tag).partition(" ")[0] not in _READ_TAGS if tag else getattr(cursor, "description", None) is None


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
    "postgresql": Word(_careful(_postgresql), lambda _connection: UNKNOWN, _tells),
    "sqlite": Word(_careful(_sqlite), _careful(_changes), lambda _before, _after, _cursor: True),
}
