"""A model of windows (design rule 14): they close by each process's own clock, and open by the record alone.

Two processes whose clocks differ, one window, one operator who waits for "safe" and may move the window's end once.
What an instant means is `State.at`, what a process makes of a reading is `transitions.learn`, and "safe" is
`confirm`; the end's mark is written as a member would, by compare-and-set, when the store's clock is past it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple, cast
from unittest.mock import patch

from readonly import confirmation
from readonly.confirmation import confirm
from readonly.members import Report
from readonly.record import Record, Window
from readonly.record_format import dump, load
from readonly.state import State
from readonly.stores import Seen
from readonly.transitions import Knowledge, _changing, _joining, first_record, learn

from .search import Broken, Event, Point, Step
from .values import ID, SITE, T0, Memo, Table
from .words import record_shown

MINUTE = timedelta(minutes=1)
# In minutes: the window, its end if it is moved, and when everything is over.
START, END, MOVED_END, LAST = 1, 3, 5, 6
SKEWS = (-1, 0, 1)
WINDOW = "w0"

KEPT = "after an operator was told SAFE, a write commits before the window's end is in the record"


class Clerk(NamedTuple):
    """A process: what it knows, how far its clock is ahead, whether a write is in flight, whether it has beaten."""

    known: int
    skew: int
    writing: bool = False
    beaten: bool = False


class Windows:
    """The rule in force; the ablation is a subclass."""

    def __init__(self) -> None:
        self.records: Table[bytes] = Table()
        self.reports: Table[bytes] = Table()
        self.clerks: Table[Clerk] = Table()
        self._known: Table[tuple[bytes | None, bool]] = Table()
        self._state = Memo(self._state_at)
        self._learnt = Memo(self._learn)
        self._windows = Memo(lambda record: load(self.records[record]).windows[0])
        self._reported = Memo(self._report)
        self._confirmed = Memo(self._confirm)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make the library's randomness the model's own."""
        with (
            patch.object(_changing, "new_id", lambda: ID),
            patch.object(_joining, "new_id", lambda: ID),
            patch.object(confirmation, "is_gone", lambda report: False),
        ):
            yield

    def closed(self, record: Record, instant: datetime) -> State:
        """Say what a record means for a process, by its own clock (rule 14)."""
        return State.at(instant, record)

    def _state_at(self, known: int, minute: int) -> State:
        raw, _ = self._known[known]
        return self.closed(load(cast(bytes, raw)), T0 + minute * MINUTE)

    def _learn(self, known: int, record: int) -> int:
        raw, settled = self._known[known]
        before = Knowledge(load(raw) if raw is not None else None, raw, settled)
        after, back = learn(before, self.records[record], site=SITE, young=False, at=T0)
        assert back is None, "only the store's record changes here"
        assert after.record is not None
        return self._known.number((dump(after.record), after.settled))

    # A state: minute, record, operator (0 waits, 1 was told SAFE), the window was moved, and for each process itself
    # and its last report.

    def initial(self) -> Sequence[Point]:
        """Return the states that it begins in: the window is in the record, and clocks differ in every way."""
        window = Window(WINDOW, T0 + START * MINUTE, T0 + END * MINUTE, by="op0")
        record = self.records.number(dump(replace(first_record(SITE, at=T0, by="model"), windows=(window,))))
        known = self._learnt[self._known.number((None, False)), record]
        found = []
        for one in SKEWS:
            for other in SKEWS:
                clerks = [Clerk(known, skew) for skew in (one, other)]
                said = [self._said(slot, clerk, 0) for slot, clerk in enumerate(clerks)]
                found.append((0, record, 0, 0, *(self.clerks.number(clerk) for clerk in clerks), *said))
        return found

    def _said(self, slot: int, clerk: Clerk, minute: int) -> int:
        return cast(int, self._reported[slot, clerk.known, minute + clerk.skew, clerk.writing])

    def _report(self, slot: int, known: int, minute: int, writing: bool) -> int:
        state = cast(State, self._state[known, minute])
        made = Report(
            id=f"p{slot}",
            host="model",
            pid=0,
            role="web",
            causes=tuple(c.id for c in state.causes),
            closed=state.read_only,
            in_flight=int(writing),
            synced=state.synced,
        )
        return self.reports.number(made.dump())

    def promised(self, point: Point) -> str:
        """Return what the operator was told, as long as the record does not say that the window has ended."""
        return "safe" if point[2] and not self._window(point[1]).ended else ""

    def _window(self, record: int) -> Window:
        return cast(Window, self._windows[record,])

    def _rewritten(self, record: int, window: Window) -> int:
        old = load(self.records[record])
        return self.records.number(dump(replace(old, epoch=old.epoch + 1, windows=(window,))))

    def steps(self, point: Point) -> Iterator[Step]:
        """Return everything that may happen in a state."""
        minute, record, told, moved, *rest = point
        clerks, said = [self.clerks[c] for c in rest[:2]], rest[2:]
        window = self._window(record)

        def with_clerk(slot: int, clerk: Clerk, report: int) -> Point:
            row, words = list(rest[:2]), list(said)
            row[slot], words[slot] = self.clerks.number(clerk), report
            return (minute, record, told, moved, *row, *words)

        for slot, clerk in enumerate(clerks):
            state = cast(State, self._state[clerk.known, minute + clerk.skew])
            if clerk.writing:
                if self.promised(point):
                    yield Event("commit", slot), Broken(KEPT)
                yield Event("commit", slot), with_clerk(slot, clerk._replace(writing=False), said[slot])
            elif not state.read_only:
                yield Event("admit", slot), with_clerk(slot, clerk._replace(writing=True), said[slot])
            known = self._learnt[clerk.known, record]
            beat = with_clerk(slot, clerk._replace(known=known, beaten=True), self._said(slot, clerk, minute))
            yield Event("beat", slot), beat
        if not told and self._confirmed[minute, record, *said]:
            yield Event("safe"), (minute, record, 1, moved, *rest)
        # The script looks at the store's clock: nobody moves an end that has passed, and nobody marks one before.
        assert window.end is not None
        end = T0 + minute * MINUTE >= window.end
        if not moved and not end:
            later = replace(window, end=T0 + MOVED_END * MINUTE, revision=window.revision + 1)
            yield Event("extend"), (minute, self._rewritten(record, later), told, 1, *rest)
        if end and not window.ended:
            marked = replace(window, ended=True, ended_at=window.end, revision=window.revision + 1)
            yield Event("mark"), (minute, self._rewritten(record, marked), told, moved, *rest)
        if minute < LAST and all(clerk.beaten for clerk in clerks):
            row = [self.clerks.number(clerk._replace(beaten=False)) for clerk in clerks]
            yield Event("minute"), (minute + 1, record, told, moved, *row, *said)

    def _confirm(self, minute: int, record: int, *said: int) -> bool:
        at = T0 + minute * MINUTE
        seen = [Seen(f"p{slot}", self.reports[report], at) for slot, report in enumerate(said)]
        return confirm(load(self.records[record]), seen, causes=(WINDOW,), closing=True, at=at).safe

    def shown(self, point: Point) -> str:
        """Return a state in one line."""
        minute, record, told, _, *rest = point
        window = self._window(record)
        assert window.end is not None
        until = f"{(window.end - T0) // MINUTE}" + (", ended" if window.ended else "")
        words = [f"minute {minute}", f"store {record_shown(load(self.records[record]))}, window {START} to {until}"]
        for slot, number in enumerate(rest[:2]):
            clerk = self.clerks[number]
            state = cast(State, self._state[clerk.known, minute + clerk.skew])
            word = "closed" if state.read_only else "open"
            words.append(f"p{slot} {word}, its clock {clerk.skew:+}" + (", ADMITTED" if clerk.writing else ""))
        return " | ".join([*words, *(["op0 told SAFE"] if told else [])])

    def told(self, event: Event) -> str:
        """Return an event as people would tell it."""
        return {
            "safe": "op0: is told SAFE",
            "extend": f"op0 moves the end to minute {MOVED_END}",
            "mark": "a member marks the window as ended",
            "minute": "a minute passes",
            "beat": f"p{event.who} sends a heartbeat",
            "admit": f"p{event.who} counts, looks, admits a write",
            "commit": f"p{event.who} COMMIT",
        }[event.kind]


class OpensByItsClock(Windows):
    """Rule 14: a window is over when a process's own clock is past its end."""

    def closed(self, record: Record, instant: datetime) -> State:
        left = tuple(window for window in record.windows if window.end is not None and instant < window.end)
        return State.at(instant, replace(record, windows=left))
