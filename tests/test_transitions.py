"""Changes of a record, joins, and what one process makes of a reading; all of it pure."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from readonly.record import TOMBSTONE_AGE, Mode, Record
from readonly.record_format import dump, load
from readonly.schedules import over
from readonly.state import State
from readonly.transitions import (
    Knowledge,
    adds,
    contradicts,
    first_record,
    join,
    lapsed,
    learn,
    recalled,
    trimmed,
    undo_until,
    with_cause,
    with_rehearsal,
    without_causes,
)
from support.records import (
    LATER_LINEAGE,
    LINEAGE,
    MIDDLE_LINEAGE,
    NOON,
    cause,
    lift,
    lifts,
    minutes,
    record,
    records,
    rehearsal,
    window,
)

ANY = records(lineages=("", LINEAGE))
SITE = "shop"


def meaning(found: Record) -> object:
    """Return what a record says, without epoch, id and who wrote it."""
    return (
        found.lineage,
        found.causes,
        dict(found.lifted),
        found.windows,
        found.schedules,
        found.sessions_floor,
        found.windows_floor,
        found.protected,
    )


def joined(one: Record, other: Record) -> Record:
    """Join at noon."""
    return join(one, other, at=NOON)


# --- changes ---------------------------------------------------------------------------------------------------------


def test_the_first_record_is_writable_and_whole() -> None:
    """`init` over nothing opens the site, with epoch 1."""
    made = first_record(SITE, at=NOON, by="ann", protected=True)
    assert (made.epoch, made.mode, made.partial, made.protected) == (1, Mode.WRITABLE, False, True)
    assert made.sessions_ended_before() is None


def test_a_later_init_wins() -> None:
    """Lineages are ordered by time, then by chance; none is ever the same."""
    first = first_record(SITE, at=NOON, by="ann").lineage
    second = first_record(SITE, at=NOON + timedelta(microseconds=1), by="ann").lineage
    assert first < second
    assert len({first_record(SITE, at=NOON, by="ann").lineage for _ in range(20)}) == 20


def test_a_reset_lifts_what_it_saw_and_goes_on_counting() -> None:
    """`init --replace` leaves tombstones, so that no copy brings the old causes back."""
    old = record(cause("c1"), lifted=(lift("c0"),), sessions_floor=NOON - minutes(3), extra={"later": 1})
    made = first_record(SITE, at=NOON + minutes(9), by="bob", replacing=old)
    assert (made.epoch > old.epoch, made.mode, set(made.lifted)) == (True, Mode.WRITABLE, {"c0", "c1"})
    assert made.sessions_ended_before() == NOON
    assert made.extra == {"later": 1}
    assert joined(old, made).mode is Mode.WRITABLE
    assert first_record(SITE, at=NOON + minutes(9), by="bob", replacing=old, end_sessions=True).sessions_floor == (
        NOON + minutes(9)
    )


@given(ANY)
def test_a_cause_closes_and_its_lift_opens_what_it_closed(found: Record) -> None:
    """`on` and `off` each raise the epoch, and leave the other causes alone."""
    closed = with_cause(found, cause("mine"), site=SITE, at=NOON, by="ann")
    opened = without_causes(closed, ["mine"], at=NOON, by="ann")
    assert found.epoch < closed.epoch < opened.epoch
    assert len({found.id, closed.id, opened.id}) == 3
    assert closed.mode is Mode.READ_ONLY
    assert closed.cause("mine") is not None
    assert opened.causes == found.causes
    assert "mine" in opened.lifted
    assert opened.changed_at >= found.changed_at


def test_on_over_nothing_is_partial() -> None:
    """It closes, and lifting it opens nothing (design rule 5)."""
    made = with_cause(None, cause(), site=SITE, at=NOON, by="ann")
    assert (made.partial, made.epoch, made.causes[0].epoch, made.site) == (True, 1, 1, SITE)
    lifted = without_causes(made, ["c1"], at=NOON, by="ann")
    assert lifted.mode is Mode.READ_ONLY
    assert State.at(NOON, lifted).read_only


def test_a_change_of_ones_cause_keeps_its_start() -> None:
    """What is said anew replaces what was said; when it began stays, since the cut-off hangs on it."""
    found = with_cause(record(cause()), cause(since=NOON + minutes(5), reason="new"), site=SITE, at=NOON, by="ann")
    (changed,) = found.causes
    assert (changed.since, changed.revision, changed.reason) == (NOON, 2, "new")


def test_lifting_takes_any_iterable_and_ignores_what_does_not_stand() -> None:
    """A generator is read once, and lifts as much as a list."""
    found = record(cause("c1"), cause("c2"), cause("c3"))
    lifted = without_causes(found, (key for key in ("c3", "c1", "c9")), at=NOON, by="ann")
    assert [c.id for c in lifted.causes] == ["c2"]
    assert set(lifted.lifted) == {"c1", "c3"}


def test_a_window_in_force_is_ended_like_a_cause() -> None:
    """By its id, when it has begun; taken back, it has ended nobody's session."""
    found = record(windows=(window("w1"), window("w2", start=NOON + minutes(100))))
    at = NOON + minutes(70)
    ended = without_causes(found, ["w1", "w2"], at=at, by="ann")
    assert [(w.ended, w.ended_at, w.revision) for w in ended.windows] == [(True, at, 2), (False, None, 1)]
    assert not State.at(at, ended).read_only
    assert State.at(at, ended).sessions_ended_before("end") == NOON + minutes(60)
    assert without_causes(ended, ["w1"], at=at, by="ann").windows == ended.windows
    undone = without_causes(found, ["w1"], at=at, by="ann", undone=True)
    assert State.at(at, undone).sessions_ended_before("end") is None


def test_the_instant_of_change_never_goes_back() -> None:
    """A store's clock may, after a failover."""
    assert with_cause(record(), cause(), site=SITE, at=NOON - minutes(9), by="ann").changed_at == NOON


@given(records(), st.integers(0, 200))
def test_trimming_keeps_every_cut_off(found: Record, days: int) -> None:
    """Old tombstones go; whose sessions ended stays."""
    at = NOON + timedelta(days=days)
    left = trimmed(found, at=at)
    assert left.sessions_ended_before() == found.sessions_ended_before()
    assert all(at - one.at <= TOMBSTONE_AGE for one in left.lifted.values())
    assert all(key in left.lifted for key, one in found.lifted.items() if at - one.at <= TOMBSTONE_AGE)


def test_trimming_happens_with_a_lift() -> None:
    """A record does not grow for ever."""
    found = record(cause("c1"), lifted=(lift("c0", at=NOON - TOMBSTONE_AGE - minutes(1)),))
    assert set(without_causes(found, ["c1"], at=NOON, by="ann").lifted) == {"c1"}


def test_an_undone_cut_off_is_not_kept_by_trimming() -> None:
    """What was taken back does not come back after ninety days."""
    found = record(lifted=(lift("c0", undone=True), lift("c1", sessions="keep")))
    assert trimmed(found, at=NOON + timedelta(days=100)).sessions_ended_before() is None


def test_a_slip_can_be_taken_back_for_a_while() -> None:
    """From the start of the cause on."""
    assert undo_until(cause(), grace=minutes(1)) == NOON + minutes(1)


# --- joining ---------------------------------------------------------------------------------------------------------


WHOLE = records(lineages=(LINEAGE, MIDDLE_LINEAGE))


@given(ANY | WHOLE, ANY | WHOLE)
def test_a_join_does_not_depend_on_who_joins(one: Record, other: Record) -> None:
    """Commutative in meaning."""
    assert meaning(joined(one, other)) == meaning(joined(other, one))


@given(ANY, ANY, ANY)
def test_a_join_does_not_depend_on_the_order(one: Record, two: Record, three: Record) -> None:
    """Associative in meaning, partial records included."""
    assert meaning(joined(joined(one, two), three)) == meaning(joined(one, joined(two, three)))


@example(
    record(lineage=MIDDLE_LINEAGE),
    record(lifted=(lift("c2", at=NOON, since=NOON + minutes(2)),)),
    record(cause("c2", since=NOON + minutes(2))),
)
@given(WHOLE, WHOLE, WHOLE)
def test_a_join_of_lineages_does_not_depend_on_the_order(one: Record, two: Record, three: Record) -> None:
    """Associative in meaning, over a person's `init`."""
    assert meaning(joined(joined(one, two), three)) == meaning(joined(one, joined(two, three)))


@given(ANY | WHOLE, ANY | WHOLE)
def test_a_join_is_reached_at_once(one: Record, other: Record) -> None:
    """Idempotent: what was joined adds nothing more, so that members end writing back."""
    both = joined(one, other)
    assert not adds(one, both)
    assert not adds(other, both)
    assert joined(one, both) is both
    assert joined(one, one) is one


@given(ANY, ANY)
def test_a_join_that_adds_nothing_changes_no_byte(one: Record, other: Record) -> None:
    """Either it is the other record itself, or it has an epoch above both and an id of its own."""
    both = joined(one, other)
    if not adds(one, other):
        assert both is other
    else:
        assert both.epoch > max(one.epoch, other.epoch)
        assert both.id not in (one.id, other.id)
        assert both.changed_at >= max(one.changed_at, other.changed_at)


@given(ANY, ANY)
def test_a_cause_ends_by_its_lift_alone(one: Record, other: Record) -> None:
    """Whatever the epochs say (design rule 3)."""
    both = joined(one, other)
    lifted = {*one.lifted, *other.lifted}
    assert {c.id for c in both.causes} == {c.id for c in (*one.causes, *other.causes)} - lifted
    assert set(both.lifted) == lifted
    known = (*one.windows, *other.windows)
    assert {w.id for w in both.windows} == {w.id for w in known if not over(w, both.schedules)}


@given(records(lineages=("",)), records(lineages=("",)))
def test_partial_records_never_make_a_whole_one(one: Record, other: Record) -> None:
    """However many of them are joined, they close."""
    both = joined(one, other)
    assert both.partial
    assert both.mode is Mode.READ_ONLY
    assert State.at(NOON, both).read_only


@given(records(), records(lineages=("",)))
def test_a_partial_record_is_whole_with_one_that_knew(whole: Record, partial: Record) -> None:
    """Both ways; and it brings its causes."""
    for both in (joined(whole, partial), joined(partial, whole)):
        assert both.lineage == LINEAGE
        assert {c.id for c in partial.causes} - set(whole.lifted) <= {c.id for c in both.causes}


@given(ANY, ANY)
def test_cut_offs_only_grow_in_a_join(one: Record, other: Record) -> None:
    """A floor under sessions that one record knew is known after it, whoever had the higher epoch."""
    both = joined(one, other)
    floors = [found.sessions_floor for found in (one, other) if found.sessions_floor is not None]
    assert both.sessions_floor == max(floors, default=None)


@given(records(lineages=(LINEAGE, LATER_LINEAGE)), records(lineages=(LINEAGE, LATER_LINEAGE)))
def test_the_later_init_stands_alone(one: Record, other: Record) -> None:
    """A person made it to overrule; only the epoch goes on."""
    if one.lineage == other.lineage:
        return
    later = max(one, other, key=lambda found: found.lineage)
    for both in (joined(one, other), joined(other, one)):
        assert meaning(both) == meaning(later)
        assert both.epoch >= max(one.epoch, other.epoch)


@given(records(), records(lineages=(MIDDLE_LINEAGE,)))
def test_what_came_after_a_later_init_is_not_overruled_by_it(early: Record, late: Record) -> None:
    """Of the record that a person overruled only what they can't have seen is left; of theirs everything."""
    made = NOON + minutes(2)
    for both in (joined(early, late), joined(late, early)):
        younger = {key for key, one in early.lifted.items() if max(one.at, one.since or one.at) >= made}
        lifted = {*late.lifted, *younger}
        causes = {*(c.id for c in late.causes), *(c.id for c in early.causes if c.since >= made)}
        assert ({c.id for c in both.causes}, set(both.lifted)) == (causes - lifted, lifted)
        assert (both.lineage, both.windows) == (MIDDLE_LINEAGE, late.windows)
        assert (both.sessions_floor, both.protected, both.extra) == (late.sessions_floor, late.protected, late.extra)


def test_an_on_after_a_regression_outlives_the_init_that_was_lost() -> None:
    """The store went back to before the `init`; an operator closed it there; the members know of the `init`."""
    known = first_record(SITE, at=NOON, by="ann", replacing=record(cause("c0", since=NOON - minutes(9))))
    regressed = record(cause("c0", since=NOON - minutes(9)), cause("c1", since=NOON + minutes(1)), id="r9")
    both = joined(known, regressed)
    assert ([c.id for c in both.causes], both.lineage) == (["c1"], known.lineage)
    assert set(both.lifted) == {"c0"}
    assert not adds(regressed, both)
    # One that a store made by itself says nothing of when it was, and was made by nobody.
    assert joined(record(cause("c1"), lineage="0"), known).causes == (cause("c1"),)


def test_a_tombstone_that_was_dropped_for_its_age_does_not_come_back() -> None:
    """A process that runs for a year remembers it: nobody writes the same back for ever."""
    later = NOON + TOMBSTONE_AGE + minutes(9)
    known = record(lifted=(lift("c0"), lift("c1", at=later)), changed_at=later)
    store = trimmed(known, at=later)
    assert set(store.lifted) == {"c1"}
    assert not adds(known, store)
    assert join(known, store, at=later) is store
    # What else it knows it says without it.
    both = join(replace(known, causes=(cause("c9"),)), store, at=later)
    assert (set(both.lifted), [c.id for c in both.causes]) == ({"c1"}, ["c9"])
    assert both.sessions_ended_before() == NOON


def test_a_tombstone_is_kept_for_as_long_as_it_lifts_something() -> None:
    """However old it is: the cause that it meets comes from a process that stood still for longer."""
    later = NOON + TOMBSTONE_AGE + minutes(9)
    known, zombie = record(lifted=(lift("c0"),), changed_at=later), record(cause("c0"), changed_at=later, id="z")
    for both in (join(known, zombie, at=later), join(zombie, known, at=later)):
        assert (both.causes, set(both.lifted)) == ((), {"c0"})
        assert not adds(known, both)
        assert not adds(zombie, both)


@given(lifts(), lifts())
def test_two_tombstones_of_one_cause_become_one(one: Any, other: Any) -> None:
    """Lifted on two sides of a split: all agree on one, and `--undo` on either side counts."""
    one, other = replace(one, id="c1"), replace(other, id="c1")
    left, right = record(lifted=(one,)), record(lifted=(other,), id="r6")
    both = joined(left, right)
    assert meaning(both) == meaning(joined(right, left))
    assert both.lifted["c1"].undone == (one.undone or other.undone)


def test_the_lost_on_of_a_failover_comes_back() -> None:
    """Protocol C4: another operator's `on` and `off` raised the epoch past it; the members bring it back."""
    known = record(cause("c0"), epoch=6, id="mine")
    store = record(epoch=7, lifted=(lift("c1"),), id="theirs")
    both = joined(known, store)
    assert ([c.id for c in both.causes], set(both.lifted), both.epoch) == (["c0"], {"c1"}, 8)


def test_an_extension_beats_the_mark_that_ended_a_window() -> None:
    """A higher revision always wins; of one revision the ended one does."""
    extended, ended = window(end=NOON + minutes(180), revision=2), window(ended=True)
    assert joined(record(windows=(ended,)), record(windows=(extended,), id="b")).windows == (extended,)
    assert joined(record(windows=(window(),)), record(windows=(ended,), id="b")).windows == (ended,)
    assert joined(record(windows=(ended,)), record(windows=(window(),), id="b")).windows == (ended,)


def test_needs_and_unknown_fields_are_joined() -> None:
    """Nobody's are lost."""
    one = record(extra={"a": 1, "both": "old"}, epoch=5)
    other = record(cause(), extra={"b": 2, "both": "new"}, epoch=6)
    assert joined(one, other).extra == {"b": 2, "both": "new"} or joined(one, other) is other
    both = joined(other, replace(one, epoch=7, id="z"))
    assert both.extra == {"a": 1, "b": 2, "both": "old"}


# --- what a process makes of a reading -------------------------------------------------------------------------------

WRITABLE, CLOSED = record(), record(cause("c1"), epoch=6, id="r6")
LIFTED = record(lifted=(lift("c1"),), epoch=7, id="r7")


def knows(found: Record | None, *, settled: bool = True, fresh: bool = True, **rest: Any) -> Knowledge:
    """Return the knowledge of a process that read that record."""
    return Knowledge(found, dump(found) if found is not None else None, settled, fresh, **rest)


def told(known: Knowledge, stored: Record | bytes | None, *, young: bool = False) -> tuple[Knowledge, bytes | None]:
    """Let it read what the store holds."""
    raw = dump(stored) if isinstance(stored, Record) else stored
    return learn(known, raw, site=SITE, young=young, at=NOON)


def test_a_process_that_boots_takes_what_it_reads() -> None:
    """From a store that is old enough, a whole record settles it."""
    for stored in (WRITABLE, CLOSED):
        known, back = told(Knowledge(), stored)
        assert (known.record, known.raw, known.settled, back) == (stored, dump(stored), True, None)
    assert told(Knowledge(), WRITABLE)[0].may_open
    assert not told(Knowledge(), CLOSED)[0].may_open


def test_a_process_that_boots_over_nothing_knows_nothing() -> None:
    """An absent record is unknown, never writable (design rule 1)."""
    known, back = told(Knowledge(), None)
    assert (known.record, known.may_open, back) == (None, False, None)


def test_a_young_store_opens_nobody_that_boots() -> None:
    """Those who know more are let write back first; what closes is taken at once (design rule 8)."""
    known, back = told(Knowledge(), WRITABLE, young=True)
    assert (known.settled, known.may_open, back) == (False, False, None)
    assert told(Knowledge(), CLOSED, young=True)[0].record == CLOSED
    assert told(known, WRITABLE)[0].may_open


def test_what_a_young_store_said_makes_nothing_whole() -> None:
    """It may have gone back to before an `on`; lost once more, its "writable" must not come back by its readers."""
    known, _ = told(Knowledge(), WRITABLE, young=True)
    assert told(known, None) == (known, None)
    partial = without_causes(with_cause(None, cause("c9"), site=SITE, at=NOON, by="bob"), ["c9"], at=NOON, by="bob")
    after, back = told(known, partial, young=True)
    assert back is None or load(back).partial
    assert not after.may_open
    closed, _ = told(Knowledge(), CLOSED, young=True)
    back = told(closed, None)[1]
    assert back is not None
    assert load(back).partial


def test_a_young_store_does_not_shut_who_knew() -> None:
    """A restarted store that kept its record shuts nobody out."""
    assert told(knows(WRITABLE), WRITABLE, young=True)[0].may_open


def test_a_partial_record_settles_nobody() -> None:
    """It closes; a process that knows the whole makes it whole."""
    partial = with_cause(None, cause("c9"), site=SITE, at=NOON, by="bob")
    known, back = told(Knowledge(), partial)
    assert (known.settled, known.may_open, back) == (False, False, None)
    known, back = told(knows(WRITABLE), partial)
    assert known.record is not None
    assert back is not None
    assert not known.record.partial
    assert [c.id for c in load(back).causes] == ["c9"]


@pytest.mark.parametrize("known", [WRITABLE, CLOSED, LIFTED])
def test_a_lost_record_goes_back_as_it_was_byte_for_byte(known: Record) -> None:
    """Also with fields that nobody here understands."""
    raw = json.dumps({**json.loads(dump(known)), "later": [1]}, indent=3).encode()
    process, _ = told(Knowledge(), raw)
    after, back = told(process, None)
    assert back == raw
    assert after.record == process.record
    assert after.may_open == process.may_open


def test_a_lost_cause_is_joined_back_whatever_the_epoch() -> None:
    """Regressed below or risen above: the cause was not lifted."""
    for epoch in (2, 50):
        known, back = told(knows(CLOSED), record(epoch=epoch, id="x"))
        assert back is not None
        stored = load(back)
        assert ([c.id for c in stored.causes], stored.epoch) == (["c1"], max(epoch, 6) + 1)
        assert known.record == stored
        assert not known.may_open


def test_a_lifted_cause_ends() -> None:
    """That, and nothing else, opens."""
    known, back = told(knows(CLOSED), LIFTED)
    assert (known.record, back, known.may_open) == (LIFTED, None, True)


def test_a_store_that_forgot_a_lift_is_told() -> None:
    """An acknowledged `off` does not come back closed."""
    known, back = told(knows(LIFTED), CLOSED)
    assert back is not None
    assert known.may_open
    assert load(back).lifted.keys() == {"c1"}


def test_a_store_whose_epoch_fell_is_told() -> None:
    """Epochs never fall, for those who remember."""
    _, back = told(knows(record(epoch=9, id="r9")), record(epoch=4, id="r4"))
    assert back is not None
    assert load(back).epoch == 10


UNREADABLE = json.dumps({**json.loads(dump(WRITABLE)), "v": 2, "epoch": 99}).encode()


def test_a_record_of_a_newer_version_closes_and_is_never_overwritten() -> None:
    """The process keeps what it knew, refuses, and puts those very bytes back if the store loses them."""
    known, back = told(knows(WRITABLE), UNREADABLE)
    assert (known.record, known.unreadable, back) == (WRITABLE, UNREADABLE, None)
    assert not known.may_open
    assert "version 2" in known.problem
    known, back = told(known, None)
    assert (back, known.may_open) == (UNREADABLE, False)
    known, back = told(known, LIFTED)
    assert (known.record, known.unreadable, known.problem, back) == (LIFTED, None, "", None)


def test_a_corrupt_record_closes_and_is_never_overwritten() -> None:
    """Nor is it put back: nobody can read it. Knowledge is."""
    known, back = told(knows(CLOSED), b"\xff not a record")
    assert (known.record, known.unreadable, back) == (CLOSED, None, None)
    assert "corrupt" in known.problem
    known, back = told(known, None)
    assert (back, known.problem) == (dump(CLOSED), "")


def test_a_corrupt_record_tells_a_booting_process_nothing() -> None:
    """It is closed for a reason that it can name."""
    known, back = told(Knowledge(), b"{")
    assert (known.record, known.settled, known.may_open, back) == (None, False, False, None)
    assert known.problem


def test_another_sites_record_is_none_of_ours() -> None:
    """It is not taken in, not joined, not overwritten, and named."""
    known, back = told(knows(WRITABLE), record(site="blog", epoch=99, id="b"))
    assert (known.record, back) == (WRITABLE, None)
    assert "'blog'" in known.problem
    assert not known.may_open
    assert told(known, WRITABLE)[0].may_open


# --- knowledge whose time is over -----------------------------------------------------------------------------------


def test_a_lapsed_process_opens_nobody_from_memory() -> None:
    """Protocol C12: over an empty store its old "writable" is worth nothing."""
    known, back = told(lapsed(knows(WRITABLE)), None)
    assert (back, known.may_open) == (None, False)


def test_a_lapsed_process_closes_others_and_not_more() -> None:
    """Over an empty store it writes its causes, in a record that can't open (protocol 1.19)."""
    known, back = told(lapsed(knows(CLOSED)), None)
    assert back is not None
    assert load(back).partial
    assert [c.id for c in load(back).causes] == ["c1"]
    assert not known.may_open


def test_a_lapsed_process_makes_no_partial_record_whole() -> None:
    """Its lineage counts for nothing until a store that is old enough says the same."""
    partial = with_cause(None, cause("c9"), site=SITE, at=NOON, by="bob")
    known, back = told(lapsed(knows(CLOSED)), partial)
    assert known.record is not None
    assert known.record.partial
    assert back is None or load(back).partial
    assert {c.id for c in known.record.causes} == {"c1", "c9"}


def test_a_lapsed_process_keeps_its_lifts() -> None:
    """Protocol C14: else an acknowledged `off` would come back closed."""
    known, back = told(lapsed(knows(LIFTED)), CLOSED)
    assert back is not None
    assert load(back).causes == ()
    assert known.may_open


def test_a_whole_record_of_the_store_ends_the_lapse() -> None:
    """Not one of a store too young to know."""
    known, _ = told(lapsed(knows(WRITABLE)), WRITABLE, young=True)
    assert not known.may_open
    known, back = told(known, WRITABLE)
    assert (known.may_open, known.fresh, back) == (True, True, None)
    assert told(known, None)[1] == dump(WRITABLE)


def test_a_lapsed_process_is_overruled_by_init() -> None:
    """What a person reset stays reset."""
    reset = record(lineage=LATER_LINEAGE, id="new", epoch=1)
    known, _ = told(lapsed(knows(CLOSED)), reset)
    assert known.record is not None
    assert (known.record.causes, known.record.lineage) == ((), LATER_LINEAGE)


def test_what_a_host_remembers_is_worth_a_lapsed_process() -> None:
    """Its causes close; its "writable" opens nothing; its rubbish is nothing."""
    known, back = told(recalled(dump(CLOSED)), None)
    assert back is not None
    assert load(back).partial
    assert not known.may_open
    assert told(recalled(dump(WRITABLE)), None)[1] is None
    assert recalled(b"rubbish") == Knowledge(fresh=False)
    assert told(recalled(UNREADABLE), None)[1] == UNREADABLE
    assert told(recalled(dump(WRITABLE)), WRITABLE)[0].may_open


@given(ANY, st.none() | ANY, st.booleans(), st.booleans(), st.booleans())
def test_learning_never_opens_by_itself(
    mine: Record, stored: Record | None, settled: bool, fresh: bool, young: bool
) -> None:
    """Whoever may write after a reading knows of no cause that was not lifted, and has its whole record confirmed."""
    known = knows(mine, settled=settled and not mine.partial, fresh=fresh or settled)
    after, back = told(known, stored, young=young)
    if after.may_open:
        assert after.record is not None
        lifted = {*mine.lifted, *(stored.lifted if stored is not None else ())}
        standing = {*(c.id for c in mine.causes), *(c.id for c in (stored.causes if stored is not None else ()))}
        assert standing <= lifted
        assert known.settled or (stored is not None and not young and not stored.partial)
    if back is not None and load(back).mode is Mode.WRITABLE:
        assert known.settled or (stored is not None and not stored.partial)
    assert after.record is None or after.record.epoch >= mine.epoch


@given(ANY, ANY, st.booleans())
def test_a_write_back_says_all_that_both_knew(mine: Record, stored: Record, young: bool) -> None:
    """And nothing more is to be said after it."""
    known = knows(mine, settled=not mine.partial)
    after, back = told(known, stored, young=young)
    if back is None:
        assert not adds(mine, stored)
    else:
        assert load(back) == after.record
        assert told(after, back, young=young) == (after, None)
        assert not adds(mine, load(back))


# --- contradictions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "now", "closes", "expected"),
    [
        (WRITABLE, CLOSED, True, False),  # two `on`s
        (WRITABLE, CLOSED, False, True),  # `off` meets an `on`
        (CLOSED, LIFTED, True, True),  # `on` meets an `off`
        (CLOSED, LIFTED, False, False),  # two `off`s
        (CLOSED, record(cause("c1", revision=2), epoch=7), False, True),  # `off` meets a second `on`
        (None, CLOSED, False, False),
        (None, CLOSED, True, False),
        (CLOSED, None, False, False),
        (WRITABLE, WRITABLE, True, False),
    ],
)
def test_what_contradicts(base: Record | None, now: Record | None, closes: bool, expected: bool) -> None:
    """`on` against `off` from the same epoch has one winner; everything else merges."""
    assert contradicts(base, now, closes=closes) is expected


def test_what_a_member_brings_back_contradicts_nobody() -> None:
    """It was decided long before, and is no answer to what is being typed now."""
    for after, expected in ((NOON - minutes(1), True), (NOON + minutes(6), False)):
        assert contradicts(WRITABLE, CLOSED, closes=False, after=after) is expected
        assert contradicts(CLOSED, LIFTED, closes=True, after=after) is expected
    # When a cause was changed does not stand in it.
    changed = record(cause("c1", revision=2), epoch=7)
    assert contradicts(CLOSED, changed, closes=False, after=NOON + minutes(6))


def test_a_window_that_was_moved_contradicts_who_would_end_it() -> None:
    """An extension always wins; one that has ended, that was there before, or that is only planned, does not."""
    stood, moved = window(), window(end=NOON + minutes(180), revision=2)
    # By a person, for next week, or by a member that adds to what recurs.
    planned = window("w2", start=NOON + minutes(90))
    at = NOON + minutes(70)
    for now, expected in (
        (stood, False), (moved, True), (replace(moved, ended=True), False), (window("w2"), True), (planned, False),
    ):  # fmt: skip
        base = record(windows=(stood,), changed_at=at)
        assert contradicts(base, record(windows=(now,), changed_at=at), closes=False, windows=True) is expected
        assert not contradicts(base, record(windows=(now,), changed_at=at), closes=False)


def test_a_rehearsal_that_was_ended_stays_ended_and_a_later_one_stands() -> None:
    """Whoever had not heard of its end does not bring it back, nor does one from the week before."""
    going_on, over = record(rehearsal=rehearsal(revision=2)), record(rehearsal=rehearsal(ended_at=NOON + minutes(5)))
    for mine, theirs in ((going_on, over), (over, going_on)):
        found = join(mine, theirs, at=NOON + minutes(6))
        assert found.rehearsal == over.rehearsal
        assert found.needs == ()
    later = record(rehearsal=rehearsal("r2", since=NOON + minutes(30)))
    assert join(going_on, later, at=NOON).rehearsal == join(later, going_on, at=NOON).rehearsal == later.rehearsal
    assert not adds(going_on, later)
    assert adds(later, going_on)


def test_a_change_writes_down_that_a_rehearsals_time_is_up() -> None:
    """So that readers of an older version need not know of it for ever."""
    going_on = with_rehearsal(record(), rehearsal(), at=NOON, by="ann")
    assert (going_on.needs, going_on.epoch, going_on.causes) == (("rehearsal?",), 6, ())
    kept = with_cause(going_on, cause(), site=SITE, at=NOON + minutes(59), by="bob")
    assert kept.rehearsal == going_on.rehearsal
    closed = with_cause(going_on, cause(), site=SITE, at=NOON + minutes(61), by="bob")
    assert closed.rehearsal == replace(rehearsal(), ended_at=NOON + minutes(60))
    assert closed.needs == ()


def test_a_greater_lineage_knows_no_rehearsal() -> None:
    """Who typed `init` begins anew."""
    anew = first_record(SITE, at=NOON + minutes(1), by="ann", replacing=record(rehearsal=rehearsal()))
    assert (anew.rehearsal, anew.needs) == (None, ())
    assert join(record(rehearsal=rehearsal()), anew, at=NOON + minutes(2)).rehearsal is None
