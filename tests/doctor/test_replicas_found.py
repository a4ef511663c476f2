"""Faults of replicas, planted at real servers: those that members read from, and those that the operator names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine

from readonly import Switch
from readonly.databases.freeze import Standby
from readonly.databases.replicas import watching
from readonly.databases.sqlalchemy import Database
from readonly.following import Followers
from support.doctoring import faults, found
from support.fence_layouts import Shop as Postgres
from support.fence_layouts import make_roles
from support.mariadb_server import MariaDBPair, MariaDBServer
from support.operating import Shop
from support.postgres_server import PostgresPair, PostgresServer
from support.waiting import eventually

Server = PostgresServer | MariaDBServer


class Reader:
    """A member that may read from a replica."""

    def __init__(self, shop: Shop, primary: Server, replica: Server, name: str, **options: Any) -> None:
        self.switch = Switch(shop.store.reopened(), interval=0.05, role="web")
        scheme = "postgresql+psycopg" if isinstance(primary, PostgresServer) else "mysql+pymysql"
        self._engines = [create_engine(server.url(name, scheme=scheme)) for server in (primary, replica)]
        self.database = Database(self._engines[0], self.switch, replicas=self._engines[1:], **options)
        self.switch.start()

    def finds(self, shop: Shop, *said: str) -> None:
        """Wait until that, and nothing else, is wrong with replicas, and until it was looked at."""

        def there() -> bool:
            made = [one for one in found(shop) if one.check == "replicas"]
            wrong = [one.what for one in made if not one.ok]
            return bool(made) and len(wrong) == len(said) and all(map(str.__contains__, wrong, said))

        eventually(there, what=f"replicas: {said}")

    def close(self) -> None:
        """End it."""
        self.database.close()
        self.switch.close()
        for engine in self._engines:
            engine.dispose()


@pytest.fixture
def reader(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Reader]]:
    """Make members that look at their replicas often; they are closed after the test."""
    monkeypatch.setattr(watching, "IDLE_SECONDS", 0.05)
    made: list[Reader] = []

    def make(*given: Any, **options: Any) -> Reader:
        made.append(Reader(shop, *given, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_replica_that_is_behind(
    shop: Shop, postgresql: Postgres, postgres_pair: PostgresPair, reader: Callable[..., Reader]
) -> None:
    """Nothing while it follows; its replay is paused, and it grows old; nothing when it goes on."""
    postgres_pair.wait_replayed()
    member = reader(postgres_pair.primary, postgres_pair.standby, postgresql.name, max_lag=0.2)
    member.finds(shop)
    postgres_pair.standby.sql("SELECT pg_wal_replay_pause()")
    try:
        postgresql.sql("INSERT INTO story (title) VALUES ('x')")
        member.finds(shop, "s behind, and may be 0.2", "does not replay: what it shows grows old")
    finally:
        postgres_pair.standby.sql("SELECT pg_wal_replay_resume()")
    postgres_pair.wait_replayed()
    member.finds(shop)


def test_a_replica_of_another_system(
    shop: Shop, postgresql: Postgres, postgres: PostgresServer, postgres_pair: PostgresPair,
    reader: Callable[..., Reader],
) -> None:  # fmt: skip
    """A standby of another primary would show another site's pages; found while the site is writable."""
    postgres_pair.wait_replayed()
    postgres.sql(f"CREATE DATABASE {postgresql.name}")
    try:
        member = reader(postgres, postgres_pair.standby, postgresql.name)
        member.finds(shop, "not a replica of this primary")
        member.close()
    finally:
        postgres.drop_database(postgresql.name)


def test_a_replica_that_is_a_primary_and_one_that_is_away(
    shop: Shop, postgresql: Postgres, postgres: PostgresServer, postgres_pair: PostgresPair,
    reader: Callable[..., Reader],
) -> None:  # fmt: skip
    """Its database is not there; then it is, and takes writes of its own."""
    member = reader(postgres_pair.primary, postgres, postgresql.name)
    member.finds(shop, "can't be looked at")
    postgres.sql(f"CREATE DATABASE {postgresql.name}")
    try:
        member.finds(shop, "takes writes: it is a primary")
        member.close()
    finally:
        postgres.drop_database(postgresql.name)


def test_a_replica_of_mariadbs_that_is_behind(
    shop: Shop, mariadb_pair: MariaDBPair, reader: Callable[..., Reader]
) -> None:
    """The same there: nothing while it follows, and nothing when it goes on."""
    primary, replica = mariadb_pair.primary, mariadb_pair.replica
    name = primary.new_database()
    primary.sql("CREATE TABLE story (id int)", database=name)
    replica.wait_for(primary.gtid)
    member = reader(primary, replica, name, max_lag=0.5)
    member.finds(shop)
    replica.sql("STOP SLAVE SQL_THREAD")
    try:
        primary.sql("INSERT INTO story VALUES (1)", database=name)
        member.finds(shop, "is not fit for 1 of 1 members", "does not replay: what it shows grows old")
        eventually(
            # A member that stood still for a second is silent, and no replica's fault is known by it then.
            lambda: "START SLAVE at MariaDB" in faults(shop)["replicas"].fix,
            what="what to do about it",
            ignoring=KeyError,
        )
    finally:
        replica.sql("START SLAVE")
    replica.wait_for(primary.gtid)
    member.finds(shop)
    member.close()
    primary.drop_database(name)


def test_replicas_that_the_operators_file_names(
    shop: Shop, postgresql: Postgres, postgres: PostgresServer, postgres_pair: PostgresPair
) -> None:
    """Those that `on` will wait for and `run` will freeze, though no member reads from them."""
    postgres_pair.wait_replayed()
    fence = postgresql.fence()

    def wrong(url: str, *, freeze: bool = True) -> str:
        standby = Standby.from_url(url, where="fence.main.freeze")
        group = Followers(fence, (standby,), (standby,) if freeze else ())
        one = faults(shop, fence, followers=[group]).get("replicas")
        return "" if one is None else one.what

    own = postgres_pair.standby.url(postgresql.name, user="boss")
    assert wrong(own) == ""
    assert "may not pause its replay" in wrong(postgres_pair.standby.url(postgresql.name, user="fencer"))
    assert wrong(postgres_pair.standby.url(postgresql.name, user="fencer"), freeze=False) == ""
    assert "is no standby" in wrong(make_roles(postgres).url())
    assert "can't be reached" in wrong(re.sub(r":\d+/", ":1/", own))
    postgres_pair.standby.sql("SELECT pg_wal_replay_pause()")
    try:
        assert "is paused" in wrong(own)
    finally:
        postgres_pair.standby.sql("SELECT pg_wal_replay_resume()")
