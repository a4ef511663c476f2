"""Model and code can't drift apart: real switches are driven through traces of the model."""

from __future__ import annotations

import pytest

from .ablations import AdmitsUnnoted, AdmitsUnregistered, NoProbation
from .configurations import SMALL
from .protocol import Model
from .replay import Pair, along, by_hand, one_for_each_pair, walk
from .search import search
from .values import Config

# Small enough for a trace of every pair of events to be found.
SEARCHED = (
    SMALL[0],
    Config("replayed: leases", {"cut": 1, "drift": 1}, writers=1, offs=False, counts=True, leases=True),
    Config("replayed: a flush, a kill", {"flush": 1, "kill": 1, "boot": 1}, 1, 1, counts=True, limit=5_000),
    Config(
        "replayed: a boot, a lost answer",
        {"boot": 1, "deaf": 1, "flush": 1},
        up=1,
        quiet=1,
        offs=False,
        counts=True,
        limit=8_000,
    ),
    Config("replayed: a goodbye", {"leave": 1, "boot": 1}, writers=1, offs=False, counts=True, limit=5_000),
    Config(
        "replayed: a failover of a replica that has not heard of one",
        {"failover": 1, "stop": 1},
        writers=1,
        offs=False,
        lags=True,
        counts=True,
        unheard=True,
        durable=True,
        limit=20_000,
    ),
    Config("replayed: a failover", {"failover": 1}, 1, 1, operators=2, counts=True, lags=True, limit=5_000),
)
# Too large to be searched, and walked at random.
FAULTS = {"flush": 1, "stop": 1, "kill": 1, "leave": 1, "boot": 2, "cut": 1}
WALKED = (
    Config("walked", FAULTS, operators=2, counts=True, peeks=True),
    Config("walked with leases", {**FAULTS, "drift": 1}, counts=True, leases=True, peeks=True),
    Config("walked with a failover", {"failover": 1, "boot": 2, "kill": 1}, up=1, operators=2, counts=True, lags=True),
)
WALKS, STEPS = 20, 50


def walks(model: Model) -> set[Pair]:
    """Drive random traces, and return the pairs of events that were in them."""
    seen: set[Pair] = set()
    for seed in range(WALKS):
        walk(model, seed=seed, steps=STEPS, seen=seen)
    return seen


@pytest.mark.parametrize("config", SEARCHED, ids=lambda config: config.name)
def test_switches_do_what_the_model_says(config: Config) -> None:
    """After every step: the record, the registry, what each process knows and admits, and what operators are told."""
    model = Model(config)
    seen: set[Pair] = set()
    with model.running(), by_hand():
        result = search(model, limit=config.limit, keep=True)
        for trace in one_for_each_pair(result):
            along(model, trace, seen)
    kinds = {kind for pair in seen for kind in pair}
    assert kinds >= {"beat", "on", "safe", "commit", "tick", *config.faults}
    assert not config.leases or "safe by lease" in kinds
    assert "kill" not in config.faults or "bury" in kinds


@pytest.mark.parametrize("config", WALKED, ids=lambda config: config.name)
def test_switches_do_what_the_model_says_wherever_it_goes(config: Config) -> None:
    """The same along random traces, each by its seed."""
    model = Model(config)
    with model.running(), by_hand():
        seen = walks(model)
    kinds = {kind for pair in seen for kind in pair}
    assert kinds >= {"beat", "on", "off", "count", "look", "commit", "tick", *config.faults}
    assert len(seen) > 100


@pytest.mark.parametrize("without", [AdmitsUnregistered, AdmitsUnnoted, NoProbation])
def test_a_model_that_says_something_else_is_noticed(without: type[Model]) -> None:
    """Else the replay compares nothing."""
    model = without(Config("walked", {"flush": 1, "boot": 1}, up=1, counts=True, peeks=True))
    with model.running(), by_hand(), pytest.raises(AssertionError, match=r"settled, fresh|view|who is new") as failure:
        walks(model)
    assert "boots" in failure.value.__notes__[0]
