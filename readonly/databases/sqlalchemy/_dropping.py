"""Where are incidental writes dropped: in which sessions, on which engines?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session

from ._discard import Discards, OnSession, on_connection
from ._hooks import Hooks


class Dropping:
    """Drops incidental writes on a guarded primary and on its replicas, until `remove`.

    Args:
        discards: What may be dropped.
        engine: The primary.
        hooks: Its guard: what is refused there may be dropped.
        replicas: Theirs never write.
    """

    def __init__(self, discards: Discards, engine: Engine, hooks: Hooks, replicas: Sequence[Engine]) -> None:
        self._engine = engine
        self._hooks = hooks
        self._replicas = tuple(replicas)
        on_session = OnSession(discards, self._session_refuses)

        def before_flush(session: Session, context: object, instances: object) -> None:
            on_session.before_flush(session)

        def before_execute(
            connection: Connection, statement: Any, multiparams: Any, params: Any, options: Mapping[str, Any]
        ) -> tuple[Any, Any, Any]:
            return on_connection(discards, hooks.guarded, connection, statement, multiparams, params, options)

        # A replica's transactions never write.
        def on_replica(
            connection: Connection, statement: Any, multiparams: Any, params: Any, options: Mapping[str, Any]
        ) -> tuple[Any, Any, Any]:
            return on_connection(discards, lambda c: True, connection, statement, multiparams, params, options)

        self._listeners: list[tuple[Any, str, Any]] = [
            (Session, "before_flush", before_flush),
            (Session, "do_orm_execute", on_session.do_orm_execute),
        ]
        for target, event_name, listener in self._listeners:
            event.listen(target, event_name, listener)
        for target, listener in ((engine, before_execute), *((replica, on_replica) for replica in self._replicas)):
            event.listen(target, "before_execute", listener, retval=True)
            self._listeners.append((target, "before_execute", listener))

    def remove(self) -> None:
        """Remove all of it."""
        for target, event_name, listener in self._listeners:
            event.remove(target, event_name, listener)

    def _session_refuses(self, session: Session, bind_arguments: Mapping[str, Any]) -> bool:
        bind = session.get_bind(**bind_arguments)
        dialect = bind.dialect
        if any(dialect is replica.dialect for replica in self._replicas):
            return True
        if dialect is not self._engine.dialect:
            return False
        return self._hooks.guarded(session.connection(bind_arguments=dict(bind_arguments)))
