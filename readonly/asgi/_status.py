"""The readiness and status routes."""

from __future__ import annotations

import json

from ..handling import Status
from ..switch import Switch
from ._requests import below
from ._types import ASGIApp, RawHeaders, Receive, Scope, Send


def status_app(switch: Switch) -> ASGIApp:
    """Return an application with the routes `/-/readonly/ready` and `/-/readonly/status`, to be mounted.

    A process that never reached the store is not ready for its first 30 s, then ready as a reader; read-only itself
    never fails a probe. Answers are small JSON objects that no cache keeps, and say nothing that is not public.
    """
    status = Status(switch)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"readonly.asgi.status_app answers http requests, not {scope['type']}")
        method = scope["method"]
        found = status.document(below(scope["path"], scope.get("root_path", "")), await switch.alook())
        code, document = found or (404, {"error": "not found"})
        if found is not None and method not in ("GET", "HEAD"):
            code, document = 405, {"error": "method not allowed"}
        body = json.dumps(document).encode()
        headers: RawHeaders = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        if code == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": code, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})

    return application
