"""A real PgBouncer before a PostgreSQL, as a direct child on a free port.

It refuses to run as root: there it runs as `nobody`, like the server behind it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Literal

from support import children
from support.missing import ServerMissing
from support.ports import free_port
from support.waiting import eventually

_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin")
_START_ATTEMPTS = 5


def find_pgbouncer() -> Path:
    """Return the program: $READONLY_TEST_PGBOUNCER, on PATH, in the folders of the system.

    Raises:
        ServerMissing: It is nowhere.
    """
    named = os.environ.get("READONLY_TEST_PGBOUNCER")
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))
    found = shutil.which(named or "pgbouncer", path=path)
    if found is None:
        raise ServerMissing("pgbouncer", f"READONLY_TEST_PGBOUNCER, pgbouncer on PATH, {', '.join(_SYSTEM_FOLDERS)}")
    return Path(found)


class PgBouncer:
    """Pools connections to every database of a server, as its superuser, whoever asks.

    Args:
        server_port: The port of the PostgreSQL behind it, on this machine.
        mode: Whose a connection of the server is: a client's transaction's, or a client's.
        size: Connections to each database.

    Raises:
        ServerMissing: There is no PgBouncer here.
    """

    def __init__(
        self, server_port: int, *, mode: Literal["transaction", "session"] = "transaction", size: int = 2
    ) -> None:
        self._program = find_pgbouncer()
        self._server_port = server_port
        self._mode = mode
        # A client of a session pool keeps its connection: there each test's must find one.
        self._size = size if mode == "transaction" else 20
        self._process: subprocess.Popen[bytes] | None = None
        self._dropped = children.unprivileged()
        self.folder = children.open_folder("readonly-pgbouncer-")
        self.log = self.folder / "log"
        self.port = 0
        if self._dropped is not None:
            os.chown(self.folder, *self._dropped)

    @property
    def pid(self) -> int:
        """The process id of the running pooler."""
        if self._process is None:
            raise RuntimeError("the pooler is not running: call start() first")
        return self._process.pid

    def url(self, database: str, *, scheme: str = "postgresql") -> str:
        """Return the URL of a database through it; it needs no password."""
        return f"{scheme}://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> PgBouncer:
        """Start it and wait until it takes connections."""
        user, group = self._dropped or (None, None)
        for _ in range(_START_ATTEMPTS):
            self.port = free_port()
            settings = self.folder / "pgbouncer.ini"
            settings.write_text(self._settings(), encoding="utf-8")
            with self.log.open("ab") as output:
                self._process = children.start(
                    [os.fspath(self._program), os.fspath(settings)],
                    output=output,
                    folder=self.folder,
                    user=user,
                    group=group,
                )
            if eventually(self._ready_or_ended, 20.0, what="pgbouncer starts", poll_seconds=0.02) == "ready":
                return self
            self._process = None
        raise RuntimeError(f"pgbouncer did not start: {self.log.read_text(errors='replace')[-2000:]}")

    def _settings(self) -> str:
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": self._mode,
            "default_pool_size": self._size,
            "max_client_conn": 60,
            "ignore_startup_parameters": "extra_float_digits,options",
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        database = f"* = host=127.0.0.1 port={self._server_port} user=postgres"
        return "\n".join(["[databases]", database, "[pgbouncer]", *lines, ""])

    def _ready_or_ended(self) -> str:
        assert self._process is not None
        if self._process.poll() is not None:
            return "ended"
        return "ready" if children.accepts(self.port) else ""

    def close(self) -> None:
        """End it and remove its folder; may be called twice."""
        if self._process is not None:
            children.end(self._process, signal.SIGTERM)
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)
