"""The router: which server a request reads from, for how long, and who may write where."""

from __future__ import annotations

import shutil
import sqlite3
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin import site as admin_site
from django.contrib.admin.utils import get_deleted_objects
from django.contrib.auth.models import User
from django.core.signals import request_started
from django.db import DatabaseError, connections, router, transaction
from django.db.migrations.loader import MigrationLoader
from django.test import RequestFactory, TestCase
from django.test.utils import override_settings

from readonly import ReadOnlyError, Switch
from readonly.context import Work, working
from readonly.databases.replicas import sqlite as copies
from readonly.databases.sqlite import copy_to_replica
from readonly.errors import ConfigurationError
from readonly_django import routing as routing_module
from readonly_django.databases import install, installed, read_only_transactions
from support.django_site.aliases import settings_of
from support.django_site.models import Article, Comment, HeadlinePageView, PageView, Tag
from support.looking import left_out_for_good
from support.waiting import eventually

from .conftest import SQLITE, Site, fresh

ROUTER = "readonly_django.routers.ReplicaRouter"


class Analytics:
    """Another router of the project's: tags belong to another database."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "analytics" if model is Tag else None

    db_for_write = db_for_read


class Replicated:
    """A primary with two copies, and a database that has nothing to do with them.

    Args:
        make_site: Puts the databases in place.
        folder: Where they are.
        switch: The site's.
        patience: Seconds that a reader of a copy waits for a lock. Reports look at the copies, too: whoever closes one
            last locks others out for a moment, which may be a long one.
        options: Of the guards.
    """

    def __init__(
        self,
        make_site: Callable[..., Site],
        folder: Path,
        switch: Switch,
        *,
        patience: float = 30.0,
        **options: Any,
    ) -> None:
        self.folder = folder
        self.switch = switch
        self.aliases = ("one", "two")
        extra = {a: settings_of(f"sqlite:///{folder}/{a}.db", OPTIONS={"timeout": patience}) for a in self.aliases}
        extra["analytics"] = settings_of(f"sqlite:///{folder}/analytics.db")
        make_site(SQLITE, extra=extra)
        shutil.copy(folder / "site.db", folder / "analytics.db")
        self.guards = install(switch, replicas={"default": self.aliases}, **options)

    def copy(self, epoch: int, *aliases: str) -> None:
        """Copy the primary as of an epoch; each copy's article is named after it."""
        for alias in aliases or self.aliases:
            copy_to_replica(self.folder / "site.db", self.folder / f"{alias}.db", epoch=epoch)
            with sqlite3.connect(self.folder / f"{alias}.db") as behind:
                behind.execute("UPDATE news_article SET title = ?", (alias,))
            behind.close()
            replica = self.guards.routing.replica(alias)
            assert replica is not None
            replica._looked_at = float("-inf")

    def on(self, *aliases: str) -> int:
        """Turn the site read-only, and have the copies there."""
        epoch = self.switch.on().epoch
        self.copy(epoch, *aliases)
        return epoch


@pytest.fixture
def make_replicated(
    make_site: Callable[..., Site], switch: Switch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Replicated]]:
    """Make the databases, and put the router in place. Who failed stays out until the test says that it is over."""
    left_out_for_good(monkeypatch)

    def make(*, patience: float = 30.0, **options: Any) -> Replicated:
        monkeypatch.setattr(copies, "LOCK_SECONDS", patience)
        return Replicated(make_site, tmp_path, switch, patience=patience, **options)

    with override_settings(DATABASE_ROUTERS=[ROUTER, Analytics()]):
        yield make


@pytest.fixture
def replicated(make_replicated: Callable[..., Replicated]) -> Replicated:
    """The databases with nothing special."""
    return make_replicated()


def request(read: Callable[[], Any]) -> Any:
    """Run something as a request of its own, of which only the choice of a replica matters here."""
    guards = installed()
    assert guards is not None
    guards.routing.forget()
    return read()


def title() -> str:
    """Read, and tell from where."""
    found: str = Article.objects.get().title
    return found


def test_reads_go_to_a_replica_while_read_only(replicated: Replicated, switch: Switch) -> None:
    """As soon as one is past the switch, and back to the primary when the mode is over."""
    assert request(title) == "first"
    switch.on()
    assert request(title) == "first"
    replicated.copy(switch.state.epoch)
    assert request(title) in ("one", "two")
    switch.off()
    assert request(title) == "first"


def test_always(make_replicated: Callable[..., Replicated], switch: Switch) -> None:
    """Reads of a writable site go to a replica that has the last `off`; what follows a write does not."""
    replicated = make_replicated(always=True)
    replicated.on()
    assert request(title) in ("one", "two")
    epoch = switch.off().epoch
    assert request(title) == "first"
    replicated.copy(epoch)
    assert request(title) in ("one", "two")
    with working(Work(switch, bypass=True)):
        assert request(title) == "first"
    with transaction.atomic():
        assert request(title) == "first"


def test_a_request_reads_from_one_replica(replicated: Replicated) -> None:
    """All of it, whatever it reads; requests are spread over the replicas."""
    replicated.on()
    seen = [request(lambda: {title() for _ in range(5)} | {a.title for a in Article.objects.all()}) for _ in range(8)]
    assert all(len(titles) == 1 for titles in seen)
    assert set.union(*seen) == {"one", "two"}
    for alias in ("one", "two"):
        replica = replicated.guards.routing.replica(alias)
        assert replica is not None
        assert replica.standing is not None
        assert replica.standing.epoch is not None


def test_a_replica_that_falls_out_in_a_request(replicated: Replicated) -> None:
    """The rest of the request reads from another."""
    replicated.on()

    def read() -> tuple[str, str]:
        before = title()
        replica = replicated.guards.routing.replica(before)
        assert replica is not None
        replica.failed()
        return before, title()

    before, after = request(read)
    assert {before, after} == {"one", "two"}


def test_what_may_write_reads_from_the_primary(replicated: Replicated, switch: Switch) -> None:
    """It reads what it has written: a bypass, work that was admitted, and a transaction that began before."""
    key = switch.inflight.begin()
    with transaction.atomic():
        Article.objects.update(views=1)
        replicated.on()
        assert request(title) == "first"
    assert request(title) in ("one", "two")
    for work in (Work(switch, bypass=True), Work(switch, key=key)):
        with working(work):
            assert request(title) == "first"
            Article.objects.update(views=5)
            assert Article.objects.get().views == 5
    switch.inflight.end(key)


def test_the_command_of_a_run(replicated: Replicated, switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that was let through reads what it has changed."""
    replicated.on()
    assert request(title) in ("one", "two")
    monkeypatch.setattr(Switch, "in_run", property(lambda self: True))
    assert request(title) == "first"
    Article.objects.update(title="migrated")
    assert request(title) == "migrated"


def test_atomic_blocks(replicated: Replicated, switch: Switch) -> None:
    """One that can't write reads like the rest of the request: with ATOMIC_REQUESTS, that is every request."""
    replicated.on()
    with transaction.atomic():
        assert request(title) in ("one", "two")


def test_a_tests_own_transaction(replicated: Replicated) -> None:
    """What `TestCase` has written is nowhere but on the primary."""
    seen: list[str] = []

    class Inside(TestCase):
        databases = "__all__"

        def runTest(self) -> None:
            Article.objects.update(title="of the test")
            replicated.on()
            with read_only_transactions():
                seen.append(request(title))
                with pytest.raises(ReadOnlyError):
                    Article.objects.update(title="x")

    result = unittest.TestResult()
    unittest.TestSuite([Inside()]).run(result)
    assert result.wasSuccessful(), result.errors + result.failures
    assert seen == ["of the test"]


def test_objects_keep_together(replicated: Replicated) -> None:
    """What belongs to an object of the primary is read there; to one of a replica, where the request reads."""
    article = Article.objects.get()
    Comment.objects.create(article=article, text="of the primary")
    replicated.on()
    assert article.comments.all().db == "default"
    assert Comment.objects.select_related("article").get().article._state.db in ("one", "two")
    read = request(Article.objects.get)
    assert read.comments.all().db == read._state.db
    assert Comment.objects.filter(article=read).count() == 1


# --- writes ----------------------------------------------------------------------------------------------------------


def test_where_writes_go(replicated: Replicated, switch: Switch) -> None:
    """Never to a replica: refused with the model's name, and to the primary where they may be made."""
    replicated.on()
    article = request(Article.objects.get)
    assert article._state.db in ("one", "two")
    work = Work(switch)
    with working(work):
        for write in (
            lambda: router.db_for_write(Article),
            lambda: router.db_for_write(Article, instance=article),
            lambda: article.save(),
            lambda: article.delete(),
            lambda: Article.objects.create(title="x"),
            lambda: Article.objects.update(views=1),
            lambda: Article.objects.all().delete(),
            lambda: Article.objects.bulk_create([Article(title="x")]),
            lambda: Article.objects.get_or_create(title="new"),
            lambda: Article.objects.update_or_create(title="one", defaults={"views": 1}),
            lambda: article.comments.create(text="x"),
        ):
            with pytest.raises(ReadOnlyError, match=r"news\.(Article|Comment) can't be written") as refused:
                write()
            assert isinstance(refused.value, DatabaseError)
            assert refused.value.database == "default"
    assert work.escape is not None
    with working(Work(switch, bypass=True)):
        assert router.db_for_write(Article, instance=article) == "default"
        article.title = "written"
        article.save()
    switch.off()
    assert router.db_for_write(Article, instance=article) == "default"
    article.views = 7
    article.save()
    assert Article.objects.using("default").values_list("title", "views").get() == ("written", 7)


def test_a_transaction_that_began_before_may_write(replicated: Replicated, switch: Switch) -> None:
    """The router does not refuse what the guard lets finish."""
    with transaction.atomic():
        Article.objects.update(views=1)
        replicated.on()
        Article.objects.update(views=2)
    with pytest.raises(ReadOnlyError):
        Article.objects.update(views=3)
    assert Article.objects.using("default").get().views == 2


def test_pages_that_only_ask_where_a_model_is_written(replicated: Replicated, switch: Switch) -> None:
    """An unsaved object for a form, what is there already, what a deletion would take along: read, not refused."""
    User.objects.create_superuser("ada")
    replicated.on()
    article = request(Article.objects.get)
    work = Work(switch)
    with working(work):
        assert Comment(article=article)._state.db == "default"
        found, made = Article.objects.get_or_create(title="first")
        assert (found._state.db, made) == ("default", False)
        Comment(article=article, text="x").full_clean()
        asked = RequestFactory().get("/")
        asked.user = User.objects.get()
        get_deleted_objects([article], asked, admin_site)
    assert work.escape is None
    with pytest.raises(ReadOnlyError):
        Comment(article=article, text="x").save()


def test_discarded_models_are_not_refused(make_replicated: Callable[..., Replicated]) -> None:
    """They are dropped later, when it is known what would be written."""
    replicated = make_replicated(discard=["news.PageView", "news.Article.views"])
    replicated.on()
    PageView.objects.create(path="/x")
    HeadlinePageView.objects.create(path="/x")
    Article.objects.update(views=5)
    with pytest.raises(ReadOnlyError):
        Article.objects.update(title="x")
    with pytest.raises(ReadOnlyError):
        Comment.objects.create(article=Article.objects.get(), text="x")


def test_nothing_is_ever_written_to_a_replica(replicated: Replicated, switch: Switch) -> None:
    """Not even while the site is writable, nor by a bypass."""
    replicated.on()
    for work in (Work(switch), Work(switch, bypass=True)):
        with working(work), pytest.raises(ReadOnlyError, match="is a replica, and a write reached it"):
            Article.objects.using("one").update(views=1)
    switch.off()
    with pytest.raises(ReadOnlyError, match="is a replica"):
        Article.objects.using("one").update(views=1)


# --- beside other databases ------------------------------------------------------------------------------------------


def test_models_of_other_databases(replicated: Replicated, switch: Switch) -> None:
    """They are read where the project's other routers say, and refused there as well while read-only."""
    Tag.objects.create(name="x")
    replicated.on()
    assert Tag.objects.get()._state.db == "analytics"
    with pytest.raises(ReadOnlyError) as refused:
        Tag.objects.create(name="y")
    assert refused.value.database == "analytics"


def test_relations(replicated: Replicated) -> None:
    """Within a primary and its copies, and with nothing else."""
    tag = Tag.objects.create(name="x")
    replicated.on()
    on_replica, on_primary = request(Article.objects.get), Article.objects.using("default").get()
    assert router.allow_relation(on_replica, on_primary)
    assert router.allow_relation(on_replica, Article.objects.using("two").get())
    assert not router.allow_relation(on_replica, tag)
    comment = Comment(text="x", article=on_primary)
    comment.article = on_replica
    assert comment._state.db == "default"


def test_migrations(replicated: Replicated) -> None:
    """Replicas get them through their primary."""
    assert router.allow_migrate("default", "news")
    assert router.allow_migrate("analytics", "news")
    assert not router.allow_migrate("one", "news")
    assert not router.allow_migrate_model("two", Article)


def test_without_guards(make_site: Callable[..., Site]) -> None:
    """The router says nothing where nothing is installed."""
    make_site(SQLITE)
    assert installed() is None
    with override_settings(DATABASE_ROUTERS=[ROUTER]):
        assert router.db_for_read(Article) == router.db_for_write(Article) == "default"
        assert router.allow_migrate("default", "news")
        assert title() == "first"


# --- replicas that fail ----------------------------------------------------------------------------------------------


def test_a_replica_that_is_not_there(replicated: Replicated, switch: Switch) -> None:
    """It is left out before a request is sent there, and comes back by itself when its time is over."""
    replicated.on("one")
    assert request(title) == "one"
    epoch = switch.state.epoch
    fresh()
    hidden = replicated.folder / "hidden"
    replica = replicated.guards.routing.replica("one")
    assert replica is not None
    replica.reached(epoch)
    replica._looked_at = float("inf")  # nobody looks for now: it is found out by who reads
    (replicated.folder / "one.db").rename(hidden)
    (replicated.folder / "one.db").mkdir()
    assert request(title) == "first"
    assert replica.left_out
    (replicated.folder / "one.db").rmdir()
    hidden.rename(replicated.folder / "one.db")
    assert request(title) == "first"
    replica._looked_at = replica._out_until = float("-inf")
    assert replica.suspect
    assert request(title) == "one"
    assert not replica.suspect


def test_a_replica_that_fails_under_a_query(make_replicated: Callable[..., Replicated]) -> None:
    """It is done again elsewhere, unless somebody chose that replica; nobody is sent there until it answers again."""
    replicated = make_replicated(patience=0.05)
    replicated.on("one")
    replica = replicated.guards.routing.replica("one")
    assert replica is not None

    def is_read() -> bool:
        """Tell whether it is, now that its time is over; so short of patience, it may be a look that keeps it out."""
        replica._looked_at = replica._out_until = float("-inf")
        return request(title) == "one"

    eventually(is_read, what="the replica is read")
    fresh()
    holder = sqlite3.connect(replicated.folder / "one.db", isolation_level=None)
    # In this mode readers are locked out. Nobody else may have the file open for the change: a look may just do.
    eventually(
        lambda: holder.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",),
        what="nobody else having the replica open",
        ignoring=sqlite3.OperationalError,
    )
    holder.execute("BEGIN EXCLUSIVE")
    replica._looked_at = float("inf")  # nobody looks for now
    with pytest.raises(DatabaseError, match="locked"):
        request(Article.objects.using("one").get)
    assert replica.left_out
    assert request(title) == "first"
    replica._out_until, replica.suspect = float("-inf"), False
    article = request(Article.objects.get)
    assert (article.title, article.comments.count()) == ("first", 0)
    assert replica.left_out
    replica._out_until = float("-inf")
    assert request(title) == "first"  # it was tried, and failed again
    assert replica.left_out
    holder.execute("ROLLBACK")
    holder.close()
    eventually(is_read, what="the replica is read again")


def test_no_epoch_says_what_must_be_there(replicated: Replicated, switch: Switch) -> None:
    """A cause that only this process sees: the primary."""
    replicated.copy(switch.state.epoch)
    switch.detected("default", "found read-only")
    assert switch.state.read_only
    assert request(title) == "first"


def test_what_replicas_hold_can_be_declared(replicated: Replicated) -> None:
    """For servers whose copies say nothing themselves."""
    assert replicated.guards.routing.replica("one") is not None
    replicated.guards.routing.reached("one", 3)
    with pytest.raises(ConfigurationError, match="the replicas are one, two"):
        replicated.guards.routing.reached("default", 3)


@pytest.mark.parametrize(
    ("replicas", "said"),
    [
        ({"default": "one"}, r"one string: write a list, \['one'\]"),
        ({"default": ["nowhere"]}, "'nowhere' is no alias of DATABASES, which has default"),
        ({"nowhere": ["one"]}, "'nowhere' is no alias"),
        ({"default": ["one", "one"]}, "twice"),
        ({"default": ["one"], "one": ["two"]}, "a primary as well as a replica"),
        ({"default": ["default"]}, "a primary as well as a replica"),
        ({"default": ["other"]}, "is postgresql, and 'default' is sqlite"),
        ({"default": ["free"]}, "left out of the guard"),
        ({"default": ["same"]}, "the primary itself"),
    ],
)
def test_replicas_that_can_not_be(
    replicas: dict[str, Any], said: str, make_site: Callable[..., Site], switch: Switch, tmp_path: Path
) -> None:
    """Start-up stops, and names the alias."""
    extra = {alias: settings_of(f"sqlite:///{tmp_path}/{alias}.db") for alias in ("one", "two", "free")}
    extra["other"] = settings_of("postgresql://u@127.0.0.1:1/x")
    extra["same"] = settings_of(f"sqlite:///{tmp_path}/site.db")
    make_site(SQLITE, extra=extra)
    with pytest.raises(ConfigurationError, match=said):
        install(switch, replicas=replicas, unguarded=["free"])
    assert not switch.guarded


@pytest.mark.parametrize(
    ("unguarded", "said"), [("default", "one string: write a list"), (["nowhere"], "no alias of DATABASES")]
)
def test_aliases_that_can_not_be(unguarded: Any, said: str, make_site: Callable[..., Site], switch: Switch) -> None:
    """The same for those that are left out."""
    make_site(SQLITE)
    with pytest.raises(ConfigurationError, match=said):
        install(switch, unguarded=unguarded)


def test_pins_are_of_one_request(replicated: Replicated) -> None:
    """A request begins without one."""
    replicated.on()
    request(title)
    assert routing_module._pinned.get()
    request_started.send(sender=None)
    assert routing_module._pinned.get() is None


def test_replicas_of_postgresql(make_site: Callable[..., Site], switch: Switch, postgres_pair: Any) -> None:
    """A real standby is read by itself, as long as it has the migrations that this process was written for."""
    primary, standby = postgres_pair.primary, postgres_pair.standby
    name = primary.new_database()
    primary.sql("CREATE TABLE news_article (id int, title text, views int, seen_at timestamptz)", database=name)
    primary.sql("INSERT INTO news_article VALUES (1, 'first', 0, NULL)", database=name)
    primary.sql("CREATE TABLE django_migrations (id int, app text, name text)", database=name)
    postgres_pair.wait_replayed()
    extra = {"main": settings_of(primary.url(name)), "standby": settings_of(standby.url(name))}
    make_site(SQLITE, extra=extra)

    class Main:
        def db_for_read(self, model: Any, **hints: Any) -> str:
            return "main"

        db_for_write = db_for_read

    try:
        with override_settings(DATABASE_ROUTERS=[ROUTER, Main()]):
            guards = install(switch, replicas={"main": ["standby"]}, schema="django")
            switch.on()
            assert request(Article.objects.get)._state.db == "main"

            def unfit() -> str:
                [found] = guards.routing.watch("main").describe()["replicas"]
                return str(found["unfit"])

            eventually(lambda: "(none)" in unfit(), 10.0, what="it was looked at")
            for number, (app, migration) in enumerate(MigrationLoader(None).graph.leaf_nodes()):
                primary.sql(f"INSERT INTO django_migrations VALUES ({number}, '{app}', '{migration}')", database=name)
            eventually(lambda: request(Article.objects.get)._state.db == "standby", 10.0, what="it has this code's")
            with pytest.raises(ReadOnlyError):
                Article.objects.using("standby").update(views=1)
            assert connections["standby"].vendor == "postgresql"
    finally:
        fresh()
        primary.drop_database(name)
