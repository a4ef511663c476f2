"""Between two steps of a fence somebody else comes, or whoever took them is gone: what is then called safe is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from readonly import changes
from readonly.changes import Operator
from readonly.databases.fence import FenceError
from readonly.databases.fence import _pg_covering as covering
from readonly.databases.fence import _pg_state as state
from readonly.fencing import Fences, standing_fences
from readonly.stores import Store
from support.fence_layouts import REFUSED_READ_ONLY, REFUSED_RIGHT, Shop
from support.records import record_in

ADA, BOB = Operator("ada", "ops-1"), Operator("bob", "ops-2")
WRITE = "INSERT INTO story (title) VALUES ('x')"
REFUSED = {REFUSED_READ_ONLY, REFUSED_RIGHT}


def before(
    target: Any, name: str, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object], *, call: int = 1
) -> None:
    """Have something happen, once, right before a function is called for that time."""
    found, calls = getattr(target, name), itertools.count(1)

    def called(*args: Any, **more: Any) -> Any:
        if next(calls) == call:
            happens()
        return found(*args, **more)

    monkeypatch.setattr(target, name, called)


def test_a_lift_that_was_left_halfway_is_no_fence(solo: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gate was opened, a table was locked: whoever raises it next shuts the gate again, at a new position."""
    first = solo.up()
    monkeypatch.setattr(covering, "LIFT_SECONDS", 0.0)
    report = solo.session("solo", autocommit=False)
    report.execute("SELECT * FROM story")
    with pytest.raises(FenceError, match="the fence is open, writes go through; its trigger could not be taken off"):
        solo.fence().lift(site="shop", cause="c1")
    report.rollback()
    assert solo.tried("solo", WRITE) == [""]
    again = solo.up(cause="c2")
    assert set(solo.tried("solo", WRITE)) <= REFUSED
    assert first.position is not None
    assert again.position is not None
    assert again.position.at != first.position.at
    assert solo.fence().lift(site="shop", cause="c2").down
    assert solo.tried("solo", WRITE) == [""]


def test_raised_while_its_triggers_are_taken_off(solo: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever raises a fence that somebody is taking down keeps it, on every table."""
    solo.up()
    # The first one opens the gate; each of the others is about a table.
    before(state, "lock", monkeypatch, lambda: solo.up(cause="c2"), call=3)
    down = solo.fence().lift(site="shop", cause="c1")
    assert (down.down, [holder.cause for holder in down.held_by]) == (False, ["c2"])
    assert set(solo.tried("solo", WRITE, "DELETE FROM comment", "DELETE FROM score")) <= REFUSED
    assert solo.fence().open_tables() == ()


def test_lifted_while_it_is_waited_for(site: Shop) -> None:
    """Who waits for earlier writers holds the fence to the end of that wait, or is told that it does not stand."""
    writer = site.session(site.app, autocommit=False)
    writer.execute(WRITE)

    def waiting(_: object) -> None:
        site.fence().lift(site="shop")
        writer.rollback()

    with pytest.raises(FenceError, match="lifted by somebody else meanwhile: raise it again"):
        site.up(cause="c2", waiting=waiting)

    writer.execute(WRITE)

    def taken_over(_: object) -> None:
        site.fence().lift(site="shop")
        writer.rollback()
        site.up(cause="c3")

    with pytest.raises(FenceError, match="lifted by somebody else meanwhile: raise it again"):
        site.up(cause="c2", waiting=taken_over)


def test_who_closes_while_somebody_opens_keeps_the_fence(
    site: Shop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An `off` that read the record before another one's `on` does not take that one's hold for a dead command's."""
    ada = changes.turn_on(store, ADA).causes[0]
    Fences(store, [site.fence()], ADA).put_up(ada, timeout=10)
    read = record_in(store)

    fence = site.fence()

    def closes() -> None:
        bob = changes.turn_on(store, BOB).causes[0]
        assert Fences(store, [site.fence()], BOB).put_up(bob, timeout=10).problems == ()

    before(fence, "lift", monkeypatch, closes)
    lowered = Fences(store, [fence], ADA).lift([ada], record=read)
    assert "still held by bob" in lowered.standing[0]
    assert set(site.tried(site.app, WRITE)) <= REFUSED
    assert len(standing_fences(record_in(store))) == 1


def test_who_closes_when_somebody_has_opened_has_a_cause_for_its_fence(
    site: Shop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises the fence anew between the database's last word and the record's: the record goes on naming it."""
    ada = changes.turn_on(store, ADA).causes[0]
    Fences(store, [site.fence()], ADA).put_up(ada, timeout=10)

    def closes() -> None:
        bob = changes.turn_on(store, BOB).causes[0]
        assert Fences(store, [site.fence()], BOB).put_up(bob, timeout=10).problems == ()

    before(changes, "lift_exactly", monkeypatch, closes)
    lowered = Fences(store, [site.fence()], ADA).lift([ada], record=record_in(store))
    assert "raised again meanwhile" in lowered.standing[0]
    assert set(site.tried(site.app, WRITE)) <= REFUSED
    assert len(standing_fences(record_in(store))) == 1


def test_an_orphan_of_a_dead_command_goes_alone(site: Shop, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fence whose holders are all gone is lifted holder by holder: who comes between keeps it."""
    site.up(cause="c-of-a-dead-command")
    fence = site.fence()
    kept: list[str] = []

    def closes() -> None:
        kept.append(changes.turn_on(store, BOB).causes[0])
        assert Fences(store, [site.fence()], BOB).put_up(kept[0], timeout=10).problems == ()

    before(fence, "lift", monkeypatch, closes)
    lowered = Fences(store, [fence], ADA).lift([], record=record_in(store))
    assert "still held by bob" in lowered.standing[0]
    assert set(site.tried(site.app, WRITE)) <= REFUSED
    assert site.fence().lift(site="shop", cause=kept[0]).down
    assert site.tried(site.app, WRITE) == [""]
