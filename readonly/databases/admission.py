"""Whether a transaction may write: counted first, decided then, and taken into the drain. For guards of any kind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from readonly.context import Work, current
from readonly.errors import ReadOnlyError
from readonly.record import FENCE
from readonly.state import State
from readonly.switch import Switch

R = TypeVar("R", bound=ReadOnlyError)

# While read-only, a look costs a lock: one in so many seconds speaks for all.
REFUSED_SECONDS = 0.05

# Inside a proof the guard refuses, whatever the switch says.
_proving: ContextVar[bool] = ContextVar("readonly_admission_proving", default=False)


@contextmanager
def proving() -> Iterator[None]:
    """Make the guards refuse inside this block, in this thread or task, as if the site were read-only."""
    token = _proving.set(True)
    try:
        yield
    finally:
        _proving.reset(token)


class Admission:
    """Admits the transactions of one guarded database, or of one of its replicas.

    Attributes:
        name: The database's name in errors.
        switch: The process's switch.
        never: Nothing there may ever write: it is a replica.

    Args:
        switch: The process's switch.
        name: The database's name in errors.
        never: Nothing there may ever write.
        admit: Asks the switch, where that has to be done in a way of its own.
    """

    def __init__(
        self,
        switch: Switch,
        name: str,
        *,
        never: bool = False,
        admit: Callable[[], State | None] | None = None,
    ) -> None:
        self.name = name
        self.switch = switch
        self.never = never
        self._admit = admit or switch.admit
        self._refused_until = float("-inf")
        self._refused_by: State | None = None

    def begin(self) -> object | None:
        """Count a transaction that begins now, look, and return its key; None if it may not write, uncounted again.

        What a bypass lets write is counted apart: nobody waits for it as long as that is good. The key of what the
        command of a run writes counts for nothing.
        """
        # A proof is refused in any case: counted, it would be waited for, were the site opened meanwhile.
        if self.never or _proving.get():
            return None
        inflight = self.switch.inflight
        work = current(self.switch)
        # Who is refused need not be counted before: that is for those who are admitted.
        if work is None and self._refused_lately() and not self._bypasses(None):
            return None
        # Part of work that was admitted: it may begin though the process is closed, and is drained as well.
        key = inflight.begin(part=work is not None and work.admitted)
        try:
            admitted = self._admitted(work)
        except BaseException:
            inflight.end(key)
            raise
        if admitted:
            return key
        inflight.end(key)
        by = work.by if work is not None else ""
        if by:
            inflight.let(by, key)  # counted, and only then looked at
        if self._bypasses(work):
            return key
        inflight.end(key)
        return None

    def again(self) -> object:
        """Count a transaction that was admitted before, and was not counted for a while."""
        return self.switch.inflight.begin(part=True)

    def end(self, key: object | None) -> None:
        """Uncount a transaction whose end is decided; None, and ending twice, do no harm."""
        if key is not None:
            self.switch.inflight.end(key)

    def may_write(self) -> bool:
        """Tell whether what begins now may write. It is a hint: whoever begins something counts it, with `begin`."""
        if self.never:
            return False
        work = current(self.switch)
        return self._admitted(work) or self._bypasses(work)

    def is_fenced(self) -> bool:
        """Tell whether a fence stands: what rights are missing then, it has taken, and it refuses as if read-only.

        Its name is the operator's, and says nothing of which of the application's databases it is at.
        """
        return any(cause.kind == FENCE for cause in self.switch.view.state.causes)

    def _bypasses(self, work: Work | None) -> bool:
        """Tell whether this may write while read-only: a bypass, or the command of the run that stands."""
        return not _proving.get() and ((work is not None and work.bypass) or self.switch.in_run)

    def _admitted(self, work: Work | None) -> bool:
        if _proving.get():
            return False
        if work is not None and work.admitted:
            return True
        if self._refused_lately():
            return False
        now = time.monotonic()
        state = self._admit()
        if state is None:
            return True
        self._refused_until, self._refused_by = now + REFUSED_SECONDS, state
        return False

    def _refused_lately(self) -> bool:
        view = self.switch.view
        # By the state that was found then: where threads can't be trusted, `open` does not tell that it is over.
        return not view.open and view.state is self._refused_by and time.monotonic() < self._refused_until

    def refusal(self, reason: str, *, kind: type[R], table: str | None = None) -> R:
        """Return the error for a refused write, and mark the work that it was refused in.

        Args:
            reason: What was refused, and by whom.
            kind: Its class: an adapter's errors are its framework's, too.
            table: The table, where it is known.
        """
        state = self.switch.state
        if state.reason:
            reason = f"{reason} ({state.reason})"
        refusal = kind(reason, expected_end=state.expected_end, database=self.name, table=table)
        work = current(self.switch)
        if work is not None:
            work.mark(refusal)
        return refusal
