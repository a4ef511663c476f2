"""Which server a read goes to: the primary, or one replica for the whole of a request."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from django.db import InterfaceError, OperationalError, connections

from readonly.context import current
from readonly.databases import server_for
from readonly.databases.replicas import LAG_SECONDS, Replica, Replicas, Schema, schema_of
from readonly.databases.replicas import sqlite as copies
from readonly.databases.replicas.reaching import LOOK_SECONDS, LOOKS, DirectReach, Reach
from readonly.databases.replicas.schema import unreachable_standby
from readonly.databases.replicas.watching import Watch
from readonly.errors import ConfigurationError, NoFitReplica
from readonly.switch import Switch

logger = logging.getLogger("readonly")

# What this request reads from, by the alias of the primary. One dict for a request and all that it starts.
_pinned: ContextVar[dict[str, Replica[str]] | None] = ContextVar("readonly_django_replicas", default=None)


class Routing:
    """Chooses among the replicas of each primary.

    Args:
        switch: The process's switch.
        replicas: By the alias of a primary, the aliases of its replicas.
        unguarded: Aliases that are left alone.
        always: Read from replicas while writable, too.
        schema: How to ask for the schema version; `"django"`: the migrations that this process has.
        max_lag: Seconds that a replica may be behind where no position says what must be there.
        none_fit: With no fit replica read from the `"primary"`, or `"refuse"`.
        refuses: Tells whether what is open on an alias, or would begin there now, must not write.

    Raises:
        ConfigurationError: An alias can't be what it is said to be; the message names it.
    """

    def __init__(
        self,
        switch: Switch,
        replicas: Mapping[str, Sequence[str]],
        *,
        unguarded: frozenset[str],
        always: bool,
        schema: Schema | str | None = None,
        max_lag: float = LAG_SECONDS,
        none_fit: str = "primary",
        refuses: Callable[[str], object],
    ) -> None:
        if none_fit not in ("primary", "refuse"):
            raise ConfigurationError(f"none_fit={none_fit!r} is not a choice: write 'primary' or 'refuse'")
        self._switch = switch
        self._always = always
        self._none_fit = none_fit
        self._max_lag = max_lag
        self._refuses = refuses
        self.closed = False
        self._primary_of = _checked(replicas, unguarded)
        self._schema = _later(schema)
        self._by_alias = {alias: self._replica(alias) for alias in self._primary_of}
        self._watches: dict[str, Watch[str]] = {}
        for primary, aliases in replicas.items():
            self._watches[primary] = self._watch(primary, Replicas([self._by_alias[alias] for alias in aliases]))

    def __bool__(self) -> bool:
        return bool(self._primary_of)

    def replica(self, alias: str) -> Replica[str] | None:
        """Return what is known of a replica; None if the alias is none."""
        return self._by_alias.get(alias)

    def primary(self, alias: str) -> str:
        """Return the primary of a replica; any other alias is its own."""
        return self._primary_of.get(alias, alias)

    def has_replicas(self, alias: str) -> bool:
        """Tell whether an alias is a primary that has replicas."""
        found = self._watches.get(alias)
        return found is not None and bool(found.replicas)

    def watch(self, alias: str) -> Watch[str]:
        """Return what watches a primary, made when it is first asked for."""
        found = self._watches.get(alias)
        if found is None:
            found = self._watches.setdefault(alias, self._watch(alias, Replicas([])))
        return found

    def forget(self, **_: Any) -> None:
        """A request begins: it makes its own choice."""
        _pinned.set(None)

    def close(self) -> None:
        """Look at nothing any more."""
        self.closed = True
        for watch in self._watches.values():
            watch.close()

    def reached(self, alias: str, epoch: int) -> None:
        """Declare that a replica holds everything that was committed before an epoch's change was confirmed.

        Args:
            alias: The replica's.
            epoch: The epoch of an `on` whose writes have drained, or (`always`) of the last `off`.

        Raises:
            ConfigurationError: There is no such replica.
        """
        replica = self._by_alias.get(alias)
        if replica is None:
            known = ", ".join(self._by_alias) or "none"
            raise ConfigurationError(f"alias={alias!r} is no replica: the replicas are {known}")
        replica.reached(epoch)

    def alias_for_read(self, primary: str, *, besides: Sequence[Replica[str]] = ()) -> str:
        """Return the alias that reads of a primary go to, here and now.

        Args:
            primary: The primary's alias.
            besides: Replicas that have let the reader down.

        Raises:
            NoFitReplica: None can be read from, and the primary is not to be.
        """
        if not self.has_replicas(primary) or self._stays(primary):
            return primary
        watch = self._watches[primary]
        need = watch.need()
        if need is None:
            return primary
        pins = _pinned.get()
        if pins is None:
            pins = {}
            _pinned.set(pins)
        pinned = pins.get(primary)
        if pinned is not None and pinned not in besides and not pinned.why_unfit(need):
            return pinned.target
        for _ in watch.replicas.all:
            replica = watch.replicas.choose(need, besides=besides)
            if replica is None:
                break
            if self._answers(replica):
                pins[primary] = replica
                return replica.target
        pins.pop(primary, None)
        if self._none_fit == "refuse":
            whys = "; ".join(f"{r.name} {r.why_unfit(need) or 'failed just now'}" for r in watch.replicas.all)
            raise NoFitReplica(
                f"database {primary!r}: no replica can be read from ({whys}), and none_fit='refuse' keeps reads off "
                "the primary"
            )
        return primary

    def retry(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:  # Django's protocol of wrappers
        """Run a statement on a replica's connection; where that is lost with it, once elsewhere.

        Outside of a transaction each statement is one of its own, so nothing was read in it. What reads on from the
        cursor is handed the other server's.
        """
        wrapper = context["connection"]
        if self.closed:
            return execute(sql, params, many, context)
        try:
            return execute(sql, params, many, context)
        except (OperationalError, InterfaceError):
            primary = self.primary(wrapper.alias)
            # What somebody sent there by `using()` is not ours to move.
            replica = (_pinned.get() or {}).get(primary)
            if replica is None or replica.target != wrapper.alias or not replica.left_out or many:
                raise
            if wrapper.in_atomic_block:
                raise
            elsewhere = connections[self.alias_for_read(primary, besides=[replica])].cursor()
            found = elsewhere.execute(sql, params)
            context["cursor"].cursor = elsewhere.cursor
            return found

    def _stays(self, primary: str) -> bool:
        """Tell whether reads stay on the primary: they may be of what was written there."""
        wrapper: Any = connections[primary]
        # A test's own transaction: what it has written is nowhere else.
        if wrapper.in_atomic_block and any(block._from_testcase for block in wrapper.atomic_blocks):
            return True
        if self._switch.state.read_only:
            return not self._refuses(primary)
        work = current(self._switch)
        return bool(wrapper.in_atomic_block) or (work is not None and work.may_write)

    def _answers(self, replica: Replica[str]) -> bool:
        """Connect, before a request is sent there; one that had failed is also tried."""
        wrapper: Any = connections[replica.target]
        try:
            wrapper.ensure_connection()
            if replica.suspect:
                _try(wrapper)
        except Exception as error:
            replica.failed()
            logger.warning("readonly: replica %s is left out for a while: %s", replica.target, error)
            wrapper.close()
            return False
        replica.works()
        return True

    # --- looking in the background -----------------------------------------------------------------------------------

    def _replica(self, alias: str) -> Replica[str]:
        wrapper: Any = connections[alias]
        if wrapper.vendor in LOOKS:
            return Replica(alias, name=alias, watched=True)
        if wrapper.vendor != "sqlite" or wrapper.is_in_memory_db():
            return Replica(alias, name=alias)
        path = Path(wrapper.settings_dict["NAME"])
        return Replica(alias, name=alias, probe=lambda: copies.look(path, self._schema()))

    def _watch(self, primary: str, replicas: Replicas[str]) -> Watch[str]:
        served = connections[primary].vendor in LOOKS
        return Watch(
            primary,
            self._switch,
            replicas,
            reaches=[_reach(replica.target) for replica in replicas.all] if served else (),
            primary=_reach(primary) if served else None,
            identity=_file(primary),
            schema=self._schema,
            always=self._always,
            lag=self._max_lag,
        )


def _file(alias: str) -> Callable[[], str] | None:
    """Return what says which file a database is; None where it is none."""
    wrapper: Any = connections[alias]
    if wrapper.vendor != "sqlite" or wrapper.is_in_memory_db():
        return None
    path = Path(wrapper.settings_dict["NAME"])
    return lambda: copies.identity_of(path)


def _later(schema: Schema | str | None) -> Callable[[], Schema | None]:
    """Return what makes the schema when it is first asked for: migrations take a while to import."""
    if schema == "django":

        @functools.cache
        def own() -> Schema:
            from .schema import own_schema

            return own_schema()

        return own
    found = schema_of(schema)
    return lambda: found


def _reach(alias: str) -> Callable[[], Reach]:
    """Return the way to a server, beside the connections of the application: not guarded, not counted, not pooled."""

    def connect() -> Any:
        made: Any = connections.create_connection(alias)
        options = {key: value for key, value in made.settings_dict["OPTIONS"].items() if key != "pool"}
        wrapper = type(made)({**made.settings_dict, "OPTIONS": options}, alias)
        parameters = wrapper.get_connection_params()
        parameters.setdefault("connect_timeout", int(LOOK_SECONDS))
        return wrapper.get_new_connection(parameters)

    vendor = connections[alias].vendor  # now: the thread that looks begins later, and may outlast the settings
    return lambda: DirectReach(vendor, connect)


def _checked(replicas: Mapping[str, Sequence[str]], unguarded: frozenset[str]) -> dict[str, str]:
    """Return the primary of each replica."""
    found: dict[str, str] = {}
    for primary, aliases in replicas.items():
        if isinstance(aliases, str):
            raise ConfigurationError(f"replicas[{primary!r}]={aliases!r} is one string: write a list, [{aliases!r}]")
        for alias in (primary, *aliases):
            if alias not in connections.settings:
                known = ", ".join(connections.settings)
                raise ConfigurationError(f"replicas: {alias!r} is no alias of DATABASES, which has {known}")
            if alias in unguarded:
                raise ConfigurationError(
                    f"replicas: {alias!r} is left out of the guard, but reads are only routed between guarded databases"
                )
        for alias in aliases:
            if alias in replicas:
                raise ConfigurationError(f"replicas: {alias!r} is a primary as well as a replica: it can't be both")
            if alias in found:
                raise ConfigurationError(f"replicas: {alias!r} is there twice: leave one out")
            if connections[alias].vendor != connections[primary].vendor:
                raise ConfigurationError(
                    f"replicas: {alias!r} is {connections[alias].vendor}, and {primary!r} is "
                    f"{connections[primary].vendor}: a replica holds the same database"
                )
            if _address(alias) == _address(primary):
                raise ConfigurationError(f"replicas: {alias!r} is {primary!r}, the primary itself: leave it out")
            if connections[alias].vendor == "postgresql":
                wanted = connections.settings[alias]["OPTIONS"].get("target_session_attrs")
                problem = unreachable_standby(wanted, os.environ)
                if problem:
                    raise ConfigurationError(f"replicas: {alias!r}: {problem}")
            found[alias] = primary
    return found


def _address(alias: str) -> tuple[str, ...]:
    """Return what tells one database from another, as far as the settings say."""
    settings = connections.settings[alias]
    options = settings["OPTIONS"]
    said = [settings["NAME"] or options.get("service"), settings["HOST"] or options.get("host"), settings["PORT"]]
    return tuple(str(part or "") for part in said)


def _try(wrapper: Any) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute(server_for(wrapper.vendor).trial)
        cursor.fetchall()
