"""MariaDB's fence: while it stands no client writes, everybody reads, and the migration goes through."""

from __future__ import annotations

from typing import Any

import pytest

from readonly.databases.fence import (
    Fence,
    Fenced,
    FenceError,
    FenceRefused,
    FenceUnreachable,
    Level,
    Lifted,
    NotOurFence,
    Pass,
    Strategy,
)
from readonly.errors import ConfigurationError
from support.mariadb_layouts import ENDED, REFUSED, MariaShop, maria_shop, said
from support.mariadb_server import MariaDBPair, MariaDBServer
from support.waiting import eventually

WRITES = (
    "INSERT INTO story (title) VALUES ('x')",
    "UPDATE story SET title = 'x' WHERE id = -1",
    "DELETE FROM story WHERE id = -1",
    "START TRANSACTION READ WRITE",
    "BEGIN NOT ATOMIC INSERT INTO story (title) VALUES ('x'); END",
    "CREATE TABLE fresh (n int)",
    "TRUNCATE comment",
)
WRITE = WRITES[0]


def test_no_write_goes_through_and_every_read_does(maria: MariaShop) -> None:
    """Sessions from before and new ones, by every kind of statement, until it is lifted."""
    before = maria.session()
    assert said(before, "SELECT * FROM story") == 0
    fenced = maria.up()
    assert (fenced.strategy, fenced.level) == (Strategy.GLOBAL, Level.HARD)
    assert maria.tried("app", *WRITES) == [REFUSED] * len(WRITES)
    assert maria.tried("rogue", WRITE, f"SET STATEMENT read_only = 0 FOR {WRITE}") == [REFUSED] * 2
    assert said(before, WRITE) == REFUSED
    assert maria.tried("app", "SELECT * FROM story", "SHOW TABLES") == [0, 0]
    assert maria.fence().lift(site="shop") == Lifted("main", down=True, given_back=1)
    assert maria.tried("app", *WRITES) == [0] * len(WRITES)
    assert said(before, WRITE) == 0


def test_the_migration_goes_through_by_its_account(maria: MariaShop) -> None:
    """It has READ ONLY ADMIN; its sessions are those of the run."""
    fenced = maria.up(run=Pass("7f3c", "token"))
    assert fenced.run == "7f3c"
    steps = ("ALTER TABLE story ADD COLUMN words int", "UPDATE story SET words = 1", "CREATE TABLE tag (id int)")
    assert maria.tried("migrator", *steps) == [0, 0, 0]
    fence = maria.fence()
    migrating = maria.session("migrator")
    maria.session("app")
    assert migrating.thread_id() in [holdup.pid for holdup in fence.sessions_of("7f3c")]
    assert {holdup.user for holdup in fence.sessions_of("7f3c")} == {"migrator"}
    assert fence.sessions_of("other") == ()
    assert migrating.thread_id() in [holdup.pid for holdup in fence.end_sessions("7f3c")]
    assert fence.sessions_of("7f3c") == ()
    assert fence.end_sessions("7f3c") == ()
    assert said(migrating, "SELECT 1") in ENDED


def test_the_position_has_every_earlier_write_before_it(maria: MariaShop) -> None:
    """It is the end of the binary log: what comes after it is the fence's own."""
    maria.tried("app", WRITE)
    before = maria.server.gtid
    fenced = maria.up()
    assert fenced.position is not None
    assert fenced.position.server == maria.sql("SELECT CONCAT(@@server_uid, ':', @@server_id)")
    assert _sequence(fenced.position.at) >= _sequence(before)
    assert maria.fence().status() == _told(fenced)
    # Raised again: the first position stays, since only that has no write behind it.
    assert maria.up(cause="c2").position == fenced.position


def _sequence(position: str) -> int:
    return int(position.rpartition("-")[2])


def _told(fenced: Fenced) -> Fenced:
    """Return what another command is told: without what only this one has seen."""
    return Fenced(
        name=fenced.name, server=fenced.server, site=fenced.site, strategy=fenced.strategy, level=fenced.level,
        position=fenced.position, raised_at=fenced.raised_at, run=fenced.run, holders=fenced.holders,
    )  # fmt: skip


def test_it_is_held_by_causes_and_goes_with_the_last(maria: MariaShop) -> None:
    """A cause that is added twice is held once; another command than the one that raised it lifts it."""
    maria.up(cause="c1")
    maria.up(cause="c1")
    fenced = maria.up(cause="r2")
    assert [holder.cause for holder in fenced.holders] == ["c1", "r2"]
    down = maria.fence().lift(site="shop", cause="c1")
    assert (down.down, [holder.cause for holder in down.held_by]) == (False, ["r2"])
    assert maria.read_only
    assert maria.fence().lift(site="shop", cause="never held it").down is False
    assert maria.fence().lift(site="shop", cause="r2").down is True
    assert not maria.read_only
    assert maria.fence().status() is None
    assert maria.fence().lift(site="shop") == Lifted("main", down=True)
    assert maria.sql("SHOW TABLES LIKE 'readonly%'") == ""


def test_what_was_set_before_is_left(maria: MariaShop) -> None:
    """An operator's own read_only is there afterwards, and that is said."""
    maria.sql("SET GLOBAL read_only = 1")
    maria.up()
    down = maria.fence().lift(site="shop")
    assert maria.read_only
    assert "was on" in down.lost[0]


def test_a_restart_forgets_it_and_it_is_found_and_raised_again(own_mariadb: MariaDBServer) -> None:
    """SET GLOBAL does not survive: the claim does, says that it fell, and a new position is taken."""
    with maria_shop(own_mariadb) as maria:
        first = maria.up()
        own_mariadb.sql("FLUSH LOGS")
        own_mariadb.restart()
        assert maria.tried("app", WRITE) == [0]
        standing = maria.fence().status()
        assert standing is not None
        assert standing.position == first.position
        (fell,) = maria.fence().open_tables()
        assert "the server was restarted" in fell
        assert "writes may have got in" in fell
        again = maria.fence().look_again(site="shop", timeout=10)
        assert again.found == (fell,)
        assert again.position is not None
        assert first.position is not None
        assert _sequence(again.position.at) > _sequence(first.position.at)
        assert maria.tried("app", WRITE) == [REFUSED]
        assert maria.fence().open_tables() == ()
        assert maria.fence().lift(site="shop").given_back == 1
        assert not maria.read_only


def test_a_replica_is_refused_and_one_that_took_over_is_raised_again(own_mariadb_pair: MariaDBPair) -> None:
    """The claim replicates: the new primary knows that a fence stood, and that it does not stand there."""
    replica = own_mariadb_pair.replica
    with maria_shop(own_mariadb_pair.primary) as maria:
        fenced = maria.up()
        own_mariadb_pair.wait_replicated()
        replica.sql("SET GLOBAL read_only = 1")
        promoted = MariaShop(replica, maria.name)
        with pytest.raises(FenceRefused, match="is a replica"):
            promoted.fence().preflight()
        with pytest.raises(FenceRefused, match="is a replica"):
            promoted.up()
        replica.sql("STOP SLAVE; SET GLOBAL read_only = 0")
        (fell,) = promoted.fence().open_tables()
        assert "another server took over" in fell
        again = promoted.up()
        assert again.found == (fell,)
        assert again.position is not None
        assert fenced.position is not None
        assert again.position.server != fenced.position.server
        assert promoted.tried("app", WRITE) == [REFUSED]
        assert promoted.fence().lift(site="shop").down
        assert not promoted.read_only
        promoted.close()


def test_another_sites_fence_is_left_alone_and_an_orphan_is_lifted(maria: MariaShop) -> None:
    """A dump of that night carries the claim: it says whose it is, and is removed by name alone."""
    maria.up()
    other = maria.fence()
    for refused in (
        lambda: other.put_up(site="blog", cause="c", by="bob", timeout=1),
        lambda: other.look_again(site="blog", timeout=1),
        lambda: other.lift(site="blog"),
    ):
        with pytest.raises(NotOurFence, match="carries a fence of shop, raised by ada") as caught:
            refused()
        assert (caught.value.site, caught.value.by) == ("shop", "ada")
    assert maria.read_only
    assert other.lift(site="blog", orphan=True).down
    assert not maria.read_only
    # As restored elsewhere: a claim of a server that is not this one.
    maria.up()
    maria.sql("UPDATE readonly_fence SET server = 'another'")
    down = other.lift(site="blog", orphan=True)
    assert (down.down, down.given_back) == (True, 0)
    assert "raised at another server, so it was left on" in down.lost[0]
    assert maria.read_only


def test_two_databases_of_one_site_are_held_until_both_are_lifted(maria: MariaShop) -> None:
    """read_only is the whole server's: it stays while another of its databases is fenced."""
    with maria_shop(maria.server) as second:
        maria.up()
        second.up(second.fence(name="orders"))
        assert maria.fence().lift(site="shop") == Lifted("main", down=True)
        assert second.read_only
        assert second.fence(name="orders").lift(site="shop").given_back == 1
        assert not second.read_only


def test_a_server_that_another_site_fenced_keeps_this_one_closed(maria: MariaShop) -> None:
    """Its `off` must not open a site whose writes would be refused, and the other's need not wait for it."""
    with maria_shop(maria.server) as blog:
        maria.up()
        blog.fence().put_up(site="blog", cause="c", by="bob", timeout=10)
        with pytest.raises(FenceError, match=f"kept read-only by the fence of blog .database {blog.name}"):
            maria.fence().lift(site="shop", cause="c1")
        assert blog.read_only
        assert blog.fence().lift(site="blog").given_back == 1
        assert maria.fence().lift(site="shop") == Lifted("main", down=True)
        assert not maria.read_only


def test_nothing_stands_where_none_was_raised(maria: MariaShop) -> None:
    """A look changes nothing and finds nothing; a second look is refused."""
    before = maria.server.gtid
    fence = maria.fence()
    assert (fence.status(), fence.open_tables(), fence.sessions_of("r1")) == (None, (), ())
    assert fence.preflight().possible
    with pytest.raises(FenceError, match="no fence stands"):
        fence.look_again(site="shop", timeout=1)
    assert maria.server.gtid == before


@pytest.mark.usefixtures("anew")
def test_a_server_that_does_not_answer_is_unreachable(maria: MariaShop) -> None:
    """Nothing listens, nobody may log in, or the connection is cut: what stands is not known, and said so."""
    with pytest.raises(FenceUnreachable, match="can't be reached"):
        Fence.from_url("mysql://fencer@127.0.0.1:1/shop", writers=["app"]).status()
    with pytest.raises(FenceUnreachable, match="Access denied"):
        maria.fence(fencer="nobody").status()
    writing = maria.session(autocommit=False)
    said(writing, WRITE)

    def cut(_: Any) -> None:
        maria.sql("KILL USER fencer")

    with pytest.raises(FenceUnreachable, match="what stands there is not known"):
        maria.up(waiting=cut)
    said(writing, "ROLLBACK")
    assert eventually(lambda: maria.up(cause="c1").position)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("mysql://host/shop", "url must read mysql://fencer@host"),
        ("mysql://fencer:hush@host", "url must read"),
        ("mysql://fencer:hush@host:many/shop", "url must read"),
        ("mysql://fencer:hush@host/shop?charset=latin1", "charset is no option"),
    ],
)
def test_a_url_that_cant_be_used_is_refused_when_it_is_built(url: str, complaint: str) -> None:
    """By name of what is wrong, and without the password."""
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        Fence.from_url(url, writers=["app"])
    assert "hush" not in str(caught.value)


def test_a_configuration_that_cant_be_is_refused(maria: MariaShop) -> None:
    """Another server's strategy, no writers, or a strategy that is asked for in a call."""
    with pytest.raises(ConfigurationError, match="none of MariaDB's"):
        Fence.from_url(maria.url(), writers=["app"], strategy="revoke")
    assert Fence.from_url(maria.url(), writers=["app"], strategy="global").preflight().possible
    with pytest.raises(ConfigurationError, match="none of MariaDB's"):
        maria.up(strategy=Strategy.GATE)
    with pytest.raises(ConfigurationError, match="writers="):
        Fence.from_url(maria.url())
    aliased = f"mariadb+pymysql://fencer@127.0.0.1:{maria.server.port}/{maria.name}"
    assert Fence.from_url(aliased, writers=["app"]).preflight().possible


def test_it_is_reached_through_a_socket(maria: MariaShop) -> None:
    """`unix_socket` in the URL; without it TCP."""
    url = f"mysql://fencer@localhost/{maria.name}?unix_socket={maria.server.socket}"
    assert str(maria.server.socket) in Fence.from_url(url, writers=["app"]).preflight().server


def test_without_a_binary_log_the_position_is_innodbs() -> None:
    """A server that logs nothing can be fenced; its position means nothing to a replica."""
    server = MariaDBServer("--skip-log-bin").start()
    try:
        with maria_shop(server) as maria:
            fenced = maria.up()
            assert fenced.level is Level.HARD
            assert str(fenced.position).startswith("lsn:")
    finally:
        server.close()
