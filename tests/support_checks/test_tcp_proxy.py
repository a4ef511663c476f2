"""The proxy: each of its modes, as both ends of a connection meet it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from support.tcp_proxy import Mode, TcpProxy
from support.waiting import eventually


class Echo:
    """A server that answers what it is sent, in capitals, and remembers what it heard."""

    def __init__(self) -> None:
        self.heard = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1024):
                    self.heard += data
                    connection.sendall(data.upper())
            except OSError:
                return


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A server to be reached through a proxy."""
    found = Echo()
    yield found
    found.listener.shutdown(socket.SHUT_RDWR)
    found.listener.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[TcpProxy]:
    """A proxy in front of it, that passes."""
    with TcpProxy(echo.port) as found:
        yield found


def connected(proxy: TcpProxy) -> socket.socket:
    """Return a connection through the proxy that has been of use already."""
    made = socket.create_connection(("127.0.0.1", proxy.port), timeout=60)
    assert said(made, b"hello") == b"HELLO"
    return made


def asked(proxy: TcpProxy) -> bytes:
    """Connect, say something, and return what comes back."""
    # A reset may come before the connection was of any use, or in the middle of making it.
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as made:
        return said(made, b"x")


def said(connection: socket.socket, what: bytes, *, timeout: float = 60.0) -> bytes:
    """Send something and return what comes back, or b"silence"."""
    connection.settimeout(timeout)
    connection.sendall(what)
    try:
        return connection.recv(1024)
    except TimeoutError:
        return b"silence"


def test_swallowed_connections_stay_silent_and_new_ones_work(proxy: TcpProxy, echo: Echo) -> None:
    """Half open: nothing arrives, nobody is told, and healing the network does not heal the connection."""
    with connected(proxy) as old:
        proxy.set(Mode.SWALLOW)
        assert said(old, b"lost", timeout=0.2) == b"silence"
        proxy.set(Mode.PASS)
        assert said(old, b"lost too", timeout=0.2) == b"silence"
        assert echo.heard == b"hello"
        with connected(proxy):
            assert echo.heard == b"hellohello"


def test_an_answer_that_is_swallowed_was_a_question_that_arrived(proxy: TcpProxy, echo: Echo) -> None:
    """What was asked is done, and the one who asked does not know."""
    with connected(proxy) as old:
        proxy.set(Mode.SWALLOW_ANSWERS)
        assert said(old, b"done", timeout=0.2) == b"silence"
        eventually(lambda: echo.heard == b"hellodone", what="the question arrives")


def test_what_was_stalled_arrives_late_and_whole_even_if_the_sender_has_left(proxy: TcpProxy, echo: Echo) -> None:
    """A command that timed out may still take effect."""
    old = connected(proxy)
    proxy.set(Mode.STALL)
    assert said(old, b"late", timeout=0.2) == b"silence"
    old.close()
    assert echo.heard == b"hello"
    proxy.set(Mode.PASS)
    eventually(lambda: echo.heard == b"hellolate", what="it arrives")


def test_one_connection_hangs_and_the_others_do_not_notice(proxy: TcpProxy, echo: Echo) -> None:
    """After one question more; when it is let go, what it said arrives."""
    with connected(proxy) as old:
        proxy.set(Mode.HANG)
        assert said(old, b"one more") == b"ONE MORE"
        assert said(old, b"late", timeout=0.2) == b"silence"
        connected(proxy).close()
        assert echo.heard == b"helloone morehello"
        proxy.set(Mode.PASS)
        old.settimeout(60)
        assert old.recv(1024) == b"LATE"


def test_reset_ends_what_is_open_and_what_comes(proxy: TcpProxy) -> None:
    """Both get a reset, not an end."""
    with connected(proxy) as old:
        proxy.set(Mode.RESET)
        with pytest.raises(ConnectionResetError):
            old.recv(1024)
    with pytest.raises(ConnectionError):
        asked(proxy)
    proxy.set(Mode.PASS)
    connected(proxy).close()


def test_refuse_takes_no_connection_and_keeps_its_port(proxy: TcpProxy) -> None:
    """As a server that is down; it comes back at the same address."""
    port = proxy.port
    proxy.set(Mode.REFUSE)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=60)
    proxy.set(Mode.PASS)
    assert proxy.port == port
    connected(proxy).close()


def test_it_hangs_up_when_one_side_does(proxy: TcpProxy, echo: Echo) -> None:
    """Nothing is left open behind it."""
    connected(proxy).close()
    eventually(lambda: not proxy._links, what="the link is gone")
