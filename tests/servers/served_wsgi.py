"""The same tiny site in WSGI."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from readonly import Policy, Switch
from readonly.wsgi import ReadOnlyMiddleware

switch = Switch.from_url(os.environ["READONLY_STORE"], interval=0.2)
FOLDER = Path(os.environ["SERVED_FOLDER"])


def site(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer with the process id; a slow write goes on while its response is sent."""
    status, slow = "200 OK", False
    if environ["REQUEST_METHOD"] == "POST":
        status, slow = "201 Created", environ["PATH_INFO"] == "/slow"
        environ["wsgi.input"].read()
    body = str(os.getpid()).encode()
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return _slowly(body) if slow else [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


def _slowly(body: bytes) -> Iterable[bytes]:
    (FOLDER / "begun").touch()
    while not (FOLDER / "go").exists():
        time.sleep(0.01)  # a file is all that the test shares with a server's worker
    (FOLDER / "committed").touch()
    yield body


app = ReadOnlyMiddleware(site, switch, policy=Policy(reads=["POST /search"]))
