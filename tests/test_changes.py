"""Changing the record while others change it: what merges, what has one winner, and what is refused."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from readonly.changes import (
    TRIES,
    UNDO_GRACE,
    Operator,
    _operator,
    initialise,
    lift_exactly,
    read_in,
    survey,
    turn_off,
    turn_on,
)
from readonly.errors import ConfigurationError, LostRace, NoRecord, NotYours, StoreUnreachable, UnreadableRecord
from readonly.record import BLOCK, FENCE, LOCAL, RUN, Mode, Record
from readonly.record_format import dump, load
from readonly.state import State
from readonly.stores import Reading
from readonly.stores.memory import MemoryStore
from support.records import LINEAGE, cause, lift, minutes, record, window

ANN, BOB = Operator("ann", "desk-1"), Operator("bob", "desk-2")


class SetClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 5, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def boottime(self) -> float:
        return self.moment.timestamp()

    def advance(self, by: timedelta) -> None:
        self.moment += by


class Meddled(MemoryStore):
    """A store to which somebody else is faster: between our reading and our writing."""

    def __init__(self, clock: SetClock | None = None) -> None:
        super().__init__(site="shop", clock=clock)
        self.others: list[Callable[[MemoryStore], object]] = []
        self.tried = 0

    def replace(self, record: bytes, *, was: bytes | None, causes: Sequence[str] = ()) -> Reading:
        self.tried += 1
        if self.others:
            self.others.pop(0)(self.peer())
        return super().replace(record, was=was, causes=causes)

    def holds(self, found: Record | bytes | None) -> Meddled:
        """Put a record there, whatever stands."""
        raw = dump(found) if isinstance(found, Record) else found
        self._memory.record = raw
        return self

    @property
    def stored(self) -> Record:
        """The record that stands."""
        raw = self.read().record
        assert raw is not None
        return load(raw)

    @property
    def standing(self) -> list[str]:
        """Who keeps it closed."""
        return [c.by for c in self.stored.causes]


@pytest.fixture
def clock() -> SetClock:
    """Noon."""
    return SetClock()


@pytest.fixture
def store(clock: SetClock) -> Meddled:
    """One that is writable."""
    return Meddled(clock)


# --- alone -----------------------------------------------------------------------------------------------------------


def test_on_sets_a_cause_and_off_lifts_it(store: Meddled, clock: SetClock) -> None:
    """The whole of it, once; what was said is stored, and the proof is the store's own answer."""
    done = turn_on(store, ANN, reason="disk", message="Back soon", expected=timedelta(hours=1), sessions="keep")
    (found,) = store.stored.causes
    assert done.causes == (found.id,)
    assert done.changed
    assert (done.record, done.reading.record) == (store.stored, dump(store.stored))
    assert (found.kind, found.by, found.host, found.since) == ("operator", "ann", "desk-1", clock.now())
    assert (found.reason, found.message, found.sessions) == ("disk", "Back soon", "keep")
    assert found.expected_end == clock.now() + timedelta(hours=1)
    assert store.census().reading.here_since.keys() == {found.id}
    off = turn_off(store, ANN)
    assert (off.causes, off.changed, store.stored.mode) == ((found.id,), True, Mode.WRITABLE)
    assert store.stored.epoch == 3
    assert store.stored.changed_by == "ann"


def test_a_second_on_by_the_same_person_updates_theirs(store: Meddled, clock: SetClock) -> None:
    """What is said anew replaces what was said; the rest, and the start, stay."""
    first = turn_on(store, ANN, reason="disk", message="Back soon", expected=minutes(10))
    clock.advance(minutes(5))
    second = turn_on(store, replace(ANN, host="desk-9"), reason="network", expected=minutes(30))
    (found,) = store.stored.causes
    assert second.causes == first.causes
    assert (found.reason, found.message, found.host, found.revision) == ("network", "Back soon", "desk-9", 2)
    assert (found.since, found.expected_end) == (clock.now() - minutes(5), clock.now() + minutes(30))


def test_an_on_that_says_nothing_new_changes_nothing(store: Meddled) -> None:
    """No epoch is spent; the cause is named all the same, so that it can be waited for."""
    first = turn_on(store, ANN)
    second = turn_on(store, ANN)
    assert (second.changed, second.causes, second.record.epoch) == (False, first.causes, first.record.epoch)
    assert store.tried == 1


def test_two_people_have_two_causes(store: Meddled) -> None:
    """Each lifts their own; the site opens with the last."""
    turn_on(store, ANN)
    turn_on(store, BOB)
    assert store.standing == ["ann", "bob"] or store.standing == ["bob", "ann"]
    turn_off(store, ANN)
    assert store.standing == ["bob"]
    assert turn_off(store, BOB).record.mode is Mode.WRITABLE


def test_on_over_nothing_is_accepted_and_off_is_not(store: Meddled) -> None:
    """It closes; lifting waits for somebody who knew the whole."""
    store.holds(None)
    done = turn_on(store, ANN)
    assert store.stored.partial
    for operator in (ANN, BOB):
        with pytest.raises(NoRecord, match="init shop"):
            turn_off(store, operator, every=operator is BOB)
    assert store.stored.causes[0].id == done.causes[0]


def test_off_over_nothing_is_refused(store: Meddled) -> None:
    """Nothing is written (design rule 5)."""
    store.holds(None)
    with pytest.raises(NoRecord):
        turn_off(store, ANN)
    with pytest.raises(NoRecord):
        lift_exactly(store, ANN, "c1")
    assert store.read().record is None


def test_off_of_a_writable_site_changes_nothing(store: Meddled) -> None:
    """It was so before."""
    off = turn_off(store, ANN)
    assert (off.changed, off.causes, store.tried) == (False, (), 0)


# --- others' causes --------------------------------------------------------------------------------------------------


def test_others_causes_are_not_lifted_by_accident(store: Meddled) -> None:
    """Who keeps it closed, and why, is said; nothing was changed."""
    turn_on(store, ANN, reason="migration")
    before = store.read().record
    with pytest.raises(NotYours, match=r"operator c\w+ by ann .*migration.*Nothing was changed") as refused:
        turn_off(store, BOB)
    assert refused.value.causes == tuple(c.id for c in store.stored.causes)
    assert store.read().record == before


def test_a_cause_that_is_named_is_lifted_whosever_it_is(store: Meddled) -> None:
    """That is what --cause is for; one that was lifted already is no error, one that never was is."""
    (found,) = turn_on(store, ANN).causes
    assert turn_off(store, BOB, cause=found).causes == (found,)
    again = turn_off(store, BOB, cause=found)
    assert (again.changed, again.causes) == (False, ())
    with pytest.raises(NotYours, match="no cause c404"):
        turn_off(store, BOB, cause="c404")


@pytest.mark.parametrize("kind", [FENCE, LOCAL])
def test_what_is_at_work_is_not_lifted_from_here(store: Meddled, kind: str) -> None:
    """Not by name, not by --all, not by its owner."""
    store.holds(record(cause("x", kind=kind)))
    with pytest.raises(NotYours):
        turn_off(store, ANN, cause="x")
    if kind == FENCE:
        # `off` has tried at the database before: what is left is no other person's, and still closes the site.
        assert not turn_off(store, ANN).changed
    else:
        with pytest.raises(NotYours):
            turn_off(store, ANN)
    assert not turn_off(store, ANN, every=True).changed
    assert store.stored.cause("x") is not None


def test_all_is_what_operators_have_set(store: Meddled) -> None:
    """Never a run, a fence, a block or a local cause."""
    kinds = [RUN, FENCE, BLOCK, LOCAL]
    store.holds(record(cause("a"), cause("b", by="bob"), *(cause(kind, kind=kind) for kind in kinds)))
    done = turn_off(store, Operator("carl", "x"), every=True)
    assert set(done.causes) == {"a", "b"}
    assert {c.id for c in store.stored.causes} == set(kinds)


def test_all_ends_a_window_in_force(store: Meddled, clock: SetClock) -> None:
    """It is what keeps the site closed; one that has not begun stays as it is planned."""
    begun, planned = (
        window(key, start=clock.now() + minutes(since), end=clock.now() + minutes(90))
        for key, since in (("w1", -5), ("w2", 60))
    )
    store.holds(record(cause("a"), windows=(begun, planned)))
    done = turn_off(store, Operator("carl", "x"), every=True)
    assert done.causes == ("a", "w1")
    assert [(w.id, w.ended) for w in store.stored.windows] == [("w1", True), ("w2", False)]
    assert not State.at(clock.now(), store.stored).read_only
    again = turn_off(store, ANN, every=True)
    assert (again.changed, again.causes) == (False, ())


def test_a_window_in_force_is_named_like_a_cause(store: Meddled, clock: SetClock) -> None:
    """As `status` shows it; within the grace it is taken back; `off` alone is for whoever planned it."""
    begun = window(start=clock.now() - timedelta(seconds=5), end=clock.now() + minutes(90))
    store.holds(record(windows=(begun, window("w2", start=clock.now() + minutes(60)))))
    with pytest.raises(NotYours, match=r"because of others, not you .bob.: window w1 by ann"):
        turn_off(store, BOB)
    with pytest.raises(NotYours, match=r"w2 has not begun, .* schedule cancel w2"):
        turn_off(store, BOB, cause="w2")
    with pytest.raises(NotYours, match=r"no cause w3; standing: w1"):
        turn_off(store, BOB, cause="w3")
    assert turn_off(store, BOB, cause="w1", undo=True).causes == ("w1",)
    assert State.at(clock.now(), store.stored).sessions_ended_before("end") is None
    assert not turn_off(store, BOB, cause="w1").changed


def test_off_ends_the_occurrence_of_whoever_planned_it(store: Meddled, clock: SetClock) -> None:
    """Beside one's own cause; and it does not begin again."""
    begun = window(start=clock.now() - minutes(5), end=clock.now() + minutes(90))
    store.holds(record(cause("a"), windows=(begun, window("w2", start=clock.now() + minutes(60)))))
    assert turn_off(store, ANN).causes == ("a", "w1")
    assert not State.at(clock.now() + minutes(1), store.stored).read_only
    assert [(w.id, w.ended) for w in store.stored.windows] == [("w1", True), ("w2", False)]


def test_an_extension_wins_against_the_end_of_a_window(store: Meddled, clock: SetClock) -> None:
    """Whoever types `off --all` has not seen it."""
    begun = window(start=clock.now() - minutes(5), end=clock.now() + minutes(5))
    store.holds(record(windows=(begun,)))
    longer = replace(begun, end=clock.now() + minutes(90), revision=2)
    store.others = [lambda other: store.holds(record(windows=(longer,), epoch=6, id="r6"))]
    with pytest.raises(LostRace, match="set w1"):
        turn_off(store, ANN, every=True)
    assert store.stored.windows == (longer,)


def test_ones_own_run_is_no_operators_cause(store: Meddled) -> None:
    """`off` lifts what `on` has set, not what the same person's run holds."""
    store.holds(record(cause("x", kind=RUN)))
    with pytest.raises(NotYours):
        turn_off(store, ANN)


# --- taking back a slip ----------------------------------------------------------------------------------------------


def test_a_slip_is_taken_back_with_its_cut_off(store: Meddled, clock: SetClock) -> None:
    """Within the grace, that moment included."""
    turn_on(store, ANN)
    clock.advance(UNDO_GRACE)
    assert turn_off(store, ANN, undo=True).record.sessions_ended_before() is None


def test_later_sessions_cannot_be_given_back(store: Meddled, clock: SetClock) -> None:
    """Cookies may have been expired by then: nothing is changed, and `off` without it is named."""
    turn_on(store, ANN)
    clock.advance(UNDO_GRACE + timedelta(seconds=1))
    with pytest.raises(NotYours, match="without --undo"):
        turn_off(store, ANN, undo=True)
    assert store.standing == ["ann"]
    assert turn_off(store, ANN).record.sessions_ended_before() is not None


def test_undo_of_all_needs_all_to_be_fresh(store: Meddled, clock: SetClock) -> None:
    """One that is too old keeps the others' sessions ended, too: nothing is changed."""
    turn_on(store, ANN)
    clock.advance(UNDO_GRACE * 2)
    turn_on(store, BOB)
    with pytest.raises(NotYours):
        turn_off(store, BOB, every=True, undo=True)
    assert len(store.standing) == 2


# --- races -----------------------------------------------------------------------------------------------------------


def test_two_ons_at_once_both_stand(store: Meddled) -> None:
    """Merged by reading again."""
    store.others = [lambda other: turn_on(other, BOB)]
    turn_on(store, ANN)
    assert sorted(store.standing) == ["ann", "bob"]
    assert (store.tried, store.stored.epoch) == (2, 3)


def test_on_goes_on_when_a_member_brings_an_old_off_back(store: Meddled, clock: SetClock) -> None:
    """The store had lost it in a failover: nobody has switched off just now, and nobody loses."""
    known = record(lifted=(lift("c0", at=clock.now() - minutes(30), since=clock.now() - minutes(60)),), id="r6")
    store.holds(record(cause("c0", since=clock.now() - minutes(60))))
    store.others = [lambda other: survey(other, known)]
    assert turn_on(store, ANN).changed
    assert (store.tried, store.standing) == (2, ["ann"])


def test_off_goes_on_when_a_member_brings_an_old_on_back(store: Meddled, clock: SetClock) -> None:
    """It lifts what is one's own; and lifts nothing that nobody had seen when it was typed."""
    old = cause("c9", by="bob", since=clock.now() - minutes(30))
    for every in (False, True):
        mine = cause("c1", since=clock.now() - minutes(5))
        store.holds(record(mine))
        store.others = [lambda other: survey(other, record(old, id="r6"))]
        if every:
            with pytest.raises(LostRace, match="bob was faster and set c9"):
                turn_off(store, ANN, every=True)
            continue
        assert turn_off(store, ANN).causes == ("c1",)
        assert store.standing == ["bob"]


def test_two_offs_at_once_both_count(store: Meddled) -> None:
    """Each lifts their own."""
    turn_on(store, ANN)
    turn_on(store, BOB)
    store.others = [lambda other: turn_off(other, BOB)]
    turn_off(store, ANN)
    assert store.stored.mode is Mode.WRITABLE


def test_off_against_on_from_one_epoch_has_one_winner(store: Meddled) -> None:
    """The first stands; the other changes nothing and names who was faster."""
    (mine,) = turn_on(store, ANN).causes
    store.others = [lambda other: turn_on(other, BOB)]
    with pytest.raises(LostRace, match=r"bob was faster.*nothing of yours") as lost:
        turn_off(store, ANN)
    assert (lost.value.by, lost.value.epoch) == ("bob", store.stored.epoch)
    assert store.stored.cause(mine) is not None
    assert turn_off(store, ANN).causes == (mine,)


def test_on_against_off_from_one_epoch_has_one_winner(store: Meddled) -> None:
    """And the site is open, as the first one wanted it."""
    turn_on(store, BOB)
    store.others = [lambda other: turn_off(other, BOB)]
    with pytest.raises(LostRace) as lost:
        turn_on(store, ANN)
    assert (lost.value.by, store.stored.mode) == ("bob", Mode.WRITABLE)


def test_off_against_an_extension_has_one_winner(store: Meddled) -> None:
    """The same person at two desks: who says "longer" is not overruled by who did not see it."""
    turn_on(store, ANN)
    store.others = [lambda other: turn_on(other, ANN, expected=minutes(99))]
    with pytest.raises(LostRace):
        turn_off(store, ANN)
    assert store.standing == ["ann"]


def test_all_against_on_has_one_winner(store: Meddled) -> None:
    """What nobody had seen when it was typed is not lifted by --all."""
    turn_on(store, ANN)
    store.others = [lambda other: turn_on(other, BOB)]
    with pytest.raises(LostRace):
        turn_off(store, ANN, every=True)
    assert len(store.standing) == 2


def test_a_cause_lifted_twice_at_once_is_lifted(store: Meddled) -> None:
    """The second finds nothing left to do."""
    (mine,) = turn_on(store, ANN).causes
    store.others = [lambda other: turn_off(other, BOB, cause=mine)]
    done = turn_off(store, ANN)
    assert (done.changed, store.stored.mode) == (False, Mode.WRITABLE)


def test_a_record_that_is_lost_while_it_is_changed(store: Meddled) -> None:
    """`on` closes what is there now: nothing; `off` finds nothing to open."""
    store.others = [lambda other: other.lose()]
    assert turn_on(store, ANN).record.partial
    store.holds(record(cause("c1")))
    store.others = [lambda other: other.lose()]
    with pytest.raises(NoRecord):
        turn_off(store, ANN)
    assert store.read().record is None


def test_a_record_that_never_stands_still_is_given_up(store: Meddled) -> None:
    """Bounded: something else is wrong then."""
    store.others = [lambda other, n=n: turn_on(other, Operator(f"p{n}", "x")) for n in range(TRIES)]  # type: ignore[misc]
    with pytest.raises(LostRace, match=f"{TRIES} times"):
        turn_on(store, ANN)
    assert "ann" not in store.standing


def test_a_block_ends_whatever_others_do_meanwhile(store: Meddled) -> None:
    """Giving up one's own cause contradicts nobody: it must not stay for ever because another closed as well."""
    (mine,) = turn_on(store, ANN, kind=BLOCK).causes
    store.others = [
        lambda other: turn_on(other, BOB),
        lambda other: turn_off(other, BOB),
        lambda other: turn_on(other, BOB),
    ]
    assert lift_exactly(store, ANN, mine).changed
    assert store.standing == ["bob"]
    assert not lift_exactly(store, ANN, mine).changed


def test_two_blocks_of_one_process_are_two_causes(store: Meddled) -> None:
    """They nest, and do not touch what the same person typed."""
    turn_on(store, ANN)
    turn_on(store, ANN, kind=BLOCK)
    turn_on(store, ANN, kind=BLOCK)
    assert len(store.stored.causes) == 3
    turn_off(store, ANN)
    assert [c.kind for c in store.stored.causes] == [BLOCK, BLOCK]


def test_a_store_that_does_not_answer_says_so(store: Meddled) -> None:
    """Nothing is retried: the call may still take effect."""
    store.break_()
    for change in (turn_on, turn_off, initialise):
        with pytest.raises(StoreUnreachable):
            change(store, ANN)


# --- what is said must make sense ------------------------------------------------------------------------------------


def test_a_word_that_nobody_could_read_is_not_stored(store: Meddled) -> None:
    """It would make the record unreadable for every process, and `off` impossible."""
    with pytest.raises(ConfigurationError, match="sessions="):
        turn_on(store, ANN, sessions="frozen")
    assert store.stored.epoch == 1


@pytest.mark.parametrize("expected", [timedelta.max, timedelta(0), timedelta(seconds=-1)])
def test_a_duration_that_makes_no_sense_is_named(store: Meddled, expected: timedelta) -> None:
    """Before anything is changed."""
    with pytest.raises(ConfigurationError, match="expected="):
        turn_on(store, ANN, expected=expected)
    assert store.stored.epoch == 1


def test_another_sites_store_is_refused(store: Meddled) -> None:
    """By all changes, by name."""
    store.holds(record(site="blog"))
    for change in (turn_on, turn_off, initialise):
        with pytest.raises(ConfigurationError, match="'blog', not of 'shop'"):
            change(store, ANN)
    with pytest.raises(ConfigurationError):
        read_in(store, store.read())


@pytest.mark.parametrize("raw", [b"rubbish", dump(record()).replace(b'"v":1', b'"v":2')])
def test_a_record_that_cannot_be_read_is_never_overwritten(store: Meddled, raw: bytes) -> None:
    """Whoever asks."""
    store.holds(raw)
    for change in (turn_on, turn_off, initialise):
        with pytest.raises(UnreadableRecord):
            change(store, ANN)
    with pytest.raises(UnreadableRecord):
        survey(store, record(cause("c1")))
    assert store.read().record == raw


# --- init ------------------------------------------------------------------------------------------------------------


def test_init_makes_the_first_record(store: Meddled) -> None:
    """Writable, epoch 1, protected if so wanted."""
    store.holds(None)
    made = initialise(store, ANN, protected=True).record
    assert (made.epoch, made.mode, made.protected, made.changed_by) == (1, Mode.WRITABLE, True, "ann")
    assert made == store.stored


def test_init_refuses_where_there_is_a_record(store: Meddled) -> None:
    """It changes nothing and says how to start anew."""
    turn_on(store, BOB)
    before = store.read().record
    with pytest.raises(NotYours, match="--replace"):
        initialise(store, ANN)
    assert store.read().record == before


def test_init_that_replaces_lifts_what_it_saw(store: Meddled) -> None:
    """With the epoch going on, and the cut-offs kept."""
    turn_on(store, BOB)
    old = store.stored
    made = initialise(store, ANN, replace_existing=True).record
    assert (made.mode, made.epoch > old.epoch, made.lineage > old.lineage) == (Mode.WRITABLE, True, True)
    assert made.sessions_ended_before() == old.causes[0].since


def test_init_never_replaces_what_it_did_not_see(store: Meddled) -> None:
    """Somebody closes the site in that moment: they win."""
    store.others = [lambda other: turn_on(other, BOB)]
    with pytest.raises(LostRace):
        initialise(store, ANN, replace_existing=True)
    assert store.standing == ["bob"]


def test_of_two_inits_over_nothing_one_is_refused(store: Meddled) -> None:
    """The first stands."""
    store.holds(None)
    store.others = [lambda other: initialise(other, BOB)]
    with pytest.raises(NotYours):
        initialise(store, ANN)
    assert store.stored.changed_by == "bob"


@pytest.mark.parametrize("beforehand", [True, False])
def test_init_keeps_an_on_over_the_empty_store(store: Meddled, beforehand: bool) -> None:
    """Making the record whole opens nothing by itself, windows included."""
    store.holds(None)
    if beforehand:
        turn_on(store, BOB)
    else:
        store.others = [lambda other: turn_on(other, BOB)]
    made = initialise(store, ANN).record
    assert not made.partial
    assert [c.by for c in made.causes] == ["bob"]
    assert turn_off(store, BOB).record.mode is Mode.WRITABLE


def test_init_keeps_a_window_that_a_member_wrote_back(store: Meddled, clock: SetClock) -> None:
    """A window in force is a reason to be read-only like any other."""
    begun = window(start=clock.now() - minutes(5), end=clock.now() + minutes(5))
    store.holds(record(cause("c1", by="bob"), windows=(begun,), lineage=""))
    made = initialise(store, ANN).record
    assert made.windows == (begun,)
    turn_off(store, BOB)
    assert State.at(clock.now(), store.stored).read_only


def test_init_replaces_rubbish_if_told_so(store: Meddled) -> None:
    """The one way out; a newer version's record is not rubbish."""
    store.holds(b"rubbish")
    assert initialise(store, ANN, replace_existing=True).record.mode is Mode.WRITABLE
    newer = dump(record()).replace(b'"v":1', b'"v":2')
    store.holds(newer)
    with pytest.raises(UnreadableRecord):
        initialise(store, ANN, replace_existing=True)
    assert store.read().record == newer


def test_sessions_can_be_ended_by_init(store: Meddled, clock: SetClock) -> None:
    """After a total loss the old cut-off is unknown."""
    store.holds(None)
    assert initialise(store, ANN, end_sessions=True).record.sessions_ended_before() == clock.now()


# --- a look that remembers -------------------------------------------------------------------------------------------


def test_a_look_puts_back_what_the_store_has_lost(store: Meddled) -> None:
    """The waiting command is a member of the memory (design rule 12)."""
    done = turn_on(store, ANN)
    store.lose()
    found, census = survey(store, done.record)
    assert found is not None
    assert found.cause(done.causes[0]) is not None
    assert census.reading.record == store.read().record
    assert census.reading.here_since.keys() == set(done.causes)


def test_a_look_joins_and_never_overrules(store: Meddled) -> None:
    """A store that went back gets the cause again; what others did meanwhile stays."""
    before = store.read().record
    done = turn_on(store, ANN)
    store.holds(before)
    turn_on(store, BOB)
    store.others = [lambda other: turn_on(other, Operator("carl", "x"))]
    found, _ = survey(store, done.record)
    assert found is not None
    assert {c.by for c in found.causes} == {"ann", "bob", "carl"}


def test_a_look_does_not_bring_back_what_was_lifted(store: Meddled) -> None:
    """By anybody, meanwhile."""
    done = turn_on(store, ANN)
    turn_off(store, BOB, cause=done.causes[0])
    tried = store.tried
    found, _ = survey(store, done.record)
    assert found is not None
    assert (found.causes, store.tried) == ((), tried)


def test_a_look_writes_no_writable_record(store: Meddled) -> None:
    """That is for members whose knowledge is fresh (design rule 4)."""
    known = store.stored
    store.lose()
    assert survey(store, known)[0] is None
    assert store.read().record is None


def test_a_look_without_knowledge_only_looks(store: Meddled) -> None:
    """Reading changes nothing, ever."""
    turn_on(store, ANN)
    before, tried = store.read().record, store.tried
    found, census = survey(store, None)
    assert found == store.stored
    assert (census.reading.record, store.read().record, store.tried) == (before, before, tried)


def test_a_look_leaves_another_sites_record_alone(store: Meddled) -> None:
    """Whoever pointed it there."""
    store.holds(record(site="blog", lineage=LINEAGE))
    found, _ = survey(store, record(cause("c1")))
    assert found is not None
    assert (found.site, store.tried) == ("blog", 0)


# --- who is at work --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "environ", "name"),
    [
        ("dora", {"READONLY_OPERATOR": "x", "SUDO_USER": "y"}, "dora"),
        (None, {"READONLY_OPERATOR": "x", "SUDO_USER": "y"}, "x"),
        (None, {"SUDO_USER": "y"}, "y"),
    ],
)
def test_a_person_is_one_wherever_they_sit(named: str | None, environ: dict[str, str], name: str) -> None:
    """What was named, READONLY_OPERATOR, who called sudo."""
    assert Operator.here(named, environ).name == name


def test_a_bare_system_user_belongs_to_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines' root may be two people; a user id without a name has one all the same."""
    monkeypatch.setattr(getpass, "getuser", lambda: "root")
    monkeypatch.setattr(_operator, "host_name", lambda: "web-1")
    assert Operator.here(None, {}) == Operator("root@web-1", "web-1")

    def unknown() -> str:
        raise KeyError

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert Operator.here(None, {}).name.startswith("uid-")
