"""The SQLite store: the contract, several processes, and files that are not what they should be."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from readonly.errors import ConfigurationError, StoreUnreachable
from readonly.record import Mode
from readonly.record_format import load
from readonly.stores import AUTOMATIC_LINEAGE, ENDED_SECONDS, Store, store_from_url
from readonly.stores.sqlite import SQLiteStore
from readonly.testing import StoreContract, Waiter, count_up, counted, in_child, put, settle
from support.waiting import eventually


class TestSQLiteStore(StoreContract):
    """The contract."""

    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: Path) -> None:
        self.path = tmp_path / "state.db"

    def make_store(self) -> Store:
        # What is tested is order, not this machine's disk.
        return SQLiteStore(self.path, site="shop", timeout=20)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store's URL, in a folder whose name needs quoting."""
    folder = tmp_path / "a folder #1?"
    folder.mkdir()
    return f"sqlite:///{str(folder).replace(' ', '%20').replace('#', '%23').replace('?', '%3F')}/state.db?site=shop"


def path_of(store: Store) -> Path:
    """Return the file behind a store."""
    assert isinstance(store, SQLiteStore)
    return store.path


# --- the first opening ------------------------------------------------------------------------------------


def test_the_site_makes_the_file_and_its_first_record(url: str) -> None:
    """The file is there after the first call and not before, and begins writable; an `init` overrules it."""
    store = store_from_url(url)
    assert not path_of(store).exists()
    record = load(store.read().record or b"")
    assert (record.site, record.mode, record.epoch, record.lineage) == ("shop", Mode.WRITABLE, 1, AUTOMATIC_LINEAGE)
    assert path_of(store).exists()
    assert store.read().incarnation_seconds < 60
    assert {p.name for p in path_of(store).parent.iterdir()} == {"state.db", "state.db-members"}


def test_init_makes_a_file_without_a_record(url: str) -> None:
    """`init` writes the first record itself, so none may be there."""
    store = store_from_url(url, initialise=False)
    assert store.read().record is None
    assert store_from_url(url).read().record is None


def test_opening_again_keeps_what_stands(url: str) -> None:
    """A second process, and a restarted one, find the record; a row that is gone is not written again."""
    store = store_from_url(url)
    put(store, b"1")
    store.close()
    again = store_from_url(url)
    assert again.read().record == b"1"
    with closing(sqlite3.connect(path_of(store))) as db, db:
        db.execute("DELETE FROM readonly_record")
    assert again.read().record is None
    assert store_from_url(url).read().record is None


def test_the_files_mode_is_the_umasks(url: str) -> None:
    """We add no permission that the umask takes away."""
    old = os.umask(0o077)
    try:
        store = store_from_url(url)
        store.read()
    finally:
        os.umask(old)
    assert stat.S_IMODE(path_of(store).stat().st_mode) == 0o600


def test_a_command_creates_nothing(url: str) -> None:
    """It says who makes the file, and leaves none behind, not even an empty one."""
    store = store_from_url(url, create=False)
    for call in (store.read, store.census, lambda: store.wait(1), lambda: store.replace(b"1", was=None)):
        with pytest.raises(StoreUnreachable, match="does not exist: the site makes it when it starts"):
            call()
    assert list(path_of(store).parent.iterdir()) == []
    store_from_url(url).read()
    assert store.read().record is not None


def test_a_command_makes_no_store_of_an_empty_file(url: str) -> None:
    """An empty file is no store, and stays empty."""
    store = store_from_url(url, create=False)
    path_of(store).touch()
    with pytest.raises(StoreUnreachable, match="the file is empty: no site has opened it yet"):
        store.read()
    assert path_of(store).stat().st_size == 0
    assert store_from_url(url).read().record is not None
    assert store.read().record is not None


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """Nobody makes folders."""
    store = SQLiteStore(tmp_path / "no" / "state.db", site="shop")
    with pytest.raises(StoreUnreachable, match=r"the folder .*no does not exist"):
        store.read()


# --- URLs that can't be right -----------------------------------------------------------------------------


def test_a_relative_path_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed in another folder it would mean another file: an empty one, which would be confirmed."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        store_from_url("sqlite:///readonly.db?site=shop")
    assert str(caught.value) == (
        f"store='sqlite:///readonly.db?site=shop' is relative: from {tmp_path} it is {tmp_path}/readonly.db, which "
        f"does not exist. Write sqlite:///{tmp_path}/readonly.db?site=shop (four slashes) if you mean that one."
    )
    (tmp_path / "readonly.db").touch()
    with pytest.raises(ConfigurationError, match="which exists"):
        store_from_url("sqlite:///readonly.db?site=shop")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://srv/state.db?site=shop", "names a host, and a file has none"),
        ("sqlite://?site=shop", "names no file"),
        ("sqlite:///?site=shop", "names no file"),
        ("sqlite:///:memory:?site=shop", "or memory:// for a site that is one process"),
        ("sqlite:////srv/state.db", "does not name one site"),
        ("sqlite:////srv/state.db?site=shop&timeout=3", "timeout= is no option of an SQLite store"),
    ],
)
def test_a_url_that_names_no_store_is_refused(url: str, says: str) -> None:
    """Each is one clear line, when the store is made."""
    with pytest.raises(ConfigurationError, match=says):
        store_from_url(url)


def test_somebody_elses_database_is_refused(url: str) -> None:
    """The record never lives in the database under maintenance, also when that is made later."""
    store = store_from_url(url)
    with closing(sqlite3.connect(path_of(store))) as db:
        db.execute("CREATE TABLE articles (id)")
    with pytest.raises(ConfigurationError, match=r"holds the table 'articles'.*database under maintenance"):
        store_from_url(url)
    with pytest.raises(StoreUnreachable, match="holds the table 'articles'"):
        store.read()
    with closing(sqlite3.connect(path_of(store))) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


def test_a_file_that_is_no_database_is_said_to_be_none(url: str) -> None:
    """It is not overwritten either."""
    store = store_from_url(url)
    path_of(store).write_bytes(b"hello, world. " * 100)
    with pytest.raises(StoreUnreachable, match="can't be read as a database"):
        store_from_url(url).read()
    assert path_of(store).read_bytes().startswith(b"hello")


def test_without_permission_the_owner_is_named() -> None:
    """Reading needs no permission to write; changing does, and the message says whose file it is."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        store = SQLiteStore(folder / "state.db", site="shop")
        store.read()
        store.close()
        store.path.chmod(0o444)

        def as_somebody_else() -> None:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            else:
                folder.chmod(0o555)
            reader = SQLiteStore(store.path, site="shop", create=False)
            stands = reader.read().record
            assert stands is not None
            with pytest.raises(StoreUnreachable, match=r"may not write to .*which belongs to .*sudo -u"):
                reader.replace(b"1", was=stands)
            with pytest.raises(StoreUnreachable, match=r"may not write to .*which belongs to .*sudo -u"):
                reader.try_write()
            site = SQLiteStore(folder / "other.db", site="shop")
            with pytest.raises(StoreUnreachable, match=r"may not make files in .*which belongs to "):
                site.read()

        in_child(as_somebody_else)
        assert store.read().record is not None
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


# --- several processes ------------------------------------------------------------------------------------


def _count_in_process(url: str, times: int) -> None:
    store = store_from_url(url, timeout=20)
    count_up(store, times)
    store.report(f"m{os.getpid()}", b"{}", keep_seconds=60)


@pytest.mark.parametrize("start", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_several_processes_lose_no_change(url: str, start: str) -> None:
    """Four processes add one fifty times each; the sum is right, and each is a member."""
    context: Any = multiprocessing.get_context(start)
    store = store_from_url(url, initialise=False, timeout=20)
    if start == "fork":
        put(store, b"")
        waiter = Waiter(store.reopened())
    processes = [context.Process(target=_count_in_process, args=(url, 50)) for _ in range(4)]
    if start == "spawn":
        put(store, b"")
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert counted(store) == 200
    assert len(store.census().reports) == 4
    if start == "fork":
        assert waiter.result() is True


def test_a_childs_commit_survives_its_parents_close(url: str) -> None:
    """With a write-ahead log it did not: the child wrote behind locks that only the parent held."""
    store = store_from_url(url)
    put(store, b"")
    store.read()
    ready, closed = os.pipe(), os.pipe()

    def child() -> None:
        count_up(store, 1)
        os.write(ready[1], b"x")
        os.read(closed[0], 1)
        count_up(store, 1)

    child_process = multiprocessing.get_context("fork").Process(target=child)
    child_process.start()
    os.read(ready[0], 1)
    store.close()
    os.write(closed[1], b"x")
    child_process.join()
    assert child_process.exitcode == 0
    assert counted(store_from_url(url)) == 2
    for end in (*ready, *closed):
        os.close(end)


def test_a_locked_file_is_unreachable_within_the_timeout(url: str) -> None:
    """A transaction that somebody holds open costs each caller the timeout, and says so; waiting goes on."""
    store = store_from_url(url, timeout=0.2)
    put(store, b"1")
    settle(store)
    with closing(sqlite3.connect(path_of(store), isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(StoreUnreachable, match=r"locked by another process for 0\.2 s"):
            store.report("m", b"{}", keep_seconds=60)
        assert time.monotonic() - began < 60
        db.execute("ROLLBACK")
    assert store.report("m", b"{}", keep_seconds=60).record == b"1"
    with closing(sqlite3.connect(path_of(store), isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        assert store.wait(0.3) is False
        db.execute("ROLLBACK")


# --- files that go away -----------------------------------------------------------------------------------


def test_a_file_deleted_under_a_running_process_is_young_and_empty(url: str) -> None:
    """No first record: those who know what stood there write it back, and new processes wait for them."""
    store = store_from_url(url)
    put(store, b"1")
    settle(store)
    path_of(store).unlink()
    assert store.wait(60) is True
    reading = store.read()
    assert (reading.record, reading.members) == (None, 0)
    assert reading.incarnation_seconds < 60
    assert store.replace(b"1", was=None).record == b"1"
    assert store_from_url(url).read().record == b"1"


def test_of_two_processes_that_lost_the_file_one_makes_it(url: str) -> None:
    """Both see the same new file; a command that has it open says that it is gone, and makes none."""
    one, other, command = store_from_url(url), store_from_url(url), store_from_url(url, create=False)
    put(one, b"1")
    assert other.read().record == command.read().record == b"1"
    path_of(one).unlink()
    with pytest.raises(StoreUnreachable, match="does not exist"):
        command.read()
    put(one, b"2")
    assert other.read().record == command.read().record == b"2"


@pytest.mark.parametrize("harm", ["deleted", "overwritten", "torn"])
def test_a_lost_registry_is_made_anew_and_the_record_stays(tmp_path: Path, harm: str) -> None:
    """Members' reports may be lost in a power failure: they are asked for again, and the registry is another one."""
    clock = SteppingClock()
    store = SQLiteStore(tmp_path / "state.db", site="shop", clock=clock)
    put(store, b"1", "a")
    clock.step(timedelta(hours=1))
    for number in range(50):
        before = store.report(f"m{number}", b"x" * 1000, keep_seconds=60)
    registry = path_of(store).with_name("state.db-members")
    if harm == "deleted":
        registry.unlink()
    elif harm == "overwritten":
        registry.write_bytes(b"nonsense " * 10000)
    else:
        whole = registry.read_bytes()
        registry.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 4) + whole[len(whole) * 3 // 4 :])
        store.close()
    after = eventually(
        lambda: store.report("m", b"{}", keep_seconds=60), ignoring=StoreUnreachable, what="a new registry"
    )
    assert (after.record, after.members) == (b"1", 1)
    assert after.registry != before.registry
    assert after.incarnation_seconds < before.incarnation_seconds
    assert store.reopened().report("m", b"{}", keep_seconds=60).registry == after.registry
    assert set(store.census().reading.here_since) == {"a"}
    settle(store)
    assert put(store.reopened(), b"2").record == b"2"
    assert store.wait(60) is True


def test_a_command_finds_no_members_without_a_registry(url: str) -> None:
    """It makes none, and reads the record all the same."""
    store = store_from_url(url)
    put(store, b"1")
    store.close()
    registry = path_of(store).with_name("state.db-members")
    registry.unlink()
    command = store_from_url(url, create=False)
    assert (command.read().record, command.census().reports) == (b"1", ())
    assert not registry.exists()
    store.report("m", b"{}", keep_seconds=60)
    assert [seen.member for seen in command.census().reports] == ["m"]


def test_a_persons_word_about_a_member_outlives_the_registry(url: str) -> None:
    """It is on record with the site's, since a lost registry is when it is asked for."""
    store = store_from_url(url)
    store.report("m", b"{}", keep_seconds=60)
    store.forget("m")
    path_of(store).with_name("state.db-members").unlink()
    assert store.census().forgotten == {"m"}


def test_a_file_that_was_put_back_is_young(url: str, tmp_path: Path) -> None:
    """A backup may know less than the members do, whatever its age."""
    clock = SteppingClock()
    store = SQLiteStore(tmp_path / "state.db", site="shop", clock=clock)
    put(store, b"1")
    clock.step(timedelta(hours=1))
    assert store.read().incarnation_seconds == pytest.approx(3600, abs=300)
    shutil.copy(store.path, tmp_path / "backup.db")
    put(store, b"2")
    (tmp_path / "backup.db").replace(store.path)
    command = SQLiteStore(store.path, site="shop", create=False, clock=clock)
    assert command.read().incarnation_seconds < 60
    reading = store.read()
    assert reading.record == b"1"
    assert reading.incarnation_seconds < 60
    clock.step(timedelta(hours=1))
    assert store.reopened().read().incarnation_seconds == pytest.approx(3600, abs=300)


def test_who_has_been_silent_for_long_is_registered_and_not_counted(tmp_path: Path) -> None:
    """Of the roster of a week most have left: intervals go by those who are there."""
    clock = SteppingClock()
    store = SQLiteStore(tmp_path / "state.db", site="shop", clock=clock)
    store.report("old", b"{}", keep_seconds=86400.0)
    clock.step(timedelta(hours=1))
    assert store.report("new", b"{}", keep_seconds=86400.0).members == store.read().members == 1
    assert [seen.member for seen in store.census().reports] == ["new", "old"]


def test_how_long_who_is_silent_is_remembered(tmp_path: Path) -> None:
    """A process that has ended as long as what it had begun may commit; one that stands still until it is dropped."""
    clock = SteppingClock()
    store = SQLiteStore(tmp_path / "state.db", site="shop", clock=clock)
    store.report("ended", b"{}", keep_seconds=86400.0, ended=True)
    store.report("still", b"{}", keep_seconds=86400.0)
    clock.step(timedelta(seconds=ENDED_SECONDS - 300))
    assert store.report("a", b"{}", keep_seconds=86400.0).neighbours == ("ended", "still")
    clock.step(timedelta(seconds=300))
    assert store.report("a", b"{}", keep_seconds=86400.0).neighbours == ("still",)
    assert [seen.member for seen in store.silent(longer_than=60.0, shorter_than=86400.0)] == ["still"]


def test_a_clock_that_was_set_back_does_not_keep_a_file_young(tmp_path: Path) -> None:
    """Nothing latches: the next report takes the clock as it is now."""
    clock = SteppingClock()
    store = SQLiteStore(tmp_path / "state.db", site="shop", clock=clock)
    store.read()
    clock.step(timedelta(days=-1))
    assert store.report("m", b"{}", keep_seconds=60).incarnation_seconds < 300
    clock.step(timedelta(hours=1))
    assert store.read().incarnation_seconds == pytest.approx(3600, abs=300)
    assert store.reopened().read().incarnation_seconds == pytest.approx(3600, abs=300)


class SteppingClock:
    """A clock that runs, and is set by hand."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def step(self, by: timedelta) -> None:
        self.offset += by

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def boottime(self) -> float:
        return time.monotonic()
