"""`readonlyctl job`: what stands in a crontab is counted, drained, skipped, and ends with its own exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.operating import ANNA, Member, Shop, made
from support.waiting import eventually

Served = tuple[Shop, Member]
# A job that has just begun admits nothing before others know of it, which takes them as long as it takes.
PATIENTLY = ("--wait", "1m")


def test_the_exit_code_is_the_commands_own(served: Served) -> None:
    """Its output is the command's, too; that 0 is 0, other tests show."""
    shop, _ = served
    done = shop.ctl("job", *PATIENTLY, "--", "sh", "-c", "echo imported; exit 7")
    assert (done.returncode, done.stdout) == (7, "imported\n")


def test_on_waits_for_a_job_and_names_it(served: Served, tmp_path: Path) -> None:
    """It is a member with a role of its own, and drained like a request."""
    shop, _ = served
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with shop.start("job", *PATIENTLY, "--name", "import-scores", "--", "sh", "-c", f"cat {pipe}") as job:
        eventually(lambda: '"in_flight": 1' in shop.here("members", "--json").stdout, what="the job is in flight")
        assert "import-scores" in shop.here("members", "--all").stdout
        with shop.start("on", "--timeout", "60s") as on:
            on.says("1 write in flight")
            assert on.process.poll() is None
            pipe.write_text("done\n")
            assert on.ends() == 0, on.out + on.err
        assert job.ends() == 0
        assert job.out == "done\n"


def test_a_job_is_skipped_while_read_only(served: Served, tmp_path: Path) -> None:
    """With 75, which means "try again later"; the command is not begun."""
    shop, _ = served
    shop.on(ANNA, reason="UTF-8")
    done = shop.ctl("job", "--", "touch", str(tmp_path / "ran"))
    assert done.returncode == 75
    assert "read-only" in done.stderr
    assert "UTF-8" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_job_may_wait(served: Served) -> None:
    """--wait runs it once the site is writable again."""
    shop, _ = served
    shop.on(ANNA)
    with shop.start("job", "--wait", "1h", "--", "echo", "at last") as job:
        eventually(lambda: '"role": "job"' in shop.here("members", "--json").stdout, what="the job reports")
        shop.open()
        assert job.ends() == 0
        assert job.out == "at last\n"


def test_a_signal_ends_the_command_and_is_told(served: Served) -> None:
    """SIGTERM reaches it once; the job is over when it is, with the shell's code for that."""
    shop, _ = served
    script = "import signal, sys; print('up', flush=True); signal.pause()"
    with shop.start("job", *PATIENTLY, "--", sys.executable, "-c", script) as job:
        job.says("up")
        job.process.send_signal(signal.SIGTERM)
        assert job.ends() == 128 + signal.SIGTERM


def test_a_signal_that_arrives_while_the_command_is_started_is_not_lost(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is there already, and the job does not know it yet: whoever stops the job stops both."""
    shop, _ = served

    def interrupted(words: list[str]) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(words)
        signal.raise_signal(signal.SIGTERM)
        return child

    monkeypatch.setattr(sys.modules["readonly.cli.job"], "subprocess", SimpleNamespace(Popen=interrupted))
    assert shop.here("job", *PATIENTLY, "--", "sleep", "30").returncode == 128 + signal.SIGTERM


def test_what_is_no_command(served: Served, tmp_path: Path) -> None:
    """126 and 127, as in a shell, and nothing ran."""
    shop, _ = served
    assert shop.ctl("job", "--", "no-such-command-anywhere").returncode == 127
    data = tmp_path / "data"
    data.write_text("no program")
    data.chmod(0o755)
    assert shop.ctl("job", *PATIENTLY, "--", str(data)).returncode == 126


def test_a_job_on_a_store_without_a_record_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 4, and the way on, after a while in which somebody may have written the record back."""
    # By its name in the package it is the command, which hides the module.
    monkeypatch.setattr(sys.modules["readonly.cli.job"], "SETTLING_SECONDS", 0.2)
    shop = made(tmp_path / "shop.db", initialised=False)
    done = shop.here("job", "--", "touch", str(tmp_path / "ran"))
    assert done.returncode == 4
    assert "readonlyctl init shop" in done.stderr
    assert not (tmp_path / "ran").exists()
    shop.store.close()
