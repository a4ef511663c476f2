"""A primary and its standby, and what tests of replicas and freezes do with them."""

from __future__ import annotations

from typing import Any

import psycopg

from readonly.databases.fence import Position
from readonly.databases.freeze import Standby
from support.fence_layouts import make_roles
from support.postgres_server import PostgresPair
from support.waiting import eventually

MAY_PAUSE = "GRANT EXECUTE ON FUNCTION pg_catalog.pg_wal_replay_pause(), pg_catalog.pg_wal_replay_resume() TO {}"


class Following:
    """A pair; its standby follows by a slot, and keeps what it receives.

    Args:
        pair: Both servers, running.
    """

    def __init__(self, pair: PostgresPair) -> None:
        self.primary, self.standby = pair.primary, pair.standby
        self.wait_replayed = pair.wait_replayed
        self.close = pair.close
        make_roles(self.primary).sql(f"CREATE ROLE pauser LOGIN; {MAY_PAUSE.format('pauser')}")
        self.primary.sql("CREATE TABLE story (id int)")
        self.wait_replayed()

    def of(self, role: str = "pauser", more: str = "", *, database: str = "postgres") -> Standby:
        """Return the standby as a role reaches it."""
        return Standby.from_url(self.standby.url(database, user=role) + more, where="fence.main.replicas")

    def position(self) -> Position:
        """Return where the primary's log ends now."""
        self.primary.sql("SELECT pg_logical_emit_message(true, 'test', 'mark')")
        at = self.primary.sql("SELECT pg_current_wal_flush_lsn()")
        return Position(self.primary.sql("SELECT system_identifier FROM pg_control_system()"), at)

    def session(self, *, autocommit: bool = True) -> psycopg.Connection[Any]:
        """Open a session at the primary."""
        return psycopg.connect(self.primary.url(), autocommit=autocommit)

    def restart(self) -> None:
        """Restart the standby as after a crash, and wait until it follows again."""
        self.standby.restart()
        streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        eventually(lambda: self.primary.sql(streams) == "1", 30)

    def thawed(self) -> None:
        """Have it replay all that there is."""
        self.standby.sql("SELECT pg_wal_replay_resume()")
        self.wait_replayed()
