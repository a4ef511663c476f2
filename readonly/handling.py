"""What both middlewares do with a request, apart from speaking ASGI or WSGI.

Text in, text out; no request is read and no response is sent here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from time import monotonic
from typing import Any, Final

from .clock import boottime
from .context import Work
from .errors import ReadOnlyError
from .gate import Act, ActKind, Gate, Outcome, Verdict
from .pages import Page
from .policy import Policy
from .record import Mode
from .rejection import Answer, HeaderList, Rejection, rfc3339, state_headers
from .rules import Facts
from .sessions import UNTOUCHED, Sessions, Taken
from .state import State
from .switch import Switch
from .tally import route_group

# While read-only, reads go by the state that the switch's thread keeps; so often one of them looks whether that
# thread is still about its work (it is not, under some servers), which costs more than reading an attribute.
SECONDS_BETWEEN_LOOKS: Final = 1.0
# How long a process that never reached the store is kept out of a load balancer, before it serves as a reader.
READY_SECONDS: Final = 30.0

READY_PATH: Final = "/-/readonly/ready"
STATUS_PATH: Final = "/-/readonly/status"

_UNDECLARED: Final = Act(ActKind.UNDECLARED, "", unsafe=True, may_write=True)
_REFUSED: Final = Verdict(Outcome.READ_ONLY, _UNDECLARED)
_FORWARDED: Final = ("x-forwarded-for", "forwarded", "x-real-ip", "via")


@dataclass(slots=True)
class Judged:
    """What becomes of one request.

    Attributes:
        verdict: The gate's.
        taken: What the session rules say.
        state: What it was judged by.
        now: When.
    """

    verdict: Verdict
    taken: Taken
    state: State
    now: datetime


class Handling:
    """One application's rules, and the switch they are applied by. Shared by all threads and tasks.

    Attributes:
        reads_matter: Safe requests have to be classified while writable, too.
        cookies_matter: There are session cookies: with a cut-off known, safe requests that carry one need a look.
        trivial_unsafe: Unsafe requests may be counted without being classified.
    """

    def __init__(self, switch: Switch, policy: Policy, page: Page | None, endpoint: Any) -> None:
        switch.takes_role("web")
        self.switch = switch
        self.view = switch.view
        self.gate = Gate(policy)
        self.sessions = Sessions(policy)
        self.rejection = Rejection(page=page, retry_after_seconds=policy.retry_after_seconds)
        # What can tell of marks may mark a GET as a write. An adapter that knows there is no such mark says so.
        marks = endpoint is not None and getattr(endpoint, "reads_matter", True)
        self.reads_matter = self.gate.reads_matter_while_writable or marks
        self.cookies_matter = bool(self.sessions.names)
        self.trivial_unsafe = self.gate.trivial_unsafe and endpoint is None
        self._looked = float("-inf")
        self._marks: tuple[State | None, HeaderList] = (None, [])

    # --- state ----------------------------------------------------------------------------------------------------

    def due(self) -> bool:
        """Return whether the next read has to look at the state, not only to read it."""
        return monotonic() - self._looked >= SECONDS_BETWEEN_LOOKS

    def looked(self) -> None:
        """Remember that somebody looks now."""
        self._looked = monotonic()

    def marks(self, state: State) -> HeaderList:
        """Return what every response carries by this state."""
        known = self._marks
        if known[0] is not state:
            known = self._marks = (state, state_headers(state))
        return known[1]

    # --- a request ------------------------------------------------------------------------------------------------

    def judge(self, act: Act, facts: Facts, cookies: Sequence[str], state: State) -> Judged:
        """Decide about a request that was classified and, if it may write, counted."""
        now = datetime.now(UTC)
        if act.kind is ActKind.EXEMPT:
            taken = self.sessions.away(state, now) if self.sessions.any else UNTOUCHED
            return Judged(self.gate.decide(act, facts, state), taken, state, now)
        taken = self.sessions.look(cookies, state, now) if self.sessions.any else UNTOUCHED
        verdict = self.gate.decide(act, facts, state, ended=taken.ended)
        if verdict.clear_session and self.sessions.any:
            taken = self.sessions.logout(cookies, state, now)
        if taken.expire:
            self.switch.tally.ended(len(taken.expire))
        return Judged(verdict, taken, state, now)

    def route(self, act: Act, facts: Facts) -> str:
        """Return the name of a request's route, for counters and the log."""
        if facts.endpoint is not None and facts.endpoint.name:
            return facts.endpoint.name
        if act.rule and not act.rule.startswith("@"):
            return act.rule
        return f"{facts.method} {route_group(facts.path)}"

    def refusal(self, judged: Judged, facts: Facts, *, secure: bool, client: str | None) -> Answer:
        """Return the answer to a request that did not pass, and count it."""
        verdict = judged.verdict
        self.switch.tally.refused(self.route(verdict.act, facts), verdict.act.kind if _is_refused(verdict) else "ended")
        operator = bool(judged.state.unknown_because) and is_local(client, facts)
        answer = self.rejection(verdict, facts, judged.state, now=judged.now, operator=operator)
        if judged.taken.expire:
            headers = self.sessions.answer(answer.headers, judged.taken, judged.now, secure=secure)
            return Answer(answer.status, headers, answer.body)
        return answer

    def escape(self, judged: Judged, facts: Facts) -> Answer:
        """Return the answer to a request in which a guard refused a write."""
        # By the state of now: it was the reason; if it is over already, the one that the request was judged by.
        state = self.view.state if self.view.state.read_only else judged.state
        verdict = Verdict(Outcome.READ_ONLY, judged.verdict.act)
        return self.rejection(verdict, facts, state, now=datetime.now(UTC))

    def count_escape(self, work: Work, refusal: ReadOnlyError) -> None:
        """Count a guard's refusal: a rule that is missing, or a request that came before the switch."""
        if work.may_write:
            self.switch.tally.refused(work.name, "guard")
        else:
            self.switch.tally.escaped(work.name, refusal)

    def late(self) -> Judged | None:
        """Judge the response to a request that was admitted while writable, now that it is about to start.

        Returns:
            None while the site is still writable; else what a response that began now has to obey.
        """
        state = self.view.state
        if self.view.open or not state.read_only:
            return None
        now = datetime.now(UTC)
        return Judged(_PASSED, self.sessions.look((), state, now), state, now)

    def response(self, headers: HeaderList, judged: Judged, *, secure: bool) -> HeaderList:
        """Return a response's headers as they may leave."""
        if judged.taken.edits:
            headers = self.sessions.answer(headers, judged.taken, judged.now, secure=secure)
        return headers + self.marks(judged.state)


_PASSED: Final = Verdict(Outcome.PASS, _UNDECLARED)


def _is_refused(verdict: Verdict) -> bool:
    return verdict.outcome is Outcome.READ_ONLY


def is_local(client: str | None, facts: Facts) -> bool:
    """Return whether a request comes from this very machine, and through no proxy on it."""
    if not client:
        return False
    try:
        local = ip_address(client.partition("%")[0]).is_loopback
    except ValueError:
        return False
    return local and not any(facts.headers.get(name) is not None for name in _FORWARDED)


# --- readiness and status ------------------------------------------------------------------------------------------


class Status:
    """Answers the two routes that a load balancer and a browser ask."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._began = boottime()
        self._synced = False

    def document(self, path: str, state: State) -> tuple[int, dict[str, Any]] | None:
        """Return status and JSON document for a path, or None if it is neither route.

        Args:
            path: Relative to the mount; the last segment alone is enough for an application mounted at `/-/readonly`.
            state: The state, just looked at.
        """
        self._synced = self._synced or state.synced
        path = path.rstrip("/")
        if path in (READY_PATH, "/ready"):
            # Read-only is no illness: probes that failed for it would take down the hosts that serve the reads.
            ready = self._synced or boottime() - self._began >= READY_SECONDS
            document: dict[str, Any] = {"ready": ready, "mode": str(state.mode)}
            if state.mode is Mode.UNKNOWN:
                document["because"] = state.unknown_because
            return (200 if ready else 503), document
        if path in (STATUS_PATH, "/status"):
            return 200, {
                "mode": str(state.mode),
                "read_only": state.read_only,
                "expected_end": rfc3339(state.expected_end) if state.expected_end is not None else None,
                "message": state.message,
            }
        return None
