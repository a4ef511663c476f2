"""Standby: what a replica offers to the operator's side, and which kind a URL names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from urllib.parse import urlsplit

from ...errors import ConfigurationError
from ..fence import Position
from ..replicas import Schema
from .values import Frozen, Seen


class Standby(ABC):
    """One replica, as an operator reaches it.

    Not thread-safe; each call opens one connection and closes it, and none waits for a lock.

    Attributes:
        name: Host, port and database, for people.
    """

    name: str

    @staticmethod
    def from_url(url: str, *, where: str = "replicas") -> Standby:
        """Return the standby that a URL names; no connection is made.

        Args:
            url: `postgresql://fencer@host/database`, of the standby itself.
            where: The setting that it comes from, for messages.

        Raises:
            ConfigurationError: The URL names no kind of replica that can be asked, or can never reach one; or the
                driver is missing.
        """
        scheme = urlsplit(url).scheme.partition("+")[0]
        if scheme not in {"postgresql", "postgres"}:
            raise ConfigurationError(
                f"{where}: a URL that begins with {scheme!r} names no replica that can be asked: write postgresql://…"
            )
        try:
            from .postgresql import PostgresStandby
        except ModuleNotFoundError as error:
            if error.name != "psycopg":
                raise
            raise ConfigurationError(f"{where} needs psycopg: pip install 'readonly-mode[postgresql]'") from error
        return PostgresStandby(f"postgresql://{url.partition('://')[2]}", where=where)

    @abstractmethod
    def look(self, schema: Schema | None = None) -> Seen:
        """Return where it stands; nothing is changed.

        Args:
            schema: How to ask for its schema's version; None: don't.

        Raises:
            StandbyUnreachable: It did not answer.
        """

    @abstractmethod
    def behind(self, position: Position) -> str:
        """Return why it has not reached a position yet, as the end of a sentence; "" if it has.

        Raises:
            StandbyError: It never will: it is no standby of that system, or somebody paused it before the position.
        """

    @abstractmethod
    def freeze(self, position: Position, *, timeout: float) -> Frozen:
        """Pause its replay as soon as it has passed a position; one that is paused there already is left as it is.

        Raises:
            NotFrozen: It replays.
            StandbyError: It is no standby of that system, may not be paused by this role, or did not answer.
        """

    @abstractmethod
    def thaw(self) -> bool:
        """Have it replay again; returns whether it had been paused.

        Raises:
            StandbyError: It is no standby any more, may not be resumed by this role, or did not answer.
        """
