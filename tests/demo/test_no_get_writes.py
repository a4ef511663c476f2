"""No database write on any GET while read-only: every GET route of every dress, by the word of PostgreSQL itself.

The control run is the same site with `readonly` taken out: the measurement sees what a site writes on reads.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import pytest
from starlette.applications import Starlette

from demo.dressed import Site, Visited
from demo_app.dresses import DRESSES
from demo_app.on_starlette.app import all_routes
from demo_app.tokens import Tokens
from readonly.testing import Route
from readonly.testing.routes import Examples
from readonly_starlette.testing import routes
from support.postgres_server import PostgresServer
from support.server_witness import Seen, Witness

EXAMPLES = {
    "section": "tennis",
    "slug": "mara-voss-800",
    "provider": "harbour",
    "id": 1,
    "path": "site.css",
    "GET /oauth/{provider}/authorize": {"provider": "harbour"},
}
WHO = ("anonymous", "logged in", "remembered", "program")


@dataclass
class Watched:
    """One dress, and somebody who watches its database.

    Attributes:
        site: The dress.
        witness: Watches.
        routes: Its GET routes.
        cookies: Of each visitor, as they were before the site was turned read-only.
        token: Of the program that calls its API.
    """

    site: Visited
    witness: Witness
    routes: list[Route]
    cookies: Mapping[str, str]
    token: str

    def look_at_everything(self) -> tuple[Seen, dict[str, int]]:
        """Ask every GET route as everybody; return what the server saw, and the status of each answer."""
        statuses: dict[str, int] = {}
        with httpx.Client(base_url=self.site.url, timeout=60) as client, self.witness.watching() as seen:
            for route in self.routes:
                path = self._path(route)
                for who in WHO:
                    # Cookies as they were: what an answer does to them is nobody's affair here.
                    client.cookies.clear()
                    headers = {"cookie": self.cookies.get(who, "")}
                    if who == "program":
                        headers = {"authorization": f"Bearer {self.token}"}
                    statuses[f"{path} as {who}"] = client.get(path, headers=headers).status_code
        return seen, statuses

    def _path(self, route: Route) -> str:
        if route.path == "/oauth/{provider}/callback":
            code = Tokens(self.site.settings.secret).code("harbour", "zoe-x")
            return f"/oauth/harbour/callback?code={code}"
        ((_, request),) = Examples(EXAMPLES).requests(route, "GET")
        return request.path + ("?name=zoe-x" if route.path.endswith("/authorize") else "")


def watched(site: Visited, server: PostgresServer) -> Watched:
    """Let everybody in who has something to come back with."""
    member, remembered = site.member("sam"), site.member("noor", remember="yes")
    cookies = {
        "logged in": _header(member, without=""),
        "remembered": _header(remembered, without="session"),
    }
    token = member.get("/api/account").json()["api_token"]
    return Watched(site, Witness(server, site.database), get_routes(), cookies, token)


@functools.cache
def get_routes() -> list[Route]:
    """Return the site's GET routes: every dress has the same ones (see test_dresses)."""
    return [route for route in routes(Starlette(routes=all_routes())) if "GET" in route.methods]


def _header(browser: httpx.Client, *, without: str) -> str:
    return "; ".join(f"{name}={value}" for name, value in browser.cookies.items() if name != without)


@pytest.mark.parametrize("sessions", ["end", "keep"])
@pytest.mark.parametrize("framework", DRESSES)
def test_no_get_writes_while_read_only(
    framework: str, sessions: str, sites: dict[str, Site], watched_server: PostgresServer
) -> None:
    """Every route for everybody whose session has just been ended, or goes on; the counter and the message included."""
    site = sites[framework]
    before = watched(site, watched_server)
    with site.closed_for_writes(sessions=sessions):
        seen, statuses = before.look_at_everything()
    assert seen.wrote == 0, seen
    assert len(statuses) == len(before.routes) * len(WHO)
    assert any("FROM article" in statement.replace('"', "") for statement in seen.statements), "another database"
    refused = {path for path, status in statuses.items() if status not in (200, 303, 401)}
    # The one GET that begins a session is declared as a login, and refused before it has begun anything.
    assert {statuses[path] for path in refused} == {503}
    assert all(path.startswith("/oauth/harbour/callback") for path in refused), refused
    # Dropped before they reach the server, not refused by it.
    assert seen.writes == ()


@pytest.mark.parametrize("framework", DRESSES)
def test_the_measurement_sees_writes(
    framework: str, plain_sites: dict[str, Visited], watched_server: PostgresServer
) -> None:
    """Without `readonly` the same requests write: the counter, the time of a login, and on Django the messages."""
    seen, statuses = watched(plain_sites[framework], watched_server).look_at_everything()
    assert set(statuses.values()) <= {200, 303, 401}
    assert seen.wrote > 0
    said = " ".join(seen.writes).replace('"', "")
    assert "page_view" in said
    assert "UPDATE account SET last_login" in said
    assert "INSERT INTO account" in said
    assert ("INSERT INTO django_session" in said) is (framework == "django")
