"""Reading a request: the facts in a scope, the beginning of a body, and what the application may see of both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import itemgetter
from typing import Final

from ..drafts import SECONDS
from ..handling import NEGOTIATED, Judged
from ..rules import BODY_LIMIT_BYTES, Endpoint, Facts
from ._types import Message, RawHeaders, Receive, Scope

NEGOTIATED_NAMES: Final = frozenset(name.encode() for name in NEGOTIATED)
_BODY: Final = frozenset({b"content-length", b"transfer-encoding"})


_where = itemgetter("method", "path", "raw_path", "root_path")


def place(scope: Scope) -> Hashable:
    """Return what a rule sees of a request, headers and body aside."""
    try:
        found: Hashable = _where(scope)
    except KeyError:  # from a server that leaves out what is optional
        return scope["method"], scope["path"], scope.get("raw_path"), scope.get("root_path")
    return found


def key_of(scope: Scope, deciding: frozenset[bytes]) -> tuple[Hashable, bool]:
    """Return what a refusal of a request depends on, and whether the request says that it has a body.

    Args:
        scope: The request's.
        deciding: Headers that it depends on.
    """
    told: list[Hashable] = []
    body = False
    for name, value in scope["headers"]:
        if name in deciding:
            told.append((name, value))
        elif name in _BODY:
            body = True
    try:
        where: Hashable = _where(scope)
    except KeyError:
        where = place(scope)
    return (where, *told) if told else where, body


class Headers:
    """Looks request headers up; made once for a request that is classified."""

    __slots__ = ("_found", "_raw")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = pairs = raw if isinstance(raw, (list, tuple)) else list(raw)
        self._found = dict(pairs)
        if len(self._found) != len(pairs):
            joined: dict[bytes, bytes] = {}
            for name, value in pairs:
                joined[name] = joined[name] + b"," + value if name in joined else value
            self._found = joined

    def get(self, name: str, /) -> str | None:
        value = self._found.get(name.encode())
        return None if value is None else value.decode("latin-1")

    def all(self, name: bytes) -> Sequence[str]:
        """Return each value of a header that may be repeated."""
        if name not in self._found:
            return ()
        return [value.decode("latin-1") for found, value in self._raw if found == name]


def facts_of(
    scope: Scope,
    endpoint: Callable[[Scope], Endpoint | None] | None = None,
    headers: Headers | None = None,
) -> Facts:
    """Return what the gate needs to know about a request, its body left out.

    Args:
        scope: Of type `http` or `websocket`.
        endpoint: Tells what the router knows.
        headers: Its headers, if they were taken in already.
    """
    path: str = scope["path"]
    raw = (scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1")
    root: str = scope.get("root_path", "")
    if root:
        path, raw = below(path, root), below(raw, root)
    return Facts(
        scope.get("method", "GET"),
        path,
        raw,
        scope.get("query_string", b"").decode("latin-1"),
        headers or Headers(scope["headers"]),
        scope["type"],
        endpoint(scope) if endpoint is not None else None,
    )


def below(path: str, root: str) -> str:
    """Return a path relative to the mount, as Starlette's routing does: servers differ in whether it holds the root."""
    if not path.startswith(root):
        return path
    rest = path[len(root) :]
    return rest if not rest or rest[0] == "/" else path


async def peeked(facts: Facts, receive: Receive) -> Receive:
    """Read as much of a body as a predicate may see, and return a `receive` that plays it back."""
    messages: list[Message] = []
    body = bytearray()
    complete = False
    while len(body) <= BODY_LIMIT_BYTES and not complete:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request":
            break  # the client has left
        body += message.get("body", b"")
        complete = not message.get("more_body", False)
    facts.body = bytes(body[:BODY_LIMIT_BYTES])
    facts.body_complete = complete and len(body) <= BODY_LIMIT_BYTES
    messages.reverse()

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed


async def shown(facts: Facts, receive: Receive) -> bool:
    """Read the body of a request that is answered by us, and show it to the facts; return False if it does not come.

    It is small, as its headers say.
    """
    if facts.body is not None:
        return True
    try:
        async with asyncio.timeout(SECONDS):
            await peeked(facts, receive)
    except TimeoutError:
        return False
    return True


def stripped(scope: Scope, judged: Judged) -> Scope:
    """Return the scope without the cookies and tokens that were taken off; a copy, if there are any."""
    taken = judged.taken
    if taken.cookies is None and not taken.bearer:
        return scope
    kept = None if taken.cookies is None else [cookie.encode("latin-1") for cookie in reversed(taken.cookies)]
    headers: RawHeaders = []
    for name, value in scope["headers"]:
        if name == b"cookie" and kept is not None:
            if kept:
                headers.append((name, kept.pop()))
        elif not (taken.bearer and name == b"authorization" and value[:7].lower() == b"bearer "):
            headers.append((name, value))
    return {**scope, "headers": headers}
