"""What requests write through Django, noted while a rehearsal goes on; the rest of the time it looks away.

What is written in a transaction, its server says when it is about to be committed; what is rolled back is none. Outside
of one each statement is a transaction by itself, and over when it can be looked at: PostgreSQL says by its tag whether
it has written, SQLite by the rows that the connection has changed, MySQL and MariaDB by an answer without columns.
Which table it was is read from the statement, as Django spells it, where the server does not say so.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any, Final, NamedTuple

from django.apps import apps
from django.db.models.sql import compiler

from readonly.context import Notes, current
from readonly.databases.rehearsed import Around, Asking, Unasked, asking
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
_OPEN: Final = "_readonly_rehearsed"
_HOOKED: Final = (
    "_commit",
    "_rollback",
    "_set_autocommit",
    "_close",
    "_savepoint",
    "_savepoint_rollback",
    "_savepoint_commit",
)
_COMPILER: Final = compiler.__file__
# Between a compiler and us there are Django's cursor, and the wrappers of a project.
_FRAMES: Final = 20
# A statement that sets more fields than this is about its row.
_FIELDS_NAMED: Final = 3
# Kinds of writes that are told apart in one transaction.
_MOST: Final = 50
_UNKNOWN: Final = "?"


class _Write(NamedTuple):
    """A statement that has written.

    Attributes:
        label: The model, else the table; `?`: nobody knows.
        where: Where in the code.
        dropped: It would have been dropped while read-only.
        drops: What would have to be dropped so that it is; nothing, if the ORM has not made it.
    """

    label: str
    where: str
    dropped: bool = False
    drops: tuple[str, ...] = ()


@dataclass(slots=True)
class _Open:
    """A transaction that is open.

    Attributes:
        connection: The driver's.
        notes: Who wants to know; None: it belongs to no request or job.
        ask: How its server is asked; None: it could not be.
        before: What the server said when it began.
        written: Its statements that have written, the first of each kind.
        marks: For each savepoint, how many of those were before it.
        tried: Some of them were rolled back.
    """

    connection: Any
    notes: Notes | None
    ask: Asking | None
    before: object = None
    written: list[_Write] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)
    tried: bool = False

    def add(self, write: _Write) -> None:
        """Note a statement. One of a kind will do: what takes an earlier one back takes the later ones back, too."""
        known = {one._replace(where="") for one in self.written}
        if len(known) < _MOST and write._replace(where="") not in known:
            self.written.append(write)


class Rehearsing:
    """A wrapper for `connection.execute_wrappers`, the same for all connections; `hook` each of them as well.

    Args:
        switch: The process's switch.
        discards: What is dropped while read-only.
    """

    def __init__(self, switch: Switch, discards: Discards) -> None:
        self._switch = switch
        self._discards = discards
        self._models: dict[str, Any] | None = None
        self._arounds: dict[str, Around] = {}

    # --- one of Django's connection objects --------------------------------------------------------------------------

    def hook(self, wrapper: Any) -> None:
        """Hear of a connection object's statements, and of the ends of its transactions."""
        wrapper.execute_wrappers.append(self)
        own = vars(wrapper)
        for name in _HOOKED:
            own[name] = partial(getattr(self, name), wrapper, getattr(wrapper, name))

    def unhook(self, wrapper: Any) -> None:
        """Hear of nothing any more."""
        for name in (*_HOOKED, _OPEN):
            vars(wrapper).pop(name, None)
        if self in wrapper.execute_wrappers:
            wrapper.execute_wrappers.remove(self)

    # --- statements --------------------------------------------------------------------------------------------------

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Execute a statement, and note whether it has written."""
        rehearsal = self._switch.view.state.rehearsal
        work = current(self._switch) if rehearsal is not None else None
        if rehearsal is None or (work is not None and work.noted is None):
            return execute(sql, params, many, context)
        wrapper = context["connection"]
        known = self._begun(wrapper, None if work is None else work.noted)
        before = self._changes(wrapper)
        result = execute(sql, params, many, context)
        try:
            write = self._written(wrapper, context["cursor"], str(sql), before)
            if known is None:
                self._note(wrapper, None if work is None else work.noted, [write] if write is not None else [])
            elif write is not None:
                known.add(write)
        except Exception as error:  # no request may fail for what a rehearsal would like to know
            _not_seen(error)
        return result

    def _begun(self, wrapper: Any, notes: Notes | None) -> _Open | None:
        """Return what is known of the transaction that a statement is about to be a part of; None outside of any."""
        if not wrapper.in_atomic_block and wrapper.autocommit:
            return None
        known = vars(wrapper).get(_OPEN)
        if isinstance(known, _Open) and known.connection is wrapper.connection:
            return known
        known = _Open(wrapper.connection, notes, asking(wrapper.vendor))
        # PostgreSQL is not asked yet, so that nothing can go wrong there.
        if known.ask is not None and wrapper.vendor != "postgresql":
            try:
                known.before = known.ask.apart(known.connection, partial(known.ask.before, known.connection))
            except Unasked as error:
                known.ask = None
                _not_seen(error)
        vars(wrapper)[_OPEN] = known
        return known

    def _written(self, wrapper: Any, cursor: Any, sql: str, before: int) -> _Write | None:
        if not self._wrote(wrapper, cursor, sql, before):
            return None
        label, dropped, drops = self._named(sql)
        return _Write(label, caller(), dropped, drops if _by_the_orm() else ())

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
        if wrapper.vendor == "sqlite":
            return self._changes(wrapper) != before
        # In a transaction the server has the say, which counts statements; here it is about their names.
        return cursor.rowcount > 0 or (wrapper.in_atomic_block and _WRITES.match(sql) is not None)

    def _named(self, sql: str) -> tuple[str, bool, tuple[str, ...]]:
        """Return the model (or table) that a statement writes to, if it is dropped while read-only, and what could be.

        An UPDATE of few fields could be dropped by their names.
        """
        found = _WRITES.match(sql)
        if found is None:
            return _UNKNOWN, False, ()
        model = self._model(found[1])
        if model is None:
            return found[1], False, ()
        label = str(model._meta.label)
        if label in _INCIDENTAL or self._discards.whole(model):
            return label, True, (label,)
        if sql.lstrip()[:6].upper() != "UPDATE":
            return label, False, (label,)
        columns = {field.column: field.name for field in model._meta.concrete_fields}
        fields = [columns.get(column, column) for column in _SET.findall(sql.partition(" WHERE ")[0])]
        few = 0 < len(fields) <= _FIELDS_NAMED
        return (
            label,
            self._discards.update(model, fields),
            tuple(f"{label}.{one}" for one in fields) if few else (label,),
        )

    def _model(self, table: str) -> Any:
        if self._models is None:
            known = [model for model in apps.get_models(include_auto_created=True) if not model._meta.proxy]
            self._models = {model._meta.db_table: model for model in known}
        return self._models.get(table)

    # --- the ends of transactions, named as the methods that they stand in for ---------------------------------------

    def _commit(self, wrapper: Any, original: Callable[[], Any]) -> Any:
        known = self._ended(wrapper)
        if known is None:
            return original()
        with wrapper.wrap_database_errors:  # Django rolls back where its commit fails
            written = self._asked(wrapper, known)
        result = original()
        self._committed(wrapper, known, written)
        return result

    def _rollback(self, wrapper: Any, original: Callable[[], Any]) -> Any:
        known = self._ended(wrapper)
        if known is not None and known.notes is not None:
            # Nothing came of it: that a guarded database was asked is known all the same.
            known.notes.transaction({}, taken_back=known.tried or bool(known.written))
        return original()

    def _set_autocommit(self, wrapper: Any, original: Callable[[bool], Any], autocommit: bool) -> Any:
        result = original(autocommit)
        known = self._ended(wrapper) if autocommit else None
        if known is not None:  # what was open is committed by that, where that is possible at all
            self._committed(wrapper, known, () if known.written else None)
        return result

    def _close(self, wrapper: Any, original: Callable[[], Any]) -> Any:
        self._ended(wrapper)
        return original()

    def _savepoint(self, wrapper: Any, original: Callable[[str], Any], sid: str) -> Any:
        result = original(sid)
        known = vars(wrapper).get(_OPEN)
        if isinstance(known, _Open):
            known.marks[sid] = len(known.written)
        return result

    def _savepoint_rollback(self, wrapper: Any, original: Callable[[str], Any], sid: str) -> Any:
        result = original(sid)
        known = vars(wrapper).get(_OPEN)
        if isinstance(known, _Open) and sid in known.marks:
            known.tried = known.tried or len(known.written) > known.marks[sid]
            del known.written[known.marks[sid] :]
            if not known.written and known.ask is not None and wrapper.vendor != "postgresql":
                # Those servers count what is taken back as well.
                try:
                    known.before = known.ask.apart(known.connection, partial(known.ask.before, known.connection))
                except Unasked as error:
                    known.ask = None
                    _not_seen(error)
        return result

    def _savepoint_commit(self, wrapper: Any, original: Callable[[str], Any], sid: str) -> Any:
        known = vars(wrapper).get(_OPEN)
        if isinstance(known, _Open):
            known.marks.pop(sid, None)
        return original(sid)

    def _ended(self, wrapper: Any) -> _Open | None:
        """Return what is known of a transaction that ends, and forget it."""
        known = vars(wrapper).pop(_OPEN, None)
        here = isinstance(known, _Open) and known.connection is wrapper.connection
        return known if here and self._switch.view.state.rehearsal is not None else None

    def _asked(self, wrapper: Any, known: _Open) -> tuple[str, ...] | None:
        """Return the tables that the server names, () where it says no more than that something was written, or None.

        Raises whatever may have cost the transaction what it wrote.
        """
        ask, connection = known.ask, known.connection
        if ask is not None:
            around = self._arounds.setdefault(wrapper.alias, Around(self._switch, wrapper.alias))

            def question() -> tuple[str, ...] | None:
                around.look(connection, ask)
                return ask.wrote(connection, known.before)

            try:
                found: tuple[str, ...] | None = ask.apart(connection, question)
            except Unasked as error:
                _not_seen(error)
            else:
                return found
        return () if known.written else None

    def _committed(self, wrapper: Any, known: _Open, written: tuple[str, ...] | None) -> None:
        try:
            if written is None:
                if known.notes is not None:
                    known.notes.transaction({}, taken_back=known.tried)
                return
            labels = dict.fromkeys(map(self._label, written)) or dict.fromkeys(one.label for one in known.written)
            writes = []
            # What no statement names is a trigger's work, where the ORM has made all of them.
            triggers = bool(known.written) and all(one.drops for one in known.written)
            other = next((one.where for one in known.written if one.where), "") or caller()
            for label in labels or (_UNKNOWN,):
                writes += [one for one in known.written if one.label == label] or [_Write(label, other)]
            self._note(wrapper, known.notes, writes, triggers=triggers)
        except Exception as error:
            _not_seen(error)

    def _label(self, table: str) -> str:
        model = self._model(table) or self._model(table.rpartition(".")[2])
        return table if model is None else str(model._meta.label)

    def _note(self, wrapper: Any, notes: Notes | None, writes: list[_Write], *, triggers: bool = False) -> None:
        kept = [one for one in writes if not one.dropped]
        tables = {f"{wrapper.alias}.{one.label}": one.where for one in reversed(kept)}
        if notes is not None:
            notes.transaction(
                tables,
                dropped=len(kept) < len(writes),
                droppable=[f"{wrapper.alias}.{name}" for one in kept for name in one.drops],
                raw=not triggers and not all(one.drops for one in kept),
            )
            return
        rehearsal = self._switch.view.state.rehearsal
        if tables and rehearsal is not None:
            where = next((place for place in tables.values() if place), _UNKNOWN)
            with self._switch.rehearsed.adding(rehearsal.id) as numbers:
                keep(numbers.outside, cleaned(where), cleaned(", ".join(tables)), most=MAX_JOBS)


def _by_the_orm() -> bool:
    """Return whether a statement that is being executed was made by a compiler of Django's."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_FRAMES):
        if frame is None:
            return False
        if frame.f_code.co_filename == _COMPILER:
            return True
        frame = frame.f_back
    return False


def _not_seen(error: BaseException) -> None:
    logger.warning("readonly: something could not be looked at for the rehearsal", exc_info=error)
