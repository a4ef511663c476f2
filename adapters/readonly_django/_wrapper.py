"""What is replaced on one of Django's connection objects: how it connects, ends transactions, and raises errors.

Everything is replaced on the object and not on its class: each backend has a class of its own, and signals are sent
by it.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from django.db.utils import DatabaseErrorWrapper

from . import _drivers
from ._drivers import held_of

if TYPE_CHECKING:
    from ._guards import Guard

_HOOKS = "_readonly_hooks"
# They begin no transaction, or one of Django's own that only looks (a health check) or sets time zone and role of a new
# connection: a session's default would be set for nothing there, where all that the project does is in transactions.
_QUIET = ("_set_autocommit", "_commit", "_rollback", "init_connection_state", "is_usable")
# The four letters that nearly every statement begins with; none of them is transaction control.
_HARMLESS = frozenset({"SELE", "INSE", "UPDA", "DELE", "WITH"})


def hooks_of(wrapper: Any) -> Hooks | None:
    """Return what is hooked into one of Django's connection objects."""
    found = vars(wrapper).get(_HOOKS)
    return found if isinstance(found, Hooks) else None


class Hooks:
    """The guard on one of Django's connection objects, until `remove`.

    Args:
        wrapper: The connection object.
        guard: The guard of its alias.
    """

    def __init__(self, wrapper: Any, guard: Guard) -> None:
        self._guard = guard
        self._wrapper = wrapper
        guard.hooked(wrapper)
        own = vars(wrapper)
        own[_HOOKS] = self
        own["get_new_connection"] = self._connecting(wrapper.get_new_connection)
        own["wrap_database_errors"] = Errors(wrapper, self)
        for name in _QUIET:
            own[name] = self._quietly(getattr(wrapper, name))
        # First in the list is outermost. A block of `execute_wrapper` takes the last one away when it ends.
        wrapper.execute_wrappers.insert(0, self.execute)

    @property
    def guard(self) -> Guard:
        """The guard of its alias that is in place now."""
        guard = self._guard.present()
        if guard is not self._guard:
            self._guard = guard
            guard.hooked(self._wrapper)
        return guard

    def remove(self) -> None:
        """Take everything off again, and put the connection back as it was."""
        wrapper = self._wrapper
        own = vars(wrapper)
        for name in ("get_new_connection", "wrap_database_errors", *_QUIET, _HOOKS):
            own.pop(name, None)
        if self.execute in wrapper.execute_wrappers:
            wrapper.execute_wrappers.remove(self.execute)
        held = held_of(wrapper.connection)
        if held is not None and self.guard.closed:
            held.before(wrapper.connection)

    def execute(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:  # Django's protocol of wrappers
        """Refuse a statement that would lift the guard, and let readers read who begin like writers."""
        if not isinstance(sql, str) or sql[:4].upper() in _HARMLESS or self.guard.closed:
            return execute(sql, params, many, context)
        connection = self._wrapper.connection
        held = held_of(connection)
        if held is not None:
            held.before(connection)
            if held.guarded:
                softened = self.guard.server.softened(sql)
                if softened is None:
                    raise self.guard.lifts(sql)
                sql = softened
        return execute(sql, params, many, context)

    def _connecting(self, original: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
        def get_new_connection(parameters: dict[str, Any]) -> Any:
            connection = original(_drivers.prepare(parameters, self._wrapper.vendor))
            _drivers.attach(connection, self.guard, self._wrapper.alias)
            self.guard.connected(connection)
            return connection

        return get_new_connection

    def _quietly(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def quietly(*args: Any) -> Any:
            held = held_of(self._wrapper.connection)
            if held is None:
                return original(*args)
            held.quiet_in = get_ident()
            try:
                return original(*args)
            finally:
                held.quiet_in = 0

        return quietly


class Errors(DatabaseErrorWrapper):
    """Raises a driver's errors as Django's, and a refused write as `RefusedWrite`."""

    def __init__(self, wrapper: Any, hooks: Hooks) -> None:
        super().__init__(wrapper)
        self._wrapper = wrapper
        self._hooks = hooks

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Raise what the error is to be; a refusal leaves the connection usable, so nothing else is noted."""
        if error is None:
            return
        connection = self._wrapper.connection
        refusal = self._hooks.guard.refused(connection, error, held_of(connection))
        if refusal is not None:
            raise refusal.with_traceback(traceback) from error
        super().__exit__(kind, error, traceback)
