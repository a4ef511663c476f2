"""`manage.py check`: what is wrong with how the read-only mode is set up, each with the fix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any, Final

from django.apps import apps
from django.conf import settings as django_settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Warning
from django.urls import URLPattern, URLResolver, get_resolver

from readonly.errors import Error as ReadonlyError
from readonly.stores import redacted, store_from_url

from . import conf
from .conf import MIDDLEWARE
from .logins import login_marks

TAG: Final = "readonly"
_DATABASE_CACHE: Final = "django.core.cache.backends.db.DatabaseCache"
# Applications whose queue, results or schedule are rows of the site's own database.
_QUEUES: Final = {
    "background_task": "django-background-tasks",
    "django_celery_beat": "django-celery-beat",
    "django_celery_results": "django-celery-results",
    "django_q": "Django Q",
    "django_tasks.backends.database": "django-tasks",
    "django_tasks_db": "django-tasks-db",
    "mailer": "django-mailer",
    "post_office": "django-post-office",
    "procrastinate.contrib.django": "procrastinate",
}


def register() -> None:
    """Have Django ask all of them."""
    for check in (middleware, store, logins, caches, queues, replicas, owners):
        checks.register(check, TAG)
    checks.register(memory, TAG, deploy=True)


def middleware(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """The middleware is there, once and first."""
    places: Sequence[str] = django_settings.MIDDLEWARE
    if MIDDLEWARE not in places:
        return [
            Error(
                "readonly_django is installed, and its middleware is not in MIDDLEWARE: nothing is refused.",
                hint=f"Put {MIDDLEWARE!r} first into MIDDLEWARE.",
                id="readonly_django.E001",
            )
        ]
    if places.count(MIDDLEWARE) > 1:
        return [
            Warning(
                f"{MIDDLEWARE!r} is {places.count(MIDDLEWARE)} times in MIDDLEWARE: requests are judged and counted by "
                "each of them.",
                hint="Leave it in once, as the first.",
                id="readonly_django.W002",
            )
        ]
    if places[0] != MIDDLEWARE:
        return [
            Warning(
                f"{places[0]!r} comes before {MIDDLEWARE!r}: it sees sessions that are over, and requests that are "
                "about to be refused.",
                hint=f"Put {MIDDLEWARE!r} first into MIDDLEWARE.",
                id="readonly_django.W002",
            )
        ]
    return []


def store(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """A store is named, answers, and knows the site."""
    url = conf.settings().store
    if not url:
        return [
            Error(
                "No store is set for the read-only mode: the server will not start.",
                hint='Set READONLY = {"STORE": "redis://flag.internal/0?site=shop"}, or READONLY_STORE in the '
                "environment; in tests memory://.",
                id="readonly_django.E003",
            )
        ]
    try:
        found = store_from_url(url, create=False)
    except ReadonlyError as error:
        return [Error(f'READONLY["STORE"]: {error}', id="readonly_django.E003")]
    try:
        if found.read().record is None:
            return [
                Warning(
                    f"The store {redacted(url)} holds no record for the site {found.site!r}: writes are refused.",
                    hint=f"A new site needs its first record: python manage.py readonly init {found.site}",
                    id="readonly_django.W004",
                )
            ]
    except ReadonlyError as error:
        hint = "A process that starts now serves reads and refuses writes until it has read the state."
        if isinstance(error.__cause__, FileNotFoundError):
            # A site that starts makes the file, and is writable: with a mistyped path it obeys a file of its own.
            hint = f"New site? python manage.py readonly init {found.site}. Else look at the path."
        return [
            Warning(
                f"The store of the read-only mode can't be asked: {error}",
                hint=hint,
                id="readonly_django.W004",
            )
        ]
    finally:
        found.close()
    return []


def logins(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """It is known where people sign in."""
    if not apps.is_installed("django.contrib.auth") or conf.settings().policy.get("login"):
        return []
    try:
        found = conf.settings().find_logins and any(login_marks(view) for view in views(get_resolver()))
    except Exception:
        return []  # a URLconf that can't be loaded is reported by Django
    if found:
        return []
    return [
        Warning(
            "Nobody knows where people sign in: no view of django.contrib.auth, the admin or allauth is in the "
            "URLconf, and none is listed.",
            hint='List the paths: READONLY = {"LOGIN": ["/api/login", "GET /sso/callback"], ...}. Whatever is not GET '
            "is refused all the same, but a GET that signs somebody in is not known to.",
            id="readonly_django.W005",
        )
    ]


def caches(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """No cache writes to the database for being read."""
    in_database = [alias for alias, cache in django_settings.CACHES.items() if cache.get("BACKEND") == _DATABASE_CACHE]
    found: list[CheckMessage] = []
    engine = django_settings.SESSION_ENGINE
    if engine.endswith((".cache", ".cached_db")) and django_settings.SESSION_CACHE_ALIAS in in_database:
        found.append(
            Warning(
                f"Sessions are in the cache {django_settings.SESSION_CACHE_ALIAS!r}, which is a table of the "
                "database: reading one may write.",
                hint="Keep sessions in the database itself (SESSION_ENGINE = 'django.contrib.sessions.backends.db'), "
                "or in a cache that is none.",
                id="readonly_django.W006",
            )
        )
    if in_database:
        found.append(
            Warning(
                f"CACHES {', '.join(map(repr, in_database))}: a cache in the database is written to by pages that only "
                "read. Where the database is guarded, those pages fail while the site is read-only.",
                hint="Use a cache outside of the database; or give it a database of its own, and name that in "
                'READONLY["UNGUARDED"].',
                id="readonly_django.W007",
            )
        )
    return found


def queues(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """No queue is in the database that is read-only."""
    return [
        Warning(
            f"{name} keeps its rows in the database: while the site is read-only, its workers can't take a job, nor "
            "say that one is done.",
            hint="Stop its workers for that time, or have them wait: switch.wait_writable() before a job is fetched. "
            'With a database of its own, name that in READONLY["UNGUARDED"].',
            id="readonly_django.W008",
        )
        for app, name in _QUEUES.items()
        if apps.is_installed(app)
    ]


def replicas(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """What the settings name are aliases."""
    said = conf.settings()
    named = {
        "REPLICAS": [alias for primary, found in said.replicas.items() for alias in (primary, *found)],
        "UNGUARDED": list(said.unguarded),
        "POOLERS": list(said.poolers),
    }
    return [
        Error(
            f'READONLY["{setting}"] names {alias!r}, which is no alias of DATABASES.',
            hint=f"DATABASES has {', '.join(map(repr, django_settings.DATABASES))}.",
            id="readonly_django.E009",
        )
        for setting, aliases in named.items()
        for alias in aliases
        if alias not in django_settings.DATABASES
    ]


def owners(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """No other distribution has overwritten the library."""
    found = sorted(set(metadata.packages_distributions().get("readonly", ())))
    if len(found) < 2:
        return []
    return [
        Warning(
            f"{' and '.join(found)} both install a package called readonly: files of one are overwritten.",
            hint="Uninstall the other one, then install readonly-mode again: pip install --force-reinstall "
            "readonly-mode",
            id="readonly_django.W010",
        )
    ]


def memory(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """A site of several processes has a store that all of them see."""
    if not conf.settings().store.startswith("memory:"):
        return []
    return [
        Warning(
            "The store memory:// is in one process: no other one, and no command, sees it.",
            hint="Use Redis, or an SQLite file where all processes are on one machine.",
            id="readonly_django.W011",
        )
    ]


def views(resolver: URLResolver) -> Iterator[Any]:
    """Yield every view of a URLconf."""
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from views(pattern)
        elif isinstance(pattern, URLPattern):
            yield pattern.callback
