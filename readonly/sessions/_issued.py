"""When was a session cookie signed, as its own value says, and what is that value without its quotes?"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime

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
