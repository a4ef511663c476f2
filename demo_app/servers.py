"""The web servers that the site runs on: several worker processes behind one socket that is open before they are."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_MEMORY: Final = "/dev/shm"  # noqa: S108  where gunicorn's documentation advises that workers show they are alive

HOLD_SECONDS: Final = 30
"""How long a worker that is to end may take over what it has begun."""

BACKLOG: Final = 2048

THREADS: Final = 16
"""Of each WSGI worker. A slow phone holds one for as long as its upload takes."""


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that takes connections; they wait for the first worker."""
    # With its protocol named: asyncio sends answers without delay only where a socket says that it is TCP.
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((host, port))
    opened.listen(BACKLOG)
    opened.set_inheritable(True)
    return opened


def serve_asgi(app: str, listener: socket.socket, *, workers: int, quiet: bool) -> None:
    """Serve an ASGI application by uvicorn, until stopped.

    Args:
        app: Its factory, `module:name`.
        listener: Where.
        workers: How many processes.
        quiet: Say nothing but warnings.
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    config = uvicorn.Config(
        app,
        factory=True,
        workers=workers,
        log_level="warning" if quiet else "info",
        access_log=False,
    )
    Multiprocess(config, sockets=[listener]).run()


def serve_wsgi(app: str, listener: socket.socket, *, workers: int, quiet: bool) -> None:
    """Serve a WSGI application by gunicorn with threads, until stopped; the arguments are those of `serve_asgi`.

    Each worker calls the factory itself, after the fork: what it starts is its own.
    """
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        """The factory, and the settings that a command line would give."""

        def load_config(self) -> None:
            settings: dict[str, Any] = {
                "bind": f"fd://{listener.fileno()}",
                "workers": workers,
                "worker_class": "gthread",
                "threads": THREADS,
                "keepalive": 5,
                "graceful_timeout": HOLD_SECONDS,
                "loglevel": "warning" if quiet else "info",
                "worker_tmp_dir": _MEMORY if Path(_MEMORY).is_dir() else None,
                "control_socket_disable": True,
            }
            for name, value in settings.items():
                if name in self.cfg.settings:
                    self.cfg.set(name, value)

        def load(self) -> Any:
            module, _, name = app.partition(":")
            factory: Callable[[], Any] = getattr(importlib.import_module(module), name)
            return factory()

    Application().run()
