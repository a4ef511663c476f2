"""The schema version that this process's code was written for: the leaves of its migrations, as Django records them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.migrations.loader import MigrationLoader

from readonly.databases.replicas import Schema

QUERY = "SELECT app, name FROM django_migrations ORDER BY id"


@dataclass(frozen=True, slots=True)
class Migrations:
    """The migrations that this process has.

    Attributes:
        leaves: By app, the last migration of each branch, and those that it replaces (a squashed one).
        known: By app, the names of all that it has, and of all that they replace.
    """

    leaves: Mapping[str, Mapping[str, frozenset[str]]]
    known: Mapping[str, frozenset[str]]

    def wanted(self) -> tuple[str, ...]:
        """Return the version that they make."""
        return tuple(sorted(f"{app}.{name}" for app, names in self.leaves.items() for name in names))

    def seen(self, rows: Sequence[Sequence[Any]]) -> tuple[str, ...]:
        """Return the version of a database, spelled so that it equals `wanted` where it is the same.

        Args:
            rows: App and name of all that were applied, oldest first.
        """
        applied: dict[str, list[str]] = {}
        for app, name in rows:
            applied.setdefault(app, []).append(name)
        return tuple(
            sorted(
                f"{app}.{self._there(app, name, replaced, applied.get(app, []))}"
                for app, names in self.leaves.items()
                for name, replaced in names.items()
            )
        )

    def _there(self, app: str, leaf: str, replaced: frozenset[str], applied: Sequence[str]) -> str:
        """Return the leaf where a database is just there, else how far it is."""
        # A squashed migration is recorded when somebody migrates next; what it replaces stands for it until then.
        parts = {leaf} if leaf in applied else replaced
        if not parts or not parts <= set(applied):
            return applied[-1] if applied else "(none)"
        # What came later, and this code has never heard of: the database is ahead. What it does not know of before
        # then are old migrations whose files were removed.
        last = max(applied.index(part) for part in parts)
        later = [name for name in applied[last + 1 :] if name not in self.known[app]]
        return later[-1] if later else leaf


def own_migrations() -> Migrations:
    """Return the migrations on disk; it imports them all."""
    loader = MigrationLoader(None)
    known: dict[str, set[str]] = {}
    replaces: dict[tuple[str, str], frozenset[str]] = {}
    for (app, name), migration in (loader.disk_migrations or {}).items():
        old = frozenset(was for of, was in migration.replaces if of == app)
        replaces[app, name] = old
        known.setdefault(app, set()).update({name}, old)
    leaves: dict[str, dict[str, frozenset[str]]] = {}
    for app, name in loader.graph.leaf_nodes():
        leaves.setdefault(app, {})[name] = replaces.get((app, name), frozenset())
    return Migrations(leaves, {app: frozenset(names) for app, names in known.items()})


def own_schema() -> Schema:
    """Return how a database's migrations are asked for, and which ones this process wants."""
    migrations = own_migrations()
    return Schema(QUERY, migrations.wanted(), migrations.seen)
