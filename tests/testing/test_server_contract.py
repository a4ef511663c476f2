"""Our own servers keep the contract that we give to others; somebody else's server is found by its name."""

from __future__ import annotations

import sqlite3
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from sqlalchemy import make_url

import readonly.databases
from readonly.databases import server_for
from readonly.databases.sqlite import SQLite
from readonly.errors import ConfigurationError
from readonly.testing import ServerContract


class TestSQLite(ServerContract):
    dialect = "sqlite"

    @pytest.fixture(autouse=True)
    def _database(self, tmp_path: Path) -> None:
        self.path = tmp_path / "contract.db"

    def connect(self) -> Any:
        return sqlite3.connect(self.path)


class TestPostgreSQL(ServerContract):
    dialect = "postgresql"

    @pytest.fixture(autouse=True)
    def _database(self, postgres_url: str) -> None:
        self.url = postgres_url

    def connect(self) -> Any:
        return psycopg.connect(self.url)


class TestMySQL(ServerContract):
    dialect = "mysql"

    @pytest.fixture(autouse=True)
    def _database(self, mariadb_url: str) -> None:
        self.url = make_url(mariadb_url)

    def connect(self) -> Any:
        return pymysql.connect(
            host=self.url.host,
            port=self.url.port or 3306,
            user=self.url.username,
            password=self.url.password or "",
            database=self.url.database,
        )


class Elsewhere(SQLite):
    """A server that is not ours, though it behaves like one that is."""

    name = "elsewhere"


class Unlike:
    """What an entry point may name by mistake."""


def _found(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    entry = EntryPoint(name="elsewhere", group="readonly.databases", value=value)

    def entry_points(*, group: str, name: str) -> list[EntryPoint]:
        return [entry] if (group, name) == (entry.group, entry.name) else []

    monkeypatch.setattr(readonly.databases, "entry_points", entry_points)
    monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[self.value.partition(":")[2]])


def test_a_server_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution brings a guard for a server that we don't know."""
    _found(monkeypatch, "their.module:Elsewhere")
    assert isinstance(server_for("elsewhere"), Elsewhere)


def test_a_server_of_somebody_else_that_lacks_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no guard stops start-up, by the name of the entry point."""
    _found(monkeypatch, "their.module:Unlike")
    with pytest.raises(ConfigurationError, match=r"their\.module:Unlike.*guard"):
        server_for("elsewhere")


def test_a_server_that_nobody_knows() -> None:
    """It is named, with those there are."""
    with pytest.raises(ConfigurationError, match=r"dialect='oracle' has no guard.*postgresql, sqlite, mysql"):
        server_for("oracle")
