"""GraphQL over a websocket: it stays open at the switch, and each operation is judged by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from readonly.asgi import ReadOnlyMiddleware
from readonly.context import current
from readonly.errors import ReadOnlyError
from readonly.graphql import GraphQL
from readonly.policy import Policy
from readonly.rules import rule
from support.apps import HandSwitch
from support.asgi_validator import Message, Receive, Scope, Send, validated

FIND, COMMENT = "{ article { title } }", "mutation { comment(text: 1) { id } }"
TICKER = "subscription { score }"
graphql = GraphQL(persisted=["read-1"])
POLICY = Policy(reads=[rule("WEBSOCKET /graphql", when=graphql.reads)])


class Socket:
    """A client, and a server that notes what it gets and sends what the test says."""

    def __init__(self, switch: HandSwitch | None = None, policy: Policy = POLICY) -> None:
        self.switch = switch or HandSwitch()
        self.got: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.say: asyncio.Queue[Message] = asyncio.Queue()
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.incoming.put_nowait({"type": "websocket.connect"})
        self.may_write: list[bool | None] = []
        self.server: Send | None = None
        self.app = validated(ReadOnlyMiddleware(validated(self._app), self.switch.as_switch(), policy=policy))

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "graphql-transport-ws"})
        self.server = send
        while True:
            message = await receive()
            work = current(self.switch.as_switch())
            self.may_write.append(None if work is None else work.may_write)
            self.got.put_nowait(message)
            if message["type"] == "websocket.disconnect":
                return

    async def __aenter__(self) -> Socket:
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/graphql",
            "raw_path": b"/graphql",
            "query_string": b"",
            "root_path": "",
            "headers": [],
            "client": ("203.0.113.9", 1),
            "server": ("testserver", 80),
            "subprotocols": ["graphql-transport-ws"],
            "extensions": {},
        }

        async def send(message: Message) -> None:
            self.sent.put_nowait(message)

        self.running = asyncio.ensure_future(self.app(scope, self.incoming.get, send))
        assert (await self.sent.get())["type"] == "websocket.accept"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait_for(self.running, 10)
        assert self.switch.inflight.count() == 0

    def ask(self, kind: str = "subscribe", name: Any = "1", **payload: Any) -> None:
        """Begin an operation, as the client."""
        self.tell({"id": name, "type": kind, "payload": payload})

    def tell(self, message: Any) -> None:
        """Send a message, as the client."""
        text = message if isinstance(message, str) else json.dumps(message)
        self.incoming.put_nowait({"type": "websocket.receive", "text": text})

    async def arrived(self) -> Any:
        """Return what the server got next."""
        message = await asyncio.wait_for(self.got.get(), 10)
        return json.loads(message["text"]) if message["type"] == "websocket.receive" else message

    async def answer(self) -> Any:
        """Return what the client got next."""
        message = await asyncio.wait_for(self.sent.get(), 10)
        return json.loads(message["text"]) if message["type"] == "websocket.send" else message

    async def serve(self, message: Any) -> None:
        """Send a message, as the server."""
        assert self.server is not None
        await self.server({"type": "websocket.send", "text": json.dumps(message)})
        assert await self.answer() == message


def on_a_loop(scenario: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run a scenario to its end."""

    def run() -> None:
        asyncio.run(asyncio.wait_for(scenario(), 30))

    run.__name__, run.__doc__ = scenario.__name__, scenario.__doc__
    return run


@on_a_loop
async def test_reads_go_on_across_the_switch() -> None:
    """Queries, subscriptions, persisted reads, and what keeps a socket alive; nothing of it is counted."""
    async with Socket() as socket:
        for _ in range(2):
            for message in (
                {"type": "connection_init", "payload": {"token": "x"}},
                {"type": "ping"},
                {"id": "1", "type": "subscribe", "payload": {"query": FIND}},
                {"id": "2", "type": "subscribe", "payload": {"query": TICKER, "operationName": None}},
                {"id": "3", "type": "subscribe", "payload": {"documentId": "read-1"}},
                {"id": 4, "type": "start", "payload": {"query": FIND}},
                {"id": "2", "type": "complete"},
            ):
                socket.tell(message)
                assert await socket.arrived() == message
                assert socket.switch.inflight.count() == 0
            socket.switch.read_only()
        await socket.serve({"id": "2", "type": "next", "payload": {"data": {"score": "1:0"}}})


@pytest.mark.parametrize(("kind", "listed"), [("subscribe", True), ("start", False)])
@pytest.mark.parametrize(
    "payload",
    [
        {"query": COMMENT},
        {"query": f"query A {FIND} {COMMENT}"},
        {"documentId": "write-1"},
        {"query": FIND, "operation": "x"},
        {},
    ],
)
def test_a_mutation_is_refused_and_the_socket_stays(kind: str, listed: bool, payload: dict[str, Any]) -> None:
    """By an error for that operation, in the words of either protocol; the server sees nothing of it."""

    async def scenario() -> None:
        async with Socket() as socket:
            socket.switch.read_only(expected=timedelta(minutes=9), message="Back at nine")
            socket.ask(kind, 7 if kind == "start" else "7", **payload)
            refused = await socket.answer()
            assert (refused["id"], refused["type"]) == (7 if kind == "start" else "7", "error")
            error = refused["payload"][0] if listed else refused["payload"]
            assert error["message"] == "Back at nine"
            assert error["extensions"]["code"] == "READ_ONLY"
            assert 300 <= error["extensions"]["retry_after"] <= 648
            socket.ask(query=FIND)
            assert (await socket.arrived())["payload"] == {"query": FIND}
            assert socket.got.empty()
            assert socket.switch.tally.totals()["refused_by_kind"] == {"write": 1}

    asyncio.run(scenario())


@on_a_loop
async def test_a_mutation_is_in_flight_until_the_server_has_done_with_it() -> None:
    """What it sends of the result does not end it; what it sends of another operation neither."""
    async with Socket() as socket:
        socket.ask(name="1", query=COMMENT)
        socket.ask(name="2", query=TICKER)
        await socket.arrived()
        await socket.arrived()
        assert socket.switch.inflight.count() == 1
        for message in (
            {"id": "2", "type": "next", "payload": {}},
            {"id": "1", "type": "next", "payload": {}},
            {"id": "2", "type": "complete"},
            {"type": "ping"},
        ):
            await socket.serve(message)
            assert socket.switch.inflight.count() == 1
        await socket.serve({"id": "1", "type": "complete"})
        assert socket.switch.inflight.count() == 0
        socket.ask(name="3", query=COMMENT)
        await socket.arrived()
        await socket.serve({"id": "3", "type": "error", "payload": []})
        assert socket.switch.inflight.count() == 0


@on_a_loop
async def test_a_query_can_t_end_a_mutation_of_its_name() -> None:
    """A server may take both, or not: the drain waits for the one that writes."""
    async with Socket() as socket:
        socket.ask(name="1", query=COMMENT)
        socket.ask(name="1", query=FIND)
        await socket.arrived()
        await socket.arrived()
        assert socket.switch.inflight.count() == 2


@on_a_loop
async def test_what_the_client_takes_back_is_over_once_the_server_has_seen_to_it() -> None:
    """That is, when it asks for what comes next."""
    async with Socket() as socket:
        socket.ask(query=COMMENT)
        await socket.arrived()
        socket.tell({"id": "1", "type": "complete"})
        await socket.arrived()
        socket.tell({"type": "ping"})
        await socket.arrived()
        assert socket.switch.inflight.count() == 0


@on_a_loop
async def test_a_socket_that_ends_leaves_nothing_in_flight() -> None:
    """Whatever was under way."""
    async with Socket() as socket:
        for name in "123":
            socket.ask(name=name, query=COMMENT)
            await socket.arrived()
        assert socket.switch.inflight.count() == 3


@pytest.mark.parametrize(
    "message",
    [
        "nonsense",
        "[]",
        '{"type": "mutate"}',
        '{"type": "subscribe", "payload": {"query": "{ a }"}}',
        '{"id": "1", "type": "subscribe", "payload": "mutation"}',
        '{"id": "1", "id": "2", "type": "subscribe", "payload": {}}',
        json.dumps({"id": "1", "type": "subscribe", "payload": {"query": "{ a } #" + 70_000 * "x"}}),
    ],
)
@pytest.mark.parametrize("read_only", [False, True])
def test_what_can_t_be_understood_ends_the_socket(message: str, read_only: bool) -> None:
    """Some server might understand it, as a mutation."""

    async def scenario() -> None:
        async with Socket() as socket:
            if read_only:
                socket.switch.read_only()
            socket.tell(message)
            assert (await socket.answer())["code"] == 4400
            assert (await socket.arrived())["type"] == "websocket.disconnect"

    asyncio.run(scenario())


@on_a_loop
async def test_bytes_are_read_like_text() -> None:
    """A server that takes them runs what is in them."""
    async with Socket() as socket:
        socket.switch.read_only()
        data = json.dumps({"id": "1", "type": "subscribe", "payload": {"query": COMMENT}}).encode()
        socket.incoming.put_nowait({"type": "websocket.receive", "bytes": data})
        assert (await socket.answer())["type"] == "error"
        socket.incoming.put_nowait({"type": "websocket.receive", "bytes": b"\xff"})
        assert (await socket.answer())["code"] == 4400


@on_a_loop
async def test_the_guard_lets_write_what_was_admitted_and_no_longer() -> None:
    """Two mutations; the site closes; one of them ends, and the other goes on until it has."""
    switch = HandSwitch()
    switch.guarded = True
    async with Socket(switch) as socket:
        socket.ask(name="0", query=FIND)
        await socket.arrived()
        socket.ask(name="1", query=COMMENT)
        await socket.arrived()
        socket.ask(name="2", query=COMMENT)
        await socket.arrived()
        assert socket.may_write == [False, True, True]
        switch.read_only()
        await socket.serve({"id": "2", "type": "complete"})
        socket.tell({"type": "ping"})
        await socket.arrived()
        assert socket.may_write[-1] is True
        await socket.serve({"id": "1", "type": "complete"})
        socket.tell({"type": "ping"})
        await socket.arrived()
        assert socket.may_write[-1] is False


@on_a_loop
async def test_a_guard_s_refusal_is_counted_when_the_socket_ends() -> None:
    """A query that writes: there is no response that could be replaced."""
    switch = HandSwitch()
    switch.guarded = True
    switch.read_only()
    socket = Socket(switch)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        work = current(switch.as_switch())
        assert work is not None
        work.mark(ReadOnlyError(database="main", table="views"))
        await receive()

    socket.app = validated(ReadOnlyMiddleware(validated(app), switch.as_switch(), policy=POLICY))
    async with socket:
        pass
    assert switch.tally.totals()["escaped"] == 1


@on_a_loop
async def test_a_look_that_fails_leaves_nothing_in_flight() -> None:
    """An error of ours is one, and no write that is waited for in vain."""
    socket = Socket()
    socket.switch.admit = lambda: 1 / 0  # type: ignore[assignment,return-value]
    await socket.__aenter__()
    socket.ask(query=COMMENT)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(socket.running, 10)
    assert socket.switch.inflight.count() == 0


@on_a_loop
async def test_a_socket_that_is_declared_without_a_predicate_is_left_alone() -> None:
    """Whoever says that it reads has said so."""
    async with Socket(policy=Policy(reads=["WEBSOCKET /graphql"])) as socket:
        socket.switch.read_only()
        socket.ask(query=COMMENT)
        assert (await socket.arrived())["payload"] == {"query": COMMENT}
