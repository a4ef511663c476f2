"""The contract that authors of a guard for another kind of database server inherit.

Needs pytest to run, and imports nothing of it.
"""

# ruff: noqa: S101, S608 - these are tests, and the statements are our own
from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, ClassVar

from ..databases import Server, server_for

TABLE = "readonly_contract"


class ServerContract:
    """What every server's guard does; inherit it as `class TestMyServer(ServerContract)` and give `connect`.

    A guard stands on what the server itself refuses, so there is nothing here to fake: `connect` reaches a real one.

    Attributes:
        dialect: What SQLAlchemy and Django call the server, and the name of its entry point in `readonly.databases`.
    """

    dialect: ClassVar[str]

    def connect(self) -> Any:
        """Return a new PEP 249 connection, not in autocommit, always to one database that the tests may write to."""
        raise NotImplementedError

    # --- being found --------------------------------------------------------------------------------------

    def test_it_is_found_by_its_name(self) -> None:
        """An engine's dialect is all that the library knows of a database."""
        assert server_for(self.dialect).name == self.dialect

    # --- the guard ----------------------------------------------------------------------------------------

    def test_a_guarded_connection_writes_nothing(self) -> None:
        """The server refuses, and says so by a code that `is_refusal` knows and `is_unfit` does not."""
        with self._table() as (server, connection):
            server.guard(connection, {})
            refused = failure(connection, f"INSERT INTO {TABLE} VALUES (1)")
            assert refused is not None, "a write went through a guarded connection"
            assert server.is_refusal(refused), refused
            assert not server.is_unfit(refused), refused
            assert not server.is_denied(refused), refused
            assert server.table(refused) in (TABLE, None)
            connection.rollback()
            assert self._rows() == 0

    def test_every_kind_of_write_is_refused(self) -> None:
        """Rows, tables, and what a later COMMIT would make of them."""
        with self._table() as (server, connection):
            memory: dict[str, Any] = {}
            for statement in (
                f"UPDATE {TABLE} SET x = 2",
                f"DELETE FROM {TABLE}",
                f"DROP TABLE {TABLE}",
                f"CREATE TABLE {TABLE}_2 (x INTEGER)",
            ):
                server.guard(connection, memory)
                refused = failure(connection, statement)
                assert refused is not None, statement
                assert server.is_refusal(refused), (statement, refused)
                connection.rollback()
            assert self._rows() == 0

    def test_a_guarded_connection_reads(self) -> None:
        """Reads go on, `trial` among them."""
        with self._table() as (server, connection):
            server.guard(connection, {})
            assert rows(connection, f"SELECT count(*) FROM {TABLE}") == [(0,)]
            rows(connection, server.trial)

    def test_the_guard_holds_for_each_transaction_it_is_set_for(self) -> None:
        """Called again, as at each BEGIN, it neither wears off nor forgets what it found."""
        with self._table() as (server, connection):
            memory: dict[str, Any] = {}
            for _ in range(3):
                server.guard(connection, memory)
                server.guard(connection, memory)
                refused = failure(connection, f"INSERT INTO {TABLE} VALUES (1)")
                assert refused is not None
                assert server.is_refusal(refused)
                connection.rollback()
            assert server.restore(connection, memory)
            assert failure(connection, f"INSERT INTO {TABLE} VALUES (1)") is None

    def test_another_connection_is_left_alone(self) -> None:
        """What is guarded is a connection, never the server."""
        with self._table() as (server, connection), closing(self.connect()) as other:
            server.guard(connection, {})
            assert failure(connection, server.trial) is None
            connection.rollback()
            assert failure(other, f"INSERT INTO {TABLE} VALUES (1)") is None
            other.commit()
            assert self._rows() == 1

    def test_putting_back_leaves_nothing(self) -> None:
        """A connection goes back to its pool as it was."""
        with self._table() as (server, connection):
            memory: dict[str, Any] = {}
            server.guard(connection, memory)
            rows(connection, f"SELECT count(*) FROM {TABLE}")
            connection.rollback()
            assert server.restore(connection, memory)
            assert failure(connection, f"INSERT INTO {TABLE} VALUES (1)") is None
            connection.commit()
            assert self._rows() == 1

    def test_putting_back_in_a_transaction_waits_or_works(self) -> None:
        """`restore` says False, and has done nothing, or True, and has."""
        with self._table() as (server, connection):
            memory: dict[str, Any] = {}
            server.guard(connection, memory)
            rows(connection, f"SELECT count(*) FROM {TABLE}")
            done = server.restore(connection, memory)
            connection.rollback()
            assert done or server.restore(connection, memory)
            assert failure(connection, f"INSERT INTO {TABLE} VALUES (1)") is None

    def test_putting_back_what_was_never_guarded(self) -> None:
        """An empty memory means that nothing is to be done."""
        with self._table() as (server, connection):
            assert server.restore(connection, {})
            assert failure(connection, f"INSERT INTO {TABLE} VALUES (1)") is None

    # --- the proof ----------------------------------------------------------------------------------------

    def test_the_proof_tells_a_guard_that_holds(self) -> None:
        """It is what `on` stands on: "" for a guarded connection."""
        with self._table() as (server, connection):
            server.guard(connection, {})
            assert server.prove(connection) == ""
            connection.rollback()

    def test_the_proof_tells_a_guard_that_does_not(self) -> None:
        """Words for one that writes, and nothing is left behind."""
        with self._table() as (server, connection):
            before = self._rows()
            assert server.prove(connection) != ""
            connection.rollback()
            assert self._rows() == before

    # --- what is asked --------------------------------------------------------------------------------------

    def test_only_a_refusal_is_a_refusal(self) -> None:
        """A statement that is wrong, and errors that are not the driver's."""
        with self._table() as (server, connection):
            wrong = failure(connection, "SELEKT 1")
            assert wrong is not None
            for error in (wrong, ValueError("read-only"), KeyboardInterrupt()):
                assert not server.is_refusal(error), error
                assert not server.is_unfit(error), error
            connection.rollback()

    def test_idle_is_what_the_driver_knows(self) -> None:
        """A driver may not know that nothing is open; that something is must always be known."""
        with self._table() as (server, connection):
            rows(connection, f"INSERT INTO {TABLE} VALUES (1)")
            assert not server.is_idle(connection)
            connection.rollback()
            assert self._rows() == 0

    def test_a_primary_takes_writes(self) -> None:
        """A healthy server is neither suspect nor found read-only, and asking writes nothing."""
        with self._table() as (server, connection):
            assert server.takes_no_writes(connection) == ""
            assert not server.is_suspect(connection)
            assert server.was_told(connection) == ""
            connection.rollback()
            assert self._rows() == 0

    def test_statements_are_not_judged(self) -> None:
        """What a write is, the server says: ordinary statements are sent as they are."""
        server = server_for(self.dialect)
        for statement in ("SELECT 1", "INSERT INTO t VALUES (1)", "COMMIT", "-- a remark\nDELETE FROM t", ""):
            assert server.softened(statement) == statement

    # --- for the tests --------------------------------------------------------------------------------------

    @contextmanager
    def _table(self) -> Iterator[tuple[Server, Any]]:
        """Give the server, and a connection to a database with an empty table."""
        self._remake()
        with closing(self.connect()) as connection:
            try:
                yield server_for(self.dialect), connection
            finally:
                connection.rollback()

    def _remake(self) -> None:
        with closing(self.connect()) as connection:
            rows(connection, f"DROP TABLE IF EXISTS {TABLE}")
            rows(connection, f"CREATE TABLE {TABLE} (x INTEGER)")
            connection.commit()

    def _rows(self) -> int:
        """Count them by a connection of our own, which nobody guards."""
        with closing(self.connect()) as connection:
            [(count,)] = rows(connection, f"SELECT count(*) FROM {TABLE}")
            connection.rollback()
            return int(count)


def rows(connection: Any, statement: str) -> list[Any]:
    """Run a statement, and return what it found, if it finds anything."""
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
    finally:
        cursor.close()


def failure(connection: Any, statement: str) -> Exception | None:
    """Run a statement, and return what was raised, if anything was."""
    try:
        rows(connection, statement)
    except Exception as error:
        return error
    return None
