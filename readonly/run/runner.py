"""Runner: goes through a run's steps from this machine, and through what is left of one that another machine began."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn

from .. import changes, scheduling
from ..changes import Change
from ..errors import ConfigurationError, Error, NotYours, StoreUnreachable
from ..freezing import Watch
from ..record import RUN
from ..site import Site
from ..stores import Reading, Store, store_from_url
from .command import end_here, environment, follow, log_of, processes_of, signals_to
from .journal import (
    ALIVE_SECONDS,
    LONG_AGO,
    NEVER_STARTED,
    NOT_EXECUTABLE,
    NOT_FOUND,
    STARTS,
    SUCCEEDED_NOT_OPEN,
    WATCH,
    Freezing,
    Journal,
    Progress,
    RunFailed,
    Step,
    Voice,
    alive_of,
    alone,
    read,
    standing_run,
)
from .steps import AFTER, BEFORE, TAKES_BACK, Action, Off, Thaw, Work

# By so much at least what visitors were told is moved when it was not kept: an end that moves every minute is none.
LONGER = timedelta(minutes=5)


class Runner:
    """One run of a site, from this machine. Not thread-safe.

    Args:
        site: What is switched.
        voice: Who is told.
        timeout: Seconds for the members, and again for the fences, and for the replicas.
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

    def run(
        self, command: Sequence[str], *, reason: str = "", expected: timedelta | None = None, message: str = "",
        sessions: str | None = None, window: str | None = None, freezing: Freezing | None = None,
    ) -> int:  # fmt: skip
        """Do all of it.

        Args:
            command: What is run.
            reason: For colleagues.
            expected: How long it is expected to take.
            message: For visitors.
            sessions: `end`, `suspend`, `keep`, or None for what each site's policy says.
            window: The window in force that it belongs to: it does not end while this runs, and ends with it.
            freezing: What is asked for of the replicas.

        Returns:
            0: the command succeeded and the site is open again. Else the command's own code: it failed, or was
            interrupted, and the site is read-only and fenced, for a person to decide.

        Raises:
            NotYours: Another run stands; nothing was changed.
            ConfigurationError: There is no replica to freeze; nothing was changed.
            RunFailed: A step could not be done. Before the command everything was undone; after it the site stays
                closed.
        """
        freezing = freezing or Freezing()
        self._require_freezable(freezing)
        look = self.site.look()
        standing = standing_run(look.record)
        if standing is not None:
            raise NotYours(
                f"run {standing.id} by {standing.by} stands since {standing.since:%Y-%m-%d %H:%M} UTC: one run at a "
                "time. Nothing was changed",
                causes=[standing.id],
            )
        run = "r" + secrets.token_hex(3)
        change = changes.start_run(
            self.site.store, self.site.operator, run, reason=reason, message=message, expected=expected,
            sessions=sessions,
        )  # fmt: skip
        work = self._work(run, change, command=True, freezing=freezing)
        work.first = True
        more = {} if window is None else {"window": window}
        asked = {"wanted": freezing.wanted, "limit": freezing.limit}
        work.journal.write(
            Step.ON, "done", f"epoch {change.record.epoch}", command=list(command), freeze=asked, **more
        )  # fmt: skip
        with self._reporting(run):
            try:
                for action in BEFORE:
                    self._do(action(work))
            except Error as error:
                self._undo(work, error)
            return self._rest(work, command)

    def resume(self, run: str, command: Sequence[str] = ()) -> int:
        """Go on with a run whose runner is gone.

        Args:
            run: Its id.
            command: To be run (again); empty: the command had succeeded, and what comes after it is done.

        Raises:
            NotYours: It does not stand, its runner reports, or its command is still at work; nothing was changed.
            RunFailed: As for `run`; nothing is undone.
        """
        with alone(self.site, run):
            return self._resume(run, command)

    def _resume(self, run: str, command: Sequence[str]) -> int:
        found = self._taken_over(run)
        if not command and found.exit_code not in (None, 0):
            raise NotYours(
                f"the command of run {run} ended with {found.exit_code}: say what to run instead, "
                f"`resume {run} -- COMMAND`, or open the site as it is: `abandon {run}`. Nothing was changed",
                causes=[run],
            )
        record = self.site.look().record
        if record is None:
            raise NotYours(f"the store holds no record, so run {run} can't go on. Nothing was changed", causes=[run])
        change = Change(record, self.site.store.read(), (run,))
        freezing = found.freezing
        if command:
            self._require_freezable(freezing)
        work = self._work(run, change, command=bool(command), freezing=freezing)
        with self._reporting(run):
            if not command and Step.LIFT in found.done:
                # Its work is over and its fences are down: raising them again would prove nothing.
                self._do(Off(work))
                return 0
            for action in BEFORE:
                # What was thawed on purpose stays so where no command is run any more.
                if command or action.step not in (Step.REPLICAS, Step.FREEZE):
                    self._do(action(work), check=True)
            return self._rest(work, command)

    def abandon(self, run: str, *, end_sessions: bool = False) -> None:
        """Open the site as it is: thaw and lift what the run did, and its cause. The database is left as it is.

        A replica that can't be thawed is said and stops nothing: processes read from none that is behind.

        Args:
            run: Its id.
            end_sessions: End the command's sessions at the database first.

        Raises:
            NotYours: It does not stand, its runner reports, or its command is still at work.
            RunFailed: A fence could not be lifted; the site stays closed.
        """
        with alone(self.site, run):
            self._abandon(run, end_sessions=end_sessions)

    def _abandon(self, run: str, *, end_sessions: bool) -> None:
        if end_sessions:
            found = self._given_up(run)
            for fence in self.site.fences.fences:
                fence.end_sessions(run)
            if found.host == self.site.operator.host:
                end_here(run)
        self._taken_over(run)
        record = self.site.look().record
        if record is None:
            raise NotYours(f"the store holds no record, so run {run} can't be given up. Nothing was changed", causes=[])
        work = self._work(run, Change(record, self.site.store.read(), (run,)), command=False, freezing=Freezing())
        with self._reporting(run):
            for action in TAKES_BACK.values():
                try:
                    self._do(action(work), check=True)
                except RunFailed:
                    if action is not Thaw:
                        raise

    def _work(self, run: str, change: Change, *, command: bool, freezing: Freezing) -> Work:
        return Work(
            self.site, Journal(self.site, run), self.voice, change, secrets.token_urlsafe(24), command, self.timeout,
            self.end_after, self.fence, freezing,
        )  # fmt: skip

    def _require_freezable(self, freezing: Freezing) -> None:
        if freezing.wanted and not (self.fence and self.site.standbys.freezable):
            raise ConfigurationError(
                "--freeze needs a replica that may be frozen: name it in readonly.toml, [fence.main] with "
                'freeze = ["postgresql://fencer@replica/database"], and leave --no-fence out. Nothing was changed'
            )

    # --- going through the steps ------------------------------------------------------------------------------------

    def _do(self, action: Action, *, check: bool = False) -> None:
        """Do one step, written to the journal before and after; where its check says that it is done, say that."""
        if not action.wanted:
            return
        write, tell, step = action.work.journal.write, self.voice.step, action.step
        try:
            already = action.done() if check else None
        except Error:
            already = None  # whoever does it says what is in the way
        if already is not None:
            write(step, "done", already, **action.told())
            tell(step, "done", already)
            return
        write(step, "begins", **action.before())
        tell(step, "begins", "")
        try:
            said = action.do()
        except Error as error:
            write(step, "failed", str(error))
            tell(step, "failed", str(error))
            if action.after and not isinstance(error, RunFailed):
                raise RunFailed(str(error), step=step, code=SUCCEEDED_NOT_OPEN) from error
            raise
        write(step, "done", said, **action.told())
        tell(step, "done", said)

    def _rest(self, work: Work, command: Sequence[str]) -> int:
        if command:
            code = self._command(work, command)
            if code != 0:
                return code
        for action in AFTER:
            self._do(action(work))
        return 0

    def _not_started(self, work: Work, error: Error) -> NoReturn:
        """Take everything back, unless an earlier command may have left things halfway: then a person decides."""
        if work.first:
            self._undo(work, error)
        code, step = (error.code, error.step) if isinstance(error, RunFailed) else (NEVER_STARTED, Step.COMMAND)
        raise RunFailed(
            f"{error}. The command was not started. The site stays read-only: resume {work.run} -- COMMAND, or abandon "
            f"{work.run}",
            step=step, code=code,
        ) from error  # fmt: skip

    def _undo(self, work: Work, error: Error) -> NoReturn:
        """Take back what was done before a command that was never started; what can't be taken back is said."""
        code = error.code if isinstance(error, RunFailed) else NEVER_STARTED
        step = error.step if isinstance(error, RunFailed) else Step.CONFIRM
        try:
            for takes_back in TAKES_BACK.values():
                action = takes_back(work)
                # Nobody waits for members to open: they may be what was in the way.
                if action.wanted and takes_back is not Off:
                    action.do()
            changes.lift_exactly(self.site.store, self.site.operator, work.run)
            work.journal.write(Step.ON, "undone")
        except Error as another:
            raise RunFailed(
                f"{error}. The command was not started. What had been done could not be taken back: {another}. "
                f"The site stays read-only: abandon {work.run}",
                step=step, code=code,
            ) from error  # fmt: skip
        raise RunFailed(
            f"{error}. The command was not started, and what this run had set is lifted again", step=step, code=code
        ) from error

    # --- the command ------------------------------------------------------------------------------------------------

    def _command(self, work: Work, command: Sequence[str]) -> int:
        path = log_of(work.run)
        path.parent.mkdir(parents=True, exist_ok=True)
        began: dict[str, Any] = {"command": list(command), "log": f"{self.site.operator.host}:{path}"}
        try:
            raised = self.site.still_raised(work.change.record, (work.run,), work.raised)
            if raised is not None and raised.problems:
                raise RunFailed("; ".join(raised.problems), step=Step.FENCE, code=NEVER_STARTED)
            # Before it is: of one that is at work and in no journal, nobody would know.
            work.journal.write(Step.COMMAND, STARTS, **began)
        except Error as error:
            self._not_started(work, error)
        with path.open("ab") as log:
            os.chmod(path, 0o600)  # noqa: PTH101 - what a migration prints may be anybody's data
            begin = log.tell()
            try:
                child = subprocess.Popen(  # noqa: S603 - what the operator typed
                    list(command), stdout=log, stderr=subprocess.STDOUT, env=environment(work.run, work.token),
                    start_new_session=True,
                )  # fmt: skip
            except FileNotFoundError as error:
                self._never_ran(work, f"{command[0]}: there is no such command", NOT_FOUND, error)
            except OSError as error:
                self._never_ran(work, f"{command[0]}: can't be run: {error.strerror}", NOT_EXECUTABLE, error)
        # It is at work: the store may be away, and this stays with it all the same.
        with suppress(StoreUnreachable):
            work.journal.write(Step.COMMAND, "begins", pid=child.pid, **began)
        self.voice.step(Step.COMMAND, "begins", " ".join(command))
        watch = Watch(self.site.standbys, work.frozen, limit=work.freezing.limit)
        with signals_to(child), watch.watching():
            code = follow(path, begin, child, self.voice.output, meanwhile=lambda: self._noticed(work, watch))
        self._noticed(work, watch)
        # A shell's way to say that a signal ended it.
        code = 128 - code if code < 0 else code
        self.voice.step(Step.COMMAND, "done" if code == 0 else "failed", f"exit {code}")
        try:
            work.journal.write(Step.COMMAND, "done" if code == 0 else "failed", f"exit {code}", exit_code=code)
        except StoreUnreachable as error:
            raise RunFailed(
                f"the command ended with {code}, and that could not be written down: {error}. The site stays "
                f"read-only: resume {work.run}{'' if code == 0 else ' -- COMMAND'}, or abandon {work.run}",
                step=Step.COMMAND, code=code or SUCCEEDED_NOT_OPEN,
            ) from error  # fmt: skip
        return code

    def _noticed(self, work: Work, watch: Watch) -> None:
        """Write down and say what became of frozen replicas."""
        for noticed in watch.noticed():
            # The command goes on without the store; what was thawed is thawed.
            with suppress(StoreUnreachable):
                work.journal.write(WATCH, noticed.what, noticed.said, name=noticed.name)
            self.voice.step(Step.FREEZE, noticed.what, noticed.said)

    def _never_ran(self, work: Work, said: str, code: int, error: OSError) -> NoReturn:
        with suppress(StoreUnreachable):  # it was to begin, and did not
            work.journal.write(Step.COMMAND, "failed", said, exit_code=code)
        self._not_started(work, RunFailed(said, step=Step.COMMAND, code=code))

    # --- who is at work ---------------------------------------------------------------------------------------------

    @contextmanager
    def _reporting(self, run: str) -> Iterator[None]:
        """Say in the store that this runner is at work, every few seconds, from a thread with a store of its own."""
        stop = threading.Event()
        store = store_from_url(self.site.store.url, create=False)

        def say() -> None:
            # A store that is away is asked again; the run goes on without it.
            with suppress(StoreUnreachable):
                reading = store.read()
                store.append(alive_of(run), json.dumps({"at": reading.at.isoformat()}).encode(), keep=1)
                self._announce(store, run, reading)

        def report() -> None:
            while not stop.wait(ALIVE_SECONDS):
                say()

        # Before anything is done: a thread may have its turn late, and the run would be for anybody to give up until
        # then.
        say()
        thread = threading.Thread(target=report, name=f"readonly-run-{run}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            # The runner ends: who looks need not wait until it falls silent, as it does where this can't be said.
            with suppress(StoreUnreachable):
                store.append(alive_of(run), json.dumps({"at": LONG_AGO}).encode(), keep=1)
            store.close()

    def _announce(self, store: Store, run: str, reading: Reading) -> None:
        """Move the announced end where it is over: visitors are told another one, and nothing opens."""
        # Lifted meanwhile, or a record that this version can't read: then there is nothing of ours to announce.
        with suppress(Error):
            record = changes.read_in(store, reading)
            cause = record.cause(run) if record is not None else None
            if cause is None or cause.expected_end is None or reading.at < cause.expected_end:
                return
            # Half as long again: whoever was wrong by an hour is not asked to believe in five minutes.
            longer = max(LONGER, (cause.expected_end - cause.since) / 2)
            change = scheduling.extend(store, self.site.operator, longer=longer, cause=run)
            moved = change.record.cause(run)
            if moved is not None and moved.expected_end is not None:
                said = f"takes longer than was said; visitors are told {moved.expected_end:%Y-%m-%d %H:%M} UTC now"
                self.voice.step(Step.COMMAND, "announced", said)

    def _given_up(self, run: str) -> Progress:
        """Return a run whose runner is gone.

        Raises:
            NotYours: It is at work, or the run does not stand.
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
        return found

    def _taken_over(self, run: str) -> Progress:
        """Return a run that nobody is at work on, its command neither.

        Raises:
            NotYours: Somebody is, or it does not stand.
        """
        found = self._given_up(run)
        still = [str(holdup) for fence in self.site.fences.fences for holdup in fence.sessions_of(run)]
        if still:
            raise NotYours(
                f"the command of run {run} is still at work at the database: {'; '.join(still)}. Wait for it, or end "
                f"it: abandon {run} --end-sessions. Nothing was changed",
                causes=[run],
            )
        here = found.exit_code is None and found.host == self.site.operator.host
        left = processes_of(run) if here else ()
        if left:
            raise NotYours(
                f"the command of run {run} is still at work here: process {', '.join(map(str, left))}. Wait for it, or "
                "end it. Nothing was changed",
                causes=[run],
            )
        return found
