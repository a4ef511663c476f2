"""The library's own routes: `path("", include("readonly_django.urls"))` serves what stands below `/-/readonly/`."""

from __future__ import annotations

from functools import lru_cache

from django.http import HttpRequest, HttpResponse
from django.urls import path, re_path

from readonly.own_routes import PREFIX, READY_PATH, STATUS_PATH, OwnRoutes
from readonly.switch import Switch

from . import conf
from .requests import facts_of
from .words import languages


@lru_cache(maxsize=1)
def _routes(switch: Switch) -> OwnRoutes:
    return OwnRoutes(switch, languages)


def own_route(request: HttpRequest, **_: str) -> HttpResponse:
    """Answer a load balancer, a browser that wants to know when it may send again, or whoever follows a bypass's link.

    A prefix of the including URLconf is no part of what the routes go by.
    """
    facts = facts_of(request)
    before, _mark, after = request.path.rpartition(PREFIX)
    facts.path = PREFIX + after
    cookie = request.META.get("HTTP_COOKIE", "")
    # Where the site begins: a bypass's link leads there. (Also below a script's name.)
    answer = _routes(conf.current_switch()).answer(facts, cookies=(cookie,) if cookie else (), mount=before)
    response = HttpResponse(answer.body, status=answer.status)
    for name, value in answer.headers:
        response.headers[name] = value
    return response


urlpatterns = [
    path(READY_PATH.lstrip("/"), own_route, name="readonly_ready"),
    path(STATUS_PATH.lstrip("/"), own_route, name="readonly_status"),
    re_path(rf"^{PREFIX.lstrip('/')}/(?P<rest>.+)$", own_route, name="readonly_own"),
]
