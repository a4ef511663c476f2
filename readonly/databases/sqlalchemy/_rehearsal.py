"""What an engine's transactions write, noted while a rehearsal goes on; nothing is in anybody's way without one.

The dialect's methods are replaced for that time. Each is one attribute, so that no statement meets half of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Delete, Engine, Insert, Update

from readonly.context import Notes, current
from readonly.databases.rehearsed import Around, Asking, Unasked, asking
from readonly.rehearsal_counts import MAX_INSIDE, MAX_JOBS, caller, cleaned, keep
from readonly.state import State
from readonly.switch import Switch

from ._discard import Discards, names_to_drop
from ._hooks import instead_of_commit, proxied_of

logger = logging.getLogger("readonly")

# The four letters that reads begin with: what else a text does, its server says.
_READS = frozenset({"SELE", "SHOW", "EXPL", "PRAG", "SAVE", "RELE", "ROLL", "SET "})


@dataclass(slots=True)
class _Open:
    """A transaction that is open.

    Attributes:
        notes: Who wants to know; None: it belongs to no request or job.
        before: What the server said when it began.
        tables: Tables of statements that SQLAlchemy made, and where in the code.
        dropped: Those of them whose every statement is dropped while read-only.
        droppable: What would have to be dropped so that none of them is sent.
        text: Where SQL text was sent that is no plain read; "" if none was.
    """

    notes: Notes | None
    before: object
    tables: dict[str, str] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    droppable: set[str] = field(default_factory=set)
    text: str = ""


class Rehearsed:
    """Notes what one engine's transactions write, whenever a rehearsal goes on.

    Args:
        engine: The primary's.
        switch: The process's switch.
        name: The database's name in reports.
        server: The kind of its server.
        discards: What is dropped while read-only.
    """

    def __init__(self, engine: Engine, switch: Switch, *, name: str, server: str, discards: Discards) -> None:
        self._dialect = engine.dialect
        self._switch = switch
        self._name = name
        self._discards = discards
        self._key = ("readonly-rehearsal", id(self))
        self._asking: Asking | None = asking(server)
        self._around = Around(switch, name)
        self._replaced: list[tuple[str, Any]] = []
        self._stop: Callable[[], None] = switch.on_change(self._changed)
        self._changed(switch.view.state)

    def close(self) -> None:
        """Note nothing any more."""
        self._stop()
        self._leave()

    def _changed(self, state: State) -> None:
        if state.rehearsal is None or self._asking is None:
            self._leave()
        elif not self._replaced:
            self._replace("do_begin", self._beginning)
            for name in ("do_execute", "do_execute_no_params", "do_executemany"):
                self._replace(name, self._executing)
            self._replace("do_commit", self._committing)
            self._replace("do_rollback", self._rolling_back)

    def _replace(self, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._replaced.append((name, vars(self._dialect).get(name)))
        vars(self._dialect)[name] = wrap(getattr(self._dialect, name))

    def _leave(self) -> None:
        while self._replaced:
            name, found = self._replaced.pop()
            if found is None:
                del vars(self._dialect)[name]  # the class's method shows again
            else:
                vars(self._dialect)[name] = found

    # --- a transaction -----------------------------------------------------------------------------------------------

    def _beginning(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def begin(target: Any, *args: Any) -> Any:
            result = original(target, *args)
            self._safely(self._begin, target)
            return result

        return begin

    def _begin(self, target: Any) -> None:
        proxied = proxied_of(target)
        work = current(self._switch)
        self._known(target)
        if proxied is None or self._asking is None:
            return
        if work is None or work.noted is not None:
            notes = None if work is None else work.noted
            proxied.info[self._key] = _Open(notes, self._asking.before(proxied.dbapi_connection))

    def _executing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def execute(cursor: Any, statement: str, *args: Any, **kwargs: Any) -> Any:
            result = original(cursor, statement, *args, **kwargs)
            self._safely(self._executed, statement, kwargs.get("context") or (args[-1] if args else None))
            return result

        return execute

    def _executed(self, statement: str, context: Any) -> None:
        compiled = getattr(getattr(context, "compiled", None), "statement", None)
        if not isinstance(compiled, (Insert, Update, Delete)) and statement.lstrip()[:4].upper() in _READS:
            return
        known = context.root_connection.connection.info.get(self._key)
        if not isinstance(known, _Open):
            return
        if not isinstance(compiled, (Insert, Update, Delete)):
            known.text = known.text or caller() or "?"
            return
        table = str(getattr(compiled.table, "fullname", compiled.table))
        keep(known.tables, table, caller())
        if not self._discards.statement(compiled, context.compiled_parameters):
            known.kept.add(table)
            if len(known.droppable) < MAX_INSIDE:
                known.droppable.update(names_to_drop(compiled, context.compiled_parameters))

    def _committing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def commit(target: Any, *args: Any, **kwargs: Any) -> Any:
            proxied, known = proxied_of(target), self._known(target)
            if proxied is not None and known is not None and self._asking is not None:
                connection = proxied.dbapi_connection
                # Whatever comes out of it otherwise, the application must hear: its transaction may be lost.
                with instead_of_commit(self._dialect, proxied):
                    try:
                        written = self._asking.apart(connection, partial(self._ask, connection, self._asking, known))
                    except Unasked as error:
                        self._not_seen(error)
                    else:
                        self._safely(self._commit, proxied, known, written)
            return original(target, *args, **kwargs)

        return commit

    def _ask(self, connection: Any, ask: Asking, known: _Open) -> tuple[str, ...] | None:
        self._around.look(connection, ask)
        return ask.wrote(connection, known.before)

    def _commit(self, proxied: Any, known: _Open, written: tuple[str, ...] | None) -> None:
        if written is None and getattr(proxied.dbapi_connection, "autocommit", False) is True:
            written = tuple(known.tables)  # each statement was a transaction of its own, and is over
            written = written or None
        dropped = {table for table in known.tables if table not in known.kept}
        if written is not None:
            # What the server does not name, SQLAlchemy may, or the place of a text.
            written = written or tuple(known.tables) or ("?",)
            if known.text and not known.kept and not set(written) - set(known.tables):
                written = (*written, "?")
        tables = {
            # Of what no statement names (a SELECT that calls a function), the place of the commit at least.
            f"{self._name}.{table}": known.tables.get(table, "") or known.text or caller()
            for table in written or ()
            if table not in dropped
        }
        was_dropped = bool(dropped.intersection(written or ()))
        if known.notes is not None:
            others = set(written or ()) - set(known.tables)  # by SQL text or a function; or by a trigger of its own
            known.notes.transaction(
                tables,
                dropped=was_dropped,
                droppable=[f"{self._name}.{name}" for name in known.droppable],
                raw=bool(others and (known.text or not known.tables)),
            )
        elif tables:
            rehearsal = self._switch.view.state.rehearsal
            if rehearsal is not None:
                where = next((place for place in tables.values() if place), "?")
                with self._switch.rehearsed.adding(rehearsal.id) as numbers:
                    keep(numbers.outside, cleaned(where), cleaned(", ".join(tables)), most=MAX_JOBS)

    def _rolling_back(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def rollback(target: Any, *args: Any, **kwargs: Any) -> Any:
            self._safely(self._roll_back, target)
            return original(target, *args, **kwargs)

        return rollback

    def _roll_back(self, target: Any) -> None:
        known = self._known(target)
        if known is not None and known.notes is not None:
            # Nothing came of it: that a guarded database was asked is known all the same.
            known.notes.transaction({}, taken_back=bool(known.tables))

    def _known(self, target: Any) -> _Open | None:
        """Return what is known of a transaction that ends, and forget it."""
        proxied = proxied_of(target)
        try:
            found = None if proxied is None else proxied.info.pop(self._key, None)
        except NotImplementedError:  # SQLAlchemy itself is looking at a new connection
            return None
        return found if isinstance(found, _Open) else None

    @staticmethod
    def _safely(note: Callable[..., None], *args: Any) -> None:
        try:
            note(*args)
        except Exception as error:  # whatever is wrong with what a rehearsal notes: no request may fail for it
            Rehearsed._not_seen(error)

    @staticmethod
    def _not_seen(error: Exception) -> None:
        logger.warning("readonly: a transaction could not be looked at for the rehearsal", exc_info=error)
