"""Where the record lives: the contract that every store keeps, and the URL that names one.

A store knows bytes, not records: what they mean is `record.py`'s and `transitions`' business. It is used
by one thread at a time, except for `wake`, which any thread may call. Every call is bounded by `timeout` (and
once more by it where a connection must be made first, or a server be found). Stores hold nothing before their first
call, and connect again after `close`.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable
from urllib.parse import SplitResult, parse_qs, urlsplit

from readonly.errors import ConfigurationError
from readonly.record_format import dump
from readonly.transitions import first_record

DEFAULT_TIMEOUT_SECONDS = 1.0
# A member that reports each second is silent after so many.
DEFAULT_ALIVE_SECONDS = 4.0
# How many members that are alive each member remembers, and with them whoever is silent in between: a member that
# stands still remembers nobody. A crowd that died at once is remembered up to so many.
NEIGHBOURS = 3
NEIGHBOURS_AT_MOST = 100
# For so long a process that is over is remembered for what it may have begun. Where a transaction may last longer, a
# lost registry proves nothing for the rest of that time (`confirmation.confirm`).
ENDED_SECONDS = 600.0
# Members that reported within this time are counted: intervals go by how many are there, not by all of this week's.
LATELY_SECONDS = 600.0
# Of members that fell silent, so many are looked at in one go.
SILENT_AT_MOST = 100
# A person's word about a member is kept as long as members of a lost registry may still be asked after.
FORGOTTEN_SECONDS = 90 * 24 * 3600.0
# Below every lineage that a person makes by `init`, and the same in every record that a store made by itself:
# such records join, so that a file that was deleted and made again never lifts a cause that some process knows.
AUTOMATIC_LINEAGE = "0"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a store said.

    Attributes:
        record: The stored record, byte for byte, or None where there is none.
        at: The store's clock, UTC.
        incarnation_seconds: For how long this incarnation of the store is known to its users: small after a
            restart, a failover, a FLUSHALL or a new file; then others may know more than it does (design rule
            8).
        members: How many members have reported lately. (Those that left stay registered for days: no interval should
            grow with their number.)
        here_since: For each standing cause, when it came into this store and has not left it since, by the
            store's clock. Filled in a census only.
        registry: In the answer to a report, and in a census: what tells this incarnation of the registry from an
            earlier one, which was lost or has gone back.
        noted: In the answer to a report of a new member: others know that it is there (`transitions.noted`).
        neighbours: In the answer to a report: ids of those that follow this member in a ring by id, up to the third
            that is alive, without those that left with nothing begun. So each member remembers some others, and each
            is remembered by some that are alive (design rule 6).
    """

    record: bytes | None
    at: datetime
    incarnation_seconds: float = float("inf")
    members: int = 0
    here_since: Mapping[str, datetime] = field(default_factory=dict)
    registry: str = ""
    neighbours: tuple[str, ...] = ()
    noted: bool = True


@dataclass(frozen=True, slots=True)
class Newcomer:
    """What a member adds to its report as long as nobody is known to remember it.

    Attributes:
        young_seconds: In a registry younger than this, that nobody else is there proves nothing.
    """

    young_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A member's last report, and when the store got it, by the store's clock."""

    member: str
    report: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Census:
    """Record and registry, read in one atomic step: "safe" is said from nothing less (protocol.md 1.25)."""

    reading: Reading
    reports: tuple[Seen, ...]
    # Ids that a person took off the registry, and so vouched for.
    forgotten: frozenset[str] = frozenset()


@runtime_checkable
class Store(Protocol):
    """One site's record, its members' reports, and its logs.

    Every call raises `StoreUnreachable` when the store does not answer within `timeout` or does not take what
    it is told (out of memory, a replica, no permission). After that the call's effect is unknown, never "not
    done".

    Attributes:
        url: The whole URL; it may hold a password: show `redacted(url)`.
        site: The site that the URL names.
        timeout: Seconds that one call may take.
    """

    url: str
    site: str
    timeout: float

    def read(self) -> Reading:
        """Read the record. Writes nothing, ever."""
        ...

    def replace(self, record: bytes, *, was: bytes | None, causes: Sequence[str] = ()) -> Reading:
        """Put `record` in place of `was`, if that stands there, in one atomic step, and wake all waiters.

        A call that raised `StoreUnreachable` has taken effect by then, or never will: what hangs in the network or
        waits for a server that stands still is refused when it arrives. An `off` that was given up on must not open
        a site that was confirmed since.

        Args:
            record: The new record.
            was: What must stand there, byte for byte; None: nothing.
            causes: Ids of the causes that stand in `record`; the store notes the time for each that it did
                not hold, all of them where it held no record.

        Returns:
            What stands there now: ours if `reading.record == record`, else somebody else's.
        """
        ...

    def report(
        self,
        member: str,
        report: bytes,
        *,
        keep_seconds: float,
        alive_seconds: float = DEFAULT_ALIVE_SECONDS,
        announce: bool = False,
        ended: bool = False,
        leaves: bool = False,
        new: Newcomer | None = None,
        names: Sequence[str] = (),
    ) -> Reading:
        """Register a member and read the record, in one atomic round trip (design rule 7).

        Args:
            member: The member's id.
            report: Its report, JSON.
            keep_seconds: After so long without a report a member is dropped from the registry.
            alive_seconds: The sender is alive for so long, and takes others for alive that have reported within it.
            announce: Wake those that `wait(for_reports=True)`: this report says something new.
            ended: The process is over, by its own word or another's: `silent` returns it no more, and it stays a
                neighbour for `ENDED_SECONDS` only.
            leaves: It has ended with nothing begun: from now on it is nobody's neighbour.
            new: It admits no write before `noted` is answered. With its first report to this registry, those that are
                alive and will have it for a neighbour are asked to report at once: the last three before it.
            names: Whom the sender remembers now and has not named to this registry yet: they are noted.
        """
        ...

    def census(self) -> Census:
        """Read record and registry in one atomic step, `here_since` and the registry's name included."""
        ...

    def silent(self, *, longer_than: float, shorter_than: float, before: datetime | None = None) -> tuple[Seen, ...]:
        """Return members that have been silent for so many seconds, and have not ended; the last that spoke first.

        Args:
            longer_than: Seconds since their last report, at least.
            shorter_than: Seconds since then, at most.
            before: Only those that reported before this instant: where there are `SILENT_AT_MOST`, the last one's time
                asks for the next ones.
        """
        ...

    def forget(self, member: str) -> None:
        """Take one member off the registry, and remember that a person vouched for it: also if it is not there."""
        ...

    def wait(self, timeout: float, *, for_reports: bool = False, member: str = "") -> bool:
        """Wait until the record may have changed, or this member is asked to report at once.

        A hint may come for nothing, and one may be lost: whoever waits reads at an interval all the same. A
        new or renewed subscription counts as a hint, since what was published in between is gone. A
        connection that does not answer a ping is dropped and made again.

        Args:
            timeout: Seconds to wait at most.
            for_reports: Return for announced reports, too.
            member: Whose thread waits; "" for a command.

        Returns:
            True for a hint; False at the timeout or when `wake` was called.

        Raises:
            StoreUnreachable: The connection is lost and could not be made again at once; the caller backs
                off.
        """
        ...

    def wake(self) -> None:
        """Make a running or the next `wait` return. Any thread may call this, also from a signal handler."""
        ...

    def append(self, log: str, entry: bytes, *, keep: int) -> None:
        """Append to a bounded log kept apart from the record; the oldest entries beyond `keep` go."""
        ...

    def entries(self, log: str, *, last: int) -> Sequence[bytes]:
        """Return the last entries of a log, oldest first."""
        ...

    def settled(self, timeout: float) -> str:
        """Return "" when what was written so far, by anybody, survives the loss of the server that took it.

        It proves that for what the last reading of this handle showed, if it was read from the same server.

        Args:
            timeout: Seconds to wait for copies and disk, beside those that a call may take.

        Returns:
            Else one sentence that says what is missing; also where it is for ever. Stores that lose nothing by
            themselves, or have no copy to wait for, return "".
        """
        ...

    def warnings(self) -> tuple[str, ...]:
        """Return one sentence for each setting of the store by which it can lose the record, as far as it tells."""
        ...

    def try_write(self) -> None:
        """See whether a write would be taken now, from this user and by this server; changes nothing.

        Raises:
            StoreUnreachable: It would not; the message says why.
        """
        ...

    def reopened(self) -> Store:
        """Return the same store with connections of its own: for a forked child, or another thread."""
        ...

    def close(self) -> None:
        """Close the connections that this object opened in this process."""
        ...


def automatic_record(site: str, *, at: datetime, by: str) -> bytes:
    """Return the first record of a store that initialises itself: writable, and overruled by any other."""
    return dump(replace(first_record(site, at=at, by=by), lineage=AUTOMATIC_LINEAGE))


def site_of(parts: SplitResult, url: str) -> str:
    """Return the site that a store URL names.

    Raises:
        ConfigurationError: It names none, or more than one, or one that can't be a name.
    """
    named = parse_qs(parts.query, keep_blank_values=True).get("site", [])
    if len(named) != 1 or not named[0].strip():
        raise ConfigurationError(
            f"store={redacted(url)!r} does not name one site: end it with ?site=NAME, the name given to "
            "`readonlyctl init`"
        )
    site = named[0]
    if not all(c.isalnum() or c in "-_." for c in site) or len(site) > 64:
        raise ConfigurationError(
            f"store={redacted(url)!r}: what it names is no site name: use up to 64 letters, digits, '-', '_' and '.'"
        )
    return site


# What URLs begin with, also where the colon or a slash was forgotten.
_BEGINS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://+|(?:rediss?(?:\+\w+)?|sqlite|memory)(?::/*|/+)|/*", re.IGNORECASE)
# What a client could not connect with, if it were no port: a password of which the "@" was forgotten.
_NO_PORT = re.compile(r":(?!\d*(?:[,/?#]|\Z))[^,/?#]*")
# Options whose values hold no secret; of the others, misspelt ones included, nobody knows.
_HARMLESS = re.compile(r"(?:site|db|(?:ssl|socket)_(?![^=]*pass)[^=]*)=")
# Where no user's name goes on.
_PAST_LOGIN = re.compile(r"[/?#]")
_OPTION = re.compile(r"\?.*=", re.DOTALL)
_VALUE = re.compile(r"[^&?]*")


def redacted(url: str) -> str:
    """Return a URL that may be shown: what is or may be a password, there or in its query, is `***`.

    It works on text, so that a URL that can't be read (a password with a slash in it, a colon that was forgotten) is
    not shown whole either. Where it is not clear what a part is, it is taken for a password.
    """
    login, at, rest = url.rpartition("@")
    begins = _BEGINS.match(login or url)
    scheme = begins.group() if begins else ""
    if at and not (_is_file(scheme) and ":" not in login[len(scheme) :]):
        name, colon, _ = login[len(scheme) :].partition(":")
        login = f"{scheme}{name}:***" if colon and not _PAST_LOGIN.search(name) else f"{scheme}***"
    elif not at and scheme.endswith("://") and not _is_file(scheme) and "[" not in rest:
        rest = scheme + _NO_PORT.sub(":***", rest[len(scheme) :], count=1)
    if at and _OPTION.search(url, 0, len(url) - len(rest)):
        # That may have been the "@" of an option's value.
        rest = _VALUE.sub("***", rest, count=1)
    path, mark, query = rest.partition("?")
    pairs = (
        pair if "=" not in pair or _HARMLESS.match(pair) else f"{pair.partition('=')[0]}=***"
        for pair in query.split("&")
    )
    return f"{login}{at}{path}{mark}{'&'.join(pairs)}"


def _is_file(scheme: str) -> bool:
    return scheme.lower().startswith(("sqlite:", "memory:"))


def store_from_url(
    url: str, *, create: bool = True, initialise: bool = True, timeout: float = DEFAULT_TIMEOUT_SECONDS
) -> Store:
    """Return the store that a URL names; nothing is connected yet.

    Args:
        url: `memory://?site=…`, `sqlite:////absolute/path?site=…`, `redis://host:port/db?site=…`,
            `redis+sentinel://host:port,host:port/service?site=…`, `redis+cluster://host:port,host:port?site=…`, with
            TLS `rediss…`, or a scheme of the entry points `readonly.stores` (a callable with this function's
            signature).
        create: Whether opening may make what is not there (an SQLite file): the site may, a command may not.
        initialise: Whether what is made that way gets its first record: not for `init`, which writes its own.
        timeout: Seconds that one call may take.

    Raises:
        ConfigurationError: The URL can't be right, or the store's client is not installed.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        # Its text may repeat the password.
        raise ConfigurationError(
            f"store={redacted(url)!r} can't be read as a URL: its brackets don't pair, or it has characters that no "
            "host's name can have. Write those of a password percent-encoded (urllib.parse.quote)"
        ) from None
    scheme = parts.scheme.lower()
    if scheme == "memory":
        from .memory import MemoryStore

        site = site_of(parts, url) if parts.query else "memory"
        return MemoryStore(url, site=site, timeout=timeout)
    if scheme == "sqlite":
        from .sqlite import SQLiteStore

        return SQLiteStore.from_url(
            url, site=site_of(parts, url), create=create, initialise=initialise, timeout=timeout
        )
    if scheme.partition("+")[0] in ("redis", "rediss") and scheme.partition("+")[2] in ("", "sentinel", "cluster"):
        from .redis import RedisStore

        if "@" in parts.path:
            raise ConfigurationError(
                f"store={redacted(url)!r} has an '@' where its path should be: write a password that has '/', '?', '#' "
                "or '@' in it percent-encoded (urllib.parse.quote)"
            )
        return RedisStore.from_url(url, site=site_of(parts, url), timeout=timeout)
    for found in entry_points(group="readonly.stores", name=scheme):
        make: Callable[..., Store] = found.load()
        return make(url, create=create, timeout=timeout)
    raise ConfigurationError(
        f"store={redacted(url)!r} is no store URL: use redis://host:port/0?site=NAME, "
        "redis+sentinel://host:port,host:port/SERVICE?site=NAME, redis+cluster://host:port,host:port?site=NAME, "
        "sqlite:////absolute/path?site=NAME or memory://"
    )


def preceding(member: str, alive: Iterable[str]) -> tuple[str, ...]:
    """Return whose neighbour a member will be: the last three before it in the ring of those that are alive."""
    ring = sorted(set(alive) - {member}, reverse=True)
    start = sum(other > member for other in ring)
    return tuple((ring[start:] + ring[:start])[:NEIGHBOURS])


def neighbours_of(member: str, others: Iterable[str], alive: Collection[str]) -> tuple[str, ...]:
    """Return those of `others` that follow `member` in their ring by id, up to the third that is alive."""
    ring = sorted(set(others) - {member})
    start = bisect.bisect(ring, member)
    found: list[str] = []
    living = 0
    for other in ring[start:] + ring[:start]:
        if living == NEIGHBOURS or len(found) == NEIGHBOURS_AT_MOST:
            break
        found.append(other)
        living += other in alive
    return tuple(found)
