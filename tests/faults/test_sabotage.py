"""The checker is worth something: what the promise rests on is taken away, one thing at a time, and it finds out.

Each runs the very nemesis, with a seed whose first cycle has the fault that shows it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from faults import sabotage
from faults.checker import Wanted
from faults.nemesis import BEFORE, CHANGE_HANGS, FIRST_WRITE, INSIDE, LEAVING
from faults.rounds import Plan, Round

ROWS = "rows more before off than after safe"
# What is broken, the seed, the fault that shows it, when that comes, and what the checker then says.
CASES = {
    "look first, count second": (236, "hold", BEFORE, ROWS),
    "no lease check": (420, "lease runs out", BEFORE, "was said to admit nothing, its lease being over"),
    "a missing record is writable": (716, "flush", INSIDE, ROWS),
    "a new process waits for nobody": (338, FIRST_WRITE, BEFORE, ROWS),
    "a silent member counts as drained": (1488, "half-open connection", BEFORE, ROWS),
    "a change that was given up on takes effect": (216, CHANGE_HANGS, LEAVING, ROWS),
}
WANTED = Wanted(spans=1, tries=1)


def test_everything_that_can_be_broken_has_a_seed() -> None:
    """None is left out."""
    assert set(CASES) == {*sabotage.WORKER, *sabotage.OPERATOR}


@pytest.mark.parametrize("broken", CASES)
def test_the_seed_begins_with_the_fault_that_shows_it(broken: str) -> None:
    """A change of the nemesis wants other seeds, and this says so at once."""
    seed, kind, moment, _ = CASES[broken]
    cycle = next(Plan(seed).schedule())
    assert (kind, moment) in [(fault.kind.name, fault.moment) for fault in cycle.faults]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("broken", CASES)
def test_what_is_broken_is_found_out(a_round: Callable[[Plan], Round], broken: str) -> None:
    """By a round of one cycle that is not void."""
    seed, _, _, said = CASES[broken]
    verdict = a_round(Plan(seed, cycles=1, sabotaged=broken)).verdict(WANTED)
    print("\n".join(verdict.lines()))
    assert [v for v in verdict.violations if said in v]
    assert verdict.void == []
