"""What all servers of the tests have in common: a direct child on a free port, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import ClassVar

from support import children
from support.ports import free_port
from support.waiting import eventually

_START_ATTEMPTS = 5


class OwnServer:
    """One server: start it, kill it, start it again on the same port.

    Attributes:
        folder: Its own; removed by `close`.
        log: What it writes to its output.
        environment: What is added to ours for it.

    Args:
        prefix: Of the folder's name.
        port: Where it listens; None for any that is free.
        environment: Added to ours.
        drops: Where we are root, it runs as somebody with fewer rights, and the folder is theirs.
    """

    # What it is called, how a test ends it, and how it ends with the process that started it.
    program: ClassVar[str]
    stopped_by: ClassVar[signal.Signals] = signal.SIGTERM
    killed_by: ClassVar[signal.Signals] = signal.SIGKILL
    when_we_die: ClassVar[str] = "KILL"

    def __init__(
        self,
        prefix: str,
        *,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        drops: bool = False,
    ) -> None:
        self.folder = children.open_folder(prefix)
        self.log = self.folder / "server.log"
        self.environment = environment
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._user: int | None = None
        self._group: int | None = None
        dropped = children.unprivileged() if drops else None
        if dropped is not None:
            self._user, self._group = dropped
            os.chown(self.folder, *dropped)

    @property
    def port(self) -> int:
        """The port, kept over restarts."""
        if self._port is None:
            raise RuntimeError("the server was never started: call start() first")
        return self._port

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise RuntimeError("the server is not running: call start() first")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process is there (a paused one is)."""
        return self._process is not None and self._process.poll() is None

    def _serve(self) -> None:
        """Start it and wait until it takes connections; a port that was taken meanwhile is replaced, unless kept."""
        fixed = self._port is not None
        for _ in range(1 if fixed else _START_ATTEMPTS):
            if not fixed:
                self._port = free_port()
            with self.log.open("ab") as output:
                self._process = children.start(
                    self._command(),
                    output=output,
                    when_we_die=self.when_we_die,
                    environment=None if self.environment is None else {**os.environ, **self.environment},
                    user=self._user,
                    group=self._group,
                    folder=self.folder,
                )
            if eventually(self._ready_or_ended, 30.0, what=f"{self.program} starts", poll_seconds=0.02) == "ready":
                return
            self._process = None
        raise RuntimeError(f"{self.program} did not start: {self.log.read_text(errors='replace')[-2000:]}")

    def _command(self) -> Sequence[str]:
        raise NotImplementedError

    def _ready_or_ended(self) -> str:
        assert self._process is not None
        if self._process.poll() is not None:
            return "ended"
        return "ready" if self._answers() else ""

    def _answers(self) -> bool:
        """Whether it takes connections: itself, and no other server that has taken a port of that number."""
        raise NotImplementedError

    def stop(self) -> None:
        """Shut it down and wait."""
        self._end(self.stopped_by, timeout=20.0)

    def kill(self) -> None:
        """End it without a shutdown, as a crash would, and wait."""
        self._end(self.killed_by, timeout=10.0)

    def _end(self, how: signal.Signals, *, timeout: float) -> None:
        if self._process is not None:
            children.end(self._process, how, timeout=timeout)
            self._process = None

    def restart(self) -> None:
        """Kill it and start it on the same port."""
        self.kill()
        self._serve()

    def close(self) -> None:
        """End it and remove its folder; may be called twice."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
