"""SQLite's fence, which is none: there is no server that could refuse.

A write lock, taken and released, proves that whoever wrote before is done; from there on the guards of the site's own
processes keep the promise, and the level says so. (A lock that is held would die with its process, and keep the
migration out while it lives.) Source: sqlite.org, lang_transaction.html, IMMEDIATE.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ...errors import ConfigurationError
from .fence import Fence
from .values import (
    Fenced,
    FenceRefused,
    FenceUnreachable,
    Holdup,
    Level,
    Lifted,
    Pass,
    Position,
    Preflight,
    StillWriting,
    Strategy,
    Waiting,
    Way,
)

# SQLite's own busy handler backs off and starves among many writers: it is tried anew this often instead.
RETRY_SECONDS = 0.001
_WAYS = (Way("every program that opens the file without this library", insists=False),)
# The file change counter: four bytes, big-endian (sqlite.org, fileformat2.html, 1.3.7).
_COUNTER_AT, _COUNTER_BYTES = 24, 4


class SQLiteFence(Fence):
    """A database file whose earlier writers are waited out; level `app only`.

    Args:
        url: `sqlite:////absolute/path`.
        name: Its name in the configuration.

    Raises:
        ConfigurationError: The path is not absolute.
    """

    stands = False

    def __init__(self, url: str, *, name: str = "main") -> None:
        path = unquote(urlsplit(url).path)
        # sqlite:////abs is "//abs" here; sqlite:///rel is "/rel", which would be taken for another file.
        if not path.startswith("//"):
            raise ConfigurationError(f"fence.{name}: {url!r} must name an absolute path: sqlite:////srv/site/data.db")
        self.name = name
        self.path = Path(path[1:])
        self._event = threading.Event()

    def preflight(self, *, strategy: Strategy | None = None) -> Preflight:
        """Return that earlier writers can be waited out, and nothing more."""
        self._require_file()
        if strategy not in {None, Strategy.BARRIER}:
            raise FenceRefused(f"{self.name}: SQLite has no server, and so no fence by {strategy}; nothing was changed")
        return Preflight(
            Strategy.BARRIER, Level.APP_ONLY, "SQLite has no server that could refuse", _WAYS, server=str(self.path)
        )

    def status(self) -> Fenced | None:
        """Return None: nothing stands in a file."""
        self._require_file()
        return None

    def open_tables(self) -> tuple[str, ...]:
        """Return nothing: no fence stands."""
        return ()

    def put_up(
        self,
        *,
        site: str,
        cause: str,
        by: str,
        epoch: int = 0,
        timeout: float,
        end_after: float | None = None,
        run: Pass | None = None,
        strategy: Strategy | None = None,
        waiting: Waiting | None = None,
    ) -> Fenced:
        """Wait until whoever writes has ended; nobody can be ended, and nothing is changed.

        Raises:
            StillWriting: Somebody holds the write lock for longer than `timeout` seconds.
            FenceUnreachable: The file can't be opened.
        """
        self._require_file()
        deadline = time.monotonic() + timeout
        told = False
        with closing(self._open()) as connection:
            while True:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    break
                except sqlite3.OperationalError as error:
                    if getattr(error, "sqlite_errorcode", 0) & 0xFF not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                        raise FenceUnreachable(f"{self.name}: {self.path} can't be locked: {error}") from error
                holdup = Holdup(None, doing="a process that holds the write lock of the file")
                if waiting is not None and not told:
                    waiting([holdup])
                    told = True
                if time.monotonic() >= deadline:
                    raise StillWriting(
                        f"{self.name}: some process has been writing to {self.path} for {timeout:g} s. It may still "
                        "commit, so this is not safe. `fuser` names it; end it, then try again",
                        holdups=[holdup],
                    )
                self._event.wait(RETRY_SECONDS)
            connection.execute("ROLLBACK")
        return Fenced(
            name=self.name,
            server=str(self.path),
            site=site,
            run=run.run if run else "",
            strategy=Strategy.BARRIER,
            level=Level.APP_ONLY,
            position=self._position(),
            raised_at=datetime.now(UTC),
            ways=_WAYS,
        )

    def look_again(self, *, site: str, timeout: float, waiting: Waiting | None = None) -> Fenced:
        """Wait for earlier writers once more."""
        return self.put_up(site=site, cause="", by="", timeout=timeout, waiting=waiting)

    def lift(self, *, site: str, cause: str | None = None, orphan: bool = False) -> Lifted:
        """Return that nothing stands: nothing was changed when it was raised."""
        return Lifted(self.name, down=True)

    def sessions_of(self, run: str) -> tuple[Holdup, ...]:
        """Return nothing: a file has no list of who uses it."""
        return ()

    def _position(self) -> Position:
        stat = self.path.stat()
        with self.path.open("rb") as file:
            file.seek(_COUNTER_AT)
            counter = int.from_bytes(file.read(_COUNTER_BYTES), "big")
        return Position(f"{stat.st_dev}:{stat.st_ino}", str(counter))

    def _require_file(self) -> None:
        if not self.path.is_file():
            raise FenceUnreachable(f"{self.name}: there is no file {self.path} on this machine")

    def _open(self) -> sqlite3.Connection:
        try:
            return sqlite3.connect(f"{self.path.as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise FenceUnreachable(f"{self.name}: {self.path} can't be opened: {error}") from error
