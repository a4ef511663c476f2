"""What a MariaDB primary and its replica say of themselves, asked for real."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pymysql
import pytest

from readonly.databases.fence.values import Position
from readonly.databases.replicas import mariadb
from readonly.databases.replicas.values import Need, Standing, has_reached, why_unfit
from support.mariadb_server import MariaDBPair, MariaDBServer
from support.missing import ServerMissing, outcome


@pytest.fixture(scope="module")
def pair() -> Iterator[MariaDBPair]:
    """A primary with a table, and a replica of it."""
    try:
        made = MariaDBPair()
    except ServerMissing as error:
        raise outcome(error) from None
    try:
        made.primary.sql("CREATE DATABASE shop; CREATE TABLE shop.article (id int primary key)")
        made.wait_replicated()
        yield made
    finally:
        made.close()


def look(server: MariaDBServer, user: str = "root") -> Standing:
    """Ask a server once."""
    connection: Any = pymysql.connect(host="127.0.0.1", port=server.port, user=user)
    with closing(connection):
        return mariadb.look(connection)


def test_each_says_what_it_is(pair: MariaDBPair) -> None:
    """A primary is none to read from instead of itself; a replica is, as far as it has got."""
    primary, replica = look(pair.primary), look(pair.replica)
    assert (primary.replica, replica.replica) == (False, True)
    # The first alone is the same for two machines with one network address.
    assert primary.system == pair.primary.sql("SELECT CONCAT(@@server_uid, ':', @@server_id)")
    assert replica.system == ""
    assert replica.at == primary.at == pair.primary.gtid
    assert "takes writes" in why_unfit(primary, Need())
    assert why_unfit(replica, Need(positions=(Position(primary.system, primary.at),), lag=10)) == ""


def test_one_that_stands_still_is_behind(pair: MariaDBPair) -> None:
    """Its replay is paused: it has not reached what the primary has written since, until it goes on."""
    pair.replica.sql("STOP SLAVE SQL_THREAD")
    try:
        pair.primary.sql("INSERT INTO shop.article VALUES (1)")
        written = Position("", pair.primary.gtid)
        found = look(pair.replica)
        assert found.paused
        assert "has not reached" in has_reached(found, written)
        assert "replay is paused" in has_reached(found, written)
    finally:
        pair.replica.sql("START SLAVE")
    pair.wait_replicated()
    assert has_reached(look(pair.replica), written) == ""
    assert "can't be compared" in has_reached(look(pair.replica), Position("", "0/16B3748"))


def test_of_two_that_follow_each_other_each_says_which_it_is(pair: MariaDBPair) -> None:
    """One looks like a replica, or both; who writes there can say where that is, and so can the fence."""
    names = [server.sql("SELECT CONCAT(@@server_uid, ':', @@server_id)") for server in (pair.primary, pair.replica)]
    assert look(pair.primary).itself == ""
    pair.primary.follow(pair.replica)
    try:
        found = [look(server) for server in (pair.primary, pair.replica)]
        assert [one.system or one.itself for one in found] == names
        assert found[0].replica
        # What both are is not said to be a replica of either: positions alone count there.
        assert [one.system for one in found] == ["", ""]
    finally:
        pair.primary.sql("STOP SLAVE; RESET SLAVE ALL")
    assert look(pair.primary).system == names[0]


@pytest.mark.parametrize("user", ["root", "reader"])
def test_one_that_follows_nobody_any_more_and_takes_writes_is_a_primary(pair: MariaDBPair, user: str) -> None:
    """It remembers whom it followed; an account that may not ask for that finds its old position there for ever."""
    if user != "root":
        pair.primary.sql(f"CREATE USER {user}@'127.0.0.1'")
        pair.wait_replicated()
    assert look(pair.replica, user).replica
    pair.replica.sql("STOP SLAVE")
    try:
        found = look(pair.replica, user)
        assert (found.replica, found.paused) == (False, False)
        assert (
            found.system
            == pair.replica.sql("SELECT CONCAT(@@server_uid, ':', @@server_id)")
            != look(pair.primary, user).system
        )
        assert "takes writes" in why_unfit(found, Need())
        pair.replica.sql("SET GLOBAL read_only = 1")
        found = look(pair.replica, user)
        assert (found.replica, found.system) == (True, "")  # it has written nothing of its own: nobody raised it
        assert found.at == pair.primary.gtid
    finally:
        pair.replica.sql("SET GLOBAL read_only = 0; START SLAVE")
    pair.wait_replicated()
    assert look(pair.replica, user).replica
