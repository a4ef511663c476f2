"""MariaDB's fence: while it stands no client writes, everybody reads, and the migration goes through."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from readonly.databases.fence import (
    Fence,
    Fenced,
    FenceError,
    FenceRefused,
    FenceUnreachable,
    Holdup,
    Level,
    Lifted,
    NotOurFence,
    Pass,
    StillWriting,
    Strategy,
)
from readonly.errors import ConfigurationError
from support.mariadb_layouts import REFUSED, MariaShop, maria_shop, said
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
# What a client meets whose session was killed: the server's last word, or none.
ENDED = {1927, 2006, 2013}


@pytest.fixture
def maria(mariadb_to_fence: MariaDBServer) -> Iterator[MariaShop]:
    """A database of its own, at a server that only these tests make refuse."""
    with maria_shop(mariadb_to_fence) as made:
        yield made


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


def test_it_waits_for_who_writes_and_not_for_who_reads(maria: MariaShop) -> None:
    """A transaction that has written may finish, and is named; one that only reads is not waited for."""
    writing, reading = maria.session(autocommit=False), maria.session(autocommit=False)
    said(writing, WRITE)
    said(reading, "SELECT * FROM story")
    told: list[tuple[Holdup, ...]] = []
    seen = threading.Event()

    def waiting(holdups: Any) -> None:
        told.append(tuple(holdups))
        seen.set()

    with ThreadPoolExecutor(1) as pool:
        raising = pool.submit(maria.up, waiting=waiting)
        assert seen.wait(60)
        assert not maria.read_only
        assert said(writing, "COMMIT") == 0
        fenced = raising.result(60)
    assert fenced.ended == ()
    assert [holdup.pid for holdup in told[0]] == [writing.thread_id()]
    assert (told[0][0].user, told[0][0].since is not None) == ("app", True)
    assert maria.sql("SELECT count(*) FROM story") == "2"
    # What it then tries to write, it is refused.
    assert said(reading, WRITE) == REFUSED


def test_who_is_not_done_by_the_deadline_keeps_it_down(maria: MariaShop) -> None:
    """Nobody's COMMIT is refused unless that was asked for; the claim stays, the server takes writes."""
    writing = maria.session(autocommit=False)
    said(writing, WRITE)
    with pytest.raises(StillWriting, match="takes writes, since what began before has not ended") as caught:
        maria.up(timeout=0.2)
    assert [holdup.pid for holdup in caught.value.holdups] == [writing.thread_id()]
    assert f"session {writing.thread_id()} (app)" in str(caught.value)
    assert "--end-writers-after" in str(caught.value)
    assert not maria.read_only
    standing = maria.fence().status()
    assert standing is not None
    assert standing.position is None
    assert maria.fence().open_tables() == ()
    assert said(writing, "COMMIT") == 0
    assert maria.up().position is not None


def test_who_is_not_done_is_ended_when_that_was_named(maria: MariaShop) -> None:
    """Its session is ended and named, its row is not there."""
    writing = maria.session(autocommit=False)
    said(writing, WRITE)
    fenced = maria.up(end_after=0.1)
    assert [holdup.pid for holdup in fenced.ended] == [writing.thread_id()]
    assert said(writing, "COMMIT") in ENDED
    assert maria.sql("SELECT count(*) FROM story") == "1"


def test_who_may_not_be_ended_is_refused_at_its_commit(maria: MariaShop) -> None:
    """Without CONNECTION ADMIN the fence goes up all the same when the time is over."""
    maria.sql("REVOKE CONNECTION ADMIN ON *.* FROM fencer@'%'")
    try:
        writing = maria.session(autocommit=False)
        said(writing, WRITE)
        fenced = maria.up(end_after=0.1)
    finally:
        maria.sql("GRANT CONNECTION ADMIN ON *.* TO fencer@'%'")
    assert [holdup.pid for holdup in fenced.ended] == [writing.thread_id()]
    assert said(writing, "COMMIT") == REFUSED


def test_a_prepared_transaction_is_waited_for_and_named(maria: MariaShop) -> None:
    """XA PREPARE outlives its session: it is named, and where the deadline is over, its XA COMMIT is refused."""
    preparing = maria.session()
    for statement in ("XA START 'order-7'", WRITE, "XA END 'order-7'", "XA PREPARE 'order-7'"):
        assert said(preparing, statement) == 0
    preparing.close()
    # Until that session is gone, nobody else may commit it.
    there = f"SELECT count(*) FROM information_schema.PROCESSLIST WHERE ID = {preparing.thread_id()}"
    eventually(lambda: maria.sql(there) == "0", what="its session is gone")
    with pytest.raises(StillWriting, match=r"prepared transaction 'order-7'.*XA COMMIT or XA ROLLBACK"):
        maria.up(timeout=0.2)
    fenced = maria.up(end_after=0.0)
    assert any("an XA COMMIT of order-7" in way.what for way in fenced.ways)
    assert maria.tried("app", "XA COMMIT 'order-7'") == [REFUSED]
    maria.fence().lift(site="shop")
    maria.sql("XA ROLLBACK 'order-7'")


def test_a_table_that_somebody_has_locked_holds_it_up_for_so_long(maria: MariaShop) -> None:
    """SET GLOBAL would hang behind LOCK TABLES, and new writes behind it: it is given up after a second each time."""
    locking = maria.session()
    said(locking, "LOCK TABLES story WRITE")
    with pytest.raises(StillWriting, match="LOCK TABLES"):
        maria.up(timeout=0.1)
    said(locking, "UNLOCK TABLES")
    assert maria.up().level is Level.HARD


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


def test_two_commands_raise_it_at_once(maria: MariaShop) -> None:
    """Both return the same position, both causes hold it, and who writes is waited for by both."""
    writing = maria.session(autocommit=False)
    said(writing, WRITE)
    seen = [threading.Event(), threading.Event()]
    with ThreadPoolExecutor(2) as pool:
        raising = [
            pool.submit(maria.up, maria.fence(), cause=f"c{i}", waiting=lambda _, seen=seen[i]: seen.set())
            for i in (0, 1)
        ]
        assert all(event.wait(60) for event in seen)
        said(writing, "COMMIT")
        # Two that polled in turns would keep the server's cache from ever being renewed.
        first, second = (raised.result(60) for raised in raising)
    assert first.position == second.position
    standing = maria.fence().status()
    assert standing is not None
    assert {holder.cause for holder in standing.holders} == {"c0", "c1"}


@pytest.mark.parametrize("raised_again", [False, True])
def test_lifted_while_it_is_waited_for(maria: MariaShop, raised_again: bool) -> None:
    """Who waits for earlier writers is told that the fence is not the one that it waited for."""
    writing = maria.session(autocommit=False)
    said(writing, WRITE)

    def waiting(_: object) -> None:
        maria.fence().lift(site="shop")
        said(writing, "ROLLBACK")
        if raised_again:
            maria.up(cause="c3")

    with pytest.raises(FenceError, match="lifted by somebody else meanwhile: raise it again"):
        maria.up(cause="c2", waiting=waiting)
    assert maria.read_only is raised_again


def test_commands_look_at_transactions_one_after_the_other(maria: MariaShop) -> None:
    """The server renews that picture only when nobody has asked for a while: two polling in turns would keep it old."""
    looking = maria.session("root")
    said(looking, "DO GET_LOCK('readonly_fence_look', 10)")
    waits = "SELECT count(*) FROM information_schema.PROCESSLIST WHERE STATE = 'User lock' AND USER = 'fencer'"
    with ThreadPoolExecutor(1) as pool:
        raising = pool.submit(maria.up)
        eventually(lambda: maria.sql(waits) == "1" or raising.done(), what="the other command waits for its turn")
        assert not raising.done()
        said(looking, "DO RELEASE_LOCK('readonly_fence_look')")
        assert raising.result(60).position is not None


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


def test_one_that_was_lifted_meanwhile_is_not_called_safe(maria: MariaShop) -> None:
    """`off` while another command still waits: that one fails, and the server takes writes."""
    writing = maria.session(autocommit=False)
    said(writing, WRITE)
    seen = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        raising = pool.submit(maria.up, waiting=lambda _: seen.set())
        assert seen.wait(60)
        assert maria.fence().lift(site="shop").down
        said(writing, "COMMIT")
        with pytest.raises(FenceError, match="was lifted by somebody else meanwhile"):
            raising.result(60)
    assert not maria.read_only


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
