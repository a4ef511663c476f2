"""`python -m demo_app.postgres.migration`: what `readonlyctl run` runs: it holds the busiest table's lock for long.

Before and after, it counts what others have written since it began. Under a fence that is nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import psycopg

BUSIEST: Final = "comment"
"""Every page with an article on it asks how many comments there are."""

_STATEMENTS: Final = {
    "words": "array_length(string_to_array(body, ' '), 1)",
    "letters": "length(body)",
}
# What others write to: the rows of what grows, and the sum of what is counted up.
_COUNT: Final = """
SELECT (SELECT count(*) FROM comment) + (SELECT count(*) FROM account) + (SELECT coalesce(sum(views), 0) FROM page_view)
"""
# Time in which the fence stands and the lock is not held: somebody who is not fenced would use it.
_BEFORE_SECONDS: Final = 0.5


def migrate(url: str, column: str, *, hold_seconds: float) -> dict[str, int]:
    """Add a column and fill it in, in one transaction that holds the lock for so long.

    Returns:
        When it was locked and when released, by CLOCK_MONOTONIC in ns; the rows filled in; what others wrote meanwhile.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        before = _value(connection, _COUNT)
        _value(connection, "SELECT pg_sleep(%s)", _BEFORE_SECONDS)
        with connection.transaction():
            connection.execute(f"LOCK TABLE {BUSIEST} IN ACCESS EXCLUSIVE MODE")
            locked = time.monotonic_ns()
            connection.execute(f"ALTER TABLE {BUSIEST} ADD COLUMN {column} int")
            update = f"UPDATE {BUSIEST} SET {column} = {_STATEMENTS[column]}"  # noqa: S608 - a column of the table above
            filled = connection.execute(update).rowcount
            rest = hold_seconds - (time.monotonic_ns() - locked) / 1e9
            # What a real one would spend on a table that is a thousand times as large.
            _value(connection, "SELECT pg_sleep(%s)", max(0.0, rest))
            released = time.monotonic_ns()
        _value(connection, "SELECT pg_sleep(%s)", _BEFORE_SECONDS)
        after = _value(connection, _COUNT)
    return {"locked": locked, "released": released, "filled": filled, "appeared": after - before}


def _value(connection: psycopg.Connection[Any], query: str, *values: object) -> int:
    row = connection.execute(query, values).fetchone()
    return int(row[0]) if row and row[0] not in (None, "") else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Migrate the database that DEMO_MIGRATION names, and write down when what happened."""
    parser = argparse.ArgumentParser(prog="python -m demo_app.postgres.migration", description=__doc__)
    parser.add_argument("column", choices=list(_STATEMENTS))
    parser.add_argument("--hold", type=float, required=True, metavar="SECONDS")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    found = migrate(os.environ["DEMO_MIGRATION"], options.column, hold_seconds=options.hold)
    options.out.write_text(json.dumps(found))
    held = (found["released"] - found["locked"]) / 1e9
    print(f"{BUSIEST}.{options.column}: {found['filled']} rows filled in; the table was locked for {held:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
