"""Routing: which server a session's transaction reads from, for how long, and who may write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from readonly import ReadOnlyError, Switch
from readonly.context import Work, working
from readonly.databases.replicas import sqlite as copies
from readonly.databases.sqlalchemy import Database
from readonly.databases.sqlite import copy_to_replica
from support.looking import left_out_for_good
from support.waiting import eventually

from .conftest import SQLITE, Client
from .models import Story


class Site:
    """A guarded primary with one file as its replica, and a session class that is routed."""

    def __init__(self, client: Client, replica: Client, switch: Switch, folder: Path, **options: Any) -> None:
        self.client, self.replica, self.switch = client, replica, switch
        self.primary_path, self.replica_path = folder / "site.db", folder / "replica.db"
        self.database = Database(client.engine, switch, replicas=[replica.engine], **options)
        self.session_class = self.database.routing(Session)

    def session(self, body: Callable[[Session], Any], **options: Any) -> Any:
        return self.client.session(body, self.session_class, **options)

    def copy(self, epoch: int) -> None:
        copy_to_replica(self.primary_path, self.replica_path, epoch=epoch)

    def mark_primary(self, title: str = "on the primary") -> None:
        """Change the primary behind everybody's back, as a migration would, to tell it from the copy."""
        engine = create_engine(f"sqlite:///{self.primary_path}")
        with engine.begin() as connection:
            connection.execute(text("UPDATE story SET title = :title WHERE id = 1"), {"title": title})
        engine.dispose()

    def reads(self, **options: Any) -> str:
        title: str = self.session(_title, **options)
        return title


def _title(session: Session) -> str:
    return session.scalars(select(Story.title).where(Story.id == 1)).one()


@pytest.fixture(params=SQLITE)
def make_site(
    request: pytest.FixtureRequest,
    make_client: Callable[..., Client],
    switch: Switch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Site]]:
    """Make the site; the replica's file is not there until it is copied."""
    made: list[Site] = []

    # Whoever closes a file locks others out for a moment, and the process looks at its copies when it reports.
    def make(*, lock_seconds: float = 30.0, **options: Any) -> Site:
        monkeypatch.setattr(copies, "LOCK_SECONDS", lock_seconds)
        client = make_client(request.param)
        replica = Client(
            request.param, f"sqlite:///{tmp_path}/replica.db", beside=client, connect_args={"timeout": lock_seconds}
        )
        made.append(Site(client, replica, switch, tmp_path, **options))
        return made[-1]

    yield make
    for site in made:
        site.database.close()
        site.replica.close()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """The site with nothing special."""
    return make_site()


@pytest.fixture
def frozen(site: Site, switch: Switch) -> Site:
    """The site, read-only and copied; the primary has moved on since."""
    site.copy(switch.on().epoch)
    site.mark_primary()
    return site


def test_reads_go_to_the_replica_while_read_only(frozen: Site, switch: Switch) -> None:
    """And back to the primary after it."""
    assert frozen.reads() == "first"
    switch.off()
    assert frozen.reads() == "on the primary"


def test_a_copy_of_an_earlier_time_is_not_read(site: Site, switch: Switch) -> None:
    """A replica must have reached this read-only time; until then the primary is read."""
    site.copy(switch.on().epoch)
    switch.off()
    site.mark_primary()
    state = switch.on()
    assert site.reads() == "on the primary"
    site.copy(state.epoch)
    site.mark_primary("later")
    _probe_again(site)
    assert site.reads() == "on the primary"


def test_a_copy_taken_under_an_earlier_cause_of_the_same_time(frozen: Site, switch: Switch) -> None:
    """A second operator's `on` changes nothing about what is committed."""
    switch.on(by="somebody else")
    assert frozen.reads() == "first"


def test_no_copy_yet(site: Site, switch: Switch) -> None:
    """Without a copy the primary is read, and no empty file is made in its place."""
    switch.on()
    assert site.reads() == "first"
    assert not site.replica_path.exists()


def test_a_copy_that_vanishes(frozen: Site) -> None:
    """A file that is gone sends readers to the primary within a moment."""
    assert frozen.reads() == "first"
    for path in frozen.replica_path.parent.glob("replica.db*"):
        path.unlink()
    _probe_again(frozen)
    assert frozen.reads() == "on the primary"


def test_a_transaction_keeps_its_server_across_on(site: Site, switch: Switch) -> None:
    """Begun while writable: on the primary to its end, the first statement before the switch or after."""

    def body(session: Session) -> None:
        assert _title(session) == "first"
        site.copy(switch.on().epoch)
        site.mark_primary() if site.client.kind == "sqlite3" else None
        assert session.connection().engine is site.client.sync_engine
        session.rollback()
        assert session.connection().engine is site.replica.sync_engine

    # The body blocks the loop only for the switch, which has a thread of its own.
    site.session(body)


def test_a_transaction_that_was_begun_but_not_used(site: Site, switch: Switch) -> None:
    """The choice is made when it is created."""

    def body(session: Session) -> None:
        session.begin()
        site.copy(switch.on().epoch)
        assert session.connection().engine is site.client.sync_engine

    site.session(body)


def test_a_transaction_keeps_its_server_across_off(frozen: Site, switch: Switch) -> None:
    """Begun on the replica: it reads one copy to its end, and a write in it is refused."""

    def body(session: Session) -> None:
        story = session.get_one(Story, 1)
        switch.off()
        assert session.connection().engine is frozen.replica.sync_engine
        story.title = "x"
        with pytest.raises(ReadOnlyError):
            session.flush()
        session.rollback()
        session.get_one(Story, 1).title = "x"
        session.commit()

    frozen.session(body)
    assert frozen.reads() == "x"


def test_a_switch_between_the_choice_and_the_transaction(frozen: Site, switch: Switch) -> None:
    """`Session.execute` asks for the bind and then begins: the first connection decides for the rest."""

    class Slow(frozen.session_class):  # type: ignore[name-defined]  # the base is made at run time
        def get_bind(self, *args: Any, **kwargs: Any) -> Any:
            bind = super().get_bind(*args, **kwargs)
            switch.off()
            return bind

    def body(session: Session) -> None:
        assert _title(session) == "first"
        assert _title(session) == "first"

    frozen.client.session(body, Slow)


def test_asking_for_the_bind_begins_nothing(frozen: Site) -> None:
    """`session.get_bind()` alone must not begin a transaction."""

    def body(session: Session) -> None:
        assert session.get_bind() is frozen.replica.sync_engine
        with session.begin():
            assert _title(session) == "first"

    frozen.session(body)


def test_writes_never_go_to_the_replica(frozen: Site) -> None:
    """A flush, an ORM statement and raw SQL in a session: refused, marked, and the copy is as it was."""
    work = Work(frozen.switch)

    def body(session: Session) -> None:
        session.add(Story(title="x"))
        with pytest.raises(ReadOnlyError, match="reads from a replica") as refused:
            session.commit()
        session.rollback()
        assert work.escape is refused.value
        with pytest.raises(ReadOnlyError):
            session.execute(update(Story).values(title="x"))
        session.rollback()
        with pytest.raises(ReadOnlyError):
            session.execute(text("DELETE FROM story"))
        session.rollback()
        with pytest.raises(ReadOnlyError):
            session.bulk_save_objects([Story(title="x")])

    with working(work):
        frozen.session(body)
    assert frozen.reads() == "first"
    assert frozen.replica.count() == 1


def test_a_flush_without_a_change_is_no_write(frozen: Site) -> None:
    """An attribute that was set to what it is writes nothing."""

    def body(session: Session) -> None:
        story = session.get_one(Story, 1)
        story.title = "first"
        session.commit()

    frozen.session(body)


def test_work_that_may_write_is_on_the_primary(frozen: Site) -> None:
    """A bypass reads what it writes."""

    def body(session: Session) -> None:
        assert _title(session) == "on the primary"
        session.get_one(Story, 1).title = "by a bypass"
        session.commit()

    with working(Work(frozen.switch, bypass=True)):
        frozen.session(body)
        assert frozen.reads() == "by a bypass"
    assert frozen.reads() == "first"


def test_an_explicit_bind_is_left_alone(frozen: Site) -> None:
    """Who names a server gets that one."""

    def body(session: Session) -> str:
        found = session.execute(select(Story.title), bind_arguments={"bind": frozen.client.sync_engine})
        return str(found.scalar_one())

    assert frozen.session(body) == "on the primary"


@pytest.mark.parametrize("make_site", ["sqlite3"], indirect=True)
def test_other_databases_are_left_alone(frozen: Site, tmp_path: Path) -> None:
    """A session with several binds: only this database's primary is routed."""
    other = create_engine(f"sqlite:///{tmp_path}/other.db")
    try:
        with frozen.session_class(frozen.client.sync_engine, binds={Story: other}) as session:
            assert session.get_bind(Story) is other
            assert session.get_bind() is frozen.replica.sync_engine
        with other.connect() as connection, frozen.session_class(connection) as session:
            assert session.get_bind() is connection
    finally:
        other.dispose()


def test_session_classes_that_choose_binds_themselves(frozen: Site) -> None:
    """Flask-SQLAlchemy's Session overrides get_bind too; ours asks it first."""

    class Theirs(Session):
        asked = 0

        def get_bind(self, mapper: Any = None, clause: Any = None, bind: Any = None, **kwargs: Any) -> Any:
            Theirs.asked += 1
            return bind if bind is not None else frozen.client.sync_engine

    routed = frozen.database.routing(Theirs)
    assert issubclass(routed, Theirs)

    def body(engine: Engine) -> str:
        with routed() as session:
            return _title(session)

    assert frozen.client.call(body) == "first"
    assert Theirs.asked


def test_savepoints_and_flushes_stay_where_the_transaction_is(frozen: Site, switch: Switch) -> None:
    """A nested transaction is no new choice."""

    def body(session: Session) -> None:
        assert _title(session) == "first"
        switch.off()
        with session.begin_nested():
            assert session.connection().engine is frozen.replica.sync_engine

    frozen.session(body)


def test_a_window_or_an_unknown_state_reads_the_primary(
    frozen: Site, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a stored cause no epoch says what a replica must have."""
    assert frozen.reads() == "first"
    from readonly.state import UNKNOWN

    monkeypatch.setattr(type(switch), "state", property(lambda self: UNKNOWN))
    assert frozen.reads() == "on the primary"


def test_always(make_site: Callable[..., Site], switch: Switch) -> None:
    """Sessions that say that they only read may use a replica that has reached the end, while writable."""
    site = make_site(always=True)
    switch.on()
    site.copy(switch.off().epoch)
    site.mark_primary()
    assert site.reads() == "on the primary"
    assert site.reads(info={"reads": True}) == "first"
    site.copy(switch.on().epoch)
    switch.off()
    site.mark_primary("later")
    _probe_again(site)
    assert site.reads(info={"reads": True}) == "later"


def test_without_always_it_is_only_for_the_read_only_time(site: Site, switch: Switch) -> None:
    """A session that only reads is nothing special then."""
    switch.on()
    site.copy(switch.off().epoch)
    site.mark_primary()
    assert site.reads(info={"reads": True}) == "on the primary"


def test_after_close_sessions_go_to_the_primary(frozen: Site) -> None:
    """The classes that were made live on, unrouted."""
    assert frozen.reads() == "first"
    frozen.database.close()
    assert frozen.reads() == "on the primary"
    # Nothing of the guard stays on the replica's pooled connections either.
    frozen.replica.write()
    assert frozen.replica.count() == 2


def test_factories(frozen: Site) -> None:
    """As it is typed: sessionmaker(class_=) and async_sessionmaker(sync_session_class=)."""
    if not isinstance(frozen.client.engine, AsyncEngine):
        with sessionmaker(frozen.client.sync_engine, class_=frozen.session_class)() as session:
            assert _title(session) == "first"
        return
    factory = async_sessionmaker(frozen.client.engine, sync_session_class=frozen.session_class)

    async def read() -> str:
        session: AsyncSession
        async with factory() as session:
            story = await session.get_one(Story, 1)
            session.add(Story(title="x"))
            with pytest.raises(ReadOnlyError):
                await session.commit()
            await session.rollback()
            await session.refresh(story)
            return story.title

    assert frozen.client.runner.run(read()) == "first"


# --- replicas that fail ----------------------------------------------------------------------------------------------


def test_a_copy_is_fit_for_a_site_that_writes(frozen: Site, switch: Switch) -> None:
    """It tells no lag and is taken anew in each read-only time: nothing that anybody need mend meanwhile."""
    assert frozen.reads() == "first"
    switch.off()
    _probe_again(frozen)
    assert frozen.reads() == "on the primary"
    assert [one["unfit"] for one in frozen.database.describe()["replicas"]] == [""]


def test_a_replica_that_can_not_be_opened(frozen: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure sends the next transactions to the primary, and back when it works again."""
    left_out_for_good(monkeypatch)
    [replica] = frozen.database._replicas.all
    replica.failed()
    assert frozen.reads() == "on the primary"
    replica._out_until = 0.0
    assert replica.suspect
    assert frozen.reads() == "first"
    assert not replica.suspect


def test_a_replica_that_is_locked(
    make_site: Callable[..., Site], switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever meets the lock reads the primary, as the next ones do, and then the replica again."""
    left_out_for_good(monkeypatch)
    frozen = make_site(lock_seconds=0.05)
    frozen.copy(switch.on().epoch)
    frozen.mark_primary()

    def reads_the_copy() -> bool:
        [replica] = frozen.database._replicas.all
        replica._out_until = 0.0
        _probe_again(frozen)
        return frozen.reads() == "first"

    eventually(reads_the_copy)
    frozen.replica.dispose()
    locker = create_engine(f"sqlite:///{frozen.replica_path}")
    with locker.connect() as holder:
        # No copy of ours is ever in this mode; another program's lock would look like it. Nobody else may have the
        # file open for the change, and a look in the background may just do.
        eventually(
            lambda: holder.exec_driver_sql("PRAGMA journal_mode = DELETE").scalar() == "delete",
            what="nobody else having the replica open",
            ignoring=OperationalError,
        )
        holder.exec_driver_sql("BEGIN EXCLUSIVE")
        [replica] = frozen.database._replicas.all
        replica._looked_at = time.monotonic() + 60
        assert frozen.reads() == "on the primary"
        assert replica.left_out
        replica._out_until = 0.0
        assert frozen.reads() == "on the primary"
        _probe_again(frozen)
        assert replica.standing is not None
        assert "can't be read now" in replica.standing.problem
    locker.dispose()
    eventually(reads_the_copy)


def _probe_again(site: Site) -> None:
    for replica in site.database._replicas.all:
        replica._looked_at = float("-inf")
