"""Behind a real PgBouncer: transactions are guarded, and nothing is ever set in a session that others are served by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from readonly import ReadOnlyError, Switch
from readonly.databases.sqlalchemy import Database
from readonly.errors import ConfigurationError
from support.operating import made
from support.pgbouncer import PgBouncer
from support.waiting import eventually

from .conftest import POSTGRES, Client

INSERT = text("INSERT INTO story (title) VALUES ('x')")
DEFAULT = "SELECT setting, source FROM pg_settings WHERE name = 'default_transaction_read_only'"


@pytest.fixture
def pooled(
    pgbouncer: PgBouncer, shared_database: str, make_client: Callable[..., Client]
) -> Iterator[Callable[..., Client]]:
    """Make clients whose connections lead through PgBouncer, with fresh tables behind it."""
    make_client("psycopg")
    made: list[Client] = []

    def make(kind: str, *, through: PgBouncer = pgbouncer, **options: Any) -> Client:
        if kind == "asyncpg":
            # As SQLAlchemy's documentation has it for PgBouncer.
            connect: dict[str, Any] = {
                "statement_cache_size": 0,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__",
            }
        else:
            connect = {"prepare_threshold": None}
        client = Client(kind, through.url(_name(shared_database)), connect_args=connect, **options)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


def _name(url: str) -> str:
    return url.rpartition("/")[2]


def others_find(pooler: PgBouncer, url: str) -> list[tuple[Any, ...]]:
    """Return what clients that are strangers here find set, on both of the server's connections at once."""
    with ExitStack() as stack:
        strangers = [
            stack.enter_context(closing(psycopg.connect(pooler.url(_name(url)), prepare_threshold=None)))
            for _ in range(2)
        ]
        pids = {found.execute("SELECT pg_backend_pid()").fetchone() for found in strangers}
        assert len(pids) == 2  # each holds one, in a transaction
        return [row for found in strangers for row in found.execute(DEFAULT).fetchall()]


UNTOUCHED = [("off", "default")] * 2
# asyncpg prepares each statement, and PgBouncer before 1.21 may send what follows to another session, in autocommit.
IN_AUTOCOMMIT = ("psycopg", "psycopg_async")


@pytest.mark.parametrize("kind", POSTGRES)
def test_transactions_are_guarded(
    kind: str, pooled: Callable[..., Client], pgbouncer: PgBouncer, shared_database: str, switch: Switch
) -> None:
    """The driver's BEGIN says it, whichever of the server's connections it reaches; ORM sites are safe as ever."""
    client = pooled(kind)
    database = Database(client.engine, switch)
    client.write()
    state = switch.on()
    with pytest.raises(ReadOnlyError):
        client.write()
    assert client.count() == 2
    assert switch.confirm(state.epoch, timeout=10).safe
    assert "unguarded" not in database.describe()
    assert others_find(pgbouncer, shared_database) == UNTOUCHED
    switch.off()
    client.write()
    assert client.count() == 3


@pytest.mark.parametrize("declared", [None, "transaction"])
@pytest.mark.parametrize("kind", IN_AUTOCOMMIT)
def test_autocommit_leaves_nothing_in_sessions_of_others(
    kind: str, declared: Any, pooled: Callable[..., Client], pgbouncer: PgBouncer, shared_database: str, switch: Switch
) -> None:
    """Declared or found: no other client is made read-only, while the mode stands and after."""
    client = pooled(kind, isolation_level="AUTOCOMMIT")
    database = Database(client.engine, switch, pooler=declared)
    switch.on()
    assert client.count() == 1
    assert others_find(pgbouncer, shared_database) == UNTOUCHED
    # The proof, which looks anew, may be under way.
    unguarded = "autocommit, behind a pooler in transaction mode"
    eventually(lambda: database.describe().get("unguarded") == unguarded, what="it is said")
    # As it is: this write is not stopped, which is what is said of it.
    client.write()
    switch.off()
    client.write()
    database.close()
    client.dispose()
    assert others_find(pgbouncer, shared_database) == UNTOUCHED
    assert client.count() == 3


@pytest.mark.parametrize("kind", IN_AUTOCOMMIT)
def test_autocommit_that_was_found_unguarded_is_not_safe(
    kind: str, pooled: Callable[..., Client], switch: Switch
) -> None:
    """Nobody has said that he knows of it: `on` names the database, and what to do."""
    Database(pooled(kind, isolation_level="AUTOCOMMIT").engine, switch, name="shop")
    state = switch.on()

    def missing() -> str:
        found = switch.confirm(state.epoch, timeout=1)
        assert not found.safe
        [said] = found.missing
        return said

    eventually(lambda: "shop: in autocommit: it can't be guarded" in missing(), what="it was tried")
    assert "pooler='session'" in missing()


def test_autocommit_that_comes_after_the_proof(pooled: Callable[..., Client], switch: Switch) -> None:
    """A process that was proven says so itself when it finds a connection that it can't guard; and it latches not."""
    client = pooled("psycopg")
    Database(client.engine, switch)
    state = switch.on()
    assert switch.confirm(state.epoch, timeout=10).safe
    client.connect(lambda c: c.execute(text("SELECT 1")), isolation_level="AUTOCOMMIT")
    # With its next report: one may have been on its way when this was found.
    eventually(lambda: not switch.confirm(state.epoch, timeout=1).safe)
    switch.off()
    client.dispose()
    client.connect(lambda c: c.execute(text("SELECT 1")))

    def proofs() -> list[str]:
        return [guard.proof for report in switch.members() for guard in report.guards]

    eventually(lambda: proofs() == [""], what="the next report")


def test_status_says_what_is_not_guarded(tmp_path: Path, pooled: Callable[..., Client]) -> None:
    """Declared, it is safe for all that runs in transactions; what autocommit does stands in `status`."""
    shop = made(tmp_path / "shop.db")
    switch = Switch.from_url(shop.url)
    database = Database(pooled("psycopg", isolation_level="AUTOCOMMIT").engine, switch, pooler="transaction")
    try:
        switch.start()
        state = switch.on()
        assert switch.confirm(state.epoch, timeout=10).safe
        said = "autocommit, behind a pooler in transaction mode"
        assert f"  not guarded: main in {said} (1 member of job)\n" in shop.here("status").stdout
        assert f'"unguarded": "{said}"' in shop.here("status", "--json").stdout
    finally:
        database.close()
        switch.close()
        shop.store.close()


def test_status_says_nothing_where_all_is_guarded(tmp_path: Path, make_client: Callable[..., Client]) -> None:
    """A direct connection, in autocommit."""
    shop = made(tmp_path / "shop.db")
    switch = Switch.from_url(shop.url)
    database = Database(make_client("psycopg", isolation_level="AUTOCOMMIT").engine, switch)
    try:
        switch.start()
        state = switch.on()
        assert switch.confirm(state.epoch, timeout=10).safe
        shown = shop.here("status").stdout
        assert "READ-ONLY" in shown
        assert "not guarded" not in shown
    finally:
        database.close()
        switch.close()
        shop.store.close()


@pytest.mark.parametrize("kind", POSTGRES)
def test_a_session_pool_that_is_declared(
    kind: str,
    pooled: Callable[..., Client],
    pgbouncer_in_sessions: PgBouncer,
    switch: Switch,
) -> None:
    """There each client has a session of its own: autocommit is guarded, and put back."""
    client = pooled(kind, through=pgbouncer_in_sessions, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=0)
    database = Database(client.engine, switch, pooler="session")
    state = switch.on()
    with pytest.raises(ReadOnlyError):
        client.write()
    assert switch.confirm(state.epoch, timeout=10).safe
    assert database.describe()["pooler"] == "session"
    switch.off()
    client.write()
    assert client.connect(lambda c: tuple(c.execute(text(DEFAULT)).one())) == ("off", "default")


def test_a_session_pool_that_nobody_declared(
    pooled: Callable[..., Client], pgbouncer_in_sessions: PgBouncer, switch: Switch
) -> None:
    """From one connection it looks like the other mode, and is taken for that."""
    client = pooled("psycopg", through=pgbouncer_in_sessions, isolation_level="AUTOCOMMIT")
    database = Database(client.engine, switch)
    switch.on()
    assert client.connect(lambda c: tuple(c.execute(text(DEFAULT)).one())) == ("off", "default")
    assert "can't be guarded" in database.prove()


def test_a_session_pool_that_is_none(pgbouncer: PgBouncer, postgres_url: str, switch: Switch) -> None:
    """What was declared does not hold: the look at what was set goes to another session, and the proof says so."""
    url = pgbouncer.url(_name(postgres_url))
    with closing(psycopg.connect(url, prepare_threshold=None)) as stranger:

        class Cursor(psycopg.Cursor[Any]):
            def execute(self, query: Any, *args: Any, **options: Any) -> Any:
                if query == "SHOW transaction_read_only":
                    stranger.execute("SELECT 1")  # takes the connection that was given back last, and holds it
                return super().execute(query, *args, **options)

        engine = create_engine(
            url.replace("postgresql:", "postgresql+psycopg:"),
            isolation_level="AUTOCOMMIT",
            connect_args={"prepare_threshold": None, "cursor_factory": Cursor},
        )
        database = Database(engine, switch, pooler="session")
        assert "is pooler='session' true" in database.prove()
        engine.dispose()
        database.close()


def test_a_held_connection_goes_on(pooled: Callable[..., Client], switch: Switch) -> None:
    """Across the switch, with savepoints: each transaction through the pooler is judged by itself."""
    client = pooled("psycopg")
    Database(client.engine, switch)

    def body(connection: Connection) -> None:
        connection.execute(INSERT)
        switch.on()
        with connection.begin_nested():
            connection.execute(INSERT)
        connection.commit()
        with pytest.raises(ReadOnlyError), connection.begin_nested():
            connection.execute(INSERT)
        assert connection.execute(text("SELECT count(*) FROM story")).scalar_one() == 3

    client.connect(body)


@pytest.mark.parametrize(
    ("url", "pooler", "said"),
    [
        ("postgresql+psycopg://x/y", "statement", "pooler='statement' is not a choice: write 'transaction'"),
        ("sqlite://", "transaction", "pooler='transaction' is about PostgreSQL, and this is sqlite"),
        ("mysql+pymysql://x/y", "session", "pooler='session' is about PostgreSQL, and this is mysql"),
    ],
)
def test_what_can_not_be_declared(url: str, pooler: Any, said: str, switch: Switch) -> None:
    """Start-up stops and says why; the engine can be guarded after that."""
    engine = create_engine(url)
    with pytest.raises(ConfigurationError, match=said):
        Database(engine, switch, pooler=pooler)
    Database(engine, switch).close()


def test_an_error_behind_the_pooler_is_judged_as_ever(pooled: Callable[..., Client], switch: Switch) -> None:
    """What an unguarded connection's server says is no refusal of ours."""
    client = pooled("psycopg", isolation_level="AUTOCOMMIT")
    Database(client.engine, switch, pooler="transaction")
    switch.on()
    with pytest.raises(DBAPIError) as failed:
        client.write("INSERT INTO nowhere VALUES (1)")
    assert not isinstance(failed.value, ReadOnlyError)
