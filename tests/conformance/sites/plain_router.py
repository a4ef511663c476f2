"""A router for the sites without a framework: what it knows it tells the gate, as an adapter does."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from conformance.sites.contract import ROUTES, SHOP, Route
from readonly.rules import Endpoint


def _compiled(route: Route, mount: str) -> tuple[re.Pattern[str], Route]:
    parts = re.split(r"\{(\w+)(:path)?\}", mount + route.path)
    # Three of each: text, a parameter's name, and whether it takes the rest.
    pattern = re.escape(parts[0])
    for number in range(1, len(parts), 3):
        pattern += ("[^/]+" if parts[number + 1] is None else ".*") + re.escape(parts[number + 2])
    return re.compile(pattern + r"\Z"), route


_TABLE = [_compiled(route, "") for route in ROUTES] + [_compiled(route, "/shop") for route in SHOP]


def _route(path: str) -> Route | None:
    return next((route for pattern, route in _TABLE if pattern.match(path)), None)


def find(method: str, path: str) -> str | int:
    """Return the name of the view for a request, or the status that says that there is none."""
    route = _route(path)
    if route is None:
        return 404
    return route.name if method in route.methods or (method == "HEAD" and "GET" in route.methods) else 405


def _endpoint(path: str) -> Endpoint | None:
    route = _route(path)
    if route is None:
        return None
    marks = {f"{mark}:{method}" for method, mark in route.marks} | ({route.mark} if route.mark else set())
    return Endpoint(route.name, frozenset(marks))


def endpoint_for(protocol: str) -> Callable[[Any], Endpoint | None]:
    """Return what tells the middleware of a protocol about a request's route."""

    class Routes:
        # Some views write on GET: every request has to be looked up.
        reads_matter = True

        def __call__(self, connection: Any) -> Endpoint | None:
            if protocol == "wsgi":
                return _endpoint(connection.get("PATH_INFO", ""))
            return _endpoint(connection["path"].removeprefix(connection.get("root_path", "")))

    return Routes()
