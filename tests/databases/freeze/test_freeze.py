"""A standby is paused at a position and resumed; what would harm its readers is not done, and said."""

from __future__ import annotations

from typing import Any

import pytest

from readonly.databases.fence import Position
from readonly.databases.freeze import Frozen, NotFrozen, Pause, Standby, StandbyError, StandbyUnreachable
from readonly.databases.freeze.postgresql import PostgresStandby
from readonly.databases.replicas import schema_of
from readonly.errors import ConfigurationError
from support.following import Following
from support.waiting import eventually


def count(following: Following) -> str:
    """Return how many rows the standby's readers see."""
    return following.standby.sql("SELECT count(*) FROM story")


def test_it_stands_where_it_was_paused_until_it_is_resumed(following: Following) -> None:
    """What is written after the position is not seen there before the thaw; both may be done twice."""
    position, before = following.position(), count(following)
    frozen = following.of().freeze(position, timeout=10)
    assert following.primary.sql(f"SELECT '{frozen.at}'::pg_lsn - '{position.at}'::pg_lsn") == str(frozen.behind)
    following.primary.sql("INSERT INTO story VALUES (1)")
    eventually(lambda: following.of().look().waiting_bytes > 0)
    assert following.of().freeze(position, timeout=10).at == frozen.at
    assert count(following) == before
    seen = following.of().look()
    assert (seen.pause, seen.standing.paused, seen.standing.at) == (Pause.YES, True, frozen.at)
    assert following.of().thaw()
    assert not following.of().thaw()
    following.wait_replayed()
    assert count(following) == str(int(before) + 1)


def test_what_lies_right_at_the_position_is_said_so(following: Following) -> None:
    """With nothing written since, it stands at the fence itself."""
    position = following.position()
    following.wait_replayed()
    frozen = following.of().freeze(position, timeout=10)
    assert frozen.behind >= 0
    assert ("right at the fence" in str(frozen)) == (frozen.behind == 0)
    assert frozen.grace == "30s"


def test_it_is_not_paused_before_the_position(following: Following) -> None:
    """One that does not come that far goes on following, and one that somebody paused before is named."""
    system = following.position().server
    ahead = Position(system, "FF/0")
    with pytest.raises(NotFrozen, match=r"goes on following: it is at .* and has not reached FF/0"):
        following.of().freeze(ahead, timeout=0)
    assert following.of().look().pause is Pause.NO
    assert "has not reached FF/0" in following.of().behind(ahead)
    following.standby.sql("SELECT pg_wal_replay_pause()")
    eventually(lambda: following.of().look().pause is Pause.YES)
    for ask in (following.of().behind, lambda position: following.of().freeze(position, timeout=5)):
        with pytest.raises(StandbyError, match="Somebody paused it before: have it replay again"):
            ask(ahead)
    assert following.of().look().pause is Pause.YES


def test_no_lock_is_kept_for_as_long_as_it_is_paused(following: Following) -> None:
    """Paused amid a migration's lock, every reader of that table would wait for the thaw."""
    with following.session(autocommit=False) as migration:
        migration.execute("LOCK TABLE story IN ACCESS EXCLUSIVE MODE")
        position = following.position()
        eventually(lambda: not following.of().behind(position))
        # That it is paused, for a moment, may take longer than it is given.
        eventually(lambda: "stands amid a lock on story" in not_frozen(following, position), what="the lock is seen")
        assert following.of().look().pause is Pause.NO
    migration.close()
    assert isinstance(following.of().freeze(position, timeout=10), Frozen)


def not_frozen(following: Following, position: Position) -> str:
    """Return why it is not frozen."""
    with pytest.raises(NotFrozen) as refused:
        following.of().freeze(position, timeout=0.1)
    return str(refused.value)


def test_the_lock_that_was_seen_is_what_is_said(following: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is resumed for a lock, and asked again: when the time is over it may just not be paused yet."""
    asked, seen = PostgresStandby._paused, list[Frozen | None]()

    def once(self: PostgresStandby, connection: Any, position: Position) -> Frozen | None:
        if seen:
            return None
        seen.append(eventually(lambda: asked(self, connection, position), what="it is paused"))
        return seen[0]

    monkeypatch.setattr(PostgresStandby, "_paused", once)
    with following.session(autocommit=False) as migration:
        migration.execute("LOCK TABLE story IN ACCESS EXCLUSIVE MODE")
        position = following.position()
        eventually(lambda: not following.of().behind(position))
        assert "stands amid a lock on story" in not_frozen(following, position)
    migration.close()


def test_a_restart_loses_the_pause(following: Following) -> None:
    """The server keeps none of it: it replays on, and can be paused again, further on."""
    position = following.position()
    frozen = following.of().freeze(position, timeout=10)
    following.primary.sql("INSERT INTO story VALUES (2)")
    following.restart()
    assert following.of().look().pause is Pause.NO
    following.wait_replayed()
    again = following.of().freeze(position, timeout=10)
    assert again.behind > frozen.behind


def test_who_may_not_pause_it_is_told_the_grant(following: Following) -> None:
    """The statement that is printed is the one that helps; nothing is changed before."""
    position = following.position()
    with pytest.raises(StandbyError, match=r"GRANT EXECUTE ON FUNCTION .* TO") as refused:
        following.of("bare").freeze(position, timeout=5)
    assert "GRANT EXECUTE" in following.of("bare").look().lacks
    assert following.of().look().lacks == ""
    assert not following.of("bare").thaw()  # it is not paused, so nothing is lacking
    following.of().freeze(position, timeout=10)
    with pytest.raises(StandbyError, match="may not pause"):
        following.of("bare").thaw()
    statement = str(refused.value).partition("superuser: ")[2]
    following.primary.sql(statement)
    following.of().thaw()
    following.wait_replayed()
    assert isinstance(following.of("bare").freeze(position, timeout=10), Frozen)
    following.primary.sql(
        str(refused.value).partition("superuser: ")[2].replace("GRANT", "REVOKE").replace(" TO ", " FROM ")
    )


def test_another_system_and_a_primary_are_named(following: Following) -> None:
    """A position of one system means nothing on another; a server that takes writes is no replica."""
    with pytest.raises(StandbyError, match="positions of one system mean nothing on another"):
        following.of().behind(Position("1234", "0/1"))
    primary = Standby.from_url(following.primary.url())
    for ask in (primary.behind, lambda position: primary.freeze(position, timeout=0)):
        with pytest.raises(StandbyError, match="is no standby: it takes writes of its own"):
            ask(following.position())
    with pytest.raises(StandbyError, match="is no standby"):
        primary.thaw()
    assert not primary.look().standing.replica


def test_it_tells_what_its_log_takes(following: Following) -> None:
    """What waits, as far as anybody may see it; the whole log, for whoever may list it; its schema's version."""
    following.of().freeze(following.position(), timeout=10)
    following.primary.sql("SELECT pg_logical_emit_message(true, 'test', repeat('x', 100000))")
    eventually(lambda: following.of().look().waiting_bytes >= 100000)
    assert following.of().look().log_bytes is None
    whole = following.of("postgres").look().log_bytes
    assert whole is not None
    assert whole >= 16 * 2**20
    assert following.of().look(schema_of("SELECT 41")).standing.schema == ("41",)


@pytest.mark.parametrize("more", ["?target_session_attrs=read-write", "?target_session_attrs=primary"])
def test_a_url_that_never_leads_to_a_standby_is_found_before_anything_happens(following: Following, more: str) -> None:
    """Libpq would look for a server that takes writes."""
    with pytest.raises(ConfigurationError, match=r"fence\.main\.replicas: target_session_attrs="):
        following.of(more=more)


def test_urls_that_are_none_and_servers_that_do_not_answer() -> None:
    """Each says which setting, and no password."""
    with pytest.raises(ConfigurationError, match="begins with 'oracle'"):
        Standby.from_url("oracle://db/shop")
    with pytest.raises(ConfigurationError, match="is no PostgreSQL URL") as refused:
        Standby.from_url("postgresql://fencer:secret@db/shop?colour=red")
    assert "secret" not in str(refused.value)
    with pytest.raises(StandbyUnreachable, match=r"^127\.0\.0\.1:1/shop: the replica can't be reached"):
        Standby.from_url("postgresql://fencer@127.0.0.1:1/shop").look()
