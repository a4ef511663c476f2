"""The extension under real servers with two workers, which are started as docs/flask.md says."""

from __future__ import annotations

import http.client
import os
import re
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from readonly import Switch
from support.operating import made
from support.ports import free_port
from support.processes import WebServer, gunicorn, run
from support.waiting import eventually

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "flask.md"
WORKERS = 2


def sample(name: str) -> str:
    """Return a sample of the page."""
    found = re.search(rf"<!-- sample: {name} -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


class Served:
    """A running shop, and a switch in this process that obeys the same record."""

    def __init__(self, server: WebServer, switch: Switch, folder: Path) -> None:
        self.server = server
        self.switch = switch
        self.folder = folder

    def ask(self, method: str, path: str = "/", cookie: str = "") -> tuple[int, http.client.HTTPMessage, str]:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.request(method, path, body=b"x" if method == "POST" else None, headers={"Cookie": cookie})
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()
        finally:
            connection.close()

    def statuses(self, method: str, path: str = "/") -> set[int]:
        """Return the statuses of many requests, so that each worker has its share."""
        return {self.ask(method, path)[0] for _ in range(16)}

    def workers(self) -> set[int]:
        """Return the process ids of the members behind the extension."""
        return {report.pid for report in self.switch.members() if report.role == "web" and not report.gone}

    def orders(self) -> int:
        """Count what was written."""
        with closing(sqlite3.connect(self.folder / "shop.db")) as connection:
            return int(connection.execute('SELECT count(*) FROM "order"').fetchone()[0])


def uwsgi(folder: Path, log: Path, environment: dict[str, str]) -> WebServer:
    """Start uWSGI with a module that ends as the page says."""
    (folder / "wsgi.py").write_text(
        "import served_shop\napp = application = served_shop.create_app()\n\n\n" + sample("flask-uwsgi")
    )
    port = free_port()
    command = [str(Path(sys.executable).with_name("uwsgi")), "--http-socket", f"127.0.0.1:{port}", "--master"]
    command += ["--module", "wsgi", "--processes", str(WORKERS), "--enable-threads", "--die-on-term"]
    command += ["--post-buffering", "8192"]
    command += ["--need-app", "--pythonpath", str(HERE), "--pythonpath", str(folder)]
    return WebServer(command, log=log, port=port, workers=WORKERS, environment=environment, folder=folder)


@pytest.fixture(params=["gunicorn", "gunicorn --preload", "uwsgi"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """A shop under each server, and in each worker a switch that runs before the first request."""
    shop = made(tmp_path / "flag.db")
    shop.store.close()
    environment = {"READONLY_STORE": shop.url, "SERVED_FOLDER": str(tmp_path), "PYTHONPATH": str(HERE)}
    done = run(sys.executable, "-c", "import served_shop; served_shop.prepare()", environment=environment)
    assert done.returncode == 0, done.stderr
    switch = Switch.from_url(shop.url, interval=0.2, role="test")
    switch.start()
    log = tmp_path / "server.log"
    try:
        if request.param == "uwsgi":
            server = uwsgi(tmp_path, log, environment)
        else:
            hooks = tmp_path / "gunicorn.conf.py"
            hooks.write_text(sample("flask-gunicorn"))
            options = ["--config", str(hooks), *request.param.split()[1:]]
            server = gunicorn(
                "served_shop:create_app()", *options, workers=WORKERS, log=log, folder=HERE, environment=environment
            )
        with server:
            yield Served(server, switch, tmp_path)
    finally:
        switch.close()


def test_under_a_real_server(served: Served) -> None:
    """Idle workers are members, all of them refuse what they must, the guard proves itself, nobody is missed."""
    eventually(lambda: len(served.workers()) == WORKERS, 20, what="each worker is a member before it was asked")
    eventually(lambda: served.statuses("POST") == {200}, 20, what="each worker takes writes")
    cookie = served.ask("POST", "/login")[1]["Set-Cookie"].partition(";")[0]
    assert served.ask("GET", cookie=cookie)[2].endswith(" ann")
    before = served.orders()

    slow = threading.Thread(target=lambda: served.ask("POST", "/slow"))
    slow.start()
    eventually(lambda: (served.folder / "begun").exists(), what="a write has begun")
    served.switch.on()
    # Its worker has to take the change in first, and says so with its next report.
    eventually(lambda: "in flight" in "".join(served.switch.confirm(timeout=0.2).missing), 20, what="it is waited for")
    (served.folder / "go").touch()
    confirmation = served.switch.confirm(timeout=60)
    assert confirmation.safe, (confirmation.missing, served.server.output())
    slow.join(60)

    assert (served.statuses("POST"), served.statuses("GET")) == ({503}, {200})
    assert (served.statuses("POST", "/search"), served.statuses("POST", "/login")) == ({200}, {503})
    assert served.statuses("GET", "/sneaky") == {503}
    status, headers, text = served.ask("GET", cookie=cookie)
    assert (status, headers["X-Read-Only"], text.endswith(" None")) == (200, "true", True)
    assert served.orders() == before

    served.switch.off()
    assert served.switch.confirm(timeout=60).safe
    assert served.statuses("GET", "/sneaky") == {200}
    assert served.ask("POST", cookie=cookie)[0] == 403
    assert "Traceback" not in served.server.output()
    pids = served.workers()
    assert served.server.terminate(timeout=60) in (0, -signal.SIGTERM)
    assert not served.workers() & pids
    assert os.getpid() not in pids
