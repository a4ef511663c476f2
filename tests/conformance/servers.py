"""The servers that the suite is run under: how each is started, and what it can't do."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

from support.missing import ServerMissing
from support.ports import free_port
from support.processes import WebServer, control_socket_option

TESTS: Final = Path(__file__).parents[1]
ROOT: Final = TESTS.parent
SITE: Final = "conformance.sites.serve:application"
HOOKS: Final = TESTS / "conformance" / "sites" / "gunicorn_hooks.py"
# .ci/venv puts it there: later ones let threads run between requests, whatever they are told.
UWSGI_WITHOUT_THREADS: Final = ROOT / ".venv" / "uwsgi-without-threads"
# Longer than any cell takes: what ends a connection is what a scenario is about, and never its age.
KEPT_SECONDS: Final = "75"
_START_ATTEMPTS = 3

Interface = Literal["asgi", "wsgi"]


@dataclass(frozen=True)
class Server:
    """One way to serve.

    Attributes:
        name: As the table shows it.
        interface: What it speaks to the site.
        package: The distribution that it comes from.
        command: Returns its arguments for a port; 0 where it finds one itself.
        workers: How many processes serve, so many are members.
        finds_port: It finds a free port itself and says which; else it is told one.
        worker_line: What each worker prints when it has begun.
        can: What scenarios may need: `websockets`, `kept connections`.
        started: Something starts the switch with each worker: the lifespan, or a hook. Else the first request does.
        idle_threads: The switch's thread runs between requests.
        guarded: The process has something that refuses writes inside of requests. Else requests go a shorter way.
        module: What has to be importable; "" for the package's name.
        path: Looked at before the environment's own packages.
        last_python: The last Python, as in `(3, 12)`, that it was ever made for; None: all of them.
    """

    name: str
    interface: Interface
    package: str
    command: Callable[[int], list[str]]
    workers: int = 2
    finds_port: bool = False
    worker_line: str = ""
    can: frozenset[str] = frozenset()
    started: bool = True
    idle_threads: bool = True
    guarded: bool = True
    module: str = ""
    path: Path | None = None
    last_python: tuple[int, int] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def never_here(self) -> str:
        """Why nobody can run it with this Python, "" if somebody can."""
        if self.last_python is None or sys.version_info[:2] <= self.last_python:
            return ""
        return f"{self.package} of this kind was never made for a Python above {'.'.join(map(str, self.last_python))}"

    @property
    def version(self) -> str:
        """The version that is installed."""
        path = [str(self.path)] if self.path is not None else sys.path
        return next((found.version for found in metadata.distributions(name=self.package, path=path)), "?")

    def look_for(self) -> None:
        """Make sure that it can be had here.

        Raises:
            ServerMissing: It is not installed.
        """
        if self.path is not None:
            if not list(self.path.glob(f"{self.module or self.package}*")):
                raise ServerMissing(self.name, f"{self.path} (made by .ci/venv)")
        elif importlib.util.find_spec(self.module or self.package) is None:
            raise ServerMissing(self.name, f"the package {self.package}")

    def start(self, site: str, *, log: Path, environment: Mapping[str, str]) -> WebServer:
        """Start it with a site, and wait until it answers."""
        paths = [str(path) for path in (self.path, TESTS, ROOT, ROOT / "adapters") if path is not None]
        given = {
            **environment,
            **self.environment,
            "CONFORMANCE_SITE": site,
            "CONFORMANCE_GUARDED": "1" if self.guarded else "",
            "PYTHONPATH": ":".join(paths),
        }
        for attempt in range(1, _START_ATTEMPTS + 1):
            port = 0 if self.finds_port else free_port()
            try:
                return WebServer(
                    [sys.executable, *self.command(port)],
                    log=log,
                    port=port or None,
                    workers=self.workers,
                    worker_line=self.worker_line,
                    environment=given,
                    folder=TESTS,
                    ready_path="/healthz",
                )
            except RuntimeError:
                # Somebody else took the port between the moment it was found free and the server's.
                if self.finds_port or attempt == _START_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")


def _uvicorn(protocol: str) -> Callable[[int], list[str]]:
    return lambda port: [
        *("-m", "uvicorn", SITE, "--host", "127.0.0.1", "--port", str(port), "--workers", "2"),
        *("--http", protocol, "--timeout-keep-alive", KEPT_SECONDS, "--no-access-log"),
    ]


def _gunicorn(*options: str) -> Callable[[int], list[str]]:
    return lambda port: [
        *("-m", "gunicorn", SITE, "--bind", f"127.0.0.1:{port}", "--workers", "2", "--config", str(HOOKS)),
        *("--keep-alive", KEPT_SECONDS, *control_socket_option(), *options),
    ]


def _granian(interface: str) -> Callable[[int], list[str]]:
    return lambda port: [
        *("-m", "granian", "--interface", interface, "--host", "127.0.0.1", "--port", str(port), "--workers", "2"),
        *("--no-access-log", SITE),
    ]


def _uwsgi(*options: str) -> Callable[[int], list[str]]:
    return lambda port: [
        *("-c", "import sys, pyuwsgi; sys.exit(pyuwsgi.run())", "--http-socket", f"127.0.0.1:{port}"),
        *("--master", "--processes", "2", "--module", SITE, "--die-on-term", "--need-app", "--disable-logging"),
        # Else it closes connections with a body unread that the application has not asked for, which resets them.
        *("--post-buffering", "8192", *options),
    ]


_KEEPS: Final = frozenset({"kept connections"})
_SOCKETS: Final = frozenset({"websockets", "kept connections"})

ASGI: Final = (
    Server(
        "uvicorn h11",
        "asgi",
        "uvicorn",
        _uvicorn("h11"),
        finds_port=True,
        worker_line="Started server process [",
        can=_SOCKETS,
    ),
    Server(
        "uvicorn httptools",
        "asgi",
        "uvicorn",
        _uvicorn("httptools"),
        finds_port=True,
        worker_line="Started server process [",
        can=_SOCKETS,
        module="httptools",
    ),
    Server(
        "hypercorn",
        "asgi",
        "hypercorn",
        lambda port: [
            *("-m", "hypercorn", SITE, "--bind", f"127.0.0.1:{port}", "--workers", "2"),
            *("--keep-alive", KEPT_SECONDS),
        ],
        can=_SOCKETS,
    ),
    Server("granian", "asgi", "granian", _granian("asgi"), can=_SOCKETS),
    Server(
        "daphne",
        "asgi",
        "daphne",
        lambda port: ["-m", "daphne", "--bind", "127.0.0.1", "--port", str(port), "--verbosity", "1", SITE],
        workers=1,
        can=_SOCKETS,
        started=False,
        guarded=False,
    ),
)
_GUNICORN_LINE: Final = "Booting worker with pid: "
WSGI: Final = (
    *(
        Server(
            f"gunicorn {kind}{', preloaded' if preload else ''}",
            "wsgi",
            "gunicorn",
            _gunicorn(*options, *(["--preload"] if preload else [])),
            finds_port=True,
            worker_line=_GUNICORN_LINE,
            module=module,
            can=_KEEPS if kind != "sync" else frozenset(),
            guarded=not preload,
        )
        for kind, module, options in (
            ("sync", "gunicorn", ()),
            ("gthread", "gunicorn", ("--threads", "4")),
            ("gevent", "gevent", ("--worker-class", "gevent")),
        )
        for preload in (False, True)
    ),
    Server("uWSGI", "wsgi", "pyuwsgi", _uwsgi()),
    Server("uWSGI --threads", "wsgi", "pyuwsgi", _uwsgi("--threads", "4"), guarded=False),
    Server(
        "uWSGI without threads",
        "wsgi",
        "pyuwsgi",
        _uwsgi(),
        idle_threads=False,
        path=UWSGI_WITHOUT_THREADS,
        last_python=(3, 12),
    ),
    Server("granian (WSGI)", "wsgi", "granian", _granian("wsgi"), can=_KEEPS, started=False),
    Server(
        "waitress",
        "wsgi",
        "waitress",
        lambda port: ["-m", "waitress", "--listen", f"127.0.0.1:{port}", SITE],
        workers=1,
        can=_KEEPS,
        started=False,
    ),
)
SERVERS: Final = {server.name: server for server in (*ASGI, *WSGI)}
# The site of each framework, by the interface that it has.
SITES: Final[Mapping[Interface, tuple[str, ...]]] = {
    "asgi": ("asgi", "starlette", "fastapi", "django_asgi"),
    "wsgi": ("wsgi", "flask", "django"),
}
# What `make test` runs: every server, and every framework under a server that can do all that scenarios need, as far as
# there is one. The store is Redis but where it says otherwise.
COVER: Final[tuple[tuple[str, str, str], ...]] = (
    ("uvicorn h11", "starlette", "redis"),
    ("uvicorn httptools", "django_asgi", "redis"),
    ("hypercorn", "asgi", "redis"),
    ("granian", "fastapi", "redis"),
    ("daphne", "asgi", "sqlite"),
    ("gunicorn sync", "flask", "redis"),
    ("gunicorn sync, preloaded", "wsgi", "sqlite"),
    ("gunicorn gthread", "django", "redis"),
    ("gunicorn gthread, preloaded", "flask", "redis"),
    ("gunicorn gevent", "wsgi", "redis"),
    ("gunicorn gevent, preloaded", "django", "redis"),
    ("uWSGI", "wsgi", "redis"),
    ("uWSGI --threads", "flask", "redis"),
    ("uWSGI without threads", "wsgi", "redis"),
    ("granian (WSGI)", "flask", "redis"),
    ("waitress", "django", "redis"),
)
