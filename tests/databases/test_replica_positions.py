"""Where a real primary says that its log ends: far enough for every commit, and no further than a standby can get."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from readonly import Switch
from readonly.databases.replicas import Position, Standing, has_reached, postgresql
from readonly.databases.replicas.positions import behind_header, lsn
from readonly.databases.sqlalchemy import Database
from support.postgres_server import PostgresPair, PostgresServer
from support.waiting import eventually

from .conftest import Client


@contextmanager
def log_writer_pauses(server: PostgresServer, pause: str) -> Iterator[None]:
    """Have the log writer pause for so long; before and after it, it is as everybody else wants it."""
    usual = server.sql("SHOW wal_writer_delay")
    server.sql(f"ALTER SYSTEM SET wal_writer_delay = '{pause}'")
    try:
        _reloaded(server, pause)
        yield
    finally:
        server.sql("ALTER SYSTEM RESET wal_writer_delay")
        _reloaded(server, usual)


def _reloaded(server: PostgresServer, pause: str) -> None:
    server.sql("SELECT pg_reload_conf()")
    eventually(lambda: server.sql("SHOW wal_writer_delay") == pause, what="it is told")


@pytest.fixture(scope="module")
def database(postgres_pair: PostgresPair) -> Iterator[str]:
    """A database with a table."""
    name = postgres_pair.primary.new_database()
    postgres_pair.primary.sql("CREATE TABLE story (id int)", database=name)
    postgres_pair.wait_replayed()
    yield name
    postgres_pair.primary.drop_database(name)


def look(server: PostgresServer) -> Standing:
    """Ask a server once, on a connection of its own."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        return postgresql.look(connection)


def flushed(server: PostgresServer) -> int:
    """Return where its log is on disk."""
    return lsn(server.sql("SELECT pg_current_wal_flush_lsn()"))


def test_an_idle_primary_is_reached(postgres_pair: PostgresPair, database: str) -> None:
    """What an open transaction has inserted is not flushed before it ends: a standby would wait as long as that."""
    primary, standby = postgres_pair.primary, postgres_pair.standby
    with psycopg.connect(primary.url(database)) as writer:
        writer.execute("INSERT INTO story VALUES (1)")
        found = look(primary)
        assert lsn(found.at) <= flushed(primary)
        position = Position(found.system, found.at)
        eventually(lambda: not has_reached(look(standby), position), 20.0, what="the standby is there")
        writer.rollback()


def test_a_commit_that_waited_for_no_disk_is_before_it(postgres_pair: PostgresPair, database: str) -> None:
    """With synchronous_commit off as well: a replica that is there has what everybody was told of."""
    primary, standby = postgres_pair.primary, postgres_pair.standby
    # Three of its pauses are waited for: on a busy machine so many of ten milliseconds are over before it has its turn.
    with (
        log_writer_pauses(primary, "490ms"),
        psycopg.connect(primary.url(database), autocommit=True) as writer,
    ):
        writer.execute("SET synchronous_commit = off")
        writer.execute("INSERT INTO story VALUES (2)")
        row = writer.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        found = look(primary)
    assert lsn(found.at) >= lsn(behind_header(row[0]))
    position = Position(found.system, found.at)
    eventually(lambda: not has_reached(look(standby), position), 20.0, what="the standby is there")
    assert standby.sql("SELECT count(*) FROM story WHERE id = 2", database=database) == "1"


def test_a_slow_log_writer_is_not_waited_for(postgres_pair: PostgresPair, database: str) -> None:
    """Then the whole log counts: too much, and never too little."""
    primary = postgres_pair.primary
    with log_writer_pauses(primary, "9s"), psycopg.connect(primary.url(database)) as writer:
        writer.execute("INSERT INTO story VALUES (3)")
        row = writer.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        assert lsn(look(primary).at) >= lsn(behind_header(row[0]))
        writer.rollback()


def test_a_process_says_which_server_it_writes_to(
    postgres_pair: PostgresPair, database: str, switch: Switch, tmp_path: Path
) -> None:
    """Its system and timeline, of a file which one it is: by that `off` finds out that a primary was replaced."""
    client = Client("psycopg", postgres_pair.primary.url(database))
    guarded = Database(client.engine, switch)
    files = [Client("sqlite3", f"sqlite:///{tmp_path}/{name}.db") for name in ("one", "two")]
    for file in files:
        file.connect(lambda connection: connection.execute(text("CREATE TABLE story (id int)")))
    copies = [Database(file.engine, switch, name=f"file{index}") for index, file in enumerate(files)]
    try:
        switch.on()
        found = look(postgres_pair.primary)
        eventually(lambda: guarded.describe().get("timeline"), 15.0, what="the primary is asked who it is")
        assert (guarded.describe()["system"], guarded.describe()["timeline"]) == (found.system, found.timeline)
        assert look(postgres_pair.standby).timeline == ""
        one, two = (str(copy.describe()["system"]) for copy in copies)
        assert one != two
        assert one == copies[0].describe()["system"]
    finally:
        for made in (guarded, *copies):
            made.close()
        for used in (client, *files):
            used.close()
