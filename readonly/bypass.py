"""Who is let through a read-only site: what a request presents, held against what the record says.

The tokens are random and only their hashes are stored, so that no key is shared between the command and the site. A
link is good for one browser: it is exchanged for a cookie, by a redirect that takes the token out of the address.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from .errors import ConfigurationError
from .record import Bypass, token_hash
from .rules import Facts, PathRule, rule
from .sessions import unquoted
from .state import State

logger = logging.getLogger("readonly")

HEADER: Final = "X-Read-Only-Bypass"
# No subdomain and no plain connection can set a cookie of this prefix (RFC 6265bis, section 4.1.3.2).
COOKIE: Final = "__Host-readonly-bypass"
LINK_PATH: Final = "/-/readonly/bypass/"


class Bypasses:
    """The bypasses that a state knows, ready to be compared with. Any thread may use it."""

    def __init__(self) -> None:
        self._known: tuple[State | None, tuple[tuple[Bypass, tuple[PathRule, ...]], ...]] = (None, ())

    def holder(
        self, facts: Facts, cookies: Sequence[str], state: State, now: datetime, *, anywhere: bool = False
    ) -> Bypass | None:
        """Return the bypass that a request came with, if it is good for this request, now.

        Args:
            facts: The request.
            cookies: Each value of its Cookie header.
            state: The state that the request is judged by.
            now: The time, timezone-aware.
            anywhere: It need not be good for this very request.
        """
        standing = self._standing(state)
        if not standing:
            return None
        presented = [token_hash(token) for token in tokens(facts.headers.get(HEADER.lower()), cookies)]
        if not presented:
            return None
        return next(
            (
                bypass
                for bypass, rules in standing
                if now < bypass.until
                and _holds(bypass, presented)
                and (anywhere or not rules or any(one.lets_through(facts) for one in rules))
            ),
            None,
        )

    def linked(self, hashed: str, state: State, now: datetime) -> Bypass | None:
        """Return the bypass whose link, hashed, this is; None for a link that does nothing (any more)."""
        found = [one for one, _ in self._standing(state) if hmac.compare_digest(one.link, hashed) and now < one.until]
        return found[0] if found else None

    def _standing(self, state: State) -> tuple[tuple[Bypass, tuple[PathRule, ...]], ...]:
        known = self._known
        if known[0] is not state:
            known = self._known = (state, tuple(_compiled(standing(state))))
        return known[1]


def standing(state: State) -> tuple[Bypass, ...]:
    """Return the bypasses that are not revoked and whose read-only time is not over; they may have run out."""
    if state.record is None or not state.record.bypasses or not state.read_only:
        return ()
    causes = {cause.id for cause in state.causes}
    return tuple(one for one in state.record.bypasses if not one.revoked and not causes.isdisjoint(one.causes))


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


def _holds(bypass: Bypass, presented: Sequence[str]) -> bool:
    # Hashes, each compared in constant time: how long it takes tells nothing of any token.
    return any(hmac.compare_digest(mine, theirs) for mine in bypass.keys for theirs in presented)


def _compiled(bypasses: Sequence[Bypass]) -> list[tuple[Bypass, tuple[PathRule, ...]]]:
    found = []
    for bypass in bypasses:
        try:
            found.append((bypass, tuple(rule(path) for path in bypass.paths)))
        except ConfigurationError as error:
            # A newer command may know rules that this version does not: then it is good for nothing here.
            logger.warning("readonly: the bypass %s lets nobody through here: %s", bypass.name, error)
    return found


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
