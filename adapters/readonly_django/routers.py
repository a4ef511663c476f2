"""`DATABASE_ROUTERS = ["readonly_django.routers.ReplicaRouter"]`: reads to replicas, writes to primaries or nowhere."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from django.db import DEFAULT_DB_ALIAS, router

from .databases import installed

__all__ = ["ReplicaRouter"]

# Django asks where a model is written without writing: to say where an unsaved object belongs that is given a
# relation, to list what a deletion would take along, and to check a form. And it reads what may be written next from
# where it would be written (get_or_create). Pages do all of these; by file and function.
_ASKED_BY = {
    ("django/db/models/fields/related_descriptors.py", "__set__"),
    ("django/db/models/base.py", "validate_constraints"),
    ("django/contrib/admin/utils.py", "get_deleted_objects"),
}
_READ_BY = frozenset({"__iter__", "_iterator", "count", "exists", "aggregate", "explain", "get", "iterator"})


class ReplicaRouter:
    """Routes the models of a primary that has replicas. Put it first in DATABASE_ROUTERS.

    What belongs to other databases is for the other routers to say: they are asked first, and this one only goes on
    from a primary (or replica) that they name. Without guards in place it says nothing.
    """

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        """Return where a model is read: what reads of its primary go to, here and now; None: let others say."""
        guards = installed()
        if guards is None or not guards.routing:
            return None
        alias = self._others("db_for_read", model, hints)
        primary = guards.routing.primary(alias)
        if not guards.routing.has_replicas(primary):
            return None
        instance = hints.get("instance")
        if instance is not None and instance._state.db == primary:
            return primary  # what belongs together is read from one server
        return guards.routing.alias_for_read(primary)

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        """Return where a model is written, which is never a replica.

        Raises:
            ReadOnlyError: Its database is read-only for the work at hand, and the write is not one that is discarded.
        """
        guards = installed()
        if guards is None:
            return None
        alias = self._others("db_for_write", model, hints)
        primary = guards.routing.primary(alias)
        # A cache in the database asks as a model that is none; Django goes on without what it could not keep there.
        if model._meta.app_label != "django_cache" and not guards.discards.knows(model):
            guard = guards.refuses(primary)
            if guard is not None and not _only_asked(sys._getframe(1)):
                raise guard.no_write(f"{model._meta.label} can't be written")
        return primary if guards.routing.has_replicas(primary) else None

    def allow_relation(self, first: Any, second: Any, **hints: Any) -> bool | None:
        """Return True for objects of one database, whichever of its servers they were read from."""
        guards = installed()
        if guards is None or not first._state.db or not second._state.db:
            return None
        primary = guards.routing.primary
        return True if primary(first._state.db) == primary(second._state.db) else None

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        """Return False for a replica: what is done to its primary reaches it by itself."""
        guards = installed()
        return False if guards is not None and guards.routing.replica(db) is not None else None

    def _others(self, action: str, model: Any, hints: dict[str, Any]) -> str:
        """Return what Django would do without this router."""
        for other in router.routers:
            method = None if isinstance(other, ReplicaRouter) else getattr(other, action, None)
            found = method and method(model, **hints)
            if found:
                return str(found)
        instance = hints.get("instance")
        return (instance is not None and instance._state.db) or DEFAULT_DB_ALIAS


def _only_asked(frame: FrameType | None) -> bool:
    """Tell whether the call chain, from Django's own router down, is one that writes nothing."""
    asker = _outside_router(frame)
    if asker is None:
        return False
    code = asker.f_code
    file = code.co_filename.replace("\\", "/")
    if code.co_name == "db" and file.endswith("django/db/models/query.py"):
        return asker.f_back is not None and asker.f_back.f_code.co_name in _READ_BY
    return any(code.co_name == name and file.endswith(path) for path, name in _ASKED_BY)


def _outside_router(frame: FrameType | None) -> FrameType | None:
    while frame is not None and frame.f_code.co_filename.replace("\\", "/").endswith("django/db/utils.py"):
        frame = frame.f_back
    return frame
