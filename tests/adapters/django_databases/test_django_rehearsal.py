"""What a GET writes through Django's ORM while a rehearsal goes on, by the word of three servers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import connection, transaction

from readonly import Policy, Switch, rehearsal
from readonly.changes import Operator
from readonly.exchange import Exchange
from readonly.handling import Handling
from readonly.rehearsal_advice import advice
from readonly.rehearsal_counts import Numbers
from readonly.rules import Facts
from readonly_django.databases import Guards, install, uninstall
from support.django_site.models import Article, PageView
from support.waiting import eventually

from .conftest import Site

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


def test_a_get_that_writes_is_found_by_its_model(switch: Switch, site: Site) -> None:
    """In autocommit and in a transaction; a dropped model and a dropped field are set apart; reads are none."""
    guards: Guards = install(switch, discard=["news.PageView", "news.Article.views"])
    try:
        article = Article.objects.create(title="before")
        rehearsal.begin(switch.store, ANNA, lasting=timedelta(hours=1))
        eventually(lambda: switch.state.rehearsal is not None, what="the rehearsal having begun")
        ask(switch, "GET /plain", lambda: list(Article.objects.all()))
        ask(switch, "GET /page", lambda: PageView.objects.create(path="/"))
        ask(switch, "GET /views", lambda: Article.objects.filter(pk=article.pk).update(views=7))
        ask(switch, "GET /made", lambda: Article.objects.create(title="made"))
        ask(switch, "GET /raw", raw)
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
        "GET /both": (1, 0, [model]),
        "POST /seek": (0, 0, []),
    }
    assert all("test_django_rehearsal.py:" in where for one in found.routes.values() for where in one.tables.values())
    assert list(found.outside.values()) == [model]
    assert ("discard", "news.Article") in {(one.where, one.value) for one in advice(found)}
