"""`make demo-postgres` tells a night that keeps its promises from one that does not."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from demo_app.postgres import verdict
from demo_app.postgres.verdict import Act, Attempt, Evidence
from demo_app.seen import Seen
from support import children
from support.missing import ServerMissing, outcome
from support.postgres_server import find_postgres
from support.redis_server import find_redis

PROJECT = Path(__file__).parents[2]
DEADLINE_SECONDS = 300
SECOND = 10**9
HOLD = 10

PLAIN = Act("without freeze", False, 100 * SECOND, 115 * SECOND, 102 * SECOND, 112 * SECOND, 0)
FROZEN = Act("with freeze", True, 200 * SECOND, 215 * SECOND, 202 * SECOND, 212 * SECOND, 0)


def page(at: float, seconds: float = 0.02, **more: object) -> Seen:
    """Return a page that somebody read."""
    told = {"client": "reader-1", "action": "read", "route": "GET /", "status": 200} | more
    return Seen(start=int(at * SECOND), end=int((at + seconds) * SECOND), **told)  # type: ignore[arg-type]


def attempt(at: float, text: str, code: str = "") -> Attempt:
    """Return a write of the rogue's."""
    return Attempt(int(at * SECOND), int((at + 0.01) * SECOND), "comment", text, code)


def kept() -> Evidence:
    """Return a night in which all went well, and enough happened."""
    wrote = [attempt(n / 10, f"rogue 1-{n}") for n in range(400)]
    return Evidence(
        seen=[page(n / 10) for n in range(300)] + [page(103 + n / 50) for n in range(300)]
        + [page(203 + n / 50) for n in range(300)],
        attempts=wrote + [attempt(act + n / 20, f"late {act}-{n}", "42501") for act in (103, 203) for n in range(150)],
        controls=[(n * SECOND, n * SECOND + 1) for n in range(90)]
        + [(103 * SECOND, 112 * SECOND + 1), (203 * SECOND, 212 * SECOND + 1)],
        waiting=[(104 * SECOND, 5), (204 * SECOND, 0)],
        acts=[PLAIN, FROZEN],
        stored=frozenset(found.text for found in wrote),
        rows=12_000,
        transactions=3_000,
    )  # fmt: skip


def judged(evidence: Evidence) -> tuple[int, set[str]]:
    """Return the exit code, and what was broken or too little."""
    found = verdict.judge(evidence, hold_seconds=HOLD)
    broken = {promise.text for promise in found.promises if promise.broken}
    return found.exit_code, broken | {minimum.text for minimum in found.minimums if not minimum.met}


def test_a_night_that_keeps_its_promises() -> None:
    """Exit 0, and the columns say what was measured in which phase."""
    found = verdict.judge(kept(), hold_seconds=HOLD)
    assert judged(kept()) == (verdict.KEPT, set())
    assert [column.name for column in found.columns] == ["quiet", "without freeze", "with freeze"]
    quiet, plain, frozen = found.columns
    assert (quiet.pages.count, quiet.rogue_committed, quiet.rogue_refused) == (300, 400, 0)
    assert (plain.rogue_committed, plain.rogue_refused) == (0, 150)
    assert frozen.pages.p99 == pytest.approx(20)
    assert frozen.primary.longest == pytest.approx(9000, rel=0.01)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"acts": [PLAIN, replace(FROZEN, appeared=2)]}, "rows written by others while a fence stood, in the database"),
        ({"stored": frozenset[str]()}, "acknowledged writes that are missing"),
        ({"seen": [*kept().seen, page(50, error="status 500")]}, "reads that failed"),
        ({"waiting": [(104 * SECOND, 5), (204 * SECOND, 1)]}, "reads found waiting for the lock at the frozen standby"),
        ({"seen": [*kept().seen, page(205, 5.1)]}, "pages that took half as long as the lock was held, while frozen"),
    ],
)
def test_a_broken_promise_is_named(change: dict[str, object], said: str) -> None:
    """Exit 1, and nothing else is named."""
    assert judged(replace(kept(), **change)) == (verdict.BROKEN, {said})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": 9_999}, "rows in the table that is migrated"),
        ({"transactions": 999}, "transactions of the primary, quiet"),
        ({"seen": kept().seen[200:]}, "pages read, quiet"),
        ({"seen": kept().seen[:600]}, "with freeze: pages read while the lock was held"),
        ({"waiting": [(204 * SECOND, 0)]}, "reads found waiting at the standby that was not frozen"),
        (
            {"controls": kept().controls[:-1]},
            "with freeze: reads on the primary that waited until it was released",
        ),
        ({"attempts": kept().attempts[:550]}, "with freeze: writes of the rogue refused"),
        ({"attempts": kept().attempts[200:]}, "writes of the rogue committed, quiet"),
        (
            {"acts": [PLAIN, replace(FROZEN, released=211 * SECOND)]},
            "with freeze: ms that the lock was held",
        ),
    ],
)
def test_too_small_a_load_means_nothing(change: dict[str, object], said: str) -> None:
    """Exit 3, and nothing else is named."""
    assert judged(replace(kept(), **change)) == (verdict.TOO_SMALL, {said})  # type: ignore[arg-type]


@pytest.mark.timeout(2 * DEADLINE_SECONDS)
def test_a_night_without_fence_and_freeze_is_found_out(tmp_path: Path) -> None:
    """The demonstration itself, shortened and sabotaged: exit 1, for those reasons."""
    try:
        find_postgres(), find_redis()
    except ServerMissing as error:
        raise outcome(error) from error
    output = tmp_path / "said.txt"
    words = ("--only", "with freeze", "--without", "fence", "--hold", "1", "--seconds", "0", "--patience", "0")
    with output.open("wb") as file:
        process = children.start(
            [sys.executable, "-m", "demo_app.postgres.demo", *words],
            output=file,
            when_we_die="TERM",
            folder=PROJECT,
        )
    try:
        code = process.wait(DEADLINE_SECONDS)
    finally:
        children.end(process, signal.SIGTERM)
    said = output.read_text()
    assert code == verdict.BROKEN, said
    broken = [line.split(maxsplit=2)[2] for line in said.splitlines() if line.startswith("BROKEN")]
    assert "rows written by others while a fence stood, in the database" in broken, said
    assert "acknowledged writes that are missing" not in broken, said
    # Not frozen, so pages wait; on a busy machine a visitor gives one up. Nothing else may become of a read.
    failures = [line for line in said.splitlines() if "(Broken: " in line]
    assert all("TimeoutError" in line for line in failures), said
