"""Whether websockets come to the middleware: for whoever stands outside of it and wants to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ._types import Message, Scope, Send

# In a websocket's scope: a list, into which the middleware puts something when it takes it.
_TAKEN: Final = "readonly.taken"


def take(scope: Scope) -> None:
    """Say that the middleware has this websocket."""
    taken = scope.get(_TAKEN)
    if taken is not None:
        taken.append(True)


def watched(scope: Scope, send: Send, past: Callable[[], object]) -> tuple[Scope, Send]:
    """Return the scope of a websocket, and a `send`, that call `past` if it is accepted without the middleware.

    One that is refused has reached nothing: anybody may ask for what is not there.
    """
    taken: list[bool] = []

    async def noting(message: Message) -> None:
        if message["type"] == "websocket.accept" and not taken:
            past()
        await send(message)

    return {**scope, _TAKEN: taken}, noting
