"""Discarded writes: gone before they reach the server while read-only, and made while writable."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User, update_last_login
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from readonly import ReadOnlyError, Switch
from readonly.context import Work, working
from readonly.errors import ConfigurationError
from readonly_django.databases import install, uninstall
from support.django_site.models import Article, Comment, Event, HeadlinePageView, LiveEvent, PageView, Tag

from .conftest import ALL, POSTGRESQL, SQLITE, Site

DISCARD = ("news.PageView", "news.Article.views", "news.Article.seen_at", "auth.User.last_login", "sessions.Session")


@pytest.fixture
def discarding(site: Site, switch: Switch) -> Site:
    """The site, with incidental writes named."""
    User.objects.create_user("ada")
    PageView.objects.create(path="/old")
    install(switch, discard=DISCARD)
    return site


def first() -> Article:
    """Return the article that is there."""
    return Article.objects.get(title="first")


def session_write() -> None:
    """Make a session and save it, as a view does that touches it."""
    session = SessionStore()
    session["x"] = 1
    session.save()


def session_change() -> None:
    """Load a session, change it, and end it."""
    session = SessionStore(Session.objects.get().session_key)
    session["x"] = 2
    session.save()
    session.flush()


def create_in_parts() -> None:
    """Save an object, look at it, and save it again."""
    view = PageView(path="/x")
    view.save()
    view.count = 2
    view.save()


# What pages do on the way. None of these may reach the server while read-only, and all of them go on as if they had.
INCIDENTAL: tuple[Callable[[], object], ...] = (
    lambda: PageView.objects.create(path="/x"),
    lambda: PageView(path="/x", article=first()).save(),
    create_in_parts,
    lambda: PageView.objects.bulk_create([PageView(path=p) for p in "abc"]),
    lambda: PageView.objects.bulk_create([PageView(path=p) for p in "abc"], ignore_conflicts=True),
    lambda: PageView.objects.bulk_create([PageView(pk=7, path="x"), PageView(path="y")]),
    lambda: PageView.objects.update(count=F("count") + 1),
    lambda: PageView.objects.filter(path="/old").delete(),
    lambda: PageView.objects.get().delete(),
    lambda: PageView.objects.get().save(),
    lambda: PageView.objects.get_or_create(path="/x"),
    lambda: PageView.objects.update_or_create(path="/old", defaults={"count": 5}),
    lambda: PageView.objects.update_or_create(path="/x", defaults={"count": 5}),
    lambda: HeadlinePageView.objects.create(path="/x"),
    lambda: first().pageview_set.create(path="/x"),
    lambda: Article.objects.filter(title="first").update(views=F("views") + 1),
    lambda: Article.objects.update(views=1, seen_at=timezone.now()),
    lambda: Article.objects.bulk_update([first()], ["views"]),
    lambda: first().save(update_fields=["views", "seen_at"]),
    lambda: update_last_login(User, User.objects.get()),
    session_write,
    session_change,
)


@pytest.mark.parametrize("atomic", [False, True])
def test_dropped_before_they_reach_the_server(discarding: Site, switch: Switch, atomic: bool) -> None:
    """Nothing but reads is sent, nothing raises, nothing changes, and no transaction is poisoned."""
    session_write()
    before = snapshot()
    switch.on()
    for write in INCIDENTAL:
        work = Work(switch)
        with working(work), CaptureQueriesContext(connection) as sent:
            if atomic:
                with transaction.atomic():
                    write()
                    assert Article.objects.count() == 1
            else:
                write()
        assert work.escape is None
        statements = [q["sql"] for q in sent if not q["sql"].startswith(("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE"))]
        assert all(s.startswith(("SELECT", "DECLARE")) and "FOR UPDATE" not in s for s in statements), statements
    assert snapshot() == before


def snapshot() -> list[object]:
    """Return all that could have been changed."""
    return [list(model.objects.order_by("pk").values()) for model in (Article, PageView, User, Session)]  # type: ignore[attr-defined]


def test_made_while_writable(discarding: Site, switch: Switch) -> None:
    """Each of them is a write like any other then, and for work that may write."""
    for may in (None, Work(switch, bypass=True)):
        for write in INCIDENTAL:
            PageView.objects.all().delete()
            PageView.objects.create(path="/old")
            Session.objects.all().delete()
            session_write()
            with CaptureQueriesContext(connection) as sent, working(may or Work(switch)):
                if may is not None:
                    switch.on()
                write()
            assert any(q["sql"].startswith(("INSERT", "UPDATE", "DELETE")) for q in sent)
            if may is not None:
                switch.off()


def test_made_in_a_transaction_that_began_before(discarding: Site, switch: Switch) -> None:
    """It may finish, and its incidental writes with it."""
    with transaction.atomic():
        PageView.objects.create(path="/before")
        switch.on()
        PageView.objects.create(path="/after")
    PageView.objects.create(path="/dropped")
    assert sorted(PageView.objects.values_list("path", flat=True)) == ["/after", "/before", "/old"]


def test_what_dropped_writes_return(discarding: Site, switch: Switch) -> None:
    """An INSERT has no key, an UPDATE says that it found its row, a DELETE that there was none."""
    switch.on()
    created = PageView.objects.create(path="/x")
    assert created.pk is None
    keyed = PageView.objects.create(pk=99, path="/x")
    assert keyed.pk == 99
    assert [v.pk for v in PageView.objects.bulk_create([PageView(path="a"), PageView(path="b")])] == [None, None]
    assert Article.objects.update(views=9) == 1
    assert PageView.objects.all().delete()[0] == 0
    found, made = PageView.objects.get_or_create(path="/new")
    assert (found.pk, made) == (None, True)
    kept, made = PageView.objects.update_or_create(path="/old", defaults={"count": 3})
    assert (kept.count, made) == (3, False)
    kept.refresh_from_db()
    assert kept.count == 0


REFUSED: tuple[Callable[[], object], ...] = (
    lambda: Article.objects.update(views=1, title="x"),
    lambda: Article.objects.filter(views=0).delete(),
    lambda: first().save(),
    lambda: first().save(update_fields=["views", "title"]),
    lambda: Article.objects.create(title="x"),
    lambda: User.objects.update(last_login=None, is_active=False),
    lambda: Comment.objects.create(article=first(), text="x"),
    lambda: connection.cursor().execute("INSERT INTO news_pageview (path, count) VALUES ('x', 0)"),
    lambda: connection.cursor().execute("UPDATE news_article SET views = 1"),
)


def test_what_is_more_than_incidental_is_refused(discarding: Site, switch: Switch) -> None:
    """Another field, another model, SQL text: refused like any other write."""
    switch.on()
    for write in REFUSED:
        with pytest.raises(ReadOnlyError):
            write()
    assert Article.objects.values_list("title", "views").get() == ("first", 0)


def test_rows_in_two_tables(site: Site, switch: Switch) -> None:
    """A child's fields are dropped by the model that they belong to, and a parent's by the parent."""
    event = LiveEvent.objects.create(name="x", watchers=1)
    install(switch, discard=["news.LiveEvent.watchers", "news.LiveEvent.name"])
    switch.on()
    LiveEvent.objects.update(watchers=5)
    LiveEvent.objects.update(watchers=5, name="y")
    Event.objects.update(name="y")
    event.save(update_fields=["name", "watchers"])
    uninstall()
    install(switch, discard=["news.LiveEvent.watchers"])
    for write in (lambda: LiveEvent.objects.update(watchers=5, name="y"), lambda: LiveEvent.objects.update(name="y")):
        with pytest.raises(ReadOnlyError):
            write()
    assert LiveEvent.objects.values_list("name", "watchers").get() == ("x", 1)


def test_rows_of_a_relation(site: Site, switch: Switch) -> None:
    """The table between two models is named like a model."""
    tag = Tag.objects.create(name="x")
    install(switch, discard=["news.Article_tags"])
    switch.on()
    first().tags.add(tag)
    with pytest.raises(ReadOnlyError):
        first().tags.create(name="y")
    assert first().tags.count() == 0


def test_a_database_that_is_not_guarded(make_site: Callable[..., Site], switch: Switch) -> None:
    """There, everything is written."""
    make_site(SQLITE)
    install(switch, unguarded=["default"], discard=DISCARD)
    switch.on()
    PageView.objects.create(path="/x")
    assert PageView.objects.count() == 1


def test_nothing_stays_when_it_is_uninstalled(discarding: Site, switch: Switch) -> None:
    """Django's own methods are back."""
    from django.db.models.sql import compiler

    uninstall()
    assert "execute_sql" not in vars(compiler.SQLDeleteCompiler)
    assert all(
        vars(getattr(compiler, name))["execute_sql"].__module__ == compiler.__name__
        for name in ("SQLCompiler", "SQLInsertCompiler", "SQLUpdateCompiler")
    )
    switch.on()
    PageView.objects.create(path="/x")


def test_select_for_update(make_site: Callable[..., Site], switch: Switch) -> None:
    """A lock on rows of a discarded model is left out, and one on others is refused."""
    make_site(POSTGRESQL)
    install(switch, discard=DISCARD)
    switch.on()
    with transaction.atomic():
        assert list(PageView.objects.select_for_update()) == []
    with pytest.raises(ReadOnlyError), transaction.atomic():
        list(Tag.objects.select_for_update())


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("news.PageView", r"one string: write a list, discard=\['news.PageView'\]"),
        (["news"], "write 'app.Model' or 'app.Model.field'"),
        (["news.PageView.count.x"], "names nothing"),
        (["news. PageView"], "names nothing"),
        (["*"], "names nothing"),
        (["news.Nothing"], "names no model"),
        (["nowhere.PageView"], "names no model"),
        (["news.PageView.nothing"], "names no field"),
        (["news.Article.tags"], "is no column of news.Article"),
        (["news.Article.comments"], "is no column of news.Article"),
        (["news.LiveEvent"], "a row in the table of news.Event, too"),
    ],
)
def test_names_that_mean_nothing(names: list[str], said: str, make_site: Callable[..., Site], switch: Switch) -> None:
    """Start-up stops, names the name, and leaves nothing behind."""
    make_site(SQLITE)
    with pytest.raises(ConfigurationError, match=said):
        install(switch, discard=names)
    assert not switch.guarded
    install(switch)


@pytest.mark.parametrize("vendor", ALL)
def test_a_swapped_model_is_named_by_what_it_is_swapped_for(
    vendor: str, make_site: Callable[..., Site], switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auth.User has no table in a project with a user model of its own."""
    make_site(vendor)
    monkeypatch.setattr(type(User._meta), "swapped", property(lambda meta: "accounts.User"), raising=False)
    with pytest.raises(ConfigurationError, match=r"write 'accounts\.User' instead"):
        install(switch, discard=["auth.User.last_login"])
