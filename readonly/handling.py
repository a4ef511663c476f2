"""What both middlewares do with a request, apart from speaking ASGI or WSGI.

Text in, text out; no request is read and no response is sent here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import cycle
from time import monotonic
from typing import Any, Final, Generic, TypeVar

from .answers import Refusal
from .bypass import HEADER, LINK_PATH, Bypasses
from .context import Work
from .doubts import EXEMPT, POSITION
from .drafts import Drafts, Offer
from .errors import ReadOnlyError
from .gate import Act, ActKind, Gate, Outcome, Verdict
from .marks import READS, WRITES, unmarked
from .notices import announcement_headers, script_tag
from .pages import Page
from .policy import ROLES, Policy
from .rehearsal_watch import Noted, Watch
from .rejection import Answer, HeaderList, Rejection, state_headers
from .rules import SAFE_METHODS, Facts, PathRule
from .sessions import UNTOUCHED, Sessions, Taken
from .state import State
from .switch import Switch
from .tally import route_group
from .words import Languages, Words

# A refusal as a protocol sends it.
T = TypeVar("T")

# While read-only, reads go by the state that the switch's thread keeps; so often one of them looks whether that
# thread is still about its work (it is not, under some servers), which costs more than reading an attribute.
SECONDS_BETWEEN_LOOKS: Final = 1.0

_COUNTED: Final = frozenset({ActKind.WRITE, ActKind.LOGIN, ActKind.UNDECLARED})
_UNDECLARED: Final = Act(ActKind.UNDECLARED, "", unsafe=True, may_write=True)
_REFUSED: Final = Verdict(Outcome.READ_ONLY, _UNDECLARED)
# What sessions and logins of frameworks leave on a request: in an ASGI scope, a WSGI environ, a Django request.
_SET_BY_OTHERS: Final = frozenset({"session", "user", "auth", "beaker.session", "werkzeug.session"})
# Where sites keep what nobody writes to by HTTP.
_FILES: Final = frozenset({"static", "media", "assets", "_next", "favicon.ico", "healthz", ".well-known"})
_FORWARDED: Final = ("x-forwarded-for", "forwarded", "x-real-ip", "via")


# A refusal that many clients get is prepared in so many variants, which differ by their jitter, for so long.
VARIANTS: Final = 16
KEPT_SECONDS: Final = 1.0
# Places and refusals that are remembered. Past that all are forgotten: paths are the visitor's to choose.
REMEMBERED: Final = 1024
# What a refusal looks at in a request's headers, besides what makes it a request of its own (cookies, overrides).
NEGOTIATED: Final = (
    "accept",
    "accept-language",
    "content-type",
    "origin",
    "hx-request",
    "x-requested-with",
    "sec-fetch-dest",
)
# Of all that together, with the path. Browsers need a few hundred; nobody is to fill the memory with what they send.
KEPT_CHARACTERS: Final = 2048
OVERRIDES: Final = ("x-http-method-override", "x-http-method", "x-method-override")


@dataclass(slots=True)
class Judged:
    """What becomes of one request.

    Attributes:
        verdict: The gate's.
        taken: What the session rules say.
        state: What it was judged by.
        now: When.
        marks: What its response carries, if that was worked out already.
        holder: Name of the bypass that let it through, else "".
        by: That bypass's id.
        noted: What a rehearsal notes of it, while one goes on. Whoever has it judged says when it is over.
        private: It came with a bypass, good here or elsewhere: its page may say so, and is nobody else's.
    """

    verdict: Verdict
    taken: Taken
    state: State
    now: datetime
    marks: HeaderList = field(default_factory=list)
    holder: str = ""
    by: str = ""
    noted: Noted | None = None
    private: bool = False


class Kept(Generic[T]):
    """A refusal that was given just now, in variants that are ready to be sent."""

    __slots__ = ("count", "ready", "state", "until", "variants")

    def __init__(self, count: Callable[[], object], state: State, until: float) -> None:
        self.count = count
        self.state = state
        self.until = until
        self.variants: list[T] = []
        # Taking the next one is a single operation of the interpreter.
        self.ready: Iterator[T] = iter(())

    def add(self, variant: T) -> bool:
        """Take in one more; return True when there are enough."""
        self.variants.append(variant)
        if len(self.variants) < VARIANTS:
            return False
        self.ready = cycle(self.variants)
        return True


class Handling(Generic[T]):
    """One application's rules, and the switch they are applied by. Shared by all threads and tasks.

    Attributes:
        reads_matter: Some rule makes safe requests something that has to be classified while writable, too.
        any_read: Not empty while every safe request may go on without being classified.
        any_closed_read: The same, while read-only.
        cookies_matter: There are session cookies: with a cut-off known, safe requests that carry one need a look.
        any_write: Not empty while unsafe requests may be counted without being classified.
        simple: Method, path and headers alone say what a request is: it can be remembered.
        next_look: When the next request has to look at a state that is read-only, not only to read it.
        plain: Places (method and path, as the protocol spells them) that are known to be plain reads.
        counted: Places that are known to be writes which the session rules do not look away from.
        ready: Refusals that were given just now, by what they depend on, once there are enough variants of each.
    """

    def __init__(
        self, switch: Switch, policy: Policy, page: Page | None, endpoint: Any, languages: Languages | None = None
    ) -> None:
        switch.takes_role("web")
        self.switch = switch
        self.view = switch.view
        self.gate = Gate(policy)
        self.sessions = Sessions(policy)
        self.bypasses = Bypasses(switch.latest)
        self.drafts = Drafts(policy)
        self._sessions = policy.sessions
        self.watch = Watch(self.gate, policy, switch.rehearsed, switch.doubts)
        for item in policy.rules("exempt"):
            if is_wide(item):
                switch.doubts.add(EXEMPT, str(item))
        self.rejection = Rejection(
            page=page, retry_after_seconds=policy.retry_after_seconds, languages=languages or Words()
        )
        # What tells of marks may mark a GET as a write, once a view is marked so; an adapter with marks of another
        # kind, or with none, says which.
        marks = getattr(endpoint, "reads_matter", None if endpoint is not None else False)
        self.reads_matter = self.gate.reads_matter_while_writable or marks is True
        unwritten: Collection[object] = (True,) if marks is not None else unmarked(WRITES)
        self.any_read: Collection[object] = () if self.reads_matter else unwritten
        self.cookies_matter = bool(self.sessions.names)
        keeping = self.cookies_matter and (policy.exempt or policy.logout)
        rules = [item for role in ROLES for item in policy.rules(role)]
        plain = all(isinstance(item, PathRule) and item.when is None and item.route is None for item in rules)
        self.simple = endpoint is None and plain
        # Where all that a router tells are the marks of views, and none of them reads, rules alone say what is counted.
        unread: Collection[object] = (True,)
        self.counted = set[Hashable]()
        if endpoint is not None:
            decorated = getattr(endpoint, "tells_of_decorators_alone", False)
            unread = unmarked(READS) if decorated else ()
            self.counted = unmarked(READS)
        self._unread = unread if plain else ()
        self.any_write: Collection[object] = unread if self.gate.trivial_unsafe and not keeping else ()
        # Where exempt requests keep their session cookies, a read has to be known not to be one of them.
        self.any_closed_read = () if self.cookies_matter and policy.exempt else self.any_read
        self.next_look = float("-inf")
        self.plain: set[Hashable] = set()
        self.ready: dict[Hashable, Kept[T]] = {}
        self._kept: dict[Hashable, Kept[T]] = {}
        self._anonymous: Judged | None = None
        self._marks: tuple[State | None, HeaderList] = (None, [])
        # The same, as ASGI spells them.
        self.raw_marks: tuple[State | None, list[tuple[bytes, bytes]]] = (None, [])

    # --- state ----------------------------------------------------------------------------------------------------

    def due(self) -> bool:
        """Return whether the next read has to look at the state, not only to read it."""
        return monotonic() >= self.next_look

    def looked(self) -> None:
        """Remember that somebody looks now."""
        self.next_look = monotonic() + SECONDS_BETWEEN_LOOKS

    def marks(self, state: State) -> HeaderList:
        """Return what every response carries by this state."""
        known = self._marks
        if known[0] is not state:
            known = self._marks = (state, state_headers(state))
        return known[1]

    @property
    def announcement(self) -> HeaderList:
        """What every response carries while a window is announced and has not begun; nothing else."""
        return announcement_headers(self.switch)

    # --- a request ------------------------------------------------------------------------------------------------

    def is_free(self, method: str) -> bool:
        """Return whether a request may go on without anybody looking at it or at its response."""
        view = self.view
        free = view.open and method in SAFE_METHODS and bool(self.any_read)
        return free and not (self.cookies_matter and view.sessions_cut)

    def wants_body(self, facts: Facts) -> bool:
        """Return whether a rule has to see the request's body before it is classified."""
        return self.gate.needs_body and self.gate.wants_body(facts)

    def judge(self, act: Act, facts: Facts, cookies: Sequence[str], state: State, *, bypass: bool = False) -> Judged:
        """Decide about a request that was classified and, if it may write, counted.

        Args:
            act: What the gate's `classify` said.
            facts: The request.
            cookies: Each value of its Cookie header.
            state: Looked at after it was counted.
            bypass: An adapter's own pass lets it through. (What the record lets through is found here.)
        """
        now = datetime.now(UTC)
        held = self.bypasses.held(facts, cookies, state) if state.read_only else []
        # A socket outlives what let it in: one that may write stays shut for holders, too.
        http = facts.kind == "http"
        holder = next((one.bypass for one in held if one.covers(facts)), None) if http else None
        if holder is not None and act.may_write:
            self.switch.tally.bypassed(holder.name, self.route(act, facts))
        bypass = bypass or holder is not None
        if bypass or act.kind is ActKind.EXEMPT:
            taken = self.sessions.away(state, now) if self.sessions.any else UNTOUCHED
            name, by = (holder.name, holder.id) if holder is not None else ("", "")
            if act.unsafe and state.read_only and not bypass:
                self.switch.tally.allowed(self.route(act, facts), act.kind)
            noted = None if bypass else self._noted(act, facts, cookies, state)
            verdict = self.gate.decide(act, facts, state, bypass=bypass)
            return Judged(verdict, taken, state, now, holder=name, by=by, noted=noted, private=bool(held))
        taken = self.sessions.look(cookies, state, now) if self.sessions.any else UNTOUCHED
        if held or (state.read_only and LINK_PATH in facts.path):
            # Where their bypass is good, or will be in a moment, their session is wanted again: it waits.
            taken = replace(taken, ended=False, expire=())
        verdict = self.gate.decide(act, facts, state, ended=taken.ended)
        if verdict.clear_session and self.sessions.any:
            taken = self.sessions.logout(cookies, state, now)
        if taken.expire:
            self.switch.tally.ended(len(taken.expire))
        if act.unsafe and state.read_only and verdict.passed:
            self.switch.tally.allowed(self.route(act, facts), act.kind)
        noted = self._noted(act, facts, cookies, state)
        return Judged(verdict, taken, state, now, noted=noted, private=bool(held))

    def _noted(self, act: Act, facts: Facts, cookies: Sequence[str], state: State) -> Noted | None:
        if state.rehearsal is None and self.view.sample and not state.read_only:
            self.switch.sampled()
            return self.watch.sample(act, facts, cookies)
        return None if state.rehearsal is None else self.watch.begin(act, facts, cookies, state.rehearsal)

    def stands_behind(self, names: Iterable[str]) -> None:
        """Doubt whether this is the outermost middleware, by what a request carries when it is handed on to it."""
        for name in sorted(_SET_BY_OTHERS.intersection(names)):
            self.switch.doubts.add(POSITION, f"what sets {name!r}")

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
        offer = self.offer(judged, facts, secure=secure)
        # What is about to be read is said when it was.
        form = Offer.NO if offer is Offer.FORM else offer
        return self._answer(judged, facts, secure=secure, client=client, form=form)

    def offer(self, judged: Judged, facts: Facts, *, secure: bool) -> Offer:
        """Return whether a request that did not pass is given back what was typed; nothing is read for that."""
        verdict = judged.verdict
        if verdict.act.kind is ActKind.LOGIN or self.gate.answering(facts) is not None:
            return Offer.NO
        return self.drafts.offer(facts, secure=secure)

    def given_back(self, judged: Judged, facts: Facts, *, secure: bool, client: str | None, mount: str) -> Answer:
        """Return the answer with what was typed, to a form whose body was read.

        Args:
            judged: What became of it.
            facts: The request, with its body.
            secure: It came by https.
            client: The address at the other end.
            mount: Where the library's own routes are mounted in.
        """
        state = judged.state
        lost = judged.taken.ended or (judged.taken.lost > 0 and state.sessions(self._sessions) == "end")
        ended = not _is_refused(judged.verdict) or lost
        draft = self.drafts.draft(facts, since=str(state.since), ended=ended)
        if draft is None:
            return self._answer(judged, facts, secure=secure, client=client, form=Offer.LARGE)
        return self._answer(
            judged, facts, secure=secure, client=client, form=Offer.KEPT, draft=draft, script=script_tag(mount)
        )

    def _answer(
        self, judged: Judged, facts: Facts, *, secure: bool, client: str | None, form: Offer, **typed: Any
    ) -> Answer:
        verdict = judged.verdict
        operator = bool(judged.state.unknown_because) and is_local(client, facts)
        answering = self.gate.answering(facts)
        answer = self.rejection(
            verdict, facts, judged.state, now=judged.now, operator=operator, answering=answering, form=form, **typed
        )
        if judged.taken.expire or judged.taken.signs:
            # Who is given back what they typed, with a word about the session, needs no second one.
            told = not _is_refused(verdict) or form is Offer.KEPT
            headers = self.sessions.answer(answer.headers, judged.taken, judged.now, secure=secure, told=told)
            return Answer(answer.status, headers, answer.body)
        return answer

    def told(self, act: Act, facts: Facts, state: State) -> Refusal:
        """Return what there is to say about a part of a request that is refused by itself, and count it."""
        self.switch.tally.refused(self.route(act, facts), ActKind.WRITE)
        return self.rejection.told(Verdict(Outcome.READ_ONLY, act), facts, state, now=datetime.now(UTC))

    def escape(self, judged: Judged, facts: Facts) -> Answer:
        """Return the answer to a request in which a guard refused a write."""
        # By the state of now: it was the reason; if it is over already, the one that the request was judged by.
        state = self.view.state if self.view.state.read_only else judged.state
        verdict = Verdict(Outcome.READ_ONLY, judged.verdict.act)
        return self.rejection(verdict, facts, state, now=datetime.now(UTC), answering=self.gate.answering(facts))

    def count_escape(self, work: Work, refusal: ReadOnlyError) -> None:
        """Count a guard's refusal: a rule that is missing, or a request that came before the switch."""
        if work.may_write:
            self.switch.tally.refused(work.name, "guard")
        else:
            self.switch.tally.escaped(work.name, refusal)

    def late(self, judged: Judged | None = None) -> Judged | None:
        """Judge the response to a request that was admitted while writable, now that it is about to start.

        Args:
            judged: What was said about the request; None for a write like any other.

        Returns:
            None while the site is still writable; else what a response that begins now has to obey.
        """
        state = self.view.state
        if self.view.open or not state.read_only:
            return None
        anonymous = self.anonymous(state)
        if judged is None or not self.sessions.any:
            return anonymous
        if judged.verdict.look_away:
            return Judged(judged.verdict, self.sessions.away(state, anonymous.now), state, anonymous.now)
        if judged.verdict.act.kind is ActKind.LOGOUT:
            return Judged(judged.verdict, self.sessions.logout((), state, anonymous.now), state, anonymous.now)
        return anonymous

    def current(self, judged: Judged) -> Judged:
        """Return what a response that starts now has to obey: the site may have turned read-only since."""
        return judged if judged.state.read_only else self.late(judged) or judged

    def anonymous(self, state: State) -> Judged:
        """Judge a request that passes and carries no session."""
        known = self._anonymous
        if known is None or known.state is not state:
            now = datetime.now(UTC)
            taken = self.sessions.look((), state, now)
            known = self._anonymous = Judged(_PASSED, taken, state, now, self.marks(state))
        return known

    # --- what was decided just now ----------------------------------------------------------------------------------

    def remember(self, act: Act, place: Hashable) -> None:
        """Remember that requests to this place are plain reads, or writes to be counted, if `act` says so."""
        places: set[Hashable] | None = None
        if act.kind is ActKind.READ:
            places = self.plain if self.simple else None
        elif act.kind in _COUNTED and self._unread:
            places = self.counted
        if places is not None:
            if len(places) >= REMEMBERED:
                places.clear()
            places.add(place)

    def keep(self, key: Hashable, judged: Judged, facts: Facts, variant: T) -> None:
        """Remember a refusal, if it depends on nothing but its key."""
        state, verdict = judged.state, judged.verdict
        if not self._unread or judged.taken.lost or state.unknown_because or not _is_refused(verdict):
            return
        if self.drafts.concerns(facts):
            return
        told = (facts.headers.get(name) for name in NEGOTIATED)
        if len(facts.path) + sum(len(value) for value in told if value is not None) > KEPT_CHARACTERS:
            return
        now = monotonic()
        found = self._kept.get(key)
        if found is None or found.state is not state or now >= found.until:
            if len(self._kept) >= REMEMBERED:
                self._kept.clear()
                self.ready.clear()
            count = self.switch.tally.more_refused(self.route(verdict.act, facts), verdict.act.kind)
            found = self._kept[key] = Kept(count, state, now + KEPT_SECONDS)
        if found.add(variant):
            self.ready[key] = found

    def response(self, headers: HeaderList, judged: Judged, *, secure: bool, status: int = 0) -> HeaderList:
        """Return a response's headers as they may leave; `status`: its own, 0 if it is not known."""
        if judged.noted is not None:
            judged.noted.answered(headers, status)
        if judged.taken.edits:
            headers = self.sessions.answer(headers, judged.taken, judged.now, secure=secure)
        if judged.private:
            headers = _private(headers)
        return headers + self.said(judged)

    def said(self, judged: Judged) -> HeaderList:
        """Return what a response carries by the state that its request was judged by."""
        marks = self.marks(judged.state)
        return [*marks, (HEADER, judged.holder)] if judged.holder else marks


def is_wide(item: object) -> bool:
    """Return whether an exempt rule lets writes through below a whole part of the site."""
    if not isinstance(item, PathRule) or item.when is not None or item.route is not None:
        return False
    first, *rest = item.text.rpartition(" ")[2].strip("/").split("/")
    below = not rest or rest == ["*"]
    return "*" in (first, *rest) and below and item.method not in SAFE_METHODS and first.lower() not in _FILES


def _private(headers: HeaderList) -> HeaderList:
    """Return a response's headers so that no shared cache hands it to others: it names a bypass, and says what is open.

    Source: RFC 9111, section 5.2.2; RFC 9213 (caches that have a header of their own).
    """
    said = [value.lower() for name, value in headers if name.lower() == "cache-control"]
    kept = [(name, value) for name, value in headers if name.lower() not in _SHARED_CACHING]
    if any("no-store" in value or "private" in value for value in said):
        return kept
    kept = [(name, value) for name, value in kept if name.lower() not in _CACHING]
    return [*kept, ("cache-control", "private, no-cache")]


_CACHING: Final = frozenset({"cache-control", "expires", "pragma"})
_SHARED_CACHING: Final = frozenset({"cdn-cache-control", "surrogate-control"})
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
