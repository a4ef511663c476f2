"""The torture at MariaDB: the fence of the library, and three that are known to be wrong.

Judged by the binary log: a transaction that changed a row and whose GTID lies behind the fence's position is a
violation. Everybody writes at one server, so the GTIDs are one line of numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pymysql

from readonly.databases.fence import Fence
from support.mariadb_server import MariaDBServer

from .rounds import Round
from .strategies import Tortured
from .writers import TABLES

STYLES = (
    ("pymysql", "autocommit"), ("pymysql", "transaction"), ("pymysql", "rw"), ("pymysql", "slow"),
    ("pymysql", "procedure"), ("pymysql", "several"), ("pymysql", "begun before"), ("pymysql", "serializable"),
    ("asyncmy", "autocommit"), ("asyncmy", "transaction"), ("asyncmy", "rw"), ("rogue", "autocommit"),
    ("rogue", "churn"),
)  # fmt: skip
# Refused by the server or by the session, ended, a deadlock, or a lock that was not to be had in time.
EXPECTED = frozenset({"1290", "1792", "2006", "2013", "1927", "1317", "1213", "1205", "08006"})

_ACCOUNTS = """
CREATE USER app@'%'; CREATE USER rogue@'%'; CREATE USER fencer@'%';
GRANT READ ONLY ADMIN, PROCESS, SET USER ON *.* TO fencer@'%'; GRANT SELECT ON mysql.* TO fencer@'%';
"""
_RIGHTS = """
GRANT SELECT, INSERT, EXECUTE ON {name}.* TO app@'%', rogue@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP ON {name}.readonly_fence TO fencer@'%';
GRANT CREATE ROUTINE, ALTER ROUTINE, EXECUTE ON {name}.* TO fencer@'%';
CREATE TABLE {name}.torture_mark (n int);
"""
_PROCEDURE = """
CREATE DEFINER=app@'%' PROCEDURE torture_procedure(w int, a int, b int) BEGIN
    INSERT INTO torture_1 (writer, number) VALUES (w, a); COMMIT;
    INSERT INTO torture_2 (writer, number) VALUES (w, b); COMMIT;
END
"""
# A Gtid event begins a transaction, a Table_map event names a table whose rows it changes.
_GTID = re.compile(r"GTID (\d+-\d+-\d+)")
_TABLE = re.compile(r"table_id: \d+ \((\S+)\.(\S+)\)")


class MariaArena(Round):
    """One database of one MariaDB server."""

    expected = EXPECTED

    def __init__(self, server: MariaDBServer) -> None:
        self.server = server
        if server.sql("SELECT count(*) FROM mysql.user WHERE User = 'fencer'") == "0":
            server.sql(_ACCOUNTS)
        self.name = server.new_database()
        # With a key a SERIALIZABLE writer locks what it has read, and not the whole table for everybody else.
        columns = "(writer int, number int, PRIMARY KEY (writer, number))"
        tables = "".join(f"CREATE TABLE {self.name}.{table} {columns};" for table in TABLES)
        server.sql(_RIGHTS.format(name=self.name) + tables)
        self.root = pymysql.connect(
            host="127.0.0.1", port=server.port, user="root", database=self.name, autocommit=True
        )
        self.run(_PROCEDURE)
        self._read_from: tuple[str, int] = ("", 4)

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement as root, whom no fence stops."""
        with self.root.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def urls(self) -> dict[str, str]:
        app, rogue = (self.server.url(self.name, user=user) for user in ("app", "rogue"))
        return {"pymysql": app, "asyncmy": app, "rogue": rogue}

    def written(self) -> set[tuple[int, int]]:
        union = " UNION ALL ".join(f"SELECT writer, number FROM {table}" for table in TABLES)
        return {(int(str(writer)), int(str(number))) for writer, number in self.run(union)}

    def mark(self) -> str:
        """Return the position behind everything up to now."""
        self.run("INSERT INTO torture_mark VALUES (1)")
        return str(self.run("SELECT @@global.gtid_binlog_pos")[0][0])

    def begin(self) -> None:
        """Remember where the log is before the fence goes up."""
        file, position, *_ = self.run("SHOW MASTER STATUS")[0]
        self._read_from = (str(file), int(str(position)))

    def past(self, position: str) -> list[str]:
        last = self.mark()
        file, start = self._read_from
        found: list[str] = []
        gtid, marked = "", False
        for row in self.run(f"SHOW BINLOG EVENTS IN '{file}' FROM {start}"):
            kind, info = str(row[2]), str(row[5])
            begun = _GTID.search(info) if kind == "Gtid" else None
            table = _TABLE.search(info) if kind == "Table_map" else None
            gtid = begun[1] if begun else gtid
            marked = marked or gtid == last
            if table and table[1] == self.name and table[2] in TABLES and _number(gtid) > _number(position):
                found.append(f"{gtid} in {table[2]}")
        if not marked:  # `mark` writes: an unread log proves nothing
            raise RuntimeError(f"the log from {file}:{start} on does not show {last}")
        return found

    def count(self) -> int:
        return int(str(self.run("SELECT " + " + ".join(f"(SELECT count(*) FROM {table})" for table in TABLES))[0][0]))

    def refusals(self) -> int:
        """Return how often somebody rolled back: what refused writers do."""
        return int(str(self.run("SHOW GLOBAL STATUS LIKE 'Com_rollback'")[0][1]))

    def close(self) -> None:
        self.run("SET GLOBAL read_only = 0")
        self.run(f"REVOKE ALL ON {self.name}.* FROM app@'%', rogue@'%'")
        self.root.close()
        self.server.drop_database(self.name)


def _number(gtid: str) -> int:
    return int(gtid.rpartition("-")[2])


@contextmanager
def prepared(arena: MariaArena, strategy: str) -> Iterator[Tortured]:
    """Make an arena ready for a strategy, by name."""
    if strategy in WRONG:
        yield WRONG[strategy](arena)
        return
    fence = Fence.from_url(arena.server.url(arena.name, user="fencer"), writers=["app"])

    def raise_() -> str:
        return str(fence.put_up(site="shop", cause="c1", by="torture", timeout=30).position)

    yield Tortured(raise_, lambda: fence.lift(site="shop"), STYLES)


def _session_default(arena: MariaArena) -> Tortured:
    """Make READ ONLY the default of sessions: those of a pool keep what they began with, and whoever insists writes."""

    def raise_() -> str:
        arena.run("SET GLOBAL tx_read_only = 1")
        return arena.mark()

    return Tortured(raise_, lambda: arena.run("SET GLOBAL tx_read_only = 0"), STYLES)


def _lock_of_a_connection(arena: MariaArena) -> Tortured:
    """FLUSH TABLES WITH READ LOCK: writers hang, and write on when the connection that holds it is lost."""

    def raise_() -> str:
        where = {"host": "127.0.0.1", "port": arena.server.port, "user": "root"}
        with pymysql.connect(**where) as locking, locking.cursor() as cursor:
            cursor.execute("FLUSH TABLES WITH READ LOCK")
            cursor.execute("SELECT @@global.gtid_binlog_pos")
            return str(cursor.fetchone()[0])

    return Tortured(raise_, lambda: None, STYLES)


def _position_before(arena: MariaArena) -> Tortured:
    """The position is read before the server refuses: what commits in between lies behind it."""

    def raise_() -> str:
        position = arena.mark()
        arena.run("SET GLOBAL read_only = 1")
        return position

    return Tortured(raise_, lambda: arena.run("SET GLOBAL read_only = 0"), STYLES)


WRONG: dict[str, Callable[[MariaArena], Tortured]] = {
    "session default": _session_default,
    "lock of a connection": _lock_of_a_connection,
    "position before": _position_before,
}
RIGHT = ("global",)
