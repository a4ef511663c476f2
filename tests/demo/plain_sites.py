"""Serves every dress of the site without `readonly`, all from one process: what a measurement is compared with.

`python plain_sites.py FOLDER FRAMEWORK=SERVER_URL …` prints one address a line, and serves until it is ended.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from werkzeug.serving import make_server

from demo_app.serve import secret_in
from demo_app.servers import listening
from demo_app.settings import Settings


def main(folder: Path, *sites: str) -> None:
    """Serve."""
    threads = []
    for site in sites:
        framework, _, server = site.partition("=")
        settings = Settings.in_folder(folder, secret=secret_in(folder), server=server)
        listener = listening("127.0.0.1", 0)
        print(framework, f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        if framework == "starlette":
            from demo_app.on_starlette.app import plain_app

            asgi = uvicorn.Server(uvicorn.Config(plain_app(settings), log_level="warning", access_log=False))
            threads.append(threading.Thread(target=asgi.run, args=([listener],)))
        else:
            wsgi = make_server("127.0.0.1", 0, application(framework, settings), threaded=True, fd=listener.fileno())
            threads.append(threading.Thread(target=wsgi.serve_forever))
    for thread in threads:
        thread.start()


def application(framework: str, settings: Settings) -> Any:
    """Return a WSGI dress."""
    if framework == "flask":
        from demo_app.on_flask.app import plain_app

        return plain_app(settings)
    os.environ.update(settings.as_env())
    from demo_app.on_django.app import plain

    return plain()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
