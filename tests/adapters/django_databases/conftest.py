"""Django's databases on three servers: the same tests run over all of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pymysql
import pytest
from django.db import connection, connections, transaction

from readonly import Switch
from readonly_django.databases import Guards, install, uninstall
from support.django_site.aliases import create_tables, databases, settings_of
from support.django_site.models import Article, PageView
from support.mariadb_server import MariaDBServer
from support.postgres_server import PostgresServer

SQLITE, POSTGRESQL, MYSQL = "sqlite", "postgresql", "mysql"
ALL = (SQLITE, POSTGRESQL, MYSQL)

# As a project does that has no mysqlclient; Django looks at the version.
pymysql.version_info = (2, 2, 7, "final", 0)
pymysql.install_as_MySQLdb()

Entry = dict[str, Any]


@pytest.fixture
def switch() -> Iterator[Switch]:
    """A writable site of one process."""
    switch = Switch.from_url("memory://?site=tests")
    switch.start()
    assert switch.confirm(timeout=10).safe
    yield switch
    switch.close()


@pytest.fixture(scope="session")
def postgres_tables(postgres: PostgresServer) -> Iterator[str]:
    """One database for this folder, with all tables."""
    name = postgres.new_database()
    with databases(default=settings_of(postgres.url(name))):
        create_tables()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def mysql_tables(mariadb: MariaDBServer) -> Iterator[str]:
    """The same on MariaDB, as a user who may do nothing elsewhere."""
    name = mariadb.new_database()
    user = f"{name}_app"
    mariadb.sql(f"CREATE USER {user}@'127.0.0.1'; GRANT ALL ON {name}.* TO {user}@'127.0.0.1'")
    with databases(default=settings_of(mariadb.url(name, user=user))):
        create_tables()
    yield mariadb.url(name, user=user)
    mariadb.drop_database(name)
    mariadb.sql(f"DROP USER {user}@'127.0.0.1'")


@pytest.fixture(scope="session")
def sqlite_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all tables, to be copied: making them takes longer."""
    path = tmp_path_factory.mktemp("django") / "site.db"
    with databases(default=settings_of(f"sqlite:///{path}")):
        create_tables()
    return path


class Site:
    """The project's `default` database, on one kind of server; further databases beside it if a test wants them."""

    def __init__(self, vendor: str, url: str) -> None:
        self.vendor = vendor
        self.url = url
        self.on_postgresql = vendor == POSTGRESQL

    def entry(self, **more: Any) -> Entry:
        """Return its entry of DATABASES."""
        if self.vendor == SQLITE:
            # Nobody pulls the plug in a test.
            more["OPTIONS"] = {"init_command": "PRAGMA synchronous = OFF", **more.get("OPTIONS", {})}
        return settings_of(self.url, **more)

    def count(self) -> int:
        """Count the articles, as the server itself has them."""
        return int(Article.objects.using("default").count())


@pytest.fixture
def make_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Put a database with one article behind `default`: `make_site(vendor, extra={...}, **settings_of_default)`."""
    blocks: list[Any] = []

    def make(vendor: str, *, extra: dict[str, Entry] | None = None, **more: Any) -> Site:
        if vendor == SQLITE:
            path = tmp_path / "site.db"
            shutil.copy(request.getfixturevalue("sqlite_tables"), path)
            url = f"sqlite:///{path}"
        else:
            url = request.getfixturevalue("postgres_tables" if vendor == POSTGRESQL else "mysql_tables")
        site = Site(vendor, url)
        block = databases(default=site.entry(**more), **(extra or {}))
        block.__enter__()
        blocks.append(block)
        if vendor == POSTGRESQL:
            with connection.cursor() as cursor:
                tables = ", ".join(f'"{t}"' for t in connection.introspection.table_names(cursor))
                cursor.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
        elif vendor == MYSQL:
            with connection.constraint_checks_disabled(), connection.cursor() as cursor:
                for table in connection.introspection.table_names(cursor):
                    cursor.execute(f"DELETE FROM {table}")
                    cursor.execute(f"ALTER TABLE {table} AUTO_INCREMENT = 1")
        Article.objects.create(title="first")
        return site

    yield make
    uninstall()
    for block in blocks:
        block.__exit__(None, None, None)


@pytest.fixture(params=ALL)
def vendor(request: pytest.FixtureRequest) -> str:
    """Each kind of server in turn."""
    return str(request.param)


@pytest.fixture
def site(vendor: str, make_site: Callable[..., Site]) -> Site:
    """A database of each kind in turn, behind `default`."""
    return make_site(vendor)


@pytest.fixture
def guards(site: Site, switch: Switch) -> Guards:
    """That database, guarded."""
    return install(switch)


def driver() -> Any:
    """Return the driver's module, with its errors as PEP 249 has them."""
    wrapper: Any = connections["default"]
    return wrapper.Database


def fresh() -> None:
    """Close this thread's connections, as the end of a request does."""
    for wrapper in connections.all(initialized_only=True):
        wrapper.close()


def raw() -> Any:
    """Return the driver's connection of `default`."""
    connection.ensure_connection()
    return connection.connection


def articles(count: int, title: str = "x") -> Sequence[Article]:
    """Return articles that are not saved yet."""
    return [Article(title=title) for _ in range(count)]


INSERT = "INSERT INTO news_article (title, views) VALUES ('x', 0)"


# What an application does to write.
ORM_WRITES: tuple[Callable[[Article], object], ...] = (
    lambda article: Article.objects.create(title="x"),
    lambda article: Article.objects.bulk_create(articles(3)),
    lambda article: Article.objects.update(views=1),
    lambda article: Article.objects.filter(pk=0).update(views=1),
    lambda article: Article.objects.bulk_update([article], ["title"]),
    lambda article: PageView.objects.all().delete(),
    lambda article: Article.objects.get_or_create(title="new"),
    lambda article: Article.objects.update_or_create(title="first", defaults={"views": 3}),
    lambda article: article.save(),
    lambda article: article.save(update_fields=["views"]),
    lambda article: article.tags.create(name="x"),
    lambda article: Article(pk=77, title="x").save(force_insert=True),
    lambda article: article.delete(),
)


def execute(statement: str) -> None:
    """Run a statement through Django's cursor."""
    with connection.cursor() as cursor:
        cursor.execute(statement)


def send(found: Any, statement: str) -> Any:
    """Run a statement on a driver's connection; return its cursor."""
    if connection.vendor != MYSQL:
        return found.execute(statement)
    cursor = found.cursor()
    cursor.execute(statement)
    return cursor


def in_transaction(atomic: bool) -> AbstractContextManager[object]:
    """Return an atomic block, or none."""
    return transaction.atomic() if atomic else nullcontext()


def in_thread(body: Callable[[], Any]) -> Any:
    """Run a body in a thread of its own, and close what it has opened there."""

    def run() -> Any:
        try:
            return body()
        finally:
            fresh()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def left_over() -> tuple[object, ...]:
    """Return what a connection keeps that could make it refuse."""
    found = raw()
    if connection.vendor == SQLITE:
        return tuple(found.execute("PRAGMA query_only").fetchone())
    if connection.vendor == MYSQL:
        with found.cursor() as cursor:
            cursor.execute("SELECT @@session.tx_read_only")
            return tuple(cursor.fetchone())
    # Asked first: it is put back when the connection is used.
    said = found.execute("SELECT setting, source FROM pg_settings WHERE name = 'default_transaction_read_only'")
    return (*said.fetchone(), found.read_only)


def guards_prove(switch: Switch) -> list[str]:
    """Ask each guard for its proof, as the switch does: in a thread of its own."""
    return [in_thread(guard.prove) for guard in switch.guards]
