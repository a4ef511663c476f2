"""What a process doubts about its own set-up, from what it sees: told in its reports, for `doctor`.

A doubt is no fault by itself. It is bounded, in number and length, since visitors have a say in what is seen.
"""

from __future__ import annotations

import threading
from typing import Final

from .rehearsal_counts import cleaned

# What a doubt is about.
POSITION: Final = "position"
COOKIE: Final = "cookie"
EXEMPT: Final = "exempt"
WEBSOCKET: Final = "websocket"
TWINS: Final = "twins"
CLOCK: Final = "clock"
MAX_EACH: Final = 5


class Doubts:
    """One process's doubts since it started. Any thread may call any method."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._known: dict[str, list[str]] = {}

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

    def told(self) -> tuple[str, ...]:
        """Return them as a report carries them: `about what`."""
        with self._lock:
            return tuple(f"{about} {what}" for about, found in sorted(self._known.items()) for what in found)

    def forget(self) -> None:
        """Begin with none but what is known from the settings, in a child that was forked: the lock may be held."""
        self._lock = threading.Lock()
