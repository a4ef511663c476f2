"""Reads while a migration holds the busiest table's lock: through a frozen replica none waits, on the primary all do.

No clock judges: the lock is held until the test lets it go, and who waits for it is seen waiting at the servers.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from readonly.databases.sqlalchemy import Database
from readonly.switch import Switch
from support.looking import nothing_is_late
from support.running import Followed, psql, starts
from support.waiting import eventually

READS, CONTROLS = 100, 3
READ = text("SELECT count(*), pg_is_in_recovery() FROM story")
# The migration takes the lock, and keeps it until the test lets go of a lock of its own.
LATCH = 4711
MIGRATION = f"""
BEGIN; LOCK TABLE story IN ACCESS EXCLUSIVE MODE; UPDATE story SET title = 'held';
SELECT pg_advisory_xact_lock({LATCH}); COMMIT
"""
HELD = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'story'::regclass"
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'story'::regclass"


class Reader:
    """Reads by sessions of one kind, one after the other, in a thread of its own.

    Args:
        sessions: Where they read.
        reads: How many.
    """

    def __init__(self, sessions: sessionmaker[Session], reads: int) -> None:
        self.seconds: list[float] = []
        self.of_replica: list[bool] = []
        self._sessions, self._reads = sessions, reads
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for _ in range(self._reads):
            begun = time.monotonic()
            with self._sessions() as session:
                self.of_replica.append(session.execute(READ).one()[1])
            self.seconds.append(time.monotonic() - begun)

    @property
    def over(self) -> bool:
        """Whether all reads were answered."""
        return not self._thread.is_alive()

    def ends(self) -> Reader:
        """Wait for the end."""
        self._thread.join(60)
        assert len(self.seconds) == self._reads
        return self


class Process:
    """A process of the site, as far as reading goes: routed sessions, and some that are always on the primary."""

    def __init__(self, site: Followed) -> None:
        self.switch = Switch.from_url(site.shop.url, interval=0.2)
        self.primary, self.replica = (
            create_engine(server.url(site.database.name, user=site.database.app, scheme="postgresql+psycopg"))
            for server in (site.pair.primary, site.pair.standby)
        )
        self.database = Database(self.primary, self.switch, replicas=[self.replica])
        self.routed = sessionmaker(self.primary, class_=self.database.routing(Session))
        self.plain = sessionmaker(self.primary)
        self.switch.start()

    def reads_the_replica(self) -> None:
        """Wait until it is known to be fit: a read that goes to the primary would wait there."""
        eventually(lambda: self.database.describe()["replicas"][0]["unfit"] == "", 15, what="the replica is fit")

    def close(self) -> None:
        """End it."""
        self.database.close()
        self.primary.dispose()
        self.replica.dispose()
        self.switch.close()


@pytest.fixture
def process(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    """One, which obeys the site's switch."""
    nothing_is_late(monkeypatch)
    process = Process(followed)
    yield process
    process.close()


@contextmanager
def migrating(site: Followed, *options: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Have a run's command hold the lock; what is yielded holds the latch: its end lets the command end."""
    with psycopg.connect(site.pair.primary.url(site.database.name), autocommit=True) as latch:
        latch.execute("SELECT pg_advisory_lock(%s)", [LATCH])
        with starts(site, "run", *options, "--", *psql(site, MIGRATION)) as running:
            eventually(lambda: running.process.poll() is not None or site.database.sql(HELD) == "1", 30)
            assert running.process.poll() is None, running.err
            # A commit of somebody else's takes the lock's line in the log to the standby.
            log = site.database.sql(
                "SELECT pg_logical_emit_message(true, 'test', ''); SELECT pg_current_wal_flush_lsn()"
            ).splitlines()[-1]
            eventually(lambda: site.read_there(f"SELECT pg_last_wal_receive_lsn() >= '{log}'") == "t")
            try:
                yield latch
            finally:
                latch.close()
                assert running.ends(60) == 0, running.err
                # Said before the command begins, for whoever plans what follows.
                assert ("may be ended at once" in running.err) is ("--freeze" in options)


def p99(seconds: list[float]) -> float:
    """Return the 99th percentile, in milliseconds."""
    return 1000 * statistics.quantiles(seconds, n=100, method="inclusive")[98]


def test_no_read_through_a_frozen_replica_waits_for_the_migration(followed: Followed, process: Process) -> None:
    """All of them are answered while reads on the primary wait for as long as the lock is held."""
    quiet = [Reader(sessions, READS).ends().seconds for sessions in (process.plain, sessionmaker(process.replica))]
    with migrating(followed, "--freeze") as latch:
        process.reads_the_replica()
        controls = [Reader(process.plain, 1) for _ in range(CONTROLS)]
        eventually(lambda: followed.database.sql(WAITING) == str(CONTROLS), what="reads on the primary wait")
        begun = time.monotonic()
        routed = Reader(process.routed, READS).ends()
        held = time.monotonic() - begun
        assert not any(control.over for control in controls)
        assert followed.read_there(WAITING) == "0"
        latch.close()
        waited = [control.ends().seconds[0] for control in controls]
    assert routed.of_replica == [True] * READS
    assert max(routed.seconds) < held <= min(waited)
    print(
        f"p99 of {READS} reads: on the primary {p99(quiet[0]):.1f} ms quiet, {p99(waited):.0f} ms while its lock was "
        f"held for {1000 * held:.0f} ms; on the replica {p99(quiet[1]):.1f} ms quiet, "
        f"{p99(routed.seconds):.1f} ms meanwhile"
    )


@pytest.mark.parametrize("without", ["freeze", "routing"])
def test_without_either_a_read_waits(followed: Followed, process: Process, without: str) -> None:
    """What the test above would see: a replica that follows has replayed the lock, a primary holds it."""
    server = followed.pair.standby if without == "freeze" else followed.pair.primary
    options, sessions = (["--freeze"], process.plain) if without == "routing" else ([], process.routed)
    with migrating(followed, *options) as latch:
        process.reads_the_replica()
        eventually(lambda: server.sql(HELD, database=followed.database.name) == "1", what="the lock is there")
        reader = Reader(sessions, 1)
        eventually(lambda: server.sql(WAITING, database=followed.database.name) == "1", what="the read waits")
        assert not reader.over
        latch.close()
        reader.ends()
