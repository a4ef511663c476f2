"""`on` and `wait` say whether replicas have passed the fence: those in readonly.toml, and those that members read."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from readonly import changes
from readonly.members import Guarded, Report
from readonly.record import FenceMark
from readonly.site import Look
from support.fence_layouts import Shop as Database
from support.fence_layouts import two_roles
from support.operating import ANNA, Member, Running, Shop, json_lines
from support.postgres_server import PostgresPair


class Site:
    """A site whose database has a real standby, and the operator's file that names both."""

    def __init__(self, shop: Shop, database: Database, pair: PostgresPair) -> None:
        self.shop, self.database, self.pair = shop, database, pair
        self.file = shop.folder / "readonly.toml"
        self.names(pair.standby.url(database.name, user=database.fencer))

    @property
    def standby(self) -> str:
        """What the standby is called."""
        return f"127.0.0.1:{self.pair.standby.port}/{self.database.name}"

    def names(self, *replicas: str, more: str = "") -> None:
        """Have the operator's file name these."""
        url = self.database.server.url(self.database.name, user=self.database.fencer)
        listed = ", ".join(f'"{replica}"' for replica in replicas)
        self.file.write_text(
            f'store = "{self.shop.url}"\n[fence.main]\nurl = "{url}"\nwriters = ["{self.database.app}"]\n'
            f'migrators = ["owner_", "fencer"]\nreplicas = [{listed}]\n{more}',
            encoding="utf-8",
        )

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.shop.here("--config", str(self.file), *words)

    def start(self, *words: str) -> Running:
        return self.shop.start("--config", str(self.file), *words)

    def paused(self) -> None:
        """Have the standby not replay what is written from now on."""
        self.pair.wait_replayed()
        self.pair.standby.sql("SELECT pg_wal_replay_pause()")

    def replays(self) -> None:
        """Have it go on."""
        self.pair.standby.sql("SELECT pg_wal_replay_resume()")

    def look(self) -> Look:
        return self.shop.look()


@pytest.fixture(scope="module")
def database() -> Iterator[tuple[Database, PostgresPair]]:
    """A database on a primary with a standby."""
    pair = PostgresPair()
    try:
        with two_roles(pair.primary) as made_there:
            pair.wait_replayed()
            yield made_there, pair
    finally:
        pair.close()


@pytest.fixture
def site(database: tuple[Database, PostgresPair], served: tuple[Shop, Member]) -> Iterator[Site]:
    """A writable site with one process; afterwards no fence stands, and the standby replays."""
    shop, _ = served
    found = Site(shop, *database)
    yield found
    found.replays()
    for member in shop.look().census.reports:
        if b"web-9" in member.report:
            shop.store.forget(member.member)
    found.database.fence().lift(site="shop")
    for cause in shop.look().state.causes:
        if cause.fence is not None:
            changes.lift_exactly(shop.store, ANNA, cause.id)


def _member(*replicas: dict[str, str], causes: tuple[str, ...] = ()) -> Report:
    """Return a process that reads from these."""
    server = {"server": "postgresql", "replicas": list(replicas)}
    return Report(
        id=secrets.token_hex(16), host="web-9", namespace="elsewhere", pid=1, role="web", interval=300,
        guards=(Guarded("main", "", server),), causes=causes, synced=True,
    )  # fmt: skip


def test_it_says_how_many_are_there(site: Site) -> None:
    """Beside the fence, in words and in JSON."""
    said = site.ctl("on", "--timeout", "60s")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "  replicas: 1 of 1 there" in said.stdout
    *_, document = json_lines(site.ctl("--json", "wait").stdout)
    assert document["replicas"] == {"there": 1, "of": 1}
    site.names()
    *_, document = json_lines(site.ctl("--json", "wait").stdout)
    assert document["replicas"] is None


def test_it_waits_until_the_last_one_is_there(site: Site) -> None:
    """And says for whom: a read there would still show what was before the last writes."""
    with psycopg.connect(site.pair.standby.url(site.database.name)) as reader:
        reader.execute("SELECT count(*) FROM story")
        # What comes next in the log waits for that reader.
        site.database.sql("BEGIN; LOCK TABLE story IN ACCESS EXCLUSIVE MODE; DELETE FROM story WHERE id < 0; COMMIT")
        with site.start("on", "--timeout", "60s") as going:
            going.says(f"replica {site.standby} is at ")
            reader.rollback()
            assert going.ends() == 0, going.out + going.err
    assert "replicas: 1 of 1 there" in going.out


def test_one_that_stays_behind_is_named(site: Site) -> None:
    """Exit 3: it is read-only and fenced, and not all pages show it; `wait` goes on from there."""
    site.paused()
    said = site.ctl("on", "--timeout", "100ms")
    assert said.returncode == 3
    assert "replicas: 0 of 1 there" in said.stdout
    assert f"{site.standby} " in said.stdout[said.stdout.index("Missing:") :]
    assert site.look().state.read_only
    assert site.database.tried(site.database.app, "INSERT INTO story (title) VALUES ('x')") == ["42501"]
    site.replays()
    assert site.ctl("wait", "--timeout", "60s").returncode == 0


@pytest.mark.usefixtures("half_a_second_for_fences")
def test_one_that_is_not_there_is_named(site: Site) -> None:
    """Whoever put it into the file counts on it."""
    site.names("postgresql://fencer@127.0.0.1:1/shop")
    said = site.ctl("on", "--timeout", "100ms")
    assert said.returncode == 3
    assert "replicas: 0 of 1 there" in said.stdout
    assert "127.0.0.1:1/shop" in said.stdout[said.stdout.index("Missing:") :]


def test_what_members_read_from_is_waited_for(site: Site) -> None:
    """Also where this machine knows of no replica."""
    site.names()
    writer = site.database.session(site.database.app, autocommit=False)
    writer.execute("INSERT INTO story (title) VALUES ('still open')")
    with site.start("on", "--timeout", "60s") as going:
        going.says("fence main waits for")
        causes = tuple(c.id for c in site.look().state.causes)
        behind = {"name": "db2:5432/shop", "unfit": "is behind", "behind": "is at 0/1 and has not reached 0/2"}
        reading = _member(behind, causes=causes)
        site.shop.reported(reading)
        writer.rollback()
        going.says("replica db2:5432/shop is at 0/1")
        there = replace(reading, guards=_member({"name": "db2:5432/shop", "unfit": ""}).guards)
        site.shop.reported(there)
        assert going.ends() == 0, going.out + going.err
    assert "replicas: 1 of 1 there" in going.out


def test_the_record_holds_the_schema_at_the_fence(site: Site) -> None:
    """Once: a fence that is raised again after a migration says what was there before it."""
    site.database.sql("CREATE TABLE version (v text); INSERT INTO version VALUES ('0041')")
    site.database.sql("GRANT SELECT ON version TO fencer")
    site.names(more='schema = "SELECT v FROM version"\n')
    try:
        assert site.ctl("on", "--timeout", "60s").returncode == 0
        assert _fence_of(site).schema == "0041"
        site.database.sql("UPDATE version SET v = '0042'")
        assert site.ctl("fence", "raise").returncode == 0
        assert _fence_of(site).schema == "0041"
        # One that can't be asked for keeps no fence from standing.
        site.database.fence().lift(site="shop")
        site.ctl("fence", "lift", "main")
        site.database.sql("DROP TABLE version")
        assert site.ctl("fence", "raise").returncode == 0
        assert _fence_of(site).schema == ""
    finally:
        site.database.sql("DROP TABLE IF EXISTS version")


def _fence_of(site: Site) -> FenceMark:
    """Return what the record holds of the fence."""
    (mark,) = [c.fence for c in site.look().state.causes if c.fence is not None]
    return mark
