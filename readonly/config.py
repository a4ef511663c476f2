"""readonly.toml and the environment, for the operator's side; the command never reads the application's settings."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import durationpy

from .confirmation import LONGEST_TRANSACTION_SECONDS, Expected, parse_expect
from .errors import ConfigurationError

FILE_NAME = "readonly.toml"
_READABLE_BY_ALL = 0o004
SETTINGS = ("store", "expect", "longest_transaction", "timezone")
# What a [fence.NAME] table may say.
FENCE_SETTINGS = ("url", "writers", "migrators", "strategy", "replicas", "freeze", "schema")
_LISTS = frozenset({"writers", "migrators", "replicas", "freeze"})


@dataclass(frozen=True, slots=True)
class FenceConfig:
    """One [fence.NAME] table.

    Attributes:
        name: Its name.
        url: The primary, as whoever raises the fence; shown by nobody, since it may hold a password.
        writers: The roles that the application connects as.
        migrators: The roles that must go on writing.
        strategy: How to fence, or "" for what suits the database best.
        replicas: Those that must have reached the fence before a migration begins, as URLs.
        freeze: Replicas whose replay `run --freeze` pauses, as URLs of whoever may pause it; waited for as well.
        schema: How the version of the schema is asked for: `alembic`, `django`, a SELECT, or "" for not at all.
    """

    name: str
    url: str = field(repr=False)
    writers: tuple[str, ...] = ()
    migrators: tuple[str, ...] = ()
    strategy: str = ""
    replicas: tuple[str, ...] = field(default=(), repr=False)
    freeze: tuple[str, ...] = field(default=(), repr=False)
    schema: str = ""


@dataclass(frozen=True, slots=True)
class OperatorConfig:
    """What the operator's side was told.

    Attributes:
        store: The store's URL, with the site.
        source: Where that came from, for messages.
        expect: How many members of each role must be there.
        longest_transaction: Seconds after its end from which a process has nothing left that could commit.
        fences: The databases that are fenced.
        timezone: The zone of local times that are typed, or "".
    """

    store: str
    source: str
    expect: Mapping[str, Expected] = field(default_factory=dict)
    longest_transaction: float = LONGEST_TRANSACTION_SECONDS
    fences: tuple[FenceConfig, ...] = ()
    timezone: str = ""


def operator_config(
    *,
    store: str | None = None,
    config: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> OperatorConfig:
    """Find out which store to work on: `store`, READONLY_STORE, then `config`, READONLY_CONFIG, ./readonly.toml.

    Raises:
        ConfigurationError: None of them names a store, or a file can't be read; the message names the setting.
    """
    environ = os.environ if environ is None else environ
    path = config or environ.get("READONLY_CONFIG") or (FILE_NAME if Path(FILE_NAME).is_file() else None)
    settings, fences = _read(Path(path), environ) if path is not None else ({}, ())
    expect = environ.get("READONLY_EXPECT") or settings.get("expect", "")
    if store:
        url, source = store, "--store"
    elif environ.get("READONLY_STORE"):
        url, source = environ["READONLY_STORE"], "READONLY_STORE"
    elif "store" in settings:
        url, source = settings["store"], str(path)
    else:
        raise ConfigurationError(
            'which site? Name its store with --store, with READONLY_STORE, or with store = "…" in readonly.toml '
            "(--config, READONLY_CONFIG, or the folder you are in). `sudo` drops the environment: there use --store "
            "or a file. A store's URL looks like redis://flag.internal/0?site=shop"
        )
    zone = environ.get("READONLY_TIMEZONE") or settings.get("timezone", "")
    return OperatorConfig(url, source, parse_expect(expect), _seconds(settings, path), fences, zone)


def _seconds(settings: Mapping[str, str], path: str | os.PathLike[str] | None) -> float:
    text = settings.get("longest_transaction")
    if text is None:
        return LONGEST_TRANSACTION_SECONDS
    try:
        found = float(durationpy.from_str(text).total_seconds())
    except (durationpy.DurationError, ValueError, OverflowError):
        found = 0.0
    if found <= 0:
        raise ConfigurationError(f'{path}: longest_transaction={text!r} is no duration: write "30s" or "10m"')
    return found


def _read(path: Path, environ: Mapping[str, str]) -> tuple[dict[str, str], tuple[FenceConfig, ...]]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: is no TOML: {error}") from error
    found: dict[str, str] = {}
    fences: list[FenceConfig] = []
    for key, value in document.items():
        if key == "fence":
            fences = _fences(value, path, environ)
        elif key not in SETTINGS:
            known = ", ".join((*SETTINGS, "[fence.NAME]"))
            raise ConfigurationError(f"{path}: {key} is no setting that this version knows: {known}")
        elif not isinstance(value, str):
            raise ConfigurationError(f"{path}: {key}={value!r} must be text")
        else:
            found[key] = _filled_in(value, key, path, environ)
    if mode & _READABLE_BY_ALL and any(urlsplit(text).password for text in _texts(document)):
        raise ConfigurationError(
            f"{path}: holds a password and can be read by everybody: chmod 600 it, or write ${{VARIABLE}} in its place"
        )
    return found, tuple(fences)


def _texts(value: Any) -> Iterator[str]:
    """Return every text in a document, as it stands in the file."""
    if isinstance(value, str):
        if "${" not in value:
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _fences(tables: Any, path: Path, environ: Mapping[str, str]) -> list[FenceConfig]:
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigurationError(f"{path}: fence must be a table with a name for each database: [fence.main]")
    return [_fence(name, table, path, environ) for name, table in tables.items()]


def _fence(name: str, table: Mapping[str, Any], path: Path, environ: Mapping[str, str]) -> FenceConfig:
    for key, value in table.items():
        where = f"fence.{name}.{key}"
        if key not in FENCE_SETTINGS:
            raise ConfigurationError(
                f"{path}: {where} is no setting that this version knows: {', '.join(FENCE_SETTINGS)}"
            )
        listed = key in _LISTS
        if listed and not (isinstance(value, list) and all(isinstance(item, str) and item for item in value)):
            if key in {"replicas", "freeze"}:  # not shown: they may hold a password
                raise ConfigurationError(
                    f'{path}: {where} must be a list of URLs: ["postgresql://fencer@db2/database"]'
                )
            raise ConfigurationError(f'{path}: {where}={value!r} must be a list of texts: ["shop_app"]')
        if not listed and not isinstance(value, str):
            raise ConfigurationError(f"{path}: {where} must be text")  # not shown: it may hold a password
    if not table.get("url"):
        raise ConfigurationError(
            f'{path}: fence.{name} names no database: url = "postgresql://fencer@host/database", of the primary itself'
        )

    def filled(key: str) -> tuple[str, ...]:
        return tuple(_filled_in(item, f"fence.{name}.{key}", path, environ) for item in table.get(key, ()))

    return FenceConfig(
        name,
        _filled_in(table["url"], f"fence.{name}.url", path, environ),
        writers=filled("writers"),
        migrators=filled("migrators"),
        strategy=table.get("strategy", ""),
        replicas=filled("replicas"),
        freeze=filled("freeze"),
        schema=table.get("schema", ""),
    )


def _filled_in(value: str, key: str, path: Path, environ: Mapping[str, str]) -> str:
    """Replace ${VARIABLE}, so that no password need stand in the file."""
    parts = value.split("${")
    out = [parts[0]]
    for part in parts[1:]:
        name, closed, rest = part.partition("}")
        if not closed or name not in environ:
            raise ConfigurationError(f"{path}: {key} names ${{{name}}}, which is not set in the environment")
        out.append(environ[name] + rest)
    return "".join(out)
