"""Sites to plan for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from readonly import scheduling
from support.operating import ANNA, Member, Shop, made, members


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A writable site in an SQLite file, without a process."""
    found = made(tmp_path / "shop.db")
    yield found
    found.store.close()


@pytest.fixture(scope="module")
def served_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, Member]]:
    """A site that one process serves, for all tests of a file."""
    found = made(tmp_path_factory.mktemp("served") / "shop.db")
    with members(found) as (member,):
        yield found, member
    found.store.close()


@pytest.fixture
def served(served_shop: tuple[Shop, Member]) -> Iterator[tuple[Shop, Member]]:
    """A writable site that one process serves, with nothing planned."""
    shop, member = served_shop
    yield shop, member
    member.tell("end")
    shop.open()
    record = shop.look().record
    for window in record.windows if record is not None else ():
        scheduling.cancel(shop.store, ANNA, window.id)
    shop.reports()
