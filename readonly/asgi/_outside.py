"""Whether websockets come to the middleware: for whoever stands outside of it and wants to know."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Final

from ._types import ASGIApp, Message, Scope, Send

# In a websocket's scope: a list, into which the middleware puts something when it takes it.
_TAKEN: Final = "readonly.taken"
_MARK: Final = "is_read_only_middleware"
# By these names middleware keeps what it hands on to; and no chain is longer.
_NEXT: Final = ("app", "inner", "application", "_app")
_LONGEST: Final = 100


def mark(middleware: ASGIApp) -> None:
    """Let it be known by `is_middleware`."""
    middleware.__dict__[_MARK] = True


def is_middleware(application: object) -> bool:
    """Return whether this is an application behind the read-only mode: what `ReadOnlyMiddleware` returned."""
    # Only of functions: what anything else answers to being asked may be anything.
    return isinstance(application, FunctionType) and _MARK in application.__dict__


def holds_another(application: object) -> bool:
    """Return whether an application, or what it hands on to, is behind the read-only mode already."""
    for _ in range(_LONGEST):
        if application is None or is_middleware(application):
            break
        known = getattr(application, "__dict__", {})
        application = next((known[name] for name in _NEXT if name in known), None)
    return is_middleware(application)


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
