"""What a refused form gives back, and to whom; what is read for that, and what never comes back."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from readonly.drafts import Drafts, Offer, is_card, is_own_form, is_secret, is_token
from readonly.errors import ConfigurationError
from readonly.gate import Act, ActKind, Outcome, Verdict
from readonly.policy import Policy, SessionCookie
from readonly.rejection import Rejection
from readonly.rules import BODY_LIMIT_BYTES, Facts, rule
from support.apps import SITES, HandSwitch, Reply, Request, Site

HTML = ("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
OWN = ("Sec-Fetch-Site", "same-origin")
FORM = ("Content-Type", "application/x-www-form-urlencoded")
TYPED = [
    ("text", "Ein <b>Satz</b>\r\nund 'noch' \"einer\" \U0001f600\r\n"),
    ("tag", "b"),
    ("tag", ""),
    ("tag", "a"),
    ('odd"><script>alert(1)</script>', "</textarea><script>alert(2)</script>"),
    ("csrf_token", "t0ken"),
    ("password", "hush-hush"),
    ("cardNumber", "4111111111111111"),
]


@pytest.fixture(params=SITES)
def make(request: pytest.FixtureRequest) -> Callable[..., Site]:
    """Return what makes a site behind a middleware, read-only."""

    def make_site(**policy: Any) -> Site:
        site = SITES[request.param](HandSwitch(), Policy(**policy))
        site.switch.read_only(expected=timedelta(minutes=40))
        return site

    return make_site


def post(body: bytes | None = None, *headers: tuple[str, str], path: str = "/comments") -> Request:
    """Return a form that a page of the site sends."""
    body = urlencode(TYPED).encode() if body is None else body
    return Request("POST", path, headers=headers or (HTML, OWN, FORM), body=body)


class Fields(HTMLParser):
    """Reads a page as a browser does: what its form would send, and what it shows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sent: list[tuple[str, str]] = []
        self.shown: list[str] = []
        self.scripts = 0
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._inside = tag
        if tag == "input":
            self.sent.append((found["name"] or "", found["value"] or ""))
        elif tag == "script":
            self.scripts += 1
        elif tag == "textarea":
            assert "name" not in found
            self.shown.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "textarea":
            self.shown[-1] += data


def page_of(reply: Reply) -> str:
    """Return a refusal's page."""
    assert reply.status == 503
    assert reply.get("cache-control") == "no-store"
    return reply.body.decode()


def test_what_was_typed_comes_back(make: Callable[..., Site]) -> None:
    """Order, repeated fields, Unicode and line ends survive; passwords and cards do not; nothing in it runs."""
    reply = make().ask(post())
    text = page_of(reply)
    fields = Fields(text)
    assert fields.sent == TYPED[:6]
    assert [shown.removeprefix("\n") for shown in fields.shown] == [value for _, value in (*TYPED[:2], *TYPED[3:5])]
    assert "Satz&lt;/b&gt;&#13;&#10;und" in text
    assert "hush" not in text
    assert "4111111" not in text
    assert "Not kept: password, cardNumber." in text
    # The token goes back unseen: in a field of the form, and nowhere else.
    assert text.count("t0ken") == 1
    assert fields.scripts == 2
    assert 'src="/-/readonly/script-' in text
    assert "alert(1)</script>" not in text
    policy = reply.get("content-security-policy") or ""
    assert "form-action 'self'" in policy
    assert "script-src 'self' 'sha256-" in policy


def test_what_comes_back_can_be_sent_again(make: Callable[..., Site]) -> None:
    """As a browser would send it, without any script: and the second page holds the same."""
    site = make()
    first = Fields(page_of(site.ask(post())))
    again = urlencode([(name, re.sub(r"\r?\n", "\r\n", value)) for name, value in first.sent]).encode()
    assert parse_qsl(again.decode(), keep_blank_values=True) == TYPED[:6]
    assert Fields(page_of(site.ask(post(again)))).sent == first.sent


@pytest.mark.parametrize(
    "headers",
    [
        (HTML, ("Sec-Fetch-Site", "cross-site"), FORM),
        (HTML, ("Sec-Fetch-Site", "same-site"), FORM),
        (HTML, ("Sec-Fetch-Site", "none"), FORM),
        (HTML, ("Sec-Fetch-Site", "cross-site"), ("Origin", "http://testserver"), ("Host", "testserver"), FORM),
        (HTML, ("Origin", "https://evil.example"), ("Host", "testserver"), FORM),
        (HTML, ("Origin", "null"), ("Host", "testserver"), FORM),
        (HTML, ("Host", "testserver"), FORM),
        (HTML, FORM),
        (HTML, OWN, ("Sec-Fetch-Mode", "cors"), FORM),
        (HTML, OWN, ("Content-Type", "text/plain")),
        (HTML, OWN, ("Content-Type", "multipart/form-data; boundary=x")),
        (("Accept", "application/json"), OWN, FORM),
    ],
)
def test_nothing_is_given_back_to_others(make: Callable[..., Site], headers: tuple[tuple[str, str], ...]) -> None:
    """Forms of other sites, scripts, and what is no form: the plain page, and the body is not read."""
    reply = make().ask(post(None, *headers))
    assert reply.status == 503
    assert b"Satz" not in reply.body
    assert b"<form" not in reply.body
    assert not reply.body_was_read


def test_the_origin_says_it_where_the_browser_says_nothing_else(make: Callable[..., Site]) -> None:
    """Older browsers; the proxy may have taken the encryption off."""
    for origin in ("http://testserver", "https://testserver"):
        headers = (HTML, ("Origin", origin), ("Host", "testserver"), FORM)
        assert b"<form" in make().ask(post(None, *headers)).body


def test_http_does_not_speak_for_https() -> None:
    """Whoever is on the line may have sent a page over the plain connection."""
    facts = Facts("POST", "/", headers={"origin": "http://shop.example", "host": "shop.example"})
    assert is_own_form(facts, secure=False)
    assert not is_own_form(facts, secure=True)
    odd = Facts("POST", "/", headers={"origin": "http://[", "host": "["})
    assert not is_own_form(odd, secure=False)


@pytest.mark.parametrize(
    "headers", [(HTML, OWN, FORM), (HTML, OWN, ("Content-Type", "multipart/form-data; boundary=x"))]
)
def test_what_is_not_read_is_still_in_the_browser(make: Callable[..., Site], headers: Any) -> None:
    """A body over the limit, or files: the page says so, and that Back keeps it."""
    reply = make().ask(post(b"text=" + b"x" * BODY_LIMIT_BYTES, *headers))
    text = html.unescape(page_of(reply))
    assert "Your browser still has it: go back" in text
    assert "<form" not in text
    assert not reply.body_was_read


def test_too_many_fields_and_odd_ones(make: Callable[..., Site]) -> None:
    """They are not shown; the browser has them."""
    for body in (b"&".join([b"a=b"] * 201), b"text=%ff"):
        text = page_of(make().ask(post(body)))
        assert "Your browser still has it" in text
        assert "<form" not in text


def test_rules_keep_forms_from_being_read(make: Callable[..., Site]) -> None:
    """By path, whatever its spelling; the others are given back."""
    site = make(undrafted=["POST /account/*"])
    for path in ("/account/password", "/ACCOUNT/x"):
        reply = site.ask(post(path=path))
        assert b"<form" not in reply.body
        assert not reply.body_was_read
    assert b"<form" in site.ask(post()).body


@pytest.mark.parametrize("wrong", ["POST /a", ["account"], [rule("POST /a", when=lambda _facts: True)], [3]])
def test_a_rule_that_can_not_be_one(wrong: Any) -> None:
    """Start-up stops, and names the setting."""
    with pytest.raises(ConfigurationError, match=r"undrafted|is not a rule|must start"):
        Policy(undrafted=wrong)


def test_logins_are_never_given_back(make: Callable[..., Site]) -> None:
    """Nobody wrote them with care, and they are secrets."""
    reply = make(login=["/login"]).ask(post(path="/login"))
    assert (b"<form" in reply.body, reply.body_was_read) == (False, False)


def test_nobody_is_shown_what_somebody_else_typed(make: Callable[..., Site]) -> None:
    """Refusals are kept and given again; these never are, however often one just like it was given."""
    site = make()
    for number in range(60):
        text = page_of(site.ask(post(f"text=mine{number}".encode())))
        assert f"mine{number}<" in text
    other = page_of(site.ask(post(None, HTML, ("Sec-Fetch-Site", "cross-site"), FORM)))
    assert "mine" not in other


def test_a_session_that_has_ended(make: Callable[..., Site]) -> None:
    """It is marked, so that no script sends it as somebody else; suspended ones come back."""
    for sessions, marked in (("end", True), ("suspend", False), ("keep", False)):
        site = make(session_cookies=[SessionCookie("session", signed=True)], sessions=sessions)
        reply = site.ask(post(None, HTML, OWN, FORM, ("Cookie", "session=x.y.z")))
        assert (b"data-readonly-ended" in reply.body) is marked
    site = make(session_cookies=[SessionCookie("session", signed=True)])
    site.switch.over()
    reply = site.ask(post(None, HTML, OWN, FORM, ("Cookie", "session=x.y.z")))
    assert reply.status == 403
    assert b"data-readonly-ended" in reply.body
    assert b"Ein &lt;b&gt;Satz" in reply.body
    # What may be answered by a login is opened beside the page that holds the text.
    assert b'target="_blank"' in reply.body


def test_a_session_that_has_ended_before(make: Callable[..., Site]) -> None:
    """Its cookie is gone by then, and only a sign of it there: no script sends the text under nobody's name."""
    for writes in ([], ["POST /comments"]):
        site = make(session_cookies=[SessionCookie("session", signed=True)], writes=writes)
        page = site.ask(Request("GET", "/", headers=(("Cookie", "session=x.y.z"),)))
        (sign,) = [value.partition(";")[0] for value in page.all("Set-Cookie") if "Max-Age=0" not in value]
        reply = site.ask(post(None, HTML, OWN, FORM, ("Cookie", sign)))
        assert reply.status == (503 if writes else 403)
        assert b"data-readonly-ended" in reply.body
        assert b"Ein &lt;b&gt;Satz" in reply.body


def test_the_same_form_has_the_same_name() -> None:
    """So that tabs agree; in another read-only time it has another one. Each sending has a key of its own."""

    def name(body: bytes, since: str = "1") -> tuple[str, str]:
        headers = {"content-type": FORM[1]}
        draft = Drafts.draft(Facts("POST", "/a", headers=headers, body=body), since=since, ended=False)
        assert draft is not None
        return draft.id, draft.key

    assert name(b"a=1&csrf=x")[0] == name(b"a=1&csrf=y")[0]
    assert len({name(b"a=1")[0], name(b"a=2")[0], name(b"a=1", "2")[0]}) == 3
    assert name(b"a=1")[1] != name(b"a=1")[1]


@pytest.mark.parametrize(
    "field",
    [
        "password",
        "Password1",
        "new_password",
        "userPassword",
        "pass",
        "pwd",
        "user[passwort]",
        "card-number",
        "cardNumber",
        "cc_num",
        "cvv",
        "CVC2",
        "pin",
        "otp",
        "creditcard",
        "card_holder",
        "securityCode",
    ],
)
def test_secrets_by_name(field: str) -> None:
    """However a framework spells them."""
    assert is_secret(field)


@pytest.mark.parametrize(
    ("value", "card"),
    [
        ("4111 1111 1111 1111", True),
        ("5555-5555-5555-4444", True),
        ("378282246310005", True),
        ("4111 1111 1111 1112", False),
        ("1234567890123456", False),
        ("175928847299117063", False),
        ("", False),
    ],
)
def test_cards_by_their_number(value: str, card: bool) -> None:
    """What the browser is told by `autocomplete` the server is not."""
    assert is_card(value) is card


@pytest.mark.parametrize("field", ["text", "passenger", "title", "compass", "discard", "opinion", "account", "address"])
def test_what_is_no_secret(field: str) -> None:
    """It would be lost."""
    assert not is_secret(field)
    assert not is_token(field)


@pytest.mark.parametrize("field", ["csrfmiddlewaretoken", "csrf_token", "authenticity_token", "_token", "xsrfToken"])
def test_tokens_by_name(field: str) -> None:
    """They go back unseen."""
    assert is_token(field)
    assert not is_secret(field)


def test_a_page_of_the_sites_own_is_given_it() -> None:
    """As HTML that is escaped; the others' is kept as ever."""
    switch = HandSwitch()
    switch.read_only()
    rejection = Rejection(page=lambda refused: f"{refused.form}:{refused.draft}")
    facts = Facts("POST", "/", headers={"accept": "text/html", "content-type": FORM[1]}, body=b"text=%3Cb%3E")
    draft = Drafts.draft(facts, since="", ended=False)
    verdict = Verdict(Outcome.READ_ONLY, Act(ActKind.UNDECLARED, "", unsafe=True, may_write=True))
    state = switch.view.state
    at = datetime.now(UTC)
    answer = rejection(verdict, facts, state, now=at, form=Offer.KEPT, draft=draft)
    assert answer.body.startswith(b"kept:<form")
    assert b"&lt;b&gt;" in answer.body
    assert rejection(verdict, facts, state, now=at).body == b":"
