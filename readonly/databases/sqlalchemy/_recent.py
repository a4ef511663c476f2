"""What a request commits to the primary is noted, with the position behind it, for its visitor's next pages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Engine

from readonly import recent
from readonly.databases.replicas.written import MARKS, Mark

from ._hooks import instead_of_commit, proxied_of


class Noting:
    """Notes the commits of requests that are followed (`readonly.recent`), until `remove`; others cost nothing.

    Taken from the dialect's own method, as the guard's hooks are: the engine's event fires before anything is sent.

    Args:
        engine: The primary.
        name: The database's name.
        system: Returns which system the primary is, as far as anybody knows by now.
    """

    def __init__(self, engine: Engine, name: str, system: Callable[[], str]) -> None:
        self._dialect = engine.dialect
        self._name = name
        self._system = system
        self._replaced: dict[str, Any] = {}
        for method in ("do_commit", "do_commit_twophase"):
            self._replaced[method] = vars(self._dialect).get(method)
            vars(self._dialect)[method] = self._committing(getattr(self._dialect, method))

    @property
    def _mark(self) -> Mark | None:
        # Which of the two it is SQLAlchemy knows once it has connected.
        return MARKS.get("mariadb" if getattr(self._dialect, "is_mariadb", False) else self._dialect.name)

    def remove(self) -> None:
        """Take it off again."""
        for method, found in self._replaced.items():
            if found is None:
                vars(self._dialect).pop(method, None)
            else:
                vars(self._dialect)[method] = found

    def _committing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def commit(target: Any, *args: Any, **kwargs: Any) -> Any:
            request = recent.current()
            if request is None:
                return original(target, *args, **kwargs)
            proxied = proxied_of(target)
            connection = None if proxied is None else proxied.dbapi_connection
            # It is the driver's connection's, and forgotten with it.
            memory = {} if proxied is None else proxied.info
            mark = self._mark
            before = None
            # What has been prepared is in no transaction of this connection any more: there is nothing to ask.
            is_prepared = isinstance(target, Connection) and args[1:2] == (True,)
            if mark is not None and proxied is not None and not is_prepared:
                # Not suppressed: PostgreSQL makes a ROLLBACK of a commit after a statement that failed, and reports
                # success. Whoever wrote must hear of it.
                with instead_of_commit(self._dialect, target, *args):
                    before = mark.before(connection, memory)
            result = original(target, *args, **kwargs)
            if mark is None or connection is None:
                request.wrote(self._name)
            elif before is not False:
                at: str | None = ""
                system = self._system()
                with suppress(Exception):  # it is committed whatever happens here: then it goes by time
                    at = mark.after(connection, before, memory)
                if at is not None:
                    request.wrote(self._name, system=system if at else "", at=at if system else "")
            return result

        return commit
