"""The walk itself, without any framework: what it asks, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from readonly import ReadOnlyError, Switch
from readonly.errors import ConfigurationError
from readonly.members import Report
from readonly.testing import Answer, Example, Finding, Kind, Request, Route, Walk, Witness, memory_switch, walk

MARKED = {"x-read-only": "true"}
ITEM = Route(("GET",), "/items/{number}", "item")


class Site:
    """A site that answers as it is told, and remembers what it was asked."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch
        self.asked: list[Request] = []
        self.answer: Callable[[Request], Answer] = lambda request: Answer(200, MARKED)
        switch.guarded = True  # as a Database makes it

    def visit(self, request: Request) -> Answer:
        """Answer as told."""
        self.asked.append(request)
        return self.answer(request)

    def refuse(self, request: Request) -> Answer:
        """Refuse, as the gate does."""
        self.switch.tally.refused(request.path, "undeclared")
        return Answer(503, MARKED)

    def walk(self, *routes: Route, **more: Any) -> Walk:
        """Walk through it as two visitors."""
        return walk(routes, self.switch, {"anonymous": self.visit, "logged in": self.visit}, **more)


@pytest.fixture
def site() -> Iterator[Site]:
    """A site with a switch of its own."""
    switch = memory_switch()
    yield Site(switch)
    switch.close()


def only(walked: Walk) -> Finding:
    """Return the one finding."""
    (finding,) = walked.findings
    return finding


def test_each_visitor_asks_each_method_of_each_route_while_read_only(site: Site) -> None:
    """And afterwards the site is writable again."""
    modes: list[bool] = []

    def answer(request: Request) -> Answer:
        modes.append(site.switch.state.read_only)
        return site.refuse(request) if request.method == "POST" else Answer(200, MARKED)

    site.answer = answer
    found = site.walk(Route(("GET", "POST"), "/"), Route(("GET",), "/more")).check()
    assert [str(request) for request in site.asked] == ["GET /", "GET /", "POST /", "POST /", "GET /more", "GET /more"]
    assert modes == [True] * 6
    assert (found.routes, found.served, found.refused) == (2, 4, 2)
    assert found.summary == "2 routes, 4 requests served, 2 refused, no findings"
    assert not site.switch.look().read_only


def test_a_site_that_is_read_only_stays_so(site: Site) -> None:
    """The walk restores what it found."""
    site.switch.on()
    site.walk(Route(("GET",), "/")).check()
    assert site.switch.look().read_only


def test_the_mode_ends_with_a_walk_that_fails(site: Site) -> None:
    """Whatever a visitor raises."""

    def answer(request: Request) -> Answer:
        raise RuntimeError("no client")

    site.answer = answer
    with pytest.raises(RuntimeError, match="no client"):
        site.walk(Route(("GET",), "/"))
    assert not site.switch.look().read_only
    assert site.switch.tally.on_escape is None


def test_sessions_are_treated_as_asked(site: Site) -> None:
    """`sessions` is the change's own."""
    seen: list[str | None] = []

    def answer(request: Request) -> Answer:
        seen.append(site.switch.state.causes[0].sessions)
        return Answer(200, MARKED)

    site.answer = answer
    site.walk(Route(("GET",), "/"), sessions="keep").check()
    assert seen == ["keep", "keep"]


# --- examples ---------------------------------------------------------------------------------------------------------


def test_a_route_without_an_example_is_named(site: Site) -> None:
    """It is not asked, and not passed over: the text says what to write."""
    finding = only(site.walk(Route(("GET",), "/items/{number}/{size}", "item"), examples={"number": 1}))
    assert (finding.kind, site.asked) == (Kind.NO_EXAMPLE, [])
    text = finding.text()
    assert "GET /items/{number}/{size} (item): no example" in text
    assert 'examples={"size": ...}' in text
    assert 'examples={"/items/{number}/{size}": {"size": ...}}' in text
    assert 'skip={"GET /items/{number}/{size}": "..."}' in text


def test_examples_by_name_by_route_and_by_method(site: Site) -> None:
    """The closer one is taken; several make several requests."""
    routes = [
        ITEM,
        Route(("GET", "PUT"), "/files/{rest:path}"),
        Route(("POST",), "/search"),
        Route(("GET",), "/{slug}.html"),
    ]
    examples = {
        "number": 1,
        "slug": "ä b/c",
        "/files/{rest:path}": [{"rest": "a/b"}, {"rest": "c"}],
        "PUT /files/{rest:path}": Example({"rest": "d"}, json={"x": 1}),
        "POST /search": Example(query={"page": 2}, form={"words": "a b"}, headers={"X-Mine": "1"}),
    }
    site.walk(*routes, examples=examples).check()
    assert [str(request) for request in site.asked[::2]] == [
        "GET /items/1",
        "GET /files/a/b",
        "GET /files/c",
        "PUT /files/d",
        "POST /search?page=2",
        "GET /%C3%A4%20b/c.html",
    ]
    put, post = site.asked[6], site.asked[8]
    assert (put.body, put.headers["content-type"]) == (b'{"x": 1}', "application/json")
    assert (post.body, post.headers["x-mine"]) == (b"words=a+b", "1")


def test_an_example_that_leads_nowhere_is_named(site: Site) -> None:
    """404 for everybody proves nothing; a page that only one of them may see does."""
    site.answer = lambda request: Answer(404, MARKED)
    finding = only(site.walk(ITEM, Route(("GET",), "/gone"), examples={"number": 99}))
    assert (finding.kind, finding.route) == (Kind.NOWHERE, ITEM)
    answers = [Answer(404, MARKED), Answer(200, MARKED)]
    site.answer = lambda request: answers.pop()
    assert site.walk(ITEM, examples={"number": 1}).ok


def test_what_no_route_has_asked_for_is_named(site: Site) -> None:
    """A misspelt example or skip would be missed by nobody."""
    examples = {"number": 1, "nubmer": 1, "POST /serach": Example(form={})}
    finding = only(site.walk(ITEM, examples=examples, skip={"/gone": "it is gone"}))
    assert finding.kind is Kind.UNUSED
    assert "'POST /serach', 'nubmer', '/gone'" in finding.text()


def test_skipped_routes_are_listed_with_their_reasons(site: Site) -> None:
    """By method or whole; the result says so."""
    routes = [Route(("GET", "POST"), "/beat"), ITEM]
    found = site.walk(*routes, skip={"GET /beat": "writes to a file", ITEM.path: "another team's"}).check()
    assert found.skipped == {"GET /beat": "writes to a file", ITEM.path: "another team's"}
    assert "2 routes (2 skipped)" in found.summary
    assert "GET /beat: writes to a file" in found.text()
    assert {request.method for request in site.asked} == {"POST"}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("items number", 1, "neither the name of a parameter nor a route"),
        ("/items/{number}", 1, "not iterable"),
        ("/items/{number}", [1], "is no example"),
    ],
)
def test_an_example_that_is_none(site: Site, key: str, value: object, said: str) -> None:
    """Told at once."""
    with pytest.raises((ConfigurationError, TypeError), match=said):
        site.walk(ITEM, examples={key: value})


def test_a_request_has_one_body() -> None:
    """A form or JSON."""
    with pytest.raises(ConfigurationError, match="one body"):
        Example(form={}, json={})


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/", "GET /"),
        ("/a/{b}/c", "GET /a/{b}/c"),
        ("/a/{b}.json", "GET /a/{b}"),
        ("/a/{b:path}", "GET /a/*"),
        ("/a/{b:path}/edit", "GET name:page"),
        ("/a/x-{b:path}", "GET name:page"),
    ],
)
def test_the_rule_that_covers_a_route(path: str, rule: str) -> None:
    """As a policy takes it, which the policy itself confirms."""
    from readonly import Policy

    found = Route(("GET",), path, "page").rule("GET")
    assert found == rule
    Policy(writes=[found])


# --- answers ----------------------------------------------------------------------------------------------------------


def test_an_escape_is_a_read_that_writes(site: Site) -> None:
    """What the guard has refused is told, also where the application has hidden it behind a 200."""

    def answer(request: Request) -> Answer:
        refusal = ReadOnlyError("INSERT refused", database="main", table="cart")
        site.switch.tally.escaped("item", refusal)
        return Answer(200, MARKED)

    site.answer = answer
    finding = only(site.walk(ITEM, examples={"number": 1}))
    assert (finding.kind, finding.visitors) == (Kind.WRITES_ON_READ, ("anonymous", "logged in"))
    assert 'discard=["cart"]' in finding.text()
    assert "was refused a write to cart in main: INSERT refused" in finding.text()


def test_code_that_asks_before_it_writes_has_tried_to(site: Site) -> None:
    """`switch.writing()` in a GET is an escape of no database."""

    def answer(request: Request) -> Answer:
        site.switch.tally.escaped("item", ReadOnlyError())
        return Answer(503, MARKED)

    site.answer = answer
    finding = only(site.walk(ITEM, examples={"number": 1}))
    assert "was refused a write in switch.writing()" in finding.text()


@pytest.mark.parametrize("mark", ["reads", "reads:POST"])
def test_a_mark_that_is_wrong_is_named(site: Site, mark: str) -> None:
    """The remedy names what let it through."""

    def answer(request: Request) -> Answer:
        site.switch.tally.escaped("item", ReadOnlyError(database="main"))
        return Answer(503, MARKED)

    site.answer = answer
    finding = only(site.walk(Route(("POST",), "/search", "search", frozenset({mark}))))
    assert finding.kind is Kind.WRITES_THOUGH_DECLARED
    assert "Take @reads off the endpoint" in finding.text()


def test_a_failure_that_both_see_is_told_once(site: Site) -> None:
    """One finding with two visitors; another failure is another finding."""
    site.answer = lambda request: Answer(500, MARKED, "KeyError: 'x'")
    finding = only(site.walk(Route(("GET",), "/")))
    assert (finding.kind, finding.visitors) == (Kind.FAILED, ("anonymous", "logged in"))
    errors = iter(("KeyError: 'x'", "ValueError: y"))
    site.answer = lambda request: Answer(500, MARKED, next(errors))
    assert [found.visitors for found in site.walk(Route(("GET",), "/")).findings] == [("anonymous",), ("logged in",)]


def test_a_write_that_is_let_through_wants_a_body(site: Site) -> None:
    """An empty body that is turned down proves nothing; one that was given does, and so does 403."""
    site.answer = lambda request: Answer(422, MARKED)
    route = Route(("POST",), "/search", "search")
    finding = only(site.walk(route))
    assert finding.kind is Kind.NO_BODY
    assert 'examples={"POST /search": Example(form={...})}' in finding.text()
    assert site.walk(route, examples={"POST /search": Example(form={"words": ""})}).ok
    site.answer = lambda request: Answer(403, MARKED)
    assert site.walk(route).ok


def test_a_guessed_method_may_not_exist(site: Site) -> None:
    """Where a framework does not tell the methods, 405 is the answer to a wrong guess."""
    site.answer = lambda request: Answer(405, MARKED)
    assert site.walk(Route(("GET", "POST"), "/view", guessed=True)).ok


# --- whether it proves anything ---------------------------------------------------------------------------------------


def test_a_site_past_its_middleware_is_found(site: Site) -> None:
    """No answer says that the site is read-only."""
    site.answer = lambda request: Answer(200)
    finding = only(site.walk(Route(("GET",), "/")))
    assert (finding.kind, finding.route) == (Kind.NOT_REFUSED, None)
    assert "The walk itself" in finding.text()


def test_a_witness_of_another_database_is_found(site: Site) -> None:
    """It has seen no statement."""
    finding = only(site.walk(Route(("GET",), "/"), witnesses=[nullcontext(Witness("other"))]))
    assert (finding.kind, "The witness of other saw no statement" in finding.text()) == (Kind.BLIND, True)


def test_a_walk_without_any_witness_is_found(site: Site) -> None:
    """No guard, no recorded engine: nobody could have seen a write."""
    site.switch.guarded = False
    assert only(site.walk(Route(("GET",), "/"))).kind is Kind.BLIND
    witness = Witness("main")

    def answer(request: Request) -> Answer:
        witness.saw()
        return Answer(200, MARKED)

    site.answer = answer
    assert site.walk(Route(("GET",), "/"), witnesses=[nullcontext(witness)]).ok


def test_a_walk_over_nothing_is_an_error(site: Site) -> None:
    """No routes, no visitors."""
    with pytest.raises(ConfigurationError, match="routes: there are none"):
        site.walk()
    with pytest.raises(ConfigurationError, match="visitors: there are none"):
        walk([ITEM], site.switch, {})


def test_a_site_that_others_use_is_not_switched(tmp_path: Path) -> None:
    """A store with other members is somebody's site; members that have said goodbye are none."""
    switch = Switch.from_url(f"sqlite:///{tmp_path}/flag.db?site=shop", interval=0.05)
    site = Site(switch)
    other = Report(id="0" * 32, host="web-1", pid=1, role="web")
    try:
        # Nobody is there who could say that it knows of the one that begins: that is not waited for.
        switch.store.report(other.id, other.dump(), keep_seconds=60, alive_seconds=0.01)
        with pytest.raises(ConfigurationError, match=r"web web-1/1.*READONLY_STORE=memory://"):
            site.walk(Route(("GET",), "/"))
        assert not switch.look().read_only
        switch.store.report(other.id, replace(other, gone=True).dump(), keep_seconds=60, leaves=True)
        site.walk(Route(("GET",), "/")).check()
    finally:
        switch.close()
