"""The request (or job) that the current code runs for, as the database guard needs to know it.

A guard can't answer a request: an exception that it raises is a 500 by the time it leaves the framework. So the
middleware puts one mutable object into a context variable, the guard marks it, and the middleware, outside the
framework, turns a marked 500 into the 503. Guard and middleware know this module and not each other.

The variable is set for writes and bypasses when a guard is installed, and for every request while read-only;
never for a read of a writable site.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .errors import ReadOnlyError


class Work:
    """One request or job, for as long as it runs.

    Attributes:
        may_write: True for a bypass, and for work that was admitted while the site was writable: the guard lets
            its transactions write.
        name: Route or job, for the log.
        escape: The first refusal of a guard inside this work, else None.
    """

    __slots__ = ("escape", "may_write", "name")

    def __init__(self, *, may_write: bool, name: str = "") -> None:
        self.may_write = may_write
        self.name = name
        self.escape: ReadOnlyError | None = None

    def mark(self, refusal: ReadOnlyError) -> None:
        """Remember that a guard refused a write inside this work."""
        if self.escape is None:
            self.escape = refusal


_current: ContextVar[Work | None] = ContextVar("readonly_work", default=None)


def current() -> Work | None:
    """Return the work that the calling code belongs to, or None outside of any."""
    return _current.get()


def enter(work: Work) -> Token[Work | None]:
    """Make `work` the current one; hand the token to `leave` in the same context."""
    return _current.set(work)


def leave(token: Token[Work | None]) -> None:
    """Put back what `enter` found."""
    _current.reset(token)


@contextmanager
def working(work: Work) -> Iterator[Work]:
    """Make `work` the current one inside a with block."""
    token = enter(work)
    try:
        yield work
    finally:
        leave(token)
