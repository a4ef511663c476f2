"""Processes without the cost of starting Python: one that has everything imported forks them.

They are processes like any others (a pid, signals, files, an environment of their own); what they leave out is the
interpreter's start, which a test of a command proves nothing by.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from support import children, counting

HERE = Path(__file__)
# What a forked process may run: the module, whose `main` gets the arguments.
PROGRAMS = {
    "readonlyctl": "readonly.cli",
    "member": "support.member_process",
    "turning": "support.turning_process",
    "stopping": "support.stopping_run",
}
# Has it write to standard error what each of its threads does.
WHERE_ARE_YOU = signal.SIGUSR1


class Forked:
    """One such process, with what tests use of `subprocess.Popen`."""

    def __init__(self, pid: int, arguments: Sequence[str], ended: threading.Condition, codes: dict[int, int]) -> None:
        self.pid = pid
        self.args = list(arguments)
        self._ended = ended
        self._codes = codes

    @property
    def returncode(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        return self._codes.get(self.pid)

    def poll(self) -> int | None:
        """Return its exit code if it has ended."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            TimeoutExpired: It has not ended by then.
        """
        with self._ended:
            if not self._ended.wait_for(lambda: self.pid in self._codes, timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            return self._codes[self.pid]

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.send_signal(signal.SIGKILL)


class Forker:
    """The process that forks; one for a whole run."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        reading, writing = os.pipe()
        self._lock = threading.Lock()
        self._ended = threading.Condition()
        self._codes: dict[int, int] = {}
        root = str(HERE.parents[2])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.forked", str(theirs.fileno()), str(writing)],
            pass_fds=(theirs.fileno(), writing),
            # It is there for all tests, also where the first one that needs it is not counted.
            env=children.without_ours(os.environ)
            | counting.told()
            | {"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), root])},
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        os.close(writing)
        self._socket = ours
        self._ends = os.fdopen(reading)
        threading.Thread(target=self._listen, daemon=True).start()
        atexit.register(self.close)

    def _listen(self) -> None:
        for line in self._ends:
            pid, code = map(int, line.split())
            with self._ended:
                self._codes[pid] = code
                self._ended.notify_all()

    def start(
        self,
        program: str,
        arguments: Sequence[str],
        *,
        files: tuple[int, int, int],
        environment: Mapping[str, str],
        folder: str | os.PathLike[str] | None = None,
        terminal: bool = False,
    ) -> Forked:
        """Start a program of `PROGRAMS`.

        Args:
            program: Its name.
            arguments: What its `main` gets.
            files: Descriptors for its standard input, output and error.
            environment: Its whole environment.
            folder: Its working directory.
            terminal: Whether its standard input becomes the controlling terminal of a session of its own.
        """
        message = json.dumps(
            {
                "program": program,
                "arguments": list(arguments),
                "environment": dict(environment),
                "folder": os.fspath(folder or Path.cwd()),
                "terminal": terminal,
            }
        ).encode()
        with self._lock:
            socket.send_fds(self._socket, [struct.pack("I", len(message))], list(files))
            self._socket.sendall(message)
            (pid,) = struct.unpack("I", _exactly(self._socket, 4))
        return Forked(pid, [program, *arguments], self._ended, self._codes)

    def close(self) -> None:
        """End it, and with it all that it has forked."""
        self._socket.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)


@functools.cache
def forker() -> Forker:
    """Return the one of this run."""
    return Forker()


def _exactly(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = stream.recv(size - len(data))
        if not part:
            raise RuntimeError("the process that forks has ended")
        data += part
    return data


# --- in the process that forks ---------------------------------------------------------------------------------------


def _serve(stream: socket.socket, ends: int) -> None:
    import importlib
    import selectors

    for module in PROGRAMS.values():
        importlib.import_module(module)
    for module in (
        "readonly.databases.freeze",
        "readonly.stores.sqlite",
        "readonly.stores.redis",
        "rich.console",
        "rich.live",
        "rich.text",
    ):
        importlib.import_module(module)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    living: set[int] = set()
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if woken in ready:
                os.read(woken, 4096)
                _reap(living, ends)
            if stream not in ready:
                continue
            head, files, _, _ = socket.recv_fds(stream, 4, 3)
            if not head:
                break
            (size,) = struct.unpack("I", head)
            told = json.loads(_exactly(stream, size))
            pid = os.fork()
            if pid == 0:
                for mine in (stream.fileno(), ends, woken, wake, selector.fileno()):  # type: ignore[attr-defined]  # epoll
                    os.close(mine)
                stream.detach()
                _become(told, files)
            for file in files:
                os.close(file)
            living.add(pid)
            stream.sendall(struct.pack("I", pid))
    for pid in living:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _reap(living: set[int], ends: int) -> None:
    for pid in list(living):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            living.discard(pid)
            os.write(ends, f"{pid} {os.waitstatus_to_exitcode(status)}\n".encode())


def _become(told: Mapping[str, object], files: Sequence[int]) -> NoReturn:
    """Be the program that was asked for: from here on it is a process like any other."""
    import faulthandler
    import fcntl
    import importlib
    import termios

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if told["terminal"]:
        os.setsid()
        fcntl.ioctl(files[0], termios.TIOCSCTTY, 0)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    environment = told["environment"]
    assert isinstance(environment, dict)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(str(told["folder"]))
    # What the forking process had opened knows nothing of a terminal.
    sys.stdin = os.fdopen(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = os.fdopen(1, "w", 1 if os.isatty(1) else -1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    # A test that has waited for it in vain asks it where it is.
    faulthandler.register(WHERE_ARE_YOU, file=2)
    program = importlib.import_module(PROGRAMS[str(told["program"])])
    arguments = told["arguments"]
    sys.argv = [str(told["program"]), *arguments]  # type: ignore[misc, has-type]  # a list of text
    program.main(arguments)
    sys.exit(0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
