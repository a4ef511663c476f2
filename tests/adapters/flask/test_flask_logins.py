"""Logins of Flask-Login and Flask-Security are found without being listed, and so are their cookies."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import flask_login
import pytest
from flask import Blueprint, Flask, request
from flask_security import RoleMixin, Security, SQLAlchemyUserDatastore, UserMixin, hash_password
from flask_sqlalchemy import SQLAlchemy

from readonly_flask.logins import find
from support.apps import HandSwitch
from support.flask_sites import MakeApp, installed

# Flask-Login asks for the time in a way that Python 3.12 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning")


@pytest.fixture
def switch() -> HandSwitch:
    """A switch that is set by hand."""
    return HandSwitch()


def detail(answer: Any) -> str:
    """Return what a refusal says, or "" for anything else."""
    return answer.get_json()["detail"] if answer.status_code == 503 else ""


# --- Flask-Login ------------------------------------------------------------------------------------------------------


class User(flask_login.UserMixin):
    """Somebody."""

    def __init__(self, name: str) -> None:
        self.id = name


def with_flask_login(app: Flask) -> Flask:
    """Give an application logins of Flask-Login, with remember-me."""
    manager = flask_login.LoginManager(app)
    manager.login_view = "auth.login"
    manager.user_loader(User)
    auth = Blueprint("auth", __name__, url_prefix="/auth")

    @auth.route("/login", methods=["GET", "POST"])
    def login() -> str:
        if request.method == "POST":
            flask_login.login_user(User("ann"), remember="remember" in request.form)
        return "a form"

    @app.get("/")
    def home() -> str:
        return f"hello {getattr(flask_login.current_user, 'id', 'nobody')}"

    @app.get("/private")
    @flask_login.login_required
    def private() -> str:
        return "private"

    app.register_blueprint(auth)
    return app


def test_the_login_of_flask_login(make_app: MakeApp, switch: HandSwitch) -> None:
    """The view that it sends people to is the login: its form is shown, what it sends is refused in its own words."""
    app = with_flask_login(make_app(switch=switch.as_switch()))
    switch.read_only()
    client = app.test_client()
    assert client.get("/auth/login").text == "a form"
    assert "signing in is not possible" in detail(client.post("/auth/login"))
    sent = client.get("/private")
    assert (sent.status_code, sent.headers["Location"]) == (302, "/auth/login?next=%2Fprivate")


@pytest.mark.parametrize("gone", [False, True])
def test_remember_me_makes_no_new_session(make_app: MakeApp, switch: HandSwitch, gone: bool) -> None:
    """Neither while read-only nor after it, though its value is the same for ever; signing in anew gives a new one."""
    app = with_flask_login(make_app(switch=switch.as_switch()))
    client = app.test_client()
    client.post("/auth/login", data={"remember": "1"})
    remembered = client.get_cookie("remember_token")
    assert remembered is not None
    if gone:
        client.delete_cookie("session")  # the browser was closed
    assert client.get("/").text == "hello ann"
    switch.read_only()
    answer = client.get("/")
    assert answer.text == "hello nobody"
    assert not any(c.startswith("session=e") for c in answer.headers.getlist("Set-Cookie"))
    assert client.get_cookie("remember_token") is None
    switch.over(ago=timedelta(seconds=-2))
    client.set_cookie("remember_token", remembered.value)
    assert client.get("/").text == "hello nobody"
    switch.over(ago=timedelta(minutes=5))
    client.post("/auth/login", data={"remember": "1"})
    again = client.get_cookie("remember_token")
    assert again is not None
    assert again.value == remembered.value
    client.delete_cookie("session")
    assert client.get("/").text == "hello ann"


def test_the_cookie_is_as_the_config_says(make_app: MakeApp, switch: HandSwitch) -> None:
    """Name, path and domain; what is expired is what was set."""
    app = with_flask_login(
        make_app(
            switch=switch.as_switch(),
            REMEMBER_COOKIE_NAME="me",
            REMEMBER_COOKIE_PATH="/shop",
            REMEMBER_COOKIE_DOMAIN="example.org",
        )
    )
    cookie = next(c for c in installed(app).policy.cookies if c.name != "session")
    assert (cookie.name, cookie.path, cookie.domain, cookie.max_age_seconds) == ("me", "/shop", "example.org", None)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ({"login_view": None}, []),
        ({"login_view": "auth.login", "refresh_view": "again"}, ["name:auth.login", "name:again"]),
        ({"login_view": "shown"}, []),  # it takes no POST
        ({"login_view": "not.there"}, []),
        ({"login_view": "/sso/login"}, ["/sso/login"]),
        ({"login_view": "/login?via=sso"}, []),
        ({"login_view": "https://sso.example/login"}, []),
        ({"blueprint_login_views": {"auth": ".login", "": None}}, ["name:auth.login"]),
        ({"blueprint_login_views": {"shop": "auth.login"}}, ["name:auth.login"]),
    ],
)
def test_ways_to_name_a_login(make_app: MakeApp, views: dict[str, Any], expected: list[str]) -> None:
    """An endpoint, a path, another site, one for a blueprint."""
    app = with_flask_login(make_app())
    app.add_url_rule("/again", "again", lambda: "", methods=["POST"])
    app.add_url_rule("/shown", "shown", lambda: "")
    manager = app.login_manager  # type: ignore[attr-defined]
    manager.login_view = None
    for name, value in views.items():
        setattr(manager, name, value)
    assert find(app).login == expected


def test_nothing_is_looked_for_if_told_so(make_app: MakeApp) -> None:
    """Then Flask's own session is all that is known."""
    app = with_flask_login(make_app(READONLY_FIND_LOGINS=False))
    policy = installed(app).policy
    assert (policy.login, [cookie.name for cookie in policy.cookies]) == ((), ["session"])


def test_looking_imports_nothing() -> None:
    """The adapter knows the extensions by what they leave in an application, and loads none of them."""
    show = (
        "import sys; from flask import Flask; from readonly_flask import ReadOnly\n"
        "app = Flask('x'); app.config.update(SECRET_KEY='k', READONLY_STORE='memory://'); ReadOnly(app)\n"
        "app.test_client().get('/'); app.extensions['readonly'].close()\n"
        "print(sorted({n.split('.')[0] for n in sys.modules} & {'flask_login', 'flask_security', 'flask_appbuilder',"
        " 'flask_sqlalchemy', 'sqlalchemy', 'redis'}))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", show], capture_output=True, text=True, check=False, cwd=root / "adapters"
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


# --- Flask-Security ---------------------------------------------------------------------------------------------------


# A switch that is set by hand has no guards.
UNGUARDED = {"READONLY_GUARD": False}


def with_security(app: Flask, **features: Any) -> Flask:
    """Give an application Flask-Security, with one user, ann, and features by their settings."""
    app.config.update(
        SECURITY_PASSWORD_HASH="plaintext",
        SECURITY_PASSWORD_SALT="salt",
        SECURITY_PASSWORD_SCHEMES=["plaintext"],
        SECURITY_DEPRECATED_PASSWORD_SCHEMES=[],
        SECURITY_SEND_REGISTER_EMAIL=False,
        SECURITY_EMAIL_VALIDATOR_ARGS={"check_deliverability": False},
        SQLALCHEMY_DATABASE_URI="sqlite://",
        WTF_CSRF_ENABLED=False,
        **{f"SECURITY_{name}": value for name, value in features.items()},
    )
    db: Any = SQLAlchemy(app)
    rows = db.Table(
        "roles_users",
        db.Column("user", db.ForeignKey("user.id")),
        db.Column("role", db.ForeignKey("role.id")),
    )

    class Role(db.Model, RoleMixin):  # type: ignore[misc]
        id = db.Column(db.Integer, primary_key=True)
        name = db.Column(db.String(80), unique=True)
        permissions = db.Column(db.String(80))

    class Account(db.Model, UserMixin):  # type: ignore[misc]
        __tablename__ = "user"
        id = db.Column(db.Integer, primary_key=True)
        email = db.Column(db.String(80), unique=True)
        password = db.Column(db.String(80))
        active = db.Column(db.Boolean)
        fs_uniquifier = db.Column(db.String(64), unique=True)
        confirmed_at = db.Column(db.DateTime)
        current_login_at = db.Column(db.DateTime)
        last_login_at = db.Column(db.DateTime)
        current_login_ip = db.Column(db.String(64))
        last_login_ip = db.Column(db.String(64))
        login_count = db.Column(db.Integer)
        roles = db.relationship("Role", secondary=rows)

    store = SQLAlchemyUserDatastore(db, Account, Role)
    app.security = Security(app, store)  # type: ignore[attr-defined]

    @app.get("/")
    def home() -> str:
        return f"hello {getattr(flask_login.current_user, 'email', 'nobody')}"

    with app.app_context():
        db.create_all()
        store.create_user(email="ann@example.org", password=hash_password("a password"))
        db.session.commit()
    return app


ANN = {"email": "ann@example.org", "password": "a password", "remember": "y"}


def test_the_login_of_flask_security(make_app: MakeApp, switch: HandSwitch) -> None:
    """Login, registration and the reset are refused with their forms shown; sessions and remember-me are over."""
    features = {"REGISTERABLE": True, "RECOVERABLE": True, "TRACKABLE": True}
    app = with_security(make_app(switch=switch.as_switch(), **UNGUARDED), **features)
    client = app.test_client()
    assert client.post("/login", data=ANN).status_code == 302
    assert client.get("/").text == "hello ann@example.org"
    assert client.get_cookie("remember_token") is not None
    switch.read_only()
    assert client.get("/").text == "hello nobody"
    for path in ("/login", "/register", "/reset"):
        assert client.get(path).status_code == 200
        assert "signing in is not possible" in detail(client.post(path, data=ANN))
    assert client.get("/").text == "hello nobody"
    switch.over()
    assert client.post("/login", data=ANN).status_code == 302
    assert client.get("/").text == "hello ann@example.org"


def test_a_confirmation_by_mail_waits(make_app: MakeApp, switch: HandSwitch) -> None:
    """It is a write by GET: refused at the gate, and the token is good for later."""
    app = with_security(make_app(switch=switch.as_switch(), **UNGUARDED), CONFIRMABLE=True)
    switch.read_only()
    assert app.test_client().get("/confirm/a-token").status_code == 503
    assert app.test_client().get("/confirm").status_code == 200
    switch.over()
    assert app.test_client().get("/confirm/a-token").status_code == 302


@pytest.mark.parametrize("methods", [["POST"], ["GET", "POST"], None])
def test_signing_out_of_flask_security(make_app: MakeApp, switch: HandSwitch, methods: list[str] | None) -> None:
    """By the methods that it takes."""
    app = with_security(make_app(switch=switch.as_switch(), **UNGUARDED), LOGOUT_METHODS=methods)
    client = app.test_client()
    client.post("/login", data=ANN)
    switch.read_only()
    allowed = methods or []
    assert client.get("/logout").status_code == (302 if "GET" in allowed else 405 if allowed else 404)
    # Where it is none of its methods, it is sent by somebody who was signed out by the page before.
    assert client.post("/logout").status_code == (302 if allowed else 403)


def test_all_that_flask_security_can_do(make_app: MakeApp) -> None:
    """Each view that signs somebody in is named, by the methods by which it does; and no view that shows a form."""
    app = with_security(
        make_app(),
        BLUEPRINT_NAME="accounts",
        REGISTERABLE=True,
        RECOVERABLE=True,
        CONFIRMABLE=True,
        CHANGEABLE=True,
        CHANGE_EMAIL=True,
        USERNAME_RECOVERY=True,
    )
    found = find(app)
    names = ["forgot_password", "login", "recover_username", "register", "reset_password", "send_confirmation"]
    assert found.login == [f"name:accounts.{name}" for name in names]
    assert found.logout == ["name:accounts.logout"]
    assert found.writes == [f"GET name:accounts.{name}" for name in ("change_email_confirm", "confirm_email")]


def test_links_that_sign_in(make_app: MakeApp, switch: HandSwitch) -> None:
    """A link in a mail is refused before it is used up."""
    secrets = {"TOTP_SECRETS": {1: "TjQ9Qa31VOrfEzuPy4VHQWPCTmRzCnFzMKLxXYiZu9B"}, "TOTP_ISSUER": "site"}
    features = {"UNIFIED_SIGNIN": True, "US_ENABLED_METHODS": ["password", "email"], **secrets}
    app = with_security(make_app(switch=switch.as_switch(), **UNGUARDED), **features)
    assert "GET name:security.us_verify_link" in find(app).login
    switch.read_only()
    client = app.test_client()
    assert "signing in is not possible" in detail(client.get("/us-verify-link?id=1&code=2"))
    assert "signing in is not possible" in detail(client.post("/us-signin/send-code"))


def test_a_cookie_that_is_exchanged_for_a_login(make_app: MakeApp) -> None:
    """Flask-Security's refresh token is a session as well, where it is used."""
    app = with_flask_login(make_app())
    app.extensions["security"] = type("Security", (), {"datastore": None})()
    app.config.update(
        SECURITY_REFRESH_TOKEN=True,
        SECURITY_REFRESH_TOKEN_COOKIE_NAME="fs_refresh",
        SECURITY_REFRESH_TOKEN_COOKIE={"path": "/refresh", "domain": "example.org"},
    )
    cookie = next(c for c in installed(app).policy.cookies if c.name == "fs_refresh")
    assert (cookie.path, cookie.domain) == ("/refresh", "example.org")
    app.config["SECURITY_REFRESH_TOKEN"] = False
    assert [c.name for c in find(app).cookies] == ["remember_token", "session"]
