"""Redis as it is run by those who can't do without it: a primary, a replica and three Sentinels; nodes of a Cluster."""

from __future__ import annotations

import contextlib
import secrets

from support.ports import free_port
from support.redis_server import CommandRefused, RedisServer, SentinelServer
from support.waiting import eventually

# Sentinels and replicas come as the default user, members as this one, so that a server can be cut off from the
# former while the latter keep their connections.
MEMBER = ("member", "s3cret")
QUORUM = 2
# A machine that does much else stands still for seconds: only where a test wants a failover is one begun at once.
PATIENT_MS, DOWN_AFTER_MS = 600_000, 500


def words(reply: str) -> list[str]:
    """Return the strings and numbers of a raw reply."""
    return [line.lstrip(":+") for line in reply.split("\r\n") if not line.startswith(("$", "*", "%", "~"))]


def fields(reply: str) -> dict[str, str]:
    """Return a raw reply of names and values, one after the other."""
    found = words(reply)
    return dict(zip(found[::2], found[1::2], strict=False))


class Topology:
    """Two servers of which one is the primary, and three Sentinels that fail over to the other one."""

    service = "flags"

    def __init__(self, *, down_after_ms: int = PATIENT_MS) -> None:
        """Start all of it, and return when every Sentinel knows the others and the replica.

        Args:
            down_after_ms: After how long Sentinels take a server for dead, outside of `failed_over`.

        Raises:
            ServerMissing: If there is no program to run.
        """
        self._down_after_ms = down_after_ms
        self.servers = [_server(), _server()]
        self.sentinels: list[SentinelServer] = []
        try:
            primary, replica = (server.start() for server in self.servers)
            replica.command("REPLICAOF", "127.0.0.1", str(primary.port))
            eventually(lambda: online(primary), 20, what="the replica follows")
            for _ in range(3):
                self.sentinels.append(_sentinel(self.service, primary.port, down_after_ms))
                self.sentinels[-1].start()
            eventually(self._is_known, 30, what="the Sentinels know each other and the replica")
        except BaseException:
            self.close()
            raise

    def url(self, site: str | None = None) -> str:
        """Return the store's URL for a site; without one, for a new name that no other test uses."""
        where = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return (
            f"redis+sentinel://{':'.join(MEMBER)}@{where}/{self.service}?site={site or f'test-{secrets.token_hex(6)}'}"
        )

    @staticmethod
    def pinned(server: RedisServer, site: str) -> str:
        """Return the URL of that very server, whatever the Sentinels say."""
        return f"redis://{':'.join(MEMBER)}@127.0.0.1:{server.port}/0?site={site}"

    @property
    def primary(self) -> RedisServer:
        """The primary, as most Sentinels name it."""
        named = [words(s.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service))[-1] for s in self.sentinels]
        port = max(named, key=named.count)
        return next(server for server in self.servers if str(server.port) == port)

    def other(self, server: RedisServer) -> RedisServer:
        """Return the server that is not this one."""
        return next(one for one in self.servers if one is not server)

    def isolate(self, server: RedisServer) -> None:
        """Cut a server off from Sentinels and replica; members keep their connections, and may make new ones."""
        server.login = MEMBER
        server.command("ACL", "SETUSER", "default", "off")
        server.command("CLIENT", "KILL", "USER", "default")
        eventually(lambda: not online(server), 5, what="the replica is cut off")

    def failed_over(self, old: RedisServer) -> RedisServer:
        """Have the Sentinels fail over; return the other server once all of them name it, and it takes writes."""
        new = self.other(old)
        self._take_for_down_after(DOWN_AFTER_MS)

        def done() -> bool:
            named = [words(s.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service))[-1] for s in self.sentinels]
            return set(named) == {str(new.port)} and "role:master" in new.command("INFO", "replication")

        eventually(done, 60, what="the Sentinels fail over")
        return new

    def heal(self) -> None:
        """Have everything run and follow as in the beginning, whichever server is the primary."""
        self._take_for_down_after(self._down_after_ms)
        for server in self.servers:
            if not server.running:
                server.login = None
                server.restart()
            server.command("CONFIG", "SET", "min-replicas-to-write", "0")
            server.command("ACL", "SETUSER", "default", "on", "nopass")
            server.login = None
        primary = self.primary
        replica = self.other(primary)
        eventually(lambda: "role:master" in primary.command("INFO", "replication"), 30, what="the primary is one")
        # Sentinels do this, too, after ten seconds or so.
        replica.command("REPLICAOF", "127.0.0.1", str(primary.port))
        eventually(lambda: online(primary), 30, what="the replica follows")
        eventually(self._reach_all, 60, what="the Sentinels reach all that is there")

    def _take_for_down_after(self, milliseconds: int) -> None:
        for sentinel in self.sentinels:
            sentinel.command("SENTINEL", "SET", self.service, "down-after-milliseconds", str(milliseconds))

    def _is_known(self) -> bool:
        told = [fields(s.command("SENTINEL", "MASTER", self.service)) for s in self.sentinels]
        below = [fields(s.command("SENTINEL", "REPLICAS", self.service)) for s in self.sentinels]
        return (
            {one.get("num-other-sentinels") for one in told} == {"2"}
            and {one.get("master-link-status") for one in below} == {"ok"}
            and self._reach_all()
        )

    def _reach_all(self) -> bool:
        told = [fields(s.command("SENTINEL", "MASTER", self.service)) for s in self.sentinels]
        below = [fields(s.command("SENTINEL", "REPLICAS", self.service)) for s in self.sentinels]
        return {one.get("flags") for one in told} == {"master"} and {one.get("flags") for one in below} == {"slave"}

    def close(self) -> None:
        """End everything; may be called twice."""
        for server in (*self.sentinels, *self.servers):
            server.close()


def _server() -> RedisServer:
    user, password = MEMBER
    return RedisServer(
        *("--repl-diskless-sync-delay", "0"), *("--user", user, "on", f">{password}", "~*", "&*", "+@all")
    )


def _sentinel(service: str, port: int, down_after_ms: int) -> SentinelServer:
    return SentinelServer(
        f"sentinel monitor {service} 127.0.0.1 {port} {QUORUM}",
        f"sentinel down-after-milliseconds {service} {down_after_ms}",
        # Twice this long after a failover the next one may begin.
        f"sentinel failover-timeout {service} 2000",
    )


def online(primary: RedisServer) -> bool:
    """Return whether a replica follows this server."""
    return "state=online" in primary.command("INFO", "replication")


# --- Cluster ---------------------------------------------------------------------------------------------------------

SLOTS = 16384


class Node(RedisServer):
    """A node of a Cluster. It serves nothing before it has slots."""

    def __init__(self) -> None:
        """Prepare it; nothing runs until `start`."""
        port = free_port(beside=10_000)  # where nodes talk to each other
        super().__init__("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", port=port)

    @property
    def id(self) -> str:
        """Its name in the Cluster."""
        return words(self.command("CLUSTER", "MYID"))[-1]

    def own_all(self) -> Node:
        """Take all slots; it takes two seconds or so until they are served."""
        self.command("CLUSTER", "ADDSLOTS", *map(str, range(SLOTS)))
        return self

    def serves(self) -> None:
        """Wait until it says that all slots are served."""

        def ok() -> bool:
            with contextlib.suppress(CommandRefused):
                return "cluster_state:ok" in self.command("CLUSTER", "INFO")
            return False

        eventually(ok, 20, what="the Cluster is up")

    def meet(self, other: Node) -> None:
        """Make one Cluster of two that take each other for alive, and wait until both serve all slots."""
        self.command("CLUSTER", "MEET", "127.0.0.1", str(other.port))
        for node in (self, other):
            eventually(lambda node=node: "cluster_known_nodes:2" in node.command("CLUSTER", "INFO"), 20)  # type: ignore[misc]
            node.serves()
            # Only now, since a short one makes it begin soon: a machine that does much else stands still for seconds.
            node.command("CONFIG", "SET", "cluster-node-timeout", "600000")

    def give(self, slot: int, other: Node) -> None:
        """Hand a slot over to another node, without what is in it."""
        self.command("FLUSHALL")
        for node in (other, self):
            node.command("CLUSTER", "SETSLOT", str(slot), "NODE", other.id)
