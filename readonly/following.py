"""The replicas of a site, as the operator meets them: have they reached the fence; freeze them, thaw them, compare.

A replica belongs to a fence: where it must be is the fence's position, and what it is compared with the fence's
primary. Both are asked for anew at each step, so that any machine can go on from where another one stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from .databases.fence import Fence, FenceError, Position
from .databases.freeze import Frozen, Pause, Seen, Standby, StandbyError, StandbyUnreachable
from .databases.replicas import Schema
from .errors import Error
from .fencing import Raised
from .members import Report
from .record import Record
from .replicating import missing, names

# A replica has no event to wait for; a look costs it well under a millisecond.
POLL_SECONDS = 0.05
# What members say of their replicas is looked at so often, hint or no hint.
REPORTS_SECONDS = 0.5
_UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class Followers:
    """The replicas of one fence's primary.

    Attributes:
        fence: Its fence.
        standbys: All that are known on this machine.
        freezable: Those of them that may be frozen.
        schema: How the version of the schema is asked for; None: it is not compared.
    """

    fence: Fence
    standbys: tuple[Standby, ...] = ()
    freezable: tuple[Standby, ...] = ()
    schema: Schema | None = None


class Standbys:
    """All replicas of a site that this machine can reach. Not thread-safe.

    Args:
        groups: For each fence.
    """

    def __init__(self, groups: Sequence[Followers]) -> None:
        self.groups = tuple(groups)

    def __bool__(self) -> bool:
        """Tell whether this machine knows any."""
        return any(group.standbys for group in self.groups)

    @property
    def freezable(self) -> tuple[Standby, ...]:
        """Those that may be frozen."""
        return tuple(standby for group in self.groups for standby in group.freezable)

    @property
    def compared(self) -> bool:
        """Whether the version of any schema is asked for."""
        return any(group.schema is not None for group in self.groups)

    def reach_fences(self, *, timeout: float, waiting: Callable[[str], None] | None = None) -> tuple[str, ...]:
        """Wait until every replica has replayed what lies before its fence.

        Returns:
            What is in the way, one sentence for each replica that has not.
        """
        return self._reach(lambda group: fenced_at(group.fence), timeout, waiting)

    def catch_up(self, *, timeout: float, waiting: Callable[[str], None] | None = None) -> tuple[str, ...]:
        """Wait until every replica has replayed what its primary had written when this began; as `reach_fences`."""
        return self._reach(_written, timeout, waiting)

    def freeze(self, *, timeout: float) -> tuple[Frozen, ...]:
        """Pause all that may be frozen, as soon as each has passed its fence.

        Raises:
            Error: One can't be frozen; those before it are.
        """
        deadline = time.monotonic() + timeout
        frozen = []
        for group in self.groups:
            if not group.freezable:
                continue
            position = fenced_at(group.fence)
            for standby in group.freezable:
                frozen.append(standby.freeze(position, timeout=max(0.0, deadline - time.monotonic())))
        return tuple(frozen)

    def all_frozen(self) -> bool:
        """Tell whether all that may be frozen are.

        Raises:
            Error: One can't be asked.
        """
        return all(standby.look().pause is Pause.YES for standby in self.freezable)

    def thaw(self, names: Iterable[str] | None = None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Have replicas replay again.

        Args:
            names: Which; None: all that may be frozen.

        Returns:
            The names of those that had been paused, and what is in the way of the others, one sentence each.
        """
        known = {standby.name: standby for standby in self.freezable}
        thawed: list[str] = []
        problems: list[str] = []
        for name in known if names is None else dict.fromkeys(names):
            if name not in known:
                problems.append(
                    f"{name} is frozen, and nothing on this machine says how to reach it: SELECT "
                    "pg_wal_replay_resume() there, or thaw it where readonly.toml names it"
                )
                continue
            try:
                if known[name].thaw():
                    thawed.append(name)
            except StandbyError as error:
                problems.append(str(error))
        return tuple(thawed), tuple(problems)

    def versions(self) -> dict[str, tuple[str, ...]]:
        """Return the schema's version at each primary and replica that is asked for it.

        Raises:
            Error: One can't tell, or did not answer.
        """
        found: dict[str, tuple[str, ...]] = {}
        for group in self.groups:
            if group.schema is None:
                continue
            primary = group.fence.look(group.schema)
            if primary is not None:
                found[group.fence.name] = _told(group.fence.name, primary.schema, primary.no_schema)
            for standby in group.standbys:
                seen = standby.look(group.schema)
                found[seen.name] = _told(seen.name, seen.standing.schema, seen.standing.no_schema)
        return found

    def differing(self) -> tuple[str, ...]:
        """Return which replicas have another version of the schema than their primary, one sentence each.

        Raises:
            Error: One can't tell, or did not answer.
        """
        found = self.versions()
        return tuple(
            f"{standby.name} has the schema version {_spelled(found[standby.name])}, and {group.fence.name} has "
            f"{_spelled(found[group.fence.name])}"
            for group in self.groups
            for standby in group.standbys
            if group.fence.name in found and found[standby.name] != found[group.fence.name]
        )

    def fitness(self, *, freeze: bool) -> tuple[list[str], list[str]]:
        """Return what each replica is, and what would be in a run's way, one sentence each; nothing is changed."""
        said: list[str] = []
        problems: list[str] = []
        for group in self.groups:
            try:
                primary = group.fence.look(group.schema)
            except FenceError as error:
                problems.append(str(error))
                continue
            if primary is None:
                continue
            if primary.no_schema:
                problems.append(f"{group.fence.name}: the schema's version can't be told: {primary.no_schema}")
            for standby in group.standbys:
                try:
                    seen = standby.look(group.schema)
                except StandbyError as error:
                    problems.append(str(error))
                    continue
                said.append(f"{seen.name}: at {seen.standing.at}, {size(seen.waiting_bytes)} of log not replayed yet")
                problems += _unfit(seen, primary.system, pausing=freeze and standby in group.freezable)
        return said, problems

    def _reach(
        self,
        where: Callable[[Followers], Position],
        timeout: float,
        waiting: Callable[[str], None] | None,
    ) -> tuple[str, ...]:
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        problems: list[str] = []
        told = ""
        for group in self.groups:
            if not group.standbys:
                continue
            try:
                position = where(group)
            except Error as error:
                problems.append(str(error))
                continue
            for standby in group.standbys:
                while True:
                    try:
                        why = standby.behind(position)
                        why = f"{standby.name} {why}" if why else ""
                    except StandbyUnreachable as error:
                        why = str(error)
                    except StandbyError as error:
                        problems.append(str(error))
                        break
                    if not why:
                        break
                    if time.monotonic() >= deadline:
                        problems.append(why)
                        break
                    if waiting is not None and told != standby.name:
                        told = standby.name
                        waiting(why)
                    pause.wait(POLL_SECONDS)
        return tuple(problems)


def wait_replicas(
    raised: Raised,
    standbys: Standbys,
    reading: Callable[[], tuple[Record | None, list[Report]]],
    *,
    timeout: float,
    waiting: Callable[[str], None] | None,
    pause: Callable[[float], None],
) -> Raised:
    """Wait until the replicas have passed the fences: those that this machine knows, and those that members report.

    What a member can't reach is none that it reads from, and is not waited for.

    Args:
        raised: The fences that were raised.
        standbys: Those that this machine knows.
        reading: Returns the record, and what members at work say.
        timeout: Seconds for all of them.
        waiting: Told who is waited for, when that changes.
        pause: Waits until there may be something new, for so many seconds at most.

    Returns:
        The same, with the replicas, and which of them are behind.
    """
    deadline = time.monotonic() + timeout
    behind = standbys.reach_fences(timeout=timeout, waiting=waiting)
    known = [standby.name for group in standbys.groups for standby in group.standbys]
    told = ""
    while True:
        record, reports = reading()
        left = missing(record, reports) if record is not None else ()
        if not left or time.monotonic() >= deadline:
            break
        if waiting is not None and left[0] != told:
            told = left[0]
            waiting(told)
        pause(REPORTS_SECONDS)
    # One that both know is said once.
    said = [why for why in left if not any(why.startswith(name) for name in known)]
    return replace(raised, replicas=tuple(dict.fromkeys([*known, *names(reports)])), behind=(*behind, *said))


def fenced_at(fence: Fence) -> Position:
    """Return where a fence stands.

    Raises:
        FenceError: None does, or it is not safe yet; or its server did not answer.
    """
    up = fence.status()
    if up is None or up.position is None:
        raise FenceError(f"{fence.name}: no fence stands there with a position, so no replica can be compared with it")
    return up.position


def _written(group: Followers) -> Position:
    position = group.fence.mark()
    if position is None:
        raise FenceError(f"{group.fence.name}: does not tell its position, so no replica can be compared with it")
    return position


def _told(name: str, version: tuple[str, ...] | None, why: str) -> tuple[str, ...]:
    if version is None:
        raise StandbyError(f"{name}: the schema's version can't be told: {why}")
    return version


def _spelled(version: tuple[str, ...]) -> str:
    return ", ".join(version) or "(none)"


def _unfit(seen: Seen, system: str, *, pausing: bool) -> Iterator[str]:
    if not seen.standing.replica:
        yield f"{seen.name} is no standby: it takes writes of its own"
        return
    if seen.standing.system != system:
        yield f"{seen.name} is of system {seen.standing.system}, not a replica of the primary ({system})"
    if seen.pause is not Pause.NO:
        yield f"{seen.name} is paused at {seen.standing.at}: have it replay again, SELECT pg_wal_replay_resume()"
    if seen.delay != "0":
        yield f"{seen.name} replays {seen.delay} late on purpose (recovery_min_apply_delay): it is not there in time"
    if seen.standing.no_schema:
        yield f"{seen.name}: the schema's version can't be told: {seen.standing.no_schema}"
    if pausing and seen.lacks:
        yield f"{seen.name}: {seen.lacks}"


def size(count: int) -> str:
    """Return a number of bytes for people, in powers of 1024 as PostgreSQL writes them."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if value >= 10 or unit == 0 else f"{value:.1f} {_UNITS[unit]}"


__all__ = ["Followers", "Standbys", "fenced_at", "size", "wait_replicas"]
