"""A few rounds of the torture; the long one is `make torture`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.mariadb_server import MariaDBServer
from support.postgres_server import PostgresServer

from . import mariadb as maria
from .rounds import BUSY_REFUSALS, summary
from .strategies import RIGHT, WRONG, laid_out, prepared, start

ROUNDS = 4
MARIA_ROUNDS = 3
# A wrong one lets a write through in some rounds and not in others: it has so many to be caught in.
WRONG_ROUNDS = 25


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of this folder's own: it is written to as hard as can be."""
    server = start()
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("strategy", RIGHT)
def test_no_write_gets_past_the_position(server: PostgresServer, strategy: str) -> None:
    """Nothing commits behind it until it is lifted, and nothing that was acknowledged is lost."""
    where = laid_out(server, strategy)
    try:
        with prepared(where, strategy) as tortured:
            results = where.torture(tortured.raise_, tortured.lift, tortured.styles, rounds=ROUNDS)
    finally:
        where.close()
    print(summary(results))
    assert [result.past_position for result in results] == [[]] * ROUNDS
    assert results[-1].lost == []
    assert results[-1].refused >= ROUNDS * BUSY_REFUSALS


@pytest.mark.parametrize("strategy", WRONG)
def test_a_wrong_fence_is_caught(server: PostgresServer, strategy: str) -> None:
    """The same rounds find the write that gets past what is known not to hold."""
    where = laid_out(server, strategy)
    try:
        with prepared(where, strategy) as tortured:
            results = where.torture(
                tortured.raise_, tortured.lift, tortured.styles, rounds=WRONG_ROUNDS, until_caught=True
            )
    finally:
        where.close()
    assert not results[-1].held, f"{strategy} held for {WRONG_ROUNDS} rounds: does the torture look?"


def test_no_write_gets_past_mariadbs_position(mariadb_to_fence: MariaDBServer) -> None:
    """Nothing commits behind the GTID until it is lifted, and nothing that was acknowledged is lost."""
    where = maria.MariaArena(mariadb_to_fence)
    try:
        with maria.prepared(where, "global") as tortured:
            results = where.torture(tortured.raise_, tortured.lift, tortured.styles, rounds=MARIA_ROUNDS)
    finally:
        where.close()
    print(summary(results))
    assert [result.past_position for result in results] == [[]] * MARIA_ROUNDS
    assert results[-1].lost == []
    assert results[-1].refused >= MARIA_ROUNDS * BUSY_REFUSALS


@pytest.mark.parametrize("strategy", maria.WRONG)
def test_a_wrong_fence_of_mariadbs_is_caught(mariadb_to_fence: MariaDBServer, strategy: str) -> None:
    """The same rounds find the write that gets past what is known not to hold."""
    where = maria.MariaArena(mariadb_to_fence)
    try:
        with maria.prepared(where, strategy) as tortured:
            results = where.torture(
                tortured.raise_, tortured.lift, tortured.styles, rounds=WRONG_ROUNDS, until_caught=True
            )
    finally:
        where.close()
    assert not results[-1].held, f"{strategy} held for {WRONG_ROUNDS} rounds: does the torture look?"
