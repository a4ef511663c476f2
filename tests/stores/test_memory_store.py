"""The memory store: the contract, and what tests can do to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import ClassVar

import pytest

from readonly.errors import StoreUnreachable
from readonly.record import Mode
from readonly.record_format import load
from readonly.stores import AUTOMATIC_LINEAGE, ENDED_SECONDS, Store, store_from_url
from readonly.stores.memory import MemoryStore
from readonly.testing import StoreContract, Waiter, put, settle


class TestMemoryStore(StoreContract):
    """The contract."""

    between_processes: ClassVar[bool] = False

    def make_store(self) -> Store:
        return MemoryStore()


def test_it_begins_writable() -> None:
    """A memory store needs no `init`; what it writes itself is overruled by anybody's `init`."""
    record = load(MemoryStore(site="shop").read().record or b"")
    assert (record.site, record.mode, record.epoch, record.partial) == ("shop", Mode.WRITABLE, 1, False)
    assert record.lineage == AUTOMATIC_LINEAGE < "2"


def test_two_of_the_same_url_stay_two() -> None:
    """No registry: what is not passed on is not shared."""
    one, other = store_from_url("memory://"), store_from_url("memory://?site=memory")
    put(one, b"1")
    assert other.read().record != b"1"


def test_a_lost_memory_is_young_and_empty() -> None:
    """After a loss nothing stands, nobody is registered, no cause has been there, and it shows."""
    store = MemoryStore()
    put(store, b"1", "a")
    store.report("m", b"{}", keep_seconds=60)
    store.append("history", b"x", keep=5)
    assert store.read().incarnation_seconds == float("inf")
    store.lose()
    census = store.peer().census()
    assert (census.reading.record, census.reading.members, census.reports) == (None, 0, ())
    assert census.reading.incarnation_seconds < 60
    assert store.entries("history", last=1) == ()
    assert store.replace(b"2", was=None, causes=["a"]).record == b"2"
    assert store.census().reading.here_since["a"] >= census.reading.at


def test_how_long_who_is_silent_is_remembered() -> None:
    """A process that has ended as long as what it had begun may commit; one that stands still until it is dropped."""
    store = MemoryStore()
    store.report("ended", b"{}", keep_seconds=86400.0, ended=True)
    store.report("still", b"{}", keep_seconds=86400.0)
    assert store.report("a", b"{}", keep_seconds=86400.0).neighbours == ("ended", "still")
    there = store._memory.members
    for name in ("ended", "still"):
        there[name] = replace(there[name], at=there[name].at - timedelta(seconds=ENDED_SECONDS + 1))
    assert store.report("a", b"{}", keep_seconds=86400.0).neighbours == ("still",)


def test_a_cut_link_fails_every_call_and_ends_waits() -> None:
    """Only the handles of that process are cut off, and mending is a hint."""
    store = MemoryStore()
    twin, peer = store.reopened(), store.peer()
    waiter = Waiter(twin)
    store.break_()
    with pytest.raises(StoreUnreachable, match="cut by a test"):
        waiter.result()
    with pytest.raises(StoreUnreachable):
        twin.read()
    put(peer, b"1")
    settle(peer)
    store.mend()
    assert twin.wait(0)
    assert twin.read().record == b"1"
    assert not store.unreachable
