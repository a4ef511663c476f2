"""What one process tells of itself and its work: in its reports, and in the site's history."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

from . import history, twins
from .clock import APART_SECONDS, Clock
from .doubts import CLOCK, TWINS, Doubts
from .errors import Error
from .follower import Follower, View
from .processes import host_name, process_namespace, process_start
from .rehearsal_counts import Counts, cleaned
from .state import State
from .stores import Store
from .tally import Tally

# Labels of each counter that travel with a report: what is refused on 200 routes would make it ten times as long.
LABELS_SENT = 10


class Telling:
    """Tells what a switch has counted and doubts.

    Args:
        role: What this process is, "" where nobody said so.
        view: What its requests are told.
        clock: The wall clock.
        follower: Returns what follows the store in this very process, or None while nobody does.
        tally: Returns what it has counted.
        rehearsed: What would have been refused.
        doubts: What it doubts.

    Attributes:
        role: What this process is.
    """

    def __init__(
        self,
        *,
        role: str,
        view: View,
        clock: Clock,
        follower: Callable[[], Follower | None],
        tally: Callable[[], Tally],
        rehearsed: Counts,
        doubts: Doubts,
    ) -> None:
        self.role = role
        self._view = view
        self._clock = clock
        self._follower = follower
        self._tally = tally
        self._rehearsed = rehearsed
        self._doubts = doubts
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a child that was forked."""
        # Counters are told since the last closing: that is what the morning after asks for.
        self._tally_then: Mapping[str, Any] = {}
        self._tally_epoch = 0
        self._tally_closed = False

    def described(self) -> Mapping[str, Any]:
        """Return what stands in a report beside what the follower knows."""
        return {
            "host": host_name(),
            "start": process_start(os.getpid()),
            "namespace": process_namespace(),
            "role": self.role or "job",
            "library": _version(),
            "tally": {
                **history.tally_shortened(history.tally_since(self._tally().totals(), self._tally_then), LABELS_SENT),
                "epoch": self._tally_epoch,
            },
            "rehearsal": self._rehearsed.totals(),
            "doubts": self._doubted(),
        }

    def turned(self, state: State) -> None:
        """Take note of a change: counters are told since the last closing."""
        if state.causes and not self._tally_closed:
            self._tally_then, self._tally_epoch = self._tally().totals(), state.epoch
        self._tally_closed = bool(state.causes)

    def beaten(self, store: Store) -> None:
        """Keep in the store what is due, after a heartbeat.

        Raises:
            StoreUnreachable: The store did not answer.
        """
        self._keep_rehearsal(store)
        follower = self._follower()
        if follower is None or not follower.problem:
            self._keep_uses(store)

    def ends(self, follower: Follower, *, timeout: float) -> None:
        """Tell the history what it was not told yet, since this process follows no more. Never raises.

        Args:
            follower: What follows the store.
            timeout: Seconds to wait for it at most.
        """
        if self._tally().used and not follower.problem:
            # What can't be told now never will be; the log has a part of it.
            with contextlib.suppress(Error, TimeoutError):
                told = follower.submit(lambda store: self._keep_uses(store, last=True))
                told.result(timeout)

    def _doubted(self) -> tuple[str, ...]:
        follower = self._follower()
        if follower is None:
            return self._doubts.told()
        # Asked anew each time: the other one may be closed by now, and the clock be set.
        found = [*self._doubts.told()]
        places = cleaned(twins.places(follower.member))
        if places:
            found.append(f"{TWINS} {places}")
        ahead = follower.time.ahead_seconds()
        if abs(ahead) > APART_SECONDS:
            found.append(f"{CLOCK} {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the store's")
        return tuple(found)

    def _keep_rehearsal(self, store: Store) -> None:
        """Keep in the store what was counted, once no more is to come: it is over, or this process ends."""
        record = self._view.state.rehearsal or getattr(self._view.state.record, "rehearsal", None)
        of = self._rehearsed.of
        going_on = record is not None and record.id == of and record.in_force(self._clock.now())
        follower = self._follower()
        if of and (follower is None or not (follower.problem or going_on)):
            self._rehearsed.store(store, follower.member if follower is not None else "")

    def _keep_uses(self, store: Store, *, last: bool = False) -> None:
        """Tell the history who was let through: a line a minute and route."""
        for name, route, times in self._tally().uses(last=last):
            follower = self._follower()
            entry = history.Entry(
                at=history.instant(self._clock.now() if follower is None else follower.latest()),
                site=store.site,
                what=history.LET_THROUGH,
                by=name,
                host=host_name(),
                epoch=self._view.state.epoch,
                reason=route,
                tally={"bypassed": times},
            )
            history.write(store, None, entry)


@functools.cache
def _version() -> str:
    from . import __version__

    return __version__
