"""The contract in Starlette."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, WebSocketRoute
from starlette.routing import Route as StarletteRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from conformance.sites.contract import (
    BODIES,
    FORMS,
    OTHER_KIND,
    OWN_PREFIX,
    ROUTES,
    SECRET,
    SHOP,
    Answer,
    Route,
    Seen,
    act,
    bearer,
    begun,
    cors_asgi,
    make_switch,
    policy,
    prefixed_asgi,
    remembered,
    remembering,
)
from readonly import reads, writes
from readonly.asgi import status_app
from readonly_starlette import ReadOnlyMiddleware

switch = make_switch()
MARKS: dict[str, Any] = {"reads": reads, "writes": writes}


def _seen(request: Request) -> Seen:
    user = request.session.get("user") or remembered(request.cookies.get("remember", ""))
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    user = user or bearer(request.headers.get("authorization"))
    return Seen(request.method, path, user, request.url.query, cookies=list(request.cookies))


async def answered(name: str, request: Request) -> Response:
    """Answer one request as the contract says."""
    seen = _seen(request)
    if name in FORMS and request.method == "POST":
        seen.form = {key: str(value) for key, value in (await request.form()).items()}
    elif name in BODIES:
        begun(seen)
        async for part in request.stream():
            seen.received += len(part)
    if name == "slow":
        answer = await asyncio.to_thread(act, name, seen, switch)
    else:
        answer = act(name, seen, switch)
    return _response(request, answer)


def answered_at_once(name: str, request: Request) -> Response:
    """Do the same for a view that is no coroutine, in one of Starlette's threads."""
    return _response(request, act(name, _seen(request), switch))


def _response(request: Request, answer: Answer) -> Response:
    if answer.signs_in:
        request.session["user"] = answer.signs_in
    elif answer.signs_out:
        request.session.clear()
    elif answer.touches:
        request.session["seen"] = True
    response = (
        StreamingResponse(answer.parts(), answer.status)
        if answer.parts is not None
        else Response(answer.body, answer.status)
    )
    for name, value in answer.headers:
        response.headers.append(name, value)
    if answer.remembers:
        response.headers.append("Set-Cookie", remembering(answer.signs_in))
    return response


def view(route: Route) -> Any:
    """Return the view of a route: a function, or a class where methods have marks of their own."""

    async def endpoint(request: Request) -> Response:
        return await answered(route.name, request)

    if route.name in OTHER_KIND:
        return lambda request: answered_at_once(route.name, request)
    if not route.own_class:
        return MARKS.get(route.mark, lambda same: same)(endpoint)
    methods: dict[str, Any] = {}
    for method in route.methods:

        async def handler(self: Any, request: Request) -> Response:
            return await answered(route.name, request)

        mark = dict(route.marks).get(method)
        methods[method.lower()] = MARKS[mark](handler) if mark else handler
    return type(route.name.title(), (HTTPEndpoint,), methods)


async def talk(websocket: WebSocket) -> None:
    """Say everything that is heard once more, in capitals."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text((await websocket.receive_text()).upper())
    except WebSocketDisconnect:
        return


def routes(table: tuple[Route, ...]) -> list[BaseRoute]:
    """Return Starlette's routes for a table of the contract's."""
    return [
        StarletteRoute(
            route.path, view(route), name=route.name, methods=None if route.own_class else list(route.methods)
        )
        for route in table
    ]


SOCKETS: list[BaseRoute] = [WebSocketRoute("/chat", talk), WebSocketRoute("/live", talk)]
OWN = Mount(OWN_PREFIX, app=status_app(switch))
MIDDLEWARE = [
    Middleware(ReadOnlyMiddleware, switch=switch, policy=policy()),
    Middleware(cors_asgi),
    Middleware(SessionMiddleware, secret_key=SECRET),
]
site = Starlette(
    routes=[*routes(ROUTES), *SOCKETS, OWN, Mount("/shop", routes=routes(SHOP), name="shop")], middleware=MIDDLEWARE
)
application = prefixed_asgi(site)
