"""A primary that takes no writes of its own accord (a failover, an operator at the database): found, and found over.

Nobody asks a primary that takes writes. A refusal that no guard of ours has caused, or a driver that was told so when
it connected, is a suspicion; a look through a connection of its own decides. While it lasts, this process answers as
in read-only mode, by a cause that only it sees, and goes on looking.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from readonly.record import LOCAL
from readonly.state import State
from readonly.switch import Switch

logger = logging.getLogger("readonly")

# While it lasts: the first look comes after this many seconds, each further one after twice as many, up to the cap.
LOOK_FIRST_SECONDS, LOOK_CAP_SECONDS = 0.25, 5.0
# A look that takes longer says nothing. Of those that hang for good there are never more than so many.
LOOK_SECONDS, HANGING_AT_MOST = 10.0, 3
# It is over when every look has said so for this long; twice as long if it was over just before, so that a primary
# that comes and goes does not make the site come and go with it.
CALM_FIRST_SECONDS, CALM_CAP_SECONDS, CALM_REMEMBERED_SECONDS = 1.0, 60.0, 120.0
# Looks that told nothing, after which a mere suspicion is dropped.
LOOKS_IN_VAIN = 3
# A suspicion that came to nothing (the application's own read-only transactions) speaks for others so long.
DISMISSED_SECONDS = 1.0

_looking: ContextVar[bool] = ContextVar("readonly_detection_looking", default=False)


def looking() -> bool:
    """Tell whether the calling code looks at a primary: its connection is neither guarded nor counted."""
    return _looking.get()


@contextmanager
def look() -> Iterator[None]:
    """Mark the connections that are taken inside this block, in this thread or task, as a look's own."""
    token = _looking.set(True)
    try:
        yield
    finally:
        _looking.reset(token)


class Course:
    """What a row of looks amounts to. It has no clock of its own.

    Attributes:
        because: Why the primary takes no writes; "" while it is taken to be in order.
    """

    def __init__(self) -> None:
        self.because = ""
        self._pause = LOOK_FIRST_SECONDS
        self._calm = CALM_FIRST_SECONDS
        self._calm_since: float | None = None
        self._over_at = float("-inf")
        self._in_vain = 0

    def saw(self, said: str | None, now: float) -> float | None:
        """Take in what a look has found.

        Args:
            said: Why it takes no writes; "" if it does; None if nobody can say, which changes nothing.
            now: When, on a monotonic clock.

        Returns:
            Seconds until the next look; None if there is nothing left to look for.
        """
        if said is None:
            self._calm_since = None
            self._in_vain += 1
            if not self.because and self._in_vain >= LOOKS_IN_VAIN:
                self._in_vain = 0
                return None
            return self._longer()
        self._in_vain = 0
        if said:
            self._calm_since = None
            if not self.because:
                often = now - self._over_at < CALM_REMEMBERED_SECONDS
                self._calm = min(self._calm * 2, CALM_CAP_SECONDS) if often else CALM_FIRST_SECONDS
                self._pause = LOOK_FIRST_SECONDS
            self.because = said
            return self._longer()
        if not self.because:
            return None
        if self._calm_since is None:
            self._calm_since = now
        left = self._calm - (now - self._calm_since)
        if left > 0:
            return min(left, LOOK_FIRST_SECONDS)
        self.because, self._over_at = "", now
        return None

    def _longer(self) -> float:
        pause, self._pause = self._pause, min(self._pause * 2, LOOK_CAP_SECONDS)
        return pause


class _Own:
    """What belongs to one process; a forked child begins with a new one, since threads and locks are not inherited."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.course = Course()
        # Held while a thread looks.
        self.busy = threading.Lock()
        # Held while it tells the switch what it has found, unless it was closed.
        self.telling = threading.Lock()
        self.dismissed_until = float("-inf")
        self.hanging: list[threading.Thread] = []


class Detection:
    """Watches one primary for this process.

    Attributes:
        renewed: Rises whenever it is over. A connection that was opened at a lower number may still lead to a server
            that takes no writes (the old primary; a file that was opened when it could not be written).

    Args:
        switch: The process's switch.
        name: The database's name.
        ask: Connects and returns why the primary takes no writes, or "" if it does; may raise.
        over: Called when it is over, in a thread of its own.
    """

    def __init__(
        self, switch: Switch, name: str, ask: Callable[[], str], *, over: Callable[[], None] = lambda: None
    ) -> None:
        self.name = name
        self.renewed = 0
        self._switch = switch
        self._ask = ask
        self._over = over
        self._own = _Own()
        self._closed = False
        self._woken = threading.Event()

    def __repr__(self) -> str:
        return f"<Detection {self.name} {self._own.course.because or 'nothing'}>"

    def suspect(self) -> None:
        """Say that the primary may have refused a write by itself: a thread looks, unless one does already."""
        own = self._own
        if own.pid != os.getpid():
            own = self._own = _Own()
        if self._closed or _ordered(self._switch.view.state):
            return
        if time.monotonic() < own.dismissed_until or not own.busy.acquire(blocking=False):
            return
        try:
            threading.Thread(target=self._watch, args=(own,), name="readonly-detection", daemon=True).start()
        except RuntimeError as error:  # no more threads here, or the interpreter is going down
            own.busy.release()
            logger.warning("readonly: database %r may take no writes, and nobody can look: %s", self.name, error)

    def close(self) -> None:
        """Look no more, and take the cause away."""
        self._closed = True
        self._woken.set()
        own = self._own
        if own.pid == os.getpid():
            # Whoever is telling it now asked before this was closed: taken away first, it would stand for good.
            with own.telling:
                if own.course.because:
                    self._switch.detected(self._cause, None)

    @property
    def _cause(self) -> str:
        return f"primary:{self.name}"

    def _watch(self, own: _Own) -> None:
        ordered = False

        def changed(state: State) -> None:
            nonlocal ordered
            before, ordered = ordered, _ordered(state)
            if before and not ordered:
                self._woken.set()  # somebody has lifted the last cause: it may be over with it

        stop = self._switch.on_change(changed)
        try:
            while not self._closed:
                self._woken.clear()
                before = own.course.because
                said = self._looked(own)
                if not before and _ordered(self._switch.view.state):
                    break
                pause = own.course.saw(said, time.monotonic())
                self._tell(own, before, own.course.because)
                if pause is None:
                    break
                self._woken.wait(pause)
            own.dismissed_until = time.monotonic() + DISMISSED_SECONDS
        finally:
            stop()
            own.busy.release()

    def _tell(self, own: _Own, before: str, because: str) -> None:
        with own.telling:
            if because and not self._closed:
                # Said each time: a switch that was closed and used again knows nothing of it.
                self._switch.detected(self._cause, f"database {self.name!r} takes no writes: {because}")
                return
        if before:
            self.renewed += 1
            self._over()
            self._switch.detected(self._cause, None)

    def _looked(self, own: _Own) -> str | None:
        """Look, for so many seconds at most; None if that told nothing."""
        own.hanging = [thread for thread in own.hanging if thread.is_alive()]
        if len(own.hanging) >= HANGING_AT_MOST:
            return None
        found: list[str] = []

        def ask() -> None:
            try:
                found.append(self._ask())
            except Exception as error:
                logger.info("readonly: whether database %r takes writes could not be seen: %s", self.name, error)

        thread = threading.Thread(target=ask, name="readonly-look", daemon=True)
        thread.start()
        thread.join(LOOK_SECONDS)
        if thread.is_alive():
            own.hanging.append(thread)
        return found[0] if found else None


def _ordered(state: State) -> bool:
    """Tell whether somebody made the site read-only: they may have made the database so, too, by a fence."""
    return any(cause.kind != LOCAL for cause in state.causes)
