"""The two files of an SQLite store: opened, examined, made, and watched for being deleted, replaced or forked.

Both keep a rollback journal, not a write-ahead log. A process that was forked from one that had a file open
believes in locks that only its parent holds; with a write-ahead log, which is guarded by locks that last as long as
a connection, a commit made there was lost when the parent closed its own connection (tried with SQLite 3.40). With
a rollback journal locks last for one transaction, so only a fork in the middle of one is dangerous, and forks wait
for its end. Also, nothing is left beside the files that another user, who typed a command, would own.
"""

# ruff: noqa: S608 - what is put into these statements are our own words
# Paths are strings here (hence PTH…): they are looked at fifty times a second, and a Path costs twice as much.

from __future__ import annotations

import contextlib
import os
import random
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from readonly.clock import Clock
from readonly.errors import ConfigurationError, StoreUnreachable

from . import automatic_record, redacted

# Of our own: a thread that draws from everybody's would change what a program draws that has seeded it.
_random = random.SystemRandom()  # which forked processes draw from apart
LOCK_POLL_SECONDS = 0.002
# A file's time of change is a few milliseconds coarse: one this recent does not prove that nothing came after it.
RECENT_SECONDS = 0.05
# "read" in the file's header, so that a person with a hex dump can tell whose it is.
APPLICATION_ID = 0x72656164

MAIN_SCHEMA = (
    "CREATE TABLE main.readonly_meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    "CREATE TABLE main.readonly_record (one INTEGER PRIMARY KEY CHECK (one = 1), record BLOB NOT NULL)",
    "CREATE TABLE main.readonly_since (cause TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE main.readonly_forgotten (member TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE main.readonly_log (id INTEGER PRIMARY KEY, log TEXT NOT NULL, entry BLOB NOT NULL)",
    "CREATE INDEX main.readonly_log_by_name ON readonly_log (log, id)",
    f"PRAGMA main.application_id = {APPLICATION_ID}",
)
REGISTRY_SCHEMA = (
    "CREATE TABLE registry.readonly_meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    "CREATE TABLE registry.readonly_member (member TEXT PRIMARY KEY, report BLOB NOT NULL, at REAL NOT NULL,"
    " leaves INTEGER NOT NULL)",
)

Stamp = tuple[int, int, int, int]
NOWHERE: Stamp = (0, 0, 0, 0)

# Connections that a parent process opened: never used here, and never closed, since that would undo locks.
_inherited: list[sqlite3.Connection] = []
# Everybody with a connection, so that a fork can wait for their transactions. uWSGI calls no fork hooks; there only
# a thread that runs in the master before the fork could be caught in a transaction.
_everybody: weakref.WeakSet[Files] = weakref.WeakSet()
_everybody_lock = threading.RLock()
_held: list[Files] = []


def _before_fork() -> None:
    _everybody_lock.acquire()
    _held[:] = list(_everybody)
    for files in _held:
        files._in_transaction.acquire()


def _after_fork() -> None:
    for files in _held:
        files._in_transaction.release()
    _held.clear()
    _everybody_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class Foreign(Exception):
    """A file is somebody else's database."""


class Files:
    """One connection to the record's file, with the registry's file attached to it as `registry`.

    Members report every second, and a commit that waits for the disk takes tens of milliseconds. So their reports
    are in a file of their own, which survives a killed process but need not survive a power failure: that ends
    every member. One transaction still sees both at one moment.

    Args:
        path: The record's file; the registry's is named after it.
        site: The site's name, for a first record.
        create: Make what is not there.
        initialise: Write the first record into a file that is made here.
        timeout: Seconds that one transaction may wait for others.
        url: The store's URL, for messages.
        clock: The store's clock.

    Attributes:
        born: When the younger of the two files came to be where it is, as a timestamp.
        registry_id: What tells this registry from one that was deleted or replaced.
    """

    def __init__(
        self, path: Path, *, site: str, create: bool, initialise: bool, timeout: float, url: str, clock: Clock
    ) -> None:
        self.path = os.fspath(path)
        self.registry = self.path + "-members"
        self.create = create
        # Only a file that nobody knew before gets a first record. One that is gone under a running process is
        # filled by those who know what stood in it.
        self.initialise = initialise
        self.born = 0.0
        self.registry_id = ""
        self._site = site
        self._timeout = timeout
        self._url = url
        self._clock = clock
        self._db: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._opened: tuple[Stamp, Stamp] = (NOWHERE, NOWHERE)
        self._in_transaction = threading.RLock()
        with _everybody_lock:
            _everybody.add(self)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    @contextlib.contextmanager
    def transaction(self, begin: str = "BEGIN", *, synchronous: str = "FULL") -> Iterator[sqlite3.Connection]:
        """Run the body in one transaction, bounded by the timeout; whatever fails is `StoreUnreachable`."""
        deadline = time.monotonic() + self._timeout
        try:
            with self._in_transaction:
                try:
                    db = self._begun(begin, synchronous, deadline)
                    yield db
                    db.execute("COMMIT")
                except BaseException:
                    self._roll_back()
                    raise
        except (sqlite3.Error, OSError, Foreign) as error:
            # Closing ends a transaction that could not be committed, and the next call looks at the files anew.
            self.close()
            raise StoreUnreachable(self._explain(error)) from error

    def stamps(self) -> tuple[Stamp, Stamp]:
        """Return what changes with every commit to the one file and to the other."""
        return _stamp(self.path), _stamp(self.registry)

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

    def refuse_foreign_file(self) -> None:
        """Refuse wrong settings at start-up; a file that can't be read now fails the first call instead.

        Raises:
            ConfigurationError: The file is somebody else's database.
        """
        if not os.path.isfile(self.path):  # noqa: PTH113
            return
        try:
            uri = f"file:{quote(self.path)}?mode=ro"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=self._timeout)) as db:
                self._is_ours(db, "main")
        except sqlite3.Error:
            return
        except Foreign as error:
            raise ConfigurationError(str(error)) from error

    # --- opening ------------------------------------------------------------------------------------------

    def _begun(self, begin: str, synchronous: str, deadline: float) -> sqlite3.Connection:
        """Return the connection with its locks taken; a commit then waits for readers only."""
        while True:
            try:
                db = self._connection()
                # SQLite's own patience grows to 100 ms between two tries: beside busy writers one may never get in.
                db.execute("PRAGMA busy_timeout = 0")
                db.execute(f"PRAGMA main.synchronous = {synchronous}")
                db.execute(begin)
                # A transaction that only reads takes its locks at the first look.
                db.execute(
                    "SELECT (SELECT count(*) FROM main.readonly_meta), (SELECT count(*) FROM registry.readonly_meta)"
                )
            except sqlite3.OperationalError as error:
                if code_of(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
                self._roll_back()
                time.sleep(LOCK_POLL_SECONDS * _random.uniform(0.5, 1.5))
            else:
                db.execute(f"PRAGMA busy_timeout = {max(1, int(1000 * (deadline - time.monotonic())))}")
                return db

    def _roll_back(self) -> None:
        """End a transaction that is still open; one that can't be ended is ended by closing."""
        if self._db is not None and self._pid == os.getpid() and self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def _connection(self) -> sqlite3.Connection:
        """Return the connection to the files that are there now, with no transaction open."""
        # A Ctrl-C that cut through the last one may have cut through its end as well.
        self._roll_back()
        if self._db is not None and (self._pid != os.getpid() or self._identities() != self._opened_identities()):
            # Forked, or a file was deleted or replaced.
            self.close()
        if self._db is None:
            self._db = self._open()
        return self._db

    def _identities(self) -> tuple[tuple[int, int], ...]:
        return tuple(stamp[:2] for stamp in self.stamps())

    def _opened_identities(self) -> tuple[tuple[int, int], ...]:
        return tuple(stamp[:2] for stamp in self._opened)

    def _open(self) -> sqlite3.Connection:
        self._pid = os.getpid()
        if self.create:
            _make_empty(self.path)
            _make_empty(self.registry)
        self._opened = self.stamps()
        if self._opened[0] == NOWHERE:
            raise FileNotFoundError(2, "no such file", self.path)
        db = sqlite3.connect(
            f"file:{quote(self.path)}?mode=rw",
            uri=True,
            timeout=0,
            isolation_level=None,
            # One thread at a time, but not always the same one.
            check_same_thread=False,
        )
        try:
            self.born = max(self._examine(db, "main"), self._attach_registry(db))
        except BaseException:
            db.close()
            raise
        self.initialise = False
        return db

    def _attach_registry(self, db: sqlite3.Connection) -> float:
        """Attach the registry, learn its id, put a broken one aside, and return when it was born."""
        # A command finds no members where there is no registry, and makes none.
        there = self._opened[1] != NOWHERE
        try:
            db.execute("ATTACH ? AS registry", (f"file:{quote(self.registry)}?mode=rw" if there else ":memory:",))
            db.execute("PRAGMA registry.synchronous = OFF")
            born = self._examine(db, "registry", make=self.create or not there)
            (found,) = db.execute("PRAGMA registry.quick_check(1)").fetchone()
            (made,) = db.execute("SELECT value FROM registry.readonly_meta WHERE key = 'id'").fetchone()
            broken = found != "ok"
        except sqlite3.DatabaseError as error:
            if not self.create or code_of(error) not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            broken = True
        if broken:
            # A power failure may do that. Members report again to a new one, and until then it is young.
            os.replace(self.registry, self.registry + ".broken")  # noqa: PTH105
            raise sqlite3.DatabaseError("the registry of members was broken; the next call makes a new one")
        # A copy that was put back has another inode, a file made anew another id.
        self.registry_id = f"{self._opened[1][1]}-{made}"
        return born

    def _examine(self, db: sqlite3.Connection, name: str, *, make: bool | None = None) -> float:
        """Make sure that a file is ours, make it so where that is allowed, and return when it was born."""
        make = self.create if make is None else make
        if not self._is_ours(db, name):
            if not make:
                raise sqlite3.DatabaseError("the file is empty: no site has opened it yet")
            with _immediate(db):
                if not self._is_ours(db, name):  # else another process was faster
                    self._make(db, name)
        meta = dict(db.execute(f"SELECT key, value FROM {name}.readonly_meta"))
        inode = self._opened[0 if name == "main" else 1][1]
        if meta["inode"] == inode:
            return float(meta["born"])
        # Put back from a backup: what stands in it may be older than what members know.
        born = self._clock.now().timestamp()
        if make:
            with _immediate(db):
                db.execute(f"UPDATE {name}.readonly_meta SET value = ? WHERE key = 'born'", (born,))
                db.execute(f"UPDATE {name}.readonly_meta SET value = ? WHERE key = 'inode'", (inode,))
        return born

    def _is_ours(self, db: sqlite3.Connection, name: str) -> bool:
        """Return whether our tables are there; False for an empty file."""
        kinds = "type IN ('table', 'view')"
        tables = {table for (table,) in db.execute(f"SELECT name FROM {name}.sqlite_master WHERE {kinds}")}
        foreign = sorted(t for t in tables if not t.startswith(("readonly_", "sqlite_")))
        if foreign:
            path = self.path if name == "main" else self.registry
            raise Foreign(
                f"store {redacted(self._url)}: {path} holds the table {foreign[0]!r}, so it is somebody's database. "
                "The record never lives in the database under maintenance: name a file that holds nothing else"
            )
        return "readonly_meta" in tables

    def _make(self, db: sqlite3.Connection, name: str) -> None:
        for statement in MAIN_SCHEMA if name == "main" else REGISTRY_SCHEMA:
            db.execute(statement)
        now = self._clock.now()
        inode = self._opened[0 if name == "main" else 1][1]
        meta = {"born": now.timestamp(), "inode": inode, "changes": 0, "id": secrets.token_hex(8)}
        db.executemany(f"INSERT INTO {name}.readonly_meta VALUES (?, ?)", meta.items())
        if name == "main" and self.initialise:
            record = automatic_record(self._site, at=now, by="SQLite store")
            db.execute("INSERT INTO readonly_record VALUES (1, ?)", (record,))

    # --- words --------------------------------------------------------------------------------------------

    def _explain(self, error: Exception) -> str:
        if isinstance(error, Foreign):
            return str(error)
        return f"store {redacted(self._url)}: {self._what(error)}"

    def _what(self, error: Exception) -> str:
        code = code_of(error)
        folder = os.path.dirname(self.path)  # noqa: PTH120
        if isinstance(error, FileNotFoundError):
            if not os.path.isdir(folder):  # noqa: PTH112
                return f"the folder {folder} does not exist: make it, for the site's user"
            return f"{self.path} does not exist: the site makes it when it starts, a command never does"
        if isinstance(error, PermissionError) or code in (
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_PERM,
        ):
            return self._who_may_not(error, folder)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return f"{self.path} has been locked by another process for {self._timeout:g} s: try again"
        if code == sqlite3.SQLITE_FULL:
            return f"the disk under {self.path} is full, so nothing can be written: make room"
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return (
                f"{self.path} can't be read as a database ({error}): put it aside, and those processes that know "
                "the state write it into a new one"
            )
        return f"{self.path}: {error}"

    def _who_may_not(self, error: Exception, folder: str) -> str:
        user = _user_name(getattr(os, "geteuid", lambda: -1)())
        for place, rights, verb in (
            (self.path, os.W_OK, "write to"),
            (self.registry, os.W_OK, "write to"),
            (folder, os.W_OK | os.X_OK, "make files in"),
        ):
            if os.path.exists(place) and not os.access(place, rights):  # noqa: PTH110
                owner = _user_name(os.stat(place).st_uid)  # noqa: PTH116
                return (
                    f"the user {user} may not {verb} {place}, which belongs to {owner}: try again as that user, "
                    f"sudo -u {owner} …, and name the store there, since sudo drops READONLY_STORE"
                )
        return f"{self.path} can't be opened for writing by the user {user} ({error})"


def is_recent(stamp: Stamp) -> bool:
    """Return whether a file changed so lately that its time of change may not show the next change."""
    return stamp[2] > (time.time() - RECENT_SECONDS) * 1e9


def code_of(error: Exception) -> int:
    """Return SQLite's primary result code, 0 for an error that is not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return NOWHERE
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


def _make_empty(path: str) -> None:
    # Not by SQLite, which would also fill in a file that somebody else is just making.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


@contextlib.contextmanager
def _immediate(db: sqlite3.Connection) -> Iterator[None]:
    # A failure ends in closing the connection, which rolls back.
    db.execute("BEGIN IMMEDIATE")
    yield
    db.execute("COMMIT")


def _user_name(uid: int) -> str:
    try:
        import pwd  # not on Windows

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return str(uid)
