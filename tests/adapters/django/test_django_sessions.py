"""Sessions of every engine while the site is read-only: ended, never born, never written; and nothing fails for it."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.backends.file import SessionStore as FileStore
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.test import override_settings
from django.urls import path

from readonly import Switch, writes
from readonly_django import conf, databases
from readonly_django.test import override_readonly
from support.django_site import SETTINGS, views

from .conftest import FIRST, OURS, Visitor, Witness

ENGINES = ("db", "cache", "cached_db", "file", "signed_cookies")
MODES = ("end", "suspend", "keep")
READONLY = {"STORE": "memory://?site=django-tests", "GUARD": False}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each of Django's session engines in turn."""
    (tmp_path / "sessions").mkdir()
    caches["default"].clear()
    # The class remembers where its first object kept its files.
    monkeypatch.delattr(FileStore, "_storage_path", raising=False)
    with override_settings(
        SESSION_ENGINE=f"django.contrib.sessions.backends.{request.param}",
        SESSION_FILE_PATH=str(tmp_path / "sessions"),
        MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
    ):
        yield str(request.param)


def stored(engine: str, tmp_path: Path) -> int:
    """Count the sessions that are kept anywhere."""
    if engine == "file":
        return len(list((tmp_path / "sessions").iterdir()))
    if engine in ("cache", "cached_db"):
        return len(caches["default"]._cache)  # type: ignore[attr-defined]
    return Session.objects.count()


@pytest.mark.parametrize(
    ("engine", "kind", "sessions"),
    [
        *((engine, "sync", sessions) for engine in ENGINES for sessions in MODES),
        # A page takes several times as long there. What differs by the engine is what goes on with a session.
        *((engine, "async", "keep") for engine in ENGINES),
        *(("db", "async", sessions) for sessions in MODES if sessions != "keep"),
    ],
    indirect=["engine"],
)
def test_no_get_writes(engine: str, ada: User, witness: Witness, tmp_path: Path, sessions: str, kind: str) -> None:
    """No row, no file and no entry of a cache; for whoever was signed in before, and for whoever comes now."""
    every = kind == "sync"
    visitor = Visitor(kind)
    visitor.signs_in(ada)
    visitor.get("/basket")
    newcomer = Visitor(visitor.kind)
    before = stored(engine, tmp_path)
    saved = override_settings(SESSION_SAVE_EVERY_REQUEST=every)
    csrf = override_settings(CSRF_USE_SESSIONS=every)
    with saved, csrf, override_readonly(sessions=sessions):
        witness.saw_a_write()
        for who in (visitor, newcomer):
            if sessions == "keep" and who is visitor:
                assert who.get("/whoami").content == b"ada"
                assert who.get("/basket").content == b"2"
            for name in [*views.ORDINARY, "nowhere"]:
                answer = who.get(f"/{name}")
                assert answer.status_code == (404 if name == "nowhere" else 200), name
                assert not witness.saw_a_write(), name
                assert stored(engine, tmp_path) == before, name
                if sessions != "keep":
                    assert settings.SESSION_COOKIE_NAME not in answer.cookies, name
                elif engine != "signed_cookies" and "sessionid" in answer.cookies:
                    # A session that is not stored anywhere is handed to nobody.
                    given = answer.cookies["sessionid"]
                    assert given["max-age"] == 0 or len(given.value) == 32, name


def test_the_measurement_sees_writes(visitor: Visitor, engine: str, witness: Witness, tmp_path: Path) -> None:
    """Without the middleware, the same pages write."""
    seen = []
    with override_settings(MIDDLEWARE=[each for each in FIRST if each != OURS]), override_readonly():
        newcomer = Visitor(visitor.kind)
        for name in ("basket", "abasket", "cycled", "message"):
            before = stored(engine, tmp_path)
            newcomer.get(f"/{name}")
            seen.append(witness.saw_a_write() or stored(engine, tmp_path) != before)
            newcomer.cookies.clear()
    assert all(seen) or engine == "signed_cookies"


def test_a_session_is_over_for_good(visitor: Visitor, engine: str, ada: User, switch: Switch) -> None:
    """Read as anonymous while read-only, and after it; nothing of it is deleted, and a new one lives."""
    visitor.signs_in(ada)
    assert visitor.get("/whoami").content == b"ada"
    kept = visitor.cookies["sessionid"].value
    switch.on(by="a test")
    try:
        assert visitor.get("/whoami").content == b"nobody"
        # In the first minute no browser is told to forget it: a slip can be taken back.
        assert visitor.cookies["sessionid"].value == kept
    finally:
        switch.off(by="a test")
    ended = visitor.get("/whoami")
    assert ended.content == b"nobody"
    assert ended.cookies["sessionid"]["max-age"] == "0"
    assert "no-store" in ended.headers["cache-control"]
    assert Session.objects.count() == (engine in ("db", "cached_db"))
    visitor.cookies["sessionid"] = kept
    late = visitor.post("/form")
    assert (late.status_code, late.json()["code"]) == (403, "SESSION_ENDED")
    again = Visitor(visitor.kind)
    # A signed value says to the second when it was signed.
    later = SimpleNamespace(time=lambda: time.time() + 2)
    with mock.patch("django.core.signing.time", later):
        answer = again.post("/allauth/login/", {"login": "ada", "password": "secret"})
    assert (answer.status_code, "sessionid" in answer.cookies) == (302, True)
    assert again.get("/whoami").content == b"ada", "a session from after the read-only time"
    assert ("sessionid-since" in again.cookies) == (engine != "signed_cookies")


def test_who_signs_in_with_an_ended_session_is_signed_in(visitor: Visitor, ada: User, switch: Switch) -> None:
    """A login form that was open before: the new session is not forgotten with the old one."""
    visitor.signs_in(ada)
    switch.on(by="a test")
    switch.off(by="a test")
    assert visitor.post("/accounts/login/", {"username": "ada", "password": "secret"}).status_code == 302
    assert visitor.get("/whoami").content == b"ada"


def test_after_the_first_minute_the_browser_is_told(
    visitor: Visitor, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the page does with its own, empty session."""
    monkeypatch.setattr("readonly.sessions.GRACE", timedelta(0))
    for name in ("whoami", "basket", "flushed", "signs-out", "cycled"):
        visitor.signs_in(ada)
        with override_readonly():
            cookie = visitor.get(f"/{name}").cookies["sessionid"]
            assert (cookie["max-age"], cookie.value) == ("0", ""), name


@pytest.mark.parametrize("sessions", ["suspend", "keep"])
def test_a_session_that_was_not_ended_goes_on(visitor: Visitor, engine: str, ada: User, sessions: str) -> None:
    """Suspended it comes back; kept it was never away."""
    visitor.signs_in(ada)
    with override_readonly(sessions=sessions):
        assert visitor.get("/whoami").content == (b"ada" if sessions == "keep" else b"nobody")
    assert visitor.get("/whoami").content == b"ada"


@override_settings(READONLY={**READONLY, "SESSIONS": "suspend"})
def test_what_the_settings_say_of_sessions(visitor: Visitor, ada: User) -> None:
    """The policy is the project's."""
    visitor.signs_in(ada)
    with override_readonly():
        assert visitor.get("/whoami").content == b"nobody"
    assert visitor.get("/whoami").content == b"ada"


@override_settings(SESSION_COOKIE_NAME="shop_session", SESSION_COOKIE_PATH="/", SESSION_COOKIE_DOMAIN="testserver")
def test_the_cookie_is_the_projects(visitor: Visitor, ada: User, switch: Switch) -> None:
    """It is forgotten by the name, path and domain that it was set with."""
    visitor.signs_in(ada)
    switch.on(by="a test")
    switch.off(by="a test")
    ended = visitor.get("/whoami").cookies["shop_session"]
    assert (ended["path"], ended["domain"], ended["max-age"]) == ("/", "testserver", "0")


@override_settings(READONLY={**READONLY, "SESSION_COOKIES": ["remember"]})
def test_remember_me_creates_no_session(visitor: Visitor, ada: User) -> None:
    """Named cookies of the site's own are taken off, too, and none is set."""
    visitor.cookies["remember"] = "ada"
    with override_readonly(), override_settings(ROOT_URLCONF=__name__):
        assert visitor.get("/").content == b"{}"


def cookies(request: Any) -> Any:
    """Show the cookies that the application sees."""
    from django.http import HttpResponse

    response = HttpResponse(str(request.COOKIES))
    response.set_cookie("remember", "x")
    return response


urlpatterns = [path("", cookies)]


@override_settings(READONLY={**READONLY, "BEARER": "end"})
def test_bearer_tokens_may_be_ended(visitor: Visitor) -> None:
    """The header is taken off, and others stay."""

    def shown(request: Any) -> Any:
        from django.http import HttpResponse

        return HttpResponse(request.headers.get("authorization", "none"))

    urlpatterns.append(path("shown", shown))
    try:
        with override_readonly(), override_settings(ROOT_URLCONF=__name__):
            assert visitor.get("/shown", authorization="Bearer abc").content == b"none"
            assert visitor.get("/shown", authorization="Basic abc").content == b"Basic abc"
    finally:
        urlpatterns.pop()


def test_a_form_from_before_is_good_after(visitor: Visitor, switch: Switch) -> None:
    """Its token is in a cookie of its own, which is no session's, and is left alone."""
    strict = Visitor(visitor.kind, enforce_csrf_checks=True)
    token = strict.get("/form").content.decode()
    switch.on(by="a test")
    try:
        assert strict.get("/form").status_code == 200
        assert strict.post("/form", {"csrfmiddlewaretoken": token}).status_code == 503
    finally:
        switch.off(by="a test")
    assert strict.post("/form", {"csrfmiddlewaretoken": token}).status_code == 200


def test_a_logout_clears_the_cookie_and_writes_nothing(visitor: Visitor, ada: User, witness: Witness) -> None:
    """It is let through, as a read; the row stays."""
    visitor.signs_in(ada)
    with override_readonly(sessions="keep"), override_settings(LOGOUT_REDIRECT_URL="/"):
        witness.saw_a_write()
        answer = visitor.post("/accounts/logout/")
        assert answer.status_code == 302
        assert answer.cookies["sessionid"]["max-age"] in (0, "0")
        assert "sessionid" not in visitor.cookies
        assert not witness.saw_a_write()


def test_a_page_that_was_begun_before_saves_its_session_or_not(visitor: Visitor, switch: Switch) -> None:
    """What a GET saves is counted at that moment; once the site is read-only it is not saved, and nothing fails."""
    counted: list[int] = []

    def late(request: Any) -> Any:
        from django.http import HttpResponse

        request.session["x"] = 1
        counted.append(switch.inflight.count())
        if "on" in request.GET:
            switch.on(by="a test")
        return HttpResponse("read")

    urlpatterns.append(path("late", late))
    try:
        with override_settings(ROOT_URLCONF=__name__):
            assert "sessionid" in visitor.get("/late").cookies
            assert Session.objects.count() == 1
            visitor.cookies.clear()
            answer = visitor.get("/late?on")
            assert (answer.status_code, answer.content) == (200, b"read")
            assert "sessionid" not in answer.cookies
            assert Session.objects.count() == 1
        assert counted == [0, 0]
    finally:
        switch.off(by="a test")
        urlpatterns.pop()


def test_what_an_admitted_get_saves_is_part_of_it(visitor: Visitor, switch: Switch) -> None:
    """A GET that is marked was counted: it is waited for as a whole, its session included."""

    @writes
    def marked(request: Any) -> Any:
        from django.http import HttpResponse

        request.session["x"] = 1
        switch.on(by="a test")
        return HttpResponse("written")

    urlpatterns.append(path("marked", marked))
    try:
        with override_settings(ROOT_URLCONF=__name__):
            assert visitor.get("/marked").status_code == 200
        assert Session.objects.count() == 1
    finally:
        switch.off(by="a test")
        urlpatterns.pop()


def test_what_a_get_saves_is_in_flight(
    visitor: Visitor, switch: Switch, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`on` waits for it, though nobody knew that this GET writes."""
    from importlib import import_module

    from django.contrib.sessions.backends.base import SessionBase

    counted: list[int] = []
    store: Any = import_module(settings.SESSION_ENGINE).SessionStore
    save = store.save

    def noting(self: SessionBase, must_create: bool = False) -> Any:
        counted.append(switch.inflight.count())
        return save(self, must_create=must_create)

    monkeypatch.setattr(store, "save", noting)
    visitor.get("/basket")
    assert counted
    assert set(counted) == ({0} if engine == "signed_cookies" else {1})


def test_who_signs_each_request_goes_on_reading(visitor: Visitor, ada: User, witness: Witness) -> None:
    """REST framework's basic authentication needs no session; a better hash for the password has to wait."""
    signed = "Basic " + base64.b64encode(b"ada:secret").decode()
    better = [
        "django.contrib.auth.hashers.PBKDF2SHA1PasswordHasher",
        "django.contrib.auth.hashers.MD5PasswordHasher",
    ]
    visitor.get("/")
    databases.install(conf.current_switch(), discard=["auth.User.password"])
    try:
        with override_readonly(), override_settings(PASSWORD_HASHERS=better):
            witness.saw_a_write()
            answer = visitor.get("/api/articles/whoami/", authorization=signed)
            assert (answer.status_code, answer.json()) == (200, "ada")
            assert not witness.saw_a_write()
    finally:
        databases.uninstall()


def test_the_last_login_is_written_by_logins_alone(visitor: Visitor, ada: User, witness: Witness) -> None:
    """A sign-in by a header on a GET updates it while writable, and not while read-only."""
    visitor.get("/signs-in")
    ada.refresh_from_db()
    first = ada.last_login
    assert first is not None
    with override_readonly():
        visitor.get("/signs-in")
        ada.refresh_from_db()
        assert ada.last_login == first
    visitor.get("/signs-in")
    ada.refresh_from_db()
    assert ada.last_login > first  # type: ignore[operator]


def test_a_site_that_switched_the_last_login_off_keeps_it_off(project: None, ada: User) -> None:
    """Only Django's own receiver is replaced, and only while it is there."""
    from django.contrib.auth.models import update_last_login
    from django.contrib.auth.signals import user_logged_in

    uid = "update_last_login"
    assert user_logged_in.disconnect(dispatch_uid=uid)
    try:
        Visitor().get("/signs-in")
        ada.refresh_from_db()
        assert ada.last_login is None
    finally:
        user_logged_in.connect(update_last_login, dispatch_uid=uid)


def test_a_session_middleware_of_the_sites_own(project: None, witness: Witness) -> None:
    """Wherever the session comes from, and however often it is set."""

    def setting(get_response: Any) -> Any:
        from django.contrib.sessions.backends.db import SessionStore

        def serve(request: Any) -> Any:
            assert not hasattr(request, "session")
            request.session = SessionStore(None)
            request.session["early"] = 1
            request.session.save()
            return get_response(request)

        return serve

    globals()["setting"] = setting
    own = [OURS, f"{__name__}.setting", "django.contrib.messages.middleware.MessageMiddleware"]
    with override_settings(MIDDLEWARE=own), override_readonly():
        assert Visitor().get("/basket").content == b"1"
        assert not witness.saw_a_write()
    assert SETTINGS["MIDDLEWARE"] != own


@override_settings(READONLY={**READONLY, "EXEMPT": ["/basket"]})
def test_an_exempt_page_keeps_its_session(visitor: Visitor, ada: User, witness: Witness) -> None:
    """The session rules look away; whether the database takes it is the guard's affair."""
    visitor.signs_in(ada)
    with override_readonly():
        witness.saw_a_write()
        assert visitor.get("/basket").content == b"1"
        assert "sessionid" in visitor.cookies
        assert not witness.saw_a_write(), "sessions in the database are not saved, where a guard would refuse it"
    with (
        override_settings(SESSION_ENGINE="django.contrib.sessions.backends.cache"),
        override_readonly(),
    ):
        other = Visitor(visitor.kind)
        assert [other.get("/basket").content for _ in range(2)] == [b"1", b"2"]


def test_how_long_a_session_may_live(project: None) -> None:
    """Unknown, unless the settings say so: a session may be given any age."""
    assert conf.policy().cookies[0].max_age_seconds is None
    with override_settings(READONLY={**READONLY, "SESSION_AGE": 3600}):
        assert conf.policy().cookies[0].max_age_seconds == 3600


def test_keys_of_the_project_sign_the_stamps(project: None) -> None:
    """The one that signs first, then those that were in use before."""
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old", b"older"]):
        assert conf.policy().secrets == ("new", "old", "older")
