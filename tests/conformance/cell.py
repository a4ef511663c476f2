"""One cell of the table: one site under one server, switched through the store, asked everything in every state."""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from websockets.sync.client import ClientConnection

from readonly import Switch
from readonly.bypassing import give
from readonly.changes import Operator, initialise, turn_off, turn_on
from readonly.confirmation import Confirmation
from readonly.members import Report
from readonly.record import OPERATOR, Cause, new_cause_id
from readonly.record_format import dump, load
from readonly.stores import Store, store_from_url
from readonly.transitions import with_cause
from support.processes import WebServer
from support.waiting import eventually

from . import wire
from .asking import Asker, Reply, heard_until_closed, of_wire, problems
from .plan import deviation_for, why_left_out
from .scenario import STATES, Deviation, Expectation, Request, Scenario, Step, Suite
from .servers import Server
from .sites.contract import INTERVAL_SECONDS

T = TypeVar("T")

US: Final = Operator("suite", "here")
PATIENCE_SECONDS: Final = 60.0
# Long enough to see that a write in flight is waited for, and no more: what would be found is found at once.
UNCONFIRMED_SECONDS: Final = 0.1
MESSAGE: Final = "We are moving <script>alert(1)</script> until tonight."
EXPECTED: Final = timedelta(minutes=40)
LONG_AGO: Final = timedelta(hours=1)


@dataclass
class Outcome:
    """What a cell has shown.

    Attributes:
        ran: How many runs of scenarios there were, each in one state.
        failures: What was not as it should be, with the scenario's name and state.
        met: The deviations that were met, by their place in the suite.
        left_out: Names of scenarios that this cell can't run, with the reason.
        seconds: How long it took, the server's start included.
    """

    server: str
    site: str
    ran: int = 0
    failures: list[str] = field(default_factory=list)
    met: set[int] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class Cell:
    """A running cell. Use `run_cell`."""

    def __init__(self, server: Server, site: str, running: WebServer, suite: Suite, store: Store, folder: Path) -> None:
        self.server = server
        self.site = site
        self.suite = suite
        self.running = running
        self.store = store
        self.folder = folder
        self.outcome = Outcome(server.name, site)
        self.switch = Switch(store.reopened(), interval=INTERVAL_SECONDS, role="suite")
        kept = "kept connections" in server.can
        self.asker = Asker(running.port, folder, connections=2 * server.workers, kept=kept)

    def close(self) -> None:
        """End what this process has of it."""
        self.asker.close()
        self.switch.close()

    # --- the mode ---------------------------------------------------------------------------------------------------

    def knock(self) -> None:
        """Have some worker look at the state: what may be a write always does, and nothing is written at this path."""
        connection = wire.Connection(self.running.port)
        try:
            connection.ask(wire.head("POST", "/nowhere", [("Host", "site"), ("Content-Length", "0")]))
        finally:
            connection.close()

    def ready(self) -> None:
        """Wait until every worker is a member that takes writes."""
        self.switch.start()

        def there() -> bool:
            if not self.server.started or not self.server.idle_threads:
                self.knock()
            members = self._members()
            return len(members) == self.server.workers and not any(report.closed for report in members)

        eventually(there, PATIENCE_SECONDS, what="every worker is a member and takes writes")

    def confirmed(self) -> None:
        """Wait until the store's record is true everywhere, by the library's own means."""
        confirmation = self._while_knocking(lambda: self.switch.confirm(timeout=PATIENCE_SECONDS))
        assert confirmation.safe, f"{confirmation.missing}\n{self.running.output()[-3000:]}"

    def _known_everywhere(self) -> None:
        """Wait until every worker has heard of the record that stands, whatever is in flight there."""
        reading = self.store.read()
        assert reading.record is not None
        epoch = load(reading.record).epoch

        def heard() -> bool:
            if not self.server.idle_threads:
                self.knock()
            return all(report.epoch >= epoch for report in self._members())

        eventually(heard, PATIENCE_SECONDS, what="every worker has heard of the change")

    def _members(self) -> list[Report]:
        return [report for report in self.switch.members() if report.role == "web" and not report.gone]

    def _while_knocking(self, wait: Callable[[], T]) -> T:
        """Wait for something that a server without threads makes true inside of requests only."""
        if self.server.idle_threads:
            return wait()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(wait)
            while not waiting.done():
                self.knock()
            return waiting.result()

    def close_site(self, state: str) -> None:
        """Make the site read-only as a state says; not confirmed yet."""
        if state == "settled":
            # As if the operator had typed `on` an hour ago.
            reading = self.store.read()
            assert reading.record is not None
            since = datetime.now(UTC) - LONG_AGO
            cause = Cause(
                id=new_cause_id(),
                kind=OPERATOR,
                by=US.name,
                since=since,
                message=MESSAGE,
                expected_end=datetime.now(UTC) + EXPECTED,
            )
            record = with_cause(load(reading.record), cause, site=self.store.site, at=reading.at, by=US.name)
            done = self.store.replace(dump(record), was=reading.record, causes=[c.id for c in record.causes])
            assert done.record == dump(record)
        else:
            turn_on(self.store, US, reason="INC-7 for colleagues", sessions="suspend" if state == "suspended" else None)

    def _let_through(self) -> None:
        """Give out the bypasses that scenarios name; `from before` is the one of the last time."""
        bypasses = self.asker.bypasses
        bypasses["from before"] = bypasses.get("header", "")
        *_, bypasses["elsewhere"] = give(self.store, US, "elsewhere", lasting=EXPECTED, paths=["/hooks/*"])
        *_, bypasses["link"], bypasses["header"] = give(self.store, US, "everywhere", lasting=EXPECTED)
        self._known_everywhere()

    def open_site(self) -> None:
        """Make it writable again."""
        turn_off(self.store, US, every=True)
        self.confirmed()
        # What a framework signs says the second at which it was issued: nobody can sign in within that of the cut-off.
        reading = self.store.read()
        assert reading.record is not None
        cut = load(reading.record).sessions_ended_before("end")
        assert cut is not None
        second = math.ceil(cut.timestamp())
        eventually(lambda: time.time() >= second, what="the second of the cut-off is over")

    # --- scenarios --------------------------------------------------------------------------------------------------

    def run(self, scenarios: Collection[Scenario]) -> None:
        """Go through every state."""
        self.asker.sign_in("ann", remember=True)
        for state in STATES:
            if state == "first minute":
                self.open_site()
                self._across([s for s in scenarios if "across" in s.states])
                self.confirmed()
                self._let_through()
            elif state == "over":
                self.open_site()
                self.asker.sign_in("zoe", remember=True)
            elif state != "writable":
                self.close_site(state)
                self.confirmed()
                self._let_through()
            for scenario in sorted(scenarios, key=lambda scenario: _turn(scenario, state)):
                if state in scenario.states:
                    self._one(scenario, state)

    def _deviation(self, scenario: Scenario, state: str) -> Deviation | None:
        return deviation_for(self.suite, self.server, self.site, scenario, state)

    def _skipped(self, scenario: Scenario, state: str) -> bool:
        why = why_left_out(self.suite, self.server, self.site, scenario, state)
        if why:
            self.outcome.left_out[scenario.name] = why
            self._met(self._deviation(scenario, state))
        return bool(why)

    def _met(self, deviation: Deviation | None) -> None:
        if deviation is not None:
            self.outcome.met.add(self.suite.deviations.index(deviation))

    def _one(self, scenario: Scenario, state: str) -> None:
        if self._skipped(scenario, state):
            return
        deviation = self._deviation(scenario, state)
        self.outcome.ran += 1
        connection: wire.Connection | None = None
        try:
            for number, step in enumerate(scenario.steps, 1):
                if state not in step.expect:
                    continue
                request = step.request
                if (request.socket or request.raw or request.hang_up) and connection is None:
                    connection = wire.Connection(self.running.port)
                before = self.asker.writes()
                reply = self.asker.ask(request, connection)
                wanted = self._wanted(step, number, state, deviation)
                found = problems(reply, wanted, writes=self.asker.writes() - before)
                if connection is not None and wanted.connection == "closed" and not connection.ends():
                    found.append("the connection was not closed")
                self._note(scenario, state, step, reply, found, deviation)
        except Exception as error:
            # No answer, or not one that a client understands: said beside the rest, which goes on.
            self._note(scenario, state, None, None, [f"{type(error).__name__}: {error}"], deviation)
        finally:
            if connection is not None:
                connection.close()

    def _wanted(self, step: Step, number: int, state: str, deviation: Deviation | None) -> Expectation:
        if deviation is not None and deviation.step == number:
            return self.suite.instead(deviation, state)
        return step.expect[state]

    def _note(
        self,
        scenario: Scenario,
        state: str,
        step: Step | None,
        reply: Reply | None,
        found: list[str],
        deviation: Deviation | None,
    ) -> None:
        if found:
            asked = "" if step is None else f" {step.request.method} {step.request.path}:"
            self.outcome.failures.append(f"[{state}] {scenario.name}:{asked} " + "; ".join(found) + _shown(reply))
        else:
            self._met(deviation)

    # --- what goes on while the site is switched --------------------------------------------------------------------

    def _across(self, scenarios: Collection[Scenario]) -> None:
        """Have requests and sockets begun, turn the site read-only, let them go on, and look at how they end."""
        with contextlib.ExitStack() as stack:
            pending = []
            for scenario in scenarios:
                if self._skipped(scenario, "across"):
                    continue
                deviation = self._deviation(scenario, "across")
                self.outcome.ran += 1
                (step,) = scenario.steps
                wanted = self._wanted(step, 1, "across", deviation)
                pending.append((scenario, deviation, step, wanted, self._begin(step.request, wanted, stack)))
            counted = any(not step.request.websocket for _, _, step, *_ in pending)
            before = self.asker.writes()
            self.close_site("first minute")
            self._known_everywhere()
            if counted:
                confirmation: Confirmation = self.switch.confirm(timeout=UNCONFIRMED_SECONDS)
                if not any("in flight" in why for why in confirmation.missing):
                    self.outcome.failures.append(f"[across] nothing was in flight: {confirmation.missing}")
            for scenario, deviation, step, wanted, finish in pending:
                reply = finish()
                found = problems(reply, wanted, writes=self.asker.writes() - before)
                before = self.asker.writes()
                self._note(scenario, "across", step, reply, found, deviation)

    def _begin(self, request: Request, expected: Expectation, stack: contextlib.ExitStack) -> Callable[[], Reply]:
        """Send (the first half of) a request, wait until the site is about it, and return how to finish it."""
        if request.websocket:
            talk = stack.enter_context(self.asker.open_websocket(request))
            talk.send(request.say)
            talk.recv(timeout=wire.PATIENCE_SECONDS)
            return lambda: _talks_on(talk, request) if expected.hears is not None else heard_until_closed(talk)
        name = secrets.token_hex(4)
        connection = wire.Connection(self.running.port)
        stack.callback(connection.close)
        data = self.asker.as_bytes(replace(request, query=f"id={name}"))
        half = len(data) - len(self.asker.body(request)) // 2 if request.pause else len(data)
        connection.send(data[:half])
        eventually((self.folder / f"begun-{name}").exists, PATIENCE_SECONDS, what=f"{request.path} has begun")

        def finish() -> Reply:
            (self.folder / f"go-{name}").touch()
            connection.send(data[half:])
            return of_wire(connection.response())

        return finish


def _turn(scenario: Scenario, state: str) -> tuple[bool, bool]:
    """Return when a scenario's turn is: first what is another thing a minute later, which a slow machine may need.

    Who hangs up comes last: what becomes of it is seen by the next change, which waits for it.
    """
    lasts = all(step.expect.get(state) == step.expect.get("settled") for step in scenario.steps)
    return scenario.steps[0].request.hang_up, state == "first minute" and lasts


def _shown(reply: Reply | None) -> str:
    if reply is None:
        return ""
    return f"\n    got {reply.status} {dict(reply.headers)} {reply.body[:300]!r}"


def _talks_on(talk: ClientConnection, request: Request) -> Reply:
    talk.send(request.say)
    return Reply(101, heard=str(talk.recv(timeout=wire.PATIENCE_SECONDS)))


@contextlib.contextmanager
def serving(server: Server, site: str, suite: Suite, *, url: str, folder: Path) -> Iterator[Cell]:
    """Start a site under a server, ready to be asked.

    Args:
        server: Which server.
        site: Which site.
        suite: The scenarios.
        url: A store that nobody else uses.
        folder: For its logs and what it notes; empty.

    Raises:
        ServerMissing: There is no such server here.
    """
    server.look_for()
    store = store_from_url(url)
    if store.read().record is None:
        initialise(store, US)
    environment = {"READONLY_STORE": url, "CONFORMANCE_FOLDER": str(folder)}
    with contextlib.closing(store), server.start(site, log=folder / "server.log", environment=environment) as running:
        cell = Cell(server, site, running, suite, store, folder)
        try:
            yield cell
        finally:
            cell.close()


def run_cell(
    server: Server,
    site: str,
    suite: Suite,
    *,
    url: str,
    folder: Path,
    wanted: Callable[[Scenario], bool] = lambda scenario: True,
) -> Outcome:
    """Run the scenarios of a cell and return what it has shown; arguments as `serving` has them."""
    began = time.monotonic()
    with serving(server, site, suite, url=url, folder=folder) as cell:
        cell.ready()
        cell.run([scenario for scenario in suite.scenarios if wanted(scenario)])
    cell.outcome.seconds = time.monotonic() - began
    return cell.outcome
