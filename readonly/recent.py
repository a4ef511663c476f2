"""What a visitor wrote a moment ago, so that the next page shows it though it is read from a replica.

While a site is writable and reads from replicas all the same, a visitor who has just written would often not see it:
the replica is a little behind. A signed cookie carries where the primary's log stood after the write, for a minute; a
reader with that cookie is sent to a replica that has got there, or to the primary. Where a server does not tell its
position, it goes by the time that has passed.

Middleware and databases know this module and not each other. No I/O; the cookie holds no secret, and nobody can make
one up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from itsdangerous import BadSignature, URLSafeSerializer

from .errors import ConfigurationError

COOKIE = "readonly_recent"
# A replica that is further behind than this is not read anyway (`max_lag`, 10 s unless set higher).
SECONDS = 60.0
SALT = "readonly.recent"


@dataclass(frozen=True, slots=True)
class Wrote:
    """A visitor's last write to one database.

    Attributes:
        system: The system that the position belongs to; "": nobody knows.
        at: The primary's position after it; "": nobody knows, and time is all there is to go by.
        seconds_ago: How long ago it was.
    """

    system: str = ""
    at: str = ""
    seconds_ago: float = 0.0


class Recent:
    """What the visitor of one request wrote lately: before it, by the cookie, and in it.

    Attributes:
        written_to: The databases that were written to in this request.
        doubtful: The cookie was not ours, so what it said is not known: reads stay on the primaries.
    """

    def __init__(self, known: Mapping[str, tuple[str, str, float]] | None = None, *, doubtful: bool = False) -> None:
        self._known = dict(known or {})
        self.doubtful = doubtful
        self.written_to: set[str] = set()

    def of(self, database: str, *, now: Callable[[], float] = time.time) -> Wrote | None:
        """Return the visitor's last write to a database; None: there was none."""
        found = self._known.get(database)
        if found is None:
            return Wrote() if self.doubtful else None
        system, at, when = found
        return Wrote(system, at, max(0.0, now() - when))

    def wrote(self, database: str, *, system: str = "", at: str = "", now: Callable[[], float] = time.time) -> None:
        """Say that something was committed to a database just now."""
        self.written_to.add(database)
        self._known[database] = (system, at, now())

    @property
    def written(self) -> bool:
        """Whether something was written in this request."""
        return bool(self.written_to)

    def dump(self) -> dict[str, tuple[str, str, float]]:
        """Return what the cookie is to hold."""
        return dict(self._known)


_recent: ContextVar[Recent | None] = ContextVar("readonly_recent", default=None)


def current() -> Recent | None:
    """Return what the visitor of this request wrote lately; None outside of requests that are followed."""
    return _recent.get()


def wrote(database: str = "main") -> None:
    """Say that this request wrote to a database in a way that its guard does not see: raw, in autocommit, by a job.

    Args:
        database: Its name: the `Database`'s, or the alias.
    """
    found = _recent.get()
    if found is not None:
        found.wrote(database)


@contextmanager
def following(recent: Recent) -> Iterator[Recent]:
    """Have code in a with block, and what it starts, take part in one request."""
    token = _recent.set(recent)
    try:
        yield recent
    finally:
        _recent.reset(token)


class Cookie:
    """The cookie that carries it from one request to the next. May be used by all threads.

    Args:
        secret: What signs it, or several: the first signs, all of them verify.
        name: Its name.
        seconds: How long a write is recent.
        path: The path that it is sent for.
        domain: The domain that it is sent to; None: the host alone.

    Raises:
        ConfigurationError: There is no secret, or `seconds` is no number above 0.
    """

    def __init__(
        self,
        secret: str | Sequence[str],
        *,
        name: str = COOKIE,
        seconds: float = SECONDS,
        path: str = "/",
        domain: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        secrets = [secret] if isinstance(secret, str) else list(secret)
        if not secrets or not all(secrets):
            raise ConfigurationError("secret=… is empty: without one anybody could make up positions; give SECRET_KEY")
        if not seconds > 0:
            raise ConfigurationError(f"seconds={seconds!r} is no time: write a number above 0, such as {SECONDS:g}")
        # itsdangerous signs with the last of several.
        self._signer = URLSafeSerializer(list(reversed(secrets)), salt=SALT)
        self.name = name
        self._seconds = seconds
        self._path = path
        self._domain = domain
        self._now = now

    def read(self, header: str) -> Recent:
        """Return what a request's Cookie header says; one that is not ours says that nothing is known."""
        if self.name not in header:
            return Recent()
        pairs = (part.strip().partition("=") for part in header.split(";"))
        value = next((value for name, _, value in pairs if name == self.name), None)
        if value is None:
            return Recent()
        try:
            known = _checked(self._signer.loads(value))
        except (BadSignature, ValueError):
            return Recent(doubtful=True)
        now = self._now()
        return Recent({name: said for name, said in known.items() if now - said[2] <= self._seconds})

    def write(self, recent: Recent, *, secure: bool) -> str | None:
        """Return the Set-Cookie header's value that a response needs; None: none.

        A cookie that was not ours is taken back, so that its visitor does not stay on the primary for good.
        """
        if not recent.written:
            return self._set("", 0, secure=secure) if recent.doubtful else None
        text = self._signer.dumps(recent.dump())
        return self._set(str(text), int(self._seconds) or 1, secure=secure)

    def _set(self, value: str, max_age: int, *, secure: bool) -> str:
        parts = [f"{self.name}={value}", f"Path={self._path}", f"Max-Age={max_age}", "HttpOnly", "SameSite=Lax"]
        if self._domain is not None:
            parts.append(f"Domain={self._domain}")
        if secure:
            parts.append("Secure")
        return "; ".join(parts)


def _checked(found: object) -> dict[str, tuple[str, str, float]]:
    if not isinstance(found, dict):
        raise ValueError("no object")  # signed by us, by a version that wrote something else
    known = {}
    for name, said in found.items():
        if not isinstance(said, list) or len(said) != 3:
            raise ValueError("no write")
        system, at, when = said
        if not (isinstance(system, str) and isinstance(at, str) and isinstance(when, int | float)):
            raise ValueError("no write")
        known[str(name)] = (system, at, float(when))
    return known


__all__ = ["COOKIE", "SECONDS", "Cookie", "Recent", "Wrote", "current", "following", "wrote"]
