"""What becomes of sessions: Flask's own, remember-me, and those that a server keeps."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask, make_response, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionInterface, SessionMixin
from flask.testing import FlaskClient

from readonly import SessionCookie
from readonly.errors import ConfigurationError
from readonly_flask import ReadOnly
from support.apps import HandSwitch
from support.flask_sites import MakeApp, installed

LOGIN = {"READONLY_LOGIN": ["/login"], "READONLY_LOGOUT": ["/logout", "GET /logout"]}


def with_login(app: Flask) -> Flask:
    """Give an application a session by hand, as its tutorial does."""

    @app.route("/")
    def home() -> str:
        return f"hello {session.get('user')}"

    @app.route("/login", methods=["GET", "POST"])
    def login() -> str:
        if request.method == "POST":
            session["user"] = "ann"
            session.permanent = "permanent" in request.form
        return "a form"

    @app.route("/logout", methods=["GET", "POST"])
    def logout() -> str:
        session.clear()
        return "bye"

    @app.route("/write", methods=["POST"])
    def write() -> str:
        return f"written by {session.get('user')}"

    return app


@pytest.fixture
def switch() -> HandSwitch:
    """A switch that is set by hand: what happens minutes after a change need not be waited for."""
    return HandSwitch()


@pytest.fixture
def site(make_app: MakeApp, switch: HandSwitch) -> Flask:
    """A site with Flask's own sessions."""
    return with_login(make_app(switch=switch.as_switch(), **LOGIN))


def signed_in(app: Flask, **options: Any) -> FlaskClient:
    """Return a client that has signed in."""
    client = app.test_client()
    client.post("/login", data={"permanent": ""} if options.pop("permanent", False) else {}, **options)
    return client


def with_cookie(app: Flask, cookie: str, path: str = "/") -> str:
    """Ask for a page with a Cookie header as it stands."""
    return app.test_client(use_cookies=False).get(path, headers={"Cookie": cookie}).text


def set_cookies(answer: Any) -> list[str]:
    """Return the cookies that a response sets, without their values."""
    return answer.headers.getlist("Set-Cookie")


def expired(answer: Any, name: str) -> bool:
    """Tell whether a response makes the browser forget a cookie."""
    return any(c.startswith(f"{name}=;") and "Max-Age=0" in c for c in set_cookies(answer))


# --- Flask's own ------------------------------------------------------------------------------------------------------


def test_a_session_from_before_is_over_for_good(site: Flask, switch: HandSwitch) -> None:
    """While read-only its bearer reads as anybody else; after it a form meets its own answer, and signing in works."""
    client = signed_in(site)
    assert client.get("/").text == "hello ann"
    switch.read_only(for_=timedelta(seconds=-2))
    first = client.get("/")
    assert (first.text, set_cookies(first)) == ("hello None", [])  # `off --undo` may still take it back
    switch.over(ago=timedelta(seconds=-2))
    late = client.post("/write", headers={"Accept": "application/json"})
    assert (late.status_code, late.get_json()["code"]) == (403, "SESSION_ENDED")
    assert expired(late, "session")
    assert client.get("/").text == "hello None"


def test_a_session_from_after_lives(site: Flask, switch: HandSwitch) -> None:
    """Signed after the cut-off, it is a session like any other."""
    switch.over(ago=timedelta(minutes=5))
    client = signed_in(site)
    assert client.get("/").text == "hello ann"
    assert client.post("/write").text == "written by ann"


def test_no_session_is_born(site: Flask, switch: HandSwitch) -> None:
    """A login is refused and its form shown; and whatever a view puts into a session, no response sets it."""

    @site.get("/sneaky")
    def sneaky() -> str:
        session["user"] = "eve"
        return "in"

    switch.read_only()
    client = site.test_client()
    form = client.get("/login")
    assert (form.status_code, form.text) == (200, "a form")
    refused = client.post("/login", headers={"Accept": "text/html"})
    assert refused.status_code == 503
    assert "Signing in is paused" in refused.text
    answer = client.get("/sneaky")
    assert (answer.text, set_cookies(answer)) == ("in", [])


def test_after_the_first_minute_the_browser_forgets_it(site: Flask, switch: HandSwitch) -> None:
    """By its name, path and domain, or no browser would."""
    client = signed_in(site)
    switch.read_only(for_=timedelta(minutes=5))
    cookie = f"session={client.get_cookie('session').value}"  # type: ignore[union-attr]
    assert expired(client.get("/"), "session")
    assert with_cookie(site, cookie) == "hello None"
    switch.writable()
    assert with_cookie(site, cookie) == "hello ann"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, SessionCookie("session", "/", None, signed=True)),
        (
            {"SESSION_COOKIE_NAME": "sid", "SESSION_COOKIE_PATH": "/shop", "SESSION_COOKIE_DOMAIN": "example.org"},
            SessionCookie("sid", "/shop", "example.org", signed=True),
        ),
        ({"APPLICATION_ROOT": "/below"}, SessionCookie("session", "/below", signed=True)),
        ({"SESSION_COOKIE_PARTITIONED": True}, SessionCookie("session", partitioned=True, signed=True)),
    ],
)
def test_the_cookie_is_as_the_config_says(make_app: MakeApp, config: Any, expected: SessionCookie) -> None:
    """What Flask sets is what is expired."""
    app = make_app(PERMANENT_SESSION_LIFETIME=timedelta(hours=1), **config)
    (cookie,) = installed(app).policy.cookies
    assert cookie.max_age_seconds is not None
    assert 3600 <= cookie.max_age_seconds < 3610
    assert (cookie.name, cookie.path, cookie.domain, cookie.signed) == (
        expected.name,
        expected.path,
        expected.domain,
        True,
    )
    assert cookie.partitioned in (expected.partitioned, False)  # Flask knows the word since 3.1


def test_settings_that_change_after_it_was_wrapped(make_app: MakeApp, switch: HandSwitch) -> None:
    """The application is looked at by its first request, as Flask itself does at each."""
    app = with_login(make_app(switch=switch.as_switch()))
    app.config["SESSION_COOKIE_NAME"] = "late"
    client = signed_in(app)
    switch.read_only(for_=timedelta(seconds=-2))
    assert client.get("/").text == "hello None"


@pytest.mark.skipif("SECRET_KEY_FALLBACKS" not in Flask("x").config, reason="before Flask 3.1 there was one key")
def test_keys_that_were_rotated(make_app: MakeApp, switch: HandSwitch) -> None:
    """A session that an old key signed tells its time as well; the application verifies it, with both keys."""
    old = with_login(make_app(switch=HandSwitch().as_switch()))
    cookie = f"session={signed_in(old).get_cookie('session').value}"  # type: ignore[union-attr]
    new = with_login(make_app(switch=switch.as_switch()))
    new.config.update(SECRET_KEY=b"a new key", SECRET_KEY_FALLBACKS=["a key of this site"])
    assert installed(new).policy.secrets == ("a new key", "a key of this site")
    switch.over(ago=timedelta(minutes=5))
    assert with_cookie(new, cookie) == "hello ann"
    switch.over(ago=timedelta(seconds=-2))
    assert with_cookie(new, cookie) == "hello None"


def test_a_site_without_sessions(make_app: MakeApp, switch: HandSwitch) -> None:
    """Without a key Flask has none, and nothing is named."""
    app = make_app(switch=switch.as_switch(), wrap=False)
    app.config["SECRET_KEY"] = None
    ReadOnly(app, switch=switch.as_switch())
    assert installed(app).policy.cookies == ()


@pytest.mark.parametrize("how", ["suspend", "keep"])
def test_sessions_that_go_on(make_app: MakeApp, switch: HandSwitch, how: str) -> None:
    """`suspend` brings them back after `off`; `keep` lets them go on reading."""
    app = with_login(make_app(switch=switch.as_switch(), READONLY_SESSIONS=how, **LOGIN))
    client = signed_in(app)
    switch.read_only()
    assert client.get("/").text == ("hello ann" if how == "keep" else "hello None")
    assert client.post("/write").status_code == 503
    switch.over()
    assert client.post("/write").text == "written by ann"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("how", ["end", "suspend"])
def test_signing_out_works_all_the_time(make_app: MakeApp, switch: HandSwitch, how: str, method: str) -> None:
    """The cookie is cleared, though the application is asked as by nobody."""
    app = with_login(make_app(switch=switch.as_switch(), READONLY_SESSIONS=how, **LOGIN))
    client = signed_in(app)
    switch.read_only()
    answer = client.open("/logout", method=method)
    assert (answer.status_code, answer.text) == (200, "bye")
    assert expired(answer, "session")
    assert client.get_cookie("session") is None


def test_an_exempt_request_keeps_its_session(make_app: MakeApp, switch: HandSwitch) -> None:
    """Gate and session rules look away."""
    app = with_login(make_app(switch=switch.as_switch(), READONLY_EXEMPT=["/write"]))
    client = signed_in(app)
    switch.read_only()
    assert client.post("/write").text == "written by ann"


# --- sessions that a server keeps -------------------------------------------------------------------------------------


class Kept(SecureCookieSession):
    """A session behind an id."""

    def __init__(self, sid: str, data: dict[str, Any]) -> None:
        super().__init__(data)
        self.sid = sid


class ServerSide(SessionInterface):
    """Keeps sessions here, and hands out opaque ids, as Flask-Session does."""

    def __init__(self) -> None:
        self.store: dict[str, dict[str, Any]] = {}

    def open_session(self, app: Flask, request: Any) -> Kept:
        sid = request.cookies.get(self.get_cookie_name(app)) or secrets.token_urlsafe(32)
        return Kept(sid, dict(self.store.get(sid, {})))

    def save_session(self, app: Flask, session: SessionMixin, response: Any) -> None:
        assert isinstance(session, Kept)
        if not session.modified:
            return
        self.store[session.sid] = dict(session)
        response.set_cookie(self.get_cookie_name(app), session.sid, path=self.get_cookie_path(app))


def test_ids_that_say_nothing_are_stamped(make_app: MakeApp, switch: HandSwitch) -> None:
    """An id from before stays over, one from after lives: Flask's key signs since when each is known."""
    app = with_login(make_app(switch=switch.as_switch(), **LOGIN))
    app.session_interface = ServerSide()
    before = signed_in(app)
    assert before.get("/").text == "hello ann"
    switch.read_only()
    assert before.get("/").text == "hello None"
    switch.over()
    id_from_before = before.get_cookie("session")
    assert id_from_before is None or before.post("/write").status_code == 403
    after = signed_in(app)
    assert after.get_cookie("session-since") is not None
    assert after.get("/").text == "hello ann"
    assert after.post("/write").text == "written by ann"
    stolen = next(iter(app.session_interface.store))
    assert with_cookie(app, f"session={stolen}") == "hello None"
    switch.writable()
    assert with_cookie(app, f"session={stolen}") == "hello ann"


def test_ids_without_a_key_stop_the_site(make_app: MakeApp, switch: HandSwitch) -> None:
    """Nothing could tell old ids from new ones: said by the first request, or at once by a server's hook."""
    app = with_login(make_app(switch=switch.as_switch(), wrap=False))
    app.config["SECRET_KEY"] = None
    app.session_interface = ServerSide()
    ReadOnly(app, switch=switch.as_switch())
    for ask in (installed(app).start, lambda: app.test_client().get("/")):
        with pytest.raises(ConfigurationError, match=r"'session'.*secret"):
            ask()


def test_an_interface_of_the_sites_own(make_app: MakeApp, switch: HandSwitch) -> None:
    """One that signs like Flask tells its time; what it writes otherwise is stamped."""

    class Quiet(SecureCookieSessionInterface):
        def should_set_cookie(self, app: Flask, session: SessionMixin) -> bool:
            return session.modified

    class Different(SecureCookieSessionInterface):
        def get_signing_serializer(self, app: Flask) -> Any:
            return super().get_signing_serializer(app)

    for interface, signed in ((Quiet(), True), (Different(), False)):
        app = with_login(make_app(switch=switch.as_switch()))
        app.session_interface = interface
        (cookie,) = installed(app).policy.cookies
        assert cookie.signed is signed
        switch.over(ago=timedelta(minutes=5))
        client = signed_in(app)
        assert client.get("/").text == "hello ann"
        assert client.get_cookie("session-since") is None
        switch.over(ago=timedelta(seconds=-2))
        assert client.get("/").text == "hello None"


def test_a_cookie_that_the_site_describes_itself(make_app: MakeApp, switch: HandSwitch) -> None:
    """Its word counts, and Flask's interface is not asked for what it says."""

    class Picky(SecureCookieSessionInterface):
        def get_cookie_path(self, app: Flask) -> str:
            return f"/{request.host}"  # needs a request

    mine = SessionCookie("session", path="/shop", signed=True)
    app = make_app(switch=switch.as_switch(), READONLY_SESSION_COOKIES=[mine, "visitor"])
    app.session_interface = Picky()
    assert [(c.name, c.path) for c in installed(app).policy.cookies] == [("session", "/shop"), ("visitor", "/")]


def test_more_cookies_by_name(make_app: MakeApp, switch: HandSwitch) -> None:
    """A cookie that the site sets by itself is ended, and not set, like the session."""
    app = make_app(switch=switch.as_switch(), READONLY_SESSION_COOKIES=["visitor"])

    @app.get("/")
    def home() -> Any:
        response = make_response(request.cookies.get("visitor", "nobody"))
        response.set_cookie("visitor", "v1")
        return response

    client = app.test_client()
    client.get("/")
    assert client.get("/").text == "v1"
    switch.read_only()
    answer = client.get("/")
    assert answer.text == "nobody"
    assert not [cookie for cookie in set_cookies(answer) if cookie.startswith("visitor=v1")]
    assert client.get_cookie("visitor") is None
