"""The demo site in each of its dresses, served as `make serve` does, for tests that ask over sockets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx

from demo_app.serve import settings_in
from demo_app.settings import Settings
from readonly import Switch
from support import children
from support.waiting import eventually

PROJECT = Path(__file__).parents[2]


class Visited:
    """A site at an address, and browsers that visit it.

    Attributes:
        framework: Its dress.
        url: Where it is.
        settings: Where its data is.
    """

    def __init__(self, framework: str, url: str, settings: Settings) -> None:
        self.framework = framework
        self.url = url
        self.settings = settings
        self._stack = ExitStack()

    @property
    def database(self) -> str:
        """The name of its database."""
        return self.settings.server.rpartition("/")[2]

    def browser(self) -> httpx.Client:
        """Return a new visitor's browser."""
        return self._stack.enter_context(httpx.Client(base_url=self.url, timeout=60))

    def member(self, name: str = "sam", **more: str) -> httpx.Client:
        """Return the browser of somebody who has just logged in."""
        browser = self.browser()
        answer = browser.post("/login", data={"name": name, "password": name, **more})
        assert (answer.status_code, answer.headers.get("location")) == (303, "/account"), answer.text
        return browser

    def close(self) -> None:
        """Close all browsers."""
        self._stack.close()


class Site(Visited):
    """One dress of the site, in a server of its own with one worker."""

    def __init__(self, framework: str, folder: Path, *, server: str) -> None:
        """Start it; `wait` before the first request.

        Args:
            framework: The dress.
            folder: For its secret and its switch.
            server: URL of the PostgreSQL database that its tables are in.
        """
        super().__init__(framework, "", replace(settings_in(folder), server=server))
        self._process, self._output = start(
            [
                *("-m", "demo_app.serve", "--quiet", "--port", "0", "--workers", "1"),
                *("--framework", framework, "--data", os.fspath(folder)),
            ],
            folder,
            self.settings.as_env(),
        )
        self._switch: Switch | None = None

    def wait(self) -> None:
        """Wait until it serves, and takes writes."""
        self.url = first_line(self._process, self._output).split()[-1]
        eventually(lambda: httpx.get(f"{self.url}/healthz").status_code == 200, 60, ignoring=httpx.TransportError)
        self.wait_until_open()

    def stop(self) -> None:
        """Ask it to end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End it."""
        super().close()
        if self._switch is not None:
            self._switch.close()
        children.end(self._process, signal.SIGTERM, timeout=60)

    # --- the operator -------------------------------------------------------------------------------------------------

    @property
    def switch(self) -> Switch:
        """An operator's own view of the site."""
        if self._switch is None:
            self._switch = Switch.from_url(self.settings.store, interval=0.1)
        return self._switch

    @contextmanager
    def closed_for_writes(self, *, sessions: str | None = None) -> Iterator[int]:
        """Turn the site read-only, proven, for a while; yields the epoch."""
        state = self.switch.on(
            reason="test", expected=timedelta(minutes=40), message="New floor in the lobby.", sessions=sessions
        )
        try:
            self.switch.confirm(state.epoch, timeout=60).require_safe()
            yield state.epoch
        finally:
            self.switch.off(every=True)
            self.wait_until_open()

    def wait_until_open(self) -> None:
        """Wait until its worker takes writes, and a session that begins now is not taken for one from before."""

        def is_open() -> bool:
            with httpx.Client(base_url=self.url, timeout=60) as asked:
                if asked.get("/-/readonly/status").json()["mode"] != "writable":
                    return False
                form = {"name": "sam", "password": "sam"}
                asked.post("/login", data=form)
                by_session = asked.get("/account").status_code
                asked.post("/login", data={**form, "remember": "yes"})
                asked.cookies.delete("session")
                return by_session == asked.get("/account").status_code == 200

        # A signed cookie tells its time in whole seconds: in the second of a cut-off, a new one looks as old as it.
        eventually(is_open, 30, what="open again")


def start(
    arguments: list[str], folder: Path, environment: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], Callable[[], str]]:
    """Start a program of ours; return it, and what reads its output."""
    log = folder / "output.txt"
    with log.open("wb") as output:
        process = children.start(
            [sys.executable, *arguments],
            output=output,
            when_we_die="TERM",
            environment={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
            folder=PROJECT,
        )
    return process, log.read_text


def import_path() -> str:
    """Return the PYTHONPATH under which a program finds what pytest finds."""
    return os.pathsep.join([str(PROJECT / "tests"), str(PROJECT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)


def first_line(process: subprocess.Popen[bytes], output: Callable[[], str], lines: int = 1) -> str:
    """Wait for so many lines that name an address, and return them."""

    def addresses() -> str:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode}:\n{output()[-3000:]}")
        found = [line for line in output().splitlines() if "http://" in line]
        return "\n".join(found) if len(found) == lines else ""

    return eventually(addresses, 60, what="saying where it is")


def close_all(sites: Collection[Site]) -> None:
    """End several sites, all at once."""
    for site in sites:
        site.stop()
    for site in sites:
        site.close()
