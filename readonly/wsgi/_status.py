"""The library's own routes, as an application."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..own_routes import OwnRoutes
from ..switch import Switch
from ..words import Languages, languages_of
from ._requests import Environ, facts_of
from ._responses import respond

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication


def status_app(switch: Switch, *, words: str | Path | Languages | None = None) -> WSGIApplication:
    """Return an application with the routes below `/-/readonly`, to be mounted there.

    They are `ready`, `live`, `status`, `bypass/…` and `script-….js`.

    A process that never reached the store is not ready for its first 30 s, then ready as a reader; read-only itself
    never fails a probe. Answers are small, no cache keeps them, and they say nothing that is not public.

    Args:
        switch: The process's switch.
        words: As the middleware's, for what the script says.
    """
    routes = OwnRoutes(switch, languages_of(words))

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        cookie: str = environ.get("HTTP_COOKIE", "")
        answer = routes.answer(
            facts_of(environ), cookies=(cookie,) if cookie else (), mount=environ.get("SCRIPT_NAME", "")
        )
        return respond(start_response, answer)

    return application
