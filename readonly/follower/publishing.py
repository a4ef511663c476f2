"""What requests are told: the view is made to say what this process knows, now, and who counts writes is told first."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ..inflight import InFlight
from ..record import LOCAL, Cause, Mode, Window
from ..state import State
from .contact import Contact
from .proofs import Proofs
from .settings import Settings
from .view import View

logger = logging.getLogger("readonly")

# Of a writable site's requests, most of which nobody looks at, so often one is, for what there may be to doubt.
SAMPLE_FIRST_SECONDS: Final = 20.0
SAMPLE_SECONDS: Final = 60.0


class Publisher:
    """Swaps the view. Every method is called with the contact's lock held.

    Attributes:
        changes: What the state has become, one after the other, for whoever must be told; the thread takes them out.
    """

    def __init__(
        self,
        contact: Contact,
        *,
        view: View,
        inflight: InFlight,
        settings: Settings,
        monotonic: Callable[[], float],
        proofs: Proofs,
    ) -> None:
        self.changes: deque[State] = deque()
        self._contact = contact
        self._view = view
        self._inflight = inflight
        self._settings = settings
        self._monotonic = monotonic
        self._proofs = proofs
        self._local: dict[str, Cause] = {}
        self._next_sample: float | None = None

    def detected(self, name: str, reason: str | None) -> bool:
        """Add (or, with None, take away) a cause that only this process sees; return whether that was news."""
        if reason is None:
            if self._local.pop(name, None) is None:
                return False
        else:
            known = self._local.get(name)
            if known is not None and known.reason == reason:
                return False
            since = known.since if known is not None else self._contact.now()
            self._local[name] = Cause(
                id=name, kind=LOCAL, by="this process", since=since, reason=reason, sessions="keep"
            )
        self.publish()
        return True

    def sampled(self) -> None:
        """Have requests go the fast way again for a while, now that one was looked at closely."""
        self._next_sample = self._monotonic() + SAMPLE_SECONDS
        self.publish()

    def publish(self) -> None:
        """Make the view say what is known now."""
        contact = self._contact
        local = tuple(self._local.values())
        if contact.known.problem:
            problem = contact.known.problem
            local += (Cause("unreadable", LOCAL, "this process", contact.now(), reason=problem, sessions="keep"),)
        because = contact.unknown_because()
        before = self._view.state
        # Windows close early by what this process can't know of the store's clock, and open by the record alone.
        state = State.at(contact.time.latest(), contact.known.record, local=local, unknown_because=because)
        if not contact.reached and self._settings.boot == "open" and not state.causes:
            state = replace(state, read_only=False)
        view = self._view
        if state.read_only and not self._settings.inert:
            view.shut()
            view.state = state
            self._inflight.close()
        else:
            # A thread that outlived its switch's end must not let go of what the next one watches.
            if not contact.stopping:
                self._inflight.reopen()
            view.state = state if not self._settings.inert else replace(state, read_only=False, rehearsal=None)
            trusted = self._settings.trust_threads and not contact.stopping
            view.admit_until = self._admit_until(state) if trusted else float("-inf")
            # Every request is looked at while a rehearsal goes on; writes are admitted as ever.
            if self._next_sample is None:
                self._next_sample = self._monotonic() + SAMPLE_FIRST_SECONDS
            view.sample = self._monotonic() >= self._next_sample
            view.open = trusted and view.state.rehearsal is None and not view.sample
            if contact.stopping:
                view.shut()  # `stop` shut it in between
        view.sessions_cut = state.sessions_ended_before("end") is not None
        view.announced = self._announced(view.state)
        if _meaning(before) != _meaning(view.state):
            self._log_change(before, view.state)
            if view.state.read_only and not before.read_only:
                self._proofs.forget()
            self.changes.append(view.state)
        if view.state.read_only:
            self._proofs.try_out()

    def _announced(self, state: State) -> Window | None:
        """Return the window that visitors are told of by now."""
        window = state.next_window
        if window is None or state.read_only:
            return None
        left = (window.start - self._contact.time.latest()).total_seconds()
        return window if left <= self._settings.announce_seconds else None

    def _admit_until(self, state: State) -> float:
        """Until when a writable state may be trusted unseen: somebody looked lately, the lease, the next window."""
        contact = self._contact
        until = min(contact.attempted + contact.stale_after, contact.lease_until)
        if state.next_window is not None:
            until = min(until, self._monotonic() + (state.next_window.start - contact.time.latest()).total_seconds())
        return until

    def _log_change(self, before: State, after: State) -> None:
        logger.log(
            # Every process is new for a few milliseconds.
            logging.WARNING if after.mode is Mode.UNKNOWN and not self._contact.is_new() else logging.INFO,
            "readonly: %s is %s (epoch %d)%s",
            self._contact.store.site,
            after.mode,
            after.epoch,
            f": {after.reason}" if after.read_only else ", rehearsing" if after.rehearsal is not None else "",
            extra={
                "event": "changed",
                "readonly_site": self._contact.store.site,
                "readonly_mode": str(after.mode),
                "readonly_epoch": after.epoch,
                "readonly_was": str(before.mode),
                "readonly_reason": after.reason,
            },
        )


def _meaning(state: State) -> tuple[object, ...]:
    return (state.mode, state.epoch, state.causes, state.read_only, state.unknown_because, state.rehearsal)
