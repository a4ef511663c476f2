"""A run from begin to end: what is done, what is said, and what can't be begun."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from unittest import mock

from support import output_schema
from support.fenced_site import Fenced
from support.operating import json_lines
from support.running import MIGRATION, environment, follow, psql, silent_at_once, standing, typed
from support.waiting import eventually

# A command that is interrupted, and says so by its code.
CAUGHT = """
import signal
# Kept until it is asked for: it may arrive before anybody can wait for it.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
print("ready", flush=True)
signal.sigwait({signal.SIGINT})
raise SystemExit(9)
"""


def migrate(site: Fenced) -> list[str]:
    """Return a migration's command; it says which run it belongs to."""
    return ["sh", "-c", f"{shlex.join(psql(site, *MIGRATION.split(';')[:-1]))} && echo migrated as $READONLY_RUN"]


def quick(site: Fenced, *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command in this process: no signal and no death is the point."""
    with mock.patch.dict(os.environ, environment(site)):
        return site.ctl(*words)


def process(site: Fenced, *command: str) -> subprocess.Popen[str]:
    """Start a run in a process that nobody forked: what signals and its death do is the point."""
    return subprocess.Popen(
        [sys.executable, "-m", "readonly", "--config", site.file, "run", "--", *command],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=site.shop.folder,
        env={**os.environ, **site.shop.environment, **environment(site)},
    )  # fmt: skip


def shell(text: str) -> list[str]:
    """Return a command of the shell."""
    return ["sh", "-c", text]


def test_all_of_it_in_one(site: Fenced) -> None:
    """Read-only, fenced, migrated, open again; exit 0, and every step in the output."""
    done = typed(site, "run", "--reason", "tags", "--", *migrate(site))
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
    done = quick(site, "run", "--", *shell("exit 7"))
    assert done.returncode == 7, done.stderr
    assert "  the command ended with 7" in done.stdout
    assert site.writes() in {"42501", "25006"}
    assert quick(site, "off").returncode == 6
    assert quick(site, "run", "--", "true").returncode == 6
    status = site.ctl("status")
    assert "open the site as is:   readonlyctl" in status.stdout
    follow(site, status.stdout, "open the site as is")
    assert site.writes() == ""
    done = quick(site, "run", "--", *shell("exit 8"))
    again = shlex.join(migrate(site))
    run = standing(site)
    assert quick(site, "resume", run).returncode == 6  # it had not succeeded
    done = quick(site, "resume", run, "--", *migrate(site))
    assert done.returncode == 0, done.stdout + done.stderr + again
    assert site.writes() == ""


def test_a_dead_runner_is_not_a_dead_migration(solo: Fenced) -> None:
    """Its session at the database is named, and neither way on is open while it is there."""
    running = process(solo, *psql(solo, "SELECT 'at work'", "SELECT pg_sleep(600)"))
    assert running.stdout is not None
    assert any("at work" in line for line in iter(running.stdout.readline, ""))
    run = standing(solo)
    refused = typed(solo, "abandon", run)
    assert refused.returncode == 6
    assert "is at work on" in refused.stderr
    running.kill()
    running.wait()
    running.stdout.close()
    with silent_at_once():
        eventually(lambda: "STILL AT WORK at the database: session" in solo.ctl("status").stdout, 10)
        for words in (["abandon", run], ["resume", run]):
            done = quick(solo, *words)
            assert done.returncode == 6, done.stdout
            assert "is still at work at the database" in done.stderr
        done = quick(solo, "abandon", run, "--end-sessions")
    assert done.returncode == 0, done.stdout + done.stderr
    assert solo.writes() == ""


def test_ctrl_c_reaches_the_command_once(solo: Fenced) -> None:
    """The runner waits for it, and says what stands."""
    running = process(solo, sys.executable, "-c", CAUGHT)
    assert running.stdout is not None
    assert any("ready" in line for line in iter(running.stdout.readline, ""))
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGHUP)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 9, out
    assert "the command ended with 9" in out
    run = standing(solo)
    shown = typed(solo, "attach", run)
    assert shown.stdout.startswith("ready\n")
    assert typed(solo, "abandon", run).returncode == 0


def test_what_can_not_start_changes_nothing(solo: Fenced) -> None:
    """No such command: 127; no right to fence: 125; both leave the site as it was."""
    done = quick(solo, "run", "--", "no-such-command-here")
    assert done.returncode == 127
    assert "what this run had set is lifted again" in done.stderr
    assert solo.writes() == ""
    solo.configure(fencer="bare")
    done = quick(solo, "run", "--", "true")
    assert done.returncode == 125
    assert "GRANT solo TO bare" in done.stderr
    assert solo.writes() == ""
    assert not solo.shop.look().state.read_only
    assert quick(solo, "run").returncode == 2
    assert "write -- before the command" in quick(solo, "run", "alembic", "--for", "x").stderr


def test_a_dry_run_changes_nothing(site: Fenced) -> None:
    """Every privilege is looked at; the positions of database and store are the same afterwards."""
    horizon = "SELECT pg_snapshot_xmax(pg_current_snapshot())"
    before = site.database.sql(horizon), site.shop.store.read().record
    done = quick(site, "run", "--dry-run", "--", "alembic", "upgrade", "head")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "A run could start." in done.stdout
    assert (site.database.sql(horizon), site.shop.store.read().record) == before
    site.configure(fencer="bare")
    done = quick(site, "run", "--dry-run")
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

    done = quick(solo, "run", "--json", "--", "echo", "hello")
    assert done.returncode == 0, done.stdout
    lines = told(done)
    assert [line["text"] for line in lines if line["event"] == "output"] == ["hello\n"]
    assert (lines[-1]["event"], lines[-1]["mode"], lines[-1]["exit"]) == ("result", "writable", 0)
    told(quick(solo, "run", "--json", "--dry-run"))
    assert told(quick(solo, "run", "--json", "--", "false"))[-1]["exit"] == 1
    run = standing(solo)
    told(quick(solo, "--json", "attach", run))
    told(quick(solo, "resume", "--json", run, "--", "false"))
    with silent_at_once():
        assert told(quick(solo, "abandon", "--json", run))[-1]["exit"] == 0
    for words in (["run", "--", "true"], ["resume", run], ["abandon", run], ["attach", run]):
        told(quick(solo, "--json", "--site", "blog", *words))
    defined = {
        (name, field) for name in output_schema.OF_RUNS for field in output_schema.schema()["$defs"][name]["properties"]
    }
    assert defined - seen == set()
