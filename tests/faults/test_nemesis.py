"""The schedule: the same for the same seed, every kind in turn, and never two faults that break the same thing."""

from __future__ import annotations

from itertools import islice

import pytest

from faults.nemesis import CHANGE_HANGS, FAILOVERS, KINDS, NAMES, SENTINEL_NAMES, TWO_OPERATORS, Cycle, schedule


def cycles(seed: int, count: int = 60, **said: object) -> list[Cycle]:
    """Return the first cycles of a schedule."""
    return list(islice(schedule(seed, **said), count))  # type: ignore[arg-type]


def test_a_seed_replays_its_schedule() -> None:
    """All of it, and another seed gives another one."""
    assert cycles(7) == cycles(7)
    assert [str(cycle) for cycle in cycles(7)] != [str(cycle) for cycle in cycles(8)]


@pytest.mark.parametrize("names", [NAMES, SENTINEL_NAMES])
def test_no_kind_comes_much_more_often_than_another(names: tuple[str, ...]) -> None:
    """They are dealt like cards: only what could not be paired is drawn from the next deck early."""
    found = [fault.kind.name for cycle in cycles(3, 10 * len(names), kinds=names) for fault in cycle.faults]
    found += [TWO_OPERATORS for cycle in cycles(3, 10 * len(names), kinds=names) if cycle.second is not None]
    assert set(found) == set(names)
    assert max(found.count(name) for name in names) - min(found.count(name) for name in names) <= 3


def test_two_faults_of_a_cycle_are_of_two_groups() -> None:
    """A store that is dead can't be emptied."""
    for cycle in cycles(5, 200):
        groups = [fault.kind.group for fault in cycle.faults] + ["operators"] * (cycle.second is not None)
        assert len(groups) == len(set(groups)) == 2, str(cycle)


def test_each_kind_keeps_to_its_moments_and_times() -> None:
    """And to its target: a worker, the leased worker, the operators' line."""
    for cycle in cycles(6, 300):
        for fault in cycle.faults:
            kind = fault.kind
            assert fault.moment in kind.moments
            assert kind.shortest <= fault.seconds <= kind.longest
            assert fault.slot in {"worker": (0, 1, 2), "leased": (2,), "operators": (-1,), "": (-1,)}[kind.target]


def test_few_kinds_are_enough() -> None:
    """One alone comes every time; by name, with or without partners."""
    assert {fault.kind.name for cycle in cycles(1, kinds=["flush"]) for fault in cycle.faults} == {"flush"}
    assert all(cycle.changes_mind for cycle in cycles(1, kinds=[CHANGE_HANGS]))
    assert all(len(cycle.faults) == 1 for cycle in cycles(1, kinds=["flush", "stop"], pairs=0.0))


def test_names_are_of_kinds() -> None:
    """A Sentinel round has failovers, and nothing that needs a proxy: Sentinels name servers behind none."""
    known = {kind.name: kind for kind in (*KINDS, *FAILOVERS)}
    assert set(NAMES) | set(SENTINEL_NAMES) == set(known)
    assert not [name for name in SENTINEL_NAMES if known[name].group == "network" or name == CHANGE_HANGS]
