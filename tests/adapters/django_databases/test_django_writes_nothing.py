"""The proof: while read-only no GET of a Django site writes to its database, by the word of the server itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.cookies import SimpleCookie
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.management import create_contenttypes
from django.contrib.sessions.models import Session
from django.db import connections
from django.http import HttpResponse
from django.test import Client
from django.test.utils import override_settings

from readonly import Switch
from readonly_django import conf
from readonly_django.databases import install, uninstall
from support import missing
from support.django_site import SETTINGS
from support.django_site.aliases import create_tables, databases, settings_of
from support.django_site.models import Article
from support.django_site.pages import PAGES, REMEMBER
from support.missing import ServerMissing
from support.server_witness import Seen, Witness, witnessed_server

from .conftest import fresh

OURS = "readonly_django.middleware.ReadOnlyMiddleware"
REMEMBERING = "support.django_site.pages.RememberMe"
READONLY = {"SESSION_COOKIES": [REMEMBER], "GUARD": False}
_numbers = itertools.count()
# What the pages write on the way, and may lose.
DISCARD = ["news.PageView", "news.Article.views", "news.Article.seen_at"]
VISITORS = ("anonymous", "signed in", "just ended", "remembered")
ENGINES = ("db", "cached_db")


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    """A server that logs all statements, with the site's database on it."""
    try:
        server = witnessed_server().start()
    except ServerMissing as error:
        lacking = error
    else:
        server.sql("CREATE DATABASE site")
        with databases(default=settings_of(server.url("site"))):
            create_tables()
            for app in apps.get_app_configs():
                create_contenttypes(app, verbosity=0)
            get_user_model()._default_manager.create_superuser("ada", password="secret")  # type: ignore[attr-defined]
            Article.objects.create(title="first")
        yield Witness(server, "site")
        server.close()
        return
    raise missing.outcome(lacking)


@pytest.fixture
def make_site(witness: Witness) -> Iterator[Callable[..., Switch]]:
    """Put the site together: with the read-only mode in it, or without its parts."""
    with ExitStack() as stack:

        def make(
            *, engine: str = "db", middleware: bool = True, guard: bool = True, discard: bool = True, **entry: Any
        ) -> Switch:
            stack.enter_context(databases(default=settings_of(witness.server.url(witness.database), **entry)))
            stack.enter_context(
                override_settings(
                    ROOT_URLCONF="support.django_site.pages",
                    # A record of its own: what ended somebody's session stays known.
                    READONLY={**READONLY, "STORE": f"memory://?site=proof{next(_numbers)}"},
                    MIDDLEWARE=[*([OURS] if middleware else []), *SETTINGS["MIDDLEWARE"], REMEMBERING],
                    SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}",
                    SESSION_SAVE_EVERY_REQUEST=True,
                    MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
                )
            )
            switch = conf.current_switch()
            switch.start()
            stack.callback(switch.close)
            if guard:
                install(switch, discard=DISCARD if discard else [])
                stack.callback(uninstall)
            stack.callback(fresh)
            return switch

        yield make


def visitor(kind: str) -> Client:
    """Return a browser that has visited the writable site."""
    client = Client(raise_request_exception=False)
    if kind in ("signed in", "just ended"):
        client.login(username="ada", password="secret")
        client.get("/message/")
    if kind == "remembered":
        ada = get_user_model()._default_manager.get()
        given = HttpResponse()
        given.set_signed_cookie(REMEMBER, str(ada.pk))
        client.cookies[REMEMBER] = given.cookies[REMEMBER].value
    return client


def browse(client: Client, paths: tuple[str, ...] = PAGES, *, keep: bool = False) -> dict[str, int]:
    """Get every page, to the end, twice: the first visit may be another than those that follow.

    Args:
        client: The visitor.
        paths: The pages.
        keep: Come to each page with the same cookies, whatever the one before has said of them.
    """
    found: dict[str, int] = {}
    cookies = {name: morsel.value for name, morsel in client.cookies.items()}
    for path in (*paths, *paths):
        if keep:
            client.cookies = SimpleCookie(cookies)
        response: Any = client.get(path)
        b"".join(response.streaming_content if response.streaming else [response.content])
        found[path] = max(response.status_code, found.get(path, 0))
    return found


@pytest.mark.parametrize("atomic_requests", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", VISITORS)
def test_no_get_writes_while_read_only(
    kind: str, engine: str, atomic_requests: bool, make_site: Callable[..., Switch], witness: Witness
) -> None:
    """Every page is read by everybody, and nothing is written, nor even tried."""
    switch = make_site(engine=engine, ATOMIC_REQUESTS=atomic_requests)
    client = visitor(kind)
    state = switch.on(sessions="keep" if kind == "signed in" else "end")
    assert switch.confirm(state.epoch, timeout=10).safe
    with witness.watching() as seen:
        found = browse(client, keep=kind == "signed in")
    assert seen.wrote == 0, seen
    assert seen.writes == ()
    assert len(seen.statements) > len(PAGES)
    assert {path for path, status in found.items() if status != 200} == {
        path for path in PAGES if path.startswith("/admin/") and ("login" in path) is (kind == "signed in")
    }
    assert set(found.values()) == {200, 302}


@pytest.mark.parametrize("kind", VISITORS)
def test_control_without_the_mode(kind: str, make_site: Callable[..., Switch], witness: Witness) -> None:
    """The same pages and visitors, with middleware and guard out: the measurement sees their writes."""
    make_site(middleware=False, guard=False)
    client = visitor(kind)
    with witness.watching() as seen:
        assert set(browse(client).values()) <= {200, 302}
    assert seen.wrote >= 2 * 6, seen
    tables = {"news_pageview", "news_article", "django_session"} | ({"auth_user"} if kind == "remembered" else set())
    assert all(any(f'"{table}"' in statement for statement in seen.writes) for table in tables), seen


WRITING = ("/articles/1/", "/articles/1/block/", "/message/", "/touched/", "/cycled/", "/flushed/", "/streamed/")


def test_control_page_by_page(make_site: Callable[..., Switch], witness: Witness) -> None:
    """Each page that is said to write does so, on its own, for somebody with a session."""
    make_site(middleware=False, guard=False)
    for path in WRITING:
        client = visitor("signed in")
        with override_settings(SESSION_SAVE_EVERY_REQUEST=False), witness.watching() as seen:
            browse(client, (path,))
        assert seen.wrote, path


def test_control_each_part_is_needed(make_site: Callable[..., Switch], witness: Witness) -> None:
    """Without the middleware sessions are tried to be written; without the discards the counter is, and both refused.

    So each part is seen to do its share, and the guard stops what the others let through.
    """
    switch = make_site(middleware=False)
    client = visitor("signed in")
    switch.on()
    seen = _watch(witness, client)
    assert seen.wrote == 0
    assert any("django_session" in s for s in seen.writes)
    assert not any("news_" in s for s in seen.writes)


def test_control_without_discards(make_site: Callable[..., Switch], witness: Witness) -> None:
    """The counter is refused by the server, and the page is the 503 that says why."""
    switch = make_site(discard=False)
    client = visitor("anonymous")
    switch.on()
    with witness.watching() as seen:
        response = client.get("/articles/1/")
    assert response.status_code == 503
    assert response["Retry-After"]
    assert seen.wrote == 0
    assert any("news_pageview" in s for s in seen.writes)


def test_control_without_the_guard(make_site: Callable[..., Switch], witness: Witness) -> None:
    """The middleware alone lets a GET write: the guard is what keeps the promise."""
    switch = make_site(guard=False)
    client = visitor("anonymous")
    switch.on()
    with witness.watching() as seen:
        client.get("/articles/1/")
    assert seen.wrote > 0


def _watch(witness: Witness, client: Client) -> Seen:
    with witness.watching() as seen:
        browse(client)
    return seen


def test_afterwards_everything_is_written_again(make_site: Callable[..., Switch], witness: Witness) -> None:
    """On the same connection, by the same visitor."""
    switch = make_site(CONN_MAX_AGE=None)
    client = visitor("signed in")
    switch.on(sessions="keep")
    same = connections["default"].connection
    assert _watch(witness, client).wrote == 0
    switch.off()
    assert set(browse(client).values()) <= {200, 302}
    assert _watch(witness, client).wrote > 0
    assert connections["default"].connection is same
    assert Session.objects.exists()
