"""The pytest fixture, as a site's own tests use it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

SITE = """
from readonly.context import current
from readonly.testing import Answer, Route, memory_switch

def visit(request):
    return Answer({status}, {{"x-read-only": "true"}})

def test_no_route_writes(read_only_walk):
    switch = memory_switch()
    switch.guarded = True  # as if there were one
    routes = [Route(("GET",), "/{{slug}}", "page")]
    found = read_only_walk(routes, switch, {{"anonymous": visit}}, examples={{"slug": "a b"}})
    assert found.served == 1
    switch.close()
"""
OPTIONS = ("-p", "no:randomly", "-p", "no:timeout", "-p", "no:anyio", "-p", "no:cacheprovider")


@pytest.mark.parametrize(("status", "outcome"), [(200, "passed"), (500, "failed")])
def test_the_fixture_judges_and_says_how_much_it_saw(pytester: pytest.Pytester, status: int, outcome: str) -> None:
    """A finding fails the test with its text and no traceback; the end says how much was looked at, either way."""
    pytester.makeconftest('pytest_plugins = ["readonly.testing.pytest_plugin"]')
    pytester.makepyfile(SITE.format(status=status))
    result = pytester.runpytest_inprocess(*OPTIONS)
    result.assert_outcomes(**{outcome: 1})
    findings = "no findings" if status == 200 else "1 finding"
    result.stdout.fnmatch_lines([f"*test_no_route_writes: 1 routes, 1 requests served, 0 refused, {findings}"])
    if status == 500:
        result.stdout.fnmatch_lines(
            ["*GET /{slug} (page)  ?anonymous?: it failed", "*GET /a%20b was answered with 500*"]
        )
        result.stdout.no_fnmatch_line("*walking.py*")


def test_without_a_walk_nothing_is_said(pytester: pytest.Pytester) -> None:
    """The plugin is silent in runs that don't use it."""
    pytester.makeconftest('pytest_plugins = ["readonly.testing.pytest_plugin"]')
    pytester.makepyfile("def test_nothing(): pass")
    result = pytester.runpytest_inprocess(*OPTIONS)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*read-only walks*")


def test_importing_the_kit_loads_no_pytest() -> None:
    """Only whoever names the plugin gets it."""
    show = (
        "import sys, readonly, readonly.testing; print(sorted({'pytest', '_pytest', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
