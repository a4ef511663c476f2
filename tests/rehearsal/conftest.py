"""A site in this process that rehearses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from readonly import Policy, Switch, rehearsal
from readonly.rehearsal_counts import Numbers
from readonly.stores.memory import MemoryStore
from support.operating import ANNA
from support.waiting import eventually


class Stage:
    """A switch with a store in memory, and what it has counted."""

    def __init__(self) -> None:
        self.store = MemoryStore("memory://?site=shop")
        self.switch = Switch(self.store, interval=0.2)

    def rehearse(self, lasting: timedelta = timedelta(hours=1)) -> None:
        """Begin, and wait until this process takes part."""
        rehearsal.begin(self.store, ANNA, lasting=lasting)
        self.switch.start()
        eventually(lambda: self.switch.view.state.rehearsal is not None, what="the rehearsal having begun")

    @property
    def numbers(self) -> Numbers:
        """What was counted, as it travels."""
        found = Numbers()
        found.add(self.switch.rehearsed.totals())
        return found

    def close(self) -> None:
        """End it."""
        self.switch.close()
        self.store.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A writable site that does not rehearse yet."""
    made = Stage()
    yield made
    made.close()
