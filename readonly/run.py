"""A run: on, confirm, fence, the command, look again, lift, off; each step can be told done, done again, and undone.

What was done stands in the store's journal, step by step, before and after each; so any machine can say how far a run
came when the one that it ran on is gone, and go on from there. A run is a cause of its own: the site does not open
while it stands, and only its end, or a person who abandons it, lifts it.

The command runs in a session of its own and writes to a file: a closed terminal, or the death of the runner, ends
neither it nor its output. Its database sessions are named `readonly-run-ID`, so that a dead runner is not taken for a
dead migration.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from . import changes
from .databases.fence import Holdup, Pass
from .errors import Error, NotYours, StoreUnreachable
from .fencing import Raised
from .hostfile import state_folder
from .members import Confirmation
from .record import RUN, Cause, Record
from .site import Site, fence_problems
from .state import State
from .stores import store_from_url

# What the child's environment names it by; guards and `writing()` let the child of a standing run through.
VARIABLE = "READONLY_RUN"
# A run whose runner has not been heard for three of these no longer reports.
ALIVE_SECONDS = 5.0
SILENT_SECONDS = 3 * ALIVE_SECONDS
KEEP_ENTRIES = 200
# Exit codes of the runner, as `env` and shells use them.
SUCCEEDED_NOT_OPEN, NEVER_STARTED, NOT_EXECUTABLE, NOT_FOUND = 123, 125, 126, 127
TAIL_SECONDS = 0.05
# What was told to end has so long to roll back.
END_SECONDS = 10.0


class Step(StrEnum):
    """The steps, in their order."""

    ON = "on"
    CONFIRM = "confirm"
    FENCE = "fence"
    COMMAND = "command"
    LOOK = "look again"
    LIFT = "lift"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a run's journal.

    Attributes:
        at: Store's clock, UTC.
        step: Which step.
        what: `begins`, `done`, `failed` or `undone`.
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

    @property
    def reports(self) -> bool:
        """Whether its runner is at work."""
        return self.heard_seconds is not None and self.heard_seconds < SILENT_SECONDS

    @property
    def done(self) -> tuple[str, ...]:
        """The steps that were done and not undone, in order."""
        last = {entry.step: entry.what for entry in self.entries}
        return tuple(step for step in Step if last.get(step) == "done")

    @property
    def command_began(self) -> bool:
        """Whether the command was ever started."""
        return any(entry.step == Step.COMMAND and entry.what == "begins" for entry in self.entries)


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
        output: Bytes of the command's output.
    """

    step: Callable[[Step, str, str], None] = lambda _step, _what, _said: None
    progress: Callable[[Confirmation], None] | None = None
    waiting: Callable[[str, Sequence[Holdup]], None] | None = None
    output: Callable[[bytes], None] = field(default=lambda _chunk: None)


def standing_run(record: Record | None) -> Cause | None:
    """Return the cause of the run that stands, or None."""
    return next((c for c in (record.causes if record is not None else ()) if c.kind == RUN), None)


def read(site: Site, run: str) -> Progress:
    """Return how far a run came.

    Raises:
        StoreUnreachable: The store did not answer.
    """
    look = site.look()
    cause = look.record.cause(run) if look.record is not None else None
    found = Progress(run, cause)
    entries = []
    for raw in site.store.entries(_journal(run), last=KEEP_ENTRIES):
        told = json.loads(raw)
        found = replace(found, window=told.get("window") or found.window)
        entries.append(
            Entry(
                datetime.fromisoformat(told["at"]), told["step"], told["what"], told["said"], told["by"], told["host"]
            )
        )
        if told["step"] == Step.COMMAND and told["what"] == "begins":
            found = replace(
                found, command=tuple(told["command"]), log=told["log"], host=told["host"], pid=told.get("pid"),
                exit_code=None,
            )  # fmt: skip
        elif told["step"] == Step.COMMAND and "exit_code" in told:
            found = replace(found, exit_code=told["exit_code"])
        elif "command" in told and not found.command:
            found = replace(found, command=tuple(told["command"]))
    heard = site.store.entries(_alive(run), last=1)
    seconds = None
    if heard:
        seconds = max(
            0.0, (look.census.reading.at - datetime.fromisoformat(json.loads(heard[-1])["at"])).total_seconds()
        )
    return replace(found, entries=tuple(entries), heard_seconds=seconds)


def _journal(run: str) -> str:
    return f"run-{run}"


def _alive(run: str) -> str:
    return f"run-{run}-alive"


class Runner:
    """One run of a site, from this machine. Not thread-safe.

    Args:
        site: What is switched.
        voice: Who is told.
        timeout: Seconds for the members, and again for the fences.
        end_after: Seconds after which a fence ends the transactions that it waits for.
        fence: Whether the fences that are configured are raised.
    """

    def __init__(
        self, site: Site, *, voice: Voice | None = None, timeout: float = 60.0, end_after: float | None = None,
        fence: bool = True,
    ) -> None:  # fmt: skip
        self.site = site
        self.voice = voice or Voice()
        self.timeout = timeout
        self.end_after = end_after
        self.fence = fence
        self._child: subprocess.Popen[bytes] | None = None

    def run(
        self, command: Sequence[str], *, reason: str = "", expected: timedelta | None = None, message: str = "",
        sessions: str | None = None, window: str | None = None,
    ) -> int:  # fmt: skip
        """Do all of it.

        Args:
            command: What is run.
            reason: For colleagues.
            expected: How long it is expected to take.
            message: For visitors.
            sessions: `end`, `suspend`, `keep`, or None for what each site's policy says.
            window: The window in force that it belongs to: it does not end while this runs, and ends with it.

        Returns:
            0: the command succeeded and the site is open again. Else the command's own code: it failed, or was
            interrupted, and the site is read-only and fenced, for a person to decide.

        Raises:
            NotYours: Another run stands; nothing was changed.
            RunFailed: A step could not be done. Before the command everything was undone; after it the site stays
                closed.
        """
        look = self.site.look()
        standing = standing_run(look.record)
        if standing is not None:
            raise NotYours(
                f"run {standing.id} by {standing.by} stands since {standing.since:%Y-%m-%d %H:%M} UTC: one run at a "
                "time. Nothing was changed",
                causes=[standing.id],
            )
        run = "r" + secrets.token_hex(3)
        token = secrets.token_urlsafe(24)
        change = changes.start_run(
            self.site.store, self.site.operator, run, reason=reason, message=message, expected=expected,
            sessions=sessions,
        )  # fmt: skip
        more = {} if window is None else {"window": window}
        self._write(run, Step.ON, "done", f"epoch {change.record.epoch}", command=list(command), **more)
        with self._reporting(run):
            try:
                self._close(run, token, change.causes, change.record)
            except Error as error:
                self._undo(run, error)
            return self._rest(run, token, command)

    def resume(self, run: str, command: Sequence[str] = ()) -> int:
        """Go on with a run whose runner is gone.

        Args:
            run: Its id.
            command: To be run (again); empty: the command had succeeded, and what comes after it is done.

        Raises:
            NotYours: It does not stand, its runner reports, or its command is still at work; nothing was changed.
            RunFailed: As for `run`; nothing is undone.
        """
        found = self._taken_over(run)
        if not command and found.exit_code not in (None, 0):
            raise NotYours(
                f"the command of run {run} ended with {found.exit_code}: say what to run instead, "
                f"`resume {run} -- COMMAND`, or open the site as it is: `abandon {run}`. Nothing was changed",
                causes=[run],
            )
        token = secrets.token_urlsafe(24)
        record = self.site.look().record
        if record is None:
            raise NotYours(f"the store holds no record, so run {run} can't go on. Nothing was changed", causes=[run])
        with self._reporting(run):
            # All of it again: each step changes nothing where it was done, and the fence takes the new token.
            self._close(run, token, (run,), record)
            return self._rest(run, token, command)

    def abandon(self, run: str, *, end_sessions: bool = False) -> None:
        """Open the site as it is: lift what the run raised, and its cause. The database is left as the command left it.

        Args:
            run: Its id.
            end_sessions: End the command's sessions at the database first.

        Raises:
            NotYours: It does not stand, its runner reports, or its command is still at work.
            RunFailed: A fence could not be lifted; the site stays closed.
        """
        if end_sessions:
            for fence in self.site.fences.fences:
                fence.end_sessions(run)
            found = read(self.site, run)
            if found.host == self.site.operator.host and not found.reports:
                _end_here(found)
        self._taken_over(run)
        with self._reporting(run):
            self._lift(run)
            self._off(run)

    # --- the steps -------------------------------------------------------------------------------------------------

    def _close(self, run: str, token: str, causes: tuple[str, ...], record: Record) -> None:
        with self._step(run, Step.CONFIRM) as say:
            change = changes.Change(record, self.site.store.read(), causes)
            found = self.site.wait_closed(
                change, timeout=self.timeout, accept_fenced=True, fence=self.fence, progress=self.voice.progress
            )
            if not found.safe:
                raise RunFailed(
                    "not every process confirmed: " + "; ".join(found.missing), step=Step.CONFIRM, code=NEVER_STARTED
                )
            say(f"{len(found.members)} members")
        raised: Raised | None = None
        if self.fence and self.site.fences:
            with self._step(run, Step.FENCE) as say:
                raised = self.site.fences.put_up(
                    run, timeout=self.timeout, end_after=self.end_after, run=Pass(run, token),
                    waiting=self.voice.waiting,
                )  # fmt: skip
                problems = fence_problems(found, raised)
                if problems:
                    raise RunFailed("not fenced: " + "; ".join(problems), step=Step.FENCE, code=NEVER_STARTED)
                say("; ".join(f"{f.name} {f} at {f.position}" for f in raised.fenced))

    def _rest(self, run: str, token: str, command: Sequence[str]) -> int:
        if command:
            code = self._command(run, token, command)
            if code != 0:
                return code
        if self.fence and self.site.fences:
            with self._step(run, Step.LOOK, after=True) as say:
                again = self.site.fences.look_again(timeout=self.timeout, waiting=self.voice.waiting)
                if again.problems:
                    raise RunFailed("; ".join(again.problems), step=Step.LOOK, code=SUCCEEDED_NOT_OPEN)
                found = [what for fenced in again.fenced for what in fenced.found]
                say(f"made or swapped meanwhile: {', '.join(found)}" if found else "nothing was open")
        self._lift(run)
        self._off(run)
        return 0

    def _lift(self, run: str) -> None:
        record = self.site.look().record
        with self._step(run, Step.LIFT, after=True) as say:
            down = self.site.fences.lift((run,), record=record)
            if down.standing:
                raise RunFailed("; ".join(down.standing), step=Step.LIFT, code=SUCCEEDED_NOT_OPEN)
            say("; ".join(down.said))

    def _off(self, run: str) -> None:
        with self._step(run, Step.OFF, after=True) as say:
            window = read(self.site, run).window
            change = changes.lift_exactly(self.site.store, self.site.operator, run, window=window)
            found = self.site.wait_open(change, timeout=self.timeout, progress=self.voice.progress)
            # A window that was not this run's goes on to its own end.
            left = [f"{c.kind} {c.id} by {c.by}" for c in State.at(change.reading.at, change.record).causes]
            if left:
                raise RunFailed(
                    f"the run is over, and the site is still read-only: {'; '.join(left)}",
                    step=Step.OFF, code=SUCCEEDED_NOT_OPEN,
                )  # fmt: skip
            if not found.safe:
                raise RunFailed(
                    "the run is over and the site is writable by its record; not confirmed: "
                    + "; ".join(found.missing),
                    step=Step.OFF, code=SUCCEEDED_NOT_OPEN,
                )  # fmt: skip
            say(f"{len(found.members)} members")

    def _undo(self, run: str, error: Error) -> NoReturn:
        """Take back what was done before a command that was never started; what can't be taken back is said."""
        code = error.code if isinstance(error, RunFailed) else NEVER_STARTED
        step = error.step if isinstance(error, RunFailed) else Step.CONFIRM
        try:
            down = self.site.fences.lift((run,), record=self.site.look().record)
            if down.standing:
                raise RunFailed("; ".join(down.standing), step=Step.LIFT, code=NEVER_STARTED)
            changes.lift_exactly(self.site.store, self.site.operator, run)
            self._write(run, Step.ON, "undone")
        except Error as another:
            raise RunFailed(
                f"{error}. The command was not started. What had been done could not be taken back: {another}. "
                f"The site stays read-only: abandon {run}",
                step=step, code=code,
            ) from error  # fmt: skip
        raise RunFailed(
            f"{error}. The command was not started, and what this run had set is lifted again", step=step, code=code
        ) from error

    # --- the command -----------------------------------------------------------------------------------------------

    def _command(self, run: str, token: str, command: Sequence[str]) -> int:
        path = log_of(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as log:
            os.chmod(path, 0o600)  # noqa: PTH101 - what a migration prints may be anybody's data
            begin = log.tell()
            try:
                child = subprocess.Popen(  # noqa: S603 - what the operator typed
                    list(command), stdout=log, stderr=subprocess.STDOUT, env=environment(run, token),
                    start_new_session=True,
                )  # fmt: skip
            except FileNotFoundError as error:
                self._never_ran(run, f"{command[0]}: there is no such command", NOT_FOUND, error)
            except OSError as error:
                self._never_ran(run, f"{command[0]}: can't be run: {error.strerror}", NOT_EXECUTABLE, error)
        self._child = child
        self._write(
            run, Step.COMMAND, "begins", command=list(command), log=f"{self.site.operator.host}:{path}", pid=child.pid
        )
        self.voice.step(Step.COMMAND, "begins", " ".join(command))
        with _signals_to(child):
            code = _follow(path, begin, child, self.voice.output)
        self._child = None
        # A shell's way to say that a signal ended it.
        code = 128 - code if code < 0 else code
        self._write(run, Step.COMMAND, "done" if code == 0 else "failed", f"exit {code}", exit_code=code)
        self.voice.step(Step.COMMAND, "done" if code == 0 else "failed", f"exit {code}")
        return code

    def _never_ran(self, run: str, said: str, code: int, error: OSError) -> NoReturn:
        self._undo(run, RunFailed(said, step=Step.COMMAND, code=code))

    # --- the journal -----------------------------------------------------------------------------------------------

    @contextmanager
    def _step(self, run: str, step: Step, *, after: bool = False) -> Iterator[Callable[[str], None]]:
        """Write a step's begin and end; `after` the command nothing is undone."""
        said: list[str] = []
        self._write(run, step, "begins")
        self.voice.step(step, "begins", "")
        try:
            yield said.append
        except Error as error:
            self._write(run, step, "failed", str(error))
            self.voice.step(step, "failed", str(error))
            if after and not isinstance(error, RunFailed):
                raise RunFailed(str(error), step=step, code=SUCCEEDED_NOT_OPEN) from error
            raise
        self._write(run, step, "done", *said)
        self.voice.step(step, "done", "".join(said))

    def _write(self, run: str, step: Step, what: str, said: str = "", **more: Any) -> None:
        told = {
            "at": self.site.store.read().at.isoformat(), "step": str(step), "what": what, "said": said,
            "by": self.site.operator.name, "host": self.site.operator.host, **more,
        }  # fmt: skip
        self.site.store.append(_journal(run), json.dumps(told).encode(), keep=KEEP_ENTRIES)

    @contextmanager
    def _reporting(self, run: str) -> Iterator[None]:
        """Say in the store that this runner is at work, every few seconds, from a thread with a store of its own."""
        stop = threading.Event()
        store = store_from_url(self.site.store.url, create=False)

        def report() -> None:
            while True:
                # A store that is away is asked again; the run goes on without it.
                with suppress(StoreUnreachable):
                    told = json.dumps({"at": store.read().at.isoformat()})
                    store.append(_alive(run), told.encode(), keep=1)
                if stop.wait(ALIVE_SECONDS):
                    break

        thread = threading.Thread(target=report, name=f"readonly-run-{run}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            # The runner ends: who looks need not wait until it falls silent, as it does where this can't be said.
            with suppress(StoreUnreachable):
                store.append(_alive(run), json.dumps({"at": _LONG_AGO}).encode(), keep=1)
            store.close()

    def _taken_over(self, run: str) -> Progress:
        """Return a run that nobody is at work on.

        Raises:
            NotYours: Somebody is, or it does not stand.
        """
        found = read(self.site, run)
        if found.cause is None or found.cause.kind != RUN:
            standing = standing_run(self.site.look().record)
            stands = f"the one that stands is {standing.id}" if standing is not None else "none stands"
            raise NotYours(f"there is no run {run}: {stands}. Nothing was changed", causes=[])
        if found.reports:
            raise NotYours(
                f"the runner of {run} is at work on {found.cause.host}: it was heard {found.heard_seconds:.0f} s ago. "
                "Interrupt it there. Nothing was changed",
                causes=[run],
            )
        still = [str(holdup) for fence in self.site.fences.fences for holdup in fence.sessions_of(run)]
        if still:
            raise NotYours(
                f"the command of run {run} is still at work at the database: {'; '.join(still)}. Wait for it, or end "
                f"it: abandon {run} --end-sessions. Nothing was changed",
                causes=[run],
            )
        if (
            found.exit_code is None
            and found.pid is not None
            and found.host == self.site.operator.host
            and _lives(found)
        ):
            raise NotYours(
                f"the command of run {run} is still at work here: process {found.pid}. Wait for it, or end it. "
                "Nothing was changed",
                causes=[run],
            )
        return found


_LONG_AGO = "1970-01-01T00:00:00+00:00"


def log_of(run: str) -> Path:
    """Return where this host keeps the output of a run's command."""
    folder = state_folder() or Path(tempfile.gettempdir()) / f"readonlyctl-{os.getuid()}"
    return folder / f"run-{run}.log"


def environment(run: str, token: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what the command runs with: who it is, and what lets its database sessions write.

    libpq reads PGOPTIONS and PGAPPNAME, and so do psycopg and everything else that is built on it; asyncpg does not,
    and takes both as `server_settings` (PostgreSQL manual, 34.15).
    """
    found = dict(os.environ if environ is None else environ)
    found[VARIABLE] = run
    options = f"-c readonly.run={token} -c default_transaction_read_only=off"
    found["PGOPTIONS"] = f"{found['PGOPTIONS']} {options}" if found.get("PGOPTIONS") else options
    found["PGAPPNAME"] = f"readonly-run-{run}"
    return found


def _lives(found: Progress) -> bool:
    """Tell whether the command's process is there: its number, and the name of the run in its environment."""
    try:
        return f"{VARIABLE}={found.id}".encode() in Path(f"/proc/{found.pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _end_here(found: Progress) -> None:
    """End the command's processes on this host, and wait until they are gone."""
    if found.pid is None or not _lives(found):
        return
    with suppress(ProcessLookupError):
        os.killpg(found.pid, signal.SIGTERM)
    pause, deadline = threading.Event(), time.monotonic() + END_SECONDS
    while _lives(found) and time.monotonic() < deadline:
        pause.wait(TAIL_SECONDS)


def _follow(path: Path, begin: int, child: subprocess.Popen[bytes], output: Callable[[bytes], None]) -> int:
    """Pass on what the command writes to its file until it has ended; returns its code.

    It writes to the file, and not to a pipe of ours: our death must not end it.
    """
    with path.open("rb") as log:
        log.seek(begin)
        while True:
            try:
                code: int | None = child.wait(TAIL_SECONDS)
            except subprocess.TimeoutExpired:
                code = None
            while chunk := log.read(65536):
                output(chunk)
            if code is not None:
                return code


@contextmanager
def _signals_to(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Hand Ctrl-C and SIGTERM to the command, each once, and wait for it; a closed terminal ends nobody."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handed: set[int] = set()

    def hand_on(number: int, _frame: object) -> None:
        if number not in handed and child.poll() is None:
            handed.add(number)
            os.killpg(child.pid, number)

    wanted = {signal.SIGINT: hand_on, signal.SIGTERM: hand_on, signal.SIGHUP: signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def attach(run: str, output: Callable[[bytes], None], *, over: Callable[[], bool]) -> None:
    """Show a run's output again, from its begin, until it is over.

    Raises:
        NotYours: This host keeps no output of it.
    """
    path = log_of(run)
    if not path.is_file():
        raise NotYours(f"this machine keeps no output of run {run}: `status` says which does", causes=[run])
    pause = threading.Event()
    with path.open("rb") as log:
        while True:
            ended = over()
            while chunk := log.read(65536):
                output(chunk)
            if ended:
                return
            pause.wait(TAIL_SECONDS * 10)


__all__ = [
    "Entry",
    "Progress",
    "RunFailed",
    "Runner",
    "Step",
    "Voice",
    "attach",
    "environment",
    "log_of",
    "read",
    "standing_run",
]
