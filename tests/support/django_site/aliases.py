"""Puts databases behind Django's aliases for a test, and takes them away again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from django.db import connections
from django.db.utils import ConnectionHandler


def settings_of(url: str, **more: Any) -> dict[str, Any]:
    """Return the entry of DATABASES for a URL: `sqlite:////path`, or `postgresql://` or `mysql://user@host:port/name`.

    The one of MySQL needs a driver that calls itself MySQLdb.
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": parts.path.removeprefix("/"), **more}
    return {
        "ENGINE": f"django.db.backends.{parts.scheme}",
        "NAME": parts.path.removeprefix("/"),
        "USER": parts.username or "",
        "PASSWORD": parts.password or "",
        "HOST": parts.hostname or "",
        "PORT": parts.port or "",
        **more,
    }


@contextmanager
def databases(**entries: dict[str, Any]) -> Iterator[None]:
    """Make these the only databases of the project, in all threads, until the block ends."""
    handler: Any = connections
    found = dict(handler.settings)
    _replace(handler, ConnectionHandler({"default": {}, **entries}).settings)
    try:
        yield
    finally:
        _replace(handler, found)


def _replace(handler: Any, settings: dict[str, Any]) -> None:
    for wrapper in handler.all(initialized_only=True):
        wrapper.close()
        if getattr(wrapper, "pool", None):
            wrapper.close_pool()
        del handler[wrapper.alias]
    handler.settings.clear()
    handler.settings.update(settings)


def create_tables(alias: str = "default") -> None:
    """Make the tables of all applications, without migrations, which would take seconds."""
    from django.apps import apps

    wrapper = connections[alias]
    with wrapper.schema_editor() as editor:
        for model in apps.get_models():
            if model._meta.managed and not model._meta.proxy and not model._meta.swapped:
                editor.create_model(model)
