"""Whom MariaDB's fence waits for: who has begun to write may finish, is named, or is ended when that was asked for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from readonly.databases.fence import FenceError, Holdup, Level, StillWriting
from support.mariadb_layouts import ENDED, REFUSED, MariaShop, said
from support.waiting import eventually

WRITE = "INSERT INTO story (title) VALUES ('x')"


@pytest.mark.usefixtures("anew")
def test_it_waits_for_who_writes_and_not_for_who_reads(maria: MariaShop) -> None:
    """A transaction that has written may finish, and is named; one that only reads is not waited for."""
    writing, reading = maria.session(autocommit=False), maria.session(autocommit=False)
    said(writing, WRITE)
    said(reading, "SELECT * FROM story")
    told: list[tuple[Holdup, ...]] = []
    seen = threading.Event()

    def waiting(holdups: Any) -> None:
        told.append(tuple(holdups))
        seen.set()

    with ThreadPoolExecutor(1) as pool:
        raising = pool.submit(maria.up, waiting=waiting)
        assert seen.wait(60)
        assert not maria.read_only
        assert said(writing, "COMMIT") == 0
        fenced = raising.result(60)
    assert fenced.ended == ()
    assert [holdup.pid for holdup in told[0]] == [writing.thread_id()]
    assert (told[0][0].user, told[0][0].since is not None) == ("app", True)
    assert maria.sql("SELECT count(*) FROM story") == "2"
    # What it then tries to write, it is refused.
    assert said(reading, WRITE) == REFUSED


@pytest.mark.usefixtures("anew")
def test_who_is_not_done_by_the_deadline_keeps_it_down(maria: MariaShop) -> None:
    """Nobody's COMMIT is refused unless that was asked for; the claim stays, the server takes writes."""
    writing = maria.session(autocommit=False)
    said(writing, WRITE)
    with pytest.raises(StillWriting, match="takes writes, since what began before has not ended") as caught:
        maria.up(timeout=0.2)
    assert [holdup.pid for holdup in caught.value.holdups] == [writing.thread_id()]
    assert f"session {writing.thread_id()} (app)" in str(caught.value)
    assert "--end-writers-after" in str(caught.value)
    assert not maria.read_only
    standing = maria.fence().status()
    assert standing is not None
    assert standing.position is None
    assert maria.fence().open_tables() == ()
    assert said(writing, "COMMIT") == 0
    assert maria.up().position is not None


@pytest.mark.usefixtures("anew")
def test_who_is_not_done_is_ended_when_that_was_named(maria: MariaShop) -> None:
    """Its session is ended and named, its row is not there."""
    writing = maria.session(autocommit=False)
    said(writing, WRITE)
    fenced = maria.up(end_after=0.1)
    assert [holdup.pid for holdup in fenced.ended] == [writing.thread_id()]
    assert said(writing, "COMMIT") in ENDED
    assert maria.sql("SELECT count(*) FROM story") == "1"


@pytest.mark.usefixtures("anew")
def test_who_may_not_be_ended_is_refused_at_its_commit(maria: MariaShop) -> None:
    """Without CONNECTION ADMIN the fence goes up all the same when the time is over."""
    maria.sql("REVOKE CONNECTION ADMIN ON *.* FROM fencer@'%'")
    try:
        writing = maria.session(autocommit=False)
        said(writing, WRITE)
        fenced = maria.up(end_after=0.1)
    finally:
        maria.sql("GRANT CONNECTION ADMIN ON *.* TO fencer@'%'")
    assert [holdup.pid for holdup in fenced.ended] == [writing.thread_id()]
    assert said(writing, "COMMIT") == REFUSED


def test_a_prepared_transaction_is_waited_for_and_named(maria: MariaShop) -> None:
    """XA PREPARE outlives its session: it is named, and where the deadline is over, its XA COMMIT is refused."""
    preparing = maria.session()
    for statement in ("XA START 'order-7'", WRITE, "XA END 'order-7'", "XA PREPARE 'order-7'"):
        assert said(preparing, statement) == 0
    preparing.close()
    # Until that session is gone, nobody else may commit it.
    there = f"SELECT count(*) FROM information_schema.PROCESSLIST WHERE ID = {preparing.thread_id()}"
    eventually(lambda: maria.sql(there) == "0", what="its session is gone")
    with pytest.raises(StillWriting, match=r"prepared transaction 'order-7'.*XA COMMIT or XA ROLLBACK"):
        maria.up(timeout=0.2)
    fenced = maria.up(end_after=0.0)
    assert any("an XA COMMIT of order-7" in way.what for way in fenced.ways)
    assert maria.tried("app", "XA COMMIT 'order-7'") == [REFUSED]
    maria.fence().lift(site="shop")
    maria.sql("XA ROLLBACK 'order-7'")


def test_a_table_that_somebody_has_locked_holds_it_up_for_so_long(maria: MariaShop) -> None:
    """SET GLOBAL would hang behind LOCK TABLES, and new writes behind it: it is given up after a second each time."""
    locking = maria.session()
    said(locking, "LOCK TABLES story WRITE")
    with pytest.raises(StillWriting, match="LOCK TABLES"):
        maria.up(timeout=0.1)
    said(locking, "UNLOCK TABLES")
    assert maria.up().level is Level.HARD


@pytest.mark.usefixtures("anew")
def test_two_commands_raise_it_at_once(maria: MariaShop) -> None:
    """Both return the same position, both causes hold it, and who writes is waited for by both."""
    writing = maria.session(autocommit=False)
    said(writing, WRITE)
    seen = [threading.Event(), threading.Event()]
    with ThreadPoolExecutor(2) as pool:
        raising = [
            pool.submit(maria.up, maria.fence(), cause=f"c{i}", waiting=lambda _, seen=seen[i]: seen.set())
            for i in (0, 1)
        ]
        assert all(event.wait(60) for event in seen)
        said(writing, "COMMIT")
        # Two that polled in turns would keep the server's cache from ever being renewed.
        first, second = (raised.result(60) for raised in raising)
    assert first.position == second.position
    standing = maria.fence().status()
    assert standing is not None
    assert {holder.cause for holder in standing.holders} == {"c0", "c1"}


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("raised_again", [False, True])
def test_lifted_while_it_is_waited_for(maria: MariaShop, raised_again: bool) -> None:
    """Who waits for earlier writers is told that the fence is not the one that it waited for."""
    writing = maria.session(autocommit=False)
    said(writing, WRITE)

    def waiting(_: object) -> None:
        maria.fence().lift(site="shop")
        said(writing, "ROLLBACK")
        if raised_again:
            maria.up(cause="c3")

    with pytest.raises(FenceError, match="lifted by somebody else meanwhile: raise it again"):
        maria.up(cause="c2", waiting=waiting)
    assert maria.read_only is raised_again


def test_commands_look_at_transactions_one_after_the_other(maria: MariaShop) -> None:
    """The server renews that picture only when nobody has asked for a while: two polling in turns would keep it old."""
    looking = maria.session("root")
    said(looking, "DO GET_LOCK('readonly_fence_look', 10)")
    waits = "SELECT count(*) FROM information_schema.PROCESSLIST WHERE STATE = 'User lock' AND USER = 'fencer'"
    with ThreadPoolExecutor(1) as pool:
        raising = pool.submit(maria.up)
        eventually(lambda: maria.sql(waits) == "1" or raising.done(), what="the other command waits for its turn")
        assert not raising.done()
        said(looking, "DO RELEASE_LOCK('readonly_fence_look')")
        assert raising.result(60).position is not None


@pytest.mark.usefixtures("anew")
def test_one_that_was_lifted_meanwhile_is_not_called_safe(maria: MariaShop) -> None:
    """`off` while another command still waits: that one fails, and the server takes writes."""
    writing = maria.session(autocommit=False)
    said(writing, WRITE)
    seen = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        raising = pool.submit(maria.up, waiting=lambda _: seen.set())
        assert seen.wait(60)
        assert maria.fence().lift(site="shop").down
        said(writing, "COMMIT")
        with pytest.raises(FenceError, match="was lifted by somebody else meanwhile"):
            raising.result(60)
    assert not maria.read_only
