"""The admin's page: it switches, and whoever switched there can switch back, with no session and no other page open."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core import signing
from django.http import HttpResponse
from django.test import RequestFactory, override_settings

from readonly import Switch
from readonly.errors import StoreUnreachable
from readonly_django import passes
from readonly_django.models import ReadOnlyMode
from readonly_django.test import override_readonly
from support.waiting import eventually

from .conftest import FIRST, KINDS, Visitor, Witness

PAGE = "/admin/readonly_django/readonlymode/"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a proof that this test is not about."""
    monkeypatch.setattr("readonly_django.admin.PROOF_SECONDS", 0.02)


@pytest.fixture
def permission(project: None) -> Permission:
    """The page's own, as `migrate` makes it."""
    content_type = ContentType.objects.get_for_model(ReadOnlyMode)
    return Permission.objects.create(content_type=content_type, codename="switch_site", name="switch")


@pytest.fixture
def operator(permission: Permission) -> User:
    """Somebody of the staff who may switch, and nothing else."""
    user = User.objects.create_user("olga", password="secret", is_staff=True)
    user.user_permissions.add(permission)
    return user


class Operator(Visitor):
    """Signed in, with a browser that checks as servers do."""

    def __init__(self, user: User, kind: str) -> None:
        super().__init__(kind, enforce_csrf_checks=True)
        self.signs_in(user)

    def opens(self) -> Any:
        """Open the page."""
        return self.get(PAGE)

    def presses(self, button: str, **fields: str) -> Any:
        """Fill in the form of the page as it is now, and send it."""
        shown = self.opens().content.decode()
        fields |= dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', shown))
        return self.post(PAGE, {button: "1", **fields})


@pytest.fixture(params=KINDS)
def olga(request: pytest.FixtureRequest, operator: User) -> Operator:
    """The operator's browser."""
    return Operator(operator, str(request.param))


def test_on_and_off_again(olga: Operator, operator: User, switch: Switch, witness: Witness) -> None:
    """Her session ends with it, and the page stays open to her: for this page alone, until she opens the site."""
    assert b"Make the site read-only" in olga.opens().content
    done = olga.presses("on", reason="INC-441", message="moving", minutes="45")
    assert (done.status_code, done.headers["location"]) == (302, PAGE)
    state = switch.state
    assert state.read_only
    (cause,) = state.causes
    assert (cause.by, cause.reason, cause.message) == ("olga", "INC-441", "moving")
    assert cause.expected_end is not None
    assert cause.expected_end - cause.since == timedelta(minutes=45)
    witness.saw_a_write()
    shown = olga.opens()
    assert shown.status_code == 200
    for text in (b"INC-441", b"moving", b"olga"):
        assert text in shown.content
    assert shown.headers["x-read-only"] == "true"
    # It asks again by itself until that is proven.
    proven = b"Every process of the site that reports refuses writes"
    eventually(lambda: proven in olga.opens().content)
    assert olga.get("/admin/").status_code == 302, "signed out"
    assert olga.post("/").status_code == 503
    assert olga.presses("off").status_code == 200
    assert not switch.state.read_only
    assert passes.COOKIE not in olga.cookies
    assert not witness.saw_a_write()
    assert olga.opens().status_code == 302, "signed out still, and the pass is worth nothing any more"


def test_the_pass_is_a_cookie_of_its_own(olga: Operator) -> None:
    """Signed, for one path, out of reach for scripts and other sites."""
    cookie = olga.presses("on").cookies[passes.COOKIE]
    assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == (PAGE, True, "Strict")
    assert cookie["max-age"] == ""
    other = Visitor(olga.kind)
    other.cookies[passes.COOKIE] = cookie.value
    assert other.get(PAGE).status_code == 200
    for path in ("/admin/", "/admin/auth/user/add/", "/"):
        assert other.post(path).status_code == 503, path
    forged = Visitor(olga.kind)
    forged.cookies[passes.COOKIE] = cookie.value[:-1] + ("A" if cookie.value[-1] != "A" else "B")
    assert forged.get(PAGE).status_code == 302
    assert forged.post(PAGE, {"off": "1"}).status_code == 503


def test_the_path_of_the_pass_is_nobodys_to_choose() -> None:
    """Where a part of the URL is (`/<tenant>/admin/`): it adds no attribute to the cookie, and no header."""
    response = HttpResponse()
    request = RequestFactory().get("/")
    request.path = "/a; Domain=example.com\r\nX-Header: 1/admin/ü/"
    passes.give(response, request, "value")
    assert response.cookies[passes.COOKIE]["path"] == "/a%3B%20Domain%3Dexample.com%0D%0AX-Header:%201/admin/%C3%BC/"
    passes.take_back(response, request)
    assert "; Domain" not in response.cookies.output()


def test_the_pass_ends_with_its_read_only_time(olga: Operator, switch: Switch) -> None:
    """Another one is another's."""
    olga.presses("on")
    kept = olga.cookies[passes.COOKIE].value
    olga.presses("off")
    switch.on(by="ben")
    olga.cookies[passes.COOKIE] = kept
    assert olga.opens().status_code == 302
    assert olga.post(PAGE, {"off": "1"}).status_code == 503
    switch.off(by="ben")


@pytest.mark.parametrize("change", ["password", "permission", "inactive", "gone"])
def test_the_pass_ends_with_its_holders_rights(olga: Operator, operator: User, switch: Switch, change: str) -> None:
    """They are looked at each time."""
    olga.presses("on")
    if change == "password":
        operator.set_password("other")
        operator.save()
    elif change == "permission":
        operator.user_permissions.clear()
    elif change == "inactive":
        operator.is_active = False
        operator.save()
    else:
        operator.delete()
    assert olga.opens().status_code == 302
    assert olga.post(PAGE, {"off": "1"}).status_code in (302, 403)
    assert switch.state.read_only


def test_a_form_from_elsewhere_switches_nothing(olga: Operator, switch: Switch) -> None:
    """By Django's token while there is a session, and by the pass's own without one."""
    assert olga.post(PAGE, {"on": "1"}).status_code == 403
    assert not switch.state.read_only
    olga.presses("on")
    assert olga.post(PAGE, {"off": "1"}).status_code == 403
    assert olga.post(PAGE, {"off": "1", "readonly_token": "x"}).status_code == 403
    assert switch.state.read_only


def test_tokens_in_the_session_are_no_hindrance(operator: User, switch: Switch) -> None:
    """The session is over, and the token with it."""
    with override_settings(CSRF_USE_SESSIONS=True):
        olga = Operator(operator, "sync")
        olga.presses("on")
        assert switch.state.read_only
        olga.presses("off")
    assert not switch.state.read_only


def test_who_may_not_switch_sees_nothing(project: None, ada: User, permission: Permission) -> None:
    """Without the permission it is no page, even for the staff; with it alone it is listed."""
    ada.is_staff = True
    ada.save()
    visitor = Visitor()
    visitor.signs_in(ada)
    assert visitor.get(PAGE).status_code == 403
    assert PAGE.encode() not in visitor.get("/admin/").content
    ada.user_permissions.add(permission)
    visitor.signs_in(User.objects.get(pk=ada.pk))
    assert PAGE.encode() in visitor.get("/admin/").content
    assert visitor.get(PAGE).status_code == 200
    assert Visitor().get(PAGE).status_code == 302


def test_where_sessions_are_kept_the_page_works(olga: Operator, switch: Switch) -> None:
    """Whoever opens it gets a pass, whoever has switched, and lifts their own or, asked twice, everybody's."""
    switch.on(by="ben", reason="INC-441", sessions="keep")
    shown = olga.opens()
    assert (shown.status_code, passes.COOKIE in shown.cookies) == (200, True)
    refused = olga.presses("off")
    assert b"ben" in refused.content
    assert b'name="every"' in refused.content
    assert switch.state.read_only
    olga.presses("off", every="1")
    assert not switch.state.read_only


def test_what_the_form_says_is_checked(olga: Operator, switch: Switch) -> None:
    """No read-only time of minus five minutes."""
    answer = olga.presses("on", minutes="-5")
    assert (answer.status_code, b"errorlist" in answer.content) == (200, True)
    assert not switch.state.read_only


def test_a_store_that_is_away_is_said(olga: Operator, switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the way on and in the way off."""

    def away(**_: Any) -> None:
        raise StoreUnreachable("nobody answers")

    with monkeypatch.context() as patched:
        patched.setattr(switch, "on", away)
        assert b"nobody answers" in olga.presses("on").content
    olga.presses("on")
    monkeypatch.setattr(switch, "off", away)
    monkeypatch.setattr(switch, "confirm", away)
    assert b"nobody answers" in olga.opens().content
    assert b"nobody answers" in olga.presses("off").content


def test_an_unknown_state_is_said(olga: Operator, switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    """With why, and no switch: the record comes first."""
    from readonly.state import UNKNOWN

    monkeypatch.setattr(switch, "look", lambda: UNKNOWN)
    assert b"the state was never read" in olga.opens().content


def test_a_site_that_wants_logins_everywhere(operator: User, switch: Switch) -> None:
    """Its middleware asks who holds no session; the page knows who holds a pass."""
    wanted = [*FIRST, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    with override_settings(MIDDLEWARE=wanted):
        olga = Operator(operator, "sync")
        olga.presses("on")
        assert olga.opens().status_code == 200
        olga.presses("off")
        assert not switch.state.read_only


def test_a_pass_that_says_nothing(project: None) -> None:
    """Signed with our key, and not by this module."""
    visitor = Visitor()
    with override_readonly():
        for value in ("x", signing.dumps([], salt="readonly_django.passes"), signing.dumps({}, salt="other")):
            visitor.cookies[passes.COOKIE] = value
            assert visitor.get(PAGE).status_code == 302
