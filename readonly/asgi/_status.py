"""The library's own routes, as an application."""

from __future__ import annotations

from pathlib import Path

from ..own_routes import OwnRoutes
from ..switch import Switch
from ..words import Languages, languages_of
from ._requests import Headers, facts_of
from ._responses import raw
from ._types import ASGIApp, Receive, Scope, Send


def status_app(switch: Switch, *, words: str | Path | Languages | None = None) -> ASGIApp:
    """Return an application with the routes below `/-/readonly`, to be mounted there.

    They are `ready`, `live`, `status`, `bypass/…` and `script-….js`.

    A process that never reached the store is not ready for its first 30 s, then ready as a reader; read-only itself
    never fails a probe. Answers are small, no cache keeps them, and they say nothing that is not public.

    Args:
        switch: The process's switch.
        words: As the middleware's, for what the script says.
    """
    routes = OwnRoutes(switch, languages_of(words))

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"readonly.asgi.status_app answers http requests, not {scope['type']}")
        headers = Headers(scope["headers"])
        facts = facts_of(scope, None, headers)
        answer = await routes.aanswer(facts, cookies=tuple(headers.all(b"cookie")), mount=scope.get("root_path", ""))
        await send({"type": "http.response.start", "status": answer.status, "headers": raw(answer.headers)})
        await send({"type": "http.response.body", "body": answer.body})

    return application
