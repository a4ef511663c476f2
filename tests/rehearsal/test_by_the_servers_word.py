"""What a transaction wrote, by the word of its own server: PostgreSQL by two drivers, and MariaDB."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from readonly.databases.rehearsed import Unasked, asking
from readonly.databases.sqlalchemy import Database
from readonly.rehearsal_advice import advice
from rehearsal.conftest import Stage

Run = Callable[..., None]

SCHEMA = (
    "CREATE TABLE notes (id int primary key, body text)",
    "CREATE TABLE comments (id int primary key, note int references notes)",
    "CREATE TABLE log (line text)",
    "CREATE SCHEMA other",
    "CREATE TABLE other.notes (id int)",
    "CREATE SEQUENCE counter",
    "CREATE TABLE numbered (id serial primary key, other int generated always as identity)",
    "INSERT INTO notes VALUES (1, 'x')",
    "CREATE FUNCTION logged() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN INSERT INTO log VALUES ('updated'); RETURN NEW; END $$",
    "CREATE TRIGGER logs AFTER UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION logged()",
)
# What a view does, and what of it a read-only transaction would have been refused.
VIEWS = {
    "GET /plain": (["SELECT * FROM notes"], None),
    "GET /insert": (["INSERT INTO other.notes VALUES (1)"], ["main.other.notes"]),
    "GET /child": (["INSERT INTO comments VALUES (1, 1)"], ["main.comments"]),
    "GET /lock": (["SELECT * FROM notes FOR UPDATE"], ["main.notes"]),
    "GET /trigger": (["UPDATE notes SET body = 'y'"], ["main.log", "main.notes"]),
    "GET /nothing": (["UPDATE notes SET body = 'y' WHERE id = 99"], None),
    "GET /function": (["SELECT nextval('counter')"], ["main.counter"]),
    "GET /number": (["SELECT nextval('numbered_id_seq')"], ["main.numbered"]),
    "GET /numbered": (["INSERT INTO numbered DEFAULT VALUES"], ["main.numbered"]),
    "GET /temporary": (["CREATE TEMPORARY TABLE mine (id int)", "INSERT INTO mine VALUES (1)"], None),
    "GET /ddl": (["CREATE TABLE made (id int)"], ["main.made"]),
    "GET /with": (["WITH gone AS (DELETE FROM comments RETURNING id) SELECT * FROM gone"], ["main.comments"]),
}


@pytest.fixture(params=["psycopg", "asyncpg"])
def run(request: pytest.FixtureRequest, postgres_url: str, stage: Stage) -> Iterator[Run]:
    """Runs statements in a transaction of a guarded database, by one driver or the other."""
    url = make_url(postgres_url).set(drivername=f"postgresql+{request.param}")
    if request.param == "psycopg":
        engine = create_engine(url)
        database = Database(engine, stage.switch)

        def by_psycopg(*statements: str, goes_on_after: type[Exception] = NotImplementedError) -> None:
            with engine.begin() as connection, suppress(goes_on_after):
                for one in statements:
                    connection.execute(text(one))

        yield by_psycopg
        database.close()
        engine.dispose()
        return
    loop = asyncio.new_event_loop()
    aengine = create_async_engine(url)
    database = Database(aengine, stage.switch)

    async def arun(*statements: str, goes_on_after: type[Exception] = NotImplementedError) -> None:
        async with aengine.begin() as connection:
            with suppress(goes_on_after):
                for one in statements:
                    await connection.execute(text(one))

    yield lambda *statements, **how: loop.run_until_complete(arun(*statements, **how))
    database.close()
    loop.run_until_complete(aengine.dispose())
    loop.close()


def test_postgresql_names_the_tables_that_a_get_wrote(stage: Stage, run: Run) -> None:
    """Triggers, other schemas, locks for an update, sequences and data definition; no temporary table, no plain read.

    SQL text is not looked at: a WITH that deletes is found like the rest.
    """
    run(*SCHEMA)
    for request, (statements, _) in VIEWS.items():
        assert stage.ask(request, view=partial(run, *statements))
    found = stage.numbers
    assert {request: sorted(route.tables) for request, route in found.routes.items() if route.wrote} == {
        request: tables for request, (_, tables) in VIEWS.items() if tables is not None
    }
    wheres = {where for route in found.routes.values() for where in route.tables.values()}
    assert all("test_by_the_servers_word.py:" in where for where in wheres), wheres
    assert [t for t in found.outside.values() if "notes" in t], "the schema was made outside of any request"


def test_somebody_else_who_writes_is_found(stage: Stage, run: Run, postgres_url: str) -> None:
    """A script with the site's own password; the site's own processes are told from it by what they call themselves."""
    run("CREATE TABLE notes (id int)")
    with psycopg.connect(postgres_url, application_name="nightly-import") as stranger:
        stranger.execute("INSERT INTO notes VALUES (1)")
        rehearsed = _rehearsed_of(stage)
        rehearsed._around.next_look = float("-inf")
        assert stage.ask("GET /plain", view=partial(run, "SELECT 1"))
        found = stage.numbers
        assert [one for one in found.clients if one.endswith(" nightly-import")], found.clients
        assert found.own
        (one,) = (one for one in advice(found) if one.value.endswith("nightly-import"))
        assert "none of this site's processes" in one.why
        stranger.rollback()
    rehearsed._around.next_look = float("-inf")
    before = sum(stage.numbers.clients.values())
    assert stage.ask("GET /plain", view=partial(run, "SELECT 1"))
    assert sum(stage.numbers.clients.values()) == before, "who has written before writes no more"


def _rehearsed_of(stage: Stage) -> Any:
    (database,) = stage.switch.guards
    return database._rehearsed  # type: ignore[attr-defined]


def test_mariadb_counts_what_was_written(mariadb_url: str) -> None:
    """By its session's own counters: a read moves none, a temporary table counts, since it would be refused."""
    pymysql = pytest.importorskip("pymysql")
    url = make_url(mariadb_url)
    connection: Any = pymysql.connect(
        host=url.host, port=url.port, user=url.username, password=url.password or "", database=url.database
    )
    ask = asking("mysql")
    assert ask is not None

    def wrote(*statements: str) -> bool:
        before = ask.before(connection)
        cursor = connection.cursor()
        for one in statements:
            cursor.execute(one)
        told = ask.wrote(connection, before)
        connection.commit()
        return told is not None

    assert wrote("CREATE TABLE notes (id int primary key)")
    assert not wrote("SELECT * FROM notes")
    assert wrote("INSERT INTO notes VALUES (1)")
    assert not wrote("SELECT count(*) FROM notes GROUP BY id ORDER BY id")
    assert wrote("DELETE FROM notes")
    connection.close()


@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "is over"])
def test_a_question_that_ends_sqlites_transaction_is_no_success(ends: bool) -> None:
    """Some errors of SQLite roll back by themselves, and a commit of nothing succeeds; others cost no more."""
    ask = asking("sqlite")
    assert ask is not None
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE notes (id)")
        connection.execute("INSERT INTO notes VALUES (1)")

        def fails() -> None:
            if ends:
                connection.execute("ROLLBACK")
            connection.execute("SELECT * FROM nowhere")

        with pytest.raises(sqlite3.OperationalError if ends else Unasked):
            ask.apart(connection, fails)
        assert connection.in_transaction is not ends


def test_a_server_that_can_t_be_asked_is_not() -> None:
    """Then nothing is hooked in at all."""
    assert asking("oracle") is None


@pytest.mark.parametrize("question", ["_TABLES", "_WRITING"])
def test_a_question_that_fails_loses_nothing(
    stage: Stage, run: Run, postgres_url: str, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """A statement that fails spoils its transaction, of which COMMIT then makes a ROLLBACK without a word."""
    monkeypatch.setattr(f"readonly.databases.rehearsed.{question}", "SELECT 1/0")
    run("CREATE TABLE notes (id int)")
    _rehearsed_of(stage)._around.next_look = float("-inf")
    stage.ask("GET /insert", view=partial(run, "INSERT INTO notes VALUES (1)"))
    with psycopg.connect(postgres_url) as own:
        assert own.execute("SELECT count(*) FROM notes").fetchone() == (1,)


def test_a_question_that_costs_the_transaction_is_no_success(
    stage: Stage, run: Run, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks under the question: whoever wrote hears of it, and nothing stays open."""
    run("CREATE TABLE notes (id int)")
    with monkeypatch.context() as broken:
        broken.setattr("readonly.databases.rehearsed._TABLES", "SELECT pg_terminate_backend(pg_backend_pid())")
        with pytest.raises(DBAPIError):
            run("INSERT INTO notes VALUES (1)")
    assert stage.switch.inflight.count() == 0
    run("INSERT INTO notes VALUES (2)")
    with psycopg.connect(postgres_url) as own:
        assert own.execute("SELECT id FROM notes").fetchall() == [(2,)]


def test_a_transaction_that_the_application_spoilt_is_not_asked(
    stage: Stage, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """It has been told, and goes on to its commit as it would on any other day."""
    run("CREATE TABLE notes (id int)")
    stage.ask("GET /x", view=partial(run, "INSERT INTO notes VALUES (1)", "SELECT 1/0", goes_on_after=DBAPIError))
    assert stage.numbers.requests == 1
    assert not stage.numbers.routes, "nothing was written"
    assert "could not be looked at" not in caplog.text
