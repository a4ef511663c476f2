"""The guard of Django's databases: while read-only, no alias is written but those that are left out.

For `AppConfig.ready`:

    guards = install(switch, unguarded=["queue"], replicas={"default": ["replica"]}, discard=["blog.PageView"])
    ...
    uninstall()
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_started
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from readonly.databases import Pooler
from readonly.databases.replicas import LAG_SECONDS, Schema
from readonly.errors import ConfigurationError
from readonly.switch import Switch

from . import _drivers
from ._drivers import held_of
from ._guards import Guard, Guards
from ._held import Held
from ._wrapper import hooks_of

__all__ = ["Guard", "Guards", "install", "installed", "read_only_transactions", "uninstall"]

logger = logging.getLogger("readonly")

_installed: Guards | None = None
_installing = threading.Lock()
# Django's own. It is the one method through which each connection object, of any thread, comes to its connection.
_connect = BaseDatabaseWrapper.connect


def install(
    switch: Switch,
    *,
    unguarded: Sequence[str] = (),
    replicas: Mapping[str, Sequence[str]] | None = None,
    discard: Sequence[str] = (),
    always: bool = False,
    schema: Schema | str | None = None,
    max_lag: float = LAG_SECONDS,
    none_fit: str = "primary",
    poolers: Mapping[str, Pooler] | None = None,
) -> Guards:
    """Guard all databases of this process; see `Guards`. Call it when the models are loaded, once.

    Raises:
        ConfigurationError: An argument can't be right; nothing is guarded then.
    """
    global _installed
    with _installing:
        if _installed is not None:
            raise ConfigurationError("install() was called before: uninstall() the guards that are in place first")
        guards = Guards(
            switch,
            unguarded=unguarded,
            replicas=replicas,
            discard=discard,
            always=always,
            schema=schema,
            max_lag=max_lag,
            none_fit=none_fit,
            poolers=poolers,
            present=installed,
        )
        BaseDatabaseWrapper.connect = connect  # type: ignore[method-assign,assignment]  # what it is for
        request_started.connect(guards.routing.forget, dispatch_uid="readonly.routing")
        guards.discards.hook(guards)
        _installed = guards
    for wrapper in connections.all(initialized_only=True):
        _adopt_connected(guards, wrapper)
    return guards


def uninstall() -> None:
    """Take it all back; nothing to do if nothing is installed."""
    global _installed
    with _installing:
        guards, _installed = _installed, None
        if guards is None:
            return
        BaseDatabaseWrapper.connect = _connect  # type: ignore[method-assign]
        request_started.disconnect(dispatch_uid="readonly.routing")
        guards.discards.unhook()
        guards.close()
    for wrapper in connections.all(initialized_only=True):
        hooks = hooks_of(wrapper)
        if hooks is not None:
            hooks.remove()
        guards.rehearsing.unhook(wrapper)
        if guards.routing.retry in wrapper.execute_wrappers:
            wrapper.execute_wrappers.remove(guards.routing.retry)


def installed() -> Guards | None:
    """Return the guards that are in place in this process."""
    return _installed


def connect(wrapper: BaseDatabaseWrapper) -> None:
    """Stand in for `BaseDatabaseWrapper.connect`."""
    guards = _installed
    if guards is None:
        _connect(wrapper)
        return
    guards.adopt(wrapper)
    guard = guards.guard(wrapper.alias, wrapper)
    try:
        _connect(wrapper)
    except ImproperlyConfigured:
        raise
    except Exception:
        if guard is not None and guard.replica is not None:
            guard.replica.failed()
        raise


def _adopt_connected(guards: Guards, wrapper: Any) -> None:
    """Take in a connection that was opened before: at start-up there is hardly one."""
    guards.adopt(wrapper)
    hooks = hooks_of(wrapper)
    if hooks is None or wrapper.connection is None or held_of(wrapper.connection) is not None:
        return
    if wrapper.vendor != "sqlite":
        _drivers.attach(wrapper.connection, hooks.guard, wrapper.alias)
    elif wrapper.in_atomic_block or wrapper.is_in_memory_db():
        logger.warning(
            "readonly: the connection to %r was opened before the guard was installed, and can't be guarded as it is; "
            "it is from when it is opened anew",
            wrapper.alias,
        )
    else:
        wrapper.close()


@contextmanager
def read_only_transactions() -> Iterator[None]:
    """Make what is open on this thread's connections read-only for a block; for tests that run in one transaction.

    `TestCase` wraps each test in a transaction that began while the site was writable, and such a one may be
    finished. Inside this block it may not write and is not counted; afterwards it is as it was. PostgreSQL gives it a
    savepoint that can't write, which goes for a bypass, too. MySQL and MariaDB can't do it, and a warning says so:
    there it takes a `TransactionTestCase` to see a write refused by the database.
    """
    with ExitStack() as stack:
        for wrapper in connections.all(initialized_only=True):
            held = held_of(wrapper.connection)
            if _installed is not None and held is not None and held.may_write:
                stack.enter_context(_paused(wrapper, held))
        yield


@contextmanager
def _paused(wrapper: Any, held: Held) -> Iterator[None]:
    if wrapper.vendor == "mysql":
        logger.warning(
            "readonly: the transaction that is open on %r stays one that may write: this server can't make it "
            "read-only in its middle; test refused writes in a TransactionTestCase",
            wrapper.alias,
        )
        yield
        return
    savepoint = wrapper.savepoint() if wrapper.vendor == "postgresql" else None
    held.pause(wrapper.connection)
    try:
        yield
    finally:
        if savepoint is not None:
            # Nothing was written; and where an error was left standing, this ends it.
            wrapper.savepoint_rollback(savepoint)
            wrapper.savepoint_commit(savepoint)
        held.resume(wrapper.connection)
