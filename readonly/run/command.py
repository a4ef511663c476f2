"""The command of a run: a process in a session of its own, which writes to a file and outlives its runner.

A closed terminal, or the death of the runner, ends neither it nor its output; Ctrl-C reaches it once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import NotYours
from ..hostfile import state_folder

# What the child's environment names it by; guards and `writing()` let the child of a standing run through.
VARIABLE = "READONLY_RUN"
TAIL_SECONDS = 0.05
# What was told to end has so long to roll back.
END_SECONDS = 10.0


def log_of(run: str) -> Path:
    """Return where this host keeps the output of a run's command."""
    folder = state_folder() or Path(tempfile.gettempdir()) / f"readonlyctl-{os.getuid()}"
    return folder / f"run-{run}.log"


def environment(run: str, token: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what the command runs with: who it is, and what lets its database sessions write.

    libpq reads PGOPTIONS and PGAPPNAME, and so do psycopg and everything else that is built on it; asyncpg does not,
    and takes both as `server_settings` (PostgreSQL manual, 34.15).
    """
    found = dict(os.environ if environ is None else environ)
    found[VARIABLE] = run
    options = f"-c readonly.run={token} -c default_transaction_read_only=off"
    found["PGOPTIONS"] = f"{found['PGOPTIONS']} {options}" if found.get("PGOPTIONS") else options
    found["PGAPPNAME"] = f"readonly-run-{run}"
    return found


def processes_of(run: str) -> tuple[int, ...]:
    """Return which processes of this host are the run's command, or were started by it: their environment says so."""
    named, found = f"{VARIABLE}={run}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        # It has ended, or is another user's.
        with suppress(OSError):
            if named in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return tuple(sorted(found))


def end_here(run: str) -> None:
    """End the command's processes on this host, and wait until they are gone."""
    pause, deadline = threading.Event(), time.monotonic() + END_SECONDS
    told: set[int] = set()
    while (left := processes_of(run)) and time.monotonic() < deadline:
        for pid in set(left) - told:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        told.update(left)
        pause.wait(TAIL_SECONDS)


def follow(
    path: Path,
    begin: int,
    child: subprocess.Popen[bytes],
    output: Callable[[bytes], None],
    *,
    meanwhile: Callable[[], None] = lambda: None,
) -> int:
    """Pass on what the command writes to its file until it has ended; returns its code.

    It writes to the file, and not to a pipe of ours: our death must not end it.
    """
    with path.open("rb") as log:
        log.seek(begin)
        while True:
            try:
                code: int | None = child.wait(TAIL_SECONDS)
            except subprocess.TimeoutExpired:
                code = None
            while chunk := log.read(65536):
                output(chunk)
            meanwhile()
            if code is not None:
                return code


@contextmanager
def signals_to(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Hand Ctrl-C and SIGTERM to the command, each once, and wait for it; a closed terminal ends nobody."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handed: set[int] = set()

    def hand_on(number: int, _frame: object) -> None:
        if number not in handed and child.poll() is None:
            handed.add(number)
            with suppress(ProcessLookupError):  # it has just ended, and whoever waits for it was about to say so
                os.killpg(child.pid, number)

    wanted = {signal.SIGINT: hand_on, signal.SIGTERM: hand_on, signal.SIGHUP: signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def attach(run: str, output: Callable[[bytes], None], *, over: Callable[[], bool]) -> None:
    """Show a run's output again, from its begin, until it is over.

    Raises:
        NotYours: This host keeps no output of it.
    """
    path = log_of(run)
    if not path.is_file():
        raise NotYours(f"this machine keeps no output of run {run}: `status` says which does", causes=[run])
    pause = threading.Event()
    with path.open("rb") as log:
        while True:
            ended = over()
            while chunk := log.read(65536):
                output(chunk)
            if ended:
                return
            pause.wait(TAIL_SECONDS * 10)
