"""Bypasses in the record: given, used, and taken back; and the history of that."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from readonly import bypassing, history
from readonly.changes import Operator, turn_off, turn_on
from readonly.errors import ConfigurationError, NotYours
from readonly.record import Record, token_hash
from readonly.record_format import dump, load
from readonly.stores.memory import MemoryStore
from readonly.transitions import BYPASS_AGE, adds, join, trimmed, with_bypass
from support.apps import RECORD
from support.let_through import ANN, NOW, TOKEN, bypass, closed_store

BOB = Operator("bob", "desk-2")


# --- the record ----------------------------------------------------------------------------------------------------


def test_it_is_stored_without_its_tokens() -> None:
    """What is written is read again, also by a version that knows more; a record without any has no such field."""
    record = replace(RECORD, bypasses=(bypass(extra={"newer": 1}),))
    raw = dump(record)
    assert load(raw) == record
    assert TOKEN.encode() not in raw
    assert token_hash(TOKEN).encode() in raw
    assert b"bypasses" not in dump(RECORD)


def test_two_records_agree_on_a_bypass() -> None:
    """What was taken back on either side stays so; one that has long run out does not come back."""
    one = replace(RECORD, bypasses=(bypass(revision=2, revoked=True),), epoch=4)
    other = replace(RECORD, bypasses=(bypass(revision=5, link="x"), bypass(id="b2", name="ben")), epoch=4)
    both = join(one, other, at=NOW)
    assert [(b.id, b.revoked) for b in both.bypasses] == [("b1", True), ("b2", False)]
    assert join(other, one, at=NOW).bypasses == both.bypasses
    assert not adds(one, both)
    old = replace(RECORD, bypasses=(bypass(until=NOW - BYPASS_AGE - timedelta(days=1)),))
    assert not adds(old, replace(RECORD, changed_at=NOW))
    assert trimmed(old, at=NOW).bypasses == ()


def test_a_change_of_one_leaves_the_others() -> None:
    """And raises its revision."""
    first = with_bypass(RECORD, bypass(), at=NOW, by="ann")
    second = with_bypass(first, bypass(id="b2"), at=NOW, by="ann")
    again = with_bypass(second, bypass(revoked=True), at=NOW, by="ann")
    assert {b.id: (b.revoked, b.revision) for b in again.bypasses} == {"b1": (True, 2), "b2": (False, 1)}
    assert again.epoch == RECORD.epoch + 3


# --- giving and taking back ----------------------------------------------------------------------------------------


@pytest.fixture
def store() -> MemoryStore:
    """A site that somebody has made read-only."""
    return closed_store()


def stands(store: MemoryStore) -> Record:
    """Return the record."""
    raw = store.read().record
    assert raw is not None
    return load(raw)


def test_a_link_is_good_once(store: MemoryStore) -> None:
    """Its token is exchanged for another one; the header's is neither of them."""
    _, made, link, token = bypassing.give(
        store, ANN, "release-check", lasting=timedelta(minutes=5), paths=("/admin/*",)
    )
    assert made.until - made.since == timedelta(minutes=5)
    assert made.causes == tuple(c.id for c in stands(store).causes)
    _, cookie = bypassing.redeem(store, link)
    assert cookie is not None
    assert len({link, token, cookie}) == 3
    assert bypassing.redeem(store, link)[1] is None
    assert bypassing.redeem(store, token)[1] is None
    assert stands(store).bypasses[0].keys == (token_hash(token), token_hash(cookie))


def test_each_is_taken_back_by_itself_and_all_by_one(store: MemoryStore) -> None:
    """By name or id; a link that was not used yet goes with it."""
    links = [bypassing.give(store, ANN, name, lasting=timedelta(minutes=5))[2] for name in ("a", "b", "c")]
    assert [b.name for b in bypassing.revoke(store, BOB, "b")[1]] == ["b"]
    assert bypassing.redeem(store, links[1])[1] is None
    with pytest.raises(NotYours, match="nobody is let through as b; let through: a, c"):
        bypassing.revoke(store, BOB, "b")
    assert {b.name for b in bypassing.revoke(store, BOB, None)[1]} == {"a", "c"}
    assert bypassing.revoke(store, BOB, None)[1] == ()
    assert all(b.revoked for b in stands(store).bypasses)


def test_a_name_is_one_persons(store: MemoryStore) -> None:
    """While theirs is live; and it can stand in a header."""
    bypassing.give(store, ANN, "ann", lasting=timedelta(minutes=5))
    with pytest.raises(NotYours, match=r"ann is let through already.*bypass revoke ann"):
        bypassing.give(store, BOB, "ann", lasting=timedelta(minutes=5))
    bypassing.revoke(store, ANN, "ann")
    bypassing.give(store, BOB, "ann", lasting=timedelta(minutes=5))
    for name in ("", "a b", "a\r\nX: y", "-x", "ä", "x" * 41):
        with pytest.raises(ConfigurationError, match="can't name a bypass"):
            bypassing.give(store, ANN, name, lasting=timedelta(minutes=5))


def test_a_script_gives_no_end_of_them(store: MemoryStore) -> None:
    """Each process reads the record each second. Those that were taken back leave room."""
    for number in range(bypassing.MOST):
        bypassing.give(store, ANN, f"hook-{number}", lasting=timedelta(minutes=5))
    with pytest.raises(NotYours, match=r"100 bypasses let somebody through already.*bypass revoke NAME"):
        bypassing.give(store, ANN, "hook", lasting=timedelta(minutes=5))
    bypassing.revoke(store, ANN, "hook-7")
    bypassing.give(store, ANN, "hook", lasting=timedelta(minutes=5))


def test_it_ends_with_the_read_only_time(store: MemoryStore) -> None:
    """While writable none can be made, and the next read-only time does not bring an old one back."""
    _, _, link, _ = bypassing.give(store, ANN, "ann", lasting=timedelta(hours=5))
    turn_off(store, ANN)
    assert bypassing.redeem(store, link)[1] is None
    with pytest.raises(NotYours, match="let through: nobody"):
        bypassing.revoke(store, ANN, "ann")
    with pytest.raises(NotYours, match="nobody needs a bypass"):
        bypassing.give(store, ANN, "ben", lasting=timedelta(minutes=5))
    turn_on(store, ANN)
    record = stands(store)
    assert {c.id for c in record.causes}.isdisjoint(record.bypasses[0].causes)
    assert bypassing.redeem(store, link)[1] is None


def test_who_is_let_through_pushes_nobody_out_of_the_history(store: MemoryStore) -> None:
    """Who closed the site stands in it, however much was written through a bypass since."""
    use = history.Entry(at=history.instant(NOW), site="shop", what=history.LET_THROUGH, by="ann", host="web-1")
    for number in range(history.KEEP + 1):
        history.write(store, None, replace(use, reason=f"POST /{number}"))
    found = history.read(store, None, last=3 * history.KEEP)
    assert [entry.by for entry in found if entry.what == "on"] == ["ann"]
    assert sum(entry.what == history.LET_THROUGH for entry in found) == history.KEEP
