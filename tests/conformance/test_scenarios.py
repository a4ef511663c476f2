"""The scenarios themselves: nothing in them is misspelled, nothing is left to no cell, and the page shows them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from conformance import table
from conformance.asking import Reply, problems
from conformance.plan import why_left_out
from conformance.scenario import FOLDER, Expectation, Misspelled, Suite, load
from conformance.servers import COVER, SERVERS, SITES

CASE = 'cases = ["safe-methods"]\n'
REQUEST = 'request = { path = "/" }\n'


@pytest.fixture(scope="module")
def suite() -> Suite:
    """The scenarios."""
    return load()


def test_every_server_and_every_framework_is_covered(suite: Suite) -> None:
    """Each framework has a cell for every scenario that it can run at all, among those that `make test` runs."""
    assert {server for server, _, _ in COVER} == set(SERVERS)
    assert all(site in SITES[SERVERS[server].interface] for server, site, _ in COVER)
    for site in dict.fromkeys(sum(SITES.values(), ())):
        everywhere = [server for server in SERVERS.values() if site in SITES[server.interface]]
        here = [SERVERS[server] for server, one, _ in COVER if one == site]
        for scenario in suite.scenarios:
            for state in scenario.states:
                can = [s for s in everywhere if not why_left_out(suite, s, site, scenario, state)]
                assert not can or any(s in can for s in here), f"{site}: {scenario.name} in {state}"


def test_the_page_shows_cases_and_deviations(suite: Suite) -> None:
    """They are made from the data: `python -m tests.conformance --page` writes them anew."""
    page = table.PAGE.read_text(encoding="utf-8")
    assert table.part("cases", page) == table.cases(suite)
    assert table.part("deviations", page) == table.deviations(suite)


def test_the_page_s_table_is_of_these_scenarios(suite: Suite) -> None:
    """Each cell stands in it, run with as many scenarios as there are now: else `make conformance` is due."""
    shown = table.shown_cells(table.part("table", table.PAGE.read_text(encoding="utf-8")))
    for server in SERVERS.values():
        sites = SITES[server.interface]
        if server.last_python is not None and "never made for a Python" in shown[server.name, sites[0]]:
            continue  # whoever ran the table could not have it
        for site in sites:
            runs = table.expected_runs(suite, server, site)
            assert shown[server.name, site].startswith(f"{runs} of {runs} as expected"), (server.name, site)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f'[[scenario]]\nname = "x"\n{CASE}{REQUEST}expect.closed = "refusd"\n', "no outcome 'refusd'"),
        (f'[[scenario]]\nname = "x"\n{CASE}{REQUEST}expect.shut = "refused"\n', "'shut' is no state"),
        (f'[[scenario]]\nname = "x"\n{CASE}{REQUEST}expect.open = {{ writes = 1 }}\n', "status must be expected"),
        (
            f'[[scenario]]\nname = "x"\n{CASE}{REQUEST}expect.open = {{ status = 200, header = {{}} }}\n',
            "'header' is not",
        ),
        (f'[[scenario]]\nname = "x"\n{CASE}request = {{ pth = "/" }}\nexpect.open = "handled"\n', "'pth' is not part"),
        (f'[[scenario]]\nname = "x"\n{CASE}{REQUEST}expct.open = "handled"\n', "'expct' is not part"),
        (f'[[scenario]]\nname = "x"\ncases = ["nothing"]\n{REQUEST}expect.open = "handled"\n', "'nothing'"),
        (f'[[scenario]]\nname = "x"\n{REQUEST}expect.open = "handled"\n', "cases"),
        (f'[[scenario]]\nname = "a webhook"\n{CASE}{REQUEST}expect.open = "handled"\n', "is there twice"),
        (f'[[scenario]]\nname = "x"\n{CASE}steps = []\n{REQUEST}expect.open = "handled"\n', "either `request`"),
    ],
)
def test_what_is_misspelled_is_an_error(text: str, complaint: str, tmp_path: Path) -> None:
    """A check that is never made would pass for ever."""
    shutil.copytree(FOLDER, tmp_path / "scenarios")
    (tmp_path / "scenarios" / "more.toml").write_text(text)
    with pytest.raises(Misspelled, match=complaint):
        load(tmp_path / "scenarios")


def test_a_case_has_scenarios_or_a_reason_and_not_both(tmp_path: Path) -> None:
    """So none is forgotten, and no reason goes stale."""
    shutil.copytree(FOLDER, tmp_path / "scenarios")
    cases = tmp_path / "scenarios" / "cases.toml"
    text = cases.read_text(encoding="utf-8")
    for changed in (
        text.replace('id = "safe-methods", ', 'id = "safe-methods", elsewhere = "somewhere", ', 1),
        text.replace("case = [\n", 'case = [\n  { id = "forgotten", what = "something" },\n', 1),
    ):
        cases.write_text(changed, encoding="utf-8")
        with pytest.raises(Misspelled, match="must have a scenario, or say"):
            load(tmp_path / "scenarios")


@pytest.mark.parametrize(
    "changed",
    [
        ('id = "safe-methods", numbers = ["A1"], ', 'id = "safe-methods", '),
        ('id = "safe-methods", numbers = ["A1"], ', 'id = "safe-methods", numbers = ["A1", "A99"], '),
        ('numbers = ["A1", "A2", ', 'numbers = ["A1", "A2", "A99", '),
    ],
    ids=["nobody's", "not listed", "forgotten"],
)
def test_the_catalogue_is_complete(changed: tuple[str, str], tmp_path: Path) -> None:
    """Each number of a section belongs to a case, and no case has one that the section does not list."""
    shutil.copytree(FOLDER, tmp_path / "scenarios")
    cases = tmp_path / "scenarios" / "cases.toml"
    text = cases.read_text(encoding="utf-8")
    assert text.count(changed[0]) == 1
    cases.write_text(text.replace(*changed), encoding="utf-8")
    with pytest.raises(Misspelled, match="A1 must be" if changed[1] == 'id = "safe-methods", ' else "A99 must be"):
        load(tmp_path / "scenarios")


def test_the_catalogue_has_all_that_a_client_may_see(suite: Suite) -> None:
    """Its five sections, with as many places as they had when the suite began: none of them was dropped since."""
    numbers = {number for case in suite.cases for number in case.numbers}
    counts = {letter: sum(number.startswith(letter) for number in numbers) for letter in "ABCDE"}
    assert counts == {"A": 19, "B": 24, "C": 10, "D": 18, "E": 13}
    assert len(numbers) == sum(counts.values())


def test_a_deviation_is_of_something(tmp_path: Path) -> None:
    """A scenario that was renamed takes its deviations along."""
    shutil.copytree(FOLDER, tmp_path / "scenarios")
    file = tmp_path / "scenarios" / "deviations.toml"
    file.write_text(file.read_text(encoding="utf-8").replace('scenario = "a new websocket"', 'scenario = "gone"'))
    with pytest.raises(Misspelled, match="no scenario 'gone'"):
        load(tmp_path / "scenarios")


REPLY = Reply(
    503,
    [("X-Handled", "article"), ("Retry-After", "60"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
    b'{"code": "READ_ONLY", "retry_after": 60}',
    interim=[],
    connection="kept",
)
EXPECTED = Expectation(
    status=(503,),
    handled="article",
    headers={"Retry-After": r"~\d+", "set-cookie": "a=1, b=2", "Location": False},
    body={"code": "READ_ONLY", "retry_after": True},
    text=("READ",),
    no_text=("script",),
    length=">=10",
    writes=1,
)


def test_what_is_expected_is_no_problem() -> None:
    """Everything that can be said at once."""
    assert problems(REPLY, EXPECTED, writes=1) == []


@pytest.mark.parametrize(
    "other",
    [
        {"status": (200, 201)},
        {"handled": ""},
        {"handled": "articles"},
        {"headers": {"Retry-After": "6"}},
        {"headers": {"Retry-After": False}},
        {"headers": {"Set-Cookie": "a=1"}},
        {"headers": {"Location": "/there"}},
        {"body": {"code": "SESSION_ENDED"}},
        {"body": {"detail": True}},
        {"text": ("read",)},
        {"no_text": ("READ",)},
        {"length": 0},
        {"length": ">=1000"},
        {"writes": 0},
        {"interim": (100,)},
        {"hears": "HELLO"},
        {"close_code": 1012},
    ],
    ids=str,
)
def test_anything_else_is_a_problem(other: dict[str, object]) -> None:
    """Each thing that an expectation may say is looked at."""
    assert len(problems(REPLY, replace(EXPECTED, **other), writes=1)) == 1  # type: ignore[arg-type]  # fields of it
