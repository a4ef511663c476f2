"""Ports that tests are given are nobody else's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support import ports
from support.forked import HERE

GIVES = "from support.ports import free_port; print(*(free_port() for _ in range(200)), flush=True); input()"


def test_no_port_is_given_twice_here() -> None:
    """A server that is killed finds its own again; none is of those that the kernel gives to clients."""
    given = [ports.free_port() for _ in range(200)]
    assert len(set(given)) == 200
    assert all(ports.LOWEST <= port <= ports.highest() for port in given)


def test_nor_in_two_processes() -> None:
    """Their ports are their own for as long as they live."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    others = [
        subprocess.Popen(
            [sys.executable, "-c", GIVES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    theirs: list[int] = []
    for other in others:
        assert other.stdout is not None
        theirs += map(int, other.stdout.readline().split())
    assert len(set(theirs)) == 400
    assert not set(theirs) & {ports.free_port() for _ in range(200)}
    assert not any(ports._reserved.take(port) for port in theirs)
    for other in others:
        other.communicate("\n", timeout=30)
    # What those had is free again, as far as nobody else has taken it: locks end with their processes.
    assert any(ports._reserved.take(port) for port in theirs)


def test_a_forked_process_has_none_of_its_parents() -> None:
    """It can give itself ports, which are no others'."""
    port = ports.free_port()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        taken = ports._reserved.take(port)
        os.write(writing, b"taken" if taken else b"refused")
        os._exit(0)
    os.waitpid(pid, 0)
    said = os.read(reading, 20)
    os.close(reading)
    os.close(writing)
    assert said == b"refused"


@pytest.mark.parametrize("beside", [0, 10_000])
def test_a_port_that_is_listened_on_is_not_given(beside: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one whose second port is: where somebody else's server stands, the next one is tried."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = taken.getsockname()[1] - beside
        monkeypatch.setattr(ports, "LOWEST", first)
        monkeypatch.setattr(ports, "highest", lambda: first + 40 + beside)
        found = {ports.free_port(beside=beside) for _ in range(20)}
    assert len(found) == 20
    assert first not in found


def test_the_kernels_own_range_is_left_to_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As it is told; where that leaves too few, as it usually is."""
    file = tmp_path / "range"
    monkeypatch.setattr(ports, "_KERNELS_RANGE", file)
    found = []
    for told in ("40000\t60999\n", "1024\t65535\n"):
        file.write_text(told)
        found.append(ports.highest())
    file.unlink()
    found.append(ports.highest())
    assert found == [39999, ports.USUAL_HIGHEST, ports.USUAL_HIGHEST]
