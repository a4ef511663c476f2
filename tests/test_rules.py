"""Rules as text, the paths that they match, the methods that count, and marks on views."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest

from readonly.errors import ConfigurationError
from readonly.marks import mark_for, marks_of, reads, writes
from readonly.rules import Endpoint, Facts, PathRule, Rule, effective_methods, rule

# --- Syntax -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must start with '/'"),
        ("   ", "must start with '/'"),
        ("search", "must start with '/'"),
        (".*", "must start with '/'"),
        ("^/search$", "must start with '/'"),
        ("POST", "must start with '/'"),
        ("http://site.example/search", "must start with '/'"),
        ("POST /a /b", "is no method"),
        ("GET,POST /a", "is no method"),
        ("/a//b", "empty segment"),
        ("//", "empty segment"),
        ("/a/../b", "dot segment"),
        ("/./a", "dot segment"),
        ("/*/a", "only as the whole last segment"),
        ("/a*", "only as the whole last segment"),
        ("/.*", "only as the whole last segment"),
        ("/**", "only as the whole last segment"),
        ("/{id}-{name}", "whole segment"),
        ("/{}", "whole segment"),
        ("/{id:int}", "whole segment"),
        ("/a/{rest:path}", "whole segment"),
        ("/a}", "whole segment"),
        ("/<int:id>", "write '{id}'"),
        ("/%61dmin", "decoded"),
        ("/search?q={q}", "'?' is not allowed"),
        ("/a#b", "'#' is not allowed"),
        ("/a;b", "';' is not allowed"),
        ("/[a-z]+", "is not allowed"),
        ("/a\\b", "is not allowed"),
        ("/a\nb", "is not allowed"),
        ("name:", "name is missing"),
        ("POST name:", "name is missing"),
    ],
)
def test_what_is_no_rule_is_named(text: str, complaint: str) -> None:
    """A text that can't be a rule is an error that quotes it and says what is wrong."""
    with pytest.raises(ConfigurationError) as caught:
        rule(text)
    assert repr(text) in str(caught.value)
    assert complaint in str(caught.value)


def test_a_rule_is_text() -> None:
    """Anything but text is refused, not spelled out."""
    with pytest.raises(ConfigurationError, match="is not a rule"):
        rule(7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "method", "path", "covered"),
    [
        ("/search", "POST", "/search", True),
        ("/search", "POST", "/search/", True),
        ("/search/", "POST", "/search", True),
        ("/search", "POST", "/searching", False),
        ("/search", "POST", "/search/x", False),
        ("/search", "POST", "/x/search", False),
        ("/search", "POST", "/", False),
        ("post  /search", "POST", "/search", True),
        ("POST /search", "PUT", "/search", False),
        ("GET /search", "HEAD", "/search", True),
        ("HEAD /search", "GET", "/search", False),
        ("GET /search", "POST", "/search", False),
        ("/docs/{id}", "GET", "/docs/7", True),
        ("/docs/{id}", "GET", "/docs/7/", True),
        ("/docs/{id}", "GET", "/docs/", False),
        ("/docs/{id}", "GET", "/docs", False),
        ("/docs/{id}", "GET", "/docs/7/8", False),
        ("/docs/{id}/edit", "GET", "/docs/7/edit", True),
        ("/files/*", "GET", "/files", True),
        ("/files/*", "GET", "/files/", True),
        ("/files/*", "GET", "/files/a/b", True),
        ("/files/*", "GET", "/filesystem", False),
        ("/*", "GET", "/", True),
        ("/*", "GET", "/a/b", True),
        ("GET /", "GET", "/", True),
        ("GET /", "GET", "/a", False),
        ("GET /", "GET", "", True),
        ("/a.b", "GET", "/axb", False),
        ("/Products(1)", "GET", "/Products(1)", True),
        ("/größe", "GET", "/größe", True),
        ("WEBSOCKET /live/{id}", "WEBSOCKET", "/live/7", True),
        ("WEBSOCKET /live/{id}", "GET", "/live/7", False),
    ],
)
def test_what_a_rule_covers(text: str, method: str, path: str, covered: bool) -> None:
    """Matching is by whole segments and anchored; spelled plainly, both kinds of rule agree."""
    facts = Facts(method, path, kind="websocket" if method == "WEBSOCKET" else "http")
    assert rule(text).matches(facts) is covered
    assert rule(text).lets_through(facts) is covered
    assert rule(text).refuses(facts) is covered


def test_without_a_method_only_the_unsafe_ones() -> None:
    """For the rules that say so, no method means the unsafe ones, sockets among them."""
    for method in ("GET", "HEAD", "OPTIONS", "TRACE", "QUERY"):
        assert not rule("/login").refuses(Facts(method, "/login"), unsafe_only=True)
        assert rule("/login").refuses(Facts(method, "/login"))
        assert rule(f"{method} /login").refuses(Facts(method, "/login"), unsafe_only=True)
    for method in ("POST", "PROPFIND", "FOO"):
        assert rule("/login").refuses(Facts(method, "/login"), unsafe_only=True)
    socket = Facts("GET", "/live", kind="websocket")
    assert socket.method == "WEBSOCKET"
    assert rule("/live").lets_through(socket, unsafe_only=True)


def test_a_route_by_its_name() -> None:
    """`name:` rules ask the router, and match nothing where there is none."""
    by_name = rule("POST name:article_comments")
    facts = Facts("POST", "/articles/7/comments", endpoint=Endpoint("article_comments"))
    assert by_name.lets_through(facts)
    assert by_name.refuses(facts)
    assert not by_name.lets_through(Facts("GET", facts.path, endpoint=facts.endpoint))
    assert not by_name.lets_through(Facts("POST", facts.path, endpoint=Endpoint("article")))
    assert not by_name.lets_through(Facts("POST", facts.path))
    assert not by_name.refuses(Facts("POST", "/name:article_comments"))
    assert rule("name:api:comments").lets_through(Facts("PUT", "/", endpoint=Endpoint("api:comments")))


def test_rules_are_values() -> None:
    """Rules show what they are and compare by it."""
    assert str(rule("POST /a")) == "POST /a"
    assert repr(rule("POST /a")) == "rule('POST /a')"
    assert repr(rule("POST /a", when=bool)) == "rule('POST /a', when=<class 'bool'>)"
    assert {rule("POST /a"), rule("POST /a")} == {PathRule("POST /a")}
    assert rule("POST /a") != rule("POST /a", when=bool)
    assert isinstance(rule("/a"), Rule)
    assert repr(Facts("GET", "/a")) == "Facts(GET '/a')"


# --- Predicates ---------------------------------------------------------------------------------------------


def test_a_predicate_narrows_a_rule() -> None:
    """Only the requests that the predicate agrees to are covered."""
    query = rule("POST /graphql", when=lambda facts: b"mutation" not in (facts.body or b""))
    assert query.needs_body
    assert query.lets_through(Facts("POST", "/graphql", body=b"{ articles }"))
    assert not query.lets_through(Facts("POST", "/graphql", body=b"mutation { x }"))
    assert not query.lets_through(Facts("POST", "/other", body=b"{ articles }"))


def test_a_body_that_goes_on_vouches_for_nothing() -> None:
    """Of a body that was cut, a predicate can't let the request through, nor keep it from being refused."""
    facts = Facts("POST", "/graphql", body=b"{ articles }", body_complete=False)
    assert not rule("POST /graphql", when=lambda facts: True).lets_through(facts)
    assert rule("POST /graphql", when=lambda facts: False).refuses(facts)
    assert not rule("POST /other", when=lambda facts: True).refuses(facts)


def test_concerns_asks_no_predicate() -> None:
    """Whether a body must be read is known before there is one."""

    def fail(facts: Facts) -> bool:
        raise AssertionError

    assert rule("POST /graphql", when=fail).concerns(Facts("POST", "/GraphQL"))
    assert not rule("POST /graphql", when=fail).concerns(Facts("POST", "/upload"))


# --- Spellings ----------------------------------------------------------------------------------------------

ODD = [
    "//public/x",
    "/public//x",
    "/public/./x",
    "/public/../admin",
    "/public/..",
    "/public/.",
    "/public/x;y",
    "/public;/x",
    "/public\\x",
    "/public/x\n",
    "/public/\x00x",
    "/public/\x85",
    "/public/\u2028",
    "/public/%2e%2e/admin",
    "/public/100%25",
    "public/x",
    "http://site.example/public/x",
]


@pytest.mark.parametrize("path", ODD)
def test_no_odd_path_is_let_through(path: str) -> None:
    """A rule that lets through wants the path in normal form after one decoding."""
    assert Facts("POST", path).normal_path is None
    assert not rule("/public/*").lets_through(Facts("POST", path))


@pytest.mark.parametrize("raw", ["/public/a%2Fb", "/public/a%2fb", "/public/a%5Cb", "/public/a%252Fb"])
def test_a_slash_that_was_sent_encoded_is_not_let_through(raw: str) -> None:
    """It is one segment to some routers and two to others."""
    assert not rule("/public/*").lets_through(Facts("POST", "/public/a/b", raw))


@pytest.mark.parametrize("path", ["/public/a b", "/public/a.b", "/public/...", "/public/größe", "/public/a%b"])
def test_what_is_unusual_and_normal(path: str) -> None:
    """Spaces, dots inside a segment and letters of any language are normal."""
    assert rule("/public/*").lets_through(Facts("POST", path))


def test_letting_through_minds_case() -> None:
    """Another case is another path."""
    assert not rule("/public/*").lets_through(Facts("POST", "/Public/x"))


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/cart/add/7", "/cart/add/7"),
        ("/cart/add/7", "/%63art/add/7"),
        ("/CART/Add/7", ""),
        ("/\u0130/cart/add/7/../../../../cart/add/7", ""),
        ("/carT/add/7", "/car\u0054/add/7"),
        ("//cart/add/7", ""),
        ("/cart//add///7//", ""),
        ("/./cart/add/7", ""),
        ("/x/../cart/add/7", ""),
        ("/x/..;/cart/add/7", ""),
        ("/cart;a=1/add;b/7", ""),
        ("\\cart\\add\\7", ""),
        ("/cart/add/7\n", ""),
        ("/cart/add/7 ", ""),
        ("/cart\x00/add/7", ""),
        ("cart/add/7", ""),
        ("/cart/%61dd/7", ""),
        ("/cart/%2561dd/7", ""),
        ("/cart/add/..", ""),
        ("/other", "/cart/add/7"),
        ("/a/cart/add/7", "/a/%2e%2e/cart/add/7"),
    ],
)
def test_a_refusing_rule_knows_every_spelling(path: str, raw: str) -> None:
    """A rule that refuses matches the path as sent, as decoded, or as normalised."""
    assert rule("GET /cart/add/{id}").refuses(Facts("GET", path, raw))


@pytest.mark.parametrize("spelled", ["/lo\u0131n", "/LO\u0130N", "/\u017ftop", "/\u212ait"])
def test_a_refusing_rule_folds_what_expressions_fold(spelled: str) -> None:
    """Whatever `re.IGNORECASE` takes for the same letter is the same letter."""
    plain = {"/lo": "/loin", "/LO": "/loin", "/\u017ft": "/stop", "/\u212ai": "/kit"}[spelled[:3]]
    assert rule(plain).refuses(Facts("POST", spelled))


def test_a_refusing_rule_knows_its_limits() -> None:
    """Other paths are not refused."""
    for path in ("/cart/add", "/cart/add/7/8", "/cart/added/7", "/xcart/add/7", "/cart/add/7/../..", "/"):
        assert not rule("/cart/add/{id}").refuses(Facts("GET", path)), path


def test_another_method_keeps_the_rest() -> None:
    """The same request under another method differs in nothing else."""
    facts = Facts("POST", "/a", "/%61", "q=1", {"x": "y"}, "http", Endpoint("a"), b"body", False)
    other = facts.with_method("DELETE")
    assert other.method == "DELETE"
    assert facts.method == "POST"
    for name in ("path", "raw_path", "query", "headers", "kind", "endpoint", "body", "body_complete"):
        assert getattr(other, name) == getattr(facts, name)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "path", ["/%" + "25" * 30_000 + "41", "/" + "%25" * 20_000, "/a" * 15_000 + "/.." * 15_000, "/;" * 30_000]
)
def test_no_path_keeps_a_process_busy(path: str) -> None:
    """A path is the visitor's to choose: what is made of it stays in proportion to its length."""
    facts = Facts("POST", path, path)
    assert not rule("/admin").refuses(facts)
    assert not rule("/admin").lets_through(facts)
    assert len(facts.spellings) <= 128


# --- Methods ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Facts("GET", "/"), ("GET",)),
        (Facts("POST", "/", headers={"x-http-method-override": "DELETE"}), ("POST", "DELETE")),
        (Facts("POST", "/", headers={"x-http-method": "patch"}), ("POST", "PATCH")),
        (Facts("GET", "/", headers={"x-method-override": " post "}), ("GET", "POST")),
        (Facts("GET", "/", headers={"x-method-override": "GET, DELETE"}), ("GET", "DELETE")),
        (Facts("GET", "/", headers={"x-method-override": ""}), ("GET",)),
        (Facts("GET", "/", query="_method=DELETE"), ("GET", "DELETE")),
        (Facts("GET", "/", query="a=1&_METHOD=post"), ("GET", "POST")),
        (Facts("GET", "/", query="a=1;_method=post"), ("GET", "POST")),
        (Facts("GET", "/", query="%5Fmetho%64=%50OST"), ("GET", "POST")),
        (Facts("GET", "/", query="_method=PUT&_method=PATCH"), ("GET", "PUT", "PATCH")),
        (Facts("GET", "/", query="_method="), ("GET",)),
        (Facts("GET", "/", query="the_method=POST&q=%20"), ("GET",)),
        (Facts("GET", "/", query="q=_method%3DPOST"), ("GET",)),
        (Facts("POST", "/", body=b"a=1&_method=DELETE"), ("POST", "DELETE")),
        (
            Facts(
                "POST",
                "/",
                headers={"content-type": "Multipart/Form-Data; boundary=x"},
                body=b'--x\r\nContent-Disposition: form-data; name="_method"\r\n\r\nDELETE\r\n--x--',
            ),
            ("POST", "DELETE"),
        ),
        (
            Facts(
                "POST",
                "/",
                headers={"content-type": "multipart/form-data; boundary=x"},
                body=b'--x\nContent-Disposition: form-data; name="q"\n\nthe _method\n--x\nContent-Disposition:'
                b" form-data; NAME=_method; x=y\nContent-Type: text/plain\n\nput\n--x--",
            ),
            ("POST", "PUT"),
        ),
        (
            Facts("POST", "/", headers={"content-type": "application/json"}, body=b'{"q": "&_method=PUT&"}'),
            ("POST",),
        ),
        (Facts("GET", "/", query="_method=POST", kind="websocket"), ("WEBSOCKET",)),
    ],
)
def test_every_method_that_the_application_may_see(facts: Facts, expected: tuple[str, ...]) -> None:
    """The wire's method comes first, then each override, whoever honours it."""
    assert effective_methods(facts) == expected


# --- Marks --------------------------------------------------------------------------------------------------


class View:
    """As the class-based views of frameworks look."""

    def get(self) -> str:
        return "get"

    def post(self) -> str:
        return "post"


def as_view(cls: type) -> object:
    """Make a function of a class, as Django and Flask do."""

    def view() -> None: ...

    view.view_class = cls  # type: ignore[attr-defined]
    return view


def test_marks_on_functions() -> None:
    """A mark leaves the function as it is, and survives what wraps it properly."""

    def view() -> str:
        return "ok"

    assert marks_of(view) == frozenset()
    assert reads(view) is view
    assert marks_of(view) == {"reads"}

    @functools.wraps(view)
    def wrapped() -> str:
        return view()

    assert marks_of(wrapped) == {"reads"}
    assert marks_of(functools.partial(wrapped)) == {"reads"}


def test_marks_on_classes_and_their_methods() -> None:
    """Each method can have its own mark, and the closer one wins."""

    class Search(View):
        @reads
        def post(self) -> str:
            return "found"

        @writes
        def get(self) -> str:
            return "counted"

    @writes
    class Odd(View):
        @reads
        def post(self) -> str:
            return "found"

    for target in (Search, as_view(Search)):
        endpoint = Endpoint("search", marks_of(target))
        assert endpoint.marks == {"reads:POST", "writes:GET"}
        assert mark_for(endpoint, "POST") == "reads"
        assert mark_for(endpoint, "GET") == "writes"
        assert mark_for(endpoint, "HEAD") == "writes"
        assert mark_for(endpoint, "PUT") == ""
    odd = Endpoint("odd", marks_of(Odd))
    assert mark_for(odd, "POST") == "reads"
    assert mark_for(odd, "GET") == "writes"


def test_what_a_subclass_inherits() -> None:
    """A subclass is not covered by a promise that somebody made before it was written."""
    reading = reads(type("Reading", (View,), {}))
    writing = writes(type("Writing", (View,), {}))
    assert marks_of(reading) == {"reads"}
    assert marks_of(type("More", (reading,), {})) == frozenset()
    assert marks_of(type("More", (writing,), {})) == {"writes"}


def test_marks_on_actions_of_a_viewset() -> None:
    """REST framework maps methods to actions; the mark stands on the action."""

    class Articles:
        def create(self) -> None: ...

        @reads
        def search(self) -> None: ...

    def view() -> None: ...

    view.cls = Articles  # type: ignore[attr-defined]
    view.actions = {"post": "search", "put": "create"}  # type: ignore[attr-defined]
    assert marks_of(view) == {"reads:POST"}


def test_both_marks_and_none() -> None:
    """Of two marks equally close, the one that refuses."""
    assert mark_for(Endpoint("x", frozenset({"reads", "writes"})), "POST") == "writes"
    assert mark_for(Endpoint("x", frozenset({"reads:GET", "writes:GET"})), "HEAD") == "writes"
    assert mark_for(Endpoint("x", frozenset({"reads"})), "POST") == "reads"
    assert mark_for(Endpoint("x"), "POST") == ""
    assert mark_for(None, "POST") == ""


def test_the_first_mark_empties_every_free_read_however_late() -> None:
    """A middleware that was made before a view was marked sees it; who asks after that is told so at once."""
    script = """
from readonly.marks import READS, WRITES, reads, unmarked, writes
reading, writing = unmarked(READS), unmarked(WRITES)
reads(lambda: None)
assert writing and not reading and not unmarked(READS)
writes(lambda: None)
assert not writing and not unmarked(WRITES)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
