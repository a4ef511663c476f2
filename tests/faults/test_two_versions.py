"""Two versions of the library in one site: neither loses what only the other understands."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from faults.arena import Arena
from faults.history import Recorder
from faults.truth import Truth
from faults.versions import CAUSE_FIELD, FIELD, NEWER, REPORT_FIELD, newer
from readonly.stores import Store, store_from_url
from support import children
from support.postgres_server import PostgresServer
from support.redis_server import RedisServer
from support.waiting import eventually

OLD_SLOT, NEW_SLOT = 0, 1


@dataclass
class Site:
    """A worker of each version, and operators of both."""

    arena: Arena
    truth: Truth
    store: Store
    code: str

    def ctl(self, *words: str, new: bool = False) -> subprocess.CompletedProcess[str]:
        """Type a command, with the newer version or with ours."""
        return subprocess.run(
            [sys.executable, "-m", "readonly", *words],
            env=children.without_ours(os.environ)
            | {"READONLY_STORE": self.arena.url(None), "READONLY_OPERATOR": "anna"}
            | ({"PYTHONPATH": self.code} if new else {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.arena.folder,
            timeout=120,
        )

    def must(self, *words: str, new: bool = False) -> str:
        """Type a command that has to succeed."""
        done = self.ctl(*words, new=new)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def post(self, slot: int) -> int:
        """Try one write."""
        url = f"http://127.0.0.1:{self.arena.slots[slot].port}/write"
        return httpx.post(url, params={"key": f"k{slot}-{time.monotonic_ns()}"}, timeout=20).status_code

    def writes(self, slot: int) -> bool:
        """Return whether a write is accepted."""
        return self.post(slot) == 201

    def get(self, slot: int) -> int:
        """Read."""
        return httpx.get(f"http://127.0.0.1:{self.arena.slots[slot].port}/read", timeout=20).status_code

    def record(self) -> bytes | None:
        """Return what the store holds."""
        return self.store.read().record

    def reports(self) -> list[dict[str, object]]:
        """Return what the members report."""
        return [json.loads(seen.report) for seen in self.store.census().reports]


@pytest.fixture(params=[1, 2])
def site(
    request: pytest.FixtureRequest, postgres: PostgresServer, database: str, own_redis: RedisServer, tmp_path: Path
) -> Iterator[Site]:
    """A site with a worker of each version, writable; the parameter is the version of the newer one's records."""
    code = newer(tmp_path, record_version=request.param)
    recorder = Recorder(tmp_path / "round.jsonl")
    with contextlib.closing(recorder), Truth(postgres, database) as truth:
        truth.prepare()
        with (
            Arena(tmp_path, truth.url, own_redis, recorder) as arena,
            contextlib.closing(store_from_url(arena.url(None))) as store,
        ):
            made = Site(arena, truth, store, code)
            made.must("init", "shop")
            arena.add_slot(OLD_SLOT)
            arena.add_slot(NEW_SLOT, code=code)
            for slot in arena.slots:
                arena.start_worker(slot)
            for slot in arena.slots:
                arena.wait_for_worker(slot)
                eventually(functools.partial(made.writes, slot), 20, what="it is writable")
            yield made


@pytest.mark.parametrize("site", [1], indirect=True)
def test_what_only_the_newer_one_understands_survives_the_older_one(site: Site) -> None:
    """An `off` and a write-back by the older version keep the fields, in the record and in its causes."""
    versions = {report["library"]: report.get(REPORT_FIELD) for report in site.reports()}
    assert versions[NEWER] == "fine"
    assert len(versions) == 2
    # Reports with an unknown field are reports: both obey, and "safe" is said by either.
    site.must("on", "--expect", "web=2", "--timeout", "60s", new=True)
    site.must("wait", "--expect", "web=2", "--timeout", "60s")
    rows = site.truth.rows()
    before = site.record()
    assert before is not None
    assert json.loads(before)[FIELD] == [1, 2]
    # Only the older one is left to know it.
    site.arena.kill_worker(NEW_SLOT)
    site.arena.redis.flush()
    eventually(lambda: site.record() is not None, what="it is written back")
    assert site.record() == before
    assert [cause[CAUSE_FIELD] for cause in json.loads(before)["causes"]] == [3]
    assert (site.post(OLD_SLOT), site.get(OLD_SLOT)) == (503, 200)
    assert site.truth.rows() == rows
    site.must("off", "--timeout", "60s")
    after = site.record()
    assert after is not None
    assert json.loads(after)[FIELD] == [1, 2]
    eventually(lambda: site.post(OLD_SLOT) == 201, 20, what="it is writable again")


@pytest.mark.parametrize("site", [2], indirect=True)
def test_a_record_of_a_version_that_is_not_known_is_read_only_and_is_left_alone(site: Site) -> None:
    """The older worker refuses writes and serves reads, and gives back byte for byte what it can't read."""
    site.must("on", "--no-wait", new=True)
    eventually(lambda: (site.post(OLD_SLOT), site.post(NEW_SLOT)) == (503, 503), what="both refuse writes")
    before, rows = site.record(), site.truth.rows()
    assert before is not None
    assert json.loads(before)["v"] == 2
    for words in (["off", "--all"], ["on", "--no-wait"], ["init", "shop", "--replace"]):
        assert site.ctl(*words).returncode not in (0, 3), words
        assert site.record() == before
    assert "upgrade readonly-mode" in site.ctl("status").stdout
    site.arena.kill_worker(NEW_SLOT)
    site.arena.redis.flush()
    eventually(lambda: site.record() is not None, what="it is written back")
    assert site.record() == before
    assert (site.post(OLD_SLOT), site.get(OLD_SLOT)) == (503, 200)
    # Writable, as the newer version says; the older one can't know.
    site.arena.start_worker(NEW_SLOT)
    site.arena.wait_for_worker(NEW_SLOT)
    assert site.truth.rows() == rows
    site.ctl("off", "--timeout", "1s", new=True)
    eventually(lambda: site.post(NEW_SLOT) == 201, 20, what="the newer one is writable again")
    assert (site.post(OLD_SLOT), site.get(OLD_SLOT)) == (503, 200)
