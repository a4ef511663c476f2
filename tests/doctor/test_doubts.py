"""What a process doubts about its own set-up, from what it sees, and how it gets into its report."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from readonly import Policy, Switch, asgi, wsgi
from readonly.clock import SystemClock
from readonly.doubts import MAX_EACH, Doubts
from readonly.follower.publishing import SAMPLE_FIRST_SECONDS
from readonly.members import Report
from readonly_flask import ReadOnly
from support.apps import Request, asgi_scope, run, wsgi_environ
from support.doctoring import report_of
from support.operating import made
from support.waiting import eventually


@pytest.mark.parametrize(
    ("rule", "wide"),
    [
        ("/api/*", True), ("POST /admin/*", True), ("GET /api/*", False), ("/api/v1/*", False),
        ("/static/*", False), ("/-/readonly/*", False), ("/hooks/stripe", False),
    ],
)  # fmt: skip
def test_wide_exemptions_are_doubted(rule: str, wide: bool) -> None:
    """One that lets every write below a part of the site through; not files, not a single hook."""
    switch = Switch.from_url("memory://")
    asgi.ReadOnlyMiddleware(_hello, switch, policy=Policy(exempt=[rule]))
    assert switch.doubts.told() == ((f"exempt {rule}",) if wide else ())
    switch.close()


class _Layer:
    """Middleware of a site's own, as Starlette's keep what they hand on to."""

    def __init__(self, app: Any) -> None:
        self.app = app


def test_a_second_middleware_is_doubted() -> None:
    """Around the first one, with others between; not beside it, and not around what leads back to itself."""
    switch = Switch.from_url("memory://")
    one = asgi.ReadOnlyMiddleware(_hello, switch)
    round_and_round = _Layer(None)
    round_and_round.app = round_and_round
    asgi.ReadOnlyMiddleware(round_and_round, switch)  # type: ignore[arg-type]
    asgi.ReadOnlyMiddleware(_Layer(_hello), switch)  # type: ignore[arg-type]
    assert switch.doubts.told() == ()
    asgi.ReadOnlyMiddleware(_Layer(_Layer(one)), switch)  # type: ignore[arg-type]
    assert switch.doubts.told() == ("twice around an application that has it",)
    switch.close()


def test_a_second_middleware_of_wsgi_is_doubted() -> None:
    """The same, around Flask's extension as well, and around an application that keeps its own inside."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        raise AssertionError("nobody asks")

    switch = Switch.from_url("memory://")
    one = wsgi.ReadOnlyMiddleware(app, switch)
    assert switch.doubts.told() == ()
    wsgi.ReadOnlyMiddleware(_Layer(one), switch)  # type: ignore[arg-type]
    assert switch.doubts.told() == ("twice around an application that has it",)
    switch.close()
    for around in ("wsgi_app", ""):
        flask = Flask("shop", static_folder=None)
        flask.config["READONLY_STORE"] = "memory://"
        ReadOnly(flask)
        told = flask.extensions["readonly"].switch
        wsgi.ReadOnlyMiddleware(getattr(flask, around) if around else flask, told)
        assert told.doubts.told() == ("twice around an application that has it",)
        flask.extensions["readonly"].close()


async def _hello(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"set-cookie", b"app_session=0123456789; HttpOnly"), (b"set-cookie", b"named=0123456789; HttpOnly")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


def _sampled(switch: Switch) -> None:
    """Have the next request be looked at closely."""
    switch.start()
    eventually(lambda: switch.state.synced, what="the switch being started")
    follower = switch._follower()
    follower._publisher._next_sample = float("-inf")
    follower.republish()
    assert not switch.view.open
    assert switch.admit() is None


def test_a_request_now_and_then_is_looked_at_closely_and_no_more() -> None:
    """Session cookies that nobody named, and middleware outside of ours: found without a rehearsal."""
    switch = Switch.from_url("memory://")
    policy = Policy(session_cookies=["named"], secret="k")
    app = asgi.ReadOnlyMiddleware(_hello, switch, policy=policy)
    scope = {**asgi_scope(Request("GET", "/")), "session": {}, "user": None}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    _sampled(switch)
    run(app(scope, receive, send))
    assert sent[0]["status"] == 200
    assert sorted(switch.doubts.told()) == [
        "cookie app_session", "position what sets 'session'", "position what sets 'user'"
    ]  # fmt: skip
    assert switch.view.open, "the next one goes the fast way"
    (mine,) = (report for report in _reports(switch) if report.doubts)
    assert mine.doubts == switch.doubts.told()
    switch.close()


def _reports(switch: Switch) -> tuple[Report, ...]:
    eventually(lambda: any(r.doubts for r in switch.members()), what="its doubts being reported")
    return switch.members()


class Wrong(SystemClock):
    """A machine's clock that somebody has set."""

    ahead = timedelta(0)

    def now(self) -> datetime:
        """Return what it shows."""
        return datetime.now(UTC) + self.ahead


def test_a_members_clock_that_is_wrong_is_doubted(tmp_path: Path) -> None:
    """By more than a second or two, for as long as it is, and by how much."""
    shop, clock = made(tmp_path / "shop.db"), Wrong()
    switch = Switch(shop.store.reopened(), interval=0.05, clock=clock)
    switch.start()

    def says(*told: str) -> None:
        eventually(lambda: {d for report in switch.members() for d in report.doubts} == {*told}, what=f"{told}")

    clock.ahead = timedelta(seconds=9.3)
    says("clock 9 s ahead of the store's")
    clock.ahead = -timedelta(seconds=60)
    says("clock 60 s behind the store's")
    clock.ahead = timedelta(seconds=1.5)
    says()
    switch.close()
    shop.store.close()


@pytest.mark.parametrize(
    ("status", "more", "told"),
    [
        ("200 OK", {}, ()),  # anybody may ask for one
        ("101 Switching Protocols", {}, ("websocket a WSGI server hands on websockets",)),
        ("200 OK", {"wsgi.websocket": object()}, ("websocket a WSGI server hands on websockets",)),
    ],
)
def test_websockets_behind_wsgi_are_doubted(status: str, more: dict[str, object], told: tuple[str, ...]) -> None:
    """They are never closed, and what they write is not counted."""
    switch = Switch.from_url("memory://")

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, [])
        return [b"hello"]

    wrapped = wsgi.ReadOnlyMiddleware(app, switch)
    _sampled(switch)
    environ = {**wsgi_environ(Request("GET", "/live")), "HTTP_UPGRADE": "websocket", **more}
    body = wrapped(environ, lambda *args: lambda data: None)
    assert b"".join(body) == b"hello"
    getattr(body, "close", lambda: None)()
    assert switch.doubts.told() == told
    switch.close()


def test_doubts_stay_few_whatever_is_seen() -> None:
    """Names of cookies may be a visitor's."""
    doubts = Doubts()
    for number in range(100):
        doubts.add("cookie", f"sid{number}\x1b[31m" + "x" * 1000)
    assert len(doubts.told()) == MAX_EACH
    assert all(len(one) < 200 and one.isprintable() for one in doubts.told())


def test_nothing_is_sampled_in_a_process_that_has_just_begun() -> None:
    """Its first requests are not to pay for it."""
    switch = Switch.from_url("memory://")
    switch.start()
    eventually(lambda: switch.view.open, what="the fast way")
    assert SAMPLE_FIRST_SECONDS >= 10
    switch.close()


def test_a_report_without_doubts_is_as_long_as_before() -> None:
    """What is empty costs a few bytes."""
    assert replace(report_of(), doubts=()).dump().count(b"doubts") == 1
