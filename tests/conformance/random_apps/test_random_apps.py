"""Twenty applications, drawn anew in each run, in every framework: a request gets the same verdict everywhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conformance.random_apps.comparing import compared
from conformance.random_apps.drawing import application, requests
from readonly.marks import marks_of
from readonly.rules import Endpoint
from readonly_django.endpoints import Endpoints
from readonly_flask.routes import Routes
from readonly_starlette import routing

APPLICATIONS = 20
REQUESTS = 12
# Requests that all frameworks route alike: else too little would be compared.
ALIKE_AT_LEAST = 0.7


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> range:
    """What the applications are drawn by: the seed of the whole run, which is printed above the first test."""
    first = request.config.getoption("randomly_seed", 0)
    return range(first, first + APPLICATIONS)


def test_the_same_request_gets_the_same_verdict(seeds: range) -> None:
    """Routes, mounts, marks and rules of all kinds, in four states of the site."""
    found = [compared(seed, count=REQUESTS) for seed in seeds]
    differences = [difference for one in found for difference in one.differences]
    assert not differences, "\n".join(differences)
    asked = sum(one.asked for one in found)
    assert asked == APPLICATIONS * REQUESTS
    assert sum(one.alike for one in found) > ALIKE_AT_LEAST * asked
    # Nothing is refused while writable, and much in the two states in which the site is read-only.
    assert sum(one.refused for one in found) > asked


def _unmarked(view: object) -> frozenset[str]:
    return frozenset(mark for mark in marks_of(view) if ":" in mark)


def _knows_nothing(*_given: object) -> Endpoint:
    return Endpoint("")


BROKEN: dict[str, tuple[object, str, Callable[..., object]]] = {
    "Starlette": (routing, "marks_of", _unmarked),
    "Flask": (Routes, "__call__", _knows_nothing),
    "Django": (Endpoints, "of", _knows_nothing),
}


@pytest.mark.parametrize("framework", BROKEN)
def test_a_framework_that_judges_by_itself_is_caught(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that looks away from marks is named, with what the others say."""
    monkeypatch.setattr(*BROKEN[framework])
    differences = compared(0, count=60).differences
    assert differences
    for difference in differences:
        verdicts = dict(line.strip().split(": ", 1) for line in difference.splitlines()[1:])
        assert len(verdicts) == 4
        # Django is there twice.
        others = {verdict for name, verdict in verdicts.items() if not name.startswith(framework)}
        assert verdicts[framework] not in others, difference


def test_a_seed_says_everything() -> None:
    """The same seed draws the same application and the same requests; another one others."""
    assert application(7) == application(7)
    assert requests(application(7), 10) == requests(application(7), 10)
    assert application(7) != application(8)
    assert "reads: " in "".join(application(seed).described() for seed in range(10))
