"""GraphQL in a websocket: which of its messages begins something that may write, and when that is over."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..answers import Refusal
from ..rules import BODY_LIMIT_BYTES
from ._requests import Request, error_of, parsed, request_of

# In the protocol graphql-transport-ws and in its predecessor, graphql-ws: what begins an operation, and all else.
_BEGINS: Final = frozenset({"subscribe", "start"})
_TALK: Final = frozenset({"connection_init", "ping", "pong", "complete", "stop", "connection_terminate"})


class Socket:
    """One websocket that speaks GraphQL, in either protocol: they differ in the names of their messages."""

    def __init__(self, reads: Callable[[Request], bool]) -> None:
        self._reads = reads
        # How each operation that may write was begun: type and id of its message.
        self._begun: dict[str, tuple[str, object]] = {}

    def asks(self, message: str | bytes) -> str | None:
        """Return the id of an operation that may write."""
        said = _message(message)
        kind = said.get("type")
        if kind not in _BEGINS:
            if kind in _TALK:
                return None
            raise ValueError(kind)
        name, payload = said.get("id"), said.get("payload")
        if not isinstance(name, (str, int)) or not isinstance(payload, dict):
            raise ValueError(name)
        request = request_of(list(payload.items()))
        # One of the same id as a write's would say when that is over.
        if request is not None and self._reads(request) and str(name) not in self._begun:
            return None
        self._begun[str(name)] = (kind, name)
        return str(name)

    def withdraws(self, message: str | bytes) -> str | None:
        """Return the id of an operation that the client wants no more of."""
        said = _message(message)
        return str(said["id"]) if said.get("type") in ("complete", "stop") and "id" in said else None

    def refuses(self, operation: str, refusal: Refusal) -> Sequence[str]:
        """Return an error for that operation; the socket stays as it is."""
        kind, name = self._begun.pop(operation)
        error = error_of(refusal)
        payload = [error] if kind == "subscribe" else error
        return (json.dumps({"id": name, "type": "error", "payload": payload}, ensure_ascii=False),)

    def ends(self, message: str | bytes) -> str | None:
        """Return the id of an operation that the server has done with."""
        try:
            said = _message(message)
        except ValueError:
            return None
        if said.get("type") not in ("complete", "error") or "id" not in said:
            return None
        self._begun.pop(str(said["id"]), None)
        return str(said["id"])


def _message(message: str | bytes) -> dict[str, Any]:
    if len(message) > BODY_LIMIT_BYTES:
        raise ValueError("a message that is longer than what is looked at")
    said = parsed(message if isinstance(message, str) else message.decode("utf-8"))
    if not isinstance(said, dict):
        raise ValueError("no message of GraphQL's")
    return said
