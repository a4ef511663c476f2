"""What is known about one request, the rules that a site writes about its requests, and the path they match.

Two kinds of rule meet the many spellings of one path differently. One that lets a request through (`exempt`,
`reads`, `logout`) matches only a path that is in normal form after one decoding, so that no spelling slips a
write past the gate. One that refuses (`writes`, `login`) matches if the path as sent, as decoded, or as
normalised does, so that no spelling slips past the rule. Where router and rule disagree, the request is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, Protocol, runtime_checkable
from urllib.parse import unquote_plus

from .errors import ConfigurationError
from .spellings import fold, normal, spellings

Kind = Literal["http", "websocket"]

# RFC 9110 section 9.2.1, and QUERY (RFC 10008). Every other method, known or not, is taken to write.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})
WEBSOCKET: Final = "WEBSOCKET"
# What a predicate is shown of a body: enough for a form or a GraphQL document, little enough to hold in
# memory.
BODY_LIMIT_BYTES: Final = 64 * 1024
_OVERRIDE_HEADERS = ("x-http-method-override", "x-http-method", "x-method-override")
_OVERRIDE_FIELD = "_method"


class Headers(Protocol):
    """Looks a request header up by its lower-case name."""

    def get(self, name: str, /) -> str | None:
        """Return the header's value (repeated ones joined by a comma), or None."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a router knows about a request's handler: all that a framework needs to tell to take part.

    Attributes:
        name: The route's name, as `name:...` rules spell it.
        marks: From `marks_of`: `reads` and `writes`, and for one method alone `writes:GET`. What an adapter recognises
            as signing people in or out it marks `login` and `logout`, which mean the unsafe methods, or `login:GET`.
        takes_preflights: It is known that a preflight runs the view's own code, and not because its author said that
            it takes OPTIONS: then one is judged like any other request.
        path: The route's pattern as a rule spells it (`/articles/{slug}`); "" where no rule can.
    """

    name: str
    marks: frozenset[str] = frozenset()
    takes_preflights: bool = False
    path: str = ""


_NO_HEADERS: Headers = {}
_UNASKED: Final = "?"  # no path, since a path starts with a slash


class Facts:
    """What the gate needs to know about one request. Treat it as frozen.

    Attributes:
        method: As on the wire, upper-cased; `WEBSOCKET` for a websocket.
        path: Decoded once, relative to the mount.
        raw_path: As sent, not decoded, relative to the mount; "" where the server does not tell (WSGI).
        query: The query string, not decoded, without the question mark.
        headers: Looks up by lower-case name.
        kind: `http` or `websocket`.
        endpoint: What the router knows, or None where there is none to ask.
        body: At most `BODY_LIMIT_BYTES` of it if `Gate.wants_body` asked for it, else None.
        body_complete: False if the body goes on after that: then no predicate can let the request through.
    """

    __slots__ = (
        "_normal",
        "_spellings",
        "body",
        "body_complete",
        "endpoint",
        "headers",
        "kind",
        "method",
        "path",
        "query",
        "raw_path",
    )

    def __init__(
        self,
        method: str,
        path: str,
        raw_path: str = "",
        query: str = "",
        headers: Headers = _NO_HEADERS,
        kind: Kind = "http",
        endpoint: Endpoint | None = None,
        body: bytes | None = None,
        body_complete: bool = True,
    ) -> None:
        self.method = method if kind == "http" else WEBSOCKET
        self.path = path
        self.raw_path = raw_path
        self.query = query
        self.headers = headers
        self.kind = kind
        self.endpoint = endpoint
        self.body = body
        self.body_complete = body_complete
        self._normal: str | None = _UNASKED
        self._spellings: tuple[str, ...] = ()

    def with_method(self, method: str) -> Facts:
        """Return the same request as it would be with another method."""
        other = Facts(
            method,
            self.path,
            self.raw_path,
            self.query,
            self.headers,
            self.kind,
            self.endpoint,
            self.body,
            self.body_complete,
        )
        other.method = method
        other._normal = self._normal
        other._spellings = self._spellings
        return other

    @property
    def normal_path(self) -> str | None:
        """The path if it is in normal form after one decoding, else None: for rules that let through."""
        if self._normal is _UNASKED:
            self._normal = normal(self.path, self.raw_path)
        return self._normal

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every path that some router may take this one for, case folded: for rules that refuse."""
        if not self._spellings:
            self._spellings = spellings(self.path, self.raw_path)
        return self._spellings

    def __repr__(self) -> str:
        return f"Facts({self.method} {self.path!r})"


@runtime_checkable
class Rule(Protocol):
    """Says yes or no to a request; `rule()` makes one from text, a site can bring its own.

    The gate asks once for each effective method, with the facts as they would be under that method.
    """

    @property
    def needs_body(self) -> bool:
        """True if `matches` looks at the body: it is then shown at most 64 KiB of it."""

    def matches(self, facts: Facts) -> bool:
        """Return whether the rule covers the request. Called for each request, by any thread; does no I/O."""

    def __str__(self) -> str:
        """Return the rule as it is named in messages and logs."""


# --- Methods ----------------------------------------------------------------------------------------------

_PART_NAMED = re.compile(rb'name="?_method"?(?:[;\s]|\Z)', re.IGNORECASE)
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")


def effective_methods(facts: Facts) -> tuple[str, ...]:
    """Return every method that the application may run this request as, the wire's first.

    Which override the application honours is unknown here, so each carrier counts: three headers, `_method`
    in the query, and `_method` in a body that a predicate asked to see.
    """
    wire = facts.method
    if facts.kind != "http":
        return (wire,)
    found: list[str] = []
    get = facts.headers.get
    for name in _OVERRIDE_HEADERS:
        value = get(name)
        if value:
            found += value.split(",")
    if facts.query:
        found += _fields(facts.query)
    if facts.body:
        content_type = (get("content-type") or "").lower()
        if content_type.startswith("multipart/"):
            # A part's value follows the blank line that follows its name.
            pieces = _BLANK_LINE.split(facts.body)
            for head, rest in pairwise(pieces):
                if _PART_NAMED.search(head):
                    found.append(rest.partition(b"\n")[0].decode("latin-1"))
        elif "json" not in content_type:
            found += _fields(facts.body.decode("latin-1"))
    if not found:
        return (wire,)
    named = (value.strip().upper() for value in found)
    return tuple(dict.fromkeys((wire, *(value for value in named if value))))


def is_preflight(facts: Facts) -> bool:
    """Return whether a browser asks for leave to send another request, which is judged when it comes.

    Whatever answers cross-origin requests gets to see the question, or no script could read the refusal of what
    follows.

    Source: the Fetch standard, "CORS-preflight request".
    """
    if facts.method != "OPTIONS" or facts.kind != "http":
        return False
    if facts.endpoint is not None and facts.endpoint.takes_preflights:
        return False
    get = facts.headers.get
    return get("origin") is not None and get("access-control-request-method") is not None


def _fields(form: str) -> list[str]:
    # "%" because the name itself may be sent encoded. Both separators, since older parsers take both.
    if "%" not in form and _OVERRIDE_FIELD not in form.lower():
        return []
    pairs = (pair.partition("=") for pair in re.split("[&;]", form))
    return [unquote_plus(value) for name, _, value in pairs if unquote_plus(name).lower() == _OVERRIDE_FIELD]


# --- Rules ------------------------------------------------------------------------------------------------

_METHOD = re.compile(r"[A-Za-z][A-Za-z0-9-]*\Z")
_PARAMETER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}\Z")
_NAME = "name:"


class PathRule:
    """A rule written as text: `METHOD /path`, `/path`, or `METHOD name:route`. Made by `rule()`.

    Attributes:
        text: As written.
        method: Upper-cased, or None for a rule without one.
        route: Name of the route for `name:route`, else None.
        literal: True if the pattern has a segment of its own, and so can't match every path.
        when: The predicate, or None.
    """

    __slots__ = ("_exact", "_folded", "literal", "method", "route", "text", "when")

    def __init__(self, text: str, when: Callable[[Facts], bool] | None = None) -> None:
        if not isinstance(text, str):
            raise ConfigurationError(f"{text!r} is not a rule: write 'METHOD /path' or '/path'.")
        self.text = text
        self.when = when
        method, _, target = text.strip().rpartition(" ")
        method = method.strip()
        if method and not _METHOD.match(method):
            raise ConfigurationError(
                f"{text!r} is not a rule: {method!r} is no method; write 'METHOD /path' or '/path'."
            )
        self.method = method.upper() or None
        self.route = target[len(_NAME) :] if target.startswith(_NAME) else None
        if self.route is not None:
            if not self.route:
                raise ConfigurationError(f"{text!r} is not a rule: a route's name is missing after 'name:'.")
            self.literal = True
            self._exact = self._folded = re.compile(r"(?!)")
        else:
            segments = _segments(text, target)
            self.literal = any(segment != "*" and not _PARAMETER.match(segment) for segment in segments)
            self._exact = _compile(segments)
            self._folded = _compile([fold(s) if not _PARAMETER.match(s) else s for s in segments])

    @property
    def needs_body(self) -> bool:
        """True if there is a predicate: it may look at the body."""
        return self.when is not None

    def matches(self, facts: Facts) -> bool:
        """Return whether the rule covers the request, exactly spelled; without a method it covers any."""
        return self.lets_through(facts)

    def lets_through(self, facts: Facts, *, unsafe_only: bool = False) -> bool:
        """Return whether the rule covers the request, exactly spelled.

        Args:
            facts: The request.
            unsafe_only: A rule without a method covers the unsafe ones only.
        """
        if not self._covers(facts.method, unsafe_only):
            return False
        if self.route is not None:
            if facts.endpoint is None or facts.endpoint.name != self.route:
                return False
        else:
            path = facts.normal_path
            if path is None or self._exact.match(path) is None:
                return False
        # A predicate that has not seen the whole body can't vouch for it.
        return self.when is None or (facts.body_complete and bool(self.when(facts)))

    def refuses(self, facts: Facts, *, unsafe_only: bool = False) -> bool:
        """Return whether the rule covers the request, in any spelling.

        Args:
            facts: The request.
            unsafe_only: A rule without a method covers the unsafe ones only.
        """
        return self.concerns(facts, unsafe_only=unsafe_only) and (
            self.when is None or not facts.body_complete or bool(self.when(facts))
        )

    def concerns(self, facts: Facts, *, unsafe_only: bool = False) -> bool:
        """Return whether method and path, in any spelling, are this rule's; the predicate is not asked."""
        if not self._covers(facts.method, unsafe_only):
            return False
        if self.route is not None:
            return facts.endpoint is not None and facts.endpoint.name == self.route
        match = self._folded.match
        return any(match(path) is not None for path in facts.spellings)

    def _covers(self, method: str, unsafe_only: bool) -> bool:
        mine = self.method
        if mine is None:
            return not unsafe_only or method not in SAFE_METHODS
        # Frameworks run the handler of GET for HEAD.
        return mine == method or (mine == "GET" and method == "HEAD")

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"rule({self.text!r})" if self.when is None else f"rule({self.text!r}, when={self.when!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PathRule) and (self.text, self.when) == (other.text, other.when)

    def __hash__(self) -> int:
        return hash((self.text, self.when))


def rule(pattern: str, *, when: Callable[[Facts], bool] | None = None) -> PathRule:
    """Return the rule that a text stands for.

    Args:
        pattern: `METHOD /path`, `/path`, or `METHOD name:route`. `{name}` is one segment; `*` as the last
            segment covers the prefix and everything under it; a trailing slash makes no difference.
        when: Narrows the rule to the requests it returns True for. It is shown at most 64 KiB of the body, is
            called by any thread, and does no I/O. If it raises, a rule that lets through does not match, and
            one that refuses does.

    Raises:
        ConfigurationError: The text is no rule.
    """
    return PathRule(pattern, when)


def _segments(text: str, target: str) -> list[str]:
    if not target.startswith("/"):
        raise ConfigurationError(
            f"{text!r} is not a rule: the path must start with '/' (or name a route, 'name:route')."
        )
    inner = target.strip("/")
    if "//" in target or (not inner and target != "/"):
        raise ConfigurationError(f"{text!r} is not a rule: it has an empty segment; write one '/' at a time.")
    segments = inner.split("/") if inner else []
    for position, segment in enumerate(segments):
        problem = _problem(segment, last=position == len(segments) - 1)
        if problem:
            raise ConfigurationError(f"{text!r} is not a rule: in segment {segment!r} {problem}.")
    return segments


def _problem(segment: str, *, last: bool) -> str:
    odd = re.search(r"[\s;?#\\^$|\[\]\x00-\x1f\x7f-\x9f]", segment)
    if odd:
        return f"{odd.group()!r} is not allowed; a rule is a plain path, no expression and no URL with a query"
    if "*" in segment:
        return "" if last and segment == "*" else "'*' is allowed only as the whole last segment"
    if "{" in segment or "}" in segment:
        return "" if _PARAMETER.match(segment) else "a parameter must be the whole segment, like '{id}'"
    if segment in (".", ".."):
        return "a dot segment never reaches the application"
    if "<" in segment or ">" in segment:
        return "'<' is no parameter here; write '{id}'"
    if "%" in segment:
        return "'%' stands for an encoded character; write the path decoded"
    return ""


def _compile(segments: Iterable[str]) -> re.Pattern[str]:
    expression = ""
    for segment in segments:
        if segment == "*":
            return re.compile(expression + r"(?:/.*)?\Z", re.DOTALL)
        expression += "/" + ("[^/]+" if _PARAMETER.match(segment) else re.escape(segment))
    return re.compile(expression + r"/?\Z")
