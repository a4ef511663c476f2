"""What requests write through Django, noted while a rehearsal goes on; the rest of the time it looks away.

The server says whether a statement has written: PostgreSQL by its tag, SQLite by the rows that the connection has
changed, MySQL and MariaDB by an answer without columns. Which table it was is read from the statement, as Django spells
it; so is what returns the rows that it writes, but on PostgreSQL.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, Final

from django.apps import apps

from readonly.context import current
from readonly.logs import LOGGER
from readonly.rehearsal_counts import MAX_JOBS, caller, cleaned, keep
from readonly.switch import Switch

from .discard import Discards

logger = logging.getLogger(LOGGER)

# How a write begins, and what it writes to.
_WRITES: Final = re.compile(
    r"\s*(?:INSERT(?: \w+)* INTO|UPDATE|DELETE FROM|REPLACE INTO)\s+[`\"]?([\w$]+)", re.IGNORECASE
)
_SET: Final = re.compile(r"[`\"](\w+)[`\"] = ")
# PostgreSQL's tags of what writes nothing by itself.
_READ_TAGS: Final = frozenset(
    {
        "SELECT",
        "SHOW",
        "FETCH",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SET",
        "RESET",
        "SAVEPOINT",
        "RELEASE",
        "START",
        "DECLARE",
    }
)
# Rows that the framework writes for itself, and that the adapter leaves out while read-only.
_INCIDENTAL: Final = frozenset({"sessions.Session"})


class Rehearsing:
    """A wrapper for `connection.execute_wrappers`, the same for all connections.

    Args:
        switch: The process's switch.
        discards: What is dropped while read-only.
    """

    def __init__(self, switch: Switch, discards: Discards) -> None:
        self._switch = switch
        self._discards = discards
        self._models: dict[str, Any] | None = None

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Execute a statement, and note whether it has written."""
        rehearsal = self._switch.view.state.rehearsal
        work = current(self._switch) if rehearsal is not None else None
        if rehearsal is None or (work is not None and work.noted is None):
            return execute(sql, params, many, context)
        wrapper = context["connection"]
        before = self._changes(wrapper)
        result = execute(sql, params, many, context)
        try:
            wrote = self._wrote(wrapper, context["cursor"], str(sql), before)
            name, dropped = self._named(str(sql)) if wrote else ("", False)
            tables = {f"{wrapper.alias}.{name}": caller()} if wrote and not dropped else {}
            if work is not None and work.noted is not None:
                work.noted.transaction(tables, dropped=dropped)
            elif tables:
                with self._switch.rehearsed.adding(rehearsal.id) as numbers:
                    keep(numbers.outside, cleaned(caller() or "?"), cleaned(", ".join(tables)), most=MAX_JOBS)
        except Exception:
            # No request may fail for what a rehearsal would like to know.
            logger.warning("readonly: a statement could not be looked at for the rehearsal", exc_info=True)
        return result

    @staticmethod
    def _changes(wrapper: Any) -> int:
        return int(wrapper.connection.total_changes) if wrapper.vendor == "sqlite" else 0

    def _wrote(self, wrapper: Any, cursor: Any, sql: str, before: int) -> bool:
        if wrapper.vendor == "postgresql":
            tag = str(getattr(cursor, "statusmessage", None) or "SELECT")
            return tag.partition(" ")[0] not in _READ_TAGS
        if cursor.description is not None:
            # RETURNING: SQLite writes when the rows are fetched, and MariaDB counts those that it returns.
            return _WRITES.match(sql) is not None
        return self._changes(wrapper) != before if wrapper.vendor == "sqlite" else cursor.rowcount > 0

    def _named(self, sql: str) -> tuple[str, bool]:
        """Return the model (or table) that a statement writes to, and whether it is dropped while read-only."""
        found = _WRITES.match(sql)
        if found is None:
            return "?", False
        if self._models is None:
            self._models = {model._meta.db_table: model for model in apps.get_models(include_auto_created=True)}
        model = self._models.get(found[1])
        if model is None:
            return found[1], False
        label = str(model._meta.label)
        if label in _INCIDENTAL or self._discards.whole(model):
            return label, True
        if sql.lstrip()[:6].upper() != "UPDATE":
            return label, False
        columns = {field.column: field.name for field in model._meta.concrete_fields}
        fields = [columns.get(column, column) for column in _SET.findall(sql.partition(" WHERE ")[0])]
        return label, self._discards.update(model, fields)
