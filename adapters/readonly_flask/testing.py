"""What `readonly.testing.walk` needs to know of a Flask application: its routes, and who asks them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from copy import copy
from typing import TYPE_CHECKING, Any, Final

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import PathConverter, Rule
from werkzeug.test import Client, EnvironBuilder

from readonly.marks import marks_of
from readonly.testing import Answer, Request, Route, Visitor

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# `<converter(arguments):name>`, as a rule's text has it.
_PARAMETER: Final = re.compile(r"<(?:(?P<converter>[^:<>]+):)?(?P<name>\w+)>")


def routes(app: Flask) -> Iterator[Route]:
    """Yield every route of an application's URL map, blueprints and static files included.

    A method that Flask answers by itself (OPTIONS, and HEAD beside GET) is none of the route's; websocket routes and
    those that are only there to build URLs are left out.
    """
    for rule in app.url_map.iter_rules():
        if rule.websocket or rule.build_only:
            continue
        methods = set(rule.methods or {"GET"})
        if getattr(rule, "provide_automatic_options", False):
            methods.discard("OPTIONS")
        if "GET" in methods:
            methods.discard("HEAD")
        view = app.view_functions.get(rule.endpoint)
        yield Route(tuple(sorted(methods)), _template(rule), rule.endpoint, marks_of(view))


def _template(rule: Rule) -> str:
    def shown(found: re.Match[str]) -> str:
        name = found["name"]
        # A converter of the site's own may take slashes as well; it says so by its class.
        deep = isinstance(rule._converters.get(name), PathConverter)
        return f"{{{name}:path}}" if deep else f"{{{name}}}"

    return _PARAMETER.sub(shown, rule.rule)


def visitor(client: FlaskClient) -> Visitor:
    """Return the visitor that a test client is now, with the cookies that it has now.

    Args:
        client: Made by `app.test_client()`; it may have logged in.
    """
    app = client.application
    # The client's own way to choose the cookies of a request; nothing that an answer sets gets into this copy.
    asked: list[str] = []
    chooser = copy(client)
    chooser.application = _noting(asked)
    sender = app.test_client(use_cookies=False)
    with app.test_request_context() as context:
        base_url = context.request.host_url

    def send(request: Request) -> Answer:
        asked.clear()
        # Flask's own `open` would want a Flask application behind it.
        Client.open(chooser, EnvironBuilder(path=request.path, base_url=base_url, method=request.method))
        headers = {**request.headers, **({"cookie": asked[0]} if asked[0] else {})}
        try:
            found = sender.open(request.path, method=request.method, headers=headers, data=request.body, buffered=True)
        except Exception as error:
            # With TESTING the application lets its errors out; a server would have answered 500.
            return Answer(500, {}, f"{type(error).__name__}: {error}")
        return Answer(found.status_code, {name.lower(): value for name, value in found.headers})

    return send


def _noting(asked: list[str]) -> Any:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        asked.append(environ.get("HTTP_COOKIE", ""))
        start_response("204 No Content", [])
        return []

    return application
