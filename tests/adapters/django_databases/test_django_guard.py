"""The guard of Django's databases: what is refused while read-only, by whom, and what is left on connections."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import (
    DatabaseError,
    IntegrityError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connection,
    connections,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test.utils import override_settings

from readonly import ReadOnlyError, Switch
from readonly.context import Work, working
from readonly.errors import ConfigurationError
from readonly_django.databases import Guards, install, uninstall
from readonly_django.errors import RefusedWrite
from support.django_site.aliases import databases
from support.django_site.models import Article, PageView, Tag

from .conftest import POSTGRESQL, SQLITE, Site, articles, driver, fresh, raw

INSERT = "INSERT INTO news_article (title, views) VALUES ('x', 0)"


# What an application does to write.
ORM_WRITES: tuple[Callable[[Article], object], ...] = (
    lambda article: Article.objects.create(title="x"),
    lambda article: Article.objects.bulk_create(articles(3)),
    lambda article: Article.objects.update(views=1),
    lambda article: Article.objects.filter(pk=0).update(views=1),
    lambda article: Article.objects.bulk_update([article], ["title"]),
    lambda article: PageView.objects.all().delete(),
    lambda article: Article.objects.get_or_create(title="new"),
    lambda article: Article.objects.update_or_create(title="first", defaults={"views": 3}),
    lambda article: article.save(),
    lambda article: article.save(update_fields=["views"]),
    lambda article: article.tags.create(name="x"),
    lambda article: Article(pk=77, title="x").save(force_insert=True),
    lambda article: article.delete(),
)


def execute(statement: str) -> None:
    """Run a statement through Django's cursor."""
    with connection.cursor() as cursor:
        cursor.execute(statement)


def in_transaction(atomic: bool) -> AbstractContextManager[object]:
    """Return an atomic block, or none."""
    return transaction.atomic() if atomic else nullcontext()


def in_thread(body: Callable[[], Any]) -> Any:
    """Run a body in a thread of its own, and close what it has opened there."""

    def run() -> Any:
        try:
            return body()
        finally:
            fresh()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


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


# --- while writable, and afterwards ----------------------------------------------------------------------------------


def left_over() -> tuple[object, ...]:
    """Return what a connection keeps that could make it refuse."""
    found = raw()
    if connection.vendor == SQLITE:
        return tuple(found.execute("PRAGMA query_only").fetchone())
    # Asked first: it is put back when the connection is used.
    said = found.execute("SELECT setting, source FROM pg_settings WHERE name = 'default_transaction_read_only'")
    return (*said.fetchone(), found.read_only)


def test_nothing_stays_on_a_persistent_connection(site: Site, guards: Guards, switch: Switch) -> None:
    """The same connection writes again when the mode is over: psycopg's `read_only` is None, and never False."""
    clean, same = left_over(), raw()
    switch.on()
    for _ in range(2):
        with pytest.raises(ReadOnlyError):
            execute(INSERT)
        with pytest.raises(ReadOnlyError), transaction.atomic():
            execute(INSERT)
    switch.off()
    assert left_over() == clean == (("off", "default", None) if site.on_postgresql else (0,))
    Article.objects.create(title="x")
    with transaction.atomic():
        Article.objects.create(title="x")
    assert raw() is same
    assert site.count() == 3


def test_a_session_default_of_ones_own_is_put_back(make_site: Callable[..., Site], switch: Switch) -> None:
    """What was found is put back, not what is usual."""
    make_site(POSTGRESQL)
    install(switch)
    execute("SET default_transaction_read_only = off")
    switch.on()
    assert Article.objects.count() == 1
    assert left_over()[:2] == ("on", "session")
    switch.off()
    assert left_over() == ("off", "session", None)


@pytest.mark.parametrize("statement", ["DISCARD ALL", "RESET ALL", "SET default_transaction_read_only = off"])
def test_the_session_default_is_looked_at_again(make_site: Callable[..., Site], switch: Switch, statement: str) -> None:
    """A pool's reset, or a cursor of the driver, lifts it: the next transaction is guarded all the same."""
    make_site(POSTGRESQL)
    install(switch)
    switch.on()
    assert Article.objects.count() == 1
    raw().execute(statement)
    with pytest.raises(ReadOnlyError):
        execute(INSERT)
    switch.off()
    assert left_over()[0] == "off"


def test_sites_without_autocommit_queries_get_no_session_default(
    make_site: Callable[..., Site], switch: Switch
) -> None:
    """With ATOMIC_REQUESTS, each transaction carries it in its BEGIN: that passes a transaction pooler."""
    make_site(POSTGRESQL)
    fresh()
    install(switch)
    switch.on()
    with transaction.atomic():
        assert Article.objects.count() == 1
        with connection.cursor() as cursor:
            cursor.execute("SHOW transaction_read_only")
            assert cursor.fetchone() == ("on",)
            cursor.execute("SHOW default_transaction_read_only")
            assert cursor.fetchone() == ("off",)


def test_writes_pass_while_writable(site: Site, guards: Guards, switch: Switch) -> None:
    """The guard is in nobody's way."""
    article = Article.objects.get()
    for write in ORM_WRITES:
        write(article)
    with transaction.atomic():
        Article.objects.create(title="x")
        with transaction.atomic():
            Article.objects.create(title="x")
    assert switch.inflight.count() == 0


def test_uninstalled_in_the_middle_of_the_mode(site: Site, guards: Guards, switch: Switch) -> None:
    """This thread's connection is put back at once, another thread's at its next use."""
    clean = left_over()
    go, done = threading.Event(), threading.Event()

    def other() -> int:
        assert Article.objects.count() == 1
        done.set()
        assert go.wait(10)
        Article.objects.create(title="x")
        fresh()
        return 1

    switch.on()
    assert Article.objects.count() == 1
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(other)
        assert done.wait(10)
        uninstall()
        assert left_over() == clean
        go.set()
        assert written.result() == 1
    Article.objects.create(title="x")
    assert site.count() == 3
    assert BaseDatabaseWrapper.connect.__module__ == BaseDatabaseWrapper.__module__
    assert not switch.guarded
    assert switch.inflight.count() == 0


def test_installed_anew(site: Site, guards: Guards, switch: Switch) -> None:
    """A connection that another guard knew before is known by this one."""
    switch.on()
    assert Article.objects.count() == 1
    uninstall()
    switch.off()
    install(switch)
    execute(INSERT)
    switch.on()
    with pytest.raises(ReadOnlyError):
        execute(INSERT)
    assert site.count() == 2


def test_a_connection_from_before_the_guard(site: Site, switch: Switch) -> None:
    """What this thread has opened before is taken in."""
    assert Article.objects.count() == 1
    install(switch)
    switch.on()
    with pytest.raises(ReadOnlyError):
        execute(INSERT)


# --- round the guard -------------------------------------------------------------------------------------------------


def test_a_cursor_of_the_driver(site: Site, guards: Guards, switch: Switch) -> None:
    """As the first use of a connection, and on one that was taken before the switch and held across it."""
    held = raw()
    held.cursor().execute(INSERT)
    cursor = held.cursor()
    switch.on()
    work = Work(switch)
    for use in (lambda: held.execute(INSERT), lambda: held.cursor().execute(INSERT), lambda: cursor.execute(INSERT)):
        with working(work), pytest.raises(Exception, match=r"read-?only") as refused:
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


# --- transactions and the switch -------------------------------------------------------------------------------------


def test_a_transaction_that_had_begun_may_finish(site: Site, guards: Guards, switch: Switch) -> None:
    """And no other may begin, on the same connection; the other way round, a read-only one stays so to its end."""
    with transaction.atomic():
        execute(INSERT)
        switch.on()
        execute(INSERT)
        with transaction.atomic():
            execute(INSERT)
    with pytest.raises(ReadOnlyError):
        execute(INSERT)
    with transaction.atomic():
        assert Article.objects.count() == 4
        switch.off()
        with pytest.raises(ReadOnlyError), transaction.atomic():
            execute(INSERT)
        assert Article.objects.count() == 4
    execute(INSERT)
    assert site.count() == 5


def test_a_refusal_in_a_savepoint(site: Site, guards: Guards, switch: Switch) -> None:
    """The block around it goes on reading."""
    switch.on()
    with transaction.atomic():
        with pytest.raises(ReadOnlyError), transaction.atomic():
            Article.objects.create(title="x")
        assert Article.objects.count() == 1


def test_manual_transactions(site: Site, guards: Guards, switch: Switch) -> None:
    """`set_autocommit(False)`: each transaction is judged when it begins."""
    transaction.set_autocommit(False)
    try:
        execute(INSERT)
        switch.on()
        execute(INSERT)
        transaction.commit()
        with pytest.raises(ReadOnlyError):
            execute(INSERT)
        transaction.rollback()
        switch.off()
        execute(INSERT)
        transaction.rollback()
        execute(INSERT)
        transaction.commit()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert site.count() == 4
    assert switch.inflight.count() == 0


def test_a_project_without_autocommit(vendor: str, make_site: Callable[..., Site], switch: Switch) -> None:
    """AUTOCOMMIT=False in the settings."""
    site = make_site(vendor, AUTOCOMMIT=False)
    transaction.commit()
    install(switch)
    switch.on()
    with pytest.raises(ReadOnlyError):
        execute(INSERT)
    transaction.rollback()
    assert guards_prove(switch) == [""]
    switch.off()
    execute(INSERT)
    transaction.commit()
    assert site.count() == 2
    transaction.rollback()


def test_work_that_may_write(site: Site, guards: Guards, switch: Switch) -> None:
    """What was admitted before the switch, and a bypass, on a connection that was guarded before and is again."""
    key = switch.inflight.begin()
    switch.on()
    for work in (Work(switch, key=key), Work(switch, bypass=True)):
        with pytest.raises(ReadOnlyError):
            execute(INSERT)
        with working(work):
            execute(INSERT)
            with transaction.atomic():
                execute(INSERT)
    with pytest.raises(ReadOnlyError):
        execute(INSERT)
    assert site.count() == 5
    switch.inflight.end(key)
    with working(Work(switch, key=key)), pytest.raises(ReadOnlyError):
        execute(INSERT)


def test_work_of_another_switch(site: Site, guards: Guards, switch: Switch) -> None:
    """What another site admitted opens nothing here."""
    other = Switch.from_url("memory://?site=other")
    switch.on()
    with working(Work(other, bypass=True)), pytest.raises(ReadOnlyError):
        execute(INSERT)


@pytest.mark.anyio
async def test_the_async_orm(make_site: Callable[..., Site], switch: Switch) -> None:
    """Django runs it in threads; the request's context comes along."""
    from asgiref.sync import sync_to_async

    await sync_to_async(make_site)(POSTGRESQL)
    await sync_to_async(install)(switch)
    await Article.objects.acreate(title="x")
    await switch.aon()
    work = Work(switch)
    with working(work):
        with pytest.raises(ReadOnlyError):
            await Article.objects.acreate(title="x")
        assert work.escape is not None
        assert await Article.objects.acount() == 2
    with working(Work(switch, bypass=True)):
        await Article.objects.acreate(title="x")
    assert [a.title async for a in Article.objects.order_by("pk")] == ["first", "x", "x"]
    await sync_to_async(fresh)()


def test_the_pool_of_psycopg(make_site: Callable[..., Site], switch: Switch) -> None:
    """A connection goes back to the pool guarded, and whoever gets it next is judged anew."""
    site = make_site(POSTGRESQL, OPTIONS={"pool": {"min_size": 1, "max_size": 1, "timeout": 10}})
    install(switch)
    execute(INSERT)
    clean = left_over()
    switch.on()
    for atomic in (False, True):
        with pytest.raises(ReadOnlyError), in_transaction(atomic):
            execute(INSERT)
        fresh()
    with pytest.raises(ReadOnlyError):
        in_thread(lambda: execute(INSERT))
    # The application holds the pool's only connection: the proof has one of its own.
    assert Article.objects.count() == 2
    assert guards_prove(switch) == [""]
    fresh()
    switch.off()
    in_thread(lambda: execute(INSERT))
    assert left_over() == clean
    assert site.count() == 3
    assert switch.inflight.count() == 0


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


# --- proof and report ------------------------------------------------------------------------------------------------


def guards_prove(switch: Switch) -> list[str]:
    """Ask each guard for its proof, as the switch does: in a thread of its own."""
    return [in_thread(guard.prove) for guard in switch.guards]


def test_the_guard_proves_itself(site: Site, guards: Guards, switch: Switch) -> None:
    """A harmless write is refused in autocommit and in a transaction; nothing is left behind, or in flight."""
    assert guards_prove(switch) == [""]
    state = switch.on()
    assert switch.confirm(state.epoch, timeout=10).safe
    [report] = switch.members()
    assert [(g.name, g.proof) for g in report.guards] == [("default", "")]
    switch.off()
    execute(INSERT)
    assert switch.inflight.count() == 0


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_broken_guard_is_found_out(
    site: Site, guards: Guards, switch: Switch, monkeypatch: pytest.MonkeyPatch, autocommit: bool
) -> None:
    """If the server is not told, the proof says so; each of the two ways by itself."""
    guard = guards.guard("default")
    assert guard is not None
    server = type(guard.server)
    told = server.guard

    def tell(self: Any, found: Any, memory: Any) -> None:
        in_autocommit = getattr(found, "autocommit", True) is True and not getattr(found, "in_transaction", False)
        if in_autocommit is not autocommit and site.on_postgresql:
            told(self, found, memory)

    monkeypatch.setattr(server, "guard", tell)
    monkeypatch.setattr(server, "restore", lambda self, found, memory: True)
    switch.on()
    [said] = guards_prove(switch)
    assert "not refused" in said
    monkeypatch.undo()
    with pytest.raises((ProgrammingError, OperationalError)):
        execute("SELECT * FROM readonly_proof")


def test_a_database_that_is_gone_is_no_proof(make_site: Callable[..., Site], switch: Switch) -> None:
    """What could not be tried is said, without a password."""
    gone = {"ENGINE": "django.db.backends.postgresql", "NAME": "x", "USER": "u", "PASSWORD": "hunter2"}
    make_site(SQLITE, extra={"gone": {**gone, "HOST": "127.0.0.1", "PORT": "1"}})
    install(switch)
    said = dict(zip([g.name for g in switch.guards], guards_prove(switch), strict=True))
    assert said["default"] == ""
    assert "could not be tried" in said["gone"]
    assert "hunter2" not in said["gone"]


def test_members_say_what_they_write_to(site: Site, guards: Guards, switch: Switch) -> None:
    """Server, driver, database and user; no password."""
    [guard] = switch.guards
    found = guard.describe()
    assert found["server"] == site.vendor
    assert found["driver"] == ("psycopg" if site.on_postgresql else "sqlite3")
    assert str(found["database"]) in site.url
    assert ("user" in found) is site.on_postgresql


# --- tests in one transaction ----------------------------------------------------------------------------------------


def test_a_block_within_a_transaction(site: Site, guards: Guards, switch: Switch) -> None:
    """What `TestCase` needs: the transaction that began while writable can't write in the block, and can afterwards."""
    from readonly_django.databases import read_only_transactions

    with transaction.atomic():
        execute(INSERT)
        state = switch.on()
        with read_only_transactions():
            assert Article.objects.count() == 2
            with pytest.raises(ReadOnlyError), transaction.atomic():
                Article.objects.create(title="x")
            assert Article.objects.count() == 2
            assert switch.confirm(state.epoch, timeout=10).safe
        assert switch.inflight.count() == 1
        switch.off()
        execute(INSERT)
    assert site.count() == 3
    assert switch.inflight.count() == 0


# --- what can't be guarded -------------------------------------------------------------------------------------------


def test_an_alias_that_nobody_configured(site: Site, guards: Guards, switch: Switch) -> None:
    """A connection object that was made by hand is guarded all the same."""
    switch.on()
    made = connections["default"].copy(alias="by hand")
    try:
        with pytest.raises(ReadOnlyError) as refused, made.cursor() as cursor:
            cursor.execute(INSERT)
        assert refused.value.database == "by hand"
    finally:
        made.close()
    assert [guard.name for guard in switch.guards] == ["default"]


def test_databases_that_are_left_out(make_site: Callable[..., Site], switch: Switch) -> None:
    """They are written as ever, and nobody waits for that."""
    site = make_site(SQLITE)
    install(switch, unguarded=["default"])
    assert switch.guards == ()
    switch.on()
    with transaction.atomic():
        execute(INSERT)
        assert switch.inflight.count() == 0
    assert site.count() == 2


class _Driver:
    """The module of a driver that has no guard."""

    __name__ = "oracledb"


def test_a_driver_that_has_no_guard(
    make_site: Callable[..., Site], switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start-up stops and says what to do; left out, it goes on."""
    make_site(SQLITE)
    monkeypatch.setattr(type(connections["default"]), "Database", _Driver())
    with pytest.raises(ConfigurationError, match=r"goes through oracledb, which has no guard.*UNGUARDED"):
        install(switch)
    assert not switch.guarded
    install(switch, unguarded=["default"])


def test_a_project_without_a_database(switch: Switch) -> None:
    """DATABASES = {}: there is nothing to guard."""
    with databases():
        install(switch)
        assert switch.guards == ()
        uninstall()


def test_a_driver_that_is_missing(make_site: Callable[..., Site], switch: Switch) -> None:
    """That is Django's to report, to whoever connects: other commands go on."""
    make_site(SQLITE, extra={"other": {"ENGINE": "nowhere.backend", "NAME": "x"}})
    install(switch)
    assert [guard.name for guard in switch.guards] == ["default"]
    with pytest.raises(ImproperlyConfigured):
        connections["other"].ensure_connection()


def test_a_connection_that_is_not_the_drivers_own(
    site: Site, guards: Guards, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend's own pool between Django and the driver: refused when it connects, and not let through."""
    fresh()

    class Proxy:
        def close(self) -> None:
            closed.append(self)

    closed: list[Proxy] = []
    wrapper = connections["default"].copy()
    monkeypatch.setattr(type(wrapper), "get_new_connection", lambda self, parameters: Proxy())
    with pytest.raises(ConfigurationError, match=r"connects with .*Proxy, which can't be guarded"):
        wrapper.ensure_connection()
    assert closed


def test_the_cache_in_the_database(site: Site, guards: Guards, switch: Switch) -> None:
    """It is read, and what can't be kept there is not kept."""
    from django.core.cache.backends.db import DatabaseCache

    execute("DROP TABLE IF EXISTS cached")
    moment = "timestamptz" if site.on_postgresql else "datetime"
    execute(f"CREATE TABLE cached (cache_key varchar(255) PRIMARY KEY, value text, expires {moment})")
    with override_settings(DATABASE_ROUTERS=["readonly_django.routers.ReplicaRouter"]):
        cache = DatabaseCache("cached", {})
        cache.set("x", 1)
        switch.on()
        assert cache.get("x") == 1
        cache.set("x", 2)
        cache.set("y", 2)
        assert (cache.get("x"), cache.get("y")) == (1, None)
        with transaction.atomic():
            cache.set("x", 3)
            assert cache.get("x") == 1
        switch.off()
        cache.set("x", 4)
        assert cache.get("x") == 4
    execute("DROP TABLE cached")


def test_health_checks_tell_the_server_nothing(make_site: Callable[..., Site], switch: Switch) -> None:
    """Django's own look at a persistent connection sets no session default."""
    make_site(POSTGRESQL, CONN_HEALTH_CHECKS=True, CONN_MAX_AGE=None)
    install(switch)
    switch.on()
    connection.close_if_unusable_or_obsolete()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SHOW default_transaction_read_only")
        assert cursor.fetchone() == ("off",)
