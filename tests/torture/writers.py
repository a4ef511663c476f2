"""One process of writers: `python writers.py`, told on its first line what to do, and ended by closing its input.

Each writer inserts numbered rows in a style of its own, for as long as it is let, and goes on after every error. What
the server acknowledged is printed at the end, as JSON: whatever is in there must be in the table.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
from collections.abc import Callable
from itertools import count
from typing import Any

# A refused writer does not spin: eight that do would starve the server they are to torture.
REFUSED_SECONDS = 0.002
SLOW_SECONDS = 0.15
# Between a snapshot and the write that goes by it; the second is longer than it takes to raise any fence, and the third
# is so on a machine that is busy with much else.
SNAPSHOT_SECONDS, OLD_SNAPSHOT_SECONDS, OLDEST_SNAPSHOT_SECONDS = 0.02, 0.3, 1.5
# Styles that go by a snapshot of their own, and the isolation they ask for.
SNAPSHOTS = {
    "repeatable read": "REPEATABLE_READ",
    "serializable": "SERIALIZABLE",
    "old snapshot": "REPEATABLE_READ",
    "oldest snapshot": "REPEATABLE_READ",
}
WAITING = {"old snapshot": OLD_SNAPSHOT_SECONDS, "oldest snapshot": OLDEST_SNAPSHOT_SECONDS}
TABLES = ("torture_1", "torture_2", "torture_3")


class Acknowledged:
    """What the server said it committed: [writer, number] each."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int]] = []
        self.refused: dict[str, int] = {}

    def refusal(self, error: BaseException) -> None:
        """Count an error by its code."""
        first = error.args[0] if error.args else None
        # MySQL's drivers have a number, which says more than its SQLSTATE; a connection that was cut has no code.
        code = str(first) if isinstance(first, int) else getattr(error, "sqlstate", None) or "08006"
        self.refused[code] = self.refused.get(code, 0) + 1


def psycopg_writer(url: str, style: str, writer: int, stop: threading.Event, said: Acknowledged) -> None:
    """Write through psycopg, over one pooled connection or, in the style `churn`, one each time."""
    import psycopg

    numbers = count(1)
    chance = random.Random(writer)
    connection: Any = None
    while not stop.is_set():
        try:
            if connection is None or connection.closed or style == "churn":
                if connection is not None:
                    connection.close()
                connection = psycopg.connect(url, autocommit=style in {"autocommit", "churn", "set_role", "procedure"})
                if style == "rw":
                    connection.read_only = False
                if style in SNAPSHOTS:
                    connection.isolation_level = psycopg.IsolationLevel[SNAPSHOTS[style]]
            _psycopg_write(connection, style, writer, numbers, chance, stop, said)
        except psycopg.Error as error:
            said.refusal(error)
            try:
                if connection is not None and not connection.closed:
                    connection.rollback()
            except psycopg.Error:  # ended by the server between the two
                connection = None
            stop.wait(REFUSED_SECONDS)
    if connection is not None:
        connection.close()


def _psycopg_write(
    connection: Any, style: str, writer: int, numbers: Any, chance: random.Random, stop: threading.Event,
    said: Acknowledged,
) -> None:  # fmt: skip
    row = (writer, next(numbers))
    rows = [row]
    insert = f"INSERT INTO {chance.choice(TABLES)} (writer, number) VALUES (%s, %s)"
    if style == "procedure":
        rows = [row, (writer, next(numbers))]
        # It commits after each row, inside one statement of the client's.
        connection.execute("CALL torture_procedure(%s, %s, %s)", [writer, rows[0][1], rows[1][1]])
    elif style == "set_role":
        connection.execute("SET ROLE app_rw")
        connection.execute(insert, row)
    elif style == "view":
        connection.execute("INSERT INTO torture_view (writer, number) VALUES (%s, %s)", row)
    elif style == "several":
        rows = []
        for table in chance.sample(TABLES, len(TABLES)):
            rows.append((writer, next(numbers)))
            connection.execute(f"INSERT INTO {table} (writer, number) VALUES (%s, %s)", rows[-1])
    elif style in SNAPSHOTS:
        connection.execute("SELECT count(*) FROM torture_1 WHERE writer = 0")
        stop.wait(WAITING.get(style, SNAPSHOT_SECONDS))
        connection.execute(insert, row)
    else:
        connection.execute(insert, row)
    if style == "slow":
        stop.wait(SLOW_SECONDS)
    connection.commit()
    said.rows += rows


async def asyncpg_writer(url: str, style: str, writer: int, stop: threading.Event, said: Acknowledged) -> None:
    """Write through asyncpg."""
    import asyncpg

    numbers = count(1)
    chance = random.Random(writer)
    connection: Any = None
    while not stop.is_set():
        try:
            if connection is None or connection.is_closed():
                connection = await asyncpg.connect(url)
            row = (writer, next(numbers))
            insert = f"INSERT INTO {chance.choice(TABLES)} (writer, number) VALUES ($1, $2)"
            if style == "autocommit":
                await connection.execute(insert, *row)
            else:
                isolation = style if style in {"repeatable_read", "serializable"} else "read_committed"
                async with connection.transaction(isolation=isolation, readonly=False):
                    if isolation != "read_committed":
                        await connection.fetchval("SELECT count(*) FROM torture_1 WHERE writer = 0")
                    await connection.execute(insert, *row)
            said.rows.append(row)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            said.refusal(error)
            await asyncio.sleep(REFUSED_SECONDS)
    if connection is not None:
        await connection.close()


def pymysql_writer(url: str, style: str, writer: int, stop: threading.Event, said: Acknowledged) -> None:
    """Write through PyMySQL."""
    from urllib.parse import urlsplit

    import pymysql

    where = urlsplit(url)
    numbers = count(1)
    chance = random.Random(writer)
    connection: Any = None
    while not stop.is_set():
        try:
            if connection is None or not connection.open or style == "churn":
                if connection is not None and connection.open:
                    connection.close()
                connection = pymysql.connect(
                    host=where.hostname, port=where.port or 3306, user=where.username or "",
                    password=where.password or "", database=where.path[1:],
                    autocommit=style in {"autocommit", "churn", "procedure"},
                )  # fmt: skip
                if style == "serializable":
                    with connection.cursor() as cursor:
                        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            _pymysql_write(connection, style, writer, numbers, chance, stop, said)
        except (pymysql.Error, OSError) as error:
            said.refusal(error)
            try:
                if connection is not None and connection.open:
                    connection.rollback()
            except (pymysql.Error, OSError):
                connection = None
            stop.wait(REFUSED_SECONDS)
    if connection is not None and connection.open:
        connection.close()


def _pymysql_write(
    connection: Any, style: str, writer: int, numbers: Any, chance: random.Random, stop: threading.Event,
    said: Acknowledged,
) -> None:  # fmt: skip
    rows = [(writer, next(numbers))]
    insert = f"INSERT INTO {chance.choice(TABLES)} (writer, number) VALUES (%s, %s)"
    with connection.cursor() as cursor:
        if style == "procedure":
            rows.append((writer, next(numbers)))
            # It commits after each row, inside one statement of the client's.
            cursor.execute("CALL torture_procedure(%s, %s, %s)", (writer, rows[0][1], rows[1][1]))
        elif style == "several":
            rows = []
            for table in chance.sample(TABLES, len(TABLES)):
                rows.append((writer, next(numbers)))
                cursor.execute(f"INSERT INTO {table} (writer, number) VALUES (%s, %s)", rows[-1])
        else:
            if style in {"rw", "begun before"}:
                cursor.execute("START TRANSACTION READ WRITE")
            if style in {"begun before", "serializable"}:
                # A transaction that has begun, and has not yet written, when the fence goes up.
                cursor.execute("SELECT count(*) FROM torture_1 WHERE writer = 0")
                stop.wait(OLD_SNAPSHOT_SECONDS if style == "begun before" else SNAPSHOT_SECONDS)
            cursor.execute(insert, rows[0])
        if style == "slow":
            stop.wait(SLOW_SECONDS)
        connection.commit()
    said.rows += rows


async def asyncmy_writer(url: str, style: str, writer: int, stop: threading.Event, said: Acknowledged) -> None:
    """Write through asyncmy."""
    from urllib.parse import urlsplit

    import asyncmy
    from asyncmy.errors import MySQLError

    where = urlsplit(url)
    numbers = count(1)
    chance = random.Random(writer)
    connection: Any = None
    while not stop.is_set():
        try:
            if connection is None:
                connection = await asyncmy.connect(
                    host=where.hostname, port=where.port or 3306, user=where.username, password=where.password or "",
                    db=where.path[1:], autocommit=style == "autocommit",
                )  # fmt: skip
            row = (writer, next(numbers))
            async with connection.cursor() as cursor:
                if style == "rw":
                    await cursor.execute("START TRANSACTION READ WRITE")
                await cursor.execute(f"INSERT INTO {chance.choice(TABLES)} (writer, number) VALUES (%s, %s)", row)
                await connection.commit()
            said.rows.append(row)
        except (MySQLError, OSError) as error:
            said.refusal(error)
            try:
                if connection is not None:
                    await connection.rollback()
            except (MySQLError, OSError):
                connection = None
            await asyncio.sleep(REFUSED_SECONDS)
    if connection is not None:
        connection.close()


def main() -> None:
    """Run the writers that the first line names until the input ends, then print what was acknowledged."""
    told = json.loads(sys.stdin.readline())
    stop, said = threading.Event(), Acknowledged()
    kinds: dict[str, Callable[..., Any]] = {
        "psycopg": psycopg_writer,
        "pymysql": pymysql_writer,
        "rogue": pymysql_writer,  # an account of its own, which no configuration names
    }
    tasks: dict[str, Callable[..., Any]] = {"asyncpg": asyncpg_writer, "asyncmy": asyncmy_writer}

    async def together(some: list[list[Any]]) -> None:
        await asyncio.gather(*(tasks[kind](told["url"], style, writer, stop, said) for kind, style, writer in some))

    threads = [
        threading.Thread(target=kinds[kind], args=(told["url"], style, writer, stop, said))
        for kind, style, writer in told["writers"]
        if kind in kinds
    ]
    coroutines = [entry for entry in told["writers"] if entry[0] in tasks]
    if coroutines:
        threads.append(threading.Thread(target=lambda: asyncio.run(together(coroutines))))
    for thread in threads:
        thread.start()
    print("started", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"rows": said.rows, "refused": said.refused}), flush=True)


if __name__ == "__main__":
    main()
