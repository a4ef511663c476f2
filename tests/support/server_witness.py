"""What a PostgreSQL server itself says of a stretch of time: every statement that it was sent, and whether it wrote.

    server = witnessed_server().start()
    with Witness(server, database).watching() as seen:
        ...                                     # requests, over any framework and any driver
    assert not seen.wrote, seen
    assert seen.statements                      # it did look at the database that was used

Proof is the transaction horizon: a transaction gets a number with the first row that it writes, in any database of the
server, whoever runs it and however. The same horizon before and after means that nothing was written, by anybody; so
nothing else may use the server meanwhile. The statements say who it was when it is not the same, and show what was
tried and refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from support.postgres_server import PostgresServer

# Each entry of the log begins with this; nobody writes it by chance.
_PREFIX = "@witness|%d|%a|%p|"
_ENTRY = re.compile(r"^@witness\|(?P<database>[^|]*)\|(?P<application>[^|]*)\|(?P<pid>\d+)\|(?P<said>.*)", re.DOTALL)
_STATEMENT = re.compile(r"^LOG:  (?:statement|execute [^:]*): (?P<text>.*)", re.DOTALL)
_READS = re.compile(
    r"\s*(select|values|table|show|begin|start|commit|end|rollback|abort|savepoint|release|set|reset|declare|fetch|"
    r"move|close|discard|deallocate)\b",
    re.IGNORECASE,
)


def witnessed_server() -> PostgresServer:
    """Return a server, not yet started, whose log says everything, and which writes nothing by itself."""
    return PostgresServer("log_statement=all", f"log_line_prefix={_PREFIX}", "autovacuum=off", name="witnessed")


@dataclass(slots=True)
class Seen:
    """A stretch of time, as the server saw it.

    Attributes:
        before: The transaction horizon when it began.
        after: The same at its end.
        statements: What was sent to the database in between, in order.
    """

    before: int
    after: int = -1
    statements: tuple[str, ...] = ()

    @property
    def wrote(self) -> int:
        """How many transactions have written something."""
        assert self.after >= 0, "it is still going on"
        return self.after - self.before

    @property
    def writes(self) -> tuple[str, ...]:
        """The statements that do not look like reading: those that were refused, too, and no proof of anything."""
        return tuple(s for s in self.statements if not _READS.match(s))

    def __str__(self) -> str:
        shown = "; ".join(self.writes) or "none that looks like a write"
        return f"{self.wrote} transactions wrote; of {len(self.statements)} statements: {shown}"


class Witness:
    """Watches one database of a server made by `witnessed_server`."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.server = server
        self.database = database

    @contextmanager
    def watching(self) -> Iterator[Seen]:
        """Watch a block; what was seen is there after it."""
        seen = Seen(self._horizon())
        began = self.server.log.stat().st_size
        yield seen
        # The server writes an entry before it runs the statement: what was answered stands there.
        seen.statements = tuple(self._statements(began))
        seen.after = self._horizon()

    def _horizon(self) -> int:
        """Return the number that the next transaction to write will get; asking takes none."""
        return int(self.server.sql("SELECT pg_snapshot_xmax(pg_current_snapshot())"))

    def _statements(self, began: int) -> Iterator[str]:
        with self.server.log.open("rb") as log:
            log.seek(began)
            text = log.read().decode(errors="replace")
        for entry in re.split(r"\n(?=@witness\|)", text):
            found = _ENTRY.match(entry)
            if found is None or found["database"] != self.database:
                continue
            statement = _STATEMENT.match(found["said"])
            if statement is not None:
                # The server puts a tab behind each end of a line.
                yield statement["text"].strip().replace("\n\t", "\n")
