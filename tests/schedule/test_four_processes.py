"""A window a few seconds ahead, on four real processes whose own clocks are wrong, and nobody left who planned it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support import children
from support.forked import forker
from support.operating import Shop, made
from support.planning import moved, record
from support.waiting import eventually

# By so much the clocks of the four are wrong.
SKEWS = (-3.0, 0.0, 0.7, 40.0)


class Turning:
    """One such process. Use as a context manager."""

    def __init__(self, url: str, skew: float, folder: Path) -> None:
        reading, theirs = os.pipe()
        mine, writing = os.pipe()
        environment = children.without_ours(os.environ) | {"READONLY_STATE_DIR": str(folder / "state")}
        self.process = forker().start("turning", [url, str(skew)], files=(reading, writing, 2), environment=environment)
        os.close(reading)
        os.close(writing)
        self._to, self._from = os.fdopen(theirs, "w"), os.fdopen(mine)

    def starts(self) -> None:
        """Wait until it follows the store."""
        assert self._from.readline() == "started\n"

    def timer(self, at: float) -> None:
        """Have a bare timer run there as well."""
        self._to.write(f"timer {at}\n")
        self._to.flush()

    def says(self) -> dict[str, Any]:
        """Ask what it has noted."""
        self._to.write("say\n")
        self._to.flush()
        found: dict[str, Any] = json.loads(self._from.readline())
        return found

    def __enter__(self) -> Turning:
        return self

    def __exit__(self, *exc: object) -> None:
        self._to.close()
        self.process.wait(60)
        self._from.close()


@contextmanager
def four(url: str, folder: Path) -> Iterator[list[Turning]]:
    """Have four processes run and follow the store."""
    with ExitStack() as stack:
        found = [stack.enter_context(Turning(url, skew, folder)) for skew in SKEWS]
        for process in found:
            process.starts()
        eventually(lambda: all(one.says()["read_only"] is False for one in found))
        yield found


def planned(shop: Shop, lasting: str) -> tuple[str, float]:
    """Plan a window by a process that is gone then; return its id and its start."""
    # So far ahead that it is known everywhere before, and a command has started, as slow as this machine is now.
    began = time.monotonic()
    shop.ctl("schedule", "list")
    start = time.time() + 2.0 + 5.0 * (time.monotonic() - began)
    at = datetime.fromtimestamp(start, UTC).isoformat()
    done = shop.ctl("--json", "schedule", "add", "--at", at, "--for", lasting)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["windows"][0]["id"], start


def spread(instants: Sequence[float], start: float) -> str:
    """Return how far apart instants are, and around what."""
    early, late = (f"{(at - start) * 1000:+.1f} ms" for at in (min(instants), max(instants)))
    return f"spread {(max(instants) - min(instants)) * 1000:.1f} ms ({early} to {late} from the start)"


def _is_through(said: dict[str, Any], start: float) -> bool:
    """Tell whether a process has been closed and is open again, for requests and for callbacks."""
    closed = [at for at, read_only in said["turns"] if read_only and at > start - 1]
    return bool(closed) and not said["turns"][-1][1] and said["flips"][-1][1] and said["flips"][-1][0] > start


def test_four_processes_turn_by_themselves_at_the_instant(
    redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the store's clock, however wrong their own are; they know of it before, and open by themselves."""
    shop = Shop(redis_url, tmp_path)
    assert shop.here("init", shop.name).returncode == 0
    with four(redis_url, tmp_path) as found:
        name, start = planned(shop, "1s")
        for process in found:
            process.timer(start)
        eventually(lambda: all(_is_through(one.says(), start) for one in found), 20.0)
        said = [one.says() for one in found]
    for one in said:
        known, first, last = one["announced"][name]
        assert known < start
        assert (first, last) == (pytest.approx(start, abs=1e-5), pytest.approx(start + 1.0, abs=1e-5))
        # One that has just begun may refuse at first.
        (admitted, _), (_, refused), (again, opened) = one["flips"][-3:]
        assert (refused, opened) == (False, True)
        # The promise: nothing after the start plus what a process can't know of the store's clock.
        assert admitted <= start + one["slack"]
        # It opens by the record alone, which nobody writes before the end.
        assert again >= start + 1.0
        assert [closed for _, closed in one["turns"][-2:]] == [True, False]
    with capsys.disabled():
        ours = [next(at for at, closed in one["turns"] if closed and at > start - 1) for one in said]
        bare = [one["timers"][0] for one in said]
        print(f"\n  4 processes, a window: {spread(ours, start)}; bare timers: {spread(bare, start)}")
        slack = max(one["slack"] for one in said)
        print(
            f"  last write admitted {(max(one['flips'][-3][0] for one in said) - start) * 1000:+.1f} ms from the start"
        )
        print(f"  measured error of the clocks: {slack * 1000:.1f} ms, set wrong by up to {max(SKEWS):g} s")
    store = shop.store
    entries = [json.loads(raw) for raw in store.entries("history", last=2)]
    store.close()
    assert [(one["what"], one["causes"]) for one in entries] == [("scheduled", [name]), ("ended", [name])]


def test_none_ends_while_a_run_overruns(tmp_path: Path) -> None:
    """The run holds the window past its end, and ends it together with its own cause."""
    shop = made(tmp_path / "shop.db")
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with four(shop.url, tmp_path) as found:
        name, start = planned(shop, "1h")
        with shop.start("run", "--window", name, "--", "cat", str(gate)) as run:
            run.says("waiting for " + name)
            run.says("command: begins", timeout=20)
            (window,) = record(shop).windows
            moved(shop, name, window.start, datetime.now(UTC))
            shop.reports(len(found))
            # Nobody ends what is over where a run holds it: what they have reported since has changed nothing.
            assert not record(shop).windows[0].ended
            assert all(one.says()["read_only"] for one in found)
            released = time.time()
            gate.write_text("migrated")
            assert run.ends() == 0
        assert "migrated" in run.out
        eventually(lambda: not any(one.says()["read_only"] for one in found))
        said = [one.says() for one in found]
    for one in said:
        assert [closed for _, closed in one["turns"][-2:]] == [True, False]
        assert one["turns"][-1][0] > released > start
    assert (record(shop).causes, [(w.id, w.ended) for w in record(shop).windows]) == ((), [(name, True)])
    shop.store.close()
