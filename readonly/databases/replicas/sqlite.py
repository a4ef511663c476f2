"""What a copy of an SQLite file says of itself: at which epoch it was taken, and with which schema."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from ..sqlite import MARKER, identity_of
from .schema import Schema
from .values import Standing

__all__ = ["identity_of", "look"]

# Whoever closes a file last tidies up behind itself, and locks others out for a moment.
LOCK_SECONDS = 0.05


def look(path: str | os.PathLike[str], schema: Schema | None = None) -> Standing:
    """Return what a copy says of itself that `readonly.databases.sqlite.copy_to_replica` made; hardly waits for a lock.

    Args:
        path: The copy.
        schema: How to ask for the schema version; None: don't.
    """
    # mode=rw and not rwc: a file that is gone must not come back empty. Not ro: a WAL needs its shared memory.
    uri = f"file:{quote(str(Path(path).absolute()))}?mode=rw"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=LOCK_SECONDS)) as connection:
            connection.execute("PRAGMA query_only = 1")
            marked = f"SELECT max(epoch), taken_of FROM {MARKER}"  # noqa: S608  # our own constant
            epoch, taken_of = connection.execute(marked).fetchone()
            version: tuple[str, ...] | None = None
            no_schema = ""
            if schema is not None:
                try:
                    version = schema.seen(connection.execute(schema.query).fetchall())
                except sqlite3.OperationalError as error:
                    no_schema = str(error)
    except sqlite3.Error as error:
        return Standing(problem=f"holds no whole copy, or can't be read now: {error}")
    if not isinstance(epoch, int):
        return Standing(problem="holds no whole copy: it carries no epoch")
    return Standing(system=taken_of, epoch=epoch, schema=version, no_schema=no_schema)
