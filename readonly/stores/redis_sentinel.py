"""Where the primary of a service is, as its Sentinels say; asked for each new connection, and again now and then."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from readonly.errors import ConfigurationError

from . import redacted
from .redis_connection import (
    FAILURES,
    Address,
    Connection,
    Misplaced,
    Refused,
    addresses,
    ask,
    code_of,
    connected,
    explain,
    info,
    maker,
)

# Of our own: a thread that draws from everybody's would change what a program draws that has seeded it.
_random = random.SystemRandom()  # which forked processes draw from apart
SENTINEL_PORT = 26379
# An old primary that is cut off keeps its connections, so that nothing else tells those who hold one. A thousand
# processes that each ask once in this time are half a percent of a core for their Sentinels.
LOOK_SECONDS = 2.0
# One connection to one Sentinel is kept for that. Another one is asked after so many looks: the one that was asked
# may itself be cut off together with the old primary.
LOOKS_AT_ONE = 4
# What a server says that takes no writes, because it is a replica, or was left behind.
_LEFT_BEHIND = ("READONLY", "NOREPLICAS", "MASTERDOWN")
_OURS = frozenset({"db", "sentinel_username", "sentinel_password"})


@dataclass(frozen=True, slots=True)
class _Word:
    """What one Sentinel says: where the primary is, since which failover, and how many replicas it has."""

    address: Address
    failover: int
    replicas: int


class Sentinels:
    """A place that moves by failovers: `redis+sentinel://user:password@host:port,host:port/service?site=…`.

    User and password are those of the servers. The Sentinels' own are `sentinel_username=` and `sentinel_password=`,
    the database is `db=`. With `rediss+sentinel` both speak TLS.

    Args:
        url: The store's URL.
        timeout: Seconds for one answer of a server, for making a connection, and for asking all Sentinels.

    Raises:
        ConfigurationError: The URL can't be right.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        self.replicas = 0
        self._url = url
        self._timeout = timeout
        parts = urlsplit(url)
        self._service = unquote(parts.path.strip("/"))
        if not self._service or "/" in self._service:
            raise ConfigurationError(
                f"store={redacted(url)!r} does not name a service: write "
                "redis+sentinel://host:port,host:port/SERVICE?site=NAME, as in `sentinel monitor SERVICE …`"
            )
        query = parse_qs(parts.query, keep_blank_values=True)
        database = query.get("db", ["0"])[-1]
        if not database.isdigit():
            raise ConfigurationError(f"store={redacted(url)!r}: db={database!r} is no database number")
        user, password = (query.get(name, [""])[-1] for name in ("sentinel_username", "sentinel_password"))
        self._server = maker(url, database=int(database), timeout=timeout, also=_OURS)
        self._sentinels = addresses(url, port=SENTINEL_PORT)
        # Together they may take as long as one answer.
        self._patience = timeout / len(self._sentinels)
        self._sentinel = maker(url, database=0, timeout=self._patience, also=_OURS, login=(user, password))
        # Not all processes ask the same one first; whoever answers comes first the next time.
        _random.shuffle(self._sentinels)
        self._asked: Connection | None = None
        self._looks = 0
        self._look_at = float("-inf")

    def connect(self) -> Connection:
        """Return a new connection to the primary, which says itself that it is one."""
        address = self._resolved()
        connection = connected(self._server(address))
        try:
            # A Sentinel may not have heard of the latest failover; and ROLE would need a permission more.
            role = info(connection, "replication").get("role")
        except BaseException:
            connection.disconnect()
            raise
        if role != "master":
            connection.disconnect()
            raise Misplaced(
                f"{_shown(address)}, which its Sentinels name as the primary of {self._service!r}, is a replica: a "
                "failover is under way"
            )
        self._look_at = time.monotonic() + LOOK_SECONDS
        return connection

    def has_moved(self, server: Address) -> bool:
        """Ask one Sentinel, each `LOOK_SECONDS`, and all of them if it names another server than this one."""
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_SECONDS * _random.uniform(0.9, 1.1)
        try:
            return self._named_by_one() != server and self._resolved() != server
        except FAILURES:
            # Where nobody can be asked, what was found stays: the server itself is asked next.
            self._stop_asking()
            return False

    def is_elsewhere(self, server: Address, refusal: Exception) -> bool:
        """Ask the Sentinels at once where the server says that it is, or may be, the primary no more."""
        if code_of(refusal) not in _LEFT_BEHIND:
            return False
        try:
            return self._resolved() != server
        except FAILURES:
            return False

    def reopened(self) -> Sentinels:
        """Return the same place without a connection of this one's."""
        return Sentinels(self._url, timeout=self._timeout)

    def close(self) -> None:
        """Close the connection to the Sentinel that was asked last."""
        self._stop_asking()

    # --- asking -------------------------------------------------------------------------------------------

    def _named_by_one(self) -> Address | None:
        if self._looks >= LOOKS_AT_ONE:
            self._stop_asking()
        if self._asked is None:
            # The next one, also if this one does not answer.
            self._sentinels.append(self._sentinels.pop(0))
            self._asked = connected(self._sentinel(self._sentinels[-1]))
            self._looks = 0
        self._looks += 1
        return _address(ask(self._asked, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service))

    def _stop_asking(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.disconnect()

    def _resolved(self) -> Address:
        """Return where the primary is by the latest failover that any of the Sentinels knows of.

        Raises:
            Misplaced: None of them answers, or knows the service.
        """
        words: list[_Word] = []
        silent: list[str] = []
        for sentinel in list(self._sentinels):
            try:
                words.append(self._word_of(sentinel))
            except FAILURES as error:
                silent.append(f"{_shown(sentinel)}: {self._why(error)}")
                # Those that answer are asked first the next time.
                self._sentinels.remove(sentinel)
                self._sentinels.append(sentinel)
            if 2 * sum(word.address == words[-1].address for word in words if words) > len(self._sentinels):
                break  # no failover is done without a majority
        if not words:
            raise Misplaced(f"none of its Sentinels says where {self._service!r} is: {'; '.join(silent)}")
        latest = max(words, key=lambda word: word.failover)
        self.replicas = latest.replicas
        return latest.address

    def _why(self, error: Exception) -> str:
        if code_of(error) in ("NOAUTH", "WRONGPASS"):
            return f"it wants another password: end the URL with &sentinel_password=… ({error})"
        return explain(error, self._patience)

    def _word_of(self, sentinel: Address) -> _Word:
        connection = connected(self._sentinel(sentinel))
        try:
            told = ask(connection, "SENTINEL", "MASTER", self._service)
            fields = {bytes(name): bytes(value) for name, value in zip(told[::2], told[1::2], strict=False)}
            # While replicas are being told, only this one names the new primary; so it is asked for last.
            address = _address(ask(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service))
        except Refused as error:
            raise Misplaced(f"it knows no such service ({error})") from error
        finally:
            connection.disconnect()
        if address is None:
            raise Misplaced("it knows no such service")
        return _Word(address, int(fields.get(b"config-epoch", 0)), int(fields.get(b"num-slaves", 0)))


def _address(answer: Sequence[Any] | None) -> Address | None:
    return None if answer is None else (bytes(answer[0]).decode(), int(answer[1]))


def _shown(address: Address) -> str:
    return f"{address[0]}:{address[1]}"
