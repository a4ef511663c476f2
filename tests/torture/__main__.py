"""The long torture: `python -m tests.torture --rounds 50`, from the checkout. Ends with 1 if anything got past.

READONLY_TEST_PG_BIN names the programs of another PostgreSQL. Where a server is missing that is said, and in CI it ends
with 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.mariadb_server import MariaDBServer
from support.missing import ServerMissing, in_ci
from torture import mariadb, strategies
from torture.rounds import Round, summary
from torture.strategies import Tortured

# A wrong one lets a write through in some rounds and not in others: it has at least so many to be caught in.
WRONG_ROUNDS = 50


def rounds(
    strategy: str, arena: Round, prepared: AbstractContextManager[Tortured], *, count: int, wrong: bool
) -> bool:  # fmt: skip
    """Put one strategy through it, print a line, and tell whether it did what it should."""
    with prepared as tortured:
        results = arena.torture(tortured.raise_, tortured.lift, tortured.styles, rounds=count, until_caught=wrong)
    arena.close()
    held = all(result.held for result in results)
    said = ", ".join(f"{name} {value}" for name, value in summary(results).items())
    print(f"{strategy}: {'held' if held else 'CAUGHT' if wrong else 'VIOLATED'}; {said}", flush=True)
    for result in results:
        for row in result.past_position if not wrong else ():
            print(f"  past the position: {row}")
    return held != wrong


def every(kind: Any, arena: Callable[[str], Any], only: Sequence[str], count: int) -> bool:
    """Put all strategies of one kind of server through it, then the wrong ones until each is caught."""
    right = True
    for strategy in [*kind.RIGHT, *kind.WRONG]:
        if not only or strategy in only:
            made = arena(strategy)
            wrong = strategy in kind.WRONG
            many = max(count, WRONG_ROUNDS) if wrong else count
            right = rounds(strategy, made, kind.prepared(made, strategy), count=many, wrong=wrong) and right
    return right


def postgresql(only: Sequence[str], count: int) -> bool:
    """Every strategy at PostgreSQL."""
    server = strategies.start()
    try:
        print(f"PostgreSQL {server.sql('SHOW server_version')}", flush=True)
        return every(strategies, lambda strategy: strategies.laid_out(server, strategy), only, count)
    finally:
        server.close()


def maria(only: Sequence[str], count: int) -> bool:
    """The same at MariaDB."""
    server = MariaDBServer().start()
    try:
        print(f"MariaDB {server.sql('SELECT version()')}", flush=True)
        return every(mariadb, lambda _: mariadb.MariaArena(server), only, count)
    finally:
        server.close()


def main() -> int:
    """Torture every server that is here; print a line for each strategy."""
    words = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    words.add_argument("--rounds", type=int, default=50, help="of each strategy")
    words.add_argument("--only", default="", help="these strategies, separated by commas")
    given = words.parse_args()
    only = [name for name in given.only.split(",") if name]
    unknown = set(only) - {name for kind in (strategies, mariadb) for name in (*kind.RIGHT, *kind.WRONG)}
    if unknown:
        words.error(f"no such strategy: {', '.join(sorted(unknown))}")
    right = True
    for kind, torture in ((strategies, postgresql), (mariadb, maria)):
        if only and not set(only) & {*kind.RIGHT, *kind.WRONG}:
            continue
        try:
            right = torture(only, given.rounds) and right
        except ServerMissing as missing:
            print(missing, flush=True)
            right = right and not in_ci()
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
