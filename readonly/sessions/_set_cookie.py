"""What is said to a browser to have it forget a cookie, and does the application's own Set-Cookie say that?"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from ..policy import SessionCookie
from ._issued import unquoted

SIGN_SUFFIX: Final = "-ended"
# A form that was left open for longer than that has been given up; its text would not be kept for longer either.
SIGN_SECONDS: Final = 86_400
EPOCH: Final = "Thu, 01 Jan 1970 00:00:00 GMT"


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
    return deletes_at(rest, datetime.now(UTC))


def deletes_at(rest: str, now: datetime) -> bool:
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
