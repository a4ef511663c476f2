"""readonly.toml and the environment, for the operator's side; the command never reads the application's settings."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import durationpy

from .errors import ConfigurationError
from .members import LONGEST_TRANSACTION_SECONDS, Expected, parse_expect

FILE_NAME = "readonly.toml"
SETTINGS = ("store", "expect", "longest_transaction")


@dataclass(frozen=True, slots=True)
class OperatorConfig:
    """What the operator's side was told.

    Attributes:
        store: The store's URL, with the site.
        source: Where that came from, for messages.
        expect: How many members of each role must be there.
        longest_transaction: Seconds after its end from which a process has nothing left that could commit.
    """

    store: str
    source: str
    expect: Mapping[str, Expected] = field(default_factory=dict)
    longest_transaction: float = LONGEST_TRANSACTION_SECONDS


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
    settings = _read(Path(path), environ) if path is not None else {}
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
    return OperatorConfig(url, source, parse_expect(expect), _seconds(settings, path))


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


def _read(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: is no TOML: {error}") from error
    found: dict[str, str] = {}
    for key, value in document.items():
        if key not in SETTINGS:
            raise ConfigurationError(f"{path}: {key} is no setting that this version knows: {', '.join(SETTINGS)}")
        if not isinstance(value, str):
            raise ConfigurationError(f"{path}: {key}={value!r} must be text")
        found[key] = _filled_in(value, key, path, environ)
    return found


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
