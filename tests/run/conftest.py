"""A site with one process, and the databases that its runs migrate: in both layouts, and with a standby."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from readonly.site import Site
from support.fence_layouts import Shop as Database
from support.fence_layouts import one_role, two_roles
from support.fenced_site import Fenced, fenced_site
from support.following import MAY_PAUSE, Following
from support.operating import Member, Shop, made, members
from support.postgres_server import PostgresPair, PostgresServer
from support.running import Followed


@pytest.fixture(scope="session")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, Member]]:
    """A site and its process, for all tests here."""
    shop = made(tmp_path_factory.mktemp("runs") / "shop.db")
    with members(shop) as (member,):
        yield shop, member
    shop.store.close()


@pytest.fixture(params=["two roles", "one role"])
def site(
    request: pytest.FixtureRequest, one_process: tuple[Shop, Member], postgres: PostgresServer, tmp_path: Path
) -> Iterator[Fenced]:
    """Both layouts: the migration passes the fence by its role, or by its token."""
    with (two_roles if request.param == "two roles" else one_role)(postgres) as database:
        yield from fenced_site(one_process, database, tmp_path)


@pytest.fixture
def solo(one_process: tuple[Shop, Member], postgres: PostgresServer, tmp_path: Path) -> Iterator[Fenced]:
    """One role."""
    with one_role(postgres) as database:
        yield from fenced_site(one_process, database, tmp_path)


@pytest.fixture
def from_code(solo: Fenced) -> Site:
    """What a script makes of the operator's file."""
    return Site.from_config(solo.file)


@pytest.fixture(scope="session")
def pair() -> Iterator[Following]:
    """A primary and its standby for this folder."""
    found = Following(PostgresPair())
    yield found
    found.close()


@pytest.fixture(scope="session")
def migrated(pair: Following) -> Iterator[Database]:
    """One database of one role on that primary, for all tests: to make one for each costs as much as a run."""
    with one_role(pair.primary) as database:
        database.sql(f"{MAY_PAUSE.format('solo_fencer')}; CREATE TABLE version (num text)")
        database.sql("INSERT INTO version VALUES ('0041'); ALTER TABLE version OWNER TO solo")
        pair.wait_replayed()
        yield database


@pytest.fixture
def followed(
    one_process: tuple[Shop, Member], migrated: Database, pair: Following, tmp_path: Path
) -> Iterator[Followed]:
    """That database's site; before and after the test it is as it was, and the standby replays."""
    for found in fenced_site(one_process, migrated, tmp_path):
        yield Followed(found, pair)
        pair.standby.sql("SELECT pg_wal_replay_resume()")
    migrated.fence().lift(site="shop")
    migrated.sql("UPDATE version SET num = '0041'; DROP TABLE IF EXISTS tag")
    pair.wait_replayed()
