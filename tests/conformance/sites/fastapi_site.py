"""The contract in FastAPI: the same views, registered its way, with routers included and an application mounted."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from conformance.sites.contract import OTHER_KIND, ROUTES, SHOP, Route, prefixed_asgi
from conformance.sites.starlette_site import (
    MARKS,
    MIDDLEWARE,
    OWN,
    SOCKETS,
    answered,
    answered_at_once,
    switch,
    view,
)

__all__ = ["application", "switch"]


def function(route: Route) -> Any:
    """Return a view of a route that FastAPI can look into."""

    async def endpoint(request: Request) -> Response:
        return await answered(route.name, request)

    def at_once(request: Request) -> Response:
        return answered_at_once(route.name, request)

    return MARKS.get(route.mark, lambda same: same)(at_once if route.name in OTHER_KIND else endpoint)


def add(router: Any, table: tuple[Route, ...]) -> None:
    """Register a table of the contract's; a class is a route of Starlette's, which FastAPI takes as well."""
    for route in table:
        if route.own_class:
            router.router.add_route(route.path, view(route), name=route.name)
        else:
            router.add_api_route(route.path, function(route), methods=list(route.methods), name=route.name)


site = FastAPI(middleware=MIDDLEWARE, openapi_url=None)
add(site, tuple(route for route in ROUTES if not route.path.startswith("/oauth")))
oauth = APIRouter(prefix="/oauth")
for one in ROUTES:
    if one.path.startswith("/oauth"):
        oauth.add_api_route(one.path.removeprefix("/oauth"), function(one), methods=list(one.methods), name=one.name)
site.include_router(oauth)
site.router.routes.extend([*SOCKETS, OWN])
shop = FastAPI(openapi_url=None)
add(shop, SHOP)
site.mount("/shop", shop, name="shop")
application = prefixed_asgi(site)
