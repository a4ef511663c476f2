"""PostgreSQL: what it is told so that a connection's transactions are READ ONLY, and how it says that it refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Literal

REFUSED = "25006"  # read_only_sql_transaction
DENIED = "42501"  # insufficient_privilege
# The server is not there, is going, is coming, or takes no more connections; not: a query that failed.
_UNFIT_STATES = frozenset({"57P01", "57P02", "57P03", "53300"})
_UNFIT_CLASS = "08"
_SETTING = "default_transaction_read_only"
_STANDBY = "the server is a standby, in recovery"
# What may stand between: whose clients share the server's sessions from one transaction to the next, or have one each.
Pooler = Literal["transaction", "session"]
POOLERS: Final = ("transaction", "session")
UNGUARDED: Final = "autocommit, behind a pooler in transaction mode"
_FOUND: Final = (
    "it can't be guarded: something stands between this process and the server (a pooler, such as PgBouncer), and what "
    "is set for a session there may reach other clients, so nothing was set. Let what writes run in transactions and "
    "say so (pooler='transaction'), or connect to a pool in session mode and say that (pooler='session')"
)
_MOVED: Final = (
    "the session default of an autocommit connection did not hold: is pooler='session' true, or do clients share "
    "the server's sessions there?"
)
_LIFTS_GUARD = re.compile(
    r"""\s*(
        (set\s+((session\s+characteristics\s+as|local|session)\s+)?transaction | begin | start\s+transaction)
            \b.*\bread\s+write
        | set\s+((local|session)\s+)?(default_)?transaction_read_only\s*(=|\bto\b)\s*'?(off|false|no|0|default)
        | reset\s+((default_)?transaction_read_only|all)
        | discard\s+all
        | commit\s+prepared
    )\b""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


class PostgreSQL:
    """The guard of PostgreSQL, through psycopg 3, asyncpg (as SQLAlchemy adapts it), or whatever can run SQL.

    In a transaction: the driver's own read-only transaction, so that the BEGIN carries it and costs nothing more.
    In autocommit there is no transaction to mark: there it is the session's default, set and then looked at. Behind a
    pooler in transaction mode (PgBouncer) a session is shared with other clients, so nothing may be set in it: what is
    set there is set by a statement that looks first whether its server's process is the one that the driver was told
    of when it connected. A pooler has a number of its own for that.

    Attributes:
        unguarded: What can't be guarded here, in a few words; "" while nothing of the kind is known.
        problem: The same as an error, where nobody has said that he knows of it.

    Args:
        pooler: What stands between: `transaction`, `session`; None: look, and take what is there for the former.
    """

    name = "postgresql"
    lasting = False
    trial = "SELECT 1"

    def __init__(self, *, pooler: Pooler | None = None) -> None:
        self._declared = pooler
        self.unguarded = UNGUARDED if pooler == "transaction" else ""
        self.problem = ""

    def describe(self) -> Mapping[str, str]:
        """Return what reports say of the way to the server; `problem` keeps a guard from counting as proven."""
        found = {"pooler": self._declared or ("found" if self.problem else ""), "unguarded": self.unguarded}
        return {key: value for key, value in {**found, "problem": self.problem}.items() if value}

    def look_anew(self) -> None:
        """Forget what was found between; connections that are opened from now on find it again."""
        if self._declared != "transaction":
            self.unguarded = self.problem = ""

    def guard(self, connection: Any, memory: dict[str, Any]) -> None:
        """Make what this connection begins from now on read-only."""
        if getattr(connection, "autocommit", False):
            self._guard_session(connection, memory)
        else:
            self._guard_transaction(connection, memory)

    def restore(self, connection: Any, memory: dict[str, Any]) -> bool:
        """Put back what `guard` found; False if a transaction is open."""
        if "driver" in memory:
            if _in_transaction(connection):
                return False
            _set_driver(connection, memory["driver"])
            del memory["driver"]
        if "session" in memory:
            setting, source = memory["session"]
            if source == "session":
                _rows(connection, f"SELECT pg_catalog.set_config('{_SETTING}', '{setting}', false)")
            else:
                # Not a SET to the old value: that would keep a later ALTER SYSTEM (a fence) from reaching this session.
                _rows(connection, f"RESET {_SETTING}")
            if not getattr(connection, "autocommit", False):
                connection.commit()  # a ROLLBACK would undo the RESET
            del memory["session"]
            memory.pop("problem", None)
        return True

    def is_idle(self, connection: Any) -> bool:
        """Tell whether the driver knows that no transaction is open; on a lost connection nobody knows."""
        try:
            return bool(connection.pgconn.transaction_status == 0)  # psycopg: asked at each statement
        except AttributeError:
            pass
        info: Any = getattr(connection, "info", None)
        if hasattr(info, "transaction_status"):  # psycopg, as SQLAlchemy adapts its asynchronous connections
            return int(info.transaction_status) == 0
        driver: Any = getattr(connection, "driver_connection", None)
        if hasattr(driver, "is_in_transaction"):  # asyncpg
            return not driver.is_closed() and not driver.is_in_transaction()
        return False

    def softened(self, statement: str) -> str | None:
        """Return the statement, or None for one that would lift the guard: the server obeys it as a first statement.

        Nor does it refuse to commit what was prepared before, in whatever session.
        """
        return None if _LIFTS_GUARD.match(statement) else statement

    def is_refusal(self, error: BaseException) -> bool:
        """Tell whether the server refused a write in a read-only transaction (SQLSTATE 25006)."""
        return sqlstate(error) == REFUSED

    def is_denied(self, error: BaseException) -> bool:
        """Tell whether a right is missing (SQLSTATE 42501)."""
        return sqlstate(error) == DENIED

    def is_unfit(self, error: BaseException) -> bool:
        """Tell whether the server can't be read from now."""
        state = sqlstate(error)
        return state[:2] == _UNFIT_CLASS or state in _UNFIT_STATES

    def table(self, error: BaseException) -> str | None:
        """Return the table of the error's diagnostics; 25006 itself carries none."""
        found = getattr(getattr(error, "diag", None), "table_name", None) or getattr(error, "table_name", None)
        return found if isinstance(found, str) else None

    def takes_no_writes(self, connection: Any) -> str:
        """Ask for recovery and for the default of new transactions, as the server, the database or the role has it."""
        [(standby, setting, source)] = _rows(
            connection,
            "SELECT pg_catalog.pg_is_in_recovery(), setting, source"  # noqa: S608  # our own constant
            f" FROM pg_catalog.pg_settings WHERE name = '{_SETTING}'",
        )
        if standby:
            return _STANDBY
        # What came with the connection is the application's own wish, for this engine alone.
        return f"{_SETTING} is on ({source})" if setting == "on" and source not in ("client", "session") else ""

    def was_told(self, connection: Any) -> str:
        """Return whether the server is a standby: PostgreSQL 14 and later tells the driver, unasked.

        The default of transactions says nothing here: the application may have set it.
        """
        return _STANDBY if _reported(connection, "in_hot_standby") == "on" else ""

    def is_suspect(self, connection: Any) -> bool:
        """Tell whether the server reported recovery, or a read-only default, at the start of the session."""
        return "on" in (_reported(connection, "in_hot_standby"), _reported(connection, _SETTING))

    def prove(self, connection: Any) -> str:
        """Try to make a temporary table: refused in a READ ONLY transaction before any privilege is looked at."""
        try:
            # ON COMMIT DROP: in autocommit it is gone with the statement, elsewhere with the rollback that follows.
            _rows(connection, "CREATE TEMPORARY TABLE readonly_proof (x int) ON COMMIT DROP")
        except Exception as error:
            if self.is_refusal(error):
                return ""
            return f"a write failed, but not because it was read-only: {_first_line(error)}"
        return "a write was not refused: is there a pooler between, or a driver that ignores the guard?"

    def _guard_transaction(self, connection: Any, memory: dict[str, Any]) -> None:
        # psycopg takes it only where no transaction is open, so one that is has begun with it.
        if getattr(connection, "read_only", None) is True:
            return
        found = _get_driver(connection)
        if found is None or _in_transaction(connection):
            # Somebody was faster (an event listener that ran SQL), or the driver can't say it in its BEGIN.
            # READ ONLY may be set in the middle of a transaction, and ends with it.
            _rows(connection, "SET TRANSACTION READ ONLY")
            return
        if found[0] is not True:
            memory.setdefault("driver", found[0])
            _set_driver(connection, True)

    def _guard_session(self, connection: Any, memory: dict[str, Any]) -> None:
        # The server tells the driver of each change (PostgreSQL 14 and later, psycopg): a DISCARD ALL of the
        # application's, or of its pool's reset, shows here and costs nothing to see.
        if "session" in memory and _reported(connection, _SETTING) != "off":
            return
        if self._declared == "transaction":
            return
        if "shared" in memory:
            self._is_shared(memory)
            return
        ours = "true"
        if self._declared is None:
            own = _own_process(connection)
            # A driver that does not tell it leaves nothing to compare with.
            ours = "false" if own is None else f"pg_catalog.pg_backend_pid() = {own}"
        # Looked at and set by one statement: between two of them a pooler could hand us another session.
        [(setting, source, told)] = _rows(
            connection,
            f"SELECT setting, source, CASE WHEN {ours} THEN pg_catalog.set_config(name, 'on', false) END"  # noqa: S608
            f" FROM pg_catalog.pg_settings WHERE name = '{_SETTING}'",  # our own constant, and a number
        )
        if told is None:
            self._is_shared(memory)
            return
        memory.setdefault("session", (setting, source))
        [(now,)] = _rows(connection, "SHOW transaction_read_only")
        if now != "on":
            memory["problem"] = self.problem = _MOVED

    def _is_shared(self, memory: dict[str, Any]) -> None:
        memory["shared"] = True
        memory["problem"] = self.problem = _FOUND
        self.unguarded = UNGUARDED


def _get_driver(connection: Any) -> tuple[Any] | None:
    """Return what the driver sends with BEGIN, in a tuple; None if it has no say in it."""
    for attribute in ("read_only", "readonly"):
        if hasattr(connection, attribute):
            return (getattr(connection, attribute),)
    return None


def _set_driver(connection: Any, value: bool | None) -> None:
    if hasattr(connection, "read_only"):
        # psycopg: None leaves it to the server; False would send BEGIN READ WRITE ever after, past any fence.
        if hasattr(connection, "set_read_only"):
            connection.set_read_only(value or None)
        else:  # psycopg 3.1
            connection.read_only = value or None
    else:
        connection.readonly = value


def _in_transaction(connection: Any) -> bool:
    info: Any = getattr(connection, "info", None)
    if hasattr(info, "transaction_status"):  # psycopg
        return int(info.transaction_status) != 0
    driver: Any = getattr(connection, "driver_connection", None)
    return hasattr(driver, "is_in_transaction") and bool(driver.is_in_transaction())  # asyncpg


def _reported(connection: Any, setting: str) -> str | None:
    """Return a setting as the server reported it last, where it does and the driver keeps that."""
    status = getattr(getattr(connection, "info", None), "parameter_status", None)
    if callable(status):  # psycopg
        found = status(setting)
    else:  # asyncpg
        settings = getattr(getattr(connection, "driver_connection", None), "get_settings", None)
        found = getattr(settings(), setting, None) if callable(settings) else None
    return found if isinstance(found, str) else None


def _own_process(connection: Any) -> int | None:
    """Return the number of the server's process as the driver was told it when it connected; None: it does not say."""
    found = getattr(getattr(connection, "info", None), "backend_pid", None)  # psycopg
    if found is None:
        ask = getattr(getattr(connection, "driver_connection", None), "get_server_pid", None)  # asyncpg
        found = ask() if callable(ask) else None
    return found if isinstance(found, int) else None


def _rows(connection: Any, statement: str) -> list[Any]:
    cursor = connection.cursor()
    try:
        with answered(connection):
            cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []
    finally:
        cursor.close()


def answered(connection: Any) -> AbstractContextManager[object]:
    """Wait for the answer at the end of the block, also where the application has a pipeline open (psycopg)."""
    if getattr(getattr(connection, "info", None), "pipeline_status", 0):
        pipeline: AbstractContextManager[object] = connection.pipeline()
        return pipeline
    return nullcontext()


def sqlstate(error: BaseException) -> str:
    """Return the five letters by which PostgreSQL tells its errors apart, or "" (its manual, appendix A)."""
    found = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return found if isinstance(found, str) else ""


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
