"""What a MariaDB server says of itself: is it a replica, of which server, how far, and with which schema.

Plain functions over a driver's connection (PyMySQL, mysqlclient, MariaDB's own, asyncmy as SQLAlchemy adapts it) that
the caller owns alone. MariaDB has no identity that a primary and its replicas share: a primary is told by its own (see
`identity`), a replica's is not known, and positions alone say what it has.
`SHOW ALL SLAVES STATUS` needs SLAVE MONITOR (REPLICA MONITOR); without it the position is told all the same, and lag
and pause are not.

A replica that took over is a primary from then on, though it remembers its past: `gtid_slave_pos` stays for ever, and
what it was told to follow until somebody says RESET SLAVE ALL. So what counts is whether it follows now.

Of two primaries that follow each other each looks like a replica, at least when the other one wrote last. Which server
it is, is told all the same (`itself`): who writes there can be asked whether that is the one that was fenced.
"""

from __future__ import annotations

from typing import Any

from .schema import Schema
from .values import Standing

STATEMENT_SECONDS, LOCK_SECONDS = 2, 0.1
# ER_SPECIAL_ACCESS_DENIED, ER_ACCESS_DENIED_NO_PASSWORD and their like: the account may not ask.
_DENIED = frozenset({1044, 1045, 1142, 1227})


def look(connection: Any, schema: Schema | None = None) -> Standing:
    """Return what a server is, and how far it is.

    Args:
        connection: A connection of the caller's own, with no transaction open.
        schema: How to ask for the schema version; None: don't.

    Raises:
        Exception: The driver's, where the server can't be asked.
    """
    bounds = f"SET STATEMENT max_statement_time={STATEMENT_SECONDS}, lock_wait_timeout=0 FOR "
    try:
        [(written, replayed, current, number, refuses)] = _rows(
            connection,
            f"{bounds}SELECT @@gtid_binlog_pos, @@gtid_slave_pos, @@gtid_current_pos, @@global.server_id,"
            " @@global.read_only",
        )
        sources, denied = _sources(connection)
        replica = bool(sources) or (denied and bool(replayed))
        if replica and not _follows(connection, sources):
            # It takes writes; or it refuses them, and was the last to write: a primary that was fenced since.
            replica = str(refuses) not in ("0", "OFF") and not _wrote_last(str(current or ""), str(number))
        at = str((replayed if replica else written) or "")
        itself = identity(connection)
        version: tuple[str, ...] | None = None
        no_schema = ""
        if schema is not None:
            try:
                version = schema.seen(_rows(connection, bounds + schema.query))
            except Exception as error:
                if _is_gone(error):
                    raise
                no_schema = str(error)
    finally:
        connection.rollback()
    stopped = replica and any(source.get("Slave_SQL_Running") != "Yes" for source in sources)
    return Standing(
        replica=replica,
        system="" if replica else itself,
        itself=itself if replica else "",
        at=at,
        lag=None if stopped else _lag(sources),
        paused=stopped,
        schema=version,
        no_schema=no_schema,
    )


def identity(connection: Any) -> str:
    """Return which server this is: `server_uid`, else host name and port, and behind a colon its `server_id`.

    The first is a hash of the network card's address and the port, and no more: machines that were cloned, and
    containers, often have the same address. The second differs at least among servers that follow each other.
    """
    named = ("hostname", "port", "server_id", "server_uid")
    wanted = ", ".join(f"'{name}'" for name in named)
    found = dict(_rows(connection, f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({wanted})"))
    which = found.get("server_uid") or f"{found.get('hostname')}:{found.get('port')}"
    return f"{which}:{found.get('server_id')}"


def _sources(connection: Any) -> tuple[list[dict[str, Any]], bool]:
    """Return the connections that it replicates by, and whether the account may not know."""
    cursor = connection.cursor()
    try:
        cursor.execute("SHOW ALL SLAVES STATUS")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()], False
    except Exception as error:
        if error.args and error.args[0] in _DENIED:
            return [], True
        raise
    finally:
        cursor.close()


def _follows(connection: Any, sources: list[dict[str, Any]]) -> bool:
    """Tell whether it fetches or applies what another one writes; whoever may not know hears of the applying alone."""
    if sources:
        return any(source.get(f"Slave_{thread}_Running") != "No" for source in sources for thread in ("IO", "SQL"))
    found = _rows(connection, "SHOW GLOBAL STATUS LIKE 'Slaves_running'")
    return bool(found) and int(found[0][1]) > 0


def _wrote_last(position: str, number: str) -> bool:
    """Tell whether the last transaction of a domain (`0-1-270,1-2-5`) is of the server with this number."""
    return any(gtid.split("-")[1:2] == [number] for gtid in position.split(","))


def _lag(sources: list[dict[str, Any]]) -> float | None:
    found = [source.get("Seconds_Behind_Master") for source in sources]
    if not found:
        return None
    return None if any(one is None for one in found) else max(float(one) for one in found if one is not None)


def _is_gone(error: BaseException) -> bool:
    """Tell whether the connection is lost (CR_SERVER_GONE_ERROR, CR_SERVER_LOST)."""
    return bool(error.args) and error.args[0] in (2006, 2013)


def _rows(connection: Any, statement: str) -> list[tuple[Any, ...]]:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        return [tuple(row) for row in cursor.fetchall()]
    finally:
        cursor.close()
