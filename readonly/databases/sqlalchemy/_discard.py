"""Incidental writes that are dropped while read-only, before they reach the server.

Judged is what the ORM and Core know, the table and the changed columns; never SQL text. A refused statement would
poison its transaction, so a dropped one must not be sent at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast
from weakref import WeakSet

from sqlalchemy import Column, Connection, Delete, Insert, Table, Update, false, inspect, null, select
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.orm import (
    ColumnProperty,
    InstanceState,
    Mapper,
    ORMExecuteState,
    RelationshipProperty,
    Session,
)
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.interfaces import MANYTOONE, ONETOMANY
from sqlalchemy.sql.elements import BindParameter, ClauseElement
from sqlalchemy.sql.visitors import iterate

from readonly.errors import ConfigurationError

logger = logging.getLogger("readonly")

# A statement that sets more columns than this is about its row.
COLUMNS_NAMED = 3


class Discards:
    """What may be dropped.

    Args:
        names: `table` or `schema.table.*` for a whole table; `table.column` or `schema.table.column` for an UPDATE
            that changes nothing else.

    Raises:
        ConfigurationError: A name can't be read; the message shows it.
    """

    def __init__(self, names: Iterable[str]) -> None:
        if isinstance(names, str):
            raise ConfigurationError(f"discard={names!r} is one string: write a list, discard=[{names!r}]")
        # Tables that are some relationship's `secondary`: a flush counts the rows that it deletes there.
        self.secondary: set[Table] = set()
        self.tables: set[str] = set()
        self.columns: dict[str, set[str]] = {}
        for name in names:
            parts = str(name).split(".")
            if not 1 <= len(parts) <= 3 or not all(p == p.strip() and p for p in parts) or "*" in parts[:-1]:
                raise ConfigurationError(
                    f"discard={name!r} names nothing: write 'table', 'table.column', 'schema.table.column' or "
                    "'schema.table.*'"
                )
            if len(parts) == 1 and parts != ["*"]:
                self.tables.add(name)
            elif parts[-1] == "*" and len(parts) > 1:
                self.tables.add(".".join(parts[:-1]))
            elif parts[-1] != "*":
                self.columns.setdefault(".".join(parts[:-1]), set()).add(parts[-1])
            else:
                raise ConfigurationError("discard='*' would drop every write: name the tables")

    def __bool__(self) -> bool:
        return bool(self.tables or self.columns)

    def knows(self, table: object) -> bool:
        """Tell whether any write to this table may be dropped."""
        return isinstance(table, Table) and (table.fullname in self.tables or table.fullname in self.columns)

    def whole(self, table: object) -> bool:
        """Tell whether all writes to this table are dropped."""
        return isinstance(table, Table) and table.fullname in self.tables

    def update(self, table: Table, columns: Iterable[str]) -> bool:
        """Tell whether an UPDATE of these columns is dropped."""
        named = self.columns.get(table.fullname, set())
        columns = set(columns)
        return table.fullname in self.tables or bool(columns and columns <= named)

    def statement(
        self, statement: Insert | Update | Delete, parameters: object, mapper: Mapper[Any] | None = None
    ) -> bool:
        """Tell whether a statement is dropped; what it changes must be known for sure.

        Args:
            statement: The statement.
            parameters: What it is executed with: a mapping, a sequence of them, or None.
            mapper: The class it is about, where the ORM executes it.
        """
        table = statement.table
        if not isinstance(table, Table) or not self.knows(table):
            return False
        if self.whole(table):
            return True
        if not isinstance(statement, Update):
            return False
        columns = _set_columns(statement, table, parameters, mapper)
        return columns is not None and self.update(table, columns)


def names_to_drop(statement: Insert | Update | Delete, parameters: object) -> tuple[str, ...]:
    """Return what `Discards` would have to be told so that a statement is dropped: its columns, or its table."""
    table = statement.table
    name = str(getattr(table, "fullname", table))
    if isinstance(statement, Update) and isinstance(table, Table):
        columns = _set_columns(statement, table, parameters, None)
        if columns and len(columns) <= COLUMNS_NAMED:
            return tuple(sorted(f"{name}.{column}" for column in columns))
    return (name,)


class Dropped(IteratorResult[Any]):
    """The result of a dropped statement: no rows, none matched, and no key.

    Attributes:
        rowcount: 0.
        inserted_primary_key: None: there is no row, so there is no key.
    """

    rowcount = 0
    inserted_primary_key = None
    returns_rows = False

    def __init__(self, statement: Insert | Update | Delete) -> None:
        super().__init__(SimpleResultMetaData([c.key for c in _returning(statement)]), iter(()))


def instead(statement: Insert | Update | Delete) -> ClauseElement:
    """Return a read of no rows with the columns that the statement would have returned."""
    columns = [null().label(c.key) for c in _returning(statement)]
    return select(*columns or [null().label("dropped")]).where(false())


class OnSession:
    """Drops what sessions would send: flushes, and statements that they execute.

    Args:
        discards: What may be dropped.
        refused: Tells whether the session's transaction, for a mapper or statement, is one that must not write here.
            Begins that transaction if there is none yet.
    """

    def __init__(self, discards: Discards, refused: Callable[[Session, Mapping[str, Any]], bool]) -> None:
        self._discards = discards
        self._refused = refused
        self._noted: WeakSet[Mapper[Any]] = WeakSet()

    def before_flush(self, session: Session) -> None:
        """Take out of the session what would be dropped; what is left is flushed."""
        for instance in list(session.new):
            state = _state(instance)
            self._note_secondary(state.mapper)
            if all(self._discards.whole(t) for t in state.mapper.tables) and self._refuses(session, state):
                _forget_new(session, instance, state)
                _log("INSERT", state.mapper.local_table)
        for instance in list(session.deleted):
            state = _state(instance)
            self._note_secondary(state.mapper)
            if all(self._discards.whole(t) for t in state.mapper.tables) and self._refuses(session, state):
                session.add(instance)  # takes the deletion back
                _log("DELETE", state.mapper.local_table)
        for instance in list(session.dirty):
            state = _state(instance)
            self._note_secondary(state.mapper)
            if not any(self._discards.knows(t) for t in state.mapper.tables):
                continue
            changed = _changed_columns(state)
            if changed and self._all_dropped(changed) and self._refuses(session, state):
                _forget_changes(session, instance, state)
                _log("UPDATE", state.mapper.local_table)

    def do_orm_execute(self, execution: ORMExecuteState) -> Dropped | None:
        """Answer a statement that is dropped; None lets it go on."""
        statement = execution.statement
        if not isinstance(statement, (Insert, Update, Delete)):
            return None
        mapper = execution.bind_mapper
        if not self._discards.statement(statement, execution.parameters, mapper):
            return None
        if not self._refused(execution.session, execution.bind_arguments):
            return None
        _log(type(statement).__name__.upper(), statement.table)
        return Dropped(statement)

    def _note_secondary(self, mapper: Mapper[Any]) -> None:
        if mapper not in self._noted:
            self._noted.add(mapper)
            self._discards.secondary.update(r.secondary for r in mapper.relationships if isinstance(r.secondary, Table))

    def _refuses(self, session: Session, state: InstanceState[Any]) -> bool:
        return self._refused(session, {"mapper": state.mapper})

    def _all_dropped(self, changed: Mapping[Table, set[str]]) -> bool:
        return all(self._discards.update(table, columns) for table, columns in changed.items())


def on_connection(
    discards: Discards,
    refused: Callable[[Connection], bool],
    connection: Connection,
    statement: Any,
    multiparams: Any,
    params: Any,
    options: Mapping[str, Any],
) -> tuple[Any, Any, Any]:
    """Replace a Core statement that is dropped by a read of no rows; all others pass unchanged."""
    unchanged = (statement, multiparams, params)
    # What a flush still sends after `before_flush` is not ours to judge: it counts rows and reads keys. It names a
    # cache of its own, but for the rows of a many-to-many.
    if not isinstance(statement, (Insert, Update, Delete)) or "compiled_cache" in options:
        return unchanged
    if statement.table in discards.secondary and not isinstance(statement, Insert):
        return unchanged
    if not discards.statement(statement, multiparams or params) or not refused(connection):
        return unchanged
    _log(type(statement).__name__.upper(), statement.table)
    return instead(statement), [], {}


def _log(verb: str, table: object) -> None:
    logger.debug("readonly: dropped an %s of %s", verb, table)


def _state(instance: object) -> InstanceState[Any]:
    return cast("InstanceState[Any]", inspect(instance))


def _returning(statement: Insert | Update | Delete) -> list[Any]:
    return list(statement.exported_columns)


def _forget_new(session: Session, instance: object, state: InstanceState[Any]) -> None:
    # Its parents must forget it too, or the flush finds it in their collections and warns.
    parents = {
        r.key: instance.__dict__[r.key]
        for r in state.mapper.relationships
        if r.direction is MANYTOONE and instance.__dict__.get(r.key) is not None
    }
    for key in parents:
        setattr(instance, key, None)
    if instance in session:  # a parent with delete-orphan has put it out already
        session.expunge(instance)
    for key, parent in parents.items():
        set_committed_value(instance, key, parent)


def _changed_columns(state: InstanceState[Any]) -> dict[Table, set[str]] | None:
    """Return the columns that an UPDATE would change, by table; None if it is not only columns."""
    found: dict[Table, set[str]] = {}
    for attribute in state.attrs:
        if not attribute.history.has_changes():
            continue
        prop = state.mapper.attrs[attribute.key]
        if isinstance(prop, RelationshipProperty) and prop.direction is ONETOMANY:
            continue  # the rows on the other side change, not this one
        if not isinstance(prop, ColumnProperty):
            return None
        for column in prop.columns:
            if not isinstance(column, Column) or not isinstance(column.table, Table):
                return None
            found.setdefault(column.table, set()).add(column.name)
    return found


def _forget_changes(session: Session, instance: object, state: InstanceState[Any]) -> None:
    """Let the object hold what the database holds, without asking it where the old value is known."""
    for attribute in state.attrs:
        if not isinstance(state.mapper.attrs[attribute.key], ColumnProperty):
            continue
        history = attribute.history
        if not history.has_changes():
            continue
        if history.deleted:
            set_committed_value(instance, attribute.key, history.deleted[0])
        else:
            session.expire(instance, [attribute.key])


def _set_columns(statement: Update, table: Table, parameters: object, mapper: Mapper[Any] | None) -> set[str] | None:
    """Return the names of the columns that an UPDATE sets; None where that is not known for sure."""
    keys: set[object] = set(statement._values or ())  # there is no public way to ask an Update for its SET clause
    many = isinstance(parameters, Sequence)
    rows = cast("Sequence[Mapping[str, Any]]", parameters) if many else [cast("Mapping[str, Any]", parameters or {})]
    bound = {e.key for e in iterate(statement) if isinstance(e, BindParameter)}
    given = {key for row in rows for key in row if key not in bound}
    if many and mapper is not None:
        # By primary key: the ORM puts it into the WHERE clause.
        given -= {mapper.get_property_by_column(c).key for c in mapper.primary_key}
    found = {_column_name(key, table, mapper) for key in (*keys, *given)}
    return None if None in found else cast("set[str]", found)


def _column_name(key: object, table: Table, mapper: Mapper[Any] | None) -> str | None:
    if isinstance(key, str):
        if mapper is not None and key in mapper.column_attrs:
            column: object = mapper.column_attrs[key].columns[0]
        else:
            column = table.c.get(key)
    else:
        column = key
    name = getattr(column, "name", None)
    return name if isinstance(name, str) and name in {c.name for c in table.c} else None
