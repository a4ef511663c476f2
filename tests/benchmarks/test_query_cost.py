"""What guard and routing cost a query, beside a plain Session on an engine of its own, in one interleaved run.

A page is one session with ten queries by primary key, as a page of a site has; the line with a single query shows what
a session's beginning and end cost by themselves. On SQLite it is CPU time of this thread, on PostgreSQL the time that a
page waits. Each ratio is the median of rounds, each of which runs all candidates in turn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from readonly import Switch
from readonly.databases.sqlalchemy import Database
from support.postgres_server import PostgresServer

from .beside import CHANCES, TOLERANCE
from .measuring import FULL, table

pytestmark = pytest.mark.bench

ROUNDS, PAGES = (60, 12) if FULL else (9, 3)
QUERIES = 10
TARGETS = {"writable": 1.05, "read-only": 1.1}
DATABASES = ("sqlite, in memory", "sqlite, a file", "postgresql")


class Base(DeclarativeBase):
    pass


class Story(Base):
    __tablename__ = "story"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


@dataclass(frozen=True)
class Pair:
    """A plain engine, and one like it that is guarded and routed, each with tables of its own."""

    plain: Engine
    guarded: Engine
    switch: Switch
    sessions: type[Session]
    clock: Callable[[], float]

    def ratio(self, queries: int, *, rounds: int = ROUNDS) -> tuple[float, float]:
        """Return what a query costs on the plain engine, in microseconds, and the median of the ratios."""
        candidates: tuple[tuple[type[Session], Engine], ...] = (
            (Session, self.plain),
            (self.sessions, self.guarded),
        )
        times: tuple[list[float], list[float]] = ([], [])
        pages = PAGES * QUERIES // queries
        for _ in range(rounds):
            for (session_class, engine), taken in zip(candidates, times, strict=True):
                began = self.clock()
                for _ in range(pages):
                    page(session_class, engine, queries)
                taken.append(self.clock() - began)
        ratios = [ours / plain for plain, ours in zip(*times, strict=True)]
        return statistics.median(times[0]) / pages / queries * 1e6, statistics.median(ratios)


def page(session_class: type[Session], engine: Engine, queries: int) -> None:
    """Read a page's rows in one session."""
    with session_class(engine) as session:
        for number in range(queries):
            assert session.scalar(select(Story.title).where(Story.id == number)) == "x"


def filled(engine: Engine) -> Engine:
    """Make the table and its rows."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Story(id=number, title="x") for number in range(QUERIES))
        session.commit()
    return engine


@pytest.fixture(params=DATABASES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """A pair on each kind of database in turn."""
    names: list[str] = []
    clock = time.thread_time
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        names = [server.new_database() for _ in range(2)]
        urls = [make_url(server.url(name)).set(drivername="postgresql+psycopg") for name in names]
        clock = time.perf_counter
    else:
        files = [":memory:"] * 2 if "memory" in request.param else [str(tmp_path / name) for name in ("a.db", "b.db")]
        urls = [make_url(f"sqlite:///{name}") for name in files]
    plain, guarded = (filled(create_engine(url)) for url in urls)
    switch = Switch.from_url("memory://?site=bench")
    switch.start()
    assert switch.confirm(timeout=60).safe
    database = Database(guarded, switch)
    yield Pair(plain, guarded, switch, database.routing(Session), clock)
    database.close()
    switch.close()
    for engine in (plain, guarded):
        engine.dispose()
    for name in names:
        server.drop_database(name)


def test_what_a_query_costs(pair: Pair, request: pytest.FixtureRequest) -> None:
    """Writable and read-only; the second only once its guard has proven itself, which takes time of its own."""
    name = request.node.callspec.params["pair"]
    rows, beyond = [], []
    for mode, target in TARGETS.items():
        if mode == "read-only":
            state = pair.switch.on()
            assert pair.switch.confirm(state.epoch, timeout=60).safe
        for queries in (QUERIES, 1):
            pair.ratio(queries, rounds=2)  # caches fill
            plain, ratio = pair.ratio(queries)
            aimed = target if queries == QUERIES else None
            for _ in range(CHANCES - 1):
                if aimed is None or ratio <= TOLERANCE * aimed:
                    break
                ratio = min(ratio, pair.ratio(queries)[1])
            if aimed is not None and ratio > TOLERANCE * aimed:
                beyond.append(f"{mode}: {ratio:.2f}, the target is {aimed}")
            shown = f"{aimed:.2f}" if aimed is not None else ""
            rows.append((mode, f"{queries}", f"{plain:.0f}", f"{ratio:.3f}", shown))
    table(name, ("mode", "queries a session", "us a query, plain", "ratio", "target"), rows)
    assert not beyond
