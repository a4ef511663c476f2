"""A tiny ASGI site that is served by real servers: POST writes, slowly if it is told to; GET reads; /chat talks."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from readonly import Policy, Switch
from readonly.asgi import ReadOnlyMiddleware, Receive, Scope, Send

switch = Switch.from_url(os.environ["READONLY_STORE"], interval=0.2)
FOLDER = Path(os.environ["SERVED_FOLDER"])


async def site(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the process id."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})
        (FOLDER / "left").touch()
        return
    status = 200
    if scope["method"] == "POST":
        status = 201
        while (await receive()).get("more_body", False):
            pass
        if scope["path"] == "/slow":
            (FOLDER / "begun").touch()
            while not (FOLDER / "go").exists():
                await asyncio.sleep(0.01)  # a file is all that the test shares with a server's worker
            (FOLDER / "committed").touch()
    body = str(os.getpid()).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


app = ReadOnlyMiddleware(site, switch, policy=Policy(reads=["POST /search", "WEBSOCKET /live"]))
