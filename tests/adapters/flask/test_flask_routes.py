"""What the URL map knows reaches the gate, before the application sees the request."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Blueprint, Flask, current_app, request
from flask.views import MethodView, View
from werkzeug.routing import BaseConverter, Rule

from readonly import reads, writes
from readonly_flask import ReadOnly
from readonly_flask.routes import REMEMBERED, Routes
from support.flask_sites import MakeApp, installed, switch_of


@reads
def search(**_values: object) -> str:
    """A POST that only reads."""
    return "found"


@writes
def ping() -> str:
    """A GET that writes."""
    return "noted"


def plain(**_values: object) -> str:
    """Any view."""
    return request.method


class Comments(MethodView):
    """One method of it only reads, one writes on GET."""

    @writes
    def get(self) -> str:
        return "read, and counted"

    @reads
    def post(self) -> str:
        return "preview"

    def put(self) -> str:
        return "written"


@writes
class Counter(View):
    """A class that writes, whatever the method."""

    def dispatch_request(self) -> str:
        return "counted"


def fill(app: Flask) -> Flask:
    """Give an application routes of all kinds."""
    app.add_url_rule("/", "home", plain, methods=["GET", "POST"])
    app.add_url_rule("/search", "search", search, methods=["POST"])
    app.add_url_rule("/find/", "find", search, methods=["GET", "POST"])
    app.add_url_rule("/ping", "ping", ping)
    app.add_url_rule("/comments", view_func=Comments.as_view("comments"))
    app.add_url_rule("/counter", view_func=Counter.as_view("counter"))
    # One path, a view for each method.
    app.add_url_rule("/item", "item_read", search, methods=["POST"])
    app.add_url_rule("/item", "item_write", plain, methods=["DELETE"])
    app.add_url_rule("/compare", "compare", plain, methods=["POST"])
    parent, child = Blueprint("parent", __name__), Blueprint("child", __name__)
    child.add_url_rule("/search/<word>", "search", search, methods=["POST"])
    child.add_url_rule("/compare", "compare", plain, methods=["POST"])
    child.add_url_rule("/ping", "ping", ping)
    parent.register_blueprint(child, url_prefix="/child")
    parent.register_blueprint(child, url_prefix="/other", name="other")
    app.register_blueprint(parent, url_prefix="/parent")
    return app


TABLE = [
    ("GET", "/", 200),
    ("POST", "/", 503),
    ("POST", "/search", 200),
    ("POST", "/parent//child/search/goal", 308),  # the map merges slashes, and redirects to what is a read
    ("POST", "/parent//child/compare", 503),
    ("GET", "/ping", 503),
    ("HEAD", "/ping", 503),
    ("OPTIONS", "/ping", 200),  # Flask's own answer: a preflight
    ("GET", "/comments", 503),
    ("HEAD", "/comments", 503),
    ("POST", "/comments", 200),
    ("PUT", "/comments", 503),
    ("GET", "/counter", 503),
    ("POST", "/item", 200),
    ("DELETE", "/item", 503),
    ("POST", "/compare", 200),  # by its name, in the config
    ("POST", "/parent/child/search/goal", 200),
    ("POST", "/parent/other/search/goal", 200),
    ("GET", "/parent/child/ping", 503),
    ("POST", "/parent/child/compare", 503),  # its name is parent.child.compare
    ("POST", "/parent/other/compare", 200),
    ("POST", "/nowhere", 503),
    ("GET", "/nowhere", 404),
    ("GET", "/search", 405),
    # No view takes the method: the path's only view is asked all the same, as in other frameworks.
    ("PUT", "/search", 405),
    ("PUT", "/find/", 405),
    ("PATCH", "/comments", 503),
    ("PUT", "/item", 503),  # two views share the path, and only one of them reads
    ("POST", "/ping", 503),
    ("GET", "/static/style.css", 404),
    ("POST", "/static/style.css", 503),
]


@pytest.mark.parametrize(("method", "path", "status"), TABLE)
def test_what_the_map_knows_decides(make_app: MakeApp, method: str, path: str, status: int) -> None:
    """Marks on functions, classes and methods, and names of routes, below blueprints in blueprints."""
    app = fill(make_app(READONLY_READS=["POST name:compare", "POST name:parent.other.compare"]))
    client = app.test_client()
    free = client.open(path, method=method)
    assert free.status_code in (200, 308, 404, 405)
    assert "X-Read-Only" not in free.headers
    switch_of(app).on()
    for _ in range(2):  # asked of the map, and remembered
        answer = client.open(path, method=method)
        assert answer.status_code == status
        assert answer.headers["X-Read-Only"] == "true"


def test_the_gate_comes_before_the_application(make_app: MakeApp) -> None:
    """A refused request reaches no `before_request`, no `url_value_preprocessor`, no session, and no view."""
    app = fill(make_app())
    seen: list[str] = []
    app.before_request(lambda: seen.append("before"))
    app.url_value_preprocessor(lambda endpoint, values: seen.append("values"))
    app.teardown_request(lambda error: seen.append("teardown"))
    switch_of(app).on()
    assert app.test_client().post("/").status_code == 503
    assert app.test_client().get("/ping").status_code == 503
    assert seen == []
    assert app.test_client().post("/search").status_code == 200
    assert seen == ["values", "before", "teardown"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_slash_that_is_missing(make_app: MakeApp, method: str) -> None:
    """What the map redirects goes where it would without us, and is what it leads to."""
    app = fill(make_app())
    switch_of(app).on()
    client = app.test_client()
    answer = client.open("/find", method=method, base_url="http://localhost/below")
    assert (answer.status_code, answer.headers["Location"]) == (308, "http://localhost/below/find/")
    assert client.open("/find", method=method, follow_redirects=True).data == b"found"
    assert client.open("/find", method="PUT").status_code == 503


def test_a_redirect_to_anywhere(make_app: MakeApp) -> None:
    """A rule may redirect to what is no view of this application: then nothing is known of it."""
    app = make_app()
    app.url_map.add(Rule("/old", endpoint="old", redirect_to="new/place", methods=["GET", "POST"]))
    switch_of(app).on()
    assert app.test_client().get("/old").status_code == 308
    assert app.test_client().post("/old").status_code == 503


@pytest.mark.parametrize(
    "override",
    [
        {"headers": {"X-HTTP-Method-Override": "DELETE"}},
        {"headers": {"X-HTTP-Method": "PUT"}},
        {"headers": {"X-Method-Override": "delete"}},
        {"query_string": "_method=DELETE"},
        {"query_string": "%5Fmethod=DELETE"},
    ],
)
def test_a_method_that_is_overridden(make_app: MakeApp, override: dict[str, Any]) -> None:
    """A POST that may be run as something else is a read only if the views of both methods are."""
    app = fill(make_app())
    switch_of(app).on()
    client = app.test_client()
    assert client.post("/item", **override).status_code == 503
    assert client.get("/", **override).status_code == 503
    assert client.post("/search", **override).status_code == 200  # the only view there, and it reads
    assert client.post("/item", headers={"X-HTTP-Method-Override": "POST"}).status_code == 200
    assert client.post("/item", query_string="q=100%25").status_code == 200


@pytest.mark.parametrize(
    ("named", "method", "other"), [("item_read", "POST", "DELETE"), ("item_write", "DELETE", "POST")]
)
def test_a_name_counts_for_the_method_that_has_it(make_app: MakeApp, named: str, method: str, other: str) -> None:
    """A rule that names a route lets nothing through that another method would run."""
    app = make_app(READONLY_READS=[f"name:{named}"])
    app.add_url_rule("/item", "item_read", plain, methods=["POST"])
    app.add_url_rule("/item", "item_write", plain, methods=["DELETE"])
    switch_of(app).on()
    client = app.test_client()
    assert client.open("/item", method=method).status_code == 200
    assert client.open("/item", method=method, headers={"X-HTTP-Method-Override": other}).status_code == 503


def test_by_host_and_by_subdomain(make_app: MakeApp) -> None:
    """The map decides by the host as well, and so do marks."""
    app = make_app(options={"host_matching": True, "static_host": "a.example"})
    app.add_url_rule("/", "read", search, host="a.example", methods=["POST"])
    app.add_url_rule("/", "write", plain, host="b.example", methods=["POST"])
    switch_of(app).on()
    client = app.test_client()
    statuses = [client.post("/", base_url=f"http://{name}.example").status_code for name in "abab"]
    assert statuses == [200, 503, 200, 503]

    behind_one_name = {"SERVER_NAME": "10.0.0.7", "SERVER_PORT": "8000"}
    hosts = [{"HTTP_HOST": f"{name}.example", **behind_one_name} for name in "abab"]
    assert [client.post("/", environ_overrides=host).status_code for host in hosts] == [200, 503, 200, 503]

    app = make_app(SERVER_NAME="example.org", options={"subdomain_matching": True})
    app.add_url_rule("/", "read", search, subdomain="api", methods=["POST"])
    app.add_url_rule("/", "write", plain, subdomain="<name>", methods=["POST"])
    switch_of(app).on()
    client = app.test_client()
    assert client.post("/", base_url="http://api.example.org").status_code == 200
    assert client.post("/", base_url="http://www.example.org").status_code == 503


def test_a_host_that_is_not_trusted(make_app: MakeApp) -> None:
    """Flask answers 400 itself, and nothing else is said about such a request."""
    app = fill(make_app(TRUSTED_HOSTS=["example.org"]))
    client = app.test_client()
    if client.get("/", base_url="http://evil.example").status_code == 200:
        return  # before Flask 3.1 there was no such setting
    switch_of(app).on()
    assert client.get("/ping", base_url="http://evil.example").status_code == 400
    assert client.post("/search", base_url="http://evil.example").status_code == 503
    assert client.post("/search", base_url="http://example.org").status_code == 200


def test_a_converter_that_needs_a_context(make_app: MakeApp) -> None:
    """A site's own converter is run as Flask runs it: inside a context, and at every request."""
    asked: list[str] = []

    class Word(BaseConverter):
        def to_python(self, value: str) -> str:
            asked.append(current_app.name)
            return value

    app = make_app()
    app.url_map.converters["word"] = Word
    app.add_url_rule("/<word:word>", "search", search, methods=["POST"])
    switch_of(app).on()
    client = app.test_client()
    for count in (1, 2):
        assert client.post("/goal").data == b"found"
        assert asked == ["site"] * 2 * count  # once by us, once by Flask


def test_a_map_that_fails(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody can say what a request is, it is a write; once in the log, and Flask says what is wrong."""

    class Broken(BaseConverter):
        def to_python(self, value: str) -> str:
            raise LookupError(value)

    app = make_app()
    app.url_map.converters["broken"] = Broken
    app.add_url_rule("/<broken:word>", "search", search, methods=["GET", "POST"])
    switch_of(app).on()
    client = app.test_client()
    with caplog.at_level(logging.WARNING, "readonly"):
        assert [client.get("/x").status_code, client.post("/x").status_code] == [503, 503]
    assert [r.message for r in caplog.records if "URL map failed" in r.message] == [
        "readonly: the URL map failed, and such a request counts as a write: LookupError('x')"
    ]
    switch_of(app).off()
    assert client.get("/x").status_code == 500


def test_an_adapter_of_the_sites_own(make_app: MakeApp) -> None:
    """An application may choose its map by anything in a request: then nothing is remembered."""

    class Tenants(Flask):
        def create_url_adapter(self, request: Any) -> Any:
            if request is not None and request.headers.get("X-Tenant") == "b":
                return self.url_map.bind("localhost", path_info="/other", default_method=request.method)
            return super().create_url_adapter(request)

    app = Tenants("tenants")
    app.config.update(SECRET_KEY="key", READONLY_STORE="memory://")
    ReadOnly(app)
    try:
        app.add_url_rule("/", "read", search, methods=["POST"])
        app.add_url_rule("/other", "write", plain, methods=["POST"])
        switch_of(app).on()
        client = app.test_client()
        tenants = ["a", "b", "a", "b"]
        assert [client.post("/", headers={"X-Tenant": t}).status_code for t in tenants] == [200, 503, 200, 503]
    finally:
        app.extensions["readonly"].close()


def test_a_view_that_is_marked_late(make_app: MakeApp) -> None:
    """The mark counts from then on, though the route was asked for before."""
    app = make_app()

    def late() -> str:
        return "noted"

    app.add_url_rule("/late", "late", late)
    switch_of(app).on()
    assert app.test_client().get("/late").status_code == 200
    writes(late)
    assert app.test_client().get("/late").status_code == 503


def test_a_rule_that_is_added_late(make_app: MakeApp) -> None:
    """Flask adds none once it has served; who adds one to the map itself is not overlooked."""
    app = fill(make_app())
    switch_of(app).on()
    client = app.test_client()
    assert client.post("/late").status_code == 503
    app.url_map.add(Rule("/late", endpoint="search", methods=["POST"]))
    assert client.post("/late").status_code == 200


def test_what_is_remembered_is_bounded(make_app: MakeApp) -> None:
    """Paths are the visitor's to choose, and do not fill the memory."""
    routes = Routes(fill(make_app()))
    environ = {"REQUEST_METHOD": "GET", "SERVER_NAME": "x", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
    for number in range(REMEMBERED + 10):
        assert routes(environ | {"PATH_INFO": f"/{number}"}) is None
    assert len(routes._known) == 10


def test_the_map_is_not_asked_while_writable(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GET is matched twice, unless a view or a rule makes writes of GETs; no POST, until some view reads."""
    monkeypatch.setattr("readonly.marks._seen_marks", set())
    asked: list[str] = []

    def counted(routes: Routes, environ: dict[str, Any]) -> None:
        asked.append(environ["PATH_INFO"])

    monkeypatch.setattr(Routes, "__call__", counted)
    app = make_app(READONLY_LOGIN=["/login"])
    app.add_url_rule("/", "home", plain, methods=["GET", "POST"])
    installed(app).start()
    client = app.test_client()
    client.get("/")
    client.set_cookie("session", "a.b.c")
    client.get("/?page=2")
    client.post("/")
    assert asked == []
    reads(lambda: None)
    client.post("/")
    assert asked == ["/"]
    asked.clear()
    other = make_app(READONLY_WRITES=["GET /cart/{id}"])
    other.add_url_rule("/", "home", plain)
    installed(other).start()
    other.test_client().get("/")
    assert asked == ["/"]


def test_a_preflight_is_for_what_answers_other_origins(make_app: MakeApp) -> None:
    """Flask itself, a hook, or a view that takes OPTIONS: the request that it asks about is judged when it comes."""
    app = fill(make_app(READONLY_WRITES=["/declared"]))

    @writes
    def shared() -> Any:
        return ("", 204) if request.method == "OPTIONS" else "noted"

    app.add_url_rule("/shared", "shared", shared, methods=["GET", "OPTIONS"])
    app.add_url_rule("/declared", "declared", plain)
    client = app.test_client()
    switch_of(app).on()
    for path, status in (("/ping", 200), ("/counter", 200), ("/shared", 204), ("/declared", 200)):
        headers = {"Origin": "https://other.example", "Access-Control-Request-Method": "GET"}
        assert client.options(path, headers=headers).status_code == status
        refused = client.get(path, headers={"Origin": "https://other.example"})
        assert refused.status_code == 503
        assert refused.headers["Access-Control-Allow-Origin"] == "https://other.example"
    # What is no preflight runs a view that takes it, which is marked.
    assert client.options("/shared").status_code == 503
