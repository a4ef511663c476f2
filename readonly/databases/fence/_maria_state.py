"""What a fence keeps at the MariaDB server that it fences: whose it is, who holds it, and what was set before.

One table in the fenced database, made before the first change: whoever reaches the database can lift the fence without
the store, a dump of that night says whose fence it carries, and a replica that takes over knows that one stood.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pymysql

from ._maria_server import DENIED, ER_NO_SUCH_TABLE, Session, number, quoted
from .values import FenceError, Holder

TABLE = "readonly_fence"

_MAKE = """
CREATE TABLE IF NOT EXISTS readonly_fence (
    one TINYINT NOT NULL PRIMARY KEY DEFAULT 1, site VARCHAR(255) NOT NULL, name VARCHAR(255) NOT NULL,
    level VARCHAR(32) NOT NULL, run VARCHAR(255) NOT NULL, raised_by VARCHAR(255) NOT NULL,
    raised_at DATETIME(6) NOT NULL, server VARCHAR(255) NOT NULL, was TINYINT NOT NULL, position TEXT,
    holders LONGTEXT NOT NULL, CHECK (one = 1)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='A fence of readonly-mode: readonlyctl fence status'
"""
_COLUMNS = "site, name, level, run, raised_by, raised_at, server, was, position, holders"


@dataclass(frozen=True, slots=True)
class Standing:
    """The fence's row.

    Attributes:
        server: The identity of the server that it was raised at.
        was: What `read_only` was before.
        position: None until it was safe.
    """

    site: str
    name: str
    level: str
    run: str
    raised_by: str
    raised_at: datetime
    server: str
    was: bool
    position: str | None
    holders: tuple[Holder, ...] = ()


def standing(session: Session, database: str = "") -> Standing | None:
    """Return the fence whose table is in a database, or None; "": the fence's own database."""
    table = f"{quoted(database or session.database)}.{TABLE}"
    try:
        rows = session.rows(f"SELECT {_COLUMNS} FROM {table}")  # noqa: S608 - a quoted name
    except pymysql.MySQLError as error:
        if number(error) == ER_NO_SUCH_TABLE:
            return None
        raise
    if not rows:
        return None
    site, name, level, run, by, at, server, was, position, holders = rows[0]
    held = tuple(_held(one) for one in json.loads(holders))
    return Standing(site, name, level, run, by, at.replace(tzinfo=UTC), server, bool(was), position, held)


def _held(one: dict[str, Any]) -> Holder:
    return Holder(one["cause"], one["by"], datetime.fromisoformat(one["at"]), one.get("epoch", 0))


def required(session: Session) -> Standing:
    """Return the fence that stands.

    Raises:
        FenceError: It is gone: somebody lifted it meanwhile.
    """
    found = standing(session)
    if found is None:
        raise FenceError(f"the fence at {session.where} was lifted by somebody else meanwhile: raise it again")
    return found


def still_held(session: Session, kept: Collection[Holder]) -> None:
    """See that one of these has held the fence all the time since they were read; with the server's lock.

    One that was lifted and raised again has a later instant.

    Raises:
        FenceError: It was lifted meanwhile.
    """
    since = {(holder.cause, holder.at) for holder in kept}
    if since.isdisjoint((holder.cause, holder.at) for holder in required(session).holders):
        raise FenceError(f"the fence at {session.where} was lifted by somebody else meanwhile: raise it again")


def others(session: Session) -> tuple[tuple[str, Standing], ...]:
    """Return the fences of other databases that hold this same server read-only, as far as this account sees them."""
    here = session.identity
    found = []
    for (database,) in session.rows(
        "SELECT TABLE_SCHEMA FROM information_schema.TABLES WHERE TABLE_NAME = %s AND TABLE_SCHEMA <> %s"
        " ORDER BY TABLE_SCHEMA",
        [TABLE, session.database],
    ):
        try:
            one = standing(session, database)
        except pymysql.MySQLError as error:
            if number(error) not in DENIED:
                raise
            continue
        if one is not None and one.server == here and one.holders:
            found.append((database, one))
    return tuple(found)


def begin(session: Session, *, site: str, name: str, level: str, run: str, by: str, was: bool) -> None:
    """Write the fence's row, over one that fell."""
    session.rows(_MAKE)
    session.rows(
        "INSERT INTO readonly_fence (one, site, name, level, run, raised_by, raised_at, server, was, position, holders)"
        " VALUES (1, %s, %s, %s, %s, %s, UTC_TIMESTAMP(6), %s, %s, NULL, '[]')"
        " ON DUPLICATE KEY UPDATE level = VALUES(level), server = VALUES(server), was = VALUES(was), position = NULL",
        [site, name, level, run, by, session.identity, int(was)],
    )


def hold(session: Session, cause: str, by: str, *, epoch: int) -> None:
    """Add a cause to those that hold the fence; adding it again keeps the higher epoch.

    Call it with the server's lock.
    """
    held = required(session).holders
    if all(holder.cause != cause for holder in held):
        at = session.value("SELECT UTC_TIMESTAMP(6)").replace(tzinfo=UTC)
        _set_holders(session, (*held, Holder(cause, by, at, epoch)))
    elif any(holder.cause == cause and holder.epoch < epoch for holder in held):
        _set_holders(session, [replace(one, epoch=epoch) if one.cause == cause else one for one in held])


def release(session: Session, cause: str | None) -> tuple[Holder, ...]:
    """Take a cause (None: all) from those that hold the fence, and return who is left."""
    left = tuple(holder for holder in required(session).holders if cause is not None and holder.cause != cause)
    _set_holders(session, left)
    return left


def _set_holders(session: Session, holders: Sequence[Holder]) -> None:
    written = [{"cause": one.cause, "by": one.by, "at": one.at.isoformat(), "epoch": one.epoch} for one in holders]
    session.rows("UPDATE readonly_fence SET holders = %s", [json.dumps(written)])


def name_run(session: Session, run: str) -> None:
    """Say whose run may pass."""
    session.rows("UPDATE readonly_fence SET run = %s", [run])


def settle(session: Session, *, position: str, level: str) -> None:
    """Keep the position at which the fence was safe; the first one stays, since only that has no write behind it."""
    session.rows(
        "UPDATE readonly_fence SET level = %s, position = COALESCE(position, %s)",
        [level, position],
    )


def end(session: Session) -> None:
    """Remove what the fence kept."""
    session.rows("DROP TABLE IF EXISTS readonly_fence")
