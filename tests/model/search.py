"""Breadth-first search over states that are tuples of small numbers: the first trace to a broken promise is a shortest.

What a state means, and what may happen in it, is a `World`'s business; here are only the queue, the way back, and an
honest count of what was seen.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

Point = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """One step: what happens, and to whom (-1: to the store)."""

    kind: str
    who: int = -1


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that a step breaks, in place of the state that it would lead to."""

    promise: str


Step = tuple[Event, "Point | Broken"]


class World(Protocol):
    """What is searched."""

    def initial(self) -> Sequence[Point]:
        """Return the states that it may begin in."""
        ...

    def steps(self, point: Point) -> Iterable[Step]:
        """Return what may happen in a state."""
        ...

    def promised(self, point: Point) -> str:
        """Return which promise stands in a state ("safe", ...), or ""."""
        ...

    def shown(self, point: Point) -> str:
        """Return a state in one line."""
        ...

    def told(self, event: Event) -> str:
        """Return an event as people would tell it."""
        ...


@dataclass(frozen=True, slots=True)
class Result:
    """What a search has seen.

    Attributes:
        states: Distinct states that were reached.
        exhausted: All of them were visited; else the search was cut off, or ended at a broken promise.
        promised: States by the promise that stands in them: a search without "safe" has shown nothing.
        broken: The promise that was broken, or "".
        start: Where the trace to it begins.
        trace: The steps to it, each with the state that it leads to.
        depth: How many those are, or how far the farthest state is.
        seconds: Processor time.
        points: Every state, with the one before it and the step between, if they were asked for.
    """

    states: int
    exhausted: bool
    promised: Mapping[str, int]
    broken: str
    depth: int
    seconds: float
    start: Point = ()
    trace: tuple[tuple[Event, Point | None], ...] = ()
    points: Mapping[Point, tuple[Point, Event] | None] = field(default_factory=dict, repr=False)


def search(world: World, *, limit: int, keep: bool = False) -> Result:
    """Visit every state that can be reached, nearest first, until a promise is broken or `limit` states are known.

    Args:
        world: What is searched.
        limit: States after which the search is cut off.
        keep: Hand back the states themselves.
    """
    # Nothing here ever becomes garbage, and looking for it in a million tuples takes half of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _search(world, limit, keep)
    finally:
        if collecting:
            gc.enable()


def _search(world: World, limit: int, keep: bool) -> Result:
    began = time.process_time()
    before: dict[Point, tuple[Point, Event] | None] = {}
    promised: dict[str, int] = {}

    def result(exhausted: bool, depth: int, broken: str = "") -> Result:
        seconds = time.process_time() - began
        return Result(len(before), exhausted, promised, broken, depth, seconds, points=before if keep else {})

    def reached(point: Point) -> None:
        name = world.promised(point)
        if name:
            promised[name] = promised.get(name, 0) + 1

    edge = list(world.initial())
    for point in edge:
        before[point] = None
        reached(point)
    depth = 0
    while edge:
        found: list[Point] = []
        for point in edge:
            for event, after in world.steps(point):
                if isinstance(after, Broken):
                    start, steps = way(before, point)
                    found_it = result(False, len(steps) + 1, after.promise)
                    return replace(found_it, start=start, trace=(*steps, (event, None)))
                if after not in before:
                    before[after] = (point, event)
                    reached(after)
                    found.append(after)
            if len(before) >= limit:
                return result(False, depth + 1)
        edge = found
        depth += bool(found)
    return result(True, depth)


def way(before: Mapping[Point, tuple[Point, Event] | None], point: Point) -> tuple[Point, list[tuple[Event, Point]]]:
    """Return where the way to a state begins, and its steps, each with the state that it leads to."""
    steps: list[tuple[Event, Point]] = []
    link = before[point]
    while link is not None:
        steps.append((link[1], point))
        point = link[0]
        link = before[point]
    return point, steps[::-1]


def narrated(world: World, result: Result) -> tuple[str, ...]:
    """Return the trace to a broken promise, one line a step, each with the state that it leads to."""
    lines = [f"    {'at first':<38} {world.shown(result.start)}"]
    for number, (event, after) in enumerate(result.trace, 1):
        shown = f"BROKEN: {result.broken}" if after is None else world.shown(after)
        lines.append(f"{number:>3} {world.told(event):<38} {shown}")
    return tuple(lines)
