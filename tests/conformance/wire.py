"""HTTP over a socket, byte for byte, for requests that a client library would tidy up.

It reads while it sends, as a client must that wants to see an answer which comes before its upload has ended.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

# An answer is there within moments, unless this machine does much else; whoever waits longer has found a bug.
PATIENCE_SECONDS = 60.0
_PART = 65536


class NoAnswer(AssertionError):
    """No complete response came."""


@dataclass
class Response:
    """A response, as it came.

    Attributes:
        interim: Status codes of the informational responses before it.
        closed: The server ended the connection with it.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    interim: list[int] = field(default_factory=list)
    closed: bool = False

    def all(self, name: str) -> list[str]:
        """Return each value of a header."""
        return [value for found, value in self.headers if found.lower() == name.lower()]


def acknowledge_at_once(connection: socket.socket) -> None:
    """Have the kernel acknowledge what comes next at once; it forgets this after a while.

    uvicorn sends a response in two parts and leaves Nagle's algorithm on where it has several workers: the second part
    waits until the first one is acknowledged, which a client's kernel puts off by 40 ms.
    """
    if hasattr(socket, "TCP_QUICKACK"):
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


CLOSED = Response(0, [], b"", closed=True)


class Connection:
    """One connection to a server."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self._socket.setblocking(False)
        self._received = b""
        self._ended = False

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def ask(self, request: bytes, *, head_only: bool = False) -> Response:
        """Send a request and return its response; `CLOSED` if the server ended the connection without one."""
        self.send(request, until_answered=True)
        return self.response(head_only=head_only)

    def send(self, data: bytes, *, until_answered: bool = False) -> None:
        """Send all of it, or, if wanted, no more once the final response has begun or the server takes no more."""
        left = memoryview(data)
        deadline = time.monotonic() + PATIENCE_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while left and not self._ended:
                if until_answered and self._answered():
                    return
                if time.monotonic() > deadline:
                    raise NoAnswer(f"the server took nothing more, with {len(left)} bytes left")
                for _, events in selector.select(1.0):
                    if events & selectors.EVENT_READ:
                        self._read()
                    elif events & selectors.EVENT_WRITE:
                        try:
                            left = left[self._socket.send(left[:_PART]) :]
                        except BlockingIOError:
                            continue
                        except OSError:
                            # It was reset: what was answered before may be there still.
                            self._drain()
                            return

    def response(self, *, head_only: bool = False) -> Response:
        """Return the next response on this connection."""
        interim: list[int] = []
        acknowledge_at_once(self._socket)
        while True:
            head = self._until(b"\r\n\r\n")
            if head is None:
                if self._received or interim:
                    raise NoAnswer(f"the connection ended after {interim} {self._received[:200]!r}")
                return CLOSED
            lines = head.decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ", 2)[1])
            if 100 <= status < 200 and status != 101:
                interim.append(status)
                continue
            headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
            found = Response(status, headers, b"", interim)
            if not (head_only or status in (101, 204, 304)):
                self._body(found)
            found.closed = "close" in ",".join(found.all("connection")).lower()
            return found

    def _body(self, found: Response) -> None:
        if "chunked" in ",".join(found.all("transfer-encoding")).lower():
            found.body = self._chunks()
        elif found.all("content-length"):
            length = int(found.all("content-length")[0])
            self._more(lambda: len(self._received) >= length)
            if len(self._received) < length:
                raise NoAnswer(f"of {length} bytes of a {found.status}'s body {len(self._received)} came")
            found.body, self._received = self._received[:length], self._received[length:]
        else:
            self._more(lambda: False)
            found.body, self._received = self._received, b""

    def _chunks(self) -> bytes:
        body = b""
        while True:
            line = self._until(b"\r\n")
            if line is None:
                # The end that a stream has when its source broke: what came is what the client has.
                return body + self._received
            size = int(line.partition(b";")[0], 16)
            self._more(lambda size=size: len(self._received) >= size + 2)  # type: ignore[misc]  # bound on purpose
            body += self._received[:size]
            self._received = self._received[size + 2 :]
            if size == 0:
                return body

    def ends(self) -> bool:
        """Return whether the server ends the connection; wait for that as long as a server may take."""
        self._more(lambda: False)
        return self._ended

    def _answered(self) -> bool:
        head, complete, _ = self._received.partition(b"\r\n\r\n")
        return bool(complete) and not head.partition(b" ")[2].startswith(b"1")

    def _until(self, mark: bytes) -> bytes | None:
        self._more(lambda: mark in self._received)
        found, complete, rest = self._received.partition(mark)
        if not complete:
            return None
        self._received = rest
        return found

    def _more(self, enough: object) -> None:
        """Read until there is enough or the connection ends."""
        assert callable(enough)
        deadline = time.monotonic() + PATIENCE_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            while not enough() and not self._ended:
                if time.monotonic() > deadline:
                    raise NoAnswer(f"nothing (more) came; so far {self._received[:500]!r}")
                if selector.select(1.0):
                    self._read()

    def _read(self) -> None:
        try:
            part = self._socket.recv(_PART)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if part:
            self._received += part
        else:
            self._ended = True

    def _drain(self) -> None:
        with contextlib.suppress(OSError):
            while part := self._socket.recv(_PART):
                self._received += part
        self._ended = True


def head(method: str, target: str, headers: Iterable[tuple[str, str]], version: str = "HTTP/1.1") -> bytes:
    """Return a request's head, as it stands."""
    lines = [f"{method} {target} {version}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunks(body: bytes) -> bytes:
    """Return a body in chunks."""
    parts = [body[i : i + _PART] for i in range(0, len(body), _PART)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
