"""The readiness and status routes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..handling import Status
from ..switch import Switch
from ._requests import Environ
from ._responses import status_line

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication


def status_app(switch: Switch) -> WSGIApplication:
    """Return an application with the routes `/-/readonly/ready` and `/-/readonly/status`, to be mounted.

    A process that never reached the store is not ready for its first 30 s, then ready as a reader; read-only itself
    never fails a probe. Answers are small JSON objects that no cache keeps, and say nothing that is not public.
    """
    status = Status(switch)

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        found = status.document(environ.get("PATH_INFO", ""), switch.look())
        code, document = found or (404, {"error": "not found"})
        headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        if found is not None and method not in ("GET", "HEAD"):
            code, document = 405, {"error": "method not allowed"}
            headers.append(("Allow", "GET, HEAD"))
        body = json.dumps(document).encode()
        headers.append(("Content-Length", str(len(body))))
        start_response(status_line(code), headers)
        return [b"" if method == "HEAD" else body]

    return application
