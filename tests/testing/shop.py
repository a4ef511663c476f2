"""A small shop for the walk's tests: one story, which each framework's test spells its own way, and faults to plant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from readonly import Policy, Switch
from readonly.databases.sqlalchemy import Database
from readonly.testing import Example, memory_switch

EXAMPLES: dict[str, Any] = {
    "number": 1,
    "POST /search": Example(form={"words": "boots"}),
    "POST /export": Example(json={"since": 1}),
}
PLANTED = ("cart", "export", "broken")
"""Faults: a GET that writes, a POST that is declared as a read and writes, a page that fails."""

POLICY = Policy(
    exempt=["/healthz"],
    login=["/login"],
    reads=["POST /export"],
    session_cookies=["session"],
    secret="only for tests",
)


class Base(DeclarativeBase):
    """What the shop's tables share."""


class Item(Base):
    """Something to buy."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    views: Mapped[int] = mapped_column(default=0)


class Cart(Base):
    """What somebody wants."""

    __tablename__ = "cart"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[int]


@dataclass
class Shop:
    """What each route does, whatever the framework; `planted` are the faults."""

    engine: Engine
    switch: Switch
    planted: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.sessions = sessionmaker(self.engine)

    def front(self) -> str:
        """Read."""
        with self.sessions() as session:
            return ", ".join(session.scalars(select(Item.name)))

    def item(self, number: int) -> str | None:
        """Read, and count the view in passing: discarded while read-only."""
        with self.sessions.begin() as session:
            name = session.scalar(select(Item.name).where(Item.id == number))
            session.execute(update(Item).where(Item.id == number).values(views=Item.views + 1))
        return name

    def buy(self, number: int) -> str:
        """Write."""
        with self.sessions.begin() as session:
            session.add(Cart(item=number))
        return "bought"

    def cart(self, number: int) -> str:
        """A GET that ought to read, and writes if it is planted."""
        return self.buy(number) if "cart" in self.planted else "empty"

    def search(self, words: str) -> str:
        """Read, by POST."""
        with self.sessions() as session:
            return str(session.scalar(select(Item.name).where(Item.name == words)))

    def export(self) -> str:
        """Declared as a read; writes if it is planted."""
        with self.sessions.begin() as session:
            if "export" in self.planted:
                session.execute(text("INSERT INTO cart (item) VALUES (2)"))
        return "exported"

    def health(self) -> str:
        """Fail while read-only, if it is planted."""
        if "broken" in self.planted and self.switch.state.read_only:
            raise RuntimeError("nobody thought of that")
        return "ok"


def engine_in(folder: Path) -> Engine:
    """Return an engine with the shop's tables, filled."""
    engine = create_engine(f"sqlite:///{folder}/shop.db")
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(Item(name="boots"))
    return engine


@contextmanager
def opened(folder: Path, *planted: str, guarded: bool = True) -> Iterator[Shop]:
    """Yield a shop with a switch of its own and a guard, and close them."""
    engine = engine_in(folder)
    switch = memory_switch()
    database = Database(engine, switch, discard=["item.views"]) if guarded else None
    try:
        yield Shop(engine, switch, frozenset(planted))
    finally:
        switch.close()
        if database is not None:
            database.close()
        engine.dispose()
