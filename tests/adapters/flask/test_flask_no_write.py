"""While read-only no GET writes to the database: PostgreSQL itself says so, for every kind of visitor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import flask_login
import pytest
from flask import Flask, flash, get_flashed_messages, redirect, request, session
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy

from readonly.changes import Operator, turn_off
from readonly_flask import ReadOnly
from support import missing
from support.flask_sites import switch_of
from support.missing import ServerMissing
from support.server_witness import Witness, witnessed_server
from support.waiting import eventually

# Flask-Login asks for the time in a way that Python 3.12 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning")


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    """A PostgreSQL of this module's own, whose log says everything: nobody else writes to it."""
    lacking = None
    try:
        server = witnessed_server().start()
    except ServerMissing as error:
        lacking = error
    if lacking is not None:
        raise missing.outcome(lacking)
    yield Witness(server, server.new_database())
    server.close()


def build(url: str, *, wrap: bool) -> Flask:
    """Return a site with every kind of GET, with the extension or without."""
    app = Flask("news", root_path=".", static_folder=None)
    app.config.update(
        SECRET_KEY="key",
        SESSION_PERMANENT=True,
        REMEMBER_COOKIE_REFRESH_EACH_REQUEST=True,
        SQLALCHEMY_DATABASE_URI=url,
        SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 1, "max_overflow": 0},
    )
    if wrap:
        app.config.update(
            READONLY_STORE="memory://",
            READONLY_LOGOUT=["GET /logout"],
            READONLY_DISCARD=["page_view", "person.last_seen", "story.views"],
        )
        ReadOnly(app)
    db: Any = SQLAlchemy(app)

    class Story(db.Model):  # type: ignore[misc]
        id = db.Column(db.Integer, primary_key=True)
        title = db.Column(db.Text)
        views = db.Column(db.Integer, default=0)

    class Person(db.Model, flask_login.UserMixin):  # type: ignore[misc]
        id = db.Column(db.Integer, primary_key=True)
        last_seen = db.Column(db.DateTime)

    class PageView(db.Model):  # type: ignore[misc]
        id = db.Column(db.Integer, primary_key=True)
        path = db.Column(db.Text)

    class Message(db.Model):  # type: ignore[misc]
        id = db.Column(db.Integer, primary_key=True)
        words = db.Column(db.Text)

    manager = flask_login.LoginManager(app)
    manager.login_view = "login"

    @manager.user_loader
    def load(found: str) -> Any:
        return db.session.get(Person, int(found))

    @app.before_request
    def seen() -> None:
        user: Any = flask_login.current_user
        if user.is_authenticated:
            user.last_seen = db.func.now()
        db.session.add(PageView(path=request.path))
        db.session.commit()

    @app.get("/")
    def home() -> str:
        name = getattr(flask_login.current_user, "id", "nobody")
        return f"{name}: {db.session.scalars(db.select(Story.title)).all()} {get_flashed_messages()}"

    @app.get("/story/<int:number>")
    def story(number: int) -> str:
        found = db.get_or_404(Story, number)
        found.views = Story.views + 1
        db.session.commit()
        return str(found.title)

    @app.get("/greet")
    def greet() -> str:
        """Store a message, as a GET should not."""
        db.session.add(Message(words="hello"))
        db.session.commit()
        return "stored"

    @app.get("/swallowed")
    def swallowed() -> str:
        try:
            greet()
        except Exception:
            db.session.rollback()
        return "as if nothing was"

    @app.get("/flash")
    def flashed() -> ResponseReturnValue:
        flash("a message")
        session["visits"] = session.get("visits", 0) + 1
        return redirect("/")

    @app.route("/login", methods=["GET", "POST"])
    def login() -> str:
        if request.method == "POST":
            flask_login.login_user(db.session.get(Person, 1), remember=True)
        return "a form"

    @app.get("/logout")
    def logout() -> str:
        flask_login.logout_user()
        return "bye"

    @app.get("/private")
    @flask_login.login_required
    def private() -> str:
        return "private"

    with app.app_context():
        db.drop_all()
        db.create_all()
        db.session.add_all([Story(title="first"), Person()])
        db.session.commit()
    return app


@pytest.fixture(scope="module")
def url(witness: Witness) -> str:
    """Where the site's database is."""
    return witness.server.url(witness.database, scheme="postgresql+psycopg")


@pytest.fixture(scope="module")
def site(url: str) -> Iterator[Flask]:
    """The site with the extension."""
    app = build(url, wrap=True)
    yield app
    app.extensions["readonly"].close()
    with app.app_context():
        app.extensions["sqlalchemy"].engine.dispose()


def visitor(app: Flask, kind: str) -> FlaskClient:
    """Return a client that was here while the site was writable."""
    client = app.test_client()
    if kind != "anonymous":

        def signs_in() -> bool:
            """Tell whether it worked: an earlier test may have ended all sessions of this very second."""
            return client.post("/login").status_code == 200 and client.get("/").text.startswith("1:")

        eventually(signs_in, what="somebody signs in")
    if kind == "remembered":
        client.delete_cookie("session")
        assert client.get_cookie("remember_token") is not None
    return client


KINDS = ["anonymous", "signed in", "remembered"]


def _numbers(names: Iterable[str]) -> Any:
    return dict.fromkeys(names, 1)


def paths(app: Flask) -> list[str]:
    """Return a path for each route that takes GET."""
    with app.test_request_context():
        return [
            app.url_for(rule.endpoint, **_numbers(rule.arguments))
            for rule in app.url_map.iter_rules()
            if "GET" in (rule.methods or ())
        ]


def ask(client: FlaskClient, path: str) -> int:
    """Ask for a page, to its end."""
    return client.get(path, buffered=True).status_code


@contextmanager
def closed(site: Flask, *, sessions: str = "end") -> Iterator[None]:
    """Make the site read-only, proven; then open it as after a slip, so that sessions of the same second live on."""
    switch = switch_of(site)
    state = switch.on(sessions=sessions)
    assert switch.confirm(state.epoch, timeout=60).safe
    yield
    turn_off(switch.store, Operator.here(), undo=True)
    assert switch.wait_writable(60)


@pytest.mark.parametrize("sessions", ["end", "suspend", "keep"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_get_writes(site: Flask, witness: Witness, kind: str, sessions: str) -> None:
    """All routes, twice, by all kinds of visitors: pages are served, and the horizon stays where it was."""
    client = visitor(site, kind)
    everything = paths(site)
    assert len(everything) == 8
    with closed(site, sessions=sessions):
        with witness.watching() as seen:
            known = client.get("/").text.startswith("1:")
            answers = {path: (ask(client, path), ask(client, path)) for path in everything}
        assert known is (sessions == "keep" and kind != "anonymous")
        assert seen.wrote == 0, seen
        assert seen.statements  # it was that database which was read
        assert {path for path, statuses in answers.items() if 503 in statuses} == {"/greet"}
        assert not any(status >= 500 for path, both in answers.items() for status in both if path != "/greet")


def test_a_session_that_was_ended_before(site: Flask, witness: Witness) -> None:
    """Its bearer comes back in the next read-only time, with all that the browser still has."""
    client = visitor(site, "signed in")
    sent = {name: client.get_cookie(name) for name in ("session", "remember_token")}
    switch_of(site).on()
    switch_of(site).off()
    assert ask(client, "/private") == 302
    for name, cookie in sent.items():
        assert cookie is not None
        assert client.get_cookie(name) != cookie
        client.set_cookie(name, cookie.value)
    with closed(site), witness.watching() as seen:
        assert [ask(client, path) for path in ("/", "/private", "/flash")] == [200, 302, 302]
    assert seen.wrote == 0, seen


def test_the_measurement_sees_writes(url: str, witness: Witness, site: Flask) -> None:
    """The same routes without the extension: nearly every one of them writes."""
    with site.app_context():
        site.extensions["sqlalchemy"].engine.dispose()
    app = build(url, wrap=False)
    try:
        client = visitor(app, "signed in")
        for path in paths(app):
            with witness.watching() as seen:
                ask(client, path)
            assert seen.wrote > 0, path
            assert any("page_view" in statement for statement in seen.writes)
    finally:
        with app.app_context():
            app.extensions["sqlalchemy"].engine.dispose()
