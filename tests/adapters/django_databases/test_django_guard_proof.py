"""The guard proves itself and says what it guards; and what can't be guarded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import (
    OperationalError,
    ProgrammingError,
    connection,
    connections,
    transaction,
)
from django.test.utils import override_settings

from readonly import ReadOnlyError, Switch
from readonly.errors import ConfigurationError
from readonly_django.databases import Guards, install, uninstall
from support.django_site.aliases import databases

from .conftest import (
    INSERT,
    MYSQL,
    POSTGRESQL,
    SQLITE,
    Site,
    execute,
    fresh,
    guards_prove,
)


def test_the_guard_proves_itself(site: Site, guards: Guards, switch: Switch) -> None:
    """A harmless write is refused in autocommit and in a transaction; nothing is left behind, or in flight."""
    assert guards_prove(switch) == [""]
    state = switch.on()
    assert switch.confirm(state.epoch, timeout=10).safe
    [report] = switch.members()
    assert [(g.name, g.proof) for g in report.guards] == [("default", "")]
    switch.off()
    execute(INSERT)
    assert switch.inflight.count() == 0


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_broken_guard_is_found_out(
    site: Site, guards: Guards, switch: Switch, monkeypatch: pytest.MonkeyPatch, autocommit: bool
) -> None:
    """If the server is not told, the proof says so; each of the two ways by itself."""
    guard = guards.guard("default")
    assert guard is not None
    server = type(guard.server)
    told = server.guard

    def tell(self: Any, found: Any, memory: Any) -> None:
        in_autocommit = getattr(found, "autocommit", True) is True and not getattr(found, "in_transaction", False)
        if in_autocommit is not autocommit and site.on_postgresql:
            told(self, found, memory)

    monkeypatch.setattr(server, "guard", tell)
    monkeypatch.setattr(server, "restore", lambda self, found, memory: True)
    switch.on()
    [said] = guards_prove(switch)
    assert "not refused" in said
    monkeypatch.undo()
    with pytest.raises((ProgrammingError, OperationalError)):
        execute("SELECT * FROM readonly_proof")


def test_a_database_that_is_gone_is_no_proof(make_site: Callable[..., Site], switch: Switch) -> None:
    """What could not be tried is said, without a password."""
    gone = {"ENGINE": "django.db.backends.postgresql", "NAME": "x", "USER": "u", "PASSWORD": "hunter2"}
    make_site(SQLITE, extra={"gone": {**gone, "HOST": "127.0.0.1", "PORT": "1"}})
    install(switch)
    said = dict(zip([g.name for g in switch.guards], guards_prove(switch), strict=True))
    assert said["default"] == ""
    assert "could not be tried" in said["gone"]
    assert "hunter2" not in said["gone"]


def test_members_say_what_they_write_to(site: Site, guards: Guards, switch: Switch) -> None:
    """Server, driver, database and user; no password."""
    [guard] = switch.guards
    found = guard.describe()
    assert found["server"] == site.vendor
    assert found["driver"] == {SQLITE: "sqlite3", POSTGRESQL: "psycopg", MYSQL: "pymysql"}[site.vendor]
    assert str(found["database"]) in site.url
    assert ("user" in found) is (site.vendor != SQLITE)


# --- what can't be guarded -------------------------------------------------------------------------------------------


def test_an_alias_that_nobody_configured(site: Site, guards: Guards, switch: Switch) -> None:
    """A connection object that was made by hand is guarded all the same."""
    switch.on()
    made = connections["default"].copy(alias="by hand")
    try:
        with pytest.raises(ReadOnlyError) as refused, made.cursor() as cursor:
            cursor.execute(INSERT)
        assert refused.value.database == "by hand"
    finally:
        made.close()
    assert [guard.name for guard in switch.guards] == ["default"]


def test_databases_that_are_left_out(make_site: Callable[..., Site], switch: Switch) -> None:
    """They are written as ever, and nobody waits for that."""
    site = make_site(SQLITE)
    install(switch, unguarded=["default"])
    assert switch.guards == ()
    switch.on()
    with transaction.atomic():
        execute(INSERT)
        assert switch.inflight.count() == 0
    assert site.count() == 2


class _Driver:
    """The module of a driver that has no guard."""

    __name__ = "oracledb"


def test_a_driver_that_has_no_guard(
    make_site: Callable[..., Site], switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start-up stops and says what to do; left out, it goes on."""
    make_site(SQLITE)
    monkeypatch.setattr(type(connections["default"]), "Database", _Driver())
    with pytest.raises(ConfigurationError, match=r"goes through oracledb, which has no guard.*UNGUARDED"):
        install(switch)
    assert not switch.guarded
    install(switch, unguarded=["default"])


def test_a_project_without_a_database(switch: Switch) -> None:
    """DATABASES = {}: there is nothing to guard."""
    with databases():
        install(switch)
        assert switch.guards == ()
        uninstall()


def test_a_driver_that_is_missing(make_site: Callable[..., Site], switch: Switch) -> None:
    """That is Django's to report, to whoever connects: other commands go on."""
    make_site(SQLITE, extra={"other": {"ENGINE": "nowhere.backend", "NAME": "x"}})
    install(switch)
    assert [guard.name for guard in switch.guards] == ["default"]
    with pytest.raises(ImproperlyConfigured):
        connections["other"].ensure_connection()


def test_a_connection_that_is_not_the_drivers_own(
    site: Site, guards: Guards, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend's own pool between Django and the driver: refused when it connects, and not let through."""
    fresh()

    class Proxy:
        def close(self) -> None:
            closed.append(self)

    closed: list[Proxy] = []
    wrapper = connections["default"].copy()
    monkeypatch.setattr(type(wrapper), "get_new_connection", lambda self, parameters: Proxy())
    with pytest.raises(ConfigurationError, match=r"connects with .*Proxy, which can't be guarded"):
        wrapper.ensure_connection()
    assert closed


def test_the_cache_in_the_database(site: Site, guards: Guards, switch: Switch) -> None:
    """It is read, and what can't be kept there is not kept."""
    from django.core.cache.backends.db import DatabaseCache

    execute("DROP TABLE IF EXISTS cached")
    moment = "timestamptz" if site.on_postgresql else "datetime"
    execute(f"CREATE TABLE cached (cache_key varchar(255) PRIMARY KEY, value text, expires {moment})")
    with override_settings(DATABASE_ROUTERS=["readonly_django.routers.ReplicaRouter"]):
        cache = DatabaseCache("cached", {})
        cache.set("x", 1)
        switch.on()
        assert cache.get("x") == 1
        cache.set("x", 2)
        cache.set("y", 2)
        assert (cache.get("x"), cache.get("y")) == (1, None)
        with transaction.atomic():
            cache.set("x", 3)
            assert cache.get("x") == 1
        switch.off()
        cache.set("x", 4)
        assert cache.get("x") == 4
    execute("DROP TABLE cached")


def test_health_checks_tell_the_server_nothing(make_site: Callable[..., Site], switch: Switch) -> None:
    """Django's own look at a persistent connection sets no session default."""
    make_site(POSTGRESQL, CONN_HEALTH_CHECKS=True, CONN_MAX_AGE=None)
    install(switch)
    switch.on()
    connection.close_if_unusable_or_obsolete()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SHOW default_transaction_read_only")
        assert cursor.fetchone() == ("off",)
