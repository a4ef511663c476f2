"""Servers that cannot be had here: skipped on a laptop, failed in CI, and named at the end of the run.

Run as a module it prints the names of those that are missing, for a script that may install them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import pytest

_missing: dict[str, str] = {}


class ServerMissing(Exception):
    """No such server or program was found; the message says where it was looked for."""

    def __init__(self, server: str, looked_for: str) -> None:
        super().__init__(f"no {server} here; looked for {looked_for}")
        self.server = server


def in_ci() -> bool:
    """Tell whether a missing server is a failure; any value of CI but an empty one, 0 or false says so."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def outcome(error: ServerMissing) -> BaseException:
    """Remember the server for the summary; return what to raise: a skip of the running test, in CI its failure."""
    _missing[error.server] = str(error)
    if in_ci():
        return pytest.fail.Exception(str(error), pytrace=False)
    return pytest.skip.Exception(str(error))


def remember(servers: Mapping[str, str]) -> None:
    """Take in what `reported` returned in another process."""
    _missing.update(servers)


def reported() -> dict[str, str]:
    """Return the servers that tests asked for in vain, with the reasons."""
    return dict(_missing)


def _names() -> list[str]:
    from support.chromium import find_chromium
    from support.mariadb_server import find_mariadb
    from support.pgbouncer import find_pgbouncer
    from support.postgres_server import find_postgres
    from support.redis_server import find_redis

    lookups: list[Callable[[], object]] = [find_redis, find_postgres, find_mariadb, find_pgbouncer, find_chromium]
    names = []
    for lookup in lookups:
        try:
            lookup()
        except ServerMissing as error:
            names.append(error.server)
    return names


if __name__ == "__main__":
    # The class below `support.missing` is another one than `__main__`'s: ask through the package.
    from support import missing

    print(" ".join(missing._names()))
