"""What is put through the torture: every strategy of the library, and three that are known to be wrong.

The wrong ones show that the torture sees: each must be caught by the very same rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from readonly.databases.fence import Fence, Strategy
from readonly.databases.fence.postgresql import PostgresFence
from support.postgres_server import PostgresServer

from .rounds import ONE_ROLE, TWO_ROLES, Arena
from .writers import TABLES

ROLES = """
CREATE ROLE owner_ LOGIN; CREATE ROLE app_rw; CREATE ROLE app LOGIN IN ROLE app_rw; CREATE ROLE solo LOGIN;
CREATE ROLE fencer LOGIN CREATEROLE IN ROLE owner_, solo, pg_signal_backend, pg_read_all_stats;
"""


def start() -> PostgresServer:
    """Start a server to be tortured, with its roles; it keeps the log that is read afterwards."""
    server = PostgresServer("wal_keep_size=1GB", "autovacuum=off").start()
    # Version 16 wants the right to alter a role role by role.
    server.sql(ROLES)
    if int(server.sql("SHOW server_version_num")) >= 160000:
        server.sql("GRANT app TO fencer WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
    return server


def laid_out(server: PostgresServer, strategy: str) -> Arena:
    """Lay a database out for a strategy: two roles, or one that owns its tables."""
    two = strategy in {Strategy.REVOKE, Strategy.DEFAULTS, "defaults alone"}
    return Arena(server, app="app" if two else "solo", owner="owner_" if two else "solo", fencer="fencer")


@dataclass(frozen=True)
class Tortured:
    """One way to fence: how it is raised (returns a position) and lifted, and by which styles it is tried."""

    raise_: Callable[[], str]
    lift: Callable[[], object]
    styles: Sequence[tuple[str, str]]


@contextmanager
def prepared(arena: Arena, strategy: str) -> Iterator[Tortured]:
    """Make an arena ready for a strategy, by name."""
    if strategy in WRONG:
        yield WRONG[strategy](arena)
        return
    made = Fence.from_url(
        arena.url, writers=[arena.app], migrators=[arena.owner] if arena.owner != arena.app else []
    )  # fmt: skip
    assert isinstance(made, PostgresFence)
    if strategy == Strategy.GATE:
        made.install(site="shop", by="torture")

    def raise_() -> str:
        fenced = made.put_up(
            site="shop", cause="c1", by="torture", timeout=30, strategy=Strategy(strategy),
            end_after=0.0 if strategy == Strategy.DEFAULTS else None,
        )  # fmt: skip
        return str(fenced.position)

    styles: Sequence[tuple[str, str]] = TWO_ROLES if strategy in {Strategy.REVOKE, Strategy.DEFAULTS} else ONE_ROLE
    if strategy == Strategy.DEFAULTS:
        # It stops every client that does not insist: those that do are not its business, and the report says so.
        styles = [(kind, style) for kind, style in styles if style != "rw" and kind != "asyncpg"]
    yield Tortured(raise_, lambda: made.lift(site="shop"), styles)


def _defaults_alone(arena: Arena) -> Tortured:
    """ALTER DATABASE … SET default_transaction_read_only: pooled sessions keep what they read when they began."""

    def raise_() -> str:
        arena.server.sql(f"ALTER DATABASE {arena.name} SET default_transaction_read_only = on")
        return arena.mark()

    def lift() -> None:
        arena.server.sql(f"ALTER DATABASE {arena.name} RESET default_transaction_read_only")

    return Tortured(raise_, lift, TWO_ROLES)


def _gate_without_waiting(arena: Arena) -> Tortured:
    """The gate is shut, and nobody waits for the statements that had passed it."""
    arena.sql(_gate("RETURN NULL;") + _TRIGGERS)
    shut = _gate("RAISE EXCEPTION USING ERRCODE = '25006', MESSAGE = 'shut';")

    def raise_() -> str:
        return arena.behind(f"BEGIN; {shut} COMMIT;")

    return Tortured(raise_, lambda: arena.sql(_gate("RETURN NULL;")), (("psycopg", "slow"),) * 6)


def _flag_row(arena: Arena) -> Tortured:
    """A row that the trigger reads: a snapshot that is older than the flip goes on seeing the old one."""
    arena.sql("CREATE TABLE flag (up bool); INSERT INTO flag VALUES (false); GRANT SELECT ON flag TO PUBLIC")
    look = "IF (SELECT up FROM public.flag) THEN RAISE EXCEPTION USING ERRCODE = '25006', MESSAGE = 'up'; END IF;"
    arena.sql(_gate(f"{look} RETURN NULL;") + _TRIGGERS)
    fence = Fence.from_url(arena.url, writers=[arena.app])
    assert isinstance(fence, PostgresFence)

    def raise_() -> str:
        arena.sql("UPDATE flag SET up = true")
        # With the very poll that makes the gate hard: it does not help here.
        from readonly.databases.fence import _pg_writers

        with fence._connect() as connection:
            left = _pg_writers.writers(connection)
            while left:
                left &= _pg_writers.writers(connection)
        return arena.mark()

    return Tortured(raise_, lambda: arena.sql("UPDATE flag SET up = false"), _SNAPSHOTS)


# What a flag row does not hold: transactions whose snapshot is older than the flip.
_SNAPSHOTS = (("psycopg", "oldest snapshot"),) * 6 + (("psycopg", "repeatable read"), ("psycopg", "serializable"))


_TRIGGERS = "".join(
    f"CREATE TRIGGER wrong BEFORE INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION public.wrong();"
    for table in TABLES
)


def _gate(body: str) -> str:
    return f"CREATE OR REPLACE FUNCTION public.wrong() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;"


WRONG: dict[str, Callable[[Arena], Tortured]] = {
    "defaults alone": _defaults_alone,
    "gate without waiting": _gate_without_waiting,
    "flag row": _flag_row,
}
RIGHT = (Strategy.REVOKE, Strategy.EACH, Strategy.GATE, Strategy.DEFAULTS)
