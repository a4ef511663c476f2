"""The Redis store on a real server: the contract, and what happens to servers and connections."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from readonly.errors import ConfigurationError, StoreUnreachable
from readonly.stores import ENDED_SECONDS, Store, store_from_url
from readonly.testing import StoreContract, Waiter, put, settle, tick
from support.redis_server import RedisServer
from support.waiting import eventually

pytest.importorskip("redis")
# For one answer of a server that is there, on a machine that does much else.
PATIENT_SECONDS = 20.0
redis_connection: Any = importlib.import_module("readonly.stores.redis_connection")


class TestRedisStore(StoreContract):
    """The contract."""

    @pytest.fixture(autouse=True)
    def _url(self, redis_url: str) -> None:
        self.url = redis_url

    def make_store(self) -> Store:
        return store_from_url(self.url, timeout=PATIENT_SECONDS)


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    """A store on the server that tests share."""
    made = store_from_url(redis_url, timeout=PATIENT_SECONDS)
    yield made
    made.close()


@pytest.fixture
def own_store(own_redis: RedisServer) -> Iterator[Store]:
    """A store on a server of this test alone."""
    made = store_from_url(own_redis.url("shop"), timeout=PATIENT_SECONDS)
    yield made
    made.close()


@pytest.fixture
def hasty(own_redis: RedisServer) -> Iterator[Store]:
    """Another one on that server, for what is not answered at all: of it alone is asked how long that takes."""
    made = store_from_url(own_redis.url("shop"), timeout=0.3)
    yield made
    made.close()


@pytest.fixture
def pinging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the watchdog ask often; it takes nothing for dead that only takes its time."""
    monkeypatch.setattr("readonly.stores.redis_listening.PING_SECONDS", 0.05)
    monkeypatch.setattr("readonly.stores.redis_listening.DEAD_SECONDS", PATIENT_SECONDS)


def aged(store: Store) -> float:
    """Return the age of the store's incarnation, once it has one that shows."""
    store.report("m", b"{}", keep_seconds=60)
    return eventually(lambda: age if (age := store.read().incarnation_seconds) > 0.1 else 0.0)


# --- keys and connections ---------------------------------------------------------------------------------


def test_the_keys_of_a_site_share_one_slot_and_one_prefix(own_redis: RedisServer, own_store: Store) -> None:
    """Everything is below readonly:{site}:, so that a Cluster has it in one place and an operator can find it."""
    put(own_store, b"1", "a")
    own_store.report("m", b"{}", keep_seconds=60)
    own_store.append("history", b"x", keep=5)
    names = {word for word in own_redis.command("KEYS", "*").split() if not word.startswith(("$", "*"))}
    assert names == {
        "readonly:{shop}:" + name
        for name in ("state", "members", "seen", "ring", "living", "until", "incarnation", "log:history")
    }


def test_who_has_been_silent_for_long_is_registered_and_not_counted(own_redis: RedisServer, own_store: Store) -> None:
    """Of the roster of a week most have left: intervals go by those who are there."""
    for name in ("old", "new"):
        own_store.report(name, b"{}", keep_seconds=86400.0)
    long_ago = f"{(own_store.read().at.timestamp() - 3600) * 1000:.0f}"
    own_redis.command("ZADD", "readonly:{shop}:seen", long_ago, "old")
    assert own_store.read().members == own_store.report("new", b"{}", keep_seconds=86400.0).members == 1
    assert [seen.member for seen in own_store.census().reports] == ["new", "old"]


def test_how_long_who_is_silent_is_remembered(own_redis: RedisServer, own_store: Store) -> None:
    """A process that has ended as long as what it had begun may commit; one that stands still until it is dropped."""
    own_store.report("ended", b"{}", keep_seconds=86400.0, ended=True)
    own_store.report("still", b"{}", keep_seconds=86400.0)
    assert own_store.report("a", b"{}", keep_seconds=86400.0).neighbours == ("ended", "still")
    long_ago = f"{(own_store.read().at.timestamp() - ENDED_SECONDS - 1) * 1000:.0f}"
    own_redis.command("ZADD", "readonly:{shop}:seen", long_ago, "ended", long_ago, "still")
    own_redis.command("ZADD", "readonly:{shop}:living", long_ago, "still")
    assert own_store.report("a", b"{}", keep_seconds=86400.0).neighbours == ("still",)
    # The ring is walked by every report: whoever is not remembered any more is met once.
    assert "ended" not in own_redis.command("ZRANGE", "readonly:{shop}:ring", "0", "-1").split()
    assert [seen.member for seen in own_store.silent(longer_than=60.0, shorter_than=86400.0)] == ["still"]


def test_two_connections_and_none_after_closing(own_redis: RedisServer, own_store: Store) -> None:
    """One for commands, one that listens; both are gone when the store is closed."""
    eventually(lambda: clients(own_redis) == 0)
    put(own_store, b"1")
    settle(own_store, for_reports=True)
    settle(own_store)
    eventually(lambda: clients(own_redis) == 2)
    own_store.close()
    eventually(lambda: clients(own_redis) == 0)


def clients(server: RedisServer) -> int:
    """Return how many connections the server has, beside the one that asks."""
    return server.command("CLIENT", "LIST").count(" addr=") - 1


def test_sites_on_one_server_are_apart(own_redis: RedisServer) -> None:
    """Also in one database; and the same site in two databases is two."""
    urls = [own_redis.url("shop"), own_redis.url("news"), own_redis.url("shop", database=3)]
    stores = [store_from_url(url) for url in urls]
    for number, store in enumerate(stores):
        put(store, b"%d" % number)
        store.report(f"m{number}", b"{}", keep_seconds=60)
    for number, store in enumerate(stores):
        census = store.census()
        assert (census.reading.record, [seen.member for seen in census.reports]) == (b"%d" % number, [f"m{number}"])
        store.close()


def test_a_change_is_heard_at_once(store: Store) -> None:
    """A hint is an event: the quickest of twenty took no time in which somebody could have looked by a clock."""
    listener = store.reopened()
    settle(listener)
    took = []
    for number in range(20):
        waiter = Waiter(listener)
        began = time.perf_counter()
        put(store, b"%d" % number)
        assert waiter.result() is True
        took.append(time.perf_counter() - began)
    listener.close()
    assert min(took) < 0.05


def test_a_flushed_script_cache_costs_nothing(own_redis: RedisServer, own_store: Store) -> None:
    """SCRIPT FLUSH, a restart and a failover forget scripts; the call that meets it sends the script again."""
    put(own_store, b"1")
    own_redis.command("SCRIPT", "FLUSH")
    assert own_store.read().record == b"1"
    assert put(own_store, b"2").record == b"2"


def test_a_connection_that_the_server_closed_is_made_again(own_redis: RedisServer, own_store: Store) -> None:
    """An idle connection that is gone is no failure."""
    put(own_store, b"1")
    own_redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert own_store.read().record == b"1"


def test_a_member_of_which_half_is_lost_is_still_shown(own_redis: RedisServer, own_store: Store) -> None:
    """A server that evicts keys takes no member silently off the list of those that "safe" asks for."""
    own_store.report("m", b"{}", keep_seconds=60)
    own_redis.command("DEL", "readonly:{shop}:members")
    (seen,) = own_store.census().reports
    assert (seen.member, seen.report) == ("m", b"")
    own_store.report("m", b"{}", keep_seconds=60)
    own_redis.command("DEL", "readonly:{shop}:seen")
    (seen,) = own_store.census().reports
    assert (seen.member, seen.report, seen.at.year) == ("m", b"{}", 1970)


# --- a server that forgets --------------------------------------------------------------------------------


def test_flushall_makes_it_young_and_empty(own_redis: RedisServer, own_store: Store) -> None:
    """No record, no members, no times of causes, and an incarnation that has only begun."""
    put(own_store, b"1", "a")
    age = aged(own_store)
    own_redis.flush()
    assert own_store.read().incarnation_seconds == 0
    census = own_store.census()
    assert (census.reading.record, census.reports, dict(census.reading.here_since)) == (None, (), {})
    assert own_store.report("m", b"{}", keep_seconds=60).incarnation_seconds < age
    assert own_store.replace(b"1", was=None, causes=["a"]).record == b"1"
    assert own_store.census().reading.here_since["a"] >= census.reading.at.replace(microsecond=0)


def test_a_record_that_was_deleted_alone_takes_the_times_with_it(own_redis: RedisServer, own_store: Store) -> None:
    """A cause that comes back has been here since now, not since before."""
    put(own_store, b"1", "a")
    before = own_store.census().reading.here_since["a"]
    tick(own_store)
    own_redis.command("HDEL", "readonly:{shop}:state", "record")
    assert own_store.replace(b"1", was=None, causes=["a"]).record == b"1"
    assert own_store.census().reading.here_since["a"] > before


def test_a_restart_without_persistence_is_a_hint(own_redis: RedisServer, own_store: Store) -> None:
    """While the server is down, calls and waits fail; once it is back, the next wait is a hint."""
    put(own_store, b"1")
    age = aged(own_store)
    waiter = Waiter(own_store)
    own_redis.kill()
    with pytest.raises(StoreUnreachable, match="can't be reached"):
        waiter.result()
    with pytest.raises(StoreUnreachable, match="can't be reached"):
        own_store.read()
    own_redis.restart()
    assert own_store.wait(60) is True
    reading = own_store.report("m", b"{}", keep_seconds=60)
    assert reading.record is None
    assert reading.incarnation_seconds < age


def test_a_restart_with_yesterdays_data_is_young(own_redis: RedisServer, own_store: Store) -> None:
    """Redis saves a snapshot now and then: what it comes back with may be older than what members know."""
    put(own_store, b"1")
    age = aged(own_store)
    own_redis.command("SAVE")
    put(own_store, b"2")
    own_redis.restart()
    assert own_store.read().record == b"1"
    assert own_store.read().incarnation_seconds == 0
    assert own_store.report("m", b"{}", keep_seconds=60).incarnation_seconds < age


def test_a_quick_restart_is_noticed_by_the_run_id(own_redis: RedisServer, own_store: Store) -> None:
    """A process that was not looking meanwhile still learns that this is another server than before."""
    put(own_store, b"1")
    aged(own_store)
    named = own_store.census().reading.registry
    assert named == own_store.report("m", b"{}", keep_seconds=60).registry
    own_redis.command("SAVE")
    own_redis.restart()
    # Before anybody has reported to it, it is known to nobody.
    unmet = own_store.census().reading.registry
    reading = own_store.report("m", b"{}", keep_seconds=60)
    assert reading.incarnation_seconds < 0.1
    assert len({named, unmet, reading.registry}) == 3
    assert own_store.census().reading.registry == reading.registry


# --- a connection that is lost ----------------------------------------------------------------------------


def test_a_killed_subscription_is_renewed_and_a_hint(own_redis: RedisServer, own_store: Store) -> None:
    """What was published in between is lost, so that the new subscription counts."""
    put(own_store, b"1")
    waiter = Waiter(own_store)
    own_redis.command("CLIENT", "KILL", "TYPE", "pubsub")
    assert waiter.result() is True
    waiter = Waiter(own_store)
    other = own_store.reopened()
    put(other, b"2")
    other.close()
    assert waiter.result() is True


def test_a_server_that_stands_still_is_unreachable_within_bounds(
    own_redis: RedisServer, hasty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped server answers nothing and closes nothing: calls end at the timeout, waits by the watchdog."""
    monkeypatch.setattr("readonly.stores.redis_listening.PING_SECONDS", 0.05)
    monkeypatch.setattr("readonly.stores.redis_listening.DEAD_SECONDS", 0.2)
    eventually(lambda: put(hasty, b"1"), ignoring=StoreUnreachable)
    waiter = eventually(lambda: Waiter(hasty), ignoring=StoreUnreachable)
    own_redis.pause()
    try:
        began = time.monotonic()
        with pytest.raises(StoreUnreachable, match="did not answer within"):
            waiter.result()
        for call in (hasty.read, hasty.census, lambda: hasty.wait(600)):
            with pytest.raises(StoreUnreachable, match=r"did not answer within 0\.3 s"):
                call()
        assert time.monotonic() - began < 60
    finally:
        own_redis.resume()
    assert eventually(lambda: hasty.wait(5), ignoring=StoreUnreachable) is True
    assert eventually(hasty.read, ignoring=StoreUnreachable).record == b"1"


@pytest.mark.usefixtures("pinging")
def test_a_quiet_server_is_pinged_and_answers(own_store: Store) -> None:
    """Pings and their answers are no hints, and many fit into one wait."""
    settle(own_store)
    assert own_store.wait(0.5) is False
    assert own_store.wait(0.0) is False
    waiter = Waiter(own_store)
    put(own_store.reopened(), b"1")
    assert waiter.result() is True


@pytest.mark.usefixtures("pinging")
def test_time_in_which_nobody_waits_is_no_silence(
    own_redis: RedisServer, own_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped, or busy elsewhere, does not take its own absence for the server's."""
    away = [0.0]
    shifted = SimpleNamespace(monotonic=lambda: time.monotonic() + away[0])
    for module in ("redis", "redis_listening"):
        monkeypatch.setattr(f"readonly.stores.{module}.time", shifted)
    settle(own_store)
    own_redis.pause()  # the answer to a ping is on its way
    try:
        assert own_store.wait(0.12) is False
        listener = own_store._listener  # type: ignore[attr-defined]
        assert listener._pinged is not None
        away[0] = 3600
        assert own_store.wait(0.12) is False
    finally:
        own_redis.resume()
    assert own_store._listener is listener  # type: ignore[attr-defined]


def test_a_blocked_write_is_unreachable_and_may_still_happen(
    own_redis: RedisServer, own_store: Store, hasty: Store
) -> None:
    """CLIENT PAUSE WRITE: the change is not reported as made, and takes effect afterwards."""
    put(own_store, b"1")
    own_redis.command("CLIENT", "PAUSE", "600000", "WRITE")
    with pytest.raises(StoreUnreachable, match="what was asked of it may still happen"):
        hasty.replace(b"2", was=b"1")
    own_redis.command("CLIENT", "UNPAUSE")
    assert own_store.read().record in (b"1", b"2")
    assert put(own_store, b"3").record == b"3"


# --- a server that refuses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("commands", "says"),
    [
        ([("REPLICAOF", "127.0.0.1", "1")], "it is a replica and takes no writes: name the primary"),
        ([("CONFIG", "SET", "maxmemory", "1")], "its memory is full"),
        ([("CONFIG", "SET", "min-replicas-to-write", "1")], "it has too few replicas"),
    ],
)
def test_a_server_that_takes_no_writes_says_why_and_is_read(
    own_redis: RedisServer, own_store: Store, commands: list[tuple[str, ...]], says: str
) -> None:
    """Neither a report nor a change is taken, so that no lease is renewed; reading goes on."""
    put(own_store, b"1")
    for command in commands:
        own_redis.command(*command)
    with pytest.raises(StoreUnreachable, match=says):
        own_store.report("m", b"{}", keep_seconds=60)
    with pytest.raises(StoreUnreachable, match=says):
        own_store.replace(b"2", was=b"1")
    assert own_store.read().record == b"1"
    assert own_store.census().reports == ()


def test_a_node_of_a_cluster_is_named() -> None:
    """The error says what it met."""
    node = RedisServer("--cluster-enabled", "yes")
    try:
        store = store_from_url(node.start().url("shop"))
        with pytest.raises(StoreUnreachable, match="node of a Cluster"):
            store.read()
        store.close()
    finally:
        node.close()


def test_a_key_of_somebody_else_is_not_touched(own_redis: RedisServer, own_store: Store) -> None:
    """What is no hash is not ours."""
    own_redis.command("SET", "readonly:{shop}:state", "theirs")
    with pytest.raises(StoreUnreachable, match="holds something of somebody else's"):
        own_store.read()
    assert "theirs" in own_redis.command("GET", "readonly:{shop}:state")


def test_passwords_are_used_and_never_shown(own_redis: RedisServer) -> None:
    """A missing and a wrong one are told apart, without saying either."""
    own_redis.command("ACL", "SETUSER", "default", "on", "resetpass", ">s3cret")
    address = f"127.0.0.1:{own_redis.port}/0?site=shop"
    for user, says in (("", "wants a password"), (":wr0ng@", "does not know this user"), ("a:wr0ng@", "does not know")):
        store = store_from_url(f"redis://{user}{address}")
        with pytest.raises(StoreUnreachable, match=says) as caught:
            store.read()
        assert "wr0ng" not in str(caught.value)
        store.close()
    store = store_from_url(f"redis://:s3cret@{address}")
    assert put(store, b"1").record == b"1"
    store.close()


def test_the_permissions_that_are_asked_for_are_enough(own_redis: RedisServer) -> None:
    """What the message lists is what a user needs; with less, nothing is half done."""
    listed = ["resetchannels", *redis_connection.MEANINGS["NOPERM"].partition("allow ")[2].split()]
    own_redis.command("ACL", "SETUSER", "all", "on", ">p", *listed)
    own_redis.command("ACL", "SETUSER", "mute", "on", ">p", *listed, "-publish")
    urls = [f"redis://{user}:p@127.0.0.1:{own_redis.port}/1?site=shop" for user in ("all", "mute")]
    store, mute = (store_from_url(url) for url in urls)
    put(store, b"1", "a")
    store.report("m", b"{}", keep_seconds=60, announce=True)
    store.append("history", b"x", keep=1)
    settle(store, for_reports=True)
    assert store.entries("history", last=1) == (b"x",)
    assert len(store.census().reports) == 1
    with pytest.raises(StoreUnreachable, match="its user may not do this"):
        mute.replace(b"2", was=b"1")
    assert store.read().record == b"1"
    store.close()
    mute.close()


# --- URLs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://127.0.0.1/0", "does not name one site"),
        ("redis://127.0.0.1/0?site=a&site=b", "does not name one site"),
        ("redis://127.0.0.1/shop?site=shop", "'shop' is no database number"),
        ("redis://127.0.0.1/0?site=shop&colour=blue", "colour"),
        ("redis://127.0.0.1/0?site=shop&ssl_min_version=x", "ssl_min_version"),
        ("redis://127.0.0.1/0?site=shop&socket_timeout=60", "socket_timeout= is this library's to choose"),
        ("redis:///0?site=shop", "it names no host"),
        ("redis://127.0.0.1:port/0?site=shop", "is no URL of a Redis store"),
    ],
)
def test_a_url_that_can_not_be_right_is_refused_when_the_store_is_made(url: str, says: str) -> None:
    """Start-up stops and names it; no server is asked."""
    with pytest.raises(ConfigurationError, match=says):
        store_from_url(url)


def test_options_of_tls_go_to_redis_py() -> None:
    """They are checked when the store is made, and kept."""
    store = store_from_url(
        "rediss://u:p%40@redis.internal:6380/2?site=shop&ssl_cert_reqs=none&ssl_check_hostname=false"
    )
    made = store._place._make(store._place._address)  # type: ignore[attr-defined]
    assert (made.host, made.port, made.db, made.password) == ("redis.internal", 6380, 2, "p@")
    assert type(made).__name__ == "SSLConnection"


def test_a_missing_client_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if that very package is missing."""
    for name in [name for name in sys.modules if name == "redis" or name.startswith("redis.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    for name in [name for name in sys.modules if name.startswith("readonly.stores.redis")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigurationError, match=r"pip install 'readonly-mode\[redis\]'"):
        store_from_url("redis://127.0.0.1/0?site=shop")


def test_waking_between_processes_does_not_happen(store: Store) -> None:
    """A forked child that wakes its copy of a store rings at its own door only."""
    settle(store)
    pid = os.fork()
    if pid == 0:
        store.wake()
        os._exit(0)
    os.waitpid(pid, 0)
    assert store.wait(0.2) is False
