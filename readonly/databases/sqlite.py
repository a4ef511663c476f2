"""SQLite: what a connection is told so that it can't write, and a copy of the file that readers can be sent to.

SQLite has no server, so nothing here stops another program: only the connections of processes that obey.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from readonly.errors import Error

# Exactly SQLITE_READONLY. Its extended codes (moved file, hot journal) are damage, not a refused write.
REFUSED = 8
# BUSY, LOCKED, IOERR, CORRUPT, CANTOPEN, NOTADB: this file can't be read from now.
_UNFIT_CODES = frozenset({5, 6, 10, 11, 14, 26})
# BUSY, LOCKED: somebody writes there.
_LOCKED = frozenset({5, 6})
_BEGIN_TO_WRITE = re.compile(r"\s*begin\s+(immediate|exclusive)\b", re.IGNORECASE)
_LIFTS_GUARD = re.compile(r"\s*pragma\s+(\w+\s*\.\s*)?query_only\s*[=(]", re.IGNORECASE)
MARKER = "readonly_copy"


class SQLite:
    """The guard of SQLite, through sqlite3 and aiosqlite: `PRAGMA query_only`."""

    name = "sqlite"
    lasting = True
    trial = "SELECT count(*) FROM sqlite_master"  # SELECT 1 does not touch the file

    def guard(self, connection: Any, memory: dict[str, Any]) -> None:
        """Make this connection refuse writes, whoever runs them."""
        if memory.get("guarded"):
            return
        if "found" not in memory:
            memory["found"] = _value(connection, "PRAGMA query_only")
        _run(connection, "PRAGMA query_only = 1")
        memory["guarded"] = True

    def restore(self, connection: Any, memory: dict[str, Any]) -> bool:
        """Put back what `guard` found; True, since SQLite does so at any time."""
        if memory.get("guarded"):
            _run(connection, f"PRAGMA query_only = {int(memory['found'])}")
            memory["guarded"] = False
        return True

    def is_idle(self, connection: Any) -> bool:
        """Tell whether the driver knows that no transaction is open; a COMMIT that found a lock leaves it open."""
        driver = getattr(connection, "driver_connection", connection)  # aiosqlite, as SQLAlchemy adapts it
        return getattr(driver, "in_transaction", None) is False

    def softened(self, statement: str) -> str | None:
        """Return a plain BEGIN for one that takes the write lock: under query_only that fails, also for readers."""
        if _LIFTS_GUARD.match(statement):
            return None
        return "BEGIN" if _BEGIN_TO_WRITE.match(statement) else statement

    def is_refusal(self, error: BaseException) -> bool:
        """Tell whether a write was refused (SQLITE_READONLY)."""
        return getattr(error, "sqlite_errorcode", None) == REFUSED

    def is_denied(self, error: BaseException) -> bool:
        """Return False: there are no rights."""
        return False

    def is_unfit(self, error: BaseException) -> bool:
        """Tell whether the file can't be read from now."""
        code = getattr(error, "sqlite_errorcode", None)
        return isinstance(code, int) and code & 0xFF in _UNFIT_CODES

    def table(self, error: BaseException) -> str | None:
        """Return None: SQLite does not say."""
        return None

    def takes_no_writes(self, connection: Any) -> str:
        """Begin to write and roll back, through a connection without the settings of the given one."""
        path = _value(connection, "SELECT file FROM pragma_database_list WHERE name = 'main'")
        if not path:
            return ""  # in memory
        try:
            with closing(_open(Path(path), 0.0)) as own:
                own.isolation_level = None
                own.execute("BEGIN IMMEDIATE")
                # The lock alone is had for a file that can't be written, too. This asks for a writing transaction, and
                # what it would change is a free page, at most.
                own.execute("PRAGMA incremental_vacuum(1)").fetchall()
                own.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == REFUSED:
                return f"the file {path} can't be written by this process"
            if code not in _LOCKED:
                raise
        return ""

    def was_told(self, connection: Any) -> str:
        """Return the same: the file is near."""
        try:
            return self.takes_no_writes(connection)
        except sqlite3.Error:
            return ""

    def is_suspect(self, connection: Any) -> bool:
        """Return False: SQLite opens a file that it can't write without a word."""
        return False

    def prove(self, connection: Any) -> str:
        """Try to make a temporary table: query_only refuses it too, and without it no file would change."""
        try:
            _run(connection, "CREATE TEMPORARY TABLE readonly_proof (x)")
        except Exception as error:
            return "" if self.is_refusal(error) else f"a write failed, but not because it was read-only: {error}"
        _run(connection, "DROP TABLE temp.readonly_proof")
        return "a write was not refused: somebody has set PRAGMA query_only back"


def copy_to_replica(
    primary_path: str | os.PathLike[str],
    replica_path: str | os.PathLike[str],
    *,
    epoch: int,
    timeout: float = 60.0,
) -> None:
    """Copy a database to the file that readers are sent to, while they read it.

    Readers, in this process and in others, see the old copy until the new one is whole, and then the new one: the
    copy is one transaction in a file that is in WAL mode, and each reader's transaction keeps the snapshot it began
    with. (Replacing the file instead would leave pooled connections on the old one for ever.) A copy that was
    interrupted carries no epoch, and nobody is sent to it. Nor is anybody who writes to another file than it was taken
    of: a copy of a file that was restored meanwhile, or of another database, is none of theirs.

    Args:
        primary_path: The database to copy; it may be in use.
        replica_path: Where to. Made if it is not there, with the owner and mode of the primary.
        epoch: The epoch of the record that this copy is taken at: of the `on` whose writes have drained.
        timeout: Seconds to wait for a lock that another program holds on either file.

    Raises:
        Error: The copy can't be made; the message says why. The old copy is then no longer used.
    """
    primary, replica = Path(primary_path), Path(replica_path)
    if not primary.is_file():
        raise Error(f"primary_path={str(primary)!r} is no file: give the path of the database to copy")
    if replica.exists() and replica.samefile(primary):
        raise Error(f"replica_path={str(replica)!r} is the primary itself: give the copy a path of its own")
    # Before the first page is read: a primary that is replaced meanwhile is another one.
    taken_of = identity_of(primary)
    deadline = time.monotonic() + timeout

    def waiting(status: int, remaining: int, total: int) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"a lock was held for more than {timeout:g} s")

    try:
        _prepare(primary, replica)
        with closing(_open(primary, timeout)) as source, closing(_open(replica, timeout)) as copy:
            page_size = _value(source, "PRAGMA page_size")
            if _value(copy, "PRAGMA page_count") == 0:
                _run(copy, f"PRAGMA page_size = {int(page_size)}")
            if _value(copy, "PRAGMA journal_mode = WAL") != "wal":
                raise Error(f"{replica} can't be in WAL mode: it must lie on a local disk")
            if _value(copy, "PRAGMA page_size") != page_size:
                raise Error(f"{replica} has another page size than {primary}: remove it while nobody reads it")
            # All pages in one step: one transaction there, one snapshot here.
            source.backup(copy, pages=-1, progress=waiting, sleep=0.02)
            with copy:
                # Anew: a primary that was a copy once brings its own along.
                _run(copy, f"DROP TABLE IF EXISTS {MARKER}")
                _run(copy, f"CREATE TABLE {MARKER} (epoch INTEGER NOT NULL, taken_at TEXT NOT NULL, taken_of TEXT)")
                copy.execute(
                    f"INSERT INTO {MARKER} VALUES (?, ?, ?)",  # noqa: S608  # our own constant
                    (epoch, datetime.now(UTC).isoformat(timespec="milliseconds"), taken_of),
                )
            _run(copy, "PRAGMA wal_checkpoint(PASSIVE)")
    except (sqlite3.Error, OSError) as error:
        raise Error(f"{primary} could not be copied to {replica}: {error}") from error


def identity_of(path: str | os.PathLike[str]) -> str:
    """Return which file a path leads to here and now, as this machine numbers files; "" where there is none.

    Processes of one site that write to files of two identities write to two databases, whatever their paths are.
    """
    try:
        found = Path(path).stat()
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"


def copied_at(replica_path: str | os.PathLike[str]) -> int | None:
    """Return the epoch that a copy was taken at; None where there is no whole copy, or it can't be read now."""
    try:
        with closing(_open(Path(replica_path), 0.0)) as connection:
            found = _value(connection, f"SELECT max(epoch) FROM {MARKER}")  # noqa: S608  # our own constant
    except (sqlite3.Error, OSError):
        return None
    return found if isinstance(found, int) else None


def _prepare(primary: Path, replica: Path) -> None:
    """Make an empty file that the primary's owner can open: the web server may be another user than the operator."""
    try:
        descriptor = os.open(replica, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return
    try:
        found = primary.stat()
        if os.geteuid() == 0:
            os.fchown(descriptor, found.st_uid, found.st_gid)
        os.fchmod(descriptor, found.st_mode & 0o777)
    finally:
        os.close(descriptor)


def _open(path: Path, timeout: float) -> sqlite3.Connection:
    # mode=rw and not rwc: a file that is gone must not come back empty.
    uri = f"file:{quote(str(path.absolute()))}?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=timeout)


def _value(connection: Any, statement: str) -> Any:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        row = cursor.fetchone()
        return None if row is None else row[0]
    finally:
        cursor.close()


def _run(connection: Any, statement: str) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
    finally:
        cursor.close()
