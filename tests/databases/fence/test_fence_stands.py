"""While a fence stands no client writes, everybody reads, and the migration goes through."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

from readonly.databases.fence import (
    Fence,
    Fenced,
    FenceRefused,
    FenceUnreachable,
    Level,
    Lifted,
    NotOurFence,
    Pass,
    StillWriting,
    Strategy,
    _pg_writers,
)
from readonly.errors import ConfigurationError
from support.fence_layouts import REFUSED_READ_ONLY, REFUSED_RIGHT, Shop
from support.postgres_server import PostgresServer
from support.waiting import eventually

WRITES = (
    "INSERT INTO story (title) VALUES ('x')",
    "UPDATE story SET title = 'x' WHERE false",
    "DELETE FROM story WHERE false",
    "INSERT INTO headline (title) VALUES ('x')",
    "UPDATE comment SET likes = 1",
    "INSERT INTO comment (id) VALUES (2)",
    "INSERT INTO score VALUES ('2026-05-05', 2)",
    "BEGIN READ WRITE; INSERT INTO story (title) VALUES ('x'); COMMIT",
    "SET default_transaction_read_only = off; INSERT INTO story (title) VALUES ('x')",
)


def test_each_layout_gets_the_strategy_that_suits_it(shop: Shop, solo: Shop) -> None:
    """Separate roles: privileges. One role: a trigger on each table, or the gate where it was installed."""
    assert (shop.fence().preflight().strategy, shop.fence().preflight().level) == (Strategy.REVOKE, Level.HARD)
    found = solo.fence().preflight()
    assert (found.strategy, found.level, found.possible) == (Strategy.EACH, Level.HARD, True)
    assert found.tables == 4
    assert "solo owns 6 tables, so its own DDL is not stopped" in [way.what for way in found.ways]
    assert solo.fence().install(site="shop", by="ada") == (
        "public.story", "public.comment", "public.score", "public.score_2026",
    )  # fmt: skip
    assert solo.fence().preflight().strategy is Strategy.GATE


def test_no_write_goes_through_and_every_read_does(site: Shop) -> None:
    """Pooled sessions from before, new ones, BEGIN READ WRITE, SET ROLE, views, columns, partitions, COPY."""
    before = site.session(site.app)
    assert before.execute("SELECT count(*) FROM story").fetchone() == (1,)
    fenced = site.up()
    refused = REFUSED_RIGHT if fenced.strategy is Strategy.REVOKE else REFUSED_READ_ONLY
    assert set(site.tried(site.app, *WRITES)) == {refused}
    with pytest.raises(psycopg.Error) as caught:
        before.execute(WRITES[0])
    assert caught.value.sqlstate == refused
    with pytest.raises(psycopg.Error) as copied, before.cursor().copy("COPY comment (id) FROM STDIN") as copy:
        copy.write("1\n")
    assert copied.value.sqlstate == refused
    assert site.tried(site.app, "SELECT * FROM story", "SELECT * FROM headline", "SELECT * FROM score") == [""] * 3
    site.fence().lift(site="shop")
    assert site.tried(site.app, *WRITES) == [""] * len(WRITES)
    before.execute(WRITES[0])


def test_privileges_alone_stop_set_role_sequences_and_new_tables(shop: Shop) -> None:
    """What membership alone would leave: SET ROLE, a sequence, CREATE in the schema, a table made under the fence."""
    shop.sql("GRANT CREATE ON SCHEMA public TO app")
    shop.up()
    assert shop.tried("app", f"SET ROLE app_rw; {WRITES[0]}", "SELECT nextval('story_id_seq')") == [REFUSED_RIGHT] * 2
    assert shop.tried("app", "CREATE TABLE mine (x int)") == [REFUSED_RIGHT]
    shop.as_owner("CREATE TABLE fresh (x int)")
    assert shop.tried("app", "INSERT INTO fresh VALUES (1)") == [REFUSED_RIGHT]
    assert shop.fence().open_tables() == ()
    shop.fence().lift(site="shop")
    # It gets what the default privileges, taken for the time, would have given it.
    assert shop.tried("app", "INSERT INTO fresh VALUES (1)", "CREATE TABLE mine (x int)") == ["", ""]


def test_the_migration_goes_through(site: Shop) -> None:
    """As its own role past privileges; with the run's token past triggers, and nobody without it."""
    run = Pass("7f3c", "a-random-token")
    fenced = site.up(run=run)
    assert fenced.run == "7f3c"
    options = {"options": "-c readonly.run=a-random-token"}
    steps = (
        "ALTER TABLE story ADD COLUMN words int",
        "UPDATE story SET words = 1",
        "CREATE TABLE tag (id int)",
        "INSERT INTO tag VALUES (1)",
        "DELETE FROM comment",
        "TRUNCATE score",
    )
    assert site.tried(site.owner, *steps, **options) == [""] * 6
    if fenced.strategy is not Strategy.REVOKE:
        assert site.tried(site.owner, "UPDATE story SET words = 2", options="-c readonly.run=guessed") == [
            REFUSED_READ_ONLY
        ]
        assert site.tried(site.owner, "UPDATE story SET words = 2") == [REFUSED_READ_ONLY]
    assert "a-random-token" not in site.sql("SELECT prosrc FROM pg_proc WHERE proname = 'gate'")


def test_a_run_that_goes_on_has_a_token_of_its_own(solo: Shop) -> None:
    """`resume` raises again with a new token; the old one opens nothing any more."""
    solo.up(run=Pass("7f3c", "first"))
    solo.up(run=Pass("7f3c", "second"))
    write = "UPDATE story SET title = 'y'"
    assert solo.tried("solo", write, options="-c readonly.run=first") == [REFUSED_READ_ONLY]
    assert solo.tried("solo", write, options="-c readonly.run=second") == [""]


def test_no_operator_of_the_writers_own_opens_the_gate(solo: Shop) -> None:
    """The trigger's function runs with the writer's search_path: an `=` of theirs is not asked."""
    solo.as_owner(
        "CREATE FUNCTION public.yes(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
        "CREATE OPERATOR public.= (FUNCTION = public.yes, LEFTARG = text, RIGHTARG = text)"
    )
    solo.up(run=Pass("7f3c", "token"))
    tricked = "SET search_path = public, pg_catalog; UPDATE public.story SET title = 'x'"
    assert solo.tried("solo", tricked, options="-c readonly.run=x") == [REFUSED_READ_ONLY]


def test_what_an_operator_typed_is_no_sql(solo: Shop) -> None:
    """A reason, a name, a site with quotes and dollar signs stands in the message as it was typed."""
    name = "o'brien $gate$ \\ %"
    fence = solo.fence()
    fence.put_up(site="shop", cause="c1", by=name, timeout=10)
    with pytest.raises(psycopg.Error, match="is read-only: its database was fenced by o'brien") as caught:
        solo.session("solo").execute("DELETE FROM story")
    assert name in str(caught.value)
    assert caught.value.diag.table_name == "story"


def test_earlier_writers_are_waited_for(site: Shop) -> None:
    """What had begun may commit; the fence is not safe before it has; a reader is not waited for."""
    writer = site.session(site.app, autocommit=False, application_name="slow-job")
    writer.execute(WRITES[0])
    reader = site.session(site.app, autocommit=False)
    reader.execute("SELECT count(*) FROM story")
    seen: list[str] = []
    waiting = threading.Event()

    def told(holdups: object) -> None:
        seen.append(str(holdups))
        waiting.set()

    raised: list[Fenced] = []
    thread = threading.Thread(target=lambda: raised.append(site.up(waiting=told)))
    thread.start()
    assert waiting.wait(60)
    assert "slow-job" in seen[0]
    assert thread.is_alive()
    writer.commit()
    thread.join(60)
    assert len(raised) == 1
    assert site.sql("SELECT count(*) FROM story") == "2"
    reader.rollback()


def test_what_does_not_end_is_named_or_ended(site: Shop) -> None:
    """Without a deadline for it: it stands, and is not safe. With one: ended, and said."""
    writer = site.session(site.app, autocommit=False, application_name="stuck")
    writer.execute(WRITES[0])
    with pytest.raises(StillWriting, match=r"new writes are refused, .* \(.*stuck\).* not safe"):
        site.fence().put_up(site="shop", cause="c1", by="ada", timeout=0.4)
    found = site.fence().status()
    assert found is not None
    assert found.position is None  # it was never safe
    fenced = site.up(end_after=0.0)
    assert [holdup.application for holdup in fenced.ended] == ["stuck"]
    assert fenced.position is not None
    with pytest.raises(psycopg.Error):
        writer.commit()
    assert site.sql("SELECT count(*) FROM story") == "1"


def test_who_is_gone_between_two_looks_is_not_ended_again(site: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be another session's by then; and who was ended is named once."""
    writer = site.session(site.app, autocommit=False, application_name="stuck")
    writer.execute(WRITES[0])
    pid = writer.info.backend_pid
    look, looked = _pg_writers.writers, list[frozenset[_pg_writers.Transaction]]()

    def late(connection: psycopg.Connection[Any]) -> frozenset[_pg_writers.Transaction]:
        """Look before it is gone, and hand that over when it is, once."""
        if looked:
            monkeypatch.setattr(_pg_writers, "writers", look)
            gone = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"
            eventually(lambda: site.sql(gone) == "0", what="it is gone")
            return looked[0]
        looked.append(look(connection))
        return looked[0]

    monkeypatch.setattr(_pg_writers, "writers", late)
    fenced = site.up(end_after=0.0)
    assert len(looked) == 1
    assert [(holdup.pid, holdup.application) for holdup in fenced.ended] == [(pid, "stuck")]


def test_a_prepared_transaction_is_named(site: Shop) -> None:
    """Whoever commits it gets past every fence, and no session can be ended for it."""
    session = site.session(site.app)
    session.execute("BEGIN; INSERT INTO story (title) VALUES ('two'); PREPARE TRANSACTION 'half'")
    try:
        with pytest.raises(StillWriting, match=r"prepared transaction 'half'.*ROLLBACK PREPARED"):
            site.fence().put_up(site="shop", cause="c1", by="ada", timeout=0.4)
    finally:
        session.execute("ROLLBACK PREPARED 'half'")
    assert site.up().position is not None


def test_who_only_reads_is_not_waited_for(site: Shop) -> None:
    """A report in a transaction, and one that locked a row: its later write is refused."""
    report = site.session(site.app, autocommit=False)
    report.execute("SELECT * FROM story")
    locker = site.session(site.app, autocommit=False)
    locker.execute("SELECT * FROM story FOR UPDATE")
    fenced = site.up()
    assert fenced.position is not None
    with pytest.raises(psycopg.Error) as caught:
        locker.execute("UPDATE story SET title = 'late'")
    assert caught.value.sqlstate in {REFUSED_RIGHT, REFUSED_READ_ONLY}
    report.execute("SELECT * FROM comment")


def test_raising_twice_and_twice_at_once(site: Shop) -> None:
    """The same cause holds once; the position of the first stays; two at once end in one fence."""
    first = site.up()
    again = site.up()
    assert again.position == first.position
    assert [holder.cause for holder in again.holders] == ["c1"]
    site.fence().lift(site="shop")
    done: list[Fenced] = []
    threads = [threading.Thread(target=lambda c=c: done.append(site.up(cause=c))) for c in ("c1", "c2", "c3")]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 3
    found = site.fence().status()
    assert found is not None
    assert {holder.cause for holder in found.holders} == {"c1", "c2", "c3"}
    assert set(site.tried(site.app, *WRITES)) <= {REFUSED_RIGHT, REFUSED_READ_ONLY}


def test_it_comes_down_with_its_last_holder(site: Shop) -> None:
    """Rule 13: held per cause."""
    site.up(cause="c1")
    site.up(cause="c2")
    left = site.fence().lift(site="shop", cause="c1")
    assert (left.down, [holder.cause for holder in left.held_by]) == (False, ["c2"])
    assert "" not in site.tried(site.app, WRITES[0])
    assert site.fence().lift(site="shop", cause="c2").down
    assert site.tried(site.app, WRITES[0]) == [""]
    assert site.fence().lift(site="shop", cause="c2") == Lifted("main", down=True)


def test_another_sites_fence_is_left_alone(site: Shop) -> None:
    """A copy of a database carries the fence of that night: it is named, and lifted only when told so."""
    site.up()
    other = site.fence()
    for call in (
        lambda: other.put_up(site="staging", cause="c9", by="bob", timeout=1),
        lambda: other.lift(site="staging"),
        lambda: other.look_again(site="staging", timeout=1),
    ):
        with pytest.raises(NotOurFence, match=r"carries a fence of shop, raised by ada .* --orphan"):
            call()
    assert "" not in site.tried(site.app, WRITES[0])
    assert other.lift(site="staging", orphan=True).down
    assert site.tried(site.app, WRITES[0]) == [""]


def test_a_second_look_takes_what_the_migration_made(solo: Shop) -> None:
    """New tables, a swapped one and a detached partition carry no trigger until somebody looks."""
    solo.up(run=Pass("r1", "token"))
    options = {"options": "-c readonly.run=token"}
    solo.as_owner(
        "CREATE TABLE story2 (id serial, title text); DROP TABLE story CASCADE; ALTER TABLE story2 RENAME TO story",
        **options,
    )
    solo.as_owner("CREATE TABLE tag (id int); CREATE TABLE score_2027 PARTITION OF score DEFAULT", **options)
    assert set(solo.fence().open_tables()) == {"public.story", "public.tag", "public.score_2027"}
    assert solo.tried("solo", "INSERT INTO tag VALUES (1)") == [""]
    again = solo.fence().look_again(site="shop", timeout=10)
    assert set(again.found) == {"public.story", "public.tag", "public.score_2027"}
    assert solo.tried("solo", "INSERT INTO tag VALUES (1)", "INSERT INTO story (title) VALUES ('x')") == [
        REFUSED_READ_ONLY, REFUSED_READ_ONLY,
    ]  # fmt: skip
    solo.fence().lift(site="shop")
    assert solo.tried("solo", "INSERT INTO tag VALUES (1)", "INSERT INTO story (title) VALUES ('x')") == ["", ""]


def test_a_trigger_that_somebody_switched_off_is_seen(solo: Shop) -> None:
    """The owner may; the second look finds it and puts it back."""
    solo.up()
    solo.as_owner("ALTER TABLE story DISABLE TRIGGER readonly_fence")
    assert solo.fence().open_tables() == ("public.story",)
    solo.fence().look_again(site="shop", timeout=10)
    assert solo.tried("solo", WRITES[0]) == [REFUSED_READ_ONLY]


def test_nothing_stands_where_nothing_was_raised(shop: Shop) -> None:
    """Status, a second look and a lift say so."""
    assert shop.fence().status() is None
    assert shop.fence().open_tables() == ()
    assert shop.fence().lift(site="shop").down
    with pytest.raises(Exception, match=r"no fence stands at .*, so this database takes writes"):
        shop.fence().look_again(site="shop", timeout=1)


def test_the_server_can_not_be_reached(shop: Shop) -> None:
    """An address where nobody listens, and a role that may not log in: named, with no password."""
    nowhere = Fence.from_url("postgresql://fencer:geheim@127.0.0.1:1/shop", writers=["app"])
    with pytest.raises(FenceUnreachable, match="main: the fence's server can't be reached") as caught:
        nowhere.status()
    assert "geheim" not in str(caught.value)
    with pytest.raises(FenceRefused, match=r"writers=\['nobody'\]: there is no such role"):
        shop.fence(writers=["nobody"]).preflight()
    with pytest.raises(ConfigurationError, match="url is no PostgreSQL URL") as spelled:
        Fence.from_url("postgresql://fencer:geheim@host/db?nonsense=1", writers=["app"]).status()
    assert "geheim" not in str(spelled.value)


@pytest.mark.parametrize(
    ("url", "writers", "says"),
    [
        ("oracle://x/y", ["app"], "begins with 'oracle' names no server that can be fenced"),
        ("postgresql://x/y", [], "writers=\\[\\] must list the roles"),
        ("postgresql://x/y", "app", "writers='app' must list the roles"),
        ("sqlite:///relative.db", [], "must name an absolute path"),
    ],
)
def test_bad_configuration_is_named(url: str, writers: list[str], says: str) -> None:
    """By setting and fence."""
    with pytest.raises(ConfigurationError, match=says):
        Fence.from_url(url, writers=writers)


def test_on_a_standby_nothing_is_raised(roles: PostgresServer) -> None:
    """After a failover the fence is on the new primary; a standby is refused; the fence stands there when promoted."""
    standby = roles.standby()
    name = roles.new_database()
    try:
        roles.sql(f"GRANT CREATE ON DATABASE {name} TO fencer")
        roles.sql(
            "CREATE TABLE story (id int); GRANT INSERT ON story TO app; ALTER TABLE story OWNER TO owner_",
            database=name,
        )
        here = Shop(roles, name, app="app", owner="owner_", fencer="fencer")
        fenced = here.up()
        there = Shop(standby, name, app="app", owner="owner_", fencer="fencer")
        eventually(
            lambda: standby.sql(f"SELECT pg_last_wal_replay_lsn() >= '{fenced.position}'") == "t", 20, what="replay"
        )
        with pytest.raises(FenceRefused, match="is a standby: a fence is raised at the primary"):
            there.up()
        standby.promote()
        # What the fence wrote after its position has come across as well: it was committed before it was returned.
        assert there.tried("app", "INSERT INTO story VALUES (1)") == [REFUSED_RIGHT]
        found = there.fence().status()
        assert found is not None
        assert found.position == fenced.position
        assert there.fence().open_tables() == ()
        assert there.fence().lift(site="shop").down
        assert there.tried("app", "INSERT INTO story VALUES (1)") == [""]
        here.close()
        there.close()
    finally:
        standby.close()
        roles.drop_database(name)
