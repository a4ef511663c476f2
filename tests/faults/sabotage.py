"""What a checker must catch: the library broken on purpose, in the workers or operators of one round only.

Each takes away one thing that the promise rests on. Nothing here is a switch in the library: functions of it are
replaced from outside, in processes that this suite starts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from unittest import mock

from readonly import Switch, confirmation
from readonly.confirmation import Condition, Member
from readonly.follower import contact
from readonly.inflight import InFlight
from readonly.stores.redis import RedisStore
from readonly.transitions import Knowledge, first_record, learn

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class _CountsLater(InFlight):
    """Hands out keys and counts none of them: whoever looks now has not been counted before."""

    __slots__ = ()

    def __init__(self, drained: Callable[[], None]) -> None:
        super().__init__(drained)
        # As the request path spells it out.
        self.add = lambda _: None

    def begin(self, *, part: bool = False) -> object:
        return object()

    def count_now(self) -> object:
        return InFlight.begin(self)


def look_first(switch: Switch, app: App) -> App:
    """Put the race back: a write is admitted by a look, and counted after it (protocol.md C18).

    Where the site holds its writes, it does so between the two: that makes the race certain instead of likely.
    """
    later = _CountsLater(switch._drained)
    switch.inflight = later

    async def counted(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await app(scope, receive, send)
            return
        hold = app._wait_while_held  # type: ignore[attr-defined]  # the site's own, brought forward
        await hold()
        await asyncio.sleep(0)
        key = later.count_now()
        try:
            await app(scope, receive, send)
        finally:
            later.end(key)

    return counted


def no_lease(switch: Switch, app: App) -> App:
    """Leave the lease check out: it is reported, and never runs out here (design rule 10)."""
    contact.Contact.renew_lease = lambda self, sent: None  # type: ignore[method-assign]
    return app


def missing_is_writable(switch: Switch, app: App) -> App:
    """Take a store without a record for a site that was never read-only (design rule 1)."""

    def naive(known: Knowledge, stored: bytes | None, **rest: Any) -> tuple[Knowledge, bytes | None]:
        if stored is None:
            return Knowledge(first_record(switch.site, at=datetime.now(UTC), by="nobody"), settled=True), None
        return learn(known, stored, **rest)

    contact.learn = naive  # type: ignore[attr-defined]
    return app


def known_to_nobody(switch: Switch, app: App) -> App:
    """Admit a process's first write though nobody else knows of it yet (design rule 7)."""
    made = contact.Contact.__init__

    def begins(self: contact.Contact, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        self.noted = True

    contact.Contact.__init__ = begins  # type: ignore[method-assign]
    return app


def lease_by_wall_clock(switch: Switch, app: App) -> App:
    """Count leases on a clock that people set (design rule 10). Only where clocks are set for real does it show."""
    switch.monotonic = time.time
    return app


WORKER: dict[str, Callable[[Switch, App], App]] = {
    "look first, count second": look_first,
    "no lease check": no_lease,
    "a missing record is writable": missing_is_writable,
    "a new process waits for nobody": known_to_nobody,
}

# Found out by a round with libfaketime alone: `--faketime --kinds clock,lease --sabotage "leases on the wall clock"`.
WITH_FAKETIME: dict[str, Callable[[Switch, App], App]] = {"leases on the wall clock": lease_by_wall_clock}


@contextmanager
def silent_is_drained() -> Iterator[None]:
    """Take a member that says nothing for one that has nothing more to say (design rule 11)."""
    judge = confirmation._judge

    def naive(*args: Any, **kwargs: Any) -> Member | None:
        found = judge(*args, **kwargs)
        if found is not None and found.condition is Condition.LOST:
            return replace(found, why="")
        return found

    # A registry in which everybody is silent has nobody alive either; that is another rule, and it stays.
    with mock.patch.object(confirmation, "_judge", naive):
        yield


@contextmanager
def late_is_in_time() -> Iterator[None]:
    """Have the store do what its caller gave up on long ago (protocol.md 1.4)."""
    with mock.patch.object(RedisStore, "_not_after", return_value=2**52):
        yield


OPERATOR: dict[str, Callable[[], Any]] = {
    "a silent member counts as drained": silent_is_drained,
    "a change that was given up on takes effect": late_is_in_time,
}
