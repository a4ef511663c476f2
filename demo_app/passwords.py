"""Password hashes, by scrypt from the standard library."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

COST: Final = 256
"""Far too low for a real site (use 2**14 or more): here a load of logins should measure the site and not the hash."""


def hashed(password: str, *, salt: bytes | None = None) -> str:
    """Return `salt$digest` in hexadecimal."""
    salt = secrets.token_bytes(16) if salt is None else salt
    digest = hashlib.scrypt(password.encode(), salt=salt, n=COST, r=8, p=1, dklen=32)
    return f"{salt.hex()}${digest.hex()}"


def matches(password: str, stored: str) -> bool:
    """Return whether this is the password that was hashed; an account without one (`""`) matches nothing."""
    salt, separator, _ = stored.partition("$")
    if not separator:
        return False
    return hmac.compare_digest(hashed(password, salt=bytes.fromhex(salt)), stored)
