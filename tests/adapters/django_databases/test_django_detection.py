"""A primary that takes no writes of its own accord: found behind Django's connections, and found over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from readonly import ReadOnlyError, Switch
from readonly.context import Work, working
from readonly_django.databases import Guards, install, uninstall
from support.detecting import found, look_often, over, read_only_by_default, set_format
from support.django_site.aliases import databases, settings_of
from support.django_site.models import Article
from support.mariadb_server import MariaDBServer
from support.postgres_server import PostgresPair, PostgresServer
from support.waiting import eventually

from .conftest import INSERT, MYSQL, POSTGRESQL, SQLITE, Site, execute, fresh, in_thread, in_transaction, raw, send

LASTING: dict[str, Any] = {"CONN_MAX_AGE": None}


@pytest.fixture
def switch(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> Switch:
    """A writable site of one process, which looks often."""
    look_often(monkeypatch)
    return switch


def test_a_standby_behind_default(postgres_pair: PostgresPair, switch: Switch) -> None:
    """The first write is answered as while read-only, by the driver's own cursor, too; reads go on."""
    with databases(default=settings_of(postgres_pair.standby.url())):
        raw()  # from before the guard
        guards = install(switch)
        work = Work(switch)
        with working(work), pytest.raises(ReadOnlyError, match="in a read-only transaction"):
            execute("CREATE TABLE news_more (x int)")
        assert isinstance(work.escape, ReadOnlyError)
        assert found(switch) == "database 'default' takes no writes: the server is a standby, in recovery"
        execute("SELECT 1")
        assert guards.guard("default").prove() == ""  # type: ignore[union-attr]
        uninstall()
        over(switch)


def test_a_new_connection_to_a_standby_is_suspect(postgres_pair: PostgresPair, switch: Switch) -> None:
    """It is found before anybody writes."""
    with databases(default=settings_of(postgres_pair.standby.url())):
        install(switch)
        execute("SELECT 1")
        assert "standby" in found(switch)
        uninstall()


def test_a_database_that_was_set_read_only(
    make_site: Callable[..., Site], switch: Switch, postgres: PostgresServer
) -> None:
    """What an operator does at the server; a persistent connection writes on, the next one shows it."""
    site = make_site(POSTGRESQL, **LASTING)
    install(switch)
    with read_only_by_default(postgres, site.url):
        execute(INSERT)
        in_thread(lambda: execute("SELECT 1"))
        assert found(switch) == "database 'default' takes no writes: default_transaction_read_only is on (database)"
        with pytest.raises(ReadOnlyError):
            execute(INSERT)
        assert site.count() == 2
    over(switch)
    execute(INSERT)
    assert site.count() == 3


@pytest.mark.parametrize("atomic", [True, False])
def test_mariadb_that_was_set_read_only(
    make_site: Callable[..., Site], switch: Switch, mariadb: MariaDBServer, atomic: bool
) -> None:
    """The very first refused write is a ReadOnlyError, and the connection writes again when it is over."""
    site = make_site(MYSQL, **LASTING)
    install(switch)
    try:
        mariadb.sql("SET GLOBAL read_only = 1")
        with pytest.raises(ReadOnlyError), in_transaction(atomic):
            execute(INSERT)
        assert found(switch) == "database 'default' takes no writes: read_only is ON"
        assert site.count() == 1
    finally:
        mariadb.sql("SET GLOBAL read_only = 0")
    over(switch)
    execute(INSERT)
    assert site.count() == 2
    assert switch.inflight.count() == 0


def test_a_file_that_can_t_be_written(make_site: Callable[..., Site], switch: Switch, tmp_path: Path) -> None:
    """SQLite's own refusal; a persistent connection that was opened meanwhile is closed at the end of a request."""
    site = make_site(SQLITE, **LASTING)
    install(switch)
    fresh()
    set_format(tmp_path / "site.db", 3)
    with pytest.raises(ReadOnlyError):
        execute(INSERT)
    assert "can't be written by this process" in found(switch)
    assert site.count() == 1
    held = raw()
    set_format(tmp_path / "site.db", 1)
    over(switch)
    connection.close_if_unusable_or_obsolete()
    execute(INSERT)
    assert raw() is not held
    assert site.count() == 2


@pytest.mark.parametrize("vendor", [POSTGRESQL, MYSQL])
def test_the_applications_own_wish_is_none(site: Site, guards: Guards, switch: Switch) -> None:
    """A transaction that the application made read-only is its own error, and closes nobody's site."""
    guard = guards.guard("default")
    assert guard is not None
    assert guard.detection is not None
    looks: list[str] = []
    asked = guard.detection._ask

    def ask() -> str:
        looks.append(asked())
        return looks[-1]

    guard.detection._ask = ask
    own = "SET TRANSACTION READ ONLY" if site.on_postgresql else "START TRANSACTION READ ONLY"

    def write() -> None:
        with transaction.atomic():
            send(raw(), own)
            execute(INSERT)

    with pytest.raises(DatabaseError) as refused:
        write()
    assert not isinstance(refused.value, ReadOnlyError)
    eventually(lambda: looks, what="somebody has looked")
    # Once, or once more for the same error, which goes by the guard twice.
    assert set(looks) == {""}
    assert not switch.state.read_only
    assert Article.objects.count() == 1
