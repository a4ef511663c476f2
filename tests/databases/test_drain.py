"""The drain: a transaction that may write is in flight until its end is decided, and no key is ever left over."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from readonly import ReadOnlyError, Switch
from readonly.context import Work, working
from readonly.databases.sqlalchemy import Database
from support.postgres_server import PostgresServer
from support.waiting import eventually, eventually_async

from .conftest import ALL, POSTGRES, Client
from .models import Story

INSERT = "INSERT INTO story (title) VALUES ('x')"


def test_in_flight_until_commit_or_rollback(client: Client, guarded: Database, switch: Switch) -> None:
    """From the first statement to the end, and on a held connection again for the next one."""

    def body(connection: Connection) -> None:
        assert switch.inflight.count() == 0
        connection.execute(text(INSERT))
        assert switch.inflight.count() == 1
        with connection.begin_nested():
            connection.execute(text(INSERT))
        assert switch.inflight.count() == 1
        connection.commit()
        assert switch.inflight.count() == 0
        connection.execute(text("SELECT 1"))
        assert switch.inflight.count() == 1
        connection.rollback()
        assert switch.inflight.count() == 0
        connection.execute(text("SELECT 1"))

    client.connect(body)
    assert switch.inflight.count() == 0


def test_still_in_flight_while_the_commit_is_under_way(client: Client, guarded: Database, switch: Switch) -> None:
    """SQLAlchemy's `commit` event fires before the COMMIT is sent: a drain that trusted it would end too early."""
    seen: list[int] = []
    dialect: Any = client.sync_engine.dialect
    below = type(dialect).do_commit

    def do_commit(self: object, connection: object) -> None:
        below(dialect, connection)
        seen.append(switch.inflight.count())

    type(dialect).do_commit = do_commit
    guarded.close()
    database = Database(client.engine, switch)
    try:
        client.write()
    finally:
        type(dialect).do_commit = below
        database.close()
    assert seen == [1]
    assert switch.inflight.count() == 0


def test_confirm_waits_for_a_transaction(client: Client, guarded: Database, switch: Switch) -> None:
    """`on` is confirmed when the transaction that had begun before it is over, and not sooner."""

    def body(connection: Connection) -> None:
        connection.execute(text(INSERT))
        state = switch.on()
        assert not switch.confirm(state.epoch, timeout=0.2).safe
        connection.commit()
        assert switch.confirm(state.epoch, timeout=10).safe

    client.connect(body)


def test_read_only_transactions_are_not_in_flight(client: Client, guarded: Database, switch: Switch) -> None:
    """They can't write, so nobody waits for them."""
    switch.on()

    def body(connection: Connection) -> None:
        connection.execute(text("SELECT 1"))
        assert switch.inflight.count() == 0
        connection.rollback()

    client.connect(body)
    assert switch.inflight.count() == 0


def test_nobody_waits_for_a_bypass(client: Client, guarded: Database, switch: Switch) -> None:
    """It writes while the site is read-only, now and in the next read-only time; while writable it counts like all."""
    state = switch.on()

    def body(connection: Connection) -> None:
        with working(Work(switch, bypass=True)):
            connection.execute(text(INSERT))
            assert switch.inflight.count() == 0
            assert switch.confirm(state.epoch, timeout=10).safe
            switch.off()
            assert switch.inflight.count() == 0
            again = switch.on()
            assert switch.confirm(again.epoch, timeout=10).safe
            connection.commit()
            switch.off()
            connection.execute(text(INSERT))
            assert switch.inflight.count() == 1
            connection.commit()

    client.connect(body)
    assert client.count() == 3
    assert switch.inflight.count() == 0


def test_a_session_ends_what_it_begins(client: Client, guarded: Database, switch: Switch) -> None:
    """Commit, rollback after an error, and close without either."""

    def body(session: Session) -> None:
        session.add(Story(title="x"))
        session.commit()
        assert switch.inflight.count() == 0
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT * FROM nowhere"))
        session.rollback()
        assert switch.inflight.count() == 0
        session.get(Story, 1)

    client.session(body)
    assert switch.inflight.count() == 0


def test_a_connection_that_is_invalidated(client: Client, guarded: Database, switch: Switch) -> None:
    """It is over when the connection is closed; the reconnected one begins anew."""

    def body(connection: Connection) -> None:
        connection.execute(text(INSERT))
        connection.invalidate()
        assert switch.inflight.count() == 0
        connection.rollback()
        connection.execute(text(INSERT))
        assert switch.inflight.count() == 1
        connection.commit()

    client.connect(body)
    assert switch.inflight.count() == 0
    assert client.count() == 2


# SQLAlchemy never closes a detached connection of psycopg's asynchronous kind, and psycopg complains of that.
@pytest.mark.parametrize("client", [kind for kind in ALL if kind != "psycopg_async"], indirect=True)
def test_a_detached_connection(client: Client, guarded: Database, switch: Switch) -> None:
    """Out of the pool, and counted all the same."""

    def body(connection: Connection) -> None:
        connection.detach()
        connection.execute(text(INSERT))
        assert switch.inflight.count() == 1

    client.connect(body)
    assert switch.inflight.count() == 0


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:The garbage collector is trying to clean up:sqlalchemy.exc.SAWarning")
def test_a_connection_that_is_forgotten(client: Client, guarded: Database, switch: Switch) -> None:
    """Garbage collection ends a transaction that nobody closed."""

    def body(engine: Engine) -> None:
        connection = engine.connect()
        connection.execute(text("SELECT 1"))
        assert switch.inflight.count() == 1
        del connection
        gc.collect()
        assert switch.inflight.count() == 0

    client.call(body)


@pytest.mark.parametrize("kind", POSTGRES)
def test_a_connection_that_is_lost(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """The server ends the session: the error is the driver's, and the transaction is over with its connection."""
    client = make_client(kind)
    other = make_client("psycopg")
    Database(client.engine, switch)

    def body(connection: Connection) -> None:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        other.connect(lambda c: c.execute(text(f"SELECT pg_terminate_backend({pid})")))
        with pytest.raises(DBAPIError) as lost:
            connection.execute(text(INSERT))
        assert not isinstance(lost.value, ReadOnlyError)

    client.connect(body)
    assert switch.inflight.count() == 0
    client.write()
    assert switch.inflight.count() == 0


@pytest.mark.parametrize("kind", POSTGRES)
def test_a_commit_that_fails(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """A deferred constraint fails at COMMIT: in flight until it is rolled back."""
    client = make_client(kind)
    Database(client.engine, switch)
    client.write("ALTER TABLE story ADD CONSTRAINT once UNIQUE (title) DEFERRABLE INITIALLY DEFERRED")

    def body(connection: Connection) -> None:
        connection.execute(text("INSERT INTO story (title) VALUES ('same'), ('same')"))
        with pytest.raises(DBAPIError):
            connection.commit()
        connection.rollback()
        assert switch.inflight.count() == 0

    client.connect(body)


def test_a_begin_that_fails(make_client: Callable[..., Client], switch: Switch) -> None:
    """A listener's BEGIN IMMEDIATE finds the file locked: no transaction, and nothing in flight."""
    client = make_client("sqlite3", connect_args={"timeout": 0})
    locker = make_client("sqlite3")
    Database(client.engine, switch)

    @event.listens_for(client.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def locked(holder: Connection) -> None:
        holder.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(DBAPIError):
            client.write()

    locker.connect(locked)
    assert switch.inflight.count() == 0


def test_a_task_that_is_cancelled(make_client: Callable[..., Client], switch: Switch, postgres: PostgresServer) -> None:
    """A cancelled request's transaction is over."""
    import asyncio

    client = make_client("asyncpg")
    Database(client.engine, switch)
    engine = client.engine
    assert isinstance(engine, AsyncEngine)

    async def slow() -> None:
        async with engine.connect() as connection:
            await connection.execute(text(INSERT))
            await connection.execute(text("SELECT pg_sleep(30)"))

    async def main() -> None:
        task = asyncio.create_task(slow())
        at_work = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(30)'"
        await eventually_async(lambda: postgres.sql(at_work) == "1", what="the server is at it")
        assert switch.inflight.count() == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    client.runner.run(main())
    assert switch.inflight.count() == 0


@pytest.mark.parametrize("seed", range(4))
def test_no_key_is_left_over(client: Client, guarded: Database, switch: Switch, seed: int) -> None:
    """Any sequence of what applications do, with the switch thrown in between, ends with nothing in flight."""
    chance = random.Random(seed)
    closed = False

    def flip() -> None:
        nonlocal closed
        closed = not closed
        switch.on() if closed else switch.off()

    def step(connection: Connection) -> None:
        what = chance.choice(["read", "write", "commit", "rollback", "error", "savepoint", "flip", "invalidate"])
        if what == "read":
            connection.execute(text("SELECT count(*) FROM story"))
        elif what == "write":
            connection.execute(text(INSERT))
        elif what == "commit":
            connection.commit()
        elif what == "rollback":
            connection.rollback()
        elif what == "error":
            connection.execute(text("SELECT * FROM nowhere"))
        elif what == "savepoint":
            with connection.begin_nested():
                connection.execute(text(INSERT))
        elif what == "flip":
            flip()
        elif chance.random() < 0.2:
            connection.invalidate()

    def body(connection: Connection) -> None:
        for _ in range(chance.randrange(25)):
            try:
                step(connection)
            except (ReadOnlyError, DBAPIError, PendingRollbackError):
                connection.rollback()
            assert switch.inflight.count() <= 1

    for _ in range(8):
        client.connect(body)
        assert switch.inflight.count() == 0
    if closed:
        flip()
    client.write()
    assert switch.inflight.count() == 0


def test_no_write_commits_between_a_confirmed_on_and_off(make_client: Callable[..., Client], switch: Switch) -> None:
    """Threads write as fast as they can: nothing is added while `on` is confirmed, and much between."""
    client = make_client("psycopg", pool_size=6)
    Database(client.engine, switch)
    stop = threading.Event()
    # Appended to and never counted up: two threads that count at once may count one.
    accepted, refused = list[str](), list[str]()

    def write() -> None:
        while not stop.is_set():
            try:
                client.write()
                accepted.append("")
            except ReadOnlyError:
                refused.append("")

    def more(counted: list[str]) -> None:
        wanted = len(counted) + 20
        eventually(lambda: len(counted) >= wanted, what="writes are tried")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(6):
            more(accepted)
            state = switch.on()
            assert switch.confirm(state.epoch, timeout=20).safe
            first = client.count()
            more(refused)
            assert client.count() == first
            switch.off()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(accepted) >= 120
    assert len(refused) >= 120
    assert client.count() == len(accepted) + 1
    assert switch.inflight.count() == 0
