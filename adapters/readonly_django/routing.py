"""Which server a read goes to: the primary, or one replica for the whole of a request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from django.db import connections

from readonly.context import current
from readonly.databases import server_for
from readonly.databases.replicas import Replica, Replicas
from readonly.databases.sqlite import copied_at
from readonly.errors import ConfigurationError
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
        refuses: Callable[[str], object],
    ) -> None:
        self._switch = switch
        self._always = always
        self._refuses = refuses
        self._primary_of = _checked(replicas, unguarded)
        self._by_alias = {alias: Replica(alias, probe=_probe(alias)) for alias in self._primary_of}
        self._replicas = {
            primary: Replicas([self._by_alias[alias] for alias in aliases]) for primary, aliases in replicas.items()
        }

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
        return bool(self._replicas.get(alias))

    def forget(self, **_: Any) -> None:
        """A request begins: it makes its own choice."""
        _pinned.set(None)

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

    def alias_for_read(self, primary: str) -> str:
        """Return the alias that reads of a primary go to, here and now."""
        replicas = self._replicas.get(primary)
        if not replicas or self._stays(primary):
            return primary
        bounds = self._bounds()
        if bounds is None:
            return primary
        required, newest = bounds
        pins = _pinned.get()
        if pins is None:
            pins = {}
            _pinned.set(pins)
        pinned = pins.get(primary)
        if pinned is not None and not pinned.left_out and required <= (pinned.position() or 0) <= newest:
            return pinned.target
        work = current(self._switch)
        turn = None if work is None else id(work) >> 4
        for _ in replicas.all:
            replica = replicas.choose(required, newest, turn=turn)
            if replica is None:
                break
            if self._answers(replica):
                pins[primary] = replica
                return replica.target
        pins.pop(primary, None)
        return primary

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

    def _bounds(self) -> tuple[int, int] | None:
        """Return what a replica must have reached, and can have; None: nobody knows, or nothing is to be routed."""
        state = self._switch.state
        if not state.read_only:
            # After `off`, a replica must have reached the end of the read-only time.
            return (state.epoch, state.epoch) if self._always else None
        stored = state.record.causes if state.record is not None else ()
        if not stored:
            return None  # a window, or a cause that only this process sees: no epoch says what must be there
        return min(cause.epoch for cause in stored), state.epoch

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
            found[alias] = primary
    return found


def _address(alias: str) -> tuple[str, ...]:
    """Return what tells one database from another, as far as the settings say."""
    settings = connections.settings[alias]
    options = settings["OPTIONS"]
    said = [settings["NAME"] or options.get("service"), settings["HOST"] or options.get("host"), settings["PORT"]]
    return tuple(str(part or "") for part in said)


def _probe(alias: str) -> Callable[[], int | None] | None:
    """Return what looks up the epoch that a replica has reached, where it says so itself: copies of SQLite files."""
    wrapper: Any = connections[alias]
    if wrapper.vendor != "sqlite" or wrapper.is_in_memory_db():
        return None
    path = Path(wrapper.settings_dict["NAME"])
    return lambda: copied_at(path)


def _try(wrapper: Any) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute(server_for(wrapper.vendor).trial)
        cursor.fetchall()
