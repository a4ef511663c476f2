"""The fence of a MariaDB server: the order of its steps, and its deadline.

    1  claim: a table in the fenced database says whose fence it is and what was set before
    2  drain: wait for the transactions that write at that moment, since the next step refuses their COMMIT; end them at
       a deadline that was named
    3  SET GLOBAL read_only, which waits for statements that run and refuses each open transaction's COMMIT
    4  prove: a write with the application's own account is refused
    5  the position: the GTIDs of the binary log, behind which no earlier write is

Each step may be done again, and by two commands at once. A process that dies between two of them leaves a claim that is
not called safe; raising it again goes on from there. A restart of the server forgets `read_only`: the claim stays, so
the next look finds that it fell.

Tested on 10.11. It never uses FLUSH TABLES WITH READ LOCK: that lets writers hang, ends with its connection, and bought
nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pymysql

from ...errors import ConfigurationError
from ..replicas import Schema
from ..replicas import Standing as Seen
from ..replicas import mariadb as replicas
from . import _maria_preflight as checks
from . import _maria_state as state
from . import _maria_writers as writers
from ._maria_patience import Patience
from ._maria_server import ER_READ_ONLY, Address, Session, account, number, quoted, said
from ._maria_state import Standing
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
    Way,
)

# A session that was told to end rolls back first.
END_SECONDS = 10.0
_PROOF = "readonly_fence_proof"
_PROOF_BODY = "SQL SECURITY DEFINER DELETE FROM readonly_fence WHERE one = 0"


class MariaDBFence(Fence):
    """A MariaDB server that can be fenced, by one of its databases.

    Args:
        url: Of the primary itself, as an account with READ ONLY ADMIN and PROCESS.
        writers: The accounts that the application connects as, `user` or `user@host`.
        migrators: The accounts that must go on writing: they need READ ONLY ADMIN.
        name: Its name in the configuration.

    Raises:
        ConfigurationError: The URL can't be used.

    Not thread-safe; each call opens one connection and closes it.
    """

    forgets = True

    def __init__(self, url: str, *, writers: Sequence[str], migrators: Sequence[str] = (), name: str = "main") -> None:
        self.name = name
        self._address = Address(url, name=name)
        self._writers = tuple(writers)
        self._migrators = tuple(migrators)
        self._event = threading.Event()

    def holds(self, user: str, strategy: Strategy) -> bool:
        """Return whether this user's sessions are stopped: everybody's but those of who migrates."""
        return user not in {name.partition("@")[0] for name in self._migrators}

    def preflight(self, *, strategy: Strategy | None = None) -> Preflight:
        """Return what a fence could do here; nothing is changed.

        Raises:
            FenceUnreachable: The server did not answer.
            FenceRefused: This is a replica or no MariaDB, an account does not exist, or another strategy was asked for.
        """
        _require_strategy(self.name, strategy)
        with self._connect() as session:
            checks.require_primary(session, state.standing(session) if self._may_look(session) else None)
            return self._preflight(session)

    def status(self) -> Fenced | None:
        """Return the fence that stands in this database, whoever raised it; None if there is none.

        It is told as it was raised; whether the server still refuses is `open_tables`' question.
        """
        with self._connect() as session:
            standing = state.standing(session) if self._may_look(session) else None
            return None if standing is None else self._fenced(session, standing)

    def open_tables(self) -> tuple[str, ...]:
        """Return what the standing fence does not cover: everything, where the server has forgotten it.

        Returns:
            One sentence; empty where it holds, is not up yet, or no fence stands.
        """
        with self._connect() as session:
            standing = state.standing(session) if self._may_look(session) else None
            if standing is None or standing.position is None:
                return ()
            fell = self._fell(session, standing)
            return (fell,) if fell else ()

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
            end_after: Seconds after which those that are left are ended, or refused at their COMMIT; None: never.
            run: Whose run it is; its sessions pass because their account has READ ONLY ADMIN.
            strategy: None or `GLOBAL`.
            waiting: Told whom it waits for, when that changes.

        Raises:
            FenceUnreachable: The server did not answer; nothing is known of what stands: ask `status`.
            FenceRefused: Something is missing; nothing was changed.
            NotOurFence: Another site's fence stands here.
            StillWriting: Transactions have not ended in time, so the server was not made to refuse: it takes writes.
        """
        _require_strategy(self.name, strategy)
        now = time.monotonic()
        patience = self._patience(now + timeout, None if end_after is None else now + end_after, waiting)
        with self._connect() as session:
            self._require(session)
            with session.alone():
                fell = self._claim(session, site=site, cause=cause, by=by, epoch=epoch, run=run)
                own = [holder for holder in state.required(session).holders if holder.cause == cause]
            # Where it refuses already, nobody is left who could commit.
            if not session.read_only:
                patience.drain(session)
            return self._shut(session, site, patience, own, found=fell)

    def look_again(self, *, site: str, timeout: float, waiting: Waiting | None = None) -> Fenced:
        """See that the server still refuses, and make it refuse again where it was restarted meanwhile.

        Raises:
            FenceError: No fence stands here, or as for `put_up`.
        """
        with self._connect() as session:
            self._require(session)
            with session.alone():
                standing = self._ours(session, site)
                if standing is None:
                    raise FenceError(
                        f"{self.name}: no fence stands at {session.where}, so this server takes writes; raise it again "
                        f"with: readonlyctl fence raise {self.name}"
                    )
                fell = self._raise_fallen(session, standing)
            patience = self._patience(time.monotonic() + timeout, None, waiting)
            if not session.read_only:
                patience.drain(session)
            return self._shut(session, site, patience, standing.holders, found=fell)

    def lift(self, *, site: str, cause: str | None = None, orphan: bool = False) -> Lifted:
        """Let go of the fence for a cause, and take it down when nobody else holds it.

        Args:
            site: Whose fence is to be lifted.
            cause: The cause that lets go; None: all of them.
            orphan: Lift it whoever raised it: one that came with a copy of another site's database.

        Raises:
            FenceUnreachable: The server did not answer.
            NotOurFence: Another site's fence stands here, and `orphan` is False.
            FenceError: Another site's fence keeps the same server read-only.
        """
        with self._connect() as session, session.alone():
            standing = state.standing(session) if orphan else self._ours(session, site)
            if standing is None:
                return Lifted(self.name, down=True)
            left = state.release(session, cause)
            if left:
                return Lifted(self.name, down=False, held_by=left)
            others = state.others(session)
            strangers = [(database, one) for database, one in others if one.site != standing.site]
            if strangers and session.read_only:
                database, one = strangers[0]
                raise FenceError(
                    f"{self.name}: nobody holds this fence any more, but {session.where} is kept read-only by the "
                    f"fence of {one.site} (database {database}, raised by {one.raised_by}) as well, and read_only is "
                    "the whole server's: it takes writes when that is lifted, too; then lift this one again"
                )
            fell = ""
            if standing.holders and standing.position is not None and not session.read_only:
                fell = self._fell(session, standing)
            count, lost = self._reopen(session, standing, kept=bool(others))
            state.end(session)
            lost = (*lost, fell) if fell else lost
            return Lifted(self.name, down=True, given_back=count, lost=lost)

    def look(self, schema: Schema | None = None) -> Seen:
        """Return where the primary's log is now, and with which schema; nothing is changed.

        Raises:
            FenceUnreachable: The server did not answer.
        """
        with self._connect() as session:
            return replicas.look(session.connection, schema)

    def sessions_of(self, run: str) -> tuple[Holdup, ...]:
        """Return the sessions of the migrators' accounts, while the fence is of that run.

        A client's own name for itself is not kept by MariaDB: whoever works with such an account counts as the run.
        """
        with self._connect() as session:
            standing = state.standing(session) if self._may_look(session) else None
            if standing is None or standing.run != run:
                return ()
            # The fence's own account may be among the migrators; its sessions are other commands like this one.
            own = str(session.value("SELECT SUBSTRING_INDEX(USER(), '@', 1)"))
            return writers.sessions_of(session, checks.users(self._migrators) - {own})

    def end_sessions(self, run: str) -> tuple[Holdup, ...]:
        """End the sessions of a run that are still there, and wait until they are gone.

        Raises:
            FenceError: The fencer may not end them, or one does not go.
        """
        left = self.sessions_of(run)
        if not left:
            return ()
        with self._connect() as session:
            ended, refused = writers.end(session, left)
        if refused:
            raise FenceError(f"{self.name}: {'; '.join(refused)}. GRANT CONNECTION ADMIN ON *.* to the fence's account")
        told = {holdup.pid for holdup in ended}
        deadline = time.monotonic() + END_SECONDS
        while any(holdup.pid in told for holdup in self.sessions_of(run)):
            if time.monotonic() >= deadline:
                raise FenceError(f"{self.name}: {'; '.join(map(str, left))} was told to end and has not yet: try again")
            self._event.wait(writers.POLL_SECONDS)
        return ended

    # ------------------------------------------------------------------------------------------------ the steps

    def _claim(
        self, session: Session, *, site: str, cause: str, by: str, epoch: int, run: Pass | None
    ) -> tuple[str, ...]:
        """Say at the server whose fence this is, before anything is changed; return what had fallen, in words."""
        standing = self._ours(session, site)
        fell: tuple[str, ...] = ()
        if standing is None:
            flight = self._preflight(session)
            if not flight.possible:
                raise self._lacking(flight)
            self._begin(session, site=site, by=by, level=flight.level)
        else:
            fell = self._raise_fallen(session, standing)
        state.hold(session, cause, by, epoch=epoch)
        if run is not None:
            state.name_run(session, run.run)
        return fell

    def _begin(self, session: Session, *, site: str, by: str, level: str) -> None:
        # Another fence of this server has set it already: what was before that is what was before this.
        was = [one.was for _, one in state.others(session)]
        before = was[0] if was else session.read_only
        state.begin(session, site=site, name=self.name, level=level, run="", by=by, was=before)

    def _raise_fallen(self, session: Session, standing: Standing) -> tuple[str, ...]:
        """Make a claim of one that fell, so that it gets a position of its own; return what is to be said of it."""
        fell = self._fell(session, standing) if standing.position is not None else ""
        if not fell and standing.server == session.identity:
            return ()
        self._begin(session, site=standing.site, by=standing.raised_by, level=standing.level)
        return (fell,) if fell else ()

    def _fell(self, session: Session, standing: Standing) -> str:
        if not session.read_only:
            how = (
                "the server was restarted, or somebody set it"
                if standing.server == session.identity
                else "another server took over, or this is a copy"
            )
            return f"everything: read_only is off at {session.where} ({how}), so writes may have got in since the fence"
        if standing.server != session.identity:
            return f"nothing is known: {session.where} is another server than the one that was fenced"
        return ""

    def _shut(
        self, session: Session, site: str, patience: Patience, kept: Sequence[Holder], *, found: tuple[str, ...]
    ) -> Fenced:
        """Make the server refuse, prove it, and keep the position, if it has been held since `kept` was read."""
        with session.alone():
            self._ours(session, site)
            state.still_held(session, kept)
            patience.refuse_writes(session)
            people = checks.accounts(session)
            ways = (*checks.ways_left(session, people, self._writers, self._migrators), *self._prove(session, people))
            ways = tuple(sorted(ways, key=lambda way: way.insists))
            level = Level.HARD if all(way.insists for way in ways) else Level.COOPERATIVE
            if checks.matching(people.past, self._writers):
                level = Level.APP_ONLY
            state.settle(session, position=session.position, level=level)
            standing = state.required(session)
        return replace(self._fenced(session, standing), ways=ways, ended=tuple(patience.ended), found=found)

    def _prove(self, session: Session, people: checks.Accounts) -> list[Way]:
        """Write with the application's own accounts, where that can be done, and say which of them got through.

        A procedure runs with its definer's rights, so no password of theirs is needed; what it deletes is nothing.
        """
        if not checks.may_prove(session):
            return []
        found = []
        procedure = f"{quoted(session.database)}.{_PROOF}"
        for one in checks.matching(people.all, self._writers):
            session.rows(f"CREATE OR REPLACE DEFINER = {account(one)} PROCEDURE {procedure}() {_PROOF_BODY}")
            try:
                session.rows(f"CALL {procedure}()")
                through = "went through"
            except pymysql.MySQLError as error:
                through = "" if number(error) == ER_READ_ONLY else f"was stopped by something else: {said(error)}"
            if through:
                found.append(Way(f"{one}: a write with this account, tried as a proof, {through}", insists=False))
            session.rows(f"DROP PROCEDURE {procedure}")
        return found

    def _reopen(self, session: Session, standing: Standing, *, kept: bool) -> tuple[int, tuple[str, ...]]:
        """Set `read_only` to what was found, unless another fence of the same site still wants it."""
        if not session.read_only or kept:
            return 0, ()
        if standing.server != session.identity:
            return 0, (
                f"read_only is on at {session.where}, and this fence was raised at another server, so it was left on: "
                "SET GLOBAL read_only = 0 if this is the primary now",
            )
        if standing.was:
            return 0, (f"read_only was on at {session.where} before the fence, so it was left on",)
        session.rows("SET GLOBAL read_only = 0")
        return 1, ()

    # ------------------------------------------------------------------------------------------------ what is said

    def _fenced(self, session: Session, standing: Standing) -> Fenced:
        position = None if standing.position is None else Position(standing.server, standing.position)
        return Fenced(
            name=self.name, server=session.where, site=standing.site, run=standing.run, strategy=Strategy.GLOBAL,
            level=Level(standing.level), position=position, raised_at=standing.raised_at, holders=standing.holders,
        )  # fmt: skip

    def _preflight(self, session: Session) -> Preflight:
        checks.require_writers(session, checks.accounts(session), self._writers)
        return checks.preflight(session, self._writers, self._migrators)

    def _require(self, session: Session) -> None:
        if not self._may_look(session):
            raise self._lacking(self._preflight(session))
        checks.require_primary(session, state.standing(session))

    def _lacking(self, flight: Preflight) -> FenceRefused:
        return FenceRefused(
            f"{self.name} at {flight.server}: no fence can be raised by {flight.strategy}; nothing was changed. What "
            f"is missing: {'; '.join(flight.missing)}",
            missing=flight.missing,
        )

    def _may_look(self, session: Session) -> bool:
        """Tell whether this account may read the fence's table, wherever it is or is not."""
        return session.allowed(f"SELECT 1 FROM {state.TABLE} LIMIT 1")  # noqa: S608 - a name of ours

    def _ours(self, session: Session, site: str) -> Standing | None:
        standing = state.standing(session)
        if standing is not None and standing.site != site:
            raise NotOurFence(
                f"{self.name} at {session.where} carries a fence of {standing.site}, raised by {standing.raised_by} at "
                f"{standing.raised_at:%Y-%m-%d %H:%M:%S %Z}: another site uses this database, or it was restored from "
                f"a copy made that night. It was left as it is. If it is a copy: readonlyctl fence lift {self.name} "
                "--orphan",
                site=standing.site, by=standing.raised_by, at=standing.raised_at,
            )  # fmt: skip
        return standing

    def _patience(self, deadline: float, ending: float | None, waiting: Waiting | None) -> Patience:
        return Patience(self.name, checks.users(self._migrators), deadline, ending, waiting)

    @contextmanager
    def _connect(self) -> Iterator[Session]:
        with self._address.connect() as session:
            checks.require_server(session)
            yield session


def _require_strategy(name: str, strategy: Strategy | None) -> None:
    if strategy not in {None, Strategy.GLOBAL}:
        raise ConfigurationError(
            f"fence.{name}: strategy={str(strategy)!r} is none of MariaDB's, which is fenced by {Strategy.GLOBAL}: "
            "leave it out"
        )
