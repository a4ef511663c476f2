"""The contract in Django over ASGI, with coroutines for views."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponseBase

from conformance.sites.contract import OTHER_KIND, Answer, Route, act, prefixed_asgi
from conformance.sites.django_project import configure, marked, response_of, seen_of, urls
from readonly_django.conf import switch

__all__ = ["application", "switch"]


async def answered(name: str, request: HttpRequest) -> HttpResponseBase:
    """Answer a request as the contract says. Sessions in files are read and written by functions that block."""
    seen = await sync_to_async(seen_of)(name, request)
    answer = await asyncio.to_thread(act, name, seen, switch) if name == "slow" else act(name, seen, switch)
    return await sync_to_async(_response)(answer, request)


def _response(answer: Answer, request: HttpRequest) -> HttpResponseBase:
    return response_of(answer, request, _awaited(answer.parts()) if answer.parts is not None else None)


async def _awaited(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def view(route: Route) -> Any:
    """Return the view of a route."""

    async def function(request: HttpRequest, **_values: str) -> HttpResponseBase:
        return await answered(route.name, request)

    def at_once(request: HttpRequest, **_values: str) -> HttpResponseBase:
        return response_of(act(route.name, seen_of(route.name, request), switch), request)

    def method() -> Any:
        async def own(self: Any, request: HttpRequest, **_values: str) -> HttpResponseBase:
            return await answered(route.name, request)

        return own

    return marked(route, at_once if route.name in OTHER_KIND else function, method)


configure(__name__)
urlpatterns = urls(view)

from readonly_django.asgi import get_asgi_application  # noqa: E402  - once the project is set up

application = prefixed_asgi(get_asgi_application())
