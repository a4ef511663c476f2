"""docs/databases.md says what is: its drivers are those that are tested, and what is dropped returns what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, insert, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from readonly import Switch
from readonly.databases.detection import CALM_FIRST_SECONDS, LOOK_CAP_SECONDS, LOOK_FIRST_SECONDS
from readonly.databases.mysql import REFUSED
from readonly.databases.postgresql import POOLERS, UNGUARDED
from readonly.databases.sqlalchemy import Database
from readonly.testing import memory_switch

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "databases.md").read_text(encoding="utf-8")
DROPPED = dict(re.findall(r"^\| `((?:session|user|connection)[^`]+)` \| (.+) \|$", TEXT, re.MULTILINE))


class Base(DeclarativeBase):
    pass


class PageView(Base):
    __tablename__ = "page_view"
    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str | None]


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    last_seen: Mapped[int]


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A guarded engine of a site that is read-only, with a user and a view."""
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([User(id=1, last_seen=1), PageView(id=1, path="/")])
        session.commit()
    switch: Switch = memory_switch(read_only=True)
    database = Database(engine, switch, discard=["page_view", "user.last_seen"])
    yield engine
    database.close()
    switch.close()
    engine.dispose()


def _added(session: Session) -> None:
    view = PageView(path="/x")
    session.add(view)
    session.flush()
    assert view not in session
    assert not view.id


def _deleted(session: Session) -> None:
    view = session.get_one(PageView, 1)
    session.delete(view)
    session.flush()
    assert view in session


def _changed(session: Session) -> None:
    user = session.get_one(User, 1)
    user.last_seen = 7
    session.flush()
    assert user.last_seen == 1


def _inserted(session: Session) -> None:
    result: Any = session.execute(insert(PageView).values(path="/x"))
    assert (result.rowcount, result.inserted_primary_key) == (0, None)
    assert session.execute(insert(PageView).values(path="/x").returning(PageView.id)).all() == []


def _updated(session: Session) -> None:
    user = session.get_one(User, 1)
    result: Any = session.execute(update(User).values(last_seen=7))
    assert (result.rowcount, user.last_seen) == (0, 1)


def _on_connection(session: Session) -> None:
    connection = session.connection()
    assert connection.execute(insert(PageView).values(path="/x")).all() == []
    result = connection.execute(insert(PageView).values(path="/x").returning(PageView.path))
    assert (list(result.keys()), result.all()) == (["path"], [])


DOES = {
    "session.add(PageView())": _added,
    "session.delete(view)": _deleted,
    "user.last_seen = now": _changed,
    "session.execute(insert(PageView))": _inserted,
    "session.execute(update(User))": _updated,
    "connection.execute(insert(PageView))": _on_connection,
}


def test_each_row_is_tried() -> None:
    """No row of the table is only words."""
    assert set(DROPPED) == set(DOES)


@pytest.mark.parametrize("what", DOES)
def test_what_a_dropped_write_returns(what: str, engine: Engine) -> None:
    """As its row says, and the tables are as they were."""
    with Session(engine) as session:
        DOES[what](session)
        session.commit()
        session.expire_all()
        assert [(v.id, v.path) for v in session.query(PageView)] == [(1, "/")]
        assert [u.last_seen for u in session.query(User)] == [1]


def test_the_drivers_are_those_that_are_tested() -> None:
    """A driver more or less shows here."""
    folder = Path(__file__).resolve().parents[1] / "databases"
    tested = re.search(
        r"^SQLITE = (.+)\nPOSTGRES = (.+)\nMYSQL = (.+)$", (folder / "conftest.py").read_text(), re.MULTILINE
    )
    assert tested is not None
    kinds = set(re.findall(r'"(\w+)"', tested[0])) - {"psycopg_async"}
    named = {name for row in re.findall(r"^\|.+`PRAGMA.+|^\| (?:PostgreSQL|MariaDB).+", TEXT, re.MULTILINE)
             for name in re.findall(r"`(\w+)`", row.split("|")[2])}  # fmt: skip
    assert named == kinds


def test_words_and_numbers() -> None:
    """What is quoted is what is said."""
    assert f"`not guarded: main in {UNGUARDED}`" in TEXT
    for pooler in POOLERS:
        assert f'| `"{pooler}"` |' in TEXT
    assert f"every {LOOK_FIRST_SECONDS:g} s at first and every {LOOK_CAP_SECONDS:g} s later" in TEXT
    assert CALM_FIRST_SECONDS == 1.0
    assert all(str(code) in TEXT for code in REFUSED)
