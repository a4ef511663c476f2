"""A site in this process that rehearses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from readonly import Policy, Switch, rehearsal
from readonly.exchange import Exchange
from readonly.handling import Handling
from readonly.rehearsal_counts import Numbers
from readonly.rules import Endpoint, Facts
from readonly.stores.memory import MemoryStore
from support.operating import ANNA
from support.rehearsing import takes_part
from support.waiting import eventually


class Stage:
    """A switch with a store in memory, requests to an application, and what was counted of them."""

    def __init__(self) -> None:
        self.store = MemoryStore("memory://?site=shop", site="shop")
        self.switch = Switch(self.store, interval=0.2)
        self.answers: list[int] = []

    def rehearse(self, lasting: timedelta = timedelta(hours=1)) -> None:
        """Begin, and wait until this process takes part."""
        self.switch.start()
        rehearsal.begin(self.store, ANNA, lasting=lasting)
        eventually(lambda: takes_part(self.switch), what="the rehearsal having begun")

    def ask(
        self,
        request: str,
        policy: Policy | None = None,
        *,
        view: Callable[[], object] = lambda: None,
        headers: Mapping[str, str] | None = None,
        cookie: str = "",
        answer: Sequence[tuple[str, str]] = (),
        status: int = 200,
        endpoint: Endpoint | None = None,
    ) -> bool:
        """Send a request through an adapter that is neither ASGI nor WSGI; returns whether it was let through."""
        method, _, path = request.partition(" ")
        handling: Handling[Any] = Handling(self.switch, policy or Policy(), None, None)
        facts = Facts(
            method, path, headers=dict(headers or {}), endpoint=endpoint,
            kind="websocket" if method == "WEBSOCKET" else "http",
        )  # fmt: skip
        exchange = Exchange(handling, facts, cookies=(cookie,) if cookie else ())
        if exchange.begin() is not None:
            return False
        try:
            with exchange.working():
                view()
            exchange.headers(list(answer), status)
        finally:
            exchange.end()
        return True

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
    """A site that rehearses."""
    made = Stage()
    made.rehearse()
    yield made
    made.close()
