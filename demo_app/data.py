"""The site's files: made and filled before the first process starts, and the copy for readers."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import create_engine, inspect
from sqlalchemy.orm import Session

from demo_app import models, queries
from demo_app.settings import Settings
from readonly.databases.sqlite import copy_to_replica


def prepare(settings: Settings) -> bool:
    """Make what is missing: the folder, the database with its story, a first copy. What is there stays as it is.

    Returns:
        True if the database is new.
    """
    make_folder(settings.database.parent)
    if settings.server:
        return _prepare_server(settings.server_url("psycopg"))
    new = not settings.database.exists()
    if new:
        _fill(settings.database)
    if not settings.replica.exists():
        # Epoch 0 is before every read-only time: no process reads from it until `refresh_replica` has been here.
        refresh_replica(settings, epoch=0)
    return new


def make_folder(folder: Path) -> None:
    """Make the folder, if it is not there."""
    if not folder.exists():
        folder.mkdir(parents=True)
        # Nothing in here belongs into a repository, wherever the folder is put.
        (folder / ".gitignore").write_text("*\n")


def _fill(path: Path) -> None:
    # Under another name until it is complete: a start that is interrupted leaves no half-filled site behind.
    beginning = path.with_suffix(".beginning")
    beginning.unlink(missing_ok=True)
    fill(f"sqlite:///{beginning}")
    beginning.rename(path)


def _prepare_server(url: str) -> bool:
    engine = create_engine(url)
    new = not inspect(engine).has_table(models.Article.__tablename__)
    engine.dispose()
    if new:
        fill(url)
    return new


def fill(url: str) -> None:
    """Make the tables in an empty database and tell the story in them.

    Args:
        url: As SQLAlchemy takes it, with a driver that is not async.
    """
    engine = create_engine(url)
    models.Base.metadata.create_all(engine)
    with Session(engine) as session:
        queries.seed(session)
        session.commit()
    engine.dispose()


def refresh_replica(settings: Settings, *, epoch: int) -> None:
    """Copy the primary to the replica and declare the epoch it was taken at; from then on readers go there.

    Args:
        settings: Where the two files are.
        epoch: Of a read-only time that was confirmed, so that the copy holds every write there was.
    """
    copy_to_replica(settings.database, settings.replica, epoch=epoch)
