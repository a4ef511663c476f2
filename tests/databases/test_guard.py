"""The guard: what is refused while read-only, by whom, and what is left on the connections afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest
from sqlalchemy import Connection, Engine, event, insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.orm import Session

from readonly import ReadOnlyError, Switch
from readonly.context import Work, working
from readonly.databases.sqlalchemy import Database

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


# --- autocommit ------------------------------------------------------------------------------------------------------


def test_autocommit_by_option(client: Client, guarded: Database, switch: Switch) -> None:
    """Where there is no transaction to mark, the session's default refuses; and it is put back."""
    statement = text("INSERT INTO story (title) VALUES ('x')")
    client.connect(lambda c: c.execute(statement), isolation_level="AUTOCOMMIT")
    switch.on()
    with pytest.raises(ReadOnlyError):
        client.connect(lambda c: c.execute(statement), isolation_level="AUTOCOMMIT")
    assert client.count() == 2
    switch.off()
    client.connect(lambda c: c.execute(statement), isolation_level="AUTOCOMMIT")
    client.write()
    assert client.count() == 4


@pytest.mark.parametrize("kind", POSTGRES + MYSQL)
def test_autocommit_engine(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """An engine in autocommit from the start, raw cursors included."""
    make_client(kind)
    client = make_client(kind, isolation_level="AUTOCOMMIT")
    database = Database(client.engine, switch)
    switch.on()
    with pytest.raises(ReadOnlyError):
        client.write()

    def body(engine: Engine) -> None:
        raw = engine.raw_connection()
        cursor = raw.cursor()
        with pytest.raises(Exception, match=r"(?i)read[ -]only"):
            cursor.execute("INSERT INTO story (title) VALUES ('x')")
        cursor.close()
        raw.close()

    client.call(body)
    assert database.prove() == ""
    switch.off()
    client.write()
    assert client.count() == 2


@pytest.mark.parametrize("kind", POSTGRES)
def test_the_session_default_is_put_back_as_it_was_found(
    kind: str, make_client: Callable[..., Client], switch: Switch
) -> None:
    """A default stays a default: a session-level `off` would keep a later ALTER SYSTEM from reaching the session."""
    make_client(kind)
    client = make_client(kind, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=0)
    found = "SELECT setting, source FROM pg_settings WHERE name = 'default_transaction_read_only'"
    Database(client.engine, switch)
    switch.on()
    client.count()
    switch.off()
    assert tuple(client.connect(lambda c: c.execute(text(found)).one())) == ("off", "default")
    client.connect(lambda c: c.execute(text("SET default_transaction_read_only = off")))
    switch.on()
    client.count()
    switch.off()
    assert tuple(client.connect(lambda c: c.execute(text(found)).one())) == ("off", "session")


@pytest.mark.parametrize("kind", POSTGRES + MYSQL)
def test_autocommit_that_ends_in_mid_checkout(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """What was set in autocommit is put back, although the connection is no longer in autocommit then."""
    client = make_client(kind, pool_size=1, max_overflow=0)
    Database(client.engine, switch)
    switch.on()

    def body(connection: Connection) -> None:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("SELECT 1"))
        connection.rollback()
        connection.execution_options(isolation_level="READ COMMITTED").execute(text("SELECT 1"))
        with pytest.raises(ReadOnlyError):
            connection.execute(text("INSERT INTO story (title) VALUES ('x')"))

    client.connect(body)
    switch.off()
    client.write()
    client.connect(lambda c: c.execute(text("INSERT INTO story (title) VALUES ('x')")), isolation_level="AUTOCOMMIT")
    assert client.count() == 3


# --- what stays on a connection --------------------------------------------------------------------------------------


ASKED = {"sqlite": "PRAGMA query_only", "mysql": "SELECT @@session.tx_read_only"}


def left_over(client: Client) -> object:
    """Return what the driver would begin the next transaction with."""

    def body(engine: Engine) -> object:
        raw = engine.raw_connection()
        try:
            if client.family in ASKED:
                cursor = raw.cursor()
                cursor.execute(ASKED[client.family])
                found = tuple(cursor.fetchone() or ())
                cursor.close()
                return found
            name = "readonly" if client.kind == "asyncpg" else "read_only"
            return getattr(raw.dbapi_connection, name)
        finally:
            raw.close()

    return client.call(body)


def test_nothing_stays_on_a_pooled_connection(client: Client, switch: Switch) -> None:
    """The driver's setting is what it was before (psycopg: None, and never False), also after close() in mid-mode."""
    before = left_over(client)
    database = Database(client.engine, switch)
    switch.on()
    with pytest.raises(ReadOnlyError):
        client.write()
    database.close()
    assert left_over(client) == before
    client.write()
    assert client.count() == 2


def test_close_while_a_connection_is_in_use(client: Client, switch: Switch) -> None:
    """A connection that was guarded when the hooks went does not come back to the pool guarded."""
    database = Database(client.engine, switch)
    switch.on()

    def body(connection: Connection) -> None:
        connection.execute(text("SELECT 1"))
        database.close()

    client.connect(body)
    client.write()
    assert client.count() == 2
    assert not switch.guarded


def test_psycopg_is_never_left_read_write(make_client: Callable[..., Client], switch: Switch) -> None:
    """SQLAlchemy leaves read_only=False after its own option; BEGIN READ WRITE would pass a fence by default."""
    client = make_client("psycopg", pool_size=1, max_overflow=0)
    client.connect(lambda c: c.execute(text("SELECT 1")), postgresql_readonly=True)
    assert left_over(client) is False
    Database(client.engine, switch)
    switch.on()
    client.connect(lambda c: c.execute(text("SELECT 1")))
    client.connect(lambda c: c.execute(text("SELECT 1")), postgresql_readonly=True)
    switch.off()
    assert left_over(client) is None


@pytest.mark.parametrize("kind", POSTGRES)
def test_an_option_does_not_get_round_the_guard(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """`postgresql_readonly=False` is set before the transaction begins; the guard is asked later."""
    client = make_client(kind)
    Database(client.engine, switch)
    switch.on()
    with pytest.raises(ReadOnlyError):
        client.connect(lambda c: c.execute(text("INSERT INTO story (title) VALUES ('x')")), postgresql_readonly=False)


FIRST = {"postgresql": "SET search_path = public", "mysql": "SELECT 1 FROM story"}


@pytest.mark.parametrize("kind", POSTGRES + MYSQL)
def test_a_listener_that_was_faster(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """A check-out listener that runs SQL has begun the driver's transaction already: it is made READ ONLY."""
    client = make_client(kind)

    @event.listens_for(client.sync_engine, "checkout")
    def search_path(connection: object, entry: object, proxied: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute(FIRST[client.family])
        if client.family == "mysql":
            cursor.fetchall()
        cursor.close()

    Database(client.engine, switch)
    switch.on()
    with pytest.raises(ReadOnlyError):
        client.write()
    switch.off()
    client.write()
    assert client.count() == 2


@pytest.mark.parametrize("kind", POSTGRES)
def test_a_listener_that_begins_for_us(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """SQL of a `begin` listener comes before we are asked: a held connection opens one transaction late, not never."""
    client = make_client(kind)

    @event.listens_for(client.sync_engine, "begin")
    def work_mem(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL work_mem = '8MB'")

    Database(client.engine, switch)

    def body(connection: Connection) -> None:
        insert = text("INSERT INTO story (title) VALUES ('x')")
        for _ in range(2):
            with pytest.raises(ReadOnlyError):
                connection.execute(insert)
            connection.rollback()
        switch.off()
        with pytest.raises(ReadOnlyError):
            connection.execute(insert)
        assert switch.inflight.count() == 0
        connection.rollback()
        connection.execute(insert)
        connection.commit()
        switch.on()
        with pytest.raises(ReadOnlyError):
            connection.execute(insert)
        connection.rollback()
        switch.off()
        connection.execute(insert)
        connection.commit()

    switch.on()
    client.connect(body)
    assert client.count() == 3


# --- sessions --------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("kind", ["psycopg", "psycopg_async", *MYSQL])
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


# --- proof -----------------------------------------------------------------------------------------------------------


def test_the_guard_proves_itself(client: Client, guarded: Database, switch: Switch) -> None:
    """A harmless write was refused; nothing was written and nothing is in flight."""
    switch.on()
    assert guarded.prove() == ""
    switch.off()
    assert guarded.prove() == ""
    assert switch.inflight.count() == 0
    client.write()


def test_a_broken_guard_is_found_out(
    client: Client, guarded: Database, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the server is not told, the proof says so, and leaves nothing behind."""
    monkeypatch.setattr(type(guarded._server), "guard", lambda self, connection, memory: None)
    monkeypatch.setattr(type(guarded._server), "restore", lambda self, connection, memory: True)
    switch.on()
    assert "not refused" in guarded.prove()
    monkeypatch.undo()
    with pytest.raises((DBAPIError, ProgrammingError)):
        client.connect(lambda c: c.execute(text("SELECT * FROM readonly_proof")))


def test_a_database_that_is_gone_is_no_proof(switch: Switch) -> None:
    """What could not be tried is said, without a password."""
    client = Client("psycopg", "postgresql://u:hunter2@127.0.0.1:1/x")
    database = Database(client.engine, switch)
    said = database.prove()
    assert "could not be tried" in said
    assert "hunter2" not in said
    client.close()


def test_members_say_what_they_write_to(client: Client, guarded: Database, switch: Switch) -> None:
    """Server, database and user; no password."""
    found = guarded.describe()
    assert found["server"] == client.family
    assert found["database"]


def test_the_report_carries_the_proof(client: Client, guarded: Database, switch: Switch) -> None:
    """`confirm` waits for the guards: it is safe when they have proven themselves."""
    state = switch.on()
    assert switch.confirm(state.epoch, timeout=10).safe
    [report] = switch.members()
    assert [(g.name, g.proof) for g in report.guards] == [("main", "")]


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
