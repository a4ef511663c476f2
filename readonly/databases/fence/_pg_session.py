"""How does a fence reach its PostgreSQL server, and what do that server's errors mean to it?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from ...errors import ConfigurationError
from ._pg_state import Connection
from .values import FenceError, FenceUnreachable

APPLICATION = "readonly-fence"
CONNECT_SECONDS = 10
# For whoever else changes the same fence, or the same row of a catalog.
LOCK_TIMEOUT = "30s"


@contextmanager
def connect(url: str, *, name: str) -> Iterator[Connection]:
    """Open a connection, and turn what the server says into the fence's own errors."""
    try:
        connection = psycopg.connect(
            url, autocommit=True, application_name=APPLICATION, connect_timeout=CONNECT_SECONDS
        )
    except psycopg.ProgrammingError:  # its text repeats the URL, and so a password
        raise ConfigurationError(
            f"fence.{name}: url is no PostgreSQL URL: write postgresql://fencer@host:5432/database"
        ) from None
    except psycopg.Error as error:
        raise FenceUnreachable(f"{name}: the fence's server can't be reached: {said(error)}") from error
    try:
        with connection:
            # Its own sessions must write where an operator made all transactions read-only, and never hang.
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("SET timezone = 'UTC'")
            connection.execute("SELECT pg_catalog.set_config('search_path', '', false)")
            connection.execute("SELECT pg_catalog.set_config('lock_timeout', %s, false)", [LOCK_TIMEOUT])
            yield connection
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        if isinstance(error, psycopg.errors.LockNotAvailable):
            raise FenceError(f"{name}: a lock was not to be had; nothing was changed: {said(error)}") from error
        raise FenceUnreachable(
            f"{name}: the connection to the fence's server was lost, so what stands there is not known: "
            f"{said(error)}. Ask it again: readonlyctl fence status"
        ) from error
    except psycopg.Error as error:
        raise FenceError(f"{name}: the server refused a step of the fence: {said(error)}") from error


def pooled(connection: Connection) -> bool:
    """Tell whether a pooler answered when this connection was opened: it has a number of its own to cancel by."""
    row = connection.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
    return row is not None and row[0] != connection.info.backend_pid


def said(error: psycopg.Error) -> str:
    """Return the first line of what the server said."""
    return (error.diag.message_primary or str(error)).strip().partition("\n")[0]
