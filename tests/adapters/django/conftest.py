"""The tests' Django project with the adapter's middleware, over a database of its own, and its visitors."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from functools import partial
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.test import AsyncClient, Client, override_settings

from readonly import Switch
from readonly_django import conf
from readonly_django.test import override_readonly
from support.django_site import SETTINGS, views
from support.django_site.aliases import create_tables, databases, settings_of
from support.django_site.models import Article

OURS = "readonly_django.middleware.ReadOnlyMiddleware"
SESSION, *OTHERS = SETTINGS["MIDDLEWARE"]
FIRST = [OURS, SESSION, "django.middleware.locale.LocaleMiddleware", *OTHERS]
KINDS = ("sync", "async")


class Visitor:
    """Asks the project, through WSGI's handler or ASGI's; keeps its cookies as a browser does."""

    def __init__(self, kind: str = "sync", **options: Any) -> None:
        self.kind = kind
        self.client: Any = Client(**options) if kind == "sync" else AsyncClient(**options)

    def __call__(self, method: str, path: str, data: Any = None, **headers: str) -> Any:
        """Send a request; underscores in the names of headers stand for hyphens."""
        send = self.client.generic
        if data is not None:
            send = getattr(self.client, method.lower())
        if self.kind == "async":
            send = async_to_sync(partial(_awaited, send))
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            return self._answered(send(path, data, headers=sent))
        return self._answered(send(method, path, headers=sent))

    def get(self, path: str, **headers: str) -> Any:
        """Send a GET."""
        return self("GET", path, **headers)

    def post(self, path: str, data: Any = None, **headers: str) -> Any:
        """Send a POST."""
        return self("POST", path, data, **headers)

    @property
    def cookies(self) -> SimpleCookie:
        """What it has been given."""
        found: SimpleCookie = self.client.cookies
        return found

    def signs_in(self, user: User) -> None:
        """Have a session, as after a login."""
        self.client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")

    def _answered(self, response: Any) -> Any:
        # Django's clients keep what they are told to forget.
        for name, cookie in list(self.cookies.items()):
            if cookie["max-age"] in (0, "0"):
                del self.cookies[name]
        return response


async def _awaited(send: Any, *args: Any, **kwargs: Any) -> Any:
    return await send(*args, **kwargs)


class Witness:
    """Sees, from a connection of its own, whether anybody has committed a change to an SQLite database."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        self._last = self._version()

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def saw_a_write(self) -> bool:
        """Return whether something was written since it was last asked."""
        before, self._last = self._last, self._version()
        return before != self._last

    def close(self) -> None:
        """Let go."""
        self._connection.close()


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all tables, to be copied: making them takes longer."""
    path = tmp_path_factory.mktemp("django") / "site.db"
    with databases(default=settings_of(f"sqlite:///{path}")):
        create_tables()
    return path


@pytest.fixture
def database(tables: Path, tmp_path: Path) -> Iterator[Path]:
    """A database of this test's own behind `default`."""
    path = tmp_path / "site.db"
    shutil.copy(tables, path)
    with databases(default=settings_of(f"sqlite:///{path}")):
        # Remembered from the database before.
        ContentType.objects.clear_cache()
        yield path


@pytest.fixture
def project(database: Path) -> Iterator[None]:
    """The project, the middleware first."""
    views.SEEN.clear()
    views.GO_ON.clear()
    views.WAITS.clear()
    before = conf.current_switch().inflight.keys()
    settings = override_settings(MIDDLEWARE=FIRST, ROOT_URLCONF="support.django_site.views")
    # A store of its own as well: one that was ever switched has ended every session from before.
    with settings, override_readonly(False):
        yield
    left = conf.current_switch().inflight.keys() - before
    assert not left, "a write was left in flight"


@pytest.fixture
def switch(project: None) -> Switch:
    """The process's switch."""
    return conf.current_switch()


@pytest.fixture
def witness(database: Path) -> Iterator[Witness]:
    """Whoever sees writes."""
    witness = Witness(database)
    yield witness
    witness.close()


@pytest.fixture(params=KINDS)
def visitor(request: pytest.FixtureRequest, project: None) -> Visitor:
    """A visitor of each handler in turn."""
    return Visitor(str(request.param))


@pytest.fixture
def ada(project: None) -> User:
    """Somebody with an account."""
    return User.objects.create_user("ada", password="secret")


@pytest.fixture
def article(project: None) -> Article:
    """An article."""
    return Article.objects.create(title="first")
