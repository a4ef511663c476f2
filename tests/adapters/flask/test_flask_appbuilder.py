"""Flask-AppBuilder: its login, its logout and what it changes on GET are found without being listed."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_appbuilder import AppBuilder

from readonly_flask import ReadOnly
from readonly_flask.logins import find
from support.apps import HandSwitch
from support.flask_sites import installed

# The forms that it makes are of an older WTForms.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def _sqla() -> Any:
    try:
        from flask_appbuilder import SQLA  # before 5.0
    except ImportError:
        from flask_appbuilder.utils.legacy import get_sqla_class

        return get_sqla_class()
    return SQLA


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """An application with one administrator, ann; making it takes most of a second."""
    folder = tmp_path_factory.mktemp("appbuilder")
    app = Flask("built", root_path=str(folder))
    app.config.update(
        SECRET_KEY="key",
        READONLY_GUARD=False,  # a switch that is set by hand has no guards
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{folder}/site.db",
        WTF_CSRF_ENABLED=False,
        FAB_ADD_SECURITY_VIEWS=True,
    )
    app.extensions["switch"] = HandSwitch()
    ReadOnly(app, switch=app.extensions["switch"].as_switch())
    db = _sqla()(app)
    with app.app_context():
        builder = AppBuilder(app, db.session)
        builder.sm.add_user("ann", "Ann", "A", "ann@example.org", builder.sm.find_role("Admin"), "a password")
        builder.sm.add_user("ben", "Ben", "B", "ben@example.org", builder.sm.find_role("Admin"), "a password")
    yield app
    installed(app).close()


@pytest.fixture
def switch(built: Flask) -> Iterator[HandSwitch]:
    """Its switch, which is set by hand; writable before and after."""
    found: HandSwitch = built.extensions["switch"]
    yield found
    found.writable()


def signed_in(app: Flask) -> FlaskClient:
    """Return a client in which ann has signed in."""
    client = app.test_client()
    assert client.post("/login/", data={"username": "ann", "password": "a password"}).status_code == 302
    assert client.get("/users/list/").status_code == 200
    return client


def test_its_login_is_found(built: Flask, switch: HandSwitch) -> None:
    """The form is shown and refused, the API's login as well, and who was signed in reads as anybody else."""
    client = signed_in(built)
    switch.read_only()
    assert client.get("/").status_code == 200
    assert client.get("/users/list/").headers["Location"].startswith("/login/")
    assert client.get("/login/").status_code == 200
    for path in ("/login/", "/api/v1/security/login"):
        refused = client.post(path, data={"username": "ann", "password": "a password"})
        assert (refused.status_code, "signing in" in refused.get_json()["detail"]) == (503, True)
    switch.over()
    signed_in(built)


def test_its_logout_is_let_through(built: Flask, switch: HandSwitch) -> None:
    """A GET that clears the cookie; nothing is written for it."""
    client = signed_in(built)
    switch.read_only()
    assert client.get("/logout/").status_code == 302
    assert client.get_cookie("session") is None


def test_what_it_deletes_by_get(built: Flask, switch: HandSwitch) -> None:
    """Without CSRF protection its lists delete by GET: refused at the gate, also for whoever may keep a session."""
    client = signed_in(built)
    switch.read_only(sessions="keep")
    assert client.get("/users/list/").status_code == 200
    assert client.get("/users/delete/2").status_code == 503
    assert client.get("/users/action/delete/2").status_code == 503
    assert client.get("/users/show/2").status_code == 200


def with_auth(**parts: Any) -> SimpleNamespace:
    """Return an AppBuilder of which only the names of its views are known."""
    views = {name: SimpleNamespace(endpoint=endpoint) for name, endpoint in parts.items()}
    return SimpleNamespace(sm=SimpleNamespace(**views), baseviews=[])


@pytest.mark.parametrize(
    ("kind", "routes", "expected"),
    [
        (
            4,  # OAuth: the page that lists the providers is shown, the way back is refused
            {"login": ["GET"], "oauth_authorized": ["GET"], "logout": ["GET"]},
            (["GET name:Auth.oauth_authorized"], ["GET name:Auth.logout"]),
        ),
        (3, {"login": ["GET"], "logout": ["GET"]}, (["GET name:Auth.login"], ["GET name:Auth.logout"])),
        (
            5,  # SAML: the answer of the provider comes by POST
            {"login": ["GET"], "acs": ["POST"], "slo": ["GET", "POST"]},
            (["name:Auth.acs"], ["GET name:Auth.slo", "name:Auth.slo"]),
        ),
    ],
)
def test_other_ways_to_sign_in(kind: int, routes: dict[str, list[str]], expected: tuple[list[str], list[str]]) -> None:
    """By OAuth, by what a proxy says, by SAML: each has its own way back."""
    app = Flask("site")
    app.config["AUTH_TYPE"] = kind
    app.extensions["appbuilder"] = with_auth(auth_view="Auth")
    for name, methods in routes.items():
        app.add_url_rule(f"/{name}", f"Auth.{name}", lambda: "", methods=methods)
    found = find(app)
    assert (found.login, found.logout) == expected


def test_registration_and_its_mail() -> None:
    """The form's POST is a login, the link in the mail a write."""
    app = Flask("site")
    app.extensions["appbuilder"] = with_auth(registeruser_view="Register")
    app.add_url_rule("/form", "Register.this_form_get", lambda: "")
    app.add_url_rule("/form", "Register.this_form_post", lambda: "", methods=["POST"])
    app.add_url_rule("/activation/<code>", "Register.activation", lambda code: "")
    found = find(app)
    assert (found.login, found.writes) == (["name:Register.this_form_post"], ["GET name:Register.activation"])


def test_with_csrf_protection_it_deletes_nothing_by_get(built: Flask) -> None:
    """Then its GETs are reads, and need not be looked at while the site is writable."""
    assert any(rule.endswith(".delete") for rule in find(built).writes)
    built.extensions["csrf"] = object()
    try:
        assert find(built).writes == []
    finally:
        del built.extensions["csrf"]
