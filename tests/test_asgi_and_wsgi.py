"""One table of requests, states and outcomes, kept by both middlewares alike."""

from __future__ import annotations

import gc
import json
import logging
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from itsdangerous import TimestampSigner

from readonly.context import Work
from readonly.handling import NEGOTIATED, VARIANTS
from readonly.marks import reads
from readonly.policy import Policy, SessionCookie
from readonly.rules import BODY_LIMIT_BYTES, Endpoint, Facts, rule
from support.apps import SITES, Behaviour, Broken, HandSwitch, Reply, Request, Site, innermost

HTML = ("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
SECRET = "a key of the site's own"


def only_queries(facts: Facts) -> bool:
    """Tell GraphQL queries from mutations, as a site would."""
    return b"mutation" not in (facts.body or b"mutation")


POLICY = Policy(
    exempt=["/healthz", "/admin/*"],
    login=["/login", "GET /oauth/{provider}/callback"],
    logout=["/logout"],
    reads=["POST /search", rule("POST /graphql", when=only_queries)],
    writes=["GET /cart/add/{id}", "/ping/*"],
    session_cookies=[SessionCookie("session", signed=True), "remember"],
    secret=SECRET,
)
# Without a predicate, so that what a request is can be remembered.
SIMPLE = replace(POLICY, reads=["POST /search"])
PLAIN = Policy()


def signed(ago: timedelta) -> str:
    """Return a signed session of that age."""
    signer = TimestampSigner("the application's key")
    signer.get_timestamp = lambda: int((datetime.now(UTC) - ago).timestamp())  # type: ignore[method-assign]
    return signer.sign("eyJ1c2VyIjo3fQ").decode()


@pytest.fixture(params=sorted(SITES))
def make(request: pytest.FixtureRequest) -> Callable[..., Site]:
    """Make a site in each of the two protocols."""

    def make_site(policy: Policy = POLICY, **options: Any) -> Site:
        site: type[Site] = SITES[request.param]
        return site(HandSwitch(), policy, **options)

    return make_site


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the middleware's clock stand still: what holds for a second holds for the whole test, on a slow machine."""
    now = time.monotonic()
    for module in ("handling", "asgi", "wsgi"):
        monkeypatch.setattr(f"readonly.{module}.monotonic", lambda: now)


def put(site: Site, state: str) -> None:
    """Put a site into a state of the table."""
    switch = site.switch
    states: dict[str, Callable[[], None]] = {
        "writable": switch.writable,
        "unknown": switch.unknown,
        "read-only": switch.read_only,
        "first minute": lambda: switch.read_only(for_=timedelta(seconds=20)),
        "suspended": lambda: switch.read_only(sessions="suspend"),
        "kept": lambda: switch.read_only(sessions="keep"),
        "over": switch.over,
        "undone": lambda: switch.over(undone=True),
    }
    states[state]()


# --- the table -----------------------------------------------------------------------------------------------------

OLD, NEW = timedelta(hours=1), timedelta(seconds=2)
CLOSED = ("read-only", "first minute", "suspended", "kept", "unknown")
OPEN = ("writable", "over", "undone")


@dataclass(frozen=True)
class Row:
    """Requests that end alike in these states: with this status, at the application or not."""

    name: str
    requests: tuple[Request, ...]
    states: tuple[str, ...]
    status: int
    reaches: bool
    headers: Mapping[str, str | None] = field(default_factory=dict)


def methods(*names: str, path: str = "/articles/7", **more: Any) -> tuple[Request, ...]:
    """Return one request for each method."""
    return tuple(Request(name, path, **more) for name in names)


SAFE = methods("GET", "HEAD", "OPTIONS", "TRACE", "QUERY")
UNSAFE = methods("POST", "PUT", "PATCH", "DELETE", "PROPFIND", "MOVE", "LINK", "FOO", body=b"a=1")
REFUSED = {"X-Read-Only": "true", "Cache-Control": "no-store"}
OVERRIDDEN = (
    Request("GET", "/articles/7", query="_method=POST"),
    Request("GET", "/articles/7", query="_metho%64=delete"),
    Request("GET", "/articles/7", headers=[("X-HTTP-Method-Override", "DELETE")]),
    Request("POST", "/articles/7", headers=[("X-HTTP-Method-Override", "GET")], body=b"a=1"),
)
TABLE = [
    Row("reads of a writable site", SAFE, OPEN, 200, True, {"X-Read-Only": None}),
    Row("writes of a writable site", UNSAFE, OPEN, 200, True, {"X-Read-Only": None, "Retry-After": None}),
    Row("reads of a read-only site", SAFE, CLOSED, 200, True, {"X-Read-Only": "true", "Cache-Control": None}),
    Row("writes to a read-only site", UNSAFE, CLOSED, 503, False, REFUSED),
    Row("another method in disguise", OVERRIDDEN, CLOSED, 503, False, REFUSED),
    Row("a declared read", methods("POST", path="/search", body=b"q=x"), CLOSED, 200, True),
    Row("with a trailing slash", methods("POST", path="/search/", body=b"q=x"), CLOSED, 200, True),
    Row("not the declared path", methods("POST", path="/search2", body=b"q=x"), CLOSED, 503, False),
    Row("another method of it", methods("PUT", path="/search", body=b"q=x"), CLOSED, 503, False),
    Row(
        "an exempt path", methods("POST", "GET", path="/admin/x", body=b"a"), CLOSED, 200, True, {"X-Read-Only": "true"}
    ),
    Row("a misspelled exempt path", methods("POST", path="/x/../admin/x", body=b"a"), CLOSED, 503, False),
    Row("a declared write by GET", methods("GET", "HEAD", path="/cart/add/7"), CLOSED, 503, False),
    Row("the same while writable", methods("GET", "HEAD", path="/cart/add/7"), OPEN, 200, True),
    Row("a login by GET", methods("GET", path="/oauth/x/callback"), CLOSED, 503, False),
    Row("a login form", methods("GET", path="/login"), CLOSED, 200, True),
    Row("a login", methods("POST", path="/login", body=b"user=ann"), CLOSED, 503, False, REFUSED),
    Row("a misspelled login", methods("POST", path="//LOGIN/", body=b"user=ann"), CLOSED, 503, False),
    Row("a logout", methods("POST", path="/logout", body=b"x"), CLOSED + OPEN, 200, True),
    Row("a query by POST", methods("POST", path="/graphql", body=b"query {}"), CLOSED, 200, True),
    Row("a mutation", methods("POST", path="/graphql", body=b"mutation {}"), CLOSED, 503, False),
    Row("a mutation while writable", methods("POST", path="/graphql", body=b"mutation {}"), OPEN, 200, True),
    Row(
        "a query too large to be seen",
        methods("POST", path="/graphql", body=b"query {" + 70_000 * b" " + b"}"),
        CLOSED,
        503,
        False,
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name.replace(" ", "-"))
@pytest.mark.parametrize("mounted", ["", "/shop"])
def test_table(row: Row, make: Callable[..., Site], mounted: str) -> None:
    """Each request in each state ends as its row says, below a mount as well."""
    for state in row.states:
        for request in row.requests:
            site = make()
            put(site, state)
            if mounted:
                request = Request(**{**request.__dict__, "root": mounted})
            reply = site.ask(request)
            where = f"{state}: {request.method} {request.path}"
            assert reply.status == row.status, where
            assert bool(reply.seen) is row.reaches, where
            if row.reaches:
                assert reply.body == (b"" if request.method == "HEAD" else b"hello"), where
                assert reply.seen[0].body == request.body, where
            else:
                assert int(reply.get("Retry-After") or 0) >= 1, where
            for name, value in row.headers.items():
                assert reply.get(name) == value, f"{where}: {name}"
            assert site.switch.inflight.count() == 0, where


def test_a_refused_body_is_not_read(make: Callable[..., Site]) -> None:
    """However large it is, chunked or not."""
    for policy in (POLICY, PLAIN):
        for chunked in (False, True):
            site = make(policy)
            site.switch.read_only()
            reply = site.ask(Request("POST", "/upload", body=1_000_000 * b"x", chunked=chunked))
            assert reply.status == 503
            assert not reply.body_was_read


def test_a_large_body_is_streamed_to_the_application(make: Callable[..., Site]) -> None:
    """Also where a predicate was shown its beginning."""
    for path in ("/upload", "/graphql"):
        for chunked in (False, True):
            site = make()
            body = b"query" + 300_000 * b"xyz"
            reply = site.ask(Request("POST", path, body=body, chunked=chunked))
            assert reply.status == 200
            assert reply.seen[0].body == body


@pytest.mark.parametrize("chunked", [False, True])
def test_so_much_of_a_body_is_shown_and_no_more(make: Callable[..., Site], chunked: bool) -> None:
    """64 KiB: one byte more is a write, which while writable reaches the application whole."""
    site = make()
    for size, status in ((BODY_LIMIT_BYTES, 200), (BODY_LIMIT_BYTES + 1, 503)):
        body = b"{" + (size - 1) * b"x"
        site.switch.read_only()
        assert site.ask(Request("POST", "/graphql", body=body, chunked=chunked)).status == status
        site.switch.writable()
        seen = site.ask(Request("POST", "/graphql", body=body, chunked=chunked)).seen[0]
        assert (seen.body == body, seen.in_flight) == (True, int(status == 503))


def test_a_head_of_a_refused_request_has_no_body(make: Callable[..., Site]) -> None:
    """Its Content-Length is that of the GET."""
    site = make()
    site.switch.read_only()
    get, head = (site.ask(Request(method, "/cart/add/7", headers=[HTML])) for method in ("GET", "HEAD"))
    assert (get.status, head.status, head.body) == (503, 503, b"")
    assert head.get("Content-Length") == get.get("Content-Length") == str(len(get.body))


def test_the_answer_suits_the_client(make: Callable[..., Site]) -> None:
    """A page for browsers, problem details for the rest, with the operator's message and never the reason."""
    site = make()
    site.switch.read_only(message="We are moving <house>.", expected=timedelta(minutes=40))
    page = site.ask(Request("POST", "/articles", headers=[HTML], body=b"a=1"))
    assert page.get("Content-Type") == "text/html; charset=utf-8"
    assert b"We are moving &lt;house&gt;." in page.body
    problem = site.ask(Request("POST", "/articles", headers=[("Content-Type", "application/json")], body=b"{}"))
    assert problem.get("Content-Type") == "application/problem+json"
    document = json.loads(problem.body)
    assert (document["code"], document["detail"]) == ("READ_ONLY", "We are moving <house>.")
    assert document["expected_end"] == problem.get("X-Read-Only-Until")
    left = datetime.fromisoformat(document["expected_end"]) - datetime.now(UTC)
    assert left.total_seconds() <= int(problem.get("Retry-After") or 0) <= 2460


def test_the_site_s_own_page(make: Callable[..., Site]) -> None:
    """A site may replace it."""
    site = make(page=lambda refused: f"own {refused.code}")
    site.switch.read_only()
    assert site.ask(Request("POST", "/", headers=[HTML], body=b"a=1")).body == b"own READ_ONLY"


def test_who_runs_the_site_is_told_what_to_type(make: Callable[..., Site]) -> None:
    """From the machine itself, and from nowhere else, nor through a proxy on it."""
    site = make()
    site.switch.unknown()

    def told(client: str, *headers: tuple[str, str]) -> bool:
        reply = site.ask(Request("POST", "/", headers=[HTML, *headers], body=b"a", client=client))
        assert reply.status == 503
        return b"the state was never read" in reply.body

    assert told("127.0.0.1")
    assert told("::1")
    assert not told("203.0.113.9")
    assert not told("127.0.0.1", ("X-Forwarded-For", "203.0.113.9"))
    assert not told("not an address")
    assert not told("")


def test_every_response_says_until_when(make: Callable[..., Site]) -> None:
    """Reads, exempt ones and refusals alike."""
    site = make()
    site.switch.read_only(expected=timedelta(minutes=40))
    for request in (Request("GET", "/"), Request("POST", "/admin/x", body=b"x"), Request("POST", "/", body=b"x")):
        reply = site.ask(request)
        assert reply.get("X-Read-Only") == "true"
        until = datetime.fromisoformat(reply.get("X-Read-Only-Until") or "")
        assert abs(until - datetime.now(UTC) - timedelta(minutes=40)) < timedelta(minutes=5)


def test_a_preflight_passes_and_is_not_remembered(make: Callable[..., Site]) -> None:
    """What makes one of a request are its headers: one without them, right after it, is judged by its path."""
    site = make(Policy(writes=["/cart"]))
    origin, asks = ("Origin", "https://other.example"), ("Access-Control-Request-Method", "POST")
    for state in ("writable", "read-only"):
        put(site, state)
        for headers, status in (((origin, asks), 200), ((origin,), 503), ((), 503), ((origin, asks), 200)):
            reply = site.ask(Request("OPTIONS", "/cart", headers=headers))
            assert reply.status == (200 if state == "writable" else status)
            # A preflight writes nothing; whatever else goes there may.
            assert [seen.in_flight for seen in reply.seen] == (
                [int(asks not in headers)] if reply.status == 200 else []
            )


# --- counting ------------------------------------------------------------------------------------------------------


def test_a_write_is_in_flight_until_it_is_over(make: Callable[..., Site]) -> None:
    """From before the application begins until its response has ended; a read never is."""
    for policy in (POLICY, PLAIN):
        site = make(policy)
        counts: list[int] = []

        def count(counts: list[int] = counts, site: Site = site) -> None:
            counts.append(site.switch.inflight.count())

        site.behaviour = Behaviour(parts=[b"a", b"b"], between=count)
        assert site.ask(Request("POST", "/", body=b"x")).seen[0].in_flight == 1
        assert counts == [1]
        assert site.switch.inflight.count() == 0
        assert site.ask(Request("GET", "/")).seen[0].in_flight == 0
        for path in ("/healthz", "/logout"):
            assert site.ask(Request("POST", path, body=b"x")).seen[0].in_flight == 1
        if policy is POLICY:
            assert site.ask(Request("GET", "/cart/add/7")).seen[0].in_flight == 1
            assert site.ask(Request("POST", "/search", body=b"x")).seen[0].in_flight == 0


def test_a_write_that_goes_on_over_the_switch_is_waited_for(make: Callable[..., Site]) -> None:
    """It is in flight for whoever drains, and over for them as soon as it is."""
    for policy in (POLICY, PLAIN):
        site = make(policy)
        counts: list[int] = []

        def close(counts: list[int] = counts, site: Site = site) -> None:
            site.switch.inflight.close()
            counts.append(site.switch.inflight.count())

        site.behaviour = Behaviour(parts=[b"a", b"b"], between=close)
        site.ask(Request("POST", "/", body=b"x"))
        counts.append(site.switch.inflight.count())
        assert counts == [1, 0]


def test_a_write_that_fails_is_over(make: Callable[..., Site]) -> None:
    """Whatever the application raises, before or after it has answered."""
    for policy in (POLICY, PLAIN):
        for when in ("before", "after"):
            site = make(policy)
            site.behaviour = Behaviour(fails=when)
            with pytest.raises(Broken):
                site.ask(Request("POST", "/", body=b"x"), check=False)
            assert site.switch.inflight.count() == 0


def test_counted_first_then_looked(make: Callable[..., Site]) -> None:
    """When the state is looked at for a write, it is counted already: a change between the two sees it."""
    for policy in (POLICY, PLAIN):
        site = make(policy)
        site.switch.unknown()
        counts: list[int] = []
        look = site.switch.look

        def spying(look: Any = look, counts: list[int] = counts, site: Site = site) -> Any:
            counts.append(site.switch.inflight.count())
            return look()

        site.switch.look = spying  # type: ignore[method-assign]
        assert site.ask(Request("POST", "/", body=b"x")).status == 503
        assert counts == [1]


def test_a_write_looks_when_the_knowledge_is_old(make: Callable[..., Site]) -> None:
    """Open, but nobody has looked for too long: the look decides."""
    for policy in (POLICY, PLAIN):
        site = make(policy)
        known = site.switch.view.state
        site.switch.read_only()
        closed = site.switch.view.state
        site.switch.set(known)
        site.switch.view.admit_until = float("-inf")
        site.switch.coming = closed
        assert site.ask(Request("POST", "/", body=b"x")).status == 503
        site.switch.coming = known
        assert site.ask(Request("POST", "/", body=b"x")).status == 200


@pytest.mark.usefixtures("still")
def test_reads_look_now_and_then(make: Callable[..., Site]) -> None:
    """Where no thread runs, reads alone find out that it is over; not each of them asks."""
    for policy in (POLICY, PLAIN):
        site = make(policy)
        known = site.switch.view.state
        site.switch.unknown()
        site.switch.coming = known
        assert site.ask(Request("GET", "/")).get("X-Read-Only") is None
        site.switch.unknown()
        for _ in range(5):
            assert site.ask(Request("GET", "/")).get("X-Read-Only") == "true"
        assert site.switch.looks == 1


def test_a_read_of_a_writable_site_is_handed_on_untouched(make: Callable[..., Site]) -> None:
    """No look, no context, nothing wrapped: not even a copy of what the server gave."""
    site = make(PLAIN)
    site.switch.guarded = True
    reply = site.ask(Request("GET", "/"))
    assert reply.seen[0].may_write is None
    assert site.switch.looks == 0


# --- sessions ------------------------------------------------------------------------------------------------------


def cookies(*pairs: str) -> tuple[tuple[str, str], ...]:
    """Return a Cookie header."""
    return (("Cookie", "; ".join(pairs)),)


def expired(reply: Reply) -> set[str]:
    """Return the names of cookies that the browser is told to forget."""
    return {v.partition("=")[0] for v in reply.all("Set-Cookie") if "Max-Age=0" in v}


@pytest.mark.parametrize(
    ("state", "age", "reaches", "gone"),
    [
        ("writable", OLD, True, set()),
        ("unknown", OLD, True, set()),
        ("read-only", OLD, False, {"session"}),
        ("read-only", NEW, False, {"session"}),
        ("first minute", OLD, False, set()),
        ("suspended", OLD, False, set()),
        ("kept", OLD, True, set()),
        ("over", OLD, False, {"session"}),
        ("over", NEW, True, set()),
        ("undone", OLD, True, set()),
    ],
)
def test_a_session_on_a_read(
    make: Callable[..., Site], state: str, age: timedelta, reaches: bool, gone: set[str]
) -> None:
    """Taken off, and expired, or not; other cookies stay as they were sent."""
    site = make()
    put(site, state)
    session = f"session={signed(age)}"
    reply = site.ask(Request("GET", "/", headers=cookies("a=1", session, 'b="2"')))
    assert reply.status == 200
    assert reply.seen[0].cookie == (f'a=1; {session}; b="2"' if reaches else 'a=1; b="2"')
    assert expired(reply) == gone
    assert (reply.get("Cache-Control") == "no-store") is not reaches
    assert site.switch.tally.totals()["ended"] == len(gone)


def test_a_session_alone_leaves_no_cookie_header(make: Callable[..., Site]) -> None:
    """The application sees an anonymous request."""
    site = make()
    site.switch.read_only()
    assert site.ask(Request("GET", "/", headers=cookies("session=x"))).seen[0].cookie is None


@pytest.mark.parametrize("state", ["over", "read-only"])
def test_the_first_write_with_an_ended_session(make: Callable[..., Site], state: str) -> None:
    """403 with its own code, the cookie expired with it; the next try is an ordinary anonymous request."""
    site = make()
    put(site, state)
    first = site.ask(Request("POST", "/comments", headers=cookies(f"session={signed(OLD)}"), body=b"text=hello"))
    assert first.status == 403
    assert json.loads(first.body)["code"] == "SESSION_ENDED"
    assert expired(first) == {"session"}
    assert not first.seen
    assert first.get("Cache-Control") == "no-store"
    again = site.ask(Request("POST", "/comments", body=b"text=hello"))
    assert again.status == (200 if state == "over" else 503)
    assert site.switch.inflight.count() == 0


@pytest.mark.parametrize("state", ["over", "read-only"])
def test_a_write_after_the_cookie_of_an_ended_session_is_gone(make: Callable[..., Site], state: str) -> None:
    """Whoever reads a page loses it, and a form that was opened before is no stranger's: it is told, once."""
    site = make()
    put(site, state)
    page = site.ask(Request("GET", "/", headers=cookies(f"session={signed(OLD)}")))
    (left,) = [value.partition(";")[0] for value in page.all("Set-Cookie") if "Max-Age=0" not in value]
    assert left == "session-ended=1"
    assert not site.ask(Request("GET", "/", headers=cookies(left))).all("Set-Cookie")
    first = site.ask(Request("POST", "/comments", headers=cookies(left), body=b"text=hello"))
    assert (first.status, json.loads(first.body)["code"]) == (403, "SESSION_ENDED")
    assert expired(first) == {"session-ended"}
    again = site.ask(Request("POST", "/comments", body=b"text=hello"))
    assert again.status == (200 if state == "over" else 503)
    # Who has signed in since is nobody who was signed out.
    site.behaviour = Behaviour(headers=[("Set-Cookie", "session=new; Path=/")])
    if state == "over":
        assert expired(site.ask(Request("POST", "/login", headers=cookies(left), body=b"x"))) == {"session-ended"}
        new = cookies(left, f"session={signed(NEW)}")
        assert site.ask(Request("POST", "/comments", headers=new, body=b"x")).status == 200


def test_in_the_first_minute_a_write_with_a_session_is_refused_like_any(make: Callable[..., Site]) -> None:
    """A slip costs some 503s, and nothing else."""
    site = make()
    put(site, "first minute")
    reply = site.ask(Request("POST", "/comments", headers=cookies(f"session={signed(OLD)}"), body=b"x"))
    assert (reply.status, expired(reply)) == (503, set())


def test_a_refused_login_expires_the_old_session(make: Callable[..., Site]) -> None:
    """Each answer does, after the first minute."""
    site = make()
    site.switch.read_only()
    reply = site.ask(Request("POST", "/login", headers=cookies("remember=7", "session=x"), body=b"x"))
    assert (reply.status, expired(reply)) == (503, {"session", "remember", "remember-since"})


def test_signing_in_again_with_the_old_cookie(make: Callable[..., Site]) -> None:
    """A login after `off` is no form of the old session: it passes, without the old cookie."""
    site = make()
    site.switch.over()
    reply = site.ask(Request("POST", "/login", headers=cookies(f"session={signed(OLD)}"), body=b"x"))
    assert (reply.status, reply.seen[0].cookie) == (200, None)


@pytest.mark.parametrize("state", ["read-only", "first minute", "suspended"])
def test_no_session_is_born_while_read_only(make: Callable[..., Site], state: str) -> None:
    """However the application logs people in: its cookie does not leave; others do."""
    site = make()
    put(site, state)
    site.behaviour = Behaviour(headers=[("Set-Cookie", "session=new; Path=/"), ("Set-Cookie", "theme=dark")])
    for request in (Request("GET", "/"), Request("POST", "/search", body=b"q")):
        reply = site.ask(request)
        assert reply.all("Set-Cookie") == ["theme=dark"]
        assert reply.get("Cache-Control") == "no-store"


def test_a_response_in_flight_at_the_switch(make: Callable[..., Site]) -> None:
    """A login that was admitted before it: the answer leaves, the session does not."""
    site = make()
    site.behaviour = Behaviour(
        headers=[("Set-Cookie", "session=new; Path=/"), ("Location", "/")],
        status=302,
        during=site.switch.read_only,
    )
    reply = site.ask(Request("POST", "/login", body=b"x"))
    assert (reply.status, reply.get("Location")) == (302, "/")
    assert reply.all("Set-Cookie") == []
    assert reply.get("Cache-Control") == "no-store"
    assert reply.get("X-Read-Only") == "true"


def test_a_logout_clears_the_session_and_writes_nothing(make: Callable[..., Site]) -> None:
    """The application gets an anonymous request; the browser forgets the cookies, at once."""
    for state in ("first minute", "suspended", "kept"):
        site = make()
        put(site, state)
        reply = site.ask(Request("POST", "/logout", headers=cookies("a=1", "session=x", "remember=y"), body=b"x"))
        assert reply.seen[0].cookie == "a=1"
        assert expired(reply) == {"session", "remember", "remember-since"}


def test_exempt_requests_keep_their_session(make: Callable[..., Site]) -> None:
    """Session rules look away: an operator stays signed in, and can sign in."""
    for state in ("read-only", "over"):
        site = make()
        put(site, state)
        site.behaviour = Behaviour(headers=[("Set-Cookie", "session=new")])
        reply = site.ask(Request("POST", "/admin/x", headers=cookies("session=old"), body=b"x"))
        assert reply.seen[0].cookie == "session=old"
        assert reply.all("Set-Cookie") == ["session=new"]


def test_opaque_ids_are_stamped_after_the_first_off(make: Callable[..., Site]) -> None:
    """On reads as on writes, and not before; the stamped id lives."""
    for request in (Request("GET", "/"), Request("POST", "/login", body=b"x")):
        site = make()
        site.behaviour = Behaviour(headers=[("Set-Cookie", "remember=f3b1; Path=/; Secure")])
        assert len(site.ask(request).all("Set-Cookie")) == 1
        site.switch.over()
        given = site.ask(request).all("Set-Cookie")
        assert given[0] == "remember=f3b1; Path=/; Secure"
        assert given[1].startswith("remember-since=")
        header = cookies(*(value.partition(";")[0] for value in given))
        assert "remember=f3b1" in (site.ask(Request("GET", "/", headers=header)).seen[0].cookie or "")
        unstamped = site.ask(Request("GET", "/", headers=cookies("remember=f3b1")))
        assert unstamped.seen[0].cookie is None


def test_expired_over_https(make: Callable[..., Site]) -> None:
    """`Secure` where the request came by https."""
    site = make()
    site.switch.read_only()
    for scheme, secure in (("http", False), ("https", True)):
        reply = site.ask(Request("GET", "/", headers=cookies("session=x"), scheme=scheme))
        assert ("; Secure" in reply.all("Set-Cookie")[0]) is secure


def test_bearer_tokens(make: Callable[..., Site]) -> None:
    """Kept unless told otherwise; then taken off while read-only. Basic credentials are no session."""
    bearer, basic = ("Authorization", "Bearer abc"), ("Authorization", "Basic abc")
    for policy, header, kept in (
        (POLICY, bearer, True),
        (Policy(bearer="end"), bearer, False),
        (Policy(bearer="end"), basic, True),
    ):
        site = make(policy)
        for state in ("writable", "read-only", "over"):
            put(site, state)
            seen = site.ask(Request("GET", "/", headers=[header])).seen[0]
            assert seen.authorization == (header[1] if kept or state != "read-only" else None)


# --- the guard -----------------------------------------------------------------------------------------------------


def warm(site: Site) -> Site:
    """Have requests take the short way from now on."""
    for request in 20 * [Request("GET", "/articles/7/views"), Request("POST", "/comments", body=b"x")]:
        site.ask(request)
    site.seen.clear()
    return site


@pytest.mark.parametrize("prepare", [warm, lambda site: site], ids=["warm", "cold"])
@pytest.mark.parametrize("policy", [PLAIN, POLICY, SIMPLE], ids=["plain", "policy", "simple"])
@pytest.mark.parametrize("fails", ["", "before", "after"])
def test_what_a_guard_refuses_becomes_the_503(
    make: Callable[..., Site],
    fails: str,
    policy: Policy,
    prepare: Callable[[Site], Site],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whether the application answers 500, raises, or does both; and it is counted as a missing rule."""
    site = make(policy)
    site.switch.guarded = True
    site.switch.read_only()
    prepare(site)
    site.behaviour = Behaviour(status=500, escapes=True, fails=fails)
    with caplog.at_level(logging.ERROR, "readonly"):
        reply = site.ask(Request("GET", "/articles/7/views"), check=fails != "before")
    assert reply.status == 503
    assert json.loads(reply.body)["code"] == "READ_ONLY"
    assert reply.get("X-Read-Only") == "true"
    assert reply.seen[0].may_write is False
    assert site.switch.tally.totals()["escaped_by_route"] == {"GET /articles/7": 1}
    (line,) = [record for record in caplog.records if getattr(record, "event", "") == "escaped"]
    assert line.__dict__["table"] == "views"


def test_an_escape_that_the_application_handled(make: Callable[..., Site]) -> None:
    """GraphQL answers 200 with a list of errors: that stays, and is counted."""
    site = make()
    site.switch.guarded = True
    site.switch.read_only()
    site.behaviour = Behaviour(escapes=True)
    reply = site.ask(Request("POST", "/search", body=b"x"))
    assert (reply.status, reply.body) == (200, b"hello")
    assert site.switch.tally.totals()["escaped"] == 1


@pytest.mark.parametrize("prepare", [warm, lambda site: site], ids=["warm", "cold"])
@pytest.mark.parametrize("status", [500, 200])
def test_other_errors_stay_errors(make: Callable[..., Site], status: int, prepare: Callable[[Site], Site]) -> None:
    """A 500 of the application's own is not dressed up; its exception comes out."""
    site = make(PLAIN)
    site.switch.guarded = True
    site.switch.read_only()
    prepare(site)
    site.behaviour = Behaviour(status=status)
    reply = site.ask(Request("GET", "/"))
    assert (reply.status, reply.body) == (status, b"hello")
    site.behaviour = Behaviour(status=status, fails="before")
    with pytest.raises(Broken):
        site.ask(Request("GET", "/"), check=False)
    assert site.switch.tally.totals()["escaped"] == 0


def test_a_response_that_had_begun_can_t_be_replaced(make: Callable[..., Site]) -> None:
    """The error comes out, and the escape is counted."""
    site = make()
    site.switch.guarded = True
    site.switch.read_only()
    site.behaviour = Behaviour(parts=[b"a", b"b"], escapes=True, fails="after")
    with pytest.raises(Broken):
        site.ask(Request("GET", "/"), check=False)
    assert site.switch.tally.totals()["escaped"] == 1


def test_who_may_write(make: Callable[..., Site]) -> None:
    """A write that was admitted, and nobody while read-only; a read of a writable site has no context at all."""
    site = make()
    site.switch.guarded = True
    assert site.ask(Request("POST", "/", body=b"x")).seen[0].may_write is True
    assert site.ask(Request("GET", "/")).seen[0].may_write is None
    site.switch.read_only()
    for request in (Request("GET", "/"), Request("POST", "/admin/x", body=b"x"), Request("POST", "/logout", body=b"x")):
        assert site.ask(request).seen[0].may_write is False


def test_what_outlives_a_request_writes_no_more(make: Callable[..., Site]) -> None:
    """A task or a thread that it began inherits its context, and not for ever."""
    site = make()
    site.switch.guarded = True
    kept: list[Work | None] = []
    site.behaviour = Behaviour(during=lambda: kept.append(innermost()))
    for _ in range(2):
        site.ask(Request("POST", "/", body=b"x"))
    assert [work is not None and work.may_write for work in kept] == [False, False]


def test_without_a_guard_there_is_no_context(make: Callable[..., Site]) -> None:
    """Nobody would look at it."""
    site = make()
    assert site.ask(Request("POST", "/", body=b"x")).seen[0].may_write is None
    site.switch.read_only()
    assert site.ask(Request("GET", "/")).seen[0].may_write is None


def test_a_guard_s_refusal_of_an_admitted_write_is_no_missing_rule(make: Callable[..., Site]) -> None:
    """The primary was found read-only in the middle of it."""
    for prepare in (warm, lambda site: site):
        site = make(SIMPLE)
        site.switch.guarded = True
        prepare(site)
        site.behaviour = Behaviour(status=500, escapes=True, during=site.switch.read_only)
        reply = site.ask(Request("POST", "/comments", body=b"x"))
        assert reply.status == 503
        totals = site.switch.tally.totals()
        assert (totals["escaped"], totals["refused_by_kind"]) == (0, {"guard": 1})


# --- routes --------------------------------------------------------------------------------------------------------


def test_marks_and_names_of_the_router(make: Callable[..., Site]) -> None:
    """An adapter tells them; a GET that is marked as a write is counted while writable, and refused while not."""
    endpoints = {
        "/visit": Endpoint("visit", frozenset({"writes"})),
        "/find": Endpoint("find", frozenset({"reads"})),
        "/report": Endpoint("report"),
    }

    class Routes:
        reads_matter = True

        def __call__(self, connection: Any) -> Endpoint | None:
            return endpoints.get(connection.get("path") or connection.get("PATH_INFO"))

    site = make(Policy(reads=["POST name:report"]), endpoint=Routes())
    assert site.ask(Request("GET", "/visit")).seen[0].in_flight == 1
    site.switch.read_only()
    assert site.ask(Request("GET", "/visit")).status == 503
    assert site.ask(Request("POST", "/find", body=b"x")).status == 200
    assert site.ask(Request("POST", "/report", body=b"x")).status == 200
    assert site.ask(Request("PUT", "/report", body=b"x")).status == 503
    assert site.switch.tally.totals()["refused_by_route"] == {"visit": 1, "report": 1}


def test_an_adapter_without_marked_reads_says_so(make: Callable[..., Site]) -> None:
    """Then reads of a writable site are not routed twice."""
    asked: list[Any] = []

    class Routes:
        reads_matter = False

        def __call__(self, connection: Any) -> Endpoint | None:
            asked.append(connection)
            return None

    site = make(PLAIN, endpoint=Routes())
    site.ask(Request("GET", "/"))
    assert not asked
    site.ask(Request("POST", "/", body=b"x"))
    assert len(asked) == 1


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize("policy", [PLAIN, replace(POLICY, reads=[])], ids=["plain", "with rules and sessions"])
def test_writes_are_routed_once_a_view_is_marked_as_one_that_reads(
    make: Callable[..., Site], policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before that nothing a router knows could change what becomes of them: few are routed, and all are counted."""
    monkeypatch.setattr("readonly.marks._seen_marks", set())
    asked: list[Any] = []
    marks: set[str] = set()

    class Routes:
        tells_of_decorators_alone = True

        def __call__(self, connection: Any) -> Endpoint | None:
            asked.append(connection)
            return Endpoint("find", frozenset(marks))

    site = make(policy, endpoint=Routes())
    find = Request("POST", "/find", body=b"x")
    assert [site.ask(find).seen[0].in_flight for _ in range(5)] == [1] * 5
    site.switch.read_only()
    refused = 3 * VARIANTS
    assert {site.ask(find).status for _ in range(refused)} == {503}
    assert site.switch.tally.totals()["refused_by_route"] == {"find": refused}
    assert len(asked) < refused / 2
    site.switch.over()
    marks.add("reads")
    reads(lambda: None)
    asked.clear()
    assert [site.ask(find).seen[0].in_flight for _ in range(5)] == [0] * 5
    site.switch.read_only()
    assert {site.ask(find).status for _ in range(refused)} == {200}
    assert len(asked) == 5 + refused


def test_refusals_are_counted_by_rule_or_path(make: Callable[..., Site]) -> None:
    """The rule's text where one decided, else method and path group."""
    site = make()
    site.switch.read_only()
    for request in (Request("POST", "/login", body=b"x"), Request("PUT", "/a/b/c", body=b"x")):
        site.ask(request)
    totals = site.switch.tally.totals()
    assert totals["refused_by_route"] == {"/login": 1, "PUT /a/b": 1}
    assert totals["refused_by_kind"] == {"login": 1, "undeclared": 1}


# --- what is remembered --------------------------------------------------------------------------------------------


def test_a_remembered_refusal_is_the_same_answer(make: Callable[..., Site]) -> None:
    """Many clients are refused the same: each gets its own wait, and each is counted."""
    for policy in (PLAIN, POLICY, SIMPLE):
        site = make(policy)
        site.switch.read_only(expected=timedelta(minutes=40))
        page = Request("POST", "/articles", headers=[HTML], body=b"a=1")
        problem = Request("POST", "/articles", headers=[("Content-Type", "application/json")], body=b"{}")
        replies = [[site.ask(request) for _ in range(60)] for request in (page, problem)]
        for group, kind in zip(replies, ("text/html; charset=utf-8", "application/problem+json"), strict=True):
            assert {reply.get("Content-Type") for reply in group} == {kind}
            assert {reply.status for reply in group} == {503}
            assert {reply.get("X-Read-Only") for reply in group} == {"true"}
            assert len({reply.get("Retry-After") for reply in group}) > 3
            assert not any(reply.body_was_read for reply in group)
        if site.kind == "asgi":
            assert {reply.get("Connection") for reply in replies[0]} == {"close"}
        assert site.switch.tally.totals()["refused_by_route"] == {"POST /articles": 120}


def test_a_remembered_refusal_ends_with_its_state(make: Callable[..., Site]) -> None:
    """Another message, another end, or writable again: the next answer knows."""
    site = make(PLAIN)
    post = Request("POST", "/articles", body=b"x")
    for message in ("First.", "Second."):
        site.switch.read_only(message=message)
        assert {json.loads(site.ask(post).body)["detail"] for _ in range(40)} == {message}
    site.switch.writable()
    assert site.ask(post).status == 200
    site.switch.unknown()
    assert site.ask(post).status == 503


def test_a_remembered_write_that_finds_the_site_closed(make: Callable[..., Site]) -> None:
    """The view was open, and by the look after the count it is not: refused, and not in flight."""
    for policy in (PLAIN, POLICY, SIMPLE):
        site = warm(make(policy))
        known = site.switch.view.state
        site.switch.read_only()
        closed = site.switch.view.state
        site.switch.set(known)
        site.switch.view.admit_until = float("-inf")
        site.switch.coming = closed
        assert site.ask(Request("POST", "/comments", body=b"x")).status == 503
        assert site.switch.inflight.count() == 0


def test_a_remembered_write_that_fails_is_over(make: Callable[..., Site]) -> None:
    """On the short way as well."""
    for policy in (PLAIN, POLICY, SIMPLE):
        site = warm(make(policy))
        site.behaviour = Behaviour(fails="before")
        with pytest.raises(Broken):
            site.ask(Request("POST", "/comments", body=b"x"), check=False)
        assert site.switch.inflight.count() == 0


def test_reads_with_and_without_a_session_after_off(make: Callable[..., Site]) -> None:
    """With signed sessions alone nothing is stamped: who has no cookie passes untouched, who has one is looked at."""
    policy = Policy(session_cookies=[SessionCookie("session", signed=True)])
    site = make(policy)
    site.switch.over()
    assert site.ask(Request("GET", "/")).status == 200
    assert site.ask(Request("GET", "/", headers=cookies("a=1"))).seen[0].cookie == "a=1"
    assert site.ask(Request("GET", "/", headers=cookies(f"session={signed(OLD)}"))).seen[0].cookie is None


def test_what_is_remembered_does_not_hide_who_asks(make: Callable[..., Site]) -> None:
    """Cookies, overrides and predicates are looked at each time."""
    site = make(SIMPLE)
    site.switch.read_only()
    for _ in range(40):
        assert site.ask(Request("POST", "/comments", body=b"x")).status == 503
        assert site.ask(Request("GET", "/articles")).status == 200
    assert site.ask(Request("POST", "/comments", headers=cookies("session=x"), body=b"x")).status == 403
    assert site.ask(Request("GET", "/articles", headers=cookies("session=x"))).seen[0].cookie is None
    assert site.ask(Request("GET", "/articles", query="_method=POST")).status == 503
    assert site.ask(Request("GET", "/articles", headers=[("X-Http-Method", "PUT")])).status == 503
    assert site.ask(Request("GET", "/cart/add/7")).status == 503
    site.behaviour = Behaviour(headers=[("Set-Cookie", "session=new"), ("Content-Type", "text/plain")])
    reply = site.ask(Request("GET", "/articles"))
    assert (reply.all("Set-Cookie"), reply.get("X-Read-Only")) == ([], "true")
    assert site.ask(Request("GET", "/healthz")).all("Set-Cookie") == ["session=new"]


def test_remembered_places_are_bounded(make: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for every address fills no memory."""
    monkeypatch.setattr("readonly.handling.REMEMBERED", 5)
    site = make(SIMPLE)
    for number in range(30):
        assert site.ask(Request("GET", f"/articles/{number}")).status == 200
        assert site.ask(Request("POST", f"/articles/{number}", body=b"x")).status == 200
    site.switch.read_only()
    for number in range(30):
        assert site.ask(Request("POST", f"/articles/{number}", body=b"x")).status == 503


def test_a_remembered_write_is_counted_and_its_late_session_dropped(make: Callable[..., Site]) -> None:
    """The second request to a place takes the short way, and is treated alike."""
    for guarded in (False, True):
        site = make(SIMPLE)
        site.switch.guarded = guarded
        for _ in range(3):
            assert site.ask(Request("POST", "/login", body=b"x")).seen[0].in_flight == 1
        site.behaviour = Behaviour(headers=[("Set-Cookie", "session=new")], during=site.switch.read_only)
        reply = site.ask(Request("POST", "/login", body=b"x"))
        assert (reply.status, reply.all("Set-Cookie"), reply.get("X-Read-Only")) == (200, [], "true")
        assert site.switch.inflight.count() == 0


def test_exempt_and_logout_in_flight_at_the_switch(make: Callable[..., Site]) -> None:
    """An exempt response keeps its session, a logout may still delete one."""
    for path, given in (("/admin/x", "session=new"), ("/logout", "session=; Max-Age=0")):
        for _ in range(2):
            site = make(SIMPLE)
            site.behaviour = Behaviour(headers=[("Set-Cookie", given)], during=site.switch.read_only)
            assert site.ask(Request("POST", path, body=b"x")).all("Set-Cookie") == [given]


TELLING = {
    "accept": "application/json",
    "accept-language": "de",
    "content-type": "application/json",
    "origin": "https://app.example",
    "hx-request": "true",
    "x-requested-with": "XMLHttpRequest",
    "sec-fetch-dest": "empty",
}


@pytest.mark.parametrize("name", NEGOTIATED)
def test_what_a_refusal_looks_at_tells_remembered_ones_apart(make: Callable[..., Site], name: str) -> None:
    """The same request with and without each of those headers, once enough refusals are ready to be sent."""
    site = make(PLAIN)
    site.switch.read_only()
    plain = Request("POST", "/", headers=(HTML,))
    telling = Request("POST", "/", headers=tuple({"accept": HTML[1], name: TELLING[name]}.items()))
    expected = site.ask(telling)
    for _ in range(2 * VARIANTS):
        site.ask(plain)
    found = site.ask(telling)
    deciding = ("content-type", "content-language", "access-control-allow-origin")
    for header in deciding:
        assert found.get(header) == expected.get(header)
    assert tuple(map(expected.get, deciding)) != ("text/html; charset=utf-8", "en", None)


def test_the_languages_that_come_with_it(make: Callable[..., Site]) -> None:
    """Nobody has to switch them on; what a shared cache may do with the answer is said as well."""
    site = make(PLAIN)
    site.switch.read_only()
    for wanted, spoken, said in (
        ("de-AT,en;q=0.5", "de", "Gerade"),
        ("fr", "fr", "Aucune"),
        ("xx", "en", "No changes"),
    ):
        reply = site.ask(Request("POST", "/", headers=(HTML, ("accept-language", wanted))))
        assert (reply.get("content-language"), said in reply.body.decode()) == (spoken, True)
        assert reply.get("vary") == "Accept, Accept-Language, Origin"


def test_headers_made_to_fill_the_memory_are_not_kept(make: Callable[..., Site]) -> None:
    """However many long ones are sent, what is remembered of them stays small; they are answered all the same."""
    site = make(PLAIN)
    site.switch.read_only()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(300):
            wanted = f"fr,{'x' * 30_000}{number}"
            reply = site.ask(Request("POST", "/", headers=(HTML, ("accept-language", wanted))))
            assert reply.get("content-language") == "fr"
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_refusal_looks_at_no_other_header() -> None:
    """What is remembered is remembered by these headers: `rejection` must not begin to look at another one."""
    from readonly.gate import Gate
    from readonly.rejection import Rejection

    asked: set[str] = set()

    class Headers:
        def __init__(self, **values: str) -> None:
            self.values = values

        def get(self, name: str, /) -> str | None:
            asked.add(name)
            return self.values.get(name)

    switch = HandSwitch()
    switch.read_only()
    for values in (
        {},
        {"accept": HTML[1]},
        {"content-type": "application/grpc-web"},
        {"accept": HTML[1], "origin": "x"},
    ):
        facts = Facts("POST", "/", headers=Headers(**values))
        gate = Gate(PLAIN)
        act = gate.classify(facts)
        asked.clear()
        verdict = gate.decide(act, facts, switch.view.state)
        Rejection()(verdict, facts, switch.view.state, now=datetime.now(UTC))
        assert asked <= set(NEGOTIATED)
