"""Databases to fence, in the layouts that sites have."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from readonly import changes
from readonly.changes import Operator
from readonly.databases.fence import _maria_writers
from readonly.stores import Store, store_from_url
from support.fence_layouts import Shop, make_roles, one_role, two_roles
from support.mariadb_layouts import MariaShop, maria_shop
from support.mariadb_server import MariaDBServer
from support.postgres_server import PostgresServer


@pytest.fixture(scope="session")
def roles(postgres: PostgresServer) -> PostgresServer:
    """The server with the roles of all layouts."""
    return make_roles(postgres)


@pytest.fixture
def shop(postgres: PostgresServer) -> Iterator[Shop]:
    """Two roles: one owns and migrates, the application has what it was granted."""
    with two_roles(postgres) as made:
        yield made


@pytest.fixture
def solo(postgres: PostgresServer) -> Iterator[Shop]:
    """One role: the application owns its tables, and migrates as itself."""
    with one_role(postgres) as made:
        yield made


@pytest.fixture(params=["shop", "solo", "gated"])
def site(request: pytest.FixtureRequest) -> Shop:
    """Each layout with the strategy that preflight chooses: privileges, a trigger on each table, the gate."""
    if request.param == "gated":
        found: Shop = request.getfixturevalue("solo")
        found.fence().install(site="shop", by="ada")
        return found
    made: Shop = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def maria(mariadb_to_fence: MariaDBServer) -> Iterator[MariaShop]:
    """A database of its own, at a server that only these tests make refuse."""
    with maria_shop(mariadb_to_fence) as made:
        yield made


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the first look take its time, too: the server shows once more what another test saw right before."""
    look = _maria_writers.look

    def late(*args: Any, again: threading.Event | None = None, **more: Any) -> _maria_writers.Look:
        return look(*args, again=again or threading.Event(), **more)

    monkeypatch.setattr(_maria_writers, "look", late)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with a record."""
    store = store_from_url(f"sqlite:///{tmp_path}/flag.db?site=shop")
    changes.initialise(store, Operator("ada", "ops-1"), replace_existing=True)
    yield store
    store.close()
