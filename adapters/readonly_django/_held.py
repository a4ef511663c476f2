"""What is known of one driver connection: whether it was told to refuse, and which transaction of it is in flight."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any, Protocol, TypeVar
from weakref import finalize

from readonly.databases import Server
from readonly.databases.admission import Admission

T = TypeVar("T")


class Guarding(Protocol):
    """What a connection needs of the guard of its database."""

    @property
    def server(self) -> Server:
        """What its server is told."""
        ...

    @property
    def admission(self) -> Admission:
        """Decides, and counts."""
        ...

    @property
    def closed(self) -> bool:
        """True once it guards no more."""
        ...

    def present(self) -> Guarding:
        """Return the guard that is in place now, which may be another than this; itself, if there is none."""
        ...

    def failed(self, connection: Any, error: BaseException, held: Held, *, lost: bool) -> None:
        """Be told of a driver's error, and whether the connection is lost with it."""
        ...


class Held:
    """One driver connection, as the guard sees it. `before` and `after` surround everything that is sent on it.

    Attributes:
        guard: The guard of its database.
        guarded: It was told to refuse writes, and not told otherwise since.
        memory: What the server's module found there.
    """

    __slots__ = ("__weakref__", "_key", "_telling", "guard", "guarded", "memory", "quiet_in")

    def __init__(self, guard: Guarding) -> None:
        self.guard = guard
        self.guarded = False
        self.memory: dict[str, Any] = {}
        # The thread in which the driver is told something that begins no transaction, and so is not judged.
        self.quiet_in = 0
        self._telling = 0
        self._key: object | None = None

    def watch(self, connection: Any) -> None:
        """End what is in flight when the connection is collected: nobody can commit it any more."""
        finalize(connection, self.over).atexit = False

    @property
    def may_write(self) -> bool:
        """True while a transaction is open that was admitted (or is a bypass's)."""
        return self._key is not None

    def before(self, connection: Any) -> None:
        """Something is about to be sent. If it begins a transaction: count that, or make it read-only."""
        guard = self.guard
        if not guard.server.is_idle(connection):
            return  # decided when it began
        thread = get_ident()
        if thread == self.quiet_in or thread == self._telling:
            return
        if guard.closed:
            guard = self.guard = guard.present()
            if guard.closed:
                self._tell(connection, read_only=False)
                return
        key = guard.admission.begin()
        # Only now: what may write is counted at every moment.
        self.over()
        if key is None or self.guarded:
            try:
                self._tell(connection, read_only=key is None)
            except BaseException:
                guard.admission.end(key)
                raise
        self._key = key

    def after(self, connection: Any, error: BaseException | None = None) -> None:
        """It was sent, and answered. If no transaction is open now, it is over."""
        if error is None:
            if self._key is not None and self.guard.server.is_idle(connection):
                self.over()
            return
        if get_ident() == self._telling:
            return
        lost = bool(getattr(connection, "closed", False))
        if not self.guard.closed:
            self.guard.failed(connection, error, self, lost=lost)
        # On a lost connection nobody knows what became of a COMMIT; the server ends what was not yet committing.
        if self._key is not None and (lost or self.guard.server.is_idle(connection)):
            self.over()

    def over(self) -> None:
        """The transaction is over, or can't be committed any more."""
        key, self._key = self._key, None
        if key is not None:
            self.guard.admission.end(key)

    def handed_over(self) -> object | None:
        """Return the key of what is in flight to somebody who will end it."""
        key, self._key = self._key, None
        return key

    def pause(self, connection: Any) -> None:
        """Make the rest of a transaction that may write read-only, until `resume`; it is not counted meanwhile."""
        self._within(lambda: self.guard.server.guard(connection, self.memory))
        self.guarded = True
        self.over()

    def resume(self, connection: Any) -> None:
        """Let it write again."""
        self._key = self.guard.admission.again()
        self.guarded = False
        self._within(lambda: self.guard.server.restore(connection, self.memory))

    def was_told(self, connection: Any) -> str:
        """Return why the server of this connection takes no writes of anybody, as far as that can be seen from it."""
        return self._within(lambda: self.guard.server.was_told(connection))

    @property
    def telling(self) -> bool:
        """True while this thread sends something of our own."""
        return self._telling == get_ident()

    def _within(self, tell: Callable[[], T]) -> T:
        """Send something of our own."""
        found, self._telling = self._telling, get_ident()
        try:
            return tell()
        finally:
            self._telling = found

    def _tell(self, connection: Any, *, read_only: bool) -> None:
        if read_only:
            self._within(lambda: self.guard.server.guard(connection, self.memory))
            self.guarded = True
        elif self.guarded:
            self._within(lambda: self._restored(connection))

    def _restored(self, connection: Any) -> None:
        self.guarded = not self.guard.server.restore(connection, self.memory)
