"""Read-your-writes: `MIDDLEWARE` names `readonly_django.recent.RecentWritesMiddleware`, outside of all that queries.

For projects that read from replicas while writable (`READONLY["REPLICAS_ALWAYS"]`). Who has just written is sent to a
replica that has got there, or to the primary; see `readonly.recent`. Django commits most statements by themselves, so
what is noted is the statement, and the position is asked for once, when the answer is ready.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.db import connections
from django.db.backends.signals import connection_created
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from readonly import recent
from readonly.databases.replicas.written import POSITION_AFTER
from readonly.recent import Cookie, Recent

from .databases import installed

__all__ = ["RecentWritesMiddleware"]

GetResponse = Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[HttpResponseBase]]
# What begins otherwise is taken for a write; to be wrong there costs a read of the primary, and the other way round a
# visitor would miss what they wrote.
_READING = frozenset(
    {"SELECT", "SHOW", "EXPLAIN", "VALUES", "SAVEPOINT", "RELEASE", "ROLLBACK", "SET", "DECLARE", "FETCH", "CLOSE"}
)


class RecentWritesMiddleware:
    """Follows each visitor from a write to the pages after it, by a cookie that SECRET_KEY signs.

    Sync and async alike. A function that writes in a SELECT is not noticed: say `readonly.recent.wrote("default")`.

    Args:
        get_response: What answers.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response: Any = get_response
        self._cookie = Cookie([settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS])
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        connection_created.connect(_follow, dispatch_uid="readonly.recent")
        for wrapper in connections.all(initialized_only=True):
            _follow(connection=wrapper)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer, and say in a cookie what was written."""
        if self._is_async:
            return self._answer_async(request)
        with recent.following(self._cookie.read(request.META.get("HTTP_COOKIE", ""))) as found:
            response: HttpResponseBase = self._get_response(request)
            if found.written:
                _note_positions(found)
        return self._said(request, response, found)

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        with recent.following(self._cookie.read(request.META.get("HTTP_COOKIE", ""))) as found:
            response: HttpResponseBase = await self._get_response(request)
            if found.written:
                # In the thread of the request's other queries: connections belong to threads.
                await sync_to_async(_note_positions)(found)
        return self._said(request, response, found)

    def _said(self, request: HttpRequest, response: HttpResponseBase, found: Recent) -> HttpResponseBase:
        said = self._cookie.write(found, secure=request.is_secure())
        if said is not None:
            response.cookies.load(said)
        return response


def _follow(*, connection: Any, **_: Any) -> None:
    """Have a connection object note what is written through it; a block of `execute_wrapper` takes off the last one."""
    if not any(isinstance(one, _Noting) for one in connection.execute_wrappers):
        connection.execute_wrappers.insert(0, _Noting())


class _Noting:
    """Notes statements that may write."""

    def __call__(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:  # Django's protocol of wrappers
        result = execute(sql, params, many, context)
        request = recent.current()
        if request is not None and str(sql).lstrip(" (\n\t")[:9].upper().partition(" ")[0] not in _READING:
            guards = installed()
            alias = context["connection"].alias
            if guards is not None and guards.routing.has_replicas(alias):
                request.wrote(alias)
        return result


def _note_positions(found: Recent) -> None:
    """Ask for the positions of what this request wrote; where that can't be had it goes by time."""
    guards = installed()
    if guards is None:
        return
    for alias in sorted(found.written_to):
        wrapper = connections[alias]
        statement = POSITION_AFTER.get("mariadb" if getattr(wrapper, "mysql_is_mariadb", False) else wrapper.vendor)
        system = guards.routing.watch(alias).system
        # A transaction that is still open has not been committed, and its position is none; a question that failed in
        # it would cost what it wrote.
        is_open = wrapper.in_atomic_block or not wrapper.get_autocommit()
        if statement is None or not system or wrapper.connection is None or is_open:
            continue
        with suppress(Exception), wrapper.cursor() as cursor:
            cursor.execute(statement)
            (at,) = cursor.fetchone()
            if at:
                found.wrote(alias, system=system, at=str(at))
