"""Send a scenario's requests to a running site, and compare what comes back with what is expected."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from readonly.bypass import COOKIE, HEADER

from . import wire
from .scenario import Expectation, Request

_PATIENCE = wire.PATIENCE_SECONDS


@dataclass
class Reply:
    """What came back, whichever way it was asked for."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    interim: Sequence[int] = ()
    connection: str = ""
    heard: str | None = None
    close_code: int | None = None

    def all(self, name: str) -> list[str]:
        """Return each value of a header."""
        return [value for found, value in self.headers if found.lower() == name.lower()]


class Asker:
    """Asks one site: over kept connections that take turns, so that no worker is left out.

    Args:
        port: Where it listens.
        folder: Where it notes its writes.
        connections: How many take turns.
        kept: The server keeps connections. One that ends each does not always say so: who used it once more before its
            end has come would be reset.
    """

    def __init__(self, port: int, folder: Path, *, connections: int, kept: bool) -> None:
        self.port = port
        self.visitors: dict[str, dict[str, str]] = {}
        self.bypasses: dict[str, str] = {}
        self._writes = folder / "writes"
        self._clients = [
            httpx.Client(
                base_url=f"http://127.0.0.1:{port}",
                limits=httpx.Limits(max_connections=1, max_keepalive_connections=int(kept)),
                timeout=_PATIENCE,
                trust_env=False,
                # What is not said in a scenario is not sent: an answer depends on these.
                headers={"Accept": "", "Accept-Encoding": "identity", "User-Agent": "conformance"},
            )
            for _ in range(connections)
        ]
        for client in self._clients:
            del client.headers["Accept"]
        self._turn = itertools.cycle(self._clients)
        self._promptness = {client: _Promptness() for client in self._clients}

    def close(self) -> None:
        """Close every connection."""
        for client in self._clients:
            client.close()

    def writes(self) -> int:
        """Return how many writes the site has noted so far."""
        return self._writes.stat().st_size if self._writes.exists() else 0

    def sign_in(self, name: str, *, remember: bool) -> None:
        """Sign somebody in, and keep their cookies for the scenarios that name them."""
        form = {"name": name} | ({"remember": "1"} if remember else {})
        reply = self.ask(Request("POST", "/login", form=form))
        assert reply.status == 201, f"{name} can't sign in: {reply}"
        pairs = (value.partition(";")[0].partition("=") for value in reply.all("set-cookie"))
        self.visitors[name] = {key: value for key, _, value in pairs}

    # --- one request ------------------------------------------------------------------------------------------------

    def ask(self, request: Request, connection: wire.Connection | None = None) -> Reply:
        """Send one request and return what came back."""
        if request.websocket:
            return self._talk(request)
        if connection is not None:
            return self._over(connection, request)
        client = next(self._turn)
        try:
            sent = client.send(self._prepared(request, client))
        finally:
            # Visitors and scenarios say which cookies are sent; the client must not remember any.
            client.cookies.clear()
        return Reply(sent.status_code, list(sent.headers.multi_items()), sent.content)

    def _prepared(self, request: Request, client: httpx.Client) -> httpx.Request:
        body = self.body(request)
        content: Any = body
        if request.chunked:
            content = iter([body[i : i + 65536] for i in range(0, len(body), 65536)])
        target = self._target(request)
        url = httpx.URL(f"http://127.0.0.1:{self.port}").copy_with(raw_path=target.encode())
        headers = self.headers(request, length=False)
        asked = client.build_request(request.method, url, headers=headers, content=content if body else None)
        asked.extensions["trace"] = self._promptness[client]
        return asked

    def _over(self, connection: wire.Connection, request: Request) -> Reply:
        data = self.as_bytes(request)
        if request.hang_up:
            connection.send(data)
            connection.close()
            return Reply(0)
        head_only = request.method == "HEAD" or data.startswith(b"HEAD ")
        found = connection.ask(data, head_only=head_only)
        return of_wire(found)

    def as_bytes(self, request: Request) -> bytes:
        """Return a request as it goes over the socket."""
        if request.raw:
            return request.raw.replace("\n", "\r\n").encode("latin-1")
        body = self.body(request)
        target = self._target(request)
        head = wire.head(
            request.method, target, [("Host", "site"), *self.headers(request, length=True)], request.version
        )
        return head + (wire.chunks(body) if request.chunked else body)

    def _target(self, request: Request) -> str:
        target = request.path + (f"?{request.query}" if request.query else "")
        for placeholder, name in (("{bypass}", "header"), ("{link}", "link")):
            if placeholder in target:
                target = target.replace(placeholder, self.bypasses[name])
        return target

    @staticmethod
    def body(request: Request) -> bytes:
        """Return the body that a request is sent with."""
        if request.form is not None:
            return urlencode(request.form).encode()
        if request.json is not None:
            return json.dumps(request.json).encode()
        if request.size is not None:
            return b"x" * request.size
        return (request.body or "").encode("latin-1")

    def headers(self, request: Request, *, length: bool) -> list[tuple[str, str]]:
        """Return the headers that a request is sent with."""
        found: list[tuple[str, str]] = []
        for name, values in request.headers.items():
            found += [(name, value) for value in ([values] if isinstance(values, str) else values)]
        named = {name.lower() for name, _ in found}
        kind = "application/x-www-form-urlencoded" if request.form is not None else "application/json"
        if (request.form is not None or request.json is not None) and "content-type" not in named:
            found.append(("Content-Type", kind))
        cookies = {**(self.visitors[request.visitor] if request.visitor else {}), **request.cookies}
        if request.bypass == "cookie":
            cookies[COOKIE] = self.bypasses["header"]
        elif request.bypass:
            found.append((HEADER, self.bypasses[request.bypass]))
        if cookies:
            found.append(("Cookie", "; ".join(f"{name}={value}" for name, value in cookies.items())))
        if request.chunked and length:
            found.append(("Transfer-Encoding", "chunked"))
        elif length and (body := self.body(request)):
            found.append(("Content-Length", str(len(body))))
        return found

    def _talk(self, request: Request) -> Reply:
        try:
            with self.open_websocket(request) as talk:
                talk.send(request.say)
                return Reply(101, heard=str(talk.recv(timeout=_PATIENCE)))
        except InvalidStatus as refused:
            response = refused.response
            return Reply(response.status_code, list(response.headers.raw_items()), bytes(response.body or b""))

    def open_websocket(self, request: Request) -> ClientConnection:
        """Return a websocket that was opened."""
        return connect(
            f"ws://127.0.0.1:{self.port}{request.path}",
            additional_headers=self.headers(request, length=False),
            open_timeout=_PATIENCE,
            proxy=None,
        )


class _Promptness:
    """Has a client's connection acknowledge what comes at once; the kernel forgets that with each request sent."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            self._socket = info["return_value"].get_extra_info("socket")
        elif event == "http11.receive_response_headers.started" and self._socket is not None:
            wire.acknowledge_at_once(self._socket)


def of_wire(found: wire.Response) -> Reply:
    """Return a response that came over a socket like any other."""
    return Reply(
        found.status, found.headers, found.body, found.interim, connection="closed" if found.closed else "kept"
    )


def heard_until_closed(talk: ClientConnection) -> Reply:
    """Return how a websocket that was open is closed by the site."""
    try:
        talk.recv(timeout=_PATIENCE)
    except ConnectionClosed as ended:
        return Reply(101, close_code=ended.rcvd.code if ended.rcvd is not None else None)
    raise AssertionError("the socket said something instead of being closed")


# --- what came back -------------------------------------------------------------------------------------------------


def problems(reply: Reply, expected: Expectation, *, writes: int) -> list[str]:
    """Return what is not as expected, one sentence each."""
    found: list[str] = []

    def differs(what: str, is_: object, should: object) -> None:
        found.append(f"{what} is {is_!r}, expected {should!r}")

    if reply.status not in expected.status:
        differs("status", reply.status, expected.status if len(expected.status) > 1 else expected.status[0])
    if expected.writes is not None and writes != expected.writes:
        differs("the number of writes", writes, expected.writes)
    if reply.status == 0:
        return found
    if expected.handled is not None:
        handled = ", ".join(reply.all("x-handled"))
        if handled != expected.handled and not (expected.handled == "*" and handled):
            differs("the view", handled, expected.handled)
    for name, wanted in expected.headers.items():
        values = reply.all(name)
        if wanted is False:
            if values:
                differs(f"header {name}", values, "none")
        elif not _fits(", ".join(values) if values else None, wanted):
            differs(f"header {name}", values or None, wanted)
    found += _body_problems(reply, expected)
    if list(reply.interim) != list(expected.interim) and reply.connection:
        differs("what came before the response", reply.interim, list(expected.interim))
    if expected.hears is not None and reply.heard != expected.hears:
        differs("what was heard", reply.heard, expected.hears)
    if expected.close_code is not None and reply.close_code != expected.close_code:
        differs("the close code", reply.close_code, expected.close_code)
    return found


def _body_problems(reply: Reply, expected: Expectation) -> list[str]:
    found = []
    text = reply.body.decode("utf-8", "replace")
    if expected.body is not None:
        document: Any = None
        with contextlib.suppress(ValueError):
            document = json.loads(reply.body)
        for name, wanted in expected.body.items():
            value = document.get(name) if isinstance(document, Mapping) else None
            if not _fits(value, wanted):
                found.append(f"{name} in the body is {value!r}, expected {wanted!r}")
    found += [f"{part!r} is not in the body" for part in expected.text if part not in text]
    found += [f"{part!r} is in the body" for part in expected.no_text if part in text]
    if expected.length is not None and not _long_enough(len(reply.body), expected.length):
        found.append(f"the body's length is {len(reply.body)}, expected {expected.length}")
    return found


def _long_enough(length: int, wanted: int | str) -> bool:
    return length == wanted if isinstance(wanted, int) else length >= int(wanted.removeprefix(">="))


def _fits(value: Any, wanted: object) -> bool:
    if wanted is True:
        return value is not None
    if not isinstance(value, str) or not isinstance(wanted, str):
        return bool(value == wanted)
    return re.fullmatch(wanted[1:], value, re.DOTALL) is not None if wanted.startswith("~") else value == wanted
