"""A run that was killed: no write gets in, and `status` tells how to go on, both ways, from any machine."""

from __future__ import annotations

import os
import re
import signal

import pytest

from readonly.databases.freeze import Pause
from support.running import MIGRATION, Followed, follow, given_up, killed, psql, silent_at_once

STEPS = (
    "confirm", "fence", "replicas", "freeze", "command", "look again", "thaw", "catch up", "schema", "lift", "off",
)  # fmt: skip
# Begun and nothing done, or done and not said; when a step is said to be done, the next one has not begun.
POINTS = [("on", "done")] + [
    (step, what)
    for step in STEPS
    for what in ("begins", "middle", *(["done"] if step in ("command", "lift") else []))
    # The command's middle is a test of its own; in the middle of `off` the run is over.
    if (step, what) not in {("command", "middle"), ("off", "middle")}
]
WAYS = ("go on", "open the site as is")
# Each step both ways, and by `make torture` each point.
BOTH = [
    (step, what, way)
    for number, (step, what) in enumerate(POINTS)
    for way in (WAYS if os.environ.get("READONLY_TEST_EACH_WAY") else WAYS[number % 2 :][:1])
]
# Where the fence stands, and where the standby is frozen.
FENCED = (
    {(step, what) for step in STEPS[2:-2] for what in ("begins", "middle", "done")}
    | {("fence", "middle"), ("fence", "done"), ("lift", "begins")}
)  # fmt: skip
FROZEN = (
    {(step, what) for step in ("command", "look again") for what in ("begins", "middle", "done")}
    | {("freeze", "middle"), ("freeze", "done"), ("thaw", "begins")}
)  # fmt: skip


@pytest.mark.parametrize(("step", "what", "way"), BOTH)
def test_killed_at_any_point_it_can_be_gone_on_with(followed: Followed, step: str, what: str, way: str) -> None:
    """The site stays closed; what `status` prints leads to a working and writable site that nobody froze."""
    run = ["run", "--freeze", "--", *psql(followed, *MIGRATION.split(";")[:-1], "UPDATE version SET num = '0042'")]
    done = killed(followed, step, what, *run)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    assert followed.shop.look().state.read_only
    with silent_at_once():
        said = given_up(followed)
        assert (followed.writes() == "25006") == ((step, what) in FENCED)
        assert (followed.standby.look().pause is Pause.YES) == ((step, what) in FROZEN)
        if way == "go on" and not re.search(rf"^ *{way}:", said, re.MULTILINE):
            way = "it had succeeded"
        follow(followed, said, way)
    assert followed.writes() == ""
    assert not followed.shop.look().state.read_only
    assert followed.database.sql("SELECT to_regnamespace('readonly_fence')") == ""
    assert followed.standby.look().pause is Pause.NO
    if way != "open the site as is":
        assert followed.database.sql("SELECT num FROM version") == "0042"
        assert followed.read_there("SELECT num FROM version") == "0042"
