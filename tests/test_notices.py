"""What visitors are told beforehand, meanwhile, and while they are let through."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from readonly import Switch
from readonly.errors import ConfigurationError
from readonly.notices import Kind, Notice, Notices, banner, script_tag, sentences
from readonly.own_routes import OwnRoutes
from readonly.policy import Policy
from readonly.record import Bypass, Window, new_token, token_hash
from readonly.rules import Facts
from readonly.script import SCRIPT, SCRIPT_PATH
from readonly.state import State
from readonly.words import Words
from support.apps import RECORD, SITES, HandSwitch, Request, Site
from support.waiting import eventually

NOW = datetime(2026, 3, 1, 14, 0, tzinfo=UTC)
WINDOW = Window("w1", NOW + timedelta(minutes=20), NOW + timedelta(minutes=65), "ann")


@pytest.fixture(params=SITES)
def make(request: pytest.FixtureRequest) -> Callable[..., Site]:
    """Return what makes a site behind a middleware."""

    def make_site() -> Site:
        return SITES[request.param](HandSwitch(), Policy())

    return make_site


def announce(switch: HandSwitch, window: Window) -> None:
    """Have a window announced."""
    switch.set(State.at(datetime.now(UTC), replace(RECORD, windows=(window,))))
    switch.view.announced = window


def next_window(switch: Switch) -> Window | None:
    """Return the window that a process knows."""
    return switch.state.next_window


def coming(**more: Any) -> Window:
    """Return a window that begins in ten minutes."""
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=10)
    return Window("w1", at, at + timedelta(minutes=45), "ann", **more)


# --- on responses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_response_says_when_a_window_begins_and_ends(make: Callable[..., Site], method: str) -> None:
    """While it is announced; nothing before, and what it is then once it has begun."""
    site = make()
    assert site.ask(Request(method, "/")).get("X-Read-Only-From") is None
    window = coming()
    announce(site.switch, window)
    reply = site.ask(Request(method, "/"))
    assert reply.status == 200
    assert reply.get("X-Read-Only-From") == f"{window.start:%Y-%m-%dT%H:%M:%SZ}"
    assert reply.get("X-Read-Only-Until") == f"{window.end:%Y-%m-%dT%H:%M:%SZ}"
    assert reply.get("X-Read-Only") is None
    site.switch.view.announced = None
    site.switch.read_only()
    assert site.ask(Request(method, "/")).get("X-Read-Only-From") is None


def test_a_window_without_an_end(make: Callable[..., Site]) -> None:
    """`on --in`: nobody knows yet when it is over."""
    site = make()
    announce(site.switch, replace(coming(), end=None))
    reply = site.ask(Request("GET", "/"))
    assert reply.get("X-Read-Only-From") is not None
    assert reply.get("X-Read-Only-Until") is None


# --- in a process -----------------------------------------------------------------------------------------------------


def test_a_process_announces_by_itself() -> None:
    """Not before its time; from then on until the window begins, or is cancelled."""
    soon = datetime.now(UTC) + timedelta(minutes=10)
    store = "memory://?site=announced"
    for seconds, told in ((1800.0, True), (60.0, False), (0.0, False)):
        switch = Switch.from_url(store, interval=0.05, announce_seconds=seconds)
        switch.start()
        planned = switch.schedule(soon, lasting=timedelta(minutes=30))
        eventually(partial(next_window, switch))
        assert (switch.view.announced is not None) is told
        notice = Notices(switch).of()
        assert (notice is not None) is told
        if notice is not None:
            assert (notice.kind, notice.begins) == (Kind.ANNOUNCED, planned[0].start)
        switch.on()
        assert switch.view.announced is None
        switch.close()
        store += "x"


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_what_is_no_time_stops_the_start(seconds: float) -> None:
    """By name."""
    with pytest.raises(ConfigurationError, match="announce_seconds"):
        Switch.from_url("memory://", announce_seconds=seconds)


def test_the_environment_says_how_long_before() -> None:
    """And what it says wrongly is named."""
    environ = {"READONLY_STORE": "memory://", "READONLY_ANNOUNCE_SECONDS": "soon"}
    with pytest.raises(ConfigurationError, match="READONLY_ANNOUNCE_SECONDS='soon'"):
        Switch.from_env(environ)
    assert Switch.from_env({**environ, "READONLY_ANNOUNCE_SECONDS": "0"}).view.announced is None


# --- in words ---------------------------------------------------------------------------------------------------------


def said(notice: Notice, language: str = "en") -> str:
    """Return what a banner says, without its tags' attributes."""
    words = Words()
    return banner(notice, words.catalog(language), language, now=NOW)


def test_a_window_that_comes() -> None:
    """When, until when, and what to do; the operator's words are escaped, braces and all."""
    notice = Notice(Kind.ANNOUNCED, "", WINDOW.start, WINDOW.end)
    text = said(notice)
    assert 'data-readonly-banner="announced" lang="en" dir="ltr"' in text
    begins = '<time datetime="2026-03-01T14:20:00Z">14:20 UTC</time>'
    assert f'From {begins} to <time datetime="2026-03-01T15:05:00Z">15:05 UTC</time> you can read' in text
    assert "Save what you are working on" in text
    assert 'Ab <time datetime="2026-03-01T14:20:00Z">14:20 Uhr' in said(replace(notice, ends=None), "de")
    odd = said(replace(notice, message="<b>{ends} {0}"))
    assert '<p dir="auto">&lt;b&gt;{ends} {0}</p>' in odd


def test_read_only_time() -> None:
    """With an end, past it, without one."""
    notice = Notice(Kind.READ_ONLY, "Back <soon>.", None, NOW + timedelta(days=1))
    assert "We expect to be done at" in said(notice)
    assert "Monday, 2 March, 14:00 UTC" in said(notice)
    assert "Back &lt;soon&gt;." in said(notice)
    assert "longer than planned" in said(replace(notice, ends=NOW))
    assert sentences(replace(notice, ends=None, message="")) == [
        "The site is read-only while we work on it. You can go on reading everything."
    ]


def test_whoever_is_let_through_reads_something_else() -> None:
    """Until when they may write; nobody else is told of them."""
    token = new_token()
    at = datetime.now(UTC)
    switch = HandSwitch()
    switch.read_only()
    state = switch.view.state
    assert state.record is not None
    until = at + timedelta(minutes=30)
    given = Bypass("b1", "ann", "bob", at, until, ("c1",), link="", keys=(token_hash(token),))
    switch.set(State.at(at, replace(state.record, bypasses=(given,))))
    notices = Notices(switch.as_switch())
    holder = notices.of(Facts("GET", "/", headers={"x-read-only-bypass": token}))
    assert holder is not None
    assert (holder.kind, holder.read_only, holder.ends) == (Kind.BYPASS, False, given.until)
    assert "You may write until" in banner(holder)
    stranger = notices.of(Facts("GET", "/", headers={"x-read-only-bypass": new_token()}))
    assert stranger is not None
    assert stranger.kind is Kind.READ_ONLY


def test_nothing_to_say() -> None:
    """Most of the time."""
    assert Notices(HandSwitch().as_switch()).of() is None
    assert banner(None) == ""


# --- the status route -------------------------------------------------------------------------------------------------


def test_the_status_route_tells() -> None:
    """Programs and the script ask it."""
    switch = HandSwitch()
    routes = OwnRoutes(switch.as_switch())
    window = coming(message="New shelves.")
    announce(switch, window)
    document = json.loads(routes.answer(Facts("GET", "/-/readonly/status")).body)
    assert document["announced"] == {
        "begins": f"{window.start:%Y-%m-%dT%H:%M:%SZ}",
        "ends": f"{window.end:%Y-%m-%dT%H:%M:%SZ}",
        "message": "New shelves.",
    }
    assert (document["mode"], document["read_only"]) == ("writable", False)


def test_what_the_script_asks_for_besides() -> None:
    """The time, and what to say in the page's language: now, and from the announced moment on."""
    switch = HandSwitch()
    routes = OwnRoutes(switch.as_switch())

    def ask() -> tuple[dict[str, Any], dict[str, str]]:
        facts = Facts("GET", "/-/readonly/status", query="says&words", headers={"accept-language": "de"})
        answer = routes.answer(facts)
        return json.loads(answer.body), dict(answer.headers)

    document, headers = ask()
    assert "says" not in document
    assert document["words"]["over"] == "Änderungen sind wieder möglich."
    assert abs(datetime.fromisoformat(document["now"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert (headers["Vary"], headers["Cache-Control"]) == ("Accept-Language, Cookie", "no-store")
    announce(switch, coming())
    document, _ = ask()
    assert document["says"][0].startswith("Von {begins} bis {ends}")
    assert document["then"][-1] == "Voraussichtlich sind wir um {ends} fertig."
    assert document["overdue"] == [document["then"][0], "Es dauert länger als geplant."]
    announce(switch, replace(coming(), end=None))
    assert "overdue" not in ask()[0]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_the_script(method: str) -> None:
    """For good by its own name; what is asked for by another name is served, and not kept."""
    routes = OwnRoutes(HandSwitch().as_switch())
    for path, kept in ((SCRIPT_PATH, "public, max-age=31536000, immutable"), ("/-/readonly/script-old.js", "no-store")):
        answer = routes.answer(Facts(method, path))
        if method == "POST":
            assert answer.status == 404
            continue
        headers = dict(answer.headers)
        assert (answer.status, headers["Cache-Control"], headers["Content-Length"]) == (200, kept, str(len(SCRIPT)))
        assert answer.body == (SCRIPT if method == "GET" else b"")
    assert SCRIPT_PATH in script_tag("/shop/")
    assert script_tag('/"><b>').count("<") == 2


def test_the_script_is_small() -> None:
    """Every page of a site may load it."""
    assert len(gzip.compress(SCRIPT)) < 12_000
