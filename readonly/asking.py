"""What code asks of the site through its switch: changes, and the proof that they are true; each with an awaited twin.

All of it goes through the switch's thread, which owns the connections to the store.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from . import bypassing, changes
from .changes import Change, Operator
from .confirmation import Confirmation, confirm
from .errors import ConfigurationError, Error, NoRecord, StoreUnreachable
from .follower import Follower, View
from .record import BLOCK, OPERATOR, Window
from .scheduling import Scheduled, Wanted, schedule
from .state import State
from .stores import Store, redacted

T = TypeVar("T")

# A call that goes through the thread waits for its turn behind one heartbeat and its own steps.
CALL_TIMEOUTS = 6
# Changes of its own that a switch remembers for `confirm`.
SET_AT_MOST = 64
# The cause of a block that ended while the store was away is lifted when that is back, if it is within so long.
LIFTED_LATER_SECONDS = 24 * 3600.0


class Asking(ABC):
    """The half of `Switch` that asks; what it needs of the other half stands here."""

    store: Store
    view: View
    _followers: dict[int, Follower]
    # What `on` has set, by the epoch that it returned: `confirm` asks for these very causes.
    _set: dict[int, tuple[str, ...]]

    @abstractmethod
    def _follower(self) -> Follower:
        """Return this process's follower, made if there is none."""

    def on(
        self,
        *,
        reason: str = "",
        expected: timedelta | None = None,
        by: str | None = None,
        message: str = "",
        sessions: str | None = None,
    ) -> State:
        """Make the site read-only. It is set when this returns, and NOT yet safe: see `confirm`.

        Args:
            reason: For colleagues; never shown to visitors.
            expected: How long it is expected to take; an announcement, it opens nothing.
            by: Who does it; None: the system's user on this host.
            message: For visitors.
            sessions: `end`, `suspend` or `keep`; None: what the policy says.

        Returns:
            The new state, which this switch obeys already.

        Raises:
            StoreUnreachable: The store did not answer; the change may still take effect.
            LostRace: Somebody switched off at the same moment.
        """
        return self._wait_for(self._on(reason, expected, by, message, sessions))

    async def aon(
        self,
        *,
        reason: str = "",
        expected: timedelta | None = None,
        by: str | None = None,
        message: str = "",
        sessions: str | None = None,
    ) -> State:
        """Do what `on` does, awaited."""
        return await asyncio.wrap_future(self._on(reason, expected, by, message, sessions))

    def off(self, *, every: bool = False, by: str | None = None) -> State:
        """Lift one's own cause, or (`every`) all that operators and windows have set.

        Returns:
            The new state; it may still be read-only for other causes.

        Raises:
            StoreUnreachable: The store did not answer; the change may still take effect.
            NoRecord: The store is empty; nothing can be opened.
            NotYours: Only others' causes stand; nothing was changed.
            LostRace: Somebody switched on at the same moment.
        """
        return self._wait_for(self._off(every, by))

    async def aoff(self, *, every: bool = False, by: str | None = None) -> State:
        """Do what `off` does, awaited."""
        return await asyncio.wrap_future(self._off(every, by))

    def schedule(
        self,
        at: str | datetime | None = None,
        *,
        lasting: timedelta,
        every: str | None = None,
        cron: str | None = None,
        zone: str = "",
        reason: str = "",
        message: str = "",
        sessions: str | None = None,
        by: str | None = None,
        sure: bool = False,
    ) -> tuple[Window, ...]:
        """Plan a window, at which every process turns by itself, and which ends by itself. This one may end before.

        Args:
            at: When it begins: an instant, or a local time such as `"2026-11-29 02:00"`, by `zone`. Or, for one that
                recurs, exactly one of the next two.
            lasting: How long it is (each time), in elapsed time.
            every: `"Sun 02:00"`, `"Mon-Fri 22:30"` or `"day 03:00"`, by `zone`.
            cron: A cron expression of five fields, by `zone`.
            zone: Whose clocks are meant, as the time zone database names them; "": READONLY_TIMEZONE.
            reason: For colleagues.
            message: For visitors.
            sessions: `end`, `suspend` or `keep`; None: what the policy says.
            by: Who plans it; None: the system's user on this host.
            sure: It may have begun already, last longer than a day, or lie across another one.

        Returns:
            The window, or the first occurrences.

        Raises:
            ConfigurationError: It makes no sense, or the zone's clocks never show that time, or show it twice.
            NotYours: It may be a slip, and `sure` is not set; nothing was changed.
            StoreUnreachable: The store did not answer; the change may still take effect.
        """
        wanted = Wanted(
            at=at, every=every, cron=cron, lasting=lasting, zone=zone, reason=reason, message=message,
            sessions=sessions, sure=sure,
        )  # fmt: skip
        return self._wait_for(self._schedule(wanted, by)).windows

    async def aschedule(
        self,
        at: str | datetime | None = None,
        *,
        lasting: timedelta,
        every: str | None = None,
        cron: str | None = None,
        zone: str = "",
        reason: str = "",
        message: str = "",
        sessions: str | None = None,
        by: str | None = None,
        sure: bool = False,
    ) -> tuple[Window, ...]:
        """Do what `schedule` does, awaited."""
        wanted = Wanted(
            at=at, every=every, cron=cron, lasting=lasting, zone=zone, reason=reason, message=message,
            sessions=sessions, sure=sure,
        )  # fmt: skip
        return (await asyncio.wrap_future(self._schedule(wanted, by))).windows

    def confirm(
        self,
        epoch: int | None = None,
        *,
        timeout: float,
        progress: Callable[[Confirmation], None] | None = None,
    ) -> Confirmation:
        """Wait until every process obeys and has finished the writes it had admitted.

        With the epoch of an `on` of this switch, it is that very cause that is confirmed, and never "safe" once it was
        lifted. Else what is in force at the first look: the causes that stand, or, if none does, that every process
        that reports is writable again (`closing` tells which).

        Args:
            epoch: Wait for a record of at least this epoch; None: the one that this switch knows.
            timeout: Seconds to wait at most.
            progress: Called in the switch's thread with each look at the members.

        Returns:
            The last look; ask it for `safe`, `missing`, or `require_safe()`.

        Raises:
            StoreUnreachable: The store could not be asked even once.
        """
        future, last = self._confirm(epoch, timeout, progress)
        return self._confirmed(self._wait_for(future, timeout), last)

    async def aconfirm(
        self,
        epoch: int | None = None,
        *,
        timeout: float,
        progress: Callable[[Confirmation], None] | None = None,
    ) -> Confirmation:
        """Do what `confirm` does, awaited."""
        future, last = self._confirm(epoch, timeout, progress)
        return self._confirmed(await asyncio.wrap_future(future), last)

    @contextmanager
    def read_only(
        self, *, reason: str = "", expected: timedelta | None = None, timeout: float = 60.0
    ) -> Iterator[Confirmation]:
        """Make the site read-only for a block of code, confirmed; lift that one cause, whatever happens in it.

        Raises:
            NotConfirmed: It could not be proven in time; the cause was lifted again.
        """
        setting = self._block_on(reason, expected)
        try:
            change = self._wait_for(setting)
        except BaseException:
            # It may take effect after all; then nobody else would lift it.
            setting.add_done_callback(self._lift_again)
            raise
        try:
            future, last = self._confirm(change.record.epoch, timeout, None, change.causes)
            yield self._confirmed(self._wait_for(future, timeout), last).require_safe()
        finally:
            with self._lifted_later(change.causes[0]):
                self._wait_for(self._block_off(change.causes[0]))

    @asynccontextmanager
    async def aread_only(
        self, *, reason: str = "", expected: timedelta | None = None, timeout: float = 60.0
    ) -> AsyncIterator[Confirmation]:
        """Do what `read_only` does, awaited."""
        setting = self._block_on(reason, expected)
        try:
            change = await asyncio.shield(asyncio.wrap_future(setting))
        except BaseException:
            setting.add_done_callback(self._lift_again)
            raise
        try:
            future, last = self._confirm(change.record.epoch, timeout, None, change.causes)
            yield self._confirmed(await asyncio.wrap_future(future), last).require_safe()
        finally:
            with self._lifted_later(change.causes[0]):
                await asyncio.shield(asyncio.wrap_future(self._block_off(change.causes[0])))

    # --- bypasses ----------------------------------------------------------------------------------------------------

    def redeem_bypass(self, link: str, name: str = "") -> str | None:
        """Exchange the token of a bypass's link for the one of a cookie, once.

        Args:
            link: The token.
            name: Whose it is, for the history.

        Returns:
            The cookie's token, or None if the link does nothing (any more).

        Raises:
            StoreUnreachable: The store did not answer; the link may be used up.
        """
        return self._wait_for(self._redeem(link, name))

    async def aredeem_bypass(self, link: str, name: str = "") -> str | None:
        """Do what `redeem_bypass` does, awaited."""
        return await asyncio.wrap_future(self._redeem(link, name))

    # --- inside --------------------------------------------------------------------------------------------------

    def _wait_for(self, future: Future[T], seconds: float = 0.0) -> T:
        follower = self._followers.get(os.getpid())
        if follower is not None and follower.inside() and not future.done():
            future.cancel()
            raise Error("a callback runs in the thread that would have to answer: wait in another thread")
        try:
            return future.result(seconds + CALL_TIMEOUTS * self.store.timeout)
        except FutureTimeout:
            future.cancel()
            raise StoreUnreachable(
                f"the store {redacted(self.store.url)} did not answer in time; the change may or may not take effect: "
                "readonlyctl status tells"
            ) from None

    def _change(self, change: Callable[[Store], Change]) -> Future[Change]:
        follower = self._follower()

        def run(store: Store) -> Change:
            done = change(store)
            follower.apply(done.reading)
            return done

        return follower.submit(run)

    def _state_after(self, change: Callable[[Store], Change], *, closes: bool) -> Future[State]:
        follower = self._follower()

        def run(store: Store) -> State:
            done = change(store)
            follower.apply(done.reading)
            state = self.view.state
            if closes:
                self._set[state.epoch] = (*self._set.get(state.epoch, ()), *done.causes)
                while len(self._set) > SET_AT_MOST:
                    del self._set[min(self._set)]
            return state

        return follower.submit(run)

    def _on(
        self, reason: str, expected: timedelta | None, by: str | None, message: str, sessions: str | None
    ) -> Future[State]:
        if sessions not in (None, "end", "suspend", "keep"):
            raise ConfigurationError(f"sessions={sessions!r} is not a choice: use 'end', 'suspend' or 'keep'")
        return self._state_after(
            lambda store: changes.turn_on(
                store,
                Operator.here(by),
                reason=reason,
                message=message,
                expected=expected,
                sessions=sessions,
                kind=OPERATOR,
            ),
            closes=True,
        )

    def _off(self, every: bool, by: str | None) -> Future[State]:
        return self._state_after(lambda store: changes.turn_off(store, Operator.here(by), every=every), closes=False)

    def _schedule(self, wanted: Wanted, by: str | None) -> Future[Scheduled]:
        follower = self._follower()
        wanted = replace(wanted, zone=wanted.zone or os.environ.get("READONLY_TIMEZONE", ""))

        def run(store: Store) -> Scheduled:
            done = schedule(store, Operator.here(by), wanted)
            follower.apply(done.change.reading)
            return done

        return follower.submit(run)

    def _redeem(self, link: str, name: str) -> Future[str | None]:
        follower = self._follower()

        def run(store: Store) -> str | None:
            change, token = bypassing.redeem(store, link, name)
            follower.apply(change.reading)
            return token

        return follower.submit(run)

    def _block_on(self, reason: str, expected: timedelta | None) -> Future[Change]:
        return self._change(
            lambda store: changes.turn_on(store, Operator.here(), reason=reason, expected=expected, kind=BLOCK)
        )

    def _block_off(self, cause: str) -> Future[Change]:
        return self._change(lambda store: changes.lift_exactly(store, Operator.here(), cause))

    @contextmanager
    def _lifted_later(self, cause: str) -> Iterator[None]:
        """Have the cause of a block lifted when the store is back, if it is away now: nobody else would do it."""
        try:
            yield
        except StoreUnreachable:
            follower = self._follower()

            def lift(store: Store) -> Change | None:
                try:
                    done = changes.lift_exactly(store, Operator.here(), cause)
                except NoRecord:
                    return None  # somebody writes it back, this process perhaps
                follower.apply(done.reading)
                return done

            follower.watch_for(lift, LIFTED_LATER_SECONDS)
            raise

    def _lift_again(self, setting: Future[Change]) -> None:
        if not setting.cancelled() and setting.exception() is None:
            self._block_off(setting.result().causes[0])

    def _confirm(
        self,
        epoch: int | None,
        timeout: float,
        progress: Callable[[Confirmation], None] | None,
        causes: tuple[str, ...] = (),
    ) -> tuple[Future[Confirmation | None], list[Confirmation]]:
        wanted = self.view.state.epoch if epoch is None else epoch
        follower = self._follower()
        last: list[Confirmation] = []
        # Decided once: if what was asked for is lifted meanwhile, "everybody is open" must not pass for an answer.
        asked: list[str] = list(causes or self._set.get(wanted, ()))
        closing: list[bool] = [True] if asked else []

        def look(store: Store) -> Confirmation | None:
            # A member of the memory: what the store lost while we wait goes back (design rule 12).
            record, census = changes.survey(store, follower.known.record)
            if record is None or record.epoch < wanted:
                return None
            standing = [c.id for c in State.at(census.reading.at, record).causes]
            if not closing:
                closing.append(bool(standing))
                asked.extend(standing)
            found = confirm(
                record,
                census.reports,
                causes=asked if closing[0] else [*record.lifted, *standing],
                closing=closing[0],
                at=census.reading.at,
                here_since=census.reading.here_since,
                registry=census.reading.registry,
                incarnation_seconds=census.reading.incarnation_seconds,
                forgotten=census.forgotten,
            )
            if found.safe:
                # No longer than that: this is the thread that reports, and obeys others' changes.
                found = changes.settled(store, found, wait=follower.interval)
            last[:] = [found]
            if progress is not None:
                progress(found)
            return found if found.safe else None

        return follower.watch_for(look, timeout), last

    @staticmethod
    def _confirmed(found: Confirmation | None, last: list[Confirmation]) -> Confirmation:
        if found is not None:
            return found
        if last:
            return last[0]
        raise StoreUnreachable(
            "nothing could be confirmed: the store did not answer, or holds an older record than the one asked for. "
            "The site obeys what it was last told; start nothing irreversible"
        )
