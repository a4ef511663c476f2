"""MySQL and MariaDB: what a session is told so that its transactions are READ ONLY, and how they say they refused."""

from __future__ import annotations

import re
from typing import Any

# ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION; ER_OPTION_PREVENTS_STATEMENT (read_only); ER_READ_ONLY_MODE.
REFUSED = frozenset({1792, 1290, 1836})
# A right is missing: on a database, a table, a column, a routine, or one that is global.
DENIED = frozenset({1044, 1142, 1143, 1227, 1370})
# Too many connections, shutting down, killed; and the driver's own: can't connect, gone, lost.
_UNFIT = frozenset({1040, 1053, 1927, 2002, 2003, 2006, 2013, 2055})
# Bits of the status that comes with each answer.
_IN_TRANSACTION, _AUTOCOMMIT, _MORE_RESULTS = 0x1, 0x2, 0x8
# MariaDB's name and MySQL's; MariaDB has had both since 11.1.
_DEFAULTS = ("tx_read_only", "transaction_read_only")
_LIFTS_GUARD = re.compile(
    r"""\s*(
        (set\s+((session|local|@@session\s*\.)\s*)?transaction | start\s+transaction) \b.*\bread\s+write
        | xa\s+commit
        | set\b.*\b(tx|transaction)_read_only\s*:?=\s*'?(off|false|no|0|default)
    )\b""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


class MySQL:
    """The guard of MySQL and MariaDB, through PyMySQL and asyncmy: the session's default for new transactions.

    Their drivers can't say READ ONLY when a transaction begins: it begins unsaid, with its first statement. START
    TRANSACTION READ ONLY would be a round trip for each, and would not hold for what follows an implicit commit, or
    in autocommit. The session's default holds for all of these, and stays until the mode is over.
    """

    name = "mysql"
    lasting = True
    trial = "SELECT 1"

    def guard(self, connection: Any, memory: dict[str, Any]) -> None:
        """Make what this connection begins from now on read-only."""
        session = _session(connection)
        if memory.get("guarded") == session:
            return
        self._end_what_began(connection)
        memory["found"] = _default(connection)
        _rows(connection, "SET SESSION TRANSACTION READ ONLY")
        if _default(connection) != "ON":
            memory["problem"] = "the session's default did not hold: does something between hand statements to others?"
        # By the session, since a driver may connect anew without a word.
        memory["guarded"] = session

    def restore(self, connection: Any, memory: dict[str, Any]) -> bool:
        """Put back what `guard` found; True, since it can be done at any time."""
        if memory.get("guarded") is None:
            return True
        self._end_what_began(connection)
        if memory["found"] != "ON" and memory["guarded"] == _session(connection):
            _rows(connection, "SET SESSION TRANSACTION READ WRITE")
        memory.clear()
        return True

    def _end_what_began(self, connection: Any) -> None:
        # Somebody was faster (an event listener that ran SQL): the session's default does not change a transaction that
        # it has begun, neither to READ ONLY nor back.
        if not self.is_idle(connection):
            connection.rollback()

    def is_idle(self, connection: Any) -> bool:
        """Tell whether the driver knows that no transaction is open.

        PyMySQL does not look at the status that ends a row of rows, so outside of autocommit what has only read so far
        shows nowhere: there the connection must keep in mind (`readonly_asked`) whether it has sent anything.
        """
        status = _status(connection)
        if status & (_IN_TRANSACTION | _MORE_RESULTS) or _reads_still(connection):
            return False
        return bool(status & _AUTOCOMMIT) or getattr(connection, "readonly_asked", True) is False

    def softened(self, statement: str) -> str | None:
        """Return the statement, or None for one that would lift the guard: the server obeys it at any time.

        Nor does it refuse to commit what was prepared before, in whatever session.
        """
        return None if _LIFTS_GUARD.match(statement) else statement

    def is_refusal(self, error: BaseException) -> bool:
        """Tell whether a write was refused: in a READ ONLY transaction, or by a server that takes none."""
        return _code(error) in REFUSED

    def is_denied(self, error: BaseException) -> bool:
        """Tell whether a right is missing."""
        return _code(error) in DENIED

    def is_unfit(self, error: BaseException) -> bool:
        """Tell whether the server can't be read from now."""
        return _code(error) in _UNFIT

    def table(self, error: BaseException) -> str | None:
        """Return None: the server does not say."""
        return None

    def takes_no_writes(self, connection: Any) -> str:
        """Ask for what makes a server refuse everybody who may not overrule it."""
        return _refuses_everybody(connection)

    def was_told(self, connection: Any) -> str:
        """Ask on this very connection: a refused statement leaves it usable."""
        try:
            return _refuses_everybody(connection)
        except Exception:  # of a driver that is not known here: the connection is lost, and says nothing
            return ""

    def is_suspect(self, connection: Any) -> bool:
        """Return False: nothing is said when a session begins."""
        return False

    def prove(self, connection: Any) -> str:
        """Try to make a temporary table: refused in a READ ONLY transaction before any privilege is looked at."""
        try:
            _rows(connection, "CREATE TEMPORARY TABLE readonly_proof (x int)")
        except Exception as error:
            if _code(error) == 1792:
                return ""
            return f"a write failed, but not because it was read-only: {str(error).partition(chr(10))[0]}"
        _rows(connection, "DROP TEMPORARY TABLE readonly_proof")
        return "a write was not refused: is there a proxy between, or a driver that ignores the guard?"


def _refuses_everybody(connection: Any) -> str:
    names = ", ".join(f"'{name}'" for name in ("read_only", "innodb_read_only", *_DEFAULTS))
    settings = _rows(connection, f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")
    found = [f"{name} is {value}" for name, value in settings if str(value).upper() not in ("OFF", "0")]
    return " and ".join(found)


def _default(connection: Any) -> str:
    """Return the session's default for new transactions: ON if they are READ ONLY."""
    names = ", ".join(f"'{name}'" for name in _DEFAULTS)
    return str(_rows(connection, f"SHOW SESSION VARIABLES WHERE Variable_name IN ({names})")[0][1]).upper()


def _driver(connection: Any) -> Any:
    """Return the driver's own connection, where SQLAlchemy has adapted it (asyncmy)."""
    return getattr(connection, "driver_connection", connection)


def _session(connection: Any) -> object:
    return _driver(connection).thread_id()


def _status(connection: Any) -> int:
    return int(_driver(connection).server_status)


def _reads_still(connection: Any) -> bool:
    """Tell whether rows of an unbuffered cursor are still to come: the statement is over with the last of them."""
    return bool(getattr(getattr(connection, "_result", None), "unbuffered_active", False))


def _code(error: BaseException) -> int | None:
    if not any(kind.__name__ == "MySQLError" for kind in type(error).__mro__):
        return None
    return error.args[0] if error.args and isinstance(error.args[0], int) else None


def _rows(connection: Any, statement: str) -> list[Any]:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []
    finally:
        cursor.close()
