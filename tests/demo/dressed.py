"""The demo site in each of its dresses, served as `make serve` does, for tests that ask over sockets."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path

import httpx

from demo_app.data import prepare
from demo_app.serve import secret_in, settings_in
from demo_app.settings import Settings
from demo_app.trouble import LOG_IN_FIRST
from readonly import Switch
from support import children
from support.waiting import eventually

PROJECT = Path(__file__).parents[2]
PASSWORD = "sam"


class Site:
    """One dress of the site, in a server of its own with one worker.

    Attributes:
        framework: The dress.
        settings: Where its data is.
        url: Where it is.
    """

    def __init__(self, framework: str, folder: Path, *options: str) -> None:
        """Start it; `wait` before the first request."""
        self.framework = framework
        self.settings: Settings = settings_in(folder)
        self._log = folder / "output.txt"
        with self._log.open("wb") as output:
            self._process = children.start(
                [
                    *(sys.executable, "-m", "demo_app.serve", "--quiet", "--port", "0", "--workers", "1"),
                    *("--framework", framework, "--data", folder, *options),
                ],
                output=output,
                when_we_die="TERM",
                environment={**os.environ, **self.settings.as_env(), "PYTHONUNBUFFERED": "1"},
                folder=PROJECT,
            )
        self.url = ""
        self._switch: Switch | None = None
        self._stack = ExitStack()

    def wait(self) -> None:
        """Wait until it serves."""

        def address() -> str:
            output = self._log.read_text()
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.framework} ended with {self._process.returncode}:\n{output[-3000:]}")
            return next((line.split()[-1] for line in output.splitlines() if "http://" in line), "")

        self.url = eventually(address, 60, what=f"{self.framework} says where it is")
        eventually(lambda: httpx.get(f"{self.url}/healthz").status_code == 200, 60, ignoring=httpx.TransportError)

    def close(self) -> None:
        """End it."""
        self._stack.close()
        if self._switch is not None:
            self._switch.close()
        children.end(self._process, signal.SIGTERM, timeout=20)

    # --- visitors -----------------------------------------------------------------------------------------------------

    def browser(self) -> httpx.Client:
        """Return a new visitor's browser."""
        return self._stack.enter_context(httpx.Client(base_url=self.url))

    def member(self, name: str = PASSWORD, **more: str) -> httpx.Client:
        """Return the browser of somebody who has just logged in."""
        browser = self.browser()
        answer = browser.post("/login", data={"name": name, "password": name, **more})
        assert (answer.status_code, answer.headers["location"]) == (303, "/account"), answer.text
        return browser

    # --- the operator -------------------------------------------------------------------------------------------------

    @property
    def switch(self) -> Switch:
        """An operator's own view of the site."""
        if self._switch is None:
            self._switch = Switch.from_url(self.settings.store, interval=0.1)
        return self._switch

    @contextmanager
    def closed_for_writes(self) -> Iterator[int]:
        """Turn the site read-only, proven, for a while; yields the epoch."""
        state = self.switch.on(reason="test", expected=timedelta(minutes=40), message="New floor in the lobby.")
        try:
            confirmed = self.switch.confirm(state.epoch, timeout=20).require_safe()
            assert confirmed.epoch >= state.epoch
            yield state.epoch
        finally:
            self.switch.off(every=True)
            self.wait_until_open()

    def wait_until_open(self) -> None:
        """Wait until its worker takes writes, and a session that begins now is not taken for one from before."""

        def is_open() -> bool:
            asked = self.browser()
            if asked.get("/-/readonly/status").json()["mode"] != "writable":
                return False
            asked.get("/account")
            return LOG_IN_FIRST in asked.get("/login").text

        # A signed cookie tells its time in whole seconds: in the second of a cut-off, a new session looks as old as it.
        eventually(is_open, 30, what="open again")

    # --- its data -----------------------------------------------------------------------------------------------------

    def value(self, query: str, *values: object) -> object:
        """Ask the database itself."""
        with closing(sqlite3.connect(self.settings.database)) as connection:
            return connection.execute(query, values).fetchone()[0]


def prepared(folder: Path) -> Path:
    """Return a folder with a site's data, to be copied: one story, with the same times and tokens everywhere."""
    secret_in(folder)
    assert prepare(settings_in(folder))
    return folder


@contextmanager
def served(frameworks: Sequence[str], folder: Path) -> Iterator[dict[str, Site]]:
    """Serve these dresses, each with a copy of the same data; all start at once."""
    template = prepared(folder / "template")
    sites: dict[str, Site] = {}
    try:
        for framework in frameworks:
            shutil.copytree(template, folder / framework)
            sites[framework] = Site(framework, folder / framework)
        for site in sites.values():
            site.wait()
            site.wait_until_open()
        yield sites
    finally:
        for site in sites.values():
            site.close()
