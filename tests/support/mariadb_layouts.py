"""A database of MariaDB's with the accounts that a site has: the application's, who migrates, who raises the fence."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pymysql
import pytest

from readonly.databases.fence import Fence, Fenced
from readonly.databases.fence.mariadb import MariaDBFence
from support.mariadb_server import MariaDBServer

REFUSED = 1290
# What a client meets whose session was killed: the server's last word, or none.
ENDED = frozenset({1927, 2006, 2013})
# Some may be there: torture makes accounts of the same names.
_ACCOUNTS = """
CREATE USER IF NOT EXISTS app@'%', rogue@'%', migrator@'%', fencer@'%', bare@'%', boss@'%';
GRANT ALL ON *.* TO boss@'%';
GRANT READ ONLY ADMIN ON *.* TO migrator@'%';
GRANT READ ONLY ADMIN, PROCESS, CONNECTION ADMIN, SET USER ON *.* TO fencer@'%'; GRANT SELECT ON mysql.* TO fencer@'%';
"""
_DATABASE = """
GRANT ALL ON {name}.* TO app@'%', rogue@'%', migrator@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP ON {name}.readonly_fence TO fencer@'%';
GRANT CREATE ROUTINE, ALTER ROUTINE, EXECUTE ON {name}.* TO fencer@'%';
CREATE TABLE {name}.story (id int AUTO_INCREMENT PRIMARY KEY, title varchar(80));
CREATE TABLE {name}.comment (id int, body text);
INSERT INTO {name}.story (title) VALUES ('first');
"""


class MariaShop:
    """One database of a server, and sessions of its accounts."""

    app, owner, fencer = "app", "migrator", "fencer"

    def __init__(self, server: MariaDBServer, name: str) -> None:
        self.server = server
        self.name = name
        self._open: list[Any] = []

    def url(self, *, user: str = "fencer") -> str:
        """Return where the fencer connects."""
        return self.server.url(self.name, user=user)

    def fence(
        self, *, fencer: str = "fencer", writers: Sequence[str] = ("app",), migrators: Sequence[str] = ("migrator",),
        name: str = "main",
    ) -> MariaDBFence:  # fmt: skip
        made = Fence.from_url(self.url(user=fencer), writers=writers, migrators=migrators, name=name)
        assert isinstance(made, MariaDBFence)
        return made

    def up(self, fence: Fence | None = None, *, cause: str = "c1", timeout: float = 60, **more: Any) -> Fenced:
        return (fence or self.fence()).put_up(site="shop", cause=cause, by="ada", timeout=timeout, **more)

    def session(self, user: str = "app", *, autocommit: bool = True) -> Any:
        """Open a session, which is closed after the test."""
        opened = pymysql.connect(
            host="127.0.0.1", port=self.server.port, user=user, database=self.name, autocommit=autocommit
        )
        self._open.append(opened)
        return opened

    def tried(self, user: str, *statements: str) -> list[int]:
        """Return the number of the error of each statement, 0 for those that went through, in sessions of their own."""
        return [said(self.session(user), statement) for statement in statements]

    def sql(self, statement: str) -> str:
        """Run statements as root."""
        return self.server.sql(statement, database=self.name)

    @property
    def read_only(self) -> bool:
        return self.server.sql("SELECT @@global.read_only") == "1"

    def forget(self) -> None:
        """Let the server forget, as a restart would."""
        self.sql("SET GLOBAL read_only = 0")

    def close(self) -> None:
        for opened in self._open:
            if opened.open:
                opened.close()


def said(session: Any, statement: str) -> int:
    """Return the number of the error that a statement gets, 0 if it goes through."""
    try:
        with session.cursor() as cursor:
            cursor.execute(statement)
            cursor.fetchall()
    except pymysql.MySQLError as error:
        return int(error.args[0])
    return 0


@contextmanager
def maria_shop(server: MariaDBServer) -> Iterator[MariaShop]:
    """Lay a database out; afterwards the server takes writes, and the database is gone."""
    if server.sql("SELECT count(*) FROM mysql.user WHERE User = 'boss'") == "0":
        server.sql(_ACCOUNTS)
    name = server.new_database()
    server.sql(_DATABASE.format(name=name))
    made = MariaShop(server, name)
    try:
        # PyMySQL reads the machine's certificates for each connection, a third of such a test's time, and checks none.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", os.devnull)
            yield made
    finally:
        made.close()
        server.sql("SET GLOBAL read_only = 0")
        server.sql(f"REVOKE ALL ON {name}.* FROM app@'%', rogue@'%', migrator@'%'")
        server.drop_database(name)
