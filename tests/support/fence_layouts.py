"""A database laid out as sites lay theirs out: an application's role, who migrates, and who raises the fence."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import psycopg

from readonly.databases.fence import Fence, Fenced
from readonly.databases.fence.postgresql import PostgresFence
from support.postgres_server import PostgresServer

REFUSED_RIGHT, REFUSED_READ_ONLY = "42501", "25006"

ROLES = """
CREATE ROLE owner_ LOGIN; CREATE ROLE app_rw; CREATE ROLE app LOGIN IN ROLE app_rw; CREATE ROLE fencer LOGIN;
CREATE ROLE bare LOGIN; CREATE ROLE rogue LOGIN; CREATE ROLE boss LOGIN SUPERUSER;
CREATE ROLE solo LOGIN; CREATE ROLE solo_fencer LOGIN IN ROLE solo; GRANT owner_ TO fencer;
GRANT pg_signal_backend TO fencer, solo_fencer;
"""
TABLES = """
CREATE TABLE story (id serial PRIMARY KEY, title text);
CREATE TABLE comment (id int, body text, likes int DEFAULT 0);
CREATE TABLE score (day date, points int) PARTITION BY RANGE (day);
CREATE TABLE score_2026 PARTITION OF score FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE VIEW headline AS SELECT id, title FROM story;
INSERT INTO story (title) VALUES ('first'); INSERT INTO comment VALUES (1, 'nice');
INSERT INTO score VALUES ('2026-05-05', 1);
"""
GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON story, score TO app_rw;
GRANT SELECT, INSERT ON headline TO app;
GRANT SELECT, UPDATE (likes) ON comment TO app;
GRANT INSERT ON comment TO PUBLIC;
GRANT SELECT ON score_2026 TO app;
GRANT USAGE ON SEQUENCE story_id_seq TO app_rw;
ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT ON TABLES TO app;
"""


class Shop:
    """One database, and sessions of its roles."""

    def __init__(self, server: PostgresServer, name: str, *, app: str, owner: str, fencer: str) -> None:
        self.server = server
        self.name = name
        self.app, self.owner, self.fencer = app, owner, fencer
        self._open: list[psycopg.Connection[Any]] = []

    def fence(self, *, fencer: str = "", writers: Sequence[str] = (), migrators: Sequence[str] = ()) -> PostgresFence:
        made = Fence.from_url(
            self.server.url(self.name, user=fencer or self.fencer),
            writers=list(writers) or [self.app],
            migrators=list(migrators) or ([self.owner] if self.owner != self.app else []),
        )
        assert isinstance(made, PostgresFence)
        return made

    def up(self, fence: Fence | None = None, *, cause: str = "c1", **more: Any) -> Fenced:
        return (fence or self.fence()).put_up(site="shop", cause=cause, by="ada", timeout=60, **more)

    def session(self, role: str, *, autocommit: bool = True, **options: Any) -> psycopg.Connection[Any]:
        """Open a session, which is closed after the test."""
        opened = psycopg.connect(self.server.url(self.name, user=role), autocommit=autocommit, **options)
        self._open.append(opened)
        return opened

    def tried(self, role: str, *statements: str, **options: Any) -> list[str]:
        """Return the SQLSTATE of each statement, "" for those that went through, each in a session of its own."""
        found = []
        for statement in statements:
            # Closed at once: a database that serves many tests would run out of connections.
            with closing(self.session(role, **options)) as session:
                found.append(_tried(session, statement))
        return found

    def sql(self, statement: str) -> str:
        """Run statements as a superuser."""
        return self.server.sql(statement, database=self.name)

    def as_owner(self, statement: str, **options: Any) -> None:
        self.session(self.owner, **options).execute(statement)  # type: ignore[call-overload]

    def schema(self) -> str:
        """Return what `pg_dump --schema-only` says, privileges and all."""
        done = subprocess.run(
            [self.server.programs / "pg_dump", "--schema-only", "-d", self.server.url(self.name)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        # Newer versions write a random word that guards against statements from the dump's data.
        return "\n".join(line for line in done.stdout.splitlines() if "restrict " not in line)

    def close(self) -> None:
        for opened in self._open:
            opened.close()


def _tried(session: psycopg.Connection[Any], statement: str) -> str:
    try:
        session.execute(statement)  # type: ignore[call-overload]
    except psycopg.Error as error:
        return error.sqlstate or "?"
    return ""


def make_roles(server: PostgresServer) -> PostgresServer:
    """Make the roles of all layouts, once for a server."""
    if server.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'solo_fencer'") == "0":
        server.sql(ROLES)
    return server


@contextmanager
def two_roles(server: PostgresServer) -> Iterator[Shop]:
    """One role owns and migrates, the application has what it was granted."""
    yield from _made(make_roles(server), app="app", owner="owner_", fencer="fencer")


@contextmanager
def one_role(server: PostgresServer) -> Iterator[Shop]:
    """The application owns its tables, and migrates as itself."""
    yield from _made(make_roles(server), app="solo", owner="solo", fencer="solo_fencer")


def _made(server: PostgresServer, *, app: str, owner: str, fencer: str) -> Iterator[Shop]:
    name = server.new_database()
    server.sql(f"ALTER DATABASE {name} OWNER TO {owner}; GRANT CREATE ON DATABASE {name} TO {fencer}")
    server.sql(f"GRANT ALL ON SCHEMA public TO {owner}", database=name)
    made = Shop(server, name, app=app, owner=owner, fencer=fencer)
    made.as_owner(TABLES)
    if app != owner:
        made.as_owner(GRANTS)
    yield made
    made.close()
    server.drop_database(name)
