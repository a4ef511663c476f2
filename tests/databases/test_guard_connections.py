"""Connections in autocommit, and what is left on a connection when the mode is over."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text

from readonly import ReadOnlyError, Switch
from readonly.databases.sqlalchemy import Database

from .conftest import ALL, MYSQL, POSTGRES, Client

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


@pytest.mark.parametrize("kind", ALL)
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
        with pytest.raises(Exception, match=r"(?i)read[ -]?only"):
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


@pytest.mark.parametrize("kind", ["psycopg", "psycopg_async"])
def test_psycopg_is_never_left_read_write(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """SQLAlchemy leaves read_only=False after its own option; BEGIN READ WRITE would pass a fence by default."""
    client = make_client(kind, pool_size=1, max_overflow=0)
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


def test_a_database_in_memory_outlives_the_guard(switch: Switch) -> None:
    """Its one connection can't be replaced when the guard goes in mid-mode: it is put back each time."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE story (title TEXT)"))
    database = Database(engine, switch)
    switch.on()
    insert = text("INSERT INTO story VALUES ('x')")
    with engine.connect() as connection, pytest.raises(ReadOnlyError):
        connection.execute(insert)
    database.close()
    with engine.begin() as connection:
        connection.execute(insert)
        assert connection.execute(text("SELECT count(*) FROM story")).scalar_one() == 1
    engine.dispose()
