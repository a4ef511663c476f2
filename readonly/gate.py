"""Decides about one request: pure, no I/O, no framework.

`classify` says what a request is, without the state, so that a write can be counted before the state is
looked at; `decide` says what becomes of it, with the state. The order of the questions matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .answers import Answering, Dialogue, Listening
from .marks import LOGIN, LOGOUT, READS, WRITES, mark_for, signs
from .policy import Policy, Role
from .record import Mode
from .rules import SAFE_METHODS, WEBSOCKET, Facts, PathRule, Rule, effective_methods, is_preflight
from .state import State

# Classified requests that are remembered. Past that all are forgotten: paths are the visitor's to choose.
CACHE_SIZE: Final = 2048
# Stands where a rule's name does: the request is a preflight, and no rule or mark names OPTIONS.
PREFLIGHT: Final = "@preflight"


class ActKind(StrEnum):
    """What a request is, before anybody asks whether the site is read-only."""

    EXEMPT = "exempt"
    WRITE = "write"
    LOGIN = "login"
    LOGOUT = "logout"
    DECLARED_READ = "declared read"
    READ = "read"
    UNDECLARED = "undeclared"


@dataclass(slots=True)  # not frozen, like Verdict: one is made for each request, and freezing costs half of that
class Act:
    """What a request is. Never changed.

    Attributes:
        kind: The first question of the gate's order that had an answer.
        rule: The rule or mark that said so, else "".
        unsafe: Some effective method is not a safe one.
        may_write: While the site is writable it must be counted as a write in flight.
    """

    kind: ActKind
    rule: str
    unsafe: bool
    may_write: bool


class Outcome(StrEnum):
    """What becomes of a request; the two refusals spell the `code` of their answer."""

    PASS = "pass"  # noqa: S105  no password
    READ_ONLY = "READ_ONLY"
    SESSION_ENDED = "SESSION_ENDED"


@dataclass(slots=True)
class Verdict:
    """What becomes of a request. Never changed.

    Attributes:
        outcome: Passed on, refused (503), or refused because its session ended (403).
        act: What it was taken for.
        look_away: Exempt or bypass: session rules leave it alone, and it keeps its cookies.
        bypass: The guard lets it write.
        clear_session: Logout while read-only: the middleware expires the session's cookies itself, since the
            application's way of ending a session may be a write.
    """

    outcome: Outcome
    act: Act
    look_away: bool = False
    bypass: bool = False
    clear_session: bool = False

    @property
    def passed(self) -> bool:
        """True if the application gets the request."""
        return self.outcome is Outcome.PASS


class Gate:
    """A policy, compiled.

    Attributes:
        needs_body: Some rule wants to see a body; ask `wants_body` for each request then.
        needs_endpoint: Some rule names a route: without an `Endpoint` in the facts it never matches.
        reads_matter_while_writable: Some rule may make a write of a GET or another safe request, so those
            have to be classified while writable, too. (So may marks, where the middleware can tell an
            `Endpoint`.)
        trivial_unsafe: No rule can make a read of an unsafe HTTP request, so while writable it can be counted
            without being classified.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        everything = [rule for role in _ROLES for rule in policy.rules(role)]
        self._exempt, self._login, self._logout, self._reads, self._writes = (
            _compile(policy.rules(role), role) for role in _ROLES
        )
        self._with_body = tuple(
            (rule, role in _UNSAFE_ONLY) for role in _ROLES for rule in policy.rules(role) if rule.needs_body
        )
        self._answering = tuple(_answering(self._with_body))
        self._listening = tuple(_listening(self._with_body))
        self._names = any(isinstance(rule, PathRule) and rule.route is not None for rule in everything)
        self._cacheable = not self._names and all(
            isinstance(rule, PathRule) and rule.when is None for rule in everything
        )
        # What is said of all methods is not said of the question that comes before one.
        self._writes_by_options = _compile(
            [rule for rule in policy.rules("writes") if not isinstance(rule, PathRule) or rule.method == "OPTIONS"],
            "writes",
        )
        self._cache: dict[tuple[str, str, str], Act] = {}
        self.needs_body = bool(self._with_body)
        self.needs_endpoint = self._names
        self.reads_matter_while_writable = any(
            not isinstance(rule, PathRule) or rule.method in SAFE_METHODS for rule in policy.rules("login")
        ) or any(
            not isinstance(rule, PathRule) or rule.method is None or rule.method in SAFE_METHODS
            for rule in policy.rules("writes")
        )
        self.trivial_unsafe = not policy.rules("reads")

    def wants_body(self, facts: Facts) -> bool:
        """Return whether a rule for this path and method has to see the body, before `classify` is asked.

        So an upload to anywhere else is never held in memory.
        """
        return any(
            rule.concerns(facts, unsafe_only=unsafe_only) if isinstance(rule, PathRule) else True
            for rule, unsafe_only in self._with_body
        )

    def answering(self, facts: Facts) -> Answering | None:
        """Return what words a refusal of this request, if some rule for its path and method knows better than we do."""
        for rule, unsafe_only, when in self._answering:
            if rule.concerns(facts, unsafe_only=unsafe_only):
                return when
        return None

    def dialogue(self, facts: Facts) -> Dialogue | None:
        """Return what judges the messages of a websocket, if some rule for its path judges each by itself."""
        for rule, unsafe_only, when in self._listening:
            if rule.concerns(facts, unsafe_only=unsafe_only):
                return when.dialogue()
        return None

    def classify(self, facts: Facts) -> Act:
        """Return what a request is. Any thread; the same facts always have the same answer."""
        methods = effective_methods(facts)
        endpoint = facts.endpoint
        if not self._cacheable or len(methods) > 1 or (endpoint is not None and endpoint.marks):
            return self._classify(facts, methods)
        if facts.method == "OPTIONS":  # its headers count, which are no part of the key
            return self._classify(facts, methods)
        key = (facts.method, facts.path, facts.raw_path)
        act = self._cache.get(key)
        if act is None:
            act = self._classify(facts, methods)
            if len(self._cache) >= CACHE_SIZE:
                self._cache.clear()
            self._cache[key] = act
        return act

    def _classify(self, facts: Facts, methods: Sequence[str]) -> Act:
        views = [facts, *(facts.with_method(method) for method in methods[1:])]
        unsafe = [view for view in views if view.method not in SAFE_METHODS]
        if (found := _each(self._exempt, views)) is not None:
            # Gate and session rules look away, the drain does not. A socket would hold it for ever.
            return Act(ActKind.EXEMPT, found, bool(unsafe), bool(unsafe) and facts.method != WEBSOCKET)
        preflight = is_preflight(facts)
        asked = views[1:] if preflight else views
        found = _any(self._writes, asked)
        if found is None and preflight:
            found = _any(self._writes_by_options, views[:1])
        if found is not None:
            return Act(ActKind.WRITE, found, bool(unsafe), True)
        if any(mark_for(view.endpoint, view.method) == WRITES for view in asked) or (
            preflight and facts.endpoint is not None and f"{WRITES}:OPTIONS" in facts.endpoint.marks
        ):
            return Act(ActKind.WRITE, "@writes", bool(unsafe), True)
        if (found := _any(self._login, views)) is not None:
            return Act(ActKind.LOGIN, found, bool(unsafe), True)
        if any(signs(view, LOGIN) for view in views):
            return Act(ActKind.LOGIN, "@login", bool(unsafe), True)
        found = "@logout" if all(signs(view, LOGOUT) for view in views) else _each(self._logout, views)
        if facts.method != WEBSOCKET and found is not None:
            return Act(ActKind.LOGOUT, found, bool(unsafe), True)
        if unsafe and (found := _each_read(self._reads, unsafe)) is not None:
            return Act(ActKind.DECLARED_READ, found, True, False)
        if not unsafe:
            if preflight:  # no plain read, which is remembered by method and path alone
                return Act(ActKind.DECLARED_READ, PREFLIGHT, False, False)
            return Act(ActKind.READ, "", False, False)
        return Act(ActKind.UNDECLARED, "", True, True)

    def decide(self, act: Act, facts: Facts, state: State, *, ended: bool = False, bypass: bool = False) -> Verdict:
        """Return what becomes of a request.

        Args:
            act: What `classify` said about it.
            facts: The request.
            state: The state, looked at after the request was counted, if it may write.
            ended: It came with a session that was ended. An unknown state ends none, whatever this says.
            bypass: It came with a bypass that is valid.
        """
        read_only = state.read_only
        kind = act.kind
        if kind is ActKind.EXEMPT:
            return Verdict(Outcome.PASS, act, look_away=True, bypass=bypass)
        if bypass:
            return Verdict(Outcome.PASS, act, look_away=True, bypass=True)
        if read_only and (kind is ActKind.WRITE or kind is ActKind.LOGIN):
            return Verdict(Outcome.READ_ONLY, act)
        if kind is ActKind.LOGOUT:
            return Verdict(Outcome.PASS, act, clear_session=read_only)
        if kind is ActKind.DECLARED_READ:
            return Verdict(Outcome.PASS, act)
        # Whoever signs in asks for a new session; there is no form that the old one would have to answer for.
        if ended and act.unsafe and kind is not ActKind.LOGIN and state.mode is not Mode.UNKNOWN:
            return Verdict(Outcome.SESSION_ENDED, act)
        if kind is ActKind.READ:
            return Verdict(Outcome.PASS, act)
        if read_only:
            return Verdict(Outcome.READ_ONLY, act)
        return Verdict(Outcome.PASS, act)


_ROLES: Final[tuple[Role, ...]] = ("exempt", "login", "logout", "reads", "writes")
_UNSAFE_ONLY: Final = frozenset({"login", "logout", "reads"})
_REFUSING: Final = frozenset({"login", "writes"})


def _answering(rules: Iterable[tuple[Rule, bool]]) -> Iterator[tuple[PathRule, bool, Answering]]:
    for rule, unsafe_only in rules:
        if isinstance(rule, PathRule):
            when: object = rule.when
            if isinstance(when, Answering):
                yield rule, unsafe_only, when


def _listening(rules: Iterable[tuple[Rule, bool]]) -> Iterator[tuple[PathRule, bool, Listening]]:
    for rule, unsafe_only in rules:
        if isinstance(rule, PathRule):
            when: object = rule.when
            if isinstance(when, Listening):
                yield rule, unsafe_only, when


Matcher = tuple[str, Callable[[Facts], bool]]


def _compile(rules: Sequence[Rule], role: Role) -> tuple[Matcher, ...]:
    return tuple((str(rule), _matcher(rule, role)) for rule in rules)


def _matcher(rule: Rule, role: Role) -> Callable[[Facts], bool]:
    refusing = role in _REFUSING
    unsafe_only = role in _UNSAFE_ONLY

    def matches(facts: Facts) -> bool:
        try:
            if not isinstance(rule, PathRule):
                return rule.matches(facts)
            return (rule.refuses if refusing else rule.lets_through)(facts, unsafe_only=unsafe_only)
        except Exception:
            # A predicate that fails is no reason to let a write through, nor to answer 500.
            return refusing

    return matches


def _any(matchers: Sequence[Matcher], views: Sequence[Facts]) -> str | None:
    return next((name for name, matches in matchers for view in views if matches(view)), None)


def _each(matchers: Sequence[Matcher], views: Sequence[Facts]) -> str | None:
    """Return the first rule's name if every view is matched by some rule."""
    found = [next((name for name, matches in matchers if matches(view)), None) for view in views]
    return found[0] if None not in found else None


def _each_read(matchers: Sequence[Matcher], views: Sequence[Facts]) -> str | None:
    found: str | None = None
    for view in views:
        found = "@reads" if mark_for(view.endpoint, view.method) == READS else _any(matchers, (view,))
        if found is None:
            return None
    return found
