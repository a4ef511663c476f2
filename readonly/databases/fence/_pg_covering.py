"""What does a fence have to cover, by each strategy: which rights, which tables; and what takes the cover off again?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psycopg

from . import _pg_defaults as defaults
from . import _pg_preflight as checks
from . import _pg_privileges as privileges
from . import _pg_state as state
from . import _pg_triggers as triggers
from . import _pg_writers as writers
from ._pg_patience import Patience
from ._pg_preflight import Roles
from ._pg_state import Connection, Standing
from .values import FenceError, Holder, Pass, Strategy

BY_TRIGGER = frozenset({Strategy.GATE, Strategy.EACH})
# How long a lift tries to take a trigger off a table that is locked, and an installation to put one on.
LIFT_SECONDS = 60.0


def flip(connection: Connection, standing: Standing, who: Roles, run: Pass | None, *, first: bool) -> None:
    """Have the server refuse, in the transaction that says so; taken away is what the writers have the first time."""
    strategy = Strategy(standing.strategy)
    if strategy in BY_TRIGGER:
        whose = f" (run {standing.run})" if standing.run else ""
        triggers.shut(
            connection,
            message=f"the site {standing.site} is read-only: its database was fenced by {standing.raised_by}{whose}"
            f" at {standing.raised_at:%Y-%m-%d %H:%M:%S %Z}",
            hint="`readonlyctl status` says why and until when; `readonlyctl off` lifts the fence.",
            token=run.token if run else "",
        )
    elif first and strategy is Strategy.REVOKE:
        privileges.take(connection, privileges.granted(connection, who.grantees))
    elif first:
        defaults.take(connection, who.writers)


def settle(
    connection: Connection, standing: Standing, who: Roles, patience: Patience, kept: Sequence[Holder]
) -> tuple[str, ...]:
    """Cover everything and wait for earlier writers, until a look finds nothing new; return what was covered."""
    found: list[str] = []
    while True:
        found += _cover(connection, standing, who, patience, kept)
        patience.wait(connection, standing, who)
        if not uncovered(connection, standing, who):
            return tuple(dict.fromkeys(found))


def uncovered(connection: Connection, standing: Standing, who: Roles) -> list[tuple[str, Any]]:
    """Return what a fence by this strategy has to cover and does not, by name."""
    strategy = Strategy(standing.strategy)
    if strategy is Strategy.REVOKE:
        return [(str(p), p) for p in privileges.granted(connection, who.grantees)]
    if strategy in BY_TRIGGER:
        return [(str(t), t) for t in checks.to_cover(connection, who) if not t.fenced]
    return []


def _cover(
    connection: Connection, standing: Standing, who: Roles, patience: Patience, kept: Sequence[Holder]
) -> list[str]:
    strategy = Strategy(standing.strategy)
    if strategy is Strategy.REVOKE:
        with connection.transaction():
            state.lock(connection)
            state.still_held(connection, kept)
            left = uncovered(connection, standing, who)
            privileges.take(connection, [privilege for _, privilege in left])
    else:
        left = uncovered(connection, standing, who)
        for _, table in left:
            put_on(connection, table, patience)
    return [name for name, _ in left]


def put_on(connection: Connection, table: triggers.Table, patience: Patience) -> None:
    """Put the trigger on a table, however often its lock has to be tried for."""
    while True:
        try:
            triggers.put_on(connection, table)
            return
        except psycopg.errors.UndefinedTable:
            return  # dropped since; the next look says what took its place
        except (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction):
            state.required(connection)  # says that the fence was lifted
            raise
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            left = writers.writers_of(connection, table.oid)
            patience.waits_for(connection, left)


def take_off(connection: Connection, *, name: str) -> tuple[int, tuple[Holder, ...]]:
    """Take the triggers off and remove what the fence kept, unless somebody raises it again meanwhile.

    Returns:
        From how many tables, and who raised it again.
    """
    deadline = time.monotonic() + LIFT_SECONDS
    tables = triggers.fenced(connection)
    for count, table in enumerate(tables):
        while True:
            try:
                with connection.transaction():
                    state.lock(connection)
                    held_by = state.holders(connection)
                    if held_by:
                        return count, held_by
                    triggers.take_off(connection, table)
                break
            except psycopg.errors.UndefinedTable:
                break
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
                if time.monotonic() >= deadline:
                    raise FenceError(
                        f"{name}: the fence is open, writes go through; its trigger could not be taken off "
                        f"{table}, which is locked. Lift it again when that has ended: "
                        f"readonlyctl fence lift {name}"
                    ) from error
    with connection.transaction():
        state.lock(connection)
        held_by = state.holders(connection)
        if not held_by and state.exists(connection):
            state.end(connection)
    return len(tables), held_by
