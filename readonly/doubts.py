"""What a process doubts about its own set-up, from what it sees: told in its reports, for `doctor`.

A doubt is no fault by itself. It is bounded, in number and length, since visitors have a say in what is seen.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

from .rehearsal_counts import cleaned

# What a doubt is about.
POSITION: Final = "position"
COOKIE: Final = "cookie"
EXEMPT: Final = "exempt"
WEBSOCKET: Final = "websocket"
PAST: Final = "past"
TWICE: Final = "twice"
ABSENT: Final = "absent"
TWINS: Final = "twins"
CLOCK: Final = "clock"
MAX_EACH: Final = 5

logger = logging.getLogger("readonly")


class Doubts:
    """One process's doubts since it started. Any thread may call any method."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._known: dict[str, list[str]] = {}
        self._looks: dict[str, Callable[[], Iterable[str] | None]] = {}

    def add(self, about: str, what: str) -> None:
        """Remember one; the first few of each kind are kept.

        Args:
            about: One of the words above.
            what: A name: of a cookie, a rule, a middleware.
        """
        what = cleaned(what)
        with self._lock:
            found = self._known.setdefault(about, [])
            if what not in found and len(found) < MAX_EACH:
                found.append(what)

    def knows(self, about: str) -> bool:
        """Return whether there is any of this kind."""
        with self._lock:
            return about in self._known

    def look_for(self, about: str, look: Callable[[], Iterable[str] | None]) -> None:
        """Have something be looked for with each report, by the switch's thread, until there is an answer.

        Args:
            about: One of the words above.
            look: Returns the names that are found, none if all is well, None while nothing can be said yet.
        """
        self._looks[about] = look

    def told(self) -> tuple[str, ...]:
        """Return them as a report carries them: `about what`."""
        for about, look in list(self._looks.items()):
            try:
                found = look()
            except Exception:
                # It looks at what others have made, and a report must go out whatever that does.
                logger.debug("readonly: could not look for doubts about %s", about, exc_info=True)
                found = ()
            if found is not None:
                self._looks.pop(about, None)
                for what in found:
                    self.add(about, what)
        with self._lock:
            return tuple(f"{about} {what}" for about, found in sorted(self._known.items()) for what in found)

    def forget(self) -> None:
        """Begin with none but what is known from the settings, in a child that was forked: the lock may be held."""
        self._lock = threading.Lock()
