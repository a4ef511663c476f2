"""Bypasses: who is let through, where, until when; by a link that is good once, and by a header."""

from __future__ import annotations

import contextlib
import http.cookies
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from readonly import Switch, bypassing, history
from readonly.bypass import COOKIE, HEADER, begins_at, exchanged_for, tokens
from readonly.errors import StoreUnreachable
from readonly.own_routes import OwnRoutes
from readonly.policy import Policy
from readonly.record import Bypass, Cause, token_hash
from readonly.rejection import Answer
from readonly.rules import Facts
from readonly.state import State
from readonly.stores.memory import MemoryStore
from support.apps import RECORD, SITES, Behaviour, Broken, HandSwitch, Request, Site
from support.let_through import ANN, NOW, TOKEN, bypass, closed_store
from support.waiting import eventually

POLICY = Policy(login=["/login"], session_cookies=["session"], secret="a key", exempt=["/healthz"])


def closed(*bypasses: Bypass, cause: str = "c1", unknown_because: str = "") -> State:
    """Return a read-only state that holds these bypasses."""
    causes = (Cause(id=cause, kind="operator", by="ann", since=NOW - timedelta(hours=1)),)
    record = replace(RECORD, epoch=2, causes=causes, bypasses=bypasses)
    return State.at(NOW, record, unknown_because=unknown_because)


@pytest.fixture(params=sorted(SITES))
def make(request: pytest.FixtureRequest) -> Callable[..., Site]:
    """Make a site in each of the two protocols, in a state."""

    def make_site(state: State, policy: Policy = POLICY) -> Site:
        site: type[Site] = SITES[request.param]
        made = site(HandSwitch(), policy)
        made.switch.set(state)
        return made

    return make_site


def by_cookie(token: str) -> tuple[str, str]:
    """Return the header that presents a token as the browser does that used the link."""
    return ("Cookie", f"theme=dark; {COOKIE}={token}; session=abc")


@pytest.mark.parametrize("presented", [(HEADER, TOKEN), by_cookie(TOKEN)])
def test_the_holder_writes_and_keeps_the_session(make: Callable[..., Site], presented: tuple[str, str]) -> None:
    """Gate, session rules and guard let through; the answer says so, and it is counted by name."""
    site = make(closed(bypass()))
    site.switch.guarded = True
    reply = site.ask(Request("POST", "/articles", [presented]))
    assert (reply.status, reply.get(HEADER), reply.get("X-Read-Only")) == (200, "ann", "true")
    assert reply.seen[0].may_write
    assert reply.seen[0].in_flight == 0  # nobody waits for it
    if presented[0] == "Cookie":
        assert "session=abc" in (reply.seen[0].cookie or "")
    assert site.switch.tally.totals()["bypassed_by_name"] == {"ann": 1}
    assert list(site.switch.tally.uses()) == [("ann", "POST /articles", 1)]
    assert site.ask(Request("POST", "/login", [presented])).status == 200
    assert site.ask(Request("POST", "/articles")).status == 503


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (closed(bypass(until=NOW - timedelta(seconds=1))), "it ran out"),
        (closed(bypass(revoked=True)), "it was taken back"),
        (closed(bypass(), cause="c2"), "its read-only time is over"),
        (closed(bypass(keys=())), "nobody has its token"),
        (closed(bypass(paths=("/admin/*",))), "it is for somewhere else"),
        (closed(bypass(paths=("what is this",))), "a rule of it is of another version"),
        (closed(bypass(link=token_hash(TOKEN), keys=())), "a link's token opens nothing by itself"),
        (closed(), "there is none"),
        (closed(bypass(), unknown_because="the lease is over"), "nobody knows whether it was taken back"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nobody_else_is_let_through(make: Callable[..., Site], state: State, why: str) -> None:
    """Each reason by itself keeps the gate shut."""
    site = make(state)
    for presented in ((HEADER, TOKEN), by_cookie(TOKEN)):
        assert site.ask(Request("POST", "/articles", [presented])).status in (403, 503), why
    assert site.switch.tally.totals()["bypassed"] == 0


def test_it_is_good_where_it_says(make: Callable[..., Site]) -> None:
    """Rules as the policy's, by the spelling of rules that let through."""
    site = make(closed(bypass(paths=("/admin/*", "POST /hook"))))
    asked = {
        ("POST", "/admin/users"): 200,
        ("DELETE", "/admin"): 200,
        ("POST", "/hook"): 200,
        ("PUT", "/hook"): 503,
        ("POST", "/administrators"): 503,
        ("POST", "/admin/../articles"): 503,
    }
    found = {key: site.ask(Request(*key, [(HEADER, TOKEN)])).status for key in asked}
    assert found == asked


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (Request("POST", "/hook", [("X-HTTP-Method-Override", "DELETE")]), 503),
        (Request("POST", "/hook", query="_method=put"), 503),
        (Request("GET", "/hook", [("X-HTTP-Method-Override", "POST")]), 503),
        (Request("POST", "/admin/x", [("X-HTTP-Method-Override", "DELETE")]), 200),
    ],
    ids=lambda value: "",
)
def test_it_is_good_for_what_the_application_runs(make: Callable[..., Site], asked: Request, status: int) -> None:
    """Each method that a request may be run as has to be covered, not only the one on the wire."""
    site = make(closed(bypass(paths=("/admin/*", "POST /hook"))))
    assert site.ask(replace(asked, headers=[*asked.headers, (HEADER, TOKEN)])).status == status


def test_it_ends_by_the_clock_of_the_store(make: Callable[..., Site]) -> None:
    """By which it was given: a machine that is half an hour late gives nobody half an hour more."""
    site = make(closed(bypass()))
    assert site.ask(Request("POST", "/articles", [(HEADER, TOKEN)])).status == 200
    site.switch.behind = timedelta(days=1)
    assert site.ask(Request("POST", "/articles", [(HEADER, TOKEN)])).status == 503


@pytest.mark.parametrize(
    ("path", "carries", "expired"),
    [
        ("/articles", "", True),
        ("/favicon.ico", f"; {COOKIE}={TOKEN}", False),
        ("/-/readonly/bypass/rombp_x", "", False),
        ("/shop/-/readonly/bypass/rombp_x", "", False),
    ],
    ids=["elsewhere", "outside of its paths", "its link", "its link on a mounted site"],
)
def test_a_session_waits_where_a_bypass_is_not_good(
    make: Callable[..., Site], path: str, carries: str, expired: bool
) -> None:
    """It is taken off there and not expired: a browser asks for icons, too. Nor does the click on the link end it."""
    site = make(closed(bypass(paths=("/admin/*",))))
    reply = site.ask(Request("GET", path, [("Cookie", f"session=abc{carries}")]))
    assert "session" not in (reply.seen[0].cookie or "")
    assert any(cookie.startswith("session=;") for cookie in reply.all("Set-Cookie")) is expired
    if carries:
        assert site.ask(Request("POST", path, [("Cookie", f"session=abc{carries}")])).status == 503


@pytest.mark.parametrize(
    ("theirs", "leaves"),
    [
        ([("Cache-Control", "public, max-age=60"), ("CDN-Cache-Control", "max-age=60")], "private, no-cache"),
        ([("Expires", "Thu, 01 Jan 2037 00:00:00 GMT")], "private, no-cache"),
        ([("Cache-Control", "no-store"), ("Surrogate-Control", "max-age=60")], "no-store"),
    ],
)
def test_what_the_holder_is_shown_is_nobody_elses(
    make: Callable[..., Site], theirs: list[tuple[str, str]], leaves: str
) -> None:
    """A page that a shared cache may keep would tell everybody that they may write, and who does."""
    site = make(closed(bypass()))
    site.behaviour.headers = [("Content-Type", "text/plain"), *theirs]
    reply = site.ask(Request("GET", "/", [(HEADER, TOKEN)]))
    assert (reply.get(HEADER), reply.all("Cache-Control")) == ("ann", [leaves])
    assert (reply.get("Expires"), reply.get("CDN-Cache-Control"), reply.get("Surrogate-Control")) == (None, None, None)
    assert site.ask(Request("GET", "/")).get("Cache-Control") in (None, dict(theirs).get("Cache-Control"))


def test_a_reader_without_one_is_as_ever(make: Callable[..., Site]) -> None:
    """Many tokens, wrong ones, and none at all."""
    site = make(closed(bypass()))
    for value in ("", "x", TOKEN[:-1], TOKEN + "x", "ä", token_hash(TOKEN), "b1", "ann"):
        reply = site.ask(Request("POST", "/articles", [(HEADER, value)]))
        assert (reply.status, reply.get(HEADER)) == (503, None)
        assert site.ask(Request("GET", "/articles", [(HEADER, value)])).status == 200


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("parts", [(b"hello",), (b"hel", b"lo")])
@pytest.mark.parametrize("fails", ["", "before", "after"])
def test_what_it_let_write_is_in_flight_until_its_end(
    make: Callable[..., Site], guarded: bool, parts: tuple[bytes, ...], fails: str
) -> None:
    """And no longer, however it ends: whoever takes the bypass back would wait for ever."""
    site = make(closed(bypass()))
    site.switch.guarded = guarded
    inflight, seen = site.switch.inflight, []
    site.behaviour = Behaviour(parts=parts, fails=fails, during=lambda: seen.append(len(inflight.left(()))))
    with contextlib.suppress(Broken):
        site.ask(Request("POST", "/articles", [(HEADER, TOKEN)]))
    assert (seen, inflight.left(())) == ([1], frozenset())


def test_a_writable_site_asks_nobody(make: Callable[..., Site]) -> None:
    """Then it is worth nothing, and not counted."""
    site = make(State.at(NOW, replace(RECORD, bypasses=(bypass(),))))
    reply = site.ask(Request("POST", "/articles", [(HEADER, TOKEN)]))
    assert (reply.status, reply.get(HEADER)) == (200, None)
    assert site.switch.tally.totals()["bypassed"] == 0


def test_what_a_request_presents() -> None:
    """A header, and cookies of that very name in each Cookie header."""
    assert tokens(None, ()) == []
    assert tokens(" a ", (f"x=1; {COOKIE}=b", f'{COOKIE}="c"; {COOKIE}x=d')) == ["a", "b", "c"]


def test_the_cookie_that_a_link_is_exchanged_for() -> None:
    """Out of reach for scripts, other sites and plain connections; it ends with the bypass."""
    jar = http.cookies.SimpleCookie(exchanged_for(bypass(until=NOW + timedelta(minutes=30)), TOKEN, NOW))
    morsel = jar[COOKIE]
    assert morsel.value == TOKEN
    assert (morsel["httponly"], morsel["secure"], morsel["samesite"], morsel["path"]) == (True, True, "Lax", "/")
    assert (morsel["max-age"], morsel["domain"]) == ("1800", "")


@pytest.mark.parametrize(
    ("paths", "begins"),
    [((), "/"), (("/admin/*", "/x"), "/admin/"), (("POST /a/{id}/b",), "/a/"), (("/hook",), "/hook"), (("/*",), "/")],
)
def test_where_a_link_leads(paths: tuple[str, ...], begins: str) -> None:
    """To the beginning of what the bypass is good for."""
    assert begins_at(bypass(paths=paths)) == begins


# --- the link ------------------------------------------------------------------------------------------------------


@pytest.fixture
def store() -> MemoryStore:
    """A site that somebody has made read-only."""
    return closed_store()


class Served:
    """The library's own routes over a real switch, in ASGI or WSGI, mounted below an application's path."""

    def __init__(self, store: MemoryStore) -> None:
        self.switch = Switch(store, interval=0.05)
        self.store = store

    def get(self, path: str, *headers: tuple[str, str], method: str = "GET", query: str = "") -> Answer:
        """Ask for a path below the mount."""
        facts = Facts(method, path, query=query, headers={name.lower(): value for name, value in headers})
        cookies = tuple(value for name, value in headers if name == "Cookie")
        return OwnRoutes(self.switch).answer(facts, cookies=cookies, mount="/shop/-/readonly")


BROWSER = ("Sec-Fetch-Mode", "navigate")


@pytest.fixture
def served(store: MemoryStore) -> Iterator[Served]:
    """A process that has seen the site turn read-only."""
    made = Served(store)
    made.switch.start()
    yield made
    made.switch.close()


def link_of(served: Served, name: str = "ann", **options: Any) -> str:
    """Give a bypass and return its link's token, as soon as the process knows it."""
    _, made, link, _ = bypassing.give(served.store, ANN, name, lasting=timedelta(minutes=5), **options)
    eventually(lambda: made.id in {b.id for b in served.switch.state.bypasses})
    return link


def test_a_browser_gets_a_cookie_and_an_address_without_the_token(served: Served) -> None:
    """By a redirect, once."""
    link = link_of(served, paths=("/admin/*",))
    answer = served.get(f"/bypass/{link}", BROWSER)
    headers = dict(answer.headers)
    assert (answer.status, headers["Location"], answer.body) == (303, "/shop/admin/", b"")
    assert (headers["Referrer-Policy"], headers["Cache-Control"]) == ("no-referrer", "no-store")
    cookie = headers["Set-Cookie"].partition(";")[0]
    told = json.loads(served.get("/status", ("Cookie", cookie)).body)
    assert told["bypass"]["name"] == "ann"
    assert "bypass" not in json.loads(served.get("/status").body)
    again = served.get(f"/bypass/{link}", BROWSER)
    assert (again.status, "Set-Cookie" in dict(again.headers)) == (404, False)
    (used,) = [e for e in history.read(served.store, None, last=9) if e.what == "bypass used"]
    assert used.reason == "ann"


def test_what_shows_a_preview_does_not_use_it_up(served: Served) -> None:
    """A chat's robot, a browser's prefetch, a mail filter's HEAD: a page with a button, and nothing is used."""
    link = link_of(served)
    for headers in ([], [BROWSER, ("Sec-Purpose", "prefetch")], [("Sec-Fetch-Mode", "no-cors")]):
        answer = served.get(f"/bypass/{link}", *headers)
        assert (answer.status, b"<button>" in answer.body) == (200, True)
        assert link.encode() not in answer.body
    assert served.get(f"/bypass/{link}", BROWSER, method="HEAD").status == 200
    assert served.get(f"/bypass/{link}", BROWSER, method="POST").status == 405
    assert served.get(f"/bypass/{link}", query="go=1").status == 303


def test_a_guess_reaches_no_store(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no link makes nobody write or read anything."""
    monkeypatch.setattr(served.switch, "redeem_bypass", lambda *_: pytest.fail("asked the store"))
    for path in ("/bypass/", "/bypass/x", f"/bypass/{TOKEN}", "/bypass/<script>", "/bypass/%00"):
        answer = served.get(path, BROWSER)
        assert answer.status == 404
        assert b"<script" not in answer.body


def test_two_browsers_race_for_one_link(served: Served) -> None:
    """One gets it, the other is told; a process that has not heard of it yet asks the store and is told, too."""
    link = link_of(served)
    assert bypassing.redeem(served.store, link)[1] is not None
    assert served.get(f"/bypass/{link}", BROWSER).status == 404


def test_a_store_that_is_away_uses_nothing_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again in a moment."""
    link = link_of(served)

    def away(*_: str) -> str:
        raise StoreUnreachable("away")

    with monkeypatch.context() as patch:
        patch.setattr(served.switch, "redeem_bypass", away)
        assert served.get(f"/bypass/{link}", BROWSER).status == 503
    assert served.get(f"/bypass/{link}", BROWSER).status == 303


def test_uses_stand_in_the_history(served: Served) -> None:
    """By name and route, one line at once and then one a minute, and what is left when the process ends: every use."""
    link_of(served)

    def told() -> list[history.Entry]:
        return [entry for entry in history.read(served.store, None, last=100) if entry.what == history.LET_THROUGH]

    served.switch.tally.bypassed("ann", "POST /articles")
    eventually(lambda: told() != [])
    served.switch.store.timeout = 60.0  # for so long, and a second more, it waits for its last words
    for _ in range(3):
        served.switch.tally.bypassed("ann", "POST /articles")
    served.switch.close()
    first, rest = told()
    assert (first.by, first.reason, first.tally["bypassed"]) == ("ann", "POST /articles", 1)
    assert (rest.by, rest.reason, rest.tally["bypassed"]) == ("ann", "POST /articles", 3)
