"""The middlewares under real servers with two worker processes, switched from this process."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from readonly import Switch
from support.processes import WebServer, gunicorn, uvicorn
from support.waiting import eventually

pytest.importorskip("uvicorn")
pytest.importorskip("gunicorn")

HERE = Path(__file__).parent
WORKERS = 2
HOOKS = ("--config", str(HERE / "gunicorn_hooks.py"))
# What each server is started with. Both protocols of uvicorn, since they differ in what they do with unread bodies.
SERVERS: dict[str, Callable[..., WebServer]] = {
    "uvicorn h11": lambda **more: uvicorn("served_asgi:app", "--http", "h11", **more),
    "uvicorn httptools": lambda **more: uvicorn("served_asgi:app", "--http", "httptools", **more),
    "gunicorn sync": lambda **more: gunicorn("served_wsgi:app", *HOOKS, **more),
    "gunicorn sync, preloaded": lambda **more: gunicorn("served_wsgi:app", *HOOKS, "--preload", **more),
    "gunicorn gthread": lambda **more: gunicorn("served_wsgi:app", *HOOKS, "--threads", "4", **more),
    "gunicorn gthread, preloaded": lambda **more: gunicorn(
        "served_wsgi:app", *HOOKS, "--threads", "4", "--preload", **more
    ),
}

Answer = tuple[int, http.client.HTTPMessage, bytes]


@dataclass
class Served:
    """A running site, and a switch in this process that obeys the same record."""

    name: str
    server: WebServer
    switch: Switch
    folder: Path

    def ask(
        self, method: str, path: str = "/", body: bytes | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.request(method, path, body=body)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def statuses(self, method: str, path: str = "/", times: int = 24) -> set[int]:
        """Return the statuses of many requests, so that every worker has its share."""
        return {self.ask(method, path, b"x" if method == "POST" else None)[0] for _ in range(times)}

    def workers(self) -> set[int]:
        """Return the process ids of the members behind the middleware."""
        return {report.pid for report in self.switch.members() if report.role == "web" and not report.gone}


@contextlib.contextmanager
def serving(name: str, folder: Path) -> Iterator[Served]:
    """Start one server with two workers, and wait until both take writes."""
    url = f"sqlite:///{folder}/store.db?site=served"
    switch = Switch.from_url(url, interval=0.2, role="test")
    switch.start()
    environment = {"READONLY_STORE": url, "SERVED_FOLDER": str(folder)}
    try:
        with SERVERS[name](workers=WORKERS, log=folder / "server.log", folder=HERE, environment=environment) as server:
            site = Served(name, server, switch, folder)
            eventually(lambda: site.workers() == set(server.worker_pids()), what="every worker is a member")
            eventually(lambda: site.statuses("POST") == {201}, what="every worker knows that the site is writable")
            yield site
    finally:
        switch.close()


@contextlib.contextmanager
def closed(served: Served) -> Iterator[None]:
    """Make the site read-only, confirmed, for a block; writable again, confirmed, after it."""
    served.switch.on(reason="a migration")
    assert served.switch.confirm(timeout=60).safe, served.server.output()
    yield
    served.switch.off()
    assert served.switch.confirm(timeout=60).safe, served.server.output()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[None]]]:
    """What came of it under each server. They run at once: most of what each does is waiting."""
    folders = {name: tmp_path_factory.mktemp(f"served-{number}") for number, name in enumerate(SERVERS)}
    with ThreadPoolExecutor(len(SERVERS)) as pool:
        yield {name: pool.submit(_play, name, folder) for name, folder in folders.items()}


@pytest.mark.parametrize("name", SERVERS)
def test_under(name: str, played: Mapping[str, Future[None]]) -> None:
    """Under this server everything holds, one after another, with the same two workers."""
    played[name].result()


def _play(name: str, folder: Path) -> None:
    with serving(name, folder) as served:
        every_worker_obeys(served)
        on_waits_for_a_write_in_flight(served)
        connections_go_on_after_a_refusal(served)
        for expect in (False, True):
            a_large_body_is_not_waited_for(served, expect=expect)
        if name.startswith("uvicorn"):
            websockets_are_closed_and_refused(served)
        if name == "gunicorn sync, preloaded":
            a_worker_that_comes_later_starts_read_only(served)
        assert "Traceback" not in served.server.output()
        workers_say_goodbye(served)


def every_worker_obeys(served: Served) -> None:
    """On is confirmed by processes that refuse; reads go on; off opens all of them again."""
    answered = {served.ask("GET")[2] for _ in range(40)}
    assert answered <= {str(pid).encode() for pid in served.workers()}
    for _ in range(2):
        with closed(served):
            assert served.statuses("POST") == {503}
            assert served.statuses("GET") == {200}
            assert served.statuses("POST", "/search") == {201}
            status, headers, body = served.ask("GET")
            assert (status, headers["X-Read-Only"], body.isdigit()) == (200, "true", True)
        assert served.statuses("POST") == {201}
        assert served.ask("GET")[1]["X-Read-Only"] is None


def on_waits_for_a_write_in_flight(served: Served) -> None:
    """The write was admitted before; while it goes on nothing is confirmed, then it has its answer."""
    answers: list[int] = []
    writing = threading.Thread(target=lambda: answers.append(served.ask("POST", "/slow", b"x")[0]))
    writing.start()
    eventually(lambda: (served.folder / "begun").exists(), what="the write has begun")
    served.switch.on()

    def is_waited_for() -> bool:
        confirmation = served.switch.confirm(timeout=0.2)
        assert not confirmation.safe
        # Until it has heard of the change, that is what its process is missed for.
        return any("in flight" in why for why in confirmation.missing)

    eventually(is_waited_for, what="the write is waited for")
    (served.folder / "go").touch()
    with closed(served):
        assert (served.folder / "committed").exists()
    writing.join(60)
    assert answers == [201]


def connections_go_on_after_a_refusal(served: Served) -> None:
    """One without a body leaves the connection usable; a HEAD has no body of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=60)
    with closed(served), contextlib.closing(connection):
        for method, status in (("DELETE", 503), ("HEAD", 200), ("GET", 200), ("DELETE", 503)):
            connection.request(method, "/")
            response = connection.getresponse()
            assert response.status == status
            assert bool(response.read()) is (method != "HEAD")


def a_large_body_is_not_waited_for(served: Served, *, expect: bool) -> None:
    """The answer comes while the client still has a gigabyte to send; the connection is not reused."""
    with closed(served), socket.create_connection(("127.0.0.1", served.server.port), timeout=60) as connection:
        head = "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n"
        connection.sendall((head + ("Expect: 100-continue\r\n" if expect else "") + "\r\n").encode())
        if not expect:
            connection.sendall(1000 * b"x")
        received = b""
        while b"READ_ONLY" not in received:
            part = connection.recv(65536)
            assert part, received
            received += part
        interim, found, final = received.rpartition(b"HTTP/1.1 503")
        assert found
        assert b"retry-after" in final.lower()
        # gunicorn itself invites a body before any application is asked, and with threads discards it for a while:
        # neither is a WSGI application's to prevent.
        if served.name.startswith("uvicorn"):
            assert interim == b""
            assert b"connection: close" in final.lower()
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(65536):
                    pass


def websockets_are_closed_and_refused(served: Served) -> None:
    """One that is open is closed with 1012, unless it was declared as a read; a new one is refused before accept."""
    client = pytest.importorskip("websockets.sync.client")
    exceptions = pytest.importorskip("websockets.exceptions")
    base = served.server.url.replace("http", "ws")
    connect = partial(client.connect, open_timeout=60)
    with connect(base + "/chat") as chat, connect(base + "/live") as live:
        for connection in (chat, live):
            connection.send("hello")
            assert connection.recv(timeout=60) == "HELLO"
        with closed(served):
            with pytest.raises(exceptions.ConnectionClosed) as ended:
                chat.recv(timeout=60)
            assert ended.value.rcvd.code == 1012
            assert (served.folder / "left").exists()  # the application was told, and has finished: it was drained
            live.send("still here")
            assert live.recv(timeout=60) == "STILL HERE"
            with pytest.raises(exceptions.InvalidStatus) as refused:
                connect(base + "/chat")
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["X-Read-Only"] == "true"


def a_worker_that_comes_later_starts_read_only(served: Served) -> None:
    """It is a member before it takes a request, and refuses from the first one on."""
    with closed(served):
        victim = min(served.server.worker_pids())
        served.server.signal(signal.SIGKILL, victim)

        def replaced() -> bool:
            workers = set(served.server.worker_pids())
            return victim not in workers and len(workers) == WORKERS and workers <= served.workers()

        eventually(replaced, 20, what="another worker has taken its place")
        assert served.statuses("POST") == {503}


def workers_say_goodbye(served: Served) -> None:
    """At the server's shutdown its workers report that they are gone: nobody waits for them."""
    pids = set(served.server.worker_pids())
    assert served.server.terminate() in (0, -signal.SIGTERM)
    assert not served.workers() & pids
