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

import base64
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from itsdangerous import Signer

from .policy import Policy, SessionCookie
from .state import State

logger = logging.getLogger("readonly")

# `off --undo` must be able to take back a slip: so long after it began, no browser is told to forget a cookie.
GRACE: Final = timedelta(seconds=60)
STAMP_SUFFIX: Final = "-since"
SIGN_SUFFIX: Final = "-ended"
# A form that was left open for longer than that has been given up; its text would not be kept for longer either.
SIGN_SECONDS: Final = 86_400
EPOCH: Final = "Thu, 01 Jan 1970 00:00:00 GMT"

Header = tuple[str, str]

# --- when a session was issued --------------------------------------------------------------------------------------

# Lengths of an unpadded base64url signature: SHA-1, SHA-224, SHA-256, SHA-384, SHA-512.
_SIGNATURE_LENGTHS = frozenset({27, 38, 43, 64, 86})
_SIGNATURE = re.compile(r"[A-Za-z0-9_-]+\Z")
_BASE62 = {digit: value for value, digit in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")}
# Signed formats with a time of day in this century; what decodes to anything else is an opaque id with dots in it.
_EARLIEST, _LATEST = 1_000_000_000, 1 << 33


def issued_at(value: str) -> datetime | None:
    """Read when a cookie was signed, without verifying it.

    Known are itsdangerous (`payload.time.signature`: Flask, Starlette) and Django (`payload:time:signature`).

    Args:
        value: The cookie's value, unquoted.

    Returns:
        The time, UTC, or None if the value is not in a known signed format.

    Source: itsdangerous.TimestampSigner; django.core.signing.TimestampSigner.
    """
    for separator, read in ((":", _from_base62), (".", _from_base64)):
        parts = value.rsplit(separator, 2)
        # Both use rsplit: the payload may hold the separator, and a compressed one starts with a dot.
        if len(parts) == 3 and len(parts[2]) in _SIGNATURE_LENGTHS and _SIGNATURE.match(parts[2]):
            seconds = read(parts[1])
            if seconds is not None and _EARLIEST <= seconds < _LATEST:
                return datetime.fromtimestamp(seconds, UTC)
    return None


def _from_base62(text: str) -> int | None:
    if not 1 <= len(text) <= 8:
        return None
    seconds = 0
    for character in text:
        digit = _BASE62.get(character)
        if digit is None:
            return None
        seconds = seconds * 62 + digit
    return seconds


def _from_base64(text: str) -> int | None:
    # Four bytes until the year 2106, five after it.
    if not 6 <= len(text) <= 7 or not _SIGNATURE.match(text):
        return None
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


_ESCAPED = re.compile(r"\\(?:([0-3][0-7]{2})|(.))", re.DOTALL)


def unquoted(value: str) -> str:
    """Return a cookie's value as an application reads it: without quotes and their escapes (RFC 2109, section 4)."""
    value = value.strip()
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    return _ESCAPED.sub(lambda m: chr(int(m[1], 8)) if m[1] else m[2], value[1:-1])


# --- stamps ---------------------------------------------------------------------------------------------------------


class Stamps:
    """Signs since when an opaque session id is known. The stamp says the time and is bound to cookie name and id."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """Take the keys.

        Args:
            secrets: The first one signs, all of them verify.
        """
        # itsdangerous signs with the last key; its comparison takes constant time.
        self._signer = Signer(
            list(reversed(secrets)),
            salt="readonly.session-stamp",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )

    def make(self, name: str, value: str, now: datetime) -> str:
        """Return the stamp for a session id that was handed out now."""
        # Finer than a second: who signs in right after `off` is not to be signed out for the rounding.
        since = str((now - _UNIX) // timedelta(microseconds=1))
        return f"{since}.{self._signer.get_signature(_bound(name, value, since)).decode()}"

    def read(self, name: str, value: str, stamp: str) -> datetime | None:
        """Return since when the id is known, or None if the stamp is not ours for this id."""
        since, _, signature = stamp.partition(".")
        if not (since.isascii() and since.isdigit() and len(since) <= 17):
            return None
        if not self._signer.verify_signature(_bound(name, value, since), signature):
            return None
        return _UNIX + timedelta(microseconds=int(since))


def _bound(name: str, value: str, since: str) -> str:
    return f"{name}\0{value}\0{since}"


_UNIX = datetime(1970, 1, 1, tzinfo=UTC)


# --- one request ----------------------------------------------------------------------------------------------------


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
                    if taken.drop and not (taken.logout and _deletes(rest, now)):
                        dropped = True
                        continue
                    if taken.stamp and self._stamps is not None:
                        stamps += self._stamp(self._cookies[set_name], rest, now)
                    if not _deletes(rest, now):
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
        stamp = "" if _deletes(rest, now) else self._stamps.make(cookie.name, value, now)
        # The same attributes, so that both cookies come and go together, and one more: no script needs a stamp.
        copied = [part.strip() for part in attributes.split(";") if part.strip()]
        if not any(part.lower() == "httponly" for part in copied):
            copied.append("HttpOnly")
        return [("set-cookie", "; ".join([f"{cookie.name}{STAMP_SUFFIX}={stamp}", *copied]))]


_CACHING = frozenset({"cache-control", "expires", "pragma"})


def expiry(cookie: SessionCookie, *, secure: bool, suffix: str = "") -> str:
    """Return the Set-Cookie value that makes a browser forget a cookie.

    A browser forgets it only if name, path, domain and partition are those it was set with, and takes the
    attributes that its prefix demands. Over https `Secure` and `SameSite=None` are always added: without them a
    cookie of an embedded page stays, and they do not matter for one that is about to be gone.

    Args:
        cookie: Which one.
        secure: The request came by https.
        suffix: Put after the name: a stamp goes with its session.

    Source: draft-ietf-httpbis-rfc6265bis, sections 4.1.3 and 5.7; CHIPS.
    """
    return _set(cookie, suffix, "", [f"Expires={EPOCH}", "Max-Age=0"], secure=secure)


def sign(cookie: SessionCookie, *, secure: bool) -> str:
    """Return the Set-Cookie value that leaves a sign with a browser which is told to forget a cookie.

    Args:
        cookie: Which one.
        secure: The request came by https.
    """
    return _set(cookie, SIGN_SUFFIX, "1", [f"Max-Age={SIGN_SECONDS}"], secure=secure)


def _set(cookie: SessionCookie, suffix: str, value: str, until: list[str], *, secure: bool) -> str:
    prefixed = cookie.name.lower().startswith(("__host-", "__secure-"))
    must = prefixed or cookie.partitioned
    parts = [f"{cookie.name}{suffix}={value}", f"Path={cookie.path}", *until, "HttpOnly"]
    if cookie.domain:
        parts.insert(2, f"Domain={cookie.domain}")
    if secure or must:
        parts += ["Secure", "SameSite=None"]
    else:
        parts.append("SameSite=Lax")
    if cookie.partitioned:
        parts.append("Partitioned")
    return "; ".join(parts)


def deletes(rest: str) -> bool:
    """Return whether what follows a Set-Cookie's name and "=" makes the browser forget the cookie, now."""
    return _deletes(rest, datetime.now(UTC))


def _deletes(rest: str, now: datetime) -> bool:
    """Return whether what follows a Set-Cookie's name and "=" makes the browser forget the cookie."""
    value, _, attributes = rest.partition(";")
    if unquoted(value) == "":
        return True
    max_age: str | None = None
    expires: str | None = None
    for part in attributes.split(";"):
        name, _, said = part.partition("=")
        name = name.strip().lower()
        if name == "max-age":
            max_age = said.strip()
        elif name == "expires":
            expires = said.strip()
    if max_age is not None:
        try:
            return int(max_age) <= 0
        except ValueError:
            return False
    return expires is not None and _is_past(expires, now)


def _is_past(text: str, now: datetime) -> bool:
    try:
        found = parsedate_to_datetime(text.replace("-", " "))
    except (ValueError, TypeError):
        return False
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)) <= now
