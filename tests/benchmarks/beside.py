"""What a request costs, beside something else: the one way in which all frameworks' request paths are measured.

CPU time of this process in one interleaved run; the best of several rounds, each of which runs every candidate in turn,
so that a busy machine is busy for all of them.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, cast

from readonly.asgi import Message, Receive, Scope, Send
from support.apps import HandSwitch, Request, asgi_scope, wsgi_environ

# Beyond twice a target something is broken; between the two it is a matter for `make bench` and its table.
TOLERANCE = 2.0
# A machine that was busy for all rounds gets another chance: what is broken stays broken. With fifteen busy processes
# on two cores a measurement came to 1.98 times its target (a refused POST under WSGI); the limit is 2.
CHANCES = 6

Round = Callable[[], float]


class Beside:
    """Measures ours beside another, and keeps what it found for a table.

    Args:
        title: What the table is of.
        rounds: How many, of which the best counts.
        width: Of the table's first column.
    """

    def __init__(self, title: str, *, rounds: int, width: int = 44) -> None:
        self._title, self._rounds, self._width = title, rounds, width
        self._found: dict[str, tuple[float, float | None, float, float]] = {}
        self._adds = ""

    def check(self, name: str, target: float | None, candidates: Callable[[], Sequence[Round]]) -> None:
        """Fail if ours costs more than twice its target.

        Args:
            name: Of the line in the table.
            target: The ratio that is aimed at; None: the line is only shown.
            candidates: Makes what measures a round of the other and of ours; and of neither, first, if that is to be
                taken off what is shown.
        """
        assert "coverage" not in sys.modules, "under coverage that would be most of what is measured: make bench"
        limit = TOLERANCE * target if target is not None else float("inf")
        ratio = float("inf")
        for _ in range(CHANCES):
            ratio = min(ratio, self._measured(name, target, candidates()))
            if ratio <= limit:
                break
        assert ratio <= limit, f"{name}: {ratio:.2f} times the other, target {target}"

    def _measured(self, name: str, target: float | None, rounds: Sequence[Round]) -> float:
        best = [float("inf")] * len(rounds)
        for _ in range(self._rounds):
            for position, run in enumerate(rounds):
                best[position] = min(best[position], run())
        *neither, other, ours = best
        self._adds = " adds" if neither else ""
        bare = sum(neither)
        self._found[name] = (ours / other, target, other - bare, ours - bare)
        return ours / other

    def show(self) -> None:
        """Print the table."""
        heads = f"{'ratio':>7}{'target':>8}{f'other{self._adds}':>13}{f'ours{self._adds}':>12}"
        print(f"\n\n{self._title:{self._width}}{heads}")
        for name, (ratio, target, other, ours) in sorted(self._found.items()):
            aim = f"{target:.2f}" if target is not None else "-"
            print(f"{name:{self._width}}{ratio:7.2f}{aim:>8}{other:10.0f} ns{ours:9.0f} ns")


def in_state(state: str) -> HandSwitch:
    """Return a switch that says `writable`, `read-only`, `over` or `rehearsing`."""
    switch = HandSwitch()
    if state == "read-only":
        switch.read_only(expected=timedelta(minutes=40))
    elif state == "over":
        switch.over()
    elif state == "rehearsing":
        switch.rehearsing()
    return switch


# --- ASGI ------------------------------------------------------------------------------------------------------------


class NoOp:
    """A middleware that does nothing, as most are written."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


async def receive() -> Message:
    """Return an empty body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    """Take a message."""


def asgi_round(app: Any, request: Request, requests: int, *, fresh: bool = True) -> Round:
    """Return what measures one round: nanoseconds of CPU for each request.

    Args:
        app: What is asked.
        request: The request.
        requests: How often.
        fresh: A scope for each: frameworks write into theirs.
    """
    scope = asgi_scope(request)

    async def work() -> float:
        scopes = [dict(scope) for _ in range(requests)] if fresh else [scope] * requests
        begun = time.process_time_ns()
        for each in scopes:
            await app(each, receive, send)
        return (time.process_time_ns() - begun) / requests

    return lambda: asyncio.run(cast(Any, work()))


# --- WSGI ------------------------------------------------------------------------------------------------------------


class WsgiNoOp:
    """A middleware that does nothing, as most are written."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        found: Iterable[bytes] = self.app(environ, start_response)
        return found


def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
    """Take a start."""
    return lambda data: None


def wsgi_round(app: Any, request: Request, requests: int, *, fresh: bool = True) -> Round:
    """Return the same; each response is read and closed as a server does."""
    environ = wsgi_environ(request)

    def work() -> float:
        environs = [environ.copy() for _ in range(requests)] if fresh else [environ] * requests
        begun = time.process_time_ns()
        for each in environs:
            result = app(each, start_response)
            for _part in result:
                pass
            if hasattr(result, "close"):
                result.close()
        return (time.process_time_ns() - begun) / requests

    return work
