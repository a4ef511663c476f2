"""The drain of Django's databases: what may write is in flight until its end is decided, and nothing is left over."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from django.core.signals import request_finished
from django.db import DatabaseError, Error, InterfaceError, OperationalError, connection, connections, transaction
from django.db.transaction import TransactionManagementError

from readonly import ReadOnlyError, Switch
from readonly.context import Work, working
from readonly_django._drivers import held_of
from readonly_django.databases import Guards, install
from support.collecting import nothing_in_flight
from support.django_site.models import Article
from support.waiting import eventually

from .conftest import INSERT, MYSQL, POSTGRESQL, SQLITE, Site, driver, execute, fresh, raw, send


def test_in_flight_until_the_transaction_ends(site: Site, guards: Guards, switch: Switch) -> None:
    """A block as a whole, from its first statement; a statement in autocommit for itself."""
    assert switch.inflight.count() == 0
    with transaction.atomic():
        Article.objects.create(title="x")
        assert switch.inflight.count() == 1
        with transaction.atomic():
            Article.objects.create(title="x")
        assert switch.inflight.count() == 1
    assert switch.inflight.count() == 0

    def fail() -> None:
        with transaction.atomic():
            Article.objects.create(title="x")
            assert switch.inflight.count() == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert switch.inflight.count() == 0
    Article.objects.create(title="x")
    assert switch.inflight.count() == 0


def _finds(wrapper: Any, question: str) -> bool:
    """Tell whether a question has an answer, on a connection of its own."""
    with wrapper.cursor() as cursor:
        cursor.execute(question)
        return cursor.fetchone() is not None


@pytest.mark.parametrize("vendor", [POSTGRESQL, MYSQL])
def test_a_statement_in_autocommit_is_drained(site: Site, guards: Guards, switch: Switch) -> None:
    """Django's default: `on` waits for one that is under way, through Django's cursor and through the driver's."""
    # It waits for a lock of the application's own, so that it is under way for as long as the test wants.
    lock = site.url.rpartition("/")[2]
    if site.on_postgresql:
        take, takes = "SELECT pg_advisory_lock(7)", "pg_advisory_xact_lock(7)"
        waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
    else:
        take, takes = f"SELECT get_lock('{lock}', 60)", f"(SELECT get_lock('{lock}', 60)) AS taken"
        waits = "SELECT 1 FROM information_schema.processlist WHERE state = 'User lock'"
    slow = f"INSERT INTO news_article (title, views) SELECT 'slow', 0 FROM {takes}"

    def by_django() -> None:
        execute(slow)
        fresh()

    def by_the_driver() -> None:
        send(raw(), slow)
        fresh()

    for run in (by_django, by_the_driver):
        before = site.count()
        with ThreadPoolExecutor(1) as pool:
            holder = connection.copy()
            try:
                with holder.cursor() as cursor:
                    cursor.execute(take)
                running = pool.submit(run)
                eventually(partial(_finds, holder, waits), what="the statement is under way")
                state = switch.on()
                assert not switch.confirm(state.epoch, timeout=0.1).safe
                assert not running.done()
            finally:
                holder.close()
            assert switch.confirm(state.epoch, timeout=10).safe
            assert site.count() == before + 1
            running.result()
        switch.off()


def test_a_get_that_writes_is_drained(site: Site, guards: Guards, switch: Switch) -> None:
    """`on` is confirmed when the transaction that had begun before it is over, and not sooner."""
    with transaction.atomic():
        execute(INSERT)
        state = switch.on()
        assert not switch.confirm(state.epoch, timeout=0.2).safe
    assert switch.confirm(state.epoch, timeout=10).safe


def test_still_in_flight_while_the_commit_is_under_way(
    site: Site, guards: Guards, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain that took Django's word for it would end too early."""
    seen: list[int] = []
    if site.on_postgresql:
        base: Any = type(raw()).__mro__[1]
        original = base.wait

        def wait(self: Any, steps: Any, *args: Any, **options: Any) -> Any:
            found = original(self, steps, *args, **options)
            if steps.__name__ == "_commit_gen":
                seen.append(switch.inflight.count())
            return found

        monkeypatch.setattr(base, "wait", wait)
    elif site.vendor == MYSQL:
        known: Any = type(raw()).__mro__[1]
        commit = known.commit

        def committing(self: Any) -> None:
            commit(self)
            seen.append(switch.inflight.count())

        monkeypatch.setattr(known, "commit", committing)
    else:
        raw().set_trace_callback(lambda sql: seen.append(switch.inflight.count()) if sql == "COMMIT" else None)
    with transaction.atomic():
        execute(INSERT)
    assert seen == [1]
    assert switch.inflight.count() == 0


def test_read_only_transactions_and_bypasses_are_not_in_flight(site: Site, guards: Guards, switch: Switch) -> None:
    """They can't write, so nobody waits for them; and nobody waits for a bypass."""
    state = switch.on()
    with transaction.atomic():
        assert Article.objects.count() == 1
        assert switch.inflight.count() == 0
    with working(Work(switch, bypass=True)), transaction.atomic():
        execute(INSERT)
        assert switch.inflight.count() == 0
        assert switch.confirm(state.epoch, timeout=10).safe


def test_a_part_of_admitted_work_is_drained(site: Site, guards: Guards, switch: Switch) -> None:
    """What a request that was admitted begins after the switch is waited for like the request."""
    with switch.writing():
        switch.on()
        with transaction.atomic():
            execute(INSERT)
            assert switch.inflight.count() == 2
        assert switch.inflight.count() == 1
    assert switch.inflight.count() == 0


def test_rows_that_are_read_later(make_site: Callable[..., Site], switch: Switch) -> None:
    """SQLite commits an INSERT ... RETURNING in autocommit when its rows were read."""
    make_site(SQLITE)
    install(switch)
    returning = f"{INSERT} RETURNING id"

    def ends() -> Iterator[Callable[[Any], object]]:
        yield lambda cursor: cursor.fetchall()
        yield lambda cursor: (cursor.fetchone(), cursor.fetchone())
        yield lambda cursor: cursor.fetchmany(5)
        yield lambda cursor: list(cursor)
        yield lambda cursor: cursor.close()
        yield lambda cursor: cursor.execute("SELECT 1").fetchall()

    for end in ends():
        cursor = raw().cursor()
        cursor.execute(returning)
        assert switch.inflight.count() == 1
        end(cursor)
        assert switch.inflight.count() == 0
    cursor = raw().cursor()
    cursor.execute(returning)
    # Another statement on the connection is another transaction.
    execute(INSERT)
    assert switch.inflight.count() == 1
    del cursor
    eventually(partial(nothing_in_flight, switch), what="the cursor is collected")


def test_sqlite_commits_when_autocommit_is_turned_on(make_site: Callable[..., Site], switch: Switch) -> None:
    """The driver does so by itself: what was open is over."""
    site = make_site(SQLITE)
    install(switch)
    transaction.set_autocommit(False)
    execute(INSERT)
    assert switch.inflight.count() == 1
    transaction.set_autocommit(True)
    assert switch.inflight.count() == 0
    assert site.count() == 2


def test_a_commit_that_fails(make_site: Callable[..., Site], switch: Switch) -> None:
    """A deferred constraint fails at COMMIT: over when it is rolled back."""
    make_site(POSTGRESQL)
    execute("DROP TABLE IF EXISTS once")
    execute("CREATE TABLE once (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    install(switch)
    with pytest.raises(DatabaseError), transaction.atomic():
        execute("INSERT INTO once VALUES (1), (1)")
    assert switch.inflight.count() == 0
    execute("DROP TABLE once")


def test_two_phases(make_site: Callable[..., Site], switch: Switch) -> None:
    """Through the driver: in flight until the second phase, which may come after the switch; no other begins then."""
    site = make_site(POSTGRESQL)
    install(switch)
    transaction.set_autocommit(False)
    found = raw()

    def prepare(name: str) -> None:
        found.tpc_begin(name)
        found.execute(INSERT)
        found.tpc_prepare()

    prepare("one")
    state = switch.on()
    assert switch.inflight.count() == 1
    assert not switch.confirm(state.epoch, timeout=0.1).safe
    found.tpc_commit()
    assert switch.inflight.count() == 0
    with pytest.raises(driver().Error, match="read-only transaction"):
        prepare("two")
    found.tpc_rollback()
    assert switch.inflight.count() == 0
    transaction.set_autocommit(True)
    assert site.count() == 2


def test_what_a_pipeline_has_queued(make_site: Callable[..., Site], switch: Switch) -> None:
    """In autocommit it commits with the next synchronisation, and is in flight until then."""
    site = make_site(POSTGRESQL)
    install(switch)
    before = site.count()
    with raw().pipeline() as pipeline:
        raw().execute(INSERT)
        state = switch.on()
        assert switch.inflight.count() == 1
        assert not switch.confirm(state.epoch, timeout=0.1).safe
        pipeline.sync()
        assert switch.confirm(state.epoch, timeout=10).safe
    assert site.count() == before + 1


def test_a_connection_that_is_lost(make_site: Callable[..., Site], switch: Switch) -> None:
    """The server ends the session: the error is Django's, the transaction is over, the next connection is guarded."""
    make_site(POSTGRESQL)
    install(switch)

    def lose() -> None:
        pid = raw().info.backend_pid
        other = connection.copy()
        try:
            with other.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s, 60000)", [pid])
        finally:
            other.close()

    @transaction.atomic
    def interrupted() -> None:
        execute(INSERT)
        lose()
        execute(INSERT)

    with pytest.raises(OperationalError) as lost:
        interrupted()
    assert not isinstance(lost.value, ReadOnlyError)
    assert switch.inflight.count() == 0
    execute(INSERT)
    lose()
    with pytest.raises(OperationalError):
        execute(INSERT)
    assert switch.inflight.count() == 0
    request_finished.send(sender=None)
    switch.on()
    with pytest.raises(ReadOnlyError):
        execute(INSERT)


def test_a_connection_that_is_closed_in_a_transaction(site: Site, guards: Guards, switch: Switch) -> None:
    """By Django, and by the driver behind its back."""

    @transaction.atomic
    def closed(close: Callable[[], object]) -> None:
        execute(INSERT)
        assert switch.inflight.count() == 1
        close()
        assert switch.inflight.count() == 0
        execute(INSERT)

    for close in (lambda: connection.close(), lambda: connection.connection.close()):
        with pytest.raises((InterfaceError, DatabaseError, driver().Error, Error)):
            closed(close)
        with suppress(Error):  # PyMySQL's connections can't be closed twice
            fresh()
        connection.connection = None
    assert site.count() == 1


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
def test_a_connection_that_is_forgotten(site: Site, guards: Guards, switch: Switch) -> None:
    """A thread ends without closing anything: collected, nobody can commit it any more."""

    def forget() -> None:
        transaction.set_autocommit(False)
        execute(INSERT)
        assert switch.inflight.count() == 1
        del connections["default"]

    thread = threading.Thread(target=forget)
    thread.start()
    thread.join()
    eventually(partial(nothing_in_flight, switch), what="the connection is collected")
    assert site.count() == 1


def test_a_pooled_connection_that_comes_back_in_a_transaction(make_site: Callable[..., Site], switch: Switch) -> None:
    """The pool rolls back in a thread of its own: over then."""
    site = make_site(POSTGRESQL, OPTIONS={"pool": {"min_size": 1, "max_size": 1}})
    install(switch)
    transaction.set_autocommit(False)
    execute(INSERT)
    assert switch.inflight.count() == 1
    fresh()
    eventually(lambda: switch.inflight.count() == 0, what="the pool has rolled back")
    assert site.count() == 1


def test_a_database_that_is_locked(make_site: Callable[..., Site], switch: Switch) -> None:
    """A BEGIN that fails begins nothing."""
    site = make_site(SQLITE, OPTIONS={"transaction_mode": "IMMEDIATE", "timeout": 0})
    install(switch)
    holder = connection.copy()
    holder.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
    try:
        with pytest.raises(OperationalError), transaction.atomic():
            execute(INSERT)
        assert switch.inflight.count() == 1  # the holder's
    finally:
        holder.rollback()
        holder.close()
    assert switch.inflight.count() == 0
    assert site.count() == 1


@pytest.mark.parametrize("seed", range(6))
def test_no_key_is_left_over(site: Site, guards: Guards, switch: Switch, seed: int) -> None:
    """Any sequence of what applications do, with the switch thrown in between, ends with nothing in flight."""
    chance = random.Random(seed)
    closed = False

    def flip() -> None:
        nonlocal closed
        closed = not closed
        switch.on() if closed else switch.off()

    def step(depth: int) -> None:
        what = chance.choice(["read", "write", "raw", "error", "atomic", "fail", "iterate", "flip", "close", "manual"])
        if what == "read":
            list(Article.objects.all()[:1])
        elif what == "write":
            Article.objects.create(title="x")
        elif what == "raw":
            send(raw(), INSERT)
        elif what == "error":
            execute("SELECT * FROM nowhere")
        elif what == "iterate":
            next(Article.objects.iterator(chunk_size=1))
        elif what == "flip":
            flip()
        elif what == "close" and chance.random() < 0.2:
            connection.close()
        elif what == "manual" and depth == 0:
            transaction.set_autocommit(False)
            try:
                execute(INSERT)
                (transaction.commit if chance.random() < 0.5 else transaction.rollback)()
            finally:
                transaction.rollback()
                transaction.set_autocommit(True)
        elif what in ("atomic", "fail") and depth < 3:
            with transaction.atomic():
                for _ in range(chance.randrange(4)):
                    step(depth + 1)
                if what == "fail":
                    raise ZeroDivisionError

    errors = (ReadOnlyError, DatabaseError, InterfaceError, TransactionManagementError, ZeroDivisionError)
    for _ in range(60):
        try:
            step(0)
        except (*errors, driver().Error):
            pass
        assert switch.inflight.count() == 0
        held = held_of(connection.connection)
        assert held is None or not held.may_write
    if closed:
        flip()
    fresh()
    Article.objects.create(title="x")
    assert switch.inflight.count() == 0


def test_no_write_commits_between_a_confirmed_on_and_off(make_site: Callable[..., Site], switch: Switch) -> None:
    """Threads write in each way as fast as they can: nothing is added while `on` is confirmed, and much between."""
    site = make_site(POSTGRESQL, CONN_MAX_AGE=None)
    install(switch)
    stop = threading.Event()
    accepted, refused = [0] * 4, [0] * 4

    def in_a_block() -> None:
        with transaction.atomic():
            Article.objects.create(title="x")

    def copied() -> None:
        with connection.cursor() as cursor, cursor.copy("COPY news_article (title, views) FROM STDIN") as copy:
            copy.write_row(["x", 0])

    ways = (lambda: Article.objects.create(title="x"), in_a_block, lambda: raw().execute(INSERT), copied)

    def write(number: int) -> None:
        while not stop.is_set():
            try:
                ways[number]()
                accepted[number] += 1
            except (ReadOnlyError, driver().errors.ReadOnlySqlTransaction):
                refused[number] += 1
        fresh()

    def more(now: list[int], then: list[int]) -> bool:
        return all(n >= m + 5 for n, m in zip(now, then, strict=True))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(6):
            before = list(accepted)
            eventually(partial(more, accepted, before), 20, what="each way has written")
            state = switch.on()
            assert switch.confirm(state.epoch, timeout=20).safe
            first, seen = site.count(), list(refused)
            eventually(partial(more, refused, seen), 20, what="each way was refused")
            assert site.count() == first
            switch.off()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert site.count() == sum(accepted) + 1
    assert switch.inflight.count() == 0
