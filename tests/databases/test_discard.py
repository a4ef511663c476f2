"""Discarding: incidental writes are dropped before they reach the server, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, MetaData, Table, bindparam, delete, event, insert, select, text, update
from sqlalchemy.orm import Session

from readonly import ReadOnlyError, Switch
from readonly.context import Work, working
from readonly.databases.sqlalchemy import Database

from .conftest import Client
from .models import Account, PageView, Story, Tag, Tagged

DISCARD = ("page_view", "account.last_seen")
page_view: Any = PageView.__table__
account: Any = Account.__table__


@pytest.fixture(params=["sqlite3", "aiosqlite", "psycopg", "asyncpg"])
def client(request: pytest.FixtureRequest, make_client: Callable[..., Client]) -> Client:
    """A client of each sort."""
    return make_client(request.param)


@pytest.fixture
def database(client: Client, switch: Switch) -> Iterator[Database]:
    """Guarded, with discards."""
    database = Database(client.engine, switch, discard=DISCARD)
    yield database
    database.close()


@pytest.fixture
def sent(client: Client, database: Database) -> list[str]:
    """The writes that reached the driver."""
    found: list[str] = []

    @event.listens_for(client.sync_engine, "before_cursor_execute")
    def note(c: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.split()[0] in ("INSERT", "UPDATE", "DELETE"):
            found.append(statement)

    return found


@pytest.fixture
def read_only(switch: Switch, sent: list[str]) -> None:
    """The site is read-only."""
    switch.on()


def rows(client: Client, table: str) -> list[tuple[Any, ...]]:
    """Return what a table holds."""
    return client.connect(lambda c: [tuple(r) for r in c.execute(text(f"SELECT * FROM {table} ORDER BY id"))])


# --- the unit of work ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("read_only")
def test_a_new_object(client: Client, sent: list[str]) -> None:
    """The object keeps what it was given, gets no key, and is no longer in the session; its parent does not know it."""

    def body(session: Session) -> None:
        story = session.get_one(Story, 1)
        view = PageView(path="/1", story=story)
        session.add(view)
        session.commit()
        assert view.id is None
        assert view.path == "/1"
        assert view not in session
        assert story.page_views == []

    client.session(body)
    assert sent == []
    assert rows(client, "page_view") == []


@pytest.mark.usefixtures("read_only")
def test_a_new_object_in_a_collection(client: Client, sent: list[str]) -> None:
    """Added through its parent."""

    def body(session: Session) -> None:
        story = session.get_one(Story, 1)
        story.page_views.append(PageView(path="/1"))
        session.commit()

    client.session(body)
    assert sent == []


@pytest.mark.usefixtures("read_only")
def test_a_changed_column(client: Client, sent: list[str]) -> None:
    """The object shows what the database holds, whatever the column is called in Python."""

    def body(session: Session) -> None:
        ada = session.get_one(Account, 1)
        ada.seen = 99
        session.commit()
        assert ada.seen == 1

    client.session(body, expire_on_commit=False)
    assert sent == []


@pytest.mark.usefixtures("read_only")
def test_a_column_changed_by_an_expression(client: Client, sent: list[str]) -> None:
    """`seen = Account.seen + 1`; the old value is read again when it is wanted."""

    def body(session: Session) -> None:
        ada = session.get_one(Account, 1)
        ada.seen = Account.seen + 1
        session.flush()
        assert ada.seen == 1

    client.session(body)
    assert sent == []


@pytest.mark.usefixtures("read_only")
def test_a_change_of_more_than_the_column(client: Client) -> None:
    """An UPDATE that changes anything else is refused whole."""

    def body(session: Session) -> None:
        ada = session.get_one(Account, 1)
        ada.seen, ada.name = 99, "eve"
        with pytest.raises(ReadOnlyError):
            session.commit()
        session.rollback()
        session.add(Account(name="eve", seen=1))
        with pytest.raises(ReadOnlyError):
            session.commit()

    client.session(body)


def test_a_deleted_object(client: Client, switch: Switch, sent: list[str]) -> None:
    """It stays where it is."""
    client.write("INSERT INTO page_view (path) VALUES ('/1')")
    sent.clear()
    switch.on()

    def body(session: Session) -> None:
        view = session.scalars(select(PageView)).one()
        view.path = "/2"
        session.flush()
        session.delete(view)
        session.commit()
        assert session.scalars(select(PageView)).one().path == "/1"

    client.session(body)
    assert sent == []


def test_rows_of_a_many_to_many(make_client: Callable[..., Client], switch: Switch) -> None:
    """A flush counts the rows that it deletes there: new ones are dropped, taking one away is refused."""
    client = make_client("sqlite3")
    Tagged.metadata.create_all(client.sync_engine)

    def prepare(session: Session) -> None:
        session.add(Tagged(tags=[Tag()]))
        session.commit()

    def body(session: Session) -> None:
        one = session.get_one(Tagged, 1)
        one.tags.append(session.get_one(Tag, 1))
        session.commit()
        one.tags.clear()
        with pytest.raises(ReadOnlyError):
            session.commit()

    client.session(prepare)
    database = Database(client.engine, switch, discard=["tagging"])
    switch.on()
    client.session(body)
    database.close()


@pytest.mark.usefixtures("read_only")
def test_what_is_dropped_beside_what_is_refused(client: Client) -> None:
    """The rest of the flush is judged by the server."""

    def body(session: Session) -> None:
        session.add_all([PageView(path="/1"), Story(title="x")])
        with pytest.raises(ReadOnlyError):
            session.commit()

    client.session(body)


@pytest.mark.usefixtures("read_only")
def test_the_bulk_forms_are_refused(client: Client) -> None:
    """`bulk_save_objects` passes the unit of work by, and keeps books of its own: it is judged by the server."""

    def body(session: Session) -> None:
        with pytest.raises(ReadOnlyError):
            session.bulk_save_objects([PageView(path="/1")])

    client.session(body)


def test_while_writable_nothing_is_dropped(client: Client, database: Database, sent: list[str]) -> None:
    """The counter counts."""

    def body(session: Session) -> None:
        view = PageView(path="/1")
        session.add(view)
        session.get_one(Account, 1).seen = 99
        session.execute(insert(PageView).values(path="/2"))
        session.commit()
        assert view.id is not None

    client.session(body)
    assert len(sent) == 3
    assert len(rows(client, "page_view")) == 2


def test_work_that_may_write_is_not_dropped(client: Client, database: Database, switch: Switch) -> None:
    """A bypass writes all that it writes."""
    switch.on()

    def body(session: Session) -> None:
        session.add(PageView(path="/1"))
        session.commit()

    def core(connection: Connection) -> None:
        connection.execute(insert(page_view).values(path="/2"))
        connection.commit()

    with working(Work(switch, bypass=True)):
        client.session(body)
        client.connect(core)
    assert len(rows(client, "page_view")) == 2


def test_a_transaction_begun_while_writable_writes_to_its_end(
    client: Client, database: Database, switch: Switch
) -> None:
    """Whether a write is dropped is the transaction's matter, as whether it is refused."""

    def body(session: Session) -> None:
        session.get_one(Account, 1)
        switch.on()
        session.add(PageView(path="/1"))
        session.commit()
        session.add(PageView(path="/2"))
        session.commit()

    client.session(body)
    assert [r[2] for r in rows(client, "page_view")] == ["/1"]


# --- statements ------------------------------------------------------------------------------------------------------

DROPPED: dict[str, Any] = {
    "insert": insert(PageView).values(path="/1"),
    "insert many": insert(PageView).values([{"path": "/1"}, {"path": "/2"}]),
    "insert from select": insert(PageView).from_select(["path"], select(Story.title)),
    "insert returning": insert(PageView).values(path="/1").returning(PageView.id, PageView.path),
    "update": update(PageView).values(path="/1"),
    "delete": delete(PageView).where(PageView.id > 0),
    "one column": update(Account).where(Account.id == 1).values(seen=9),
    "one column by an expression": update(Account).values({Account.seen: Account.seen + 1}),
    "core insert": insert(page_view).values(path="/1"),
    "core insert returning": insert(page_view).values(path="/1").returning(page_view.c.id),
    "core delete": delete(page_view),
    "core column": update(account).values(last_seen=9),
    "core column object": update(account).values({account.c.last_seen: account.c.last_seen + 1}),
    "core ordered": update(account).ordered_values(("last_seen", 9)),
}
REFUSED: dict[str, Any] = {
    "two columns": update(Account).values(seen=9, visits=1),
    "another column": update(Account).values(visits=Account.visits + 1),
    "core two columns": update(account).values(last_seen=9, visits=1),
    "insert of a row": insert(Account).values(name="eve"),
    "delete of a row": delete(Account),
    "another table": insert(Story).values(title="x"),
    "text": text("INSERT INTO page_view (path) VALUES ('/1')"),
    "text of a column": text("UPDATE account SET last_seen = 9"),
}


@pytest.mark.usefixtures("read_only")
def test_statements_in_a_session(client: Client, sent: list[str]) -> None:
    """No rows, none matched; and all that is not exactly what was named is refused."""

    def body(session: Session) -> None:
        for name, statement in DROPPED.items():
            result: Any = session.execute(statement)
            assert result.rowcount == 0, name
            assert result.all() == [], name
        session.commit()
        assert sent == []
        for statement in REFUSED.values():
            with pytest.raises(ReadOnlyError):
                session.execute(statement)
            session.rollback()

    client.session(body)


@pytest.mark.usefixtures("read_only")
def test_statements_on_a_connection(client: Client, sent: list[str]) -> None:
    """The same, and the columns that were asked for."""

    def body(connection: Connection) -> None:
        for name, statement in DROPPED.items():
            if name.startswith("core"):
                result = connection.execute(statement)
                assert result.all() == [], name
                if "returning" in name:
                    assert list(result.keys()) == ["id"]
        connection.commit()
        assert sent == []
        for statement in REFUSED.values():
            with pytest.raises(ReadOnlyError):
                connection.execute(statement)
            connection.rollback()

    client.connect(body)


@pytest.mark.usefixtures("read_only")
def test_parameters_that_name_the_columns(client: Client, sent: list[str]) -> None:
    """`execute(update(t), {...})`: the SET clause comes from the keys."""
    by_id = update(account).where(account.c.id == bindparam("which"))

    def dropped(connection: Connection) -> None:
        connection.execute(insert(page_view), [{"path": "/1"}, {"path": "/2"}])
        connection.execute(by_id, {"which": 1, "last_seen": 9})
        connection.execute(by_id, [{"which": 1, "last_seen": 9}, {"which": 2, "last_seen": 9}])

    def refused(connection: Connection) -> None:
        with pytest.raises(ReadOnlyError):
            connection.execute(by_id, {"which": 1, "last_seen": 9, "visits": 1})

    def in_a_session(session: Session) -> None:
        session.execute(insert(PageView), [{"path": "/1"}, {"path": "/2"}])
        session.execute(update(Account), [{"id": 1, "seen": 9}])
        with pytest.raises(ReadOnlyError):
            session.execute(update(Account), [{"id": 1, "seen": 9, "name": "x"}])

    client.connect(dropped)
    client.session(in_a_session)
    assert [s for s in sent if "name" not in s] == []
    client.connect(refused)


@pytest.mark.usefixtures("read_only")
def test_a_refused_write_does_not_follow_a_dropped_one(client: Client) -> None:
    """The transaction goes on: a refused statement would have poisoned it."""

    def body(connection: Connection) -> None:
        connection.execute(insert(page_view).values(path="/1"))
        assert connection.execute(select(account.c.name)).scalar_one() == "ada"

    client.connect(body)


@pytest.mark.usefixtures("read_only")
def test_objects_in_the_session_are_not_told_of_a_dropped_update(client: Client) -> None:
    """`synchronize_session` must not show what was not written."""

    def body(session: Session) -> None:
        ada = session.get_one(Account, 1)
        session.execute(update(Account).values(seen=99))
        assert ada.seen == 1

    client.session(body)


def test_tables_in_a_schema(client: Client, switch: Switch) -> None:
    """`schema.table.*` is a table, `schema.table.column` a column; a bare name is not that table."""
    table = Table("page_view", MetaData(schema="stats"), autoload_replace=False)
    from readonly.databases.sqlalchemy._discard import Discards

    assert Discards(["stats.page_view.*"]).whole(table)
    assert not Discards(["page_view"]).knows(table)
    assert Discards(["stats.page_view.n"]).update(table, ["n"])
    assert not Discards(["stats.page_view.n"]).update(table, ["n", "m"])
    assert not Discards(["stats.page_view.n"]).update(table, [])


def test_other_engines_are_left_alone(client: Client, database: Database, switch: Switch, tmp_path: Any) -> None:
    """The hooks on sessions look at whose engine it is."""
    from sqlalchemy import create_engine

    switch.on()
    other: Engine = create_engine(f"sqlite:///{tmp_path}/other.db")
    PageView.metadata.create_all(other)
    with Session(other) as session:
        session.add(PageView(path="/1"))
        session.commit()
        session.execute(insert(PageView).values(path="/2"))
        session.commit()
        assert len(session.scalars(select(PageView)).all()) == 2
    other.dispose()


def test_after_close_nothing_is_dropped(client: Client, switch: Switch) -> None:
    """The hooks on sessions and engine are gone."""
    database = Database(client.engine, switch, discard=DISCARD)
    switch.on()
    database.close()

    def body(session: Session) -> None:
        session.add(PageView(path="/1"))
        session.commit()

    client.session(body)
    assert len(rows(client, "page_view")) == 1
