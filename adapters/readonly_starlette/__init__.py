"""Read-only mode for Starlette and FastAPI: the core's ASGI middleware, told what Starlette's router knows.

It speaks the framework and has no rule of its own. `Middleware(ReadOnlyMiddleware, switch=switch, policy=policy)` puts
it first in the list; around the whole application, `ReadOnlyMiddleware(app, switch, policy=policy)`, it works as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Scope

from readonly import Policy, Switch
from readonly import asgi as core
from readonly.asgi import status_app
from readonly.pages import Page
from readonly.rules import Endpoint, marks_of

__all__ = ["ReadOnlyMiddleware", "status_app", "template_context", "writing"]

# Mounts in mounts: deeper than this is a loop.
_DEPTH = 16


def ReadOnlyMiddleware(  # noqa: N802 - typed like the class that Starlette expects
    app: ASGIApp, switch: Switch, *, policy: Policy | None = None, page: Page | None = None
) -> ASGIApp:
    """Wrap an application, a whole Starlette or FastAPI or what its middleware list hands over.

    Args:
        app: The application.
        switch: The process's switch.
        policy: What counts as a write; rules may name routes (`POST name:add_comment`), and `@reads` and `@writes`
            on endpoints are honoured.
        page: Renders the page that visitors see instead of the built-in one.
    """

    def endpoint(scope: Mapping[str, Any]) -> Endpoint | None:
        return endpoint_of(scope, scope.get("app") or app)

    wrapped: ASGIApp = core.ReadOnlyMiddleware(
        app, switch, policy=policy if policy is not None else Policy(), page=page, endpoint=endpoint
    )
    return wrapped


def endpoint_of(scope: Mapping[str, Any], app: Any) -> Endpoint | None:
    """Return what Starlette's router would choose for a request: its route's name, mounts included, and its marks.

    Args:
        scope: The connection's scope; it is not changed.
        app: A Starlette application, or anything with `routes`.

    Returns:
        None if no route takes the path, or the application is not Starlette's.
    """
    inner: Scope = dict(scope)
    names: list[str] = []
    for _ in range(_DEPTH):
        routes = getattr(app, "routes", None)
        if not routes:
            return Endpoint(":".join(names)) if names else None
        found = _choose(routes, inner)
        if found is None:
            return Endpoint(":".join(names)) if names else None
        route, child = found
        if getattr(route, "name", None):
            names.append(route.name)  # type: ignore[attr-defined]  # every route of Starlette's has one but the base
        if isinstance(route, Mount):
            inner.update(child)
            app = route.app
            # A mounted application may be wrapped in middleware of its own; its routes are the mount's then.
            if not getattr(app, "routes", None) and route.routes:
                app = route
            continue
        return Endpoint(":".join(names), marks_of(child.get("endpoint", getattr(route, "endpoint", None))))
    return None


def _choose(routes: Any, scope: Scope) -> tuple[BaseRoute, Scope] | None:
    partial: tuple[BaseRoute, Scope] | None = None
    for route in routes:
        match, child = route.matches(scope)
        if match is Match.FULL:
            return route, child
        if match is Match.PARTIAL and partial is None:
            # The path fits and the method does not: Starlette hands it to this route, which answers 405.
            partial = route, child
    return partial


def template_context(switch: Switch) -> Callable[[HTTPConnection], dict[str, Any]]:
    """Return a context processor for `Jinja2Templates(context_processors=[...])`.

    Templates see `readonly`: with `read_only`, `message`, `since`, `expected_end` (instants in UTC, or None). It holds
    nothing that visitors may not see.
    """

    def context(_request: HTTPConnection) -> dict[str, Any]:
        state = switch.state
        return {
            "readonly": {
                "read_only": state.read_only,
                "message": state.message,
                "since": state.since,
                "expected_end": state.expected_end,
            }
        }

    return context


def writing(switch: Switch, wait: float = 0.0) -> Callable[[], AsyncIterator[None]]:
    """Return a FastAPI dependency that counts what depends on it as a write: `Depends(writing(switch))`.

    Args:
        switch: The process's switch.
        wait: Seconds to wait for the site to be writable before the 503.
    """

    async def dependency() -> AsyncIterator[None]:
        async with switch.writing(wait=wait):
            yield

    return dependency
