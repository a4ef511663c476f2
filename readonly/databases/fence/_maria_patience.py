"""How long does a fence wait for earlier writers before MariaDB refuses, and when does it end them, or give up?"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pymysql

from . import _maria_writers as writers
from ._maria_server import ER_LOCK_WAIT_TIMEOUT, Session, number
from .values import Holdup, StillWriting, Waiting

# While SET GLOBAL waits for statements that run, new writes wait behind it: it is given up after a second, and retried.
SET_SECONDS = 1


@dataclass(slots=True)
class Patience:
    """How long to wait for earlier writers, and what came of it so far. Instants are monotonic.

    Attributes:
        name: The fence's, for people.
        migrating: The users that may go on writing, and are not waited for.
        deadline: When to give up.
        ending: When to end those that are left; None: never.
        waiting: Told whom it waits for, when that changes.
        told: Whom it was told last.
        ended: The sessions that were told to end, or are refused at their COMMIT.
        warned: Why others may not be ended.
    """

    name: str
    migrating: frozenset[str]
    deadline: float
    ending: float | None = None
    waiting: Waiting | None = None
    told: Sequence[Holdup] = ()
    ended: list[Holdup] = field(default_factory=list)
    warned: tuple[str, ...] = ()
    _pause: threading.Event = field(default_factory=threading.Event)

    def tell(self, holdups: Sequence[Holdup]) -> None:
        """Say whom it waits for, when that changes."""
        if self.waiting is not None and tuple(holdups) != tuple(self.told):
            self.waiting(holdups)
        self.told = tuple(holdups)

    @property
    def over(self) -> bool:
        """Whether what is left is to be ended now."""
        return self.ending is not None and time.monotonic() >= self.ending

    def drain(self, session: Session) -> None:
        """Wait for the transactions that write now; end them when it is time for that, and give up when too late."""
        look = writers.look(session, but=self.migrating)
        waited_for = frozenset(look.writers)
        while True:
            holdups = look.holdups(waited_for)
            if not holdups:
                return
            self.tell(holdups)
            if self.over:
                # What may not be ended, and what is prepared, is refused at its COMMIT by the next step.
                ended, self.warned = writers.end(session, holdups)
                self.ended += [*ended, *(one for one in holdups if one.pid is not None and one not in ended)]
                return
            if time.monotonic() >= self.deadline:
                raise self._too_late(session, holdups)
            look = writers.look(session, but=self.migrating, again=self._pause)
            waited_for &= frozenset(look.writers)

    def refuse_writes(self, session: Session) -> None:
        """Set `read_only`, however often what runs makes it give up."""
        session.rows("SET SESSION lock_wait_timeout = %s", [SET_SECONDS])
        while not session.read_only:
            try:
                session.rows("SET GLOBAL read_only = 1")
            except pymysql.MySQLError as error:
                if number(error) != ER_LOCK_WAIT_TIMEOUT:
                    raise
                holdups = writers.running(session)
                self.tell(holdups)
                if self.over:
                    look = writers.look(session, but=self.migrating)
                    ended, self.warned = writers.end(session, tuple(look.writers.values()))
                    self.ended += ended
                if time.monotonic() >= self.deadline:
                    raise self._too_late(session, holdups) from error

    def _too_late(self, session: Session, holdups: Sequence[Holdup]) -> StillWriting:
        named = "; ".join(str(holdup) for holdup in holdups) or "a session that holds LOCK TABLES"
        advice = "Wait for them, or have them ended"
        if any(holdup.prepared for holdup in holdups):
            advice = "XA COMMIT or XA ROLLBACK what is prepared (no session can be ended for it), or have it refused"
        return StillWriting(
            f"{self.name} at {session.where}: the server was not made to refuse, and takes writes, since what began "
            f"before has not ended and would be refused at its COMMIT: {named}. {advice}, then: "
            f"readonlyctl fence raise {self.name} --end-writers-after 10s",
            holdups=tuple(holdups),
        )
