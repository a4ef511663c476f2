"""For a project's own tests: the site read-only for a test, a class of tests, or a block.

@override_readonly()
def test_nobody_buys(self): ...

with override_readonly(): ...
with override_readonly(False): ...                     # inside one that is
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

from django.db import connections
from django.test.utils import TestContextDecorator

from readonly.stores import Store
from readonly.stores.memory import MemoryStore
from readonly.switch import Switch

from . import conf, databases

__all__ = ["override_readonly"]


class override_readonly(TestContextDecorator):  # noqa: N801 - named like Django's own
    """Make the site read-only, or writable, for as long as a test runs; then it is again what it was.

    A decorator for functions, methods (`async` ones, too) and classes of tests, and a context manager. It is this
    process alone that is switched, with its guards and everything that asks its switch: whatever store the settings
    name is left alone. On a class it begins before `setUp` of each test; what a guard would refuse belongs into
    `setUpTestData`.

    Args:
        read_only: False makes it writable.
        reason: For colleagues.
        message: What visitors read.
        expected: How long it is expected to take.
        sessions: `end`, `suspend` or `keep`; None: what the policy says.
    """

    def __init__(
        self,
        read_only: bool = True,
        *,
        reason: str = "a test",
        message: str = "",
        expected: timedelta | None = None,
        sessions: str | None = None,
    ) -> None:
        super().__init__()
        self._read_only = read_only
        self._how = {"reason": reason, "message": message, "expected": expected, "sessions": sessions}
        self._entered: list[ExitStack] = []

    def enable(self) -> Switch:
        """Begin; returns the process's switch."""
        switch = conf.current_switch()
        with ExitStack() as stack:
            stack.callback(_use, switch, switch.store)
            # A store of its own: nested ones end where they began, and no other process is switched with this one.
            _use(switch, MemoryStore(f"memory://?site={switch.site}", site=switch.site))
            if self._read_only:
                switch.on(by="override_readonly", **self._how)  # type: ignore[arg-type]
                # `TestCase` wraps each test in a transaction, which began while the site was writable.
                stack.enter_context(_unbroken())
                stack.enter_context(databases.read_only_transactions())
            self._entered.append(stack.pop_all())
        return switch

    def disable(self) -> None:
        """End it."""
        self._entered.pop().close()


@contextmanager
def _unbroken() -> Iterator[None]:
    """Leave the transactions of a test as usable as they were: what was refused in them has changed nothing."""
    before = {connection: connection.needs_rollback for connection in connections.all(initialized_only=True)}
    try:
        yield
    finally:
        for connection, broken in before.items():
            connection.needs_rollback = broken


def _use(switch: Switch, store: Store) -> None:
    switch.use(store)
    switch.start()
