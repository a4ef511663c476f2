"""Reading a request: the facts in an environ, the beginning of a body, and what the application may see of both."""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any

from ..handling import Judged
from ..rules import BODY_LIMIT_BYTES, Endpoint, Facts

Environ = MutableMapping[str, Any]


def place(environ: Environ) -> Hashable:
    """Return what a rule sees of a request, headers and body aside."""
    get = environ.get
    raw = get("RAW_URI") or get("REQUEST_URI") or ""
    if "?" in raw:
        raw = raw.partition("?")[0]
    return environ["REQUEST_METHOD"], get("PATH_INFO"), get("SCRIPT_NAME"), raw


def key_of(environ: Environ) -> Hashable:
    """Return what a refusal depends on: where a request goes, and what it says about the answer."""
    get = environ.get
    accept = get("HTTP_ACCEPT")
    basis = (
        environ["REQUEST_METHOD"],
        get("PATH_INFO"),
        get("SCRIPT_NAME"),
        get("RAW_URI") or get("REQUEST_URI"),
        get("CONTENT_TYPE"),
        get("HTTP_ORIGIN"),
        get("HTTP_ACCEPT_LANGUAGE"),
    )
    if accept is None:
        return basis  # whoever asks for no page is shown none, whatever it is called from
    return basis, accept, get("HTTP_HX_REQUEST"), get("HTTP_X_REQUESTED_WITH"), get("HTTP_SEC_FETCH_DEST")


@lru_cache(maxsize=256)
def _key_of(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


class _Headers:
    """Looks request headers up in an environ."""

    __slots__ = ("_environ",)

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    def get(self, name: str, /) -> str | None:
        key = _key_of(name)
        found: str | None = self._environ.get(key)
        # Servers say that a header is not there by leaving it out, or by an empty CONTENT_TYPE.
        return found if found or key[:5] == "HTTP_" else None


def facts_of(environ: Environ, endpoint: Callable[[Environ], Endpoint | None] | None = None) -> Facts:
    """Return what the gate needs to know about a request, its body left out.

    Args:
        environ: Its environ.
        endpoint: Tells what the router knows.
    """
    return Facts(
        environ["REQUEST_METHOD"],
        _text(environ.get("PATH_INFO", "")),
        _raw_path(environ),
        environ.get("QUERY_STRING", ""),
        _Headers(environ),
        "http",
        endpoint(environ) if endpoint is not None else None,
    )


def _text(path: str) -> str:
    # PEP 3333: bytes in the disguise of latin-1.
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


def _raw_path(environ: Environ) -> str:
    """Return the path as it was sent, relative to the mount, where the server tells; "" where it does not."""
    raw: str = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    raw = raw.partition("?")[0]
    if not raw.startswith("/"):
        # The absolute form, as a proxy is asked (RFC 9112, section 3.2.2).
        _, scheme, rest = raw.partition("://")
        raw = "/" + rest.partition("/")[2] if scheme else ""
    script: str = environ.get("SCRIPT_NAME", "")
    if script and raw.startswith(script) and raw[len(script) : len(script) + 1] in ("", "/"):
        raw = raw[len(script) :]
    return raw


class _Replayed(io.RawIOBase):
    """A request's body of which the beginning was read already. Buffered, so that it has lines."""

    def __init__(self, beginning: bytes, rest: Any) -> None:
        self._beginning = io.BytesIO(beginning)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data: bytes = self._beginning.read(len(buffer)) or self._rest.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Limited:
    """At most so many bytes of a stream: reading on would wait for what the client never sends."""

    def __init__(self, stream: Any, length: int) -> None:
        self._stream = stream
        self._left = length

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(min(size, self._left)) if self._left else b""
        self._left -= len(data)
        return data


def peeked_environ(facts: Facts, environ: Environ) -> Environ:
    """Show the beginning of a body to the facts; return an environ that plays it back."""
    stream = environ["wsgi.input"]
    announced = environ.get("CONTENT_LENGTH") or ""
    length = int(announced) if announced.isascii() and announced.isdigit() else None
    if length is not None:
        stream = _Limited(stream, length)
    elif not (environ.get("wsgi.input_terminated") or environ.get("HTTP_TRANSFER_ENCODING")):
        facts.body = b""
        return environ
    replayed = peeked(facts, stream, length=length)
    if length is None and not environ.get("wsgi.input_terminated") and not facts.body:
        facts.body_complete = False  # chunked, for a server (uWSGI) that hands such a body out in a way of its own
    return {**environ, "wsgi.input": replayed}


def peeked(facts: Facts, stream: Any, *, length: int | None = None) -> io.BufferedReader:
    """Read as much of a body as a predicate may see, and show it to the facts.

    Args:
        facts: The request; `body` and `body_complete` are set.
        stream: Has a `read(size)` that returns nothing at the body's end, and never waits for more than that.
        length: As the client announced it: a body that ends sooner was cut off, and is not complete.

    Returns:
        A stream that plays the body back, from its beginning.
    """
    parts: list[bytes] = []
    size = 0
    while size <= BODY_LIMIT_BYTES:
        part = stream.read(BODY_LIMIT_BYTES + 1 - size)
        if not part:
            break
        parts.append(part)
        size += len(part)
    body = b"".join(parts)
    facts.body = body[:BODY_LIMIT_BYTES]
    facts.body_complete = size <= BODY_LIMIT_BYTES and (length is None or size >= length)
    return io.BufferedReader(_Replayed(body, stream))


def stripped(environ: Environ, judged: Judged) -> Environ:
    """Return the environ without the cookies and tokens that were taken off; a copy, if there are any."""
    taken = judged.taken
    if taken.cookies is None and not taken.bearer:
        return environ
    environ = dict(environ)
    if taken.cookies is not None:
        environ.pop("HTTP_COOKIE", None)
        if taken.cookies:
            environ["HTTP_COOKIE"] = taken.cookies[0]
    if taken.bearer and environ.get("HTTP_AUTHORIZATION", "")[:7].lower() == "bearer ":
        del environ["HTTP_AUTHORIZATION"]
    return environ
