"""A fence at MariaDB by the command: on, off, wait, status, `fence …` and run, with a server that forgets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from readonly import changes
from support.mariadb_layouts import REFUSED, MariaShop, maria_shop, said
from support.mariadb_server import MariaDBServer
from support.operating import ANNA, Member, Shop, json_lines, made, members

WRITE = "INSERT INTO story (title) VALUES ('x')"
# What a migration does: as its own account, which read_only does not stop.
MIGRATE = """
import os, pymysql
c = pymysql.connect(host="127.0.0.1", port=int(os.environ["PORT"]), user="migrator", database=os.environ["DATABASE"])
c.cursor().execute("ALTER TABLE story ADD COLUMN words int")
c.cursor().execute("UPDATE story SET words = 1")
c.commit()
c.close()
"""


class Site:
    """A site with one process, its database, and the operator's file that names both."""

    def __init__(self, shop: Shop, database: MariaShop, file: Path) -> None:
        self.shop, self.database, self.file = shop, database, file

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.shop.here("--config", str(self.file), *words)

    def writes(self) -> int:
        """Return the number of the error that the application gets for a write, or 0."""
        return self.database.tried("app", WRITE)[0]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, Member]]:
    """A site and its process, for all tests here."""
    shop = made(tmp_path_factory.mktemp("maria") / "shop.db")
    with members(shop) as (member,):
        yield shop, member
    shop.store.close()


@pytest.fixture
def site(one_process: tuple[Shop, Member], mariadb_to_fence: MariaDBServer, tmp_path: Path) -> Iterator[Site]:
    """Writable, not fenced."""
    shop, _ = one_process
    with maria_shop(mariadb_to_fence) as database:
        file = tmp_path / "readonly.toml"
        file.write_text(
            f'store = "{shop.url}"\n[fence.main]\nurl = "{database.url()}"\nwriters = ["app"]\n'
            'migrators = ["migrator", "fencer"]\n',
            encoding="utf-8",
        )
        yield Site(shop, database, file)
        for cause in shop.look().state.causes:
            if cause.kind in ("fence", "run"):
                changes.lift_exactly(shop.store, ANNA, cause.id)
        shop.open()
        shop.reports()


def test_on_says_hard_and_off_opens_both(site: Site) -> None:
    """SAFE (hard) with the GTID; afterwards the application writes again."""
    plan = site.ctl("fence", "plan")
    assert plan.returncode == 0, plan.stdout
    assert "main: hard by global: read_only makes the whole server refuse" in plan.stdout
    done = site.ctl("on", "--reason", "INC-441", "--require", "hard")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fence main: hard, but for: " in done.stdout
    assert "SAFE (hard) after " in done.stdout
    assert f" at {site.database.fence().status().position}" in done.stdout  # type: ignore[union-attr]
    assert site.writes() == REFUSED
    assert site.ctl("status", "--expect", "safe").returncode == 0
    status = site.ctl("fence", "status")
    assert status.returncode == 0, status.stdout
    assert "main: a fence stands, hard by global, at 0-1-" in status.stdout
    done = site.ctl("off")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Lifted   fence main: " in done.stdout
    assert site.writes() == 0


def test_who_is_waited_for_is_named_and_ended_when_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a deadline for it: exit 3, and the server takes writes, said. With one: ended, and SAFE."""
    monkeypatch.setattr("readonly.site.FENCE_SECONDS", 0.3)
    writing = site.database.session(autocommit=False)
    said(writing, WRITE)
    done = site.ctl("on", "--timeout", "300ms")
    assert done.returncode == 3
    assert f"fence main waits for session {writing.thread_id()} (app)" in done.stderr
    assert "the server was not made to refuse, and takes writes" in done.stdout
    assert site.writes() == 0
    status = site.ctl("status", "--expect", "safe")
    assert status.returncode == 3
    assert "NOT FENCED: the fence main is not up yet" in status.stdout
    done = site.ctl("wait", "--end-writers-after", "1ms")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ended: session {writing.thread_id()} (app)" in done.stdout
    assert site.ctl("off").returncode == 0


def test_a_server_that_forgot_is_found_by_status_and_raised_again_by_wait(site: Site) -> None:
    """A restart drops read_only: nobody calls that safe, and what it means is said."""
    assert site.ctl("on").returncode == 0
    site.database.forget()
    status = site.ctl("status", "--expect", "safe")
    assert status.returncode == 3
    assert "NOT FENCED: the fence main does not cover everything: read_only is off" in status.stdout
    assert "readonlyctl fence raise main" in status.stdout
    assert site.ctl("status", "--expect", "read-only").returncode == 0
    found = site.ctl("fence", "status")
    assert found.returncode == 3
    assert "not covered: everything: read_only is off" in found.stdout
    done = site.ctl("wait")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "covered since: everything: read_only is off" in done.stdout
    assert site.writes() == REFUSED
    assert site.ctl("status", "--expect", "safe").returncode == 0
    site.database.forget()
    (raised,) = json_lines(site.ctl("fence", "raise", "--json").stdout)[-1:]
    assert "read_only is off" in raised["fences"][0]["found"][0]
    site.database.forget()
    done = site.ctl("off")
    assert done.returncode == 0
    assert "warning: main: everything: read_only is off" in done.stdout


def test_a_fence_that_is_gone_or_cant_be_asked_is_not_called_safe(site: Site) -> None:
    """The record names it; its server does not, or does not answer."""
    assert site.ctl("on").returncode == 0
    site.database.fence().lift(site="shop")
    status = site.ctl("status", "--expect", "safe")
    assert (status.returncode, "is in the record, and not at its server" in status.stdout) == (3, True)
    config = site.file.read_text(encoding="utf-8")
    site.file.write_text(config.replace(f":{site.database.server.port}/", ":1/"), encoding="utf-8")
    status = site.ctl("status", "--expect", "safe")
    assert (status.returncode, "still stands is not known" in status.stdout) == (3, True)
    site.file.write_text(config, encoding="utf-8")
    assert site.ctl("off").returncode == 0


def test_fence_raise_and_lift_one_by_one(site: Site) -> None:
    """Raised for what stands; lifted, the site stays read-only; an orphan by name alone."""
    assert site.ctl("on", "--no-fence").returncode == 0
    assert site.ctl("fence", "raise", "main").returncode == 0
    assert site.writes() == REFUSED
    done = site.ctl("fence", "lift", "main")
    assert done.returncode == 0, done.stdout
    assert site.writes() == 0
    site.database.up()
    site.database.sql("UPDATE readonly_fence SET site = 'blog'")
    assert site.ctl("fence", "lift", "main").returncode == 6
    assert site.ctl("fence", "lift", "main", "--orphan").returncode == 0
    assert site.writes() == 0
    assert site.ctl("off").returncode == 0


def test_run_migrates_behind_the_fence_and_opens(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The migrator's account has READ ONLY ADMIN; everybody else is refused until it is done."""
    monkeypatch.setenv("PORT", str(site.database.server.port))
    monkeypatch.setenv("DATABASE", site.database.name)
    before = site.database.server.gtid
    dry = site.ctl("run", "--dry-run")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert site.database.server.gtid == before
    refused = "raise SystemExit(3)"
    done = site.ctl("run", "--", sys.executable, "-c", refused)
    assert done.returncode == 3, done.stdout + done.stderr
    assert site.writes() == REFUSED
    found = site.database.fence().status()
    assert found is not None
    assert found.run
    done = site.ctl("resume", found.run, "--", sys.executable, "-c", MIGRATE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.database.sql("SELECT DISTINCT words FROM story") == "1"
    assert site.writes() == 0
    assert site.database.fence().status() is None
