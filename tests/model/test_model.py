"""The protocol's model: nothing is broken with every rule in force, and something is with each of them taken out."""

from __future__ import annotations

import functools

import pytest

from .configurations import ABLATIONS, SMALL, Ablation
from .protocol import Model
from .search import Event, Result, narrated, search
from .values import Config
from .windows import KEPT, OpensByItsClock, Windows

_models: dict[str, Config] = {}


@functools.cache
def _searched(name: str) -> tuple[Model, Result]:
    config = _models[name]
    model = Model(config)
    with model.running():
        return model, search(model, limit=config.limit)


def searched(config: Config) -> tuple[Model, Result]:
    """Return the model of a configuration with every rule in force, and what a search in it has seen; once."""
    assert _models.setdefault(config.name, config) == config, "two configurations have one name"
    return _searched(config.name)


def failing(world: Model | Windows, result: Result) -> str:
    """Return the trace to what was broken, for whoever reads the failure."""
    return "\n".join(narrated(world, result)) if result.broken else ""


@pytest.mark.parametrize("config", SMALL, ids=lambda config: config.name)
def test_nothing_is_broken_by_what_may_happen(config: Config) -> None:
    """Every state is visited; SAFE stands in some, else nothing was shown."""
    model, result = searched(config)
    assert not result.broken, failing(model, result)
    assert result.exhausted
    assert result.promised.get("safe", 0) > 0
    assert not config.leases or result.promised["safe by lease"] > 0


@pytest.mark.parametrize(
    "ablation",
    [a for a in ABLATIONS if not a.large],
    ids=lambda ablation: f"{ablation.rule}-{ablation.without.__name__}",
)
def test_a_rule_taken_out_is_caught(ablation: Ablation) -> None:
    """By the promise that goes with it; on the same configuration nothing is broken with the rule in force."""
    model = ablation.without(ablation.config)
    with model.running():
        result = search(model, limit=ablation.config.limit)
    assert result.broken == ablation.breaks, result
    assert result.depth == len(result.trace)
    _, with_it = searched(ablation.config)
    assert (with_it.broken, with_it.exhausted, with_it.promised.get("safe", 0) > 0) == ("", True, True)


def test_the_rules_that_the_issue_names_are_all_taken_out() -> None:
    """Rule 14 has a model of its own."""
    assert {ablation.rule for ablation in ABLATIONS if not ablation.large} >= {
        "count first",
        "3",
        "5",
        "6",
        "7",
        "8",
        "10",
        "11",
        "13",
    }


def test_a_window_keeps_its_promise_whatever_the_clocks_say() -> None:
    """It closes by each clock and opens by the record; its end may be moved (rule 14)."""
    world = Windows()
    with world.running():
        result = search(world, limit=1_000_000)
    assert not result.broken, failing(world, result)
    assert result.exhausted
    assert result.promised["safe"] > 0


def test_a_window_that_opens_by_the_clock_is_caught() -> None:
    """Rule 14, taken out."""
    world = OpensByItsClock()
    with world.running():
        result = search(world, limit=1_000_000)
    assert result.broken == KEPT


def test_a_trace_can_be_read() -> None:
    """Each step with what it led to; the last one says what it broke."""
    ablation = ABLATIONS[0]
    model = ablation.without(ablation.config)
    with model.running():
        result = search(model, limit=1000)
    lines = narrated(model, result)
    assert len(lines) == result.depth + 1
    assert "p0 COMMIT" in lines[-1]
    assert "BROKEN" in lines[-1]
    assert any("op0: on, acknowledged" in line and "store e6=RO{c0} (p0)" in line for line in lines)


def test_a_search_that_is_cut_off_says_so() -> None:
    """What it has not seen, it has not shown."""
    model = Model(SMALL[0])
    with model.running():
        result = search(model, limit=100)
    assert (result.exhausted, result.broken) == (False, "")
    assert result.states >= 100


def test_the_same_configuration_is_the_same_search() -> None:
    """Names, times and chance are the model's own."""
    config = ABLATIONS[0].config
    results = []
    for _ in range(2):
        model = Model(config)
        with model.running():
            found = search(model, limit=1000, keep=True)
        results.append((found.states, found.depth, sorted(found.points), found.points[min(found.points)]))
    assert results[0] == results[1]
    assert Event("tick") in {event for step in found.points.values() if step is not None for event in [step[1]]}
