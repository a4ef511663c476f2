"""The wait of `on`, `wait` and `off`: look, join back what the store lost, judge, and again until it is true."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from . import changes
from .clock import boottime
from .confirmation import Confirmation, Expected, accepting_leases, confirm, held_by_fence
from .errors import Error, LostRace, StoreUnreachable
from .record import Record
from .state import State
from .stores import Census, Store

Progress = Callable[[Confirmation], None]
# Told what is the matter while a wait goes on in spite of it: the store does not answer, or holds no record.
Trouble = Callable[[Error], None]
# Some conditions change by the clock alone (a member falls silent): look again so often, hint or no hint.
LOOK_AGAIN_SECONDS = 0.5
RETRY_SECONDS = 0.1


class Proving:
    """Looks at one store until what was asked for is true of every member. Not thread-safe.

    Args:
        store: The store.
        expect: How many members of each role must be there for a "safe".
        longest_transaction: Seconds after its end from which a process has nothing left that could commit.
    """

    def __init__(self, store: Store, *, expect: Mapping[str, Expected], longest_transaction: float) -> None:
        self._store = store
        self._expect = expect
        self._longest_transaction = longest_transaction
        self._pause = threading.Event()

    def wait(
        self,
        known: Record,
        causes: tuple[str, ...] | None,
        *,
        closing: bool,
        timeout: float,
        progress: Progress | None,
        trouble: Trouble | None,
        accept_leases: bool = False,
        holding: bool | None = None,
    ) -> Confirmation:
        """Wait until causes are (or are no more) in force everywhere, or for `timeout` seconds.

        Args:
            known: What whoever waits knows of the record; it is joined back where the store has lost it.
            causes: Which; None: whatever stands.
            closing: Whether writes must have stopped, or may go on.
            timeout: Seconds to wait at most.
            progress: Called with each look at the members.
            trouble: Called with what keeps the wait from going on.
            accept_leases: A person does with members that admit nothing any more.
            holding: Whether fences are counted on for lost members as well; None where none is raised next.

        Returns:
            The last look.

        Raises:
            StoreUnreachable: The store did not answer at the end.
            LostRace: Somebody lifted one of the causes meanwhile; or, where whatever stands was waited for, the last of
                that, a window's end included.
        """
        deadline = time.monotonic() + timeout
        last: Confirmation | None = None
        # Causes that the store holds, and since when that was seen without a break, by a clock that nobody sets.
        seen: dict[str, float] = {}
        while True:
            try:
                last = self._look(known, causes, closing=closing, seen=seen)
                if accept_leases:
                    waited = boottime() - max((seen.get(c, math.inf) for c in last.causes), default=math.inf)
                    last = accepting_leases(last, waited=waited)
                if holding is not None:
                    last = held_by_fence(last, lost=holding)
                if last.safe:
                    last = changes.settled(self._store, last, wait=deadline - time.monotonic())
            except StoreUnreachable as error:
                if time.monotonic() >= deadline:
                    raise StoreUnreachable(_lost_while_waiting(error, last, closing)) from error
                if trouble is not None:
                    trouble(error)
            else:
                if progress is not None:
                    progress(last)
                if last.safe or time.monotonic() >= deadline:
                    return last
            self.hint(max(0.0, min(deadline - time.monotonic(), LOOK_AGAIN_SECONDS)))

    def _look(
        self, known: Record, causes: tuple[str, ...] | None, *, closing: bool, seen: dict[str, float]
    ) -> Confirmation:
        # While it waits, the command is a member of the memory: it joins its cause back (design rule 12).
        record, census = changes.survey(self._store, known)
        standing = tuple(c.id for c in State.at(census.reading.at, record).causes)
        mine = causes is not None
        if causes is None:  # whatever stands
            lifts = tuple(record.lifted if record is not None else known.lifted)
            causes = (standing or tuple(c.id for c in known.causes)) if closing else lifts
        if record is not None and closing:
            lifted = [record.lifted[c] for c in causes if c in record.lifted]
            if lifted and (mine or not standing):
                raise LostRace(
                    f"{lifted[0].by} lifted {lifted[0].id} at {lifted[0].at:%H:%M:%S} UTC, while this was waiting",
                    by=lifted[0].by,
                    epoch=record.epoch,
                )
            if not mine and not standing:
                _ended_meanwhile(known, record)
        here, now = census.reading.here_since, boottime()
        for cause in {*here, *seen}:
            seen.setdefault(cause, now) if cause in here else seen.pop(cause)
        return self.judged(record, census, causes, closing)

    def judged(
        self,
        record: Record | None,
        census: Census,
        causes: Iterable[str],
        closing: bool,
        *,
        expect: bool = True,
    ) -> Confirmation:
        """Return where every member stands, seen from these causes."""
        return confirm(
            record,
            census.reports,
            causes=causes,
            closing=closing,
            at=census.reading.at,
            expect=self._expect if closing and expect else None,
            here_since=census.reading.here_since,
            registry=census.reading.registry,
            incarnation_seconds=census.reading.incarnation_seconds,
            forgotten=census.forgotten,
            longest_transaction=self._longest_transaction,
        )

    def hint(self, seconds: float) -> None:
        """Wait until the store may hold something new, for `seconds` at most."""
        try:
            self._store.wait(seconds, for_reports=True)
        except StoreUnreachable:
            # The connection for hints is gone; the next look says what is the matter, after a breath.
            self._pause.wait(min(seconds, RETRY_SECONDS))


def _ended_meanwhile(known: Record, record: Record) -> None:
    """Raise LostRace if it was a window that kept the site read-only, and has ended by its time or by `off`."""
    planned = {w.id for w in known.windows if not w.ended}
    over = [
        w for w in record.windows if w.ended and w.ended_at is not None and w.id in planned and w.start < w.ended_at
    ]
    for window in sorted(over, key=lambda w: w.ended_at or w.start)[-1:]:
        raise LostRace(
            f"window {window.id} by {window.by} ended at {window.ended_at:%H:%M:%S} UTC, while this was waiting",
            by=window.by,
            epoch=record.epoch,
        )


def _lost_while_waiting(error: StoreUnreachable, last: Confirmation | None, closing: bool) -> str:
    why = str(error).rstrip(".")
    if last is None:
        return f"{why}. The change was set before; nothing about it could be confirmed"
    done = sum(not m.blocks for m in last.members)
    rest = len(last.members) - done
    others = f"; the other {rest} may still {'accept' if closing else 'refuse'} writes" if rest else ""
    return (
        f"{why}. Set at epoch {last.epoch}; {done} of {len(last.members)} had confirmed when the store went away"
        f"{others}{'. Not safe' if closing else ''}"
    )
