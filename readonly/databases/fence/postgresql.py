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
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg

from ...errors import ConfigurationError
from ..replicas import Schema
from ..replicas import Standing as Seen
from ..replicas import postgresql as replicas
from . import _pg_preflight as checks
from . import _pg_privileges as privileges
from . import _pg_state as state
from . import _pg_triggers as triggers
from . import _pg_writers as writers
from ._pg_preflight import Roles
from ._pg_state import Connection, Standing
from .fence import Fence
from .values import (
    Fenced,
    FenceError,
    FenceRefused,
    FenceUnreachable,
    Holder,
    Holdup,
    Level,
    Lifted,
    NotOurFence,
    Pass,
    Position,
    Preflight,
    StillWriting,
    Strategy,
    Waiting,
)

APPLICATION = "readonly-fence"
CONNECT_SECONDS = 10
# pg_locks has no event to wait for; a poll costs the server well under a millisecond.
POLL_SECONDS = (0.002, 0.05)
# For whoever else changes the same fence, or the same row of a catalog.
LOCK_TIMEOUT = "30s"
LIFT_SECONDS = 60.0
# A session that was told to end rolls back first.
END_SECONDS = 10.0
_BY_TRIGGER = frozenset({Strategy.GATE, Strategy.EACH})
# Somebody else changed the same row of a catalog at that moment (XX000, "tuple concurrently updated").
_CONCURRENTLY = "concurrently"
_ATTEMPTS = 10


@dataclass(slots=True)
class _Patience:
    """How long to wait for earlier writers, and what came of it so far. Instants are monotonic."""

    deadline: float
    ending: float | None = None
    waiting: Waiting | None = None
    told: Sequence[Holdup] | None = None
    ended: list[Holdup] = field(default_factory=list)
    warned: tuple[str, ...] = ()


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
        return strategy in _BY_TRIGGER or user in self._writers

    def preflight(self, *, strategy: Strategy | None = None) -> Preflight:
        """Return what a fence could do here; nothing is changed.

        Raises:
            FenceUnreachable: The server did not answer.
            FenceRefused: This is a standby, or a role does not exist.
        """
        with self._connect() as connection:
            self._require_primary(connection)
            found = checks.preflight(connection, self._who(connection), strategy=strategy or self._strategy)
            return replace(self._named(found), pooled=_pooled(connection))

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
            return tuple(name for name, _ in self._uncovered(connection, standing, self._who(connection)))

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
        patience = _Patience(now + timeout, None if end_after is None else now + end_after, waiting)
        with self._connect() as connection:
            self._require_primary(connection)
            who = self._who(connection)
            standing = self._claim(
                connection, who, site=site, cause=cause, by=by, epoch=epoch, run=run, strategy=strategy
            )
            own = [holder for holder in standing.holders if holder.cause == cause]
            found = self._settle(connection, standing, who, patience, own)
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
            patience = _Patience(time.monotonic() + timeout, None, waiting)
            found = self._settle(connection, standing, who, patience, standing.holders)
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
                    count = _give_defaults_back(connection)
                    state.end(connection)
                    return Lifted(self.name, down=True, given_back=count)
                triggers.open_(connection)
                if strategy is Strategy.GATE:
                    count = len(triggers.fenced(connection))
                    state.end(connection)
                    return Lifted(self.name, down=True, given_back=count)
            # The gate is open; the triggers are taken off one by one, and a death in between leaves harmless ones.
            count, held_by = self._take_off(connection)
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
            patience = _Patience(time.monotonic() + LIFT_SECONDS)
            for table in bare:
                self._put_on(connection, table, patience)
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
            count, held_by = self._take_off(connection)
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
            rows = connection.execute(
                "SELECT pid, usename, application_name, xact_start FROM pg_catalog.pg_stat_activity"
                " WHERE application_name = %s AND pid <> pg_catalog.pg_backend_pid()",
                [f"readonly-run-{run}"],
            ).fetchall()
            return tuple(Holdup(pid, user or "", name, since) for pid, user, name, since in rows)

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
                        self._flip(connection, now, who, run, first=standing is None)
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
                    f"the writers; nothing was changed: {_said(error)}. Revoke that grant, or name that role as a "
                    "writer too"
                ) from error
        raise AssertionError("the loop returns or raises")

    def _flip(self, connection: Connection, standing: Standing, who: Roles, run: Pass | None, *, first: bool) -> None:
        strategy = Strategy(standing.strategy)
        if strategy in _BY_TRIGGER:
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
            _take_defaults(connection, who.writers)

    def _settle(
        self, connection: Connection, standing: Standing, who: Roles, patience: _Patience, kept: Sequence[Holder]
    ) -> tuple[str, ...]:
        """Cover everything and wait for earlier writers, until a look finds nothing new; return what was covered."""
        found: list[str] = []
        while True:
            found += self._cover(connection, standing, who, patience, kept)
            self._wait(connection, standing, who, patience)
            if not self._uncovered(connection, standing, who):
                return tuple(dict.fromkeys(found))

    def _uncovered(self, connection: Connection, standing: Standing, who: Roles) -> list[tuple[str, Any]]:
        strategy = Strategy(standing.strategy)
        if strategy is Strategy.REVOKE:
            return [(str(p), p) for p in privileges.granted(connection, who.grantees)]
        if strategy in _BY_TRIGGER:
            return [(str(t), t) for t in checks.to_cover(connection, who) if not t.fenced]
        return []

    def _cover(
        self, connection: Connection, standing: Standing, who: Roles, patience: _Patience, kept: Sequence[Holder]
    ) -> list[str]:
        strategy = Strategy(standing.strategy)
        if strategy is Strategy.REVOKE:
            with connection.transaction():
                state.lock(connection)
                state.still_held(connection, kept)
                left = self._uncovered(connection, standing, who)
                privileges.take(connection, [privilege for _, privilege in left])
        else:
            left = self._uncovered(connection, standing, who)
            for _, table in left:
                self._put_on(connection, table, patience)
        return [name for name, _ in left]

    def _put_on(self, connection: Connection, table: triggers.Table, patience: _Patience) -> None:
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
                self._be_patient(connection, patience, left)

    def _take_off(self, connection: Connection) -> tuple[int, tuple[Holder, ...]]:
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
                            f"{self.name}: the fence is open, writes go through; its trigger could not be taken off "
                            f"{table}, which is locked. Lift it again when that has ended: "
                            f"readonlyctl fence lift {self.name}"
                        ) from error
        with connection.transaction():
            state.lock(connection)
            held_by = state.holders(connection)
            if not held_by and state.exists(connection):
                state.end(connection)
        return len(tables), held_by

    def _wait(self, connection: Connection, standing: Standing, who: Roles, patience: _Patience) -> None:
        """Wait until every transaction that may still commit an earlier write has ended."""
        if Strategy(standing.strategy) is Strategy.DEFAULTS:
            self._wait_for_sessions(connection, standing, who, patience)
            return
        left = writers.writers(connection)
        pause, longest = POLL_SECONDS
        while self._be_patient(connection, patience, left):
            self._event.wait(min(pause, max(0.0, patience.deadline - time.monotonic())))
            pause = min(pause * 1.5, longest)
            left &= writers.writers(connection)

    def _wait_for_sessions(self, connection: Connection, standing: Standing, who: Roles, patience: _Patience) -> None:
        """Wait until no session is left that read its settings before the change.

        One that was being opened at that moment shows only when it is open: two looks in a row must find none.
        """
        clear = 0
        while clear < 2:
            left = writers.old_sessions(connection, who.writers, standing.raised_at)
            clear = 0 if self._be_patient(connection, patience, left) else clear + 1
            self._event.wait(POLL_SECONDS[1])

    def _be_patient(self, connection: Connection, patience: _Patience, left: Collection[writers.Transaction]) -> bool:
        """Tell who is waited for, end them when it is time for that, and give up when it is too late.

        Returns:
            False if there is nobody to wait for.
        """
        holdups = writers.described(connection, left) if left else ()
        holdups += writers.prepared(connection)
        if not holdups:
            return False
        now = time.monotonic()
        if patience.waiting is not None and holdups != patience.told:
            patience.waiting(holdups)
        patience.told = holdups
        if patience.ending is not None and now >= patience.ending:
            told = {holdup.pid for holdup in patience.ended}
            gone, patience.warned = writers.end(connection, [h for h in holdups if h.pid not in told])
            patience.ended += gone
        if now >= patience.deadline:
            raise self._too_late(connection, holdups, patience.warned)
        return True

    def _too_late(self, connection: Connection, holdups: Sequence[Holdup], warned: Sequence[str] = ()) -> StillWriting:
        named = "; ".join(str(holdup) for holdup in holdups)
        more = "".join(f" {sentence}." for sentence in warned)
        advice = "Wait for them, or end them"
        if any(holdup.prepared for holdup in holdups):
            advice = "COMMIT PREPARED or ROLLBACK PREPARED what is prepared (no session can be ended for it)"
        return StillWriting(
            f"{self.name} at {state.described(connection)}: the fence stands and new writes are refused, but what "
            f"began before it has not ended: {named}.{more} It may still commit, so this is not safe. {advice}, then: "
            f"readonlyctl fence raise {self.name} --end-writers-after 10s",
            holdups=tuple(holdups),
        )

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

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        """Open a connection, and turn what the server says into the fence's own errors."""
        try:
            connection = psycopg.connect(
                self._url, autocommit=True, application_name=APPLICATION, connect_timeout=CONNECT_SECONDS
            )
        except psycopg.ProgrammingError:  # its text repeats the URL, and so a password
            raise ConfigurationError(
                f"fence.{self.name}: url is no PostgreSQL URL: write postgresql://fencer@host:5432/database"
            ) from None
        except psycopg.Error as error:
            raise FenceUnreachable(f"{self.name}: the fence's server can't be reached: {_said(error)}") from error
        try:
            with connection:
                # Its own sessions must write where an operator made all transactions read-only, and never hang.
                connection.execute("SET default_transaction_read_only = off")
                connection.execute("SET timezone = 'UTC'")
                connection.execute("SELECT pg_catalog.set_config('search_path', '', false)")
                connection.execute("SELECT pg_catalog.set_config('lock_timeout', %s, false)", [LOCK_TIMEOUT])
                yield connection
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if isinstance(error, psycopg.errors.LockNotAvailable):
                raise FenceError(
                    f"{self.name}: a lock was not to be had; nothing was changed: {_said(error)}"
                ) from error
            raise FenceUnreachable(
                f"{self.name}: the connection to the fence's server was lost, so what stands there is not known: "
                f"{_said(error)}. Ask it again: readonlyctl fence status"
            ) from error
        except psycopg.Error as error:
            raise FenceError(f"{self.name}: the server refused a step of the fence: {_said(error)}") from error


def _marked(connection: Connection, name: str) -> str:
    """Write a marker synchronously, and return the position behind it: the log of all earlier commits is before it."""
    with connection.transaction():
        connection.execute("SET LOCAL synchronous_commit = on")
        connection.execute("SELECT pg_catalog.pg_logical_emit_message(true, 'readonly-fence', %s)", [name])
    [(position,)] = connection.execute("SELECT pg_catalog.pg_current_wal_flush_lsn()::text").fetchall()
    return str(position)


def _take_defaults(connection: Connection, roles: Sequence[str]) -> None:
    """Make new sessions of these roles read-only by default, and keep what was set before."""
    database = connection.info.dbname
    for role in roles:
        found = connection.execute(
            "SELECT pg_catalog.split_part(setting, '=', 2) FROM pg_catalog.pg_db_role_setting s"
            " JOIN pg_catalog.pg_roles r ON r.oid = s.setrole"
            " JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase, pg_catalog.unnest(s.setconfig) setting"
            " WHERE r.rolname = %s AND d.datname = %s AND setting LIKE 'default_transaction_read_only=%%'",
            [role, database],
        ).fetchone()
        connection.execute(
            "INSERT INTO readonly_fence.taken"
            " (kind, object, schema, name, part, grantor, grantee, privilege, grantable)"
            " VALUES ('setting', 0, '', %s, '', '', %s, %s, false)",
            [database, role, "" if found is None else found[0]],
        )
        connection.execute(
            psycopg.sql.SQL("ALTER ROLE {} IN DATABASE {} SET default_transaction_read_only = on").format(
                psycopg.sql.Identifier(role), psycopg.sql.Identifier(database)
            )
        )


def _give_defaults_back(connection: Connection) -> int:
    rows = connection.execute(
        "SELECT grantee, privilege FROM readonly_fence.taken WHERE kind = 'setting' ORDER BY id"
    ).fetchall()
    database = psycopg.sql.Identifier(connection.info.dbname)
    for role, before in rows:
        name = psycopg.sql.Identifier(role)
        statement = psycopg.sql.SQL("ALTER ROLE {} IN DATABASE {} RESET default_transaction_read_only").format(
            name, database
        )
        if before:
            statement = psycopg.sql.SQL("ALTER ROLE {} IN DATABASE {} SET default_transaction_read_only = {}").format(
                name, database, psycopg.sql.Literal(before)
            )
        connection.execute(statement)
    return len(rows)


def _pooled(connection: Connection) -> bool:
    """Tell whether a pooler answered when this connection was opened: it has a number of its own to cancel by."""
    row = connection.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
    return row is not None and row[0] != connection.info.backend_pid


def _said(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error)).strip().partition("\n")[0]
