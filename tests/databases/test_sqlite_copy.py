"""The copy of an SQLite file: readers see the old one or the new one, whole, and never an error."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from contextlib import closing
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from readonly import Switch
from readonly.databases.sqlalchemy import Database
from readonly.databases.sqlite import copied_at, copy_to_replica
from readonly.errors import Error
from support.waiting import eventually


@pytest.fixture
def primary(tmp_path: Path) -> Path:
    """A database of a few hundred pages, all rows of one generation."""
    path = tmp_path / "site.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE item (generation INTEGER, filler TEXT)")
        connection.executemany("INSERT INTO item VALUES (?, ?)", [(0, "x" * 400)] * 3000)
    return path


def _generations(path: Path) -> set[int]:
    with closing(sqlite3.connect(path)) as connection:
        return {row[0] for row in connection.execute("SELECT DISTINCT generation FROM item")}


def test_the_copy_holds_what_the_primary_held(primary: Path, tmp_path: Path) -> None:
    """And says which epoch it was taken at; again and again."""
    replica = tmp_path / "replica.db"
    assert copied_at(replica) is None
    copy_to_replica(primary, replica, epoch=3)
    assert copied_at(replica) == 3
    assert _generations(replica) == {0}
    with closing(sqlite3.connect(primary)) as connection, connection:
        connection.execute("UPDATE item SET generation = 1")
        connection.execute("ALTER TABLE item ADD COLUMN added TEXT")
    assert _generations(replica) == {0}
    copy_to_replica(str(primary), str(replica), epoch=5)
    assert copied_at(replica) == 5
    assert _generations(replica) == {1}


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_primaries_of_both_kinds(primary: Path, tmp_path: Path, mode: str) -> None:
    """In WAL mode, what was not checkpointed yet is copied too."""
    replica = tmp_path / "replica.db"
    with closing(sqlite3.connect(primary)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("UPDATE item SET generation = 7")
        connection.commit()
        copy_to_replica(primary, replica, epoch=1)
    assert _generations(replica) == {7}


def test_a_reader_keeps_its_snapshot_and_then_sees_the_new_copy(primary: Path, tmp_path: Path) -> None:
    """A pooled connection follows: it is the same file."""
    replica = tmp_path / "replica.db"
    copy_to_replica(primary, replica, epoch=1)
    with closing(sqlite3.connect(replica)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT max(generation) FROM item").fetchone() == (0,)
        with closing(sqlite3.connect(primary)) as writer, writer:
            writer.execute("UPDATE item SET generation = 1")
        copy_to_replica(primary, replica, epoch=2)
        assert reader.execute("SELECT DISTINCT generation FROM item").fetchall() == [(0,)]
        reader.rollback()
        assert reader.execute("SELECT DISTINCT generation FROM item").fetchall() == [(1,)]


def _read(path: str, reads: Any, stop: Event, found: Any) -> None:
    """Read with one connection, as a pooled one would, count that, and report what was seen."""
    seen = set()
    try:
        with closing(sqlite3.connect(path, timeout=0)) as connection:
            connection.execute("PRAGMA query_only = 1")
            while not stop.is_set():
                rows = connection.execute("SELECT min(generation), max(generation), count(*) FROM item").fetchone()
                seen.add(rows)
                reads.value += 1
    except Exception as error:
        found.put(repr(error))
    else:
        found.put(sorted(seen))


def test_readers_in_other_processes_see_no_error_and_no_half_copy(primary: Path, tmp_path: Path) -> None:
    """Each read is of one generation, all rows of it, without waiting for a lock."""
    replica = tmp_path / "replica.db"
    copy_to_replica(primary, replica, epoch=1)
    context = multiprocessing.get_context("spawn")
    stop, found = context.Event(), context.Queue()
    reads = [context.Value("i", 0) for _ in range(2)]
    readers = [context.Process(target=_read, args=(str(replica), mine, stop, found)) for mine in reads]

    def all_read() -> None:
        """Wait until each has read once more, or was ended by an error."""
        before = [mine.value for mine in reads]
        eventually(
            lambda: all(
                mine.value > count or not reader.is_alive()
                for mine, count, reader in zip(reads, before, readers, strict=True)
            ),
            what="everybody reads",
        )

    with closing(sqlite3.connect(replica)) as first:
        # Whoever opens a file first prepares what all share, and others are locked out for that moment.
        first.execute("SELECT count(*) FROM item").fetchone()
        for reader in readers:
            reader.start()
        all_read()
        for generation in range(1, 16):
            with closing(sqlite3.connect(primary)) as writer, writer:
                writer.execute("UPDATE item SET generation = ?", (generation,))
            copy_to_replica(primary, replica, epoch=generation + 1)
            all_read()
        stop.set()
        results = [found.get(timeout=60) for _ in readers]
    for reader in readers:
        reader.join(60)
    for seen in results:
        assert not isinstance(seen, str), seen
        assert len(seen) > 1
        assert all(low == high and count == 3000 for low, high, count in seen), seen


def test_an_interrupted_copy_carries_no_epoch(primary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old copy's epoch goes with the old copy: nobody is sent to what nobody vouches for."""
    replica = tmp_path / "replica.db"
    copy_to_replica(primary, replica, epoch=1)
    monkeypatch.setattr("readonly.databases.sqlite.MARKER", "not a name")
    with pytest.raises(Error):
        copy_to_replica(primary, replica, epoch=2)
    monkeypatch.undo()
    assert copied_at(replica) is None


def test_a_lock_that_is_not_given_up(primary: Path, tmp_path: Path) -> None:
    """The wait is bounded, and said."""
    replica = tmp_path / "replica.db"
    copy_to_replica(primary, replica, epoch=1)
    with closing(sqlite3.connect(replica)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(Error, match="could not be copied"):
            copy_to_replica(primary, replica, epoch=2, timeout=0.2)
        assert copied_at(replica) == 1


def test_what_can_not_be_copied(primary: Path, tmp_path: Path) -> None:
    """A primary that is not there, itself, and another page size: each by name."""
    with pytest.raises(Error, match="is no file"):
        copy_to_replica(tmp_path / "nowhere.db", tmp_path / "replica.db", epoch=1)
    assert not (tmp_path / "nowhere.db").exists()
    with pytest.raises(Error, match="primary itself"):
        copy_to_replica(primary, primary, epoch=1)
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("PRAGMA page_size = 1024")
        connection.execute("CREATE TABLE x (y)")
    with pytest.raises(Error, match="page size"):
        copy_to_replica(primary, other, epoch=1)


def test_the_copy_belongs_to_whom_the_primary_belongs(primary: Path, tmp_path: Path) -> None:
    """An operator copies as root; the web server must be able to read it."""
    replica = tmp_path / "replica.db"
    primary.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(primary, 65534, 65534)
    copy_to_replica(primary, replica, epoch=1)
    assert replica.stat().st_mode & 0o777 == 0o640
    assert replica.stat().st_uid == primary.stat().st_uid


def test_a_copy_of_another_file_is_not_read(primary: Path, tmp_path: Path, switch: Switch) -> None:
    """However late it was taken: of another database, or of this one before a backup was put in its place."""
    replica, other = tmp_path / "replica.db", tmp_path / "other.db"
    engine, copy = create_engine(f"sqlite:///{primary}"), create_engine(f"sqlite:///{replica}")
    copy_to_replica(primary, replica, epoch=0)
    database = Database(engine, switch, replicas=[copy])

    def unfit(of: Path) -> str:
        copy_to_replica(of, replica, epoch=switch.state.epoch)
        return str(database.describe()["replicas"][0]["unfit"])

    try:
        switch.on()
        assert unfit(primary) == ""
        copy_to_replica(primary, other, epoch=0)
        assert "not a replica of this primary" in unfit(other)
        assert unfit(primary) == ""
        other.replace(primary)
        assert "not a replica of this primary" in str(database.describe()["replicas"][0]["unfit"])
        assert unfit(primary) == ""
    finally:
        database.close()
        engine.dispose()
        copy.dispose()
