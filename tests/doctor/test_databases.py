"""Faults of fences and replicas, planted at real servers; what `doctor` says to type heals each of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from readonly.databases.fence import Fence
from readonly.members import Guarded
from readonly.record import FenceMark
from support.doctoring import faults, found, report_of
from support.fence_layouts import Shop as Postgres
from support.fence_layouts import one_role
from support.mariadb_layouts import MariaShop, maria_shop
from support.mariadb_server import MariaDBServer
from support.operating import Shop
from support.pgbouncer import PgBouncer
from support.postgres_server import PostgresPair


@pytest.fixture
def owned(postgres_pair: PostgresPair) -> Iterator[Postgres]:
    """A database whose application owns its tables."""
    with one_role(postgres_pair.primary) as made:
        yield made


@pytest.fixture
def mariadb(mariadb_to_fence: MariaDBServer) -> Iterator[MariaShop]:
    """A database of a server that may be made to refuse."""
    with maria_shop(mariadb_to_fence) as made:
        yield made


def fence_at(database: Postgres, *, fencer: str, strategy: str = "", writers: tuple[str, ...] = ()) -> Fence:
    """Return a fence as readonly.toml makes it."""
    url = database.server.url(database.name, user=fencer)
    migrators = [database.owner] if database.owner != database.app else []
    return Fence.from_url(url, writers=writers or (database.app,), migrators=migrators, strategy=strategy)


def statements(fix: str) -> list[str]:
    """Return what a fix says to run at the server."""
    return fix.removeprefix("run there, as somebody who may: ").split("; ")


# --- healthy ---------------------------------------------------------------------------------------------------------


def test_nothing_is_found_where_fences_can_be_raised(
    shop: Shop, postgresql: Postgres, owned: Postgres, mariadb: MariaShop
) -> None:
    """By privileges, by triggers, by read_only; the level is said."""
    for fence, level in (
        (postgresql.fence(), "main: revoke reaches hard"),
        (owned.fence(), "main: each reaches hard"),
        (mariadb.fence(), "main: global reaches hard"),
    ):
        assert faults(shop, fence) == {}
        [said] = [one.what for one in found(shop, fence) if one.check == "fences"]
        assert said.startswith(level)


def test_nothing_is_changed_by_looking(shop: Shop, postgresql: Postgres) -> None:
    """Not one transaction id is used."""
    horizon = "SELECT pg_snapshot_xmax(pg_current_snapshot())"
    before = postgresql.sql(horizon)
    assert faults(shop, postgresql.fence()) == {}
    assert postgresql.sql(horizon) == before


# --- rights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "strategy"), [("postgresql", "revoke"), ("postgresql", "defaults"), ("owned", "each"), ("owned", "")]
)
def test_rights_that_a_fencer_lacks(shop: Shop, request: pytest.FixtureRequest, layout: str, strategy: str) -> None:
    """For each way to fence; after the statements that it prints nothing is left."""
    database: Postgres = request.getfixturevalue(layout)
    fence = fence_at(database, fencer="bare", strategy=strategy)
    wrong = faults(shop, fence)["fences"]
    assert f"GRANT CREATE ON DATABASE {database.name} TO bare" in wrong.fix
    try:
        for statement in statements(wrong.fix):
            database.sql(statement)
        assert faults(shop, fence) == {}
    finally:
        database.sql(
            f"ALTER ROLE bare NOCREATEROLE; REVOKE owner_, solo, app, pg_signal_backend, pg_read_all_stats FROM bare;"
            f"REVOKE ALL ON DATABASE {database.name} FROM bare"
        )


def test_a_gate_that_was_not_installed(shop: Shop, owned: Postgres) -> None:
    """It is a command that is typed here, and not a statement for the server."""
    fence = fence_at(owned, fencer=owned.fencer, strategy="gate")
    assert faults(shop, fence)["fences"].fix == "readonlyctl fence install main"
    fence.install(site="shop", by="ada")  # type: ignore[attr-defined]
    assert faults(shop, fence) == {}


def test_rights_that_a_fencer_lacks_at_mariadb(shop: Shop, mariadb: MariaShop) -> None:
    """Its own, and those of who migrates."""
    fence = mariadb.fence(fencer="bare")
    # Without any right in it an account is not let into a database at all.
    mariadb.sql(f"GRANT SELECT ON {mariadb.name}.story TO bare@'%'")
    wrong = faults(shop, fence)["fences"]
    assert "READ ONLY ADMIN" in wrong.fix
    try:
        for statement in statements(wrong.fix):
            mariadb.sql(statement)
        assert faults(shop, fence) == {}
    finally:
        mariadb.sql("REVOKE ALL PRIVILEGES, GRANT OPTION FROM bare@'%'")


# --- whom a fence does not hold -------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["app", "Shop App"])
def test_an_application_that_is_a_superuser(shop: Shop, postgresql: Postgres, role: str) -> None:
    """No fence holds it; a fence that holds nobody it is for is no fence."""
    postgresql.sql('CREATE ROLE "Shop App" LOGIN')
    fence = fence_at(postgresql, fencer="fencer", writers=(role,))
    postgresql.sql(f'ALTER ROLE "{role}" SUPERUSER')
    try:
        wrong = faults(shop, fence)["fences"]
        assert f"would not hold the application: {role} is a superuser" in wrong.what
        postgresql.sql(wrong.fix)
        assert faults(shop, fence) == {}
    finally:
        postgresql.sql('ALTER ROLE app NOSUPERUSER; DROP ROLE "Shop App"')


def test_an_application_that_read_only_does_not_stop(shop: Shop, mariadb: MariaShop) -> None:
    """The same at MariaDB: READ ONLY ADMIN, which comes with ALL PRIVILEGES on everything."""
    mariadb.sql("GRANT READ ONLY ADMIN ON *.* TO app@'%'")
    try:
        wrong = faults(shop, mariadb.fence())["fences"]
        assert "would not hold the application: app@% has READ ONLY ADMIN" in wrong.what
    finally:
        mariadb.sql(wrong.fix)
    assert faults(shop, mariadb.fence()) == {}


def test_a_strategy_that_does_not_suit(shop: Shop, owned: Postgres) -> None:
    """Privileges can't be taken from who owns the tables."""
    wrong = faults(shop, fence_at(owned, fencer=owned.fencer, strategy="revoke"))["fences"]
    assert "solo owns what it writes" in wrong.what
    assert wrong.fix == "leave strategy out of [fence.main] in readonly.toml"


@pytest.mark.parametrize(
    ("layout", "strategy", "user", "held"),
    [
        ("postgresql", "revoke", "app", True),
        ("postgresql", "revoke", "owner_", False),
        ("postgresql", "revoke", "postgres", False),
        ("postgresql", "each", "owner_", True),  # a trigger stops everybody but the run
        ("mariadb", "", "rogue", True),  # and so does read_only,
        ("mariadb", "", "migrator", False),  # but for who migrates
    ],
)
def test_a_process_that_connects_as_another(
    shop: Shop, request: pytest.FixtureRequest, layout: str, strategy: str, user: str, held: bool
) -> None:
    """A fence that stops other roles than the site's is none; before it is raised, and while it stands."""
    served: Any = request.getfixturevalue(layout)
    fence = fence_at(served, fencer="fencer", strategy=strategy) if strategy else served.fence()
    server = {"server": layout, "database": served.name, "user": user}
    shop.reported(report_of(host="web-9", guards=(Guarded("main", "", server),)))

    def said() -> str:
        wrong = faults(shop, fence).get("fences")
        assert wrong is None or wrong.fix.startswith("have it connect as one of the writers")
        return "" if wrong is None else wrong.what

    expected = "" if held else f"web web-9/7 connects as {user}, whom it does not stop"
    assert said().endswith(expected)
    assert bool(said()) is not held
    fence.put_up(site="shop", cause="c1", by="ada", timeout=10)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("readonly.doctor.standing_fences", lambda record: [_Standing()])
            assert said().endswith(expected)
            assert bool(said()) is not held
    finally:
        fence.lift(site="shop")


def test_a_process_at_another_database_is_none_of_a_fence(shop: Shop, postgresql: Postgres) -> None:
    """One of the same role, which calls its own by the fence's name."""
    server = {"server": "postgresql", "database": "elsewhere", "user": "owner_"}
    shop.reported(report_of(host="web-9", role="reports", guards=(Guarded("main", "", server),)))
    assert faults(shop, postgresql.fence()) == {}


class _Standing:
    """A cause of the record that says that the fence stands."""

    fence = FenceMark("main")


def test_another_writer_is_named_and_is_no_fault(shop: Shop, postgresql: Postgres) -> None:
    """What lowers the level stands beside it."""
    postgresql.sql("GRANT INSERT ON story TO rogue")
    fence = fence_at(postgresql, fencer="fencer", strategy="revoke")
    assert faults(shop, fence) == {}
    [said] = [one.what for one in found(shop, fence) if one.check == "fences"]
    assert "main: revoke reaches cooperative" in said
    assert "left open: rogue may write and is not among the writers" in said


# --- fences that stand ----------------------------------------------------------------------------------------------


def _postgresql(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("postgresql")


def _mariadb(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("mariadb")


BOTH = pytest.mark.parametrize("database", [_postgresql, _mariadb])


def configured(shop: Shop, database: Any, folder: Path) -> str:
    """Write the operator's file; returns its path."""
    file = folder / "readonly.toml"
    url = database.server.url(database.name, user="fencer")
    migrators = ["owner_", "fencer"] if isinstance(database, Postgres) else ["migrator"]
    file.write_text(
        f'store = "{shop.url}"\n[fence.main]\nurl = "{url}"\nwriters = ["app"]\nmigrators = {migrators}\n', "utf-8"
    )
    return str(file)


@BOTH
@pytest.mark.parametrize("whose", ["shop", "shop-production"])
def test_a_fence_that_was_left_standing(
    shop: Shop, tmp_path: Path, request: pytest.FixtureRequest, database: Any, whose: str
) -> None:
    """One that the record knows nothing of, or another site's: named, and gone when the fix was typed."""
    served = database(request)
    fence = served.fence()
    fence.put_up(site=whose, cause="c1", by="ada", timeout=10)
    wrong = faults(shop, fence)["fences"]
    assert ("does not know" if whose == "shop" else "carries a fence of shop-production, raised 20") in wrong.what
    program, *words = wrong.fix.split()
    assert program == "readonlyctl"
    done = shop.here("--config", configured(shop, served, tmp_path), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert faults(shop, fence) == {}
    assert fence.status() is None


@BOTH
def test_a_fence_that_holds(shop: Shop, tmp_path: Path, request: pytest.FixtureRequest, database: Any) -> None:
    """While a fence of this site stands, that is no fault; when its server has let go of it, it is."""
    served = database(request)
    config = configured(shop, served, tmp_path)
    done = shop.here("--config", config, "on", "--reason", "INC-441", "--timeout", "1s", "--accept-fenced")
    assert served.fence().status() is not None, done.stdout + done.stderr
    fence = served.fence()
    assert "fences" not in faults(shop, fence)
    if isinstance(served, MariaShop):
        served.forget()
        wrong = faults(shop, fence)["fences"]
        assert "does not cover" in wrong.what
    else:
        fence.lift(site="shop")
        wrong = faults(shop, fence)["fences"]
        assert "and it is not: its writers are let through" in wrong.what
    assert wrong.fix == "readonlyctl fence raise main"
    shop.here("--config", config, *wrong.fix.split()[1:], "--timeout", "1s")
    assert "fences" not in faults(shop, fence)
    fence.lift(site="shop")


# --- where it points ------------------------------------------------------------------------------------------------


def test_a_pooler_in_front(shop: Shop, postgresql: Postgres) -> None:
    """What it asks and sets may be another session's."""
    pooler = PgBouncer(postgresql.server.port).start()
    try:
        url = postgresql.server.url(postgresql.name, user="fencer")
        past = Fence.from_url(url.replace(f":{postgresql.server.port}/", f":{pooler.port}/"), writers=["app"])
        wrong = faults(shop, past)["fences"]
    finally:
        pooler.close()
    assert "a pooler, such as PgBouncer" in wrong.what
    assert "url in [fence.main]" in wrong.fix


@pytest.mark.parametrize(
    ("point", "said", "fix"),
    [
        (lambda url, _: url.replace("/test_", "/gone_"), "does not exist", "start the database, or mend url"),
        (lambda url, _: re.sub(r":\d+/", ":1/", url), "can't be reached", "start the database, or mend url"),
        (lambda url, pair: re.sub(r":\d+/", f":{pair.standby.port}/", url), "is a standby", "mend it"),
    ],
)
def test_a_url_that_leads_elsewhere(
    shop: Shop, postgresql: Postgres, postgres_pair: PostgresPair, point: Callable[..., str], said: str, fix: str
) -> None:
    """Said once, with where to mend it."""
    postgres_pair.wait_replayed()
    url = point(postgresql.server.url(postgresql.name, user="fencer"), postgres_pair)
    wrong = faults(shop, Fence.from_url(url, writers=["app"]))["fences"]
    assert said in wrong.what
    assert wrong.what.count("main") == 1
    assert wrong.fix.startswith(fix)
    assert wrong.fix.endswith("in [fence.main] of readonly.toml")


@BOTH
def test_writers_that_nobody_knows(shop: Shop, request: pytest.FixtureRequest, database: Any) -> None:
    """A typing error there would fence nobody."""
    served = database(request)
    wrong = faults(shop, served.fence(writers=["nobody_"]))["fences"]
    assert "nobody_" in wrong.what
    assert wrong.fix == "mend it in [fence.main] of readonly.toml"
