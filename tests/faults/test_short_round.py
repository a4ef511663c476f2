"""A short round: every kind of fault once, under load, and no write between "safe" and `off`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.checker import Wanted
from faults.nemesis import NAMES, TWO_OPERATORS
from faults.rounds import Plan, Round
from faults.versions import newer

# Replay another one: READONLY_TEST_FAULTS_SEED=… (and `python -m tests.faults` for long ones).
SEED, CYCLES = int(os.environ.get("READONLY_TEST_FAULTS_SEED", "59012")), 11
SPANS, TRIES = 5, 100


def test_every_kind_of_fault_is_in_the_short_round() -> None:
    """The seed is one whose first cycles have them all; a change of the nemesis wants another seed."""
    cycles = list(Plan(SEED, cycles=CYCLES).schedule())
    found = {fault.kind.name for cycle in cycles for fault in cycle.faults}
    found |= {TWO_OPERATORS for cycle in cycles if cycle.second is not None}
    assert found == set(NAMES)


@pytest.mark.timeout(1800)
def test_no_write_commits_in_a_confirmed_time_whatever_fails(a_round: Callable[[Plan], Round], tmp_path: Path) -> None:
    """Rows, commit records and answers agree; no acknowledged write is missing; no read is answered with an error.

    One of the workers runs a later version.
    """
    plan = Plan(SEED, cycles=CYCLES, newer=newer(tmp_path))
    verdict = a_round(plan).verdict(Wanted(spans=SPANS, tries=TRIES, kinds=NAMES))
    print("\n".join(verdict.lines()))
    assert verdict.violations == []
    assert verdict.void == []
