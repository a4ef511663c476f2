"""What an engine has written, by the word of its server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    create_engine,
    event,
    insert,
    make_url,
    select,
)
from sqlalchemy import text as sql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from readonly import ReadOnlyError, Switch
from readonly.databases.sqlalchemy import Database
from readonly.errors import ConfigurationError
from readonly.testing import Witness, memory_switch, recorded_writes
from support.postgres_server import PostgresServer

METADATA = MetaData()
ITEM = Table("item", METADATA, Column("id", Integer, primary_key=True), Column("size", Integer))
DRIVERS = ("sqlite", "sqlite+aiosqlite", "postgresql+psycopg", "postgresql+asyncpg")


@pytest.fixture(scope="module")
def database_of_these_tests(postgres: PostgresServer) -> Iterator[str]:
    """One database for all of them."""
    name = postgres.new_database()
    yield postgres.url(name)
    postgres.drop_database(name)


class Client:
    """An engine, sync or async, and something that runs plain functions with its connections."""

    def __init__(self, driver: str, url: str) -> None:
        full = make_url(url).set(drivername=driver)
        self.is_asyncpg = driver.endswith("asyncpg")
        self.runner = asyncio.Runner()
        self.engine: Engine | AsyncEngine = (
            create_async_engine(full) if driver.endswith(("aiosqlite", "asyncpg")) else create_engine(full)
        )

    def run(self, body: Callable[[Connection], Any], **options: Any) -> Any:
        """Run a function with a connection, and commit."""
        if isinstance(self.engine, Engine):
            with self.engine.connect().execution_options(**options) as connection, connection.begin():
                return body(connection)
        engine = self.engine

        async def act() -> Any:
            async with engine.connect() as connection:
                await connection.execution_options(**options)
                async with connection.begin():
                    return await connection.run_sync(body)

        return self.runner.run(act())

    def close(self) -> None:
        """Close everything."""
        if isinstance(self.engine, AsyncEngine):
            self.runner.run(self.engine.dispose())
        else:
            self.engine.dispose()
        self.runner.close()


@pytest.fixture(params=DRIVERS)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """A client by each driver, with an empty table."""
    driver = request.param
    url = f"sqlite:///{tmp_path}/some.db"
    if driver.startswith("postgresql"):
        url = request.getfixturevalue("database_of_these_tests")
    client = Client(driver, url)
    client.run(METADATA.drop_all)
    client.run(METADATA.create_all)
    yield client
    client.close()


@pytest.fixture
def switch() -> Iterator[Switch]:
    """A switch of its own."""
    switch = memory_switch()
    yield switch
    switch.close()


def writes_of(client: Client, body: Callable[[Connection], Any], **options: Any) -> Witness:
    """Run something before a witness."""
    with recorded_writes(client.engine) as witness:
        client.run(body, **options)
    return witness


def test_reading_writes_nothing(client: Client) -> None:
    """Statements are counted, and none of them is a write; an UPDATE that finds no row is none either."""

    def body(connection: Connection) -> None:
        connection.execute(select(ITEM)).all()
        connection.execute(ITEM.update().where(ITEM.c.id == 7).values(size=1))
        with connection.begin_nested() as inner:
            inner.rollback()

    witness = writes_of(client, body)
    assert witness.writes == ()
    assert witness.statements >= 3


def test_every_kind_of_write_is_seen(client: Client) -> None:
    """From SQLAlchemy and from SQL text, whatever it begins with; the table where SQLAlchemy knows it."""
    statements: dict[str, Any] = {
        "insert": lambda c: c.execute(insert(ITEM).values(size=1)),
        "text": lambda c: c.execute(sql("/* a comment */ INSERT INTO item (size) VALUES (2)")),
        "update": lambda c: c.execute(ITEM.update().values(size=3)),
        "with": lambda c: c.execute(sql("WITH old AS (SELECT 1) DELETE FROM item WHERE size = 3")),
        "ddl": lambda c: c.execute(sql("CREATE TABLE more (id INTEGER)")),
        "undone": lambda c: c.execute(sql("DROP TABLE more")),
    }
    for name, statement in statements.items():
        found = writes_of(client, statement).writes
        assert [(write.refused, write.table) for write in found] == [
            (False, "item" if name in ("insert", "update") else "")
        ], name


def test_writes_of_one_transaction_are_told_apart(client: Client) -> None:
    """The second one is seen though its transaction has written before."""

    def body(connection: Connection) -> None:
        connection.execute(insert(ITEM).values(size=1))
        connection.execute(select(ITEM)).all()
        connection.execute(insert(ITEM), [{"size": 2}, {"size": 3}])

    assert len(writes_of(client, body).writes) == 2


def test_a_write_that_returns_rows_is_seen(client: Client) -> None:
    """SQLite has only written when they were fetched: it is seen when somebody asks, and told once."""
    for statement in (insert(ITEM).values(size=1).returning(ITEM.c.id), sql("DELETE FROM item RETURNING id")):
        for options in ({}, {"isolation_level": "AUTOCOMMIT"}):
            client.run(partial(Connection.execute, statement=insert(ITEM).values(size=1)))

            def body(connection: Connection, statement: Any = statement) -> None:
                rows = connection.execute(statement)
                assert len(rows.all()) >= 1
                connection.execute(select(ITEM)).all()

            if options and client.is_asyncpg and not hasattr(statement, "table"):
                continue  # there is no transaction to ask about, and SQLAlchemy drops what the server said
            found = writes_of(client, body, **options).writes
            assert [write.refused for write in found] == [False]
            assert "RETURNING" in found[0].statement


def test_a_write_in_autocommit_is_seen(client: Client) -> None:
    """There is no transaction to ask about: the server's next one tells."""
    with recorded_writes(client.engine) as witness:
        client.run(lambda c: c.execute(sql("INSERT INTO item (size) VALUES (1)")), isolation_level="AUTOCOMMIT")
        assert len(witness.writes) == 1
        client.run(lambda c: c.execute(sql("SELECT * FROM item")).all(), isolation_level="AUTOCOMMIT")
        assert len(witness.writes) == 1


@pytest.mark.parametrize("driver", [driver for driver in DRIVERS if driver.startswith("postgresql")])
@pytest.mark.parametrize("options", [{}, {"isolation_level": "AUTOCOMMIT"}], ids=["transaction", "autocommit"])
def test_what_others_write_meanwhile_is_theirs(
    driver: str, options: dict[str, Any], database_of_these_tests: str
) -> None:
    """Another test of the same server writes in the middle of a statement that reads: that is nobody's write here."""
    client = Client(driver, database_of_these_tests)
    client.run(METADATA.create_all)

    def write_elsewhere(*_: Any) -> None:
        with psycopg.connect(database_of_these_tests) as other:
            other.execute("INSERT INTO item (size) VALUES (9)")

    sync_engine = client.engine.sync_engine if isinstance(client.engine, AsyncEngine) else client.engine
    with recorded_writes(client.engine) as witness:
        event.listen(sync_engine, "before_cursor_execute", write_elsewhere)
        client.run(lambda connection: connection.execute(select(ITEM)).all(), **options)
    assert (witness.statements, witness.writes) == (1, ())
    client.close()


def test_a_refused_write_wanted_to_write(client: Client, switch: Switch) -> None:
    """With the guard and read-only: the server's refusal is told as one, by ORM, text and in autocommit."""
    database = Database(client.engine, switch)
    state = switch.on()
    switch.confirm(state.epoch, timeout=60).require_safe()
    try:
        for statement in (insert(ITEM).values(size=1), sql("INSERT INTO item (size) VALUES (1)")):
            for options in ({}, {"isolation_level": "AUTOCOMMIT"}):
                body = partial(Connection.execute, statement=statement)
                with recorded_writes(client.engine) as witness, pytest.raises(ReadOnlyError):
                    client.run(body, **options)
                (write,) = witness.writes
                assert write.refused
                assert "was refused a write" in str(write)
                assert "INSERT INTO item" in write.statement
    finally:
        database.close()


def test_other_errors_are_no_writes(client: Client) -> None:
    """A statement that fails for its own reasons has written nothing; what follows in its savepoint is judged well."""

    def body(connection: Connection) -> None:
        connection.execute(insert(ITEM).values(size=1))
        nested = connection.begin_nested()
        with pytest.raises(DBAPIError):
            connection.execute(sql("SELECT nothing FROM nowhere"))
        nested.rollback()
        connection.execute(select(ITEM)).all()

    assert len(writes_of(client, body).writes) == 1


def test_afterwards_nobody_listens(client: Client) -> None:
    """The witness leaves the engine as it was."""
    with recorded_writes(client.engine) as witness:
        pass
    client.run(lambda c: c.execute(insert(ITEM).values(size=1)))
    assert (witness.statements, witness.writes) == (0, ())


def test_what_can_not_be_witnessed_is_said() -> None:
    """No engine, and a server that has no word for it."""
    with pytest.raises(ConfigurationError, match="no engine"), recorded_writes("sqlite://"):
        pass
    mysql = create_engine("mysql+pymysql://nobody@127.0.0.1/none")
    with pytest.raises(ConfigurationError, match="mysql server can't be asked"), recorded_writes(mysql):
        pass
