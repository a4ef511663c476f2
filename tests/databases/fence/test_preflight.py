"""What a fence could do is asked without changing anything, and what it lacks is said as statements that work."""

from __future__ import annotations

import pytest

from readonly.databases.fence import Fence, FenceRefused, Level, Strategy
from readonly.errors import ConfigurationError
from support.fence_layouts import Shop


def test_what_is_missing_is_said_as_statements_that_work(shop: Shop) -> None:
    """A bare fencer: run what it says, and the fence can be raised."""
    fence = shop.fence(fencer="bare", migrators=["owner_", "fencer"])
    found = fence.preflight()
    assert (found.strategy, found.level, found.possible) == (Strategy.REVOKE, Level.HARD, False)
    assert found.missing == (f"GRANT CREATE ON DATABASE {shop.name} TO bare", "GRANT owner_ TO bare")
    with pytest.raises(FenceRefused, match=r"nothing was changed\. What is missing: GRANT CREATE") as caught:
        shop.up(fence)
    assert caught.value.missing == found.missing
    try:
        for statement in found.missing:
            shop.sql(statement)
        assert fence.preflight().possible
        assert shop.up(fence).level is Level.HARD
        assert [line.partition(" -- ")[0].strip() for line in found.advised] == [
            "GRANT pg_signal_backend TO bare", "GRANT pg_read_all_stats TO bare",
        ]  # fmt: skip
        fence.lift(site="shop")
    finally:
        shop.sql("REVOKE owner_ FROM bare")


def test_looking_changes_nothing(shop: Shop, solo: Shop) -> None:
    """No transaction id is used by a preflight, a status or a look for open tables."""
    horizon = "SELECT pg_snapshot_xmax(pg_current_snapshot())"
    for site in (shop, solo):
        before = site.sql(horizon)
        site.fence().preflight()
        site.fence().status()
        site.fence().open_tables()
        assert site.sql(horizon) == before


@pytest.mark.parametrize(
    ("made", "undone", "said", "strategy", "level"),
    [
        pytest.param(
            "CREATE FUNCTION public.touch() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'DELETE FROM public.story';"
            "ALTER FUNCTION public.touch() OWNER TO boss",
            "DROP FUNCTION public.touch()",
            "touch() runs with its owner's rights (SECURITY DEFINER)",
            Strategy.REVOKE,
            Level.COOPERATIVE,
            id="security definer",
        ),
        pytest.param(
            "GRANT INSERT ON story TO rogue",
            "REVOKE INSERT ON story FROM rogue",
            "rogue may write and is not among the writers",
            Strategy.REVOKE,
            Level.COOPERATIVE,
            id="another role",
        ),
        pytest.param(
            "GRANT pg_write_all_data TO app",
            "REVOKE pg_write_all_data FROM app",
            "app is a member of pg_write_all_data",
            Strategy.REVOKE,
            Level.APP_ONLY,
            id="write all data",
        ),
        pytest.param(
            "ALTER ROLE app SUPERUSER",
            "ALTER ROLE app NOSUPERUSER",
            "app is a superuser, whom no privilege binds",
            Strategy.REVOKE,
            Level.APP_ONLY,
            id="superuser",
        ),
        pytest.param(
            "SELECT lo_create(0)",
            "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
            "large objects, of which there are 1",
            Strategy.REVOKE,
            Level.COOPERATIVE,
            id="large objects",
        ),
    ],
)
def test_every_way_that_is_left_is_named(
    shop: Shop, made: str, undone: str, said: str, strategy: Strategy, level: Level
) -> None:
    """By what it is; the level of privileges alone falls, and the remedy raises it again."""
    shop.sql(made)
    try:
        found = shop.fence().preflight(strategy=strategy)
        assert said in [way.what.removeprefix("public.") for way in found.ways if not way.insists]
        assert found.level is level
    finally:
        shop.sql(undone)
    assert shop.fence().preflight(strategy=strategy).level is Level.HARD


def test_triggers_stop_what_privileges_do_not(shop: Shop) -> None:
    """With a SECURITY DEFINER function about, the fence by trigger is the stronger one, and is chosen."""
    shop.sql(
        "CREATE FUNCTION public.touch() RETURNS void LANGUAGE sql SECURITY DEFINER"
        " AS 'DELETE FROM public.comment'; ALTER FUNCTION public.touch() OWNER TO boss"
    )
    found = shop.fence().preflight()
    assert (found.strategy, found.level) == (Strategy.EACH, Level.HARD)
    shop.up()
    assert shop.tried("app", "SELECT public.touch()") == ["25006"]
    assert shop.tried("boss", "DELETE FROM comment") == ["25006"]


def test_a_superuser_among_the_writers_is_never_hard(shop: Shop) -> None:
    """He could take any trigger off."""
    found = shop.fence(writers=["boss"], fencer="boss").preflight()
    assert (found.strategy, found.level) == (Strategy.EACH, Level.COOPERATIVE)
    assert found.possible


def test_who_migrates_through_the_writers_group_keeps_its_rights(shop: Shop) -> None:
    """Taking the group's privileges would stop the migration as well: triggers, with a token."""
    found = shop.fence(migrators=["app_rw"]).preflight()
    assert found.strategy is Strategy.EACH
    assert "app_rw migrates" in shop.fence(migrators=["app_rw"]).preflight(strategy=Strategy.REVOKE).why


@pytest.mark.parametrize("strategy", ["global", "barrier"])
def test_a_strategy_of_another_kind_of_server(strategy: str) -> None:
    """It is refused when the file is read, and not when the fence is wanted."""
    with pytest.raises(ConfigurationError, match=f"strategy='{strategy}' is none of PostgreSQL's"):
        Fence.from_url("postgresql://fencer@db1/shop", writers=["app"], strategy=strategy)
