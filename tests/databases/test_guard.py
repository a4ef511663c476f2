"""The guard: what is refused while read-only, and by whom."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType

import pytest
from sqlalchemy import Connection, Engine, event, insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from readonly import ReadOnlyError, Switch
from readonly.context import Work, working
from readonly.databases.sqlalchemy import Database
from support.waiting import eventually

from .conftest import MYSQL, POSTGRES, SQLITE, Client
from .models import Story

REFUSED_EVERYWHERE = (
    "INSERT INTO story (title) VALUES ('x')",
    "UPDATE story SET title = 'x'",
    "UPDATE story SET title = 'x' WHERE 1 = 0",
    "DELETE FROM story",
    "CREATE TABLE other (x INTEGER)",
    "CREATE TEMPORARY TABLE other (x INTEGER)",
    "DROP TABLE story",
)


def test_writes_are_refused_while_read_only(client: Client, guarded: Database, switch: Switch) -> None:
    """Whatever the server calls a write is a ReadOnlyError, and nothing is written."""
    switch.on(reason="migration")
    for statement in REFUSED_EVERYWHERE:
        with pytest.raises(ReadOnlyError, match="migration") as refused:
            client.write(statement)
        assert refused.value.database == "main"
    assert client.count() == 1


@pytest.mark.parametrize("kind", POSTGRES)
def test_what_postgresql_calls_a_write(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """The server judges: writes in disguise are refused, with the server's own words."""
    client = make_client(kind)
    Database(client.engine, switch)
    switch.on()
    for statement in (
        "WITH gone AS (DELETE FROM story RETURNING 1) SELECT * FROM gone",
        "SELECT * INTO other FROM story",
        "CREATE TABLE other AS SELECT 1",
        "SELECT nextval('story_id_seq')",
        "SELECT * FROM story FOR UPDATE",
        "SELECT * FROM story FOR SHARE",
        "EXPLAIN ANALYZE DELETE FROM story",
        "TRUNCATE story",
        "DO $$ BEGIN INSERT INTO story (title) VALUES ('x'); END $$",
        "GRANT SELECT ON story TO PUBLIC",
    ):
        with pytest.raises(ReadOnlyError, match="read-only transaction"):
            client.write(statement)


@pytest.mark.parametrize("kind", POSTGRES)
def test_what_postgresql_calls_a_read(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """Nothing is refused for how it looks."""
    client = make_client(kind)
    Database(client.engine, switch)
    switch.on()
    for statement in (
        "EXPLAIN DELETE FROM story",
        "SELECT pg_advisory_xact_lock(1)",
        "/* INSERT */ SELECT 'a; delete b'",
        "VALUES (1)",
        "TABLE story",
    ):
        client.write(statement)


@pytest.mark.parametrize("kind", SQLITE)
def test_what_sqlite_calls_a_write(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """query_only refuses more than statements that begin with a writing word."""
    client = make_client(kind)
    Database(client.engine, switch)
    switch.on()
    for statement in (
        "PRAGMA user_version = 5",
        "WITH x AS (SELECT 1) INSERT INTO story (title) SELECT 'x'",
    ):
        with pytest.raises(ReadOnlyError):
            client.write(statement)


@pytest.mark.parametrize("kind", MYSQL)
def test_what_mariadb_calls_a_write(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """The session's default refuses before an implicit commit, and holds after one."""
    client = make_client(kind)
    Database(client.engine, switch)
    switch.on()
    for statement in (
        "TRUNCATE story",
        "SELECT * FROM story FOR UPDATE",
        "ALTER TABLE story ADD more INTEGER",
        "RENAME TABLE story TO other",
        "EXPLAIN UPDATE story SET title = 'x'",
        "OPTIMIZE TABLE story",
    ):
        with pytest.raises(ReadOnlyError, match="READ ONLY transaction"):
            client.write(statement)

    def body(connection: Connection) -> None:
        connection.execute(text("SELECT * FROM story LOCK IN SHARE MODE"))
        connection.execute(text("COMMIT"))
        with pytest.raises(ReadOnlyError):
            connection.execute(text("INSERT INTO story (title) VALUES ('x')"))
        connection.execute(text("START TRANSACTION"))
        with pytest.raises(ReadOnlyError):
            connection.execute(text("INSERT INTO story (title) VALUES ('x')"))

    client.connect(body)
    assert client.count() == 1


def test_writes_pass_while_writable_and_after(client: Client, guarded: Database, switch: Switch) -> None:
    """A pooled connection that was used while read-only writes again when the mode is over."""
    client.write()
    switch.on()
    with pytest.raises(ReadOnlyError):
        client.write()
    assert client.count() == 2
    switch.off()
    client.write()
    assert client.count() == 3
    assert switch.inflight.count() == 0


def test_reads_pass_while_read_only(client: Client, guarded: Database, switch: Switch) -> None:
    """Reading needs nothing special."""
    switch.on()
    assert client.count() == 1


def test_the_refusal_names_the_table_and_marks_the_request(client: Client, guarded: Database, switch: Switch) -> None:
    """The middleware finds the refusal on the request, whatever the application made of the exception."""
    switch.on()
    work = Work(switch)
    with working(work), pytest.raises(ReadOnlyError) as refused:
        client.connect(lambda c: c.execute(insert(Story).values(title="x")))
    assert refused.value.table == "story"
    assert work.escape is refused.value
    assert isinstance(refused.value.__cause__, Exception)


def test_work_that_may_write_writes(client: Client, guarded: Database, switch: Switch) -> None:
    """A bypass, and a request that was admitted before the switch, also on a connection that was guarded before."""
    switch.on()
    with pytest.raises(ReadOnlyError):
        client.write()
    with working(Work(switch, bypass=True)):
        client.write()
    with pytest.raises(ReadOnlyError):
        client.write()
    assert client.count() == 2


def test_the_next_transaction_of_a_held_connection_is_guarded(
    client: Client, guarded: Database, switch: Switch
) -> None:
    """A connection held open across the switch finishes what it began, and no more; and the other way round."""

    def body(connection: Connection) -> None:
        connection.execute(text("INSERT INTO story (title) VALUES ('before')"))
        switch.on()
        connection.execute(text("INSERT INTO story (title) VALUES ('begun before')"))
        connection.commit()
        with pytest.raises(ReadOnlyError):
            connection.execute(text("INSERT INTO story (title) VALUES ('after')"))
        connection.rollback()
        assert connection.execute(text("SELECT count(*) FROM story")).scalar_one() == 3
        connection.rollback()
        switch.off()
        connection.execute(text("INSERT INTO story (title) VALUES ('again')"))
        connection.commit()

    client.connect(body)
    assert client.count() == 4


def test_a_transaction_begun_read_only_stays_so(client: Client, guarded: Database, switch: Switch) -> None:
    """A transaction that began READ ONLY does not become a writing one in its middle."""
    switch.on()

    def body(connection: Connection) -> None:
        connection.execute(text("SELECT 1"))
        switch.off()
        with pytest.raises(ReadOnlyError):
            connection.execute(text("INSERT INTO story (title) VALUES ('x')"))

    client.connect(body)


def test_savepoints(client: Client, guarded: Database, switch: Switch) -> None:
    """A refused write in a savepoint leaves the transaction usable for reading."""
    switch.on()

    def body(connection: Connection) -> None:
        connection.execute(text("SELECT 1"))
        with pytest.raises(ReadOnlyError), connection.begin_nested():
            connection.execute(text("INSERT INTO story (title) VALUES ('x')"))
        assert connection.execute(text("SELECT count(*) FROM story")).scalar_one() == 1

    client.connect(body)


def test_other_errors_stay_errors(client: Client, guarded: Database, switch: Switch) -> None:
    """Only the code counts: an error that talks of a read-only transaction is not one."""
    with pytest.raises(IntegrityError):
        client.write("INSERT INTO story (title) VALUES (NULL)")
    switch.on()
    with pytest.raises(DBAPIError) as failed:
        client.connect(lambda c: c.execute(text('SELECT "attempt to write a readonly database" FROM nowhere')))
    assert not isinstance(failed.value, ReadOnlyError)


@pytest.mark.parametrize("kind", POSTGRES)
def test_a_message_in_the_words_of_a_refusal_is_none(
    kind: str, make_client: Callable[..., Client], switch: Switch
) -> None:
    """The words are the application's, the code is not 25006."""
    client = make_client(kind)
    Database(client.engine, switch)
    switch.on()
    statement = "DO $$ BEGIN RAISE EXCEPTION 'cannot execute INSERT in a read-only transaction'; END $$"
    with pytest.raises(DBAPIError):
        client.connect(lambda c: c.execute(text(statement)))


@pytest.mark.parametrize("kind", POSTGRES)
def test_the_applications_own_read_only_transaction_is_its_own(
    kind: str, make_client: Callable[..., Client], switch: Switch
) -> None:
    """While the site is writable, 25006 is a bug of the application and no answer to a visitor."""
    client = make_client(kind)
    Database(client.engine, switch)

    def body(connection: Connection) -> None:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        with pytest.raises(DBAPIError):
            connection.execute(text("INSERT INTO story (title) VALUES ('x')"))

    client.connect(body)


def test_raw_cursors(client: Client, guarded: Database, switch: Switch) -> None:
    """A cursor of the driver is guarded too; its error is the driver's."""
    switch.on()

    def body(engine: Engine) -> None:
        raw = engine.raw_connection()
        try:
            cursor = raw.cursor()
            with pytest.raises(Exception, match=r"(?i)read[ -]?only") as refused:
                cursor.execute("INSERT INTO story (title) VALUES ('x')")
            assert guarded._server.is_refusal(refused.value)
            cursor.close()
        finally:
            raw.close()
        switch.off()
        raw = engine.raw_connection()
        cursor = raw.cursor()
        cursor.execute("INSERT INTO story (title) VALUES ('x')")
        cursor.close()
        raw.commit()
        raw.close()

    client.call(body)
    assert client.count() == 2


def test_a_raw_checkout_is_in_flight_as_a_whole(client: Client, guarded: Database, switch: Switch) -> None:
    """Nobody tells us when a raw connection begins and commits: it is drained when it comes back."""

    def body(engine: Engine) -> None:
        raw = engine.raw_connection()
        assert switch.inflight.count() == 1
        raw.close()
        assert switch.inflight.count() == 0
        with engine.connect():
            assert switch.inflight.count() == 0

    client.call(body)


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "begin exclusive"])
def test_sqlite_readers_that_begin_to_write_still_read(
    make_client: Callable[..., Client], switch: Switch, statement: str
) -> None:
    """The documented recipe sends BEGIN IMMEDIATE for every transaction; pages must stay readable with it."""
    client = make_client("sqlite3")

    @event.listens_for(client.sync_engine, "connect")
    def no_driver_transactions(connection: object, entry: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]

    @event.listens_for(client.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    client.sync_engine.dispose()
    Database(client.engine, switch)
    client.write()
    switch.on()
    assert client.count() == 2
    with pytest.raises(ReadOnlyError):
        client.write()
    switch.off()
    client.write()
    assert client.count() == 3


LIFTING = {
    "postgresql": [
        "SET TRANSACTION READ WRITE",
        "set transaction isolation level serializable, read\nwrite",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SET default_transaction_read_only = off",
        "SET LOCAL transaction_read_only TO 'off'",
        "RESET ALL",
        "RESET default_transaction_read_only",
        "DISCARD ALL",
    ],
    "sqlite": ["PRAGMA query_only = 0", "pragma main.query_only(off)"],
    "mysql": [
        "SET SESSION TRANSACTION READ WRITE",
        "START TRANSACTION READ WRITE",
        "start transaction with consistent snapshot, read\nwrite",
        "SET @@session.tx_read_only = 0",
        "SET autocommit = 1, SESSION tx_read_only = OFF",
        "SET STATEMENT tx_read_only=0 FOR INSERT INTO story (title) VALUES ('x')",
    ],
}


def test_statements_that_would_lift_the_guard(client: Client, guarded: Database, switch: Switch) -> None:
    """As first statement the server would obey them; while writable nobody minds."""
    statements = LIFTING[client.family]
    switch.on()
    for statement in statements:
        with pytest.raises(ReadOnlyError, match="would lift the guard"):
            client.connect(lambda c, s=statement: c.exec_driver_sql(s))  # type: ignore[misc]
    if client.kind in POSTGRES:
        client.connect(lambda c: c.exec_driver_sql("SET LOCAL work_mem = '8MB'"))
        client.connect(lambda c: c.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY"))
    switch.off()
    client.connect(lambda c: c.exec_driver_sql(statements[0]))


def test_a_flush_is_refused(client: Client, guarded: Database, switch: Switch) -> None:
    """The unit of work fails with our error, and the session is usable after a rollback."""
    switch.on()

    def body(session: Session) -> None:
        session.add(Story(title="x"))
        with pytest.raises(ReadOnlyError):
            session.commit()
        session.rollback()
        assert session.get(Story, 1) is not None

    client.session(body)


@pytest.mark.parametrize("kind", [*POSTGRES, *MYSQL])
def test_what_was_prepared_before_is_not_committed(
    kind: str, make_client: Callable[..., Client], switch: Switch
) -> None:
    """No server refuses that in a read-only session; a transaction manager that recovers is refused by the guard."""
    client = make_client(kind)
    guarded = Database(client.engine, switch)
    before = client.count()
    xids = [f"{kind}-{number}" for number in range(3)]
    for xid in xids:
        client.connect(partial(prepared, client, xid), isolation_level="AUTOCOMMIT")
    assert switch.inflight.count() == 0
    switch.on()
    text_of, undo = ("COMMIT PREPARED '{}'", "ROLLBACK PREPARED '{}'")
    if kind in MYSQL:
        text_of, undo = ("XA COMMIT '{}'", "XA ROLLBACK '{}'")

    def commits(connection: Connection) -> None:
        for recover in (False, True):
            with pytest.raises(ReadOnlyError, match="or commit what was prepared before"):
                connection.commit_prepared(xids[0], recover=recover)
        with pytest.raises(ReadOnlyError, match="or commit what was prepared before"):
            connection.exec_driver_sql(text_of.format(xids[1]))

    client.connect(commits, isolation_level="AUTOCOMMIT")
    client.connect(lambda connection: connection.exec_driver_sql(undo.format(xids[2])), isolation_level="AUTOCOMMIT")
    assert client.count() == before
    switch.off()
    again = {} if kind in POSTGRES else {"isolation_level": "AUTOCOMMIT"}  # where MariaDB knows of no other work
    client.connect(lambda connection: connection.commit_prepared(xids[0], recover=True), **again)
    client.connect(lambda c: c.exec_driver_sql(text_of.format(xids[1])), isolation_level="AUTOCOMMIT")
    assert client.count() == before + 2
    assert switch.inflight.count() == 0
    guarded.close()


def prepared(client: Client, xid: str, connection: Connection) -> None:
    """Prepare a write, and leave it behind as a transaction manager does that dies."""
    insert = "INSERT INTO story (title) VALUES ('x')"
    steps = ["BEGIN", insert, f"PREPARE TRANSACTION '{xid}'"]
    if client.family == "mysql":
        steps = [f"XA BEGIN '{xid}'", insert, f"XA END '{xid}'", f"XA PREPARE '{xid}'"]
        number = connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()
    for step in steps:
        connection.exec_driver_sql(step)
    connection.invalidate()
    if client.family == "mysql":
        # MariaDB lets another session commit it once this one is gone.
        there = f"SELECT count(*) FROM information_schema.PROCESSLIST WHERE ID = {number}"
        connection.rollback()
        eventually(lambda: connection.exec_driver_sql(there).scalar_one() == 0, what="the session is gone")


@pytest.mark.parametrize("kind", [*POSTGRES, *MYSQL])
def test_two_phase(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """A two-phase transaction is counted until the second phase, and refused while read-only."""
    client = make_client(kind)
    Database(client.engine, switch)

    def body(connection: Connection) -> None:
        transaction = connection.begin_twophase()
        connection.execute(text("INSERT INTO story (title) VALUES ('x')"))
        transaction.prepare()
        switch.on()
        assert switch.inflight.count() == 1
        transaction.commit()
        assert switch.inflight.count() == 0
        transaction = connection.begin_twophase()
        with pytest.raises(ReadOnlyError):
            connection.execute(text("INSERT INTO story (title) VALUES ('x')"))
        transaction.rollback()
        # Reading in a two-phase transaction works to its end.
        transaction = connection.begin_twophase()
        connection.execute(text("SELECT 1"))
        transaction.prepare()
        transaction.commit()

    client.connect(body)
    assert client.count() == 2
    assert switch.inflight.count() == 0


def test_what_is_over_is_over_at_once(make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """Under uWSGI, where each transaction looks for itself, the last refusal does not speak for the time after it."""
    monkeypatch.setitem(sys.modules, "uwsgi", ModuleType("uwsgi"))
    switch = Switch.from_url("memory://?site=uwsgi")
    client = make_client("sqlite3")
    database = Database(client.engine, switch)
    try:
        for _ in range(5):
            switch.on()
            with pytest.raises(ReadOnlyError):
                client.write()
            switch.off()
            client.write()
    finally:
        database.close()
        switch.close()
