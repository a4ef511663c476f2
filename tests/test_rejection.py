"""What a refused client gets: the form it can use, the headers, and a page for those who read it themselves."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from gettext import NullTranslations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readonly.gate import Gate, Verdict
from readonly.negotiation import Format, negotiate
from readonly.pages import CONTENT_SECURITY_POLICY, Catalog, Refused, about, render
from readonly.policy import Policy
from readonly.record import OPERATOR, Cause, Record
from readonly.rejection import (
    Answer,
    Rejection,
    cors_headers,
    retry_after_seconds,
    rfc3339,
    state_headers,
)
from readonly.rules import Facts
from readonly.state import UNKNOWN, State

NOW = datetime(2026, 3, 1, 13, 50, 20, tzinfo=UTC)
END = datetime(2026, 3, 1, 14, 30, tzinfo=UTC)
POLICY = Policy(login=["/login"], writes=["GET /pixel"])
GATE = Gate(POLICY)


def read_only(expected_end: datetime | None = END, message: str = "", reason: str = "the secret reason") -> State:
    """Make the state of a site that an operator closed."""
    cause = Cause("c1", OPERATOR, "ada", NOW, reason=reason, message=message, expected_end=expected_end)
    return State.at(NOW, Record("shop", 7, "r", "lineage", NOW, causes=(cause,)))


WRITABLE = State.at(NOW, Record("shop", 8, "r", "lineage", NOW))


def refuse(
    facts: Facts,
    state: State | None = None,
    *,
    ended: bool = False,
    rejection: Rejection | None = None,
    now: datetime = NOW,
    operator: bool = False,
) -> Answer:
    """Answer a request that the gate refuses."""
    state = state or read_only()
    verdict = verdict_of(facts, state, ended=ended)
    assert not verdict.passed
    rejection = rejection or Rejection(jitter=lambda: 0.0)
    return rejection(verdict, facts, state, now=now, operator=operator)


def verdict_of(facts: Facts, state: State, *, ended: bool = False) -> Verdict:
    """Decide about a request."""
    return GATE.decide(GATE.classify(facts), facts, state, ended=ended)


def post(path: str = "/articles", **headers: str) -> Facts:
    """Make a POST; underscores in names stand for hyphens."""
    return Facts("POST", path, headers={name.replace("_", "-"): value for name, value in headers.items()})


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
FORM = "application/x-www-form-urlencoded"

# --- Who gets what ------------------------------------------------------------------------------------------

CLIENTS = [
    # Browsers that send a form.
    ("Firefox", Format.PAGE, {"accept": BROWSER, "content_type": FORM, "sec_fetch_dest": "document"}),
    (
        "Chrome",
        Format.PAGE,
        {
            "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;"
            "q=0.8,application/signed-exchange;v=b3;q=0.7",
            "content_type": FORM,
            "sec_fetch_dest": "document",
            "sec_fetch_mode": "navigate",
        },
    ),
    ("Safari", Format.PAGE, {"accept": BROWSER, "content_type": "multipart/form-data; boundary=x"}),
    ("an iframe", Format.PAGE, {"accept": BROWSER, "sec_fetch_dest": "iframe"}),
    ("an old Internet Explorer", Format.PAGE, {"accept": "text/html, application/xhtml+xml, */*"}),
    ("lynx", Format.PAGE, {"accept": "text/html, text/plain, text/sgml, */*;q=0.01"}),
    (
        "Googlebot",
        Format.PAGE,
        {"accept": "text/html,application/xhtml+xml,application/signed-exchange;v=b3,application/xml;q=0.9,*/*;q=0.8"},
    ),
    (
        "Turbo",
        Format.PAGE,
        {"accept": "text/vnd.turbo-stream.html, text/html, application/xhtml+xml", "sec_fetch_dest": "empty"},
    ),
    # Programs.
    ("curl", Format.PROBLEM, {"accept": "*/*"}),
    ("curl -d", Format.PROBLEM, {"accept": "*/*", "content_type": FORM}),
    ("curl --json", Format.PROBLEM, {"accept": "application/json", "content_type": "application/json"}),
    ("wget", Format.PROBLEM, {"accept": "*/*", "content_type": FORM}),
    ("requests", Format.PROBLEM, {"accept": "*/*", "content_type": "application/json"}),
    ("okhttp", Format.PROBLEM, {"content_type": "application/json; charset=utf-8"}),
    ("okhttp with a form", Format.PROBLEM, {"content_type": FORM}),
    ("nothing at all", Format.PROBLEM, {}),
    ("axios", Format.PROBLEM, {"accept": "application/json, text/plain, */*", "content_type": "application/json"}),
    ("a webhook", Format.PROBLEM, {"accept": "*/*; q=0.5, application/xml", "content_type": "application/json"}),
    ("Java's URLConnection", Format.PROBLEM, {"accept": "*/*, image/gif, image/jpeg; q=.2"}),
    ("JSON:API", Format.PROBLEM, {"accept": "application/vnd.api+json"}),
    ("RFC 9457", Format.PROBLEM, {"accept": "application/problem+json"}),
    ("an image", Format.PROBLEM, {"accept": "image/avif,image/webp,*/*", "sec_fetch_dest": "image"}),
    ("an event source", Format.PROBLEM, {"accept": "text/event-stream"}),
    ("a one-click unsubscription", Format.PROBLEM, {"content_type": FORM, "accept": "*/*"}),
    # Scripts in a page.
    ("fetch", Format.PROBLEM, {"accept": "*/*", "sec_fetch_dest": "empty", "sec_fetch_mode": "cors"}),
    ("fetch for HTML", Format.PROBLEM, {"accept": "text/html", "sec_fetch_dest": "empty"}),
    ("fetch that sent JSON", Format.PROBLEM, {"accept": BROWSER, "content_type": "application/json"}),
    ("fetch that sent JSON:API", Format.PROBLEM, {"accept": BROWSER, "content_type": "application/vnd.api+json"}),
    ("XMLHttpRequest", Format.PROBLEM, {"accept": "*/*", "x_requested_with": "XMLHttpRequest"}),
    ("jQuery", Format.PROBLEM, {"accept": "text/html, */*; q=0.01", "x_requested_with": "XMLHttpRequest"}),
    ("htmx", Format.PROBLEM, {"accept": "*/*", "hx_request": "true", "content_type": FORM}),
    ("htmx, asking for HTML", Format.PROBLEM, {"accept": "text/html, */*", "hx_request": "true"}),
    # Weights.
    ("JSON first", Format.PROBLEM, {"accept": "application/json, text/html"}),
    ("HTML first", Format.PAGE, {"accept": "text/html, application/json"}),
    ("rather HTML", Format.PAGE, {"accept": "application/json;q=0.5, text/html;q=0.8"}),
    ("rather JSON", Format.PROBLEM, {"accept": "text/html;q=0.5, application/json"}),
    ("no HTML", Format.PROBLEM, {"accept": "text/html;q=0, */*"}),
    ("no JSON", Format.PAGE, {"accept": "application/json;q=0, Text/HTML"}),
    ("nonsense", Format.PROBLEM, {"accept": "text/html;q=much,;;,"}),
    ("nothing wanted", Format.PROBLEM, {"accept": ""}),
    # gRPC.
    ("gRPC-web", Format.GRPC, {"accept": "*/*", "content_type": "application/grpc-web+proto"}),
    ("gRPC-web, text", Format.GRPC, {"accept": "*/*", "content_type": "application/grpc-web-text"}),
    ("gRPC", Format.GRPC, {"content_type": "application/grpc"}),
]


@pytest.mark.parametrize(("client", "form", "headers"), CLIENTS, ids=[client for client, _, _ in CLIENTS])
def test_each_client_gets_what_it_can_use(client: str, form: Format, headers: dict[str, str]) -> None:
    """A page is for browsers that show it; everything that code reads is problem details, or gRPC's status."""
    assert negotiate(post(**headers)) is form
    kinds = {
        Format.PAGE: "text/html; charset=utf-8",
        Format.PROBLEM: "application/problem+json",
        Format.GRPC: headers.get("content_type"),
    }
    assert dict(refuse(post(**headers)).headers)["Content-Type"] == kinds[form]


def test_a_socket_gets_problem_details() -> None:
    """Nobody sees a page that a websocket was refused with."""
    socket = Facts("GET", "/live", headers={"accept": BROWSER}, kind="websocket")
    assert negotiate(socket) is Format.PROBLEM
    assert refuse(socket).status == 503


# --- Headers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{"accept": "*/*"}, {"accept": BROWSER}, {"content_type": "application/grpc-web"}])
def test_what_every_refusal_carries(headers: dict[str, str]) -> None:
    """Whatever its form, a refusal says when to come back, and is never stored."""
    status, pairs, body = refuse(post(**headers))
    named = dict(pairs)
    assert status == 503
    assert len(named) == len(pairs)
    assert named["Retry-After"] == "2380"
    assert named["Cache-Control"] == "no-store"
    assert named["X-Read-Only"] == "true"
    assert named["X-Read-Only-Until"] == "2026-03-01T14:30:00Z"
    assert named["Vary"] == "Accept, Origin"
    assert named["Content-Length"] == str(len(body))
    assert "Location" not in named
    assert not any(name.startswith("Access-Control") for name in named)


@pytest.mark.parametrize("accept", ["*/*", BROWSER])
def test_head_has_no_body(accept: str) -> None:
    """HEAD is answered as GET would be, without the body."""
    got = refuse(Facts("GET", "/pixel", headers={"accept": accept}))
    head = refuse(Facts("HEAD", "/pixel", headers={"accept": accept}))
    assert head.body == b""
    assert got.body
    assert head[:2] == got[:2]


@pytest.mark.parametrize(
    ("seconds", "jitter", "expected"),
    [
        (None, 0.0, 60),
        (None, 1.0, 72),
        (2400, 0.0, 2400),
        (2400, 1.0, 2460),
        (100, 1.0, 120),
        (0.2, 0.0, 1),
        (0.2, 1.0, 1),
        (59.1, 0.0, 60),
        (0, 0.0, 120),
        (-3600, 0.0, 120),
        (-3600, 1.0, 144),
    ],
)
def test_when_to_come_back(seconds: float | None, jitter: float, expected: int) -> None:
    """Seconds to the expected end, never fewer; a default without one, and another once it has passed."""
    until = None if seconds is None else NOW + timedelta(seconds=seconds)
    assert retry_after_seconds(until, now=NOW, default_seconds=60, jitter=jitter) == expected


@given(seconds=st.floats(-1e6, 1e6), jitter=st.floats(0, 1), default=st.floats(1, 3600))
def test_nobody_comes_back_too_early(seconds: float, jitter: float, default: float) -> None:
    """Whatever the numbers are, the answer is a whole number, at least 1, and not before the end."""
    found = retry_after_seconds(NOW + timedelta(seconds=seconds), now=NOW, default_seconds=default, jitter=jitter)
    assert isinstance(found, int)
    assert found >= max(1, seconds)


def test_the_default_wait_is_the_policys() -> None:
    """What is advertised without an announced end can be set, and is spread."""
    draws = iter([0.0, 0.5, 1.0])
    rejection = Rejection(retry_after_seconds=30, jitter=lambda: next(draws))
    state = read_only(None)
    found = [dict(refuse(post(), state, rejection=rejection).headers)["Retry-After"] for _ in range(3)]
    assert found == ["30", "33", "36"]
    assert "X-Read-Only-Until" not in dict(refuse(post(), state).headers)
    bodies = {refuse(post(), state).body for _ in range(20)}
    assert len(bodies) == 1
    spread = {dict(refuse(post(), state, rejection=Rejection()).headers)["Retry-After"] for _ in range(50)}
    assert len(spread) > 1


def test_headers_of_every_response() -> None:
    """Every response says that the site is read-only, and until when, where that is known."""
    assert state_headers(WRITABLE) == []
    assert state_headers(read_only(None)) == [("X-Read-Only", "true")]
    assert state_headers(UNKNOWN) == [("X-Read-Only", "true")]
    assert state_headers(read_only(END))[1] == ("X-Read-Only-Until", "2026-03-01T14:30:00Z")
    elsewhere = datetime(2026, 3, 1, 16, 30, 1, 999, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339(elsewhere) == "2026-03-01T14:30:01Z"


def test_another_origin_can_read_a_refusal() -> None:
    """A script of another origin sees the refusal and its headers, with credentials or without."""
    named = dict(refuse(post(origin="https://app.example:8443")).headers)
    assert named["Access-Control-Allow-Origin"] == "https://app.example:8443"
    assert named["Access-Control-Allow-Credentials"] == "true"
    assert named["Access-Control-Expose-Headers"] == "Retry-After, X-Read-Only, X-Read-Only-Until"
    assert "Origin" in named["Vary"]
    grpc = dict(refuse(post(origin="null", content_type="application/grpc-web")).headers)
    assert grpc["Access-Control-Allow-Origin"] == "null"
    assert grpc["Access-Control-Expose-Headers"].endswith("grpc-status, grpc-message")


@pytest.mark.parametrize(
    "origin", ["", "https://a.example\r\nX: y", "a b", "https://a, https://b", "https://ä.example"]
)
def test_what_is_no_origin_is_not_echoed(origin: str) -> None:
    """Nothing that no browser sends gets into a header."""
    assert cors_headers(origin) == []
    assert "Access-Control-Allow-Origin" not in dict(refuse(post(origin=origin)).headers)


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [
        ("application/grpc-web+proto", "application/grpc-web+proto"),
        ("Application/gRPC-Web-Text; charset=x", "application/grpc-web-text"),
        ("application/grpc\u00fc", "application/grpc"),
        ("application/grpc-web x", "application/grpc"),
    ],
)
def test_grpc_is_told_in_its_own_way(sent: str, echoed: str) -> None:
    """Clients of gRPC read a status in the headers: 14 is tried again, 16 is not."""
    answer = refuse(post(content_type=sent))
    named = dict(answer.headers)
    assert (answer.status, answer.body) == (503, b"")
    assert (named["grpc-status"], named["grpc-message"]) == ("14", "READ_ONLY")
    assert named["Content-Type"] == echoed
    ended = refuse(post(content_type=sent), ended=True)
    assert ended.status == 403
    assert dict(ended.headers)["grpc-status"] == "16"


# --- Problem details ----------------------------------------------------------------------------------------


def test_problem_details() -> None:
    """A client finds what happened, by code, and when to come back."""
    assert json.loads(refuse(post()).body) == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "The site is read-only at the moment. Nothing was saved; please try again later.",
        "code": "READ_ONLY",
        "retry_after": 2380,
        "expected_end": "2026-03-01T14:30:00Z",
    }
    assert json.loads(refuse(post(), read_only(None)).body)["expected_end"] is None
    assert "signing in" in json.loads(refuse(post("/login")).body)["detail"]
    assert json.loads(refuse(post("/login")).body)["code"] == "READ_ONLY"
    assert json.loads(refuse(post(), UNKNOWN).body)["code"] == "READ_ONLY"


@pytest.mark.parametrize("accept", ["*/*", BROWSER])
def test_visitors_read_the_message_and_never_the_reason(accept: str) -> None:
    """The reason is for colleagues."""
    body = refuse(post(accept=accept), read_only(message="Back at three — Ümit")).body.decode()
    assert "Back at three — Ümit" in body
    assert "secret reason" not in body
    assert "ada" not in body


def test_an_ended_session_is_an_answer_of_its_own() -> None:
    """403, another code, and no advice to come back, while read-only and after it."""
    answer = refuse(post(), ended=True)
    named = dict(answer.headers)
    problem = json.loads(answer.body)
    assert answer.status == problem["status"] == 403
    assert problem["code"] == "SESSION_ENDED"
    assert "retry_after" not in problem
    assert "Retry-After" not in named
    assert named["X-Read-Only"] == "true"
    assert named["Cache-Control"] == "no-store"
    after = refuse(post(), WRITABLE, ended=True)
    assert after.status == 403
    assert "X-Read-Only" not in dict(after.headers)


# --- The page -----------------------------------------------------------------------------------------------


class Text(html.parser.HTMLParser):
    """Collects what a visitor reads, and the tags."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = []
        self.raw: dict[str, str] = {}
        self._inside = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._inside = tag
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self._inside in ("style", "script"):
            self.raw[self._inside] = self.raw.get(self._inside, "") + data
        else:
            self.parts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.parts))


def page(state: State | None = None, path: str = "/articles", **more: Any) -> Text:
    """Read the page of a refused form."""
    return Text(refuse(post(path, accept=BROWSER), state, **more).body)


def test_the_page_says_what_happens_until_when_and_what_was_lost() -> None:
    """Without a script: UTC, and how long from now."""
    shown = page(read_only(message="We are moving house."))
    assert "read-only" in shown.text
    assert "We are moving house." in shown.text
    assert "was not saved" in shown.text
    assert "14:30 UTC, in about 40 minutes" in shown.text
    assert ("time", {"datetime": "2026-03-01T14:30:00Z"}) in shown.tags


def test_the_page_knows_when_it_does_not_know() -> None:
    """An end that is not announced, that has passed, or that is on another day."""
    assert "can’t say yet" in page(read_only(None)).text  # noqa: RUF001
    assert "takes longer than planned" in page(read_only(NOW - timedelta(minutes=1))).text
    # Within the minute as well, in which the page before it was kept.
    answers, state = Rejection(jitter=lambda: 0.0), read_only(NOW + timedelta(seconds=20))
    assert "expect to be done" in page(state, rejection=answers).text
    assert "takes longer than planned" in page(state, rejection=answers, now=NOW + timedelta(seconds=30)).text
    assert "Monday, 2 March, 14:30 UTC" in page(read_only(END + timedelta(days=1))).text
    assert "can’t say yet" in page(UNKNOWN).text  # noqa: RUF001


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (5, "in about a minute"),
        (80, "in about a minute"),
        (120, "in about 2 minutes"),
        (2400, "in about 40 minutes"),
        (5300, "in about 88 minutes"),
        (5400, "in about 2 hours"),
        (36000, "in about 10 hours"),
        (200000, "in about 2 days"),
    ],
)
def test_how_people_say_it(seconds: float, expected: str) -> None:
    """A rough number that is easy to read."""
    assert about(seconds) == expected


def test_the_pages_for_login_and_ended_sessions() -> None:
    """Who can't sign in, and whose session ended, are told that."""
    assert "Signing in is paused" in page(path="/login").text
    ended = page(ended=True).text
    assert "You have been signed out" in ended
    assert "was not saved" in ended
    assert "14:30 UTC" in ended
    after = page(WRITABLE, ended=True).text
    assert "sign in now" in after
    assert "takes changes again" in after


def test_the_page_is_allowed_what_it_carries_and_nothing_else() -> None:
    """Its policy names its own style and script by their hashes; nothing is loaded and nothing is sent."""
    answer = refuse(post(accept=BROWSER))
    shown = Text(answer.body)
    policy = dict(answer.headers)["Content-Security-Policy"]
    assert policy == CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in policy
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(shown.raw[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert [tag for tag, _ in shown.tags].count("script") == 1
    for tag, attributes in shown.tags:
        assert tag not in ("link", "img", "form", "iframe", "a")
        assert not {"src", "href", "style", "action"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in shown.tags


@given(message=st.text(max_size=60))
def test_no_message_becomes_markup(message: str) -> None:
    """Whatever an operator types is shown as it was typed."""
    plain = Text(render(Refused(503, "READ_ONLY", False, True, "x", END, NOW)))
    text = "<script>" + message
    shown = Text(render(Refused(503, "READ_ONLY", False, True, text, END, NOW, operator=text)))
    tags = [tag for tag, _ in shown.tags if tag not in ("section", "p", "strong", "code")]
    assert tags == [tag for tag, _ in plain.tags if tag not in ("p", "strong")]
    assert shown.text.count("<script>") == 2


@pytest.mark.parametrize("accept", ["*/*", BROWSER])
def test_half_a_character_is_no_error(accept: str) -> None:
    """JSON can hold what UTF-8 can't; a refusal must not become a 500 for it."""
    assert "what? here" in refuse(post(accept=accept), read_only(message="what\ud83d here")).body.decode()


def test_template_signs_in_a_message_stay() -> None:
    """A dollar sign is text."""
    assert "$title costs $$5 ${style}" in page(read_only(message="$title costs $$5 ${style}")).text


def test_only_whoever_runs_the_site_is_told_what_to_type() -> None:
    """Why the state is unknown, and the command, are for a local request alone."""
    why = "redis://flag.internal holds no record for shop"
    unknown = State.at(NOW, None, unknown_because=why)
    assert why not in page(unknown).text
    assert "readonlyctl" not in page(unknown).text
    shown = page(unknown, operator=True).text
    assert why in shown
    assert "readonlyctl init" in shown
    assert "readonlyctl" not in page(read_only(), operator=True).text


def test_the_page_is_made_once_a_minute() -> None:
    """It is rendered beforehand for the state and the minute, and anew when either changes."""
    made: list[Refused] = []

    def own(refused: Refused) -> str:
        made.append(refused)
        return f"<p>{refused.message}"

    rejection = Rejection(page=own, jitter=lambda: 0.0)
    facts, state = post(accept=BROWSER), read_only(message="one")
    for second in (0, 10, 39):
        answer = refuse(facts, state, rejection=rejection, now=NOW + timedelta(seconds=second))
        assert answer.body == b"<p>one"
    assert len(made) == 1
    refuse(facts, state, rejection=rejection, now=NOW + timedelta(seconds=40))
    assert len(made) == 2
    assert made[1].now - made[0].now == timedelta(minutes=1)
    assert refuse(facts, read_only(message="two"), rejection=rejection).body == b"<p>two"
    refuse(post("/login", accept=BROWSER), rejection=rejection)
    assert made[-1].login


def test_what_is_kept_is_bounded() -> None:
    """A long read-only time does not fill the memory."""
    rejection, state = Rejection(jitter=lambda: 0.0), read_only()
    for second in range(2000):
        refuse(post(), state, rejection=rejection, now=NOW + timedelta(seconds=second))
    assert len(rejection._kept[1]) <= 512


def test_the_site_can_bring_its_own_page() -> None:
    """Text or bytes; its policy is the site's own affair."""
    for made in ("<h1>Zu", b"<h1>Zu"):
        answer = refuse(post(accept=BROWSER), rejection=Rejection(page=lambda refused, made=made: made))
        assert answer.body == b"<h1>Zu"
        assert answer.status == 503
        assert "Content-Security-Policy" not in dict(answer.headers)


def test_a_page_that_fails_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """The site's own page may need what is down; the visitor gets ours, and the log says so."""

    def broken(refused: Refused) -> str:
        raise ConnectionError("no database")

    answer = refuse(post(accept=BROWSER), rejection=Rejection(page=broken))
    assert b"was not saved" in answer.body
    assert "the built-in one is shown instead" in caplog.text


def test_answers_do_not_share_their_headers() -> None:
    """What a middleware adds to one answer is not in the next."""
    rejection, state = Rejection(jitter=lambda: 0.0), read_only()
    refuse(post(), state, rejection=rejection).headers.append(("Set-Cookie", "a=b"))
    assert "Set-Cookie" not in dict(refuse(post(), state, rejection=rejection).headers)


class Shouting(NullTranslations):
    """A language in which everything is said aloud."""

    def gettext(self, message: str) -> str:
        """Return it in capitals, but for what is filled in."""
        return re.sub(r"[a-z]+(?![a-z]*\})", lambda found: found[0].upper(), message)

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        """Return the same, for several."""
        return self.gettext(msgid1 if n == 1 else msgid2)


class Broken(NullTranslations):
    """One that fills in what is not there."""

    def gettext(self, message: str) -> str:
        """Return nonsense."""
        return "{nothing}"


def spoken(facts: Facts) -> tuple[str, Catalog]:
    """Say which language a request is answered in."""
    language = facts.headers.get("accept-language") or "en"
    return language, {"loud": Shouting(), "odd": Broken()}.get(language, NullTranslations())


def test_everybody_is_answered_in_their_language() -> None:
    """One answer is kept for each language; it says which, and that others get others."""
    rejection = Rejection(languages=spoken)
    state = read_only()
    for _ in range(2):
        for language, said in (("loud", "NO CHANGES RIGHT NOW"), ("en", "No changes right now")):
            answer = refuse(post(accept=BROWSER, accept_language=language), state, rejection=rejection)
            text = answer.body.decode()
            assert said in text
            assert f'<html lang="{language}" dir="ltr">' in text
            assert '<time datetime="2026-03-01T14:30:00Z">14:30 UTC</time>' in text
            assert dict(answer.headers)["Content-Language"] == language
            assert "Accept-Language" in dict(answer.headers)["Vary"]
            told = refuse(post(accept="application/json", accept_language=language), state, rejection=rejection)
            assert json.loads(told.body)["detail"].isupper() == (language == "loud")


def test_a_translation_that_fails_is_replaced_by_english(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever stands in a catalog, a refusal never becomes a 500 for it."""
    answer = refuse(post(accept=BROWSER, accept_language="odd"), rejection=Rejection(languages=spoken))
    assert b"No changes right now" in answer.body
    assert "'odd'" in caplog.text


def test_the_sites_own_page_is_told_the_language() -> None:
    """It is asked once for each."""
    asked: list[str] = []

    def own(refused: Refused) -> str:
        asked.append(refused.language)
        return refused.language

    rejection = Rejection(page=own, languages=spoken)
    state = read_only()
    for language in ("loud", "en", "loud"):
        answer = refuse(post(accept=BROWSER, accept_language=language), state, rejection=rejection)
        assert answer.body == language.encode()
    assert asked == ["loud", "en"]
