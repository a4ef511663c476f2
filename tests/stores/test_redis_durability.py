"""What a Redis server can lose: copies and disk that lag behind, and settings that make it forget."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from readonly import Switch, changes
from readonly.errors import StoreUnreachable
from readonly.site import Site
from readonly.stores import Store, store_from_url
from readonly.testing import put
from support import missing
from support.missing import ServerMissing
from support.operating import ANNA, Shop, json_lines
from support.redis_server import CommandRefused, RedisServer
from support.redis_topology import online
from support.waiting import eventually

pytest.importorskip("redis")

# For one answer of a server that is there, on a machine that does much else.
PATIENT_SECONDS = 20.0
BEHIND = "the store can lose it: 0 of its 1 replicas have it"


def patient(url: str) -> contextlib.closing[Store]:
    """Return a store to be closed, of which nobody asks how long it takes."""
    return contextlib.closing(store_from_url(url, timeout=PATIENT_SECONDS))


@pytest.fixture
def store(own_redis: RedisServer) -> Iterator[Store]:
    """A store on a server of this test alone."""
    with patient(own_redis.url("shop")) as made:
        yield made


@pytest.fixture
def replica(own_redis: RedisServer) -> Iterator[RedisServer]:
    """A replica of that server, which follows."""
    own_redis.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    server = _started("--replicaof", "127.0.0.1", str(own_redis.port))
    eventually(lambda: online(own_redis), 20, what="the replica follows")
    yield server
    server.close()


@pytest.fixture
def appending() -> Iterator[RedisServer]:
    """A server that appends to a file and forces it to the disk every second."""
    server = _started("--appendonly", "yes", "--appendfsync", "everysec")
    yield server
    server.close()


def _started(*options: str) -> RedisServer:
    try:
        return RedisServer(*options).start()
    except ServerMissing as error:
        raise missing.outcome(error) from None


# --- copies -----------------------------------------------------------------------------------------------


def test_without_a_copy_there_is_nothing_to_wait_for(store: Store) -> None:
    """What the server has is all there is; whether it keeps that is a warning, not a wait."""
    put(store, b"1")
    assert store.settled(PATIENT_SECONDS) == ""


def test_what_a_replica_has_confirmed_is_settled(store: Store, replica: RedisServer, own_redis: RedisServer) -> None:
    """Also what another connection has written."""
    with contextlib.closing(store.reopened()) as other:
        put(other, b"1")
    assert store.settled(PATIENT_SECONDS) == ""
    assert store.read().record == b"1"
    with patient(replica.url("shop")) as copy:
        assert copy.read().record == b"1"
    assert store.read().incarnation_seconds < 60
    assert own_redis.command("KEYS", "*").count("readonly:") == 2  # state and incarnation


def test_what_a_replica_has_not_confirmed_can_be_lost(store: Store, replica: RedisServer) -> None:
    """One that stands still holds up no call for longer than it was asked to wait."""
    put(store, b"1")
    replica.pause()
    try:
        began = time.monotonic()
        assert store.settled(0.2) == BEHIND
        assert store.settled(0.0) == BEHIND
        assert time.monotonic() - began < PATIENT_SECONDS
    finally:
        replica.resume()
    assert store.settled(PATIENT_SECONDS) == ""


def test_a_wait_longer_than_a_call_may_take(own_redis: RedisServer, replica: RedisServer) -> None:
    """The answer comes late because it was asked to; that is no failure."""
    with contextlib.closing(store_from_url(own_redis.url("shop"), timeout=1.0)) as store:
        put(store, b"1")
        replica.pause()
        try:
            assert store.settled(1.5) == BEHIND
        finally:
            replica.resume()


@pytest.mark.usefixtures("replica")
def test_a_server_that_stands_still_meanwhile_is_unreachable(own_redis: RedisServer, store: Store) -> None:
    """Nothing is said of what it holds."""
    put(store, b"1")
    with contextlib.closing(store_from_url(own_redis.url("shop"), timeout=0.3)) as hasty:
        own_redis.pause()
        try:
            with pytest.raises(StoreUnreachable, match="did not answer"):
                hasty.settled(0.2)
        finally:
            own_redis.resume()
    assert store.settled(PATIENT_SECONDS) == ""


def test_another_run_of_the_server_settles_nothing(store: Store, own_redis: RedisServer) -> None:
    """What was read before was another server's: it has to be read again."""
    put(store, b"1")
    own_redis.restart()
    assert "another server took over" in store.settled(1.0)
    assert store.settled(1.0) == ""


# --- disk -------------------------------------------------------------------------------------------------


def test_what_is_on_the_disk_is_settled(appending: RedisServer) -> None:
    """A second passes until it is, at most."""
    with patient(appending.url("shop")) as store:
        for record in (b"1", b"2", b"3"):
            put(store, record)
            assert store.settled(PATIENT_SECONDS) == ""


def test_what_is_not_on_the_disk_can_be_lost(appending: RedisServer) -> None:
    """A disk that never has it: here because nobody forces it to, and the server may not be asked for that setting."""
    if not _has_waitaof(appending):
        pytest.skip("needs WAITAOF: Redis 7.2 or Valkey")
    appending.command("CONFIG", "SET", "appendfsync", "no")
    appending.command("ACL", "SETUSER", "app", "on", ">p", "~*", "&*", "+@all", "-config")
    with patient(appending.url("shop").replace("//", "//app:p@", 1)) as store:
        put(store, b"1")
        assert store.settled(0.1) == "the store can lose it: the server has not written it to its disk yet"


def test_a_disk_that_nobody_waits_for(appending: RedisServer) -> None:
    """With `appendfsync no` the operating system decides when."""
    appending.command("CONFIG", "SET", "appendfsync", "no")
    with patient(appending.url("shop")) as store:
        put(store, b"1")
        assert store.settled(0.0) == ""


def _has_waitaof(server: RedisServer) -> bool:
    with contextlib.suppress(CommandRefused):
        return "waitaof" in server.command("COMMAND", "INFO", "waitaof")
    return False


# --- settings ---------------------------------------------------------------------------------------------


def test_a_server_that_keeps_nothing_is_warned_of(store: Store, own_redis: RedisServer) -> None:
    """Until it saves, or appends."""
    (warning,) = store.warnings()
    assert "keeps nothing on its disk (appendonly no, no save)" in warning
    own_redis.command("CONFIG", "SET", "save", "3600 1")
    assert store.warnings() == ()
    own_redis.command("CONFIG", "SET", "save", "")
    own_redis.command("CONFIG", "SET", "appendonly", "yes")
    assert store.warnings() == ()


@pytest.mark.parametrize(
    ("policy", "limit", "warned"),
    [
        ("allkeys-lru", "100mb", True),
        ("allkeys-random", "100mb", True),
        ("allkeys-lru", "0", False),
        ("noeviction", "100mb", False),
        ("volatile-lru", "100mb", False),  # takes keys that expire, and none of ours does
    ],
)
def test_a_server_that_evicts_is_warned_of(
    store: Store, own_redis: RedisServer, policy: str, limit: str, warned: bool
) -> None:
    """Only where it can evict a key of ours."""
    own_redis.command("CONFIG", "SET", "maxmemory-policy", policy)
    own_redis.command("CONFIG", "SET", "maxmemory", limit)
    assert (
        any(f"may evict the record when its memory is full (maxmemory-policy {policy})" in w for w in store.warnings())
        is warned
    )


def test_no_key_expires(store: Store, own_redis: RedisServer) -> None:
    """The policies that take keys which expire are harmless for that reason."""
    put(store, b"1", "a")
    store.report("m", b"{}", keep_seconds=60)
    store.append("history", b"x", keep=3)
    store.forget("m")
    names = [word for word in own_redis.command("KEYS", "*").split() if word.startswith("readonly:")]
    assert len(names) >= 3
    assert {own_redis.command("TTL", name) for name in names} == {":-1"}


@pytest.mark.usefixtures("replica")
def test_a_replica_without_min_replicas_is_warned_of(store: Store, own_redis: RedisServer) -> None:
    """Both settings of the pair are needed."""
    assert any("set min-replicas-to-write 1" in warning for warning in store.warnings())
    own_redis.command("CONFIG", "SET", "min-replicas-to-write", "1")
    assert not any("min-replicas" in warning for warning in store.warnings())
    own_redis.command("CONFIG", "SET", "min-replicas-max-lag", "0")
    assert any("min-replicas-max-lag 1" in warning for warning in store.warnings())


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        (["CONFIG", "SET", "maxmemory", "1"], "its memory is full"),
        (["CONFIG", "SET", "min-replicas-to-write", "1"], "it has too few replicas"),
        (["ACL", "SETUSER", "default", "-@write"], "its user may not do this"),
    ],
)
def test_a_server_that_takes_no_write_is_known_without_one(
    store: Store, own_redis: RedisServer, planted: list[str], said: str
) -> None:
    """It answers who reads; what it would say to a write is asked by one that can't change anything."""
    put(store, b"1", "a")
    store.try_write()
    own_redis.command(*planted)
    assert store.read().record == b"1"
    with pytest.raises(StoreUnreachable, match=said):
        store.try_write()


def test_a_replica_takes_no_write(store: Store, replica: RedisServer) -> None:
    """Its settings are without fault, and it is the wrong server."""
    put(store, b"1", "a")
    with patient(replica.url("shop")) as other:
        assert other.warnings() == () or all("keeps nothing" in warning for warning in other.warnings())
        with pytest.raises(StoreUnreachable, match="it is a replica and takes no writes: name the primary"):
            other.try_write()


def test_what_may_not_be_asked_is_not_warned_of(own_redis: RedisServer) -> None:
    """Managed servers forbid CONFIG: what INFO tells is told."""
    without = ["-config", "-waitaof"] if _has_waitaof(own_redis) else ["-config"]
    own_redis.command("ACL", "SETUSER", "app", "on", ">p", "~*", "&*", "+@all", *without)
    own_redis.command("CONFIG", "SET", "appendonly", "yes")
    url = own_redis.url("shop").replace("redis://", "redis://app:p@")
    with patient(url) as store:
        put(store, b"1")
        assert store.warnings() == ()
        assert store.settled(PATIENT_SECONDS) == ""
        own_redis.command("CONFIG", "SET", "appendonly", "no")
        assert store.warnings() == ()
        own_redis.command("CONFIG", "SET", "maxmemory", "100mb")
        own_redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
        assert len(store.warnings()) == 1


# --- what operators read ----------------------------------------------------------------------------------


def test_on_is_not_safe_before_the_replicas_have_it(own_redis: RedisServer, replica: RedisServer) -> None:
    """The site is read-only all the same; `off` says as much of itself."""
    url = own_redis.url("shop")
    with patient(url) as store:
        changes.initialise(store, ANNA)
    with (
        patient(url) as store,
        contextlib.closing(Switch(store, interval=0.1)) as switch,
        contextlib.closing(Switch(store.reopened())) as operator,
    ):
        switch.start()
        eventually(lambda: not switch.state.read_only, 20, what="it is writable")
        site = Site(operator)
        assert site.on(timeout=60, operator=ANNA).safe
        assert site.off(timeout=60, operator=ANNA)[1].safe
        replica.pause()
        safety = site.on(reason="migration", timeout=0.5, operator=ANNA)
        assert not safety.safe
        # That is all that is missing, once the process has said that it obeys.
        eventually(lambda: site.on(reason="migration", timeout=0.5, operator=ANNA).problems == (BEHIND,))
        assert switch.state.read_only
        eventually(lambda: switch.confirm(timeout=0.5).missing == (BEHIND,))
        _, found = site.off(timeout=0.5, operator=ANNA)
        assert not found.safe
        eventually(lambda: site.wait(timeout=0.5).missing == (f"{BEHIND}: the site may come back read-only",))
        replica.resume()
        assert site.on(reason="migration", timeout=60, operator=ANNA).safe
        assert switch.confirm(timeout=60).safe
        assert site.off(timeout=60, operator=ANNA)[1].safe


def test_commands_show_the_warnings(own_redis: RedisServer, tmp_path: Path) -> None:
    """A line each for people, a field for programs; `on` says them once it is set."""
    shop = Shop(own_redis.url("shop"), tmp_path)
    changes.initialise(shop.store, ANNA)
    own_redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    own_redis.command("CONFIG", "SET", "maxmemory", "100mb")
    for command in (("status",), ("on", "--no-wait"), ("on", "--timeout", "10ms")):
        lines = shop.here(*command).stdout.splitlines()
        assert sum(line.startswith("warning: the store's server may evict the record") for line in lines) == 1
        assert sum(line.startswith("warning: the store's server keeps nothing on its disk") for line in lines) == 1
        result = json_lines(shop.here(*command, "--json").stdout)[-1]
        assert (result["event"], len(result["warnings"])) == ("result", 2)
    shop.store.close()


def test_a_store_that_does_not_answer_is_warned_of_elsewhere(own_redis: RedisServer) -> None:
    """The next call says so, with all that there is to say."""
    site = Site(Switch.from_url(own_redis.url("shop")))
    own_redis.kill()
    assert site.warnings() == ()
