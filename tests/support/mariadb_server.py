"""A real MariaDB with its binary log and GTIDs on, and a replica of it, as direct children on free ports.

The programs run as `nobody` where the tests run as root: the server would run as root only when told to. Nothing of
the system's own configuration is read, and no port, socket or folder of a server that the machine has is touched.
"""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support import children
from support.missing import ServerMissing
from support.own_server import OwnServer
from support.waiting import PATIENCE, eventually

_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/libexec")
# The same for making the data and for serving it: the log's size is written into the files.
_STORAGE = (
    "--innodb-log-file-size=8M",
    "--innodb-buffer-pool-size=16M",
    "--innodb-flush-log-at-trx-commit=2",  # with 0 a killed server forgets the last second; 2 is written, not synced
    "--innodb-flush-method=nosync",
    "--aria-log-file-size=8M",
    "--skip-name-resolve",
    "--loose-innodb-use-native-aio=0",  # its share of the machine's events is small, and other runs want some
)


@dataclass(frozen=True)
class MariaDBPrograms:
    """Where the programs are."""

    server: Path
    install: Path
    client: Path

    @property
    def version(self) -> str:
        """The server's own words, in which its version stands."""
        return subprocess.run([self.server, "--version"], capture_output=True, text=True, check=True).stdout


@functools.cache
def find_mariadb() -> MariaDBPrograms:
    """Return the programs: those in $READONLY_TEST_MARIADB_BIN, on PATH, in the folders of the system.

    Raises:
        ServerMissing: If one of them is nowhere.
    """
    named = os.environ.get("READONLY_TEST_MARIADB_BIN")
    # A server's program stands in an sbin, which an ordinary user's PATH does not name.
    path = named or os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))
    found = [shutil.which(program, path=path) for program in ("mariadbd", "mariadb-install-db", "mariadb")]
    server, install, client = (None if program is None else Path(program) for program in found)
    if server is None or install is None or client is None:
        where = f"READONLY_TEST_MARIADB_BIN={named}" if named else f"PATH, {', '.join(_SYSTEM_FOLDERS)}"
        raise ServerMissing("mariadb", f"mariadbd, mariadb-install-db and mariadb in {where}")
    return MariaDBPrograms(server, install, client)


@functools.cache
def _made_data() -> Path:
    """Return a folder with the data of a server that never ran: making it takes seconds, copying it does not."""
    programs = find_mariadb()
    version = next(word for word in programs.version.split() if word[:1].isdigit())
    home = Path("/tmp") if children.open_to_all("/tmp") else children.open_folder("readonly-mariadb-data-")
    kept = home / f"readonly-test-mariadb-{version}-{os.geteuid()}"
    owner = children.unprivileged() or (os.geteuid(), os.getegid())
    if (kept / "mysql").is_dir() and kept.stat().st_uid == owner[0]:
        return kept
    making = children.open_folder("readonly-mariadb-making-")
    os.chown(making, *owner)
    words: list[str | os.PathLike[str]] = [
        programs.install,
        "--no-defaults",
        f"--datadir={making / 'data'}",
        f"--tmpdir={making}",
        *_STORAGE,
    ]
    words += ["--auth-root-authentication-method=normal", "--skip-test-db"]
    _run(words, folder=making)
    try:
        (making / "data").rename(kept)
    except OSError:  # another run was faster, or something else stands there
        return making / "data"
    shutil.rmtree(making)
    return kept


def _run(words: Sequence[str | os.PathLike[str]], *, folder: Path) -> str:
    user, group = children.unprivileged() or (None, None)
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60 * PATIENCE,
        cwd=folder,
        user=user,
        group=group,
        extra_groups=[] if user is not None else None,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{Path(words[0]).name} failed with {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


class MariaDBServer(OwnServer):
    """One server, primary or replica: start, kill, start again on the same port; each SET GLOBAL is forgotten then.

    `root` has no password and is let in through the socket and by TCP from this machine; no other account is there.
    """

    program = "mariadbd"

    def __init__(self, *options: str, server_id: int = 1, name: str = "primary") -> None:
        """Prepare a server with more `options` (`--name=value`); nothing runs until `start`.

        Raises:
            ServerMissing: If there is no MariaDB here.
        """
        self.programs = find_mariadb()
        super().__init__("readonly-my-", drops=True)
        self.options = options
        self.server_id = server_id
        self.name = name
        self.data = self.folder / "data"
        self.socket = self.folder / "sock"

    def url(self, database: str = "", *, user: str = "root", password: str = "", scheme: str = "mysql") -> str:
        """Return a URL; `root` needs no password."""
        secret = f":{password}" if password else ""
        return f"{scheme}://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def start(self) -> MariaDBServer:
        """Create the data on the first call, start the server and wait until it takes connections."""
        fresh = not self.data.exists()
        if fresh:
            shutil.copytree(_made_data(), self.data)
            if self._user is not None and self._group is not None:
                for path in (self.data, *self.data.rglob("*")):
                    os.chown(path, self._user, self._group)
        self._serve()
        if fresh:
            # Not logged: a replica is made the same way, and must not be told what it did by itself.
            self.sql(
                "SET SESSION sql_log_bin = 0; DELETE FROM mysql.global_priv WHERE User = ''; FLUSH PRIVILEGES;"
                "CREATE OR REPLACE USER root@'127.0.0.1'; GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;"
                "CREATE USER replicator@'127.0.0.1'; GRANT REPLICATION SLAVE ON *.* TO replicator@'127.0.0.1'"
            )
        return self

    def _command(self) -> list[str]:
        return [
            os.fspath(self.programs.server),
            "--no-defaults",
            *(f"--datadir={self.data}", f"--socket={self.socket}", f"--pid-file={self.folder / 'pid'}"),
            *(f"--tmpdir={self.folder}", f"--port={self.port}", "--bind-address=127.0.0.1"),
            *(f"--server-id={self.server_id}", "--log-bin=binlog", "--binlog-format=ROW", "--log-slave-updates=ON"),
            *("--gtid-strict-mode=ON", "--sync-binlog=0", "--max-connections=80", "--character-set-server=utf8mb4"),
            "--slave-net-timeout=10",
            *_STORAGE,
            *self.options,
        ]

    def _answers(self) -> bool:
        # Through the socket in our own folder: a port of that number may be another server's.
        if not self.socket.exists():
            return False
        try:
            return self.sql("SELECT 1") == "1"
        except RuntimeError:
            return False  # the socket of one that was killed, or one that is not ready to answer

    def replica(self, *options: str, server_id: int = 2) -> MariaDBServer:
        """Start another server and let it follow this one by GTID, from its first transaction on."""
        copy = MariaDBServer(*(options or self.options), server_id=server_id, name="replica")
        try:
            copy.start()
            copy.follow(self)
        except BaseException:
            copy.close()
            raise
        return copy

    def follow(self, primary: MariaDBServer) -> None:
        """Make this server a replica of `primary`, from its own GTID position on, and wait until it replicates."""
        # It would look for a primary that came back every minute, else.
        self.sql(
            f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={primary.port}, MASTER_USER='replicator',"
            " MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1; START SLAVE"
        )
        eventually(lambda: self.replicates, 30.0, what="the replica follows", poll_seconds=0.05)

    @property
    def replicates(self) -> bool:
        """Whether both of a replica's threads run, and the one that fetches is connected."""
        asked = "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'Slave_running'"
        return self.sql(asked) == "ON"

    def sql(self, statements: str, *, database: str = "") -> str:
        """Run statements as root and return the bare values, one row a line, tabs between; needs no driver.

        Raises:
            RuntimeError: If the server refuses one, with its message.
        """
        words = [os.fspath(self.programs.client), "--no-defaults", f"--socket={self.socket}", "--user=root", "--batch"]
        words += ["--skip-column-names", "--raw", f"--execute={statements}", *([database] if database else [])]
        return _run(words, folder=self.folder).strip()

    @property
    def gtid(self) -> str:
        """The position of the last transaction in its own binary log."""
        return self.sql("SELECT @@global.gtid_binlog_pos")

    def wait_for(self, gtid: str, *, timeout: float = 10.0) -> None:
        """Wait until this replica has applied everything up to `gtid`.

        Raises:
            AssertionError: It has not in time.
        """
        waited = self.sql(f"SELECT MASTER_GTID_WAIT('{gtid}', {timeout * PATIENCE})")
        assert waited == "0", f"the replica is not at {gtid}"

    def new_database(self) -> str:
        """Create an empty database that no other test uses, and return its name."""
        name = f"test_{secrets.token_hex(6)}"
        self.sql(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database."""
        self.sql(f"DROP DATABASE IF EXISTS {name}")


class MariaDBPair:
    """A primary and a replica that follows it by GTID."""

    def __init__(self) -> None:
        """Start both."""
        self.primary = MariaDBServer().start()
        try:
            self.replica = self.primary.replica()
        except BaseException:
            self.primary.close()
            raise

    def wait_replicated(self, *, timeout: float = 10.0) -> None:
        """Wait until the replica has applied everything that the primary has logged by now."""
        self.replica.wait_for(self.primary.gtid, timeout=timeout)

    def close(self) -> None:
        """End both, the replica first."""
        self.replica.close()
        self.primary.close()
