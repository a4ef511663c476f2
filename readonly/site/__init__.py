"""Site: the operator's side. On until it is safe, off until it is open, and what the store says in between.

It needs the store's URL and nothing of the application: not its code, not its settings, not its web servers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from .. import bypassing, changes
from ..changes import Change, Operator
from ..config import operator_config
from ..confirmation import LONGEST_TRANSACTION_SECONDS, Condition, Confirmation, Expected
from ..databases.fence import Fence
from ..errors import NoRecord
from ..fencing import Fences, Lowered, Raised, Waiting, standing_fences
from ..following import Followers, Standbys, wait_replicas
from ..forgetting import forget
from ..members import Report
from ..proving import Progress, Trouble
from ..record import Bypass, Record
from ..replicating import at_work
from ..safety import APP_ONLY, LEASE, Safety, fence_problems, level_of
from ..stores import store_from_url
from ..switch import Switch
from ..switchover import Split, splits
from ._closing import still_raised, with_what_is_remembered
from ._configured import followers_of
from ._kept import counted_while_closed, keep_fences, keep_wait
from ._look import Look, Looking, no_record
from ._opening import Opening

if TYPE_CHECKING:
    from ..doctor import Finding

__all__ = [
    "APP_ONLY",
    "LEASE",
    "Look",
    "Progress",
    "Safety",
    "Site",
    "Trouble",
    "fence_problems",
    "level_of",
    "no_record",
]

# What a fence gets at least, however long the members took.
FENCE_SECONDS = 5.0


class Site(Looking):
    """One site, as an operator sees it. Not thread-safe; it starts no thread and is no member.

    Args:
        switch: Names the store; it is not started.
        expect: How many members of each role must be there for a "safe".
        operator: Who operates it; None: the system's user on this host.
        longest_transaction: Seconds after its end from which a process has nothing left that could commit.
        fences: The databases that are fenced.
        followers: Their replicas.
    """

    def __init__(
        self,
        switch: Switch,
        *,
        fences: Sequence[Fence] = (),
        followers: Sequence[Followers] = (),
        expect: Mapping[str, Expected] | None = None,
        operator: Operator | None = None,
        longest_transaction: float = LONGEST_TRANSACTION_SECONDS,
    ) -> None:
        super().__init__(switch.store, expect=expect, longest_transaction=longest_transaction)
        self.switch = switch
        self.operator = operator or Operator.here()
        self._fences = tuple(fences)
        self.standbys = Standbys(followers)

    @classmethod
    def from_config(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        store: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Site:
        """Return the site that readonly.toml, READONLY_STORE or `store` names.

        Raises:
            ConfigurationError: No store is named, or a setting can't be right.
        """
        found = operator_config(store=store, config=path, environ=environ)
        followers = [followers_of(one) for one in found.fences]
        # A command never makes a store: typed in another folder it would confirm an empty one.
        return cls(
            Switch(store_from_url(found.store, create=False)),
            expect=found.expect,
            longest_transaction=found.longest_transaction,
            fences=[one.fence for one in followers],
            followers=followers,
        )

    @property
    def fences(self) -> Fences:
        """The fences that this machine can reach, to be raised and lifted by the present operator."""
        return self._fences_for(self.operator)

    def _fences_for(self, operator: Operator) -> Fences:
        schemas = {g.fence.name: g.schema for g in self.standbys.groups if g.schema is not None}
        return Fences(self.store, self._fences, operator, schemas=schemas)

    def set(
        self,
        *,
        reason: str = "",
        expected: timedelta | None = None,
        message: str = "",
        sessions: str | None = None,
        operator: Operator | None = None,
    ) -> Change:
        """Set the operator's cause and do not wait.

        Over an empty store, what this host remembers of the record goes back with it: its causes close, its epoch
        and those that standing fences remember are the floor, and it opens nothing (design rule 5).
        """
        change = changes.turn_on(
            self.store,
            operator or self.operator,
            reason=reason,
            message=message,
            expected=expected,
            sessions=sessions,
        )
        if not change.record.partial:
            return change
        return with_what_is_remembered(self.store, change, self._memory, self.fences)

    def on(
        self,
        *,
        reason: str = "",
        expected: timedelta | None = None,
        timeout: float = 60.0,
        message: str = "",
        sessions: str | None = None,
        operator: Operator | None = None,
        accept_leases: bool = False,
        accept_fenced: bool = False,
        fence: bool = True,
        end_after: float | None = None,
        progress: Progress | None = None,
        waiting: Waiting | None = None,
    ) -> Safety:
        """Refuse writes; return when none can commit any more, or after `timeout` seconds.

        The members first, so that what they admitted finishes; then the fences, which wait for everybody else.

        Raises:
            StoreUnreachable: The store did not answer; the change may or may not have taken effect.
            LostRace: Somebody lifted the cause meanwhile.
        """
        began = time.monotonic()
        change = self.set(reason=reason, expected=expected, message=message, sessions=sessions, operator=operator)
        found = self.wait_closed(
            change, timeout=timeout, accept_leases=accept_leases, accept_fenced=accept_fenced, fence=fence,
            progress=progress,
        )  # fmt: skip
        left = max(0.0, timeout - (time.monotonic() - began))
        raised = self.raise_fences(change.causes[0], timeout=left, end_after=end_after, waiting=waiting, fence=fence)
        raised = self.wait_replicas(raised, timeout=max(0.0, timeout - (time.monotonic() - began)))
        return Safety(change, found, self.still_raised(change.record, change.causes, raised))

    def wait_open(self, change: Change, *, timeout: float, progress: Progress | None = None) -> Confirmation:
        """Wait until every member has taken in that a change's causes were lifted, or for `timeout` seconds."""
        found = self._proving.wait(
            change.record, change.causes, closing=False, timeout=timeout, progress=progress, trouble=None
        )  # fmt: skip
        self._keep_opened(change, found, self.operator)
        return found

    def raise_fences(
        self,
        cause: str,
        *,
        timeout: float,
        end_after: float | None = None,
        waiting: Waiting | None = None,
        fence: bool = True,
    ) -> Raised | None:
        """Raise every fence for a cause; None where none is configured, or none is wanted.

        A deadline that the members have used up leaves the fences a little all the same: without it the database would
        stay open for want of a second.
        """
        if not self._fences or not fence:
            return None
        began = time.monotonic()
        raised = self.fences.put_up(
            cause, timeout=max(timeout, FENCE_SECONDS), end_after=end_after, waiting=waiting
        )  # fmt: skip
        look = self.look()
        raised = self.fences.seen_by(raised, at_work(self.judge(look, expect=False)))
        seconds = round(time.monotonic() - began, 1)
        keep_fences(self.store, cause, raised, look, self.operator, seconds=seconds)
        return raised

    def wait_replicas(
        self, raised: Raised | None, *, timeout: float, waiting: Callable[[str], None] | None = None
    ) -> Raised | None:
        """Wait until the replicas have passed the fences: those that this machine knows, and those that members report.

        What a member can't reach is none that it reads from, and is not waited for.

        Args:
            raised: What became of the fences; where one could not be raised nothing is waited for.
            timeout: Seconds for all of them, a few at least.
            waiting: Told who is waited for, when that changes.

        Returns:
            The same, with the replicas, and which of them are behind.
        """
        if raised is None or raised.problems:
            return raised

        def reading() -> tuple[Record | None, list[Report]]:
            look = self.look()
            return look.record, at_work(self.judge(look, expect=False))

        return wait_replicas(
            raised,
            self.standbys,
            reading,
            timeout=max(timeout, FENCE_SECONDS),
            waiting=waiting,
            pause=self._proving.hint,
        )

    def still_raised(
        self, known: Record, causes: Collection[str], raised: Raised | None, *, every: bool = True
    ) -> Raised | None:
        """Look once more, since fences and replicas take their time: what is said to be safe is so at that moment.

        Args:
            known: What whoever waited knows of the record.
            causes: What was confirmed.
            raised: What became of the fences; None where none were wanted, and then nobody has waited for any.
            every: Each of the causes must stand; else one of them, which has kept the site shut all the time. (One that
                came since was confirmed by nobody: the site may have been open before it.)

        Returns:
            The same, with a problem for each fence that stands no more.

        Raises:
            LostRace: Somebody has lifted what was confirmed.
        """
        if raised is None:
            return None
        return still_raised(self.store, known, causes, raised, every=every)

    def wait_closed(
        self,
        change: Change,
        *,
        timeout: float,
        accept_leases: bool = False,
        accept_fenced: bool = False,
        fence: bool = True,
        progress: Progress | None = None,
        trouble: Trouble | None = None,
    ) -> Confirmation:
        """Wait until every member obeys a change's causes and has drained, or for `timeout` seconds.

        Args:
            change: What was set.
            timeout: Seconds to wait at most.
            accept_leases: A person accepts that what members had begun that admit nothing any more (their lease is
                over, or their process) may still commit. The history says so.
            accept_fenced: Count on the fences, which are raised next, for members of which nothing is known.
            fence: Whether fences are raised next; those hold members that ended.
            progress: Called with each look at the members.
            trouble: Called with what keeps the wait from going on.

        Raises:
            StoreUnreachable: The store did not answer at the end; what had been confirmed is said.
            LostRace: Somebody lifted one of the causes meanwhile.
        """
        began = time.monotonic()
        found = self._proving.wait(
            change.record,
            change.causes,
            closing=True,
            timeout=timeout,
            accept_leases=accept_leases,
            holding=self._holding(fence, accept_fenced),
            progress=progress,
            trouble=trouble,
        )
        seconds = round(time.monotonic() - began, 1)
        keep_wait(self.store, "confirmed" if found.safe else "not confirmed", found, self.operator, seconds=seconds)
        return found

    def _holding(self, fence: bool, lost: bool) -> bool | None:
        """Return whether fences are counted on for lost members as well; None where no fence is raised next."""
        return lost if fence and self._fences else None

    def wait(
        self,
        *,
        timeout: float,
        accept_leases: bool = False,
        accept_fenced: bool = False,
        fence: bool = True,
        progress: Progress | None = None,
        trouble: Trouble | None = None,
    ) -> Confirmation:
        """Wait until what is in force now is true of every member: closed and drained, or open.

        A cause that is added or lifted meanwhile is taken in, as long as one stands. What is accepted (see
        `wait_closed`) is kept in the history.

        Raises:
            NoRecord: The store holds no record.
            UnreadableRecord: This version can't read it.
            LostRace: It was read-only, and the last cause was lifted meanwhile.
        """
        look = self.look()
        if look.unreadable is not None:
            raise look.unreadable
        if look.record is None:
            raise NoRecord(no_record(self.store))
        began = time.monotonic()
        found = self._proving.wait(
            look.record,
            None,
            closing=bool(look.state.causes) or look.record.partial,
            timeout=timeout,
            accept_leases=accept_leases,
            holding=self._holding(fence, accept_fenced),
            progress=progress,
            trouble=trouble,
        )
        if found.safe and found.accepted:
            keep_wait(self.store, "confirmed", found, self.operator, seconds=round(time.monotonic() - began, 1))
        return found

    def check(self) -> tuple[Finding, ...]:
        """Look for what would go wrong in the night, as `readonlyctl doctor` does; changes nothing.

        Returns:
            At least one finding for each check that could be made, in the order of `readonly.doctor.CHECKS`.
        """
        from ..doctor import check  # it knows sites, and is loaded where it is asked for

        return check(self)

    def off(
        self,
        *,
        cause: str | None = None,
        every: bool = False,
        undo: bool = False,
        moved: Sequence[str] = (),
        stay: Sequence[str] = (),
        timeout: float = 60.0,
        operator: Operator | None = None,
        progress: Progress | None = None,
        trouble: Trouble | None = None,
        lowered: Callable[[Lowered], None] | None = None,
    ) -> tuple[Change, Confirmation]:
        """Lift one's own cause (or the one named, or all), and wait until every member has taken that in.

        Over an empty store it waits for a member to write the record back. Where there is nothing to lift in a store
        that may have lost it (it is young, as after a failover), it waits until those who know more have had the time
        to bring it back, and lifts it then.

        Fences that the cause holds come down first: the other order would give visitors the database's errors. One
        that can't be reached stays, as a cause of its own, and the site stays closed; `lowered` is told.

        Args:
            cause: Lift this one, whosever it is.
            every: Lift all that operators and windows have set.
            undo: Sessions go on as well.
            moved: Databases that are at another server now: a fence at the old one stays there.
            stay: Databases that stay at the server that was fenced, whatever members say they write to.
            timeout: Seconds to wait.
            operator: Who lifts.
            progress: Called with each look at the members.
            trouble: Called with what keeps the wait from going on.
            lowered: Told what became of the fences.

        Raises:
            MovedAway: Members do not all write to the server that was fenced; nothing was changed.
            ConfigurationError: `moved` or `stay` names no database that was fenced or has moved; nothing was changed.
            NoRecord: Nobody wrote it back in time.
            NotYours: Only others' causes stand; nothing was changed.
            LostRace: Somebody switched on at the same moment; nothing was changed.
        """
        deadline = time.monotonic() + timeout
        operator = operator or self.operator
        opening = Opening(
            self.store, self._fences_for(operator), self._proving, self.look, self.splits,
            cause=cause, every=every, undo=undo, moved=moved, stay=stay,
        )  # fmt: skip
        change = opening.lift(deadline, trouble=trouble, lowered=lowered)
        left = max(0.0, deadline - time.monotonic())
        lifted = change.causes or tuple(change.record.lifted)
        found = self._proving.wait(
            change.record, lifted, closing=False, timeout=left, progress=progress, trouble=trouble
        )
        if change.causes:
            self._keep_opened(change, found, operator)
        return change, found

    def _keep_opened(self, change: Change, found: Confirmation, operator: Operator) -> None:
        tally = counted_while_closed(self.store, change)
        keep_wait(self.store, "opened" if found.safe else "not confirmed open", found, operator, tally=tally)

    def splits(self, look: Look, *, ask: bool = True) -> tuple[Split, ...]:
        """Return the databases whose writers are not at one server, the fenced one where one was.

        Args:
            look: What was read.
            ask: Whether servers with a fence are asked who they are, where this machine can reach them.
        """
        fenced = [cause.fence.name for cause in standing_fences(look.record) if cause.fence is not None]
        over = (Condition.GONE, Condition.EXPIRED)
        writing = [m.report for m in self.judge(look, expect=False).members if m.condition not in over]
        return splits(look.record, writing, self.fences.identities(fenced) if ask else {})

    def forget(self, member: str, *, reason: str = "", operator: Operator | None = None) -> tuple[Report, ...]:
        """Take members off the registry, on a person's word that their processes are over; see `forgetting.forget`."""
        look = self.look()
        return forget(
            self.store,
            member,
            record=look.record,
            census=look.census,
            operator=operator or self.operator,
            reason=reason,
        )

    def let_through(
        self, name: str, *, lasting: timedelta, paths: Sequence[str] = (), operator: Operator | None = None
    ) -> tuple[Change, Bypass, str, str]:
        """Give somebody a bypass; see `bypassing.give`."""
        return bypassing.give(self.store, operator or self.operator, name, lasting=lasting, paths=paths)

    def let_nobody_through(self, name: str | None, *, operator: Operator | None = None) -> tuple[Bypass, ...]:
        """Take back the bypasses of a name, or all; see `bypassing.revoke`."""
        return bypassing.revoke(self.store, operator or self.operator, name)[1]
