"""What a witness has to tell: writes that a server took, or refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Write:
    """One write.

    Attributes:
        database: Name of the database, or of what refused.
        refused: It was refused; else it took place.
        table: The table, where that is known, else "".
        statement: The statement, or what is known of it.
    """

    database: str
    refused: bool
    table: str = ""
    statement: str = ""

    def __str__(self) -> str:
        where = f" to {self.table}" if self.table else ""
        said = f": {' '.join(self.statement.split())[:200]}" if self.statement else ""
        return f"{'was refused a write' if self.refused else 'WROTE'}{where} in {self.database}{said}"


class Witness:
    """Writes that were seen on one database, in order. Any thread may tell it of one.

    Attributes:
        name: The database's name.
        statements: How many statements it has seen at all, reading ones included: 0 says that it looks at a database
            that nobody uses.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.statements = 0
        self._lock = threading.Lock()
        self._writes: list[Write] = []
        self._settle: Callable[[], None] | None = None

    @property
    def writes(self) -> tuple[Write, ...]:
        """Every write so far."""
        if self._settle is not None:
            self._settle()
        with self._lock:
            return tuple(self._writes)

    def settling(self, settle: Callable[[], None]) -> None:
        """Call this before anybody reads the writes: some are only done when their rows have been fetched."""
        self._settle = settle

    def saw(self) -> None:
        """Count a statement, whatever it does."""
        with self._lock:
            self.statements += 1

    def wrote(self, *, refused: bool, table: str | None = "", statement: str = "") -> None:
        """Take in a write."""
        with self._lock:
            self._writes.append(Write(self.name, refused, table or "", statement))
