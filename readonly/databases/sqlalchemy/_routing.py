"""Where a session's transaction goes: the primary, or one replica for the whole of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session, SessionTransaction

from readonly.databases.replicas import Need, Replica
from readonly.errors import ReadOnlyError

S = TypeVar("S", bound=Session)
R = TypeVar("R")


class _Pin:
    """The choice of one transaction.

    Attributes:
        need: What it needs of a replica; None: nothing, it goes to the primary.
        replica: What it reads from; None: the primary.
        used: A connection was taken; the choice stands until the transaction ends.
        read: Something was read, or the connection was handed out: what it reads from can't be changed any more.
        lost: The replicas that let it down.
    """

    __slots__ = ("lost", "need", "read", "replica", "used")

    def __init__(self, need: Need | None, replica: Replica[Engine] | None) -> None:
        self.need = need
        self.replica = replica
        self.used = False
        self.read = False
        self.lost: tuple[Replica[Engine], ...] = ()


class Routing:
    """Routes the sessions of the classes that it makes.

    Args:
        primary: The primary.
        replicas: Its replicas.
        need: Says what a transaction that begins now needs of a replica; None: it goes to the primary.
        choose: Says where it goes, by what it needs, what its session read from before, and what let it down.
        works: Tries a replica that had failed; False: it is still not there.
        refuse: Makes the error for a write in a transaction that reads from a replica.
    """

    def __init__(
        self,
        primary: Engine,
        replicas: tuple[Replica[Engine], ...],
        *,
        need: Callable[[Session], Need | None],
        choose: Callable[[Need | None, Replica[Engine] | None, tuple[Replica[Engine], ...]], Replica[Engine] | None],
        works: Callable[[Replica[Engine]], bool],
        refuse: Callable[[], ReadOnlyError],
    ) -> None:
        self._primary = primary
        self._by_engine = {r.target: r for r in replicas}
        self._need = need
        self._choose = choose
        self._works = works
        self._refuse = refuse
        self.closed = False

    def routed(self, session_class: type[S]) -> type[S]:
        """Return a session class like that one, whose reads go where they are sent."""
        routing = self
        if not self._by_engine:
            # Nothing to choose from, and so nothing to be asked at each query.
            return type(f"Routed{session_class.__name__}", (session_class,), {"__module__": session_class.__module__})

        class Routed(session_class):  # type: ignore[misc,valid-type]  # the base is only known when it runs
            def get_bind(self, *args: Any, **kwargs: Any) -> Engine | Connection:
                bind: Engine | Connection = super().get_bind(*args, **kwargs)
                if bind is not routing._primary or routing.closed or kwargs.get("bind") is not None:
                    return bind
                return routing._bind(self)

            def execute(self, *args: Any, **kwargs: Any) -> Any:
                return routing._read(self, super().execute, args, kwargs)

            def scalar(self, *args: Any, **kwargs: Any) -> Any:
                return routing._read(self, super().scalar, args, kwargs)

            def scalars(self, *args: Any, **kwargs: Any) -> Any:
                return routing._read(self, super().scalars, args, kwargs)

            def connection(self, *args: Any, **kwargs: Any) -> Connection:
                found: Connection = routing._read(self, super().connection, args, kwargs)
                return found

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
            session.info[self] = self._pinned(session)

    def _pinned(self, session: Session) -> _Pin:
        before = session.info.get(self)
        need = self._need(session)
        return _Pin(need, self._choose(need, None if before is None else before.replica, ()))

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
            session.info[self] = pin = self._pinned(session)  # a transaction that begins next prefers the same
        if not pin.used:
            while pin.replica is not None and (
                pin.replica.left_out or (pin.replica.suspect and not self._works(pin.replica))
            ):
                self._move(pin)
        replica: Replica[Engine] | None = pin.replica
        return self._primary if replica is None else replica.target

    def _move(self, pin: _Pin) -> None:
        if pin.replica is not None:
            pin.lost = (*pin.lost, pin.replica)
        pin.replica, pin.used = self._choose(pin.need, None, pin.lost), False

    # --- a replica that is lost --------------------------------------------------------------------------------------

    def _read(self, session: Session, call: Callable[..., R], args: Any, kwargs: Any) -> R:
        """Read; where the replica is lost before anything was read in this transaction, read once elsewhere."""
        if self.closed:
            return call(*args, **kwargs)
        try:
            found = call(*args, **kwargs)
        except Exception:
            if not self._lost_before_reading(session):
                raise
            found = call(*args, **kwargs)
        pin = session.info.get(self) if session.in_transaction() else None
        if pin is not None:
            pin.read = True
        return found

    def _lost_before_reading(self, session: Session) -> bool:
        """Tell whether a read may be done again, and give up the connection that it was lost on."""
        pin: _Pin | None = session.info.get(self) if session.in_transaction() else None
        if pin is None or pin.read or pin.replica is None or not pin.replica.left_out:
            return False
        transaction = session.get_transaction()
        if transaction is None or transaction.nested or session.in_nested_transaction():
            return False
        # The session's own list, since its transaction goes on: nothing was read in it, and somebody may hold it open
        # in a with block. What is lost there is closed; the next statement takes a connection elsewhere.
        held = transaction._connections
        for key in [k for k in held if isinstance(k, Engine) and k is pin.replica.target]:
            connection, begun, _, own = held.pop(key)
            held.pop(connection, None)
            with suppress(Exception):  # it is lost: there may be nothing to roll back
                begun.close()
            if own:
                with suppress(Exception):
                    connection.close()
        self._move(pin)
        return True

    def _before_flush(self, session: Session, context: object, instances: object) -> None:
        if self.closed or not self.reads_replica(session):
            return
        if session.new or session.deleted or any(session.is_modified(i) for i in session.dirty):
            raise self._refuse()
