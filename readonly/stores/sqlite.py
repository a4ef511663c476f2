"""A store in one SQLite file: for several processes on one machine, without a server.

The file keeps a rollback journal, not a write-ahead log. A process that was forked from one that had the file
open believes in locks that only its parent holds; with a write-ahead log, which is guarded by locks that last
as long as a connection, a commit made there was lost when the parent closed its own connection (tried with
SQLite 3.40). With a rollback journal locks last for one transaction, so only a fork in the middle of one is
dangerous, and forks wait for its end. Also, nothing is left beside the file that another user, who typed a
command, would own.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from urllib.parse import parse_qs, quote, unquote, urlsplit

from readonly.clock import Clock, SystemClock
from readonly.errors import ConfigurationError, StoreUnreachable

from . import DEFAULT_TIMEOUT_SECONDS, Census, Reading, Seen, automatic_record, redacted

# SQLite tells nobody about a commit; asking costs about 10 µs, so this is 0.05% of a core.
POLL_SECONDS = 0.02
# "read" in the file's header, so that `file` and a person with a hex dump can tell whose it is.
APPLICATION_ID = 0x72656164
SCHEMA = (
    "CREATE TABLE readonly_meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE readonly_record (one INTEGER PRIMARY KEY CHECK (one = 1), record BLOB NOT NULL)",
    "CREATE TABLE readonly_since (cause TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE readonly_member (member TEXT PRIMARY KEY, report BLOB NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE readonly_log (id INTEGER PRIMARY KEY, log TEXT NOT NULL, entry BLOB NOT NULL)",
    "CREATE INDEX readonly_log_by_name ON readonly_log (log, id)",
    f"PRAGMA application_id = {APPLICATION_ID}",
)

# Connections that a parent process opened: never used here, and never closed, since that would undo locks.
_inherited: list[sqlite3.Connection] = []
# Every handle, so that a fork can wait for their transactions. uWSGI calls no fork hooks; there only a thread
# that runs in the master before the fork could be caught in one.
_handles: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()
_handles_lock = threading.RLock()
_held: list[SQLiteStore] = []


def _before_fork() -> None:
    _handles_lock.acquire()
    _held[:] = list(_handles)
    for handle in _held:
        handle._in_transaction.acquire()


def _after_fork() -> None:
    for handle in _held:
        handle._in_transaction.release()
    _held.clear()
    _handles_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class _Foreign(Exception):
    """The file is somebody else's database."""


class SQLiteStore:
    """The `Store` contract over one file. It is opened at the first call.

    The store's clock is the machine's. Its incarnation is as old as the file: one that was deleted, or put
    back from a backup, is young again.

    Args:
        path: The file; absolute.
        site: The site's name.
        create: Make the file where there is none. A command never does: it would confirm an empty store.
        initialise: Write the first record into a file that this object makes; `init` writes one of its own.
        timeout: Seconds that one call may wait for other processes.
        url: What to show as this store's URL.
        clock: The store's clock.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        site: str,
        create: bool = True,
        initialise: bool = True,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        url: str = "",
        clock: Clock | None = None,
    ) -> None:
        self.path = Path(path)
        self.url = url or f"sqlite:///{quote(str(self.path))}?site={site}"
        self.site = site
        self.timeout = timeout
        self._create = create
        # Only a file that nobody knew before gets a first record. One that is gone under a running process is
        # filled by those who know what stood in it.
        self._initialise = initialise
        self._clock = clock or SystemClock()
        self._db: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._file: tuple[int, int] = (0, 0)
        self._born = 0.0
        self._version = -1
        # How many changes and announced reports there were, and how many the caller was told of (-1: none
        # yet).
        self._counted = (0, 0)
        self._told_changes = self._told_reports = -1
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._woken = False
        self._in_transaction = threading.RLock()
        with _handles_lock:
            _handles.add(self)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        site: str,
        create: bool = True,
        initialise: bool = True,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
    ) -> SQLiteStore:
        """Return the store that `sqlite:////absolute/path?site=NAME` names.

        Raises:
            ConfigurationError: The path is relative, the file is somebody else's database, or the URL has
                options that this store does not know.
        """
        parts = urlsplit(url)
        unknown = sorted(set(parse_qs(parts.query, keep_blank_values=True)) - {"site"})
        if unknown:
            raise ConfigurationError(f"store={url!r}: {unknown[0]}= is no option of an SQLite store: leave it out")
        if parts.netloc:
            raise ConfigurationError(
                f"store={url!r} names the host {parts.netloc!r}, and a file has none: "
                "write sqlite:////absolute/path (four slashes)"
            )
        path = unquote(parts.path[1:])
        if path in ("", ":memory:"):
            raise ConfigurationError(
                f"store={url!r} names no file: write sqlite:////absolute/path?site={site}, "
                "or memory:// for a site that is one process"
            )
        if not os.path.isabs(path):  # noqa: PTH117 - of a string that is no path yet
            here = Path.cwd()
            meant = here / path
            raise ConfigurationError(
                f"store={url!r} is relative: from {here} it is {meant}, which "
                f"{'exists' if meant.exists() else 'does not exist'}. "
                f"Write sqlite:///{quote(str(meant))}?site={site} (four slashes) if you mean that one."
            )
        store = cls(path, site=site, create=create, initialise=initialise, timeout=timeout, url=url)
        store._refuse_foreign_file()
        return store

    # --- the contract -------------------------------------------------------------------------------------

    def read(self) -> Reading:
        """Read the record. Writes nothing: it needs no more than permission to read."""
        with self._transaction("BEGIN") as db:
            return self._reading(db)

    def replace(self, record: bytes, *, was: bytes | None, causes: Sequence[str] = ()) -> Reading:
        """Put `record` in place of `was`, if that is what stands there."""
        # This one must be on the disk, journal's folder included, when it is acknowledged.
        with self._transaction("BEGIN IMMEDIATE", synchronous="EXTRA") as db:
            stands = _record(db)
            if stands != was:
                return self._reading(db)
            now = self._clock.now().timestamp()
            known = {} if stands is None else dict(db.execute("SELECT cause, at FROM readonly_since"))
            since = [(cause, known.get(cause, now)) for cause in set(causes)]
            db.execute("DELETE FROM readonly_since")
            db.executemany("INSERT INTO readonly_since VALUES (?, ?)", since)
            db.execute("INSERT OR REPLACE INTO readonly_record VALUES (1, ?)", (bytes(record),))
            _count(db, "changes")
            return self._reading(db)

    def report(self, member: str, report: bytes, *, keep_seconds: float, announce: bool = False) -> Reading:
        """Register a member and read the record."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            now = self._clock.now().timestamp()
            db.execute("DELETE FROM readonly_member WHERE at < ?", (now - keep_seconds,))
            db.execute("INSERT OR REPLACE INTO readonly_member VALUES (?, ?, ?)", (member, bytes(report), now))
            # A clock that was set back must not make the file young for as long as it was ahead.
            db.execute("UPDATE readonly_meta SET value = ? WHERE key = 'born' AND value > ?", (now, now))
            self._born = min(self._born, now)
            if announce:
                _count(db, "announced")
            return self._reading(db)

    def census(self) -> Census:
        """Read record and registry in one transaction."""
        with self._transaction("BEGIN") as db:
            since = {cause: _instant(at) for cause, at in db.execute("SELECT cause, at FROM readonly_since")}
            rows = db.execute("SELECT member, report, at FROM readonly_member ORDER BY member")
            reports = tuple(Seen(member, report, _instant(at)) for member, report, at in rows)
            census = Census(self._reading(db, since), reports)
            self._told_reports = self._counted[1]
            return census

    def forget(self, member: str) -> None:
        """Take one member off the registry."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            db.execute("DELETE FROM readonly_member WHERE member = ?", (member,))

    def wait(self, timeout: float, *, for_reports: bool = False) -> bool:
        """Wait until the record may have changed since this object last read it."""
        deadline = time.monotonic() + timeout
        while True:
            if self._hint(for_reports):
                return True
            if self._woken:
                self._woken = False
                return False
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with contextlib.suppress(Empty):
                self._bell.get(timeout=min(POLL_SECONDS, left))

    def wake(self) -> None:
        """Make a running or the next `wait` return."""
        self._woken = True
        # SimpleQueue.put is the one notification that is safe inside a signal handler.
        self._bell.put(None)

    def append(self, log: str, entry: bytes, *, keep: int) -> None:
        """Append to a bounded log."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            db.execute("INSERT INTO readonly_log (log, entry) VALUES (?, ?)", (log, bytes(entry)))
            db.execute(
                "DELETE FROM readonly_log WHERE log = ? AND id <= (SELECT id FROM readonly_log WHERE log = ? "
                "ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (log, log, keep),
            )

    def entries(self, log: str, *, last: int) -> Sequence[bytes]:
        """Return the last entries of a log, oldest first."""
        with self._transaction("BEGIN") as db:
            newest_first = "SELECT entry FROM readonly_log WHERE log = ? ORDER BY id DESC LIMIT ?"
            return tuple(entry for (entry,) in db.execute(newest_first, (log, last)))[::-1]

    def reopened(self) -> SQLiteStore:
        """Return the same store with a connection of its own."""
        return SQLiteStore(
            self.path,
            site=self.site,
            create=self._create,
            initialise=self._initialise,
            timeout=self.timeout,
            url=self.url,
            clock=self._clock,
        )

    def close(self) -> None:
        """Close the connection, if this process opened it."""
        db, self._db = self._db, None
        if db is None:
            return
        if self._pid != os.getpid():
            _inherited.append(db)
            return
        with self._in_transaction, contextlib.suppress(sqlite3.Error):
            db.close()

    # --- one transaction ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self, begin: str, *, synchronous: str = "FULL") -> Iterator[sqlite3.Connection]:
        """Run the body in one transaction, bounded by `timeout`; whatever fails is `StoreUnreachable`."""
        deadline = time.monotonic() + self.timeout
        try:
            with self._in_transaction:
                db = self._connection()
                left = max(1, int(1000 * (deadline - time.monotonic())))
                db.execute(f"PRAGMA busy_timeout = {left}")
                db.execute(f"PRAGMA synchronous = {synchronous}")
                db.execute(begin)
                try:
                    yield db
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        db.execute("ROLLBACK")
                    raise
                db.execute("COMMIT")
        except (sqlite3.Error, OSError, _Foreign) as error:
            # Closing ends a transaction that could not be committed, and the next call looks at the file
            # anew.
            self.close()
            raise StoreUnreachable(self._explain(error)) from error

    def _connection(self) -> sqlite3.Connection:
        """Return the connection to the file that is at the path now."""
        if self._db is not None and (self._pid != os.getpid() or self._file != self._identity()):
            # Forked, or the file was deleted or replaced.
            self.close()
        if self._db is None:
            self._db = self._open()
        return self._db

    def _identity(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    def _open(self) -> sqlite3.Connection:
        self._pid = os.getpid()
        if self._create:
            with contextlib.suppress(FileExistsError):
                # Not by SQLite, which would also fill in a file that somebody else is just making.
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        self._file = self._identity()
        if self._file == (0, 0):
            raise FileNotFoundError(2, "no such file")
        db = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw",
            uri=True,
            timeout=self.timeout,
            isolation_level=None,
            # One thread at a time, but not always the same one.
            check_same_thread=False,
        )
        try:
            self._examine(db)
        except BaseException:
            db.close()
            raise
        self._version = self._told_changes = self._told_reports = -1
        return db

    def _examine(self, db: sqlite3.Connection) -> None:
        """Make sure that this is a store, make it one where that is allowed, and learn its age."""
        if not self._is_store(db):
            if not self._create:
                raise sqlite3.DatabaseError("the file is empty: no site has opened it yet")
            db.execute("BEGIN IMMEDIATE")
            if not self._is_store(db):  # else another process was faster
                self._make(db)
            db.execute("COMMIT")
        meta = dict(db.execute("SELECT key, value FROM readonly_meta"))
        inode = self._file[1]
        self._born = float(meta["born"])
        if meta["inode"] != inode:
            # Put back from a backup: what stands in it may be older than what members know.
            self._born = self._clock.now().timestamp()
            if self._create:
                db.execute("BEGIN IMMEDIATE")
                db.execute("UPDATE readonly_meta SET value = ? WHERE key = 'born'", (self._born,))
                db.execute("UPDATE readonly_meta SET value = ? WHERE key = 'inode'", (inode,))
                db.execute("COMMIT")
        self._initialise = False

    def _is_store(self, db: sqlite3.Connection) -> bool:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
        foreign = sorted(t for t in tables if not t.startswith(("readonly_", "sqlite_")))
        if foreign:
            raise _Foreign(
                f"store {redacted(self.url)}: {self.path} holds the table {foreign[0]!r}, so it is somebody's "
                "database. The record never lives in the database under maintenance: name a file that holds "
                "nothing else"
            )
        return "readonly_record" in tables

    def _make(self, db: sqlite3.Connection) -> None:
        for statement in SCHEMA:
            db.execute(statement)
        now = self._clock.now()
        meta = {"born": now.timestamp(), "inode": self._file[1], "changes": 0, "announced": 0}
        db.executemany("INSERT INTO readonly_meta VALUES (?, ?)", meta.items())
        if self._initialise:
            record = automatic_record(self.site, at=now, by="SQLite store")
            db.execute("INSERT INTO readonly_record VALUES (1, ?)", (record,))

    def _refuse_foreign_file(self) -> None:
        """Refuse wrong settings at start-up; a file that can't be read now fails the first call instead."""
        if not self.path.is_file():
            return
        try:
            with contextlib.closing(
                sqlite3.connect(f"file:{quote(str(self.path))}?mode=ro", uri=True, timeout=self.timeout)
            ) as db:
                self._is_store(db)
        except sqlite3.Error:
            return
        except _Foreign as error:
            raise ConfigurationError(str(error)) from error

    # --- inside a transaction -----------------------------------------------------------------------------

    def _reading(self, db: sqlite3.Connection, since: dict[str, datetime] | None = None) -> Reading:
        now = self._clock.now()
        """Read the record, which the caller is now told of."""
        self._counted = _counters(db)
        self._told_changes = self._counted[0]
        (members,) = db.execute("SELECT count(*) FROM readonly_member").fetchone()
        return Reading(
            record=_record(db),
            at=now,
            incarnation_seconds=max(0.0, now.timestamp() - self._born),
            members=members,
            here_since=since or {},
        )

    def _hint(self, for_reports: bool) -> bool:
        """Return whether something was committed that the caller has not been told of."""
        try:
            with self._in_transaction:
                db = self._connection()
                (version,) = db.execute("PRAGMA data_version").fetchone()
                if version != self._version:
                    # Most commits are reports that say nothing new; the counters tell them from the others.
                    self._counted = _counters(db)
                    self._version = version
        except (sqlite3.Error, OSError, _Foreign) as error:
            if _code(error) == sqlite3.SQLITE_BUSY:
                return False  # somebody is writing right now: the next look sees what
            self.close()
            raise StoreUnreachable(self._explain(error)) from error
        changes, reports = self._counted
        hint = changes != self._told_changes or (for_reports and reports != self._told_reports)
        self._told_changes = changes
        if for_reports:
            self._told_reports = reports
        return hint

    def _explain(self, error: Exception) -> str:
        start = f"store {redacted(self.url)}: "
        code = _code(error)
        if isinstance(error, _Foreign):
            return str(error)
        if isinstance(error, FileNotFoundError):
            if not self.path.parent.is_dir():
                return f"{start}the folder {self.path.parent} does not exist: make it, for the site's user"
            return f"{start}{self.path} does not exist: the site makes it when it starts, a command never does"
        if isinstance(error, PermissionError) or code in (
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_PERM,
        ):
            return start + self._explain_permission(error)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return f"{start}{self.path} has been locked by another process for {self.timeout:g} s: try again"
        if code == sqlite3.SQLITE_FULL:
            return f"{start}the disk under {self.path} is full, so nothing can be written: make room"
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return (
                f"{start}{self.path} can't be read as a database ({error}): put it aside, and those processes "
                "that know the state write it into a new one"
            )
        return f"{start}{self.path}: {error}"

    def _explain_permission(self, error: Exception) -> str:
        user = _user_name(getattr(os, "geteuid", lambda: -1)())
        for place, rights, verb in (
            (self.path, os.W_OK, "write to"),
            (self.path.parent, os.W_OK | os.X_OK, "make files in"),
        ):
            if place.exists() and not os.access(place, rights):
                owner = _user_name(place.stat().st_uid)
                return (
                    f"the user {user} may not {verb} {place}, which belongs to {owner}: try again as that "
                    f"user, sudo -u {owner} …, and name the store there, since sudo drops READONLY_STORE"
                )
        return f"{self.path} can't be opened for writing by the user {user} ({error})"


def _code(error: Exception) -> int:
    """Return SQLite's primary result code, 0 for an error that is not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _record(db: sqlite3.Connection) -> bytes | None:
    row = db.execute("SELECT record FROM readonly_record").fetchone()
    return None if row is None else bytes(row[0])


def _counters(db: sqlite3.Connection) -> tuple[int, int]:
    found = dict(db.execute("SELECT key, value FROM readonly_meta WHERE key IN ('changes', 'announced')"))
    return found["changes"], found["announced"]


def _count(db: sqlite3.Connection, what: str) -> None:
    db.execute("UPDATE readonly_meta SET value = value + 1 WHERE key = ?", (what,))


def _instant(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)


def _user_name(uid: int) -> str:
    try:
        import pwd  # not on Windows

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return str(uid)
