"""How long does a fence wait for earlier writers, whom does it tell of them, and when does it end them?"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from . import _pg_state as state
from . import _pg_writers as writers
from ._pg_preflight import Roles
from ._pg_state import Connection, Standing
from .values import Holdup, StillWriting, Strategy, Waiting

# pg_locks has no event to wait for; a poll costs the server well under a millisecond.
POLL_SECONDS = (0.002, 0.05)


@dataclass(slots=True)
class Patience:
    """How long to wait for earlier writers, and what came of it so far. Instants are monotonic.

    Attributes:
        name: The fence's, for people.
        deadline: When to give up.
        ending: When to end those that are left; None: never.
        waiting: Told whom it waits for, when that changes.
        told: Whom it was told last.
        ended: The sessions that were told to end.
        warned: Why others may not be ended.
    """

    name: str
    deadline: float
    ending: float | None = None
    waiting: Waiting | None = None
    told: Sequence[Holdup] | None = None
    ended: list[Holdup] = field(default_factory=list)
    warned: tuple[str, ...] = ()
    _pause: threading.Event = field(default_factory=threading.Event)

    def wait(self, connection: Connection, standing: Standing, who: Roles) -> None:
        """Wait until every transaction that may still commit an earlier write has ended."""
        if Strategy(standing.strategy) is Strategy.DEFAULTS:
            self._wait_for_sessions(connection, standing, who)
            return
        left = writers.writers(connection)
        pause, longest = POLL_SECONDS
        while self.waits_for(connection, left):
            self._pause.wait(min(pause, max(0.0, self.deadline - time.monotonic())))
            pause = min(pause * 1.5, longest)
            left &= writers.writers(connection)

    def _wait_for_sessions(self, connection: Connection, standing: Standing, who: Roles) -> None:
        """Wait until no session is left that read its settings before the change.

        One that was being opened at that moment shows only when it is open: two looks in a row must find none.
        """
        clear = 0
        while clear < 2:
            left = writers.old_sessions(connection, who.writers, standing.raised_at)
            clear = 0 if self.waits_for(connection, left) else clear + 1
            self._pause.wait(POLL_SECONDS[1])

    def waits_for(self, connection: Connection, left: Collection[writers.Transaction]) -> bool:
        """Tell who is waited for, end them when it is time for that, and give up when it is too late.

        Returns:
            False if there is nobody to wait for.
        """
        holdups = writers.described(connection, left) if left else ()
        holdups += writers.prepared(connection)
        if not holdups:
            return False
        now = time.monotonic()
        if self.waiting is not None and holdups != self.told:
            self.waiting(holdups)
        self.told = holdups
        if self.ending is not None and now >= self.ending:
            told = {holdup.pid for holdup in self.ended}
            gone, self.warned = writers.end(connection, [h for h in holdups if h.pid not in told])
            self.ended += gone
        if now >= self.deadline:
            raise self._too_late(connection, holdups)
        return True

    def _too_late(self, connection: Connection, holdups: Sequence[Holdup]) -> StillWriting:
        named = "; ".join(str(holdup) for holdup in holdups)
        more = "".join(f" {sentence}." for sentence in self.warned)
        advice = "Wait for them, or end them"
        if any(holdup.prepared for holdup in holdups):
            advice = "COMMIT PREPARED or ROLLBACK PREPARED what is prepared (no session can be ended for it)"
        return StillWriting(
            f"{self.name} at {state.described(connection)}: the fence stands and new writes are refused, but what "
            f"began before it has not ended: {named}.{more} It may still commit, so this is not safe. {advice}, then: "
            f"readonlyctl fence raise {self.name} --end-writers-after 10s",
            holdups=tuple(holdups),
        )
