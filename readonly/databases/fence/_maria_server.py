"""One connection to a MariaDB server as whoever raises the fence, and what the server says of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pymysql

from ...errors import ConfigurationError
from ..replicas import mariadb as replicas
from .values import FenceError, FenceUnreachable

APPLICATION = "readonly-fence"
CONNECT_SECONDS = 10
# Longer than any statement of ours waits: one that is silent for longer is a server that hangs.
READ_SECONDS = 90
# Who else changes a fence of the same server is waited for that long; the lock is the server's, and ends with us.
LOCK = "readonly_fence"
LOCK_SECONDS = 30

# Errors of the server's by number (MariaDB Knowledge Base, "MariaDB Error Codes").
ER_LOCK_WAIT_TIMEOUT = 1205
ER_READ_ONLY = 1290
ER_NO_SUCH_TABLE = 1146
ER_NO_SUCH_THREAD = 1094
ER_NOT_OWNER = 1095
DENIED = frozenset({1044, 1045, 1142, 1143, 1227, 1370})
# The connection is gone, or was never there.
_LOST = frozenset({0, 1040, 1045, 1049, 1053, 1129, 1130, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1698, 1927})
_CLIENTS = range(2000, 3000)
_URL_OPTIONS = ("unix_socket", "ssl_ca")


class Session:
    """A connection in autocommit. Not thread-safe."""

    def __init__(self, connection: Any, *, database: str, where: str) -> None:
        self.connection = connection
        self.database = database
        self.where = where

    def rows(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return what it returns."""
        with self.connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return list(cursor.fetchall())

    def value(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """Return the first column of the first row, or None."""
        rows = self.rows(query, values)
        return rows[0][0] if rows else None

    def allowed(self, query: str) -> bool:
        """Run a query that changes nothing, and tell whether this account may."""
        try:
            self.rows(query)
        except pymysql.MySQLError as error:
            if number(error) in DENIED:
                return False
            if number(error) != ER_NO_SUCH_TABLE:  # said to those alone who might read it
                raise
        return True

    @property
    def read_only(self) -> bool:
        """Whether the server refuses writes now."""
        return bool(self.value("SELECT @@global.read_only"))

    @property
    def identity(self) -> str:
        """Which server this is, so that a copy or a replica that took over is told from it.

        (MariaDB has no name for a primary with all its replicas.)
        """
        return replicas.identity(self.connection)

    @property
    def position(self) -> str:
        """The position behind the last transaction in the binary log; without one, of InnoDB's own log."""
        if self.value("SELECT @@global.log_bin"):
            return str(self.value("SELECT @@global.gtid_binlog_pos"))
        flushed = self.value(
            "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'Innodb_lsn_current'"
        )
        return f"lsn:{flushed}"

    @property
    def replicating(self) -> bool:
        """Whether this server applies what another one sends."""
        running = self.value(
            "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'Slaves_running'"
        )
        return int(running or 0) > 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one who changes a fence of this server.

        Raises:
            FenceError: Somebody else has been at it for too long.
        """
        if self.value("SELECT GET_LOCK(%s, %s)", [LOCK, LOCK_SECONDS]) != 1:
            raise FenceError(
                f"another command has been changing a fence of {self.where} for {LOCK_SECONDS} s; nothing was changed: "
                "try again when it has ended"
            )
        try:
            yield
        finally:
            # With a connection that was lost the lock went as well, and the first error is the one that says so.
            if self.connection.open:
                self.value("SELECT RELEASE_LOCK(%s)", [LOCK])


def number(error: BaseException) -> int:
    """Return the error's number, 0 where it has none."""
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


def said(error: BaseException) -> str:
    """Return what the server or the driver said, in one line."""
    words = error.args[1] if len(error.args) > 1 else error
    return str(words).strip().partition("\n")[0]


def quoted(name: str) -> str:
    """Return a name as an identifier."""
    return "`" + name.replace("`", "``") + "`"


def account(grantee: str) -> str:
    """Return `user@host` as the statements want it: `'user'@'host'`."""
    user, _, host = grantee.replace("'", "''").rpartition("@")
    return f"'{user}'@'{host}'"


class Address:
    """Where a URL leads.

    Raises:
        ConfigurationError: It is no URL of a database, or has an option that is not known.
    """

    def __init__(self, url: str, *, name: str) -> None:
        parts = urlsplit(url)
        self.database = unquote(parts.path[1:])
        options = {key: found[-1] for key, found in parse_qs(parts.query).items()}
        unknown = sorted(set(options) - set(_URL_OPTIONS))
        try:
            port = parts.port or 3306
        except ValueError:
            port = 0
        if not (self.database and parts.username and port):  # the URL is not repeated: it may hold a password
            raise ConfigurationError(f"fence.{name}: url must read mysql://fencer@host:3306/database")
        if unknown:
            raise ConfigurationError(
                f"fence.{name}: {unknown[0]} is no option of a mysql:// URL here: {', '.join(_URL_OPTIONS)}"
            )
        self._options: dict[str, Any] = {
            "user": unquote(parts.username),
            "password": unquote(parts.password or ""),
            "database": self.database,
            "host": parts.hostname or "localhost",
            "port": port,
            "unix_socket": options.get("unix_socket"),
            "ssl_ca": options.get("ssl_ca"),
        }
        self.where = f"{options.get('unix_socket') or f'{parts.hostname}:{port}'}/{self.database}"
        self._name = name

    @contextmanager
    def connect(self) -> Iterator[Session]:
        """Open a connection, and turn what the server says into the fence's own errors."""
        name = self._name
        try:
            connection = pymysql.connect(
                **self._options, autocommit=True, charset="utf8mb4", connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS, write_timeout=READ_SECONDS, program_name=APPLICATION,
                # What an operator set for everybody must not bind who raises the fence.
                init_command="SET SESSION time_zone = '+00:00', SESSION tx_read_only = 0,"
                " SESSION lock_wait_timeout = 5, SESSION sql_mode = 'STRICT_ALL_TABLES'",
            )  # fmt: skip
        except (pymysql.MySQLError, OSError) as error:
            raise FenceUnreachable(f"{name}: the fence's server can't be reached: {said(error)}") from error
        try:
            yield Session(connection, database=self.database, where=self.where)
        except pymysql.MySQLError as error:
            code = number(error)
            if code in _LOST or code in _CLIENTS:
                raise FenceUnreachable(
                    f"{name}: the connection to the fence's server was lost, so what stands there is not known: "
                    f"{said(error)}. Ask it again: readonlyctl fence status"
                ) from error
            raise FenceError(f"{name}: the server refused a step of the fence: {said(error)}") from error
        finally:
            if connection.open:
                connection.close()


_VERSION = re.compile(r"(?:5\.5\.5-)?(\d+)\.(\d+)\.(\d+)-MariaDB")


def version(session: Session) -> tuple[int, int]:
    """Return MariaDB's version; (0, 0) for a server of another kind."""
    found = _VERSION.match(str(session.value("SELECT @@version")))
    return (int(found[1]), int(found[2])) if found else (0, 0)
