"""The dresses of the site: one story, one set of templates and one load, and a framework each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import create_engine, inspect

from demo_app.servers import serve_asgi, serve_wsgi
from demo_app.settings import Settings

PROJECT: Final = Path(__file__).resolve().parent.parent


def _nothing(_settings: Settings) -> None:
    """The tables that every dress shares are enough."""


def _migrate(settings: Settings) -> None:
    """Make the tables of Django's own applications, unless they are there: while read-only nobody migrates."""
    engine = create_engine(settings.server_url("psycopg") or f"sqlite:///{settings.database}")
    # The last one that the migrations make.
    there = inspect(engine).has_table("django_session")
    engine.dispose()
    if there:
        return
    # Django's settings are read once in a process, and are this one's own affair. Nobody reads or writes a site that is
    # only being made: the switch has no say in that.
    subprocess.run(
        [sys.executable, "-m", "demo_app.on_django", "migrate", "--verbosity", "0"],
        env={**os.environ, **settings.as_env(), "READONLY_DISABLED": "1"},
        cwd=PROJECT,
        check=True,
    )


@dataclass(frozen=True, slots=True)
class Dress:
    """One framework's version of the site.

    Attributes:
        name: The framework's.
        app: Its factory, `module:name`.
        plain: The factory of the same site without `readonly`.
        serve: Serves a factory until stopped.
        prepare: Makes what this framework has beside the shared tables.
        command: How the interpreter is called for the framework's own command group, if it has one.
    """

    name: str
    app: str
    plain: str
    serve: Callable[..., None]
    prepare: Callable[[Settings], None] = _nothing
    command: str = ""


DRESSES: Final[Mapping[str, Dress]] = {
    dress.name: dress
    for dress in (
        Dress("starlette", "demo_app.on_starlette.app:app", "demo_app.on_starlette.app:plain", serve_asgi),
        Dress(
            "flask",
            "demo_app.on_flask.app:served",
            "demo_app.on_flask.app:plain",
            serve_wsgi,
            command="-m flask --app demo_app.on_flask.app:app readonly",
        ),
        Dress(
            "django",
            "demo_app.on_django.app:app",
            "demo_app.on_django.app:plain",
            serve_wsgi,
            prepare=_migrate,
            command="-m demo_app.on_django readonly",
        ),
    )
}


def dress_named(name: str) -> Dress:
    """Return the dress of a framework.

    Raises:
        SystemExit: There is none; `make serve FRAMEWORK=…` may say anything.
    """
    if name not in DRESSES:
        raise SystemExit(f"FRAMEWORK={name!r} is not there: use {', '.join(DRESSES)}.")
    return DRESSES[name]
