"""What signs people in and out is found in the URLconf, of whoever brought the view; nobody lists it."""

from __future__ import annotations

import functools
import sys
from typing import Any

import pytest
from django.contrib.auth import views as auth_views
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.test import override_settings
from django.urls import resolve
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode
from django.views.decorators.cache import never_cache

from readonly_django.endpoints import Endpoints
from readonly_django.logins import login_marks
from readonly_django.test import override_readonly
from support.processes import run

from .conftest import Visitor

FORM, RETURN, LINK = {"login"}, {"login", "login:GET"}, {"writes"}


@pytest.mark.parametrize(
    ("path", "marks"),
    [
        ("/accounts/login/", FORM),
        ("/accounts/logout/", {"logout"}),
        ("/accounts/reset/MQ/abc/", LINK),
        ("/accounts/password_reset/", set()),  # a form, whose POST is refused as any
        ("/admin/login/", FORM),
        ("/admin/logout/", {"logout"}),
        ("/admin/", set()),
        ("/admin/password_change/", set()),
        ("/api/token", FORM),
        ("/allauth/login/", FORM),
        ("/allauth/signup/", FORM),
        ("/allauth/logout/", {"logout"}),
        ("/allauth/confirm-email/abc/", FORM),
        ("/allauth/password/reset/key/1-abc/", LINK),
        ("/allauth/3rdparty/signup/", FORM),
        ("/allauth/github/login/", FORM),
        ("/allauth/github/login/callback/", RETURN),
        ("/allauth/email/", set()),
        ("/", set()),
        ("/comments", set()),
        ("/api/articles/", set()),
    ],
)
def test_what_is_found(project: None, path: str, marks: set[str]) -> None:
    """By the classes that a view is made of, whatever decorates it."""
    assert login_marks(resolve(path).func) == marks


@pytest.mark.parametrize(
    ("setting", "path", "marks"),
    [
        ("ACCOUNT_CONFIRM_EMAIL_ON_GET", "/allauth/confirm-email/abc/", RETURN),
        ("ACCOUNT_LOGOUT_ON_GET", "/allauth/logout/", {"logout", "logout:GET"}),
        ("SOCIALACCOUNT_LOGIN_ON_GET", "/allauth/github/login/", RETURN),
    ],
)
def test_settings_that_make_a_get_act(project: None, setting: str, path: str, marks: set[str]) -> None:
    """What shows a form by default may act at once."""
    with override_settings(**{setting: True}):
        assert login_marks(resolve(path).func) == marks


class OwnLogin(auth_views.LoginView):
    """A site's own."""


class AnObject:
    """A view that is an object."""

    def __call__(self, request: Any) -> None:
        """Do nothing."""


def test_views_of_the_sites_own() -> None:
    """Classes that inherit are found as well; decorated, partial or odd ones do no harm."""
    view = OwnLogin.as_view()
    assert login_marks(view) == FORM
    assert login_marks(never_cache(view)) == FORM
    assert login_marks(functools.partial(view)) == FORM
    assert login_marks(AnObject()) == set()
    assert login_marks(functools.wraps(view)(lambda request: None)) == FORM


def test_views_that_can_be_no_keys() -> None:
    """They are looked at each time."""

    class Unhashable(AnObject):
        __hash__ = None  # type: ignore[assignment]

    endpoints = Endpoints(find_logins=True)
    assert endpoints.marks(Unhashable()) == set()
    assert endpoints.writes_on_get(Unhashable()) is False


def test_nothing_is_imported_to_look() -> None:
    """An application that is not installed is not loaded for it."""
    done = run(
        sys.executable,
        "-c",
        "import sys, readonly_django.logins, readonly_django.endpoints as e\n"
        "e.Endpoints(find_logins=True).writes_on_get(print)\n"
        "print([n for n in sys.modules if n.startswith(('allauth', 'rest_framework', 'django.contrib'))])",
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_refused_login_still_shows_its_form(visitor: Visitor, ada: User) -> None:
    """And says so in words of its own."""
    with override_readonly():
        for path in ("/accounts/login/", "/admin/login/", "/allauth/login/", "/allauth/signup/"):
            assert visitor.get(path).status_code == 200, path
        for path in ("/accounts/login/", "/admin/login/", "/allauth/login/", "/allauth/signup/", "/api/token"):
            answer = visitor.post(path, {"username": "ada", "password": "secret"}, accept="text/html")
            assert (answer.status_code, b"Signing in is paused" in answer.content) == (503, True), path
    assert visitor.post("/accounts/login/", {"username": "ada", "password": "secret"}).status_code == 302


def test_a_way_back_from_another_site_is_refused(visitor: Visitor) -> None:
    """Before the code that it brings is used up."""
    with override_readonly():
        answer = visitor.get("/allauth/github/login/callback/?code=x&state=y", accept="text/html")
        assert (answer.status_code, b"Signing in is paused" in answer.content) == (503, True)
    assert visitor.get("/allauth/github/login/callback/?code=x&state=y").status_code != 503


def test_a_link_from_a_mail_stays_good(visitor: Visitor, ada: User) -> None:
    """A password can't be reset now, and the link is good for later."""
    uid = urlsafe_base64_encode(force_bytes(ada.pk))
    link = f"/accounts/reset/{uid}/{default_token_generator.make_token(ada)}/"
    with override_readonly():
        assert visitor.get(link).status_code == 503
    answer = visitor.get(link)
    assert (answer.status_code, answer.headers["location"]) == (302, f"/accounts/reset/{uid}/set-password/")


@override_settings(READONLY={"STORE": "memory://?site=django-tests", "GUARD": False, "FIND_LOGINS": False})
def test_looking_can_be_switched_off(visitor: Visitor) -> None:
    """Then only rules and marks count."""
    with override_readonly():
        answer = visitor.post("/accounts/login/", {"username": "ada"}, accept="text/html")
        assert (answer.status_code, b"No changes right now" in answer.content) == (503, True)
        assert visitor.post("/accounts/logout/").status_code == 503
