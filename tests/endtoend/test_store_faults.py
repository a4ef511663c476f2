"""What Redis can do to a running site: forget, die, come back empty, be away when a process starts.

Real processes, a real Redis that is flushed and killed, and rows in a real PostgreSQL.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

from readonly import Switch
from support.processes import WebServer, uvicorn
from support.redis_server import RedisServer
from support.waiting import eventually

HERE = Path(__file__).parent


@dataclass
class Site:
    """A site of two processes on a Redis of its own."""

    redis: RedisServer
    store: str
    database: psycopg.Connection[tuple[int]]
    environment: dict[str, str]
    log: Path

    def start(self) -> WebServer:
        """Start its two processes."""
        return uvicorn("written_site:app", workers=2, log=self.log, environment=self.environment, folder=HERE)

    def rows(self) -> int:
        """Return how many rows are committed."""
        found = self.database.execute("SELECT count(*) FROM written").fetchone()
        assert found is not None
        return found[0]

    def command(self, *arguments: str, code: int = 0) -> str:
        """Run readonlyctl, want this exit code, return what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "readonly", "--store", self.store, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=dict(os.environ),
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr


@pytest.fixture
def site(own_redis: RedisServer, postgres_url: str, tmp_path: Path) -> Iterator[Site]:
    """An initialised site, not started."""
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute("CREATE TABLE written (key text PRIMARY KEY)")
        store = own_redis.url("shop")
        environment = {
            "READONLY_STORE": store,
            "TEST_DATABASE": postgres_url,
            "PYTHONPATH": str(HERE),
            "TEST_INTERVAL": "0.2",
        }
        site = Site(own_redis, store, database, environment, tmp_path / "server.log")
        site.command("init", "shop")
        yield site


def post(server: WebServer, key: str) -> int:
    """Try one write."""
    return httpx.post(f"{server.url}/write", params={"key": key}, timeout=20).status_code


def get(server: WebServer) -> int:
    """Read."""
    return httpx.get(f"{server.url}/read", timeout=20).status_code


def writable(server: WebServer, prefix: str) -> bool:
    """Return whether writes are accepted again; each try has a key of its own."""
    writable.tries += 1  # type: ignore[attr-defined]  # a counter of this function's own
    return post(server, f"{prefix}-{writable.tries}") == 201  # type: ignore[attr-defined]


writable.tries = 0  # type: ignore[attr-defined]


def epoch(site: Site) -> int:
    """Return the epoch of what the store holds, 0 for nothing."""
    store = Switch.from_url(site.store).store
    try:
        raw = store.read().record
    finally:
        store.close()
    if raw is None:
        return 0
    import json

    return int(json.loads(raw)["epoch"])


@pytest.mark.parametrize("fault", ["flush", "kill and restart empty"])
def test_a_store_that_forgets_while_read_only_opens_nothing(site: Site, fault: str) -> None:
    """The record comes back with its epoch or a higher one, no write gets in meanwhile, and `off` opens as always."""
    with site.start() as server:
        eventually(lambda: writable(server, "before"), 20, what="the site is writable")
        site.command("on", "--expect", "web=2", "--timeout", "30s")
        before, rows = epoch(site), site.rows()
        if fault == "flush":
            site.redis.flush()
        else:
            site.redis.kill()
            assert post(server, "while-away") == 503
            assert get(server) == 200
            site.redis.restart()
        tries = 0

        def restored() -> bool:
            nonlocal tries
            tries += 1
            assert post(server, f"lost-{tries}") == 503
            assert get(server) == 200
            return epoch(site) >= before

        eventually(restored, 20, what="a process writes the record back")
        assert site.rows() == rows
        assert "READ-ONLY" in site.command("status", "--expect", "read-only")
        site.command("off", "--timeout", "30s")
        eventually(lambda: writable(server, "after"), 20, what="the site is writable again")


def test_all_processes_restarted_after_a_loss_leave_the_site_shut(site: Site) -> None:
    """Nobody knows the state any more: reads go on, writes wait for a person, and every place says which command."""
    with site.start() as server:
        eventually(lambda: writable(server, "before"), 20, what="the site is writable")
        site.command("on", "--timeout", "30s")
    rows = site.rows()
    site.redis.flush()
    with site.start() as server:
        assert post(server, "nobody-knows") == 503
        assert get(server) == 200
        eventually(lambda: "readonlyctl init shop" in server.output(), 10, what="the log names the command")
        assert "readonlyctl init shop" in site.command("status")
        site.command("off", "--timeout", "1s", code=4)
        assert site.rows() == rows
        site.command("init", "shop")
        eventually(lambda: writable(server, "after-init"), 20, what="`init` opens it")


def test_a_process_that_starts_while_redis_is_down(site: Site) -> None:
    """It serves reads, refuses writes, says that it is not synced, and turns writable by itself."""
    site.redis.kill()
    with site.start() as server:
        assert get(server) == 200
        assert post(server, "too-early") == 503
        eventually(lambda: "was never reached" in server.output(), 10, what="the log says so")
        assert site.rows() == 0
        site.redis.restart()
        site.command("init", "shop")
        eventually(lambda: writable(server, "by-itself"), 20, what="it follows by itself")
