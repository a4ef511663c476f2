"""The validator that checks our middleware finds what it is there to find, and lets correct applications be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from support.asgi_validator import App, Message, Receive, Scope, Send, Violation, validated

HTTP: Scope = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "method": "GET",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"x")],
}
SOCKET: Scope = {**{k: v for k, v in HTTP.items() if k != "method"}, "type": "websocket", "subprotocols": []}
DENIABLE: Scope = {**SOCKET, "extensions": {"websocket.http.response": {}}}
LIFESPAN: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
BODY: Message = {"type": "http.response.body", "body": b"x"}
REQUEST: Message = {"type": "http.request", "body": b"", "more_body": False}
GONE: Message = {"type": "http.disconnect"}
CONNECT: Message = {"type": "websocket.connect"}
ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 1000}
LEFT: Message = {"type": "websocket.disconnect", "code": 1001}
UP: Message = {"type": "lifespan.startup"}
DOWN: Message = {"type": "lifespan.shutdown"}
UP_DONE: Message = {"type": "lifespan.startup.complete"}
DOWN_DONE: Message = {"type": "lifespan.shutdown.complete"}
# Stands in a script for "the application receives the next message".
NEXT: Message = {}


def run(app: App, scope: Scope, incoming: Sequence[Any]) -> list[Message]:
    """Run an application to its end with these messages coming in; return what it sent."""
    waiting, sent = list(incoming), []

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]  # an awaitable that is a coroutine
    return sent


def scripted(*script: Any) -> App:
    """Return an application that sends these messages, or receives one where `NEXT` stands."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in script:
            if message is NEXT:
                await receive()
            else:
                await send(message)

    return app


def with_(message: Message, **changes: Any) -> Message:
    """Return a message with other values."""
    return {**message, **changes}


def denial(kind: str, **more: Any) -> Message:
    """Return a message of a websocket's denial."""
    return {"type": f"websocket.http.response.{kind}", **more}


@pytest.mark.parametrize(
    ("scope", "script", "incoming"),
    [
        (HTTP, [NEXT, START, BODY], [REQUEST]),
        (HTTP, [START, with_(BODY, more_body=True), with_(BODY, body=b"")], []),
        (HTTP, [with_(START, headers=[(b"content-length", b"1")]), BODY], []),
        (HTTP, [NEXT, NEXT, NEXT], [with_(REQUEST, more_body=True), REQUEST, GONE]),
        (HTTP, [with_(START, status=204, headers=[]), with_(BODY, body=b"")], []),
        (HTTP, [with_(START, trailers=True), BODY, {"type": "http.response.trailers", "headers": []}], []),
        (with_(HTTP, method="HEAD"), [with_(START, headers=[(b"content-length", b"9")]), with_(BODY, body=b"")], []),
        (SOCKET, [NEXT, ACCEPT, NEXT, {"type": "websocket.send", "text": "x"}, CLOSE], [CONNECT, LEFT]),
        (SOCKET, [NEXT, ACCEPT, NEXT, NEXT], [CONNECT, {"type": "websocket.receive", "bytes": b"x"}, LEFT]),
        (SOCKET, [NEXT, CLOSE], [CONNECT]),
        (SOCKET, [NEXT, NEXT], [CONNECT, LEFT]),
        (DENIABLE, [NEXT, denial("start", status=503, headers=[]), denial("body", body=b"no")], [CONNECT]),
        (LIFESPAN, [NEXT, UP_DONE, NEXT, DOWN_DONE], [UP, DOWN]),
        (LIFESPAN, [NEXT, {"type": "lifespan.startup.failed", "message": "why"}], [UP]),
    ],
)
def test_a_correct_application_passes(scope: Scope, script: list[Message], incoming: list[Message]) -> None:
    """And what it sends comes out unchanged."""
    sent = run(validated(scripted(*script)), scope, incoming)
    assert sent == [message for message in script if message is not NEXT]


@pytest.mark.parametrize(
    ("scope", "script", "incoming", "what"),
    [
        (HTTP, [], [], "ended before its response"),
        (HTTP, [START], [], "ended before its response"),
        (HTTP, [START, with_(BODY, more_body=True)], [], "ended before its response"),
        (HTTP, [BODY], [], "before the start"),
        (HTTP, [START, START], [], "second time"),
        (HTTP, [START, BODY, BODY], [], "after the response was complete"),
        (HTTP, [with_(START, status="200")], [], "'status'"),
        (HTTP, [with_(START, status=True)], [], "'status'"),
        (HTTP, [with_(START, status=100)], [], "can't end a request"),
        (HTTP, [{"type": "http.response.start"}], [], "'status' is missing"),
        (HTTP, [with_(START, headers={b"a": b"b"})], [], "no list of pairs"),
        (HTTP, [with_(START, headers=[("a", b"b")])], [], "not bytes"),
        (HTTP, [with_(START, headers=[(b"a", "b")])], [], "not bytes"),
        (HTTP, [with_(START, headers=[(b"A", b"b")])], [], "no lower-case token"),
        (HTTP, [with_(START, headers=[(b"a", b"b\r\nc")])], [], "line break"),
        (HTTP, [with_(START, headers=[(b"a",)])], [], "no pair"),
        (HTTP, [with_(START, headers=2 * [(b"content-length", b"1")])], [], "2 times"),
        (HTTP, [with_(START, headers=[(b"content-length", b"x")])], [], "no number"),
        (HTTP, [with_(START, headers=[(b"content-length", b"0")]), BODY], [], "0 were announced"),
        (HTTP, [with_(START, headers=[(b"content-length", b"2")]), BODY], [], "2 were announced"),
        (with_(HTTP, method="HEAD"), [START, BODY], [], "announced or allowed"),
        (HTTP, [with_(START, status=304), BODY], [], "announced or allowed"),
        (HTTP, [START, with_(BODY, body="x")], [], "'body'"),
        (HTTP, [START, with_(BODY, more_body=1)], [], "'more_body'"),
        (HTTP, [ACCEPT], [], "no message of this connection"),
        (HTTP, [START, BODY, {"type": "http.response.trailers"}], [], "after the response was complete"),
        (HTTP, ["start"], [], "no dict"),
        (HTTP, [{}.copy()], [], "'type' is missing"),
        (HTTP, [NEXT, NEXT], [REQUEST, REQUEST], "after the last part"),
        (HTTP, [NEXT, NEXT], [GONE, REQUEST], "after http.disconnect"),
        (HTTP, [NEXT], [CONNECT], "no message of http"),
        (HTTP, [NEXT], [with_(REQUEST, body="x")], "'body'"),
        (HTTP, [NEXT], ["request"], "no dict"),
        (SOCKET, [NEXT], [CONNECT], "without accepting or closing"),
        (SOCKET, [NEXT, ACCEPT, ACCEPT], [CONNECT], "after an answer"),
        (SOCKET, [NEXT, {"type": "websocket.send", "text": "x"}], [CONNECT], "before websocket.accept"),
        (SOCKET, [NEXT, ACCEPT, {"type": "websocket.send"}], [CONNECT], "exactly one"),
        (SOCKET, [NEXT, ACCEPT, {"type": "websocket.send", "text": "x", "bytes": b"x"}], [CONNECT], "exactly one"),
        (SOCKET, [NEXT, CLOSE, CLOSE], [CONNECT], "after websocket.close"),
        (SOCKET, [NEXT, with_(CLOSE, code=5)], [CONNECT], "code 5"),
        (SOCKET, [NEXT, denial("start", status=503)], [CONNECT], "no message of this connection"),
        (DENIABLE, [NEXT, denial("start", status=503)], [CONNECT], "before its denial was complete"),
        (DENIABLE, [NEXT, ACCEPT, denial("start", status=503)], [CONNECT], "after websocket.accept"),
        (DENIABLE, [NEXT, denial("start", status=503), CLOSE], [CONNECT], "after a denial"),
        (DENIABLE, [NEXT, denial("start", status=503), ACCEPT], [CONNECT], "after an answer"),
        (SOCKET, [NEXT, NEXT], [CONNECT, CONNECT], "second time"),
        (SOCKET, [NEXT, NEXT], [CONNECT, {"type": "websocket.receive", "text": "x"}], "before the connection"),
        (SOCKET, [NEXT], [LEFT], "before websocket.connect"),
        (SOCKET, [NEXT], [REQUEST], "no message of websocket"),
        (LIFESPAN, [NEXT], [UP], "without answering"),
        (LIFESPAN, [UP_DONE], [], "out of order"),
        (LIFESPAN, [NEXT, DOWN_DONE], [UP], "out of order"),
        (LIFESPAN, [NEXT], [DOWN], "out of order"),
        (LIFESPAN, [NEXT, NEXT], [UP, DOWN], "out of order"),
        (LIFESPAN, [NEXT, UP], [UP], "no message of lifespan"),
        (LIFESPAN, [NEXT], [REQUEST], "no message of lifespan"),
        ({"type": "ftp", "asgi": {}}, [], [], "'ftp' is unknown"),
        (with_(HTTP, method="get"), [], [], "upper case"),
        (with_(HTTP, path=b"/"), [], [], "'path'"),
        (with_(HTTP, headers=[(b"Host", b"x")]), [], [], "no lower-case token"),
    ],
)
def test_a_wrong_one_is_found(scope: Scope, script: list[Any], incoming: list[Any], what: str) -> None:
    """On either side, with a sentence that says what is wrong."""
    with pytest.raises(Violation, match=what):
        run(validated(scripted(*script)), scope, incoming)


def test_a_violation_can_t_be_swallowed() -> None:
    """An application that catches everything is found out at its end."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(BODY)
        except AssertionError:
            await send(START)
            await send(BODY)

    with pytest.raises(Violation, match="before the start"):
        run(validated(app), HTTP, [])


def test_an_application_may_fail() -> None:
    """Its own error comes out, and it owes no response then."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        run(validated(app), HTTP, [])
