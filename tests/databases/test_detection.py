"""Detection: a primary that takes no writes of its own accord closes this process, until a look says it is over."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from readonly import ReadOnlyError, Switch
from readonly.asgi import ReadOnlyMiddleware
from readonly.context import Work, working
from readonly.databases import detection
from readonly.databases.detection import Course, Detection
from readonly.databases.sqlalchemy import Database
from readonly.databases.sqlite import SQLite
from support import children
from support.detecting import found, look_often, over, read_only_by_default, set_format
from support.mariadb_server import MariaDBServer
from support.postgres_server import PostgresPair, PostgresServer
from support.waiting import eventually

from .conftest import ALL, MYSQL, POSTGRES, SQLITE, Client

INSERT = "INSERT INTO story (title) VALUES ('x')"

# --- what a row of looks amounts to ----------------------------------------------------------------------------------


def test_a_suspicion_that_comes_to_nothing() -> None:
    """The primary takes writes: nothing is in force, and nobody looks again."""
    course = Course()
    assert course.saw("", 0.0) is None
    assert course.because == ""


def test_found_and_found_over() -> None:
    """One look closes; it opens when every look of a calm second has said so."""
    course = Course()
    assert course.saw("a standby", 0.0) == detection.LOOK_FIRST_SECONDS
    assert course.because == "a standby"
    assert course.saw("", 10.0) == detection.LOOK_FIRST_SECONDS
    assert course.saw("", 10.9) == pytest.approx(0.1)
    assert course.because == "a standby"
    assert course.saw("", 11.0) is None
    assert course.because == ""


def test_looks_back_off_and_are_capped() -> None:
    """Nobody hammers a primary that is away for the night, and nothing latches."""
    course = Course()
    pauses = [course.saw("a standby", float(second)) for second in range(8)]
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


def test_a_flapping_primary_does_not_flap_the_site() -> None:
    """While looks disagree it stays closed; and the more often it was over just before, the longer it must be calm."""
    course = Course()
    course.saw("a standby", 0.0)
    for second in range(1, 20):
        assert course.saw("" if second % 2 else "a standby", second * 0.9) is not None
        assert course.because == "a standby"
    now, calm = 100.0, []
    for _ in range(8):
        course.saw("a standby", now)
        begun = now = now + 1.0
        pause = course.saw("", now)
        while pause is not None:
            now += pause
            pause = course.saw("", now)
        calm.append(round(now - begun, 3))
    assert calm == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    course.saw("a standby", now + detection.CALM_REMEMBERED_SECONDS)
    assert course.saw("", now + 200.0) is not None
    assert course.saw("", now + 201.0) is None


def test_a_look_that_tells_nothing_changes_nothing() -> None:
    """A primary that can't be reached is neither; a mere suspicion is dropped after a few such looks."""
    course = Course()
    assert [course.saw(None, second) is None for second in (0.0, 1.0, 2.0)] == [False, False, True]
    course.saw("a standby", 3.0)
    for second in range(4, 30):
        assert course.saw(None, float(second)) is not None
    assert course.because == "a standby"
    course.saw("", 30.0)
    course.saw(None, 30.9)
    assert course.saw("", 31.1) is not None, "calm begins anew"
    assert course.saw("", 32.1) is None


# --- one primary, by hand --------------------------------------------------------------------------------------------


class Primary:
    """Says what it is told to say, and counts the looks."""

    def __init__(self) -> None:
        self.says = ""
        self.looks = 0
        self.looked = threading.Condition()

    def ask(self) -> str:
        with self.looked:
            self.looks += 1
            self.looked.notify_all()
        if self.says == "gone":
            raise OSError("nobody there")
        return self.says

    def wait_for(self, looks: int) -> None:
        with self.looked:
            assert self.looked.wait_for(lambda: self.looks >= looks, 60), f"{self.looks} looks"


@pytest.fixture
def switch(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> Switch:
    """A writable site of one process, which looks often; tests of the course alone count in real seconds."""
    look_often(monkeypatch)
    return switch


def test_it_is_this_processs_alone(switch: Switch) -> None:
    """It is in the state and in the report, and never in the record; a flood of suspicions is one."""
    primary = Primary()
    watched = Detection(switch, "main", primary.ask)
    primary.says = "a standby"
    for _ in range(100):
        watched.suspect()
    assert found(switch) == "database 'main' takes no writes: a standby"
    assert switch.state.record is not None
    assert switch.state.record.causes == ()
    eventually(lambda: switch.members()[0].local == ("database 'main' takes no writes: a standby",))
    primary.says = "gone"
    primary.wait_for(primary.looks + 3)
    assert switch.state.read_only
    primary.says = ""
    over(switch)
    assert watched.renewed == 1
    eventually(lambda: switch.members()[0].local == ())


def test_a_flapping_probe_does_not_flap_the_site(switch: Switch) -> None:
    """Looks that disagree for a while: the site closes once, and opens once, when they have agreed."""
    agreed = threading.Event()

    class Flapping(Primary):
        def ask(self) -> str:
            self.says = "a standby" if self.looks % 2 == 0 and not agreed.is_set() else ""
            return super().ask()

    primary = Flapping()
    seen: list[bool] = []
    stop = switch.on_change(lambda state: seen.append(state.read_only))
    watched = Detection(switch, "main", primary.ask)
    watched.suspect()
    primary.wait_for(20)
    assert switch.state.read_only
    agreed.set()
    over(switch)
    eventually(lambda: seen == [True, False], what="the site was told of both changes")
    assert watched.renewed == 1
    stop()


def test_it_overrides_no_operator(switch: Switch) -> None:
    """An operator's cause outlives it, and while one stands nothing is found: a fence may be his."""
    primary = Primary()
    watched = Detection(switch, "main", primary.ask)
    primary.says = "a standby"
    watched.suspect()
    found(switch)
    switch.on(reason="migration")
    assert [c.kind for c in switch.state.causes] == ["operator", "local"]
    primary.says = ""
    eventually(lambda: [c.kind for c in switch.state.causes] == ["operator"])
    primary.says = "fenced"
    looks = primary.looks
    watched.suspect()
    assert primary.looks == looks
    switch.off()
    assert not switch.state.read_only


def test_found_while_somebody_switches_on(switch: Switch) -> None:
    """What a look finds behind an operator's back is the operator's."""
    primary = Primary()
    held, go = threading.Event(), threading.Event()

    def ask() -> str:
        held.set()
        assert go.wait(60)
        return "fenced"

    watched = Detection(switch, "main", ask)
    watched.suspect()
    assert held.wait(60)
    switch.on()
    go.set()
    eventually(lambda: watched._own.busy.acquire(blocking=False), what="it looks no more")
    assert [c.kind for c in switch.state.causes] == ["operator"]
    assert primary.looks == 0


def test_off_says_why_it_is_still_closed(switch: Switch) -> None:
    """The operator's cause is lifted; this process refuses writes for its own, and the confirmation names it."""
    primary = Primary()
    watched = Detection(switch, "main", primary.ask)
    switch.on()
    switch.off()
    primary.says = "a standby"
    watched.suspect()
    found(switch)
    # It is said with the next report.
    said = "takes no writes: a standby"
    eventually(lambda: any(said in m.why for m in switch.confirm(timeout=0.3).members), what="it is named")
    watched.close()
    over(switch)


def test_a_look_that_hangs_is_left_behind(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many of them at most: then nobody looks until one of them comes back."""
    hangs, go = threading.Event(), threading.Event()
    asked: list[int] = []
    hanging: list[int] = []

    def ask() -> str:
        asked.append(1)
        if hangs.is_set():
            hanging.append(1)
            assert go.wait(60)
        return "" if go.is_set() else "a standby"

    watched = Detection(switch, "main", ask)
    watched.suspect()
    found(switch)
    # Only now: the first look was given its time.
    monkeypatch.setattr(detection, "LOOK_SECONDS", 0.01)
    before = len(asked)
    eventually(lambda: len(asked) >= before + 2, what="the look that had more time is over")
    hangs.set()
    eventually(lambda: len(watched._own.hanging) == detection.HANGING_AT_MOST)
    eventually(lambda: len(hanging) == detection.HANGING_AT_MOST)
    assert switch.state.read_only
    hangs.clear()
    go.set()
    over(switch)


def test_a_forked_child_looks_for_itself(switch: Switch) -> None:
    """It has its parent's finding no more, and no thread of it."""
    primary = Primary()
    watched = Detection(switch, "main", primary.ask)
    primary.says = "a standby"
    watched.suspect()
    found(switch)
    pid = os.fork()
    if pid == 0:  # pragma: no cover - in a process of its own
        code = 1
        try:
            watched.suspect()
            eventually(lambda: any(c.kind == "local" for c in switch.view.state.causes))
            code = 0 if watched._own.pid == os.getpid() else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    watched.close()


def test_closed_in_the_moment_of_its_finding(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is about to tell then is taken away as well, or nobody ever would."""
    primary = Primary()
    watched = Detection(switch, "main", primary.ask)
    primary.says = "a standby"
    told, closing = switch.detected, threading.Thread(target=watched.close)

    def detected(name: str, reason: str | None) -> None:
        if reason is not None:
            closing.start()
            closing.join(0.2)  # it waits for what is told here; out of turn it would be over
        told(name, reason)

    monkeypatch.setattr(switch, "detected", detected)
    watched.suspect()
    eventually(lambda: closing.ident is not None, what="it is found")
    closing.join(60)
    eventually(lambda: watched._own.busy.acquire(blocking=False), what="it looks no more")
    assert not switch.state.read_only


def test_a_closed_one_suspects_nothing(switch: Switch) -> None:
    """Its database is guarded no more."""
    primary = Primary()
    watched = Detection(switch, "main", primary.ask)
    watched.close()
    watched.suspect()
    assert primary.looks == 0


# --- real ones -------------------------------------------------------------------------------------------------------


def test_a_standby_that_is_promoted(own_postgres_pair: PostgresPair, switch: Switch) -> None:
    """Used as a primary: the first write is answered like any other while read-only; promoted, it takes writes.

    Through every driver, and through a pool that was filled before.
    """
    pair = own_postgres_pair
    for statement in ("CREATE TABLE story (id serial PRIMARY KEY, title text NOT NULL)", INSERT):
        pair.primary.sql(statement)
    pair.wait_replayed()
    clients = [Client(kind, pair.standby.url()) for kind in POSTGRES]
    for client in clients:
        assert client.count() == 1  # an ordinary pooled connection, from before the guard
    guards = [Database(c.engine, switch, name=c.kind) for c in clients]
    work = Work(switch)
    with working(work), pytest.raises(ReadOnlyError, match="in a read-only transaction"):
        clients[0].write()
    assert work.escape is not None
    for guard in guards:
        guard._detection.suspect()
    eventually(lambda: len(switch.state.causes) == len(POSTGRES), what="each database is found")
    assert {c.reason for c in switch.state.causes} == {
        f"database '{kind}' takes no writes: the server is a standby, in recovery" for kind in POSTGRES
    }
    for client, guard in zip(clients, guards, strict=True):
        assert client.count() == 1
        with pytest.raises(ReadOnlyError):
            client.write()
        assert guard.prove() == ""
    pair.standby.promote()
    over(switch)
    for client in clients:
        client.write()
    assert clients[0].count() == 1 + len(POSTGRES)
    assert switch.inflight.count() == 0
    for client, guard in zip(clients, guards, strict=True):
        guard.close()
        client.close()


def test_a_site_answers_as_while_read_only(
    make_client: Callable[..., Client], switch: Switch, postgres: PostgresServer, shared_database: str
) -> None:
    """From what the first write has met: the next one is refused by the gate, pages are read; and then it is over."""
    client = make_client("asyncpg")
    assert isinstance(client.engine, AsyncEngine)
    engine = client.engine
    database = Database(engine, switch)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        writes = scope["method"] == "POST"
        async with engine.begin() as connection:
            await connection.execute(text(INSERT if writes else "SELECT count(*) FROM story"))
        await send({"type": "http.response.start", "status": 201 if writes else 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    transport = httpx.ASGITransport(app=ReadOnlyMiddleware(app, switch), raise_app_exceptions=False)

    async def ask(method: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://site") as visitor:
            return await visitor.request(method, "/", headers={"Accept": "application/json"})

    with read_only_by_default(postgres, shared_database):
        client.dispose()
        # The first one meets the server's word, where no look in the background was quicker.
        assert client.runner.run(ask("POST")).status_code in (500, 503)
        assert "default_transaction_read_only" in found(switch)
        refused = client.runner.run(ask("POST"))
        assert (refused.status_code, refused.json()["code"]) == (503, "READ_ONLY")
        read = client.runner.run(ask("GET"))
        assert (read.status_code, read.headers["X-Read-Only"]) == (200, "true")
    over(switch)
    assert client.runner.run(ask("POST")).status_code == 201
    assert client.count() == 2
    database.close()


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("kind", POSTGRES)
def test_a_new_connection_to_a_standby_is_suspect(
    kind: str, postgres_pair: PostgresPair, switch: Switch, pooled: bool
) -> None:
    """The server says so when the session begins, before there was a guard perhaps: it is found before a write."""
    client = Client(kind, postgres_pair.standby.url())
    if pooled:
        client.connect(lambda c: c.execute(text("SELECT 1")))
    database = Database(client.engine, switch)
    client.connect(lambda c: c.execute(text("SELECT 1")))
    assert "standby" in found(switch)
    database.close()
    client.close()


@pytest.mark.parametrize("kind", POSTGRES)
def test_a_database_that_was_set_read_only(
    kind: str, make_client: Callable[..., Client], switch: Switch, postgres: PostgresServer, shared_database: str
) -> None:
    """An operator has set the default of new sessions: those of the pool write on, the next one shows it."""
    client = make_client(kind)
    Database(client.engine, switch)
    with read_only_by_default(postgres, shared_database):
        client.write()
        client.dispose()
        assert client.count() == 2
        assert found(switch) == "database 'main' takes no writes: default_transaction_read_only is on (database)"
        with pytest.raises(ReadOnlyError):
            client.write()
    over(switch)
    client.write()
    assert client.count() == 3


@pytest.mark.parametrize("kind", POSTGRES)
def test_the_applications_own_wish_is_none(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """A transaction, a session or an engine that the application made read-only closes nobody's site."""
    make_client(kind)
    option = "default_transaction_read_only"
    given: dict[str, Any] = {"server_settings": {option: "on"}} if kind == "asyncpg" else {"options": f"-c {option}=on"}
    client = make_client(kind, connect_args=given)
    database = Database(client.engine, switch)
    looks = counted_looks(database)
    with pytest.raises(DBAPIError):
        client.write()
    eventually(lambda: looks and database._detection._own.busy.acquire(blocking=False), what="somebody has looked")
    assert not switch.state.read_only


def counted_looks(database: Database) -> list[str]:
    """Return what looks at a database say, as they say it."""
    looks: list[str] = []
    asked = database._detection._ask

    def ask() -> str:
        said = asked()
        looks.append(said)
        return said

    database._detection._ask = ask
    return looks


@pytest.mark.parametrize("kind", MYSQL)
@pytest.mark.parametrize("setting", ["read_only", "tx_read_only"])
def test_mariadb_that_was_set_read_only(
    kind: str, setting: str, make_client: Callable[..., Client], switch: Switch, mariadb: MariaDBServer
) -> None:
    """`SET GLOBAL read_only` refuses at once, and the first write is answered as while read-only."""
    client = make_client(kind, pool_size=1, max_overflow=0)
    Database(client.engine, switch)
    client.write()
    try:
        mariadb.sql(f"SET GLOBAL {setting} = 1")
        client.dispose()  # a new session has the new default
        with pytest.raises(ReadOnlyError):
            client.write()
        assert found(switch) == f"database 'main' takes no writes: {setting} is ON"
        assert client.count() == 2
    finally:
        mariadb.sql(f"SET GLOBAL {setting} = 0")
    over(switch)
    client.write()
    assert client.count() == 3


def test_mariadb_that_refuses_at_commit(
    make_client: Callable[..., Client], switch: Switch, mariadb: MariaDBServer
) -> None:
    """`read_only` cuts what had begun: the COMMIT is refused, and says so as a ReadOnlyError."""
    client = make_client("pymysql")
    database = Database(client.engine, switch)

    def body(connection: Connection) -> None:
        connection.execute(text(INSERT))
        mariadb.sql("SET GLOBAL read_only = 1")
        with pytest.raises(ReadOnlyError):
            connection.commit()

    try:
        client.connect(body)
        assert "read_only is ON" in found(switch)
    finally:
        mariadb.sql("SET GLOBAL read_only = 0")
    over(switch)
    assert client.count() == 1
    assert switch.inflight.count() == 0
    database.close()


@pytest.mark.parametrize("kind", SQLITE)
def test_a_file_that_can_t_be_written(
    kind: str, make_client: Callable[..., Client], switch: Switch, tmp_path: Path
) -> None:
    """SQLite's own refusal; and connections that were opened meanwhile are replaced, since they stay so for good."""
    client = make_client(kind, pool_size=1, max_overflow=0)
    path = tmp_path / "site.db"
    Database(client.engine, switch)
    client.write()
    client.dispose()
    set_format(path, 3)
    work = Work(switch)
    with working(work), pytest.raises(ReadOnlyError):
        client.write()
    assert work.escape is not None
    assert found(switch) == f"database 'main' takes no writes: the file {path} can't be written by this process"
    assert client.count() == 2
    set_format(path, 1)
    over(switch)
    client.write()
    assert client.count() == 3


def test_a_file_without_the_permission() -> None:
    """Seen by a user whom permissions stop: with 0444 it can't be written, with 0644 it can."""
    folder = children.open_folder("readonly-sqlite-")
    path = folder / "site.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE story (title TEXT)")
    dropped = children.unprivileged()
    if dropped is not None:
        os.chown(folder, *dropped)
        os.chown(path, *dropped)
    pid = os.fork()
    if pid == 0:  # pragma: no cover - in a process of its own
        said = []
        try:
            if dropped is not None:
                os.setgroups([])
                os.setgid(dropped[1])
                os.setuid(dropped[0])
            with closing(sqlite3.connect(path)) as own:
                for mode in (0o444, 0o644):
                    path.chmod(mode)
                    said.append(SQLite().takes_no_writes(own))
        finally:
            os._exit(0 if said == [f"the file {path} can't be written by this process", ""] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind", SQLITE)
def test_a_writer_at_work_is_no_refusal(
    kind: str, make_client: Callable[..., Client], switch: Switch, tmp_path: Path
) -> None:
    """The lock is taken: somebody writes. And an engine's own setting is its own."""
    client = make_client(kind)
    database = Database(client.engine, switch)
    assert database._look() == ""
    with closing(sqlite3.connect(tmp_path / "site.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert database._look() == ""
        writer.execute("ROLLBACK")
    database.close()


@pytest.mark.parametrize("kind", ALL)
def test_a_look_leaves_nothing(kind: str, make_client: Callable[..., Client], switch: Switch) -> None:
    """It is not counted, not guarded, and its connection is closed."""
    client = make_client(kind)
    database = Database(client.engine, switch)
    assert database._look() == ""
    assert switch.inflight.count() == 0
    switch.on()
    assert database._look() == ""
    assert database.prove() == ""
    assert client.pool.checkedout() == 0 if hasattr(client.pool, "checkedout") else True
