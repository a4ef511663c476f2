"""Ports for servers that must be told theirs: none is given twice, in this process, another worker or another run.

The kernel gives whoever asks for any port (and every client that connects) one of a range: a port of that range that
was free a moment ago may be somebody's when the server takes it, and when a killed server wants its own back. Ports
from below it are taken by nobody who was not given one; a lock in a file tells the processes of our tests apart.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

LOWEST = 15_000
USUAL_HIGHEST = 32_767  # Linux gives from 32768 on, unless it was told otherwise
_FEWEST = 2_000
_KERNELS_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Not the module's own: tests run with a fixed seed, each with the same one.
_random = random.SystemRandom()


class _Reserved:
    """The ports that this process has; they are its own until it ends, and nobody else's, forked or not."""

    def __init__(self) -> None:
        self.ports: set[int] = set()
        self._pid = 0
        self._file = -1

    def take(self, port: int) -> bool:
        """Make a port ours, unless it is somebody's (or ours already)."""
        if self._pid != os.getpid():
            # Locks stay with the process that took them: one that was forked from it has none.
            path = Path(tempfile.gettempdir()) / f"readonly-test-ports-{os.geteuid()}"
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._pid, self.ports = os.getpid(), set()
        if port in self.ports:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
        self.ports.add(port)
        return True


_reserved = _Reserved()


def highest() -> int:
    """Return the last port that the kernel gives nobody by itself."""
    try:
        first = int(_KERNELS_RANGE.read_text().split()[0])
    except OSError:
        return USUAL_HIGHEST
    return first - 1 if first > LOWEST + _FEWEST else USUAL_HIGHEST


def free_port(*, beside: int = 0) -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on, and that no other test is given while this process lives.

    Args:
        beside: A server that takes a second port takes it so far above; that one is free as well.

    Raises:
        RuntimeError: None is left.
    """
    last = highest() - beside
    # From anywhere: a port that another run has just given back may still be waiting for late packets.
    begin, count = _random.randrange(last - LOWEST), last - LOWEST
    for step in range(count):
        port = LOWEST + (begin + step) % count
        wanted = {port, port + beside}
        if all(_reserved.take(one) for one in wanted) and all(map(_is_free, wanted)):
            return port
    raise RuntimeError(f"no port between {LOWEST} and {last} is free: is a test run left over that never ended?")


def _is_free(port: int) -> bool:
    with socket.socket() as asked:
        try:
            asked.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
