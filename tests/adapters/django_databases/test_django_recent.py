"""Read-your-writes in Django, on a real standby: the router sends who has written to the primary until it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.test.utils import override_settings

from readonly import Switch
from readonly.databases.replicas.written import POSITION_AFTER
from readonly.recent import COOKIE
from readonly_django.databases import install
from readonly_django.recent import RecentWritesMiddleware
from support.django_site.aliases import settings_of
from support.django_site.models import Article
from support.looking import look_often, nothing_is_late
from support.postgres_server import PostgresPair
from support.waiting import eventually

from .conftest import SQLITE, Site, fresh

ROUTER = "readonly_django.routers.ReplicaRouter"


class Main:
    """The project's own router: all models are in a database that has a replica."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "main"

    db_for_write = db_for_read


def view(request: HttpRequest) -> HttpResponse:
    """Write or read; say where a read went."""
    if request.method == "POST":
        how = request.META.get("how", "")
        if how == "atomic":
            with transaction.atomic(using="main"):
                Article.objects.filter(id=1).update(views=3)
        elif how == "raw":
            with connections["main"].cursor() as cursor:
                cursor.execute("UPDATE news_article SET views = 4")
        else:
            Article.objects.filter(id=1).update(views=2)
        return HttpResponse("written")
    return HttpResponse(Article.objects.get()._state.db)


@pytest.fixture
def pair(
    make_site: Callable[..., Site], switch: Switch, postgres_pair: PostgresPair, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PostgresPair]:
    """A writable project that reads from a standby."""
    look_often(monkeypatch)
    nothing_is_late(monkeypatch)
    primary = postgres_pair.primary
    name = primary.new_database()
    primary.sql("CREATE TABLE news_article (id int, title text, views int, seen_at timestamptz)", database=name)
    primary.sql("INSERT INTO news_article VALUES (1, 'first', 0, NULL)", database=name)
    postgres_pair.wait_replayed()
    extra = {"main": settings_of(primary.url(name)), "standby": settings_of(postgres_pair.standby.url(name))}
    make_site(SQLITE, extra=extra)
    try:
        with override_settings(DATABASE_ROUTERS=[ROUTER, Main()]):
            # Behind for as long as a test takes, the standby is read all the same.
            install(switch, replicas={"main": ["standby"]}, schema=None, always=True, max_lag=3600.0)
            yield postgres_pair
    finally:
        postgres_pair.standby.sql("SELECT pg_wal_replay_resume()")
        fresh()
        primary.drop_database(name)


def ask(method: str = "GET", cookie: str = "", **meta: str) -> tuple[str, str]:
    """Return the answer's body, and the cookie that it sets."""
    request = getattr(RequestFactory(), method.lower())("/", HTTP_COOKIE=cookie, **meta)
    response: Any = RecentWritesMiddleware(view)(request)
    fresh_request()
    morsel = response.cookies.get(COOKIE)
    return response.content.decode(), "" if morsel is None else f"{COOKIE}={morsel.value}"


def fresh_request() -> None:
    """The next one makes its own choice of a replica."""
    from readonly_django import routing

    routing._pinned.set(None)


@pytest.mark.parametrize("how", ["", "atomic", "raw"])
def test_a_visitor_sees_what_they_wrote(how: str, pair: PostgresPair) -> None:
    """From the primary, while the standby is behind; others go on reading the standby."""
    eventually(lambda: ask()[0] == "standby", 15.0, what="the standby is read")
    pair.wait_replayed()
    pair.standby.sql("SELECT pg_wal_replay_pause()")
    body, cookie = ask("POST", how=how)
    assert body == "written"
    assert cookie
    assert ask(cookie=cookie) == ("main", "")
    assert ask() == ("standby", "")
    pair.standby.sql("SELECT pg_wal_replay_resume()")
    eventually(lambda: ask(cookie=cookie)[0] == "standby", 15.0, what="the standby is there")


def test_a_project_without_autocommit(pair: PostgresPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked in a transaction that it has yet to commit: a question that failed would cost what it wrote."""
    eventually(lambda: ask()[0] == "standby", 15.0, what="the standby is read, so that positions are asked for")
    monkeypatch.setitem(POSITION_AFTER, "postgresql", "SELECT 1/0")
    transaction.set_autocommit(False, using="main")
    try:
        body, cookie = ask("POST")
        transaction.commit(using="main")
    finally:
        transaction.rollback(using="main")
        transaction.set_autocommit(True, using="main")
    assert body == "written"
    assert cookie, "by time"
    assert Article.objects.using("main").get().views == 2


def test_one_that_was_made_up(pair: PostgresPair) -> None:
    """The primary, and the cookie is taken back."""
    eventually(lambda: ask()[0] == "standby", 15.0, what="the standby is read")
    assert ask(cookie=f"{COOKIE}=forged") == ("main", f"{COOKIE}=")


def test_behind_asgi(pair: PostgresPair) -> None:
    """The same where views are awaited: the position is asked for in the thread that wrote."""
    eventually(lambda: ask()[0] == "standby", 15.0, what="the standby is read")

    async def awaited(request: HttpRequest) -> HttpResponse:
        found: HttpResponse = await sync_to_async(view)(request)
        return found

    async def run() -> HttpResponse:
        found: HttpResponse = await RecentWritesMiddleware(awaited)(RequestFactory().post("/"))  # type: ignore[assignment,misc]
        await sync_to_async(connections.close_all)()
        return found

    response = asyncio.run(run())
    cookie = response.cookies[COOKIE]
    assert cookie["samesite"] == "Lax"
    assert cookie["httponly"]
    assert cookie.value
