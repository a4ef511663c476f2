"""Ctrl-C in the middle of a store call: whatever it cut through, the next call tells what stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from readonly.changes import Operator, initialise, turn_on
from readonly.record_format import load
from readonly.stores import Store, store_from_url
from readonly.stores.sqlite import SQLiteStore
from support.interrupting import every_interruption

SQLITE: tuple[str, ...] = ("contextlib", "readonly.stores.sqlite", "readonly.stores._sqlite_files")
REDIS: tuple[str, ...] = (
    "contextlib",
    *(f"readonly.stores.{name}" for name in ("redis", "redis_connection", "redis_listening")),
)
ANNA = Operator("anna", "bastion")


@pytest.fixture(params=["sqlite", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, tuple[str, ...]]]:
    """A store with a record, and the modules that its calls run through."""
    store: Store
    if request.param == "sqlite":
        # What is tested is order, not this machine's disk; a lock that nobody lets go of must not cost the test long.
        store, modules = SQLiteStore(tmp_path / "state.db", site="shop", initialise=False, timeout=0.3), SQLITE
    else:
        store, modules = store_from_url(request.getfixturevalue("redis_url"), timeout=20.0), REDIS
    initialise(store, ANNA)
    yield store, modules
    store.close()


@pytest.mark.parametrize("call", [lambda store: store.census(), lambda store: store.wait(0.0, for_reports=True)])
def test_the_next_call_answers(opened: tuple[Store, tuple[str, ...]], call: Callable[[Store], object]) -> None:
    """A transaction that was left open, or an answer that was not read, is not the next call's."""
    store, modules = opened

    def answers() -> None:
        record = store.census().reading.record
        assert record is not None
        assert load(record).changed_by == "anna"

    assert every_interruption(lambda: call(store), modules, answers) > 10


def test_a_change_has_taken_effect_or_has_not(opened: tuple[Store, tuple[str, ...]]) -> None:
    """Cut anywhere, it is there as a whole or not at all, and another process may make its own at once."""
    store, modules = opened
    other = store.reopened()

    def whole() -> None:
        record = store.read().record
        assert record is not None
        # It tells the truth: what is said to stand is what others read, and nothing is half done or still locked.
        assert other.census().reading.record == record
        assert other.replace(record, was=record).record == record

    def change() -> None:
        turn_on(store, ANNA, reason="one more")

    try:
        assert every_interruption(change, modules, whole) > 10
    finally:
        other.close()


def test_a_first_call_makes_no_half_of_a_file(tmp_path: Path) -> None:
    """The site's first start, cut anywhere: the next one has its record."""
    made = [SQLiteStore(tmp_path / "0.db", site="shop", timeout=0.3)]

    def starts() -> None:
        again = made[-1].reopened()
        record = again.read().record
        assert record is not None
        assert load(record).site == "shop"
        again.close()
        made[-1].close()
        made.append(SQLiteStore(tmp_path / f"{len(made)}.db", site="shop", timeout=0.3))

    assert every_interruption(lambda: made[-1].read(), SQLITE, starts) > 50
    made[-1].close()
