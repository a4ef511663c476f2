"""The walk over a Flask application: what was planted is found, and a clean site passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Blueprint, Flask, Response, request, session
from flask.typing import ResponseReturnValue

from readonly import reads
from readonly.testing import Kind, Request, Visitor, Walk, recorded_writes, walk
from readonly_flask.testing import routes, visitor
from testing.flask_shop import site
from testing.shop import EXAMPLES, opened


def visitors(app: Flask) -> dict[str, Visitor]:
    """Somebody, and somebody who has logged in."""
    known = app.test_client()
    assert known.post("/login").status_code == 303
    return {"anonymous": visitor(app.test_client()), "logged in": visitor(known)}


def walked(folder: Path, *planted: str, guarded: bool = True) -> Walk:
    """Walk through the shop with these faults."""
    with opened(folder, *planted, guarded=guarded) as shop:
        app = site(shop)
        witnesses = [recorded_writes(shop.engine)]
        try:
            return walk(routes(app), shop.switch, visitors(app), examples=EXAMPLES, witnesses=witnesses)
        finally:
            app.extensions["readonly"].close()


def test_a_clean_site_passes(tmp_path: Path) -> None:
    """Every route is asked by both visitors."""
    found = walked(tmp_path).check()
    assert (found.routes, found.served, found.refused) == (7, 12, 4)


@pytest.mark.parametrize("guarded", [True, False])
def test_a_get_that_writes_is_found(tmp_path: Path, guarded: bool) -> None:
    """With the guard its write is refused, without one it takes place."""
    found = [finding for finding in walked(tmp_path, "cart", guarded=guarded).findings if finding.route]
    told = {finding.route.path: finding for finding in found if finding.route}
    finding = told["/cart/{number}"]
    assert finding.kind is (Kind.WRITES_ON_READ if guarded else Kind.WROTE)
    assert finding.visitors == ("anonymous", "logged in")
    assert [write.table for write in finding.writes] == ["cart"]
    assert 'writes=["GET /cart/{number}"]' in finding.text()


@pytest.mark.parametrize(
    ("planted", "kind", "path"),
    [("export", Kind.WRITES_THOUGH_DECLARED, "/export"), ("broken", Kind.FAILED, "/healthz")],
)
def test_other_faults_are_found(tmp_path: Path, planted: str, kind: Kind, path: str) -> None:
    """A rule that is wrong, and a page that fails."""
    (finding,) = walked(tmp_path, planted).findings
    assert (finding.kind, finding.route and finding.route.path) == (kind, path)


def test_what_is_routed_in_every_way() -> None:
    """Converters, nested blueprints, static files, methods that Flask answers by itself, and those that it does not."""
    app = Flask("routed", static_folder=".", static_url_path="/static")
    inner, outer = Blueprint("inner", __name__, url_prefix="/in"), Blueprint("outer", __name__, url_prefix="/<lang>")

    @inner.route("/<path:rest>/edit", methods=["PUT"])
    @reads
    def edit(lang: str, rest: str) -> ResponseReturnValue:
        return rest

    @inner.route("/<any('a', 'b'):letter>/<string(length=2):code>", methods=["GET", "OPTIONS"])
    def letter(lang: str, letter: str, code: str) -> ResponseReturnValue:
        return letter

    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    app.add_url_rule("/only-built", "built", build_only=True)
    found = {route.path: route for route in routes(app)}
    assert {path: (route.methods, route.name) for path, route in found.items()} == {
        "/static/{filename:path}": (("GET",), "static"),
        "/{lang}/in/{rest:path}/edit": (("PUT",), "outer.inner.edit"),
        "/{lang}/in/{letter}/{code}": (("GET", "OPTIONS"), "outer.inner.letter"),
    }
    assert found["/{lang}/in/{rest:path}/edit"].marks == {"reads"}


def test_cookies_are_those_of_the_beginning() -> None:
    """Each request is sent by the same somebody, whatever answers do to cookies; each path gets its own cookies."""
    app = Flask("cookies")
    app.secret_key = "only for tests"
    seen: list[tuple[object, str | None]] = []

    @app.get("/<path:where>")
    def page(where: str) -> ResponseReturnValue:
        seen.append((session.pop("who", None), request.cookies.get("deep")))
        answer = Response("")
        answer.delete_cookie("deep", path="/deep")
        return answer

    client = app.test_client()
    with client.session_transaction() as kept:
        kept["who"] = "sam"
    client.set_cookie("deep", "yes", path="/deep")
    send = visitor(client)
    for path in ("/a", "/deep/b", "/a", "/deep/b"):
        assert send(Request("GET", path)).status == 200
    assert seen == [("sam", None), ("sam", "yes")] * 2


def test_an_error_that_is_let_out_is_a_500() -> None:
    """With TESTING, Flask raises what a server would have answered with 500."""
    app = Flask("failing")
    app.testing = True

    @app.get("/")
    def page() -> ResponseReturnValue:
        raise KeyError("x")

    answer = visitor(app.test_client())(Request("GET", "/"))
    assert (answer.status, answer.error) == (500, "KeyError: 'x'")
