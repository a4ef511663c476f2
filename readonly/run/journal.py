"""How far a run came: its journal in the store, written before and after each step, and what it tells any machine."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from ..confirmation import Confirmation
from ..databases.fence import Holdup
from ..errors import Error, NotYours, StoreUnreachable
from ..freezing import DEFAULT_LIMIT
from ..record import RUN, Cause, Record
from ..site import Site

# A run whose runner has not been heard for three of these no longer reports.
ALIVE_SECONDS = 5.0
SILENT_SECONDS = 3 * ALIVE_SECONDS
KEEP_ENTRIES = 200
# Exit codes of the runner, as `env` and shells use them.
SUCCEEDED_NOT_OPEN, NEVER_STARTED, NOT_EXECUTABLE, NOT_FOUND = 123, 125, 126, 127
LONG_AGO = "1970-01-01T00:00:00+00:00"
# What is noticed of a frozen replica is no step.
WATCH = "watch"
# A replica of which the watch said this is not frozen any more.
NOT_FROZEN = frozenset({"thawed", "not frozen"})


class Step(StrEnum):
    """The steps, in their order."""

    ON = "on"
    CONFIRM = "confirm"
    FENCE = "fence"
    REPLICAS = "replicas"
    FREEZE = "freeze"
    COMMAND = "command"
    LOOK = "look again"
    THAW = "thaw"
    CATCH_UP = "catch up"
    SCHEMA = "schema"
    LIFT = "lift"
    OFF = "off"


_ORDER = {step: number for number, step in enumerate(Step)}


# The command's first word comes before it is started, and the second, with its process, right after.
STARTS = "starts"
BEGINS = frozenset({STARTS, "begins"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a run's journal.

    Attributes:
        at: Store's clock, UTC.
        step: Which step, or `watch`.
        what: `begins`, `done`, `failed` or `undone`; of the watch, what it noticed.
        said: What is worth knowing, in words.
        by: Who was at work.
        host: Where.
    """

    at: datetime
    step: str
    what: str
    said: str = ""
    by: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Freezing:
    """What was asked for of the replicas.

    Attributes:
        wanted: Whether those that may be frozen are, while the command runs.
        limit: Bytes of log that may wait for one of them.
    """

    wanted: bool = False
    limit: int = DEFAULT_LIMIT


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run came, as its journal tells.

    Attributes:
        id: Its id, and its cause's.
        cause: The cause, or None once it was lifted.
        command: What it runs.
        log: Where the command's output is kept: host and path.
        entries: The journal, oldest first.
        heard_seconds: How long ago its runner was heard; None if it never was.
        exit_code: The command's, or None while nobody knows it.
        pid: The command's process, on `host`.
        host: The machine it runs on.
        window: The window that it started with, and that ends with it, or "".
        freezing: What was asked for of the replicas.
        frozen: The names of the replicas that it froze and nobody thawed.
        schema: The schema's version at the fence, by the name of the database.
    """

    id: str
    cause: Cause | None
    command: tuple[str, ...] = ()
    log: str = ""
    entries: tuple[Entry, ...] = ()
    heard_seconds: float | None = None
    exit_code: int | None = None
    pid: int | None = None
    host: str = ""
    window: str = ""
    freezing: Freezing = field(default_factory=Freezing)
    frozen: tuple[str, ...] = ()
    schema: Mapping[str, str] = field(default_factory=dict)

    @property
    def reports(self) -> bool:
        """Whether its runner is at work."""
        return self.heard_seconds is not None and self.heard_seconds < SILENT_SECONDS

    @property
    def done(self) -> tuple[str, ...]:
        """The steps that were done and neither undone nor begun anew, in order."""
        last: dict[str, str] = {}
        for entry in self.entries:
            if entry.step not in _ORDER:
                continue
            if entry.what in BEGINS:  # and what follows it is to be done again
                last = {step: what for step, what in last.items() if _ORDER[Step(step)] < _ORDER[Step(entry.step)]}
            last[entry.step] = entry.what
        return tuple(step for step in Step if last.get(step) == "done")

    @property
    def command_began(self) -> bool:
        """Whether the command was ever started; where its runner died at that moment, it may not have been."""
        return any(entry.step == Step.COMMAND and entry.what in BEGINS for entry in self.entries)


class RunFailed(Error):
    """A step of a run could not be done; what stands, and how to go on, is in the message.

    Attributes:
        step: Which.
        code: The exit code that stands for it.
    """

    def __init__(self, message: str, *, step: Step, code: int) -> None:
        super().__init__(message)
        self.step = step
        self.code = code


@dataclass(slots=True)
class Voice:
    """Who is told what happens; each is optional.

    Attributes:
        step: A step begins or ended: its name, what became of it, and words.
        progress: A look at the members.
        waiting: A fence waits for transactions.
        behind: A replica is waited for: why.
        output: Bytes of the command's output.
    """

    step: Callable[[Step, str, str], None] = lambda _step, _what, _said: None
    progress: Callable[[Confirmation], None] | None = None
    waiting: Callable[[str, Sequence[Holdup]], None] | None = None
    behind: Callable[[str], None] | None = None
    output: Callable[[bytes], None] = field(default=lambda _chunk: None)


def standing_run(record: Record | None) -> Cause | None:
    """Return the cause of the run that stands, or None."""
    return next((c for c in (record.causes if record is not None else ()) if c.kind == RUN), None)


class Journal:
    """A run's journal, to be written.

    Args:
        site: Whose store holds it.
        run: The run's id.
    """

    def __init__(self, site: Site, run: str) -> None:
        self._site = site
        self.run = run

    def write(self, step: str, what: str, said: str = "", **more: Any) -> None:
        """Add a line: a step, what became of it, and words; and what another machine needs to go on."""
        told = {
            "at": self._site.store.read().at.isoformat(), "step": str(step), "what": what, "said": said,
            "by": self._site.operator.name, "host": self._site.operator.host, **more,
        }  # fmt: skip
        self._site.store.append(journal_of(self.run), json.dumps(told).encode(), keep=KEEP_ENTRIES)


@contextmanager
def alone(site: Site, run: str) -> Iterator[None]:
    """Be the only one who goes on with a run, or gives it up, as long as the block lasts.

    Who comes later sees that the runner reports. Of two who come before either has, the one whose claim stands first
    in the store goes on.

    Raises:
        NotYours: Somebody else was faster; nothing was changed.
        StoreUnreachable: The store did not answer.
    """
    name, mine = claims_of(run), secrets.token_hex(8)
    at = site.store.read().at

    def say(what: str) -> None:
        told = {what: mine, "at": at.isoformat(), "by": site.operator.name, "host": site.operator.host}
        site.store.append(name, json.dumps(told).encode(), keep=KEEP_ENTRIES)

    say("claims")
    try:
        told = [json.loads(raw) for raw in site.store.entries(name, last=KEEP_ENTRIES)]
        over = {one.get("over") for one in told}
        for one in told:
            if one.get("claims") == mine:
                break
            # One that is older is of somebody who reports by now, or is gone.
            fresh = (at - datetime.fromisoformat(one["at"])).total_seconds() < SILENT_SECONDS
            if "claims" in one and one["claims"] not in over and fresh:
                raise NotYours(
                    f"{one['by']} on {one['host']} goes on with run {run}, or gives it up, at this moment. Nothing was "
                    "changed",
                    causes=[run],
                )
        yield
    finally:
        with suppress(StoreUnreachable):  # then it is over when it is old
            say("over")


def read(site: Site, run: str) -> Progress:
    """Return how far a run came.

    Raises:
        StoreUnreachable: The store did not answer.
    """
    look = site.look()
    cause = look.record.cause(run) if look.record is not None else None
    found = Progress(run, cause)
    for raw in site.store.entries(journal_of(run), last=KEEP_ENTRIES):
        found = _with(found, json.loads(raw))
    heard = site.store.entries(alive_of(run), last=1)
    if heard:
        ago = look.census.reading.at - datetime.fromisoformat(json.loads(heard[-1])["at"])
        found = replace(found, heard_seconds=max(0.0, ago.total_seconds()))
    return found


def _with(found: Progress, told: Mapping[str, Any]) -> Progress:
    """Return what is known with one line more."""
    step, what = told["step"], told["what"]
    entry = Entry(datetime.fromisoformat(told["at"]), step, what, told["said"], told["by"], told["host"])
    found = replace(found, entries=(*found.entries, entry), window=told.get("window") or found.window)
    if "freeze" in told:
        found = replace(found, freezing=Freezing(**told["freeze"]))
    if "schema" in told:
        found = replace(found, schema=told["schema"])
    if step == Step.FREEZE and "frozen" in told:
        found = replace(found, frozen=tuple(told["frozen"]))
    elif step == Step.THAW and what == "done":
        found = replace(found, frozen=())
    elif step == WATCH and what in NOT_FROZEN:
        found = replace(found, frozen=tuple(name for name in found.frozen if name != told["name"]))
    if step == Step.COMMAND and what in BEGINS:
        return replace(
            found, command=tuple(told["command"]), log=told["log"], host=told["host"], pid=told.get("pid"),
            exit_code=None,
        )  # fmt: skip
    if step == Step.COMMAND and "exit_code" in told:
        return replace(found, exit_code=told["exit_code"])
    if "command" in told and not found.command:
        return replace(found, command=tuple(told["command"]))
    return found


def journal_of(run: str) -> str:
    """Return the name of a run's journal in the store."""
    return f"run-{run}"


def claims_of(run: str) -> str:
    """Return the name under which those who go on with a run say so."""
    return f"run-{run}-claims"


def alive_of(run: str) -> str:
    """Return the name under which a runner says that it is at work."""
    return f"run-{run}-alive"
