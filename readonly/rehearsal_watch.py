"""What would have become of one request, had the site been read-only: noted while a rehearsal goes on.

Nothing here refuses, and nothing that goes wrong here reaches the application. The gate and the session rules are asked
by a state that is made up, the very ones that will decide on the night.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from .doubts import COOKIE, Doubts
from .gate import Act, ActKind, Gate
from .policy import Policy
from .record import OPERATOR, Cause, Mode, Rehearsal
from .rehearsal_counts import MAX_INSIDE, OTHER, SIGNS_IN, TEXT_LENGTH, Counts, Route, cleaned, count, keep
from .rules import SAFE_METHODS, WEBSOCKET, Facts
from .sessions import GRACE, Sessions, deletes
from .state import State

logger = logging.getLogger("readonly")

# Cookies that look as if somebody's login hung on them.
_LIKE_A_SESSION: Final = re.compile(
    r"sess|(?:\A|[_-])s?sid(?:\Z|[_-])|auth|token|login|logged|remember|jwt", re.IGNORECASE
)
# Those that nobody signs in by, whatever they are called.
_NO_SESSION: Final = re.compile(r"csrf|xsrf|readonly", re.IGNORECASE)
_JWT_LENGTH: Final = 8192
_SEGMENTS: Final = 8
# A segment of a path that names one of many.
_ONE_OF_MANY: Final = re.compile(
    r"\d+|[0-9a-fA-F]{8,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|.{25,}|.*\d{4,}.*"
)
_PLAIN_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~@:+,=-]+")
_FAMILIES: Final = (
    ("bot", r"bot\b|crawl|spider|slurp|preview|monitor|uptime|probe|kube-"),
    ("app", r"okhttp|cfnetwork|dalvik|darwin/|flutter|dart/|alamofire"),
    ("program", r"curl|wget|python|httpx|aiohttp|go-http|java/|libwww|node|axios|ruby|php|perl|postman"),
    ("browser", r"mozilla|opera"),
)
_CLIENTS: Final = tuple((name, re.compile(like, re.IGNORECASE)) for name, like in _FAMILIES)
_AGENT_LENGTH: Final = 512
METHOD_NOT_ALLOWED: Final = 405
# Whatever was asked for, nothing was done.
_ABSENT: Final = (404, METHOD_NOT_ALLOWED)
_METHODS: Final = SAFE_METHODS | {"POST", "PUT", "PATCH", "DELETE", WEBSOCKET}
# Takes the place of the path where there is none.
NOWHERE: Final = "(nothing there)"


def family(agent: str | None) -> str:
    """Return what kind of client a User-Agent names: browser, app, program, bot, other, or none."""
    if not agent:
        return "none"
    return next((name for name, like in _CLIENTS if like.search(agent[:_AGENT_LENGTH])), "other")


def rule_of(facts: Facts) -> str:
    """Return the rule that names a request's route, as it may be written into a policy.

    By the router's pattern or name where there is one to ask; else by its path, with what names one of many as `{id}`.
    """
    endpoint = facts.endpoint
    if endpoint is not None and endpoint.path:
        return f"{_method(facts)} {endpoint.path}"
    name = "" if endpoint is None else endpoint.name
    # As it is, or a rule that is pasted would not match it.
    if name and name.isprintable() and " " not in name and len(name) <= TEXT_LENGTH:
        return f"{_method(facts)} name:{name}"
    return f"{_method(facts)} {_pattern(facts.path)}"


def _method(facts: Facts) -> str:
    # Frameworks run the handler of GET for HEAD, and so does a rule.
    return "GET" if facts.method == "HEAD" else cleaned(facts.method)[:20]


def _pattern(path: str) -> str:
    segments = path.strip("/").split("/", _SEGMENTS)
    found = ["*" if n == _SEGMENTS else _segment(segment) for n, segment in enumerate(segments) if segment]
    return "/" + "/".join(found)


def _segment(segment: str) -> str:
    if _ONE_OF_MANY.fullmatch(segment):
        return "{id}"
    return segment if _PLAIN_SEGMENT.fullmatch(segment) and segment not in (".", "..") else "{part}"


class Noted:
    """One request, from when it was judged to when it is over. It belongs to that request."""

    __slots__ = (
        "_cookies", "_counted_by", "_watch", "act", "asked", "droppable", "dropped", "facts", "raw", "rehearsal",
        "said", "status", "tables", "told", "tried",
    )  # fmt: skip

    def __init__(
        self, watch: Watch, rehearsal: Rehearsal | None, act: Act, facts: Facts, cookies: Sequence[str]
    ) -> None:
        self._watch = watch
        self.rehearsal = rehearsal
        self.act = act
        self.facts = facts
        self._cookies = cookies
        self.asked = self.dropped = self.raw = self.tried = self.told = False
        self._counted_by: Watch | None = None
        self.droppable: set[str] = set()
        self.status = 0
        self.tables: dict[str, str] = {}
        self.said: Iterable[tuple[str, str]] = ()

    # --- by a database guard -----------------------------------------------------------------------------------------

    def transaction(
        self,
        tables: dict[str, str],
        *,
        dropped: bool = False,
        droppable: Collection[str] = (),
        raw: bool = False,
        taken_back: bool = False,
    ) -> None:
        """Say that a transaction of this request has ended; perhaps after the request has, in a task that it began.

        Args:
            tables: What it wrote, `database.table`, and where in the code; by the word of the server.
            dropped: It also wrote what the guard drops while read-only.
            droppable: Those of the tables that were written by statements which a guard could drop.
            raw: Something was written that it could not: by SQL text, or by a function.
            taken_back: Something was written and rolled back.
        """
        self.asked = True
        self.dropped = self.dropped or dropped
        self.raw = self.raw or raw
        self.tried = self.tried or taken_back
        if len(self.droppable) < MAX_INSIDE:
            self.droppable.update(droppable)
        for table, where in tables.items():
            keep(self.tables, table, where)
        if self._counted_by is not None and self.tables:
            self._counted_by.late(self)

    # --- by the middleware -------------------------------------------------------------------------------------------

    def answered(self, headers: Iterable[tuple[str, str]], status: int = 0) -> None:
        """Take in the headers of the response, and its status where that is known."""
        self.said = list(headers)
        self.status = status or self.status

    def end(self) -> None:
        """Count it. Twice does no harm."""
        watch, self._watch = self._watch, _OVER
        if watch is _OVER:
            return
        try:
            watch.count(self, self._cookies)
            self._counted_by = watch
        except Exception:
            logger.exception("readonly: a request could not be counted for the rehearsal")


class Watch:
    """Notes the requests of one application. Shared by all threads and tasks."""

    def __init__(self, gate: Gate, policy: Policy, counts: Counts, doubts: Doubts) -> None:
        self._doubts = doubts
        self._gate = gate
        # Of its own: what a state means for sessions is remembered for the last one that was asked for.
        self._sessions = Sessions(policy)
        self._counts = counts
        self._bearer = policy.bearer == "end"
        self._pretended: tuple[str, State] | None = None

    def begin(self, act: Act, facts: Facts, cookies: Sequence[str], rehearsal: Rehearsal) -> Noted:
        """Note a request that begins."""
        return Noted(self, rehearsal, act, facts, cookies)

    def sample(self, act: Act, facts: Facts, cookies: Sequence[str]) -> Noted:
        """Note a request without a rehearsal, for what there may be to doubt about it."""
        return Noted(self, None, act, facts, cookies)

    def count(self, noted: Noted, cookies: Sequence[str]) -> None:
        """Count a request that is over."""
        facts, rehearsal = noted.facts, noted.rehearsal
        begun, ended, unnamed, renewed = self._set(noted.said, cookies)
        for name in unnamed:
            self._doubts.add(COOKIE, name)
        if rehearsal is None:
            return
        # The router may have had its say since: what it is now is what it is.
        act = noted.act
        state = self._pretend(rehearsal)
        verdict = self._gate.decide(act, facts, state)
        now = state.causes[0].since + 2 * GRACE
        taken = self._sessions.look(cookies, state, now)
        known = self._sessions.told(cookies)
        exempt = act.kind is ActKind.EXEMPT
        agent = family(facts.headers.get("user-agent"))
        bearer = _bearer(facts)
        absent = noted.status in _ABSENT and not noted.tables
        rule = rule_of(facts)
        if absent and (facts.endpoint is None or noted.status == METHOD_NOT_ALLOWED):
            # What others try of their own accord (`POST /wp-login.php`) is no route of this site, and has no end.
            rule = f"{_method(facts) if facts.method in _METHODS else OTHER} {NOWHERE}"
        with self._counts.adding(rehearsal.id) as numbers:
            numbers.requests += 1
            if known and not exempt:
                numbers.signed_in += 1
                numbers.signed_out += taken.lost > 0
                numbers.readers.add(rehearsal.id, known[0])
            if bearer:
                numbers.bearers += 1
                numbers.ended_bearers += self._bearer and not exempt
                if _runs_out(bearer, rehearsal.until):
                    numbers.running_out.add(rehearsal.id, bearer)
            for name in unnamed:
                count(numbers.unnamed, cleaned(name))
            route = numbers.route(rule, str(act.kind))
            if verdict.passed:
                route.passed += 1
            else:
                route.refused += 1
                count(route.families, agent)
            route.absent += absent
            route.asked += noted.asked
            route.dropped += noted.dropped and not noted.tables
            route.tried += noted.tried and not noted.tables
            _add_writes(route, noted)
            route.redirected += any(name.lower() == "location" for name, _ in noted.said)
            if begun and not known:
                route.begun += 1
                for name in begun:
                    count(route.cookies, cleaned(name))
            route.renewed += renewed and SIGNS_IN.search(rule) is not None
            route.ended += bool(ended)
            route.example = route.example or cleaned(facts.path)

    def late(self, noted: Noted) -> None:
        """Add what a request has written since it was counted: by a task that it began, and that outlived it."""
        if noted.rehearsal is not None:
            with self._counts.adding(noted.rehearsal.id) as numbers:
                _add_writes(numbers.route(rule_of(noted.facts), str(noted.act.kind)), noted)

    def _set(
        self, headers: Iterable[tuple[str, str]], cookies: Sequence[str]
    ) -> tuple[list[str], list[str], list[str], bool]:
        """Return the session cookies that a response gives to who had none, takes from who had one, and unnamed ones.

        And whether it gives somebody another one. One that is called like a session's is taken for one, named or not.
        """
        begun, ended, unnamed, renewed = [], [], [], False
        for name, value in headers:
            if name.lower() != "set-cookie":
                continue
            cookie, _, rest = value.partition("=")
            cookie = cookie.strip()
            named = cookie in self._sessions.names
            if not named and not looks_like_a_session(cookie, rest):
                continue
            if deletes(rest):
                if _carries(cookies, cookie):
                    ended.append(cookie)
                continue
            if not named:
                unnamed.append(cookie)
            if not _carries(cookies, cookie):
                begun.append(cookie)
            else:
                renewed = True
        return begun, ended, unnamed, renewed

    def _pretend(self, rehearsal: Rehearsal) -> State:
        """Return the state of a site that has been read-only since the rehearsal began, for more than the grace."""
        found = self._pretended
        if found is not None and found[0] == rehearsal.id:
            return found[1]
        began = rehearsal.since - 2 * GRACE
        cause = Cause(id=rehearsal.id, kind=OPERATOR, by=rehearsal.by, since=began)
        pretended = State(
            read_only=True,
            mode=Mode.READ_ONLY,
            epoch=0,
            causes=(cause,),
            since=began,
            expected_end=None,
            next_window=None,
            synced=True,
            record=None,
        )
        self._pretended = (rehearsal.id, pretended)
        return pretended


def _add_writes(route: Route, noted: Noted) -> None:
    """Count a request that wrote, once."""
    if noted.tables and not noted.told:
        noted.told = True
        route.wrote += 1
        route.raw += noted.raw
    for table in noted.droppable:
        count(route.droppable, cleaned(table))
    for table, where in noted.tables.items():
        keep(route.tables, cleaned(table), cleaned(where))


class _Over(Watch):
    """Takes the place of a watch that has counted a request already."""

    def __init__(self) -> None:
        """Know nothing."""

    def count(self, noted: Noted, cookies: Sequence[str]) -> None:
        """Do nothing."""


_OVER: Final = _Over()


def looks_like_a_session(name: str, rest: str) -> bool:
    """Return whether a cookie that is set may be one that somebody's login hangs on.

    Args:
        name: Its name.
        rest: What follows the name's "=": the value and the attributes.
    """
    # No script may read it, so that a server's own business hangs on it; and it is called like one.
    return (
        _LIKE_A_SESSION.search(name) is not None
        and _NO_SESSION.search(name) is None
        and ("httponly" in rest.lower() or deletes(rest))
    )


def _carries(cookies: Sequence[str], name: str) -> bool:
    return any(part.partition("=")[0].strip() == name for header in cookies for part in header.split(";"))


def _bearer(facts: Facts) -> str:
    value = facts.headers.get("authorization") or ""
    return value[7:].strip() if value[:7].lower() == "bearer " else ""


def _runs_out(token: str, until: datetime) -> bool:
    """Return whether a token says of itself that it is over before an instant; nothing about it is verified.

    Source: RFC 7519, section 4.1.4.
    """
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _JWT_LENGTH:
        return False
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expires = payload["exp"]
        return type(expires) in (int, float) and expires < (until - _UNIX) / timedelta(seconds=1)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


_UNIX: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
