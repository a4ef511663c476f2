"""The guard of Django's databases: what is refused while read-only, whoever tries it in whichever way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import (
    DatabaseError,
    IntegrityError,
    InternalError,
    OperationalError,
    connection,
    connections,
    transaction,
)

from readonly import ReadOnlyError, Switch
from readonly.context import Work, working
from readonly_django.databases import Guards, install
from readonly_django.errors import RefusedWrite
from support.django_site.models import Article, Tag

from .conftest import (
    INSERT,
    MYSQL,
    ORM_WRITES,
    POSTGRESQL,
    SQLITE,
    Site,
    driver,
    execute,
    fresh,
    in_thread,
    in_transaction,
    raw,
    send,
)


@pytest.mark.parametrize("atomic", [False, True])
def test_whatever_the_orm_writes_is_refused(site: Site, guards: Guards, switch: Switch, atomic: bool) -> None:
    """In autocommit, Django's default, and in an atomic block."""
    article = Article.objects.get()
    switch.on(reason="migration")
    for write in ORM_WRITES:
        with pytest.raises(ReadOnlyError, match="migration") as refused, in_transaction(atomic):
            write(article)
        assert refused.value.database == "default"
    assert [(a.title, a.views) for a in Article.objects.all()] == [("first", 0)]
    assert switch.inflight.count() == 0


def test_a_first_connection_is_guarded(site: Site, guards: Guards, switch: Switch) -> None:
    """One that is opened while read-only, in this thread and in others."""
    fresh()
    switch.on()
    with pytest.raises(ReadOnlyError):
        execute(INSERT)
    with pytest.raises(ReadOnlyError):
        in_thread(lambda: execute(INSERT))
    assert site.count() == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE news_article SET views = 1 WHERE 1 = 0",
        "DELETE FROM news_article",
        "CREATE TABLE other (x INTEGER)",
        "CREATE TEMPORARY TABLE other (x INTEGER)",
        "DROP TABLE news_tag",
    ],
)
def test_raw_sql_is_refused(site: Site, guards: Guards, switch: Switch, statement: str) -> None:
    """The server judges."""
    switch.on()
    with pytest.raises(ReadOnlyError):
        execute(statement)
    with pytest.raises(ReadOnlyError), transaction.atomic():
        execute(statement)


def test_what_postgresql_calls_a_write(make_site: Callable[..., Site], switch: Switch) -> None:
    """Writes in disguise, in the server's own words; what only reads passes however it looks."""
    make_site(POSTGRESQL)
    install(switch)
    switch.on()
    for statement in (
        "WITH gone AS (DELETE FROM news_article RETURNING 1) SELECT * FROM gone",
        "SELECT nextval('news_article_id_seq')",
        "SELECT * FROM news_article FOR UPDATE",
        "EXPLAIN ANALYZE DELETE FROM news_article",
        "DO $$ BEGIN INSERT INTO news_tag (name) VALUES ('x'); END $$",
    ):
        with pytest.raises(ReadOnlyError, match="read-only transaction"):
            execute(statement)
    for statement in ("EXPLAIN DELETE FROM news_article", "/* INSERT */ SELECT 'a; delete b'", "TABLE news_article"):
        execute(statement)


def test_reads_pass(site: Site, guards: Guards, switch: Switch) -> None:
    """In autocommit, in atomic blocks, through a server's cursor."""
    switch.on()
    assert Article.objects.count() == 1
    assert len(list(Article.objects.iterator())) == 1
    with transaction.atomic():
        assert Article.objects.count() == 1
        assert len(list(Article.objects.iterator())) == 1
    with transaction.atomic(durable=True), transaction.atomic():
        assert Article.objects.get().title == "first"


# --- round the guard -------------------------------------------------------------------------------------------------


def test_a_cursor_of_the_driver(site: Site, guards: Guards, switch: Switch) -> None:
    """As the first use of a connection, and on one that was taken before the switch and held across it."""
    held = raw()
    held.cursor().execute(INSERT)
    cursor = held.cursor()
    switch.on()
    work = Work(switch)
    for use in (lambda: send(held, INSERT), lambda: held.cursor().execute(INSERT), lambda: cursor.execute(INSERT)):
        with working(work), pytest.raises(Exception, match=r"(?i)read[ -]?only") as refused:
            use()
        # Its error is the driver's, but the request is answered with the 503.
        assert guards.guard("default").server.is_refusal(refused.value)  # type: ignore[union-attr]
        assert isinstance(work.escape, ReadOnlyError)
    assert site.count() == 2
    switch.off()
    cursor.execute(INSERT)
    assert site.count() == 3


def test_the_drivers_other_ways(make_site: Callable[..., Site], switch: Switch) -> None:
    """COPY, procedures, many at once, pipelines, streams and transactions of psycopg."""
    site = make_site(POSTGRESQL)
    execute(
        "CREATE OR REPLACE FUNCTION news_write() RETURNS int LANGUAGE sql AS "
        "$$ INSERT INTO news_article (title, views) VALUES ('x', 0) RETURNING 1 $$"
    )
    install(switch)

    def copy() -> None:
        with connection.cursor() as cursor, cursor.copy("COPY news_tag (name) FROM STDIN") as copied:
            copied.write_row(["x"])

    def callproc() -> None:
        with connection.cursor() as cursor:
            cursor.callproc("news_write")

    def many() -> None:
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO news_tag (name) VALUES (%s)", [("a",), ("b",)])

    def pipeline() -> None:
        with raw().pipeline():
            raw().execute(INSERT)

    def stream() -> None:
        with raw().cursor() as cursor:
            list(cursor.stream("INSERT INTO news_article (title, views) VALUES ('x', 0) RETURNING id"))

    def own_transaction() -> None:
        with raw().transaction():
            raw().execute(INSERT)

    ways = (copy, callproc, many, pipeline, stream, own_transaction)
    for way in ways:
        for opened_before in (True, False):
            connection.ensure_connection()
            switch.on()
            if not opened_before:
                fresh()
            work = Work(switch)
            with working(work), pytest.raises(Exception, match="read-only transaction"):
                way()
            assert isinstance(work.escape, ReadOnlyError), way
            switch.off()
    assert (site.count(), Tag.objects.count()) == (1, 0)
    for way in ways:
        way()
    assert (site.count(), Tag.objects.count()) == (5, 3)
    assert switch.inflight.count() == 0


def test_a_pipeline_that_is_open_across_the_switch(make_site: Callable[..., Site], switch: Switch) -> None:
    """What is sent on it after the switch is refused."""
    site = make_site(POSTGRESQL)
    install(switch)

    def piped() -> None:
        with raw().pipeline() as pipeline:
            raw().execute(INSERT)
            pipeline.sync()
            switch.on()
            raw().execute(INSERT)
            pipeline.sync()

    with pytest.raises(Exception, match="read-only transaction"):
        piped()
    assert site.count() == 2
    assert switch.inflight.count() == 0


LIFTING = {
    POSTGRESQL: [
        "SET TRANSACTION READ WRITE",
        "BEGIN READ WRITE",
        "SET default_transaction_read_only = off",
        "RESET ALL",
        "DISCARD ALL",
    ],
    SQLITE: ["PRAGMA query_only = 0", "pragma main.query_only(off)"],
    MYSQL: [
        "SET SESSION TRANSACTION READ WRITE",
        "START TRANSACTION READ WRITE",
        "SET STATEMENT tx_read_only = 0 FOR INSERT INTO news_article (title, views) VALUES ('x', 0)",
        "SET SESSION tx_read_only = OFF",
    ],
}


def test_statements_that_would_lift_the_guard(site: Site, guards: Guards, switch: Switch) -> None:
    """As first statement the server would obey them; while writable nobody minds."""
    switch.on()
    for statement in LIFTING[site.vendor]:
        with pytest.raises(ReadOnlyError, match="would lift the guard"):
            execute(statement)
        with pytest.raises(ReadOnlyError, match="would lift the guard"), transaction.atomic():
            execute(statement)
    switch.off()
    execute(LIFTING[site.vendor][-1])


@pytest.mark.parametrize("mode", ["IMMEDIATE", "EXCLUSIVE"])
def test_sqlite_readers_that_begin_to_write_still_read(
    make_site: Callable[..., Site], switch: Switch, mode: str
) -> None:
    """Django's own `transaction_mode` makes every atomic block begin like a writer; pages must stay readable."""
    site = make_site(SQLITE, OPTIONS={"transaction_mode": mode})
    install(switch)
    switch.on()
    with transaction.atomic():
        assert Article.objects.count() == 1
        with pytest.raises(ReadOnlyError):
            execute(INSERT)
    switch.off()
    with transaction.atomic():
        execute(INSERT)
    assert site.count() == 2


def test_a_wrapper_of_the_applications_own(site: Site, guards: Guards, switch: Switch) -> None:
    """`execute_wrapper` blocks around statements, and the guard's own place among them, do not disturb each other."""
    seen: list[str] = []

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        return execute(sql, params, many, context)

    switch.on()
    with connection.execute_wrapper(wrapper):
        assert Article.objects.count() == 1
        with pytest.raises(ReadOnlyError):
            execute(INSERT)
    assert len(seen) == 2
    with pytest.raises(ReadOnlyError, match="lift"):
        execute(LIFTING[site.vendor][0])


def test_a_copy_of_a_connection(site: Site, guards: Guards, switch: Switch) -> None:
    """Connection objects that no handler made are guarded, too."""
    switch.on()
    copied = connections["default"].copy()
    try:
        with pytest.raises(ReadOnlyError), copied.cursor() as cursor:
            cursor.execute(INSERT)
    finally:
        copied.close()


# --- errors ----------------------------------------------------------------------------------------------------------


def test_what_a_refusal_is(site: Site, guards: Guards, switch: Switch) -> None:
    """Ours, and Django's own class for that driver: who handles a failing database goes on doing so."""
    switch.on(reason="migration")
    kind = InternalError if site.on_postgresql else OperationalError
    work = Work(switch)
    with working(work), pytest.raises(kind) as refused:
        Article.objects.create(title="x")
    assert isinstance(refused.value, RefusedWrite)
    assert isinstance(refused.value, ReadOnlyError)
    assert isinstance(refused.value, DatabaseError)
    assert isinstance(refused.value.__cause__, driver().Error)
    assert refused.value.database == "default"
    assert isinstance(work.escape, ReadOnlyError)
    assert not connection.errors_occurred


def test_other_errors_stay_errors(site: Site, guards: Guards, switch: Switch) -> None:
    """Only the code counts, never the words."""
    with pytest.raises(IntegrityError):
        execute("INSERT INTO news_article (title, views) VALUES (NULL, 0)")
    switch.on()
    work = Work(switch)
    with working(work), pytest.raises(DatabaseError) as failed:
        execute('SELECT "attempt to write a readonly database" FROM nowhere')
    assert not isinstance(failed.value, ReadOnlyError)
    assert work.escape is None


def test_the_applications_own_read_only_transaction(make_site: Callable[..., Site], switch: Switch) -> None:
    """While the site is writable, 25006 is a bug of the application and no answer to a visitor."""
    make_site(POSTGRESQL)
    install(switch)
    with transaction.atomic():
        execute("SET TRANSACTION READ ONLY")
        with pytest.raises(InternalError) as failed, transaction.atomic():
            execute(INSERT)
    assert not isinstance(failed.value, ReadOnlyError)
