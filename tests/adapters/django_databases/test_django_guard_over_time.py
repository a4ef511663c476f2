"""The guard and time: what may be finished, what is over, and what is left on connections when the mode ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import (
    DatabaseError,
    connection,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper

from readonly import ReadOnlyError, Switch
from readonly.changes import Operator, lift_exactly, turn_on
from readonly.context import Work, working
from readonly.record import FENCE, OPERATOR
from readonly_django.databases import Guards, install, read_only_transactions, uninstall
from support.django_site.models import Article
from support.waiting import eventually

from .conftest import (
    INSERT,
    MYSQL,
    ORM_WRITES,
    POSTGRESQL,
    SQLITE,
    Site,
    execute,
    fresh,
    guards_prove,
    in_thread,
    in_transaction,
    left_over,
    raw,
)


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
        assert go.wait(60)
        Article.objects.create(title="x")
        fresh()
        return 1

    switch.on()
    assert Article.objects.count() == 1
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(other)
        assert done.wait(60)
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


@pytest.mark.parametrize(
    ("vendor", "denied"),
    [
        (POSTGRESQL, "DO $$ BEGIN RAISE EXCEPTION 'permission denied' USING ERRCODE = '42501'; END $$"),
        (MYSQL, "CREATE DATABASE nobody_may"),
    ],
)
def test_a_fence_refuses_who_is_let_through(
    vendor: str, denied: str, make_site: Callable[..., Site], switch: Switch
) -> None:
    """Also one that has taken rights away; where none stands, a right that is missing is the application's fault."""
    make_site(vendor)
    install(switch)
    ann = Operator("ann", "desk")
    for kind, refused in ((OPERATOR, DatabaseError), (FENCE, ReadOnlyError)):
        (cause,) = turn_on(switch.store, ann, kind=kind).causes
        eventually(lambda: [found.id for found in switch.state.causes] == [cause])  # noqa: B023 - called at once
        work = Work(switch, bypass=True)
        with working(work), pytest.raises(refused), transaction.atomic():
            execute(denied)
        assert (work.escape is not None) is (kind == FENCE)
        lift_exactly(switch.store, ann, cause)


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
    site = make_site(POSTGRESQL, OPTIONS={"pool": {"min_size": 1, "max_size": 1, "timeout": 60}})
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


# --- tests in one transaction ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", [SQLITE, POSTGRESQL])
def test_a_block_within_a_transaction(site: Site, guards: Guards, switch: Switch) -> None:
    """What `TestCase` needs: the transaction that began while writable can't write in the block, and can afterwards."""
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


@pytest.mark.parametrize("vendor", [MYSQL])
def test_a_block_that_mariadb_can_t_do(
    site: Site, guards: Guards, switch: Switch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said, and what the transaction has written stays."""
    with transaction.atomic():
        execute(INSERT)
        switch.on()
        with read_only_transactions():
            assert Article.objects.count() == 2
        switch.off()
    assert site.count() == 2
    assert "TransactionTestCase" in caplog.text
