"""One guard for each alias, and all of them together: what they decide, what they prove, and what they report."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from weakref import ref

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper

from readonly.databases import Pooler, Server, is_accepted, look_anew, server_behind, way_to
from readonly.databases.admission import Admission, proving
from readonly.databases.detection import Detection
from readonly.databases.replicas import LAG_SECONDS, Replica, Schema
from readonly.errors import ConfigurationError
from readonly.switch import Switch

from . import _drivers
from ._drivers import held_of
from ._held import Held
from ._wrapper import Hooks, hooks_of
from .discard import Discards
from .errors import RefusedWrite, kind_of
from .rehearsing import Rehearsing
from .routing import Routing


class Guard:
    """The guard of one alias, whichever thread connects to it.

    Attributes:
        name: The alias.
        server: What its server is told.
        admission: Decides about its transactions, and counts them.
        replica: What is known of it, if it is a replica; None: it is written to.
        detection: Watches it, if it is written to.
        closed: It guards no more.
    """

    def __init__(
        self,
        alias: str,
        server: Server,
        switch: Switch,
        *,
        present: Callable[[], Guards | None],
        replica: Replica[str] | None = None,
        watched: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.name = alias
        self.server = server
        self.admission = Admission(switch, alias, never=replica is not None)
        self.replica = replica
        self.detection = Detection(switch, alias, self._look, over=self._renew) if replica is None else None
        self._wrappers: set[ref[Any]] = set()
        self.closed = False
        self._present = present
        self._watched = watched

    def __repr__(self) -> str:
        return f"<Guard {self.name}>"

    # --- what the switch asks ----------------------------------------------------------------------------------------

    def prove(self) -> str:
        """Try a harmless write on a connection of its own, in autocommit and in a transaction; both must be refused.

        Returns:
            "" if they were, else what is wrong. Called by a thread of the switch when the site turned read-only.
        """
        if self.closed:
            return "the guard was closed"
        try:
            with proving():
                return self._prove()
        except Exception as error:
            return f"the guard could not be tried: {type(error).__name__}: {str(error).partition(chr(10))[0]}"

    def describe(self) -> Mapping[str, Any]:
        """Return which server, database and user it writes to, without secrets."""
        settings = connections.settings[self.name]
        options = settings.get("OPTIONS") or {}
        found = {
            "server": self.server.name,
            "driver": _drivers.name_of(connections[self.name]),
            "host": settings.get("HOST") or options.get("host"),
            "port": settings.get("PORT") or options.get("port"),
            "database": settings.get("NAME") or options.get("dbname"),
            "user": settings.get("USER") or options.get("user"),
            "service": options.get("service"),
        }
        said = {key: value if key == "port" else str(value) for key, value in found.items() if value}
        return said if self.replica is not None else {**said, **way_to(self.server), **self._watched()}

    def _prove(self) -> str:
        look_anew(self.server)
        wrapper = own_wrapper(self.name)
        try:
            # In a transaction first: what is set for autocommit would make that look read-only, too.
            wrapper.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
            try:
                problem = self.server.prove(wrapper.connection)
            finally:
                wrapper.rollback()
            # What was declared to be unguarded is said as such, and not tried.
            if problem or not wrapper.settings_dict["AUTOCOMMIT"] or is_accepted(self.server):
                return problem
            wrapper.set_autocommit(True)
            said = self.server.prove(wrapper.connection)
            held = held_of(wrapper.connection)
            # What the guard knows of itself comes first: it says what to do.
            problem = str(held.memory.get("problem", "")) if held is not None else ""
            problem = problem or said
            return f"in autocommit: {problem}" if problem else ""
        finally:
            wrapper.close()

    def _look(self) -> str:
        """Return why it takes no writes, or ""; on a connection of its own, past all hooks."""
        wrapper = own_wrapper(self.name)
        connection = wrapper.get_new_connection(wrapper.get_connection_params())
        try:
            return self.server.takes_no_writes(connection)
        finally:
            connection.close()

    def _renew(self) -> None:
        # Persistent connections may still lead to the old primary. They belong to other threads, which close them at
        # the end of a request when their time has come.
        for found in list(self._wrappers):
            wrapper = found()
            if wrapper is not None:
                wrapper.close_at = float("-inf")

    def close(self) -> None:
        """Guard no more."""
        self.closed = True
        if self.detection is not None:
            self.detection.close()

    def present(self) -> Guard:
        """Return the guard of this alias that is in place now; itself, if there is none."""
        guards = self._present() if self.closed else None
        return (guards is not None and guards.guard(self.name)) or self

    # --- what connections ask ----------------------------------------------------------------------------------------

    def failed(self, connection: Any, error: BaseException, held: Held, *, lost: bool) -> None:
        """Look at a driver's error: mark the request of a refusal, leave a replica out that is not there."""
        if self.replica is not None and (lost or self.server.is_unfit(error)):
            self.replica.failed()
        if self._is_refusal(connection, error, held):
            self._refusal(error)

    def refused(self, connection: Any, error: BaseException, held: Held | None) -> RefusedWrite | None:
        """Return what a driver's error becomes, if the server refused a write as read-only; judged by its code."""
        if not self._is_refusal(connection, error, held):
            return None
        return self._refusal(error)

    def hooked(self, wrapper: Any) -> None:
        """Know a connection object that is under this guard."""
        self._wrappers.add(ref(wrapper, self._wrappers.discard))

    def connected(self, connection: Any) -> None:
        """Look where a new connection leads, as far as its driver was told."""
        if self.detection is not None and self.server.is_suspect(connection):
            self.detection.suspect()

    def lifts(self, statement: str) -> RefusedWrite:
        """Return the error for a statement that would lift the guard."""
        reason = f"database {self.name!r}: {statement!r} would lift the guard, or commit what was prepared before"
        return self.admission.refusal(reason, kind=RefusedWrite)

    def no_write(self, what: str) -> RefusedWrite:
        """Return the error for a write that was refused before anything was sent."""
        return self.admission.refusal(f"database {self.name!r}: {what}", kind=RefusedWrite)

    def _is_refusal(self, connection: Any, error: BaseException, held: Held | None) -> bool:
        if self.replica is None and self.server.is_denied(error) and self.admission.is_fenced():
            # Who is let through, or had begun before, has no guard in the way: only the fence.
            return True
        if not self.server.is_refusal(error):
            return False
        if self.detection is None or (held is not None and held.guarded) or not self.admission.switch.view.writable:
            return True
        # Of a writable site, it is the application's own read-only transaction, or the database's own doing.
        self.detection.suspect()
        if held is None or not held.was_told(connection):
            return False
        self._renew()
        return True

    def _refusal(self, error: BaseException) -> RefusedWrite:
        said = str(error).partition("\n")[0]
        what = "refused a write" if self.replica is None else "is a replica, and a write reached it"
        return self.admission.refusal(
            f"database {self.name!r} {what}: {said}", kind=kind_of(error), table=self.server.table(error)
        )


class Guards:
    """The guards of all aliases, from now on until `close`.

    Args:
        switch: The process's switch.
        unguarded: Aliases that are left alone.
        replicas: By the alias of a primary, the aliases that hold a copy of it. They are never written to.
        discard: Incidental writes that are dropped while read-only: `blog.PageView` drops every write to that model's
            table, `auth.User.last_login` an UPDATE that changes nothing else.
        always: Read from replicas while writable, too.
        schema, max_lag, none_fit: See `Routing`.
        poolers: By alias, what stands before a PostgreSQL: `transaction` or `session`, see
            `readonly.databases.sqlalchemy.Database`.
        present: Tells which guards are in place in this process.

    Raises:
        ConfigurationError: An argument can't be right; the message names it.
    """

    def __init__(
        self,
        switch: Switch,
        *,
        unguarded: Sequence[str] = (),
        replicas: Mapping[str, Sequence[str]] | None = None,
        discard: Sequence[str] = (),
        always: bool = False,
        schema: Schema | str | None = None,
        max_lag: float = LAG_SECONDS,
        none_fit: str = "primary",
        poolers: Mapping[str, Pooler] | None = None,
        present: Callable[[], Guards | None],
    ) -> None:
        self.switch = switch
        self._present = present
        self.unguarded = frozenset(_aliases("unguarded", unguarded))
        self._poolers = dict(poolers or {})
        _aliases("poolers", list(self._poolers))
        self.routing = Routing(
            switch,
            replicas or {},
            unguarded=self.unguarded,
            always=always,
            schema=schema,
            max_lag=max_lag,
            none_fit=none_fit,
            refuses=self.refuses,
        )
        self.discards = Discards(discard)
        self.rehearsing = Rehearsing(switch, self.discards)
        self._making = threading.Lock()
        self._guards: dict[str, Guard] = {}
        self.closed = False
        try:
            for alias in connections:
                # A driver that is missing is Django's to report, when somebody connects: commands that need no
                # database go on without it.
                with suppress(ImproperlyConfigured):
                    self.guard(alias)
        except BaseException:
            self.close()
            raise

    def guard(self, alias: str, wrapper: Any = None) -> Guard | None:
        """Return the guard of an alias, made when it is first asked for; None for one that has none.

        Args:
            alias: The alias.
            wrapper: A connection object of it, where DATABASES need not have the alias.

        Raises:
            ConfigurationError: It can't be guarded, and was not left out.
        """
        found = self._guards.get(alias)
        if found is not None or alias in self.unguarded or alias == NO_DB_ALIAS:
            return found
        with self._making:
            found = self._guards.get(alias)
            if found is not None or self.closed:
                return found
            wrapper = wrapper or connections[alias]
            if wrapper.vendor == "unknown":  # django.db.backends.dummy: there is no database
                return None
            _drivers.check(wrapper)
            found = Guard(
                alias,
                server_behind(wrapper.vendor, self._poolers.get(alias)),
                self.switch,
                present=self._present,
                replica=self.routing.replica(alias),
                watched=lambda: self.routing.watch(alias).describe(),
            )
            # What nobody has configured can't be connected to for a proof, either.
            if found.replica is None and alias in connections.settings:
                self.switch.add_guard(found)
            self._guards[alias] = found
            return found

    def adopt(self, wrapper: BaseDatabaseWrapper) -> None:
        """Hook one of Django's connection objects, before it connects. Twice does no harm."""
        guard = self.guard(wrapper.alias, wrapper)
        hooks = hooks_of(wrapper)
        if guard is None:
            if hooks is not None:
                hooks.remove()
                self.rehearsing.unhook(wrapper)
        elif hooks is None:
            Hooks(wrapper, guard)
            if guard.replica is not None:
                wrapper.execute_wrappers.insert(0, self.routing.retry)
            else:
                self.rehearsing.hook(wrapper)

    def refuses(self, alias: str) -> Guard | None:
        """Return the guard of an alias if a write to it would be refused here and now, else None.

        A transaction that is open there decides; elsewhere, what would become of one that begins now.
        """
        guard = self.guard(alias)
        if guard is None:
            return None
        connection = connections[alias].connection
        held = held_of(connection)
        if held is not None and not guard.server.is_idle(connection):
            return None if held.may_write else guard
        return None if guard.admission.may_write() else guard

    def close(self) -> None:
        """Guard no more. Connections of other threads are put back as they were at their next use."""
        self.closed = True
        self.routing.close()
        for guard in self._guards.values():
            guard.close()
            self.switch.remove_guard(guard)


def own_wrapper(alias: str) -> Any:
    """Return a connection object of one's own for an alias: none of the application's, and not from its pool."""
    made: Any = connections.create_connection(alias)
    options = {key: value for key, value in made.settings_dict["OPTIONS"].items() if key != "pool"}
    return type(made)({**made.settings_dict, "OPTIONS": options}, alias)


def _aliases(argument: str, names: Sequence[str]) -> Sequence[str]:
    if isinstance(names, str):
        raise ConfigurationError(f"{argument}={names!r} is one string: write a list, [{names!r}]")
    for name in names:
        if name not in connections.settings:
            known = ", ".join(connections.settings)
            raise ConfigurationError(f"{argument}={name!r} is no alias of DATABASES, which has {known}")
    return names
