"""The steps of a run: each with a check that tells whether it is done, and the step that takes it back.

That is what makes a resume right: any machine goes through the same list, does what the check says is not done, and
leaves alone what is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .. import changes
from ..changes import Change
from ..confirmation import Confirmation
from ..databases.fence import Fenced, Pass, Strategy
from ..databases.freeze import Frozen
from ..fencing import Raised, standing_fences
from ..replicating import at_work
from ..site import Site, fence_problems
from ..state import State
from .journal import NEVER_STARTED, SUCCEEDED_NOT_OPEN, Freezing, Journal, RunFailed, Step, Voice, read

# A run's token lets its command through a fence of triggers; the other strategies know it by its role.
_BY_TOKEN = frozenset({Strategy.GATE, Strategy.EACH})


@dataclass(slots=True)
class Work:
    """What the steps of one run share.

    Attributes:
        site: What is switched.
        journal: What was done.
        voice: Who is told.
        change: The change that closed the site.
        token: What lets the command through the fence.
        command: Whether one is to be run: only then the token matters.
        timeout: Seconds for each wait.
        end_after: Seconds after which a fence ends the transactions that it waits for.
        fence: Whether the fences that are configured are raised.
        freezing: What was asked for of the replicas.
        confirmation: The last look at the members.
        frozen: The replicas that do not replay.
        raised: What became of the fences, where they were raised just now.
        first: No command of this run has ever been started, so that everything can be taken back.
    """

    site: Site
    journal: Journal
    voice: Voice
    change: Change
    token: str
    command: bool
    timeout: float
    end_after: float | None = None
    fence: bool = True
    freezing: Freezing = field(default_factory=Freezing)
    confirmation: Confirmation | None = None
    frozen: tuple[Frozen, ...] = ()
    raised: Raised | None = None
    first: bool = False

    @property
    def run(self) -> str:
        """The run's id."""
        return self.journal.run

    @property
    def fenced(self) -> bool:
        """Whether there are fences to be raised."""
        return self.fence and bool(self.site.fences)


class Action(ABC):
    """One step.

    Attributes:
        step: Its name.
        after: Whether it follows the command: then nothing is taken back when it fails.
    """

    step: ClassVar[Step]
    after: ClassVar[bool] = False

    def __init__(self, work: Work) -> None:
        self.work = work

    @property
    def wanted(self) -> bool:
        """Whether this run has the step at all."""
        return True

    def done(self) -> str | None:
        """Check: return what is so, in words, where there is nothing to do; else None."""
        return None

    @abstractmethod
    def do(self) -> str:
        """Do it, or do it again; return what came of it, in words."""

    def told(self) -> dict[str, Any]:
        """Return what another machine needs to know of it, once it was done."""
        return {}

    def before(self) -> dict[str, Any]:
        """Return what another machine needs to know of it if this one dies in the middle."""
        return {}

    def fails(self, problems: Sequence[str]) -> None:
        """Raise RunFailed where something is in the way."""
        if problems:
            code = SUCCEEDED_NOT_OPEN if self.after else NEVER_STARTED
            raise RunFailed("; ".join(problems), step=self.step, code=code)


class Confirm(Action):
    """Every process obeys, and has drained."""

    step = Step.CONFIRM

    def done(self) -> str | None:
        """Ask the registry once."""
        found = self.work.site.judge(self.work.site.look())
        self.work.confirmation = found
        return f"{len(found.members)} members" if found.safe and found.closing else None

    def do(self) -> str:
        """Wait for them."""
        work = self.work
        found = work.site.wait_closed(
            work.change, timeout=work.timeout, accept_fenced=True, fence=work.fence, progress=work.voice.progress
        )
        work.confirmation = found
        if not found.safe:
            self.fails([f"not every process confirmed: {'; '.join(found.missing)}"])
        return f"{len(found.members)} members"


class Raise(Action):
    """Every fence stands, and no earlier writer is left."""

    step = Step.FENCE

    @property
    def wanted(self) -> bool:
        """Where fences are configured."""
        return self.work.fenced

    def done(self) -> str | None:
        """Ask each database: it stands for this run, is safe, covers everything, and knows the token if one is used."""
        standing = []
        for fence in self.work.site.fences.fences:
            up = fence.status()
            if up is None or not self._ours(up) or fence.open_tables():
                return None
            standing.append(up)
        found = self.work.confirmation
        if found is None or found.held:
            return None
        return "; ".join(map(_said, standing))

    def _ours(self, up: Fenced) -> bool:
        return (
            up.site == self.work.site.name
            and up.position is not None
            and any(holder.cause == self.work.run for holder in up.holders)
            and not (self.work.command and up.strategy in _BY_TOKEN)
        )

    def do(self) -> str:
        """Raise them."""
        work = self.work
        raised = work.site.fences.put_up(
            work.run, timeout=work.timeout, end_after=work.end_after, run=Pass(work.run, work.token),
            waiting=work.voice.waiting,
        )  # fmt: skip
        assert work.confirmation is not None, "confirmed before"  # noqa: S101 - the order of the steps
        raised = work.site.fences.seen_by(raised, at_work(work.confirmation))
        work.raised = raised
        problems = fence_problems(work.confirmation, raised)
        self.fails([f"not fenced: {'; '.join(problems)}"] if problems else [])
        return "; ".join(map(_said, raised.fenced))


class Reach(Action):
    """Every replica has replayed what lies before its fence."""

    step = Step.REPLICAS

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._schema: dict[str, str] = {}

    @property
    def wanted(self) -> bool:
        """Where replicas, or a schema's version, are configured."""
        return self.work.fenced and (bool(self.work.site.standbys) or self.work.site.standbys.compared)

    def done(self) -> str | None:
        """Ask each once."""
        return None if self.work.site.standbys.reach_fences(timeout=0.0) else self._there()

    def do(self) -> str:
        """Wait for them."""
        waiting = self.work.voice.behind
        self.fails(self.work.site.standbys.reach_fences(timeout=self.work.timeout, waiting=waiting))
        return self._there()

    def _there(self) -> str:
        standbys = self.work.site.standbys
        count = sum(len(group.standbys) for group in standbys.groups)
        said = [f"{count} there"] if count else []
        if standbys.compared:
            fences = {group.fence.name for group in standbys.groups}
            found = {name: version for name, version in standbys.versions().items() if name in fences}
            # The first look, before any command of this run, is the one to go back to.
            self._schema = dict(read(self.work.site, self.work.run).schema) or {
                name: ", ".join(version) for name, version in found.items()
            }
            said += [f"{name} has schema version {', '.join(version) or '(none)'}" for name, version in found.items()]
        return "; ".join(said)

    def told(self) -> dict[str, Any]:
        """The schema's version at the fence."""
        return {"schema": self._schema} if self._schema else {}


class Freeze(Action):
    """Replicas that may be frozen do not replay."""

    step = Step.FREEZE

    @property
    def wanted(self) -> bool:
        """Where it was asked for."""
        return self.work.fenced and self.work.freezing.wanted

    def before(self) -> dict[str, Any]:
        """All that may be paused when this machine dies."""
        return {"frozen": [standby.name for standby in self.work.site.standbys.freezable]}

    def done(self) -> str | None:
        """Ask each: those that this run froze and that are still paused need nothing."""
        if not read(self.work.site, self.work.run).frozen or not self.work.site.standbys.all_frozen():
            return None
        return self.do()

    def do(self) -> str:
        """Pause each as soon as it has passed the fence; what is paused is left alone."""
        self.work.frozen = self.work.site.standbys.freeze(timeout=self.work.timeout)
        # The time that a read may hold up replay counts from when the log arrived: after the thaw it is over for all
        # but the last of it.
        graces = sorted({frozen.grace for frozen in self.work.frozen if frozen.grace != "-1"})
        after = (
            f". After the thaw a read there that is in the way of the migration may be ended at once: "
            f"max_standby_streaming_delay={', '.join(graces)} counts from when the log arrived"
            if graces
            else ""
        )
        return "; ".join(map(str, self.work.frozen)) + after

    def told(self) -> dict[str, Any]:
        """The names, so that another machine can thaw them."""
        return {"frozen": [frozen.name for frozen in self.work.frozen]}


class LookAgain(Action):
    """What the command made or swapped is fenced as well."""

    step = Step.LOOK
    after = True

    @property
    def wanted(self) -> bool:
        """Where fences are configured."""
        return self.work.fenced

    def do(self) -> str:
        """Look."""
        again = self.work.site.fences.look_again(timeout=self.work.timeout, waiting=self.work.voice.waiting)
        self.fails(again.problems)
        found = [what for fenced in again.fenced for what in fenced.found]
        return f"made or swapped meanwhile: {', '.join(found)}" if found else "nothing was open"


class Thaw(Action):
    """No replica is frozen any more; takes `Freeze` back."""

    step = Step.THAW
    after = True

    @property
    def wanted(self) -> bool:
        """Where this run froze one."""
        return bool(read(self.work.site, self.work.run).frozen)

    def do(self) -> str:
        """Have them replay again."""
        thawed, problems = self.work.site.standbys.thaw(read(self.work.site, self.work.run).frozen)
        self.fails(problems)
        return ", ".join(thawed) or "none was paused"


class CatchUp(Action):
    """Every replica has replayed what the command has written."""

    step = Step.CATCH_UP
    after = True

    @property
    def wanted(self) -> bool:
        """Where replicas are configured."""
        return self.work.fenced and bool(self.work.site.standbys)

    def do(self) -> str:
        """Wait for them; where they are there already, that takes no time."""
        self.fails(self.work.site.standbys.catch_up(timeout=self.work.timeout, waiting=self.work.voice.behind))
        return f"{sum(len(group.standbys) for group in self.work.site.standbys.groups)} there"


class Compare(Action):
    """Every replica has the schema's version of its primary."""

    step = Step.SCHEMA
    after = True

    @property
    def wanted(self) -> bool:
        """Where it is asked for."""
        return self.work.fenced and self.work.site.standbys.compared

    def do(self) -> str:
        """Compare, and say from which version to which."""
        standbys = self.work.site.standbys
        self.fails(standbys.differing())
        before, now = read(self.work.site, self.work.run).schema, standbys.versions()
        said = []
        for group in standbys.groups:
            if group.fence.name in now:
                version = ", ".join(now[group.fence.name])
                was = before.get(group.fence.name, version)
                changed = (
                    f"{was or '(none)'} before, now {version or '(none)'}" if was != version else f"still {version}"
                )
                said.append(f"{group.fence.name}: {changed} on {1 + len(group.standbys)} of {1 + len(group.standbys)}")
        return "; ".join(said)


class Lift(Action):
    """No fence stands for this run; takes `Raise` back."""

    step = Step.LIFT
    after = True

    def done(self) -> str | None:
        """Ask the record, and each database."""
        site = self.work.site
        if standing_fences(site.look().record) or any(fence.status() is not None for fence in site.fences.fences):
            return None
        return "none stands"

    def do(self) -> str:
        """Lift them, at the server that was fenced and that members write to."""
        self.fails(_split(self.work))
        down = self.work.site.fences.lift((self.work.run,), record=self.work.site.look().record)
        self.fails(down.standing)
        return "; ".join(down.said)


class Off(Action):
    """The site is open; takes `on` back."""

    step = Step.OFF
    after = True

    def do(self) -> str:
        """Lift the run's cause, and wait until every member has taken that in."""
        work = self.work
        self.fails(_split(work))
        window = read(work.site, work.run).window
        change = changes.lift_exactly(work.site.store, work.site.operator, work.run, window=window)
        found = work.site.wait_open(change, timeout=work.timeout, progress=work.voice.progress)
        # A window that was not this run's goes on to its own end.
        left = [f"{c.kind} {c.id} by {c.by}" for c in State.at(change.reading.at, change.record).causes]
        if left:
            self.fails([f"the run is over, and the site is still read-only: {'; '.join(left)}"])
        if not found.safe:
            missing = "; ".join(found.missing)
            self.fails([f"the run is over and the site is writable by its record; not confirmed: {missing}"])
        return f"{len(found.members)} members"


# In their order; the command is between the two.
BEFORE: tuple[type[Action], ...] = (Confirm, Raise, Reach, Freeze)
AFTER: tuple[type[Action], ...] = (LookAgain, Thaw, CatchUp, Compare, Lift, Off)
# What takes a step back, in the order in which a run is given up: the reverse of how it began.
TAKES_BACK: dict[Step, type[Action]] = {Step.FREEZE: Thaw, Step.FENCE: Lift, Step.ON: Off}


def _split(work: Work) -> list[str]:
    """Return which databases are not at one server, the fenced one, and what helps."""
    return [
        f"{split.why}: opening now could let two servers take writes. Restart the processes that have not moved; has "
        f"the fence's server moved, raise it there (readonlyctl fence raise {split.name}); then: readonlyctl resume "
        f"{work.run}"
        for split in work.site.splits(work.site.look())
    ]


def _said(fenced: Fenced) -> str:
    return f"{fenced.name} {fenced} at {fenced.position}"
