"""Four processes, a real Redis, a real PostgreSQL, load from a process of its own, and the switch turned 205 times.

The truth is in the table: the rows just after a confirmed `on` and just before the next `off` are the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from readonly import Switch
from support import children
from support.operating import Shop
from support.processes import WebServer, uvicorn
from support.waiting import eventually

HERE = Path(__file__).parent
SWITCHES, BY_COMMAND = 200, 5
WRITES_A_PHASE = 20
# Twice as many readers take the cores that the writers need: a switch then waits for little else than its turn.
WRITERS, READERS = 12, 2


@dataclass
class Site:
    """The running site, its load and its database."""

    server: WebServer
    database: psycopg.Connection[tuple[int]]
    switch: Switch
    shop: Shop
    log: Path

    def rows(self) -> int:
        """Return how many rows are committed, through a connection that nothing of ours touches."""
        found = self.database.execute("SELECT count(*) FROM written").fetchone()
        assert found is not None
        return found[0]

    def accepts(self) -> None:
        """Wait until enough writes were accepted."""
        before = self.rows()
        eventually(lambda: self.rows() >= before + WRITES_A_PHASE, 60, what="writes are accepted")

    def is_hammered(self) -> None:
        """Wait until the load has gone on for a while."""
        before = self.log.stat().st_size
        eventually(lambda: self.log.stat().st_size > before + 200, 60, what="the load goes on")


@pytest.fixture
def site(redis_url: str, postgres_url: str, tmp_path: Path) -> Iterator[Site]:
    """Start site and load."""
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute("CREATE TABLE written (key text PRIMARY KEY)")
        shop = Shop(redis_url, tmp_path)
        assert shop.ctl("init", shop.name).returncode == 0
        switch = Switch.from_url(redis_url, role="test")
        environment = {"READONLY_STORE": redis_url, "TEST_DATABASE": postgres_url, "PYTHONPATH": str(HERE)}
        log = tmp_path / "load.log"
        with uvicorn(
            "written_site:app", workers=4, log=tmp_path / "server.log", environment=environment, folder=HERE
        ) as server:
            eventually(
                lambda: sum(m.role == "web" and m.synced for m in switch.members()) == 4, what="four members report"
            )
            load = subprocess.Popen(
                [sys.executable, HERE / "hammer.py", str(server.port), str(WRITERS), str(READERS), str(log)],
                stdin=subprocess.PIPE,
                env=children.without_ours(os.environ),
            )
            try:
                yield Site(server, database, switch, shop, log)
            finally:
                assert load.stdin is not None
                load.stdin.close()
                load.wait(60)
                switch.close()
                shop.store.close()


@pytest.mark.timeout(1800)
def test_no_write_commits_between_a_confirmed_on_and_off_in_200_switches(site: Site) -> None:
    """Every switch is confirmed; rows stand still in between, move in every writable phase, and no read is refused."""
    for number in range(SWITCHES):
        site.accepts()
        state = site.switch.on(reason=f"switch {number}")
        confirmation = site.switch.confirm(state.epoch, timeout=60)
        assert confirmation.safe, confirmation.missing
        rows = site.rows()
        site.is_hammered()
        assert site.rows() == rows, f"a write committed after switch {number} was confirmed"
        site.switch.off()
        assert site.switch.confirm(timeout=60).safe
    for _ in range(BY_COMMAND):
        site.accepts()
        _readonlyctl(site.shop, "on", "--expect", "web=4", "--timeout", "60s")
        rows = site.rows()
        site.is_hammered()
        assert site.rows() == rows
        _readonlyctl(site.shop, "off", "--timeout", "60s")

    answers = Counter(tuple(line.split()[0:3:2]) for line in site.log.read_text().splitlines())
    assert set(answers) == {("read", "200"), ("write", "201"), ("write", "503")}, answers
    acknowledged = {line.split()[1] for line in site.log.read_text().splitlines() if line.split()[2] == "201"}
    kept = {row[0] for row in site.database.execute("SELECT key FROM written").fetchall()}
    assert acknowledged <= kept, "an acknowledged write is missing"


def _readonlyctl(shop: Shop, *words: str) -> None:
    done = shop.ctl(*words)
    assert done.returncode == 0, done.stdout + done.stderr
