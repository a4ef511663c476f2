"""Schema versions: how a database is asked for the one it has, and the one that this process's code was written for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from readonly.errors import ConfigurationError

# By the names that readonly.toml and settings may use instead of a query.
KNOWN = {
    "alembic": "SELECT version_num FROM alembic_version",
    "django": (
        "SELECT app, name FROM django_migrations WHERE id IN (SELECT max(id) FROM django_migrations GROUP BY app)"
    ),
}


def _as_texts(rows: Sequence[Sequence[Any]]) -> tuple[str, ...]:
    return tuple(sorted(".".join(str(value) for value in row) for row in rows))


@dataclass(frozen=True, slots=True)
class Schema:
    """How a database is asked for its schema version.

    Attributes:
        query: One SELECT; its rows are the version.
        wanted: The version that this process's code was written for; None where that is not known.
        seen: Makes a version of the rows.
    """

    query: str
    wanted: tuple[str, ...] | None = None
    seen: Callable[[Sequence[Sequence[Any]]], tuple[str, ...]] = _as_texts


def schema_of(value: object, *, setting: str = "schema") -> Schema | None:
    """Return what a setting means: `alembic`, `django`, a SELECT, a Schema, or nothing.

    Raises:
        ConfigurationError: It is none of these.
    """
    if value is None or isinstance(value, Schema):
        return value
    if isinstance(value, str) and value in KNOWN:
        return Schema(KNOWN[value])
    if isinstance(value, str) and value.lstrip()[:6].upper() == "SELECT":
        return Schema(value)
    raise ConfigurationError(f"{setting}={value!r} is no schema version: write {', '.join(KNOWN)}, or a SELECT")


def alembic(
    config: str | os.PathLike[str] = "alembic.ini",
    *,
    heads: Sequence[str] | None = None,
    table: str = "alembic_version",
) -> Schema:
    """Return the version that Alembic keeps, wanted as the heads of this process's own scripts.

    Args:
        config: The path of alembic.ini; only read where no heads are given.
        heads: The revisions that the code was written for, where the scripts are not at hand.
        table: Where Alembic keeps the version, with its schema if it has one of its own.

    Raises:
        ConfigurationError: Alembic is missing, or its scripts can't be read.
    """
    if not all(part.isidentifier() for part in table.split(".")):
        raise ConfigurationError(f"table={table!r} is no name of a table: write alembic_version, or schema.table")
    if isinstance(heads, str):
        raise ConfigurationError(f"heads={heads!r} is one string: write a list, [{heads!r}]")
    found = tuple(heads) if heads is not None else _heads(config)
    return Schema(f"SELECT version_num FROM {table}", tuple(sorted(found)))  # noqa: S608  # checked above


def query(statement: str, *, expected: str | Sequence[str] | None = None) -> Schema:
    """Return the version that a query finds.

    Args:
        statement: One SELECT. The values of a row are joined by dots, and the rows are put in order.
        expected: What it returns where the schema is the one that this code was written for; None: not known.

    Raises:
        ConfigurationError: The statement is no SELECT.
    """
    if statement in KNOWN or schema_of(statement, setting="statement") is None:
        raise ConfigurationError(f"statement={statement!r} is no query: write a SELECT")
    wanted = (expected,) if isinstance(expected, str) else expected
    return Schema(statement, None if wanted is None else tuple(sorted(wanted)))


def _heads(config: str | os.PathLike[str]) -> tuple[str, ...]:
    try:
        from alembic.config import Config
        from alembic.script import ScriptDirectory
        from alembic.util import CommandError
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "alembic":
            raise
        raise ConfigurationError(
            "the heads of Alembic's scripts can't be told without it: pip install alembic, or name them with heads=[…]"
        ) from error
    if not Path(config).is_file():
        raise ConfigurationError(f"config={os.fspath(config)!r} is no file: give the path of alembic.ini")
    try:
        return tuple(ScriptDirectory.from_config(Config(os.fspath(config))).get_heads())
    except CommandError as error:
        raise ConfigurationError(f"config={os.fspath(config)!r}: Alembic's scripts can't be read: {error}") from error


def unreachable_standby(wanted: str | None, environ: Mapping[str, str]) -> str:
    """Return why a replica's URL can never connect to a standby, with what to do; "" if it may.

    Args:
        wanted: Its `target_session_attrs`, None without.
        environ: The environment, from which libpq takes what the URL does not say.

    Source: PostgreSQL manual, libpq, target_session_attrs.
    """
    where = "target_session_attrs" if wanted else "PGTARGETSESSIONATTRS"
    found = wanted or environ.get("PGTARGETSESSIONATTRS", "")
    if found not in ("read-write", "primary"):
        return ""
    return (
        f"{where}={found} connects to a primary alone, so this replica could never be read: write "
        "target_session_attrs=any (or read-only) in its URL"
    )
