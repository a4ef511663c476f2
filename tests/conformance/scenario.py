"""Scenarios as data: read from TOML, checked, and spread out into what is sent in one state of the site.

The form is described in docs/conformance.md. What is misspelled is an error here, and not a check that is never made.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, TypeVar

FOLDER: Final = Path(__file__).parent / "scenarios"

# In the order in which a cell goes through them.
STATES: Final = ("writable", "settled", "first minute", "over", "suspended")
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "open": ("writable", "over"),
    "closed": ("settled", "first minute"),
    "every": ("writable", "settled", "first minute", "over"),
    # Begun while writable, finished while read-only.
    "across": ("across",),
}
OPEN: Final = frozenset(GROUPS["open"])

T = TypeVar("T")


class Misspelled(ValueError):
    """The data say something that nobody would look at."""


@dataclass(frozen=True)
class Request:
    """What is sent.

    Attributes:
        method: Of the request line.
        path: As it is sent.
        query: Without the question mark.
        headers: Name to value, or to several values that are sent as several headers.
        form: A body of fields, URL encoded.
        json: A body, as JSON.
        body: A body, as text.
        size: A body of so many bytes.
        chunked: The body is sent in chunks, without a length.
        visitor: Whose cookies are sent: somebody who signed in (`ann`: while writable; `zoe`: after off).
        cookies: Sent in one header, besides the visitor's.
        bypass: Which bypass is sent along: one that lets through everywhere, in a `header` or a `cookie`; one that lets
            through `elsewhere`; one `from before`, from the last read-only time. `{bypass}` and `{link}` in path or
            query are the tokens of the first.
        socket: Sent byte for byte as it stands here, since a client library would tidy it up.
        raw: The whole request as text, each line's end becoming CR LF; nothing else is sent.
        version: HTTP/1.1 or HTTP/1.0, if sent by the socket.
        hang_up: The connection is closed as soon as this was sent; there is no answer to look at.
        pause: Half of the body is sent before the site is switched, the other half after it.
        websocket: A handshake; `say` is sent once it is open.
        say: What is sent over the websocket.
    """

    method: str = "GET"
    path: str = "/"
    query: str = ""
    headers: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    form: Mapping[str, str] | None = None
    json: Any = None
    body: str | None = None
    size: int | None = None
    chunked: bool = False
    visitor: str = ""
    cookies: Mapping[str, str] = field(default_factory=dict)
    bypass: str = ""
    socket: bool = False
    raw: str = ""
    version: str = "HTTP/1.1"
    hang_up: bool = False
    pause: bool = False
    websocket: bool = False
    say: str = "hello"


@dataclass(frozen=True)
class Expectation:
    """What must come back.

    Attributes:
        status: Status code, or any of several; 0: no answer, the connection is closed; 101: an open websocket.
        handled: The name of the view that answered, `""` if none did (the header `X-Handled`), None: not looked at.
        headers: Name to value. `~` begins a regular expression, `false` says that there is no such header.
        body: Members of the JSON document that came back.
        text: Parts of the body.
        no_text: What is nowhere in the body.
        length: The body's length, or what is after `>=`.
        writes: How many writes the application has noted meanwhile.
        connection: `kept` or `closed`: what becomes of the connection that it came by.
        interim: Status codes of the informational responses before it.
        close_code: Of the websocket's closing.
        hears: What is heard over the websocket.
    """

    status: tuple[int, ...] = ()
    handled: str | None = None
    headers: Mapping[str, str | bool] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    text: Sequence[str] = ()
    no_text: Sequence[str] = ()
    length: str | int | None = None
    writes: int | None = 0
    connection: str = ""
    interim: Sequence[int] = ()
    close_code: int | None = None
    hears: str | None = None


@dataclass(frozen=True)
class Step:
    """One request, and what must come back by the state."""

    request: Request
    expect: Mapping[str, Expectation]


@dataclass(frozen=True)
class Scenario:
    """Steps that are gone through one after another, over one connection where they are sent by a socket."""

    name: str
    cases: tuple[str, ...]
    steps: tuple[Step, ...]
    needs: frozenset[str] = frozenset()

    @property
    def states(self) -> tuple[str, ...]:
        """The states that it says something about."""
        return tuple(state for state in (*STATES, "across") if any(state in step.expect for step in self.steps))


@dataclass(frozen=True)
class Deviation:
    """Where a server or a framework does otherwise, for a reason that is not ours to change.

    Attributes:
        scenario: Names of scenarios, with `*`.
        servers, apps: Where, with `*`.
        states: When; empty: always.
        why: One sentence.
        expect: What is expected instead, for the step that it is about; None: the scenario is not run there.
        step: Which one, from 1.
    """

    scenario: str
    why: str
    servers: tuple[str, ...] = ("*",)
    apps: tuple[str, ...] = ("*",)
    states: tuple[str, ...] = ()
    expect: Mapping[str, Any] | None = None
    step: int = 1

    def concerns(self, scenario: str, server: str, app: str, state: str) -> bool:
        """Return whether it is about this run of a scenario."""
        return (
            fnmatchcase(scenario, self.scenario)
            and any(fnmatchcase(server, pattern) for pattern in self.servers)
            and any(fnmatchcase(app, pattern) for pattern in self.apps)
            and (not self.states or state in self.states)
        )


@dataclass(frozen=True)
class Case:
    """Something that sites got wrong, in a few words; and where it is looked at, if not here.

    Attributes:
        id: How scenarios name it.
        numbers: Its places in the catalogue that the sections of `cases.toml` list, if it was in there.
        section: Heading of the table in the docs.
        what: What is asked, and the right outcome.
        elsewhere: Why no scenario can show it, or the tests that do.
    """

    id: str
    section: str
    what: str
    numbers: tuple[str, ...] = ()
    elsewhere: str = ""


@dataclass(frozen=True)
class Suite:
    """Everything that was read."""

    scenarios: tuple[Scenario, ...]
    deviations: tuple[Deviation, ...]
    cases: tuple[Case, ...]
    outcomes: Mapping[str, Mapping[str, Any]]

    def runs(self, scenarios: Sequence[Scenario] | None = None) -> int:
        """Return how many runs there are where nothing is left out: one for each scenario and state."""
        return sum(len(scenario.states) for scenario in (self.scenarios if scenarios is None else scenarios))

    def of_case(self, case: Case) -> list[Scenario]:
        """Return the scenarios of a case."""
        return [scenario for scenario in self.scenarios if case.id in scenario.cases]

    def instead(self, deviation: Deviation, state: str) -> Expectation:
        """Return what a deviation expects in a state."""
        assert deviation.expect is not None
        return _expectation(deviation.expect, state, self.outcomes, deviation.scenario)


def load(folder: Path = FOLDER) -> Suite:
    """Read every file of the folder.

    Raises:
        Misspelled: Something in it is not part of the form, or is said twice, or of nothing.
    """
    outcomes: dict[str, Mapping[str, Any]] = tomllib.loads((folder / "outcomes.toml").read_text(encoding="utf-8"))
    scenarios: list[Scenario] = []
    for path in sorted(folder.glob("*.toml")):
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        if path.name in ("outcomes.toml", "cases.toml", "deviations.toml"):
            continue
        _only(document, {"scenario"}, path.name)
        for table in document["scenario"]:
            scenarios += _spread(table, outcomes)
    sections = tomllib.loads((folder / "cases.toml").read_text(encoding="utf-8"))["section"]
    cases: list[Case] = []
    for section in sections:
        _only(section, {"title", "numbers", "case"}, "cases.toml")
        own = [_made(Case, {**case, "section": section["title"]}, "cases.toml") for case in section["case"]]
        astray = set(section["numbers"]) ^ {number for case in own for number in case.numbers}
        if astray:
            raise Misspelled(f"cases.toml: {', '.join(sorted(astray))} must be listed and belong to a case, both")
        cases += own
    deviations = [
        _made(Deviation, table, "deviations.toml")
        for table in tomllib.loads((folder / "deviations.toml").read_text(encoding="utf-8"))["deviation"]
    ]
    suite = Suite(tuple(scenarios), tuple(deviations), tuple(cases), outcomes)
    _check(suite)
    return suite


def _check(suite: Suite) -> None:
    for what, found in (
        ("scenario", [scenario.name for scenario in suite.scenarios]),
        ("case", [case.id for case in suite.cases]),
    ):
        twice = sorted({name for name in found if found.count(name) > 1})
        if twice:
            raise Misspelled(f"{what} {twice[0]!r} is there twice: give each its own name")
    known = {case.id for case in suite.cases}
    for scenario in suite.scenarios:
        unknown = set(scenario.cases) - known
        if unknown or not scenario.cases:
            raise Misspelled(f"scenario {scenario.name!r}: cases={sorted(unknown)} are not in cases.toml")
    for case in suite.cases:
        if bool(suite.of_case(case)) is bool(case.elsewhere):
            raise Misspelled(f"case {case.id!r} must have a scenario, or say in `elsewhere` why it has none; not both")
    for deviation in suite.deviations:
        if not any(fnmatchcase(scenario.name, deviation.scenario) for scenario in suite.scenarios):
            raise Misspelled(f"deviation: there is no scenario {deviation.scenario!r}")
        if deviation.expect is not None:
            for state in deviation.states or STATES:
                suite.instead(deviation, state)


def _spread(table: Mapping[str, Any], outcomes: Mapping[str, Mapping[str, Any]]) -> Iterator[Scenario]:
    """Make one scenario of a table, or one for each combination of what stands under `each`."""
    name = table.get("name", "")
    where = f"scenario {name!r}"
    _only(table, {"name", "cases", "each", "request", "expect", "steps", "needs"}, where)
    if not name or ("steps" in table) is ("request" in table):
        raise Misspelled(f"{where} needs a name, and either `request` and `expect` or `steps`")
    steps = table.get("steps") or [{"request": table["request"], "expect": table["expect"]}]
    each: Mapping[str, Sequence[Any]] = table.get("each", {})
    for chosen in itertools.product(*each.values()):
        values = dict(zip(each, chosen, strict=True))
        made = []
        for step in steps:
            _only(step, {"request", "expect"}, where)
            first = step is steps[0]
            made.append(
                Step(
                    _made(Request, {**step["request"], **(values if first else {})}, where),
                    _by_state(step["expect"], outcomes, where),
                )
            )
        label = ", ".join(_label(value) for value in values.values())
        yield Scenario(
            f"{name}: {label}" if label else name,
            tuple(table.get("cases", ())),
            tuple(made),
            frozenset(table.get("needs", ())) | ({"websockets"} if any(s.request.websocket for s in made) else set()),
        )


def _label(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_label(inner)}".strip() for name, inner in value.items())
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _by_state(
    table: Mapping[str, Any], outcomes: Mapping[str, Mapping[str, Any]], where: str
) -> Mapping[str, Expectation]:
    found: dict[str, Expectation] = {}
    # The closer word wins: a state said by name over the group that it is in.
    for word in sorted(table, key=lambda word: word not in ("every",) and 1 + (word not in GROUPS)):
        states = GROUPS.get(word, (word,))
        if word not in GROUPS and word not in STATES:
            raise Misspelled(f"{where}: {word!r} is no state: use {', '.join((*STATES, *GROUPS))}")
        for state in states:
            found[state] = _expectation(table[word], state, outcomes, where)
    return found


def _expectation(
    given: str | Mapping[str, Any], state: str, outcomes: Mapping[str, Mapping[str, Any]], where: str
) -> Expectation:
    """Merge what is said here over what its named outcome says, and what that says of this state."""
    if isinstance(given, str):
        given = {"outcome": given}
    given = dict(given)
    name = given.pop("outcome", "")
    values: dict[str, Any] = {}
    if name:
        if name not in outcomes:
            raise Misspelled(f"{where}: there is no outcome {name!r} in outcomes.toml")
        outcome = dict(outcomes[name])
        by_mode = {mode: outcome.pop(mode, {}) for mode in ("open", "closed")}
        values = _over(outcome, by_mode["open" if state in OPEN else "closed"])
    values = _over(values, given)
    status = values.get("status", ())
    values["status"] = tuple(status) if isinstance(status, list) else (status,)
    if not values["status"] or values["status"] == ((),):
        raise Misspelled(f"{where}: a status must be expected")
    if values.get("writes") == "any":
        values["writes"] = None
    return _made(Expectation, values, where)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            value = {**merged[key], **value}
        merged[key] = value
    return merged


def _made(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    _only(values, {each.name for each in fields(kind)}, where)  # type: ignore[arg-type]  # they are dataclasses, all
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def _only(table: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise Misspelled(f"{where}: {unknown[0]!r} is not part of the form: use {', '.join(sorted(known))}")
