"""Fixtures for every test: real servers, names that no two tests share, an environment without the developer's own.

A server that cannot be had skips the tests that need it, fails them where CI is set, and is named at the end.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from support import counting, missing, workers
from support.children import without_ours
from support.mariadb_server import MariaDBPair, MariaDBServer
from support.missing import ServerMissing
from support.pgbouncer import PgBouncer
from support.postgres_server import PostgresPair, PostgresServer
from support.redis_server import RedisServer
from support.timing import Timing

if TYPE_CHECKING:
    from support.operating import Member, Shop

T = TypeVar("T")

# Before anything is imported that reads them: a developer's own store must never be switched by a test.
for _name in set(os.environ) - set(without_ours(os.environ)):
    del os.environ[_name]
os.environ.update(without_ours(os.environ))

if importlib.util.find_spec("hypothesis") is not None:
    import hypothesis

    # A busy machine makes single examples slow, which says nothing about the code.
    hypothesis.settings.register_profile("readonly", deadline=None, print_blob=True)
    hypothesis.settings.load_profile("readonly")


def pytest_configure(config: pytest.Config) -> None:
    """Add the table of times, what several workers need and what is counted; refuse the checkout for the wheel."""
    config.pluginmanager.register(Timing(), "readonly-timing")
    config.pluginmanager.register(workers, "readonly-workers")
    config.pluginmanager.register(counting, "readonly-counting")
    below = os.environ.get("READONLY_TEST_INSTALLED_BELOW")
    if below:
        import readonly

        if not str(readonly.__file__).startswith(below):
            raise pytest.UsageError(f"readonly={readonly.__file__} is not the one installed below {below}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the servers that were missing, so that a green run says what it did not test."""
    lacking = missing.reported()
    if lacking:
        terminalreporter.section("servers that were missing")
        for reason in sorted(lacking.values()):
            terminalreporter.write_line(reason)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run `@pytest.mark.anyio` tests on asyncio, the loop of the servers we support."""
    return "asyncio"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for all tests; never flush or kill it (that is what `own_redis` is for)."""
    server = _started(lambda: RedisServer().start())
    yield server
    server.close()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """A store's URL on the shared Redis, with a site that only this test uses."""
    return redis_server.url()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis for this test alone: flush it, kill it, restart it, pause it."""
    server = _started(lambda: RedisServer().start())
    yield server
    server.close()


def _started(start: Callable[[], T]) -> T:
    try:
        return start()
    except ServerMissing as error:
        lacking = error
    raise missing.outcome(lacking)  # outside of the handler, or the summary shows both as one failure


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests; each takes a database of its own (`postgres_url`)."""
    server = _started(lambda: PostgresServer().start())
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL (postgresql://, no driver named) of an empty database that only this test uses."""
    name = postgres.new_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def postgres_pair() -> Iterator[PostgresPair]:
    """A primary and its streaming standby for all tests; neither may be killed or promoted."""
    pair = _started(PostgresPair)
    yield pair
    pair.close()


@pytest.fixture
def own_postgres_pair() -> Iterator[PostgresPair]:
    """A pair for this test alone: kill the primary, promote the standby. Takes a second or two."""
    pair = _started(PostgresPair)
    yield pair
    pair.close()


@pytest.fixture(scope="session")
def pgbouncer(postgres: PostgresServer) -> Iterator[PgBouncer]:
    """One PgBouncer in transaction mode before the shared PostgreSQL, two connections to each database."""
    pooler = _started(lambda: PgBouncer(postgres.port).start())
    yield pooler
    pooler.close()


@pytest.fixture(scope="session")
def pgbouncer_in_sessions(postgres: PostgresServer) -> Iterator[PgBouncer]:
    """The same in session mode."""
    pooler = _started(lambda: PgBouncer(postgres.port, mode="session").start())
    yield pooler
    pooler.close()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDBServer]:
    """One MariaDB for all tests; each takes a database of its own (`mariadb_url`), none fences or kills it."""
    server = _started(lambda: MariaDBServer().start())
    yield server
    server.close()


@pytest.fixture
def mariadb_url(mariadb: MariaDBServer) -> Iterator[str]:
    """The URL (mysql://, no driver named) of an empty database that only this test uses, as root."""
    name = mariadb.new_database()
    yield mariadb.url(name)
    mariadb.drop_database(name)


@pytest.fixture(scope="session")
def mariadb_pair() -> Iterator[MariaDBPair]:
    """A primary and the replica that follows it by GTID, for all tests; neither may be killed."""
    pair = _started(MariaDBPair)
    yield pair
    pair.close()


@pytest.fixture
def own_mariadb_pair() -> Iterator[MariaDBPair]:
    """A pair for this test alone: promote the replica. Takes about a second."""
    pair = _started(MariaDBPair)
    yield pair
    pair.close()


@pytest.fixture(scope="session")
def mariadb_to_fence() -> Iterator[MariaDBServer]:
    """One MariaDB for the tests that make the whole server refuse: each leaves it writable."""
    server = _started(lambda: MariaDBServer().start())
    yield server
    server.close()


@pytest.fixture
def own_mariadb() -> Iterator[MariaDBServer]:
    """A MariaDB for this test alone: kill it, restart it."""
    server = _started(lambda: MariaDBServer().start())
    yield server
    server.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A writable site in an SQLite file, without a process."""
    from support.operating import made

    found = made(tmp_path / "shop.db")
    yield found
    found.store.close()


@pytest.fixture(scope="module")
def served_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, Member]]:
    """A site that one process serves, for all tests of a file; its folder says how each of them leaves it."""
    from support.operating import made, members

    found = made(tmp_path_factory.mktemp("served") / "shop.db")
    with members(found) as (member,):
        yield found, member
    found.store.close()


if sys.platform != "linux":  # pragma: no cover - said once, not tested: the suite is written for Linux
    print("readonly's tests are written for Linux; here some may fail for reasons of their own", file=sys.stderr)
