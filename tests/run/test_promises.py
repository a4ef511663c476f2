"""What a run promises beside its steps: the end that was announced, its codes, and what its command may do."""

from __future__ import annotations

import os
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest

from readonly.run import RunFailed, Step, Voice, run, standing_run
from readonly.site import Site
from support.fenced_site import Fenced
from support.operating import BEN
from support.running import Followed, environment
from support.waiting import eventually

# A process of the site's own code, as a migration starts it: by switch and guard, over its usual connection.
OF_THE_SITE = """
import sys
from sqlalchemy import create_engine, text
from readonly import Switch
from readonly.databases.sqlalchemy import Database

store, url = sys.argv[1:]
switch = Switch.from_url(store)
engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
database = Database(engine, switch)
assert switch.state.read_only
with switch.writing(), engine.begin() as connection:
    connection.execute(text("INSERT INTO story (title) VALUES ('by the site''s own code')"))
    print(connection.execute(text("SELECT current_setting('application_name')")).scalar())
database.close()
switch.close()
"""


def test_an_end_that_was_not_kept_is_announced_anew(solo: Fenced, from_code: Site, tmp_path: Path) -> None:
    """Visitors are told a later one for as long as the command runs; the site is open when it has ended."""
    latch = tmp_path / "latch"
    os.mkfifo(latch)
    said: list[str] = []

    def step(which: Step, what: str, words: str) -> None:
        said.append(f"{which} {what} {words}")

    codes: list[int] = []
    begun = datetime.now(UTC)
    command = ["sh", "-c", f"read line < {latch}"]

    def work() -> None:
        codes.append(run(from_code, command, expected=timedelta(seconds=0.2), fence=False, voice=Voice(step=step)))

    with mock.patch("readonly.run.runner.ALIVE_SECONDS", 0.05):
        thread = threading.Thread(target=work)
        thread.start()
        try:
            eventually(lambda: any("command announced takes longer" in line for line in said), 20)
            cause = standing_run(solo.shop.look().record)
            assert cause is not None
            assert cause.expected_end is not None
            assert cause.expected_end - begun > timedelta(minutes=4)
            assert solo.shop.look().state.read_only
        finally:
            latch.write_text("on\n")
            thread.join(30)
    assert codes == [0]
    assert not solo.shop.look().state.read_only


def test_123_it_succeeded_and_somebody_else_keeps_the_site_closed(solo: Fenced, from_code: Site) -> None:
    """What stands is named, and stays."""
    cause = solo.shop.on(BEN)
    with pytest.raises(RunFailed, match=rf"still read-only: operator {cause} by ben") as failed:
        run(from_code, ["true"], fence=False)
    assert failed.value.code == 123
    assert solo.shop.standing() == ["ben"]


def test_126_it_is_no_program(solo: Fenced, from_code: Site, tmp_path: Path) -> None:
    """Nothing was started, and what was set is lifted."""
    text = tmp_path / "notes.txt"
    text.write_text("drop the index first")
    with pytest.raises(RunFailed, match="can't be run") as failed:
        run(from_code, [str(text)], fence=False)
    assert failed.value.code == 126
    assert not solo.shop.look().state.read_only


def test_the_sites_own_code_may_write_in_a_run_and_nowhere_else(solo: Fenced, from_code: Site) -> None:
    """By switch, guard and fence alike, for it is the run's child; its session at the database is named."""
    heard: list[bytes] = []
    command = [sys.executable, "-c", OF_THE_SITE, solo.shop.url, environment(solo)["DATABASE"]]
    assert run(from_code, command, voice=Voice(output=heard.append)) == 0, b"".join(heard)
    assert b"readonly-run-r" in b"".join(heard)
    written = "SELECT count(*) FROM story WHERE title LIKE 'by the site%'"
    assert solo.database.sql(written) == "1"
    assert run(from_code, ["env", "-u", "READONLY_RUN", *command], voice=Voice(output=heard.append)) != 0
    assert b"ReadOnlyError" in b"".join(heard)
    assert solo.database.sql(written) == "1"


def test_a_dry_run_with_freeze_leaves_database_store_and_standby_as_they_are(followed: Followed) -> None:
    """Who may pause it is looked at, and nothing is paused."""
    horizon = "SELECT pg_snapshot_xmax(pg_current_snapshot())"

    def all_of_it() -> tuple[object, ...]:
        return followed.database.sql(horizon), followed.shop.store.read().record, followed.standby.look().pause

    before = all_of_it()
    done = followed.ctl("run", "--freeze", "--dry-run", "--", "alembic", "upgrade", "head")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "A run could start." in done.stdout
    assert all_of_it() == before
