"""What a site says about its own requests and sessions: data, checked when it is built.

The policy is the application's alone; the command never reads it. Two consumers: the gate (the rules) and the
session rules (the cookies).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from .errors import ConfigurationError
from .rules import WEBSOCKET, PathRule, Rule

Role = Literal["exempt", "login", "logout", "reads", "writes"]
Sessions = Literal["end", "suspend", "keep"]
Bearer = Literal["end", "keep"]

ROLES: Final[tuple[Role, ...]] = ("exempt", "login", "logout", "reads", "writes")
_SESSIONS = ("end", "suspend", "keep")
_BEARER = ("end", "keep")
_LETTING_THROUGH = frozenset({"exempt", "logout", "reads"})
# Long enough that a crowd of clients does no harm, short enough that nobody waits long after an early `off`.
RETRY_AFTER_SECONDS: Final = 60.0
# RFC 6265 section 4.1.1: a cookie's name is a token (RFC 9110 section 5.6.2).
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


@dataclass(frozen=True, slots=True)
class SessionCookie:
    """One cookie that carries or names a session.

    Attributes:
        name: Its name.
        path: As it is set, or no browser expires it.
        domain: As it is set; None for a host cookie.
        partitioned: It is set with `Partitioned`.
        issued_at: Reads from a value when the session was issued, timezone-aware, or None if it does not say.
            Without it the known signed formats (itsdangerous, Django signing) are read, and any other value
            is an opaque id, which needs a stamp and so a secret.
        max_age_seconds: How long the browser keeps it; after `off`, stamps are needed this long.
        signed: Every genuine value is in a known signed format, so that no secret is needed; one that is not
            has no time, and is older than any cut-off.
    """

    name: str
    path: str = "/"
    domain: str | None = None
    partitioned: bool = False
    issued_at: Callable[[str], datetime | None] | None = None
    max_age_seconds: float | None = None
    signed: bool = False

    def __post_init__(self) -> None:
        if not _TOKEN.match(str(self.name)):
            raise ConfigurationError(f"session_cookies: {self.name!r} is not a cookie's name.")
        if not self.path.startswith("/"):
            raise ConfigurationError(f"session_cookies: {self.name}: path={self.path!r} must start with '/'.")
        if self.name.startswith("__Host-") and (self.path != "/" or self.domain is not None):
            raise ConfigurationError(
                f"session_cookies: {self.name}: a __Host- cookie has path '/' and no domain; leave both out."
            )
        if self.max_age_seconds is not None and not self.max_age_seconds > 0:
            raise ConfigurationError(
                f"session_cookies: {self.name}: max_age_seconds={self.max_age_seconds!r} must be above 0,"
                " or None if unknown."
            )

    @property
    def tells_its_time(self) -> bool:
        """True if a value says itself when it was issued, so that no stamp is needed."""
        return self.signed or self.issued_at is not None


@dataclass(frozen=True)
class Policy:
    """What counts as a write, a login, an exempt path, and what becomes of sessions.

    Attributes:
        exempt: Gate and session rules look away (guard and fence do not). Without a method: all methods.
        login: Refused while read-only. Without a method: the unsafe ones.
        logout: Passed on as a read, and the session's cookies are expired. Without a method: the unsafe ones.
        reads: Unsafe requests that only read. Without a method: the unsafe ones.
        writes: Requests that write, even on GET. Without a method: all methods. (A preflight passes unless a rule names
            OPTIONS: what it asks about is judged when it comes.)
        session_cookies: Names, or `SessionCookie` where path, domain or format differ from the usual.
        sessions: `end` (a session from before never comes back), `suspend` (it comes back), or `keep`.
        bearer: `end` treats a bearer token like a session; `keep` lets it go on reading.
        secret: Key for the stamps of opaque session ids; several for rotation, the first one signs.
        retry_after_seconds: What refused clients are told when no end was announced.
        undrafted: Forms that are not given back to whoever sent them, when they are refused. Without a method: all.
    """

    exempt: Sequence[str | Rule] = ()
    login: Sequence[str | Rule] = ()
    logout: Sequence[str | Rule] = ()
    reads: Sequence[str | Rule] = ()
    writes: Sequence[str | Rule] = ()
    session_cookies: Sequence[str | SessionCookie] = ()
    sessions: Sessions = "end"
    bearer: Bearer = "keep"
    secret: str | Sequence[str] = field(default=(), repr=False)
    retry_after_seconds: float = RETRY_AFTER_SECONDS
    undrafted: Sequence[str | Rule] = ()

    def __post_init__(self) -> None:
        for role in ROLES:
            self._set(role, tuple(_rule(role, item) for item in _items(role, getattr(self, role))))
        self._set("undrafted", tuple(_undrafted(item) for item in _items("undrafted", self.undrafted)))
        cookies = tuple(_cookie(item) for item in _items("session_cookies", self.session_cookies))
        names = [cookie.name for cookie in cookies]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigurationError(f"session_cookies: {twice!r} is named twice; name each cookie once.")
        self._set("session_cookies", cookies)
        _choice("sessions", self.sessions, _SESSIONS)
        _choice("bearer", self.bearer, _BEARER)
        self._set("secret", _secrets(self.secret))
        if type(self.retry_after_seconds) not in (int, float) or not 1 <= self.retry_after_seconds < math.inf:
            raise ConfigurationError(
                f"retry_after_seconds={self.retry_after_seconds!r} must be a number of seconds, at least 1."
            )
        opaque = [cookie.name for cookie in cookies if not cookie.tells_its_time]
        if self.sessions == "end" and opaque and not self.secret:
            raise ConfigurationError(
                f"session_cookies: {', '.join(map(repr, opaque))}: sessions='end' needs a key to tell old opaque"
                " ids from new ones: give secret=..., or SessionCookie(..., signed=True) if itsdangerous or Django"
                " signed the values, or SessionCookie(..., issued_at=...)."
            )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the one moment at which a frozen value may still be completed

    def rules(self, role: Role | Literal["undrafted"]) -> tuple[Rule, ...]:
        """Return the rules of one kind, parsed."""
        found: tuple[Rule, ...] = getattr(self, role)
        return found

    @property
    def cookies(self) -> tuple[SessionCookie, ...]:
        """The session cookies, bare names made into `SessionCookie`."""
        return self.session_cookies  # type: ignore[return-value]  # __post_init__ replaced what was given

    @property
    def secrets(self) -> tuple[str, ...]:
        """The keys, the one that signs first."""
        return self.secret  # type: ignore[return-value]  # __post_init__ replaced what was given


def _items(setting: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)):
        raise ConfigurationError(f"{setting}={value!r} is a bare string where a list belongs: write [{value!r}].")
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise ConfigurationError(f"{setting}={value!r} is not a list: write {setting}=[...].")
    return tuple(value)


def _rule(role: Role, item: object) -> Rule:
    if isinstance(item, str):
        if not item.strip():
            raise ConfigurationError(f"{role}: {item!r} is empty, which would be every path: name a path.")
        try:
            parsed = PathRule(item)
        except ConfigurationError as error:
            raise ConfigurationError(f"{role}: {error}") from error
        if role in _LETTING_THROUGH:
            _refuse_everything(role, parsed)
        return parsed
    if not isinstance(item, Rule):
        raise ConfigurationError(f"{role}: {item!r} is not a rule: write 'METHOD /path', '/path', or rule(...).")
    if isinstance(item, PathRule) and role in _LETTING_THROUGH:
        _refuse_everything(role, item)
    return item


def _undrafted(item: object) -> Rule:
    parsed = PathRule(item) if isinstance(item, str) else item
    if not isinstance(parsed, PathRule) or parsed.when is not None:
        raise ConfigurationError(
            f"undrafted: {item!r} will not do, since the body is not read before: write 'METHOD /path' or '/path'."
        )
    return parsed


def _refuse_everything(role: Role, item: PathRule) -> None:
    if item.literal or item.when is not None or (role == "reads" and item.method == WEBSOCKET):
        return
    root = item.text.split()[-1] == "/"
    if root and item.method is not None:
        return  # the home page alone, and meant
    hint = "write 'GET /' for the home page alone" if root else "name at least one segment of the path"
    raise ConfigurationError(f"{role}: {item.text!r} would let everything through: {hint}.")


def _cookie(item: Any) -> SessionCookie:
    if isinstance(item, SessionCookie):
        return item
    if isinstance(item, str):
        return SessionCookie(item)
    raise ConfigurationError(f"session_cookies: {item!r} is not a cookie: give its name, or SessionCookie(...).")


def _choice(setting: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{setting}={value!r} is not a choice: use {', '.join(map(repr, choices))}.")


def _secrets(value: Any) -> tuple[str, ...]:
    # The value itself never appears in a message.
    if isinstance(value, (bytes, bytearray, Mapping)) or not isinstance(value, Iterable):
        raise ConfigurationError(f"secret is {type(value).__name__}: it must be a string, or a list of strings.")
    found = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(item, str) for item in found):
        raise ConfigurationError("secret must be a string, or a list of strings.")
    if not all(found):
        raise ConfigurationError("secret is an empty string: give a key, or leave the setting out.")
    return found
