"""The replicas of an engine: how each is looked at, in the background, beside the application's own connections."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.util import greenlet_spawn

from readonly.databases.replicas import Replica, Replicas, Schema
from readonly.databases.replicas import sqlite as copies
from readonly.databases.replicas.reaching import LOOK_SECONDS, LOOKS, DirectReach, Reach
from readonly.databases.replicas.schema import unreachable_standby
from readonly.databases.replicas.watching import Watch
from readonly.errors import ConfigurationError
from readonly.switch import Switch

_bounded: ContextVar[bool] = ContextVar("readonly_replicas_bounded", default=False)


class Watched:
    """A primary's engine and its replicas', watched until `close`."""

    def __init__(
        self,
        name: str,
        switch: Switch,
        primary: Engine,
        replicas: Sequence[Engine],
        *,
        path_of: Callable[[Engine], Path | None],
        schema: Schema | None,
        always: bool,
        lag: float,
    ) -> None:
        served = primary.dialect.name in LOOKS
        self.all: Replicas[Engine] = Replicas(
            [
                Replica(e, name=shown(e), probe=None if served else _probe(path_of(e), schema), watched=served)
                for e in replicas
            ]
        )
        self._engines = (primary, *replicas) if served else ()
        for engine in self._engines:
            event.listen(engine, "do_connect", _in_time)
        self.watch = Watch(
            name,
            switch,
            self.all,
            reaches=[_reach(e) for e in replicas] if served else (),
            primary=_reach(primary) if served else None,
            identity=None if served else _file(path_of(primary)),
            schema=schema,
            always=always,
            lag=lag,
        )

    def close(self) -> None:
        """Look no more."""
        self.watch.close()
        for engine in self._engines:
            event.remove(engine, "do_connect", _in_time)


def shown(engine: Engine) -> str:
    """Return what people call a server: host, port and database, or a file; no secrets."""
    url = engine.url
    if url.host is None:
        return url.database or engine.dialect.name
    return f"{url.host}{f':{url.port}' if url.port else ''}/{url.database or ''}"


def check_url(argument: str, engine: Engine, environ: Mapping[str, str] = os.environ) -> None:
    """Refuse a replica's URL that can never connect to one.

    Raises:
        ConfigurationError: It wants a server that takes writes.
    """
    if engine.dialect.name == "postgresql":
        wanted = engine.url.query.get("target_session_attrs")
        problem = unreachable_standby(wanted if isinstance(wanted, str) else None, environ)
        if problem:
            raise ConfigurationError(f"{argument}={engine!r}: {problem}")


class _AsyncReach:
    """A server behind a driver that awaits; in a loop of its own, since the application's connections belong to its."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._direct = DirectReach(engine.dialect.name, lambda: _connect(engine))
        self._runner: asyncio.Runner | None = None

    def look(self, schema: Schema | None) -> Any:
        self._runner = self._runner or asyncio.Runner()
        try:
            return self._runner.run(asyncio.wait_for(greenlet_spawn(self._direct.look, schema), LOOK_SECONDS))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            with suppress(Exception):  # it may be lost; then there is nothing to give back
                runner.run(asyncio.wait_for(greenlet_spawn(self._direct.close), LOOK_SECONDS))
            runner.close()

    def sever(self) -> None:
        """Leave it to the look's own time."""


def _reach(engine: Engine) -> Callable[[], Reach]:
    if engine.dialect.is_async:
        return lambda: _AsyncReach(engine)

    def connect() -> Any:
        with _in_bounds():
            return _connect(engine)

    return lambda: DirectReach(engine.dialect.name, connect)


def _connect(engine: Engine) -> Any:
    # What the pool itself calls: the URL, `connect_args`, `creator` and `do_connect` all count, and no listener of the
    # pool: this connection is neither guarded, nor counted, nor the application's.
    create: Callable[[], Any] = engine.pool._creator  # type: ignore[assignment]
    return create()


@contextmanager
def _in_bounds() -> Iterator[None]:
    token = _bounded.set(True)
    try:
        yield
    finally:
        _bounded.reset(token)


def _in_time(dialect: Any, record: Any, arguments: Sequence[Any], options: dict[str, Any]) -> None:
    """Bound the connecting of a look; the application's own is left alone."""
    if _bounded.get() and "connect_timeout" not in str(arguments):
        options.setdefault("connect_timeout", int(LOOK_SECONDS))


def _file(path: Path | None) -> Callable[[], str] | None:
    return None if path is None else lambda: copies.identity_of(path)


def _probe(path: Path | None, schema: Schema | None) -> Any:
    return None if path is None else lambda: copies.look(path, schema)
