"""Predicates for a GraphQL endpoint: judged by the operation that would run, not by the method.

    graphql = GraphQL()
    policy = Policy(reads=[rule("POST /graphql", when=graphql.reads)])

A request reads if no operation in it that a server might choose is a mutation. Whatever can't be told for certain is
a write: a body that is no GraphQL request, was cut off or is longer than 64 KiB, a key that is there twice or is none
of GraphQL's, a document that can't be parsed and has the word `mutation`, a file upload, a persisted document without
its text (unless it was named). Without that word nothing in a document is a mutation, and its errors are the
application's to answer. A subscription reads. In a websocket each operation is judged by itself.

A refused request is answered as GraphQL's clients expect: `errors[].extensions.code` is `READ_ONLY`. A batch is run as
a whole or not at all: one mutation in it refuses all of it, and each of its entries gets an error of its own.

Needs graphql-core: `pip install 'readonly-mode[graphql]'`.

Source: spec.graphql.org, section 6.1; GraphQL over HTTP, sections 5 to 7 and appendixes A and C.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl

from .answers import Dialogue, Refusal, Worded
from .errors import ConfigurationError
from .rules import BODY_LIMIT_BYTES, SAFE_METHODS, Facts

try:
    from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse
except ModuleNotFoundError as error:
    if error.name != "graphql":
        raise
    raise ModuleNotFoundError(
        "readonly.graphql needs graphql-core: pip install 'readonly-mode[graphql]'", name="graphql"
    ) from error

RESPONSE: Final = "application/graphql-response+json"
JSON: Final = "application/json"
# The largest documents of real clients have some thousand tokens. A body may hold thirty thousand, which would keep an
# event loop busy for a tenth of a second.
TOKENS: Final = 5_000
# Clients send the same few documents again and again; longer ones are parsed each time, so that nobody fills memory.
_REMEMBERED: Final = 512
_REMEMBERED_LENGTH: Final = 4096

# Under these names servers take a document's identifier instead of its text. (`id` as well, where there is no text:
# beside a text it is the client's own number for the answer.)
_IDENTIFIERS: Final = ("documentId", "docId", "doc_id", "queryId", "query_id", "hash")
_DOCUMENTS: Final = frozenset({"query", "extensions", "id", *_IDENTIFIERS})
_PARAMETERS: Final = _DOCUMENTS | {"operationName", "variables"}
_BATCH_MESSAGE: Final = "Not run: it came in one batch with something that can't be run now. Send it again by itself."


class GraphQL:
    """What is known about one GraphQL endpoint.

    Args:
        persisted: Identifiers of persisted documents that only read, as clients send them. A request without a text is
            a write unless its identifier is among these.

    Attributes:
        reads: A predicate that is true for requests that only read, for `reads=[rule("POST /graphql", when=...)]`.
        writes: Its opposite, for `writes=[rule("GET /graphql", when=...)]`, where a server runs mutations by GET.

    Raises:
        ConfigurationError: A bare string stands where a list belongs.
    """

    def __init__(self, *, persisted: Collection[str] = ()) -> None:
        if isinstance(persisted, (str, bytes)):
            raise ConfigurationError(f"persisted={persisted!r} is a bare string where a list belongs.")
        self._persisted = frozenset(persisted)
        self.reads = Operations("reads", self._reads, self.dialogue)
        self.writes = Operations("writes", lambda facts: not self._reads(facts), self.dialogue)

    def dialogue(self) -> Dialogue:
        """Return what follows a websocket that speaks GraphQL."""
        return _Socket(self._request_reads)

    def _reads(self, facts: Facts) -> bool:
        if facts.kind == "websocket":
            return True  # each operation in it is judged by itself
        requests = _requests(facts)
        return requests is not None and all(self._request_reads(one) for one in requests)

    def _request_reads(self, request: _Request) -> bool:
        if not request.texts:
            return bool(request.identifiers) and self._persisted.issuperset(request.identifiers)
        if request.identifiers:
            # A server may go by that, though a text is there: it must be the text's own, or one that was named.
            hashes = {hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in request.texts}
            if not all(one.removeprefix("sha256:") in hashes or one in self._persisted for one in request.identifiers):
                return False
        return not any(_mutates(text, request.names) for text in request.texts)


class Operations:
    """A predicate, and the answer to whom it refuses.

    Attributes:
        dialogue: Returns what follows a websocket.
    """

    def __init__(self, name: str, decide: Callable[[Facts], bool], dialogue: Callable[[], Dialogue]) -> None:
        self._name = name
        self._decide = decide
        self.dialogue = dialogue

    def __call__(self, facts: Facts) -> bool:
        """Return what the name says."""
        return self._decide(facts)

    def __repr__(self) -> str:
        return f"GraphQL.{self._name}"

    def answer(self, facts: Facts, refusal: Refusal) -> Worded:
        """Return a well-formed GraphQL response.

        Of type `application/graphql-response+json`, whose status a client may trust, it has the refusal's own. A client
        that knows `application/json` alone takes a body for GraphQL's only if the status is 200, and a batch's is
        always 200.
        """
        media, status = _accepted(facts), refusal.status
        entries = _batch(facts)
        if entries is None:
            document: Any = _errors(refusal, refusal.detail)
        else:
            status = 200
            refused = [self._refuses(facts, entry) for entry in entries]
            document = [
                _errors(refusal, refusal.detail if by_itself or not any(refused) else _BATCH_MESSAGE)
                for by_itself in refused
            ]
        if media == JSON:
            status = 200
        body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
        return Worded(status, f"{media}; charset=utf-8", body)

    def _refuses(self, facts: Facts, entry: object) -> bool:
        """Return whether one entry of a batch would be refused by itself."""
        alone = Facts("POST", facts.path, query=facts.query, headers=facts.headers, body=json.dumps(entry).encode())
        return self._decide(alone) is (self._name == "writes")


def _errors(refusal: Refusal, message: str) -> dict[str, Any]:
    return {"errors": [{"message": message, "extensions": dict(refusal.members)}]}


def _accepted(facts: Facts) -> str:
    """Return which of the two media types a client takes, the specification's own if it is all the same to it."""
    best = {RESPONSE: 0.0, JSON: 0.0}
    for position, item in enumerate((facts.headers.get("accept") or "*/*").lower().split(",")):
        media, *parameters = (part.strip() for part in item.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        if media in best and 0 < weight <= 1:
            best[media] = max(best[media], weight - position * 1e-6)
    return JSON if best[JSON] > best[RESPONSE] else RESPONSE


# --- what was sent ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Request:
    """One GraphQL request, with everything that some server might go by.

    Attributes:
        texts: Documents: usually one, but a server may prefer the one in the query string to the one in the body.
        names: Operation names.
        identifiers: Of persisted documents.
    """

    texts: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    identifiers: list[str] = field(default_factory=list)

    def add(self, key: str, value: object) -> bool:
        """Take in one parameter; return False if it can't be understood."""
        if value is None or value == "":
            return True  # the same as not sent
        if key == "extensions":
            return self._add_extensions(value)
        into = {"query": self.texts, "operationName": self.names, "id": self.identifiers}.get(key)
        if key in _IDENTIFIERS:
            into = self.identifiers
        if into is None:
            return key == "variables"
        if key == "id" and isinstance(value, int):
            value = str(value)
        if not isinstance(value, str):
            return False
        into.append(value)
        return True

    def _add_extensions(self, value: object) -> bool:
        if isinstance(value, str):
            value = _json(value)
        if not isinstance(value, dict):
            return False
        persisted = value.get("persistedQuery")
        if persisted is None:
            return True
        if not isinstance(persisted, dict) or not isinstance(persisted.get("sha256Hash"), str):
            return False
        self.identifiers.append(persisted["sha256Hash"])
        return True


def _requests(facts: Facts) -> list[_Request] | None:
    """Return the GraphQL requests in an HTTP request, or None if they can't be told for certain."""
    if not facts.body_complete:
        return None
    try:
        asked = parse_qsl(facts.query, keep_blank_values=True, errors="strict", encoding="utf-8")
    except ValueError:
        return None
    sent = _sent(facts)
    if sent is None:
        return None
    if not sent:
        if facts.method in SAFE_METHODS and not any(key in _DOCUMENTS and value for key, value in asked):
            return []  # whoever opens the endpoint in a browser gets its documentation
        sent = [[]]
    found: list[_Request] = []
    for pairs in sent:
        # Parameters of the address that are none of GraphQL's are for something else.
        request = _request([*pairs, *((key, value) for key, value in asked if key in _PARAMETERS)])
        if request is None:
            return None
        found.append(request)
    return found


def _request(pairs: Pairs) -> _Request | None:
    """Return the request that is in these parameters, or None if it can't be told for certain."""
    request = _Request()
    if not all(request.add(key, value) for key, value in pairs if key != "id"):
        return None
    if not request.texts and not all(request.add(key, value) for key, value in pairs if key == "id"):
        return None
    return request


Pairs = Sequence[tuple[str, object]]


def _sent(facts: Facts) -> list[Pairs] | None:
    """Return the parameters in the body, for each request in it; None if they can't be told for certain."""
    if not facts.body:
        return None if facts.body is None and facts.method not in SAFE_METHODS else []
    media, _, parameters = (facts.headers.get("content-type") or "").lower().partition(";")
    if parameters.strip().replace('"', "") not in ("", "charset=utf-8"):
        return None
    try:
        text = facts.body.decode("utf-8")
    except UnicodeDecodeError:
        return None
    media = media.strip()
    if media == "application/graphql":
        return [[("query", text)]]
    if media == "application/x-www-form-urlencoded":
        try:
            return [parse_qsl(text, keep_blank_values=True, errors="strict")]
        except ValueError:
            return None
    if media not in (JSON, "application/graphql+json"):
        return None  # multipart, which uploads, among them
    document = _json(text)
    entries = document if isinstance(document, list) else [document]
    if not all(isinstance(entry, dict) for entry in entries):
        return None
    return [list(entry.items()) for entry in entries]


def _batch(facts: Facts) -> list[object] | None:
    """Return the entries of a batch, or None if it is none that could be read."""
    if not facts.body or not facts.body_complete:
        return None
    media = (facts.headers.get("content-type") or "").lower().partition(";")[0].strip()
    document = _json(facts.body.decode("utf-8", "replace")) if media == JSON else None
    return document if isinstance(document, list) else None


class _Twice(ValueError):
    """A key is there twice: parsers differ over which one counts."""


def _once(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise _Twice(key)
        found[key] = value
    return found


def _json(text: str) -> Any:
    """Return what a JSON text says, or None (which is no GraphQL request) if it says nothing, or nothing certain."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None


# --- websockets ------------------------------------------------------------------------------------------------------

# In the protocol graphql-transport-ws and in its predecessor, graphql-ws: what begins an operation, and all else.
_BEGINS: Final = frozenset({"subscribe", "start"})
_TALK: Final = frozenset({"connection_init", "ping", "pong", "complete", "stop", "connection_terminate"})


class _Socket:
    """One websocket that speaks GraphQL, in either protocol: they differ in the names of their messages."""

    def __init__(self, reads: Callable[[_Request], bool]) -> None:
        self._reads = reads
        # How each operation that may write was begun: type and id of its message.
        self._begun: dict[str, tuple[str, object]] = {}

    def asks(self, message: str | bytes) -> str | None:
        """Return the id of an operation that may write."""
        said = _message(message)
        kind = said.get("type")
        if kind not in _BEGINS:
            if kind in _TALK:
                return None
            raise ValueError(kind)
        name, payload = said.get("id"), said.get("payload")
        if not isinstance(name, (str, int)) or not isinstance(payload, dict):
            raise ValueError(name)
        request = _request(list(payload.items()))
        # One of the same id as a write's would say when that is over.
        if request is not None and self._reads(request) and str(name) not in self._begun:
            return None
        self._begun[str(name)] = (kind, name)
        return str(name)

    def withdraws(self, message: str | bytes) -> str | None:
        """Return the id of an operation that the client wants no more of."""
        said = _message(message)
        return str(said["id"]) if said.get("type") in ("complete", "stop") and "id" in said else None

    def refuses(self, operation: str, refusal: Refusal) -> Sequence[str]:
        """Return an error for that operation; the socket stays as it is."""
        kind, name = self._begun.pop(operation)
        errors = _errors(refusal, refusal.detail)["errors"]
        payload = errors if kind == "subscribe" else errors[0]
        return (json.dumps({"id": name, "type": "error", "payload": payload}, ensure_ascii=False),)

    def ends(self, message: str | bytes) -> str | None:
        """Return the id of an operation that the server has done with."""
        try:
            said = _message(message)
        except ValueError:
            return None
        if said.get("type") not in ("complete", "error") or "id" not in said:
            return None
        self._begun.pop(str(said["id"]), None)
        return str(said["id"])


def _message(message: str | bytes) -> dict[str, Any]:
    if len(message) > BODY_LIMIT_BYTES:
        raise ValueError("a message that is longer than what is looked at")
    said = _json(message if isinstance(message, str) else message.decode("utf-8"))
    if not isinstance(said, dict):
        raise ValueError("no message of GraphQL's")
    return said


# --- what would run --------------------------------------------------------------------------------------------------


def _mutates(text: str, names: Sequence[str]) -> bool:
    """Return whether a server might run a mutation, given a document and the operation names that were sent."""
    # A keyword can't be written in another way: without it no operation is a mutation, whatever else the text is.
    if "mutation" not in text:
        return False
    operations = (_operations_kept if len(text) <= _REMEMBERED_LENGTH else _operations)(text)
    if operations is None:
        return True
    named = [mutates for name, mutates in operations if name in names]
    # Without a name, or with one that is not there, there is an error to be answered and nothing to be run; but then
    # it must not matter which one a server runs that sees it otherwise.
    if not names or not all(any(name == found for found, _ in operations) for name in names):
        named = [mutates for _, mutates in operations]
    return any(named)


def _operations(text: str) -> tuple[tuple[str | None, bool], ...] | None:
    """Return name and kind of each operation in a document, None if it can't be parsed."""
    try:
        document = parse(text, no_location=True, max_tokens=TOKENS)
    except (GraphQLError, RecursionError):
        return None
    return tuple(
        (node.name.value if node.name else None, node.operation is OperationType.MUTATION)
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode)
    )


_operations_kept = lru_cache(maxsize=_REMEMBERED)(_operations)
