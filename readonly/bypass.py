"""Who is let through a read-only site: what a request presents, held against what the record says.

The tokens are random and only their hashes are stored, so that no key is shared between the command and the site. A
link is good for one browser: it is exchanged for a cookie, by a redirect that takes the token out of the address.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from .errors import ConfigurationError
from .record import Bypass, token_hash
from .rules import Facts, PathRule, effective_methods, rule
from .sessions import unquoted
from .state import State

logger = logging.getLogger("readonly")

HEADER: Final = "X-Read-Only-Bypass"
# No subdomain and no plain connection can set a cookie of this prefix (RFC 6265bis, section 4.1.3.2).
COOKIE: Final = "__Host-readonly-bypass"
LINK_PATH: Final = "/-/readonly/bypass/"


@dataclass(frozen=True, slots=True)
class Held:
    """A bypass that a request came with, and that is good now.

    Attributes:
        bypass: Which one.
        rules: Where it is good; none: everywhere.
    """

    bypass: Bypass
    rules: tuple[PathRule, ...]

    def covers(self, facts: Facts) -> bool:
        """Return whether it is good for this very request, by each method that the application may run it as."""
        if not self.rules:
            return True
        views = [facts, *(facts.with_method(method) for method in effective_methods(facts)[1:])]
        return all(any(one.lets_through(view) for one in self.rules) for view in views)


class _Known(NamedTuple):
    """What a state lets through, by the hashes of keys and of links.

    To look one up tells nothing of any token: how long it takes is decided by a hash of a hash, of which nobody can
    choose a part.
    """

    state: State | None
    named: tuple[Bypass, ...]
    keys: Mapping[str, Held]
    links: Mapping[str, Bypass]


class Bypasses:
    """The bypasses that a state knows, ready to be asked for. Any thread may use it."""

    def __init__(self, latest: Callable[[], datetime]) -> None:
        """Know of none.

        Args:
            latest: Tells the latest that the store's clock can be: by that clock a bypass was given, and by it it ends.
        """
        self._latest = latest
        self._known = _Known(None, (), {}, {})  # swapped whole: threads may come with different states

    def held(self, facts: Facts, cookies: Sequence[str], state: State) -> list[Held]:
        """Return the bypasses that a request came with and that are good now, wherever that is.

        Args:
            facts: The request.
            cookies: Each value of its Cookie header.
            state: The state that the request is judged by.
        """
        keys = self._of(state).keys
        if not keys:
            return []
        presented = tokens(facts.headers.get(HEADER.lower()), cookies)
        found = [held for held in map(keys.get, map(token_hash, presented)) if held is not None]
        if not found:
            return []
        now = self._latest()
        return [held for held in found if now < held.bypass.until]

    def linked(self, hashed: str, state: State) -> Bypass | None:
        """Return the bypass whose link, hashed, this is; None for a link that does nothing (any more)."""
        found = self._of(state).links.get(hashed)
        return found if found is not None and self._latest() < found.until else None

    def _of(self, state: State) -> _Known:
        known = self._known
        if known.state is not state:
            named = state.bypasses
            if named == known.named:  # most states differ in something else
                known = known._replace(state=state)
            else:
                compiled = list(_compiled(named))
                keys = {key: held for held in compiled for key in held.bypass.keys}
                links = {held.bypass.link: held.bypass for held in compiled if held.bypass.link}
                known = _Known(state, named, keys, links)
            self._known = known
        return known


def tokens(header: str | None, cookies: Sequence[str]) -> list[str]:
    """Return the tokens that a request presents, by header and by cookie."""
    found = [] if not header else [header.strip()]
    for cookie in cookies:
        if COOKIE not in cookie:
            continue
        for part in cookie.split(";"):
            name, _, value = part.partition("=")
            if name.strip() == COOKIE:
                found.append(unquoted(value))
    return found


def _compiled(bypasses: Sequence[Bypass]) -> Iterator[Held]:
    for bypass in bypasses:
        try:
            yield Held(bypass, tuple(rule(path) for path in bypass.paths))
        except ConfigurationError as error:
            # A newer command may know rules that this version does not: then it is good for nothing here.
            logger.warning("readonly: the bypass %s lets nobody through here: %s", bypass.name, error)


def exchanged_for(bypass: Bypass, token: str, now: datetime) -> str:
    """Return the Set-Cookie header that the link of a bypass is exchanged for."""
    seconds = max(0, int((bypass.until - now).total_seconds()))
    return f"{COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; Secure; SameSite=Lax"


def begins_at(bypass: Bypass) -> str:
    """Return the path that the link leads to: the beginning of what the bypass is good for."""
    if not bypass.paths:
        return "/"
    path = bypass.paths[0].rpartition(" ")[2]
    kept = []
    for segment in path.split("/")[1:]:
        if segment == "*" or segment.startswith("{"):
            kept.append("")
            break
        kept.append(segment)
    return "/" + "/".join(kept)
