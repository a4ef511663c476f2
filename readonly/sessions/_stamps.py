"""Since when is an opaque session id known: what does the cookie beside it say, and is that genuine?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from itsdangerous import Signer

_UNIX = datetime(1970, 1, 1, tzinfo=UTC)


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
