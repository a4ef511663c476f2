"""The store in a Redis Cluster: the contract, and slots that move."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

import pytest

from readonly.errors import ConfigurationError, StoreUnreachable
from readonly.stores import Store, store_from_url
from readonly.stores.redis_cluster import slot_of
from readonly.testing import StoreContract, Waiter, put, settle
from support import missing
from support.missing import ServerMissing
from support.ports import free_port
from support.redis_topology import Node

pytest.importorskip("redis")


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Node, Node]]:
    """A Cluster of two nodes; the first one holds all slots, but those that a test hands over."""
    try:
        pair = (Node(), Node())
    except ServerMissing as error:
        raise missing.outcome(error) from None
    try:
        for node in pair:
            node.start()
        pair[0].own_all().meet(pair[1])
        yield pair
    finally:
        for node in pair:
            node.close()


def url_of(*ports: int, site: str = "") -> str:
    """Return the URL of a store in the Cluster of these nodes, of a site that no other test uses."""
    where = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"redis+cluster://{where}?site={site or f'test-{secrets.token_hex(6)}'}"


def patient(url: str) -> Store:
    """Return a store of which nobody asks how long it takes."""
    return store_from_url(url, timeout=20.0)


class TestClusterStore(StoreContract):
    """The contract, with only the node named that does not hold the site."""

    @pytest.fixture(autouse=True)
    def _url(self, nodes: tuple[Node, Node]) -> None:
        self.url = url_of(nodes[1].port)

    def make_store(self) -> Store:
        return patient(self.url)


def where(store: Store) -> int:
    """Return the port of the node that answered last."""
    port: int = store._commands.address[1]  # type: ignore[attr-defined]
    return port


@pytest.mark.parametrize("key", ["readonly:{shop}:state", "readonly:{a-b.c_1}:log:history", "plain", "{}x{y}", "a{b"])
def test_slots_are_those_of_the_server(nodes: tuple[Node, Node], key: str) -> None:
    """One wrong bit and every call would be sent on."""
    assert nodes[0].command("CLUSTER", "KEYSLOT", key) == f":{slot_of(key)}"


def test_a_site_whose_slot_moves_is_followed(nodes: tuple[Node, Node]) -> None:
    """In the same call; the new node is young and holds nothing, so that members write back what they know."""
    first, second = nodes
    store = patient(url_of(first.port))
    put(store, b"1")
    store.report("m", b"{}", keep_seconds=60)
    settle(store)
    assert where(store) == first.port
    first.give(slot_of(store._keys[0]), second)  # type: ignore[attr-defined]
    reading = store.report("m", b"{}", keep_seconds=60)
    assert where(store) == second.port
    assert (reading.record, reading.members) == (None, 1)
    assert reading.incarnation_seconds < 60
    assert store.wait(60) is True  # subscribed anew
    settle(store)
    waiter = Waiter(store)
    with contextlib.closing(store.reopened()) as other:
        assert other.replace(b"2", was=None).record == b"2"
        assert where(other) == second.port
    assert waiter.result() is True
    store.append("history", b"x", keep=3)
    assert store.entries("history", last=3) == (b"x",)
    store.close()


def test_while_keys_are_on_their_way_calls_fail_and_change_nothing(nodes: tuple[Node, Node]) -> None:
    """No node has all of them; when the slot has moved, or stays, the store answers again."""
    first, second = nodes
    with contextlib.closing(patient(url_of(first.port))) as store:
        put(store, b"1")
        slot = str(slot_of(store._keys[0]))  # type: ignore[attr-defined]
        first.command("CLUSTER", "SETSLOT", slot, "MIGRATING", second.id)
        try:
            with pytest.raises(StoreUnreachable, match="moving the site's keys to another node"):
                store.report("m", b"{}", keep_seconds=60)
            with pytest.raises(StoreUnreachable, match="moving the site's keys to another node"):
                store.entries("history", last=3)
        finally:
            first.command("CLUSTER", "SETSLOT", slot, "STABLE")
        assert store.report("m", b"{}", keep_seconds=60).record == b"1"


def test_nodes_that_are_gone_are_done_without(nodes: tuple[Node, Node]) -> None:
    """Any node that is named and there will do; if none is, each is named with what is the matter."""
    gone = [free_port(), free_port()]
    with contextlib.closing(patient(url_of(*gone, nodes[1].port))) as store:
        assert store.read().record is None
        assert where(store) == nodes[0].port
    with contextlib.closing(patient(url_of(*gone))) as store:
        with pytest.raises(
            StoreUnreachable, match="the node of its Cluster that holds the site can't be found"
        ) as caught:
            store.read()
        assert all(f"127.0.0.1:{port}: it can't be reached" in str(caught.value) for port in gone)


def test_a_url_of_one_server_that_is_a_node_says_what_to_write(nodes: tuple[Node, Node]) -> None:
    """A slip that is made easily."""
    store = patient(f"redis://127.0.0.1:{nodes[1].port}/0?site=shop")
    with pytest.raises(StoreUnreachable, match=r"it is a node of a Cluster: write redis\+cluster://"):
        store.read()
    store.close()


def test_a_cluster_without_the_slot_is_down(nodes: tuple[Node, Node]) -> None:
    """A node that nobody gave slots."""
    node = Node()
    try:
        node.start()
        store = patient(url_of(node.port))
        with pytest.raises(StoreUnreachable, match="it knows no node that holds the slot"):
            store.read()
    finally:
        node.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+cluster://a:1,b:2/3?site=shop", "a Cluster has the database 0 only"),
        ("redis+cluster://?site=shop", "number 1 of what it names is no address"),
        ("redis+cluster://a?site=shop&colour=blue", "colour"),
        ("redis+cluster://a?site=shop&db=1", "db= is this library's to choose"),
    ],
)
def test_a_url_that_can_not_be_right_is_refused_when_the_store_is_made(url: str, says: str) -> None:
    """Start-up stops and names it; nobody is asked."""
    with pytest.raises(ConfigurationError, match=says):
        store_from_url(url)


def test_what_a_url_says_reaches_the_connections() -> None:
    """Hosts with and without ports, the password, TLS."""
    place = store_from_url("rediss+cluster://u:p@a,b:7/0?site=shop&ssl_cert_reqs=none")._place  # type: ignore[attr-defined]
    assert sorted(place._named) == [("a", 6379), ("b", 7)]
    made = place._node(("a", 6379))
    assert (made.host, made.username, made.password, type(made).__name__) == ("a", "u", "p", "SSLConnection")
