"""What the servers of the application's databases are told: one module a kind of server, over PEP 249 objects.

Nothing here, or in the modules of the servers, imports a driver or an ORM: a connection is judged by what it can do.
`sqlalchemy` is the one place that knows SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Protocol

from readonly.errors import ConfigurationError

from .mysql import MySQL
from .postgresql import POOLERS, Pooler, PostgreSQL
from .sqlite import SQLite

__all__ = ["POOLERS", "Pooler", "Server", "is_accepted", "look_anew", "server_behind", "server_for", "way_to"]


class Server(Protocol):
    """One kind of database server, as the guard needs it.

    `memory` is a dict that the guard keeps for each connection, empty at first: what was found there before, so that
    it can be put back. Every method is called by the thread or task that holds the connection.
    """

    @property
    def name(self) -> str:
        """What SQLAlchemy and Django call it."""
        ...

    @property
    def trial(self) -> str:
        """A statement that only works where the database can be read."""
        ...

    @property
    def lasting(self) -> bool:
        """Guarding and putting back cost questions: a pooled connection stays guarded until the mode is over."""
        ...

    def guard(self, connection: Any, memory: dict[str, Any]) -> None:
        """Make what this connection begins from now on read-only; calling it again does no harm."""
        ...

    def restore(self, connection: Any, memory: dict[str, Any]) -> bool:
        """Put back what `guard` found, so that nothing of it stays on the connection.

        Returns:
            False if that can't be done now, because a transaction is open.
        """
        ...

    def is_idle(self, connection: Any) -> bool:
        """Tell whether the driver knows that no transaction is open."""
        ...

    def softened(self, statement: str) -> str | None:
        """Return what a guarded connection sends instead of `statement`; None to refuse it.

        Transaction control alone is looked at, and only so that nobody gets round the guard by accident, or is
        refused for reading; what a write is, the server judges.
        """
        ...

    def is_refusal(self, error: BaseException) -> bool:
        """Tell by its code alone whether an error says that a write was refused as read-only."""
        ...

    def is_denied(self, error: BaseException) -> bool:
        """Tell by its code alone whether an error says that a right is missing: some fences take it."""
        ...

    def is_unfit(self, error: BaseException) -> bool:
        """Tell whether an error says that this server can't be read from now (gone, locked, starting)."""
        ...

    def table(self, error: BaseException) -> str | None:
        """Return the table that an error is about, where the driver tells it."""
        ...

    def takes_no_writes(self, connection: Any) -> str:
        """Ask, on an idle connection that nobody has guarded, whether everybody's writes are refused.

        Returns:
            Why, in a few words; "" if writes are taken, or refused by this connection's own setting alone.
        """
        ...

    def was_told(self, connection: Any) -> str:
        """Return what `takes_no_writes` would say of the server that has just refused a write on this connection.

        "" where that can't be known without another connection.
        """
        ...

    def is_suspect(self, connection: Any) -> bool:
        """Tell whether a new connection was told that its server takes no writes; costs no question."""
        ...

    def prove(self, connection: Any) -> str:
        """Try a harmless write on a guarded connection.

        Returns:
            "" if it was refused as it must be, else what is wrong. Nothing is left behind either way.
        """
        ...


_SERVERS: tuple[Server, ...] = (PostgreSQL(), SQLite(), MySQL())
# What a guard from elsewhere must have.
_PARTS = frozenset(part for part in vars(Server) if not part.startswith("_"))
# What SQLAlchemy calls a server that speaks like another one.
_ALSO = {"mariadb": "mysql"}


def server_for(dialect: str) -> Server:
    """Return the server of that name.

    Args:
        dialect: `postgresql`, `sqlite`, `mysql`, `mariadb`, or the name of an entry point in `readonly.databases`: a
            class without arguments that is a `Server`.

    Raises:
        ConfigurationError: There is no guard for it, or what is installed for it is none.
    """
    for server in _SERVERS:
        if server.name == _ALSO.get(dialect, dialect):
            return server
    for found in entry_points(group="readonly.databases", name=dialect):
        theirs: Server = found.load()()
        lacking = sorted(what for what in _PARTS if not hasattr(theirs, what))
        if lacking:
            raise ConfigurationError(
                f"the entry point {found.value} of readonly.databases is no guard for {dialect}: it lacks "
                f"{', '.join(lacking)}; readonly.testing.ServerContract tests one"
            )
        return theirs
    names = ", ".join(server.name for server in _SERVERS)
    raise ConfigurationError(f"dialect={dialect!r} has no guard: the databases that can be guarded are {names}")


def server_behind(dialect: str, pooler: Pooler | None) -> Server:
    """Return a server of that name for one database alone, which knows what stands before it.

    Args:
        dialect: As for `server_for`.
        pooler: What was declared: `transaction`, `session`, or None.

    Raises:
        ConfigurationError: As `server_for`; or there is no such pooler, or none that a guard there knows of.
    """
    found = server_for(dialect)
    if pooler is not None and pooler not in POOLERS:
        raise ConfigurationError(f"pooler={pooler!r} is not a choice: write 'transaction', 'session' or nothing")
    if isinstance(found, PostgreSQL):
        return PostgreSQL(pooler=pooler)
    if pooler is not None:
        raise ConfigurationError(f"pooler={pooler!r} is about PostgreSQL, and this is {dialect}: leave it out")
    return found


def way_to(server: Server) -> Mapping[str, str]:
    """Return what stands before a database and what can't be guarded for it, for reports; empty where nothing is."""
    return server.describe() if isinstance(server, PostgreSQL) else {}


def is_accepted(server: Server) -> bool:
    """Tell whether something can't be guarded there, and somebody has declared that he knows."""
    said = way_to(server)
    return "unguarded" in said and "problem" not in said


def look_anew(server: Server) -> None:
    """Forget what was found between; what is there still shows again."""
    if isinstance(server, PostgreSQL):
        server.look_anew()
