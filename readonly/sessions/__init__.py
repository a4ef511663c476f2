"""Which session cookies are taken off a request, which are expired, and which leave with a response.

A session that was issued before the site turned read-only has ended, also after it is writable again. When it was
issued is read from the cookie itself where its format says so (itsdangerous, Django signing); whether that is
genuine is for the application to verify, which has the key. An opaque id says nothing, so it is bound to a stamp: a
second cookie, signed by us, that says since when this very id is known. An id without a stamp is older than any
cut-off.

A browser that was told to forget its session has a sign for it until the visitor was told, too: a third cookie, by
which a form that was opened before, and is sent after, is not taken for that of somebody who never had a session.

Everything here is text: header values as latin-1 strings, names of response headers in any case.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ..policy import Policy, SessionCookie
from ..state import State
from ._issued import issued_at, unquoted
from ._set_cookie import EPOCH, SIGN_SECONDS, SIGN_SUFFIX, deletes, deletes_at, expiry, sign
from ._stamps import Stamps

__all__ = [
    "EPOCH",
    "GRACE",
    "SIGN_SECONDS",
    "SIGN_SUFFIX",
    "STAMP_SUFFIX",
    "UNTOUCHED",
    "Header",
    "Sessions",
    "Stamps",
    "Taken",
    "deletes",
    "expiry",
    "issued_at",
    "sign",
    "unquoted",
]

logger = logging.getLogger("readonly")

# `off --undo` must be able to take back a slip: so long after it began, no browser is told to forget a cookie.
GRACE: Final = timedelta(seconds=60)
STAMP_SUFFIX: Final = "-since"

Header = tuple[str, str]


@dataclass(slots=True)
class Taken:
    """What the session rules say about one request.

    Attributes:
        cookies: The Cookie headers that remain, each byte for byte but for what was taken out; None: unchanged.
        lost: How many session cookies were taken off.
        ended: It came with a session that was ended, or with the sign of one, and with none that lives. (Not in the
            first minute: a slip that is taken back costs some 503s and nothing else.)
        expire: Cookies that the browser is told to forget.
        signs: Those of which it has the sign that it was told before.
        drop: Session cookies are taken off the response.
        stamp: Opaque ids that leave with the response are stamped.
        bearer: The bearer token is taken off.
        logout: The application's own deletions of session cookies may pass.
    """

    cookies: tuple[str, ...] | None = None
    lost: int = 0
    ended: bool = False
    expire: tuple[SessionCookie, ...] = ()
    signs: tuple[SessionCookie, ...] = ()
    drop: bool = False
    stamp: bool = False
    bearer: bool = False
    logout: bool = False

    @property
    def edits(self) -> bool:
        """True if the response's headers have to be looked at."""
        return bool(self.lost or self.expire or self.signs or self.drop or self.stamp)


UNTOUCHED: Final = Taken()


class Sessions:
    """A policy's session rules, compiled. Pure; any thread may use it.

    Attributes:
        any: The policy names session cookies, or ends bearer tokens: otherwise nothing here ever applies.
        names: Names of the cookies, stamps not included.
        stamping: Some cookie may hold an opaque id, and there is a key to stamp it with.
    """

    def __init__(self, policy: Policy) -> None:
        self._default = policy.sessions
        self._bearer = policy.bearer == "end"
        self._cookies = {cookie.name: cookie for cookie in policy.cookies}
        self._stamps = Stamps(policy.secrets) if policy.secrets else None
        self.names = frozenset(self._cookies)
        self.any = bool(self.names) or self._bearer
        self.stamping = self._stamps is not None and any(not c.tells_its_time for c in policy.cookies)
        named = "|".join(re.escape(name) for name in self._cookies)
        # A cookie that is hidden where only some parsers see it (after a blank, a comma, inside quotes) counts, too:
        # http.cookies reads `a=1 session=2` as two cookies.
        self._named = re.compile(rf"(?:\A|[\s,\"])({named})\s*=(.*)\Z", re.DOTALL) if named else None
        self._known: tuple[State, str, datetime | None, datetime | None] | None = None
        self._warned = False

    # --- what the state says --------------------------------------------------------------------------------------

    def applies(self, state: State, now: datetime) -> bool:
        """Return whether a state takes cookies off requests at all: cheap, for responses and fast paths."""
        how, cut, until = self._rules(state)
        return how != "keep" or (cut is not None and (until is None or now < until))

    def _rules(self, state: State) -> tuple[str, datetime | None, datetime | None]:
        """Return what happens to sessions, the cut-off, and when the last cookie from before it has gone by itself."""
        known = self._known
        if known is None or known[0] is not state:
            # A process that was told to obey nothing (READONLY_DISABLED) has causes and is not read-only.
            inert = bool(state.causes) and not state.read_only
            cut = state.sessions_ended_before(self._default) if self.names and not inert else None
            ages = [cookie.max_age_seconds for cookie in self._cookies.values()]
            oldest = None if None in ages else max((age for age in ages if age is not None), default=None)
            until = None if cut is None or oldest is None else cut + timedelta(seconds=oldest)
            how = "keep" if inert else state.sessions(self._default)
            known = self._known = (state, how, cut, until)
        return known[1:]

    # --- a request --------------------------------------------------------------------------------------------------

    def look(self, headers: Sequence[str], state: State, now: datetime) -> Taken:
        """Say what is taken off a request that the session rules apply to.

        Args:
            headers: Its Cookie headers.
            state: The state that the request is judged by.
            now: The time, timezone-aware.
        """
        how, cut, until = self._rules(state)
        closed = how != "keep"
        cutting = cut is not None and (closed or until is None or now < until)
        if not closed and not cutting:
            return UNTOUCHED
        # After `off` the operator has had the time to undo; while read-only the first minute spares the browser.
        spared = cut is not None and state.read_only and now - cut < GRACE
        taken = Taken(
            drop=closed and self._named is not None,
            stamp=not closed and self.stamping,
            bearer=closed and self._bearer,
        )
        if not headers or self._named is None:
            return taken
        found = self._find(headers)
        taken.signs = tuple(self._signs(headers))
        if not found:
            taken.ended = bool(taken.signs)
            return taken
        gone: set[int] = set()
        expire: dict[str, SessionCookie] = {}
        ended = lives = False
        for position, (name, value) in found.items():
            cookie = self._cookies[name]
            old = cutting and cut is not None and self._older(cookie, value, cut, headers, now)
            if closed or old:
                gone.add(position)
            else:
                lives = True
            if (old or how == "end") and not spared:
                ended = True
                expire[name] = cookie
        taken.ended = (ended or bool(taken.signs)) and not lives
        if gone:
            self._take(taken, headers, gone, {found[position][0] for position in gone}, keep_stamps=lives)
        taken.expire = tuple(expire.values())
        return taken

    def logout(self, headers: Sequence[str], state: State, now: datetime) -> Taken:
        """Say what is taken off a logout while read-only: every session, whatever the state does to others.

        The application is handed an anonymous request, since its own way of ending a session may be a write.
        """
        taken = Taken(drop=True, logout=True, bearer=state.sessions(self._default) != "keep" and self._bearer)
        found = self._find(headers)
        if found:
            names = {name for name, _ in found.values()}
            self._take(taken, headers, set(found), names, keep_stamps=False)
            taken.expire = tuple(self._cookies[name] for name in sorted(names))
        return taken

    def away(self, state: State, now: datetime) -> Taken:
        """Say what applies to a request that is exempt or has a bypass: it keeps all, and its new ids are stamped."""
        return Taken(stamp=True) if self.stamping and self.applies(state, now) else UNTOUCHED

    def carried(self, headers: Iterable[str]) -> bool:
        """Return whether a session cookie is among these Cookie headers."""
        return bool(self._find(headers))

    def told(self, headers: Iterable[str]) -> list[str]:
        """Return the values of the session cookies among these Cookie headers."""
        return [value for _, value in self._find(headers).values()]

    def _find(self, headers: Iterable[str]) -> dict[int, tuple[str, str]]:
        """Return the session cookies by their position, counted over all headers: name and unquoted value."""
        found: dict[int, tuple[str, str]] = {}
        if self._named is None:
            return found
        position = 0
        for header in headers:
            for part in header.split(";"):
                match = self._named.search(part)
                if match is not None:
                    found[position] = (match[1], unquoted(match[2]))
                position += 1
        return found

    def _signs(self, headers: Iterable[str]) -> Iterator[SessionCookie]:
        """Return the cookies of which the browser has the sign that it was told to forget them."""
        for header in headers:
            if SIGN_SUFFIX not in header:
                continue
            for part in header.split(";"):
                name = part.partition("=")[0].strip()
                cookie = self._cookies.get(name.removesuffix(SIGN_SUFFIX))
                if cookie is not None and name.endswith(SIGN_SUFFIX):
                    yield cookie

    def _older(self, cookie: SessionCookie, value: str, cut: datetime, headers: Sequence[str], now: datetime) -> bool:
        if cookie.max_age_seconds is not None and now >= cut + timedelta(seconds=cookie.max_age_seconds):
            return False  # what was set before the cut-off has gone by itself
        if cookie.issued_at is not None:
            try:
                since = cookie.issued_at(value)
            except Exception:
                since = None
                self._warn("readonly: SessionCookie(%r): issued_at failed; such a session counts as ended", cookie.name)
        else:
            since = issued_at(value)
            if since is None and not cookie.signed:
                if self._stamps is None:
                    # Ended for good, with no way to tell a new session from an old one, nobody could sign in again.
                    self._warn(
                        "readonly: cookie %r holds opaque ids and Policy(secret=) is not set: sessions from before the "
                        "read-only time come back after it",
                        cookie.name,
                    )
                    return False
                since = self._since(cookie.name, value, headers)
        return since is None or since < cut

    def _since(self, name: str, value: str, headers: Sequence[str]) -> datetime | None:
        if self._stamps is None:
            return None
        wanted = name + STAMP_SUFFIX
        for header in headers:
            for part in header.split(";"):
                found, _, stamp = part.partition("=")
                if found.strip() == wanted:
                    since = self._stamps.read(name, value, unquoted(stamp))
                    if since is not None:
                        return since
        return None

    @staticmethod
    def _take(taken: Taken, headers: Sequence[str], gone: set[int], names: set[str], *, keep_stamps: bool) -> None:
        stamps = frozenset() if keep_stamps else frozenset(name + STAMP_SUFFIX for name in names)
        kept_headers: list[str] = []
        position = 0
        for header in headers:
            parts = header.split(";")
            kept = [
                part
                for index, part in enumerate(parts, position)
                if index not in gone and part.partition("=")[0].strip() not in stamps
            ]
            position += len(parts)
            if len(kept) == len(parts):
                kept_headers.append(header)
            elif any(part.strip() for part in kept):
                kept_headers.append(";".join(kept).lstrip())
        taken.cookies = tuple(kept_headers)
        taken.lost = len(gone)

    def _warn(self, message: str, name: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(message, name)

    # --- a response -------------------------------------------------------------------------------------------------

    def answer(
        self, headers: list[Header], taken: Taken, now: datetime, *, secure: bool, told: bool = False
    ) -> list[Header]:
        """Return a response's headers as they may leave.

        Args:
            headers: The application's.
            taken: What was said about the request.
            now: The time, timezone-aware.
            secure: The request came by https.
            told: The visitor learns by this very response that the session has ended: no sign is needed for that.
        """
        kept: list[Header] = []
        stamps: list[Header] = []
        dropped = False
        renewed: set[str] = set()
        for name, value in headers:
            if name.lower() == "set-cookie":
                set_name, _, rest = value.partition("=")
                set_name = set_name.strip()
                if set_name in self.names:
                    if taken.drop and not (taken.logout and deletes_at(rest, now)):
                        dropped = True
                        continue
                    if taken.stamp and self._stamps is not None:
                        stamps += self._stamp(self._cookies[set_name], rest, now)
                    if not deletes_at(rest, now):
                        renewed.add(set_name)
            kept.append((name, value))
        kept += stamps
        # Who signs in with the cookie of an ended session has a new one by this very response.
        expire = [cookie for cookie in taken.expire if cookie.name not in renewed]
        kept += [("set-cookie", expiry(cookie, secure=secure)) for cookie in expire]
        if self._stamps is not None:
            kept += [
                ("set-cookie", expiry(cookie, secure=secure, suffix=STAMP_SUFFIX))
                for cookie in expire
                if not cookie.tells_its_time
            ]
        over = told or bool(renewed)
        if not (over or taken.logout):
            kept += [("set-cookie", sign(cookie, secure=secure)) for cookie in expire]
        elif over:
            kept += [("set-cookie", expiry(cookie, secure=secure, suffix=SIGN_SUFFIX)) for cookie in taken.signs]
        if taken.lost or dropped or taken.expire:
            # A page that was made for somebody who is signed in here, and is not, is nobody else's.
            kept = [(name, value) for name, value in kept if name.lower() not in _CACHING]
            kept.append(("cache-control", "no-store"))
        return kept

    def _stamp(self, cookie: SessionCookie, rest: str, now: datetime) -> list[Header]:
        raw, _, attributes = rest.partition(";")
        value = unquoted(raw)
        if cookie.issued_at is not None or cookie.signed or self._stamps is None or issued_at(value) is not None:
            return []
        stamp = "" if deletes_at(rest, now) else self._stamps.make(cookie.name, value, now)
        # The same attributes, so that both cookies come and go together, and one more: no script needs a stamp.
        copied = [part.strip() for part in attributes.split(";") if part.strip()]
        if not any(part.lower() == "httponly" for part in copied):
            copied.append("HttpOnly")
        return [("set-cookie", "; ".join([f"{cookie.name}{STAMP_SUFFIX}={stamp}", *copied]))]


_CACHING = frozenset({"cache-control", "expires", "pragma"})
