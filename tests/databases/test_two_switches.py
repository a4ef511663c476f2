"""Two switches in one process: what one site admitted is nothing to the guard of the other's database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from readonly import ReadOnlyError, Switch
from readonly.context import Work, working
from readonly.databases.sqlalchemy import Database

from .conftest import Client

INSERT = "INSERT INTO story (title) VALUES ('x')"


@pytest.fixture(params=["sqlite3", "aiosqlite"])
def theirs(request: pytest.FixtureRequest, make_client: Callable[..., Client], tmp_path: Path) -> Client:
    """The other site's database, sync and async."""
    return make_client(request.param)


@pytest.fixture
def other(theirs: Client) -> Iterator[Switch]:
    """The other site, read-only, its database guarded."""
    switch = Switch.from_url("memory://?site=other")
    switch.start()
    database = Database(theirs.engine, switch)
    switch.on()
    yield switch
    database.close()
    switch.close()


def _write(connection: Connection) -> None:
    connection.execute(text(INSERT))
    connection.commit()


@pytest.mark.parametrize("bypass", [False, True])
def test_admitted_by_one_refused_by_the_other(theirs: Client, other: Switch, switch: Switch, bypass: bool) -> None:
    """A request of the writable site reaches into the read-only one's database: refused, and neither drain sees it."""
    key = switch.inflight.begin()
    with working(Work(switch, key=key, bypass=bypass)) as work:
        assert work.may_write
        with pytest.raises(ReadOnlyError):
            theirs.connect(_write)
        with switch.writing(), pytest.raises(ReadOnlyError):
            theirs.connect(_write)
    switch.inflight.end(key)
    # Its own site is writable: it is no answer to this request that another one is not.
    assert work.escape is None
    assert theirs.count() == 1
    assert (switch.inflight.count(), other.inflight.count()) == (0, 0)


def test_the_work_of_a_switch_is_found_under_that_of_another(theirs: Client, other: Switch, switch: Switch) -> None:
    """A request that was admitted by the one goes on to write there, inside a job of the other."""
    other.off()
    with other.writing():
        other.on()
        with switch.writing():
            theirs.connect(_write)
    with switch.writing(), pytest.raises(ReadOnlyError):
        theirs.connect(_write)
    assert theirs.count() == 2
    assert (switch.inflight.count(), other.inflight.count()) == (0, 0)
