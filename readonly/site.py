"""Site: the operator's side. On until it is safe, off until it is open, and what the store says in between.

It needs the store's URL and nothing of the application: not its code, not its settings, not its web servers.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from . import bypassing, changes, history
from .changes import Change, Operator
from .config import FenceConfig, operator_config
from .confirmation import LONGEST_TRANSACTION_SECONDS, Condition, Confirmation, Expected, accepting_leases
from .databases.fence import Fence, Strategy
from .databases.freeze import Standby
from .databases.replicas import schema_of
from .errors import (
    ConfigurationError,
    Error,
    LostRace,
    NoRecord,
    NotConfirmed,
    NotYours,
    StoreUnreachable,
    UnreadableRecord,
)
from .fencing import Fences, Lowered, Raised, Waiting, standing_fences
from .following import Followers, Standbys, wait_replicas
from .forgetting import forget
from .hostfile import HostFile, state_folder
from .members import Report
from .proving import LOOK_AGAIN_SECONDS, Progress, Proving, Trouble
from .record import FENCE, TOMBSTONE_AGE, Bypass, Record
from .record_format import load
from .replicating import at_work
from .safety import APP_ONLY, LEASE, Safety, fence_problems, level_of
from .state import State
from .stores import Census, Store, redacted, store_from_url
from .switch import Switch
from .switchover import Identity, MovedAway, Split, splits

if TYPE_CHECKING:
    from .doctor import Finding

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


@dataclass(frozen=True, slots=True)
class Look:
    """One atomic look at record and registry.

    Attributes:
        record: The record, or None where there is none, or none that this version can read.
        census: What was read.
        unreadable: Why the record that is there could not be read.
    """

    record: Record | None
    census: Census
    unreadable: UnreadableRecord | None = None

    @property
    def state(self) -> State:
        """What the record means now, by the store's clock."""
        why = self.unreadable.why if self.unreadable is not None else ""
        return State.at(self.census.reading.at, self.record, unknown_because=why)


class Site:
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
        self.switch = switch
        self.longest_transaction = longest_transaction
        self.operator = operator or Operator.here()
        self.store: Store = switch.store
        self.expect = dict(expect or {})
        self._fences = tuple(fences)
        self.standbys = Standbys(followers)
        self._proving = Proving(self.store, expect=self.expect, longest_transaction=longest_transaction)
        self._memory = HostFile(self.store.url, self.store.site, state_folder())

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
        followers = [_followers(one) for one in found.fences]
        # A command never makes a store: typed in another folder it would confirm an empty one.
        return cls(
            Switch(store_from_url(found.store, create=False)),
            expect=found.expect,
            longest_transaction=found.longest_transaction,
            fences=[one.fence for one in followers],
            followers=followers,
        )

    @property
    def name(self) -> str:
        """The site's name."""
        return self.store.site

    @property
    def fences(self) -> Fences:
        """The fences that this machine can reach, to be raised and lifted by the present operator."""
        return self._fences_for(self.operator)

    def _fences_for(self, operator: Operator) -> Fences:
        schemas = {g.fence.name: g.schema for g in self.standbys.groups if g.schema is not None}
        return Fences(self.store, self._fences, operator, schemas=schemas)

    @property
    def shown_store(self) -> str:
        """The store's URL without its password."""
        return redacted(self.store.url)

    def look(self) -> Look:
        """Read record and registry; a record that can't be read is part of the answer.

        Raises:
            StoreUnreachable: The store did not answer.
            ConfigurationError: It holds another site's record.
        """
        census = self.store.census()
        try:
            record = changes.read_in(self.store, census.reading)
        except UnreadableRecord as error:
            return Look(None, census, error)
        self._memory.remember(census.reading.record)
        return Look(record, census)

    def judge(self, look: Look, *, expect: bool = True, accept_leases: bool = False) -> Confirmation:
        """Return where every member stands, seen from what is in force at a look.

        Args:
            look: What was read.
            expect: Whether members that are expected and not there are missing.
            accept_leases: As in `wait_closed`.
        """
        causes = [c.id for c in look.state.causes]
        closing = bool(causes)
        if not closing and look.record is not None:
            causes = list(look.record.lifted)
        found = self._proving.judged(look.record, look.census, causes, closing, expect=expect)
        return accepting_leases(found) if accept_leases else found

    def hint(self, seconds: float) -> None:
        """Wait until the store may hold something new, for `seconds` at most."""
        self._proving.hint(seconds)

    def last_seen(self) -> State | None:
        """Return what the record meant when this host saw it change last, by this host's clock; None if it never did.

        For the night on which the store does not answer. It opens and closes nothing.
        """
        last = self._memory.recall()
        if last is None:
            return None
        try:
            return State.at(datetime.now(UTC), load(last[0]))
        except UnreadableRecord:
            return None

    def warnings(self) -> tuple[str, ...]:
        """Return what in the store's settings can lose the record, one sentence each, as far as it tells."""
        try:
            return self.store.warnings()
        except StoreUnreachable:  # whoever asks is told by the next call
            return ()

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
        return self._with_what_is_remembered(change) if change.record.partial else change

    def _with_what_is_remembered(self, change: Change) -> Change:
        change = self._with_what_this_host_knows(change)
        floor = self.fences.epoch()
        if floor <= change.record.epoch:
            return change
        record, census = changes.survey(self.store, replace(change.record, epoch=floor))
        return replace(change, record=record, reading=census.reading) if record is not None else change

    def _with_what_this_host_knows(self, change: Change) -> Change:
        last = self._memory.recall()
        if last is None or change.reading.at - last[1] > TOMBSTONE_AGE:
            return change
        try:
            record, census = changes.survey(self.store, load(last[0]))
        except UnreadableRecord:
            return change
        return replace(change, record=record, reading=census.reading) if record is not None else change

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
        self._keep("opened" if found.safe else "not confirmed open", found, self.operator, tally=self._tally(change))
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
        history.write(
            self.store,
            state_folder(),
            history.Entry(
                at=history.instant(look.census.reading.at),
                site=self.name,
                what="not fenced" if raised.problems else "fenced",
                by=self.operator.name,
                host=self.operator.host,
                epoch=look.record.epoch if look.record is not None else 0,
                causes=(cause,),
                seconds=round(time.monotonic() - began, 1),
                level="" if raised.problems else str(raised.level),
                missing=raised.problems,
            ),
        )
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
        record, census = changes.survey(self.store, known)
        standing = State.at(census.reading.at, record).causes
        lifts = record.lifted if record is not None else {}
        gone = [lifts[c] for c in causes if c in lifts]
        if gone if every else {c.id for c in standing if c.kind != FENCE}.isdisjoint(causes):
            by, epoch = (record.changed_by, record.epoch) if record is not None else ("?", 0)
            by, what = (gone[0].by, gone[0].id) if gone else (by, "what kept the site read-only")
            raise LostRace(f"{by} lifted {what}, while this was raising the fences", by=by, epoch=epoch)
        named = {c.fence.name for c in standing if c.fence is not None}
        fell = [up.name for up in raised.fenced if up.strategy is not Strategy.BARRIER and up.name not in named]
        again = tuple(f"the fence {name} was lifted meanwhile: readonlyctl fence raise {name}" for name in fell)
        return replace(raised, problems=(*raised.problems, *again))

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
        self._keep("confirmed" if found.safe else "not confirmed", found, self.operator, seconds=seconds)
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
            self._keep("confirmed", found, self.operator, seconds=round(time.monotonic() - began, 1))
        return found

    def check(self) -> tuple[Finding, ...]:
        """Look for what would go wrong in the night, as `readonlyctl doctor` does; changes nothing.

        Returns:
            At least one finding for each check that could be made, in the order of `readonly.doctor.CHECKS`.
        """
        from .doctor import check  # it knows sites, and is loaded where it is asked for

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
        while True:
            refusal: Error
            try:
                now = self._not_moved(operator, cause=cause, every=every, moved=moved, stay=stay)
                # Before a fence comes down: what is refused leaves it standing.
                asked = changes.undo_in_time(self.store, operator, cause=cause, every=every) if undo else None
                down = self._lower(operator, cause=cause, every=every, moved=now, stay=stay)
                if down is not None and lowered is not None:
                    lowered(down)
                change = changes.turn_off(self.store, operator, cause=cause, every=every, undo=undo, asked=asked)
            except NoRecord as error:
                refusal = error
                if time.monotonic() >= deadline:
                    raise
            except NotYours as error:
                refusal = error
                if time.monotonic() >= deadline or self._unsettled() is None:
                    raise
            else:
                unsettled = None if change.changed else self._unsettled()
                if unsettled is None or time.monotonic() >= deadline:
                    break
                refusal = unsettled
            if trouble is not None:
                trouble(refusal)
            self._proving.hint(max(0.0, min(deadline - time.monotonic(), LOOK_AGAIN_SECONDS)))
        left = max(0.0, deadline - time.monotonic())
        lifted = change.causes or tuple(change.record.lifted)
        found = self._proving.wait(
            change.record, lifted, closing=False, timeout=left, progress=progress, trouble=trouble
        )
        if change.causes:
            self._keep("opened" if found.safe else "not confirmed open", found, operator, tally=self._tally(change))
        return change, found

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

    def _not_moved(
        self, operator: Operator, *, cause: str | None, every: bool, moved: Sequence[str], stay: Sequence[str]
    ) -> dict[str, list[Identity]]:
        """See that opening the site opens one server, the fenced one, or what a person says of it.

        Returns:
            By name, where members write to what has moved by that person's word.
        """
        look = self.look()
        if look.record is None:
            return {}
        found = {split.name: split for split in self.splits(look)} if look.record.causes or moved or stay else {}
        known = [*found, *(c.fence.name for c in standing_fences(look.record) if c.fence is not None)]
        for name in (*moved, *stay):
            if name not in known or (name in moved and name in stay):
                raise ConfigurationError(
                    f"{name!r} is no database that was fenced or has moved, or is said to have done both: known are "
                    f"{', '.join(dict.fromkeys(known)) or 'none'}. Nothing was changed"
                )
        try:
            going = changes.would_lift(look.record, operator, cause=cause, every=every)
        except NotYours:
            going = ()
        opens = all(c.kind == FENCE or c.id in going for c in look.record.causes)
        left = [split for name, split in found.items() if name not in (*moved, *stay)]
        if left and opens:
            raise MovedAway(left)
        return {name: [seen.identity for seen in found[name].seen] if name in found else [] for name in moved}

    def _lower(
        self,
        operator: Operator,
        *,
        cause: str | None,
        every: bool,
        moved: Mapping[str, Sequence[Identity]],
        stay: Sequence[str],
    ) -> Lowered | None:
        """Let go of the fences for the causes that are about to be lifted; None where there are none."""
        record = changes.read_in(self.store, self.store.read())
        if record is None or record.partial or not (self._fences or standing_fences(record)):
            return None
        going: tuple[str, ...] = ()
        try:
            going = changes.would_lift(record, operator, cause=cause, every=every)
        except NotYours:
            # Nothing of theirs stands, or not what they name. A fence whose holders are all gone is nobody's, and
            # anybody's to lift.
            if any(c.kind != FENCE for c in record.causes) or (cause is not None and record.cause(cause) is None):
                return None
        return self._fences_for(operator).lift(going, record=record, moved=moved, stay=stay)

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

    def history(self, *, last: int = history.KEEP) -> list[history.Entry]:
        """Return what was done to the site, oldest first: the store's history, and what this host remembers of it.

        Raises:
            StoreUnreachable: The store did not answer, and this host remembers nothing.
        """
        return history.read(self.store, state_folder(), last=last)

    def _unsettled(self) -> NotConfirmed | None:
        """Say why the store may not hold yet all that is known of the site, or return None if it does."""
        look = self.look()
        found = self._proving.judged(look.record, look.census, (), closing=False)
        if found.settled:
            return None
        return NotConfirmed(f"nothing to lift yet: {'; '.join(found.problems)}", missing=found.problems)

    def _tally(self, change: Change) -> dict[str, Any]:
        """Return what all members counted while the causes that were lifted stood."""
        since = min((lift.epoch for lift in map(change.record.lifted.get, change.causes) if lift), default=0)
        try:
            reports = [Report.load(seen.member, seen.report) for seen in self.store.census().reports]
        except StoreUnreachable:
            return {}
        tallies = (r.tally for r in reports if isinstance(r.tally.get("epoch"), int) and r.tally["epoch"] >= since)
        return history.tally_of({k: v for k, v in tally.items() if k != "epoch"} for tally in tallies)

    def _keep(
        self,
        what: str,
        found: Confirmation,
        operator: Operator,
        *,
        seconds: float | None = None,
        tally: Mapping[str, Any] | None = None,
    ) -> None:
        conditions = Counter(str(m.condition) for m in found.members)
        history.write(
            self.store,
            state_folder(),
            history.Entry(
                at=history.instant(found.at),
                site=self.name,
                what=what,
                by=operator.name,
                host=operator.host,
                epoch=found.epoch,
                causes=found.causes,
                seconds=seconds,
                level=level_of(found),
                members=dict(conditions),
                missing=found.missing,
                accepted=found.accepted,
                tally=tally or {},
            ),
        )

    def watch(self) -> Iterator[Look | StoreUnreachable]:
        """Yield what the store holds, again and again: at each hint, and at least twice a second. It never ends.

        What can't be read is yielded in its place, and asked for again.
        """
        while True:
            found: Look | StoreUnreachable
            try:
                found = self.look()
            except StoreUnreachable as error:
                found = error
            yield found
            self._proving.hint(LOOK_AGAIN_SECONDS)


def _followers(found: FenceConfig) -> Followers:
    where = f"fence.{found.name}"
    freezable = {url: Standby.from_url(url, where=f"{where}.freeze") for url in found.freeze}
    # One that stands in both lists is one.
    others = [Standby.from_url(url, where=f"{where}.replicas") for url in found.replicas if url not in freezable]
    return Followers(
        _fence(found),
        (*others, *freezable.values()),
        tuple(freezable.values()),
        schema_of(found.schema or None, setting=f"{where}.schema"),
    )


def _fence(found: FenceConfig) -> Fence:
    return Fence.from_url(
        found.url, writers=found.writers, migrators=found.migrators, name=found.name, strategy=found.strategy
    )


def no_record(store: Store) -> str:
    """Say what an absent record means and what to type."""
    return (
        f"the store {redacted(store.url)} holds no record for the site {store.site}: its processes serve reads and "
        f"refuse writes. New installation? readonlyctl init {store.site}. Existing site? The store was emptied; any "
        "process that knew the state writes it back within seconds, and none has"
    )
