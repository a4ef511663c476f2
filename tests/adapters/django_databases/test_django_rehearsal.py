"""What a GET writes through Django's ORM while a rehearsal goes on, by the word of three servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from readonly import Policy, Switch, rehearsal
from readonly.changes import Operator
from readonly.exchange import Exchange
from readonly.handling import Handling
from readonly.rehearsal_advice import advice, notes
from readonly.rehearsal_counts import Numbers
from readonly.rules import Facts
from readonly_django.databases import Guards, install, uninstall
from support.django_site.models import Article, PageView, Tag
from support.rehearsing import takes_part
from support.waiting import eventually

from .conftest import MYSQL, POSTGRESQL, Site

ANNA = Operator("anna", "bastion")


def ask(switch: Switch, request: str, view: Callable[[], object]) -> None:
    """Send a request whose view is this."""
    method, _, path = request.partition(" ")
    handling: Handling[Any] = Handling(switch, Policy(), None, None)
    exchange = Exchange(handling, Facts(method, path))
    assert exchange.begin() is None
    with exchange.working():
        view()
    exchange.end()


def raw() -> None:
    """Write past the ORM."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE news_article SET title = %s", ["t"])


def both() -> None:
    """Write in a transaction, what is dropped and what is not."""
    with transaction.atomic():
        PageView.objects.create(path="/")
        Article.objects.create(title="new")


class Undone(Exception):
    """What a view raises to have its transaction rolled back."""


def rolled_back() -> None:
    """Write, and have it taken back by an exception."""
    with suppress(Undone), transaction.atomic():
        raw()  # a number that was drawn for a new row would not be taken back
        raise Undone


def flagged() -> None:
    """Write, and have it taken back by the flag."""
    with transaction.atomic():
        raw()
        transaction.set_rollback(True)


def inner() -> None:
    """Write in an inner block alone, which is taken back; the outer one is committed."""
    with transaction.atomic():
        list(Article.objects.all())
        rolled_back()


def half() -> None:
    """The same, but the outer block writes something else afterwards."""
    with transaction.atomic():
        rolled_back()
        Tag.objects.create(name="Ann")


def nested() -> None:
    """Write in an inner block, which is kept, in another one, which is not."""
    with transaction.atomic():
        with transaction.atomic():
            Tag.objects.create(name="Ben")
        rolled_back()


def late() -> None:
    """Write after the commit."""
    with transaction.atomic():
        transaction.on_commit(raw)


def by_hand() -> None:
    """Write without a block, and commit by hand."""
    transaction.set_autocommit(False)
    try:
        Article.objects.create(title="by hand")
        transaction.rollback()
        Tag.objects.create(name="Cleo")
        transaction.commit()
    finally:
        transaction.set_autocommit(True)


def driver() -> None:
    """Write past Django, in a block of its own."""
    with transaction.atomic():
        list(Article.objects.all())
        cursor = connection.connection.cursor()
        cursor.execute("UPDATE news_article SET title = 'd'")
        cursor.close()


def idle() -> None:
    """Send a statement that finds no row."""
    with transaction.atomic():
        Article.objects.filter(pk=-1).update(title="nobody's")


ENDS = {
    rolled_back: None,
    flagged: None,
    inner: None,
    half: ["default.news.Tag"],
    nested: ["default.news.Tag"],
    late: ["default.news.Article"],
    by_hand: ["default.news.Tag"],
    idle: None,
}


@pytest.fixture
def rehearsing(switch: Switch, site: Site) -> Iterator[Callable[[], Numbers]]:
    """Have the site rehearse; returns what was counted so far."""
    install(switch)
    rehearsal.begin(switch.store, ANNA, lasting=timedelta(hours=1))
    eventually(lambda: takes_part(switch), what="the rehearsal having begun here")

    def counted() -> Numbers:
        found = Numbers()
        found.add(switch.rehearsed.totals())
        return found

    yield counted
    rehearsal.stop(switch.store, ANNA)
    connection.close()  # of which an alias may be known by another test
    uninstall()


def test_what_is_rolled_back_is_no_write(switch: Switch, site: Site, rehearsing: Callable[[], Numbers]) -> None:
    """By an exception, by the flag, by a savepoint, by hand; what the rest of the block writes is one.

    MySQL and MariaDB count a statement that finds no row.
    """
    ends = ENDS | ({idle: ["default.news.Article"]} if site.vendor == MYSQL else {})
    for view in ENDS:
        ask(switch, f"GET /{view.__name__}", view)
    routes = rehearsing().routes
    assert {rule.removeprefix("GET /"): sorted(one.tables) for rule, one in routes.items() if one.wrote} == {
        view.__name__: tables for view, tables in ends.items() if tables is not None
    }
    assert all("test_django_rehearsal.py:" in where for one in routes.values() for where in one.tables.values())
    told = notes(rehearsing())
    for view in (rolled_back, flagged, inner):
        assert [one for one in told if one.startswith(f"GET /{view.__name__} writes and takes it back")], told


def test_what_goes_past_django_is_found_at_the_commit(
    switch: Switch, site: Site, rehearsing: Callable[[], Numbers]
) -> None:
    """PostgreSQL says which table it was; the others say that something was written."""
    ask(switch, "GET /driver", driver)
    assert list(rehearsing().routes["GET /driver"].tables) == [
        "default.news.Article" if site.on_postgresql else "default.?"
    ]


@pytest.mark.parametrize("vendor", [POSTGRESQL])
@pytest.mark.parametrize("question", ["_TABLES", "_WRITING"])
def test_a_question_that_fails_loses_nothing(
    switch: Switch, rehearsing: Callable[[], Numbers], monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """A statement that fails spoils its transaction, of which COMMIT then makes a ROLLBACK without a word."""
    with monkeypatch.context() as failing:
        failing.setattr(f"readonly.databases.rehearsed.{question}", "SELECT 1/0")
        ask(switch, "GET /both", both)
    assert Article.objects.filter(title="new").count() == 1
    assert sorted(rehearsing().routes["GET /both"].tables) == ["default.news.Article", "default.news.PageView"]


@pytest.mark.parametrize("vendor", [POSTGRESQL])
def test_a_question_that_costs_the_transaction_is_no_success(
    switch: Switch, rehearsing: Callable[[], Numbers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks under the question: whoever wrote hears of it, and nothing stays in flight."""
    with monkeypatch.context() as broken:
        broken.setattr("readonly.databases.rehearsed._TABLES", "SELECT pg_terminate_backend(pg_backend_pid())")
        with pytest.raises(DatabaseError):
            both()
    connection.close()
    assert switch.inflight.count() == 0
    assert not Article.objects.filter(title="new").exists()
    both()
    assert Article.objects.filter(title="new").count() == 1


@pytest.mark.parametrize("vendor", [POSTGRESQL])
def test_a_function_that_writes_is_found_in_a_transaction(switch: Switch, rehearsing: Callable[[], Numbers]) -> None:
    """Its tag says SELECT; the server knows better."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE OR REPLACE FUNCTION seen() RETURNS int LANGUAGE sql AS "
            "$$ UPDATE news_article SET views = views + 1 RETURNING views $$"
        )

    def view() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT seen()")

    ask(switch, "GET /function", view)
    assert list(rehearsing().routes["GET /function"].tables) == ["default.news.Article"]
    told = [(one.where, one.value) for one in advice(rehearsing()) if one.where != "code"]
    assert told == [("writes", "GET /function")], "nothing drops it"


def test_a_get_that_writes_is_found_by_its_model(switch: Switch, site: Site) -> None:
    """In autocommit and in a transaction; a dropped model and a dropped field are set apart; reads are none."""
    guards: Guards = install(switch, discard=["news.PageView", "news.Article.views"])
    try:
        article = Article.objects.create(title="before")
        rehearsal.begin(switch.store, ANNA, lasting=timedelta(hours=1))
        eventually(lambda: takes_part(switch), what="the rehearsal having begun here")
        ask(switch, "GET /plain", lambda: list(Article.objects.all()))
        ask(switch, "GET /page", lambda: PageView.objects.create(path="/"))
        ask(switch, "GET /views", lambda: Article.objects.filter(pk=article.pk).update(views=7))
        ask(switch, "GET /made", lambda: Article.objects.create(title="made"))
        ask(switch, "GET /raw", raw)
        ask(switch, "GET /title", lambda: Article.objects.filter(pk=article.pk).update(title="retitled"))
        ask(switch, "GET /both", both)
        ask(switch, "POST /seek", lambda: list(Article.objects.all()))
        Article.objects.create(title="outside")
        found = Numbers()
        found.add(switch.rehearsed.totals())
        rehearsal.stop(switch.store, ANNA)
    finally:
        uninstall()
    assert guards.rehearsing not in connection.execute_wrappers
    model = "default.news.Article"
    assert {rule: (one.wrote, one.dropped, sorted(one.tables)) for rule, one in found.routes.items()} == {
        "GET /page": (0, 1, []),
        "GET /views": (0, 1, []),
        "GET /made": (1, 0, [model]),
        "GET /raw": (1, 0, [model]),
        "GET /title": (1, 0, [model]),
        "GET /both": (1, 0, [model]),
        "POST /seek": (0, 0, []),
    }
    assert all("test_django_rehearsal.py:" in where for one in found.routes.values() for where in one.tables.values())
    assert list(found.outside.values()) == [model]
    told = {(one.where, one.value) for one in advice(found)}
    assert list(found.routes["GET /title"].droppable) == ["default.news.Article.title"]
    assert {("discard", "news.Article"), ("writes", "GET /raw")} <= told, "what is sent past the ORM can't be dropped"
