"""One database, reached through every driver that is guarded: the same tests run over all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, Engine, Pool, create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session

from readonly import Switch
from readonly.databases.sqlalchemy import Database
from readonly.stores.memory import MemoryStore
from support.mariadb_server import MariaDBServer
from support.postgres_server import PostgresServer

T = TypeVar("T")

SQLITE = ("sqlite3", "aiosqlite")
POSTGRES = ("psycopg", "psycopg_async", "asyncpg")
MYSQL = ("pymysql", "asyncmy")
ALL = SQLITE + POSTGRES + MYSQL
FAMILIES = {**dict.fromkeys(SQLITE, "sqlite"), **dict.fromkeys(POSTGRES, "postgresql"), **dict.fromkeys(MYSQL, "mysql")}
KEYS = {
    "sqlite": "INTEGER PRIMARY KEY",
    "postgresql": "INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    "mysql": "INTEGER AUTO_INCREMENT PRIMARY KEY",
}


class Client:
    """An application's engine, sync or async: bodies are plain functions, run where the driver wants them."""

    def __init__(self, kind: str, url: str, *, beside: Client | None = None, **options: Any) -> None:
        """Make the engine; a replica's lives `beside` the primary's, on the same event loop."""
        self.kind = kind
        self.family = FAMILIES[kind]
        self.is_async = kind in ("aiosqlite", "psycopg_async", "asyncpg", "asyncmy")
        driver = "sqlite" if kind == "sqlite3" else f"{self.family}+{kind.removesuffix('_async')}"
        full = make_url(url).set(drivername=driver)
        self.runner: asyncio.Runner = asyncio.Runner() if beside is None else beside.runner
        self._beside = beside
        self.engine: Engine | AsyncEngine = (
            create_async_engine(full, **options) if self.is_async else create_engine(full, **options)
        )

    @property
    def sync_engine(self) -> Engine:
        return self.engine.sync_engine if isinstance(self.engine, AsyncEngine) else self.engine

    @property
    def pool(self) -> Pool:
        return self.sync_engine.pool

    def connect(self, body: Callable[[Connection], T], **options: Any) -> T:
        """Run a body with a connection, which is closed (and rolled back) after it."""
        if not isinstance(self.engine, AsyncEngine):
            with self.engine.connect() as connection:
                return body(connection.execution_options(**options) if options else connection)
        engine = self.engine

        async def run() -> T:
            async with engine.connect() as connection:
                if options:
                    connection = await connection.execution_options(**options)
                return await connection.run_sync(body)

        return self.runner.run(run(), context=copy_context())

    def call(self, body: Callable[[Engine], T]) -> T:
        """Run a body with the sync engine, inside the event loop where the driver needs one."""
        if not isinstance(self.engine, AsyncEngine):
            return body(self.engine)
        from sqlalchemy.util import greenlet_spawn

        async def run() -> Any:
            return await greenlet_spawn(body, self.sync_engine)

        found: T = self.runner.run(run(), context=copy_context())
        return found

    def session(self, body: Callable[[Session], T], session_class: type[Session] = Session, **options: Any) -> T:
        """Run a body with a session, which is closed after it."""

        def run(engine: Engine) -> T:
            with session_class(engine, **options) as session:
                return body(session)

        return self.call(run)

    def write(self, statement: str = "INSERT INTO story (title) VALUES ('x')") -> None:
        """Write and commit."""

        def body(connection: Connection) -> None:
            connection.execute(text(statement))
            connection.commit()

        self.connect(body)

    def count(self, table: str = "story") -> int:
        """Count the rows of a table."""
        return self.connect(lambda c: int(c.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()))

    def dispose(self) -> None:
        """Close the pooled connections."""
        if isinstance(self.engine, AsyncEngine):
            self.runner.run(self.engine.dispose())
        else:
            self.engine.dispose()

    def close(self) -> None:
        self.dispose()
        if self._beside is None:
            self.runner.close()


SCHEMA = (
    "CREATE TABLE story (id {key}, title TEXT NOT NULL, views INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE page_view (id {key}, story_id INTEGER, path TEXT)",
    "CREATE TABLE account (id {key}, name TEXT NOT NULL, last_seen INTEGER, visits INTEGER NOT NULL DEFAULT 0)",
    "INSERT INTO story (title) VALUES ('first')",
    "INSERT INTO account (name, last_seen) VALUES ('ada', 1)",
)


def create_schema(client: Client) -> None:
    """Make the tables anew."""
    key = KEYS[client.family]

    def body(connection: Connection) -> None:
        for table in ("other", "page_view", "story", "account"):
            connection.execute(text(f"DROP TABLE IF EXISTS {table}"))
        for statement in SCHEMA:
            connection.execute(text(statement.format(key=key)))
        connection.commit()

    client.connect(body)


@pytest.fixture
def switch() -> Iterator[Switch]:
    """A writable site of one process."""
    # It answers at once, by a thread that on a busy machine may not have its turn for long.
    switch = Switch(MemoryStore("memory://?site=tests", site="tests", timeout=30.0))
    switch.start()
    assert switch.confirm(timeout=10) is not None
    yield switch
    switch.close()


@pytest.fixture(scope="session")
def shared_database(postgres: PostgresServer) -> Iterator[str]:
    """One database for this folder: a new one for each test costs ten times as much as new tables in it."""
    name = postgres.new_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def shared_mariadb(mariadb: MariaDBServer) -> Iterator[str]:
    """The same on MariaDB, as a user who may do nothing elsewhere."""
    name = mariadb.new_database()
    user = f"{name}_app"
    mariadb.sql(f"CREATE USER {user}@'127.0.0.1'; GRANT ALL ON {name}.* TO {user}@'127.0.0.1'")
    yield mariadb.url(name, user=user)
    mariadb.drop_database(name)
    mariadb.sql(f"DROP USER {user}@'127.0.0.1'")


@pytest.fixture
def make_client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Make clients of one database: `make_client(kind, **engine_options)`; the first one creates the tables."""
    made: list[Client] = []
    families: dict[str, str] = {}
    shared = {"postgresql": "shared_database", "mysql": "shared_mariadb"}

    def make(kind: str, **options: Any) -> Client:
        family = FAMILIES[kind]
        fresh = family not in families
        if fresh:
            families[family] = (
                f"sqlite:///{tmp_path}/site.db" if family == "sqlite" else request.getfixturevalue(shared[family])
            )
        client = Client(kind, families[family], **options)
        made.append(client)
        if fresh:
            create_schema(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture(params=ALL)
def client(request: pytest.FixtureRequest, make_client: Callable[..., Client]) -> Client:
    """A client through each driver in turn."""
    return make_client(request.param)


@pytest.fixture
def guarded(client: Client, switch: Switch) -> Iterator[Database]:
    """That client's engine, guarded."""
    database = Database(client.engine, switch)
    yield database
    database.close()
