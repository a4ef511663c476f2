"""The walk over a Django project: what was planted is found, and a clean site passes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import Client, override_settings
from django.urls import include, path, re_path
from django.views import View
from rest_framework.viewsets import ModelViewSet

from readonly import reads
from readonly.testing import Finding, Kind, Request, Visitor, Walk, walk
from readonly_django import conf, databases
from readonly_django.test import override_readonly
from readonly_django.testing import recorded_writes, routes, visitor
from support.django_site.aliases import create_tables, settings_of
from support.django_site.aliases import databases as aliases
from support.django_site.models import Article, PageView
from support.postgres_server import PostgresServer
from testing.django_shop import DISCARD, EXAMPLES, MIDDLEWARE, urls


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all tables, to be copied."""
    made = tmp_path_factory.mktemp("tables") / "site.db"
    with aliases(default=settings_of(f"sqlite:///{made}")):
        create_tables()
        article = Article.objects.create(title="boots")
        PageView.objects.create(article=article, path="/")
        User.objects.create_user("sam")
    return made


@pytest.fixture(params=["sqlite", "postgresql"])
def entry(request: pytest.FixtureRequest, tables: Path, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A database with one article and one user."""
    if request.param == "sqlite":
        yield settings_of(f"sqlite:///{shutil.copy(tables, tmp_path / 'site.db')}")
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.new_database(request.getfixturevalue("postgres_template"))
    yield settings_of(server.url(name))
    server.drop_database(name)


@pytest.fixture(scope="module")
def postgres_template(postgres: PostgresServer) -> Iterator[str]:
    """A database with all tables, to be copied."""
    name = postgres.new_database()
    with aliases(default=settings_of(postgres.url(name))):
        create_tables()
        article = Article.objects.create(title="boots")
        PageView.objects.create(article=article, path="/")
        User.objects.create_user("sam")
    yield name
    postgres.drop_database(name)


def visitors() -> dict[str, Visitor]:
    """Somebody, and somebody who has logged in."""
    known = Client()
    known.force_login(User.objects.get(username="sam"))
    return {"anonymous": visitor(Client()), "logged in": visitor(known)}


def walked(entry: dict[str, Any], *planted: str, guarded: bool = True, sessions: str | None = None) -> Walk:
    """Walk through the shop with these faults."""
    conf_of_site = {
        "STORE": "memory://?site=shop",
        "GUARD": False,
        "EXEMPT": ["/healthz"],
        "READS": ["POST /export"],
    }
    with (
        aliases(default=entry),
        override_settings(
            ROOT_URLCONF=urls(*planted),
            MIDDLEWARE=MIDDLEWARE,
            READONLY=conf_of_site,
        ),
    ):
        if guarded:
            databases.install(conf.current_switch(), discard=DISCARD)
        try:
            return walk(
                routes(), conf.switch, visitors(), examples=EXAMPLES, witnesses=[recorded_writes()], sessions=sessions
            )
        finally:
            databases.uninstall()
            conf.switch.close()


def only(found: Walk, path: str) -> Finding:
    """Return the finding about a route."""
    (finding,) = [finding for finding in found.findings if finding.route and finding.route.path == path]
    return finding


@pytest.mark.parametrize("sessions", ["end", "keep"])
def test_a_clean_site_passes(entry: dict[str, Any], sessions: str) -> None:
    """Every route is asked by both visitors, and nobody writes: sessions are rows here, and counters are dropped."""
    found = walked(entry, sessions=sessions).check()
    assert found.routes == 6
    assert found.served >= 12
    assert found.refused >= 4


@pytest.mark.parametrize("guarded", [True, False])
def test_a_get_that_writes_is_found(entry: dict[str, Any], guarded: bool) -> None:
    """With the guard its write is refused, without one it takes place."""
    found = walked(entry, "cart", guarded=guarded)
    finding = only(found, "/cart/{number}")
    assert finding.kind is (Kind.WRITES_ON_READ if guarded else Kind.WROTE)
    assert (finding.method, finding.visitors) == ("GET", ("anonymous", "logged in"))
    assert str(finding.route) == "/cart/{number} (cart:add)"
    assert 'writes=["GET /cart/{number}"]' in finding.text()
    assert "news_comment" in finding.text()
    if guarded:
        assert len(found.findings) == 1
    else:
        assert only(found, "/items/{number}").kind is Kind.WROTE


@pytest.mark.parametrize(
    ("planted", "kind", "path"),
    [("export", Kind.WRITES_THOUGH_DECLARED, "/export"), ("broken", Kind.FAILED, "/healthz")],
)
def test_other_faults_are_found(entry: dict[str, Any], planted: str, kind: Kind, path: str) -> None:
    """A rule that is wrong, and a page that fails."""
    found = walked(entry, planted)
    assert only(found, path).kind is kind
    assert len(found.findings) == 1


def test_what_is_routed_in_every_way() -> None:
    """Converters, inclusions, regular expressions, classes, viewsets, and functions that do not tell their methods."""

    def view(request: HttpRequest, **_: object) -> HttpResponse:
        return HttpResponse()

    class Both(View):
        """A class."""

        def get(self, request: HttpRequest) -> HttpResponse:
            """Read."""
            return HttpResponse()

        @reads
        def post(self, request: HttpRequest) -> HttpResponse:
            """Preview."""
            return HttpResponse()

    class Articles(ModelViewSet[Article]):
        """A viewset."""

    module = ModuleType("routed")
    module.urlpatterns = [  # type: ignore[attr-defined]  # as Django looks for it
        path("both", Both.as_view(http_method_names=["get", "post"]), name="both"),
        path("files/<path:rest>/edit", view, name="edit"),
        path("set/<int:pk>", Articles.as_view({"get": "retrieve", "delete": "destroy"}), name="set"),
        path("<slug:lang>/", include(([re_path(r"^year/(?P<year>[0-9]{4})/$", view, name="year")], "news"), "outer")),
        re_path(r"^all/(?P<rest>.*)$", view),
        re_path(r"^page(?:-(?P<number>[0-9]+))?$", view, name="page"),
    ]
    found = {route.path: route for route in routes(module)}
    assert {path: (route.methods, route.name, route.guessed) for path, route in found.items()} == {
        "/both": (("GET", "POST"), "both", False),
        "/files/{rest:path}/edit": (("GET", "POST"), "edit", True),
        "/set/{pk}": (("DELETE", "GET"), "set", False),
        "/{lang}/year/{year}/": (("GET", "POST"), "outer:year", True),
        "/all/{rest:path}": (("GET", "POST"), "", True),
        "/page": (("GET", "POST"), "page", True),
        "/page-{number}": (("GET", "POST"), "page", True),
    }
    assert found["/both"].marks == {"reads:POST"}


def test_cookies_are_those_of_the_beginning() -> None:
    """Each request is sent by the same somebody, whatever answers do to cookies."""
    seen: list[str | None] = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append(request.COOKIES.get("who"))
        answer = HttpResponse()
        answer.set_cookie("who", "nobody")
        return answer

    module = ModuleType("cookies")
    module.urlpatterns = [path("", view)]  # type: ignore[attr-defined]  # as Django looks for it
    client = Client()
    client.cookies["who"] = "sam"
    with override_settings(ROOT_URLCONF=module, MIDDLEWARE=[]):
        send = visitor(client)
        assert [send(Request("GET", "/?a=1")).status for _ in range(2)] == [200, 200]
    assert seen == ["sam", "sam"]


def test_an_answer_that_breaks_off_is_a_500() -> None:
    """A streamed answer is read to its end, in which it may fail, or write."""

    def parts() -> Iterator[bytes]:
        yield b"a"
        raise KeyError("x")

    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(parts())

    module = ModuleType("streams")
    module.urlpatterns = [path("", view)]  # type: ignore[attr-defined]  # as Django looks for it
    with override_settings(ROOT_URLCONF=module, MIDDLEWARE=[]):
        answer = visitor(Client())(Request("GET", "/"))
    assert (answer.status, answer.error) == (500, "KeyError: 'x'")


def test_a_walk_inside_of_override_readonly(tables: Path, tmp_path: Path) -> None:
    """Whatever store the settings name: the walk leaves the mode to what has set it."""
    url = f"sqlite:///{shutil.copy(tables, tmp_path / 'site.db')}"
    with (
        aliases(default=settings_of(url)),
        override_settings(
            ROOT_URLCONF=urls(),
            MIDDLEWARE=MIDDLEWARE,
            READONLY={"STORE": "redis://127.0.0.1:1/0?site=shop", "GUARD": False, "READS": ["POST /export"]},
        ),
    ):
        databases.install(conf.current_switch(), discard=DISCARD)
        try:
            with override_readonly(False):
                people = visitors()
            with override_readonly():
                walk(routes(), conf.switch, people, examples=EXAMPLES, witnesses=[recorded_writes()]).check()
                assert conf.switch.state.read_only
        finally:
            databases.uninstall()
            conf.switch.close()
