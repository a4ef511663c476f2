"""A replica of MariaDB's takes over while a site is read-only and fenced: what `status`, `fence` and `off` make of it.

Unlike a standby of PostgreSQL's it has no name in common with its primary, and `read_only` does not come along: the
fence's table does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from readonly.databases.replicas import Standing
from support.mariadb_layouts import REFUSED, MariaShop, maria_shop
from support.mariadb_server import MariaDBPair
from support.moved_site import WRITE, MovedSite
from support.operating import json_lines, made, members

PASSES = 0


class Servers(NamedTuple):
    """The old primary, the replica that took over, and what was found there in its first moments."""

    old: MariaShop
    new: MariaShop
    following: Standing
    stopped: Standing
    fell: tuple[str, ...]


class Site(MovedSite[MariaShop]):
    """One whose new server carries the fence's table, as a replica's does."""

    kind = "mysql"

    def fence_of(self, database: MariaShop) -> str:
        return f'url = "{database.url()}"\nwriters = ["app"]\nmigrators = ["migrator", "fencer"]'

    def fenced(self) -> None:
        """Turn it read-only with the fence at the old server, and have the new one carry the table."""
        holder = self.turned_on()
        up = self.old.fence().status()
        assert up is not None
        assert up.position is not None
        self.new.up(cause=holder)
        self.new.sql(f"UPDATE readonly_fence SET server = '{up.position.server}', position = '{up.position.at}'")
        self.new.forget()

    def writes(self) -> tuple[int, int]:
        """Return what the application gets for a write at the old server, and at the one that took over."""
        return self.old.tried("app", WRITE)[0], self.new.tried("app", WRITE)[0]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """A primary that was fenced while its replica followed, and that replica, which then took over."""
    pair = MariaDBPair()
    try:
        with maria_shop(pair.primary) as old:
            new = MariaShop(pair.replica, old.name)
            old.up()
            pair.wait_replicated()
            following = new.fence().look()
            pair.replica.sql("STOP SLAVE")
            stopped = new.fence().look()
            fell = new.fence().open_tables()
            pair.replica.sql("RESET SLAVE ALL")
            yield Servers(old, new, following, stopped, fell)
            new.close()
    finally:
        pair.close()


@pytest.fixture
def site(servers: Servers, tmp_path: Path) -> Iterator[Site]:
    """A site whose file leads to the old server; no server has a fence before and after."""
    shop = made(tmp_path / "shop.db")
    for database in servers[:2]:
        database.fence().lift(site="shop")
    yield Site(shop, *servers[:2])
    for database in servers[:2]:
        database.fence().lift(site="shop", orphan=True)
        database.forget()
    shop.store.close()


def test_each_says_which_server_it_is(servers: Servers) -> None:
    """By its own name; one that was only told to stop following, and takes writes, has one as well."""
    uids = [one.server.sql("SELECT CONCAT(@@server_uid, ':', @@server_id)") for one in servers[:2]]
    found = [one.fence().look() for one in servers[:2]]
    assert [one.system for one in found] == uids
    assert len(set(uids)) == 2
    assert (servers.following.replica, servers.following.system) == (True, "")
    assert (servers.stopped.replica, servers.stopped.system) == (False, uids[1])


def test_the_table_comes_along_and_what_refuses_does_not(servers: Servers) -> None:
    """The new server knows that a fence stood at another one."""
    (fell,) = servers.fell
    assert fell.startswith("everything: read_only is off at ")
    assert "another server took over" in fell


def test_off_is_refused_while_members_differ(site: Site) -> None:
    """It says who is where, and both ways on; nothing is changed. Told to stay, it opens the old server alone."""
    site.fenced()
    site.members(site.new, site.new, site.old)
    said = site.ctl("off", "--timeout", "100ms")
    assert said.returncode == 6
    assert "REFUSED: main is not the server that was fenced, and not all members have moved." in said.stdout
    assert site.mark is not None
    for part in ("fenced at", f"system {site.mark.system}", "2 members", "1 member: web web-2/4711"):
        assert part in said.stdout
    assert "off --moved main" in said.stdout
    assert "off --stay main" in said.stdout
    assert site.read_only
    assert site.writes() == (REFUSED, PASSES)
    *_, document = json_lines(site.ctl("--json", "off").stdout)
    (split,) = document["splits"]
    assert [len(server["members"]) for server in split["now"]] == [2, 1]
    assert split["fenced"]["system"] == split["now"][1]["system"]
    assert "MOVED: main is not the server that was fenced" in site.ctl("status").stdout
    assert site.ctl("off", "--stay", "main", "--timeout", "100ms").returncode in (0, 3)
    assert not site.read_only
    assert site.writes() == (PASSES, PASSES)


def test_everybody_moved_and_this_machine_leads_to_the_old_server(site: Site) -> None:
    """Refused until somebody says it; then the old server goes on refusing, and how to lift that is said."""
    site.fenced()
    site.members(site.new)
    assert site.ctl("off", "--timeout", "100ms").returncode == 6
    opened = site.ctl("off", "--moved", "main", "--timeout", "100ms")
    assert "its fence stays at" in opened.stdout
    assert not site.read_only
    assert site.writes() == (REFUSED, PASSES)


def test_everybody_moved_and_this_machine_leads_there(site: Site) -> None:
    """Told so, what came along there is taken away; the old server goes on refusing."""
    site.fenced()
    site.members(site.new)
    site.leads_to(site.new)
    said = site.ctl("off", "--timeout", "100ms")
    assert said.returncode == 6
    assert "main is not the server that was fenced." in said.stdout
    opened = site.ctl("off", "--moved", "main", "--timeout", "100ms")
    assert "everything: read_only is off" in opened.stdout  # who may have written there meanwhile is said
    assert not site.read_only
    assert site.new.fence().status() is None
    assert site.old.fence().status() is not None
    assert site.writes() == (REFUSED, PASSES)


def test_a_fence_is_not_let_go_of_at_a_server_that_was_not_fenced(site: Site) -> None:
    """Told to stay, with a file that leads to the new server: nothing opens, and what to write there is said."""
    site.fenced()
    site.is_told_to_stay_from(site.new)
    assert site.writes()[0] == PASSES


@pytest.mark.parametrize("carried", [True, False])
def test_it_is_raised_again_where_it_did_not_survive(site: Site, carried: bool) -> None:
    """`status` and `fence status` say so, whether or not its table came along; raising it again is enough."""
    site.fenced()
    if not carried:
        site.new.fence().lift(site="shop")
    before = site.mark
    site.members(site.new)
    site.leads_to(site.new)
    said = site.ctl("status", "--expect", "safe")
    assert said.returncode == 3
    assert f"NOT FENCED: the fence main {'does not cover everything' if carried else 'is in the record'}" in said.stdout
    assert site.ctl("fence", "status").returncode == 3
    raised = site.ctl("fence", "raise", "main")
    assert raised.returncode == 0, raised.stdout
    assert ("another server took over" in raised.stdout) == carried
    after = site.mark
    assert before is not None
    assert after is not None
    assert (before.system, after.system) == tuple(one.fence().look().system for one in (site.old, site.new))
    assert site.writes() == (REFUSED, REFUSED)
    assert "NOT FENCED" not in site.ctl("status").stdout
    site.ctl("off", "--timeout", "100ms")
    assert not site.read_only
    assert site.writes() == (REFUSED, PASSES)


def test_on_again_raises_it_too(site: Site) -> None:
    """Whoever types `on` once more after a failover is told that it is safe only when it is, at the new server."""
    site.fenced()
    site.members()
    site.leads_to(site.new)
    said = site.ctl("--json", "on", "--timeout", "100ms")
    *_, document = json_lines(said.stdout)
    assert [fence["name"] for fence in document["fences"]] == ["main"]
    assert site.writes() == (REFUSED, REFUSED)
    assert site.mark is not None
    assert site.mark.system == site.new.fence().look().system


def test_a_run_goes_on_at_the_server_that_took_over(site: Site) -> None:
    """Its command failed, and the primary was replaced: `resume` finds that nothing refuses there, and ends open."""
    with members(site.shop):
        assert site.ctl("run", "--timeout", "60s", "--", "false").returncode == 1
        run = next(c.id for c in site.shop.look().state.causes if c.kind == "run")
        assert site.writes() == (REFUSED, PASSES)
        site.leads_to(site.new)
        assert site.ctl("resume", run, "--", "false").returncode == 1
        assert site.mark is not None
        assert site.mark.system == site.new.fence().look().system
        assert site.writes() == (REFUSED, REFUSED)
        done = site.ctl("resume", run, "--", "true")
        assert done.returncode == 0, done.stdout + done.stderr
    assert not site.read_only
    assert site.writes() == (REFUSED, PASSES)
