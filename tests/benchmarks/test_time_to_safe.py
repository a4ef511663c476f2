"""How long `on` takes to be safe, with several processes under load, and what nothing could have been faster than.

Two things bound it from below, both measured in the same run: a message reaches the last of as many bare subscribers,
and the last write that was in flight when `on` was called comes to its end. What is above the larger of the two is
ours: setting the record, each process taking it in and saying so, and the look that finds everybody.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from benchmarks.measuring import FULL, Script, quantile, table
from readonly import Switch
from readonly.site import Site
from readonly.stores import store_from_url
from support import children
from support.processes import uvicorn
from support.redis_server import RedisServer
from support.waiting import eventually

pytestmark = pytest.mark.bench

TESTS = Path(__file__).parents[1]
PROCESSES = 8 if FULL else 2
SWITCHES = 100 if FULL else 10
# Clients that come back at once: a few, and as many as these cores can take.
LOADS = ((2, 1), (12, 6)) if FULL else ((8, 2),)
WRITES_BETWEEN = 20
# Beyond this many times what one request takes under that load something waits for the wrong thing: a hint that is lost
# costs an interval, a second.
LIMIT = 20.0


@dataclass(frozen=True)
class Times:
    """One switch: seconds from `on` to its return and to the last accepted write's end, and of a publish before it."""

    safe: float
    publish: float
    in_flight: float

    @property
    def floor(self) -> float:
        """What nothing could have been faster than."""
        return max(self.publish, self.in_flight)

    @property
    def excess(self) -> float:
        """What is ours."""
        return self.safe - self.floor


class Load:
    """The running site under load."""

    def __init__(self, times: Path, site: Site, server: RedisServer, subscribers: list[Script], who: str) -> None:
        self.site = site
        self.who = who
        self._times = times
        self._log = times / "load.log"
        self._server = server
        self._subscribers = subscribers
        self._at: dict[Path, int] = {}

    def written(self) -> list[tuple[float, float]]:
        """Return begin and end of the writes that were accepted since this was last asked."""
        found = []
        for path in self._times.glob("*.times"):
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            lines = data[self._at.get(path, 0) : whole].decode().splitlines()
            self._at[path] = whole
            found += [(float(line.split()[0]), float(line.split()[1])) for line in lines]
        return found

    def publish(self) -> float:
        """Return how long a message takes to the last of the bare subscribers."""
        begun = time.monotonic()
        self._server.command("PUBLISH", "bare", "x")
        return max(float(subscriber.hear()) for subscriber in self._subscribers) - begun

    def reads(self) -> list[float]:
        """Return how long each read took, as a client saw it: beside them all else is to be judged."""
        lines = (line.split() for line in self._log.read_text().splitlines() if line.startswith("read "))
        return [float(line[4]) - float(line[3]) for line in lines if len(line) == 5]

    def turn(self) -> Times:
        """Switch on, confirmed, and off again."""
        self.written()
        seen: list[tuple[float, float]] = []

        def enough() -> bool:
            seen.extend(self.written())
            return len(seen) >= WRITES_BETWEEN

        eventually(enough, 30, what="writes are accepted")
        publish = self.publish()
        begun = time.monotonic()
        safety = self.site.on(reason="measured", timeout=60)
        safe = time.monotonic() - begun
        assert safety.safe, safety.problems
        seen += self.written()
        in_flight = max((end - begun for start, end in seen if start < begun < end), default=0.0)
        _, opened = self.site.off(timeout=60)
        assert opened.safe, opened.missing
        return Times(safe, publish, in_flight)


@pytest.fixture
def load(
    request: pytest.FixtureRequest, redis_server: RedisServer, postgres_url: str, tmp_path: Path
) -> Iterator[Load]:
    """Start site, load and subscribers."""
    writers, readers = request.param
    url = redis_server.url()
    name = url.partition("site=")[2]
    with ExitStack() as stack:
        database = stack.enter_context(psycopg.connect(postgres_url, autocommit=True))
        database.execute("CREATE TABLE written (key text PRIMARY KEY)")
        environment = children.without_ours(os.environ)
        init = [sys.executable, "-m", "readonly", "--store", url, "init", name]
        subprocess.run(init, check=True, capture_output=True, env=environment)
        server = uvicorn(
            "benchmarks.timed_site:app",
            workers=PROCESSES,
            log=tmp_path / "server.log",
            environment={
                "READONLY_STORE": url,
                "TEST_DATABASE": postgres_url,
                "TEST_TIMES": str(tmp_path),
                "PYTHONPATH": os.pathsep.join(map(str, [TESTS, TESTS.parent])),
            },
            folder=TESTS,
            timeout=60,
        )
        stack.enter_context(server)
        site = Site(Switch(store_from_url(url)))
        stack.callback(site.store.close)
        eventually(
            lambda: sum(m.report.role == "web" and m.report.synced for m in site.wait(timeout=0).members) == PROCESSES,
            30,
            what="all processes report",
        )
        subscribers = [Script("subscriber.py", redis_server.port, "bare") for _ in range(PROCESSES)]
        for subscriber in subscribers:
            stack.callback(subscriber.close)
            subscriber.hear()
        hammer_py = TESTS / "endtoend" / "hammer.py"
        hammer = subprocess.Popen(
            [sys.executable, hammer_py, *map(str, [server.port, writers, readers, tmp_path / "load.log"])],
            stdin=subprocess.PIPE,
            env=environment,
        )

        def finish() -> None:
            assert hammer.stdin is not None
            hammer.stdin.close()
            hammer.wait(60)

        stack.callback(finish)
        yield Load(tmp_path, site, redis_server, subscribers, f"{writers} writers and {readers} readers")


@pytest.mark.parametrize("load", LOADS, indirect=True, ids=lambda load: f"{load[0]}-writers")
@pytest.mark.timeout(600)
def test_time_to_safe(load: Load) -> None:
    """It is safe soon after the last write in flight has ended."""
    load.turn()  # the first one also connects
    turns = [load.turn() for _ in range(SWITCHES)]
    rows = [
        ("a publish to as many bare subscribers", [t.publish for t in turns]),
        ("the last write in flight ends", [t.in_flight for t in turns]),
        ("the larger of the two", [t.floor for t in turns]),
        ("`on` says safe", [t.safe for t in turns]),
        ("excess over the larger of the two", [t.excess for t in turns]),
        ("a read of the site, for comparison", load.reads()),
    ]
    table(
        f"Milliseconds from `on`, {PROCESSES} processes, {load.who} on these "
        f"{os.cpu_count()} cores, {SWITCHES} switches",
        ("", "least", "p50", "p99", "most"),
        [
            (name, *(f"{1000 * value:.1f}" for value in (min(v), quantile(v, 0.5), quantile(v, 0.99), max(v))))
            for name, v in rows
        ],
    )
    safe = quantile([t.safe for t in turns], 0.25)
    floor = max(quantile([t.floor for t in turns], 0.5), quantile(load.reads(), 0.5))
    assert safe <= LIMIT * floor, f"safe after {1000 * safe:.1f} ms, where {1000 * floor:.1f} ms were possible"
