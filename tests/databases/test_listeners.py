"""Listeners of the application's own that write when a connection is made or taken: counted and guarded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from readonly import Switch
from readonly.databases.sqlalchemy import Database

from .conftest import ALL, Client

INSERT = "INSERT INTO story (title) VALUES ('by a listener')"


def writes(connection: Any) -> None:
    """Write by raw SQL, and commit."""
    cursor = connection.cursor()
    try:
        cursor.execute(INSERT)
    finally:
        cursor.close()
    connection.commit()


@pytest.mark.parametrize("when", ["connect", "checkout"])
@pytest.mark.parametrize("first", [False, True], ids=["ours first", "theirs first"])
def test_what_a_listener_writes(client: Client, switch: Switch, when: str, first: bool) -> None:
    """In flight while it does; refused while read-only, whoever came first to the engine; over with the check-out."""
    counts: list[int] = []

    def listen() -> None:
        def listener(connection: Any, *_: Any) -> None:
            counts.append(switch.inflight.count())
            writes(connection)
            counts.append(switch.inflight.count())

        event.listen(client.sync_engine, when, listener)

    def take(engine: Engine, *, refused: bool) -> None:
        for taken in (engine.raw_connection, engine.connect):
            engine.dispose()
            if refused:
                with pytest.raises(Exception, match=r"(?i)read[- ]?only"):
                    taken()
            else:
                taken().close()  # type: ignore[attr-defined]
            assert switch.inflight.count() == 0

    if first:
        listen()
    database = Database(client.engine, switch)
    if not first:
        listen()
    client.call(lambda engine: take(engine, refused=False))
    assert len(counts) == 4
    assert min(counts) >= 1
    switch.on()
    client.call(lambda engine: take(engine, refused=True))
    switch.off()
    client.call(lambda engine: take(engine, refused=False))
    database.close()


def test_a_connection_that_a_listener_keeps_is_in_flight(
    client: Client, make_client: Callable[..., Client], switch: Switch
) -> None:
    """Raw, of the same engine or another one, taken while a Connection is: until it is returned."""
    kept: list[Any] = []
    Database(client.engine, switch)

    def listener(*_: Any) -> None:
        if not kept:
            kept.append(None)
            kept[0] = client.sync_engine.raw_connection()

    event.listen(client.sync_engine, "checkout", listener)

    def body(connection: Connection) -> None:
        assert switch.inflight.count() == 1
        connection.execute(text("SELECT 1"))
        assert switch.inflight.count() == 2
        connection.rollback()
        writes(kept[0])
        assert switch.inflight.count() == 1
        kept[0].close()
        assert switch.inflight.count() == 0

    client.connect(body)


@pytest.mark.parametrize("kind", ["aiosqlite", "psycopg_async", "asyncpg", "asyncmy"])
def test_a_task_that_a_listener_starts_is_in_flight(
    kind: str, make_client: Callable[..., Client], switch: Switch
) -> None:
    """Long after the check-out: its own raw connections are counted like anybody's."""
    client = make_client(kind)
    engine = client.engine
    assert isinstance(engine, AsyncEngine)
    Database(engine, switch)
    tasks: list[asyncio.Task[int]] = []
    goes_on = asyncio.Event()

    async def later() -> int:
        await goes_on.wait()
        raw = await engine.raw_connection()
        counted = switch.inflight.count()
        await greenlet_spawn(raw.close)
        return counted

    def listener(*_: Any) -> None:
        if not tasks:
            tasks.append(asyncio.get_running_loop().create_task(later()))

    event.listen(engine.sync_engine, "checkout", listener)

    async def run() -> int:
        async with engine.connect():
            pass
        goes_on.set()
        return await tasks[0]

    assert client.runner.run(run()) == 1
    assert switch.inflight.count() == 0


@pytest.mark.parametrize("when", ["connect", "checkout"])
@pytest.mark.parametrize("kind", ALL)
def test_a_listener_that_fails_leaves_no_key(
    kind: str, when: str, make_client: Callable[..., Client], switch: Switch
) -> None:
    """Nor one that is cancelled: the process must drain."""
    client = make_client(kind)
    Database(client.engine, switch)
    errors: list[BaseException] = [RuntimeError("a bug"), asyncio.CancelledError(), KeyboardInterrupt()]

    def listener(*_: Any) -> None:
        if errors:
            raise errors.pop(0)

    event.listen(client.sync_engine, when, listener)

    def take(engine: Engine) -> None:
        engine.dispose()
        for error in list(errors):
            with pytest.raises(type(error)):
                engine.connect()
            assert switch.inflight.count() == 0
        engine.connect().close()

    client.call(take)
    assert switch.inflight.count() == 0
    with pytest.raises(DBAPIError):
        client.connect(lambda c: c.execute(text("SELECT * FROM nowhere")))
