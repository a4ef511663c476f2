"""What a record means for one process, at one moment: derived, never stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from .record import WINDOW, Bypass, Cause, Mode, Record, Rehearsal, Window

# Ended sessions are the strictest, kept ones the mildest; of several causes the strictest rules.
_STRICTNESS = ("keep", "suspend", "end")


@dataclass(frozen=True, slots=True)
class State:
    """One process's answer to "may I write?", now.

    Attributes:
        read_only: True unless the process knows that the site is writable.
        mode: `Mode.WRITABLE`, `Mode.READ_ONLY`, or `Mode.UNKNOWN` (refuses writes, ends no session).
        epoch: Epoch of the record, 0 before one was read.
        causes: Those in force: standing ones, windows that have begun, local ones.
        since: Start of the read-only time, UTC; None while writable or unknown.
        expected_end: The latest announced end; None when there is none, or when a cause in force has none.
        next_window: The next window that has not begun.
        synced: The process has read the state from the store at least once, and it can be trusted.
        record: The record behind it.
        unknown_because: Why the state is unknown, and what to do; "" when it is known.
        rehearsal: The one that goes on; None unless the site is writable.
    """

    read_only: bool
    mode: Mode
    epoch: int
    causes: tuple[Cause, ...]
    since: datetime | None
    expected_end: datetime | None
    next_window: Window | None
    synced: bool
    record: Record | None
    unknown_because: str = ""
    rehearsal: Rehearsal | None = None

    @classmethod
    def at(
        cls,
        instant: datetime,
        record: Record | None,
        *,
        local: Sequence[Cause] = (),
        unknown_because: str = "",
    ) -> State:
        """Decide what a record means at an instant. Nothing else in the library decides this.

        A window is in force from its start until the record says that it ended: it closes by the clock and opens by
        the record alone (design rule 14).

        Args:
            instant: The moment, by the store's clock, timezone-aware.
            record: What is known, or None.
            local: Causes that only this process sees.
            unknown_because: Why the record can't be trusted to say "writable"; "" when it can.
        """
        if record is None:
            unknown_because = unknown_because or "the state was never read"
        elif record.partial:
            unknown_because = unknown_because or (
                "the store was emptied and no process has written the whole record back yet"
            )
        stored = record.causes if record is not None else ()
        windows = record.windows if record is not None else ()
        open_windows = [w for w in windows if not w.ended]
        causes = (*stored, *(as_cause(w) for w in windows if w.in_force(instant)), *local)
        ends = [c.expected_end for c in causes]
        known_ends = [e for e in ends if e is not None]
        mode = Mode.READ_ONLY if causes else Mode.UNKNOWN if unknown_because else Mode.WRITABLE
        return cls(
            read_only=mode is not Mode.WRITABLE,
            mode=mode,
            epoch=record.epoch if record is not None else 0,
            causes=causes,
            since=min((c.since for c in causes), default=None),
            expected_end=max(known_ends) if known_ends and len(known_ends) == len(ends) else None,
            next_window=min((w for w in open_windows if w.start > instant), key=lambda w: w.start, default=None),
            synced=not unknown_because,
            record=record,
            unknown_because=unknown_because,
            rehearsal=_rehearsal(record, instant) if mode is Mode.WRITABLE else None,
        )

    @property
    def bypasses(self) -> tuple[Bypass, ...]:
        """The bypasses that are not revoked and whose read-only time is not over; they may have run out.

        What a process knew that can't be trusted any more (its lease has run out, the store was emptied) lets nobody
        through: the bypass may have been taken back meanwhile, and somebody told that nothing writes.
        """
        if self.record is None or not self.record.bypasses or not self.read_only or not self.synced:
            return ()
        causes = {cause.id for cause in self.causes}
        return tuple(one for one in self.record.bypasses if not one.revoked and not causes.isdisjoint(one.causes))

    @property
    def message(self) -> str:
        """What visitors are told: the first message that somebody wrote for them, else ""."""
        return sendable(next((c.message for c in self.causes if c.message), ""))

    @property
    def reason(self) -> str:
        """One sentence for colleagues and logs; never for visitors."""
        if self.mode is Mode.UNKNOWN:
            return self.unknown_because
        return "; ".join(f"{c.kind} {c.id} by {c.by}" + (f": {c.reason}" if c.reason else "") for c in self.causes)

    def sessions(self, default: str) -> str:
        """Return what happens to sessions now: `end`, `suspend`, or `keep` (always while writable or unknown).

        Args:
            default: What the site's policy says, for causes that say nothing.
        """
        return max((c.sessions or default for c in self.causes), key=_STRICTNESS.index, default="keep")

    def sessions_ended_before(self, default: str) -> datetime | None:
        """Return the cut-off: sessions issued before it have ended, also after the site is writable again.

        Args:
            default: What the site's policy says, for causes that say nothing.
        """
        found = [c.since for c in self.causes if c.kind == WINDOW and (c.sessions or default) == "end"]
        if self.record is not None:
            stored = self.record.sessions_ended_before(default)
            found += [stored] if stored is not None else []
            found += [
                w.start
                for w in self.record.windows
                # One that was cancelled before it began has ended nobody's session.
                if w.ended and w.start <= (w.ended_at or self.record.changed_at) and (w.sessions or default) == "end"
            ]
        return max(found, default=None)


def _rehearsal(record: Record | None, at: datetime) -> Rehearsal | None:
    found = None if record is None else record.rehearsal
    return found if found is not None and found.in_force(at) else None


def sendable(text: str) -> str:
    """Return text that can be sent: half a surrogate pair, as JSON may hold it, fails in whatever page it is in."""
    return text.encode("utf-8", "replace").decode()


def as_cause(window: Window) -> Cause:
    """Return the cause that a window is while it is in force."""
    return Cause(
        id=window.id,
        kind=WINDOW,
        by=window.by,
        since=window.start,
        reason=window.reason,
        message=window.message,
        expected_end=window.end or window.expected_end,
        sessions=window.sessions,
        revision=window.revision,
    )


UNKNOWN = State(
    read_only=True,
    mode=Mode.UNKNOWN,
    epoch=0,
    causes=(),
    since=None,
    expected_end=None,
    next_window=None,
    synced=False,
    record=None,
    unknown_because="the state was never read",
)
