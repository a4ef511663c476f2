"""Whether each database guard refuses a harmless write: that is tried out whenever the site turns read-only."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..members import Guarded
from .view import View

logger = logging.getLogger("readonly")


class Guard(Protocol):
    """A database guard, as the switch needs it."""

    name: str

    def prove(self) -> str:
        """Try a harmless write that must fail; return "" if it was refused, else what is wrong."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return what server, database and user it writes to, without secrets; `problem`: what it found since."""
        ...


class Proofs:
    """What the guards have proven since the site closed.

    Args:
        guards: Returns the guards that there are.
        view: What they are proven for.
        lock: The one under which the view is swapped.
        wake: Called when there is something new to report.
    """

    def __init__(
        self,
        guards: Callable[[], tuple[Guard, ...]],
        *,
        view: View,
        lock: threading.RLock,
        wake: Callable[[], None],
    ) -> None:
        self._guards = guards
        self._view = view
        self._lock = lock
        self._wake = wake
        self._proofs: dict[str, str] = {}
        self._proving: tuple[str, ...] = ()

    def forget(self) -> None:
        """Hold nothing for proven any more: the site has turned read-only again. Called with the lock held."""
        self._proofs = {}

    def try_out(self) -> None:
        """Have each guard try a harmless write, in a thread of its own: a database that hangs must not silence us.

        Called with the lock held.
        """
        guards = tuple(g for g in self._guards() if g.name not in self._proofs and g.name not in self._proving)
        if not guards or not self._view.state.causes:
            return
        self._proving = (*self._proving, *(g.name for g in guards))

        def prove() -> None:
            for guard in guards:
                try:
                    proof = guard.prove()
                except Exception as error:
                    logger.exception("readonly: the guard of %s could not be tried", guard.name)
                    proof = f"could not be tried: {error}"
                with self._lock:
                    self._proving = tuple(n for n in self._proving if n != guard.name)
                    if self._view.state.read_only:
                        self._proofs[guard.name] = proof
            self._wake()

        threading.Thread(target=prove, name="readonly-proof", daemon=True).start()

    def told(self, *, read_only: bool) -> tuple[Guarded, ...]:
        """Return what is reported of each guard: its proof stands until it finds a problem."""
        return tuple(self._guarded(guard, read_only=read_only) for guard in self._guards())

    def _guarded(self, guard: Guard, *, read_only: bool) -> Guarded:
        said = {**guard.describe()}
        problem = str(said.pop("problem", ""))
        return Guarded(guard.name, self._proofs.get(guard.name, "pending") or problem if read_only else "", said)
