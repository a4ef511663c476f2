"""What does `off` lift, and in which order: fences first, then the causes, and only if that opens one server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import changes
from ..changes import Change
from ..errors import ConfigurationError, Error, NoRecord, NotConfirmed, NotYours
from ..fencing import Fences, Lowered, standing_fences
from ..proving import LOOK_AGAIN_SECONDS, Proving, Trouble
from ..record import FENCE
from ..stores import Store
from ..switchover import Identity, MovedAway, Split
from ._look import Look


@dataclass(frozen=True, slots=True)
class Opening:
    """One `off`, as it was typed; see `Site.off`.

    Attributes:
        store: Where the record is.
        fences: Those that this machine can reach, in the name of whoever opens.
        proving: Knows where every member stands, and when to look again.
        look: Reads record and registry.
        splits: Returns the databases whose writers are not at one server.
        cause: Lift this one, whosever it is.
        every: Lift all that operators and windows have set.
        undo: Sessions go on as well.
        moved: Databases that are at another server now.
        stay: Databases that stay at the server that was fenced.
    """

    store: Store
    fences: Fences
    proving: Proving
    look: Callable[[], Look]
    splits: Callable[[Look], tuple[Split, ...]]
    cause: str | None
    every: bool
    undo: bool
    moved: Sequence[str]
    stay: Sequence[str]

    def lift(self, deadline: float, *, trouble: Trouble | None, lowered: Callable[[Lowered], None] | None) -> Change:
        """Lift it, or wait until those who know more have written the record back, and lift it then.

        Args:
            deadline: Until when it is waited for them, by the monotonic clock.
            trouble: Called with what keeps the wait from going on.
            lowered: Told what became of the fences.

        Raises:
            MovedAway: Members do not all write to the server that was fenced; nothing was changed.
            ConfigurationError: `moved` or `stay` names no database that was fenced or has moved; nothing was changed.
            NoRecord: Nobody wrote it back in time.
            NotYours: Only others' causes stand; nothing was changed.
            LostRace: Somebody switched on at the same moment; nothing was changed.
        """
        operator, cause, every, undo = self.fences.operator, self.cause, self.every, self.undo
        while True:
            refusal: Error
            try:
                now = self._not_moved()
                # Before a fence comes down: what is refused leaves it standing.
                asked = changes.undo_in_time(self.store, operator, cause=cause, every=every) if undo else None
                down = self._lower(now)
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
                    return change
                refusal = unsettled
            if trouble is not None:
                trouble(refusal)
            self.proving.hint(max(0.0, min(deadline - time.monotonic(), LOOK_AGAIN_SECONDS)))

    def _not_moved(self) -> dict[str, list[Identity]]:
        """See that opening the site opens one server, the fenced one, or what a person says of it.

        Returns:
            By name, where members write to what has moved by that person's word.
        """
        look = self.look()
        if look.record is None:
            return {}
        moved, stay = self.moved, self.stay
        found = {split.name: split for split in self.splits(look)} if look.record.causes or moved or stay else {}
        known = [*found, *(c.fence.name for c in standing_fences(look.record) if c.fence is not None)]
        for name in (*moved, *stay):
            if name not in known or (name in moved and name in stay):
                raise ConfigurationError(
                    f"{name!r} is no database that was fenced or has moved, or is said to have done both: known are "
                    f"{', '.join(dict.fromkeys(known)) or 'none'}. Nothing was changed"
                )
        try:
            going = changes.would_lift(look.record, self.fences.operator, cause=self.cause, every=self.every)
        except NotYours:
            going = ()
        opens = all(c.kind == FENCE or c.id in going for c in look.record.causes)
        left = [split for name, split in found.items() if name not in (*moved, *stay)]
        if left and opens:
            raise MovedAway(left)
        return {name: [seen.identity for seen in found[name].seen] if name in found else [] for name in moved}

    def _lower(self, moved: dict[str, list[Identity]]) -> Lowered | None:
        """Let go of the fences for the causes that are about to be lifted; None where there are none."""
        record = changes.read_in(self.store, self.store.read())
        if record is None or record.partial or not (self.fences or standing_fences(record)):
            return None
        going: tuple[str, ...] = ()
        try:
            going = changes.would_lift(record, self.fences.operator, cause=self.cause, every=self.every)
        except NotYours:
            # Nothing of theirs stands, or not what they name. A fence whose holders are all gone is nobody's, and
            # anybody's to lift.
            if any(c.kind != FENCE for c in record.causes) or (
                self.cause is not None and record.cause(self.cause) is None
            ):
                return None
        return self.fences.lift(going, record=record, moved=moved, stay=self.stay)

    def _unsettled(self) -> NotConfirmed | None:
        """Say why the store may not hold yet all that is known of the site, or return None if it does."""
        look = self.look()
        found = self.proving.judged(look.record, look.census, (), closing=False)
        if found.settled:
            return None
        return NotConfirmed(f"nothing to lift yet: {'; '.join(found.problems)}", missing=found.problems)
