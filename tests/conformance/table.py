"""The parts of docs/conformance.md that are made from the data and from a run of the whole table."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Final

from .cell import Outcome
from .plan import why_left_out
from .scenario import Case, Deviation, Scenario, Suite
from .servers import ASGI, SERVERS, SITES, WSGI, Interface, Server

PAGE: Final = Path(__file__).parents[2] / "docs" / "conformance.md"
# How the table calls the sites, and the distributions that they are about.
TITLES: Final[Mapping[str, tuple[str, str]]] = {
    "asgi": ("no framework", ""),
    "wsgi": ("no framework", ""),
    "starlette": ("Starlette", "starlette"),
    "fastapi": ("FastAPI", "fastapi"),
    "flask": ("Flask", "flask"),
    "django": ("Django", "django"),
    "django_asgi": ("Django", "django"),
}
_PART = "<!-- {name} -->\n{text}<!-- end of {name} -->"


def part(name: str, page: str) -> str:
    """Return the part of a page between the marks of that name.

    Raises:
        LookupError: There is none.
    """
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", page, re.DOTALL)
    if found is None:
        raise LookupError(f"{PAGE.name} has no part <!-- {name} --> … <!-- end of {name} -->: put the two lines back")
    return found[1]


def replaced(name: str, text: str, page: str) -> str:
    """Return the page with another text between the marks of that name."""
    return page.replace(_PART.format(name=name, text=part(name, page)), _PART.format(name=name, text=text))


# --- from the data ----------------------------------------------------------------------------------------------------


def cases(suite: Suite) -> str:
    """Return the table of cases: what is asked, and what shows it."""
    lines: list[str] = []
    for section, found in groupby(suite.cases, lambda case: case.section):
        lines += ["", f"### {section}", "", "| | case | shown by |", "|---|---|---|"]
        lines += [f"| {' '.join(case.numbers)} | {case.what} | {_shown_by(case, suite)} |" for case in found]
    return "\n".join([*lines, "", ""])


def _shown_by(case: Case, suite: Suite) -> str:
    if case.elsewhere:
        return f"*no scenario:* {case.elsewhere}"
    names = dict.fromkeys(_base(scenario) for scenario in suite.of_case(case))
    return "; ".join(names)


def _base(scenario: Scenario) -> str:
    return scenario.name.partition(":")[0]


def deviations(suite: Suite) -> str:
    """Return the table of what differs, where, and why."""
    lines = ["", "| scenario | where | what comes instead | why |", "|---|---|---|---|"]
    for deviation in suite.deviations:
        instead = "not run" if deviation.expect is None else _instead(deviation)
        lines.append(f"| {_code(deviation.scenario)} | {_where(deviation)} | {instead} | {deviation.why} |")
    return "\n".join([*lines, "", ""])


def _where(deviation: Deviation) -> str:
    places = [*(f"`{name}`" for name in deviation.servers if name != "*")]
    where = ", ".join([*places, *(_title(app) for app in deviation.apps if app != "*")])
    return f"{where} ({', '.join(deviation.states)})" if deviation.states else where


def _title(site: str) -> str:
    title = TITLES[site][0]
    return f"{title} (ASGI)" if site == "django_asgi" else f"{title} (WSGI)" if site == "django" else title


def _instead(deviation: Deviation) -> str:
    assert deviation.expect is not None
    words = {"outcome": "`{}`", "status": "status {}", "close_code": "close code {}", "interim": "after {}"}
    said = deviation.expect
    return ", ".join(text.format(said[name]) for name, text in words.items() if name in said)


def _code(text: str) -> str:
    name, colon, what = text.partition(": ")
    return f"{name}: `{what}`" if colon else name


# --- from a run -------------------------------------------------------------------------------------------------------


def expected_runs(suite: Suite, server: Server, site: str) -> int:
    """Return how many runs a cell has, by the data alone."""
    return sum(
        not why_left_out(suite, server, site, scenario, state)
        for scenario in suite.scenarios
        for state in scenario.states
    )


def results(outcomes: Sequence[Outcome], suite: Suite, lacking: Mapping[str, str]) -> str:
    """Return the tables of a run: a row for each server, a column for each framework.

    Args:
        outcomes: What the cells have shown.
        suite: The scenarios.
        lacking: Servers that could not be run, with the reason.
    """
    found = {(outcome.server, outcome.site): outcome for outcome in outcomes}
    lines = [
        "",
        f"{len(suite.scenarios)} scenarios, {suite.runs()} runs a cell where nothing is left out. "
        f"Python {platform.python_version()}.",
    ]
    tables: tuple[tuple[Interface, Sequence[Server]], ...] = (("asgi", ASGI), ("wsgi", WSGI))
    for interface, servers in tables:
        lines += ["", *_table(interface, servers, found, suite, lacking)]
    reasons = sorted({why for outcome in outcomes for why in outcome.left_out.values()})
    lines += ["", "Left out:", "", *(f"- {why}" for why in reasons), ""]
    return "\n".join([*lines, ""])


def _table(
    interface: Interface,
    servers: Sequence[Server],
    found: Mapping[tuple[str, str], Outcome],
    suite: Suite,
    lacking: Mapping[str, str],
) -> list[str]:
    sites = SITES[interface]
    heads = [f"{TITLES[site][0]} {_version(TITLES[site][1])}".strip() for site in sites]
    lines = [f"| {interface.upper()} | {' | '.join(heads)} |", f"|---|{'---|' * len(sites)}"]
    for server in servers:
        if server.name in lacking:
            cells = [lacking[server.name], *("" for _ in sites[1:])]
        else:
            cells = [_cell(found[server.name, site], suite) for site in sites]
        lines.append(f"| {server.name} {server.version} | {' | '.join(cells)} |")
    return lines


def _cell(outcome: Outcome, suite: Suite) -> str:
    left = suite.runs() - outcome.ran
    said = f"{outcome.ran - len(outcome.failures)} of {outcome.ran} as expected"
    return f"{said}, {left} left out" if left else said


def _version(distribution: str) -> str:
    return metadata.version(distribution) if distribution else ""


def shown_cells(text: str) -> dict[tuple[str, str], str]:
    """Read the tables of a run back: what each cell says, by the server's name and the site's."""
    found: dict[tuple[str, str], str] = {}
    for interface, sites in SITES.items():
        servers = [server for server in SERVERS.values() if server.interface == interface]
        for line in text.splitlines():
            first, *cells = [word.strip() for word in line.strip("|").split("|")]
            server = next((s for s in servers if first.rpartition(" ")[0] == s.name), None)
            if server is not None and len(cells) == len(sites):
                found |= {(server.name, site): cell for site, cell in zip(sites, cells, strict=True)}
    return found
