"""Operators: they type `on`, wait for "safe", compare the rows, and type `off`; each in a thread of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from faults.arena import Arena
from faults.history import Expired, Note, On, Recorder, Rows, Span, Tail, Write, of
from faults.truth import Truth
from readonly import changes
from readonly.changes import Change, Operator
from readonly.confirmation import Condition, Confirmation
from readonly.errors import LostRace, NoRecord, NotYours, StoreUnreachable
from readonly.site import Site
from readonly.stores import store_from_url
from readonly.switch import Switch
from support import children

STORE_TIMEOUT_SECONDS = 1.0
# As long as an operator waits before looking for what is wrong, and as long again after having seen to it.
FIRST_WAIT_SECONDS, SECOND_WAIT_SECONDS = 3.0, 4.0
ON_TRIES_SECONDS = 6.0
PAUSE_SECONDS = 0.1
# A write that was admitted just before a lease ran out has reached the database by then.
ADMITTED_SECONDS = 1.0
TRIES_INSIDE = 5
PATIENCE_INSIDE_SECONDS = 5.0
# What is broken on purpose shows sooner; on a machine that does much else, not much.
BROKEN_SECONDS = 15.0
# When a fault that waits for an operator has begun, at the latest.
BEGINS_SECONDS = 20.0
APP_ONLY, LEASE = "app only", "lease"


class _Enough(Exception):
    """What there is to be known is known."""

    def __init__(self, found: Confirmation) -> None:
        super().__init__()
        self.found = found


def _only_leases_are_left(found: Confirmation) -> bool:
    """Return whether all that keeps a change from being confirmed are members whose lease is over."""
    blocking = [m for m in found.members if m.blocks]
    return not found.problems and bool(blocking) and all(m.condition is Condition.EXPIRED for m in blocking)


class Person:
    """One operator. It says what it does to the recorder, and to whom it may concern by `moment`.

    Args:
        name: As the record names it.
        arena: The site.
        truth: A connection of its own to the database.
        recorder: Where it says what it did.
        load: The clients' events.
        by_command: Type `on` at a terminal.
        moment: Called when it types `on` ("on"), has an answer ("answered") and is about to type `off` ("leaving").
        patience: Seconds for which it tries to have `off` taken.
        changes_mind: If `off` fails at first, have the site read-only once more; set when it would fail.
        broken: Something is broken on purpose, and is given the time to show.
    """

    def __init__(
        self,
        name: str,
        *,
        arena: Arena,
        truth: Truth,
        recorder: Recorder,
        load: Tail,
        by_command: bool = False,
        moment: Callable[[str], None] = lambda _: None,
        patience: float = 30.0,
        changes_mind: threading.Event | None = None,
        broken: bool = False,
    ) -> None:
        self.name = name
        self.arena = arena
        self.truth = truth
        self.recorder = recorder
        self.load = load
        self.by_command = by_command
        self.moment = moment
        self.patience = patience
        self.changes_mind = changes_mind
        self.broken = broken
        self._operator = Operator(name, "desk")
        self._store = store_from_url(arena.operators_url, create=False, timeout=STORE_TIMEOUT_SECONDS)
        self._site = Site(Switch(self._store))
        self._pause = threading.Event()
        self._said_expired: dict[int, float] = {}
        self._left = 0.0

    def read_only_time(self, hold: float, quiet: threading.Event, over: threading.Event) -> None:
        """Have the site read-only once: on, a time that is confirmed or not, off.

        Args:
            hold: Seconds to keep it so, at least.
            quiet: Set when the faults that belong inside are over: it is kept until then.
            over: Set when all faults are over: it is kept until then, if the operator changed its mind.
        """
        try:
            self._once(hold, quiet, last=self.changes_mind is None)
            if self.changes_mind is not None and not self._off_is_taken(self.changes_mind):
                self._once(hold, over, last=True)
            self._off()
            ended = time.monotonic()
            for pid, at in self._said_expired.items():
                self.recorder.record(Expired(pid, at, min(self._left, ended)))
        finally:
            self._said_expired.clear()
            self._store.close()

    def _once(self, hold: float, until: threading.Event, *, last: bool) -> None:
        self.moment("on")
        level = self._on()
        safe, wall_safe = time.monotonic(), time.time()
        if not level:
            self.moment("answered")
            self._pause.wait(hold)
            self.moment("leaving")
            self._left = time.monotonic()
            return
        rows, lsn = self.truth.rows(), self.truth.mark("safe")
        self.moment("answered")
        self._keep(safe, hold, until)
        if self.broken and last:
            self._see_it(rows)
        self.moment("leaving")
        self._pause.wait(PAUSE_SECONDS)
        self._left, wall_off = time.monotonic(), time.time()
        # The marker first: what it stands before is in the log by then, and what follows is in the rows.
        lsn_off, rows_off = self.truth.mark("off"), self.truth.rows()
        self.recorder.record(
            Span(self.name, level, safe, self._left, wall_safe, wall_off, rows, rows_off, lsn, lsn_off)
        )

    def _keep(self, safe: float, hold: float, until: threading.Event) -> None:
        began = time.monotonic()
        until.wait(20)
        # What was stopped has gone on, and what it had admitted has had the time to commit.
        self._pause.wait(max(hold / 2, hold - (time.monotonic() - began)))
        deadline = time.monotonic() + PATIENCE_INSIDE_SECONDS
        while self._tries_since(safe) < TRIES_INSIDE and time.monotonic() < deadline:
            self._pause.wait(PAUSE_SECONDS)

    def _see_it(self, rows: Rows) -> None:
        deadline = time.monotonic() + BROKEN_SECONDS
        while self.truth.rows() == rows and time.monotonic() < deadline:
            self._pause.wait(PAUSE_SECONDS)

    def _tries_since(self, instant: float) -> int:
        return sum(w.start >= instant for w in of(self.load.look()[-1000:], Write))

    # --- on ----------------------------------------------------------------------------------------------------------

    def _on(self) -> str:
        """Type `on` until it is set, and wait; return the level of "safe", or "" if there was none."""
        deadline = time.monotonic() + ON_TRIES_SECONDS
        while True:
            start = time.monotonic()
            outcome, level, missing = self._by_command() if self.by_command else self._by_call()
            self.recorder.record(
                On(
                    self.name,
                    start,
                    time.monotonic(),
                    outcome,
                    level,
                    missing,
                    by="command" if self.by_command else "site",
                )
            )
            if level or outcome == "not confirmed" or time.monotonic() > deadline:
                return level
            self._pause.wait(PAUSE_SECONDS)

    def _by_call(self) -> tuple[str, str, tuple[str, ...]]:
        try:
            change = self._site.set(reason="a fault or two", operator=self._operator)
            found = self._wait_closed(change, BROKEN_SECONDS if self.broken else FIRST_WAIT_SECONDS)
            if not found.safe and self._see_to(found):
                found = self._wait_closed(change, SECOND_WAIT_SECONDS)
            if found.safe:
                return "safe", APP_ONLY, ()
            if self._leases_will_do(found):
                return "safe", LEASE, found.missing
            return "not confirmed", "", found.missing
        except StoreUnreachable as error:
            return "unreachable", "", (str(error),)
        except LostRace as error:
            return "lost race", "", (str(error),)

    def _wait_closed(self, change: Change, seconds: float) -> Confirmation:
        """Wait for "safe", or until waiting longer would change nothing."""

        def listen(found: Confirmation) -> None:
            for member in found.of(Condition.EXPIRED):
                self._said_expired.setdefault(member.report.pid, time.monotonic())
            if _only_leases_are_left(found):
                raise _Enough(found)

        try:
            return self._site.wait_closed(change, timeout=seconds, progress=listen)
        except _Enough as enough:
            return enough.found

    def _see_to(self, found: Confirmation) -> bool:
        """Vouch for processes that have ended, when their transactions have, too; return whether anything was done."""
        dead = set(self.arena.dead)
        if not found.missing or not dead:
            return False
        deadline = time.monotonic() + FIRST_WAIT_SECONDS
        while self.truth.writers(dead) and time.monotonic() < deadline:
            self._pause.wait(PAUSE_SECONDS)
        if self.truth.writers(dead):
            return False
        said = " ".join(found.missing)
        there = {m.report.id for m in found.members if m.report.pid in dead}
        chosen = [m for m in self.arena.members_of(dead) if m in said or m in there]
        for member in chosen:
            self._store.forget(member)
            self.recorder.record(Note("forgot a member that had ended", time.monotonic(), member))
        return bool(chosen)

    def _leases_will_do(self, found: Confirmation) -> bool:
        """Return whether all that is missing are members whose lease is over, and whose transactions are as well."""
        if not _only_leases_are_left(found):
            return False
        blocking = [m for m in found.members if m.blocks]
        if self.arena.stopped_pids & {m.report.pid for m in blocking}:
            return False  # admits nothing, and what it has admitted may begin when it goes on
        self._pause.wait(ADMITTED_SECONDS)
        deadline = time.monotonic() + BEGINS_SECONDS
        while self.truth.writers({m.report.pid for m in blocking}):
            if time.monotonic() > deadline:
                return False
            self._pause.wait(PAUSE_SECONDS)
        return True

    def _by_command(self) -> tuple[str, str, tuple[str, ...]]:
        done = subprocess.run(
            [sys.executable, "-m", "readonly", "on", "--json", "--timeout", f"{FIRST_WAIT_SECONDS}s", "--reason", "x"],
            env=children.without_ours(os.environ)
            | {"READONLY_STORE": self.arena.operators_url, "READONLY_OPERATOR": self.name},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        last = lines[-1] if lines else {}
        if done.returncode == 0 and last.get("safe") is True:
            return "safe", APP_ONLY, ()
        outcome = {3: "not confirmed", 4: "unreachable", 5: "lost race"}.get(done.returncode)
        if outcome is None or last.get("safe") is True:
            self._say_broken(f"readonlyctl on ended with {done.returncode}", done.stdout + done.stderr)
            outcome = f"exit code {done.returncode}"
        return outcome, "", tuple(last.get("missing") or ())

    # --- off ---------------------------------------------------------------------------------------------------------

    def _off_is_taken(self, hangs: threading.Event) -> bool:
        """Type `off` once; return False if the store did not answer, so that nobody knows."""
        hangs.wait(BEGINS_SECONDS)
        try:
            # Nothing but the change itself: one look, which passes, and the write, which is what is to hang.
            changes.turn_off(self._store, self._operator)
        except StoreUnreachable:
            return False
        except (NotYours, NoRecord, LostRace):
            return True
        return True

    def _off(self) -> None:
        """Type `off` until nothing of one's own stands."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            try:
                self._site.off(operator=self._operator, timeout=1.0)
                return
            except NotYours:
                return
            except (StoreUnreachable, NoRecord, LostRace) as error:
                last = str(error)
            self._pause.wait(PAUSE_SECONDS)
        self._say_broken("off was never taken", last)

    def _say_broken(self, what: str, detail: str) -> None:
        self.recorder.record(Note(what, time.monotonic(), f"{self.name}: {detail[-1500:]}", broken=True))
