"""GraphQL by the operation that would run, and refusals that its clients understand."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from graphql import GraphQLField, GraphQLObjectType, GraphQLSchema, GraphQLString, graphql_sync
from hypothesis import given
from hypothesis import strategies as st

from readonly.answers import Refusal, Worded
from readonly.errors import ConfigurationError, ReadOnlyError
from readonly.gate import ActKind, Gate
from readonly.graphql import JSON, RESPONSE, GraphQL
from readonly.policy import Policy
from readonly.rules import Facts, rule
from support.apps import SITES, Behaviour, HandSwitch, Reply, Request, Site
from support.records import NOON, minutes

FIND = "query Find { article { title } }"
COMMENT = "mutation Comment { comment(text: 1) { id } }"
BOTH = f"{FIND} {COMMENT}"
TICKER = "subscription Ticker { score }"
PARTS = "{ article { ...Part } } fragment Part on Article { title }"
HASH = hashlib.sha256(FIND.encode()).hexdigest()
JSON_TYPE = {"content-type": "application/json"}

graphql = GraphQL(persisted=["read-1", "sha256:" + "a" * 64])


def posted(document: Any, *, query: str = "", headers: dict[str, str] = JSON_TYPE, **more: Any) -> Facts:
    """Return a POST of a JSON document, or of a body as it is."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Facts("POST", "/graphql", query=query, headers=headers, body=body, **more)


def asked(**parameters: str) -> Facts:
    """Return a GET."""
    return Facts("GET", "/graphql", query=urlencode(parameters), body=b"")


def typed(content_type: str) -> dict[str, str]:
    """Return the headers of a body of another type."""
    return {"content-type": content_type}


@pytest.mark.parametrize(
    ("reads", "facts"),
    [
        # One operation.
        (True, posted({"query": FIND})),
        (True, posted({"query": "{ article { title } }"})),
        (True, posted({"query": PARTS})),
        (True, posted({"query": TICKER})),
        (True, posted({"query": "{ mutation }"})),
        (True, posted({"query": "query { a } fragment mutation on A { b }"})),
        (True, posted({"query": '{ a(text: "mutation { b }") }'})),
        (True, posted({"query": "# mutation { b }\n{ a }"})),
        (False, posted({"query": COMMENT})),
        (False, posted({"query": "mutation{a}"})),
        (False, posted({"query": "mutation @a { b @skip(if: true) }"})),
        (False, posted({"query": "mutation { ...Part } fragment Part on Mutation { comment { id } }"})),
        # Several.
        (True, posted({"query": BOTH, "operationName": "Find"})),
        (False, posted({"query": BOTH, "operationName": "Comment"})),
        (False, posted({"query": BOTH})),
        (False, posted({"query": BOTH, "operationName": ""})),
        (False, posted({"query": BOTH, "operationName": None})),
        (False, posted({"query": BOTH, "operationName": "Other"})),
        (False, posted({"query": BOTH, "operationName": ["Find"]})),
        (False, posted({"query": BOTH.replace("Comment {", "Find {"), "operationName": "Find"})),
        # A batch.
        (True, posted([{"query": FIND}, {"query": PARTS}])),
        (False, posted([{"query": FIND}, {"query": COMMENT}])),
        (False, posted([{"query": FIND}, "mutation"])),
        (False, posted([])),
        # Errors: where nothing in it can be a mutation, they are the application's to answer.
        (True, posted({"query": "{ article"})),
        (True, posted({"query": "nonsense"})),
        (False, posted({"query": "mutation { comment"})),
        (False, posted({"query": "mutation " + "{a" * 2000})),
        (False, posted({"query": "mutation { a } " + "{ a } " * 9000})),
        # What is not there, or not what it should be.
        (False, posted({})),
        (False, posted({"query": ""})),
        (False, posted({"query": 7})),
        (False, posted({"query": [FIND]})),
        (False, posted({"variables": {"a": 1}})),
        (False, posted(None)),
        (False, posted("mutation")),
        (False, posted(b"")),
        (False, posted(b"nonsense")),
        (False, posted(b"[" * 60_000)),
        (False, posted(b"\xff")),
        (False, posted(b"\xef\xbb\xbf" + json.dumps({"query": FIND}).encode())),
        (False, posted(b'{"query": "{ a }", "query": "mutation { b }"}')),
        (False, posted({"query": FIND, "operation": "x"})),
        (True, posted({"query": FIND, "variables": {"a": [1]}, "extensions": {"client": "x"}})),
        (True, posted(b'{"qu\\u0065ry": "{ a }"}')),
        (False, posted(b'{"qu\\u0065ry": "m\\u0075tation { a }"}')),
        (False, posted({"query": FIND}, body_complete=False)),
        (False, Facts("POST", "/graphql", headers=JSON_TYPE)),
        (True, Facts("GET", "/graphql", kind="websocket")),  # of which each operation is judged by itself
        # Other types.
        (True, posted({"query": FIND}, headers=typed("application/json; charset=UTF-8"))),
        (False, posted({"query": FIND}, headers=typed("application/json; charset=utf-7"))),
        (False, posted({"query": FIND}, headers=typed("text/plain"))),
        (False, posted({"query": FIND}, headers={})),
        (True, posted({"query": FIND}, headers=typed("application/graphql+json"))),
        (True, posted(FIND.encode(), headers=typed("application/graphql"))),
        (False, posted(COMMENT.encode(), headers=typed("application/graphql"))),
        (True, posted(BOTH.encode(), query="operationName=Find", headers=typed("application/graphql"))),
        (False, posted(BOTH.encode(), query="operationName=Comment", headers=typed("application/graphql"))),
        (True, posted(urlencode({"query": FIND}).encode(), headers=typed("application/x-www-form-urlencoded"))),
        (False, posted(urlencode({"query": COMMENT}).encode(), headers=typed("application/x-www-form-urlencoded"))),
        (False, posted(b"query={a}&query=mutation{b}", headers=typed("application/x-www-form-urlencoded"))),
        (False, posted(b"query={a%ff}", headers=typed("application/x-www-form-urlencoded"))),
        (False, posted(b'--x\r\n\r\n{"query": "{ a }"}', headers=typed("multipart/form-data; boundary=x"))),
        # Both in the address and in the body: servers differ over which one counts.
        (True, posted({"query": FIND}, query="page=2")),
        (True, posted({"query": FIND}, query=urlencode({"query": PARTS}))),
        (False, posted({"query": FIND}, query=urlencode({"query": COMMENT}))),
        (False, posted(b"", query=urlencode({"query": COMMENT}))),
        (True, posted(b"", query=urlencode({"query": FIND}))),
        (False, posted({"query": BOTH, "operationName": "Find"}, query="operationName=Comment")),
        (False, posted({"query": FIND}, query="documentId=x")),
        (False, posted({"query": FIND}, query="query=%ff")),
        (False, posted([{"query": FIND}], query=urlencode({"query": COMMENT}))),
        # Persisted.
        (True, posted({"id": "read-1"})),
        (True, posted({"documentId": "read-1", "operationName": "Find"})),
        (True, posted({"documentId": "sha256:" + "a" * 64})),
        (True, posted([{"documentId": "read-1"}, {"query": FIND}])),
        (True, posted({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "read-1"}}})),
        (False, posted({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "b" * 64}}})),
        (False, posted({"extensions": {"persistedQuery": HASH}})),
        (False, posted({"extensions": [HASH]})),
        (False, posted({"id": "other"})),
        (False, posted({"id": 7})),
        (False, posted({"id": "read-1", "documentId": "other"})),
        (True, posted({"id": 7, "query": FIND})),
        (True, posted({"query": FIND, "extensions": {"persistedQuery": {"sha256Hash": HASH}}})),
        (True, posted({"query": FIND, "documentId": f"sha256:{HASH}"})),
        (False, posted({"query": FIND, "extensions": {"persistedQuery": {"sha256Hash": "b" * 64}}})),
        (False, posted({"query": FIND, "documentId": "other"})),
        (False, posted({"query": COMMENT, "documentId": "read-1"})),
        # By GET.
        (True, asked(query=FIND)),
        (True, asked(query=BOTH, operationName="Find")),
        (True, asked()),
        (True, asked(theme="dark")),
        (True, asked(operationName="Find")),
        (True, asked(documentId="read-1")),
        (True, asked(extensions=json.dumps({"persistedQuery": {"sha256Hash": "read-1"}}))),
        (True, asked(query=FIND, variables='{"a": 1}')),
        (False, asked(query=COMMENT)),
        (False, asked(query=BOTH, operationName="Comment")),
        (False, asked(documentId="other")),
        (False, asked(id="other")),
        (False, asked(extensions="{")),
        (False, asked(extensions=json.dumps({"persistedQuery": {"sha256Hash": "b" * 64}}))),
        (False, Facts("GET", "/graphql", query="query={a}&query=mutation{b}")),
        (False, Facts("QUERY", "/graphql", headers=JSON_TYPE, body=b'{"query": "mutation { a }"}')),
    ],
)
def test_what_would_run(reads: bool, facts: Facts) -> None:
    """One predicate is the other's opposite; the doubtful counts as a write."""
    assert graphql.reads(facts) is reads
    assert graphql.writes(facts) is not reads


def test_a_bare_string_is_no_list() -> None:
    """Every letter of it would be an identifier."""
    with pytest.raises(ConfigurationError, match="bare string"):
        GraphQL(persisted="read-1")


def test_without_graphql_core_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """And only if that very package is missing."""
    for name in [name for name in sys.modules if name.split(".")[:2] == ["readonly", "graphql"]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "graphql", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'readonly-mode\[graphql\]'"):
        importlib.import_module("readonly.graphql")


# --- against a server ------------------------------------------------------------------------------------------------

RAN: list[str] = []


def _noted(name: str) -> Callable[..., str]:
    def resolve(*_: Any) -> str:
        RAN.append(name)
        return name

    return resolve


SCHEMA = GraphQLSchema(
    GraphQLObjectType("Query", {"a": GraphQLField(GraphQLString, resolve=_noted("read"))}),
    GraphQLObjectType("Mutation", {"b": GraphQLField(GraphQLString, resolve=_noted("written"))}),
)


def _serve(facts: Facts) -> None:
    """Run a request as servers do that merge address and body, the address first, and take every batch."""
    address = dict(reversed(parse_qsl(facts.query)))
    media = (facts.headers.get("content-type") or "").partition(";")[0]
    body: Any = {}
    if media == "application/json":
        body = json.loads(facts.body or b"{}")
    elif media == "application/graphql":
        body = {"query": (facts.body or b"").decode()}
    elif media == "application/x-www-form-urlencoded":
        body = dict(reversed(parse_qsl((facts.body or b"").decode())))
    for entry in body if isinstance(body, list) else [body]:
        text = address.get("query") or entry.get("query")
        name = address.get("operationName") or entry.get("operationName")
        if isinstance(text, str):
            graphql_sync(SCHEMA, text, operation_name=name)


OPERATIONS = st.sampled_from(
    [
        "{ a }",
        "query A { a }",
        "mutation B { b }",
        "mutation A { b }",
        "mutation { ...F }",
        "fragment F on Mutation { b }",
        "# mutation\n",
        "mutation @skip(if: true) { b }",
        ",,mutation\ufeff{b}",
        "}",
    ]
)
DOCUMENTS = st.lists(OPERATIONS, max_size=3).map(" ".join)
NAMES = st.sampled_from([None, "", "A", "B", "C"])
ENTRIES = st.fixed_dictionaries({}, optional={"query": DOCUMENTS, "operationName": NAMES})
TYPES = st.sampled_from(["application/json", "application/graphql", "application/x-www-form-urlencoded", ""])


@given(
    document=st.one_of(ENTRIES, st.lists(ENTRIES, max_size=3)),
    address=ENTRIES,
    content_type=TYPES,
    method=st.sampled_from(["POST", "GET"]),
)
def test_no_mutation_runs_in_what_reads(document: Any, address: Any, content_type: str, method: str) -> None:
    """Whatever is sent, and wherever: a server that takes all of it, run by graphql-core, changes nothing."""
    if content_type == "application/json":
        body = json.dumps(document).encode()
    else:
        one = document[0] if isinstance(document, list) and document else document or {}
        pairs = {key: value for key, value in one.items() if value is not None} if isinstance(one, dict) else {}
        graphql_text = str(pairs.get("query", "")).encode()
        body = graphql_text if content_type == "application/graphql" else urlencode(pairs).encode()
    query = urlencode({key: value for key, value in address.items() if value is not None})
    facts = Facts(method, "/graphql", query=query, headers={"content-type": content_type}, body=body)
    RAN.clear()
    if graphql.reads(facts):
        _serve(facts)
    assert "written" not in RAN


def test_that_server_does_write() -> None:
    """The comparison above would say nothing otherwise."""
    RAN.clear()
    _serve(posted([{"query": "mutation { b }"}]))
    _serve(posted({"query": "{ a }"}, query=urlencode({"query": "mutation { b }"})))
    assert RAN == ["written", "written"]


# --- the answer ------------------------------------------------------------------------------------------------------

REFUSAL = Refusal(503, "READ_ONLY", "The site is read-only at the moment.", "2026-03-01T12:09:00Z", 540)
EXTENSIONS = {"code": "READ_ONLY", "expected_end": "2026-03-01T12:09:00Z", "retry_after": 540}


def answered(document: Any, accept: str | None = None) -> Worded:
    """Return the answer to a request."""
    headers = JSON_TYPE if accept is None else {**JSON_TYPE, "accept": accept}
    return graphql.reads.answer(posted(document, headers=headers), REFUSAL)


@pytest.mark.parametrize(
    ("accept", "media", "status"),
    [
        (None, RESPONSE, 503),
        ("*/*", RESPONSE, 503),
        ("application/graphql-response+json", RESPONSE, 503),
        ("application/graphql-response+json; charset=utf-8, application/json; charset=utf-8", RESPONSE, 503),
        ("application/graphql-response+json,application/json;q=0.9", RESPONSE, 503),
        ("application/json", JSON, 200),
        ("application/json, application/graphql-response+json", JSON, 200),
        ("application/json;q=0.5, application/graphql-response+json;q=0.4", JSON, 200),
        ("application/json, */*", JSON, 200),
        ("application/json;q=0, */*", RESPONSE, 503),
        ("application/json;q=x", RESPONSE, 503),
        ("text/html", RESPONSE, 503),
    ],
)
def test_the_media_type_decides_about_the_status(accept: str | None, media: str, status: int) -> None:
    """Clients trust a body of the old type only with a 200 (GraphQL over HTTP, section 6.4)."""
    worded = answered({"query": COMMENT}, accept)
    assert (worded.status, worded.content_type) == (status, f"{media}; charset=utf-8")
    assert json.loads(worded.body) == {"errors": [{"message": REFUSAL.detail, "extensions": EXTENSIONS}]}


def test_a_batch_is_answered_entry_by_entry() -> None:
    """A mutation refuses the whole; the queries beside it say that they can be sent again alone."""
    worded = answered([{"query": FIND}, {"query": COMMENT}, 7], RESPONSE)
    entries = json.loads(worded.body)
    assert worded.status == 200
    assert [entry["errors"][0]["extensions"] for entry in entries] == [EXTENSIONS] * 3
    first, second, third = (entry["errors"][0]["message"] for entry in entries)
    assert "by itself" in first
    assert second == third == REFUSAL.detail
    assert not any("data" in entry for entry in entries)


def test_a_batch_that_is_refused_for_another_reason() -> None:
    """A rule of its own, or a session that ended: then it is no mutation's fault."""
    ended = Refusal(403, "SESSION_ENDED", "Your session ended.", None, None)
    worded = graphql.writes.answer(posted([{"query": FIND}]), ended)
    assert json.loads(worded.body) == [
        {"errors": [{"message": "Your session ended.", "extensions": {"code": "SESSION_ENDED"}}]}
    ]
    assert graphql.reads.answer(posted({"query": FIND}), ended).status == 403


@pytest.mark.parametrize("facts", [posted(b"nonsense"), posted([{"query": FIND}], body_complete=False)])
def test_what_can_t_be_read_is_answered_as_one(facts: Facts) -> None:
    """How many entries there would have been is unknown."""
    assert list(json.loads(graphql.reads.answer(facts, REFUSAL).body)) == ["errors"]


def test_what_a_resolver_raises_says_so() -> None:
    """A guard's refusal becomes an error with the code, in the 200 that GraphQL servers answer with."""
    refusal = ReadOnlyError(expected_end=NOON + minutes(9))

    def resolve(*_: Any) -> str:
        raise refusal

    schema = GraphQLSchema(GraphQLObjectType("Query", {"a": GraphQLField(GraphQLString, resolve=resolve)}))
    result = graphql_sync(schema, "{ a }")
    assert result.errors is not None
    assert result.errors[0].extensions == {"code": "READ_ONLY", "expected_end": "2026-05-01T12:09:00Z"}


# --- behind the middleware -------------------------------------------------------------------------------------------


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest) -> Site:
    """A site with a GraphQL endpoint, in ASGI and in WSGI."""
    policy = Policy(
        reads=[rule("POST /graphql", when=graphql.reads)], writes=[rule("GET /graphql", when=graphql.writes)]
    )
    return SITES[request.param](HandSwitch(), policy)


def ask(site: Site, document: Any, **more: Any) -> Reply:
    """Post a document."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = (("Content-Type", "application/json"), ("Accept", RESPONSE), ("Origin", "https://app.example"))
    return site.ask(Request("POST", "/graphql", headers=headers, body=body, **more))


@pytest.mark.parametrize("chunked", [False, True])
def test_queries_go_on_and_mutations_are_refused(site: Site, chunked: bool) -> None:
    """The body reaches the application whole; the refusal has all headers that refusals have."""
    body = json.dumps({"query": FIND, "variables": {"word": "x" * 3000}}).encode()
    site.switch.read_only(expected=timedelta(minutes=9), message="Back at nine")
    reply = ask(site, body, chunked=chunked)
    assert (reply.status, reply.seen[0].body) == (200, body)
    refused = ask(site, {"query": COMMENT}, chunked=chunked)
    assert (refused.status, refused.seen) == (503, [])
    assert refused.get("content-type") == "application/graphql-response+json; charset=utf-8"
    assert refused.get("content-length") == str(len(refused.body))
    assert refused.get("cache-control") == "no-store"
    assert refused.get("x-read-only") == "true"
    assert refused.get("access-control-allow-origin") == "https://app.example"
    error = json.loads(refused.body)["errors"][0]
    assert error["message"] == "Back at nine"
    assert str(error["extensions"]["retry_after"]) == refused.get("retry-after")
    assert site.switch.tally.totals()["refused"] == 1


def test_while_writable_mutations_are_counted_and_queries_are_not(site: Site) -> None:
    """The drain waits for what may write."""
    assert ask(site, {"query": COMMENT}).seen[0].in_flight == 1
    assert ask(site, [{"query": FIND}, {"query": COMMENT}]).seen[0].in_flight == 1
    assert ask(site, {"query": FIND}).seen[0].in_flight == 0


def test_by_get(site: Site) -> None:
    """A server that runs mutations by GET has a rule for that."""
    site.switch.read_only()
    assert site.ask(Request("GET", "/graphql", query=urlencode({"query": FIND}))).status == 200
    assert site.ask(Request("GET", "/graphql", query=urlencode({"query": COMMENT}))).status == 503
    assert site.ask(Request("GET", "/other", query=urlencode({"query": COMMENT}))).status == 200


def test_an_upload_is_refused_in_graphql_s_words(site: Site) -> None:
    """The beginning of it was looked at; the rest is not."""
    site.switch.read_only()
    headers = (("Content-Type", "multipart/form-data; boundary=x"),)
    reply = site.ask(Request("POST", "/graphql", headers=headers, body=b"--x\r\n" + b"a" * 200_000))
    assert reply.status == 503
    assert json.loads(reply.body)["errors"][0]["extensions"]["code"] == "READ_ONLY"


def test_other_paths_are_refused_in_our_words(site: Site) -> None:
    """Problem details, as everywhere."""
    site.switch.read_only()
    reply = site.ask(Request("POST", "/comments", body=b"x"))
    assert reply.get("content-type") == "application/problem+json"


def test_a_failed_query_of_a_guarded_site(site: Site) -> None:
    """A server that answers 500 when its guard refuses: in GraphQL's words as well."""
    site.switch.guarded = True
    site.switch.read_only()
    site.behaviour = Behaviour(escapes=True, status=500)
    reply = ask(site, {"query": FIND})
    assert reply.status == 503
    assert json.loads(reply.body)["errors"][0]["extensions"]["code"] == "READ_ONLY"


def test_an_answer_that_fails_is_problem_details(caplog: pytest.LogCaptureFixture) -> None:
    """Worded by a site of its own, perhaps, on the worst night for it."""

    class Broken:
        def __call__(self, facts: Facts) -> bool:
            return False

        def answer(self, facts: Facts, refusal: Refusal) -> Worded:
            raise KeyError

    site = SITES["wsgi"](HandSwitch(), Policy(reads=[rule("POST /graphql", when=Broken())]))
    site.switch.read_only()
    assert ask(site, {"query": FIND}).get("content-type") == "application/problem+json"
    assert "failed to word" in caplog.text


def test_an_override_is_no_way_around() -> None:
    """Another method, named beside a query, is a request that is no query any more."""
    gate = Gate(Policy(reads=[rule("POST /graphql", when=graphql.reads)]))
    facts = posted({"query": FIND}, headers={**JSON_TYPE, "x-http-method-override": "DELETE"})
    assert gate.classify(facts).kind is ActKind.UNDECLARED
    assert gate.answering(facts) is not None
