"""An adapter that speaks neither ASGI nor WSGI: a framework with objects for request and response, sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from readonly import Policy, ReadOnlyError, SessionCookie, rule
from readonly.exchange import Exchange
from readonly.gate import ActKind
from readonly.handling import Handling
from readonly.marks import WRITES
from readonly.rules import Endpoint, Facts
from support.apps import HandSwitch, innermost

SESSION = "session=eyJ9.aaaaaa.AAAAAAAAAAAAAAAAAAAAAAAAAAA"
POLICY = Policy(
    reads=["POST /search", rule("POST /graphql", when=lambda facts: facts.body == b"{ a }")],
    logout=["/logout"],
    session_cookies=[SessionCookie("session", signed=True)],
)


@dataclass
class Asked:
    """A request, as this framework has them."""

    method: str
    path: str
    cookie: str = ""
    body: bytes = b""
    bypass: bool = False


@dataclass
class Answered:
    """A response, as this framework has them."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=lambda: [b"hello"])
    close: Callable[[], None] = lambda: None

    def get(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found.lower() == name.lower()]


View = Callable[[Asked], Answered]


class Adapter:
    """As the module's own description has it; `router` has the last word about a request, if there is one."""

    def __init__(self, switch: HandSwitch, view: View, *, policy: Policy = POLICY, router: Any = None) -> None:
        self.handling: Handling[Any] = Handling(switch.as_switch(), policy, None, None)
        self.view = view
        self.router = router
        self.free = 0

    def _exchange(self, asked: Asked) -> Exchange:
        facts = Facts(asked.method, asked.path)
        if self.handling.wants_body(facts):
            facts.body = asked.body
        return Exchange(
            self.handling,
            facts,
            cookies=[asked.cookie] if asked.cookie else [],
            secure=True,
            client="203.0.113.9",
            bypass=asked.bypass,
            looks_again=self.router is not None,
        )

    def sync(self, asked: Asked) -> Answered:
        if self.handling.is_free(asked.method):
            self.free += 1
            return self.view(asked)
        exchange = self._exchange(asked)
        answer = exchange.begin()
        if answer is not None:
            return Answered(answer.status, answer.headers, [answer.body])
        try:
            return self._treated(exchange, self._inside(exchange, asked))
        except BaseException:
            exchange.end()
            raise

    async def awaited(self, asked: Asked) -> Answered:
        if self.handling.is_free(asked.method):
            self.free += 1
            return self.view(asked)
        exchange = self._exchange(asked)
        answer = await exchange.abegin()
        if answer is not None:
            return Answered(answer.status, answer.headers, [answer.body])
        try:
            with exchange.working():
                again = await exchange.alook_again(self.router) if self.router else None
                await asyncio.sleep(0)
                response = self._view(exchange, asked) if again is None else self._again(again)
            return self._treated(exchange, response)
        except BaseException:
            exchange.end()
            raise

    def _inside(self, exchange: Exchange, asked: Asked) -> Answered:
        with exchange.working():
            again = exchange.look_again(self.router) if self.router else None
            return self._view(exchange, asked) if again is None else self._again(again)

    def _again(self, answer: Any) -> Answered:
        # Middleware in between puts its cookie on every response.
        return Answered(answer.status, [*answer.headers, ("Set-Cookie", "session=new")], [answer.body])

    def _view(self, exchange: Exchange, asked: Asked) -> Answered:
        if exchange.cookies is not None:
            asked.cookie = "; ".join(exchange.cookies)
        try:
            return self.view(asked)
        except Exception:
            # As frameworks do, long before anybody outside can see it.
            return Answered(500)

    def _treated(self, exchange: Exchange, response: Answered) -> Answered:
        answer = exchange.replacement(response.status)
        if answer is not None:
            exchange.end()
            return Answered(answer.status, answer.headers, [answer.body])
        if exchange.treats_response:
            response.headers = exchange.headers(response.headers)
        response.close = exchange.end
        return response


@pytest.fixture
def switch() -> HandSwitch:
    """Writable."""
    return HandSwitch()


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, switch: HandSwitch) -> Iterator[Callable[..., Answered]]:
    """Ask a view behind the adapter, in one way and the other: `ask(view, asked)`."""

    def asking(view: View, asked: Asked, **options: Any) -> Answered:
        adapter = Adapter(switch, view, **options)
        asking.adapter = adapter  # type: ignore[attr-defined]
        return adapter.sync(asked) if request.param == "sync" else asyncio.run(adapter.awaited(asked))

    yield asking
    assert switch.inflight.count() == 0


def refuse_in_guard() -> None:
    """Do what a database's guard does."""
    work = innermost()
    assert work is not None
    work.mark(ReadOnlyError(database="main", table="views"))
    raise ReadOnlyError


def test_a_read_of_a_writable_site_is_free(ask: Any, switch: HandSwitch) -> None:
    """Nobody looks at it, nor at its response; once sessions have been ended, somebody has to."""
    assert ask(lambda asked: Answered(headers=[("Set-Cookie", "session=x")]), Asked("GET", "/")).get("set-cookie")
    assert ask.adapter.free == 1
    switch.over()
    ask(lambda asked: Answered(), Asked("GET", "/"))
    assert ask.adapter.free == 0


def test_a_write_is_in_flight_until_its_response_is_closed(ask: Any, switch: HandSwitch) -> None:
    """Not only until the view has returned."""
    response = ask(lambda asked: Answered(), Asked("POST", "/comments"))
    assert (response.status, switch.inflight.count()) == (200, 1)
    assert response.get("x-read-only") == []
    response.close()
    response.close()
    assert switch.inflight.count() == 0


def test_a_view_that_fails_leaves_nothing_in_flight(ask: Any, switch: HandSwitch) -> None:
    """Whatever is raised, up to what no framework catches."""

    def view(asked: Asked) -> Answered:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(view, Asked("POST", "/comments"))
    assert switch.inflight.count() == 0


def test_a_write_is_refused(ask: Any, switch: HandSwitch) -> None:
    """The view is not called; the answer is whole; it is counted."""
    switch.read_only(expected=timedelta(minutes=9))
    response = ask(lambda asked: pytest.fail("this was to be refused"), Asked("POST", "/comments"))
    assert response.status == 503
    assert response.get("x-read-only") == ["true"]
    assert response.get("retry-after")
    assert b"READ_ONLY" in response.parts[0]
    assert switch.tally.totals()["refused"] == 1


def test_reads_pass_without_their_session(ask: Any, switch: HandSwitch) -> None:
    """The cookie is taken off the request and expired, leaving a sign; one that the view sets is dropped."""
    switch.read_only()
    seen: list[str] = []

    def view(asked: Asked) -> Answered:
        seen.append(asked.cookie)
        return Answered(headers=[("Set-Cookie", "session=new"), ("Set-Cookie", "theme=dark")])

    response = ask(view, Asked("GET", "/", cookie=f"theme=dark; {SESSION}"))
    assert seen == ["theme=dark"]
    kept, expired, sign = response.get("set-cookie")
    assert kept == "theme=dark"
    assert expired.startswith("session=;")
    assert sign.startswith("session-ended=1;")
    assert response.get("cache-control") == ["no-store"]
    assert response.get("x-read-only") == ["true"]


def test_a_body_is_seen_where_a_rule_asks_for_it(ask: Any, switch: HandSwitch) -> None:
    """And nowhere else."""
    switch.read_only()
    assert ask(lambda asked: Answered(), Asked("POST", "/graphql", body=b"{ a }")).status == 200
    assert ask(lambda asked: Answered(), Asked("POST", "/graphql", body=b"mutation")).status == 503
    assert not ask.adapter.handling.wants_body(Facts("POST", "/search"))


def test_the_503_takes_the_place_of_a_500(ask: Any, switch: HandSwitch) -> None:
    """Of a view that wrote behind a GET; the framework had answered by then."""
    switch.guarded = True
    switch.read_only()

    def view(asked: Asked) -> Answered:
        refuse_in_guard()
        raise AssertionError("unreachable")

    response = ask(view, Asked("GET", "/articles"))
    assert response.status == 503
    assert b"READ_ONLY" in response.parts[0]
    assert switch.tally.totals()["escaped_by_route"] == {"GET /articles": 1}
    assert innermost() is None


def test_a_response_that_is_no_error_stays(ask: Any, switch: HandSwitch) -> None:
    """The view caught what the guard raised, and answered: that is its own affair, but counted."""
    switch.guarded = True
    switch.read_only()

    def view(asked: Asked) -> Answered:
        with pytest.raises(ReadOnlyError):
            refuse_in_guard()
        return Answered(200)

    response = ask(view, Asked("GET", "/articles"))
    response.close()
    assert response.status == 200
    assert switch.tally.totals()["escaped"] == 1


def test_the_guard_s_view_of_a_request(ask: Any, switch: HandSwitch) -> None:
    """A write that was admitted may write while it lasts, and not a moment longer; a bypass as well, uncounted."""
    switch.guarded = True
    seen: list[Any] = []

    def view(asked: Asked) -> Answered:
        work = innermost()
        assert work is not None
        seen.append((work, work.may_write, work.admitted, switch.inflight.count()))
        return Answered()

    response = ask(view, Asked("POST", "/comments"))
    work = seen[0][0]
    assert seen[0][1:] == (True, True, 1)
    assert work.may_write
    response.close()
    assert not work.may_write
    switch.read_only()
    response = ask(view, Asked("POST", "/comments", bypass=True))
    assert seen[1][1:] == (True, False, 0)
    response.close()
    assert not seen[1][0].may_write


def test_a_bypass_keeps_its_session(ask: Any, switch: HandSwitch) -> None:
    """Session rules look away."""
    switch.read_only()
    seen: list[str] = []

    def view(asked: Asked) -> Answered:
        seen.append(asked.cookie)
        return Answered(headers=[("Set-Cookie", "session=new")])

    response = ask(view, Asked("POST", "/comments", cookie=SESSION, bypass=True))
    assert (response.status, seen) == (200, [SESSION])
    assert response.get("set-cookie") == ["session=new"]
    assert response.get("x-read-only") == ["true"]


def test_a_response_that_starts_after_the_switch(ask: Any, switch: HandSwitch) -> None:
    """The login that was under way brings no session to a read-only site."""

    def view(asked: Asked) -> Answered:
        switch.read_only()
        return Answered(headers=[("Set-Cookie", "session=new")])

    response = ask(view, Asked("POST", "/login"))
    response.close()
    assert (response.get("set-cookie"), response.get("x-read-only")) == ([], ["true"])


def test_a_failing_look_leaves_nothing_in_flight(ask: Any, switch: HandSwitch) -> None:
    """An error of ours is one, and no write that is waited for in vain."""
    switch.admit = lambda: 1 / 0  # type: ignore[assignment,return-value]
    with pytest.raises(ZeroDivisionError):
        ask(lambda asked: Answered(), Asked("POST", "/comments"))
    assert switch.inflight.count() == 0


# --- a second look ---------------------------------------------------------------------------------------------------

MARKED = Endpoint("buy", frozenset({WRITES}))


@pytest.mark.parametrize("guarded", [False, True])
def test_a_router_that_knows_better_refuses(ask: Any, switch: HandSwitch, guarded: bool) -> None:
    """What was let through as a read is a write after all: refused, with the cookie that came on the way dropped."""
    switch.guarded = guarded
    switch.read_only()
    response = ask(lambda asked: pytest.fail("refused"), Asked("GET", "/buy"), router=MARKED)
    response.close()
    assert response.status == 503
    assert response.get("set-cookie") == []
    assert (response.get("x-read-only"), response.get("content-type")) == (["true"], ["application/problem+json"])
    assert switch.tally.totals()["refused_by_kind"] == {"write": 1}


def test_a_router_that_knows_better_has_it_counted(ask: Any, switch: HandSwitch) -> None:
    """While writable: in flight from then on, and the guard knows."""
    switch.guarded = True
    switch.over()  # so that a GET is looked at
    seen: list[tuple[bool, int]] = []

    def view(asked: Asked) -> Answered:
        work = innermost()
        assert work is not None
        seen.append((work.may_write, switch.inflight.count()))
        return Answered()

    response = ask(view, Asked("GET", "/buy"), router=MARKED)
    assert (seen, switch.inflight.count()) == ([(True, 1)], 1)
    response.close()


def test_a_router_that_knows_better_opens_nothing(ask: Any, switch: HandSwitch) -> None:
    """What was refused before it was asked stays refused; what was admitted stays admitted, also across the switch."""
    switch.read_only()
    lenient = Endpoint("search", frozenset({"reads"}))
    assert ask(lambda asked: Answered(), Asked("POST", "/other"), router=lenient).status == 503
    switch.writable()
    exchange = Exchange(Adapter(switch, lambda asked: Answered()).handling, Facts("POST", "/other"), looks_again=True)
    assert exchange.begin() is None
    switch.read_only()
    assert exchange.look_again(MARKED) is None
    assert exchange.act.kind is ActKind.UNDECLARED
    assert switch.inflight.count() == 1
    exchange.end()
