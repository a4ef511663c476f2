"""What Redis can do to a running site: forget, die, come back empty, be away when a process starts.

Real processes, a real Redis that is flushed and killed, and rows in a real PostgreSQL.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psycopg
import pytest

from support.operating import Shop
from support.processes import WebServer, uvicorn
from support.redis_server import RedisServer
from support.waiting import eventually

HERE = Path(__file__).parent


@dataclass
class Site:
    """A site of two processes on a Redis of its own."""

    redis: RedisServer
    shop: Shop
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

    def command(self, *words: str, code: int = 0) -> str:
        """Run readonlyctl, want this exit code, return what it said."""
        done = self.shop.ctl(*words)
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
        site = Site(own_redis, Shop(store, tmp_path), database, environment, tmp_path / "server.log")
        site.command("init", "shop")
        yield site
        site.shop.store.close()


def post(server: WebServer, key: str) -> int:
    """Try one write."""
    return httpx.post(f"{server.url}/write", params={"key": key}, timeout=60).status_code


def get(server: WebServer) -> int:
    """Read."""
    return httpx.get(f"{server.url}/read", timeout=60).status_code


def writable(server: WebServer, prefix: str) -> bool:
    """Return whether writes are accepted again; each try has a key of its own."""
    return post(server, f"{prefix}-{secrets.token_hex(4)}") == 201


def epoch(site: Site) -> int:
    """Return the epoch of what the store holds, 0 for nothing."""
    record = site.shop.look().record
    return record.epoch if record is not None else 0


def test_a_store_that_forgets_while_read_only_opens_nothing(site: Site) -> None:
    """Flushed, then killed and restarted empty: the record comes back, no write gets in, and `off` opens as always."""
    with site.start() as server:
        for fault in ("flush", "kill"):
            eventually(lambda: writable(server, "before"), 20, what="the site is writable")
            site.command("on", "--expect", "web=2", "--timeout", "60s")
            before, rows = epoch(site), site.rows()
            if fault == "flush":
                site.redis.flush()
            else:
                site.redis.kill()
                assert post(server, "while-away") == 503
                assert get(server) == 200
                site.redis.restart()
            eventually(partial(_refuses_until_restored, site, server, before), 20, what="it is restored")
            assert site.rows() == rows
            assert "READ-ONLY" in site.command("status", "--expect", "read-only")
            site.command("off", "--timeout", "60s")
        eventually(lambda: writable(server, "after"), 20, what="the site is writable again")


def _refuses_until_restored(site: Site, server: WebServer, least: int) -> bool:
    assert post(server, f"lost-{secrets.token_hex(4)}") == 503
    assert get(server) == 200
    return epoch(site) >= least


def test_all_processes_restarted_after_a_loss_leave_the_site_shut(site: Site) -> None:
    """Nobody knows the state any more: reads go on, writes wait for a person, and every place says which command."""
    with site.start() as server:
        eventually(lambda: writable(server, "before"), 20, what="the site is writable")
        site.command("on", "--timeout", "60s")
    rows = site.rows()
    site.redis.flush()
    with site.start() as server:
        assert post(server, "nobody-knows") == 503
        assert get(server) == 200
        eventually(lambda: "readonlyctl init shop" in server.output(), 10, what="the log names the command")
        assert "readonlyctl init shop" in site.command("status")
        site.command("off", "--timeout", "300ms", code=4)
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
