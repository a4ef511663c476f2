"""Fence: what every kind of server offers, and which kind a URL names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ...errors import ConfigurationError
from .values import Fenced, FenceRefused, Holdup, Lifted, Pass, Position, Preflight, Strategy, Waiting

if TYPE_CHECKING:
    from ..replicas import Schema, Standing

KINDS = ("postgresql", "mysql", "sqlite")


class Fence(ABC):
    """One database that can be made to refuse every client, but the migration.

    Not thread-safe; each call opens the connections that it needs and closes them.

    Attributes:
        name: Its name in the configuration.
        stands: False where nothing stays at the database once `put_up` has returned.
        forgets: True where the server may drop it by itself, as MariaDB's does when it is restarted: `open_tables` is
            then asked whenever somebody asks how the site is.
    """

    name: str
    stands = True
    forgets = False

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        writers: Sequence[str] = (),
        migrators: Sequence[str] = (),
        name: str = "main",
        strategy: str = "",
    ) -> Fence:
        """Return the fence of the database that a URL names; no connection is made.

        Args:
            url: `postgresql://fencer@host/database`, `mysql://fencer@host/database` or `sqlite:////absolute/path`: the
                primary itself, with the privileges of who raises the fence.
            writers: The roles that the application connects as.
            migrators: The roles that must go on writing.
            name: Its name in the configuration.
            strategy: How to fence; "": as suits the database best.

        Raises:
            ConfigurationError: The URL names no kind of server that can be fenced, or the driver is missing.
        """
        if strategy and strategy not in list(Strategy):
            raise ConfigurationError(
                f"fence.{name}: strategy={strategy!r} is not a choice: use one of {', '.join(Strategy)}"
            )
        scheme = urlsplit(url).scheme.partition("+")[0]
        rest = url.partition("://")[2]
        if scheme in {"postgresql", "postgres"}:
            try:
                from .postgresql import PostgresFence
            except ModuleNotFoundError as error:
                if error.name != "psycopg":
                    raise
                raise ConfigurationError(
                    f"fence.{name} needs psycopg: pip install 'readonly-mode[postgresql]'"
                ) from error
            _require_writers(name, writers)
            chosen = Strategy(strategy) if strategy else None
            if chosen in {Strategy.GLOBAL, Strategy.BARRIER}:
                raise ConfigurationError(
                    f"fence.{name}: strategy={strategy!r} is none of PostgreSQL's: use revoke, gate, each or defaults, "
                    "or leave it out"
                )
            return PostgresFence(
                f"postgresql://{rest}", writers=writers, migrators=migrators, name=name, strategy=chosen
            )
        if scheme in {"mysql", "mariadb"}:
            try:
                from .mariadb import MariaDBFence
            except ModuleNotFoundError as error:
                if error.name != "pymysql":
                    raise
                raise ConfigurationError(f"fence.{name} needs PyMySQL: pip install 'readonly-mode[mysql]'") from error
            _require_writers(name, writers)
            if strategy and strategy != Strategy.GLOBAL:
                raise ConfigurationError(
                    f"fence.{name}: strategy={strategy!r} is none of MariaDB's, which is fenced by "
                    f"{Strategy.GLOBAL!s}: leave it out"
                )
            return MariaDBFence(f"mysql://{rest}", writers=writers, migrators=migrators, name=name)
        if scheme == "sqlite":
            from .sqlite import SQLiteFence

            return SQLiteFence(url, name=name)
        raise ConfigurationError(
            f"fence.{name}: a URL that begins with {scheme!r} names no server that can be fenced: "
            f"write one of {', '.join(KINDS)}"
        )

    def holds(self, user: str, strategy: Strategy) -> bool:
        """Return whether a fence by this strategy is meant to stop who connects as this user; no one is asked."""
        return True

    @abstractmethod
    def preflight(self, *, strategy: Strategy | None = None) -> Preflight:
        """Return what a fence could do here; nothing is changed."""

    @abstractmethod
    def status(self) -> Fenced | None:
        """Return the fence that stands, whoever raised it; None if there is none."""

    @abstractmethod
    def open_tables(self) -> tuple[str, ...]:
        """Return what the standing fence does not cover: tables that were made, swapped or granted since."""

    @abstractmethod
    def put_up(
        self,
        *,
        site: str,
        cause: str,
        by: str,
        epoch: int = 0,
        timeout: float,
        end_after: float | None = None,
        run: Pass | None = None,
        strategy: Strategy | None = None,
        waiting: Waiting | None = None,
    ) -> Fenced:
        """Raise the fence, or go on raising it, and return when no earlier write is under way any more."""

    @abstractmethod
    def look_again(self, *, site: str, timeout: float, waiting: Waiting | None = None) -> Fenced:
        """Fence what was made, swapped or granted since the fence went up, and wait as `put_up` does."""

    @abstractmethod
    def lift(self, *, site: str, cause: str | None = None, orphan: bool = False) -> Lifted:
        """Let go of the fence for a cause (None: for all), and take it down when nobody else holds it."""

    def look(self, schema: Schema | None = None) -> Standing | None:
        """Return where the primary's log is now, and with which schema; nothing is changed.

        Args:
            schema: How to ask for the schema's version; None: don't.

        Returns:
            None for a kind of database that has no replicas of its own.
        """
        return None

    def mark(self) -> Position | None:
        """Write a marker into the primary's log and return the position behind it; None as for `look`."""
        return None

    def kept_for(self, slot: str) -> int | None:
        """Return how many bytes of log the primary keeps for a replica's slot; None where it has no such slot."""
        return None

    @abstractmethod
    def sessions_of(self, run: str) -> tuple[Holdup, ...]:
        """Return the sessions of a run that are still there."""

    def end_sessions(self, run: str) -> tuple[Holdup, ...]:
        """End the sessions of a run that are still there; returns those that were told to end."""
        return ()

    def install(self, *, site: str, by: str) -> tuple[str, ...]:
        """Prepare the database once, so that raising the fence locks no table; returns what was prepared.

        Raises:
            FenceRefused: This kind of database has nothing to prepare, or a right is missing.
        """
        raise FenceRefused(f"{self.name}: there is nothing to install in a database of this kind; nothing was changed")

    def uninstall(self, *, site: str) -> int:
        """Take out what `install` put in; returns how many tables had it."""
        return 0


def _require_writers(name: str, writers: Sequence[str]) -> None:
    if isinstance(writers, str) or not writers:
        raise ConfigurationError(
            f'fence.{name}: writers={writers!r} must list the roles that the application connects as: ["shop_app"]'
        )
