"""The contract in Flask: blueprints, nested ones, and classes of methods; configured by `app.config`."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Flask, Response, request, session
from flask.views import MethodView
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from conformance.sites.contract import (
    BODIES,
    FORMS,
    OTHER_KIND,
    OWN_PREFIX,
    POLICY,
    ROUTES,
    SECRET,
    SHOP,
    STORE,
    Answer,
    Route,
    Seen,
    act,
    bearer,
    begun,
    cors_wsgi,
    prefixed_wsgi,
    remembered,
    remembering,
)
from readonly import Switch, reads, writes
from readonly.wsgi import status_app
from readonly_flask import ReadOnly

MARKS: dict[str, Any] = {"reads": reads, "writes": writes}
_PART = 65536


def answered(name: str) -> Response:
    """Answer the request at hand as the contract says."""
    user = session.get("user") or remembered(request.cookies.get("remember", ""))
    user = user or bearer(request.headers.get("Authorization"))
    seen = Seen(request.method, request.path, user, request.query_string.decode(), cookies=list(request.cookies))
    if name in FORMS and request.method == "POST":
        seen.form = request.form.to_dict()
    elif name in BODIES:
        begun(seen)
        while part := request.stream.read(_PART):
            seen.received += len(part)
    return _response(act(name, seen, switch))


def _response(answer: Answer) -> Response:
    if answer.signs_in:
        session["user"] = answer.signs_in
    elif answer.signs_out:
        session.clear()
    elif answer.touches:
        session["seen"] = True
    response = Response(answer.parts() if answer.parts is not None else answer.body, answer.status)
    del response.headers["Content-Type"]
    for name, value in answer.headers:
        response.headers.add(name, value)
    if answer.remembers:
        response.headers.add("Set-Cookie", remembering(answer.signs_in))
    return response


def view(route: Route) -> Any:
    """Return the view of a route: a function, or a class where methods have marks of their own."""

    def function(**_values: str) -> Response:
        return answered(route.name)

    async def coroutine(**_values: str) -> Response:
        return answered(route.name)

    if route.name in OTHER_KIND:
        return coroutine
    if not route.own_class:
        return MARKS.get(route.mark, lambda same: same)(function)
    methods: dict[str, Any] = {}
    for method in route.methods:

        def handler(self: Any, **_values: str) -> Response:
            return answered(route.name)

        mark = dict(route.marks).get(method)
        methods[method.lower()] = MARKS[mark](handler) if mark else handler
    view_class: Any = type(route.name.title(), (MethodView,), methods)
    return view_class.as_view(route.name)


def add(target: Any, table: tuple[Route, ...]) -> None:
    """Register a table of the contract's."""
    for route in table:
        path = route.path.replace("{rest:path}", "<path:rest>").replace("{", "<").replace("}", ">")
        methods = None if route.own_class else list(route.methods)
        target.add_url_rule(path, route.name, view(route), methods=methods)


site = Flask(__name__)
site.secret_key = SECRET
site.config |= {f"READONLY_{name.upper()}": value for name, value in POLICY.items()}
site.config["READONLY_STORE"] = STORE
add(site, ROUTES)
outer, inner = Blueprint("outer", __name__, url_prefix="/shop"), Blueprint("shop", __name__)
add(inner, SHOP)
outer.register_blueprint(inner)
site.register_blueprint(outer)
site.wsgi_app = cors_wsgi(site.wsgi_app)  # type: ignore[method-assign]
ReadOnly(site)
installed = site.extensions["readonly"]
switch: Switch = installed.switch
start = installed.start
site.wsgi_app = DispatcherMiddleware(site.wsgi_app, {OWN_PREFIX: status_app(switch)})  # type: ignore[method-assign]
application = prefixed_wsgi(site)
