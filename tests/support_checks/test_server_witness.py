"""The witness sees what a server was sent, and whether it wrote."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from support import missing
from support.missing import ServerMissing
from support.postgres_server import PostgresServer
from support.server_witness import Witness, witnessed_server


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that says everything."""
    try:
        server = witnessed_server().start()
    except ServerMissing as error:
        lacking = error
    else:
        server.sql("CREATE DATABASE seen")
        server.sql("CREATE TABLE t (x int)", database="seen")
        yield server
        server.close()
        return
    raise missing.outcome(lacking)


@pytest.fixture
def connection(server: PostgresServer) -> Iterator[psycopg.Connection]:
    """A client of the database that is watched."""
    with psycopg.connect(server.url("seen"), autocommit=True) as connection:
        yield connection


def test_reads_are_no_writes(server: PostgresServer, connection: psycopg.Connection) -> None:
    """They are seen, in order, with their parameters' places; what other databases are sent is not."""
    with Witness(server, "seen").watching() as seen:
        connection.execute("SELECT 1 AS\nx")
        connection.execute("SELECT %s::int", [2])
        with connection.transaction():
            connection.execute("SELECT count(*) FROM t")
        server.sql("SELECT 'elsewhere'")
    assert seen.wrote == 0
    assert seen.writes == ()
    assert seen.statements == ("SELECT 1 AS\nx", "SELECT $1::int", "BEGIN", "SELECT count(*) FROM t", "COMMIT")


def test_writes_are_seen(server: PostgresServer, connection: psycopg.Connection) -> None:
    """Each transaction that wrote counts, rolled back or not, and whatever it looked like."""
    connection.execute(
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING x'"
    )
    with Witness(server, "seen").watching() as seen:
        connection.execute("INSERT INTO t VALUES (1)")
        connection.execute("SELECT f()")
        with connection.transaction(force_rollback=True):
            connection.execute("DELETE FROM t")
    assert seen.wrote == 3
    assert seen.writes == ("INSERT INTO t VALUES (1)", "DELETE FROM t")
    assert "3 transactions wrote" in str(seen)
    assert "INSERT INTO t" in str(seen)


def test_refused_writes_are_tried_and_not_made(server: PostgresServer, connection: psycopg.Connection) -> None:
    """What did not happen leaves the horizon where it was, and its statement in the log."""
    connection.autocommit = False
    connection.read_only = True
    with Witness(server, "seen").watching() as seen:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("INSERT INTO t VALUES (1)")
        connection.rollback()
    assert seen.wrote == 0
    assert seen.writes == ("INSERT INTO t VALUES (1)",)


def test_writes_of_others_are_seen(server: PostgresServer) -> None:
    """In whichever database: nobody writes behind the witness's back."""
    with Witness(server, "seen").watching() as seen:
        server.sql("CREATE TABLE elsewhere (x int)")
    assert seen.wrote > 0
    assert seen.statements == ()
