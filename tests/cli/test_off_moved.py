"""A standby is promoted, or another server takes over, while a site is read-only and fenced: what `off` makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.fence_layouts import Shop as Database
from support.fence_layouts import two_roles
from support.moved_site import WRITE, MovedSite
from support.operating import Shop, json_lines, made, members
from support.postgres_server import PostgresPair, PostgresServer

REFUSED, PASSES = "42501", ""


class Site(MovedSite[Database]):
    """One that has a third server, with no more in common than its tables."""

    kind, told = "postgresql", ("system", "timeline")

    def __init__(self, shop: Shop, old: Database, new: Database, other: Database) -> None:
        self.other = other
        super().__init__(shop, old, new)

    def fence_of(self, database: Database) -> str:
        url = database.server.url(database.name, user=database.fencer)
        return f'url = "{url}"\nwriters = ["{database.app}"]\nmigrators = ["owner_", "fencer"]'

    def carried(self) -> None:
        """Have the promoted server carry the fence: the real one came along once, and the tests lift it."""
        holder = next(c for c in self.shop.look().state.causes if c.kind == "operator")
        self.new.up(cause=holder.id)

    def writes(self) -> tuple[str, str]:
        """Return what the application gets for a write at the old server, and at the promoted one."""
        return self.old.tried(self.old.app, WRITE)[0], self.new.tried(self.new.app, WRITE)[0]


class Servers(NamedTuple):
    """The old primary, the promoted standby, and what the latter refused in its first moment."""

    old: Database
    new: Database
    other: Database
    refused: list[str]


@pytest.fixture(scope="module")
def servers(postgres: PostgresServer) -> Iterator[Servers]:
    """A primary that was fenced while its standby followed, and that standby, promoted; and a server of its own."""
    pair = PostgresPair()
    try:
        with two_roles(pair.primary) as old:
            old.up()
            pair.wait_replayed()
            pair.standby.promote()
            new = Database(pair.standby, old.name, app=old.app, owner=old.owner, fencer=old.fencer)
            refused = new.tried(new.app, WRITE) if new.fence().status() is not None else []
            with two_roles(postgres) as other:
                yield Servers(old, new, other, refused)
            new.close()
    finally:
        pair.close()


@pytest.fixture
def site(servers: Servers, tmp_path: Path) -> Iterator[Site]:
    """A site whose file leads to the old server; no server has a fence before and after."""
    shop = made(tmp_path / "shop.db")
    three = servers[:3]
    for database in three:
        database.fence().lift(site="shop")
    yield Site(shop, *three)
    for database in three:
        database.fence().lift(site="shop")
    shop.store.close()


def test_the_fence_comes_along(servers: Servers) -> None:
    """It is in the log: the promoted server refuses from its first moment, and says that it is another one."""
    was, now = servers.old.fence().look(), servers.new.fence().look()
    assert (was.system, was.timeline, now.timeline) == (now.system, "1", "2")
    assert servers.refused == [REFUSED]


def test_off_is_refused_while_members_differ(site: Site) -> None:
    """It says who is where, and both ways on; nothing is changed. Told to stay, it opens the old server alone."""
    site.turned_on()
    site.carried()
    site.members(site.new, site.new, site.old)
    said = site.ctl("off", "--timeout", "100ms")
    assert said.returncode == 6
    assert "REFUSED: a standby of main was promoted, and not all members have moved." in said.stdout
    for part in ("fenced at", "timeline 1", "timeline 2", "2 members", "1 member: web web-2/4711"):
        assert part in said.stdout
    assert "off --moved main" in said.stdout
    assert "off --stay main" in said.stdout
    assert site.read_only
    assert site.writes() == (REFUSED, REFUSED)
    *_, document = json_lines(site.ctl("--json", "off").stdout)
    (split,) = document["splits"]
    assert [len(server["members"]) for server in split["now"]] == [2, 1]
    assert split["fenced"]["timeline"] == "1"
    assert "MOVED: a standby of main was promoted" in site.ctl("status").stdout
    assert site.ctl("off", "--stay", "main", "--timeout", "100ms").returncode in (0, 3)
    assert not site.read_only
    assert site.writes() == (PASSES, REFUSED)


def test_everybody_moved_to_what_was_promoted(site: Site) -> None:
    """Then nothing need be said: the fence came along, is found there, and comes down there."""
    site.turned_on()
    site.carried()
    site.members(site.new, site.new)
    refused = site.ctl("off", "--timeout", "100ms")
    assert refused.returncode == 6  # this machine would lift the fence of the old one
    assert "[fence.main] on this machine leads to another server than members write to" in refused.stdout
    told = site.ctl("off", "--moved", "main", "--timeout", "100ms")
    assert told.returncode == 3
    assert "stands at the promoted server as well" in told.stdout
    assert site.read_only
    site.leads_to(site.new)
    site.ctl("off", "--timeout", "100ms")
    assert not site.read_only
    assert site.writes() == (REFUSED, PASSES)


def test_another_system(site: Site) -> None:
    """By logical replication, a dump, an upgrade: refused until somebody says it; the old fence stays where it is."""
    site.turned_on()
    site.members(site.other)
    refused = site.ctl("off")
    assert refused.returncode == 6
    assert "main is not the server that was fenced" in refused.stdout
    assert "it has moved there:" in refused.stdout
    opened = site.ctl("off", "--moved", "main", "--timeout", "100ms")
    assert "its fence stays at" in opened.stdout
    assert not site.read_only
    assert site.writes()[0] == REFUSED
    assert site.other.tried(site.other.app, WRITE) == [PASSES]


def test_a_fence_is_not_let_go_of_at_a_server_that_was_not_fenced(site: Site) -> None:
    """Told to stay, with a file that leads elsewhere: nothing opens, and what to write there is said."""
    site.turned_on()
    site.is_told_to_stay_from(site.other)
    assert site.writes()[0] == PASSES


def test_names_that_nothing_stands_for(site: Site) -> None:
    """Said, and nothing is changed."""
    site.turned_on()
    site.members(site.old)
    for words in (("--moved", "stats"), ("--stay", "stats"), ("--moved", "main", "--stay", "main")):
        said = site.ctl("off", *words)
        assert said.returncode == 2
        assert "Nothing was changed" in said.stderr + said.stdout
    assert site.read_only


def test_another_cause_stands(site: Site) -> None:
    """Lifting one of two opens nothing, so nobody has to say anything."""
    site.turned_on()
    site.members(site.old, site.new)
    ben = site.shop.here("--config", str(site.file), "on", "--no-wait", environment={"READONLY_OPERATOR": "ben"})
    assert ben.returncode == 0
    assert site.ctl("off", "--timeout", "100ms").returncode == 3
    assert "ben" in site.shop.standing()
    assert site.read_only


# --- after a failover the fence is verified, and raised again where it did not survive --------------------------------


def test_a_fence_that_did_not_survive(site: Site) -> None:
    """Promoted before its log had arrived: `status` says so, `fence status` too; raising it again is enough."""
    site.turned_on()
    site.members(site.new)
    site.leads_to(site.new)
    assert site.new.tried(site.new.app, WRITE) == [PASSES]
    said = site.ctl("status", "--expect", "safe")
    assert said.returncode == 3
    assert "NOT FENCED: the fence main is in the record, and not at its server" in said.stdout
    assert site.ctl("fence", "status").returncode == 3
    before = site.mark
    raised = site.ctl("fence", "raise", "main")
    assert raised.returncode == 0, raised.stdout
    after = site.mark
    assert before is not None
    assert after is not None
    assert (before.system, before.timeline, after.timeline) == (after.system, "1", "2")
    assert site.writes() == (REFUSED, REFUSED)
    assert "NOT FENCED" not in site.ctl("status").stdout
    site.ctl("off", "--timeout", "100ms")
    assert not site.read_only
    assert site.writes() == (REFUSED, PASSES)


def test_on_again_raises_it_too(site: Site) -> None:
    """Whoever types `on` once more after a failover is told that it is safe only when it is, at the new server."""
    site.turned_on()
    site.members()
    site.leads_to(site.new)
    said = site.ctl("--json", "on", "--timeout", "100ms")
    *_, document = json_lines(said.stdout)
    assert [fence["name"] for fence in document["fences"]] == ["main"]
    assert site.new.tried(site.new.app, WRITE) == [REFUSED]
    assert site.mark is not None
    assert site.mark.timeline == "2"


def test_a_run_goes_on_at_the_promoted_server(site: Site) -> None:
    """Its command failed, and the primary was replaced: `resume` finds no fence there, raises it, and ends open."""
    site.leads_to(site.old)
    with members(site.shop):
        assert site.ctl("run", "--timeout", "60s", "--", "false").returncode == 1
        run = next(c.id for c in site.shop.look().state.causes if c.kind == "run")
        assert site.writes()[0] == REFUSED
        site.leads_to(site.new)
        assert site.new.fence().status() is None
        refused = [
            site.new.server.programs / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1",
            "-d", site.new.server.url(site.new.name, user=site.new.app), "-c", WRITE,
        ]  # fmt: skip
        # The command is the application's own write, which must fail while the run lasts, at the new server.
        failed = site.ctl("resume", run, "--", *map(str, refused))
        assert failed.returncode not in (0, 123, 125), failed.stdout + failed.stderr
        assert site.mark is not None
        assert site.mark.timeline == "2"
        done = site.ctl("resume", run, "--", "true")
        assert done.returncode == 0, done.stdout + done.stderr
    assert not site.read_only
    assert site.writes() == (REFUSED, PASSES)


def test_off_says_of_a_fence_that_it_did_not_survive(site: Site) -> None:
    """Nobody raised it again: the site opens, and everybody knows who may have written meanwhile."""
    site.turned_on()
    site.members(site.new)
    site.leads_to(site.new)
    said = site.ctl("off", "--timeout", "100ms")
    assert "the fence did not survive the failover" in said.stdout
    assert not site.read_only


def test_a_copy_that_carries_a_fence_gets_a_position_of_its_own(site: Site) -> None:
    """Positions of the server that it came from mean nothing there."""
    site.other.up(cause="c1")
    site.other.sql("UPDATE readonly_fence.fence SET system = '7301', position = 'FF/0'")
    again = site.other.up(cause="c1")
    assert again.position is not None
    assert again.position.server == site.other.fence().look().system
    assert again.position.at != "FF/0"


def test_json_is_as_the_schema_says(site: Site) -> None:
    """Every line of a refusal."""
    site.turned_on()
    site.members(site.other)
    lines = [json.loads(line) for line in site.ctl("--json", "off").stdout.splitlines()]
    assert [line["event"] for line in lines] == ["site", "error", "result"]
    assert lines[-1]["exit"] == 6
