"""Fences and the record together: what stands at a database stands in the record, and the site opens after both."""

from __future__ import annotations

from pathlib import Path

import pytest

from readonly import changes
from readonly.changes import Operator
from readonly.databases.fence import Fence, Level
from readonly.errors import NotYours
from readonly.fencing import Fences, standing_fences
from readonly.stores import Store
from support.fence_layouts import Shop
from support.records import record_in

ADA, BOB = Operator("ada", "ops-1"), Operator("bob", "ops-2")
WRITE = "INSERT INTO story (title) VALUES ('x')"


def test_a_fence_is_a_cause_with_its_position(shop: Shop, store: Store) -> None:
    """The record holds name, server, level and position, and nothing of what was taken."""
    on = changes.turn_on(store, ADA)
    raised = Fences(store, [shop.fence()], ADA).put_up(on.causes[0], timeout=10)
    assert raised.problems == ()
    assert raised.level is Level.HARD
    (cause,) = standing_fences(record_in(store))
    assert cause.id.startswith("fence:main:")
    assert cause.fence is not None
    assert (cause.fence.name, cause.fence.level, cause.fence.position) == (
        "main", "hard", str(raised.fenced[0].position),
    )  # fmt: skip
    assert "fencer" not in repr(cause)
    with pytest.raises(NotYours, match="still at work"):
        changes.turn_off(store, ADA, cause=cause.id)


def test_it_is_lifted_with_its_last_holder(shop: Shop, store: Store) -> None:
    """Two people's `on`: the first `off` leaves the fence for the other; the second opens."""
    ada, bob = changes.turn_on(store, ADA).causes[0], changes.turn_on(store, BOB).causes[0]
    fences = Fences(store, [shop.fence()], ADA)
    fences.put_up(ada, timeout=10)
    fences.put_up(bob, timeout=10)
    assert len(standing_fences(record_in(store))) == 1
    lowered = fences.lift([ada], record=record_in(store))
    assert lowered.standing == (f"the fence main is still held by ada ({bob})",)
    assert shop.tried("app", WRITE) == ["42501"]
    changes.turn_off(store, ADA)
    assert fences.lift([bob], record=record_in(store)).standing == ()
    assert standing_fences(record_in(store)) == ()
    assert shop.tried("app", WRITE) == [""]


def test_a_fence_that_is_refused_leaves_no_cause(shop: Shop, store: Store) -> None:
    """Nothing was changed at the database, so nothing stands in the record; the reason is a problem."""
    on = changes.turn_on(store, ADA)
    raised = Fences(store, [shop.fence(fencer="bare", migrators=["owner_", "fencer"])], ADA).put_up(
        on.causes[0], timeout=10
    )
    assert raised.level is Level.APP_ONLY
    assert "GRANT owner_ TO bare" in raised.problems[0]
    assert standing_fences(record_in(store)) == ()


def test_one_that_can_not_be_reached_is_not_forgotten(store: Store) -> None:
    """Nobody knows what stands there: the cause stays, and `lift` says why the site can't open."""
    on = changes.turn_on(store, ADA)
    fences = Fences(store, [Fence.from_url("postgresql://x@127.0.0.1:1/y", writers=["app"])], ADA)
    assert "can't be reached" in fences.put_up(on.causes[0], timeout=5).problems[0]
    assert len(standing_fences(record_in(store))) == 1
    (why,) = fences.lift(on.causes, record=record_in(store)).standing
    assert "can't be reached" in why
    assert "the site stays closed" in why
    (why,) = Fences(store, [], ADA).lift(on.causes, record=record_in(store)).standing
    assert "nothing on this machine says how to reach it: where readonly.toml has [fence.main]" in why


def test_holders_whose_cause_is_gone_do_not_keep_it_up(shop: Shop, store: Store) -> None:
    """A command that died between the store and the database left its hold behind."""
    on = changes.turn_on(store, ADA)
    fences = Fences(store, [shop.fence()], ADA)
    fences.put_up(on.causes[0], timeout=10)
    shop.fence().put_up(site="shop", cause="c-of-a-dead-command", by="carl", timeout=10)
    assert fences.lift(on.causes, record=record_in(store)).standing == ()
    assert shop.tried("app", WRITE) == [""]


def test_a_fence_lifted_at_the_database_alone_is_no_obstacle(shop: Shop, store: Store) -> None:
    """Lifting needs only the database; the record catches up."""
    on = changes.turn_on(store, ADA)
    fences = Fences(store, [shop.fence()], ADA)
    fences.put_up(on.causes[0], timeout=10)
    shop.fence().lift(site="shop")
    assert fences.lift(on.causes, record=record_in(store)).standing == ()
    assert standing_fences(record_in(store)) == ()


def test_sqlite_waits_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    """No server, no fence: the level says so, and no cause stands for something that nobody could lift."""
    import sqlite3

    path = tmp_path / "data.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE story (title TEXT)")
    connection.close()
    on = changes.turn_on(store, ADA)
    fences = Fences(store, [Fence.from_url(f"sqlite:///{path}")], ADA)
    raised = fences.put_up(on.causes[0], timeout=10)
    assert (raised.level, raised.problems) == (Level.APP_ONLY, ())
    assert standing_fences(record_in(store)) == ()
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    (problem,) = fences.put_up(on.causes[0], timeout=0.2).problems
    assert "some process has been writing" in problem
    writer.close()
    assert fences.lift(on.causes, record=record_in(store)).standing == ()
    (problem,) = Fences(store, [Fence.from_url(f"sqlite:///{tmp_path}/none.db")], ADA).put_up("c", timeout=1).problems
    assert "there is no file" in problem


def test_a_second_look_is_told_to_the_record(shop: Shop, store: Store) -> None:
    """New tables are fenced as well; a fence that is gone is a problem."""
    on = changes.turn_on(store, ADA)
    fences = Fences(store, [shop.fence()], ADA)
    fences.put_up(on.causes[0], timeout=10)
    shop.as_owner("CREATE TABLE tag (id int); GRANT DELETE ON tag TO app")
    assert fences.look_again(timeout=10).fenced[0].found == ("DELETE on public.tag for app",)
    shop.fence().lift(site="shop")
    assert "no fence stands" in fences.look_again(timeout=10).problems[0]
