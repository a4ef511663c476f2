"""Django as an ASGI application that is a member of the site from the server's start until its end.

Django itself knows nothing of lifespans. In a project's `asgi.py`:

    from readonly_django.asgi import get_asgi_application

    application = get_asgi_application()
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from django.core.asgi import get_asgi_application as django_application

from readonly.asgi import ASGIApp, Receive, Scope, Send, watched
from readonly.doubts import PAST
from readonly.switch import Switch
from readonly.tally import route_group

from . import conf


def get_asgi_application() -> ASGIApp:
    """Return Django's application, which starts the switch with the server, so that an idle worker is a member too."""
    return with_lifespan(django_application())


def with_lifespan(application: Any, switch: Switch | None = None) -> ASGIApp:
    """Return an application that answers the server's lifespan itself, and hands on all else.

    Args:
        application: Any that does not want to know of lifespans; Django's, or a Channels router.
        switch: The process's switch; None: the project's.
    """

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await application(scope, receive, send)
            return
        found = switch or conf.current_switch()
        if scope["type"] != "lifespan":
            if scope["type"] == "websocket":
                scope, send = watched(scope, send, partial(_past, found, scope["path"]))
            await application(scope, receive, send)
            return
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await asyncio.get_running_loop().run_in_executor(None, found.start)
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                # Not awaited: a server may end its process as soon as it was told, and the goodbye with it.
                found.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    return wrapped


def _past(switch: Switch, path: str) -> None:
    # What Channels' router has was found by its consumers' names, most often before anybody came.
    if not switch.doubts.knows(PAST):
        switch.doubts.add(PAST, f"what accepts {route_group(path)}")
