"""The settings of an ordinary Django site, without `readonly`: what a measurement is compared with."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from demo_app import pages
from demo_app.settings import Settings
from demo_app.sqlite_setup import PRAGMAS

HERE = Settings.from_env()

SECRET_KEY = HERE.secret
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "demo_app.on_django.urls"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "demo_app.on_django.apps.Touchline",
]
# No CsrfViewMiddleware: the load is the same for every framework and sends no token; SameSite=Lax has to do here.
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "demo_app.on_django.middleware.RememberMiddleware",
    "demo_app.on_django.middleware.TroubleMiddleware",
]
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.jinja2.Jinja2",
        "DIRS": [pages.TEMPLATES],
        "OPTIONS": {
            "environment": "demo_app.pages.environment",
            "context_processors": ["demo_app.on_django.parts.not_switchable"],
        },
    }
]

AUTH_USER_MODEL = "touchline.Account"
# Sessions are rows, and messages travel in them: what many sites have, and what writes most.
SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_COOKIE_NAME = "session"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"


def sqlite(path: object) -> dict[str, Any]:
    """Return the settings of an SQLite file that several processes read and write."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "timeout": 10,
            "init_command": ";".join(f"PRAGMA {pragma}" for pragma in PRAGMAS),
            "transaction_mode": "IMMEDIATE",
        },
    }


def postgresql(url: str) -> dict[str, Any]:
    """Return the settings of a PostgreSQL database."""
    found = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": found.hostname or "",
        "PORT": str(found.port or ""),
        "USER": unquote(found.username or ""),
        "PASSWORD": unquote(found.password or ""),
        "NAME": found.path.lstrip("/"),
        "CONN_MAX_AGE": None,
    }


DATABASES = {"default": postgresql(HERE.server) if HERE.server else sqlite(HERE.database)}
