"""What a round needs: a database of its own, and a Redis that may be killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.rounds import Plan, Round
from support.postgres_server import PostgresServer
from support.redis_server import RedisServer


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The name of an empty database on the shared server."""
    name = postgres.new_database()
    yield name
    postgres.drop_database(name)


@pytest.fixture
def a_round(postgres: PostgresServer, database: str, own_redis: RedisServer, tmp_path: Path) -> Callable[[Plan], Round]:
    """Returns a round that has been run."""

    def run(plan: Plan) -> Round:
        made = Round(plan, folder=tmp_path, postgres=postgres, database=database, redis=own_redis, say=print)
        made.run()
        return made

    return run
