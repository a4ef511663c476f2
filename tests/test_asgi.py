"""The ASGI middleware: websockets, lifespan, connections, disconnects, and a real switch."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from readonly import Policy, ReadOnlyError, SessionCookie, Switch
from readonly.asgi import ReadOnlyMiddleware, status_app
from support.apps import AsgiSite, Behaviour, HandSwitch, Request, asgi_scope, innermost
from support.asgi_validator import App, Message, Receive, Scope, Send, validated

POLICY = Policy(
    reads=["WEBSOCKET /live/{id}"],
    exempt=["/admin/*"],
    writes=["WEBSOCKET /chat/admin"],
    session_cookies=[SessionCookie("session", signed=True)],
)


def test_it_is_a_coroutine_function() -> None:
    """Every server takes it for ASGI 3 by that."""
    assert inspect.iscoroutinefunction(AsgiSite(HandSwitch()).app)
    made = ReadOnlyMiddleware(_nothing, HandSwitch().as_switch())
    assert inspect.iscoroutinefunction(made)


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Do nothing."""


async def _awaited(some: Awaitable[None]) -> None:
    await some


# --- connections ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "headers", "closes"),
    [
        ("1.1", [(b"content-length", b"1000000000")], True),
        ("1.1", [(b"transfer-encoding", b"chunked")], True),
        ("1.0", [(b"content-length", b"5")], True),
        ("1.1", [(b"content-length", b"0")], False),
        ("1.1", [], False),
        ("2", [(b"content-length", b"1000000000")], False),
    ],
)
@pytest.mark.parametrize("expect", [False, True])
def test_a_connection_is_closed_where_the_body_stands_in_the_way(
    version: str, headers: list[tuple[bytes, bytes]], closes: bool, expect: bool
) -> None:
    """Over HTTP/1.1 the next request would begin in the middle of it; with `Expect` it is not even asked for."""
    switch = HandSwitch()
    switch.read_only()
    sent: list[Message] = []
    scope = asgi_scope(Request("POST", "/upload"))
    scope["http_version"] = version
    scope["headers"] = headers + ([(b"expect", b"100-continue")] if expect else [])

    async def receive() -> Message:
        raise AssertionError("the body was asked for, which sends 100 Continue")

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(_run(ReadOnlyMiddleware(_nothing, switch.as_switch()), scope, receive, send))
    assert sent[0]["status"] == 503
    assert ((b"connection", b"close") in sent[0]["headers"]) is closes


@pytest.mark.parametrize(
    ("headers", "closes"),
    [
        ([(b"content-length", b"65536")], False),
        ([(b"content-length", b"65537")], True),
        ([(b"content-length", b"3"), (b"expect", b"100-continue")], True),
        ([(b"transfer-encoding", b"chunked")], True),
    ],
)
def test_uvicorn_throws_a_small_body_away_itself(headers: list[tuple[bytes, bytes]], closes: bool) -> None:
    """Told to close, it would reset connections whose small body comes a moment later, and the answer with them."""
    switch = HandSwitch()
    switch.read_only()
    scope = asgi_scope(Request("POST", "/upload"))
    scope["headers"] = headers

    class RequestResponseCycle:
        async def receive(self) -> Message:
            raise AssertionError("the body was asked for")

        async def send(self, message: Message) -> None:
            sent.append(message)

    RequestResponseCycle.__module__ = "uvicorn.protocols.http.h11_impl"
    cycle = RequestResponseCycle()
    middleware = ReadOnlyMiddleware(_nothing, switch.as_switch())
    for _ in range(40):  # what is decided anew, and what is remembered
        sent: list[Message] = []
        asyncio.run(_awaited(middleware(scope, cycle.receive, cycle.send)))
        assert sent[0]["status"] == 503
        assert ((b"connection", b"close") in sent[0]["headers"]) is closes


async def _run(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
    await validated(app)(scope, receive, send)


def test_a_client_that_hangs_up_leaves_nothing_in_flight() -> None:
    """In the middle of a body that the application reads, or that a predicate was shown."""
    from readonly import rule

    for policy in (Policy(), Policy(reads=[rule("POST /graphql", when=lambda facts: True)])):
        site = AsgiSite(HandSwitch(), policy)
        request = Request("POST", "/graphql", body=100_000 * b"x")
        reply = asyncio.run(site.aask(request, hang_up=True))
        assert reply.status == 0
        assert site.switch.inflight.count() == 0


def test_a_client_that_hangs_up_before_a_predicate_has_seen_enough_is_refused() -> None:
    """What was not seen whole can't be vouched for."""
    from readonly import rule

    site = AsgiSite(HandSwitch(), Policy(reads=[rule("POST /graphql", when=lambda facts: True)]))
    site.switch.read_only()
    reply = asyncio.run(site.aask(Request("POST", "/graphql", body=b"query"), hang_up=True))
    assert reply.status == 503


def test_a_cancelled_request_leaves_nothing_in_flight() -> None:
    """A server cancels the task of a client that has gone, or at its own end."""

    async def scenario() -> int:
        switch = HandSwitch()
        begun = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            begun.set()
            await asyncio.Event().wait()

        async def receive() -> Message:
            return {"type": "http.request"}

        async def send(message: Message) -> None:
            raise AssertionError(message)

        wrapped: Any = ReadOnlyMiddleware(app, switch.as_switch())
        task = asyncio.ensure_future(wrapped(asgi_scope(Request("POST", "/")), receive, send))
        await begun.wait()
        assert switch.inflight.count() == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return switch.inflight.count()

    assert asyncio.run(scenario()) == 0


def test_repeated_headers() -> None:
    """A second override header can't hide behind the first; several Cookie headers stay several."""
    site = AsgiSite(HandSwitch(), POLICY)
    site.switch.read_only()
    hidden = [("X-HTTP-Method-Override", "GET"), ("X-HTTP-Method-Override", "POST")]
    assert site.ask(Request("GET", "/", headers=hidden)).status == 503
    reply = site.ask(Request("GET", "/", headers=[("Cookie", "a=1"), ("Cookie", "session=x"), ("Cookie", "b=2")]))
    assert reply.seen[0].cookie == "a=1; b=2"


def test_a_path_with_or_without_the_mount() -> None:
    """Servers differ in whether `path` holds `root_path`; the rules are relative to the mount in both."""
    for path in ("/shop/admin/x", "/admin/x"):
        switch = HandSwitch()
        switch.read_only()
        scope = {**asgi_scope(Request("POST", path)), "root_path": "/shop"}
        assert _status(switch, scope, POLICY) == 204
    scope = {**asgi_scope(Request("POST", "/shopping/x")), "root_path": "/shop"}
    assert _status(switch, scope, POLICY) == 503


def _status(switch: HandSwitch, scope: Scope, policy: Policy) -> int:
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    asyncio.run(_run(ReadOnlyMiddleware(app, switch.as_switch(), policy=policy), scope, receive, send))
    status: int = sent[0]["status"]
    return status


def test_unknown_scopes_pass() -> None:
    """What a later version of ASGI brings is none of our business."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    wrapped: Any = ReadOnlyMiddleware(app, HandSwitch().as_switch())
    asyncio.run(wrapped({"type": "webtransport"}, None, None))
    assert seen == ["webtransport"]


def test_the_server_s_own_scope_is_not_changed() -> None:
    """Cookies are taken off a copy: the server's log shows what was sent."""
    switch = HandSwitch()
    switch.read_only()
    scope = asgi_scope(Request("GET", "/", headers=[("Cookie", "session=x")]))
    before = {**scope, "headers": list(scope["headers"])}
    assert _status(switch, scope, POLICY) == 204
    assert scope == before


# --- websockets ----------------------------------------------------------------------------------------------------


class Chat:
    """A websocket application, its client, and what each has seen."""

    def __init__(
        self, policy: Policy = POLICY, *, path: str = "/chat", headers: Any = (), denial: bool = False
    ) -> None:
        self.switch = HandSwitch()
        self.scope: Scope = {
            **{
                key: value
                for key, value in asgi_scope(Request("GET", path, headers=headers)).items()
                if key != "method"
            },
            "type": "websocket",
            "scheme": "ws",
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}} if denial else {},
        }
        self.sent: list[Message] = []
        self.received: list[Message] = []
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.incoming.put_nowait({"type": "websocket.connect"})
        self.opened = asyncio.Event()
        self.cookie: bytes | None = None
        self.may_write: bool | None = None
        self.goodbye = False
        self.before_accept: Callable[[], None] = lambda: None
        self.app: App = validated(ReadOnlyMiddleware(validated(self._app), self.switch.as_switch(), policy=policy))

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.cookie = dict(scope["headers"]).get(b"cookie")
        work = innermost()
        self.may_write = None if work is None else work.may_write
        await receive()
        self.before_accept()
        await asyncio.sleep(0)
        await send({"type": "websocket.accept", "headers": [(b"set-cookie", b"session=new")]})
        while True:
            message = await receive()
            self.received.append(message)
            if message["type"] == "websocket.disconnect":
                break
            await send({"type": "websocket.send", "text": message["text"].upper()})
        if self.goodbye:
            await send({"type": "websocket.send", "text": "goodbye"})

    async def run(self) -> None:
        """Serve the socket to its end."""

        async def send(message: Message) -> None:
            self.sent.append(message)
            if message["type"] == "websocket.accept":
                self.opened.set()

        await self.app(self.scope, self.incoming.get, send)

    def say(self, text: str) -> None:
        """Send as the client."""
        self.incoming.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self) -> None:
        """Go, as the client."""
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})


def test_an_undeclared_socket_is_a_write_in_flight() -> None:
    """From before it is accepted until it has ended."""

    async def scenario() -> None:
        chat = Chat()
        chat.switch.guarded = True
        running = asyncio.ensure_future(chat.run())
        await chat.opened.wait()
        assert chat.switch.inflight.count() == 1
        assert chat.may_write is True
        chat.say("hello")
        chat.leave()
        await running
        assert [message["type"] for message in chat.sent] == ["websocket.accept", "websocket.send"]
        assert chat.sent[1]["text"] == "HELLO"
        assert chat.switch.inflight.count() == 0
        chat.switch.read_only()  # finds nothing to close

    asyncio.run(scenario())


@pytest.mark.parametrize("state", ["read-only", "unknown"])
def test_an_undeclared_socket_is_refused_before_it_is_accepted(state: str) -> None:
    """With the 503 where the server can send one, else closed, which a server turns into 403."""
    for denial in (False, True):
        chat = Chat(denial=denial)
        chat.switch.read_only() if state == "read-only" else chat.switch.unknown()
        asyncio.run(chat.run())
        if denial:
            start, body = chat.sent
            assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
            assert dict(start["headers"])[b"x-read-only"] == b"true"
            assert json.loads(body["body"])["code"] == "READ_ONLY"
        else:
            (close,) = chat.sent
            assert (close["type"], close["code"]) == ("websocket.close", 1013)
        assert not chat.received
        assert chat.switch.inflight.count() == 0
        assert chat.switch.tally.totals()["refused"] == 1


def test_a_socket_with_an_ended_session_is_refused() -> None:
    """Writable again, but it would be handed on as anonymous: 403."""
    chat = Chat(headers=[("Cookie", "session=x")], denial=True)
    chat.switch.over()
    asyncio.run(chat.run())
    assert chat.sent[0]["status"] == 403
    assert b"session=;" in dict(chat.sent[0]["headers"])[b"set-cookie"]
    assert chat.switch.inflight.count() == 0


@pytest.mark.parametrize("path", ["/live/7", "/admin/log"])
def test_declared_sockets_stay_open(path: str) -> None:
    """Through the switch, and while read-only; they are not in flight."""

    async def scenario() -> None:
        chat = Chat(path=path)
        running = asyncio.ensure_future(chat.run())
        await chat.opened.wait()
        assert chat.switch.inflight.count() == 0
        chat.switch.read_only()
        chat.say("hello")
        chat.leave()
        await running
        assert chat.sent[-1]["text"] == "HELLO"
        assert (b"x-read-only", b"true") not in chat.sent[0]["headers"]

    asyncio.run(scenario())


def test_a_declared_socket_opened_while_read_only() -> None:
    """Its session is taken off, none is born, and the handshake says so."""

    async def scenario() -> None:
        chat = Chat(path="/live/7", headers=[("Cookie", "a=1; session=x")])
        chat.switch.read_only()
        chat.leave()
        await chat.run()
        accept = chat.sent[0]
        assert accept["type"] == "websocket.accept"
        assert chat.cookie == b"a=1"
        assert (b"x-read-only", b"true") in accept["headers"]
        given = [value for name, value in accept["headers"] if name == b"set-cookie"]
        assert [value.partition(b";")[0] for value in given] == [b"session=", b"session-ended=1"]

    asyncio.run(scenario())


@pytest.mark.parametrize("goodbye", [False, True])
def test_an_open_socket_is_closed_at_the_switch(goodbye: bool) -> None:
    """The client is told 1012, the application that the client has gone, also if it goes on sending."""

    async def scenario() -> None:
        chat = Chat()
        chat.goodbye = goodbye
        running = asyncio.ensure_future(chat.run())
        await chat.opened.wait()
        # From another thread, as the real switch does it.
        await asyncio.get_running_loop().run_in_executor(None, chat.switch.read_only)
        await asyncio.wait_for(running, 5)
        assert chat.sent[-1] == {"type": "websocket.close", "code": 1012, "reason": "read-only"}
        assert chat.received[-1]["type"] == "websocket.disconnect"
        assert chat.switch.inflight.count() == 0

    asyncio.run(scenario())


def test_a_server_that_refuses_to_send_1012_sends_one_of_our_own() -> None:
    """Else the socket would stay open for as long as its client likes."""

    async def scenario() -> None:
        chat = Chat()
        sent: list[Message] = []

        async def send(message: Message) -> None:
            if 1000 < message.get("code", 0) < 3000:
                raise RuntimeError("invalid close code")
            sent.append(message)
            if message["type"] == "websocket.accept":
                chat.opened.set()

        middleware = ReadOnlyMiddleware(validated(chat._app), chat.switch.as_switch(), policy=POLICY)
        running = asyncio.ensure_future(middleware(chat.scope, chat.incoming.get, send))
        await chat.opened.wait()
        chat.switch.read_only()
        await asyncio.wait_for(running, 5)
        assert sent[-1] == {"type": "websocket.close", "code": 4012, "reason": "read-only"}

    asyncio.run(scenario())


def test_the_application_s_end_does_not_overtake_the_closing() -> None:
    """Some servers (granian) end a socket without a code as soon as its application has ended."""

    async def scenario() -> None:
        chat = Chat()
        told: list[int] = []

        async def send(message: Message) -> None:
            if message["type"] == "websocket.accept":
                chat.opened.set()
            elif message["type"] == "websocket.close":
                for _ in range(10):
                    await asyncio.sleep(0)
                told.append(message["code"])

        middleware = ReadOnlyMiddleware(validated(chat._app), chat.switch.as_switch(), policy=POLICY)
        running = asyncio.ensure_future(middleware(chat.scope, chat.incoming.get, send))
        await chat.opened.wait()
        chat.switch.read_only()
        await asyncio.wait_for(running, 5)
        assert told == [1012]

    asyncio.run(scenario())


def test_a_socket_that_is_being_opened_at_the_switch_is_refused() -> None:
    """It was admitted, and the change came before its accept."""
    for denial in (False, True):
        chat = Chat(denial=denial)
        chat.before_accept = chat.switch.read_only
        asyncio.run(chat.run())
        kinds = [message["type"] for message in chat.sent]
        if denial:
            assert kinds == ["websocket.http.response.start", "websocket.http.response.body"]
        else:
            assert kinds == ["websocket.close"]
        assert chat.switch.inflight.count() == 0


def test_a_socket_that_is_not_accepted_by_the_switch_is_refused() -> None:
    """The application still waits for something before it accepts, hears that the client has gone, and leaves."""

    async def scenario() -> None:
        switch = HandSwitch()
        sent: list[Message] = []
        waiting = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            waiting.set()
            assert (await receive())["type"] == "websocket.disconnect"

        async def receive() -> Message:
            if not waiting.is_set():
                return {"type": "websocket.connect"}
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        async def send(message: Message) -> None:
            sent.append(message)

        running = asyncio.ensure_future(_run(ReadOnlyMiddleware(app, switch.as_switch()), Chat().scope, receive, send))
        await waiting.wait()
        switch.read_only()
        await asyncio.wait_for(running, 5)
        assert [message["type"] for message in sent] == ["websocket.close"]
        assert switch.inflight.count() == 0

    asyncio.run(scenario())


def test_a_guard_s_refusal_inside_a_socket_is_counted() -> None:
    """There is no response that could be replaced."""

    async def scenario() -> None:
        chat = Chat()
        chat.switch.guarded = True

        def refuse() -> None:
            work = innermost()
            assert work is not None
            work.mark(ReadOnlyError(database="main"))

        chat.before_accept = refuse
        chat.leave()
        await chat.run()
        assert chat.switch.tally.totals()["refused_by_kind"] == {"guard": 1}

    asyncio.run(scenario())


def test_a_socket_whose_application_fails() -> None:
    """Its own error comes out, and nothing stays in flight."""

    async def scenario() -> None:
        chat = Chat()

        def fail() -> None:
            raise LookupError("broken")

        chat.before_accept = fail
        with pytest.raises(LookupError, match="broken"):
            await chat.run()
        assert chat.switch.inflight.count() == 0

    asyncio.run(scenario())


def test_a_switch_that_opens_closes_nothing() -> None:
    """Only a change to read-only does."""

    async def scenario() -> None:
        chat = Chat()
        running = asyncio.ensure_future(chat.run())
        await chat.opened.wait()
        chat.switch.writable()
        chat.say("still here")
        chat.leave()
        await running
        assert chat.sent[-1]["text"] == "STILL HERE"

    asyncio.run(scenario())


# --- lifespan ------------------------------------------------------------------------------------------------------

LIFESPAN: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}}


def test_lifespan_starts_and_closes_the_switch_and_passes_untouched() -> None:
    """The application gets the very scope, receive and send of the server."""
    switch = HandSwitch()
    given: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        given.extend((scope, receive, send))
        switch.calls.append((await receive())["type"])
        await send({"type": "lifespan.startup.complete"})
        switch.calls.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    async def scenario() -> None:
        incoming: asyncio.Queue[Message] = asyncio.Queue()
        sent: list[Message] = []
        receive = incoming.get

        async def send(message: Message) -> None:
            sent.append(message)
            if message["type"] == "lifespan.startup.complete":
                asyncio.get_running_loop().call_soon(incoming.put_nowait, {"type": "lifespan.shutdown"})

        incoming.put_nowait({"type": "lifespan.startup"})
        wrapped: Any = ReadOnlyMiddleware(app, switch.as_switch())
        await wrapped(LIFESPAN, receive, send)
        assert given == [LIFESPAN, receive, send]
        assert given[0] is LIFESPAN

    asyncio.run(scenario())
    assert switch.calls == ["role web", "start", "lifespan.startup", "lifespan.shutdown", "close"]


def test_an_application_without_lifespan_does_not_close_the_switch() -> None:
    """It returns or fails at once, and the server goes on serving."""

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("no lifespan here")

    switch = HandSwitch()
    wrapped: Any = ReadOnlyMiddleware(failing, switch.as_switch())
    with pytest.raises(LookupError):
        asyncio.run(wrapped(LIFESPAN, None, None))
    wrapped = ReadOnlyMiddleware(_nothing, switch.as_switch())
    asyncio.run(wrapped(LIFESPAN, None, None))
    assert "close" not in switch.calls


# --- readiness and status ------------------------------------------------------------------------------------------


def _ask(app: Any, path: str, method: str = "GET", root: str = "") -> tuple[int, dict[bytes, bytes], Any]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(_run(app, {**asgi_scope(Request(method, path)), "root_path": root}, receive, send))
    body = sent[1]["body"]
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(body) if body else None


def test_status_says_little_and_is_kept_by_no_cache() -> None:
    """Mode, expected end and message: nothing that is not public anyway."""
    switch = HandSwitch()
    app = status_app(switch.as_switch())
    switch.read_only(expected=timedelta(minutes=40), message="Back soon.")
    status, headers, document = _ask(app, "/-/readonly/status")
    assert status == 200
    assert headers[b"cache-control"] == b"no-store"
    until = datetime.fromisoformat(document.pop("expected_end"))
    assert abs(until - datetime.now(UTC) - timedelta(minutes=40)) < timedelta(minutes=5)
    assert document == {"mode": "read-only", "read_only": True, "message": "Back soon."}


@pytest.mark.parametrize(("path", "root"), [("/-/readonly/ready", ""), ("/-/readonly/ready/", ""), ("/x/ready", "/x")])
def test_read_only_never_fails_a_probe(path: str, root: str) -> None:
    """Or the hosts that serve the reads would be taken out."""
    switch = HandSwitch()
    app = status_app(switch.as_switch())
    for put in (switch.writable, switch.read_only):
        put()
        status, _, document = _ask(app, path, root=root)
        assert (status, document["ready"]) == (200, True)


def test_a_process_that_never_reached_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not ready for its first 30 s, then ready as a reader; and it says why."""
    now = [1000.0]
    monkeypatch.setattr("readonly.own_routes.boottime", lambda: now[0])
    switch = HandSwitch()
    app = status_app(switch.as_switch())
    switch.unknown()
    status, _, document = _ask(app, "/-/readonly/ready")
    assert (status, document["ready"], document["mode"]) == (503, False, "unknown")
    assert document["because"] == "the state was never read"
    now[0] += 29.9
    assert _ask(app, "/-/readonly/ready")[0] == 503
    now[0] += 0.1
    assert _ask(app, "/-/readonly/ready")[0] == 200


def test_once_it_was_reached_a_lost_store_fails_no_probe() -> None:
    """It serves reads as before."""
    switch = HandSwitch()
    app = status_app(switch.as_switch())
    assert _ask(app, "/-/readonly/ready")[0] == 200
    switch.unknown()
    assert _ask(app, "/-/readonly/ready")[0] == 200


def test_other_paths_and_methods() -> None:
    """404 and 405; HEAD has no body."""
    app = status_app(HandSwitch().as_switch())
    assert _ask(app, "/elsewhere")[0] == 404
    status, headers, _ = _ask(app, "/-/readonly/status", "POST")
    assert (status, headers[b"allow"]) == (405, b"GET, HEAD")
    assert _ask(app, "/-/readonly/status", "HEAD")[2] is None
    with pytest.raises(RuntimeError, match="websocket"):
        asyncio.run(_run(app, {**LIFESPAN, **Chat().scope}, _nothing_in, _nothing_out))


async def _nothing_in() -> Message:
    return {"type": "websocket.connect"}


async def _nothing_out(message: Message) -> None:
    """Send nothing."""


# --- a real switch -------------------------------------------------------------------------------------------------


def test_with_a_real_switch() -> None:
    """Writable, read-only, writable: seen from the first request on, in one process."""

    async def scenario() -> None:
        switch = Switch.from_url("memory://")
        site = AsgiSite(HandSwitch())
        site.app = validated(ReadOnlyMiddleware(validated(site._app), switch))
        try:
            post, get = Request("POST", "/", body=b"x"), Request("GET", "/")
            assert (await site.aask(post)).status == 200
            await switch.aon(reason="a migration")
            assert [(await site.aask(r)).status for r in (post, get)] == [503, 200]
            assert (await switch.aconfirm(timeout=10)).safe
            await switch.aoff()
            assert [(await site.aask(r)).status for r in (post, get)] == [200, 200]
        finally:
            await asyncio.get_running_loop().run_in_executor(None, switch.close)

    asyncio.run(scenario())


def test_on_waits_for_a_request_in_flight() -> None:
    """Admitted before the switch: it finishes, then the change is confirmed."""

    async def scenario() -> None:
        switch = Switch.from_url("memory://")
        begun, go_on = asyncio.Event(), asyncio.Event()
        order: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            begun.set()
            await go_on.wait()
            order.append("committed")
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        async def receive() -> Message:
            return {"type": "http.request"}

        async def send(message: Message) -> None:
            pass

        wrapped: Any = ReadOnlyMiddleware(app, switch)
        try:
            writing = asyncio.ensure_future(wrapped(asgi_scope(Request("POST", "/")), receive, send))
            await begun.wait()
            await switch.aon()
            assert not (await switch.aconfirm(timeout=0.2)).safe
            confirming = asyncio.ensure_future(switch.aconfirm(timeout=10))
            go_on.set()
            assert (await confirming).safe
            order.append("confirmed")
            await writing
            assert order == ["committed", "confirmed"]
        finally:
            await asyncio.get_running_loop().run_in_executor(None, switch.close)

    asyncio.run(scenario())


def test_a_guard_s_error_inside_a_framework_comes_back_as_the_503() -> None:
    """Starlette answers 500 and raises for the server's log; the client gets the 503, the server no error."""
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.requests import Request as StarletteRequest
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    async def viewed(request: StarletteRequest) -> Response:
        work = innermost()
        assert work is not None
        refusal = ReadOnlyError(database="main", table="views")
        work.mark(refusal)
        raise refusal

    def viewed_in_a_thread(request: StarletteRequest) -> Response:
        work = innermost()
        assert work is not None
        work.mark(ReadOnlyError(database="main", table="views"))
        return PlainTextResponse("broken", 500)

    app = Starlette(routes=[Route("/async", viewed), Route("/thread", viewed_in_a_thread)])
    site = AsgiSite(HandSwitch())
    site.switch.guarded = True
    site.switch.read_only()
    site.app = validated(ReadOnlyMiddleware(app, site.switch.as_switch()))
    for path in ("/async", "/thread"):
        reply = site.ask(Request("GET", path))
        assert reply.status == 503
        assert json.loads(reply.body)["code"] == "READ_ONLY"
    assert site.switch.tally.totals()["escaped"] == 2


def test_a_stream_is_not_held_back() -> None:
    """Server-sent events: the start leaves before the first part, guard or no guard."""

    async def scenario(guarded: bool) -> None:
        switch = HandSwitch()
        switch.guarded = guarded
        switch.read_only()
        started = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.wait_for(started.wait(), 5)
            await send({"type": "http.response.body", "body": b"data: 1\n\n"})

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                started.set()

        wrapped: Any = ReadOnlyMiddleware(app, switch.as_switch())
        await wrapped(asgi_scope(Request("GET", "/events")), _nothing_in, send)

    for guarded in (False, True):
        asyncio.run(scenario(guarded))


def test_reads_of_a_writable_site_get_what_the_server_gave() -> None:
    """The very objects: nothing is wrapped, whatever the policy."""

    async def scenario(policy: Policy) -> None:
        given: Sequence[Any] = ()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal given
            given = (scope, receive, send)

        switch = HandSwitch()
        switch.guarded = True
        scope = asgi_scope(Request("GET", "/", headers=[("Cookie", "session=x")]))
        await ReadOnlyMiddleware(app, switch.as_switch(), policy=policy)(scope, _nothing_in, _nothing_out)
        assert given[0] is scope
        assert given[1:] == (_nothing_in, _nothing_out)

    for policy in (Policy(), POLICY, Policy(writes=["GET /visit"])):
        asyncio.run(scenario(policy))


def test_two_escapes_and_one_answer() -> None:
    """An application that answers twice has one answer replaced, and the rest swallowed."""
    site = AsgiSite(HandSwitch())
    site.switch.guarded = True
    site.switch.read_only()
    site.behaviour = Behaviour(status=500, escapes=True, parts=[b"a", b"b", b"c"])
    reply = site.ask(Request("GET", "/"))
    assert (reply.status, json.loads(reply.body)["status"]) == (503, 503)
