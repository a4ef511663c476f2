"""What is stored: read back as it was, kept where it is not understood, never writable when it can't be read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from readonly.errors import UnreadableRecord
from readonly.record import Mode, Record, new_cause_id, new_id, ordered
from readonly.record_format import VERSION, dump, load
from readonly.state import State
from readonly.transitions import join, with_cause, without_causes
from support.records import LINEAGE, NOON, PLAIN, cause, lift, minutes, record, records, rehearsal, window


def document(found: Record) -> dict[str, Any]:
    """Return a record as the JSON that stands in the store."""
    made: dict[str, Any] = json.loads(dump(found))
    return made


def stored(**changed: Any) -> bytes:
    """Return a valid record with some fields of its JSON changed."""
    whole = record(cause(), lifted=(lift("c2"),), windows=(window(),))
    return json.dumps({**document(whole), **changed}).encode()


# --- round trip ------------------------------------------------------------------------------------------------------


@given(records(lineages=("", LINEAGE)))
def test_what_is_dumped_is_loaded_again(found: Record) -> None:
    """Every record survives the store, and its bytes do not depend on who wrote them."""
    raw = dump(found)
    assert load(raw) == found
    assert dump(load(raw)) == raw


def test_the_places_that_every_version_reads_stay() -> None:
    """`v`, `epoch`, `id` and `mode` stay where they are for ever; people read the cut-off beside them."""
    shown = document(record(cause(sessions="end")))
    assert (shown["v"], shown["epoch"], shown["id"], shown["mode"]) == (VERSION, 5, "r5", "read-only")
    assert shown["sessions_ended_before"] == "2026-05-01T12:00:00.000000Z"
    assert document(record())["mode"] == "writable"
    assert document(record(lineage=""))["mode"] == "read-only"


def test_instants_are_stored_in_utc_whatever_zone_they_came_in() -> None:
    """Two processes in two zones write the same bytes."""
    there = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert dump(record(cause(since=there))) == dump(record(cause(since=NOON)))


def test_a_record_of_the_smallest_kind_is_read() -> None:
    """What later versions may leave out has a meaning when it is missing; a lineage that is missing closes."""
    raw = b'{"v":1,"site":"shop","epoch":1,"id":"r","changed_at":"2026-05-01T12:00:00Z","causes":[],"lifted":{}}'
    found = load(raw)
    assert (found.site, found.epoch, found.windows, found.needs) == ("shop", 1, (), ())
    assert found.partial
    assert found.mode is Mode.READ_ONLY


def test_ids_are_random_and_a_cause_is_typed_easily() -> None:
    """Ids never come twice; a cause's is short, and begins with a letter so that no shell takes it for a number."""
    assert len({new_id() for _ in range(100)} | {new_cause_id() for _ in range(100)}) == 200
    assert len(new_cause_id()) == 9
    assert new_cause_id().startswith("c")


# --- what newer versions wrote ---------------------------------------------------------------------------------------


def test_unknown_fields_are_kept_at_every_level_through_every_change() -> None:
    """A newer version's fields outlive an older one's `on`, `off` and join."""
    raw = json.loads(stored())
    for place in (raw, raw["causes"][0], raw["lifted"]["c2"], raw["windows"][0]):
        place["later"] = {"deep": [1, None, "ä"]}
    found = load(json.dumps(raw).encode())
    changed = with_cause(found, cause("c3"), site="shop", at=NOON, by="bob")
    changed = without_causes(changed, ["c3"], at=NOON, by="bob")
    changed = join(changed, record(cause("c9"), epoch=7), at=NOON)
    again = json.loads(dump(changed))
    (old,) = (one for one in again["causes"] if one["id"] == "c1")
    for place in (again, old, again["lifted"]["c2"], again["windows"][0]):
        assert place["later"] == {"deep": [1, None, "ä"]}


def test_an_unknown_field_never_hides_a_known_one() -> None:
    """What we write of our own fields wins over a copy that came along as unknown."""
    assert document(record(extra={"epoch": 99, "mode": "writable", "later": 1}))["epoch"] == 5


def test_a_higher_version_is_told_from_a_corrupt_record() -> None:
    """Its epoch is known, the message says what to do, and nobody may take it for rubbish."""
    with pytest.raises(UnreadableRecord, match=r"version 2.*upgrade readonly-mode") as found:
        load(stored(v=2, causes="who knows", epoch=77))
    assert (found.value.epoch, found.value.corrupt) == (77, False)


@pytest.mark.parametrize("needs", [["windows-by-moon"], ["a", "b"], "x", {"a": 1}, [None]])
def test_a_need_that_is_not_known_makes_a_record_unreadable(needs: object) -> None:
    """A reader that lacks a feature must not guess."""
    with pytest.raises(UnreadableRecord, match="needs"):
        load(stored(needs=needs))


def test_who_does_not_know_a_need_that_may_be_done_without_goes_on_and_says_so() -> None:
    """It keeps nobody from writing: an old process that refused for its sake would be worse than one that can't."""
    found = load(stored(needs=["by-moonlight?"]))
    assert (found.lacks, found.needs) == (("by-moonlight",), ("by-moonlight?",))
    assert document(found)["needs"] == ["by-moonlight?"], "it is kept for those who know it"


def test_a_rehearsal_is_needed_to_be_known_while_it_goes_on() -> None:
    """And no longer: who rolls back to an older version the day after meets nothing that it does not know."""
    going_on = record(rehearsal=rehearsal())
    assert (going_on.needs, going_on.lacks, going_on.mode) == (("rehearsal?",), (), "writable")
    assert load(dump(going_on)) == going_on
    over = record(rehearsal=rehearsal(ended_at=NOON), needs=("rehearsal?", "later?"))
    assert (over.needs, over.lacks) == (("later?",), ("later",))


# --- what nobody can read --------------------------------------------------------------------------------------------

HUGE = "9" * 5000

BROKEN = [
    b"",
    b"{}",
    b"null",
    b"[]",
    b"1",
    b'"x"',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"v":1}',
    b'{"v":' + HUGE.encode() + b"}",
    stored(v=0),
    stored(v=True),
    stored(v="1"),
    stored(epoch=-1),
    stored(epoch=1.5),
    stored(epoch=True),
    stored(epoch="5"),
    stored(epoch=None),
    stored(site=None),
    stored(site=5),
    stored(id=None),
    stored(lineage=5),
    stored(changed_at="2026-05-01T12:00:00"),
    stored(changed_at="yesterday"),
    stored(changed_at=5),
    stored(changed_at="0001-01-01T00:00:00+14:00"),
    stored(changed_at="9999-12-31T23:59:59-14:00"),
    stored(causes=None),
    stored(causes={}),
    stored(causes=[{}]),
    stored(causes=["c1"]),
    stored(causes=[None]),
    stored(lifted=[]),
    stored(lifted={"c1": None}),
    stored(lifted={"c1": {}}),
    stored(windows=None),
    stored(windows=[{"id": "w"}]),
    stored(sessions_floor="2026-05-01"),
]


@pytest.mark.parametrize("raw", BROKEN, ids=lambda raw: repr(raw[:40]))
def test_a_corrupt_record_raises_one_error_and_no_other(raw: bytes) -> None:
    """Whatever stands there, the caller has one case to handle; the message shows a little of it, never all."""
    with pytest.raises(UnreadableRecord) as found:
        load(raw)
    assert found.value.corrupt
    assert len(str(found.value)) < 1000


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "NaN", "1e999"])
@pytest.mark.parametrize("key", ["epoch", "revision"])
def test_numbers_that_are_none_are_corrupt(key: str, value: str) -> None:
    """JSON as Python reads it knows infinity; no counter does."""
    raw = json.dumps({**document(record(cause())), "causes": [{**document(record(cause()))["causes"][0], key: 0}]})
    with pytest.raises(UnreadableRecord):
        load(raw.replace(f'"{key}": 0', f'"{key}": {value}').encode())


@pytest.mark.parametrize("place", ["causes", "lifted", "windows"])
def test_a_word_about_sessions_that_is_not_known_is_not_guessed(place: str) -> None:
    """A request must never meet a word that it can't rank: such a record is unreadable, and so closed."""
    raw = document(record(cause(), lifted=(lift("c2"),), windows=(window(),)))
    (raw["lifted"]["c2"] if place == "lifted" else raw[place][0])["sessions"] = "freeze"
    with pytest.raises(UnreadableRecord):
        load(json.dumps(raw).encode())


@pytest.mark.parametrize(
    "flag",
    [
        '{"v":1,"site":"s","epoch":1,"id":"r","lineage":"x","changed_at":"2026-05-01T12:00:00Z","causes":[],"lifted":{},"protected":"false"}',
        '{"v":1,"site":"s","epoch":1,"id":"r","lineage":"x","changed_at":"2026-05-01T12:00:00Z","causes":[],"lifted":{},"windows":[{"id":"w","start":"2026-05-01T12:00:00Z","end":"2026-05-01T13:00:00Z","ended":"false"}]}',
        '{"v":1,"site":"s","epoch":1,"id":"r","lineage":"x","changed_at":"2026-05-01T12:00:00Z","causes":[],"lifted":{"c":{"at":"2026-05-01T12:00:00Z","undone":"no"}}}',
    ],
)
def test_a_truth_value_that_is_a_word_is_corrupt(flag: str) -> None:
    """The word "false" is a true string: taken for true it would open a window that has not ended."""
    with pytest.raises(UnreadableRecord):
        load(flag.encode())


@given(st.binary(max_size=200))
def test_random_bytes_are_no_record(raw: bytes) -> None:
    """Bytes that nobody wrote raise the one error."""
    with pytest.raises(UnreadableRecord):
        load(raw)


FIELDS = st.sampled_from(sorted(document(record())))


@given(st.dictionaries(FIELDS | st.text(max_size=3), PLAIN | st.floats(), max_size=12))
@example({"v": 1, "causes": [], "lifted": {}, "epoch": 1, "id": "", "site": "", "changed_at": "0001-01-01T00:00+01:00"})
def test_random_json_is_a_record_or_the_one_error(made: dict[str, Any]) -> None:
    """JSON with our field names and anything in them never crashes otherwise."""
    try:
        found = load(json.dumps(made).encode())
    except UnreadableRecord:
        return
    assert load(dump(found)) == found


def _paths(value: object, at: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    found = [at] if at else []
    if isinstance(value, dict):
        return found + [path for key, inner in value.items() for path in _paths(inner, (*at, key))]
    if isinstance(value, list):
        return found + [path for index, inner in enumerate(value) for path in _paths(inner, (*at, index))]
    return found


@given(data=st.data(), found=records(lineages=(LINEAGE,)))
def test_a_valid_record_with_one_thing_changed_stays_harmless(data: st.DataObject, found: Record) -> None:
    """A mutated record is either refused or a record that every question can be put to, and that can be rewritten."""
    made = document(found)
    path = data.draw(st.sampled_from(_paths(made)))
    place: Any = made
    for step in path[:-1]:
        place = place[step]
    if data.draw(st.booleans()):
        place[path[-1]] = data.draw(PLAIN | st.floats() | st.just("0001-01-01T00:00:00+14:00"))
    else:
        del place[path[-1]]
    try:
        read = load(json.dumps(made).encode())
    except UnreadableRecord:
        return
    state = State.at(NOON + minutes(30), read)
    assert state.read_only or not read.causes
    assert state.sessions("end") in ("end", "suspend", "keep")
    state.sessions_ended_before("end")
    assert load(dump(read)) == read
    closed = with_cause(read, cause("new"), site=read.site, at=NOON, by="bob")
    assert State.at(NOON, load(dump(closed))).read_only


# --- text from the outside -------------------------------------------------------------------------------------------


def test_bytes_of_a_terminal_that_are_no_text_can_be_stored() -> None:
    """A reason typed in another encoding reaches us as lone surrogates; `on` must not fail for them."""
    typed = b"\xe4nderung \xff".decode("utf-8", "surrogateescape")
    raw = dump(record(cause(reason=typed)))
    raw.decode("utf-8")
    assert load(raw).causes[0].reason == typed
    assert load(stored(id="\ud800")).id == "\ud800"


def test_a_naive_instant_is_never_written() -> None:
    """Python would take it for local time, silently; another machine would then read another hour."""
    with pytest.raises(ValueError, match="time zone"):
        dump(record(cause(expected_end=datetime(2026, 5, 1, 13))))  # noqa: DTZ001 - that is the point


# --- what a record says by itself ------------------------------------------------------------------------------------


def test_a_lifted_cause_does_not_stand() -> None:
    """A tombstone beside its cause wins, in whatever order they were written."""
    assert load(dump(record(cause("c2"), lifted=(lift("c2"),)))).causes == ()


def test_causes_and_windows_have_one_order() -> None:
    """Equal records are equal, whoever put them together."""
    early, late = cause("z", since=NOON), cause("a", since=NOON + minutes(1))
    first, second = window("b"), window("c")
    made = record(late, early, windows=(second, first))
    assert made == record(early, late, windows=(first, second))
    assert [c.id for c in made.causes] == ["z", "a"]
    assert ordered(made) == made


@pytest.mark.parametrize(
    ("said", "default", "ended"),
    [
        (None, "end", True),
        (None, "keep", False),
        ("end", "keep", True),
        ("keep", "end", False),
        ("suspend", "end", False),
    ],
)
def test_the_cut_off_is_the_start_of_the_read_only_time(said: str | None, default: str, ended: bool) -> None:
    """A cause that ends sessions cuts at its start, while it stands and after it was lifted."""
    standing = record(cause(sessions=said))
    gone = without_causes(standing, ["c1"], at=NOON + minutes(9), by="ann")
    assert standing.sessions_ended_before(default) == (NOON if ended else None)
    assert gone.sessions_ended_before(default) == (NOON if ended else None)


def test_a_cut_off_that_was_undone_is_none() -> None:
    """`off --undo` gives the sessions back; an older cut-off stays."""
    undone = without_causes(record(cause()), ["c1"], at=NOON, by="ann", undone=True)
    assert undone.sessions_ended_before() is None
    older = record(lifted=(lift("c0", since=NOON - minutes(9)), lift("c1", undone=True)))
    assert older.sessions_ended_before() == NOON - minutes(9)


def test_the_latest_cut_off_counts_and_the_floor_is_one() -> None:
    """Of several cut-offs the latest rules."""
    made = record(cause(), lifted=(lift("c2", since=NOON + minutes(2)),), sessions_floor=NOON + minutes(1))
    assert made.sessions_ended_before() == NOON + minutes(2)
    assert record(sessions_floor=NOON).sessions_ended_before("keep") == NOON


def test_an_instant_of_another_zone_is_the_same_instant() -> None:
    """Offsets are understood, and become UTC."""
    found = load(stored(changed_at="2026-05-01T14:00:00+02:00"))
    assert found.changed_at == NOON
    assert found.changed_at.tzinfo is UTC
