"""`readonlyctl run` as operators type it, and what a test reads from its output and types next."""

from __future__ import annotations

import re
import shlex
import subprocess
from unittest import mock

from readonly import run as runs
from readonly.databases.freeze import Standby
from readonly.site import Site
from readonly.switch import Switch
from support.fenced_site import Fenced
from support.following import Following
from support.operating import ANNA, Running
from support.waiting import eventually

# What a migration does, as its own role, over a connection that its environment says how to make.
MIGRATION = """
CREATE TABLE IF NOT EXISTS tag (id int);
INSERT INTO tag VALUES (1);
UPDATE story SET title = 'migrated';
"""


def environment(site: Fenced) -> dict[str, str]:
    """Return what the migration's environment holds, beside what the operator's shell has."""
    return {"DATABASE": site.database.server.url(site.database.name, user=site.database.owner)}


def psql(site: Fenced, *statements: str) -> list[str]:
    """Return a command that runs statements as whoever migrates; one line, to be typed again."""
    url = environment(site)["DATABASE"]
    words = [str(site.database.server.programs / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url]
    return [*words, *(word for statement in statements for word in ("-c", " ".join(statement.split())))]


def starts(site: Fenced, *words: str) -> Running:
    """Start a command of the operator's in a process of its own, since it listens to signals and starts children."""
    return site.shop.start("--config", str(site.file), *words, environment=environment(site))


def typed(site: Fenced, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the operator's to its end, as `starts`."""
    with starts(site, *words) as running:
        code = running.ends(60)
    return subprocess.CompletedProcess(words, code, running.out, running.err)


def killed(site: Fenced, step: str, what: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command that kills itself at a step; see `stopping_run`."""
    given = (step, what, "--config", str(site.file), *words)
    with site.shop.start(*given, program="stopping", environment=environment(site)) as running:
        code = running.ends(60)
    return subprocess.CompletedProcess(given, code, running.out, running.err)


def standing(site: Fenced) -> str:
    """Return the run that stands."""
    cause = runs.standing_run(site.shop.look().record)
    assert cause is not None
    return cause.id


def progress(site: Fenced) -> runs.Progress:
    """Return how far the run that stands came."""
    return runs.read(Site(Switch(site.shop.store), operator=ANNA), standing(site))


def silent_at_once() -> mock._patch:  # type: ignore[type-arg]
    """Take a runner for gone soon after its last word: the tests killed it."""
    return mock.patch("readonly.run.journal.SILENT_SECONDS", 0.05)


def given_up(site: Fenced) -> str:
    """Wait until nobody is at work on the run that stands, and return what `status` says; under `silent_at_once`."""
    eventually(lambda: not progress(site).reports, 30)
    said: list[str] = []

    def over() -> bool:
        # The command of a dead runner goes on by itself, and is waited for.
        said.append(site.ctl("status").stdout)
        return "STILL AT WORK" not in said[-1]

    eventually(over, 30)
    return said[-1]


def follow(site: Fenced, said: str, way: str) -> subprocess.CompletedProcess[str]:
    """Type the command that a line of output names, in this process."""
    found = re.search(rf"^ *{re.escape(way)}: +readonlyctl (.*?)(?: +\(runs it again\))?$", said, re.MULTILINE)
    assert found is not None, said
    words = shlex.split(found[1])
    assert words[0] == "--config"
    with mock.patch.dict("os.environ", environment(site)):
        done = site.ctl(*words[2:])
    assert done.returncode == 0, done.stdout + done.stderr
    return done


class Followed(Fenced):
    """A site whose primary has a standby that may be frozen.

    Args:
        found: The site.
        pair: The servers.
    """

    def __init__(self, found: Fenced, pair: Following) -> None:
        self.shop, self.member, self.database, self.file = found.shop, found.member, found.database, found.file
        self.pair = pair
        self.follows()

    def follows(self, more: str = "") -> None:
        """Write the operator's file with the standby in it."""
        url = self.pair.standby.url(self.database.name, user=self.database.fencer)
        self.configure(more=f'freeze = ["{url}"]\nschema = "SELECT num FROM version"\n{more}')

    @property
    def standby(self) -> Standby:
        """The standby, as the operator reaches it."""
        return Standby.from_url(self.pair.standby.url(self.database.name, user=self.database.fencer))

    def read_there(self, query: str) -> str:
        """Ask the standby."""
        return self.pair.standby.sql(query, database=self.database.name)
