"""What can't be right is an error when the Database is made, and names the argument."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

from readonly import ReadOnlyError, Switch
from readonly.databases import server_for
from readonly.databases.sqlalchemy import Database
from readonly.errors import ConfigurationError


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A primary."""
    engine = create_engine(f"sqlite:///{tmp_path}/site.db")
    yield engine
    engine.dispose()


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Engine]:
    """A replica of it."""
    engine = create_engine(f"sqlite:///{tmp_path}/replica.db")
    yield engine
    engine.dispose()


def test_a_primary_that_is_no_engine(switch: Switch) -> None:
    """A URL is no engine."""
    wrong: Any = "sqlite:///x.db"
    with pytest.raises(ConfigurationError, match="primary='sqlite:"):
        Database(wrong, switch)


@pytest.mark.parametrize("shape", ["engine", "string", "strings", "none"])
def test_replicas_that_are_no_list_of_engines(switch: Switch, engine: Engine, replica: Engine, shape: str) -> None:
    """A bare engine, a bare string, a list of strings."""
    wrong: Any = {"engine": replica, "string": "sqlite:///x", "strings": ["sqlite:///x"], "none": None}[shape]
    with pytest.raises(ConfigurationError, match="replicas"):
        Database(engine, switch, replicas=wrong)
    assert not switch.guarded


def test_the_primary_as_its_own_replica(switch: Switch, engine: Engine, tmp_path: Path) -> None:
    """The same engine, an engine made from it, or another one for the same file."""
    same = create_engine(f"sqlite:///{tmp_path}/./site.db")
    for wrong in (engine, engine.execution_options(isolation_level="AUTOCOMMIT"), same):
        with pytest.raises(ConfigurationError, match=r"replicas\[0\].*is the primary itself"):
            Database(engine, switch, replicas=[wrong])
    remote = create_engine("postgresql+psycopg://a@db1/shop")
    with pytest.raises(ConfigurationError, match="primary itself"):
        Database(remote, switch, replicas=[create_engine("postgresql+psycopg://reader:secret@db1/shop")])


def test_sync_and_async_mixed(switch: Switch, engine: Engine, tmp_path: Path) -> None:
    """One session can't read from both."""
    other = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/replica.db")
    with pytest.raises(ConfigurationError, match="not both sync or both async"):
        Database(engine, switch, replicas=[other])
    with pytest.raises(ConfigurationError, match="not both sync or both async"):
        Database(other, switch, replicas=[engine])


def test_a_replica_of_another_kind_or_twice(switch: Switch, engine: Engine, replica: Engine) -> None:
    """A replica holds the same database, once."""
    with pytest.raises(ConfigurationError, match="is postgresql, and the primary sqlite"):
        Database(engine, switch, replicas=[create_engine("postgresql+psycopg://a@db/b")])
    with pytest.raises(ConfigurationError, match="twice"):
        Database(engine, switch, replicas=[replica, replica])


@pytest.mark.parametrize(
    "names", ["page_view", ["*"], [""], ["a b.*.c"], [" a"], ["a.b.c.d"], ["a."], [".b"], ["a..c"]]
)
def test_discards_that_name_nothing(switch: Switch, engine: Engine, names: Any) -> None:
    """A bare string, everything, and what can't be read."""
    with pytest.raises(ConfigurationError, match="discard="):
        Database(engine, switch, discard=names)


def test_an_engine_that_is_guarded_already(switch: Switch, engine: Engine) -> None:
    """Two guards on one engine would put back each other's work."""
    database = Database(engine, switch)
    with pytest.raises(ConfigurationError, match="guarded already"):
        Database(engine.execution_options(), switch, name="other")
    database.close()
    Database(engine, switch, name="other").close()


def test_a_name_that_is_taken(switch: Switch, engine: Engine, replica: Engine) -> None:
    """Reports tell databases apart by name; and a Database that failed leaves nothing behind."""
    first = Database(engine, switch)
    with pytest.raises(ConfigurationError, match="name='main'"):
        Database(replica, switch)
    Database(replica, switch, name="other").close()
    first.close()


def test_a_dialect_without_a_guard() -> None:
    """It is named, with those that have one."""
    with pytest.raises(ConfigurationError, match=r"dialect='oracle' has no guard.*postgresql, sqlite"):
        server_for("oracle")


def test_a_replica_that_is_not_there(switch: Switch, engine: Engine, replica: Engine) -> None:
    """Declaring a position for it is an error."""
    database = Database(engine, switch)
    for wrong in (0, -1, replica):
        with pytest.raises(ConfigurationError, match="replica="):
            database.reached(wrong, 3)
    database.close()


def test_in_memory_databases_are_never_mistaken_for_each_other(switch: Switch) -> None:
    """Two of them are two."""
    primary, other = create_engine("sqlite://"), create_engine("sqlite://")
    database = Database(primary, switch, replicas=[other])
    assert "database" not in database.describe()
    assert database.prove() == ""
    database.close()
    primary.dispose()
    other.dispose()


def test_a_database_in_memory_outlives_its_guard(switch: Switch) -> None:
    """Connections are put back at check-in, so that none has to be replaced: here that would lose the tables."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE story (title TEXT)")
    database = Database(engine, switch)
    switch.on()
    with engine.connect() as connection, pytest.raises(ReadOnlyError):
        connection.exec_driver_sql("INSERT INTO story VALUES ('x')")
    database.close()
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO story VALUES ('x')")
    engine.dispose()
