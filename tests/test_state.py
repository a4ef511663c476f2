"""What a record means at a moment."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readonly.record import LOCAL, Cause, Mode, Record
from readonly.record_format import dump, load
from readonly.state import UNKNOWN, State
from support.records import INSTANTS, LINEAGE, NOON, cause, lift, minutes, record, records, rehearsal, window

LOCAL_CAUSE = cause("primary", kind=LOCAL, by="this process", reason="the primary is read-only", sessions="keep")
BEFORE, START, DURING, END, LONG_AFTER = (NOON + minutes(n) for n in (59, 60, 61, 120, 9999))


def at(instant: datetime, found: Record | None, *local: Cause, unknown: str = "") -> State:
    """Return the state at an instant."""
    return State.at(instant, found, local=local, unknown_because=unknown)


@pytest.mark.parametrize(
    ("found", "local", "unknown", "mode"),
    [
        (None, (), "", Mode.UNKNOWN),
        (None, (LOCAL_CAUSE,), "", Mode.READ_ONLY),
        (record(), (), "", Mode.WRITABLE),
        (record(), (), "the lease is over", Mode.UNKNOWN),
        (record(), (LOCAL_CAUSE,), "", Mode.READ_ONLY),
        (record(cause()), (), "", Mode.READ_ONLY),
        (record(cause()), (), "the lease is over", Mode.READ_ONLY),
        (record(lifted=(lift(),)), (), "", Mode.WRITABLE),
        (record(lineage=""), (), "", Mode.UNKNOWN),
        (record(cause(), lineage=""), (), "", Mode.READ_ONLY),
        (record(lifted=(lift(),), lineage=""), (), "", Mode.UNKNOWN),
    ],
)
def test_the_mode(found: Record | None, local: tuple[Cause, ...], unknown: str, mode: Mode) -> None:
    """Writable is what is known to be; a cause closes also where the rest is unknown."""
    state = at(NOON, found, *local, unknown=unknown)
    assert state.mode is mode
    assert state.read_only is (mode is not Mode.WRITABLE)
    assert state.synced is (found is not None and not found.partial and not unknown)


@given(records(lineages=("", LINEAGE)) | st.none(), INSTANTS, st.booleans(), st.booleans())
def test_writable_needs_a_whole_record_and_nothing_in_force(
    found: Record | None, instant: datetime, local: bool, doubt: bool
) -> None:
    """The one sentence that everything hangs on, for all records and instants."""
    state = at(instant, found, *([LOCAL_CAUSE] if local else []), unknown="doubt" if doubt else "")
    writable = (
        found is not None
        and not found.partial
        and not found.causes
        and not any(w.start <= instant and not w.ended for w in found.windows)
        and not local
        and not doubt
    )
    assert state.read_only is not writable


# --- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instant", "ended", "closed"),
    [
        (BEFORE, False, False),
        (START, False, True),
        (DURING, False, True),
        (END, False, True),
        (LONG_AFTER, False, True),
        (BEFORE, True, False),
        (DURING, True, False),
        (LONG_AFTER, True, False),
    ],
)
def test_a_window_closes_by_the_clock_and_opens_by_the_record(instant: datetime, ended: bool, closed: bool) -> None:
    """From its start on, that moment included, until the record says it is over (design rule 14)."""
    state = at(instant, record(windows=(window(ended=ended),)))
    assert state.read_only is closed
    assert [c.id for c in state.causes] == (["w1"] if closed else [])


def test_a_window_in_force_is_a_cause() -> None:
    """It is reported, shown and confirmed like one."""
    (found,) = at(DURING, record(windows=(window(reason="why", message="Back soon", sessions="keep"),))).causes
    assert (found.id, found.kind, found.by, found.since, found.expected_end) == ("w1", "window", "ann", START, END)
    assert (found.reason, found.message, found.sessions) == ("why", "Back soon", "keep")


def test_the_next_window_is_the_first_that_has_not_begun() -> None:
    """One that was ended or cancelled is none."""
    later, sooner = window("late", start=NOON + minutes(300)), window("soon", start=NOON + minutes(90))
    cancelled = window("gone", start=NOON + minutes(80), ended=True)
    found = record(windows=(later, sooner, cancelled, window("now")))
    state = at(DURING, found)
    assert state.next_window == sooner
    assert [c.id for c in state.causes] == ["now"]
    assert at(NOON, record()).next_window is None


# --- the announced end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "announced"),
    [([], None), ([None], None), ([10], 10), ([10, 30], 30), ([10, None], None), ([None, 10], None)],
)
def test_the_latest_end_is_announced_if_all_have_one(ends: list[int | None], announced: int | None) -> None:
    """A cause without an end makes the end unknown: visitors are told no time that nobody gave."""
    causes = [cause(f"c{n}", expected_end=None if end is None else NOON + minutes(end)) for n, end in enumerate(ends)]
    assert at(NOON, record(*causes)).expected_end == (None if announced is None else NOON + minutes(announced))


def test_an_announced_end_opens_nothing() -> None:
    """It is an announcement (design rule 15)."""
    assert at(LONG_AFTER, record(cause(expected_end=NOON + minutes(1)))).read_only


def test_the_read_only_time_began_with_its_first_cause() -> None:
    """Windows and local causes count, too; a writable site has no start."""
    found = record(cause(since=NOON + minutes(90)), windows=(window(),))
    assert at(NOON + minutes(100), found).since == START
    assert at(NOON + minutes(100), found, LOCAL_CAUSE).since == NOON
    assert at(NOON, record()).since is None


# --- sessions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "default", "ruled"),
    [
        ([], "end", "keep"),
        ([None], "end", "end"),
        ([None], "keep", "keep"),
        (["keep"], "end", "keep"),
        (["keep", "suspend"], "end", "suspend"),
        (["suspend", "end", "keep"], "keep", "end"),
        (["keep", None], "suspend", "suspend"),
    ],
)
def test_the_strictest_cause_rules_over_sessions(said: list[str | None], default: str, ruled: str) -> None:
    """Of several causes the strictest; where one says nothing, what the policy says."""
    causes = [cause(f"c{n}", sessions=word) for n, word in enumerate(said)]
    assert at(NOON, record(*causes)).sessions(default) == ruled


def test_an_unknown_state_ends_no_session() -> None:
    """A store that is away signs nobody out."""
    assert UNKNOWN.sessions("end") == "keep"
    assert UNKNOWN.sessions_ended_before("end") is None
    assert at(NOON, record(), unknown="the lease is over").sessions("end") == "keep"
    assert at(NOON, None, LOCAL_CAUSE).sessions("end") == "keep"


def test_the_cut_off_stays_when_the_site_is_writable_again() -> None:
    """A session issued before `on` and first seen after `off` has ended."""
    found = record(lifted=(lift(),))
    assert at(LONG_AFTER, found).sessions_ended_before("end") == NOON
    assert at(LONG_AFTER, found).sessions_ended_before("keep") is None
    assert at(LONG_AFTER, record(lifted=(lift(undone=True),))).sessions_ended_before("end") is None


def test_a_window_cuts_at_its_start() -> None:
    """While it is in force, and after it ended; not before it began."""
    planned = record(windows=(window(),))
    assert at(BEFORE, planned).sessions_ended_before("end") is None
    assert at(DURING, planned).sessions_ended_before("end") == START
    over = replace(planned, windows=(window(ended=True, ended_at=END),), changed_at=END)
    assert at(LONG_AFTER, over).sessions_ended_before("end") == START
    assert at(LONG_AFTER, over).sessions_ended_before("keep") is None


def test_a_window_that_was_cancelled_before_it_began_cuts_nothing() -> None:
    """Nor does any later change of the record make it so."""
    cancelled = window(ended=True, ended_at=NOON)
    for changed_at in (NOON, LONG_AFTER):
        found = load(dump(record(windows=(cancelled,), changed_at=changed_at)))
        assert at(LONG_AFTER, found).sessions_ended_before("end") is None


# --- words -----------------------------------------------------------------------------------------------------------


def test_visitors_read_the_message_and_colleagues_the_reason() -> None:
    """The reason never reaches a page through the message."""
    state = at(NOON, record(cause("c1", reason="disk full"), cause("c2", message="Back at one")))
    assert state.message == "Back at one"
    assert "disk full" in state.reason
    assert at(NOON, record(cause(reason="disk full"))).message == ""


def test_an_unknown_state_says_why() -> None:
    """And it is not the empty string, whatever the reason."""
    assert "never read" in at(NOON, None).reason
    assert "emptied" in at(NOON, record(lineage="")).reason
    assert at(NOON, record(), unknown="because").reason == "because"
    assert UNKNOWN.reason == UNKNOWN.unknown_because != ""


@pytest.mark.parametrize(
    ("found", "instant", "going_on"),
    [
        (record(rehearsal=rehearsal()), BEFORE, True),
        (record(rehearsal=rehearsal()), START, False),  # its end is not part of it
        (record(rehearsal=rehearsal()), NOON - minutes(1), False),
        (record(rehearsal=rehearsal(ended_at=NOON)), BEFORE, False),
        (record(cause(), rehearsal=rehearsal()), BEFORE, False),
        (record(rehearsal=rehearsal(until=NOON + minutes(90)), windows=(window(),)), DURING, False),
        (record(rehearsal=rehearsal(until=NOON + minutes(90)), windows=(window(ended=True),)), DURING, True),
        (record(lineage="", rehearsal=rehearsal()), BEFORE, False),
    ],
)
def test_a_rehearsal_goes_on_only_while_the_site_is_writable(found: Record, instant: datetime, going_on: bool) -> None:
    """A real cause and a window win; the rest of it comes after them."""
    state = at(instant, found)
    assert (state.rehearsal is not None) is going_on
    assert state.read_only is (state.mode is not Mode.WRITABLE)


@given(records(lineages=("", LINEAGE)), INSTANTS)
def test_a_rehearsal_changes_nothing_else(found: Record, instant: datetime) -> None:
    """Whatever the record: with it or without it, the same is refused."""
    without, with_it = at(instant, replace(found, rehearsal=None)), at(instant, found)
    assert replace(with_it, record=None, rehearsal=None) == replace(without, record=None, rehearsal=None)
