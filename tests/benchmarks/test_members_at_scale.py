"""What members cost Redis while nothing happens, and what it takes to turn all of them at once.

Members are whole switches over real connections, some hundreds in a process (fleet.py). The server's CPU time is its
own count, above that of a server that nobody uses. Beside it, at the same moment and on another server, as many bare
PINGs a second over as many connections: no message can cost less, and whatever else this machine does at that moment
makes both dearer.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from benchmarks.measuring import FULL, Script, large_server, open_files, plot, quantile, table, used
from readonly import Switch
from readonly.follower.contact import REPORTS_PER_SECOND
from readonly.follower.funerals import FUNERALS_PER_SECOND
from readonly.members import Report
from readonly.site import Site
from readonly.stores import store_from_url
from readonly.stores.redis_listening import PINGS_PER_SECOND
from support import children, missing
from support.missing import ServerMissing
from support.redis_server import RedisServer
from support.waiting import eventually

pytestmark = pytest.mark.bench

MESSAGES_PER_SECOND = REPORTS_PER_SECOND + FUNERALS_PER_SECOND + PINGS_PER_SECOND

SIZES = (10, 50, 100, 200, 500, 1000, 2000, 4000) if FULL else (10, 50, 100)
# More threads than this that all wake at once spend their time on handing the interpreter to each other.
IN_ONE_PROCESS = 100
TARGET_PERCENT, TARGET_MEMBERS = 1.0, 1000
# A report is some three bare pings' worth of work. Beyond this something is broken, on any machine.
PINGS_A_REPORT = 12.0
LOOKS, LOOK_SECONDS = (12, 2.0) if FULL else (5, 1.0)

HERD_SIZES = (200, 1000) if FULL else (100,)
BARE_SIZES = (1000, 2000, 4000) if FULL else (100,)
HERD_ROUNDS = 3


@dataclass
class Fleet:
    """Members of one site, in a few processes; more can join."""

    server: RedisServer
    url: str
    processes: list[Script] = field(default_factory=list)
    size: int = 0

    def grow(self, size: int) -> None:
        """Have so many members, spread evenly over their interval as they are after a while, and all synced."""
        more = size - self.size
        interval = max(1.0, size / REPORTS_PER_SECOND)
        parts = [min(IN_ONE_PROCESS, more - done) for done in range(0, more, IN_ONE_PROCESS)]
        seconds = max(1.0, interval * more / size)
        self.processes += [Script("fleet.py", self.url, part, seconds) for part in parts]
        self.size = size
        self.ask()  # answered once all have begun
        # On a server that was just started they take no writes for two intervals.
        timeout = 60 + 3 * interval
        eventually(
            lambda: sum(a["synced"] for a in self.ask()) == size, timeout, what="all are synced", poll_seconds=0.5
        )

    def ask(self) -> list[Any]:
        """Return what each process says of its members."""
        for process in self.processes:
            process.tell()
        return [process.hear() for process in self.processes]

    def close(self) -> None:
        """End them all."""
        for process in self.processes:
            process.close()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A site without members on a server of its own."""
    try:
        server = large_server()
    except ServerMissing as error:
        lacking = error
    else:
        url = server.url("shop")
        command = [sys.executable, "-m", "readonly", "--store", url, "init", "shop"]
        subprocess.run(command, check=True, capture_output=True, env=children.without_ours(os.environ))
        made = Fleet(server, url)
        yield made
        made.close()
        server.close()
        return
    raise missing.outcome(lacking)


class Pinger:
    """Bare PINGs over many connections, at a rate that can be changed."""

    def __init__(self, server: RedisServer) -> None:
        self.rate = 10.0
        self._server = server
        self._connections: list[socket.socket] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def connect(self, number: int) -> None:
        """Have so many connections."""
        address = ("127.0.0.1", self._server.port)
        self._connections += [socket.create_connection(address) for _ in range(number - len(self._connections))]
        if not self._thread.is_alive():
            self._thread.start()

    def _run(self) -> None:
        due, turn = time.monotonic(), 0
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            connection = self._connections[turn % len(self._connections)]
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            connection.recv(64)
            turn += 1
            due = max(due + 1 / self.rate, time.monotonic() - 1)

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)
        for connection in self._connections:
            connection.close()


@dataclass(frozen=True)
class Cost:
    """What one size cost: all looks together, and in the quietest quarter of them."""

    members: int
    interval: float
    reports_a_second: float
    messages_a_second: float
    percent: float
    quiet_percent: float
    floor_percent: float
    ratio: float


def measure(fleet: Fleet, floor: RedisServer, pinger: Pinger, idle: float, size: int) -> Cost:
    """Let so many members idle, and look at both servers every now and then."""
    fleet.grow(size)
    pinger.connect(2 * size)
    interval = max(1.0, size / REPORTS_PER_SECOND)
    store = store_from_url(fleet.url)

    def settled() -> bool:
        return all(Report.load(s.member, s.report).interval >= 0.99 * interval for s in store.census().reports)

    eventually(settled, 60 + 3 * interval, what="all know how many they are", poll_seconds=max(0.5, interval / 10))
    store.close()
    # Until those that were there when there were fewer have sent the ping that was due by then.
    threading.Event().wait(size / PINGS_PER_SECOND if FULL else 0.0)
    pinger.rate = min(MESSAGES_PER_SECOND, 2.0 * size)
    pause = threading.Event()
    looks = []
    # Whole intervals, and as long as pings take to come round: members that were started together do both together.
    whole = max(interval, size / PINGS_PER_SECOND)
    for _ in range(max(LOOKS, round(whole / LOOK_SECONDS) if FULL else 0)):
        begun, ours, theirs = time.monotonic(), used(fleet.server), used(floor)
        pause.wait(LOOK_SECONDS)
        seconds = time.monotonic() - begun
        looks.append((seconds, used(fleet.server).since(ours), used(floor).since(theirs)))
    seconds = sum(look[0] for look in looks)
    messages = sum(ours.messages for _, ours, _ in looks)
    per_message = [(ours.cpu - idle * s) / max(1, ours.messages) for s, ours, _ in looks]
    per_ping = [(theirs.cpu - idle * s) / max(1, theirs.messages) for s, _, theirs in looks]
    return Cost(
        members=size,
        interval=interval,
        reports_a_second=sum(ours.reports for _, ours, _ in looks) / seconds,
        messages_a_second=messages / seconds,
        percent=100 * (sum(ours.cpu for _, ours, _ in looks) / seconds - idle),
        quiet_percent=100 * quantile(per_message, 0.25) * messages / seconds,
        floor_percent=100 * quantile(per_ping, 0.25) * messages / seconds,
        ratio=quantile(per_message, 0.25) / quantile(per_ping, 0.25),
    )


@pytest.mark.timeout(1800)
def test_the_load_of_idle_members_stays_flat(fleet: Fleet) -> None:
    """However many there are, Redis is sent no more than so many messages a second, each worth a few bare pings."""
    sizes = [size for size in SIZES if 2 * size + 200 < open_files()]
    with ExitStack() as stack:
        floor = large_server()
        stack.callback(floor.close)
        begun, before = time.monotonic(), used(floor)
        threading.Event().wait(5 * LOOK_SECONDS)
        idle = used(floor).since(before).cpu / (time.monotonic() - begun)
        pinger = Pinger(floor)
        stack.callback(pinger.close)
        costs = [measure(fleet, floor, pinger, idle, size) for size in sizes]
    table(
        f"Redis's CPU by members, in percent of one core above an idle server ({100 * idle:.2f}%)",
        ("members", "interval s", "reports/s", "all/s", "CPU %", "quiet %", "as bare pings %", "ratio"),
        [
            (
                *(f"{c.members}", f"{c.interval:.0f}", f"{c.reports_a_second:.1f}", f"{c.messages_a_second:.1f}"),
                *(f"{c.percent:.2f}", f"{c.quiet_percent:.2f}", f"{c.floor_percent:.2f}", f"{c.ratio:.1f}"),
            )
            for c in costs
        ],
    )
    plot(
        "members",
        "Redis's CPU in percent of one core, above idle",
        {
            "as measured": [(c.members, c.percent) for c in costs],
            "in the quietest quarter of the time": [(c.members, c.quiet_percent) for c in costs],
            "as many bare pings": [(c.members, c.floor_percent) for c in costs],
        },
        across="members",
        limit=TARGET_PERCENT,
    )
    for cost in costs:
        assert cost.messages_a_second <= 1.3 * MESSAGES_PER_SECOND, cost
    assert min(cost.ratio for cost in costs[-2:]) <= PINGS_A_REPORT


# --- all at once -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """One `on` over a whole fleet."""

    taken_in: float
    safe: float
    looks: int
    server_cpu: float
    members_cpu: float
    alarms: int
    alarm: str


def turn(site: Site, fleet: Fleet) -> Turn:
    """Switch on, confirmed, and off again."""
    before, told = used(fleet.server), fleet.ask()
    looks: list[object] = []
    begun = time.monotonic()
    safety = site.on(reason="measured", timeout=90, progress=looks.append)
    safe = time.monotonic() - begun
    assert safety.safe, safety.problems
    cpu = used(fleet.server).since(before).cpu
    after = fleet.ask()
    assert sum(answer["closed"] for answer in after) == fleet.size
    found = Turn(
        taken_in=max(answer["changed"] for answer in after) - begun,
        safe=safe,
        looks=len(looks),
        server_cpu=cpu,
        members_cpu=sum(a["cpu"] for a in after) - sum(t["cpu"] for t in told),
        alarms=sum(a["alarms"] for a in after) - sum(t["alarms"] for t in told),
        alarm=next((a["alarm"] for a, t in zip(after, told, strict=True) if a["alarms"] > t["alarms"]), ""),
    )
    _, open_again = site.off(timeout=90)
    assert open_again.safe, open_again.missing
    return found


@pytest.mark.timeout(900)
def test_all_members_turn_at_once(fleet: Fleet) -> None:
    """A change makes every member report twice at the same moment: all are confirmed, and no call takes too long."""
    rows, best, heard = [], [], set()
    site = Site(Switch(store_from_url(fleet.url)))
    for size in (s for s in HERD_SIZES if 2 * s + 200 < open_files()):
        fleet.grow(size)
        turns = [turn(site, fleet) for _ in range(HERD_ROUNDS)]
        best.append(min(t.alarms for t in turns))
        heard |= {t.alarm for t in turns if t.alarm}
        fastest = min(turns, key=lambda t: t.safe)

        def middle(of: Callable[[Turn], float], turns: list[Turn] = turns) -> float:
            return quantile([of(t) for t in turns], 0.5)

        rows.append(
            (
                *(f"{size}", f"{fastest.taken_in:.2f}", f"{fastest.safe:.2f}", f"{middle(lambda t: t.safe):.2f}"),
                *(f"{middle(lambda t: t.server_cpu):.3f}", f"{middle(lambda t: t.members_cpu):.2f}"),
                *(f"{middle(lambda t: t.looks):.0f}", f"{sum(t.alarms for t in turns)}"),
            )
        )
    site.store.close()
    table(
        f"An `on` reaches whole switches, all of them on these {os.cpu_count()} cores: seconds, best and middle of "
        f"{HERD_ROUNDS}",
        ("members", "taken in", "safe", "safe p50", "Redis CPU", "members' CPU", "looks", "timeouts"),
        rows,
    )
    print(*sorted(heard), sep="\n")
    assert max(best) == 0, "in every round some member's call to the store took longer than its timeout"


@pytest.mark.timeout(300)
def test_the_server_is_done_with_all_members_in_time(fleet: Fleet) -> None:
    """The same without what members do themselves: how long the server takes for all their reports."""
    rows = []
    for size in (s for s in BARE_SIZES if 2 * s + 200 < open_files()):
        bare = Script("bare_members.py", fleet.server.port, "shop", size, HERD_ROUNDS)
        rounds: list[dict[str, Any]] = []
        cpu: list[float] = []
        for _ in range(HERD_ROUNDS):
            if rounds:
                bare.tell()
            # What connecting cost belongs to the first look.
            before = used(fleet.server)
            rounds.append(bare.hear())
            cpu.append(used(fleet.server).since(before).cpu)
        bare.close()
        fastest = min(rounds, key=lambda r: float(r["all"]))
        late = min(int(r["late"]) for r in rounds)
        rows.append(
            (
                *(f"{size}", f"{fastest['all']:.3f}", f"{quantile([r['all'] for r in rounds], 0.5):.3f}"),
                *(f"{fastest['slowest']:.3f}", f"{min(cpu):.3f}", f"{late}"),
            )
        )
        if size <= TARGET_MEMBERS:
            assert late == 0, "in every round some answers took longer than a store's timeout"
    table(
        f"The same with bare sockets: seconds, best of {HERD_ROUNDS}",
        ("members", "all reported twice", "p50", "slowest answer", "Redis CPU", "answers over 1 s"),
        rows,
    )
