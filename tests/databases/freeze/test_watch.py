"""Frozen replicas are looked after: warned of, thawed before the limit, paused again when they were restarted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import pytest

from readonly.databases.fence import Fenced, FenceUnreachable
from readonly.databases.freeze import Pause, Standby
from readonly.databases.replicas import schema_of
from readonly.following import Followers, Standbys, size
from readonly.freezing import Watch
from support.fence_layouts import Shop, two_roles
from support.following import MAY_PAUSE, Following
from support.waiting import eventually

LIMIT = 2 * 2**20


@pytest.fixture(scope="module")
def laid_out(started: Following) -> Iterator[Shop]:
    """A database with an application's role and an owner's, on the primary that the standby follows."""
    with two_roles(started.primary) as shop:
        yield shop


class Night:
    """A fence that stands, and the replica of its primary."""

    def __init__(self, following: Following, shop: Shop) -> None:
        self.following, self.shop = following, shop
        self.fence = shop.fence()
        self.up: Fenced = shop.up(self.fence)
        shop.sql(f"{MAY_PAUSE.format('pauser')}; GRANT SELECT ON story TO pauser")
        self.standby = following.of(database=shop.name)
        self.standbys = self.of("SELECT count(*) FROM story")

    def of(self, schema: str = "") -> Standbys:
        group = Followers(self.fence, (self.standby,), (self.standby,), schema_of(schema or None))
        return Standbys([group])

    def writes(self, count: int) -> None:
        """Have so many bytes of log arrive at the standby."""
        before = self.standby.look().waiting_bytes
        self.following.primary.sql(f"SELECT pg_logical_emit_message(true, 'test', repeat('x', {count}))")
        eventually(lambda: self.standby.look().waiting_bytes >= before + count)


@pytest.fixture
def night(following: Following, laid_out: Shop) -> Iterator[Night]:
    """A fence, and its replica there."""
    found = Night(following, laid_out)
    assert found.standbys.reach_fences(timeout=10) == ()
    yield found
    found.fence.lift(site="shop")


def test_replicas_are_waited_for_and_compared(night: Night) -> None:
    """At the fence, and with what the primary has written since; the schema's version is the same or named."""
    assert night.standbys.freeze(timeout=10)
    assert night.standbys.all_frozen()
    night.shop.sql("INSERT INTO story (title) VALUES ('during')")
    told: list[str] = []
    (behind,) = night.standbys.catch_up(timeout=0, waiting=told.append)
    assert "has not reached" in behind
    assert "(replay is paused)" in behind or "Somebody paused it before" in behind
    assert night.standbys.reach_fences(timeout=0) == ()
    (differing,) = night.standbys.differing()
    assert f"{night.standby.name} has the schema version " in differing
    assert "and main has" in differing
    assert night.standbys.thaw() == ((night.standby.name,), ())
    assert not night.standbys.all_frozen()
    assert night.standbys.catch_up(timeout=10) == ()
    assert night.standbys.differing() == ()
    assert night.of().versions() == {}
    assert not night.of().compared


def test_what_is_in_the_way_is_known_before(night: Night) -> None:
    """The look of a dry run: each replica's place, and what a run would stumble over."""
    assert night.standbys.fitness(freeze=True) == (
        [f"{night.standby.name}: at {night.standby.look().standing.at}, 0 B of log not replayed yet"], []
    )  # fmt: skip
    night.following.standby.sql("SELECT pg_wal_replay_pause()")
    eventually(lambda: night.standby.look().pause is Pause.YES)
    bare = night.following.of("bare", database=night.shop.name)
    primary = Standby.from_url(night.following.primary.url(night.shop.name))
    group = Followers(night.fence, (bare, primary), (bare,), schema_of("SELECT nothing FROM nowhere"))
    said, problems = Standbys([group]).fitness(freeze=True)
    assert len(said) == 2
    for text in (
        "is paused at", "GRANT EXECUTE ON FUNCTION", "is no standby",
        f"{bare.name}: the schema's version can't be told", "main: the schema's version can't be told",
    ):  # fmt: skip
        assert any(text in problem for problem in problems), (text, problems)
    assert not any("GRANT" in problem for problem in Standbys([group]).fitness(freeze=False)[1])


def test_it_is_warned_of_at_half_and_thawed_before_the_limit(night: Night) -> None:
    """Once at half; and it replays again before as much waits as was allowed, seen by how fast it grows."""
    watch = Watch(night.standbys, night.standbys.freeze(timeout=10), limit=LIMIT)
    watch.look()
    night.writes(LIMIT // 4)
    watch.look()
    assert watch.noticed() == ()
    night.writes(LIMIT // 3)
    night.fence.kept_for = lambda slot: None  # type: ignore[method-assign]
    watch._kept[0].bytes = night.standby.look().waiting_bytes - 1000  # so slowly it would last for long
    watch.look()
    watch.look()
    (warned,) = watch.noticed()
    assert (warned.name, warned.what) == (night.standby.name, "half full")
    assert "of log wait there for" in warned.said
    night.writes(LIMIT // 4)
    before = night.standby.look().waiting_bytes
    assert before < LIMIT
    watch.look()
    (thawed,) = watch.noticed()
    assert thawed.what == "thawed"
    assert "may be 2.0 MB (--freeze-limit)" in thawed.said
    assert night.standby.look().pause is Pause.NO
    watch.look()
    assert watch.noticed() == ()


def test_what_waits_at_the_primary_counts_as_well(night: Night) -> None:
    """Behind the slot of a standby that does not fetch it; a primary that is away tells nothing and stops nothing."""
    watch = Watch(night.standbys, night.standbys.freeze(timeout=10), limit=LIMIT)
    night.following.primary.sql("SELECT pg_create_physical_replication_slot('db2', true)")
    behind = night.fence.kept_for("db2")
    night.writes(LIMIT)
    grown = night.fence.kept_for("db2")
    night.following.primary.sql("SELECT pg_drop_replication_slot('db2')")
    assert behind is not None
    assert grown is not None
    assert grown >= behind + LIMIT
    assert night.fence.kept_for("db2") is None
    night.standbys.thaw()
    night.following.wait_replayed()
    frozen = night.standbys.freeze(timeout=10)
    watch = Watch(night.standbys, frozen, limit=LIMIT)
    look = night.standby.look

    def follows_by_slot() -> object:
        return replace(look(), slot="db2")

    with mock.patch.object(night.standby, "look", follows_by_slot):
        with mock.patch.object(night.fence, "kept_for", side_effect=FenceUnreachable("main: away")):
            watch.look()
        assert watch.noticed() == ()
        with mock.patch.object(night.fence, "kept_for", return_value=LIMIT * 2):
            watch.look()
    (thawed,) = watch.noticed()
    assert "waited at the primary, behind the slot db2" in thawed.said
    assert look().pause is Pause.NO


def test_one_that_was_restarted_is_paused_again(night: Night) -> None:
    """The server forgets a pause: it is taken up again, and what that means is said."""
    watch = Watch(night.standbys, night.standbys.freeze(timeout=10), limit=LIMIT)
    night.following.restart()
    night.following.wait_replayed()
    watch.look()
    (again,) = watch.noticed()
    assert again.what == "paused again"
    assert "had lost its pause (was it restarted?)" in again.said
    assert night.standby.look().pause is Pause.YES
    watch.look()
    assert watch.noticed() == ()


def test_amid_a_lock_of_the_migration_it_is_left_following(night: Night) -> None:
    """Paused there, its readers would wait for the thaw: longer than at the primary."""
    watch = Watch(night.standbys, night.standbys.freeze(timeout=10), limit=LIMIT)
    with night.shop.session("owner_", autocommit=False) as migration:
        migration.execute("LOCK TABLE story IN ACCESS EXCLUSIVE MODE")
        night.following.restart()
        night.following.wait_replayed()
        watch.look()  # which takes its time: nobody knows when the lock goes
    (left,) = watch.noticed()
    assert left.what == "not frozen"
    assert "stands amid a lock on story" in left.said
    assert night.standby.look().pause is Pause.NO
    watch.look()
    assert watch.noticed() == ()


def test_one_that_does_not_answer_is_said_once_and_looked_at_again(night: Night) -> None:
    """Nothing latches: when it is back, so is the watch."""
    watch = Watch(night.standbys, night.standbys.freeze(timeout=10), limit=LIMIT)
    night.following.standby.kill()
    watch.look()
    watch.look()
    (lost,) = watch.noticed()
    assert lost.what == "out of sight"
    assert "Its log is not watched until it answers again" in lost.said
    night.following.restart()
    night.following.wait_replayed()
    watch.look()
    (again,) = watch.noticed()
    assert again.what == "paused again"


def test_it_looks_by_itself_while_a_block_runs(night: Night) -> None:
    """In a thread, which ends with the block; with nothing frozen there is none."""
    watch = Watch(night.standbys, night.standbys.freeze(timeout=10), limit=1)
    night.writes(1000)
    with mock.patch("readonly.freezing.WATCH_SECONDS", 0.01), watch.watching():
        eventually(lambda: night.standby.look().pause is Pause.NO)
    assert [noticed.what for noticed in watch.noticed()] == ["thawed"]
    with Watch(night.standbys, (), limit=1).watching() as idle:
        idle.look()
    assert idle.noticed() == ()


def test_one_that_this_machine_does_not_know_is_named(night: Night) -> None:
    """Frozen from another machine: nobody forgets it."""
    thawed, (problem,) = night.standbys.thaw(["db9:5432/shop"])
    assert thawed == ()
    assert "db9:5432/shop is frozen, and nothing on this machine says how to reach it" in problem


@pytest.mark.parametrize(("count", "said"), [(0, "0 B"), (999, "999 B"), (1536, "1.5 kB"), (20 * 2**30, "20 GB")])
def test_sizes_are_spelled_for_people(count: int, said: str) -> None:
    """As PostgreSQL writes them."""
    assert size(count) == said
