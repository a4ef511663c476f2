"""docs/bodies.md keeps what it says: its samples, asked through the middleware."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from readonly import Policy
from readonly.gate import ActKind, Gate
from readonly.rules import Facts
from support.apps import AsgiSite, HandSwitch, Reply, Request

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "bodies.md").read_text(encoding="utf-8")
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


def sample(name: str) -> Policy:
    """Return the policy that a sample builds."""
    found = re.search(rf"<!-- sample: {name} -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    given: dict[str, Any] = {}
    exec(compile(found[1], name, "exec"), given)
    policy: Policy = given["policy"]
    return policy


def ask(policy: Policy, path: str, body: bytes, content_type: str, **headers: str) -> Reply:
    """Post a body to a read-only site."""
    site = AsgiSite(HandSwitch(), policy)
    site.switch.read_only()
    return site.ask(Request("POST", path, headers=(("Content-Type", content_type), *headers.items()), body=body))


@pytest.mark.parametrize(
    ("name", "path", "content_type", "reading", "writing"),
    [
        ("predicate", "/a/info/lfs/objects/batch", JSON, b'{"operation": "download"}', b'{"operation": "upload"}'),
        ("form", "/search", FORM, b"q=goal", b"q=goal&save=1"),
        (
            "graphql",
            "/graphql",
            JSON,
            b'{"query": "{ articles { title } }"}',
            b'{"query": "mutation { comment { id } }"}',
        ),
        ("answer", "/rpc", JSON, b'{"method": "get_score"}', b'{"method": "set_score"}'),
    ],
)
def test_a_sample_tells_reading_from_writing(
    name: str, path: str, content_type: str, reading: bytes, writing: bytes
) -> None:
    """The one goes on with its body, the other is refused."""
    policy = sample(name)
    passed = ask(policy, path, reading, content_type)
    assert [seen.body for seen in passed.seen] == [reading]
    refused = ask(policy, path, writing, content_type)
    assert refused.seen == []
    assert b"READ_ONLY" in refused.body
    assert ask(policy, "/elsewhere", reading, content_type).seen == []


def test_the_answer_of_the_graphql_sample() -> None:
    """As the page shows it: shape, and the status by what the client accepts."""
    policy = sample("graphql")
    shown = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert shown is not None
    mutation = b'{"query": "mutation { comment { id } }"}'
    for accept, status in (("application/graphql-response+json", 503), ("application/json", 200)):
        reply = ask(policy, "/graphql", mutation, JSON, Accept=accept)
        assert reply.status == status
        assert reply.get("retry-after")
        (error,), (example,) = json.loads(reply.body)["errors"], json.loads(shown[1])["errors"]
        assert error["message"] == example["message"]
        assert error["extensions"].keys() <= example["extensions"].keys()
    batch = ask(policy, "/graphql", b'[{"query": "{ a }"}, {"query": "mutation { b }"}]', JSON)
    assert (batch.status, len(json.loads(batch.body))) == (200, 2)


def test_the_sample_for_websockets() -> None:
    """Such a socket passes, and its messages are judged; without the rule it would be refused."""
    socket = Facts("GET", "/graphql", kind="websocket")
    gate = Gate(sample("sockets"))
    assert gate.classify(socket).kind is ActKind.DECLARED_READ
    dialogue = gate.dialogue(socket)
    assert dialogue is not None
    mutation = {"id": "1", "type": "subscribe", "payload": {"query": "mutation { a }"}}
    assert dialogue.asks(json.dumps(mutation)) == "1"
    assert Gate(sample("graphql")).classify(socket).kind is ActKind.UNDECLARED


def test_the_answer_in_words_of_ones_own() -> None:
    """Status, type and body are the sample's; the headers are ours."""
    reply = ask(sample("answer"), "/rpc", b'{"method": "set_score"}', JSON)
    assert (reply.status, reply.get("content-type"), reply.get("x-read-only")) == (200, "application/json", "true")
    assert json.loads(reply.body)["error"]["data"]["code"] == "READ_ONLY"
