"""The fence of a PostgreSQL database: the order of its steps, and its deadline.

    1  take away (privileges), or shut (the gate), or put a trigger on each table: kept in the database in the same step
    2  wait until every transaction that held a writer's lock then has ended, or end it at a deadline that was named
    3  look again: what was made, swapped or prepared meanwhile
    4  a marker in the log, written synchronously: the position behind which no earlier write is

Each step may be done again. A process that dies between two of them leaves a fence that stands and is not called safe;
raising it again goes on from there. Versions 14 to 18; tested on 15 and 18.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import psycopg

from ..replicas import Schema
from ..replicas import Standing as Seen
from ..replicas import postgresql as replicas
from . import _pg_covering as covering
from . import _pg_defaults as defaults
from . import _pg_preflight as checks
from . import _pg_privileges as privileges
from . import _pg_session as session
from . import _pg_state as state
from . import _pg_triggers as triggers
from . import _pg_writers as writers
from ._pg_patience import POLL_SECONDS, Patience
from ._pg_preflight import Roles
from ._pg_state import Connection, Standing
from .fence import Fence
from .values import (
    Fenced,
    FenceError,
    FenceRefused,
    Holder,
    Holdup,
    Level,
    Lifted,
    NotOurFence,
    Pass,
    Position,
    Preflight,
    Strategy,
    Waiting,
)

# A session that was told to end rolls back first.
END_SECONDS = 10.0
# Somebody else changed the same row of a catalog at that moment (XX000, "tuple concurrently updated").
_CONCURRENTLY = "concurrently"
_ATTEMPTS = 10


class PostgresFence(Fence):
    """A PostgreSQL database that can be fenced.

    Args:
        url: Of the primary itself, not of a pooler before it, as a role that may take the writers' rights away.
        writers: The roles that the application connects as.
        migrators: The roles that must go on writing.
        name: Its name in the configuration.
        strategy: How to fence; None: as suits the database best.

    Not thread-safe; each call opens one connection and closes it.
    """

    def __init__(
        self,
        url: str,
        *,
        writers: Sequence[str],
        migrators: Sequence[str] = (),
        name: str = "main",
        strategy: Strategy | None = None,
    ) -> None:
        self.name = name
        self._url = url
        self._writers = tuple(writers)
        self._migrators = tuple(migrators)
        self._strategy = strategy
        self._event = threading.Event()

    def holds(self, user: str, strategy: Strategy) -> bool:
        """Return whether this user's sessions are stopped: by triggers everybody's, else the writers' alone."""
        return strategy in covering.BY_TRIGGER or user in self._writers

    def preflight(self, *, strategy: Strategy | None = None) -> Preflight:
        """Return what a fence could do here; nothing is changed.

        Raises:
            FenceUnreachable: The server did not answer.
            FenceRefused: This is a standby, or a role does not exist.
        """
        with self._connect() as connection:
            self._require_primary(connection)
            found = checks.preflight(connection, self._who(connection), strategy=strategy or self._strategy)
            return replace(self._named(found), pooled=session.pooled(connection))

    def status(self) -> Fenced | None:
        """Return the fence that stands in this database, whoever raised it; None if there is none."""
        with self._connect() as connection:
            standing = state.standing(connection)
            return None if standing is None else self._fenced(connection, standing)

    def open_tables(self) -> tuple[str, ...]:
        """Return what the standing fence does not cover: tables that were made, swapped or granted since.

        Returns:
            Names, empty where everything is covered or no fence stands.
        """
        with self._connect() as connection:
            standing = state.standing(connection)
            if standing is None:
                return ()
            return tuple(name for name, _ in covering.uncovered(connection, standing, self._who(connection)))

    def put_up(
        self,
        *,
        site: str,
        cause: str,
        by: str,
        epoch: int = 0,
        timeout: float,
        end_after: float | None = None,
        run: Pass | None = None,
        strategy: Strategy | None = None,
        waiting: Waiting | None = None,
    ) -> Fenced:
        """Raise the fence, or go on raising it, and return when no earlier write is under way any more.

        Args:
            site: Whose fence it is.
            cause: The record's cause that holds it from now on; one that holds it already is not added twice.
            by: Who raises it, for people.
            epoch: The record's epoch, to be remembered here; 0: not told.
            timeout: Seconds to wait for transactions that had begun.
            end_after: Seconds after which those that are left are ended; None: never.
            run: Whose sessions are let through a fence of triggers.
            strategy: To be used; None: what `preflight` chooses.
            waiting: Told whom it waits for, when that changes.

        Raises:
            FenceUnreachable: The server did not answer; nothing is known of what stands: ask `status`.
            FenceRefused: Something is missing; nothing was changed.
            NotOurFence: Another site's fence stands here.
            StillWriting: It stands, and transactions from before have not ended in time.
        """
        now = time.monotonic()
        patience = Patience(self.name, now + timeout, None if end_after is None else now + end_after, waiting)
        with self._connect() as connection:
            self._require_primary(connection)
            who = self._who(connection)
            standing = self._claim(
                connection, who, site=site, cause=cause, by=by, epoch=epoch, run=run, strategy=strategy
            )
            own = [holder for holder in standing.holders if holder.cause == cause]
            found = covering.settle(connection, standing, who, patience, own)
            # Tables that had no trigger yet are no find when the fence goes up for the first time.
            found = found if standing.position is not None else ()
            return self._mark(connection, who, own, ended=tuple(patience.ended), found=found)

    def look_again(self, *, site: str, timeout: float, waiting: Waiting | None = None) -> Fenced:
        """Fence what was made, swapped or granted since the fence went up, and wait as `put_up` does.

        Raises:
            FenceError: No fence stands here, or as for `put_up`.
        """
        with self._connect() as connection:
            self._require_primary(connection)
            standing = self._ours(connection, site)
            if standing is None:
                raise FenceError(
                    f"{self.name}: no fence stands at {state.described(connection)}, so this database takes writes; "
                    f"raise it again with: readonlyctl fence raise {self.name}"
                )
            who = self._who(connection)
            patience = Patience(self.name, time.monotonic() + timeout, None, waiting)
            found = covering.settle(connection, standing, who, patience, standing.holders)
            return self._mark(connection, who, standing.holders, ended=(), found=found)

    def lift(self, *, site: str, cause: str | None = None, orphan: bool = False) -> Lifted:
        """Let go of the fence for a cause, and take it down when nobody else holds it.

        Args:
            site: Whose fence is to be lifted.
            cause: The cause that lets go; None: all of them.
            orphan: Lift it whoever raised it: one that came with a copy of another site's database.

        Raises:
            FenceUnreachable: The server did not answer.
            NotOurFence: Another site's fence stands here, and `orphan` is False.
            FenceError: It could not be taken down; what stands is in the message.
        """
        with self._connect() as connection:
            self._require_primary(connection)
            with connection.transaction():
                state.lock(connection)
                standing = state.standing(connection) if orphan else self._ours(connection, site)
                if standing is None:
                    return Lifted(self.name, down=True)
                if not state.release(connection, cause):
                    left = state.standing(connection)
                    return Lifted(self.name, down=False, held_by=left.holders if left is not None else ())
                strategy = Strategy(standing.strategy)
                if strategy is Strategy.REVOKE:
                    count, lost = privileges.give_back(connection)
                    state.end(connection)
                    return Lifted(self.name, down=True, given_back=count, lost=lost)
                if strategy is Strategy.DEFAULTS:
                    count = defaults.give_back(connection)
                    state.end(connection)
                    return Lifted(self.name, down=True, given_back=count)
                triggers.open_(connection)
                if strategy is Strategy.GATE:
                    count = len(triggers.fenced(connection))
                    state.end(connection)
                    return Lifted(self.name, down=True, given_back=count)
            # The gate is open; the triggers are taken off one by one, and a death in between leaves harmless ones.
            count, held_by = covering.take_off(connection, name=self.name)
            return Lifted(self.name, down=not held_by, held_by=held_by, given_back=count)

    def install(self, *, site: str, by: str) -> tuple[str, ...]:
        """Put the gate on every table, open: for sites that want to fence without touching a table that night.

        Returns:
            The tables that had none before.

        Raises:
            FenceRefused: A right is missing; the message holds the statements.
        """
        with self._connect() as connection:
            self._require_primary(connection)
            who = self._who(connection)
            flight = checks.preflight(connection, who, strategy=Strategy.EACH)
            self._require(flight)
            with connection.transaction():
                state.lock(connection)
                standing = self._ours(connection, site)
                state.make(connection)
                if standing is None:
                    triggers.open_(connection)
                connection.execute(
                    "INSERT INTO readonly_fence.adopted (site, by) VALUES (%s, %s) ON CONFLICT DO NOTHING", [site, by]
                )
            bare = [table for table in checks.to_cover(connection, who) if not table.fenced]
            patience = Patience(self.name, time.monotonic() + covering.LIFT_SECONDS)
            for table in bare:
                covering.put_on(connection, table, patience)
            return tuple(str(table) for table in bare)

    def uninstall(self, *, site: str) -> int:
        """Take the gate off every table and remove its schema; returns how many tables had one.

        Raises:
            FenceError: A fence stands.
        """
        with self._connect() as connection:
            if self._ours(connection, site) is not None:
                raise FenceError(f"{self.name}: the fence stands; lift it first: readonlyctl fence lift {self.name}")
            if not state.exists(connection):
                return 0
            with connection.transaction():
                state.lock(connection)
                triggers.open_(connection)
                connection.execute("DELETE FROM readonly_fence.adopted")
            count, held_by = covering.take_off(connection, name=self.name)
            if held_by:
                raise FenceError(
                    f"{self.name}: {held_by[0].by} raised the fence meanwhile, so the gate stays; lift it first: "
                    f"readonlyctl fence lift {self.name}"
                )
            return count

    def look(self, schema: Schema | None = None) -> Seen:
        """Return where the primary's log is now, and with which schema; nothing is changed.

        Raises:
            FenceUnreachable: The server did not answer.
        """
        with self._connect() as connection:
            # The site's own, where the table of its migrations is.
            connection.execute("RESET search_path")
            return replicas.look(connection, schema)

    def mark(self) -> Position:
        """Write a marker into the log and return the position behind it: a replica that has that has every commit.

        (What was inserted last without a commit need not be flushed for a long time: no replica would reach that.)
        """
        with self._connect() as connection:
            return Position(state.system(connection), _marked(connection, self.name))

    def kept_for(self, slot: str) -> int | None:
        """Return how many bytes of log the primary keeps for a replica's slot; None where it has no such slot."""
        with self._connect() as connection:
            row = connection.execute(
                "SELECT greatest(0, pg_catalog.pg_wal_lsn_diff("
                "pg_catalog.pg_current_wal_lsn(), restart_lsn))::bigint"
                " FROM pg_catalog.pg_replication_slots WHERE slot_name = %s AND restart_lsn IS NOT NULL",
                [slot],
            ).fetchone()
            return None if row is None else int(row[0])

    def sessions_of(self, run: str) -> tuple[Holdup, ...]:
        """Return the sessions of a run that are still there: a dead runner is not a dead migration."""
        with self._connect() as connection:
            return writers.sessions_of(connection, run)

    def end_sessions(self, run: str) -> tuple[Holdup, ...]:
        """End the sessions of a run that are still there, and wait until they are gone.

        Raises:
            FenceError: The fencer may not end them, or one does not go.
        """
        left = self.sessions_of(run)
        if not left:
            return ()
        with self._connect() as connection:
            ended, refused = writers.end(connection, left)
        if refused:
            raise FenceError(f"{self.name}: {'; '.join(refused)}. GRANT pg_signal_backend to the fence's role")
        deadline = time.monotonic() + END_SECONDS
        while self.sessions_of(run):
            if time.monotonic() >= deadline:
                raise FenceError(f"{self.name}: {'; '.join(map(str, left))} was told to end and has not yet: try again")
            self._event.wait(POLL_SECONDS[1])
        return ended

    def _claim(
        self, connection: Connection, who: Roles, *, site: str, cause: str, by: str, epoch: int, run: Pass | None,
        strategy: Strategy | None,
    ) -> Standing:  # fmt: skip
        """Make the server refuse, and keep what was taken, in one transaction."""
        for attempt in range(_ATTEMPTS):
            try:
                with connection.transaction():
                    state.lock(connection)
                    standing = self._ours(connection, site)
                    if standing is not None and not standing.holders:
                        # What is left of a lift that was not finished: its gate is open, and writes went through.
                        state.forget(connection)
                        standing = None
                    if standing is None:
                        flight = checks.preflight(connection, who, strategy=strategy or self._strategy)
                        self._require(flight)
                        state.make(connection)
                        state.begin(
                            connection, site=site, name=self.name, strategy=flight.strategy, level=flight.level,
                            run=run.run if run else "", hashed=triggers.hashed(run.token) if run else "", by=by,
                        )  # fmt: skip
                    elif run is not None:
                        connection.execute(
                            "UPDATE readonly_fence.fence SET run = %s, pass = %s", [run.run, triggers.hashed(run.token)]
                        )
                    state.hold(connection, cause, by, epoch=epoch)
                    now = state.required(connection)
                    if standing is None or run is not None:
                        covering.flip(connection, now, who, run, first=standing is None)
                if now.strategy == Strategy.DEFAULTS and now.position is None:
                    state.restarted(connection)
                    return state.required(connection)
                return now
            except psycopg.errors.InternalError as error:
                if _CONCURRENTLY not in str(error) or attempt == _ATTEMPTS - 1:
                    raise
            except psycopg.errors.DependentPrivilegeDescriptorsStillExist as error:
                raise FenceRefused(
                    f"{self.name}: a writer has granted on what would be taken from it, to a role that is not among "
                    f"the writers; nothing was changed: {session.said(error)}. Revoke that grant, or name that role as "
                    "a writer too"
                ) from error
        raise AssertionError("the loop returns or raises")

    def _mark(
        self, connection: Connection, who: Roles, kept: Sequence[Holder], *, ended: tuple[Holdup, ...],
        found: tuple[str, ...],
    ) -> Fenced:  # fmt: skip
        """Write the marker and keep the position, if the fence has been held without a break since `kept` was read.

        With synchronous_commit off a commit is acknowledged before it is in the log: the marker is written with it on,
        so that the flushed position lies behind every commit before it (PostgreSQL manual, 30.4 and 9.28.6).
        """
        position = _marked(connection, self.name)
        standing = state.required(connection)
        left = checks.ways_left(connection, who, Strategy(standing.strategy))
        level = Level(standing.level)
        if any(not way.insists for way in left) and level is Level.HARD:
            level = Level.COOPERATIVE
        with connection.transaction():
            connection.execute("SET LOCAL synchronous_commit = on")
            state.lock(connection)
            state.still_held(connection, kept)
            state.settle(connection, position=position, level=level)
        return replace(self._fenced(connection, state.required(connection)), ways=left, ended=ended, found=found)

    def _fenced(self, connection: Connection, standing: Standing) -> Fenced:
        position = None
        # Without a holder it is what is left of a lift: its gate is open.
        if standing.position is not None and standing.holders:
            position = Position(standing.system, standing.position, standing.horizon or "")
        return Fenced(
            name=self.name, server=state.described(connection), site=standing.site, run=standing.run,
            strategy=Strategy(standing.strategy), level=Level(standing.level), position=position,
            raised_at=standing.raised_at, holders=standing.holders,
        )  # fmt: skip

    def _ours(self, connection: Connection, site: str) -> Standing | None:
        standing = state.standing(connection)
        if standing is not None and standing.site != site:
            raise NotOurFence(
                f"{self.name} at {state.described(connection)} carries a fence of {standing.site}, raised by "
                f"{standing.raised_by} at {standing.raised_at:%Y-%m-%d %H:%M:%S %Z}: another site uses this database, "
                f"or it was restored from a copy made that night. It was left as it is. If it is a copy: "
                f"readonlyctl fence lift {self.name} --orphan",
                site=standing.site, by=standing.raised_by, at=standing.raised_at,
            )  # fmt: skip
        return standing

    def _named(self, flight: Preflight) -> Preflight:
        """Have what is missing be a command that can be typed."""
        return replace(
            flight, missing=tuple(f"{one} {self.name}" if one == checks.INSTALL else one for one in flight.missing)
        )

    def _require(self, flight: Preflight) -> None:
        if flight.possible:
            return
        flight = self._named(flight)
        raise FenceRefused(
            f"{self.name} at {flight.server}: no fence can be raised by {flight.strategy}; nothing was changed. "
            f"What is missing: {'; '.join(flight.missing)}",
            missing=flight.missing,
        )

    def _require_primary(self, connection: Connection) -> None:
        row = connection.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
        if row is not None and row[0]:
            raise FenceRefused(
                f"{self.name} at {state.described(connection)} is a standby: a fence is raised at the primary, and its "
                "standbys follow. Nothing was changed; is the address from before a failover?"
            )

    def _who(self, connection: Connection) -> Roles:
        return checks.roles(connection, self._writers, self._migrators)

    def _connect(self) -> AbstractContextManager[Connection]:
        return session.connect(self._url, name=self.name)


def _marked(connection: Connection, name: str) -> str:
    """Write a marker synchronously, and return the position behind it: the log of all earlier commits is before it."""
    with connection.transaction():
        connection.execute("SET LOCAL synchronous_commit = on")
        connection.execute("SELECT pg_catalog.pg_logical_emit_message(true, 'readonly-fence', %s)", [name])
    [(position,)] = connection.execute("SELECT pg_catalog.pg_current_wal_flush_lsn()::text").fetchall()
    return str(position)
