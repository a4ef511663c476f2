"""Every dress of the demo site, served once for all tests of this folder, on a PostgreSQL that logs what it is told."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from demo.dressed import Site, Visited, close_all, first_line, import_path, start
from demo_app.data import prepare
from demo_app.dresses import DRESSES
from demo_app.settings import Settings
from support import children, missing
from support.missing import ServerMissing
from support.postgres_server import PostgresServer
from support.server_witness import witnessed_server


@pytest.fixture(scope="session")
def watched_server() -> Iterator[PostgresServer]:
    """A PostgreSQL that logs every statement, and that nobody else uses."""
    try:
        server = witnessed_server().start()
    except ServerMissing as error:
        raise missing.outcome(error) from None
    yield server
    server.close()


@pytest.fixture(scope="session")
def template(watched_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with the whole story and the tables of every dress, to be copied."""
    name = watched_server.new_database()
    folder = tmp_path_factory.mktemp("template")
    for dress in DRESSES.values():
        settings = Settings.in_folder(folder, secret="-", server=watched_server.url(name))
        prepare(settings)
        dress.prepare(settings)
    return name


def copied(server: PostgresServer, template: str) -> str:
    """Return the URL of a new copy."""
    name = server.new_database(template)
    return server.url(name)


# Modules run in any order, those of other folders in between: for as long as all tests last, then.
@pytest.fixture(scope="session")
def sites(
    watched_server: PostgresServer, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Site]]:
    """Every dress, each on a database of its own; all start at once."""
    found: dict[str, Site] = {}
    try:
        for name in DRESSES:
            found[name] = Site(name, tmp_path_factory.mktemp(name), server=copied(watched_server, template))
        for site in found.values():
            site.wait()
        yield found
    finally:
        close_all(found.values())


@pytest.fixture(scope="module")
def plain_sites(
    watched_server: PostgresServer, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Visited]]:
    """Every dress without `readonly`, likewise."""
    folder = tmp_path_factory.mktemp("plain")
    servers = {name: copied(watched_server, template) for name in DRESSES}
    arguments = ["tests/demo/plain_sites.py", str(folder), *(f"{name}={url}" for name, url in servers.items())]
    process, output = start(arguments, folder, {"PYTHONPATH": import_path()})
    found: dict[str, Visited] = {}
    try:
        for line in first_line(process, output, len(DRESSES)).splitlines():
            name, url = line.split()
            settings = Settings.in_folder(folder, secret=(folder / "secret").read_text(), server=servers[name])
            found[name] = Visited(name, url, settings)
        yield found
    finally:
        for site in found.values():
            site.close()
        children.end(process, signal.SIGKILL)
