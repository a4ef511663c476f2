"""Each guard proves itself: a harmless write that must fail, through every driver; and one that does not is named."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from readonly import Switch
from readonly.databases.postgresql import PostgreSQL
from readonly.databases.sqlalchemy import Database
from readonly.inflight import InFlight
from support.waiting import eventually

from .conftest import ALL, POSTGRES, Client


def proofs(switch: Switch) -> list[str]:
    """Return what this process reports of its guards."""
    return [guard.proof for report in switch.members() for guard in report.guards]


def test_the_guard_proves_itself(client: Client, guarded: Database, switch: Switch) -> None:
    """A harmless write was refused; nothing was written and nothing is in flight."""
    switch.on()
    assert guarded.prove() == ""
    switch.off()
    assert guarded.prove() == ""
    assert switch.inflight.count() == 0
    client.write()


def test_a_proof_is_in_flight_for_no_moment(
    client: Client, guarded: Database, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on beside everything else, also when the site was opened meanwhile: nobody waits for it."""
    begin, begun = InFlight.begin, list[str]()

    def counted(self: InFlight, **more: Any) -> object:
        begun.append(threading.current_thread().name)
        return begin(self, **more)

    monkeypatch.setattr(InFlight, "begin", counted)
    assert guarded.prove() == ""
    assert begun == []
    client.write()
    assert begun != []


def test_a_broken_guard_is_found_out(
    client: Client, guarded: Database, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the server is not told, the proof says so, and leaves nothing behind."""
    monkeypatch.setattr(type(guarded._server), "guard", lambda self, connection, memory: None)
    monkeypatch.setattr(type(guarded._server), "restore", lambda self, connection, memory: True)
    state = switch.on()
    # Until it is tried that is "pending"; and the last report may still be of the time before.
    eventually(lambda: proofs(switch) not in ([""], ["pending"]), what="what came of the proof is reported")
    found = switch.confirm(state.epoch, timeout=0)
    assert not found.safe
    [missing] = found.missing
    assert "its database guard has not proven itself (main: a write was not refused" in missing
    monkeypatch.undo()
    with pytest.raises((DBAPIError, ProgrammingError)):
        client.connect(lambda c: c.execute(text("SELECT * FROM readonly_proof")))


@pytest.mark.parametrize("how", ["engine", "connection"])
@pytest.mark.parametrize("kind", ALL)
def test_the_guard_proves_itself_in_autocommit(
    kind: str, how: str, make_client: Callable[..., Client], switch: Switch
) -> None:
    """Where somebody has asked for autocommit, it is tried there, too; nothing is left behind."""
    make_client(kind)
    client = make_client(kind, **({"isolation_level": "AUTOCOMMIT"} if how == "engine" else {}))
    database = Database(client.engine, switch)
    tried = []
    prove = type(database._server).prove

    def proven(self: Any, connection: Any) -> str:
        tried.append(client.sync_engine.dialect.detect_autocommit_setting(connection))
        return prove(self, connection)

    client.connect(lambda c: c.execute(text("SELECT 1")), isolation_level="AUTOCOMMIT")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(database._server), "prove", proven)
        assert database.prove() == ""
    assert tried == [False, True]
    client.write()
    assert client.count() == 2
    database.close()


@pytest.mark.parametrize("kind", POSTGRES)
def test_a_guard_that_is_broken_in_autocommit_is_found_out(
    kind: str, make_client: Callable[..., Client], switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the guard is another one, and is named as that."""
    make_client(kind)
    client = make_client(kind, isolation_level="AUTOCOMMIT")
    database = Database(client.engine, switch)
    monkeypatch.setattr(PostgreSQL, "_guard_session", lambda self, connection, memory: None)
    assert database.prove().startswith("in autocommit: a write was not refused")
    database.close()


def test_a_database_that_is_gone_is_no_proof(switch: Switch) -> None:
    """What could not be tried is said, without a password."""
    client = Client("psycopg", "postgresql://u:hunter2@127.0.0.1:1/x")
    database = Database(client.engine, switch)
    said = database.prove()
    assert "could not be tried" in said
    assert "hunter2" not in said
    client.close()


def test_members_say_what_they_write_to(client: Client, guarded: Database, switch: Switch) -> None:
    """Server, database and user; no password."""
    found = guarded.describe()
    assert found["server"] == client.family
    assert found["database"]


def test_the_report_carries_the_proof(client: Client, guarded: Database, switch: Switch) -> None:
    """`confirm` waits for the guards: it is safe when they have proven themselves."""
    state = switch.on()
    assert switch.confirm(state.epoch, timeout=10).safe
    [report] = switch.members()
    assert [(g.name, g.proof) for g in report.guards] == [("main", "")]
