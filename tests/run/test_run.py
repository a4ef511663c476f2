"""A run from begin to end, and what is left of one that was killed: no write gets in, and status tells how to go on."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from readonly import run as runs
from readonly.site import Site
from readonly.switch import Switch
from support import output_schema
from support.fence_layouts import one_role, two_roles
from support.fenced_site import Fenced, fenced_site
from support.operating import ANNA, Member, Shop, json_lines, made, members
from support.postgres_server import PostgresServer
from support.waiting import eventually

STOPPING = Path(__file__).with_name("stopping.py")
# What a migration does: it writes, as its own role, over a connection that its environment says how to make.
MIGRATE = """
import os, psycopg
with psycopg.connect(os.environ["DATABASE"], autocommit=True) as c:
    c.execute("CREATE TABLE IF NOT EXISTS tag (id int)")
    c.execute("INSERT INTO tag VALUES (1)")
    c.execute("UPDATE story SET title = 'migrated'")
print("migrated as", os.environ["READONLY_RUN"])
"""
WAIT = """
import os, psycopg, sys
with psycopg.connect(os.environ["DATABASE"], autocommit=True) as c:
    print("at work", flush=True)
    c.execute("SELECT pg_sleep(60)")
"""
CAUGHT = """
import time
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    raise SystemExit(9)
"""


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, Member]]:
    """A site and its process, for all tests here."""
    shop = made(tmp_path_factory.mktemp("runs") / "shop.db")
    with members(shop) as (member,):
        yield shop, member
    shop.store.close()


@pytest.fixture(params=["two roles", "one role"])
def site(
    request: pytest.FixtureRequest, one_process: tuple[Shop, Member], postgres: PostgresServer, tmp_path: Path
) -> Iterator[Fenced]:
    """Both layouts: the migration passes the fence by its role, or by its token."""
    with (two_roles if request.param == "two roles" else one_role)(postgres) as database:
        yield from fenced_site(one_process, database, tmp_path)


@pytest.fixture
def solo(one_process: tuple[Shop, Member], postgres: PostgresServer, tmp_path: Path) -> Iterator[Fenced]:
    """One role."""
    with one_role(postgres) as database:
        yield from fenced_site(one_process, database, tmp_path)


def script(text: str) -> list[str]:
    """Return a command that runs a piece of Python, from a file: one line to type again."""
    path = (
        Path(tempfile.gettempdir()) / f"readonly-run-{hashlib.sha256(text.encode()).hexdigest()[:12]}-{os.getuid()}.py"
    )
    path.write_text(text, encoding="utf-8")
    return [sys.executable, os.fspath(path)]


def environment(site: Fenced) -> dict[str, str]:
    """Return what the migration's environment holds, and where hosts keep their files."""
    return {"DATABASE": site.database.server.url(site.database.name, user=site.database.owner), **site.shop.environment}


def typed(site: Fenced, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the operator's in a process of its own, since it listens to signals and starts children."""
    return subprocess.run(
        [sys.executable, "-m", "readonly", "--config", site.file, *words],
        capture_output=True, text=True, env={**os.environ, **environment(site)}, cwd=site.shop.folder, check=False,
    )  # fmt: skip


def test_all_of_it_in_one(site: Fenced) -> None:
    """Read-only, fenced, migrated, open again; exit 0, and every step in the output."""
    done = typed(site, "run", "--reason", "tags", "--", *script(MIGRATE))
    assert done.returncode == 0, done.stdout + done.stderr
    run = re.search(r"migrated as (r[0-9a-f]{6})", done.stdout)
    assert run is not None
    for step in ("confirm: done", "fence: done   main hard", "command: done   exit 0", "lift: done", "off: done"):
        assert f"  {step}" in done.stderr
    assert "WRITABLE" in done.stdout
    assert site.writes() == ""
    assert site.database.sql("SELECT count(*) FROM tag") == "1"
    assert site.database.sql("SELECT DISTINCT title FROM story WHERE title = 'migrated'") == "migrated"
    assert "readonly_fence" not in site.database.schema()


def test_a_command_that_fails_leaves_the_site_closed_and_says_how_to_go_on(site: Fenced) -> None:
    """Its own code; both ways on, typed as they are printed."""
    done = typed(site, "run", "--", *script("raise SystemExit(7)"))
    assert done.returncode == 7, done.stderr
    assert "  the command ended with 7" in done.stdout
    assert site.writes() in {"42501", "25006"}
    assert typed(site, "off").returncode == 6
    assert typed(site, "run", "--", "true").returncode == 6
    status = site.ctl("status")
    assert "open the site as is:   readonlyctl" in status.stdout
    _follow(site, status.stdout, "open the site as is")
    assert site.writes() == ""
    done = typed(site, "run", "--", *script("raise SystemExit(8)"))
    again = shlex.join(script(MIGRATE))
    run = _standing(site)
    assert typed(site, "resume", run).returncode == 6  # it had not succeeded
    done = typed(site, "resume", run, "--", *script(MIGRATE))
    assert done.returncode == 0, done.stdout + done.stderr + again
    assert site.writes() == ""


@pytest.mark.parametrize(
    ("step", "what"),
    [
        ("on", "done"), ("confirm", "begins"), ("confirm", "done"), ("fence", "begins"), ("fence", "done"),
        ("command", "begins"), ("command", "done"), ("look again", "done"), ("lift", "begins"), ("lift", "done"),
        ("off", "begins"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["go on", "open the site as is"])
def test_killed_at_any_step_it_can_be_gone_on_with(solo: Fenced, step: str, what: str, way: str) -> None:
    """The site stays closed; `status`, read by a program, leads to a working and writable site, both ways."""
    killed = subprocess.run(
        [sys.executable, STOPPING, step, what, "--config", solo.file, "run", "--", *script(MIGRATE)],
        capture_output=True, text=True, env={**os.environ, **environment(solo)}, cwd=solo.shop.folder, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert solo.shop.look().state.read_only
    fenced = step in {"command", "look again"} or (step, what) in {("fence", "done"), ("lift", "begins")}
    assert (solo.writes() == "25006") == fenced
    # The command of a dead runner goes on by itself, and is waited for.
    eventually(lambda: "STILL AT WORK" not in solo.ctl("status").stdout, 30)
    with _silent_at_once():
        eventually(lambda: not runs.read(_site(solo), _standing(solo)).reports, 30)
        status = solo.ctl("status").stdout
        if way == "go on" and not re.search(rf"^ *{way}:", status, re.MULTILINE):
            way = "it had succeeded" if what == "begins" and step == "command" else way
        _follow(solo, status, way, quick=True)
    assert solo.writes() == ""
    assert not solo.shop.look().state.read_only
    assert "readonly_fence" not in solo.database.schema()
    if way != "open the site as is":
        assert solo.database.sql("SELECT count(*) > 0 FROM tag") == "t"


def test_a_dead_runner_is_not_a_dead_migration(solo: Fenced) -> None:
    """Its session at the database is named, and neither way on is open while it is there."""
    running = subprocess.Popen(
        [sys.executable, "-m", "readonly", "--config", solo.file, "run", "--", *script(WAIT)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **environment(solo)},
        cwd=solo.shop.folder,
    )  # fmt: skip
    assert running.stdout is not None
    assert any("at work" in line for line in iter(running.stdout.readline, ""))
    run = _standing(solo)
    refused = typed(solo, "abandon", run)
    assert refused.returncode == 6
    assert "is at work on" in refused.stderr
    running.kill()
    running.wait()
    running.stdout.close()
    with _silent_at_once():
        eventually(lambda: "STILL AT WORK at the database: session" in solo.ctl("status").stdout, 10)
        for words in (["abandon", run], ["resume", run]):
            done = _quick(solo, *words)
            assert done.returncode == 6, done.stdout
            assert "is still at work at the database" in done.stderr
        done = _quick(solo, "abandon", run, "--end-sessions")
    assert done.returncode == 0, done.stdout + done.stderr
    assert solo.writes() == ""


def test_ctrl_c_reaches_the_command_once(solo: Fenced) -> None:
    """The runner waits for it, and says what stands."""
    running = subprocess.Popen(
        [sys.executable, "-m", "readonly", "--config", solo.file, "run", "--", *script(CAUGHT)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **environment(solo)},
        cwd=solo.shop.folder,
    )  # fmt: skip
    assert running.stdout is not None
    assert any("ready" in line for line in iter(running.stdout.readline, ""))
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGHUP)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 9, out
    assert "the command ended with 9" in out
    run = _standing(solo)
    shown = typed(solo, "attach", run)
    assert shown.stdout.startswith("ready\n")
    assert typed(solo, "abandon", run).returncode == 0


def test_what_can_not_start_changes_nothing(solo: Fenced) -> None:
    """No such command: 127; no right to fence: 125; both leave the site as it was."""
    done = typed(solo, "run", "--", "no-such-command-here")
    assert done.returncode == 127
    assert "what this run had set is lifted again" in done.stderr
    assert solo.writes() == ""
    solo.configure(fencer="bare")
    done = typed(solo, "run", "--", "true")
    assert done.returncode == 125
    assert "GRANT solo TO bare" in done.stderr
    assert solo.writes() == ""
    assert not solo.shop.look().state.read_only
    assert typed(solo, "run").returncode == 2
    assert "write -- before the command" in typed(solo, "run", "alembic", "--for", "x").stderr


def test_a_dry_run_changes_nothing(site: Fenced) -> None:
    """Every privilege is looked at; the positions of database and store are the same afterwards."""
    horizon = "SELECT pg_snapshot_xmax(pg_current_snapshot())"
    before = site.database.sql(horizon), site.shop.store.read().record
    done = typed(site, "run", "--dry-run", "--", "alembic", "upgrade", "head")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "A run could start." in done.stdout
    assert (site.database.sql(horizon), site.shop.store.read().record) == before
    site.configure(fencer="bare")
    done = typed(site, "run", "--dry-run")
    assert done.returncode == 3
    assert "not ready: main lacks: GRANT" in done.stdout


def test_as_json(solo: Fenced) -> None:
    """One object a line, the last a result; and what the schema says of runs is what commands print."""
    seen: set[tuple[str, str]] = set()

    def told(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
        lines = json_lines(done.stdout)
        for line in lines:
            seen.update(output_schema.fields_in(line))
        return lines

    done = typed(solo, "run", "--json", "--", "echo", "hello")
    assert done.returncode == 0, done.stdout
    lines = told(done)
    assert [line["text"] for line in lines if line["event"] == "output"] == ["hello\n"]
    assert (lines[-1]["event"], lines[-1]["mode"], lines[-1]["exit"]) == ("result", "writable", 0)
    told(typed(solo, "run", "--json", "--dry-run"))
    assert told(typed(solo, "run", "--json", "--", "false"))[-1]["exit"] == 1
    run = _standing(solo)
    told(typed(solo, "--json", "attach", run))
    told(typed(solo, "resume", "--json", run, "--", "false"))
    with _silent_at_once():
        assert told(_quick(solo, "abandon", "--json", run))[-1]["exit"] == 0
    for words in (["run", "--", "true"], ["resume", run], ["abandon", run], ["attach", run]):
        told(typed(solo, "--json", "--site", "blog", *words))
    defined = {
        (name, field) for name in output_schema.OF_RUNS for field in output_schema.schema()["$defs"][name]["properties"]
    }
    assert defined - seen == set()


def _standing(site: Fenced) -> str:
    cause = runs.standing_run(site.shop.look().record)
    assert cause is not None
    return cause.id


def _site(site: Fenced) -> Site:
    return Site(Switch(site.shop.store), operator=ANNA)


def _silent_at_once() -> mock._patch:  # type: ignore[type-arg]
    """Take a runner for gone a second after its last word: the tests killed it."""
    return mock.patch("readonly.run.journal.SILENT_SECONDS", 1.0)


def _quick(site: Fenced, *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command here, where a runner is taken for gone soon."""
    with mock.patch.dict(os.environ, environment(site)):
        return site.ctl(*words)


def _follow(site: Fenced, said: str, way: str, *, quick: bool = False) -> None:
    """Type the command that a line of output names."""
    found = re.search(rf"^ *{re.escape(way)}: +readonlyctl (.*?)(?: +\(runs it again\))?$", said, re.MULTILINE)
    assert found is not None, said
    words = shlex.split(found[1])
    done = _quick(site, *words[2:]) if quick else typed(site, *words[2:])
    assert done.returncode == 0, done.stdout + done.stderr
