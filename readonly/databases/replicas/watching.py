"""Watch: looks at a primary and its replicas in the background, and says what a reader needs here and now.

One for each primary of a process, whatever chooses by it (SQLAlchemy's sessions, Django's router): a thread and at most
one connection for each server, in each process. Nothing latches: a server that can't be looked at is looked at again,
less and less often, and never more rarely than the cap.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

from readonly import recent
from readonly.recent import Wrote
from readonly.record import Cause, FenceMark
from readonly.state import State
from readonly.switch import Switch

from ..fence.values import Position
from .choice import Replica, Replicas
from .reaching import Reach
from .schema import Schema
from .values import LAG_SECONDS, Need, Standing, has_reached

logger = logging.getLogger("readonly")
T = TypeVar("T")

# While something is read from a replica it is looked at so often, and so often else; then no connection is kept.
LOOK_EVERY_SECONDS, IDLE_SECONDS = 1.0, 30.0
# A primary is asked who it is so often while read-only: it may be another server now.
IDENTITY_SECONDS = 5.0
# After each failure in a row a server is looked at half as often, down to this.
CAP_SECONDS = 15.0
END_SECONDS = 1.0
# What a replica says of its lag, and the clocks of the machines that a visitor's requests reach, are off by so much.
CLOCK_SECONDS = 1.0


class _Wanted(TypedDict, total=False):
    """What a reader needs of schema versions."""

    schema: tuple[str, ...] | None
    frozen: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class _Mark:
    """What the primary was when this process saw a change: all that is there must be on a replica, too."""

    change: tuple[str, int]
    standing: Standing


class Watch(Generic[T]):
    """Watches one primary and its replicas, in each process that uses it.

    Attributes:
        name: The database's name.
        replicas: Its replicas.

    Args:
        name: The database's name.
        switch: The process's switch.
        replicas: The replicas that it says what was found to.
        reaches: Makes the way to each of them, in the thread that uses it; None: nobody looks in the background.
        primary: Makes the way to the primary; None: it is no server.
        identity: Says which file the primary is, where it is one.
        schema: How to ask for the schema version, or what makes that when it is first needed.
        always: Whether replicas are read while writable, too.
        lag: Seconds that a replica may be behind where no position says what must be there.
    """

    def __init__(
        self,
        name: str,
        switch: Switch,
        replicas: Replicas[T],
        *,
        reaches: Sequence[Callable[[], Reach]] | None = None,
        primary: Callable[[], Reach] | None = None,
        identity: Callable[[], str] | None = None,
        schema: Schema | Callable[[], Schema | None] | None = None,
        always: bool = False,
        lag: float = LAG_SECONDS,
    ) -> None:
        self.name = name
        self.replicas = replicas
        self._schema = schema if callable(schema) else lambda: schema
        self._switch = switch
        self._always = always
        self._lag = lag
        self._reaches = tuple(reaches or ())
        self._reach_primary = primary
        self._identity = identity
        self._mark: _Mark | None = None
        self._primary: Standing | None = None
        self._of_process: dict[int, _Threads] = {}
        self._closed = False
        self._stop_listening = switch.on_change(lambda _: self._threads.wake())

    @property
    def _threads(self) -> _Threads:
        """This process's own: threads do not survive a fork, and their locks must not."""
        pid = os.getpid()
        return self._of_process.get(pid) or self._of_process.setdefault(pid, _Threads())

    def ensure(self) -> None:
        """Have the threads run in this process; where they do, it costs next to nothing."""
        threads = self._threads
        # A primary without replicas is only asked who it is, and only while somebody may move it.
        if threads.running or self._closed or not (self._reaches or self._switch.view.state.read_only):
            return
        if not threads.first():
            return
        if self._reach_primary is not None:
            threads.start(f"readonly-primary-{self.name}", self._watching_primary(self._reach_primary))
        for replica, reach in zip(self.replicas.all, self._reaches, strict=False):
            threads.start(f"readonly-replica-{replica.name}", self._watching(replica, reach))

    def close(self) -> None:
        """Look no more."""
        self._closed = True
        self._stop_listening()
        self._threads.stop()

    # --- what a reader needs -----------------------------------------------------------------------------------------

    @property
    def system(self) -> str:
        """Which system the primary is; "" while nobody knows."""
        return self._primary.system if self._primary is not None else ""

    def need(self) -> Need | None:
        """Return what a reader that begins now needs of a replica; None: it is to stay on the primary."""
        self.ensure()
        request = recent.current()
        return self._need(self._switch.state, None if request is None else request.of(self.name))

    def _need(self, state: State, wrote: Wrote | None = None) -> Need | None:
        if not state.read_only:
            return self._need_writable(state, wrote) if self._always else None
        stored = _stored(state)
        epochs = (min(cause.epoch for cause in stored), state.epoch) if stored else None
        if self._reach_primary is None:
            # Copies of files: a window, or a cause that only this process sees, does not say what must be there.
            return None if epochs is None else Need(epochs=epochs, system=self._file, **self._wanted())
        fences = self.fences(state)
        mark = self._marked(state)
        wanted = self._wanted(mark=mark, fences=fences)
        if fences:
            positions = tuple(Position(fence.system, fence.position) for fence in fences)
            return Need(epochs=epochs, positions=positions, **wanted)
        positions = () if mark is None or mark.position is None else (mark.position,)
        if wrote is not None and wrote.at and wrote.system == self.system:
            # Admitted before the change, and committed after this process had seen it.
            positions = (*positions, Position(wrote.system, wrote.at))
        return Need(
            epochs=epochs,
            positions=positions,
            system=self._primary.system if self._primary is not None else "",
            lag=self._lag,
            **wanted,
        )

    def fences(self, state: State) -> list[FenceMark]:
        """Return the fences of this database that stand behind a position."""
        marks = [c.fence for c in _stored(state) if c.fence is not None and c.fence.position]
        system = self._primary.system if self._primary is not None else ""
        named = [mark for mark in marks if mark.name == self.name]
        if named or not system:
            return named or marks
        return [mark for mark in marks if mark.system == system]

    @property
    def _file(self) -> str:
        """Which file the primary is, where it is one: a copy of another one is none of this."""
        return self._identity() if self._identity is not None else ""

    def _need_writable(self, state: State, wrote: Wrote | None) -> Need | None:
        # After `off`, a replica must have reached the end of the read-only time.
        epochs = (state.epoch, state.epoch)
        if self._reach_primary is None:
            # No copy is newer than the epoch that it was taken at.
            return Need(epochs=epochs, system=self._file, **self._wanted()) if wrote is None else None
        mark = self._marked(state)
        positions = [] if mark is None or mark.position is None else [mark.position]
        lag = self._lag
        if wrote is not None and wrote.at:
            if wrote.system != self.system:
                return None  # of another server, or nobody knows yet: it means nothing on a replica of this one
            positions.append(Position(wrote.system, wrote.at))
        elif wrote is not None:
            lag = min(lag, wrote.seconds_ago - CLOCK_SECONDS)
            if lag <= 0:
                return None
        return Need(
            epochs=epochs if wrote is None else None,
            unknown="" if mark is not None and mark.at else "has to wait: the primary's position is not known yet",
            positions=tuple(positions),
            system=mark.system if mark is not None else "",
            lag=lag,
            **self._wanted(),
        )

    def _wanted(self, *, mark: Standing | None = None, fences: Sequence[FenceMark] = ()) -> _Wanted:
        """Return the schema version that this process's code was written for, as far as anybody knows.

        Where nobody does, a replica is as good as its primary when it has the same one; and a frozen one when it has
        what the primary had before the migration.
        """
        schema = self._schema()
        if schema is None:
            return {}
        if schema.wanted is not None:
            return {"schema": schema.wanted, "frozen": schema.wanted}
        before = None if mark is None else mark.schema
        now = self._primary.schema if self._primary is not None else None
        recorded = next((fence.schema for fence in fences if fence.schema), "")
        return {
            # A migration's lock may keep the primary's from being asked for.
            "schema": now if now is not None else before,
            "frozen": tuple(recorded.split(",")) if recorded else before,
        }

    def _marked(self, state: State) -> Standing | None:
        """Return what the primary was when this process saw the change that is in force; None: not known yet."""
        mark = self._mark
        return mark.standing if mark is not None and mark.change == _change(state) else None

    # --- what is reported --------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return who the primary is and where each replica stands, for the process's report."""
        self.ensure()
        found: dict[str, Any] = {}
        if self._primary is not None and (self._primary.system or self._primary.itself):
            found["system"] = self._primary.system or self._primary.itself
            if self._primary.timeline:
                found["timeline"] = self._primary.timeline
            if self._primary.itself:
                found["follows"] = True  # and is written to: one of two primaries that follow each other, perhaps
        elif self._identity is not None:
            found["system"] = self._file
        if self.replicas:
            # Not `need`: that may read the store, and whoever reports is the one who reads it.
            # A copied file tells no lag, and is not read before it was taken anew: no fault of a site that writes.
            lag = None if self._identity is not None else self._lag
            system = self.system if self._identity is None else self._file
            need = self._need(self._switch.view.state) or Need(lag=lag, system=system, **self._wanted())
            found["replicas"] = [_described(replica, need) for replica in self.replicas.all]
        return found

    # --- the threads -------------------------------------------------------------------------------------------------

    def _watching(self, replica: Replica[T], make: Callable[[], Reach]) -> Callable[[_Threads, threading.Event], None]:
        def run(threads: _Threads, wake: threading.Event) -> None:
            def look(reach: Reach) -> float:
                replica.found(reach.look(self._schema()))
                if self._always or self._switch.view.state.read_only:
                    return LOOK_EVERY_SECONDS
                reach.close()
                return IDLE_SECONDS

            def failed(error: Exception) -> None:
                problem = f"can't be looked at: {_first_line(error)}"
                before = replica.standing
                replica.found(Standing(problem=problem))
                if before is None or not before.problem:
                    logger.warning("readonly: replica %s of %s %s", replica.name, self.name, problem)

            threads.loop(make(), look, failed, wake)

        return run

    def _watching_primary(self, make: Callable[[], Reach]) -> Callable[[_Threads, threading.Event], None]:
        def look(reach: Reach) -> float:
            state = self._switch.view.state
            change = _change(state)
            # The change first, then the look: what was found holds all that was there when the change was seen.
            self._primary = found = reach.look(self._schema())
            # Seen once for a change: a migration moves the primary on, and a frozen replica need not follow.
            if self._mark is None or self._mark.change != change:
                self._mark = _Mark(change, found)
            reach.close()
            if _change(self._switch.view.state) != change:
                return 0.0
            schema = self._schema()
            follows = self._always and schema is not None and schema.wanted is None
            return IDENTITY_SECONDS if state.read_only or follows else IDLE_SECONDS

        def failed(error: Exception) -> None:
            logger.debug("readonly: the primary of %s can't be looked at: %s", self.name, _first_line(error))

        def run(threads: _Threads, wake: threading.Event) -> None:
            threads.loop(make(), look, failed, wake)

        return run


class _Threads:
    """The threads of one process."""

    def __init__(self) -> None:
        self.running = False
        self._first = threading.Lock()
        self._stopped = False
        self._all: list[tuple[threading.Thread, threading.Event]] = []
        self._reaches: list[Reach] = []

    def first(self) -> bool:
        """Tell whether they are to be started: True once."""
        self.running = True
        return self._first.acquire(blocking=False)

    def start(self, name: str, run: Callable[[_Threads, threading.Event], None]) -> None:
        """Start one of them."""
        wake = threading.Event()
        thread = threading.Thread(target=run, args=(self, wake), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads here, or the interpreter is going down
            logger.warning("readonly: nobody looks at a server in the background: %s: %s", name, error)
            return
        self._all.append((thread, wake))

    def wake(self) -> None:
        """Have all of them look now."""
        for _, wake in self._all:
            wake.set()

    def stop(self) -> None:
        """End them; they give their connections back."""
        self._stopped = True
        for reach in self._reaches:
            reach.sever()
        self.wake()
        until = time.monotonic() + END_SECONDS
        for thread, _ in self._all:
            thread.join(max(0.0, until - time.monotonic()))

    def loop(
        self,
        reach: Reach,
        look: Callable[[Reach], float],
        failed: Callable[[Exception], None],
        wake: threading.Event,
    ) -> None:
        """Look until it is stopped, when it is woken or the seconds that `look` returned are over."""
        self._reaches.append(reach)
        failures = 0
        try:
            while True:
                wake.clear()
                # In this order: whoever stops it sets the one and then the other, and is not waited past.
                if self._stopped:
                    return
                try:
                    seconds = look(reach)
                    failures = 0
                except Exception as error:
                    if self._stopped:
                        return
                    failed(error)
                    seconds = min(LOOK_EVERY_SECONDS * 2**failures, CAP_SECONDS)
                    failures += 1
                wake.wait(seconds)
        finally:
            reach.close()


def _stored(state: State) -> tuple[Cause, ...]:
    return state.record.causes if state.record is not None else ()


def _change(state: State) -> tuple[str, int]:
    """Return what tells one read-only time from another, and from the times between them."""
    if not state.read_only:
        return ("writable", state.epoch)
    return ("read-only", min((cause.epoch for cause in _stored(state)), default=0))


def _described(replica: Replica[Any], need: Need) -> Mapping[str, Any]:
    found = replica.look_now()
    said: dict[str, Any] = {"name": replica.name, "unfit": replica.why_unfit(need, found)}
    if found is not None and not found.problem:
        said |= {"system": found.system, "at": found.at, "lag": found.lag, "paused": found.paused, "epoch": found.epoch}
        said["schema"] = ",".join(found.schema) if found.schema is not None else None
        missing = [why for why in (has_reached(found, position) for position in need.positions) if why]
        said["behind"] = missing[0] if missing else ""
    return {key: value for key, value in said.items() if value not in (None, "", False)} | {"unfit": said["unfit"]}


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
