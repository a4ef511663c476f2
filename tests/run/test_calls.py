"""A run from code, as a deploy script would write it: the same run, without a terminal."""

from __future__ import annotations

from datetime import timedelta

import pytest

from readonly.errors import NotYours
from readonly.run import RunFailed, Voice, abandon, resume, run, standing_run
from readonly.site import Site
from support.fenced_site import Fenced
from support.running import MIGRATION, psql


def test_a_run_that_succeeds(solo: Fenced, from_code: Site) -> None:
    """Fenced while the command runs, open after it; its output goes to who was given as the voice."""
    heard: list[bytes] = []
    steps: list[str] = []
    voice = Voice(output=heard.append, step=lambda step, what, said: steps.append(f"{step} {what}"))
    command = ["sh", "-c", f"echo for $READONLY_RUN; {' '.join(map(repr, psql(solo, *MIGRATION.split(';')[:-1])))}"]
    assert run(from_code, command, reason="tags", expected=timedelta(minutes=5), voice=voice) == 0
    assert b"for r" in b"".join(heard)
    assert {"fence done", "command done", "lift done", "off done"} <= set(steps)
    assert not from_code.look().state.read_only
    assert solo.writes() == ""


def test_a_command_that_fails_and_both_ways_on(solo: Fenced, from_code: Site) -> None:
    """The site stays closed and fenced until the script resumes or abandons, and only one run stands."""
    assert run(from_code, ["sh", "-c", "exit 7"]) == 7
    left = standing_run(from_code.look().record)
    assert left is not None
    assert solo.writes() != ""
    with pytest.raises(NotYours, match=left.id):
        run(from_code, ["true"])
    with pytest.raises(NotYours, match="ended with 7"):
        resume(from_code, left.id)
    assert resume(from_code, left.id, ["true"]) == 0
    assert solo.writes() == ""
    assert run(from_code, ["false"]) == 1
    left = standing_run(from_code.look().record)
    assert left is not None
    abandon(from_code, left.id)
    assert not from_code.look().state.read_only
    assert solo.writes() == ""


def test_a_command_that_is_not_there(solo: Fenced, from_code: Site) -> None:
    """The error carries the code that the command would have exited with, and everything is undone."""
    with pytest.raises(RunFailed) as failed:
        run(from_code, ["/nowhere/to/be/found"])
    assert failed.value.code == 127
    assert not from_code.look().state.read_only
    assert solo.writes() == ""
