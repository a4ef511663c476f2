"""`python inside.py FRAMEWORK FOLDER`: one dress of the site, with its files, in this process; prints a JSON object.

`routes` are those that the kit for sites' own tests sees. `pages from` says which file pages are read from: a copy is
taken while the site is read-only, and then the primary is changed behind its back, as a migration does; first while it
is read-only, then after `off`.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from demo_app.data import prepare, refresh_replica
from demo_app.dresses import DRESSES
from demo_app.serve import settings_in
from demo_app.settings import Settings
from readonly import Switch
from readonly.testing import Route
from support.waiting import eventually

PAGE = "/articles/kilmarsh-ground-for-sale"


def opened(framework: str, settings: Settings) -> tuple[Switch, Iterator[Route], Callable[[], str]]:
    """Return a dress's switch, its routes, and what fetches the page."""
    if framework == "django":
        from demo_app.on_django.app import app

        app()
        from django.test import Client

        from readonly_django.conf import switch
        from readonly_django.testing import routes

        client = Client()
        return switch, routes(), lambda: client.get(PAGE).content.decode()
    mine = Switch.from_url(settings.store)
    if framework == "flask":
        from demo_app.on_flask.app import create_app
        from readonly_flask.testing import routes as flask_routes

        flask_app = create_app(settings, switch=mine)
        flask_client = flask_app.test_client()
        return mine, flask_routes(flask_app), lambda: flask_client.get(PAGE).text
    from starlette.testclient import TestClient

    from demo_app.on_starlette.app import create_app as starlette_app
    from readonly_starlette.testing import routes as starlette_routes

    site = starlette_app(settings, switch=mine)
    entered = TestClient(site).__enter__()
    return mine, starlette_routes(site), lambda: str(entered.get(PAGE).text)


def main(framework: str, folder: Path) -> None:
    """Look."""
    settings = replace(settings_in(folder), store="memory://?site=touchline")
    os.environ.update(settings.as_env())
    prepare(settings)
    DRESSES[framework].prepare(settings)
    switch, routes, page = opened(framework, settings)

    def read_from() -> str:
        return "primary" if "Migrated" in page() else "copy"

    state = switch.on()
    switch.confirm(state.epoch, timeout=60).require_safe()
    refresh_replica(settings, epoch=state.epoch)
    with closing(sqlite3.connect(settings.database)) as connection, connection:
        connection.execute("UPDATE article SET title = 'Migrated' WHERE slug = 'kilmarsh-ground-for-sale'")
    # A probe finds the copy, not the request: until then the primary answers.
    eventually(lambda: read_from() == "copy", what="reading from the copy")
    pages_from = [read_from()]
    switch.off()
    pages_from.append(read_from())
    found = [(route.methods, route.path, route.guessed) for route in routes]
    print(json.dumps({"routes": found, "pages from": pages_from}), flush=True)
    # Threads of clients and drivers may still be about: they have nothing to lose.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
