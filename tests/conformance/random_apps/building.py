"""Builds a drawn application in Starlette, Flask and Django, and asks each of them in this process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any, Final, Protocol
from unittest import mock

import django.urls
from asgiref.sync import iscoroutinefunction
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.utils.decorators import sync_and_async_middleware
from django.views import View as DjangoView
from django.views.decorators.http import require_http_methods
from flask import Blueprint, Flask
from flask import Response as FlaskResponse
from flask import request as flask_request
from flask.views import MethodView
from itsdangerous import TimestampSigner
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.routing import Mount as StarletteMount

from readonly import Policy, SessionCookie, Switch, reads, rule, writes
from readonly.changes import Operator, turn_off, turn_on
from readonly.record import OPERATOR, Cause, new_cause_id
from readonly.record_format import dump, load
from readonly.rules import Facts
from readonly.transitions import with_cause
from readonly_django import conf
from readonly_flask import ReadOnly
from readonly_starlette import ReadOnlyMiddleware
from support.apps import asgi_scope, wsgi_environ

from .drawing import NEW_SESSION, OLD_SESSION, Application, Asked, Rule, View

MARKS: Final[dict[str, Any]] = {"reads": reads, "writes": writes, "": lambda same: same}
OURS: Final = "readonly_django.middleware.ReadOnlyMiddleware"
REFUSALS_BY_STATUS: Final = {503: "READ_ONLY", 403: "SESSION_ENDED"}
REFUSALS: Final = frozenset(REFUSALS_BY_STATUS.values())
# Says that a preflight was answered.
CORS: Final = "cors"
_NUMBERS = itertools.count()
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class Verdict:
    """What became of a request, as its client and the view have seen it.

    Attributes:
        outcome: `passed` to a view, the refusal's code, or the status by which the framework says that it has no view.
        view: The view that ran, "" if none did.
        expired: Cookies that the browser is told to forget.
        seen: What the view has got of cookies and token.
        marked: The response says that the site is read-only.
    """

    outcome: str
    view: str = ""
    expired: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    marked: bool = False


class Built(Protocol):
    """An application in one framework."""

    name: str

    def ask(self, asked: Sequence[Asked]) -> list[Verdict]:
        """Send requests and return what became of each."""


# --- what all of them have in common ----------------------------------------------------------------------------------


def plain_form(facts: Facts) -> bool:
    """Let a search through, and not the form's other button."""
    return b"save" not in (facts.body or b"save")


def _saving_form(facts: Facts) -> bool:
    return not plain_form(facts)


def rules_of(app: Application, separator: str) -> dict[str, Any]:
    """Return the rules of the policy, with views named as a framework names them."""

    def made(role: str, one: Rule) -> Any:
        target = f"name:{separator.join(one.view)}" if one.view else one.path
        text = f"{one.method} {target}".strip()
        if not one.predicate:
            return text
        return rule(text, when=plain_form if role == "reads" else _saving_form)

    return {role: [made(role, one) for one in found] for role, found in app.rules.items()}


def class_of(view: View, base: type, make: Callable[[], Any]) -> Any:
    """Return a class with a method for each HTTP method, marked as it was drawn."""
    parent = type("Base", (base,), {})
    MARKS[view.inherited](parent)
    marks = dict(view.marks)
    members = {method.lower(): MARKS[marks.get(method, "")](make()) for method in view.methods}
    made = type(view.name.title(), (parent,), members)
    return MARKS[view.mark](made)


def headers_of(asked: Asked) -> list[tuple[str, str]]:
    """Return a request's headers, with its session's cookie."""
    found = list(asked.request.headers)
    if asked.session:
        found.append(("Cookie", f"a=1; session={_session(asked.session)}"))
    return found


def is_preflight(method: str, headers: Any) -> bool:
    """Return whether the applications' own layer for other origins answers, before any view is looked for."""
    return method == "OPTIONS" and "Origin" in headers and "Access-Control-Request-Method" in headers


def _session(which: str) -> str:
    signer = TimestampSigner("the key of none of them: what a cookie says of its age is believed")
    age = _DAY if which == OLD_SESSION else -timedelta(seconds=1) if which == NEW_SESSION else timedelta(0)
    signer.get_timestamp = lambda: int((datetime.now(UTC) - age).timestamp())  # type: ignore[method-assign]
    return signer.sign("somebody").decode()


def seen_of(cookies: Any, authorization: str | None) -> str:
    """Return what a view tells of what it has got."""
    return ",".join(sorted(cookies) + (["token"] if authorization else []))


def _verdict(status: int, headers: list[tuple[str, str]], body: bytes) -> Verdict:
    by_name = {name.lower(): value for name, value in headers}
    outcome = "passed" if "x-handled" in by_name else REFUSALS_BY_STATUS.get(status, str(status))
    if outcome in REFUSALS and body.startswith(b"{"):
        outcome = json.loads(body)["code"]
    cookies = [value for name, value in headers if name.lower() == "set-cookie"]
    return Verdict(
        outcome,
        by_name.get("x-handled", ""),
        tuple(sorted(value.partition("=")[0].strip() for value in cookies if "Max-Age=0" in value)),
        tuple(part for part in by_name.get("x-seen", "").split(",") if part),
        by_name.get("x-read-only") == "true",
    )


def _asgi(application: Any, asked: Sequence[Asked]) -> list[Verdict]:
    async def all_of_them() -> list[Verdict]:
        # Each in a task of its own, as a server has it.
        return [await asyncio.create_task(_over_asgi(application, one)) for one in asked]

    return asyncio.run(all_of_them())


async def _over_asgi(application: Any, asked: Asked) -> Verdict:
    request = asked.request
    scope = asgi_scope(request)
    scope["headers"] += [
        (n.lower().encode(), v.encode()) for n, v in headers_of(asked) if (n, v) not in request.headers
    ]
    sent: list[Any] = []
    incoming = [{"type": "http.request", "body": request.body, "more_body": False}]

    async def receive() -> Any:
        if incoming:
            return incoming.pop()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def send(message: Any) -> None:
        sent.append(message)

    await application(scope, receive, send)
    headers = [(n.decode(), v.decode("latin-1")) for n, v in sent[0]["headers"]]
    return _verdict(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))


def _wsgi(application: Any, asked: Asked) -> Verdict:
    environ = wsgi_environ(asked.request)
    for name, value in headers_of(asked):
        if name == "Cookie":
            environ["HTTP_COOKIE"] = value
    started: list[Any] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        started[:] = [int(status[:3]), headers]
        return lambda data: None

    parts = application(environ, start_response)
    try:
        body = b"".join(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    return _verdict(started[0], started[1], body)


# --- Starlette --------------------------------------------------------------------------------------------------------


class _CorsOfStarlette:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and is_preflight(scope["method"], StarletteRequest(scope).headers):
            await Response(headers={"X-Handled": CORS})(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class InStarlette:
    """The application in Starlette."""

    name = "Starlette"

    def __init__(self, app: Application, switch: Switch) -> None:
        routes: list[BaseRoute] = []
        for mount in app.mounts:
            own = [self._route(view) for view in mount.views]
            routes += [StarletteMount(mount.prefix, routes=own, name=mount.name)] if mount.name else own
        # A mount is looked at before what it may hide; the other frameworks are given their routes in this order, too.
        policy = Policy(
            **rules_of(app, ":"),
            sessions=app.sessions,  # type: ignore[arg-type]  # drawn from its choices
            bearer=app.bearer,  # type: ignore[arg-type]
            session_cookies=[SessionCookie("session", signed=True)],
        )
        self._app = Starlette(
            routes=routes,
            middleware=[
                Middleware(ReadOnlyMiddleware, switch=switch, policy=policy),
                Middleware(_CorsOfStarlette),
            ],
        )
        self._app.router.redirect_slashes = False

    @staticmethod
    def _route(view: View) -> Route:
        async def function(request: StarletteRequest) -> Response:
            seen = seen_of(request.cookies, request.headers.get("authorization"))
            return Response(view.name, headers={"X-Handled": view.name, "X-Seen": seen})

        def method() -> Any:
            async def own(self: Any, request: StarletteRequest) -> Response:
                return await function(request)

            return own

        if view.is_class:
            return Route(view.path, class_of(view, HTTPEndpoint, method), name=view.name)
        return Route(view.path, MARKS[view.mark](function), methods=list(view.methods), name=view.name)

    def ask(self, asked: Sequence[Asked]) -> list[Verdict]:
        """Send requests and return what became of each."""
        return _asgi(self._app, asked)


# --- Flask ------------------------------------------------------------------------------------------------------------


class InFlask:
    """The application in Flask."""

    name = "Flask"

    def __init__(self, app: Application, switch: Switch) -> None:
        site = Flask("random")
        site.secret_key = "a key"
        # The other routers take no path for another one.
        site.url_map.merge_slashes = False
        site.before_request(self._cors)
        given = {**rules_of(app, "."), "sessions": app.sessions, "bearer": app.bearer}
        site.config |= {f"READONLY_{name.upper()}": value for name, value in given.items()}
        for mount in app.mounts:
            target: Any = Blueprint(mount.name, "random", url_prefix=mount.prefix) if mount.name else site
            for view in mount.views:
                self._add(target, view)
            if mount.name:
                site.register_blueprint(target)
        ReadOnly(site, switch=switch)
        self._app = site

    @staticmethod
    def _cors() -> FlaskResponse | None:
        asks = is_preflight(flask_request.method, flask_request.headers)
        return FlaskResponse(headers={"X-Handled": CORS}) if asks else None

    @staticmethod
    def _add(target: Any, view: View) -> None:
        def function(**_values: str) -> FlaskResponse:
            seen = seen_of(flask_request.cookies, flask_request.headers.get("Authorization"))
            return FlaskResponse(view.name, headers={"X-Handled": view.name, "X-Seen": seen})

        def method() -> Any:
            return lambda self, **values: function(**values)

        path = view.path.replace("{rest:path}", "<path:rest>").replace("{id}", "<id>")
        if view.is_class:
            target.add_url_rule(path, view_func=class_of(view, MethodView, method).as_view(view.name))
        else:
            target.add_url_rule(path, view.name, MARKS[view.mark](function), methods=list(view.methods))

    def ask(self, asked: Sequence[Asked]) -> list[Verdict]:
        """Send requests and return what became of each."""
        return [_wsgi(self._app, one) for one in asked]


# --- Django -----------------------------------------------------------------------------------------------------------


@sync_and_async_middleware
def cors_of_django(get_response: Any) -> Any:
    """Answer preflights, as a middleware of a Django project does."""

    def answer(request: HttpRequest) -> HttpResponse | None:
        return (
            HttpResponse(headers={"X-Handled": CORS}) if is_preflight(request.method or "", request.headers) else None
        )

    async def over_asgi(request: HttpRequest) -> Any:
        return answer(request) or await get_response(request)

    return over_asgi if iscoroutinefunction(get_response) else lambda request: answer(request) or get_response(request)


class InDjango:
    """The application in Django, over WSGI or ASGI. Its settings are in force while it is asked."""

    def __init__(self, app: Application, switch: Switch, stack: contextlib.ExitStack, *, asgi: bool) -> None:
        self.name = "Django (ASGI)" if asgi else "Django"
        self._asgi = asgi
        patterns: list[Any] = []
        for mount in app.mounts:
            own = [self._pattern(view) for view in mount.views]
            if mount.name:
                patterns.append(django.urls.path(f"{mount.prefix[1:]}/", django.urls.include((own, mount.name))))
            else:
                patterns += own
        module = ModuleType(f"random_urls_{next(_NUMBERS)}")
        module.urlpatterns = patterns  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
        stack.callback(sys.modules.pop, module.__name__)
        given = {**rules_of(app, ":"), "sessions": app.sessions, "bearer": app.bearer}
        self._settings: dict[str, Any] = {
            "READONLY": {
                "STORE": "memory://?site=random",
                "GUARD": False,
                **{name.upper(): value for name, value in given.items()},
            },
            "ROOT_URLCONF": module.__name__,
            "MIDDLEWARE": [OURS, f"{__name__}.cors_of_django"],
            "APPEND_SLASH": False,
            "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
            "SESSION_COOKIE_NAME": "session",
        }
        stack.enter_context(mock.patch.object(conf, "current_switch", return_value=switch))
        with override_settings(**self._settings):
            self._app: Any = ASGIHandler() if asgi else WSGIHandler()

    def _pattern(self, view: View) -> Any:
        def answer(request: HttpRequest) -> HttpResponse:
            seen = seen_of(request.COOKIES, request.headers.get("Authorization"))
            return HttpResponse(view.name, headers={"X-Handled": view.name, "X-Seen": seen})

        def function(request: HttpRequest, **_values: str) -> HttpResponse:
            return answer(request)

        async def coroutine(request: HttpRequest, **_values: str) -> HttpResponse:
            return answer(request)

        def method() -> Any:
            if self._asgi:

                async def own(self: Any, request: HttpRequest, **_values: str) -> HttpResponse:
                    return answer(request)

                return own
            return lambda self, request, **_values: answer(request)

        path = view.path[1:].replace("{rest:path}", "<path:rest>").replace("{id}", "<str:id>")
        if view.is_class:
            found = class_of(view, DjangoView, method).as_view()
        else:
            limited = require_http_methods([*view.methods, *(["HEAD"] if "GET" in view.methods else [])])
            found = MARKS[view.mark](limited(coroutine if self._asgi else function))
        return django.urls.path(path, found, name=view.name)

    def ask(self, asked: Sequence[Asked]) -> list[Verdict]:
        """Send requests and return what became of each."""
        with override_settings(**self._settings):
            return _asgi(self._app, asked) if self._asgi else [_wsgi(self._app, one) for one in asked]


# --- all of them ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def built(app: Application) -> Iterator[tuple[Switch, list[Built]]]:
    """Build an application in every framework, all behind one switch, for a block."""
    switch = Switch.from_url("memory://?site=random")
    with contextlib.ExitStack() as stack:
        stack.callback(switch.close)
        made: list[Built] = [InStarlette(app, switch), InFlask(app, switch)]
        made += [InDjango(app, switch, stack, asgi=asgi) for asgi in (False, True)]
        yield switch, made


def put(switch: Switch, state: str) -> None:
    """Put the site into a state, and return when the switch has taken it in."""
    us = Operator("suite", "here")
    turn_off(switch.store, us, every=True)
    if state == "first minute":
        turn_on(switch.store, us)
    elif state == "settled":
        reading = switch.store.read()
        assert reading.record is not None
        since = datetime.now(UTC) - _DAY / 2
        cause = Cause(id=new_cause_id(), kind=OPERATOR, by=us.name, since=since)
        record = with_cause(load(reading.record), cause, site=switch.site, at=reading.at, by=us.name)
        switch.store.replace(dump(record), was=reading.record, causes=[c.id for c in record.causes])
    switch.confirm(timeout=10)
