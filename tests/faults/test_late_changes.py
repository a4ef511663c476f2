"""A change that its operator gave up on may be on its way still: it must take effect at once or never."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from readonly import changes
from readonly.changes import Operator
from readonly.errors import StoreUnreachable
from readonly.site import Site
from readonly.stores import Store, store_from_url
from readonly.switch import Switch
from support.records import record_in
from support.redis_server import RedisServer
from support.tcp_proxy import Mode, TcpProxy
from support.waiting import eventually

ANNA = Operator("anna", "desk")


@pytest.fixture
def proxy(own_redis: RedisServer) -> Iterator[TcpProxy]:
    """What stands between an operator and the store."""
    with TcpProxy(own_redis.port) as found:
        yield found


@pytest.fixture
def direct(own_redis: RedisServer) -> Iterator[Store]:
    """An initialised store, over a connection that nothing happens to."""
    store = store_from_url(own_redis.url("shop"))
    changes.initialise(store, ANNA)
    yield store
    store.close()


@pytest.fixture
def far(own_redis: RedisServer, proxy: TcpProxy) -> Iterator[Store]:
    """The same store, through the proxy; what hangs is given up after a second."""
    store = store_from_url(f"redis://127.0.0.1:{proxy.port}/0?site=shop", timeout=1.0)
    yield store
    store.close()


def arrives(proxy: TcpProxy, redis: RedisServer) -> None:
    """Let through what is on its way, and wait until the server has done it and noticed that nobody listens."""
    eventually(lambda: redis.command("CLIENT", "LIST").count(" addr=") == 3, what="only these are connected")
    proxy.set(Mode.PASS)
    # Left are the direct connection, and the one that asks.
    eventually(lambda: redis.command("CLIENT", "LIST").count(" addr=") == 2, what="the other end hangs up")


class _HangsBefore:
    """A store that is read in time and hangs from just before a change is sent."""

    def __init__(self, store: Store, hang: Callable[[], None]) -> None:
        self._store = store
        self._hang = hang

    def __getattr__(self, name: str) -> object:
        if name == "replace":
            self._hang()
        return getattr(self._store, name)


def test_an_off_that_arrives_late_opens_nothing(
    direct: Store, far: Store, proxy: TcpProxy, own_redis: RedisServer
) -> None:
    """`off` hangs and is given up; `on`, typed again, finds the cause standing and is confirmed; then it arrives."""
    cause = changes.turn_on(direct, ANNA).causes[0]
    with pytest.raises(StoreUnreachable):
        changes.turn_off(_HangsBefore(far, lambda: proxy.set(Mode.STALL)), ANNA)  # type: ignore[arg-type]
    again = changes.turn_on(direct, ANNA)
    assert again.causes == (cause,)
    arrives(proxy, own_redis)
    assert record_in(direct).cause(cause) is not None


def test_an_on_that_arrives_late_closes_nothing(
    direct: Store, far: Store, proxy: TcpProxy, own_redis: RedisServer
) -> None:
    """The operator was told that it is unknown, looked, found the site writable, and went home."""
    with pytest.raises(StoreUnreachable):
        changes.turn_on(_HangsBefore(far, lambda: proxy.set(Mode.STALL)), ANNA)  # type: ignore[arg-type]
    assert not record_in(direct).causes
    arrives(proxy, own_redis)
    assert not record_in(direct).causes


def test_waiting_alone_is_safe_from_it_too(direct: Store, far: Store, proxy: TcpProxy, own_redis: RedisServer) -> None:
    """`wait` changes nothing in the record, so that nothing there would make the late `off` fail."""
    cause = changes.turn_on(direct, ANNA).causes[0]
    with pytest.raises(StoreUnreachable):
        changes.turn_off(_HangsBefore(far, lambda: proxy.set(Mode.STALL)), ANNA)  # type: ignore[arg-type]
    assert cause in Site(Switch(direct)).wait(timeout=0.0).causes
    arrives(proxy, own_redis)
    assert record_in(direct).cause(cause) is not None


def test_a_server_that_stood_still_does_not_do_late_what_it_was_told(
    direct: Store, far: Store, own_redis: RedisServer
) -> None:
    """The command waits in its own memory, where no network can lose it."""
    cause = changes.turn_on(direct, ANNA).causes[0]
    with pytest.raises(StoreUnreachable):
        changes.turn_off(_HangsBefore(far, own_redis.pause), ANNA)  # type: ignore[arg-type]
    own_redis.resume()
    eventually(lambda: own_redis.command("CLIENT", "LIST").count(" addr=") == 2, what="it has read what there was")
    assert record_in(direct).cause(cause) is not None


def test_a_change_that_arrives_in_time_is_made(direct: Store, proxy: TcpProxy) -> None:
    """The first call of a connection has not seen the server's clock yet; the next ones have."""
    # So long that no machine is too slow.
    far = store_from_url(f"redis://127.0.0.1:{proxy.port}/0?site=shop", timeout=20.0)
    for _ in range(3):
        cause = changes.turn_on(far, ANNA).causes[0]
        assert record_in(direct).cause(cause) is not None
        changes.turn_off(far, ANNA)
        assert record_in(direct).cause(cause) is None
        far.close()
