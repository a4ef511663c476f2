"""Which node of a Redis Cluster holds a site: all its keys share one slot, so that one node has them all."""

from __future__ import annotations

import random
from binascii import crc_hqx
from urllib.parse import urlsplit

from readonly.errors import ConfigurationError

from . import redacted
from .redis_connection import (
    FAILURES,
    Address,
    Connection,
    Misplaced,
    address_of,
    addresses,
    ask,
    code_of,
    connected,
    explain,
    maker,
)

# Of our own: a thread that draws from everybody's would change what a program draws that has seeded it.
_random = random.SystemRandom()  # which forked processes draw from apart
NODE_PORT = 6379
SLOTS = 16384


class Cluster:
    """A place that moves with its slot: `redis+cluster://user:password@host:port,host:port?site=…`.

    The nodes named are where it asks; more than one, since any of them may be down. A slot that moves is noticed by
    what the node answers, before it has run anything. While keys are on their way from node to node, calls fail: the
    scripts here touch several keys, and no node has them all (so ASK is not followed).

    Args:
        url: The store's URL.
        key: One of the site's keys.
        timeout: Seconds for one answer, and for making a connection.

    Raises:
        ConfigurationError: The URL can't be right.
    """

    def __init__(self, url: str, *, key: str, timeout: float) -> None:
        self.replicas = 0
        self._url = url
        self._key = key
        self._timeout = timeout
        if urlsplit(url).path.strip("/") not in ("", "0"):
            raise ConfigurationError(
                f"store={redacted(url)!r}: a Cluster has the database 0 only: write redis+cluster://host:port?site=NAME"
            )
        self._node = maker(url, database=0, timeout=timeout)
        self._named = addresses(url, port=NODE_PORT)
        # Not all processes ask the same one first.
        _random.shuffle(self._named)
        # Where the last one was asked, or where a node has sent us: asked first.
        self._last: Address | None = None

    def connect(self) -> Connection:
        """Return a new connection to the node that holds the slot."""
        silent: list[str] = []
        for node in self._order():
            try:
                return self._connect_by(node)
            except FAILURES as error:
                # Also where the node that it names can't be reached: another one may know better.
                silent.append(f"{node[0]}:{node[1]}: {explain(error, self._timeout)}")
        raise Misplaced(f"the node of its Cluster that holds the site can't be found: {'; '.join(silent)}")

    def _connect_by(self, node: Address) -> Connection:
        connection = connected(self._node(node))
        try:
            owner = self._owner(connection)
        except BaseException:
            connection.disconnect()
            raise
        if owner != address_of(connection):
            connection.disconnect()
            connection = connected(self._node(owner))
        self._last = owner
        return connection

    def has_moved(self, server: Address) -> bool:
        """Return False: a node that has lost the slot, or its Cluster, says so itself."""
        return False

    def is_elsewhere(self, server: Address, refusal: Exception) -> bool:
        """Return whether the node sends us on to another one."""
        if code_of(refusal) != "MOVED":
            return False
        # "MOVED 866 host:port", without a host where that is the same as this one's.
        host, _, port = str(refusal).split()[-1].rpartition(":")
        self._last = (host or server[0], int(port))
        return True

    def reopened(self) -> Cluster:
        """Return the same place."""
        return Cluster(self._url, key=self._key, timeout=self._timeout)

    def close(self) -> None:
        """Do nothing."""

    def _order(self) -> list[Address]:
        return list(dict.fromkeys([*([self._last] if self._last is not None else []), *self._named]))

    def _owner(self, connection: Connection) -> Address:
        """Return the node that holds the slot, by the one that is asked.

        Raises:
            Misplaced: It knows none.
        """
        slot = slot_of(self._key)
        for first, last, owner, *replicas in ask(connection, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                self.replicas = len(replicas)
                # No host: the one that was asked, as the node knows no other name of its own.
                host = bytes(owner[0] or b"").decode()
                return (connection.host if host in ("", "?") else host, int(owner[1]))
        raise Misplaced(f"it knows no node that holds the slot {slot}")


def slot_of(key: str) -> int:
    """Return the slot of a key, which is that of what its first braces hold.

    Source: Redis Cluster specification, "Hash tags".
    """
    tag, closed, _ = key.partition("{")[2].partition("}")
    return crc_hqx((tag if tag and closed else key).encode(), 0) % SLOTS
