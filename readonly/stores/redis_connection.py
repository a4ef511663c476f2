"""How a connection to a Redis server is made from a URL, and what a server's refusals mean.

Where the server is that takes a site's writes is a `Place`: one address here, found by Sentinels or in a Cluster in
the modules named after them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from readonly.errors import ConfigurationError

from . import redacted

try:
    import redis
    import redis.connection
    import redis.exceptions
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ModuleNotFoundError as error:
    if error.name != "redis":
        raise
    raise ConfigurationError(
        "a store at redis:// needs redis-py, which is not installed: pip install 'readonly-mode[redis]'"
    ) from error

Address = tuple[str, int]
# What making or using a connection may raise.
FAILURES: tuple[type[Exception], ...] = (redis.exceptions.RedisError, OSError)
Refused = redis.exceptions.ResponseError
NoScript = redis.exceptions.NoScriptError
NoAnswer = redis.exceptions.TimeoutError


class Connection(Protocol):
    """What is used of redis-py's connections."""

    host: str
    port: int
    _sock: Any

    def connect(self) -> None:
        """Connect, log in and choose the database."""

    def disconnect(self) -> None:
        """Close the socket; in a process that did not open it, without a word to the server."""

    def send_command(self, *words: str | bytes | int) -> None:
        """Send one command."""

    def can_read(self, timeout: float = 0) -> bool:
        """Return whether anything is there to be read; raise if the connection is lost."""
        ...

    def read_response(self) -> Any:
        """Read one answer, or raise the error that it is."""


class Place(Protocol):
    """Knows where the server is that takes the site's writes. Used by one thread at a time, in one process.

    Attributes:
        replicas: How many replicas of that server were known when it was last looked for.
    """

    replicas: int

    def connect(self) -> Connection:
        """Return a new connection to it.

        Raises:
            FAILURES: It can't be found or reached.
        """
        ...

    def has_moved(self, server: Address) -> bool:
        """Return whether it is no longer there. Called before every command: asks others only now and then."""
        ...

    def is_elsewhere(self, server: Address, refusal: Exception) -> bool:
        """Return whether a refusal means that it is elsewhere, so that asking there helps. Raises nothing."""
        ...

    def reopened(self) -> Place:
        """Return the same place without a connection of this one's."""
        ...

    def close(self) -> None:
        """Close connections that were made to look for it."""


class Misplaced(redis.exceptions.ConnectionError):
    """The server that takes the writes was not found; the message is a sentence."""


def ask(connection: Connection, *words: str | bytes | int) -> Any:
    """Send one command and return its answer, or raise the error that it is."""
    connection.send_command(*words)
    return connection.read_response()


def address_of(connection: Connection) -> Address:
    """Return where a connection was made to."""
    return connection.host, int(connection.port)


def info(connection: Connection, section: str) -> dict[str, str]:
    """Return a section of INFO."""
    lines = bytes(ask(connection, "INFO", section)).decode(errors="replace").split("\r\n")
    return dict(line.split(":", 1) for line in lines if ":" in line)


class OneServer:
    """A place that never changes: the one server that `redis://` and `rediss://` name.

    Args:
        url: The store's URL.
        timeout: Seconds for one answer, and for making a connection.

    Raises:
        ConfigurationError: The URL can't be right.
    """

    replicas = 0

    def __init__(self, url: str, *, timeout: float) -> None:
        parts = urlsplit(url)
        database = parts.path.strip("/")
        try:
            host, port = parts.hostname, parts.port or 6379
        except ValueError:  # its text repeats what stands there, which may be a password
            raise ConfigurationError(
                f"store={redacted(url)!r} is no URL of a Redis store: what follows the colon is no port"
            ) from None
        if not host:
            raise ConfigurationError(f"store={redacted(url)!r} is no URL of a Redis store: it names no host")
        self._address = (host, port)
        if database and not database.isdigit():
            raise ConfigurationError(
                f"store={redacted(url)!r}: {database!r} is no database number: write redis://host:port/0?site=NAME"
            )
        self._make = maker(url, database=int(database or 0), timeout=timeout)

    def connect(self) -> Connection:
        """Return a new connection to it."""
        return connected(self._make(self._address))

    def has_moved(self, server: Address) -> bool:
        """Return False."""
        return False

    def is_elsewhere(self, server: Address, refusal: Exception) -> bool:
        """Return False."""
        return False

    def reopened(self) -> OneServer:
        """Return itself: it holds no connection."""
        return self

    def close(self) -> None:
        """Do nothing."""


# --- the URL ----------------------------------------------------------------------------------------------

# What redis-py would take from a URL, and this store decides.
_OURS = {
    *("site", "db", "decode_responses", "encoding", "health_check_interval", "max_connections", "parser_class"),
    *("protocol", "retry", "retry_on_error", "retry_on_timeout", "socket_connect_timeout", "socket_timeout", "timeout"),
}


def maker(
    url: str, *, database: int, timeout: float, also: frozenset[str] = frozenset(), login: tuple[str, str] | None = None
) -> Callable[[Address], Connection]:
    """Return what makes connections as a URL says, not yet connected.

    Args:
        url: The store's URL: its user and password, whether TLS is spoken, and redis-py's options in its query.
        database: The database's number.
        timeout: Seconds for one answer, and for making a connection.
        also: Names in the query that the caller has read.
        login: User and password, if not those of the URL.

    Raises:
        ConfigurationError: The URL can't be right.
    """
    shown = f"store={redacted(url)!r}"
    parts = urlsplit(url)
    options = parse_qsl(parts.query, keep_blank_values=True)
    refused = sorted({name for name, _ in options} & _OURS - {"site"} - also)
    if refused:
        raise ConfigurationError(f"{shown}: {refused[0]}= is this library's to choose: leave it out")
    theirs = urlencode([(name, value) for name, value in options if name != "site" and name not in also])
    try:
        parse: Callable[[str], dict[str, Any]] = redis.connection.parse_url
        user, at, _ = parts.netloc.rpartition("@")
        # Its address is given with each connection: here there may be several, and of other servers.
        settings = parse(urlunsplit((parts.scheme.lower().partition("+")[0], f"{user}{at}none", "", theirs, "")))
        kind: Any = settings.pop("connection_class", redis.connection.Connection)
        settings |= {
            "db": database,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "socket_keepalive": True,
            # Trying again is for the caller, who must know that something was lost.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        if login is not None:
            settings |= {"username": login[0] or None, "password": login[1] or None}
        kind(**settings)
    except (TypeError, ValueError, redis.exceptions.RedisError) as error:
        # What it names is the name of an option, or a part of a password that was taken for one.
        why = "a password must be percent-encoded (urllib.parse.quote)" if "@" in parts.query else str(error)
        raise ConfigurationError(f"{shown} is no URL of a Redis store: {why}") from None

    def make(address: Address) -> Connection:
        made: Connection = kind(**settings | {"host": address[0], "port": address[1]})
        return made

    return make


def connected(connection: Connection) -> Connection:
    """Connect, and return the connection; nothing is left open if that fails."""
    try:
        connection.connect()
    except BaseException:
        connection.disconnect()
        raise
    return connection


def addresses(url: str, *, port: int) -> list[Address]:
    """Return the hosts and ports of a URL that names several, separated by commas.

    Args:
        url: The store's URL.
        port: For a host that is named without one.

    Raises:
        ConfigurationError: One can't be right, or there is none.
    """
    found: list[Address] = []
    for name in urlsplit(url).netloc.rpartition("@")[2].split(","):
        try:
            one = urlsplit(f"//{name}")
            host, own = one.hostname, one.port or port
        except ValueError:  # its text repeats what stands there, which may be a password
            host, own = None, port
        if not host:
            raise ConfigurationError(
                f"store={redacted(url)!r}: number {len(found) + 1} of what it names is no address: write "
                "host:port,host:port"
            )
        found.append((host, own))
    return found


# --- words ------------------------------------------------------------------------------------------------

CLUSTER = "it is a node of a Cluster: write redis+cluster://host:port?site=NAME"
# By the code that the server sends; an older one buries it in the message of a failed script.
MEANINGS = {
    "READONLY": "it is a replica and takes no writes: name the primary",
    "OOM": "its memory is full (maxmemory), so that it takes no writes: make room, or give this store its own server",
    "NOREPLICAS": "it has too few replicas (min-replicas-to-write) and takes no writes: it may be cut off",
    "MISCONF": "it can't save to its disk and takes no writes (stop-writes-on-bgsave-error): look at its log",
    "LOADING": "it is loading its data and does not answer yet: try again",
    "MASTERDOWN": "it is a replica that has lost its primary: name the primary",
    "NOPERM": "its user may not do this: allow ~readonly:* &readonly:* +@read +@write +@scripting +@pubsub "
    "+@connection +select +info +time +wait +cluster|slots",
    "NOAUTH": "it wants a password: write redis://user:password@host:port/0?site=NAME",
    "WRONGPASS": "it does not know this user and password",
    "MOVED": CLUSTER,
    "ASK": "its Cluster is moving the site's keys to another node: try again",
    "TRYAGAIN": "its Cluster is moving the site's keys to another node: try again",
    "CLUSTERDOWN": "it is a node of a Cluster that is down",
    "CROSSSLOT": CLUSTER,
    "WRONGTYPE": "a key of this store holds something of somebody else's: give the store another database",
    "BUSY": "it is busy with a script of somebody else's: SCRIPT KILL ends that",
}
# redis-py takes the code off the message and makes it a class; not every version has all of them.
_CODES = {
    "ReadOnlyError": "READONLY",
    "OutOfMemoryError": "OOM",
    "BusyLoadingError": "LOADING",
    "MasterDownError": "MASTERDOWN",
    "NoPermissionError": "NOPERM",
    "MovedError": "MOVED",
    "AskError": "ASK",
    "TryAgainError": "TRYAGAIN",
    "ClusterDownError": "CLUSTERDOWN",
    "ClusterCrossSlotError": "CROSSSLOT",
}


def code_of(error: Exception) -> str:
    """Return the code of a server's refusal, one of `MEANINGS`, or "" if it is another one or none."""
    if isinstance(error, redis.exceptions.AuthenticationError):
        return "NOAUTH" if "required" in str(error).lower() else "WRONGPASS"
    known = _CODES.get(type(error).__name__)
    if known is None and isinstance(error, redis.exceptions.ResponseError):
        if "ACL failure in script" in str(error) or "user executing the script can't run" in str(error):
            return "NOPERM"  # a script that was not allowed something: newer servers, and 6.2
        words = re.findall(r"[A-Z]+", str(error))
        known = next((code for code in MEANINGS if code in words), None)
    return known or ""


def explain(error: Exception, timeout: float) -> str:
    """Say what happened and what it means, in one sentence without a password."""
    if isinstance(error, Misplaced):
        return str(error)
    code = code_of(error)
    # Servers and systems end their sentences with a full stop or not; ours go on.
    said = str(error).rstrip(". ")
    if code:
        return f"{MEANINGS[code]} ({said})"
    if isinstance(error, (redis.exceptions.TimeoutError, TimeoutError)):
        return f"it did not answer within {timeout:g} s ({said}); what was asked of it may still happen"
    if isinstance(error, redis.exceptions.ResponseError):
        return f"it answered with an error: {said}"
    return f"it can't be reached: {said}"
