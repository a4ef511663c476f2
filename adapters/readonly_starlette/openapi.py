"""The refusals in FastAPI's OpenAPI schema, for those who generate clients from it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from starlette.routing import BaseRoute, Host, Mount

from readonly import Policy
from readonly.gate import ActKind, Gate
from readonly.marks import marks_of
from readonly.rules import Endpoint, Facts

from .routing import routes_of, unfolded

_REFUSED = frozenset({ActKind.WRITE, ActKind.LOGIN, ActKind.UNDECLARED})
_PROBLEM = "ReadOnlyProblem"
_SCHEMA: Mapping[str, Any] = {
    "title": _PROBLEM,
    "description": "Problem details (RFC 9457) of a request that was refused because the site is read-only.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "expected_end"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "For people: what is the matter, and that nothing was saved."},
        "code": {"type": "string", "enum": ["READ_ONLY", "SESSION_ENDED"], "description": "For code to look at."},
        "expected_end": {"type": ["string", "null"], "format": "date-time"},
        "retry_after": {"type": "integer", "description": "Seconds, as in the header; not with SESSION_ENDED."},
    },
}
_HEADERS: Mapping[str, Any] = {
    "Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer"}},
    "X-Read-Only": {"description": "Always `true`.", "schema": {"type": "string"}},
    "X-Read-Only-Until": {
        "description": "When it is expected to be over, if that is known.",
        "schema": {"type": "string", "format": "date-time"},
    },
}


def document_refusals(app: Any, *, policy: Policy | None = None) -> None:
    """Have an application's OpenAPI schema name the 503 of each operation that is refused while read-only.

    Those are the operations that the policy and the marks on their endpoints take for a write or a login; with session
    cookies in the policy they have the 403 of a session that has ended as well. What an operation says about these
    statuses itself stays.

    Args:
        app: A FastAPI application, or anything with a method `openapi`. Routes may be added later.
        policy: The one that the middleware has.
    """
    gate = Gate(policy if policy is not None else Policy())
    ends = policy is not None and bool(policy.session_cookies) and policy.sessions == "end"
    original = app.openapi
    last: tuple[object, dict[str, Any]] = (None, {})

    def openapi() -> dict[str, Any]:
        nonlocal last
        schema: dict[str, Any] = original()
        if last[0] is not schema:
            last = (schema, _documented(schema, app, gate, ends=ends))
        return last[1]

    app.openapi = openapi


def _documented(schema: dict[str, Any], app: Any, gate: Gate, *, ends: bool) -> dict[str, Any]:
    found = copy.deepcopy(schema)
    named = False
    for path, method, name, endpoint in _operations(routes_of(app) or ()):
        operation = found.get("paths", {}).get(path, {}).get(method)
        if operation is None:
            continue
        facts = Facts(method.upper(), path, endpoint=Endpoint(name, marks_of(endpoint)))
        act = gate.classify(facts)
        if act.kind not in _REFUSED:
            continue
        named = True
        responses = operation.setdefault("responses", {})
        responses.setdefault("503", _response("The site is read-only: nothing was saved.", headers=True))
        if ends and act.kind is not ActKind.LOGIN:
            responses.setdefault("403", _response("The session ended when the site became read-only."))
    if named:
        found.setdefault("components", {}).setdefault("schemas", {}).setdefault(_PROBLEM, dict(_SCHEMA))
    return found


def _response(description: str, *, headers: bool = False) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": f"#/components/schemas/{_PROBLEM}"}}}
    response: dict[str, Any] = {"description": description, "content": content}
    if headers:
        response["headers"] = dict(_HEADERS)
    return response


def _operations(routes: Sequence[BaseRoute]) -> Iterator[tuple[str, str, str, Any]]:
    """Yield path, method, name and endpoint of each operation; mounted applications have schemas of their own."""
    for route in unfolded(routes):
        if not isinstance(getattr(route, "original_route", route), (Mount, Host)):
            for method in getattr(route, "methods", None) or ():
                yield route.path_format, method.lower(), route.name, route.endpoint
