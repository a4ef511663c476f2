"""What Starlette's router, or FastAPI's, would choose for a request: the route's name, and its endpoint's marks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from starlette.routing import BaseRoute, Host, Match, Mount
from starlette.types import Scope

from readonly.errors import ConfigurationError
from readonly.marks import marks_of
from readonly.rules import Endpoint, rule

logger = logging.getLogger("readonly")

# Mounts in mounts, or middleware around middleware: deeper than this is a loop.
_DEPTH = 64


def endpoint_of(scope: Mapping[str, Any], app: Any) -> Endpoint | None:
    """Return what the router would choose for a request: its route's name, mounts and hosts included, and its marks.

    Args:
        scope: The connection's scope; it is not changed.
        app: A Starlette application, or anything that leads to `routes`.

    Returns:
        None if no route takes the path, or the application is not Starlette's.
    """
    inner: Scope = dict(scope)
    names: list[str] = []
    outer = False
    for _ in range(_DEPTH):
        found = _choose(routes_of(app) or (), inner)
        if found is None:
            return Endpoint(":".join(names)) if names else None
        route, child = found
        if getattr(route, "name", None):
            names.append(route.name)
        if not isinstance(getattr(route, "original_route", route), (Mount, Host)):
            view = child.get("endpoint", getattr(route, "endpoint", None))
            # An ASGI application in place of a view is handed whatever comes.
            takes_all = getattr(route, "methods", ()) is None and not isinstance(view, type)
            path = _spelled(getattr(route, "path", ""), getattr(route, "param_convertors", {})) if not outer else ""
            return Endpoint(":".join(names), marks_of(view), takes_preflights=takes_all, path=path)
        inner.update(child)
        outer = True  # a mount's path may be the middleware's own
        app = route.app
        # What is mounted may hide behind middleware that does not tell what is inside; the route itself may know.
        if routes_of(app) is None:
            app = route
    return None


def _spelled(path: str, convertors: Mapping[str, Any]) -> str:
    """Return a route's path as a rule spells it, or "" where none can: a parameter in the midst of a segment."""
    segments = []
    for segment in path.strip("/").split("/"):
        name = segment[1:-1].partition(":")[0] if segment[:1] == "{" and segment[-1:] == "}" else ""
        if getattr(convertors.get(name), "regex", "") == ".*":
            return ""  # of one that takes slashes, nobody knows how many
        segments.append("{" + name + "}" if name else segment)
    found = "/" + "/".join(segments)
    try:
        return str(rule(found))
    except ConfigurationError:
        return ""


def routes_of(app: Any) -> Sequence[BaseRoute] | None:
    """Return the routes of an application, looked for inside the middleware around it; None if it tells of none."""
    for _ in range(_DEPTH):
        routes: Sequence[BaseRoute] | None = getattr(app, "routes", None)
        if routes is not None:
            return routes
        app = getattr(app, "app", None)
        if app is None:
            break
    return None


def unfolded(routes: Iterable[BaseRoute]) -> Iterator[Any]:
    """Yield the routes one by one; FastAPI keeps an included router whole, and tells by itself what its routes become.

    What it yields for those has all that a route has, and `original_route`.
    """
    for route in routes:
        if hasattr(route, "effective_route_contexts"):
            from fastapi.routing import iter_route_contexts

            yield from iter_route_contexts([route])
        else:
            yield route


def _choose(routes: Iterable[BaseRoute], scope: Scope) -> tuple[Any, Scope] | None:
    partial: tuple[Any, Scope] | None = None
    for whole in routes:
        for route in unfolded([whole]):
            match, child = route.matches(scope)
            if match is Match.FULL:
                return route, child
            if match is Match.PARTIAL and partial is None:
                # The path fits and the method does not: Starlette hands it to this route, which answers 405.
                partial = route, child
    return partial


class Router:
    """Finds the endpoints of one application, whatever is around it.

    Args:
        app: What the middleware wraps: an application, or what Starlette's list of middleware hands over.
    """

    tells_of_decorators_alone = True

    def __init__(self, app: Any) -> None:
        self._app = app
        self._known = routes_of(app) is not None
        self._middleware: object = None
        self._warned = False

    def behind(self, middleware: object) -> None:
        """Say which middleware asks, so that the application whose list it stands in can be told from others."""
        self._middleware = middleware

    def __call__(self, scope: Mapping[str, Any]) -> Endpoint | None:
        """Return what the router would choose for a request."""
        if self._known:
            return endpoint_of(scope, self._app)
        # Middleware that is a plain function does not tell what is inside. The scope names an application; but inside
        # a mount that may be the one outside, whose routes are not those below us.
        named = scope.get("app")
        if named is not None and self._stands_in(named):
            return endpoint_of(scope, named)
        if not self._warned:
            self._warned = True
            logger.warning(
                "readonly: %r tells of no routes, so that @reads, @writes and names of routes mean nothing below it: "
                "put ReadOnlyMiddleware into the application's own list, first",
                self._app,
            )
        return None

    def _stands_in(self, named: Any) -> bool:
        layer = getattr(named, "middleware_stack", None)
        for _ in range(_DEPTH):
            if layer is None or layer is self._middleware:
                break
            layer = getattr(layer, "app", None)
        return layer is not None
