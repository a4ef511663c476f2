"""The migration that the site is closed for: comments learn how many words they have."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

BATCH: Final = 100
"""Rows a transaction: a backfill in one piece would hold the write lock from its first row to its last."""


def migrate(database: Path) -> int:
    """Add the column `words` to `comment` and fill it in; start again where it was interrupted.

    Returns:
        How many rows were filled in.
    """
    filled = 0
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
        connection.create_function("word_count", 1, lambda text: len(text.split()), deterministic=True)
        names = {row[1] for row in connection.execute("PRAGMA table_info(comment)")}
        if "words" not in names:
            connection.execute("ALTER TABLE comment ADD COLUMN words INTEGER")
        while True:
            connection.execute("BEGIN IMMEDIATE")
            done = connection.execute(
                "UPDATE comment SET words = word_count(body) WHERE id IN"
                " (SELECT id FROM comment WHERE words IS NULL ORDER BY id LIMIT ?)",
                (BATCH,),
            ).rowcount
            connection.execute("COMMIT")
            if not done:
                return filled
            filled += done


def unfilled(database: Path) -> int:
    """Return how many rows the backfill has not reached."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        return int(connection.execute("SELECT count(*) FROM comment WHERE words IS NULL").fetchone()[0])
