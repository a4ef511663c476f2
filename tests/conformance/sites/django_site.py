"""The contract in Django over WSGI, with views that are no coroutines."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponseBase

from conformance.sites.contract import OTHER_KIND, Route, act, prefixed_wsgi
from conformance.sites.django_project import configure, marked, response_of, seen_of, urls
from readonly_django.conf import switch

__all__ = ["application", "switch"]


def view(route: Route) -> Any:
    """Return the view of a route."""

    def function(request: HttpRequest, **_values: str) -> HttpResponseBase:
        answer = act(route.name, seen_of(route.name, request), switch)
        return response_of(answer, request, answer.parts() if answer.parts is not None else None)

    async def coroutine(request: HttpRequest, **values: str) -> HttpResponseBase:
        return await sync_to_async(function)(request, **values)

    def method() -> Any:
        return lambda self, request, **_values: function(request)

    return marked(route, coroutine if route.name in OTHER_KIND else function, method)


configure(__name__)
urlpatterns = urls(view)
application = prefixed_wsgi(get_wsgi_application())
