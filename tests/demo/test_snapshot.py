"""The demonstration's own look into the database, and the migration it runs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from demo_app import migration, snapshot
from demo_app.snapshot import Difference


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A small database with two tables."""
    path = tmp_path / "some.sqlite"
    run(path, "CREATE TABLE comment (id INTEGER PRIMARY KEY, body TEXT)")
    run(path, "CREATE TABLE page_view (article_id INTEGER PRIMARY KEY, views INTEGER)")
    run(path, "INSERT INTO comment (body) VALUES ('one'), ('two and a half'), ('')")
    run(path, "INSERT INTO page_view VALUES (7, 1)")
    return path


def run(path: Path, statement: str) -> None:
    """Run a statement and commit it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def test_nothing_happened(database: Path) -> None:
    """Two looks at the same database are equal."""
    first = snapshot.take(database)
    assert snapshot.differences(first, snapshot.take(database, like=first)) == []


def test_every_kind_of_change_is_found(database: Path) -> None:
    """A row that came, one that went and one that changed, each by its table."""
    first = snapshot.take(database)
    run(database, "INSERT INTO comment (body) VALUES ('new')")
    run(database, "DELETE FROM comment WHERE id = 1")
    run(database, "UPDATE page_view SET views = 2")
    assert snapshot.differences(first, snapshot.take(database, like=first)) == [
        Difference("comment", 1, "removed"),
        Difference("comment", 4, "added"),
        Difference("page_view", 7, "changed"),
    ]


def test_a_column_that_a_migration_added_does_not_show(database: Path) -> None:
    """Only what was there before is compared, so a backfill is no change and a new row still is."""
    first = snapshot.take(database)
    assert migration.migrate(database) == 3
    assert snapshot.differences(first, snapshot.take(database, like=first)) == []
    run(database, "INSERT INTO comment (body) VALUES ('behind its back')")
    assert len(snapshot.differences(first, snapshot.take(database, like=first))) == 1
    assert migration.unfilled(database) == 1


def test_uncommitted_rows_are_not_there(database: Path) -> None:
    """A snapshot holds what is committed."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("INSERT INTO comment (body) VALUES ('not yet')")
        assert len(snapshot.take(database).rows["comment"]) == 3


def test_the_migration_can_be_started_again(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches, and where it was interrupted the next start goes on."""
    monkeypatch.setattr(migration, "BATCH", 2)
    run(database, "ALTER TABLE comment ADD COLUMN words INTEGER")
    run(database, "UPDATE comment SET words = 1 WHERE id = 1")
    assert migration.migrate(database) == 2
    assert migration.migrate(database) == 0
    assert snapshot.take(database).column("comment", "words") == {1: 1, 2: 4, 3: 0}
