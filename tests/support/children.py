"""Start servers as direct children that do not outlive the test run, whatever ends it."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

# Helper threads that end everything they start before they end themselves.
lasting_threads: set[threading.Thread] = set()


@functools.cache
def _setpriv() -> str | None:
    """Return a setpriv that knows --pdeathsig; the one of busybox does not."""
    found = shutil.which("setpriv")
    if found is None:
        return None
    tried = subprocess.run([found, "--pdeathsig", "TERM", "true"], capture_output=True, check=False)
    return found if tried.returncode == 0 else None


def start(
    command: Sequence[str | os.PathLike[str]],
    *,
    output: IO[bytes] | int,
    when_we_die: str = "KILL",
    environment: Mapping[str, str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    user: int | None = None,
    group: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, as the direct child (its pid is the server's).

    Args:
        command: Program and arguments.
        output: Where its standard output and error go.
        when_we_die: The signal it gets when this process is killed.
        environment: Its whole environment; None for ours.
        folder: Its working directory.
        user: The uid to drop to; only root can.
        group: The gid to drop to.
    """
    words = [os.fspath(word) for word in command]
    setpriv = _setpriv()
    # The kernel sends that signal when the *thread* that forked ends, so a server that a helper thread starts
    # would die with it: it then runs without, and is ended by the fixture only.
    if setpriv is not None and threading.current_thread() in (threading.main_thread(), *lasting_threads):
        words = [setpriv, "--pdeathsig", when_we_die, "--", *words]
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=None if environment is None else dict(environment),
        cwd=folder,
        start_new_session=True,
        user=user,
        group=group,
        extra_groups=[] if user is not None else None,
    )


def end(process: subprocess.Popen[bytes], how: signal.Signals, *, timeout: float = 10.0) -> int:
    """Send `how` and wait; after `timeout` seconds kill the whole session. Returns the exit status."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            # A stopped process handles nothing until it is continued.
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        kill_session(process)
        return process.wait(timeout)


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill the child and everything it started that is still in its session's process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def accepts(port: int, *, timeout: float = 0.25) -> bool:
    """Tell whether something accepts connections on that port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=timeout).close()
    except OSError:
        return False
    return True


def unprivileged() -> tuple[int, int] | None:
    """Return the uid and gid to drop to: nobody's for root, None for everyone else."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def open_to_all(path: str | os.PathLike[str]) -> bool:
    """Tell whether any user may read and enter `path`, judged by the mode bits of it and all its parents."""
    resolved = Path(path).resolve()
    return bool(resolved.stat().st_mode & 0o005 == 0o005) and all(
        parent.stat().st_mode & 0o001 for parent in resolved.parents
    )


def open_folder(prefix: str) -> Path:
    """Make a temporary folder that another user can enter; `tmp_path` lies below one that only its owner can."""
    for base in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if Path(base).is_dir() and open_to_all(base):
            made = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
            made.chmod(0o755)
            return made
    return Path(tempfile.mkdtemp(prefix=prefix))


def without_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """Return a copy without the settings of this library, so that a developer's own never reach a test.

    What a host remembers is switched off: tests must not remember each other.
    """
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("READONLY_") or name.startswith("READONLY_TEST_")
    } | {"READONLY_STATE_DIR": ""}
