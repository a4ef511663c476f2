"""How a server is reached in the background: one connection of one's own, kept from look to look, and given up in time.

A look is bounded three times: by the server (`statement_timeout`, `lock_timeout`), by the driver's time to connect,
and here, where the socket is shut when nothing comes back.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from . import mariadb, postgresql
from .schema import Schema
from .values import Standing

# A server that does not answer for so long is not there.
LOOK_SECONDS = 3.0
LOOKS: dict[str, Callable[[Any, Schema | None], Standing]] = {
    "postgresql": postgresql.look,
    "mysql": mariadb.look,
    "mariadb": mariadb.look,
}


class Reach(Protocol):
    """A server that can be looked at; for one thread, but for `sever`."""

    def look(self, schema: Schema | None) -> Standing:
        """Return what the server is now; raises whatever the driver does."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...

    def sever(self) -> None:
        """Make a look that is under way in another thread fail."""
        ...


class DirectReach:
    """A server behind a driver that blocks.

    Args:
        server: What kind of server it is: `postgresql`, `mysql`, `mariadb`.
        connect: Makes a connection, within the driver's own time.
    """

    def __init__(self, server: str, connect: Callable[[], Any]) -> None:
        self._look = LOOKS[server]
        self._connect = connect
        self._connection: Any = None

    def look(self, schema: Schema | None) -> Standing:
        """Return what the server is now."""
        if self._connection is None:
            self._connection = self._connect()
        timer = threading.Timer(LOOK_SECONDS, self.sever)
        timer.daemon = True
        timer.start()
        try:
            return self._look(self._connection, schema)
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it may be lost; then there is nothing to give back
                connection.close()

    def sever(self) -> None:
        """Shut the connection's socket: who waits for an answer there gets an error."""
        connection = self._connection
        if connection is None:
            return
        with suppress(
            Exception
        ):  # closed meanwhile, or a driver that shows no socket: the server's own bounds are left
            found = getattr(connection, "_sock", None)  # PyMySQL
            number = found.fileno() if found is not None else connection.fileno()  # psycopg
            with socket.socket(fileno=socket.dup(number)) as twin:
                twin.shutdown(socket.SHUT_RDWR)
