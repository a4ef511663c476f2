"""Where a session's transaction goes: the primary, or one replica for the whole of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session, SessionTransaction

from readonly.databases.replicas import Replica
from readonly.errors import ReadOnlyError

S = TypeVar("S", bound=Session)


class _Pin:
    """The choice of one transaction.

    Attributes:
        replica: What it reads from; None: the primary.
        used: A connection was taken; the choice stands until the transaction ends.
    """

    __slots__ = ("replica", "used")

    def __init__(self, replica: Replica[Engine] | None) -> None:
        self.replica = replica
        self.used = False


class Routing:
    """Routes the sessions of the classes that it makes.

    Args:
        primary: The primary.
        replicas: Its replicas.
        choose: Says where a transaction that begins now goes.
        works: Tries a replica that had failed; False: it is still not there.
        refuse: Makes the error for a write in a transaction that reads from a replica.
    """

    def __init__(
        self,
        primary: Engine,
        replicas: tuple[Replica[Engine], ...],
        *,
        choose: Callable[[Session], Replica[Engine] | None],
        works: Callable[[Replica[Engine]], bool],
        refuse: Callable[[], ReadOnlyError],
    ) -> None:
        self._primary = primary
        self._by_engine = {r.target: r for r in replicas}
        self._choose = choose
        self._works = works
        self._refuse = refuse
        self.closed = False

    def routed(self, session_class: type[S]) -> type[S]:
        """Return a session class like that one, whose reads go where they are sent."""
        routing = self

        class Routed(session_class):  # type: ignore[misc,valid-type]  # the base is only known when it runs
            def get_bind(self, *args: Any, **kwargs: Any) -> Engine | Connection:
                bind: Engine | Connection = super().get_bind(*args, **kwargs)
                if bind is not routing._primary or routing.closed or kwargs.get("bind") is not None:
                    return bind
                return routing._bind(self)

        Routed.__name__ = Routed.__qualname__ = f"Routed{session_class.__name__}"
        Routed.__module__ = session_class.__module__
        event.listen(Routed, "after_transaction_create", self._created)
        event.listen(Routed, "after_begin", self._connected)
        event.listen(Routed, "before_flush", self._before_flush)
        return Routed

    def reads_replica(self, session: Session) -> bool:
        """Tell whether the session's transaction reads from a replica."""
        pin = session.info.get(self) if session.in_transaction() else None
        return pin is not None and pin.replica is not None

    def _created(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None and not self.closed:
            session.info[self] = _Pin(self._choose(session))

    def _connected(self, session: Session, transaction: SessionTransaction, connection: Connection) -> None:
        """Fix the choice by the first connection that is taken.

        `Session.execute` asks for the bind before it creates the transaction; this keeps the two from differing.
        """
        pin = session.info.get(self)
        if pin is None or pin.used:
            return
        engine = connection.engine
        if engine in self._by_engine:
            pin.replica, pin.used = self._by_engine[engine], True
        elif engine is self._primary:
            pin.replica, pin.used = None, True

    def _bind(self, session: Session) -> Engine:
        pin = session.info.get(self) if session.in_transaction() else None
        if pin is None:
            pin = _Pin(self._choose(session))
        replica: Replica[Engine] | None = pin.replica
        if (
            replica is not None
            and not pin.used
            and (replica.left_out or (replica.suspect and not self._works(replica)))
        ):
            pin.replica = replica = None
        return self._primary if replica is None else replica.target

    def _before_flush(self, session: Session, context: object, instances: object) -> None:
        if self.closed or not self.reads_replica(session):
            return
        if session.new or session.deleted or any(session.is_modified(i) for i in session.dirty):
            raise self._refuse()
