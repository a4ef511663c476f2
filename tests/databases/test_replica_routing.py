"""A real primary and its standby, looked at in the background: which of them is read, and what keeps a standby out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from readonly import ReadOnlyError, Switch, changes
from readonly.changes import Operator
from readonly.databases.replicas import Schema, postgresql, query
from readonly.databases.sqlalchemy import Database
from readonly.errors import ConfigurationError, NoFitReplica
from readonly.record import FenceMark
from support.looking import left_out_for_good, look_often, nothing_is_late
from support.postgres_server import PostgresPair
from support.waiting import eventually

from .conftest import Client

VERSION = "SELECT v FROM version"


class Pair:
    """A guarded primary and its standby, routed."""

    def __init__(self, kind: str, servers: PostgresPair, switch: Switch, database: str, **options: Any) -> None:
        self.servers, self.switch = servers, switch
        self.client = Client(kind, servers.primary.url(database))
        self.standby = Client(kind, servers.standby.url(database), beside=self.client)
        self.database = Database(self.client.engine, switch, replicas=[self.standby.engine], **options)
        self.session_class = self.database.routing(Session)
        self.name = database

    def session(self, body: Callable[[Session], Any], **options: Any) -> Any:
        return self.client.session(body, self.session_class, **options)

    def on_standby(self, **options: Any) -> bool:
        """Tell where a read goes."""
        return bool(self.session(lambda s: s.execute(text("SELECT pg_is_in_recovery()")).scalar_one(), **options))

    def sql(self, statement: str) -> None:
        """Change the primary behind everybody's back, as a migration would."""
        self.servers.primary.sql(statement, database=self.name)

    def position(self) -> tuple[str, str]:
        system, at = self.servers.primary.sql(
            "SELECT system_identifier, pg_current_wal_flush_lsn() FROM pg_control_system()"
        ).split("|")
        return system, at

    def fenced(self, *, system: str = "", at: str = "", schema: str = "") -> None:
        """Say in the record that a fence stands at the primary's position."""
        self.sql("SELECT pg_logical_emit_message(true, 'marker', 'x')")
        found_system, found_at = self.position()
        mark = FenceMark(
            "main", server="db1:5432/shop", system=system or found_system, position=at or found_at, level="hard",
            schema=schema,
        )  # fmt: skip
        changes.set_fence(self.switch.store, Operator("ada", "here"), mark)
        eventually(
            lambda: any(c.fence == mark for c in self.switch.state.causes), 10.0, what="the switch knows of the fence"
        )

    def unfit(self) -> str:
        """Return why the standby is not read, as it is reported."""
        [said] = self.database.describe()["replicas"]
        return str(said["unfit"])

    def says(self, why: str) -> None:
        """Wait until that is why the standby is not read."""
        eventually(lambda: why in self.unfit(), 15.0, what=f"it says that it {why}")

    def becomes(self, on_standby: bool, **options: Any) -> None:
        """Wait until reads go where they should."""
        eventually(
            lambda: self.on_standby(**options) is on_standby, 15.0,
            what=f"reads go to the {'standby' if on_standby else 'primary'}: it {self.unfit()}",
        )  # fmt: skip

    def close(self) -> None:
        self.database.close()
        self.standby.close()
        self.client.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and wait for nothing but what is looked at."""
    look_often(monkeypatch)
    nothing_is_late(monkeypatch)


@pytest.fixture(scope="module")
def servers(postgres_pair: PostgresPair) -> PostgresPair:
    """The shared pair, with somebody else's writes in its log: else the standby has nothing to tell."""
    return postgres_pair


@pytest.fixture
def make_pair(servers: PostgresPair, switch: Switch) -> Iterator[Callable[..., Pair]]:
    """Make the pair with a database of its own, at version 0041; replay goes on when the test is over."""
    made: list[Pair] = []
    name = servers.primary.new_database()

    def make(kind: str = "psycopg", **options: Any) -> Pair:
        if not made:
            servers.primary.sql("CREATE TABLE version (v text); INSERT INTO version VALUES ('0041')", database=name)
        servers.wait_replayed()
        made.append(Pair(kind, servers, switch, name, **options))
        return made[-1]

    yield make
    for pair in made:
        pair.close()
    servers.standby.sql("SELECT pg_wal_replay_resume() FROM (SELECT 1) s WHERE pg_is_wal_replay_paused()")
    servers.primary.drop_database(name)


@pytest.mark.parametrize("kind", ["psycopg", "psycopg_async", "asyncpg"])
def test_reads_go_to_a_standby_while_read_only(kind: str, make_pair: Callable[..., Pair], switch: Switch) -> None:
    """By itself, through each driver; writes there are refused, and after it the primary is read."""
    pair = make_pair(kind)
    assert not pair.on_standby()
    switch.on()
    pair.becomes(True)
    with pytest.raises(ReadOnlyError):
        pair.session(lambda s: s.execute(text("INSERT INTO version VALUES ('x')")))
    described = pair.database.describe()
    assert described["system"] == pair.position()[0]
    [replica] = described["replicas"]
    assert replica["system"] == described["system"]
    assert replica["unfit"] == ""
    switch.off()
    assert not pair.on_standby()


def test_a_standby_that_is_frozen_is_read_while_the_migration_runs(
    make_pair: Callable[..., Pair], switch: Switch
) -> None:
    """It has the fence's position and this code's schema, however far behind the primary it is."""
    pair = make_pair(schema=query(VERSION, expected="0041"), max_lag=0.001)
    switch.on()
    pair.fenced()
    pair.becomes(True)
    pair.servers.standby.sql("SELECT pg_wal_replay_pause()")
    pair.sql("UPDATE version SET v = '0042'")
    pair.sql("BEGIN; LOCK TABLE version IN ACCESS EXCLUSIVE MODE; UPDATE version SET v = '0043'; COMMIT")
    _looked_again(pair)
    assert pair.on_standby()
    assert pair.session(lambda s: s.execute(text(VERSION)).scalar_one()) == "0041"


def test_a_standby_that_is_behind_the_fence_is_not_read(make_pair: Callable[..., Pair], switch: Switch) -> None:
    """However little it lags: one write that everybody was told of would be missing."""
    pair = make_pair(max_lag=3600.0)
    switch.on()
    pair.becomes(True)
    pair.servers.standby.sql("SELECT pg_wal_replay_pause()")
    pair.sql("INSERT INTO version VALUES ('late')")
    pair.fenced()
    pair.becomes(False)
    pair.says("replay is paused")
    pair.servers.standby.sql("SELECT pg_wal_replay_resume()")
    pair.becomes(True)


def test_a_position_of_another_system(make_pair: Callable[..., Pair], switch: Switch) -> None:
    """It means nothing here, and that is what is said."""
    pair = make_pair()
    switch.on()
    pair.becomes(True)
    pair.fenced(system="7388402", at="0/1")
    pair.becomes(False)
    pair.says("not a replica of the primary that was fenced (7388402)")


def test_a_standby_one_schema_version_behind_is_not_read(make_pair: Callable[..., Pair], switch: Switch) -> None:
    """New code has the migrated primary, old code the standby, at the same time."""
    old = make_pair(schema=query(VERSION, expected="0041"), name="old")
    new = make_pair(schema=query(VERSION, expected="0042"), name="new")
    switch.on()
    old.fenced()
    old.becomes(True)
    new.says("0041, and this code was written for 0042")
    assert not new.on_standby()
    old.sql("UPDATE version SET v = '0042'")
    new.becomes(True)
    old.becomes(False)


def test_where_this_codes_version_is_not_known(make_pair: Callable[..., Pair], switch: Switch) -> None:
    """A replica must have its primary's; a frozen one what was there at the fence, however far the migration is."""
    pair = make_pair(schema=VERSION)
    switch.on()
    pair.fenced(schema="0041")
    pair.becomes(True)
    pair.servers.standby.sql("SELECT pg_wal_replay_pause()")
    pair.sql("UPDATE version SET v = '0042'")
    _primary_is(pair, "0042")
    _looked_again(pair)
    assert pair.on_standby()
    pair.servers.standby.sql("SELECT pg_wal_replay_resume()")
    eventually(lambda: pair.servers.standby.sql(VERSION, database=pair.name) == "0042", 10.0, what="it has caught up")
    pair.becomes(True)


def test_one_that_lags_behind_a_migration(make_pair: Callable[..., Pair], switch: Switch) -> None:
    """One version behind its primary, and not frozen: it is not read from, until it has caught up."""
    pair = make_pair(schema=VERSION, max_lag=3600.0)
    switch.on()
    pair.becomes(True)
    with _held_up(pair) as reader:
        pair.sql("UPDATE version SET v = '0042'")
        _primary_is(pair, "0042")
        pair.becomes(False)
        pair.says("has schema version 0041, and this code was written for 0042")
        reader.rollback()
    pair.becomes(True)


def test_a_frozen_one_with_another_schema_than_at_the_fence(make_pair: Callable[..., Pair], switch: Switch) -> None:
    """Frozen too late: it holds half a migration."""
    pair = make_pair(schema=VERSION)
    switch.on()
    pair.fenced(schema="0040")
    pair.becomes(True)
    pair.servers.standby.sql("SELECT pg_wal_replay_pause()")
    pair.becomes(False)
    pair.says("has schema version 0041, and this code was written for 0040")


def test_a_probe_waits_for_no_lock(make_pair: Callable[..., Pair], switch: Switch) -> None:
    """A migration's lock on the version's table, replayed on the standby: said, and nobody hangs."""
    pair = make_pair(schema=query(VERSION, expected="0041"))
    switch.on()
    pair.becomes(True)
    import psycopg

    with psycopg.connect(pair.servers.primary.url(pair.name)) as migration:
        migration.execute("LOCK TABLE version IN ACCESS EXCLUSIVE MODE")
        migration.execute("INSERT INTO version VALUES ('x')")
        pair.sql("SELECT pg_logical_emit_message(true, 'marker', 'x')")  # the next commit sends the lock along
        pair.says("lock timeout")
        migration.rollback()
    pair.becomes(True)


def test_after_off_reads_come_back_when_the_end_is_there(make_pair: Callable[..., Pair], switch: Switch) -> None:
    """With `always`: the primary, until the standby has what was committed before the end."""
    pair = make_pair(always=True)
    reads = {"info": {"reads": True}}
    pair.becomes(True, **reads)
    assert not pair.on_standby()  # a session that does not say so of itself
    switch.on()
    pair.becomes(True)
    pair.servers.standby.sql("SELECT pg_wal_replay_pause()")
    pair.sql("INSERT INTO version VALUES ('migrated')")
    switch.off()
    pair.says("has not reached")
    assert not pair.on_standby(**reads)
    pair.servers.standby.sql("SELECT pg_wal_replay_resume()")
    pair.becomes(True, **reads)


def test_none_fit_refuses_where_that_is_wanted(make_pair: Callable[..., Pair], switch: Switch) -> None:
    """Reads stay off the primary, and the error says why; work that writes is none of it."""
    pair = make_pair(none_fit="refuse", schema=query(VERSION, expected="0042"))
    assert not pair.on_standby()
    switch.on()
    with pytest.raises(NoFitReplica, match="none_fit='refuse'"):
        pair.on_standby()
    pair.says("0042")
    pair.sql("UPDATE version SET v = '0042'")

    def served() -> bool:
        try:
            return pair.on_standby()
        except NoFitReplica:
            return False

    eventually(served, 10.0, what="it is read")


@pytest.mark.parametrize("kind", ["psycopg", "asyncpg"])
def test_a_read_that_loses_its_replica_is_done_again(
    kind: str, make_pair: Callable[..., Pair], switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything was read, and once, in a transaction that is held open as well; afterwards the error stands."""
    left_out_for_good(monkeypatch)
    pair = make_pair(kind)
    switch.on()
    pair.becomes(True)
    [replica] = pair.database._replicas.all

    def cut() -> None:
        pair.servers.standby.sql(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{pair.name}'"
        )

    def body(session: Session) -> None:
        with session.begin():
            cut()
            assert not session.execute(text("SELECT pg_is_in_recovery()")).scalar_one()
            assert not session.execute(text("SELECT pg_is_in_recovery()")).scalar_one()
        assert replica.left_out

    pair.session(body)
    replica._out_until = 0.0
    _looked_again(pair)  # whose connection was cut as well
    pair.becomes(True)

    def read_already(session: Session) -> None:
        assert session.execute(text("SELECT pg_is_in_recovery()")).scalar_one()
        cut()
        with pytest.raises(Exception, match=r"terminat|closed"):
            session.execute(text("SELECT pg_is_in_recovery()"))

    pair.session(read_already)


def test_a_replica_that_is_gone_comes_back_by_itself(own_postgres_pair: PostgresPair, switch: Switch) -> None:
    """Killed: the primary is read, without an error. Started: it is read again. Promoted: never again."""
    own_postgres_pair.primary.sql("CREATE TABLE story (id int)")
    own_postgres_pair.wait_replayed()
    pair = Pair("psycopg", own_postgres_pair, switch, "postgres")
    try:
        switch.on()
        pair.becomes(True)
        own_postgres_pair.standby.kill()
        assert not pair.on_standby()
        pair.says("can't be looked at")
        own_postgres_pair.standby.start()
        pair.becomes(True)
        own_postgres_pair.standby.promote()
        pair.says("was it promoted?")
        assert pair.session(lambda s: s.connection().engine is pair.client.sync_engine)
    finally:
        pair.close()


def test_a_url_that_never_connects_to_a_standby(
    make_client: Callable[..., Client], switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found when the object is built, and named, whether the URL says so or the environment."""
    client = make_client("psycopg")
    there = "postgresql://postgres@127.0.0.1:1/x"
    for url, environment in ((f"{there}?target_session_attrs=read-write", ""), (there, "primary")):
        if environment:
            monkeypatch.setenv("PGTARGETSESSIONATTRS", environment)
        standby = Client("psycopg", url, beside=client)
        with pytest.raises(ConfigurationError, match=r"replicas\[0\].*connects to a primary alone"):
            Database(client.engine, switch, replicas=[standby.engine])
        standby.close()


def test_settings_that_can_not_be_right(make_client: Callable[..., Client], switch: Switch) -> None:
    """Each is named."""
    client = make_client("sqlite3")
    wrong: list[dict[str, Any]] = [{"none_fit": "nothing"}, {"max_lag": 0.0}, {"schema": "alembick"}]
    for setting in wrong:
        with pytest.raises(ConfigurationError, match=f"{next(iter(setting))}="):
            Database(client.engine, switch, **setting)


def test_a_look_leaves_nothing_open(servers: PostgresPair) -> None:
    """Plain functions over a connection of the caller's, in autocommit or not, as the operator's side uses them."""
    import psycopg

    for autocommit in (False, True):
        with psycopg.connect(servers.standby.url(), autocommit=autocommit) as connection:
            found = postgresql.look(connection, Schema("SELECT nothing FROM nowhere"))
            assert found.replica
            assert "does not exist" in found.no_schema
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            row = connection.execute("SHOW statement_timeout").fetchone()
            assert row == ("0",)


@contextmanager
def _held_up(pair: Pair) -> Iterator[Any]:
    """Keep the standby from replaying what comes, by a reader of a table that is locked next."""
    import psycopg

    pair.sql("CREATE TABLE busy (id int)")
    pair.servers.wait_replayed()
    with psycopg.connect(pair.servers.standby.url(pair.name)) as reader:
        reader.execute("SELECT * FROM busy")
        pair.sql("BEGIN; LOCK TABLE busy IN ACCESS EXCLUSIVE MODE; INSERT INTO busy VALUES (1); COMMIT")
        yield reader


def _primary_is(pair: Pair, version: str) -> None:
    """Wait until this process has seen the primary's version."""
    watch = pair.database._watched.watch
    eventually(
        lambda: watch._primary is not None and watch._primary.schema == (version,), 10.0, what="the primary is asked"
    )


def _looked_again(pair: Pair) -> None:
    """Wait for a look that began after this."""
    [replica] = pair.database._replicas.all
    for _ in range(2):
        before = replica._looked_at
        eventually(lambda before=before: replica._looked_at > before, 10.0, what="it is looked at")  # type: ignore[misc]
