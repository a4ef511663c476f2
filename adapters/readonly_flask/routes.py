"""What an application's URL map knows about a request, asked before the application sees it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from flask import Flask
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import MapAdapter, RequestRedirect, Rule
from werkzeug.routing.map import Map

from readonly.marks import WRITES, mark_for, marks_of
from readonly.rules import Endpoint, Facts, effective_methods

logger = logging.getLogger("readonly")

# Where a request may name another method than its own, as the environ spells it.
_OVERRIDES: Final = frozenset({"HTTP_X_HTTP_METHOD_OVERRIDE", "HTTP_X_HTTP_METHOD", "HTTP_X_METHOD_OVERRIDE"})
_UNKNOWN: Final = Endpoint("", frozenset({WRITES}))
# Answers of the map that are remembered: asking it takes as long as a small view. Past that all are forgotten: paths
# are the visitor's to choose.
REMEMBERED: Final = 1024


class _Match(NamedTuple):
    """What the map says.

    Attributes:
        endpoint: The view's name.
        automatic: Flask answers OPTIONS itself, a preflight for one, and no view runs.
    """

    endpoint: str
    automatic: bool


_UNASKED: Final = _Match("", False)


class Routes:
    """Asks one application's URL map which view a request would reach. Any thread may call it; it runs no view.

    A request that the map redirects (a slash that is missing) is what it is redirected to. One that names another
    method than its own is only what the views of all its methods agree on. One whose method no view takes belongs to
    the view that has its path, as in every framework, if there is a single one.
    """

    tells_of_decorators_alone = True

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._complained = False
        self._known: dict[tuple[str | None, ...], _Match | None] = {}
        # A site's own way to make an adapter, or its own converters, may look at anything.
        usual_adapter = type(app).create_url_adapter is Flask.create_url_adapter
        usual_converters = dict(app.url_map.converters) == dict(Map.default_converters)
        self._remembers = usual_adapter and usual_converters

    def __call__(self, environ: Mapping[str, Any]) -> Endpoint | None:
        """Return the view's endpoint and marks; None where no view has the path."""
        try:
            return self._endpoint(environ)
        except Exception as error:
            return self._again(environ, error)

    def _again(self, environ: Mapping[str, Any], error: Exception) -> Endpoint | None:
        """Ask once more as Flask does, with a context: a site's own converter may need one."""
        try:
            with self._app.app_context():
                return self._endpoint(environ)
        except Exception:
            if not self._complained:
                self._complained = True
                logger.warning("readonly: the URL map failed, and such a request counts as a write: %r", error)
            return _UNKNOWN

    def _endpoint(self, environ: Mapping[str, Any]) -> Endpoint | None:
        method: str = environ["REQUEST_METHOD"]
        query: str = environ.get("QUERY_STRING") or ""
        if environ.keys().isdisjoint(_OVERRIDES) and not ("%" in query or "_method" in query.lower()):
            return self._marked(self._match(environ, method), method)
        methods = effective_methods(Facts(method, "/", query=query, headers=_Headers(environ)))
        found = {name: self._marked(self._match(environ, name), name) for name in methods}
        return found[method] if len(found) == 1 else _agreed(found)

    def _marked(self, match: _Match | None, method: str) -> Endpoint | None:
        if match is None:
            return None
        if method == "OPTIONS" and match.automatic:
            return Endpoint(match.endpoint)
        # Looked up anew: a view may be marked late, or wrapped by an extension.
        return Endpoint(match.endpoint, marks_of(self._app.view_functions.get(match.endpoint)))

    def _match(self, environ: Mapping[str, Any], method: str) -> _Match | None:
        if not self._remembers or "HTTP_UPGRADE" in environ:
            return self._ask(environ, method)
        get = environ.get
        key = (
            method,
            get("PATH_INFO"),
            get("HTTP_HOST"),
            get("SCRIPT_NAME"),
            get("wsgi.url_scheme"),
            get("SERVER_NAME"),
            get("SERVER_PORT"),
        )
        known = self._known
        # Flask adds no route once it has served a request; but somebody may, and only the map itself can tell.
        if self._app.url_map._remap or len(known) >= REMEMBERED:
            known.clear()
        # One look, since another thread may clear it between two.
        found = known.get(key, _UNASKED)
        if found is _UNASKED:
            found = known[key] = self._ask(environ, method)
        return found

    def _ask(self, environ: Mapping[str, Any], method: str) -> _Match | None:
        try:
            # A copy: the request puts itself into the environ that it is given.
            adapter = self._app.create_url_adapter(self._app.request_class(dict(environ)))
        except HTTPException:  # a host that is not trusted: Flask answers 400
            return None
        if adapter is None:
            return None
        try:
            rule = _rule(adapter, method)
        except MethodNotAllowed as refused:
            return _only_view(adapter, refused.valid_methods or ())
        except HTTPException:  # 404
            return None
        return _Match(rule.endpoint, bool(getattr(rule, "provide_automatic_options", False)))


class _Headers:
    """Looks request headers up in an environ."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    def get(self, name: str, /) -> str | None:
        found: str | None = self._environ.get("HTTP_" + name.upper().replace("-", "_"))
        return found


def _agreed(found: Mapping[str, Endpoint | None]) -> Endpoint:
    """Return what is true of a request whichever of its methods the application honours: each has its own mark."""
    names = {"" if endpoint is None else endpoint.name for endpoint in found.values()}
    marks = {f"{mark}:{method}" for method, endpoint in found.items() if (mark := mark_for(endpoint, method))}
    return Endpoint(names.pop() if len(names) == 1 else "", frozenset(marks))


def _rule(adapter: MapAdapter, method: str) -> Rule:
    try:
        return adapter.match(method=method, return_rule=True)[0]
    except RequestRedirect as redirect:
        # No view runs now. But what is refused where it leads need not be sent there first, and what is let through
        # there must get there.
        return adapter.match(_path(adapter, redirect.new_url), method=method, return_rule=True)[0]


def _only_view(adapter: MapAdapter, methods: Iterable[str]) -> _Match | None:
    """Return the view that has the path, by the methods that are taken there; None if several share it."""
    found = set()
    for method in methods:
        with suppress(HTTPException):
            found.add(_rule(adapter, method).endpoint)
    return _Match(found.pop(), automatic=False) if len(found) == 1 else None


def _path(adapter: MapAdapter, url: str) -> str:
    path = unquote(urlsplit(url).path)
    root = adapter.script_name.rstrip("/")
    return path.removeprefix(root) if path.startswith(root + "/") else path
