"""The databases of Flask-SQLAlchemy 3: each bind is guarded, and reads go to binds that are replicas.

The extension is found in `app.extensions`; nothing of it, or of SQLAlchemy, is imported before it is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app, has_app_context

from readonly.errors import ConfigurationError
from readonly.switch import Switch

from .settings import BindKey, Settings

if TYPE_CHECKING:
    from readonly.databases.sqlalchemy import Database

# On a session class that asks which application a session is for.
_ASKS = "__readonly_asks__"
EXTENSION = "readonly"


def guard(app: Flask, switch: Switch, settings: Settings) -> dict[BindKey, Database]:
    """Guard every bind that is not a replica, inside the application's context; return them by their keys.

    Raises:
        ConfigurationError: A setting names a bind that is not there, or a bind's server can't be guarded.
    """
    from readonly.databases.sqlalchemy import Database
    from readonly.databases.sqlalchemy._discard import Discards

    extension: Any = app.extensions["sqlalchemy"]
    engines: Mapping[BindKey, Any] | None = getattr(extension, "engines", None)
    if engines is None:
        raise ConfigurationError(
            "app.extensions['sqlalchemy'] is not of Flask-SQLAlchemy 3: its databases can't be guarded; set "
            "READONLY_GUARD = False, and guard their engines with readonly.databases.sqlalchemy.Database."
        )
    replicas = settings.replicas or {}
    _check_known("READONLY_UNGUARDED", settings.unguarded, engines)
    _check_known("READONLY_POOLERS", settings.poolers, engines)
    _check_known("READONLY_REPLICAS", [*replicas, *(key for keys in replicas.values() for key in keys)], engines)
    _check_replicas(replicas, settings)
    try:
        Discards(settings.discard)
    except ConfigurationError as error:
        raise ConfigurationError(f"READONLY_DISCARD: {error}") from error
    copies = {key for keys in replicas.values() for key in keys}
    guarded: dict[BindKey, Database] = {}
    try:
        for key, engine in engines.items():
            if key in copies or key in settings.unguarded:
                continue
            try:
                guarded[key] = Database(
                    engine,
                    switch,
                    replicas=[engines[copy] for copy in replicas.get(key, ())],
                    discard=settings.discard,
                    always=settings.replicas_always,
                    schema=settings.replicas_schema,
                    max_lag=settings.replicas_max_lag,
                    none_fit=settings.replicas_none_fit,
                    pooler=settings.poolers.get(key),
                    name=_free_name(switch, key),
                )
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"bind {key!r} of Flask-SQLAlchemy: {error}; READONLY_UNGUARDED = [{key!r}] leaves it alone"
                ) from error
    except BaseException:
        close(guarded)
        raise
    return guarded


def close(databases: dict[BindKey, Database]) -> None:
    """Take the guards off again."""
    while databases:
        databases.popitem()[1].close()


def _free_name(switch: Switch, key: BindKey) -> str:
    """Return a name that no other database of this switch has: applications may share one."""
    base = "main" if key is None else key
    taken = {guard.name for guard in switch.guards}
    names = (base, *(f"{base}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def _check_known(setting: str, named: Iterable[BindKey], engines: Mapping[BindKey, Any]) -> None:
    for key in named:
        if key not in engines:
            known = ", ".join("None (SQLALCHEMY_DATABASE_URI)" if k is None else repr(k) for k in engines)
            raise ConfigurationError(f"{setting}: {key!r} is no bind of this application; its binds are {known}.")


def _check_replicas(replicas: Mapping[BindKey, Sequence[str]], settings: Settings) -> None:
    seen: set[str] = set()
    for primary, keys in replicas.items():
        for key in keys:
            if key in replicas or key in seen or key in settings.unguarded:
                raise ConfigurationError(
                    f"READONLY_REPLICAS: {key!r} stands for two things: a bind is a primary, or the replica of one "
                    "primary, or left alone."
                )
            seen.add(key)
        if primary in settings.unguarded:
            raise ConfigurationError(
                f"READONLY_REPLICAS names replicas of {primary!r}, and READONLY_UNGUARDED leaves that alone: "
                "take it out of one of them."
            )


# --- routing ----------------------------------------------------------------------------------------------------------


def route(app: Flask, databases: Mapping[BindKey, Database], settings: Settings) -> type[Any] | None:
    """Let the extension's sessions read from replicas; return the class of this application's sessions.

    `db.session` is one for all applications that share `db`, its engines are each application's own. So the session
    class of `db` is replaced once, by one that asks which application a session is for; where there is no replica,
    nothing is replaced.
    """
    routed = [database for key, database in databases.items() if (settings.replicas or {}).get(key)]
    if not routed:
        return None
    factory = app.extensions["sqlalchemy"].session.session_factory
    if not hasattr(factory.class_, _ASKS):
        factory.class_ = _asking(factory.class_)
    session_class: type[Any] = factory.class_
    for database in routed:
        session_class = database.routing(session_class)
    return session_class


def _asking(session_class: type[Any]) -> type[Any]:
    """Return a session class whose sessions are of the class of the application that they are for."""

    def new(cls: type[Any], *args: Any, **kwargs: Any) -> Any:
        chosen = None
        if cls is asking and has_app_context():
            chosen = getattr(current_app.extensions.get(EXTENSION), "session_class", None)
        # Of another `db`, whose sessions have another class, it is none.
        if chosen is None or not issubclass(chosen, cls):
            chosen = cls
        return object.__new__(chosen)

    asking: type[Any] = type(session_class.__name__, (session_class,), {"__new__": new, _ASKS: True})
    asking.__module__ = session_class.__module__
    return asking
