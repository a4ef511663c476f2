"""A store in an SQLite file: for several processes on one machine, without a server."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from urllib.parse import parse_qs, quote, unquote, urlsplit

from readonly.clock import Clock, SystemClock
from readonly.errors import ConfigurationError
from readonly.transitions import noted

from . import (
    DEFAULT_ALIVE_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    ENDED_SECONDS,
    FORGOTTEN_SECONDS,
    LATELY_SECONDS,
    SILENT_AT_MOST,
    Census,
    Newcomer,
    Reading,
    Seen,
    neighbours_of,
    preceding,
    redacted,
)
from ._sqlite_files import NOWHERE, Files, is_recent

# SQLite tells nobody about a commit. So many looks at the file cost about half a percent of a core, most of it for
# waking up.
POLL_SECONDS = 0.02
# What `leaves` says of a member; earlier versions take any but the first for the second.
LIVING, LEFT, ENDED = 0, 1, 2
# Until when each member is alive, by its own word; members that nobody has named yet, and until when one of those may
# be alive that were there before; those that are asked to report for their sake. Files of earlier versions lack them.
NEWCOMERS = (
    "CREATE TABLE IF NOT EXISTS registry.readonly_until (member TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS registry.readonly_new (member TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS registry.readonly_asked (member TEXT PRIMARY KEY) WITHOUT ROWID",
)


class SQLiteStore:
    """The `Store` contract over one file, with a second one beside it for what members report.

    They are opened at the first call. The store's clock is the machine's. Its incarnation is as old as the younger
    file: one that was deleted, or put back from a backup, is young again.

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
        self._clock = clock or SystemClock()
        self._files = Files(
            self.path,
            site=site,
            create=create,
            initialise=initialise,
            timeout=timeout,
            url=self.url,
            clock=self._clock,
        )
        # How the files looked when the counters below were read.
        self._stamps = (NOWHERE, NOWHERE)
        # How many changes and announced reports there were, and how many the caller was told of (-1: none yet).
        self._counted = (0, 0)
        self._told_changes = self._told_reports = -1
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._woken = False

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
            ConfigurationError: The path is relative, the file is somebody else's database, or the URL has options
                that this store does not know.
        """
        parts, shown = urlsplit(url), redacted(url)
        unknown = sorted(set(parse_qs(parts.query, keep_blank_values=True)) - {"site"})
        if unknown:
            what = f"{unknown[0]}=" if "@" not in url else "what follows the question mark"
            raise ConfigurationError(f"store={shown!r}: {what} is no option of an SQLite store: leave it out")
        if parts.netloc:
            raise ConfigurationError(
                f"store={shown!r} names a host, and a file has none: write sqlite:////absolute/path (four slashes)"
            )
        path = unquote(parts.path[1:])
        if path in ("", ":memory:"):
            raise ConfigurationError(
                f"store={shown!r} names no file: write sqlite:////absolute/path?site={site}, "
                "or memory:// for a site that is one process"
            )
        if not os.path.isabs(path):  # noqa: PTH117 - of a string that is no path yet
            if shown != url:
                raise ConfigurationError(
                    f"store={shown!r} is relative, and looks as if it held a password: a file needs none. Write "
                    f"sqlite:////absolute/path?site={site} (four slashes)"
                )
            here = Path.cwd()
            meant = here / path
            raise ConfigurationError(
                f"store={shown!r} is relative: from {here} it is {meant}, which "
                f"{'exists' if meant.exists() else 'does not exist'}. "
                f"Write sqlite:///{quote(str(meant))}?site={site} (four slashes) if you mean that one."
            )
        store = cls(path, site=site, create=create, initialise=initialise, timeout=timeout, url=url)
        store._files.refuse_foreign_file()
        return store

    # --- the contract -------------------------------------------------------------------------------------

    def read(self) -> Reading:
        """Read the record. It takes no more than the permission to read, once the files are there."""
        with self._files.transaction() as db:
            return self._reading(db)

    def replace(self, record: bytes, *, was: bytes | None, causes: Sequence[str] = ()) -> Reading:
        """Put `record` in place of `was`, if that is what stands there."""
        # This must be on the disk, the journal's folder included, when it is acknowledged.
        with self._files.transaction("BEGIN IMMEDIATE", synchronous="EXTRA") as db:
            stands = _record(db)
            if stands != was:
                return self._reading(db)
            now = self._now()
            known = {} if stands is None else dict(db.execute("SELECT cause, at FROM readonly_since"))
            since = [(cause, known.get(cause, now)) for cause in set(causes)]
            db.execute("DELETE FROM readonly_since")
            db.executemany("INSERT INTO readonly_since VALUES (?, ?)", since)
            db.execute("INSERT OR REPLACE INTO readonly_record VALUES (1, ?)", (bytes(record),))
            db.execute("UPDATE main.readonly_meta SET value = value + 1 WHERE key = 'changes'")
            return self._reading(db)

    def report(
        self,
        member: str,
        report: bytes,
        *,
        keep_seconds: float,
        alive_seconds: float = DEFAULT_ALIVE_SECONDS,
        announce: bool = False,
        ended: bool = False,
        leaves: bool = False,
        new: Newcomer | None = None,
        names: Sequence[str] = (),
    ) -> Reading:
        """Register a member and read the record."""
        with self._files.transaction("BEGIN IMMEDIATE") as db:
            now = self._now()
            known = db.execute("SELECT 1 FROM readonly_member WHERE member = ?", (member,)).fetchone()
            db.execute("DELETE FROM readonly_member WHERE at < ?", (now - keep_seconds,))
            row = (member, bytes(report), now, LEFT if leaves else ENDED if ended else LIVING)
            db.execute("INSERT OR REPLACE INTO readonly_member VALUES (?, ?, ?, ?)", row)
            if announce:
                db.execute("UPDATE registry.readonly_meta SET value = value + 1 WHERE key = 'changes'")
            if self._files.born > now:
                # A clock that was set back must not keep a file young for as long as it was ahead.
                older = "UPDATE {}.readonly_meta SET value = ? WHERE key = 'born' AND value > ?"
                db.execute(older.format("main"), (now, now))
                db.execute(older.format("registry"), (now, now))
                self._files.born = now
            remembered = "SELECT member, leaves, at FROM readonly_member WHERE leaves = ? OR leaves = ? AND at >= ?"
            others = list(db.execute(remembered, (LIVING, ENDED, now - ENDED_SECONDS)))
            alive = {other for other, how, at in others if how == LIVING and at >= now - alive_seconds}
            near = neighbours_of(member, (other for other, _, _ in others), alive)
            is_noted = self._noted(db, member, now, new, names, joins=known is None)
            # Those that have ended are not waited for.
            until = now + alive_seconds if not (ended or leaves) else 0.0
            db.execute("INSERT OR REPLACE INTO readonly_until VALUES (?, ?)", (member, until))
            found = self._reading(db)
            return replace(found, registry=self._files.registry_id, neighbours=near, noted=is_noted)

    def census(self) -> Census:
        """Read record and registry at one moment: the record can't change while the registry is read."""
        with self._files.transaction() as db:
            since = {cause: _instant(at) for cause, at in db.execute("SELECT cause, at FROM readonly_since")}
            reading = replace(self._reading(db, since), registry=self._files.registry_id)
            rows = db.execute("SELECT member, report, at FROM readonly_member ORDER BY member")
            reports = tuple(Seen(member, report, _instant(at)) for member, report, at in rows)
            self._told_reports = self._counted[1]
            forgotten = frozenset(member for (member,) in db.execute("SELECT member FROM readonly_forgotten"))
            return Census(reading, reports, forgotten)

    def silent(self, *, longer_than: float, shorter_than: float, before: datetime | None = None) -> tuple[Seen, ...]:
        """Return members that have been silent for so long, and have not ended; the last that spoke first."""
        with self._files.transaction() as db:
            now = self._now()
            latest = now - longer_than if before is None else min(now - longer_than, before.timestamp())
            rows = db.execute(
                "SELECT member, report, at FROM readonly_member WHERE leaves = ? AND at < ? AND at > ? "
                "ORDER BY at DESC LIMIT ?",
                (LIVING, latest, now - shorter_than, SILENT_AT_MOST),
            )
            return tuple(Seen(member, report, _instant(at)) for member, report, at in rows)

    def forget(self, member: str) -> None:
        """Take one member off the registry, and remember that a person vouched for it."""
        with self._files.transaction("BEGIN IMMEDIATE") as db:
            now = self._now()
            db.execute("DELETE FROM readonly_member WHERE member = ?", (member,))
            db.execute("DELETE FROM readonly_forgotten WHERE at < ?", (now - FORGOTTEN_SECONDS,))
            db.execute("INSERT OR REPLACE INTO readonly_forgotten VALUES (?, ?)", (member, now))

    def wait(self, timeout: float, *, for_reports: bool = False, member: str = "") -> bool:
        """Wait until the record may have changed since this object last read it, or this member is asked to report."""
        deadline = time.monotonic() + timeout
        while True:
            if self._hint(for_reports, member):
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
        oldest_kept = "SELECT id FROM readonly_log WHERE log = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
        with self._files.transaction("BEGIN IMMEDIATE") as db:
            db.execute("INSERT INTO readonly_log (log, entry) VALUES (?, ?)", (log, bytes(entry)))
            db.execute(f"DELETE FROM readonly_log WHERE log = ? AND id <= ({oldest_kept})", (log, log, keep))  # noqa: S608

    def entries(self, log: str, *, last: int) -> Sequence[bytes]:
        """Return the last entries of a log, oldest first."""
        newest_first = "SELECT entry FROM readonly_log WHERE log = ? ORDER BY id DESC LIMIT ?"
        with self._files.transaction() as db:
            return tuple(entry for (entry,) in db.execute(newest_first, (log, last)))[::-1]

    def settled(self, timeout: float) -> str:
        """Return "": a commit is in the file, and there is no copy of it."""
        return ""

    def warnings(self) -> tuple[str, ...]:
        """Return nothing: it has no such setting."""
        return ()

    def try_write(self) -> None:
        """See whether this user may write to both files."""
        # BEGIN IMMEDIATE is content with a file that can't be written; a statement that changes no row is not.
        with self._files.transaction("BEGIN IMMEDIATE") as db:
            for file in ("main", "registry"):
                db.execute(f"UPDATE {file}.readonly_meta SET value = value WHERE key IS NULL")  # noqa: S608 - ours

    def reopened(self) -> SQLiteStore:
        """Return the same store with a connection of its own."""
        return SQLiteStore(
            self.path,
            site=self.site,
            create=self._files.create,
            initialise=self._files.initialise,
            timeout=self.timeout,
            url=self.url,
            clock=self._clock,
        )

    def close(self) -> None:
        """Close the connection, if this process opened it."""
        self._files.close()

    # --- inside -------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _reading(self, db: sqlite3.Connection, since: dict[str, datetime] | None = None) -> Reading:
        """Read the record, which the caller is now told of."""
        self._count(db)
        self._told_changes = self._counted[0]
        now = self._clock.now()
        lately = now.timestamp() - LATELY_SECONDS
        (members,) = db.execute("SELECT count(*) FROM readonly_member WHERE at >= ?", (lately,)).fetchone()
        return Reading(
            record=_record(db),
            at=now,
            incarnation_seconds=max(0.0, now.timestamp() - self._files.born),
            members=members,
            here_since=since or {},
        )

    def _answer(self, member: str) -> None:
        with self._files.transaction("BEGIN IMMEDIATE") as db:
            db.execute("DELETE FROM readonly_asked WHERE member = ?", (member,))

    def _count(self, db: sqlite3.Connection) -> None:
        counters = "SELECT (SELECT value FROM {0}.readonly_meta WHERE key = 'changes')"
        (changes,) = db.execute(counters.format("main")).fetchone()
        (reports,) = db.execute(counters.format("registry")).fetchone()
        self._counted = (changes, reports)

    def _noted(
        self,
        db: sqlite3.Connection,
        member: str,
        now: float,
        new: Newcomer | None,
        names: Sequence[str],
        *,
        joins: bool,
    ) -> bool:
        """Return whether others know of a member that is new; and take in whom it says to know itself."""
        for statement in NEWCOMERS:
            db.execute(statement)
        db.executemany("DELETE FROM readonly_new WHERE member = ?", [(name,) for name in names])
        if new is None:
            return True
        there = "SELECT u.member, u.at FROM readonly_until u JOIN readonly_member USING (member) WHERE u.member <> ?"
        alive = {other: at for other, at in db.execute(there, (member,)) if at >= now}
        if joins:
            for table in ("until", "new", "asked"):
                gone = f"DELETE FROM readonly_{table} WHERE member NOT IN (SELECT member FROM readonly_member)"  # noqa: S608
                db.execute(gone)
            db.execute("INSERT OR REPLACE INTO readonly_new VALUES (?, ?)", (member, max([now, *alive.values()])))
        row = db.execute("SELECT at FROM readonly_new WHERE member = ?", (member,)).fetchone()
        is_noted = noted(
            left=None if row is None else row[0] - now,
            alone=not alive,
            young=now - self._files.born < new.young_seconds,
        )
        if is_noted:
            db.execute("DELETE FROM readonly_new WHERE member = ?", (member,))
        elif joins:
            asked = [(other,) for other in preceding(member, alive)]
            db.executemany("INSERT OR IGNORE INTO readonly_asked VALUES (?)", asked)
            # Everybody watches this file; the other one changes too often.
            db.execute(
                "INSERT INTO main.readonly_meta VALUES ('asked', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1"
            )
        return is_noted

    def _hint(self, for_reports: bool, member: str) -> bool:
        """Return whether something was committed that the caller has not been told of."""
        # Looked at before the counters are read, so that a commit in between shows at the next look.
        asked = False
        stamps = self._files.stamps()
        watched = range(2 if for_reports else 1)
        if any(stamps[i] != self._stamps[i] or is_recent(stamps[i]) for i in watched) or NOWHERE in stamps:
            with self._files.transaction() as db:
                self._count(db)
                asked = member != "" and _is_asked(db, member)
            if asked:
                self._answer(member)
            self._stamps = stamps
        changes, reports = self._counted
        hint = asked or changes != self._told_changes or (for_reports and reports != self._told_reports)
        self._told_changes = changes
        if for_reports:
            self._told_reports = reports
        return hint


def _is_asked(db: sqlite3.Connection, member: str) -> bool:
    there = "SELECT 1 FROM registry.sqlite_master WHERE name = 'readonly_asked'"
    if db.execute(there).fetchone() is None:
        return False
    return db.execute("SELECT 1 FROM readonly_asked WHERE member = ?", (member,)).fetchone() is not None


def _record(db: sqlite3.Connection) -> bytes | None:
    row = db.execute("SELECT record FROM readonly_record").fetchone()
    return None if row is None else bytes(row[0])


def _instant(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)
