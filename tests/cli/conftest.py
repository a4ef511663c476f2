"""Sites to type commands at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from readonly import site
from support.operating import Member, Shop


@pytest.fixture
def served(served_shop: tuple[Shop, Member]) -> Iterator[tuple[Shop, Member]]:
    """A writable site that one process serves."""
    shop, member = served_shop
    yield shop, member
    member.go_on()  # a test that failed may have left it standing, and with it every test that comes after
    shop.open()
    member.tell("end")
    shop.reports()


@pytest.fixture
def half_a_second_for_fences(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fence and its replicas get at least, in this process: the five seconds of a real site are waited out."""
    monkeypatch.setattr(site, "FENCE_SECONDS", 0.5)
