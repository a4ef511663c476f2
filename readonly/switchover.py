"""Is it still the server that was fenced? What members say they write to, beside what the fences say. Pure functions.

A primary may be replaced while a site is read-only: that is what many are read-only for. Opened while some processes
write to the old server and some to the new one, a site has two databases; opened by the fence of a server that nobody
writes to, none of its processes was ever held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .errors import Error
from .members import Guarded, Report
from .record import FENCE, Cause, FenceMark, Record

# A file is told from another by numbers that mean something on one machine alone.
FILES = "sqlite"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which server it is.

    Attributes:
        system: The system whose data it holds; the same for a primary and the standbys made of it.
        timeline: Which history of that system it writes, where the server tells: what was promoted writes a new one.
    """

    system: str
    timeline: str = ""

    def __str__(self) -> str:
        return f"system {self.system}" + (f", timeline {self.timeline}" if self.timeline else "")

    def is_same(self, other: Identity | None) -> bool:
        """Tell whether it is that server, as far as both are known."""
        if other is None or self.system != other.system:
            return False
        return not (self.timeline and other.timeline) or self.timeline == other.timeline

    def goes_on_from(self, other: Identity) -> bool:
        """Tell whether this is the other server, or what was promoted in its place, with all that stood there."""
        if self.system != other.system:
            return False
        return not (self.timeline and other.timeline) or int(self.timeline) >= int(other.timeline)


@dataclass(frozen=True, slots=True)
class Seen:
    """One server that members write to.

    Attributes:
        identity: Which it is.
        where: Its address, as they reach it.
        members: Who does.
    """

    identity: Identity
    where: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """A database that is not on one server, the fenced one.

    Attributes:
        name: The fence's, or the database's where none stands.
        fence: The fence's cause, or None.
        seen: The servers that members write to, the most used first.
        here: The server that this machine's configuration leads to; None: nobody knows, or there is no fence.
        why: What is wrong, in a sentence.
    """

    name: str
    fence: Cause | None
    seen: tuple[Seen, ...]
    here: Identity | None
    why: str


class MovedAway(Error):
    """Members do not all write to the server that was fenced: opening now could let two take writes. Nothing changed.

    Attributes:
        splits: The databases that it is about.
    """

    def __init__(self, splits: Sequence[Split]) -> None:
        super().__init__(
            f"{'; '.join(split.why for split in splits)}: opening now could let two servers take writes. Nothing was "
            "changed"
        )
        self.splits = tuple(splits)


def fenced_at(mark: FenceMark) -> Identity | None:
    """Return which server was fenced; None where the record does not say."""
    return Identity(mark.system, mark.timeline) if mark.system else None


def splits(record: Record | None, reports: Iterable[Report], here: Mapping[str, Identity]) -> tuple[Split, ...]:
    """Return the databases whose writers are not on one server, the fenced one where one was.

    Args:
        record: What stands.
        reports: The last words of every member that may still write.
        here: By the fences' names, which servers this machine's configuration leads to, as far as they were asked.
    """
    guarded = [(report, one) for report in reports for one in report.guards if identity(one) is not None]
    found: list[Split] = []
    judged: set[tuple[str, str]] = set()
    marks = [cause for cause in (record.causes if record is not None else ()) if cause.kind == FENCE]
    for cause in marks:
        if cause.fence is None:
            continue
        mine = of_fence(cause.fence, [c.fence for c in marks if c.fence is not None], guarded)
        judged |= {(report.role, one.name) for report, one in mine}
        split = _of_fence(cause, cause.fence, mine, here.get(cause.fence.name))
        if split is not None:
            found.append(split)
    # Two applications of one site may call two databases by one name; two processes of one may not.
    groups: dict[tuple[str, str, str], list[tuple[Report, Guarded]]] = {}
    for report, one in guarded:
        host = report.host if one.server.get("server") == FILES else ""
        groups.setdefault((report.role, one.name, host), []).append((report, one))
    for (role, name, _), mine in groups.items():
        seen = _seen(mine)
        if (role, name) not in judged and len(seen) > 1:
            found.append(Split(name, None, seen, None, f"members write to {len(seen)} servers as {name}"))
    return tuple(found)


def of_fence(
    mark: FenceMark, marks: Sequence[FenceMark], guarded: Sequence[tuple[Report, Guarded]]
) -> list[tuple[Report, Guarded]]:
    """Return which of the databases that members guard a fence is about, all processes of a role alike.

    What is at the fenced server, or is called by the fence's name, with the name of its database; where there is no
    such, what has one of the two names. What another fence is about is none of this one's.
    """
    others = [other for other in marks if other.name != mark.name]
    database = mark.server.rpartition("/")[2]
    groups: dict[tuple[str, str], list[tuple[Report, Guarded]]] = {}
    for report, one in guarded:
        groups.setdefault((report.role, one.name), []).append((report, one))
    sure, named, alike = [], [], []
    for (_, name), group in groups.items():
        same = [one for _, one in group if database and one.server.get("database") == database]
        systems = {one.server.get("system") for one in same}
        if mark.system in systems or (same and name == mark.name):
            sure += group
        elif name == mark.name:
            named += group
        elif same and not any(name == other.name or other.system in systems for other in others):
            alike += group
    return sure or named or alike


def identity(guarded: Guarded) -> Identity | None:
    """Return which server a member says it writes to; None where it does not know."""
    system, timeline = guarded.server.get("system"), guarded.server.get("timeline")
    if not isinstance(system, str) or not system:
        return None
    return Identity(system, timeline if isinstance(timeline, str) and timeline.isdigit() else "")


def address(guarded: Guarded) -> str:
    """Return where a member reaches a database, for people."""
    server = guarded.server
    host = server.get("host") or server.get("service")
    database = server.get("database") or ""
    if not host:
        return str(database or server.get("server") or "?")
    port = f":{server['port']}" if server.get("port") else ""
    return f"{host}{port}/{database}"


def elsewhere(
    name: str,
    cause: Cause | None,
    where: Identity | None,
    *,
    now: Sequence[Identity] | None,
    left: bool,
    stay: bool,
) -> str:
    """Return why a fence can't be let go of where this machine's configuration leads; "" if it can.

    Args:
        name: The fence's.
        cause: Its cause in the record.
        where: Where the configuration leads.
        now: Where members write to, for one that has moved by somebody's word; None: nobody said so.
        left: Whether what stands there is left where it is.
        stay: Somebody says that it has not moved.
    """
    fenced = fenced_at(cause.fence) if cause is not None and cause.fence is not None else None
    if cause is None or cause.fence is None or fenced is None or where is None:
        return ""
    if left and any(one != where and one.system == where.system for one in now or ()):
        return (
            f"the fence {name} stands at the promoted server as well, since that is a copy of {cause.fence.server}, "
            f"and [fence.{name}] on this machine leads to the old one: write the new server's address there, then "
            f"`readonlyctl off --moved {name}`"
        )
    if now is not None or where.is_same(fenced) or (where.goes_on_from(fenced) and not stay):
        return ""
    return (
        f"the fence {name} stands at {cause.fence.server} ({fenced}), and [fence.{name}] on this machine leads to "
        f"{where}. Has the site moved there: `readonlyctl off --moved {name}`. Does it stay: write the old server's "
        f"address there, then `readonlyctl off --stay {name}`"
    )


def left_behind(cause: Cause, where: Identity | None) -> str:
    """Return what to say of a fence that is left at a server which the site has left; "" where it is not left."""
    mark = cause.fence
    if mark is None or (where is not None and not where.is_same(fenced_at(mark))):
        return ""  # the configuration leads to where the site is now: what came along there is lifted
    return (
        f"{mark.name}: its fence stays at {mark.server or 'the old server'}, which goes on refusing writes. Is that "
        f"needed again: readonlyctl fence lift {mark.name}, with its address in readonly.toml"
    )


def gone(name: str, mark: FenceMark, where: Identity | None) -> str:
    """Return what to say of a fence that the record holds and that stood nowhere."""
    fenced = fenced_at(mark)
    if where is not None and fenced is not None and not where.is_same(fenced):
        return (
            f"{name}: the fence did not survive the failover: none stood at {where}, so from then on only the site's "
            "own processes kept writes out"
        )
    return f"{name}: no fence stood there any more: it was lifted before, by this command or another one"


def _of_fence(
    cause: Cause, mark: FenceMark, mine: Sequence[tuple[Report, Guarded]], here: Identity | None
) -> Split | None:
    fenced = fenced_at(mark)
    if fenced is None:
        return None
    seen = _seen(mine)
    now = [one.identity for one in seen] or ([here] if here is not None else [])
    away = [one for one in now if not one.goes_on_from(fenced)]
    pair = any(one.server.get("follows") for _, one in mine)
    if len(now) > 1 and away and pair:
        why = (
            f"members write to {len(now)} servers of {mark.name}, one of which was fenced, and what they write to "
            "replicates from another server: a pair of primaries, where each needs a fence of its own"
        )
    elif len(now) > 1 and away:
        why = f"{mark.name} is not the server that was fenced, and not all members have moved"
    elif len(now) > 1:
        why = f"a standby of {mark.name} was promoted, and not all members have moved"
    elif away:
        why = f"{mark.name} is not the server that was fenced"
    elif here is not None and now and here != now[0]:
        why = f"[fence.{mark.name}] on this machine leads to another server than members write to"
    else:
        return None
    return Split(mark.name, cause, seen, here, why)


def _seen(mine: Sequence[tuple[Report, Guarded]]) -> tuple[Seen, ...]:
    found: dict[Identity, list[tuple[Report, Guarded]]] = {}
    for report, one in mine:
        which = identity(one)
        if which is not None:
            found.setdefault(which, []).append((report, one))
    servers = [
        Seen(which, address(members[0][1]), tuple(report.name for report, _ in members))
        for which, members in found.items()
    ]
    return tuple(sorted(servers, key=lambda one: -len(one.members)))


__all__ = [
    "Identity",
    "MovedAway",
    "Seen",
    "Split",
    "address",
    "elsewhere",
    "fenced_at",
    "gone",
    "identity",
    "left_behind",
    "of_fence",
    "splits",
]
