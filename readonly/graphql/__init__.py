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
from collections.abc import Callable, Collection
from typing import Any, Final

from ..answers import Dialogue, Refusal, Worded
from ..errors import ConfigurationError
from ..negotiation import weighed
from ..rules import Facts
from ._documents import mutates
from ._requests import JSON, Request, batch_in, error_of, requests_in
from ._sockets import Socket

__all__ = ["JSON", "RESPONSE", "GraphQL", "Operations"]

RESPONSE: Final = "application/graphql-response+json"
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
        return Socket(self._request_reads)

    def _reads(self, facts: Facts) -> bool:
        if facts.kind == "websocket":
            return True  # each operation in it is judged by itself
        requests = requests_in(facts)
        return requests is not None and all(self._request_reads(one) for one in requests)

    def _request_reads(self, request: Request) -> bool:
        if not request.texts:
            return bool(request.identifiers) and self._persisted.issuperset(request.identifiers)
        if request.identifiers:
            # A server may go by that, though a text is there: it must be the text's own, or one that was named.
            hashes = {hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in request.texts}
            if not all(one.removeprefix("sha256:") in hashes or one in self._persisted for one in request.identifiers):
                return False
        return not any(mutates(text, request.names) for text in request.texts)


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
        entries = batch_in(facts)
        if entries is None:
            document: Any = {"errors": [error_of(refusal)]}
        else:
            status = 200
            refused = [self._refuses(facts, entry) for entry in entries]
            document = [
                {"errors": [error_of(refusal, "" if by_itself or not any(refused) else _BATCH_MESSAGE)]}
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


def _accepted(facts: Facts) -> str:
    """Return which of the two media types a client takes, the specification's own if it is all the same to it."""
    best = {RESPONSE: 0.0, JSON: 0.0}
    for media, weight in weighed(facts.headers.get("accept") or "*/*"):
        if media in best:
            best[media] = max(best[media], weight)
    return JSON if best[JSON] > best[RESPONSE] else RESPONSE
