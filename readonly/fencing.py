"""The fences of a site: raised after the members were confirmed, lifted before the gate opens, and said in the record.

A fence is held at its database by the causes that want it (design rule 13), and stands in the record as one cause of
its own, so that the site can't open while its database refuses. The record is told first and last; whoever dies in
between leaves a closed site that says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from . import changes
from .changes import Operator
from .databases.fence import (
    Fence,
    Fenced,
    FenceError,
    FenceRefused,
    FenceUnreachable,
    Holdup,
    Level,
    Lifted,
    Pass,
    StillWriting,
    Strategy,
    Way,
)
from .databases.replicas import Schema
from .members import Report
from .record import FENCE, Cause, FenceMark, Record
from .stores import Store
from .switchover import Identity, elsewhere, gone, left_behind, of_fence

# Told which fence waits for which transactions, when that changes.
Waiting = Callable[[str, Sequence[Holdup]], None]


@dataclass(frozen=True, slots=True)
class Raised:
    """What raising the fences reached.

    Attributes:
        fenced: Those that stand with no earlier writer left.
        problems: What keeps each of the others from it, one sentence each.
        replicas: The names of the replicas that were looked for behind the fences.
        behind: Which of them have not passed the fences, one sentence each that begins with the name.
    """

    fenced: tuple[Fenced, ...] = ()
    problems: tuple[str, ...] = ()
    replicas: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()

    @property
    def there(self) -> int:
        """How many of the replicas have passed the fences."""
        return sum(not any(why.startswith(name) for why in self.behind) for name in self.replicas)

    @property
    def level(self) -> Level:
        """The weakest level of all: a site is as safe as its least safe database. `app only` without a fence."""
        order = (Level.APP_ONLY, Level.COOPERATIVE, Level.HARD)
        if self.problems or not self.fenced:
            return Level.APP_ONLY
        return min((fenced.level for fenced in self.fenced), key=order.index)


@dataclass(frozen=True, slots=True)
class Lowered:
    """What lifting the fences reached.

    Attributes:
        lifted: What each fence's database said.
        standing: Why fences still stand, so that the site can't open, one sentence each.
        said: What is worth saying of those that are down: what could not be given back.
    """

    lifted: tuple[Lifted, ...] = ()
    standing: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


def let_past(fence: Fence, mark: FenceMark, strategy: Strategy, reports: Iterable[Report]) -> tuple[Way, ...]:
    """Return as ways to write which members connect as somebody whom a fence does not stop.

    A fence that stops other roles than the site uses is no fence for it, and the server can't know that.

    Args:
        fence: As it is configured.
        mark: Where it stands, or would.
        strategy: By which.
        reports: What members say they write to, and as whom.
    """
    found: dict[str, list[str]] = {}
    database = mark.server.rpartition("/")[2]
    guarded = [(report, one) for report in reports for one in report.guards]
    for report, one in of_fence(mark, [mark], guarded):
        user = one.server.get("user")
        if one.server.get("database", database) != database:
            continue  # a process of the same role at another database: what it is there says nothing here
        if isinstance(user, str) and user and not fence.holds(user, strategy):
            found.setdefault(user, []).append(report.name)
    return tuple(
        Way(
            f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} connects as {user}, whom it does not "
            "stop",
            insists=False,
            remedy=f"have it connect as one of the writers, or add {user} to writers in readonly.toml",
            writers=True,
        )
        for user, names in sorted(found.items())
    )


class Fences:
    """All fences of a site that this machine can reach. Not thread-safe.

    Args:
        store: Where the record is.
        fences: As configured on this machine; names are unique.
        operator: Who raises and lifts.
        schemas: By the fences' names, how their databases are asked for the schema version that the record then holds.
    """

    def __init__(
        self,
        store: Store,
        fences: Sequence[Fence],
        operator: Operator,
        *,
        schemas: Mapping[str, Schema] | None = None,
    ) -> None:
        self.store = store
        self._schemas = dict(schemas or {})
        self.fences = tuple(fences)
        self.operator = operator

    def __bool__(self) -> bool:
        """Tell whether this machine knows any."""
        return bool(self.fences)

    def put_up(
        self,
        holder: str,
        *,
        timeout: float,
        end_after: float | None = None,
        run: Pass | None = None,
        waiting: Waiting | None = None,
        only: Iterable[str] = (),
    ) -> Raised:
        """Raise every fence for a cause of the record; what can't be raised is a problem and stops none of the others.

        Args:
            holder: The cause that holds them from now on.
            timeout: Seconds for all of them together.
            end_after: Seconds after which transactions that began before are ended; None: never.
            run: Whose sessions fences of triggers let through.
            waiting: Told whom is waited for.
            only: The names of those to raise; empty: all.

        Raises:
            StoreUnreachable: The store did not answer, so the record does not say what stands.
        """
        deadline = time.monotonic() + timeout
        ending = None if end_after is None else time.monotonic() + end_after
        names = set(only)
        fenced: list[Fenced] = []
        problems: list[str] = []
        for fence in self.fences:
            if names and fence.name not in names:
                continue
            epoch = 0
            if fence.stands:
                # One more, since the record says next that it stands.
                epoch = changes.set_fence(self.store, self.operator, FenceMark(fence.name)).record.epoch + 1
            now = time.monotonic()
            try:
                up = fence.put_up(
                    site=self.store.site, cause=holder, by=self.operator.name, epoch=epoch,
                    timeout=max(0.0, deadline - now),
                    end_after=None if ending is None else max(0.0, ending - now), run=run,
                    waiting=None if waiting is None else _named(fence.name, waiting),
                )  # fmt: skip
            except FenceRefused as error:
                self._withdraw(fence)
                problems.append(str(error))
            except FenceError as error:
                problems.append(str(error))
            else:
                self._say(up, fence)
                fenced.append(up)
        return Raised(tuple(fenced), tuple(problems))

    def look_again(self, *, timeout: float, waiting: Waiting | None = None) -> Raised:
        """Look at every fence that stands again, and fence what was made, swapped or granted since."""
        deadline = time.monotonic() + timeout
        fenced: list[Fenced] = []
        problems: list[str] = []
        for fence in self.fences:
            try:
                again = fence.look_again(
                    site=self.store.site, timeout=max(0.0, deadline - time.monotonic()),
                    waiting=None if waiting is None else _named(fence.name, waiting),
                )  # fmt: skip
            except FenceError as error:
                problems.append(str(error))
            else:
                self._say(again, fence)
                fenced.append(again)
        return Raised(tuple(fenced), tuple(problems))

    def seen_by(self, raised: Raised, reports: Sequence[Report]) -> Raised:
        """Return what was raised with whom of the site's own processes it does not stop: so much less it is worth."""
        known = {fence.name: fence for fence in self.fences}
        fenced = []
        for up in raised.fenced:
            mark = FenceMark(up.name, server=up.server, system=up.position.server if up.position is not None else "")
            ways = let_past(known[up.name], mark, up.strategy, reports)
            level = Level.COOPERATIVE if ways and up.level is Level.HARD else up.level
            fenced.append(replace(up, ways=(*ways, *up.ways), level=level))
            if level is not up.level:
                self._say(fenced[-1], known[up.name])
        return replace(raised, fenced=tuple(fenced))

    def epoch(self) -> int:
        """Return the highest epoch that this site's standing fences remember, for a store that was lost; 0: none does.

        A fence that can't be asked is passed over: whoever has lost the store must get on without it.
        """
        found = 0
        for fence in self.fences:
            try:
                up = fence.status()
            except FenceError:
                continue
            if up is not None and up.site == self.store.site:
                found = max(found, *(holder.epoch for holder in up.holders), 0)
        return found

    def identities(self, names: Iterable[str]) -> dict[str, Identity]:
        """Return which servers the fences of these names lead to from here, as far as those answer."""
        wanted = set(names)
        found: dict[str, Identity] = {}
        for fence in self.fences:
            which = _identity(fence) if fence.name in wanted else None
            if which is not None:
                found[fence.name] = which
        return found

    def lift(
        self,
        holders: Iterable[str],
        *,
        record: Record | None,
        only: Iterable[str] = (),
        moved: Mapping[str, Sequence[Identity]] | None = None,
        stay: Iterable[str] = (),
    ) -> Lowered:
        """Let go of every fence for these causes; a fence that nobody holds any more comes down, and its cause ends.

        Holders whose cause no longer stands in the record let go as well: their command did not come that far.

        Args:
            holders: The causes that let go.
            record: What stands, so that a fence that this machine does not know is named.
            only: The names of those to lift; empty: all.
            moved: By name, fences whose database is at another server now, as a person says, and where members write
                to: what stands at the old server is left there.
            stay: Names of those whose database stays at the server that was fenced, as a person says.

        Raises:
            StoreUnreachable: The store did not answer; the databases were asked first.
        """
        names = set(only)
        moved, staying_there = dict(moved or {}), set(stay)
        going = set(holders)
        lifted: list[Lifted] = []
        standing: list[str] = []
        said: list[str] = []
        for fence in reversed(self.fences):
            if names and fence.name not in names:
                continue
            cause = changes.fence_of(record, fence.name)
            where = _identity(fence)
            left = left_behind(cause, where) if cause is not None and fence.name in moved else ""
            why = elsewhere(
                fence.name, cause, where, now=moved.get(fence.name), left=bool(left), stay=fence.name in staying_there
            )
            if why:
                standing.append(why)
                continue
            if cause is not None and left:
                changes.lift_exactly(self.store, self.operator, cause.id)
                said.append(left)
                continue
            try:
                stood, down = self._let_go(fence, going, record)
            except FenceError as error:
                standing.append(f"{error}. The fence {fence.name} stands, so the site stays closed")
                continue
            lifted.append(down)
            if down.down:
                if cause is not None:
                    changes.lift_exactly(self.store, self.operator, cause.id)
                    if cause.fence is not None and self._stands(fence):
                        # Raised anew after it came down, and told to the record before that was.
                        changes.set_fence(self.store, self.operator, cause.fence)
                        standing.append(f"the fence {fence.name} was raised again meanwhile, by another command")
                        continue
                    if not stood and cause.fence is not None and cause.fence.level:
                        said.append(gone(fence.name, cause.fence, where))
                said += [f"{fence.name}: {sentence}" for sentence in down.lost]
            else:
                held = ", ".join(f"{holder.by} ({holder.cause})" for holder in down.held_by)
                standing.append(f"the fence {fence.name} is still held by {held}")
        known = {fence.name for fence in self.fences}
        for cause in standing_fences(record):
            if cause.fence is not None and cause.fence.name in moved and cause.fence.name not in known:
                changes.lift_exactly(self.store, self.operator, cause.id)
                said.append(left_behind(cause, None))
            elif cause.fence is not None and cause.fence.name not in known and not names:
                standing.append(
                    f"the fence {cause.fence.name} at {cause.fence.server or 'an unknown server'} stands, and nothing "
                    f"on this machine says how to reach it: where readonly.toml has [fence.{cause.fence.name}], type "
                    f"`readonlyctl off` (it was raised by {cause.by} on {cause.host})"
                )
        return Lowered(tuple(lifted), tuple(standing), tuple(said))

    def fallen(self, record: Record | None, *, replaced: Collection[str] = ()) -> tuple[str, ...]:
        """Ask the servers that may forget a fence by themselves; return what is not held any more, one sentence each.

        Args:
            record: What stands: only fences that it names are asked for.
            replaced: The names of fences whose server is another one now: whether they stand there is asked as well.
        """
        standing = {cause.fence.name for cause in standing_fences(record) if cause.fence is not None}
        said: list[str] = []
        for fence in self.fences:
            if fence.name not in standing or not (fence.forgets or fence.name in replaced):
                continue
            again = f"readonlyctl fence raise {fence.name}"
            try:
                up = fence.status()
                if up is None:
                    said.append(f"the fence {fence.name} is in the record, and not at its server. Raise it: {again}")
                elif up.position is None:
                    said.append(f"the fence {fence.name} is not up yet: its server takes writes. Go on: {again}")
                said += [
                    f"the fence {fence.name} does not cover {what}. Raise it again: {again}"
                    for what in fence.open_tables()
                ]
            except FenceError as error:
                said.append(f"whether the fence {fence.name} still stands is not known: {error}")
        return tuple(said)

    def _let_go(self, fence: Fence, going: set[str], record: Record | None) -> tuple[bool, Lifted]:
        """Let causes go of a fence; return whether it stood, and what became of it."""
        up = fence.status()
        down = Lifted(fence.name, down=up is None)
        for holder in sorted(going):
            if not down.down:
                down = fence.lift(site=self.store.site, cause=holder)
        if up is None or down.down:
            return up is not None, down
        now = fence.status()
        left = () if now is None else now.holders
        # Read after them: whoever holds it has set its cause before, and may have done so since `record` was read.
        record = changes.read_in(self.store, self.store.read()) or record
        staying = {cause.id for cause in record.causes} - going if record is not None else set()
        # One by one, and never all: somebody may come just now. Of nobody's, what is left is taken away.
        for cause in [holder.cause for holder in left if holder.cause not in staying] if left else [""]:
            if not down.down:
                down = fence.lift(site=self.store.site, cause=cause)
        return True, down if down.down else Lifted(fence.name, down=False, held_by=down.held_by or left)

    def _stands(self, fence: Fence) -> bool:
        """Tell whether somebody holds a fence that was lifted just now."""
        try:
            up = fence.status()
        except FenceError:
            return False  # it did a moment ago what it was told
        return up is not None and up.site == self.store.site and bool(up.holders)

    def _withdraw(self, fence: Fence) -> None:
        """Take the cause back that was set before a fence which was refused: at the database nothing was changed."""
        try:
            if fence.status() is not None:
                return
        except FenceUnreachable:
            return
        record = changes.read_in(self.store, self.store.read())
        cause = changes.fence_of(record, fence.name)
        if cause is not None:
            changes.lift_exactly(self.store, self.operator, cause.id)

    def _say(self, up: Fenced, fence: Fence) -> None:
        if up.strategy is Strategy.BARRIER:
            return  # nothing stands in a file
        cause = changes.fence_of(changes.read_in(self.store, self.store.read()), fence.name)
        # The first version is the one to compare with: a fence that is looked at again stands behind a migration.
        known = cause.fence.schema if cause is not None and cause.fence is not None and cause.fence.level else None
        schema, timeline = _looked_at(fence, None if known is not None else self._schemas.get(fence.name))
        changes.set_fence(
            self.store, self.operator,
            FenceMark(
                up.name, server=up.server, level=up.level, position=str(up.position or ""),
                system=up.position.server if up.position is not None else "",
                schema=schema if known is None else known, timeline=timeline,
            ),
        )  # fmt: skip


def _looked_at(fence: Fence, schema: Schema | None) -> tuple[str, str]:
    """Return the schema version at a fence's server, and its timeline; each "" where it can't be told."""
    try:
        found = fence.look(schema)
    except FenceError:
        return "", ""  # it stands all the same; who reads from replicas then goes by the primary's
    if found is None:
        return "", ""
    return ",".join(found.schema or ()), found.timeline


def _identity(fence: Fence) -> Identity | None:
    try:
        found = fence.look()
    except FenceError:
        return None  # whoever needs to know asks it for something else next, and says why that failed
    which = "" if found is None else found.system or found.itself
    return Identity(which, found.timeline) if found is not None and which else None


def standing_fences(record: Record | None) -> tuple[Cause, ...]:
    """Return the fences' causes that stand in a record."""
    return tuple(c for c in (record.causes if record is not None else ()) if c.kind == FENCE)


def _named(name: str, waiting: Waiting) -> Callable[[Sequence[Holdup]], None]:
    return lambda holdups: waiting(name, holdups)


__all__ = ["Fences", "Lowered", "Raised", "StillWriting", "standing_fences"]
