"""What the environment tells a switch: READONLY_STORE, _LEASE, _BOOT, _RUNS, _ROLE, _DISABLED, _ANNOUNCE_SECONDS."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .errors import ConfigurationError
from .follower import ANNOUNCE_SECONDS
from .stores import Store, store_from_url

_WORDS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
    "": False,
}


@dataclass(frozen=True, slots=True)
class Told:
    """What a switch is made with; the names are its arguments'."""

    store: Store
    lease: float | None
    boot: Literal["closed", "open"]
    runs: str
    role: str | None
    inert: bool
    announce_seconds: float


def told_by(environ: Mapping[str, str], *, create: bool) -> Told:
    """Return what an environment says.

    Args:
        environ: The environment.
        create: Whether an SQLite store may be made: the site may, a command may not.

    Raises:
        ConfigurationError: A variable is missing or can't be right; the message names it.
    """
    url = environ.get("READONLY_STORE")
    if not url:
        raise ConfigurationError(
            "READONLY_STORE is not set: give it the store's URL, such as redis://flag.internal/0?site=shop"
        )
    lease: float | None = None
    if environ.get("READONLY_LEASE"):
        try:
            lease = float(environ["READONLY_LEASE"])
            if not math.isfinite(lease):
                raise ValueError
        except ValueError:
            raise ConfigurationError(
                f"READONLY_LEASE={environ['READONLY_LEASE']!r} is no number of seconds: write 30, or leave it out"
            ) from None
    boot = environ.get("READONLY_BOOT") or "closed"
    if boot not in ("closed", "open"):
        raise ConfigurationError(f"READONLY_BOOT={boot!r} is not a choice: use 'closed' or 'open'")
    announce = ANNOUNCE_SECONDS
    if environ.get("READONLY_ANNOUNCE_SECONDS"):
        try:
            announce = float(environ["READONLY_ANNOUNCE_SECONDS"])
            if not 0 <= announce < math.inf:
                raise ValueError
        except ValueError:
            raise ConfigurationError(
                f"READONLY_ANNOUNCE_SECONDS={environ['READONLY_ANNOUNCE_SECONDS']!r} is no number of seconds: "
                "write 900, or 0 to announce nothing"
            ) from None
    inert = flag("READONLY_DISABLED", environ.get("READONLY_DISABLED", ""))
    try:
        store = store_from_url(url, create=create)
    except ConfigurationError as error:
        raise ConfigurationError(f"READONLY_STORE: {error}") from error
    return Told(
        store,
        lease=lease,
        boot=boot,  # type: ignore[arg-type]  # narrowed by the check above, which mypy can't follow
        runs=environ.get("READONLY_RUNS", ""),
        role=environ.get("READONLY_ROLE"),
        inert=inert,
        announce_seconds=announce,
    )


def flag(name: str, value: str) -> bool:
    """Return whether a variable is on, by a closed list of words: "0" is never "on".

    Raises:
        ConfigurationError: It is none of them.
    """
    try:
        return _WORDS[value.strip().lower()]
    except KeyError:
        raise ConfigurationError(f"{name}={value!r} is not a choice: use 1 or 0") from None
