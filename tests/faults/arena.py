"""The servers and processes of one round, and what can be done to them.

Only the thread that made an arena may do anything to it; any thread may ask who lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from faults import faketime, newcomer
from faults.history import Life, Recorder
from faults.worker import Settings
from support import children
from support.ports import free_port
from support.redis_server import RedisServer
from support.redis_topology import Topology
from support.tcp_proxy import TcpProxy
from support.waiting import eventually

HERE = Path(__file__).parent
SITE = "shop"
INTERVAL_SECONDS, TIMEOUT_SECONDS = 0.2, 0.5
LEASE_SECONDS = 1.0
SCATTERED_SECONDS = 8 * 3600.0
# The operators' proxy, beside the workers'.
OPERATORS = -1
# A process that is no worker: it does one write and ends.
NEWCOMER = 99
NEWCOMER_ENDS_SECONDS = 30.0


@dataclass(slots=True)
class Slot:
    """A place for a worker: its port and its proxy stay, whoever fills it.

    Attributes:
        lease: The lease of its workers.
        code: Folder with another copy of the library, before the installed one; "" for none.
        runs: What its workers report that they run.
    """

    number: int
    port: int
    proxy: TcpProxy
    lease: float | None = None
    code: str = ""
    runs: str = ""
    process: subprocess.Popen[bytes] | None = None


class Arena:
    """Redis, workers behind proxies, and their load.

    Args:
        folder: For logs and histories.
        database: URL of the workers' database.
        redis: The server, running; or a primary, its replica and Sentinels.
        recorder: Where it says who lives.
        sabotage: What is broken in every worker.
        faketime: libfaketime, for clocks that are set; None: a worker's clock is told what it is off by.
    """

    def __init__(
        self,
        folder: Path,
        database: str,
        redis: RedisServer | Topology,
        recorder: Recorder,
        *,
        sabotage: str = "",
        faketime: Path | None = None,
    ) -> None:
        self.folder = folder
        self.database = database
        self.topology = redis if isinstance(redis, Topology) else None
        self._redis = redis
        self.recorder = recorder
        self.sabotage = sabotage
        self.faketime = faketime
        self.events = folder / "workers.jsonl"
        self.events.touch()
        self.load_events = folder / "load.jsonl"
        self.load_events.touch()
        self.clock = folder / "clock"
        self.hold = folder / "hold"
        self.slots: dict[int, Slot] = {}
        self.step_clock(0.0)
        self.operators = TcpProxy(self.redis.port)
        # Processes that were killed, by pid, for operators to know whom they may vouch for.
        self.dead: set[int] = set()
        self._stopped: set[int] = set()
        self._newcomer: subprocess.Popen[bytes] | None = None
        self._newcomers = 0
        self._load: subprocess.Popen[str] | None = None
        self._seen_events = 0
        self._lock = threading.Lock()

    @property
    def redis(self) -> RedisServer:
        """The server that takes writes."""
        return self._redis.primary if isinstance(self._redis, Topology) else self._redis

    @property
    def operators_url(self) -> str:
        """The store's URL as operators use it, through their own proxy."""
        return self.url(self.operators)

    def url(self, proxy: TcpProxy | None) -> str:
        """Return the store's URL through a proxy, or past all; Sentinels name servers that are behind none."""
        if self.topology is not None:
            return self.topology.url(SITE)
        port = proxy.port if proxy is not None else self.redis.port
        return f"redis://127.0.0.1:{port}/0?site={SITE}"

    # --- workers -----------------------------------------------------------------------------------------------------

    def add_slot(self, number: int, *, lease: float | None = None, code: str = "", runs: str = "") -> Slot:
        """Make a place for a worker; nobody is in it yet."""
        slot = Slot(number, free_port(), TcpProxy(self.redis.port), lease=lease, code=code, runs=runs)
        self.slots[number] = slot
        faketime.step(self._faked_clock(number), 0.0)
        return slot

    def start_worker(self, number: int) -> None:
        """Start a worker in a slot, and do not wait for it."""
        slot = self.slots[number]
        settings = Settings(
            slot=number,
            port=slot.port,
            store=self.url(slot.proxy),
            database=self.database,
            events=str(self.events),
            clock=str(self.clock),
            hold=str(self.hold),
            interval=INTERVAL_SECONDS,
            timeout=TIMEOUT_SECONDS,
            lease=slot.lease,
            sabotage=self.sabotage,
            runs=slot.runs,
        )
        environment = children.without_ours(os.environ)
        if self.faketime is not None:
            environment |= faketime.environment(self.faketime, self._faked_clock(number))
        if slot.code:
            environment["PYTHONPATH"] = slot.code
        with (self.folder / f"worker-{number}.log").open("ab") as output:
            slot.process = subprocess.Popen(
                [sys.executable, HERE / "worker.py", json.dumps(asdict(settings))],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def look_for_lives(self) -> list[dict[str, object]]:
        """Return what all workers said when they began, and record those that are new."""
        with self._lock:
            lines = [json.loads(line) for line in self.events.read_text().splitlines()]
            for line in lines[self._seen_events :]:
                self.recorder.record(Life(line["slot"], line["pid"], line["at"], began=True))
            self._seen_events = len(lines)
        return lines

    def members_of(self, pids: set[int]) -> list[str]:
        """Return the member ids of these processes."""
        return [str(line["member"]) for line in self.look_for_lives() if line["pid"] in pids]

    def wait_for_worker(self, number: int, *, timeout: float = 30.0) -> None:
        """Wait until the worker in a slot takes requests."""
        slot = self.slots[number]

        def serves() -> bool:
            assert slot.process is not None
            if slot.process.poll() is not None:
                log = (self.folder / f"worker-{number}.log").read_text(errors="replace")
                raise RuntimeError(f"worker {number} ended with {slot.process.returncode}: {log[-3000:]}")
            # It listens for a moment before it begins.
            return slot.process.pid in {life["pid"] for life in self.look_for_lives()}

        eventually(serves, timeout, what=f"worker {number} serves", poll_seconds=0.03)

    def kill_worker(self, number: int) -> None:
        """End it as `kill -9` does."""
        process = self.slots[number].process
        if process is None or process.poll() is not None:
            return
        self.dead.add(process.pid)
        self.recorder.record(Life(number, process.pid, time.monotonic(), began=False))
        process.kill()
        self._reap(process)

    def end_worker(self, number: int) -> None:
        """Ask it to end, as a deployment does, and wait: it says goodbye."""
        process = self.slots[number].process
        if process is None or process.poll() is not None:
            return
        self.recorder.record(Life(number, process.pid, time.monotonic(), began=False))
        self.dead.add(process.pid)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        self._reap(process)

    @staticmethod
    def _reap(process: subprocess.Popen[bytes]) -> None:
        process.wait(10)
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def stop_worker(self, number: int) -> None:
        """Stop it, as a machine that hangs does."""
        process = self.slots[number].process
        if process is not None and process.poll() is None:
            self._stopped.add(number)
            process.send_signal(signal.SIGSTOP)

    def continue_worker(self, number: int) -> None:
        """Let it go on."""
        process = self.slots[number].process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGCONT)
        self._stopped.discard(number)

    def is_stopped(self, number: int) -> bool:
        """Return whether the worker in a slot is stopped."""
        return number in self._stopped

    @property
    def stopped_pids(self) -> set[int]:
        """The processes that are stopped now."""
        found = (self.slots[number].process for number in tuple(self._stopped))
        return {process.pid for process in found if process is not None}

    # --- one that has only just begun --------------------------------------------------------------------------------

    def start_newcomer(self) -> None:
        """Start a process that is to do one write, and wait until it could begin."""
        self._newcomers += 1
        self._newcomer_folder.mkdir()
        settings = newcomer.Settings(
            slot=NEWCOMER,
            store=self.url(None),
            database=self.database,
            events=str(self.events),
            folder=str(self._newcomer_folder),
            interval=INTERVAL_SECONDS,
            timeout=TIMEOUT_SECONDS,
            sabotage=self.sabotage,
        )
        with (self.folder / "newcomer.log").open("ab") as output:
            words = [sys.executable, str(HERE / "newcomer.py"), json.dumps(asdict(settings))]
            self._newcomer = subprocess.Popen(
                words, stdout=output, stderr=subprocess.STDOUT, env=children.without_ours(os.environ)
            )
        eventually((self._newcomer_folder / "about").exists, 30, what="a newcomer is ready", poll_seconds=0.01)

    @property
    def _newcomer_folder(self) -> Path:
        return self.folder / f"newcomer-{self._newcomers}"

    def let_newcomer_write(self, seconds: float) -> bool:
        """Let it begin; return whether it stood still within so many seconds, its write admitted."""
        (self._newcomer_folder / "go").touch()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (self._newcomer_folder / "begun").exists():
                return True
            time.sleep(0.002)  # it stops itself the moment after: no event of its own could follow
        return False

    def end_newcomer(self) -> None:
        """Let it go on, and end when it has committed what it had begun; now or when it stands still later."""
        process, self._newcomer = self._newcomer, None
        if process is None:
            return
        (self._newcomer_folder / "over").touch()
        deadline = time.monotonic() + NEWCOMER_ENDS_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        self.look_for_lives()
        self.recorder.record(Life(NEWCOMER, process.pid, time.monotonic(), began=False))
        self.dead.add(process.pid)
        process.kill()
        process.wait(10)

    # --- clock and hold ----------------------------------------------------------------------------------------------

    def step_clock(self, seconds: float) -> None:
        """Set what every worker's wall clock is off by."""
        if self.faketime is not None:
            for number in self.slots:
                faketime.step(self._faked_clock(number), seconds)
        # In place: the workers have it mapped.
        mode = "r+b" if self.clock.exists() else "wb"
        with self.clock.open(mode) as file:
            file.write(struct.pack("d", seconds if self.faketime is None else 0.0))

    def scatter_clocks(self, chance: random.Random) -> None:
        """Set every worker's wall clock, and that of Redis, hours off, each by itself. Only with libfaketime."""
        for clock in (*map(self._faked_clock, self.slots), *self.redis_clocks):
            faketime.step(clock, chance.uniform(-SCATTERED_SECONDS, SCATTERED_SECONDS))

    def gather_clocks(self) -> None:
        """Set all of them right."""
        self.step_clock(0.0)
        for clock in self.redis_clocks:
            faketime.step(clock, 0.0)

    @property
    def redis_clocks(self) -> list[Path]:
        """The file that sets Redis's clock, where there is one."""
        named = (self.redis.environment or {}).get("FAKETIME_TIMESTAMP_FILE")
        return [Path(named)] if named else []

    def _faked_clock(self, number: int) -> Path:
        return self.folder / f"clock-{number}.faked"

    def hold_writes(self) -> None:
        """Have writes that are admitted from now on wait before they begin."""
        (self.folder / "hold.reached").unlink(missing_ok=True)
        self.hold.touch()

    @property
    def writes_are_held(self) -> bool:
        """Whether a write has come to where it is held."""
        return (self.folder / "hold.reached").exists()

    def release_writes(self) -> None:
        """Let them go on."""
        self.hold.unlink(missing_ok=True)

    # --- load --------------------------------------------------------------------------------------------------------

    def start_load(self, *, writers: int = 2, readers: int = 1) -> None:
        """Start the clients' process; it does nothing before `load`."""
        self._load = subprocess.Popen(
            [sys.executable, HERE / "load.py", str(self.load_events), str(writers), str(readers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=children.without_ours(os.environ),
        )

    def load(self, number: int) -> None:
        """Have clients come to a slot."""
        self._tell_load(f"add {number} {self.slots[number].port}")

    def unload(self, number: int) -> None:
        """Have the clients of a slot leave, after their last answer."""
        self._tell_load(f"remove {number}")

    def _tell_load(self, line: str) -> None:
        assert self._load is not None
        assert self._load.stdin is not None
        assert self._load.stdout is not None
        self._load.stdin.write(line + "\n")
        self._load.stdin.flush()
        answer = self._load.stdout.readline().strip()
        if answer != line:
            raise RuntimeError(f"the load answered {answer!r} to {line!r}")

    def end_load(self) -> None:
        """Have all clients leave."""
        load, self._load = self._load, None
        if load is None:
            return
        assert load.stdin is not None
        assert load.stdout is not None
        with contextlib.suppress(OSError):
            load.stdin.close()
        try:
            load.wait(15)
        except subprocess.TimeoutExpired:
            load.kill()
            load.wait(10)
        load.stdout.close()

    # --- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End everything that it started, Redis excepted."""
        self.end_load()
        self.end_newcomer()
        for slot in self.slots.values():
            process = slot.process
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for slot in self.slots.values():
            if slot.process is not None:
                try:
                    slot.process.wait(6)
                except subprocess.TimeoutExpired:
                    slot.process.kill()
                self._reap(slot.process)
            slot.proxy.close()
        self.operators.close()

    def __enter__(self) -> Arena:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
