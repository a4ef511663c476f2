"""What the contract's two Django projects have in common: settings, and what goes into views and comes out of them.

Sessions are kept in files, so that their ids are opaque: what is signed the other sites show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import django
from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import include, path
from django.utils.decorators import sync_and_async_middleware
from django.views import View
from django.views.decorators.http import require_http_methods

from conformance.sites.contract import (
    BODIES,
    FOLDER,
    FORMS,
    POLICY,
    ROUTES,
    SECRET,
    SHOP,
    STORE,
    Answer,
    Route,
    Seen,
    bearer,
    begun,
    preflight,
    remembered,
    remembering,
)
from readonly import reads, writes

MARKS: dict[str, Any] = {"reads": reads, "writes": writes}
_PART = 65536
# Django knows its own session cookie, and signs with its own key.
_OWN = ("session_cookies", "secret")


def configure(urls: str) -> None:
    """Set the project up, with its URLs in a module."""
    own = {name.upper(): value for name, value in POLICY.items() if name not in _OWN}
    settings.configure(
        ALLOWED_HOSTS=["*"],
        APPEND_SLASH=False,
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "readonly_django"],
        MIDDLEWARE=[
            "readonly_django.middleware.ReadOnlyMiddleware",
            "conformance.sites.django_project.cors",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
        ],
        READONLY={"STORE": STORE, "SESSION_COOKIES": ["remember"], **own},
        ROOT_URLCONF=urls,
        SECRET_KEY=SECRET,
        SESSION_COOKIE_NAME="session",
        SESSION_ENGINE="django.contrib.sessions.backends.file",
        SESSION_FILE_PATH=str(FOLDER),
        USE_TZ=True,
    )
    django.setup()


def seen_of(name: str, request: HttpRequest) -> Seen:
    """Return what the contract wants to know of a request."""
    user = request.session.get("user") or remembered(request.COOKIES.get("remember", ""))
    user = user or bearer(request.headers.get("Authorization"))
    seen = Seen(request.method or "", request.path_info, user, request.META["QUERY_STRING"])
    seen.cookies = list(request.COOKIES)
    if name in FORMS and request.method == "POST":
        seen.form = {key: str(value) for key, value in request.POST.items()}
    elif name in BODIES:
        begun(seen)
        while part := request.read(_PART):
            seen.received += len(part)
    return seen


@sync_and_async_middleware
def cors(get_response: Any) -> Any:
    """Answer preflights, as a middleware does."""

    def answer(request: HttpRequest) -> HttpResponse | None:
        headers = preflight(request.method or "", request.path_info, request.headers.get)
        return None if headers is None else HttpResponse(headers=dict(headers))

    async def over_asgi(request: HttpRequest) -> Any:
        return answer(request) or await get_response(request)

    return over_asgi if iscoroutinefunction(get_response) else lambda request: answer(request) or get_response(request)


def response_of(answer: Answer, request: HttpRequest, parts: Any = None) -> HttpResponseBase:
    """Return Django's response for an answer.

    Args:
        answer: What the contract answers.
        request: The request.
        parts: Its body piece by piece, if there are pieces.
    """
    if answer.signs_in:
        request.session["user"] = answer.signs_in
    elif answer.signs_out:
        request.session.flush()
    elif answer.touches:
        request.session["seen"] = True
    response: HttpResponseBase
    if parts is not None:
        response = StreamingHttpResponse(parts, status=answer.status)
    else:
        response = HttpResponse(answer.body, status=answer.status)
    for name, value in answer.headers:
        if name == "Set-Cookie":
            response.cookies.load(value)
        else:
            response.headers[name] = value
    if answer.remembers:
        response.cookies.load(remembering(answer.signs_in))
    return response


def urls(make: Any) -> list[Any]:
    """Return the project's URL patterns, with a view of each route that `make` makes."""
    return [
        path("", include("readonly_django.urls")),
        *_patterns(ROUTES, make),
        path("shop/", include([path("", include(_patterns(SHOP, make)))])),
    ]


def _patterns(table: tuple[Route, ...], make: Any) -> list[Any]:
    found = []
    for route in table:
        pattern = route.path.lstrip("/").replace("{rest:path}", "<path:rest>").replace("{", "<str:").replace("}", ">")
        found.append(path(pattern, make(route), name=route.name))
    return found


def marked(route: Route, function: Any, methods: Callable[[], Any]) -> Any:
    """Return the view of a route: a function, or a class where methods have marks of their own.

    Args:
        route: The route.
        function: A view that is a function, without a mark.
        methods: Makes the same as a method, a new one each time.
    """
    if not route.own_class:
        limited = require_http_methods([*route.methods, *(["HEAD"] if "GET" in route.methods else [])])(function)
        return MARKS.get(route.mark, lambda same: same)(limited)
    marks = dict(route.marks)
    members: dict[str, Any] = {}
    for name in route.methods:
        members[name.lower()] = MARKS[marks[name]](methods()) if name in marks else methods()
    view_class: Any = type(route.name.title(), (View,), members)
    return view_class.as_view()
