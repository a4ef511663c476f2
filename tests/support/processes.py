"""Web servers and commands as real processes, with their output in a file."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from support import children
from support.waiting import eventually

# How each server says where it listens, when it was asked to choose the port (0) itself.
_LISTENING = re.compile(r"(?:running on|Listening at:?) https?://127\.0\.0\.1:(\d+)")
_UVICORN_WORKER = "Started server process ["
_GUNICORN_WORKER = "Booting worker with pid: "


class WebServer:
    """A web server as a child process. Use as a context manager, or call `close`."""

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        port: int | None = None,
        workers: int = 1,
        worker_line: str = "",
        ready_path: str = "/",
        timeout: float = 30.0,
    ) -> None:
        """Start it and wait until it answers and all its workers have begun.

        Args:
            command: Program and arguments.
            log: The file for its output; appended to.
            environment: Added to ours; a READONLY_ variable of the developer's own is not handed on.
            folder: Its working directory.
            port: Where it will listen; None to read that from its output (it was given port 0).
            workers: How many `worker_line`s must be in the output.
            worker_line: What each worker prints when it starts; empty if it prints nothing.
            ready_path: Asked until any answer comes, whatever its status.
            timeout: Seconds for all of that.

        Raises:
            RuntimeError: If it ends instead, with its output.
        """
        self.log = log
        self.workers = workers
        self._port = port
        self._from = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self.process = children.start(
                command,
                output=output,
                when_we_die="TERM",
                environment={
                    **children.without_ours(os.environ),
                    "PYTHONUNBUFFERED": "1",
                    **(environment or {}),
                },
                folder=folder,
            )

        def serves() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.output()[-4000:]}")
            return self._listens() and self.output().count(worker_line or " ") >= workers and self._answers(ready_path)

        try:
            eventually(serves, timeout, what=f"{' '.join(map(str, command))} serves", poll_seconds=0.03)
        except AssertionError as error:
            self.close()
            raise AssertionError(f"{error}\n{self.output()[-4000:]}") from None
        except BaseException:
            self.close()
            raise

    def _listens(self) -> bool:
        if self._port is None:
            told = _LISTENING.search(self.output())
            if told is None:
                return False
            self._port = int(told[1])
        return True

    def _answers(self, path: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10.0)
        try:
            connection.request("GET", path)
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._port is None:
            raise RuntimeError("the server has not said yet where it listens")
        return self._port

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the first process: the only one, or the one that started the workers."""
        return self.process.pid

    def output(self) -> str:
        """Return what it has printed so far."""
        with self.log.open("rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace")

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers; of the server itself when it has one process only."""
        try:
            found = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        workers = []
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                # multiprocessing starts a bookkeeper of its own beside the workers.
                if not any("resource_tracker" in word for word in process.cmdline()):
                    workers.append(process.pid)
        return sorted(workers) or [self.pid]

    def signal(self, what: signal.Signals, pid: int | None = None) -> None:
        """Send a signal to one of its processes, by default to the first."""
        os.kill(self.pid if pid is None else pid, what)

    def pause(self, pid: int) -> None:
        """Stop one worker (SIGSTOP)."""
        self.signal(signal.SIGSTOP, pid)

    def resume(self, pid: int) -> None:
        """Let a stopped worker go on (SIGCONT)."""
        self.signal(signal.SIGCONT, pid)

    def terminate(self, *, timeout: float = 60.0) -> int:
        """Ask it to end (SIGTERM), wait, and return its exit status."""
        return children.end(self.process, signal.SIGTERM, timeout=timeout)

    def kill(self) -> None:
        """Kill it and all its workers at once (SIGKILL)."""
        for pid in {*self.worker_pids(), self.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        children.kill_session(self.process)
        self.process.wait(10)

    def close(self) -> None:
        """End it and everything it started; may be called twice."""
        for pid in self.worker_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        if self.process.poll() is None:
            self.terminate()
        children.kill_session(self.process)

    def __enter__(self) -> WebServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def uvicorn(
    app: str,
    *options: str,
    log: Path,
    workers: int = 1,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    ready_path: str = "/",
    timeout: float = 30.0,
) -> WebServer:
    """Start uvicorn with `app` ("module:name"; found in `folder`) and wait until every worker has begun."""
    many = ("--workers", str(workers)) if workers > 1 else ()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        app,
        "--host",
        "127.0.0.1",
        "--port",
        str(port or 0),
        # Its own five seconds are over at once where a machine has stood still: it would close a connection that the
        # client is about to use.
        *("--timeout-keep-alive", "75"),
        *many,
        *options,
    ]
    return WebServer(
        command,
        log=log,
        port=port,
        workers=workers,
        worker_line=_UVICORN_WORKER,
        environment=environment,
        folder=folder,
        ready_path=ready_path,
        timeout=timeout,
    )


def gunicorn(
    app: str,
    *options: str,
    log: Path,
    workers: int = 1,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    ready_path: str = "/",
    timeout: float = 30.0,
) -> WebServer:
    """Start gunicorn with `app` ("module:name"; found in `folder`); options as on its own command line."""
    command = [
        *(sys.executable, "-m", "gunicorn", app, "--bind", f"127.0.0.1:{port or 0}"),
        *("--workers", str(workers), *control_socket_option(), *options),
    ]
    return WebServer(
        command,
        log=log,
        port=port,
        workers=workers,
        worker_line=_GUNICORN_WORKER,
        environment=environment,
        folder=folder,
        ready_path=ready_path,
        timeout=timeout,
    )


def control_socket_option() -> list[str]:
    """Return what keeps this gunicorn from opening a control socket, where two servers of one user collide."""
    try:
        import gunicorn.config
    except ImportError:
        return []
    return ["--no-control-socket"] if hasattr(gunicorn.config, "ControlSocketDisable") else []


def run(
    *words: str | os.PathLike[str],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    given: str | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with its output as text; never raises for its exit status."""
    return subprocess.run(
        [os.fspath(word) for word in words],
        env={**children.without_ours(os.environ), **(environment or {})},
        cwd=folder,
        input=given if given is not None else "",
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def readonlyctl(
    *words: str | os.PathLike[str],
    store: str | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    given: str | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m readonly` as an operator does, with READONLY_STORE set to `store`."""
    named = {} if store is None else {"READONLY_STORE": store}
    return run(
        sys.executable,
        "-m",
        "readonly",
        *words,
        environment={**named, **(environment or {})},
        folder=folder,
        given=given,
        timeout=timeout,
    )
