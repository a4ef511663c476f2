"""Are these the engines of one primary and of its replicas, and which database does each lead to?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from readonly.errors import ConfigurationError

from ._replicas import check_url


def checked_engine(argument: str, engine: object) -> Engine:
    """Return the sync engine of an argument.

    Raises:
        ConfigurationError: It is none; the message names the argument.
    """
    if isinstance(engine, AsyncEngine):
        return engine.sync_engine
    if isinstance(engine, Engine):
        return engine
    raise ConfigurationError(
        f"{argument}={engine!r} is no engine: pass what create_engine or create_async_engine returned"
    )


def checked_replicas(primary: Engine | AsyncEngine, replicas: object) -> list[Engine]:
    """Return the sync engines of the replicas of a primary.

    Raises:
        ConfigurationError: One can't be a replica of it; the message names its place.
    """
    if isinstance(replicas, (str, Engine, AsyncEngine)) or not isinstance(replicas, Sequence):
        raise ConfigurationError(f"replicas={replicas!r} is no list of engines: write replicas=[engine]")
    first = checked_engine("primary", primary)
    found: list[Engine] = []
    for index, replica in enumerate(replicas):
        argument = f"replicas[{index}]"
        engine = checked_engine(argument, replica)
        if isinstance(replica, AsyncEngine) is not isinstance(primary, AsyncEngine):
            raise ConfigurationError(
                f"{argument}={replica!r} and primary={primary!r} are not both sync or both async: make them alike"
            )
        if engine is first or engine.dialect is first.dialect or _address(engine) == _address(first):
            raise ConfigurationError(f"{argument}={replica!r} is the primary itself: leave it out")
        if engine.dialect.name != first.dialect.name:
            raise ConfigurationError(
                f"{argument}={replica!r} is {engine.dialect.name}, and the primary {first.dialect.name}: a replica "
                "holds the same database"
            )
        if any(engine is other or engine.dialect is other.dialect for other in found):
            raise ConfigurationError(f"{argument}={replica!r} is there twice: leave one out")
        check_url(argument, engine)
        found.append(engine)
    return found


def _address(engine: Engine) -> object:
    """Return what tells one database from another, as far as a URL says; unequal to all others if it says nothing."""
    url = make_url(engine.url)
    if engine.dialect.name == "sqlite":
        path = sqlite_path(engine)
        return object() if path is None else path
    if url.database is None and url.host is None:
        return object()  # a creator, or the driver's own configuration
    return (url.host, url.port, url.database, tuple(sorted(url.query.items())))


def sqlite_path(engine: Engine) -> Path | None:
    """Return the file that an SQLite engine opens; None for a database in memory."""
    database = engine.url.database or ""
    if database.startswith("file:"):
        database = database.removeprefix("file:").partition("?")[0]
        if engine.url.query.get("mode") == "memory":
            return None
    if not database or database == ":memory:":
        return None
    return Path(database).resolve()
