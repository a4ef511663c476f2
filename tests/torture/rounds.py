"""One round: writers at work, the fence goes up, the writers go on, the server's log is read.

Judged by the log and by the rows, never by when a client heard: a COMMIT that lies behind the fence's position and made
a row is a violation; an acknowledged row that is not there is a loss.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.postgres_server import PostgresServer
from support.waiting import eventually

from .writers import TABLES

# Rows that must be in before the fence goes up, and refusals that must come after it: what a round is about.
BUSY_ROWS = 40
BUSY_REFUSALS = 30
# So many more are in that the fence holds nobody: no use in waiting for refusals.
LEAKED_ROWS = 400

TWO_ROLES = (
    ("psycopg", "autocommit"), ("psycopg", "transaction"), ("psycopg", "rw"), ("psycopg", "slow"),
    ("psycopg", "set_role"), ("psycopg", "view"), ("psycopg", "procedure"), ("psycopg", "several"),
    ("asyncpg", "autocommit"), ("asyncpg", "transaction"), ("psycopg", "churn"),
)  # fmt: skip
ONE_ROLE = (
    ("psycopg", "autocommit"), ("psycopg", "rw"), ("psycopg", "slow"), ("psycopg", "procedure"),
    ("psycopg", "several"), ("psycopg", "repeatable read"), ("psycopg", "serializable"),
    ("psycopg", "old snapshot"), ("asyncpg", "autocommit"), ("asyncpg", "serializable"), ("psycopg", "churn"),
)  # fmt: skip
# What any writer may be told while a fence goes up: refused, ended, or a serialization failure.
EXPECTED = frozenset({"42501", "25006", "57P01", "40001", "40P01", "08003", "08006"})


@dataclass
class Result:
    """What one round showed."""

    past_position: list[str] = field(default_factory=list)
    lost: list[tuple[int, int]] = field(default_factory=list)
    rows: int = 0
    refused: int = 0
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Whether no write got past the fence and none that was acknowledged is missing."""
        return not self.past_position and not self.lost


class Writers:
    """The processes of writers of one round."""

    def __init__(self, urls: dict[str, str], styles: Sequence[tuple[str, str]], *, processes: int = 2) -> None:
        """Start them; `urls` by driver."""
        self._processes: list[subprocess.Popen[str]] = []
        numbered = [(kind, style, number) for number, (kind, style) in enumerate(styles, start=1)]
        for part in range(processes):
            for kind in {kind for kind, _, _ in numbered}:
                mine = [entry for i, entry in enumerate(numbered) if i % processes == part and entry[0] == kind]
                if mine:
                    self._start(urls[kind], mine)
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"

    def _start(self, url: str, writers: list[tuple[str, str, int]]) -> None:
        process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("writers.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps({"url": url, "writers": writers}) + "\n")
        process.stdin.flush()
        self._processes.append(process)

    def end(self) -> tuple[set[tuple[int, int]], dict[str, int]]:
        """Stop them; return what was acknowledged, and refusals by code."""
        rows: set[tuple[int, int]] = set()
        refused: dict[str, int] = {}
        for process in self._processes:
            out, _ = process.communicate(timeout=60)
            said = json.loads(out)
            rows |= {(writer, number) for writer, number in said["rows"]}
            for code, times in said["refused"].items():
                refused[code] = refused.get(code, 0) + times
        return rows, refused

    def kill(self) -> None:
        """End them without asking; for the end of a test that failed."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


SETUP = """
CREATE TABLE {table} (writer int, number int, x xid8 DEFAULT pg_current_xact_id());
"""
ALSO = """
CREATE VIEW torture_view AS SELECT writer, number FROM torture_1;
CREATE PROCEDURE torture_procedure(w int, a int, b int) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO torture_1 (writer, number) VALUES (w, a); COMMIT;
    INSERT INTO torture_2 (writer, number) VALUES (w, b); COMMIT;
END $$;
"""


class Round(ABC):
    """What is the same for every kind of server: the writers, the rounds, and what is asked of each."""

    # What any writer may be told while a fence goes up.
    expected: frozenset[str]

    @abstractmethod
    def urls(self) -> dict[str, str]:
        """Return where the writers of each kind connect."""

    @abstractmethod
    def written(self) -> set[tuple[int, int]]:
        """Return the rows that are there."""

    @abstractmethod
    def past(self, position: str) -> list[str]:
        """Return what the server's log has of rows behind a position, up to now."""

    @abstractmethod
    def count(self) -> int:
        """Return how many rows there are."""

    @abstractmethod
    def refusals(self) -> int:
        """Return how many transactions were rolled back: what refused writers leave behind."""

    @abstractmethod
    def close(self) -> None:
        """Remove the database."""

    def begin(self) -> None:  # noqa: B027 - most need nothing
        """Get ready for a round, before the fence goes up."""

    def torture(
        self, raise_: Callable[[], str], lift: Callable[[], object], styles: Sequence[tuple[str, str]], *, rounds: int,
        until_caught: bool = False,
    ) -> list[Result]:  # fmt: skip
        """Run rounds over the same writers, who write on between them.

        Args:
            raise_: Raises the fence; returns the position that is claimed to have no write behind it.
            lift: Lifts it again.
            styles: What writes: driver and style of each.
            rounds: How many.
            until_caught: End with the first round that shows a write behind the position.
        """
        writers = Writers(self.urls(), styles)
        results: list[Result] = []
        try:
            for _ in range(rounds):
                results.append(self._round(raise_, lift))
                if until_caught and results[-1].past_position:
                    break
            acknowledged, refused = writers.end()
        finally:
            writers.kill()
        unexpected = set(refused) - self.expected
        if unexpected:
            raise RuntimeError(f"writers were told {unexpected}: {refused}")
        rows = self.written()
        results[-1].rows, results[-1].refused = len(rows), sum(refused.values())
        results[-1].lost = sorted(acknowledged - rows)
        return results

    def _round(self, raise_: Callable[[], str], lift: Callable[[], object]) -> Result:
        written = self.count()
        eventually(lambda: self.count() - written >= BUSY_ROWS, 30, what="the writers write")
        self.begin()
        result = Result()
        begun = time.monotonic()
        position = raise_()
        result.seconds = time.monotonic() - begun
        before = self.refusals()

        def tried() -> bool:
            # In vain, or, where the fence leaks, in earnest.
            return self.refusals() - before >= BUSY_REFUSALS or self.count() - written >= LEAKED_ROWS

        eventually(tried, 30, what="the writers try")
        result.past_position = self.past(position)
        lift()
        return result


class Arena(Round):
    """One database of one PostgreSQL server, laid out for one kind of fence."""

    expected = EXPECTED

    def __init__(self, server: PostgresServer, *, app: str, owner: str, fencer: str) -> None:
        self.server = server
        self.app, self.owner, self.fencer = app, owner, fencer
        self.name = server.new_database()
        server.sql(f"ALTER DATABASE {self.name} OWNER TO {owner}; GRANT CREATE ON DATABASE {self.name} TO {fencer}")
        statements = "".join(SETUP.format(table=table) for table in TABLES) + ALSO
        if app != owner:
            statements += (
                f"GRANT SELECT, INSERT ON {', '.join(TABLES)} TO app_rw; GRANT INSERT ON torture_view TO {app};"
            )
        self.sql(f"GRANT ALL ON SCHEMA public TO {owner}; SET ROLE {owner}; {statements}")

    def sql(self, statement: str) -> str:
        """Run statements as a superuser."""
        return self.server.sql(statement, database=self.name)

    @property
    def url(self) -> str:
        """Where the fencer connects."""
        return self.server.url(self.name, user=self.fencer)

    def rows(self) -> dict[tuple[int, int], int]:
        """Return the transaction id of each row."""
        union = " UNION ALL ".join(f"SELECT writer, number, x FROM {table}" for table in TABLES)
        out = {}
        for line in self.sql(union).splitlines():
            writer, number, xid = line.split("|")
            out[(int(writer), int(number))] = int(xid)
        return out

    def mark(self) -> str:
        """Return a position with everything up to now before it, flushed, so that it can be read."""
        return self.behind("")

    def behind(self, change: str) -> str:
        """Change something in a transaction of its own, and return the position right behind it: nothing is between."""
        return self.sql(
            f"{change} SET synchronous_commit = on; SELECT pg_logical_emit_message(true, 'torture', '');"
            "SELECT pg_current_wal_flush_lsn()"
        ).splitlines()[-1]

    def commits_between(self, position: str, end: str) -> set[int]:
        """Return the ids of the transactions whose COMMIT lies between two positions of the log."""
        done = subprocess.run(
            [self.server.programs / "pg_waldump", "-p", self.server.data / "pg_wal", "-r", "Transaction",
             "-s", position, "-e", end],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if "rmgr: Transaction" not in done.stdout:  # `mark` commits: an unread log proves nothing
            raise RuntimeError(f"pg_waldump showed nothing behind {position}: {done.stderr[-500:]}")
        return {int(xid) for xid in re.findall(r"tx:\s+(\d+),.*desc: COMMIT", done.stdout)}

    def urls(self) -> dict[str, str]:
        url = self.server.url(self.name, user=self.app)
        return {"psycopg": url, "asyncpg": url}

    def written(self) -> set[tuple[int, int]]:
        return set(self.rows())

    def past(self, position: str) -> list[str]:
        behind = self.commits_between(position, self.mark())
        rows = {row: xid for row, xid in self.rows().items() if xid & 0xFFFFFFFF in behind}
        return [f"{row} by transaction {xid}" for row, xid in rows.items()]

    def count(self) -> int:
        return int(self.sql("SELECT " + " + ".join(f"(SELECT count(*) FROM {table})" for table in TABLES)))

    def refusals(self) -> int:
        return int(self.sql("SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()"))

    def close(self) -> None:
        """Remove the database."""
        self.server.drop_database(self.name)


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Return the figures of several rounds."""
    times = sorted(result.seconds for result in results)
    return {
        "rounds": len(results),
        "rows": sum(result.rows for result in results),
        "refused": sum(result.refused for result in results),
        "past the position": sum(len(result.past_position) for result in results),
        "acknowledged and lost": sum(len(result.lost) for result in results),
        "time to safe, p50 ms": round(1000 * statistics.median(times), 1),
        "time to safe, p99 ms": round(1000 * times[min(len(times) - 1, int(0.99 * len(times)))], 1),
    }
