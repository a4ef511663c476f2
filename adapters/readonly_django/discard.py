"""Incidental writes that are dropped while read-only, before they reach the server.

Judged is what the ORM knows, the model and the changed fields; never SQL text. A refused statement would poison its
transaction, so a dropped one must not be sent at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db.models.sql.compiler import SQLCompiler, SQLDeleteCompiler, SQLInsertCompiler, SQLUpdateCompiler
from django.db.models.sql.constants import CURSOR

from readonly.errors import ConfigurationError

if TYPE_CHECKING:
    from ._guards import Guards

logger = logging.getLogger("readonly")

# An UPDATE says that it found its row. Django takes 0 for a row that is gone: `save` would insert it, or fail; and
# code that counts would make a new one.
ROWS_UPDATED = 1


class Discards:
    """What may be dropped.

    Args:
        names: `app.Model` for every write to a model's table; `app.Model.field` for an UPDATE that changes nothing
            else.

    Raises:
        ConfigurationError: A name means nothing; the message shows it.
    """

    def __init__(self, names: Sequence[str]) -> None:
        if isinstance(names, str):
            raise ConfigurationError(f"discard={names!r} is one string: write a list, discard=[{names!r}]")
        self._models: set[type] = set()
        self._fields: dict[type, set[str]] = {}
        for name in names:
            model, field = _found(name)
            if field is None:
                self._models.add(model)
            else:
                self._fields.setdefault(model, set()).add(field)
        for model in self._models:
            self._check_parents(model)
        self._replaced: list[tuple[type, str, Any]] = []

    def __bool__(self) -> bool:
        return bool(self._models or self._fields)

    def knows(self, model: Any) -> bool:
        """Tell whether any write to this model may be dropped."""
        concrete = model._meta.concrete_model
        return concrete in self._models or concrete in self._fields

    def whole(self, model: Any) -> bool:
        """Tell whether all writes to this model's table are dropped."""
        return model._meta.concrete_model in self._models

    def update(self, model: Any, fields: Iterable[str]) -> bool:
        """Tell whether an UPDATE of these fields is dropped."""
        changed = set(fields)
        return self.whole(model) or bool(changed and changed <= self._fields.get(model._meta.concrete_model, set()))

    def hook(self, guards: Guards) -> None:
        """Drop from now on what the ORM is about to send, where `guards` would refuse it."""
        if not self:
            return
        drops = _Drops(self, guards)
        self._replace(SQLInsertCompiler, drops.insert)
        self._replace(SQLUpdateCompiler, drops.update)
        self._replace(SQLDeleteCompiler, drops.delete)
        self._replace(SQLCompiler, drops.select)

    def unhook(self) -> None:
        """Take it back."""
        while self._replaced:
            target, name, found = self._replaced.pop()
            if found is None:
                delattr(target, name)
            else:
                setattr(target, name, found)

    def _replace(self, target: type, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        name = "execute_sql"
        self._replaced.append((target, name, vars(target).get(name)))
        setattr(target, name, wrap(getattr(target, name)))

    def _check_parents(self, model: Any) -> None:
        for parent in model._meta.get_parent_list():
            if parent not in self._models:
                raise ConfigurationError(
                    f"discard={model._meta.label!r} is a row in the table of {parent._meta.label}, too: name that as "
                    "well, or neither"
                )


class _Drops:
    """Stands in for `execute_sql` of Django's compilers, which every write of the ORM goes through."""

    def __init__(self, discards: Discards, guards: Guards) -> None:
        self._discards = discards
        self._guards = guards

    def insert(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def execute_sql(compiler: Any, returning_fields: Any = None) -> Any:
            model = compiler.query.get_meta().concrete_model
            if not (self._discards.whole(model) and self._refused(compiler)):
                return original(compiler, returning_fields)
            _log("INSERT", model)
            # A row for each object, since they are counted; with what the object holds already, which is no key
            # where the database would have made one.
            return [tuple(_held(o, f) for f in returning_fields) for o in compiler.query.objs if returning_fields]

        return execute_sql

    def update(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def execute_sql(compiler: Any, result_type: Any) -> Any:
            if not (self._is_dropped(compiler.query) and self._refused(compiler)):
                return original(compiler, result_type)
            _log("UPDATE", compiler.query.model)
            return ROWS_UPDATED

        return execute_sql

    def delete(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def execute_sql(compiler: Any, result_type: Any = CURSOR, *args: Any, **options: Any) -> Any:
            if not (self._discards.whole(compiler.query.model) and self._refused(compiler)):
                return original(compiler, result_type, *args, **options)
            _log("DELETE", compiler.query.model)
            return None if result_type == CURSOR else 0

        return execute_sql

    def select(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def execute_sql(compiler: Any, *args: Any, **options: Any) -> Any:
            query = compiler.query
            # `update_or_create` locks the row that it is about to change, which is a write to the server.
            if query.select_for_update and self._discards.knows(query.model) and self._refused(compiler):
                query.select_for_update = False
            return original(compiler, *args, **options)

        return execute_sql

    def _is_dropped(self, query: Any) -> bool:
        """Tell whether all that an UPDATE would change is dropped, in the tables of parents as well."""
        changed = {query.model: [field.name for field, _, _ in query.values]} if query.values else {}
        for model, values in query.related_updates.items():
            changed[model] = [field.name for field, _, _ in values]
        return bool(changed) and all(self._discards.update(model, fields) for model, fields in changed.items())

    def _refused(self, compiler: Any) -> bool:
        return self._guards.refuses(compiler.using) is not None


def _found(name: object) -> tuple[Any, str | None]:
    """Return the model, and the field or None, that a name in the settings means."""
    parts = str(name).split(".")
    if len(parts) not in (2, 3) or not all(part and part == part.strip() for part in parts):
        raise ConfigurationError(f"discard={name!r} names nothing: write 'app.Model' or 'app.Model.field'")
    try:
        model: Any = apps.get_model(parts[0], parts[1])
    except LookupError as error:
        raise ConfigurationError(f"discard={name!r} names no model: {error}") from error
    meta = model._meta
    if meta.swapped:
        raise ConfigurationError(f"discard={name!r} has no table in this project: write {meta.swapped!r} instead")
    if len(parts) == 2:
        return meta.concrete_model, None
    try:
        field = meta.get_field(parts[2])
    except FieldDoesNotExist as error:
        raise ConfigurationError(f"discard={name!r} names no field: {error}") from error
    if not getattr(field, "concrete", False) or field.many_to_many:
        raise ConfigurationError(
            f"discard={name!r} is no column of {meta.label}: name the model whose table is written instead"
        )
    # A field of a parent is a column of the parent's table.
    return field.model._meta.concrete_model, field.name


def _held(instance: Any, field: Any) -> Any:
    value = getattr(instance, field.attname, None)
    return None if hasattr(value, "resolve_expression") else value


def _log(verb: str, model: Any) -> None:
    logger.debug("readonly: dropped an %s of %s", verb, model._meta.label)
