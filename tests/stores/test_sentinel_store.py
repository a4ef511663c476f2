"""The store behind Sentinels: the contract, what happens when they fail over, and what they may say."""

from __future__ import annotations

import contextlib
import secrets
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from readonly import Switch, changes
from readonly.changes import Operator
from readonly.errors import ConfigurationError, StoreUnreachable
from readonly.record import Mode
from readonly.record_format import load
from readonly.site import Site
from readonly.stores import Store, redacted, store_from_url
from readonly.testing import StoreContract, put, settle
from support import missing
from support.missing import ServerMissing
from support.ports import free_port
from support.redis_server import RedisServer
from support.redis_topology import MEMBER, Topology
from support.waiting import eventually

pytest.importorskip("redis")

ANNA = Operator("anna", "here")
# Longer than any failover here takes, on a busy machine.
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def started() -> Iterator[Topology]:
    """One topology for all tests of this file."""
    try:
        topology = Topology()
    except ServerMissing as error:
        raise missing.outcome(error) from None
    yield topology
    topology.close()


@pytest.fixture
def topology(started: Topology) -> Iterator[Topology]:
    """The topology, whole before and after."""
    yield started
    started.heal()


class TestSentinelStore(StoreContract):
    """The contract."""

    @pytest.fixture(autouse=True)
    def _url(self, started: Topology) -> None:
        self.url = started.url()

    def make_store(self) -> Store:
        store = patient(self.url)
        followed(store)
        return store


def followed(store: Store) -> None:
    """Wait until the primary has its replica, which an earlier failover may have left on its way."""
    eventually(lambda: store.settled(1.0) == "", what="the replica following", ignoring=StoreUnreachable)


def patient(url: str) -> Store:
    """Return a store of which nobody asks how long it takes; all Sentinels together have no longer than one call."""
    return store_from_url(url, timeout=20.0)


class Members:
    """Processes of a site, each with a switch of its own; what they said is kept."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.switches: list[Switch] = []
        self.said: dict[Switch, list[Mode]] = {}

    def start(self, **settings: Any) -> Switch:
        """Start one more."""
        switch = Switch(patient(self.url), **{"interval": 0.2} | settings)
        said = self.said.setdefault(switch, [])
        switch.on_change(lambda state: said.append(state.mode))
        self.switches.append(switch)
        switch.start()
        return switch

    def become(self, mode: Mode) -> None:
        """Wait until all of them are so, and have said so."""
        eventually(
            lambda: all(switch.state.mode is mode and said[-1:] == [mode] for switch, said in self.said.items()),
            PATIENCE_SECONDS,
            what=f"all are {mode}",
        )

    def close(self) -> None:
        """End all."""
        for switch in self.switches:
            switch.close()


@pytest.fixture
def site(topology: Topology) -> Iterator[Members]:
    """An initialised site without a process."""
    members = Members(topology.url())
    with contextlib.closing(patient(members.url)) as store:
        changes.initialise(store, ANNA)
    yield members
    members.close()


# --- failovers --------------------------------------------------------------------------------------------


def test_a_failover_that_lost_the_last_write_opens_nothing(topology: Topology, site: Members) -> None:
    """The promoted replica never heard of `on`: those who did bring it back; a process that boots waits for them."""
    site.start()
    site.start()
    site.become(Mode.WRITABLE)
    with contextlib.closing(patient(site.url)) as store:
        followed(store)
        name = store.site
        old = topology.primary
        topology.isolate(old)
        epoch = site.switches[0].on(reason="migration", by="anna").epoch
        site.become(Mode.READ_ONLY)
        opened = [said.count(Mode.WRITABLE) for said in site.said.values()]
        assert "its replica is not connected" in store.settled(0.1)
        old.kill()
        killed = time.monotonic()
        with contextlib.closing(patient(topology.pinned(topology.other(old), name))) as replica:
            kept = replica.read().record
            assert kept is not None
            assert not load(kept).causes  # the acknowledged change is lost

        new = topology.failed_over(old)
        site.start()  # a process that knows nothing meets a store that is writable, or was a moment ago

        def restored() -> bool:
            with contextlib.suppress(StoreUnreachable):
                raw = store.read().record
                return raw is not None and [c.reason for c in load(raw).causes] == ["migration"]
            return False

        eventually(restored, PATIENCE_SECONDS, what="the cause is in the new primary")
        reading = store.read()
        assert reading.incarnation_seconds <= time.monotonic() - killed
        assert load(reading.record or b"").epoch > epoch
        assert store._commands.address == ("127.0.0.1", new.port)  # type: ignore[attr-defined]
        site.become(Mode.READ_ONLY)

    found = Site(Switch(patient(site.url))).wait(timeout=0.0)
    assert not found.safe
    topology.heal()
    found = Site(Switch(patient(site.url))).wait(timeout=PATIENCE_SECONDS)
    assert found.safe, found.missing
    assert len(found.members) == 3
    assert [said.count(Mode.WRITABLE) for said in site.said.values()] == [*opened, 0]


def test_an_old_primary_that_is_cut_off_renews_no_lease(topology: Topology, site: Members) -> None:
    """With min-replicas-to-write it refuses reports; whoever is refused is with the new primary soon after."""
    for server in topology.servers:
        server.command("CONFIG", "SET", "min-replicas-to-write", "1")
    switch = site.start(lease=30.0)
    site.become(Mode.WRITABLE)
    old = topology.primary
    with contextlib.closing(patient(site.url)) as store:
        assert not [w for w in store.warnings() if "min-replicas-to-write" in w]
        name = store.site
    before = ends(switch)
    assert not has_left(old, before)
    topology.isolate(old)
    with contextlib.closing(patient(topology.pinned(old, name))) as pinned:
        with pytest.raises(StoreUnreachable, match="it has too few replicas"):
            pinned.report("m", b"{}", keep_seconds=60)
        assert pinned.read().record is not None  # it still answers those who only read
    new = topology.failed_over(old)
    new.command("CONFIG", "SET", "min-replicas-to-write", "0")  # its only replica is cut off with the old primary
    _is_there(switch, new, topology, name)
    eventually(lambda: has_left(old, before), PATIENCE_SECONDS, what="nothing is left at the old primary")
    assert switch.state.mode is Mode.WRITABLE


def test_without_min_replicas_the_library_says_so_and_looks_for_itself(topology: Topology, site: Members) -> None:
    """An old primary that is cut off goes on taking reports; members ask the Sentinels and leave it all the same."""
    switch = site.start(lease=30.0)
    site.become(Mode.WRITABLE)
    old = topology.primary
    with contextlib.closing(patient(site.url)) as store:
        assert [w for w in store.warnings() if "set min-replicas-to-write 1" in w]
        name = store.site
    before = ends(switch)
    assert not has_left(old, before)
    topology.isolate(old)
    new = topology.failed_over(old)
    with contextlib.closing(patient(topology.pinned(old, name))) as pinned:
        assert pinned.report("m", b"{}", keep_seconds=60).record is not None  # this is why it is warned of
    with contextlib.closing(patient(site.url)) as store:
        changes.turn_on(store, ANNA, reason="after the failover")
    eventually(lambda: "after the failover" in switch.state.reason, PATIENCE_SECONDS, what="the member hears of it")
    _is_there(switch, new, topology, name)
    eventually(lambda: has_left(old, before), PATIENCE_SECONDS, what="nothing is left at the old primary")


def _is_there(switch: Switch, server: RedisServer, topology: Topology, name: str) -> None:
    """Wait until a member reports to this very server."""
    with contextlib.closing(patient(topology.pinned(server, name))) as pinned:
        first = pinned.read().at
        eventually(
            lambda: [s for s in pinned.census().reports if s.member == switch._follower().member and s.at > first],
            PATIENCE_SECONDS,
            what="the member reports to the new primary",
        )


def ends(switch: Switch) -> list[str]:
    """Return the process's ends of its two connections, as the server names them."""
    store: Any = switch._follower().store
    eventually(lambda: store._commands is not None and store._listener is not None, PATIENCE_SECONDS)
    sockets = (store._commands.connection._sock, store._listener.connection._sock)
    return [f" addr=127.0.0.1:{one.getsockname()[1]} " for one in sockets]


def has_left(server: RedisServer, before: list[str]) -> bool:
    """Return whether none of these connections is open at the server."""
    there = server.command("CLIENT", "LIST")
    return not any(end in there for end in before)


# --- what Sentinels say -----------------------------------------------------------------------------------


class FakeSentinel:
    """Says what it is told to, and counts how often it was asked."""

    def __init__(self, name: Callable[[], tuple[int, int]] | None) -> None:
        """Begin; `name` returns the primary's port and the failover it is from, or None to never answer."""
        self.asked = 0
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    while line := self.rfile.readline():
                        given = [self._word() for _ in range(int(line[1:]))]
                        outer._answer(given, self.wfile.write)

            def _word(self) -> str:
                return self.rfile.read(int(self.rfile.readline()[1:]) + 2).decode().rstrip()

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._name = name
        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def _answer(self, given: list[str], write: Callable[[bytes], object]) -> None:
        if given[0] != "SENTINEL":
            write(b"+OK\r\n")
            return
        if self._name is None:
            return
        self.asked += 1
        port, failover = self._name()
        words = ["127.0.0.1", str(port)]
        if given[1] == "MASTER":
            words = ["name", given[2], "config-epoch", str(failover), "num-slaves", "1"]
        write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@contextlib.contextmanager
def sentinels(*names: Callable[[], tuple[int, int]] | None) -> Iterator[list[FakeSentinel]]:
    """Have so many fake Sentinels."""
    made = [FakeSentinel(name) for name in names]
    yield made
    for one in made:
        one.close()


def url_of(*ports: int, options: str = "") -> str:
    """Return the URL of a store behind Sentinels on these ports."""
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"redis+sentinel://{hosts}/flags?site=test-{secrets.token_hex(6)}{options}"


def behind(*asked: FakeSentinel, options: str = "") -> contextlib.closing[Store]:
    """Return a store behind these, to be closed; it has patience, since nothing is measured."""
    return contextlib.closing(store_from_url(url_of(*(one.port for one in asked), options=options), timeout=10))


@pytest.fixture
def two(redis_server: RedisServer, own_redis: RedisServer) -> tuple[int, int]:
    """The ports of two servers that both are primaries."""
    return redis_server.port, own_redis.port


def where(store: Store) -> int:
    """Read, and return the port of the server that answered."""
    store.read()
    port: int = store._commands.address[1]  # type: ignore[attr-defined]
    return port


def test_the_latest_failover_wins_where_sentinels_disagree(two: tuple[int, int]) -> None:
    """One that is cut off together with an old primary goes on naming that."""
    old, new = two
    with sentinels(lambda: (old, 1), lambda: (new, 2)) as (stale, current):
        for _ in range(4):
            with behind(stale, current) as store:
                assert where(store) == new


def test_sentinels_that_do_not_answer_are_done_without(two: tuple[int, int]) -> None:
    """One that is gone and one that hangs cost some time, within what a call may take."""
    with sentinels(None, lambda: (two[0], 1)) as (hangs, answers):
        url = url_of(free_port(), hangs.port, answers.port)
        with contextlib.closing(store_from_url(url, timeout=6)) as store:
            began = time.monotonic()
            assert where(store) == two[0]
            assert time.monotonic() - began < 60


def test_without_a_sentinel_there_is_no_store(two: tuple[int, int]) -> None:
    """Each of them is named, with what is the matter."""
    gone = free_port()
    with (
        sentinels(None) as (hangs,),
        contextlib.closing(store_from_url(url_of(gone, hangs.port), timeout=0.4)) as store,
    ):
        with pytest.raises(StoreUnreachable, match="none of its Sentinels says where 'flags' is") as caught:
            store.read()
        assert f"127.0.0.1:{gone}: it can't be reached" in str(caught.value)
        assert f"127.0.0.1:{hangs.port}: it did not answer within 0.2 s" in str(caught.value)


def test_sentinels_that_are_lost_later_close_nothing(two: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that was found is asked as before."""
    monkeypatch.setattr("readonly.stores.redis_sentinel.LOOK_SECONDS", 0.0)
    with sentinels(lambda: (two[1], 1)) as (only,):
        store = store_from_url(url_of(only.port), timeout=10)
        put(store, b"1")
    for _ in range(6):
        assert store.read().record == b"1"
    store.close()


def test_looking_again_costs_next_to_nothing(two: tuple[int, int]) -> None:
    """However many calls there are, a Sentinel is asked once in a while, over a connection that is kept."""
    with (
        sentinels(lambda: (two[1], 1)) as (only,),
        behind(only) as store,
    ):
        store.read()
        before, began = only.asked, time.monotonic()
        for _ in range(200):
            store.read()
        assert only.asked - before <= 2 + (time.monotonic() - began)


def test_every_sentinel_is_asked_in_time(two: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale one does not hide the others for long; and it moves nobody back."""
    monkeypatch.setattr("readonly.stores.redis_sentinel.LOOK_SECONDS", 0.0)
    old, new = two
    told = {"now": (old, 1)}
    with (
        sentinels(lambda: (old, 1), lambda: told["now"], lambda: told["now"]) as found,
        behind(*found) as store,
    ):
        assert where(store) == old
        settle(store)
        told["now"] = (new, 2)
        assert new in [where(store) for _ in range(20)]
        assert store.wait(60) is True  # hints come from the new one: that is a new subscription
        assert {where(store) for _ in range(20)} == {new}
        assert store.wait(0.05) is False


def test_a_primary_that_is_a_replica_is_not_believed(two: tuple[int, int], own_redis: RedisServer) -> None:
    """Sentinels hear of a failover one after the other; what counts is what the server says of itself."""
    with (
        sentinels(lambda: (two[1], 1)) as (only,),
        behind(only) as store,
    ):
        put(store, b"1")
        own_redis.command("REPLICAOF", "127.0.0.1", str(free_port()))
        with pytest.raises(StoreUnreachable, match="it is a replica and takes no writes"):
            store.report("m", b"{}", keep_seconds=60)
        store.close()
        with pytest.raises(StoreUnreachable, match="is a replica: a failover is under way"):
            store.read()


def test_a_demoted_primary_is_left_in_the_same_call(two: tuple[int, int], own_redis: RedisServer) -> None:
    """It refuses the write without having done anything; the new one takes it."""
    told = {"now": (two[1], 1)}
    with (
        sentinels(lambda: told["now"]) as (only,),
        behind(only, options="&db=1") as store,
    ):
        store.report("m", b"{}", keep_seconds=60)
        own_redis.command("REPLICAOF", "127.0.0.1", str(free_port()))
        told["now"] = (two[0], 2)
        assert store.report("m", b"{}", keep_seconds=60).incarnation_seconds < 60
        assert store._commands.address[1] == two[0]  # type: ignore[attr-defined]
        store.forget("m")


def test_a_real_sentinel_that_knows_no_such_service(started: Topology) -> None:
    """It is said which service was asked for."""
    url = started.url("shop").replace(f"/{Topology.service}?", "/other?")
    with contextlib.closing(patient(url)) as store, pytest.raises(StoreUnreachable, match="no such service"):
        store.read()


def test_a_url_of_one_server_that_is_a_sentinel_says_what_to_write(started: Topology) -> None:
    """A slip that is made easily."""
    url = f"redis://127.0.0.1:{started.sentinels[0].port}/0?site=shop"
    with contextlib.closing(patient(url)) as store, pytest.raises(StoreUnreachable, match=r"write redis\+sent"):
        store.read()


def test_passwords_of_servers_and_sentinels_are_two(started: Topology) -> None:
    """The URL's own is the servers'; that of the Sentinels is in the query. Neither is shown."""
    for sentinel in started.sentinels:
        sentinel.command("ACL", "SETUSER", "default", "resetpass", ">w4tch")
    try:
        url = started.url("shop")
        store = store_from_url(url)
        with pytest.raises(StoreUnreachable, match="it wants another password: end the URL with &sentinel_password="):
            store.read()
        url += "&sentinel_password=w4tch"
        with contextlib.closing(patient(url)) as store:
            assert store.read().record is None
        assert "w4tch" not in redacted(url)
        assert MEMBER[1] not in redacted(url)
    finally:
        for sentinel in started.sentinels:
            sentinel.login = ("default", "w4tch")
            sentinel.command("ACL", "SETUSER", "default", "nopass")
            sentinel.login = None


# --- URLs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+sentinel://a,b?site=shop", "does not name a service"),
        ("redis+sentinel://a,b/flags/0?site=shop", "does not name a service"),
        ("redis+sentinel://a,,b/flags?site=shop", "number 2 of what it names is no address"),
        ("redis+sentinel://a:b/flags?site=shop", "number 1 of what it names is no address"),
        ("redis+sentinel://a/flags?site=shop&db=x", "db='x' is no database number"),
        ("redis+sentinel://a/flags?site=shop&colour=blue", "colour"),
        ("redis+sentinel://a/flags?site=shop&socket_timeout=60", "socket_timeout= is this library's to choose"),
        ("redis+sentinel://a/flags", "does not name one site"),
    ],
)
def test_a_url_that_can_not_be_right_is_refused_when_the_store_is_made(url: str, says: str) -> None:
    """Start-up stops and names it; nobody is asked."""
    with pytest.raises(ConfigurationError, match=says):
        store_from_url(url)


def test_what_a_url_says_reaches_the_connections() -> None:
    """Hosts with and without ports, also of IPv6; both passwords; the database; TLS for both."""
    store = store_from_url(
        "rediss+sentinel://u:p%40@a,[::1]:7/my%20flags?site=shop&db=3&sentinel_username=s&sentinel_password=q&ssl_cert_reqs=none"
    )
    place = store._place  # type: ignore[attr-defined]
    assert sorted(place._sentinels) == [("::1", 7), ("a", 26379)]
    assert place._service == "my flags"
    server, sentinel = place._server(("h", 1)), place._sentinel(("h", 2))
    assert (server.host, server.port, server.db, server.username, server.password) == ("h", 1, 3, "u", "p@")
    assert (sentinel.host, sentinel.port, sentinel.db, sentinel.username, sentinel.password) == ("h", 2, 0, "s", "q")
    assert {type(server).__name__, type(sentinel).__name__} == {"SSLConnection"}


def test_a_forked_child_asks_for_itself(two: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection to a Sentinel is not shared either."""
    from readonly.testing import in_child

    monkeypatch.setattr("readonly.stores.redis_sentinel.LOOK_SECONDS", 0.0)
    with (
        sentinels(lambda: (two[1], 1)) as (only,),
        behind(only) as store,
    ):
        put(store, b"1")
        store.read()
        mine = store._place._asked  # type: ignore[attr-defined]
        assert isinstance(mine._sock, socket.socket)

        def child() -> None:
            for _ in range(5):
                assert store.read().record == b"1"
            assert store._place._asked is not mine  # type: ignore[attr-defined]
            store.close()

        in_child(child)
        assert store.read().record == b"1"
