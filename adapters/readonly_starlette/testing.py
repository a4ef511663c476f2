"""What `readonly.testing.walk` needs to know of a Starlette or FastAPI application: its routes, and who asks them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from starlette.convertors import PathConvertor
from starlette.endpoints import HTTPEndpoint
from starlette.routing import BaseRoute, Host, Mount, WebSocketRoute

from readonly.marks import marks_of
from readonly.testing import Answer, Request, Route, Visitor

from .routing import unfolded

if TYPE_CHECKING:
    from starlette.testclient import TestClient

_HANDLERS = ("get", "head", "post", "put", "patch", "delete", "options")


def routes(app: Any) -> Iterator[Route]:
    """Yield every HTTP route of an application, mounts included.

    What is mounted and tells of no routes (static files, another framework) is one route with a `path` to give examples
    of. WebSocket routes are left out: undeclared ones are refused before they are accepted.

    Args:
        app: The application itself, not what is wrapped around it.
    """
    yield from _routes(app.routes, "", ())


def _routes(found: Iterable[BaseRoute], prefix: str, names: tuple[str, ...]) -> Iterator[Route]:
    for route in unfolded(found):
        if isinstance(route, (Mount, Host)):
            here = (*names, route.name) if route.name else names
            below = prefix
            if isinstance(route, Mount):
                # A mount's own format ends with what is left for the application below it.
                below += _template(route).removesuffix("/{path:path}")
            inner = getattr(route.app, "routes", None) or route.routes
            if inner:
                yield from _routes(inner, below, here)
            else:
                yield Route(("GET",), f"{below}/{{path:path}}", ":".join(here))
        elif not isinstance(getattr(route, "original_route", route), WebSocketRoute):
            # Anything with a path and an endpoint: Starlette's routes, FastAPI's, and those of an included router.
            name = ":".join((*names, route.name))
            yield Route(_methods(route), prefix + _template(route), name, marks_of(route.endpoint))


def _methods(route: Any) -> tuple[str, ...]:
    methods = set(route.methods or ())
    if not methods and isinstance(route.endpoint, type) and issubclass(route.endpoint, HTTPEndpoint):
        methods = {name.upper() for name in _HANDLERS if hasattr(route.endpoint, name)}
    if "GET" in methods:
        methods.discard("HEAD")
    return tuple(sorted(methods or {"GET"}))


def _template(route: Any) -> str:
    path: str = route.path_format
    for name, convertor in route.param_convertors.items():
        if isinstance(convertor, PathConvertor):
            path = path.replace(f"{{{name}}}", f"{{{name}:path}}")
    return path


def visitor(client: TestClient) -> Visitor:
    """Return the visitor that a test client is now, with the cookies that it has now.

    Args:
        client: Entered already, if the application has a lifespan.
    """
    cookies = list(client.cookies.jar)

    def send(request: Request) -> Answer:
        client.cookies.jar.clear()
        for cookie in cookies:
            client.cookies.jar.set_cookie(cookie)
        try:
            found = client.request(
                request.method,
                request.path,
                headers=dict(request.headers),
                content=request.body,
                follow_redirects=False,
            )
        except Exception as error:
            # A test client raises what the application let out; a server would have answered 500.
            return Answer(500, {}, f"{type(error).__name__}: {error}")
        return Answer(found.status_code, {name.lower(): value for name, value in found.headers.items()})

    return send
