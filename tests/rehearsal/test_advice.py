"""What a rehearsal proposes: rules that can be written as they are printed, and that refuse nothing that is to pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from readonly import Policy
from readonly.context import current
from readonly.gate import ActKind
from readonly.rehearsal_advice import Advice, advice, policy
from readonly.rehearsal_counts import DECLARED_READ, OTHER, Numbers, Route
from readonly.rehearsal_watch import NOWHERE
from readonly.rules import Endpoint
from rehearsal.conftest import Stage

BEGINS = [("set-cookie", "sid=abcdefgh; HttpOnly; Path=/")]
SENT_ON = [("location", "/")]
SIGNS_OUT = [("set-cookie", "sid=; Max-Age=0; Path=/"), ("location", "/")]


def told(numbers: Numbers) -> list[tuple[str, str]]:
    """Return what there is to do, without the reasons."""
    return [(one.where, one.value) for one in advice(numbers)]


def test_what_is_not_there_is_no_route(stage: Stage) -> None:
    """Whatever scanners try is one line, and nothing to be done; a route that answers others with 404 stays one."""
    for number in range(300):
        assert stage.ask(f"POST /wp-login-{number}x.php", status=404)
        assert stage.ask(f"X{number} /notes", endpoint=Endpoint("notes", path="/notes"), status=405)
    assert stage.ask("DELETE /", endpoint=Endpoint("home", path="/"), status=405)
    assert stage.ask("BREW /<script>", status=404)
    found = stage.numbers
    assert {rule: one.refused for rule, one in found.routes.items()} == {
        f"POST {NOWHERE}": 300,
        f"DELETE {NOWHERE}": 1,
        f"{OTHER} {NOWHERE}": 301,
    }
    assert advice(found) == ()
    comment = Endpoint("comment", path="/articles/{id}/comments")
    assert stage.ask("POST /articles/9/comments", endpoint=comment, status=404)
    assert told(stage.numbers) == []
    assert stage.ask("POST /articles/1/comments", endpoint=comment)
    assert told(stage.numbers) == [("writes", "POST /articles/{id}/comments")]


def test_a_get_that_signs_out_is_named(stage: Stage) -> None:
    """By its name, or since it sends on elsewhere; a page that clears an empty session is none."""
    cookie = "sid=abcdefgh"
    assert stage.ask("GET /logout", cookie=cookie, answer=SIGNS_OUT[:1])
    assert stage.ask("GET /bye", cookie=cookie, answer=SIGNS_OUT)
    assert stage.ask("GET /messages", cookie=cookie, answer=SIGNS_OUT[:1])
    assert told(stage.numbers) == [("logout", "GET /bye"), ("logout", "GET /logout")]
    declared = Policy(logout=["GET /bye", "GET /logout"])
    for path in ("/logout", "/bye"):
        assert stage.ask(f"GET {path}", declared, cookie=cookie, answer=SIGNS_OUT)


def test_what_a_body_decides_is_counted_in_parts(stage: Stage) -> None:
    """Queries that a rule lets through, and mutations that nothing does: refused they are, and that was meant."""
    reading = Policy(reads=["POST /graphql"])
    for rules in (Policy(), reading, Policy(), reading):
        assert stage.ask("POST /graphql", rules)
    found = stage.numbers
    assert {rule: (one.act, one.refused, one.passed) for rule, one in found.routes.items()} == {
        "POST /graphql": ("undeclared", 2, 0),
        "POST /graphql (declared read)": ("declared read", 0, 2),
    }
    assert advice(found) == (), "as a rule of `writes` it would refuse the queries, too"


def test_queries_can_be_told_from_mutations() -> None:
    """Where some requests to such an endpoint only read, that is said."""
    found = numbers_of(POST_graphql=Route(act="undeclared", refused=4, wrote=2, asked=4, tables={"main.x": ""}))
    (one,) = advice(found)
    assert one.where == "writes"
    assert "when=GraphQL().reads" in one.why


def test_parts_of_two_processes_are_put_together() -> None:
    """Each met another of them first."""
    assert str(ActKind.DECLARED_READ) == DECLARED_READ
    total, counted = Numbers(), {"undeclared": 0, "declared read": 0}
    for order in (["undeclared", "declared read"], ["declared read", "undeclared"]):
        one = Numbers()
        for act in order:
            route = one.route("POST /graphql", act)
            route.refused, route.asked = 1, 1
        total.add(one.dump())
    for route in total.routes.values():
        counted[route.act] += route.refused
    assert counted == {"undeclared": 2, "declared read": 2}
    assert len(total.routes) == 2
    assert advice(total) == ()


def numbers_of(**routes: Route) -> Numbers:
    """Return what was counted of these routes: `POST_search`."""
    made = Numbers()
    made.routes = {name.replace("_", " /", 1): route for name, route in routes.items()}
    return made


def test_a_rule_that_would_refuse_what_is_to_pass_is_none() -> None:
    """A page by its name beside a search: the router knows them apart, and a rule by path does not."""
    found = numbers_of(
        POST_search=Route(act="undeclared", refused=2, asked=2, example="/search"),
    )
    found.routes["POST /{slug}"] = Route(act="undeclared", refused=2, wrote=2, tables={"main.x": ""}, example="/about")
    found.routes["POST /articles/{id}"] = Route(act="undeclared", refused=1, wrote=1, example="/articles/1")
    made = advice(found)
    assert policy(made) == {"reads": ["POST /search"], "writes": ["POST /articles/{id}"]}
    (one,) = (one for one in made if one.where == "code")
    assert one == Advice("code", "POST /{slug}", one.why)
    assert "it would refuse POST /search as well: mark its endpoint with @writes" in one.why
    Policy(**policy(made))  # type: ignore[arg-type]  # lists of rules, all of them


def test_a_rule_that_can_not_be_written_is_none() -> None:
    """A method or a name that no rule can spell would stop the start of whoever pastes it."""
    found = Numbers()
    found.routes["B@D /x"] = Route(act="undeclared", refused=1)
    found.routes["POST /x{y}z"] = Route(act="undeclared", refused=1)
    assert {one.where for one in advice(found)} == {"code"}


def wrote(*tables: str, droppable: tuple[str, ...] = (), raw: bool = False) -> Callable[[Stage], Callable[[], None]]:
    """Return a view that has written, as a guard says it."""

    def of(stage: Stage) -> Callable[[], None]:
        def view() -> None:
            work = current(stage.switch)
            assert work is not None
            assert work.noted is not None
            work.noted.transaction(dict.fromkeys(tables, "shop.py:3 in view"), droppable=droppable, raw=raw)

        return view

    return of


@pytest.mark.parametrize(
    ("view", "answer", "what"),
    [
        (wrote("main.seen", droppable=("main.seen",)), BEGINS, ("discard", "seen")),
        (wrote("main.seen", "main.sums", droppable=("main.seen",)), [], ("discard", "seen")),
        (wrote("main.user", droppable=("main.user.seen_at",)), [], ("discard", "user.seen_at")),
        (wrote("main.user", droppable=("main.user.seen_at", "main.user")), [], ("discard", "user")),
        (wrote("main.seen", "main.sums", droppable=("main.seen",), raw=True), [], ("writes", "GET /page")),
        (wrote("main.seen"), [], ("writes", "GET /page")),
        (wrote("main.seen", droppable=("main.seen",)), SENT_ON, ("writes", "GET /page")),
    ],
    ids=[
        "a session on a page",
        "a trigger",
        "a column",
        "columns and rows",
        "text beside the ORM",
        "a function",
        "sent on",
    ],
)
def test_a_page_that_writes_can_be_read_where_that_can_be_dropped(
    stage: Stage,
    view: Callable[[Stage], Callable[[], None]],
    answer: list[tuple[str, str]],
    what: tuple[str, str],
) -> None:
    """A page that begins a session is no login; what nothing drops is not offered to be dropped."""
    assert stage.ask("GET /page", Policy(session_cookies=["sid"], secret="k"), view=view(stage), answer=answer)
    assert told(stage.numbers) == [what]


@pytest.mark.parametrize("request_", ["POST /signin", "GET /oauth/x/callback"])
def test_a_login_of_somebody_who_had_a_session_is_one(stage: Stage, request_: str) -> None:
    """By its name, and since it gives them another one; a page that does so is none."""
    rules, another = Policy(session_cookies=["sid"], secret="k"), [*BEGINS, *SENT_ON]
    for one in (request_, "GET /account"):
        assert stage.ask(one, rules, cookie="sid=anonymous", answer=another)
    assert told(stage.numbers) == [("login", request_)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("über", "POST name:über"),
        ("a\x1b[31m", "POST /notes"),
        ("two words", "POST /notes"),
        ("x" * 200, "POST /notes"),
    ],
)
def test_a_routes_name_is_written_as_it_is_or_not_at_all(stage: Stage, name: str, expected: str) -> None:
    """A rule with another name in it would match nothing, and no rehearsal would be clean."""
    assert stage.ask("POST /notes", endpoint=Endpoint(name))
    assert told(stage.numbers) == [("writes", expected)]
