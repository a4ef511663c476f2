"""What the request path reads of one process's knowledge: attributes only, no lock, no I/O."""

from __future__ import annotations

from ..record import Window
from ..state import UNKNOWN, State


class View:
    """What the request path reads.

    Attributes:
        open: True only while this process knows, here and now, that the site is writable.
        admit_until: Until when writes may be admitted without a second look, on the switch's monotonic clock;
            minus infinity while closed.
        sample: The next request of a writable site is to be looked at closely.
        sessions_cut: A session cut-off is known: requests with a session cookie need a look, writable or not.
        state: The state behind it.
        announced: The window that visitors of a writable site are told of by now, or None.
    """

    __slots__ = ("admit_until", "announced", "open", "sample", "sessions_cut", "state")

    def __init__(self) -> None:
        self.open = False
        self.admit_until = float("-inf")
        self.sessions_cut = False
        self.sample = False
        self.state: State = UNKNOWN
        self.announced: Window | None = None

    @property
    def writable(self) -> bool:
        """Whether the site is known to be writable, though requests may be looked at more closely than that needs."""
        return self.open or ((self.sample or self.state.rehearsal is not None) and not self.state.read_only)

    def shut(self) -> None:
        """Send every request to the slow path, which looks for itself."""
        self.open = False
        self.admit_until = float("-inf")
