"""Sites to type commands at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from readonly import site
from support.operating import Member, Shop, made, members


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A writable site in an SQLite file, without a process."""
    found = made(tmp_path / "shop.db")
    yield found
    found.store.close()


@pytest.fixture(scope="module")
def served_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, Member]]:
    """A site that one process serves, for all tests of a file; `served` leaves it writable."""
    found = made(tmp_path_factory.mktemp("served") / "shop.db")
    with members(found) as (member,):
        yield found, member
    found.store.close()


@pytest.fixture
def served(served_shop: tuple[Shop, Member]) -> Iterator[tuple[Shop, Member]]:
    """A writable site that one process serves."""
    shop, member = served_shop
    yield shop, member
    shop.open()
    member.tell("end")
    shop.reports()


@pytest.fixture
def half_a_second_for_fences(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fence and its replicas get at least, in this process: the five seconds of a real site are waited out."""
    monkeypatch.setattr(site, "FENCE_SECONDS", 0.5)
