"""Sites to plan for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from readonly import scheduling
from support.operating import ANNA, Member, Shop


@pytest.fixture
def served(served_shop: tuple[Shop, Member]) -> Iterator[tuple[Shop, Member]]:
    """A writable site that one process serves, with nothing planned."""
    shop, member = served_shop
    yield shop, member
    member.go_on()
    member.tell("end")
    shop.open()
    record = shop.look().record
    for window in record.windows if record is not None else ():
        scheduling.cancel(shop.store, ANNA, window.id)
    shop.reports()
