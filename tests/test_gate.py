"""The gate's order of questions, as a table; and the table is taken apart, question by question."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readonly import gate as gate_module
from readonly.gate import CACHE_SIZE, Act, ActKind, Gate, Outcome, Verdict
from readonly.policy import Policy
from readonly.record import OPERATOR, Cause, Mode, Record
from readonly.rules import Endpoint, Facts, rule
from readonly.state import UNKNOWN, State

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)


def state(*causes: Cause) -> State:
    """Make the state of a whole record."""
    record = Record("shop", 7, "r", "lineage", NOW, causes=causes)
    return State.at(NOW, record)


WRITABLE = state()
READ_ONLY = state(Cause("c1", OPERATOR, "ada", NOW - timedelta(minutes=5)))
STATES = {"writable": WRITABLE, "read-only": READ_ONLY, "unknown": UNKNOWN}

POLICY = Policy(
    exempt=["/healthz", "GET /debug", "/login/health", "/stats/hit"],
    login=["/login", "GET /oauth/{provider}/callback", "name:sign_in"],
    logout=["/logout", "GET /leave"],
    reads=["POST /search", "WEBSOCKET /live/{id}", "/search/new", "POST name:lookup"],
    writes=["GET /cart/add/{id}", "/search/new", "/stats/*", "POST /logout/all", "OPTIONS /asked"],
)

PASS, READ_ONLY_503, ENDED_403 = Outcome.PASS, Outcome.READ_ONLY, Outcome.SESSION_ENDED


@dataclass(frozen=True)
class Row:
    """One request and what becomes of it."""

    says: str
    method: str
    path: str
    kind: ActKind
    writable: Outcome
    read_only: Outcome
    unknown: Outcome
    facts: dict[str, Any] = field(default_factory=dict)
    ended: bool = False
    bypass: bool = False
    look_away: bool = False
    clear_session: bool = False
    may_write: bool | None = None


def refused(says: str, method: str, path: str, kind: ActKind = ActKind.UNDECLARED, **more: Any) -> Row:
    """Make a row that is refused unless writable."""
    return Row(says, method, path, kind, PASS, READ_ONLY_503, READ_ONLY_503, **more)


def passed(says: str, method: str, path: str, kind: ActKind = ActKind.READ, **more: Any) -> Row:
    """Make a row that passes always."""
    return Row(says, method, path, kind, PASS, PASS, PASS, **more)


SOCKET = {"kind": "websocket"}
PREFLIGHT = {"origin": "https://other.example", "access-control-request-method": "POST"}
TABLE = [
    # What nobody declared.
    *(passed("safe methods read", method, "/articles") for method in ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"]),
    *(
        refused("all other methods write", method, "/articles", may_write=True)
        for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "MOVE", "MKCOL", "LINK", "LOCK", "CONNECT", "FOO"]
    ),
    refused("a socket may write", "GET", "/live", facts=SOCKET, may_write=True),
    # Exempt comes first.
    passed("exempt", "POST", "/healthz", ActKind.EXEMPT, look_away=True, may_write=True),
    passed("exempt reads are not counted", "GET", "/healthz", ActKind.EXEMPT, look_away=True, may_write=False),
    passed("exempt with a slash", "POST", "/healthz/", ActKind.EXEMPT, look_away=True),
    passed(
        "an exempt socket would hold the drain for ever",
        "GET",
        "/healthz",
        ActKind.EXEMPT,
        facts=SOCKET,
        look_away=True,
        may_write=False,
    ),
    passed("exempt before login", "POST", "/login/health", ActKind.EXEMPT, look_away=True),
    passed("exempt before writes", "GET", "/stats/hit", ActKind.EXEMPT, look_away=True),
    passed("exempt before ended", "POST", "/healthz", ActKind.EXEMPT, ended=True, look_away=True),
    passed("exempt by method", "GET", "/debug", ActKind.EXEMPT, look_away=True),
    refused("not exempt by another method", "POST", "/debug"),
    refused("an exemption holds for every effective method", "GET", "/debug", facts={"query": "_method=POST"}),
    refused("no odd spelling is exempt", "POST", "//healthz"),
    # A bypass.
    passed("a bypass writes", "POST", "/articles", ActKind.UNDECLARED, bypass=True, look_away=True),
    passed("a bypass signs in", "POST", "/login", ActKind.LOGIN, bypass=True, look_away=True),
    passed("a bypass is before ended", "POST", "/x", ActKind.UNDECLARED, bypass=True, ended=True, look_away=True),
    passed("a bypass keeps its session", "POST", "/logout", ActKind.LOGOUT, bypass=True, look_away=True),
    # Declared writes and logins.
    refused("a declared write by GET", "GET", "/cart/add/7", ActKind.WRITE, may_write=True),
    refused("a declared write by HEAD", "HEAD", "/cart/add/7", ActKind.WRITE, may_write=True),
    refused("a declared write, oddly spelled", "GET", "//CART/add/7", ActKind.WRITE),
    passed("another method of it", "OPTIONS", "/cart/add/7"),
    refused("a write without a method is all methods", "OPTIONS", "/stats/page", ActKind.WRITE),
    passed("its preflight", "OPTIONS", "/stats/page", ActKind.DECLARED_READ, facts={"headers": PREFLIGHT}),
    passed("a preflight is no login", "OPTIONS", "/login", ActKind.DECLARED_READ, facts={"headers": PREFLIGHT}),
    passed(
        "the preflight of a marked view",
        "OPTIONS",
        "/x",
        ActKind.DECLARED_READ,
        facts={"headers": PREFLIGHT, "endpoint": Endpoint("x", frozenset({"writes", "writes:POST"}))},
    ),
    refused(
        "a preflight that runs a marked view itself",
        "OPTIONS",
        "/x",
        ActKind.WRITE,
        facts={"headers": PREFLIGHT, "endpoint": Endpoint("x", frozenset({"writes"}), takes_preflights=True)},
    ),
    refused(
        "a preflight that runs a view of a declared write",
        "OPTIONS",
        "/stats/page",
        ActKind.WRITE,
        facts={"headers": PREFLIGHT, "endpoint": Endpoint("x", takes_preflights=True)},
    ),
    refused(
        "a view that writes when it is asked",
        "OPTIONS",
        "/x",
        ActKind.WRITE,
        facts={"headers": PREFLIGHT, "endpoint": Endpoint("x", frozenset({"writes:OPTIONS"}))},
    ),
    refused("a write that names OPTIONS", "OPTIONS", "/asked", ActKind.WRITE, facts={"headers": PREFLIGHT}),
    refused("half a preflight", "OPTIONS", "/stats/page", ActKind.WRITE, facts={"headers": {"origin": "https://a.b"}}),
    refused(
        "a preflight that names another method is that, too",
        "OPTIONS",
        "/stats/page",
        ActKind.WRITE,
        facts={"headers": PREFLIGHT | {"x-http-method-override": "POST"}},
    ),
    refused("writes before logout", "POST", "/logout/all", ActKind.WRITE),
    refused("writes before reads", "POST", "/search/new", ActKind.WRITE),
    refused("login", "POST", "/login", ActKind.LOGIN, may_write=True),
    passed("the login form", "GET", "/login"),
    refused("login by GET", "GET", "/oauth/x/callback", ActKind.LOGIN, may_write=True),
    refused("login, oddly spelled", "GET", "/oauth/x/../y/callback", ActKind.LOGIN),
    refused("login by an override", "GET", "/login", ActKind.LOGIN, facts={"query": "_method=POST"}),
    refused("login by its route", "POST", "/x", ActKind.LOGIN, facts={"endpoint": Endpoint("sign_in")}),
    # A login wants a new session, so the old one is in nobody's way.
    refused("login with an ended session", "POST", "/login", ActKind.LOGIN, ended=True),
    # Logout.
    passed("logout", "POST", "/logout", ActKind.LOGOUT, clear_session=True, may_write=True),
    passed("logout with an ended session", "POST", "/logout", ActKind.LOGOUT, ended=True, clear_session=True),
    passed("logout by GET", "GET", "/leave", ActKind.LOGOUT, clear_session=True),
    passed("the logout form", "GET", "/logout"),
    refused("a socket is no logout", "GET", "/logout", facts=SOCKET),
    refused("no odd spelling is a logout", "POST", "/logout;x"),
    # Declared reads.
    passed("a declared read", "POST", "/search", ActKind.DECLARED_READ, may_write=False),
    passed("a declared read, ended session", "POST", "/search", ActKind.DECLARED_READ, ended=True),
    passed("a declared socket", "GET", "/live/7", ActKind.DECLARED_READ, facts=SOCKET, may_write=False),
    passed("by its route", "POST", "/x", ActKind.DECLARED_READ, facts={"endpoint": Endpoint("lookup")}),
    refused("another method of it", "PUT", "/search"),
    refused("login before reads is by path", "POST", "/login", ActKind.LOGIN),
    refused("a read must hold for every method", "POST", "/search", facts={"headers": {"x-http-method": "DELETE"}}),
    refused("no odd spelling is a read", "POST", "/search/."),
    # Overrides.
    refused("GET, run as POST", "GET", "/articles", facts={"headers": {"x-http-method-override": "POST"}}),
    refused("GET, run as DELETE", "GET", "/articles", facts={"query": "a=1&_method=DELETE"}),
    refused("POST, said to be GET", "POST", "/articles", facts={"query": "_method=GET"}),
    passed("GET, said to be HEAD", "GET", "/articles", facts={"query": "_method=HEAD"}),
    # Marks on the views.
    refused("@writes", "GET", "/x", ActKind.WRITE, facts={"endpoint": Endpoint("x", frozenset({"writes"}))}),
    passed(
        "@reads",
        "POST",
        "/x",
        ActKind.DECLARED_READ,
        facts={"endpoint": Endpoint("x", frozenset({"reads"}))},
        may_write=False,
    ),
    refused("@reads on one method", "PUT", "/x", facts={"endpoint": Endpoint("x", frozenset({"reads:POST"}))}),
    refused(
        "@writes on one method",
        "HEAD",
        "/x",
        ActKind.WRITE,
        facts={"endpoint": Endpoint("x", frozenset({"writes:GET"}))},
    ),
    refused(
        "@reads must hold for every method",
        "POST",
        "/x",
        facts={"endpoint": Endpoint("x", frozenset({"reads:POST"})), "query": "_method=PUT"},
    ),
    # Views that an adapter recognised.
    refused("a login", "POST", "/x", ActKind.LOGIN, facts={"endpoint": Endpoint("x", frozenset({"login"}))}),
    passed("the form for it", "GET", "/x", facts={"endpoint": Endpoint("x", frozenset({"login"}))}),
    refused("a way back", "HEAD", "/x", ActKind.LOGIN, facts={"endpoint": Endpoint("x", frozenset({"login:GET"}))}),
    refused(
        "a login, run as POST",
        "GET",
        "/x",
        ActKind.LOGIN,
        facts={"endpoint": Endpoint("x", frozenset({"login", "logout"})), "query": "_method=POST"},
    ),
    Row(
        "a logout",
        "POST",
        "/x",
        ActKind.LOGOUT,
        PASS,
        PASS,
        PASS,
        clear_session=True,
        facts={"endpoint": Endpoint("x", frozenset({"logout"}))},
    ),
    refused(
        "a logout by POST alone",
        "POST",
        "/x",
        facts={"endpoint": Endpoint("x", frozenset({"logout:POST"})), "query": "_method=PUT"},
    ),
    refused(
        "a socket is no logout",
        "WEBSOCKET",
        "/x",
        facts={"endpoint": Endpoint("x", frozenset({"logout"})), "kind": "websocket"},
    ),
    refused(
        "writes, declared, before @reads",
        "GET",
        "/cart/add/7",
        ActKind.WRITE,
        facts={"endpoint": Endpoint("x", frozenset({"reads"}))},
    ),
    # Sessions that ended: an answer of its own, but not where the process knows nothing.
    Row("a form, ended", "POST", "/articles", ActKind.UNDECLARED, ENDED_403, ENDED_403, READ_ONLY_503, ended=True),
    Row(
        "a write, ended",
        "POST",
        "/stats/x",
        ActKind.WRITE,
        ENDED_403,
        READ_ONLY_503,
        READ_ONLY_503,
        ended=True,
    ),
    passed("a page, ended", "GET", "/articles", ended=True),
    refused("a GET that writes, ended", "GET", "/cart/add/7", ActKind.WRITE, ended=True),
]


def verdicts(gate: Gate) -> Iterator[tuple[str, Act | str, Verdict | str]]:
    """Decide the whole table; an error is an answer, too."""
    for row in TABLE:
        facts = Facts(row.method, row.path, row.path, **row.facts)
        for name, now in STATES.items():
            try:
                act = gate.classify(facts)
                verdict = gate.decide(act, facts, now, ended=row.ended, bypass=row.bypass)
            except Exception as error:
                yield f"{row.says} ({name})", repr(error), repr(error)
            else:
                yield f"{row.says} ({name})", act, verdict


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.method} {row.path}: {row.says}")
def test_the_table(row: Row, name: str) -> None:
    """Each request gets the verdict that the table says, in each state."""
    gate, now = Gate(POLICY), STATES[name]
    facts = Facts(row.method, row.path, row.path, **row.facts)
    act = gate.classify(facts)
    verdict = gate.decide(act, facts, now, ended=row.ended, bypass=row.bypass)
    expected = {"writable": row.writable, "read-only": row.read_only, "unknown": row.unknown}[name]
    assert act.kind is row.kind
    assert verdict.act is act
    assert verdict.outcome is expected
    assert verdict.passed is (expected is PASS)
    assert verdict.look_away is row.look_away
    assert verdict.bypass is row.bypass
    assert verdict.clear_session is (row.clear_session and now.read_only)
    if row.may_write is not None:
        assert act.may_write is row.may_write


# --- Each question is asked for a reason --------------------------------------------------------------------


def without(function: Callable[..., Any], removed: int) -> Callable[..., Any]:
    """Return the function without one of its top-level `if` statements."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    questions = [statement for statement in definition.body if isinstance(statement, ast.If)]
    definition.body.remove(questions[removed])
    namespace = dict(vars(gate_module))
    exec(compile(tree, inspect.getfile(function), "exec"), namespace)  # our own source, one statement shorter
    result: Callable[..., Any] = namespace[definition.name]
    return result


def questions(function: Callable[..., Any]) -> list[Any]:
    """Name every top-level `if` of a function."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(definition, ast.FunctionDef)
    asked = [ast.unparse(statement.test) for statement in definition.body if isinstance(statement, ast.If)]
    return [pytest.param(i, id=text) for i, text in enumerate(asked)]


@pytest.mark.parametrize("removed", questions(Gate._classify))
def test_each_question_of_classify_is_needed(removed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With any one question left out, the table changes."""
    expected = list(verdicts(Gate(POLICY)))
    monkeypatch.setattr(Gate, "_classify", without(Gate._classify, removed))
    assert list(verdicts(Gate(POLICY))) != expected


@pytest.mark.parametrize("removed", questions(Gate.decide))
def test_each_question_of_decide_is_needed(removed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With any one question left out, the table changes."""
    expected = list(verdicts(Gate(POLICY)))
    monkeypatch.setattr(Gate, "decide", without(Gate.decide, removed))
    assert list(verdicts(Gate(POLICY))) != expected


def test_the_effective_methods_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the wire's method alone, the table changes."""
    expected = list(verdicts(Gate(POLICY)))
    monkeypatch.setattr(gate_module, "effective_methods", lambda facts: (facts.method,))
    assert list(verdicts(Gate(POLICY))) != expected


def test_there_are_questions() -> None:
    """The tests above take something out."""
    assert len(questions(Gate._classify)) >= 7
    assert len(questions(Gate.decide)) >= 7


# --- For any request ----------------------------------------------------------------------------------------

REQUESTS = st.builds(
    Facts,
    method=st.sampled_from(["GET", "HEAD", "POST", "DELETE", "OPTIONS", "QUERY", "FOO", ""]),
    path=st.one_of(st.sampled_from([row.path for row in TABLE]), st.text(max_size=12)),
    raw_path=st.one_of(st.just(""), st.text(max_size=12)),
    query=st.sampled_from(["", "a=1", "_method=POST", "_method=GET", "%", "_method", "&;="]),
    headers=st.dictionaries(st.sampled_from(["x-http-method", "x-method-override"]), st.text(max_size=5)),
    kind=st.sampled_from(["http", "websocket"]),
    endpoint=st.one_of(
        st.none(),
        st.builds(Endpoint, st.just("lookup"), st.frozensets(st.sampled_from(["reads", "writes", "writes:GET"]))),
    ),
    body=st.one_of(st.none(), st.binary(max_size=20)),
)


@given(facts=REQUESTS, name=st.sampled_from(sorted(STATES)), ended=st.booleans(), bypass=st.booleans())
def test_every_request_gets_exactly_one_verdict(facts: Facts, name: str, ended: bool, bypass: bool) -> None:
    """Whatever arrives is decided, always alike, and by what it is."""
    gate, now = Gate(POLICY), STATES[name]
    act = gate.classify(facts)
    verdict = gate.decide(act, facts, now, ended=ended, bypass=bypass)
    assert isinstance(verdict.outcome, Outcome)
    assert gate.classify(facts) == act
    assert Gate(POLICY).classify(facts) == act
    assert gate.decide(act, facts, now, ended=ended, bypass=bypass) == verdict
    # Nothing that was not counted passes as a write, and an ended session is told once and to writers alone.
    if now.mode is not Mode.WRITABLE and verdict.passed and act.unsafe:
        assert bypass or act.kind in (ActKind.EXEMPT, ActKind.LOGOUT, ActKind.DECLARED_READ)
    if verdict.outcome is Outcome.SESSION_ENDED:
        assert ended
        assert act.unsafe
        assert now.mode is not Mode.UNKNOWN


@given(facts=REQUESTS, bypass=st.booleans())
def test_a_writable_site_refuses_nothing(facts: Facts, bypass: bool) -> None:
    """While writable and synced, every request passes, and what may write is counted."""
    gate = Gate(POLICY)
    act = gate.classify(facts)
    verdict = gate.decide(act, facts, WRITABLE, bypass=bypass)
    assert verdict.passed
    assert not verdict.clear_session
    if not gate.decide(act, facts, READ_ONLY).passed:
        assert act.may_write


# --- What the middleware may skip ---------------------------------------------------------------------------


class Custom:
    """A rule of the site's own."""

    needs_body = False

    def __init__(self, answer: Callable[[Facts], bool]) -> None:
        self.matches = answer

    def __str__(self) -> str:
        return "custom"


def test_what_may_be_skipped() -> None:
    """A gate says which requests need no look at all."""
    plain = Gate(Policy())
    assert (plain.needs_body, plain.needs_endpoint, plain.reads_matter_while_writable) == (False, False, False)
    assert plain.trivial_unsafe
    assert not Gate(Policy(reads=["POST /search"])).trivial_unsafe
    assert Gate(Policy(exempt=["name:health"])).needs_endpoint
    assert Gate(Policy(reads=[rule("POST /graphql", when=lambda facts: True)])).needs_body
    assert not Gate(Policy(login=["/login"], writes=["POST /x"])).reads_matter_while_writable
    assert Gate(Policy(login=["GET /callback"])).reads_matter_while_writable
    assert Gate(Policy(login=[Custom(lambda facts: True)])).reads_matter_while_writable
    assert Gate(Policy(writes=["/ping"])).reads_matter_while_writable
    assert Gate(Policy(writes=["QUERY /ping"])).reads_matter_while_writable
    assert Gate(Policy(writes=[Custom(lambda facts: True)])).reads_matter_while_writable


def test_only_bodies_that_a_rule_asks_for_are_read() -> None:
    """An upload to anywhere else is never held in memory."""
    gate = Gate(Policy(reads=[rule("/graphql", when=lambda facts: True)], login=["/login"]))
    assert gate.wants_body(Facts("POST", "/graphql"))
    assert gate.wants_body(Facts("POST", "//GraphQL"))
    assert not gate.wants_body(Facts("GET", "/graphql"))
    assert not gate.wants_body(Facts("POST", "/upload"))
    hungry = Custom(lambda facts: True)
    hungry.needs_body = True
    assert Gate(Policy(reads=[hungry])).wants_body(Facts("POST", "/upload"))


def test_predicates_decide_by_the_body() -> None:
    """One URL and method reads or writes by its body, and an override in that body counts."""
    gate = Gate(Policy(reads=[rule("POST /find", when=lambda facts: b"save" not in (facts.body or b""))]))

    def kind(body: bytes, **more: Any) -> ActKind:
        return gate.classify(Facts("POST", "/find", body=body, **more)).kind

    assert kind(b"q=x") is ActKind.DECLARED_READ
    assert kind(b"q=x&save=1") is ActKind.UNDECLARED
    assert kind(b"q=x&_method=DELETE") is ActKind.UNDECLARED
    assert kind(b"q=x", body_complete=False) is ActKind.UNDECLARED


def test_a_predicate_that_fails_refuses() -> None:
    """An error in a predicate neither lets a write through nor becomes a 500."""

    def fail(facts: Facts) -> bool:
        raise LookupError

    for role, kind in (("exempt", ActKind.UNDECLARED), ("reads", ActKind.UNDECLARED), ("writes", ActKind.WRITE)):
        for broken in (rule("POST /x", when=fail), Custom(fail)):
            gate = Gate(Policy(**{role: [broken]}))  # type: ignore[arg-type]
            assert gate.classify(Facts("POST", "/x", body=b"")).kind is kind


def test_a_rule_of_ones_own_is_asked_for_each_method() -> None:
    """It sees the request as it would be under each effective method."""
    asked: list[str] = []

    def matches(facts: Facts) -> bool:
        asked.append(facts.method)
        return facts.method == "POST"

    gate = Gate(Policy(reads=[Custom(matches)]))
    assert gate.classify(Facts("POST", "/x")).kind is ActKind.DECLARED_READ
    assert gate.classify(Facts("POST", "/x", query="_method=PUT")).kind is ActKind.UNDECLARED
    assert asked == ["POST", "POST", "PUT"]
    assert gate.classify(Facts("POST", "/x")).rule == "custom"


def test_what_is_remembered_is_bounded() -> None:
    """Paths are the visitor's to choose, so what is remembered of them has an end."""
    gate = Gate(Policy(reads=["POST /search/{q}"]))
    for number in range(CACHE_SIZE + 10):
        assert gate.classify(Facts("POST", f"/search/{number}")).kind is ActKind.DECLARED_READ
    assert len(gate._cache) <= CACHE_SIZE
    assert gate.classify(Facts("POST", "/search/1")) is gate.classify(Facts("POST", "/search/1"))


def test_what_is_remembered_minds_what_differs() -> None:
    """Two requests share an answer only if every rule must say the same of both."""
    gate = Gate(Policy(reads=["POST /search"], writes=["GET /cart"]))
    marked = Endpoint("x", frozenset({"writes"}))
    assert gate.classify(Facts("POST", "/search")).kind is ActKind.DECLARED_READ
    assert gate.classify(Facts("POST", "/search", query="_method=PUT")).kind is ActKind.UNDECLARED
    assert gate.classify(Facts("POST", "/search", endpoint=marked)).kind is ActKind.WRITE
    assert gate.classify(Facts("POST", "/search", "/search%2F")).kind is ActKind.UNDECLARED
    assert gate.classify(Facts("GET", "/search")).kind is ActKind.READ
    assert gate.classify(Facts("GET", "/x", "/cart")).kind is ActKind.WRITE
    assert gate.classify(Facts("POST", "/search", endpoint=Endpoint("x"))).kind is ActKind.DECLARED_READ
