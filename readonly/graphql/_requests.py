"""What was sent: the GraphQL requests in an HTTP request, with everything that some server might go by."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from ..answers import Refusal
from ..rules import SAFE_METHODS, Facts

JSON: Final = "application/json"

# Under these names servers take a document's identifier instead of its text. (`id` as well, where there is no text:
# beside a text it is the client's own number for the answer.)
_IDENTIFIERS: Final = ("documentId", "docId", "doc_id", "queryId", "query_id", "hash")
_DOCUMENTS: Final = frozenset({"query", "extensions", "id", *_IDENTIFIERS})
_PARAMETERS: Final = _DOCUMENTS | {"operationName", "variables"}


@dataclass(slots=True)
class Request:
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
            value = parsed(value)
        if not isinstance(value, dict):
            return False
        persisted = value.get("persistedQuery")
        if persisted is None:
            return True
        if not isinstance(persisted, dict) or not isinstance(persisted.get("sha256Hash"), str):
            return False
        self.identifiers.append(persisted["sha256Hash"])
        return True


def requests_in(facts: Facts) -> list[Request] | None:
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
    found: list[Request] = []
    for pairs in sent:
        # Parameters of the address that are none of GraphQL's are for something else.
        request = request_of([*pairs, *((key, value) for key, value in asked if key in _PARAMETERS)])
        if request is None:
            return None
        found.append(request)
    return found


def request_of(pairs: Pairs) -> Request | None:
    """Return the request that is in these parameters, or None if it can't be told for certain."""
    request = Request()
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
    document = parsed(text)
    entries = document if isinstance(document, list) else [document]
    if not all(isinstance(entry, dict) for entry in entries):
        return None
    return [list(entry.items()) for entry in entries]


def batch_in(facts: Facts) -> list[object] | None:
    """Return the entries of a batch, or None if it is none that could be read."""
    if not facts.body or not facts.body_complete:
        return None
    media = (facts.headers.get("content-type") or "").lower().partition(";")[0].strip()
    document = parsed(facts.body.decode("utf-8", "replace")) if media == JSON else None
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


def parsed(text: str) -> Any:
    """Return what a JSON text says, or None (which is no GraphQL request) if it says nothing, or nothing certain."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None


def error_of(refusal: Refusal, message: str = "") -> dict[str, Any]:
    """Return the error that tells a client of a refusal; its message is the refusal's own if there is no other."""
    return {"message": message or refusal.detail, "extensions": dict(refusal.members)}
