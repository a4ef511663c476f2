"""Every way to write, on connections of every age, through every driver: nothing gets past the guard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, bindparam, delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from readonly import ReadOnlyError, Switch
from readonly.databases.sqlalchemy import Database

from .conftest import Client
from .models import Story

INSERT = "INSERT INTO story (title) VALUES ('x')"


def _add(session: Session) -> None:
    session.add(Story(title="x"))
    session.flush()


def _change(session: Session) -> None:
    session.get_one(Story, 1).title = "x"
    session.commit()


def _delete(session: Session) -> None:
    session.delete(session.get_one(Story, 1))
    session.flush()


def _nested(session: Session) -> None:
    with session.begin_nested():
        session.add(Story(title="x"))


def _merge(session: Session) -> None:
    session.merge(Story(id=1, title="x"))
    session.flush()


def _add_all(session: Session) -> None:
    session.add_all([Story(title="x"), Story(title="y")])
    session.flush()


ORM: tuple[Callable[[Session], object], ...] = (
    _add,
    _change,
    _delete,
    _nested,
    _merge,
    _add_all,
    lambda session: session.execute(insert(Story), [{"title": "x"}, {"title": "y"}]),
    lambda session: session.execute(update(Story).where(Story.id == 1).values(views=Story.views + 1)),
    lambda session: session.execute(delete(Story).where(Story.id == 0)),
    lambda session: session.execute(text(INSERT)),
    lambda session: session.connection().execute(text(INSERT)),
)
CORE: tuple[Callable[[Connection], object], ...] = (
    lambda connection: connection.execute(insert(Story).values(title="x")),
    lambda connection: connection.execute(insert(Story), [{"title": "x"}, {"title": "y"}]),
    lambda connection: connection.execute(insert(Story).from_select(["title"], select(Story.title))),
    lambda connection: connection.execute(update(Story).values(title="x")),
    lambda connection: connection.execute(
        update(Story).where(Story.id == bindparam("key")).values(views=1), [{"key": 1}, {"key": 2}]
    ),
    lambda connection: connection.execute(delete(Story)),
    lambda connection: Story.__table__.drop(connection),  # type: ignore[attr-defined]  # it is a Table
    lambda connection: connection.execute(text(INSERT)),
    lambda connection: connection.execute(text("UPDATE story SET title = :title"), [{"title": "x"}, {"title": "y"}]),
    lambda connection: connection.exec_driver_sql(INSERT),
)


def test_every_way_of_the_orm(client: Client, guarded: Database, switch: Switch) -> None:
    """The session is usable after a rollback, and nothing was written."""
    switch.on()

    def body(session: Session) -> None:
        for way in ORM:
            with pytest.raises(ReadOnlyError, match="refused a write"):
                way(session)
            session.rollback()
        assert [(s.id, s.title, s.views) for s in session.scalars(select(Story))] == [(1, "first", 0)]

    client.session(body)


def test_every_way_of_core_and_sql(client: Client, guarded: Database, switch: Switch) -> None:
    """Compiled, textual, for many rows, streamed, handed to the driver: the server judges all of them."""
    switch.on()

    def body(connection: Connection) -> None:
        for way in CORE:
            with pytest.raises(ReadOnlyError, match="refused a write"):
                way(connection)
            connection.rollback()
        assert [tuple(row) for row in connection.execute(text("SELECT id, title, views FROM story"))] == [
            (1, "first", 0)
        ]

    client.connect(body)


def test_every_way_writes_while_writable(client: Client, guarded: Database) -> None:
    """What is refused above is refused for the mode, not for being wrong."""

    def each(session: Session) -> None:
        for way in ORM:
            way(session)
            session.rollback()

    def core(connection: Connection) -> None:
        for way in CORE:
            way(connection)
            connection.rollback()

    client.session(each)
    if client.family == "postgresql":  # elsewhere DROP TABLE can't be taken back
        client.connect(core)


def test_connections_that_were_pooled_before_the_guard(client: Client, switch: Switch) -> None:
    """An application may have connected long before it guards its engine."""

    def several(engine: Engine) -> None:
        opened = [engine.connect() for _ in range(3)]
        for connection in opened:
            connection.execute(text("SELECT 1"))
            connection.close()

    client.call(several)
    database = Database(client.engine, switch)
    switch.on()

    def refused(engine: Engine) -> None:
        opened = [engine.connect() for _ in range(3)]
        for connection in opened:
            with pytest.raises(ReadOnlyError):
                connection.execute(text(INSERT))
            connection.close()

    client.call(refused)
    database.close()
    client.write()
    assert client.count() == 2


def test_a_connection_that_is_held_while_it_is_guarded(client: Client, switch: Switch) -> None:
    """One that somebody has in hand when the guard is put in place: guarded from its next transaction on."""
    guards: list[Database] = []

    def body(connection: Connection) -> None:
        connection.execute(text(INSERT))
        guards.append(Database(client.engine, switch))
        switch.on()
        connection.commit()
        with pytest.raises(ReadOnlyError):
            connection.execute(text(INSERT))
        connection.rollback()
        switch.off()
        connection.execute(text(INSERT))
        connection.commit()

    client.connect(body)
    guards[0].close()
    assert client.count() == 3


def test_a_session_across_the_switch(client: Client, guarded: Database, switch: Switch) -> None:
    """What it began before may be finished, savepoints and all, and is waited for; the next one is refused."""

    def body(session: Session) -> None:
        session.add(Story(title="before"))
        session.flush()
        state = switch.on()
        assert not switch.confirm(state.epoch, timeout=0).safe
        with session.begin_nested():
            session.add(Story(title="in a savepoint"))
        savepoint = session.begin_nested()
        session.add(Story(title="taken back"))
        session.flush()
        savepoint.rollback()
        session.commit()
        assert switch.confirm(state.epoch, timeout=10).safe
        session.add(Story(title="after"))
        with pytest.raises(ReadOnlyError):
            session.flush()
        session.rollback()
        assert sorted(session.scalars(select(Story.title))) == ["before", "first", "in a savepoint"]

    client.session(body)


def test_savepoints_that_were_opened_read_only(client: Client, guarded: Database, switch: Switch) -> None:
    """A refusal in one, taken back, a second one: reading goes on after each, in one transaction."""
    switch.on()

    def body(connection: Connection) -> None:
        with connection.begin():
            for _ in range(2):
                savepoint = connection.begin_nested()
                with pytest.raises(ReadOnlyError):
                    connection.execute(text(INSERT))
                savepoint.rollback()
                assert connection.execute(text("SELECT count(*) FROM story")).scalar_one() == 1
            with connection.begin_nested():
                connection.execute(text("SELECT 1"))

    client.connect(body)


def test_autocommit_across_the_switch(client: Client, guarded: Database, switch: Switch) -> None:
    """A connection that is held in autocommit is in flight until its block ends; what follows is refused."""

    def body(connection: Connection) -> None:
        connection.execute(text(INSERT))
        state = switch.on()
        assert switch.inflight.count() == 1
        assert not switch.confirm(state.epoch, timeout=0).safe
        connection.execute(text(INSERT))
        connection.commit()
        assert switch.inflight.count() == 0
        with pytest.raises(ReadOnlyError):
            connection.execute(text(INSERT))
        connection.rollback()
        switch.off()
        connection.execute(text(INSERT))

    client.connect(body, isolation_level="AUTOCOMMIT")
    assert client.count() == 4


@pytest.mark.parametrize("kind", ["aiosqlite", "psycopg_async", "asyncpg", "asyncmy"])
def test_async_sessions(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """As an application writes them, awaited."""
    client = make_client(kind)
    database = Database(client.engine, switch)
    assert isinstance(client.engine, AsyncEngine)
    engine = client.engine

    async def body() -> Any:
        async with AsyncSession(engine) as session:
            session.add(Story(title="before"))
            await session.flush()
            switch.on()
            await session.commit()
            session.add(Story(title="after"))
            with pytest.raises(ReadOnlyError):
                await session.commit()
            await session.rollback()
            with pytest.raises(ReadOnlyError):
                await session.execute(update(Story).values(views=7))
            await session.rollback()
            stream = await session.stream_scalars(select(Story.title).order_by(Story.id))
            return [title async for title in stream]

    assert client.runner.run(body()) == ["first", "before"]
    database.close()
