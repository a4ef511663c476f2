"""Marks on views: what their author, or a framework, says of them apart from any rule, and how they are found."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar

from .rules import SAFE_METHODS, Endpoint, Facts

F = TypeVar("F", bound=Callable[..., Any])

READS: Final = "reads"
WRITES: Final = "writes"
LOGIN: Final = "login"
LOGOUT: Final = "logout"
_MARK = "__readonly__"
_HANDLERS = ("get", "head", "options", "trace", "query", "post", "put", "patch", "delete")


def reads(endpoint: F) -> F:
    """Mark a view (a function, a class, or one method of a class) as one that only reads, even on POST."""
    setattr(endpoint, _MARK, READS)
    _carried(READS)
    return endpoint


def writes(endpoint: F) -> F:
    """Mark a view (a function, a class, or one method of a class) as one that writes, even on GET."""
    setattr(endpoint, _MARK, WRITES)
    _carried(WRITES)
    return endpoint


class Unmarked(set[Hashable]):
    """What holds while no view of this process carries a mark, for whoever would have to route a request to know.

    Without `@writes` a GET is a read, without `@reads` a POST is a write. It is emptied by the first such mark, however
    late that comes: views may be imported after the middleware was made.
    """

    __hash__ = object.__hash__  # type: ignore[assignment]  # kept weakly, by identity


# Marks that some view of this process carries.
_seen_marks: Final[set[str]] = set()
_unmarked: Final[dict[str, weakref.WeakSet[Unmarked]]] = {READS: weakref.WeakSet(), WRITES: weakref.WeakSet()}


def _carried(mark: str) -> None:
    _seen_marks.add(mark)
    for found in list(_unmarked[mark]):
        found.clear()


def unmarked(mark: str) -> Unmarked:
    """Return what is not empty while no view of this process carries `mark`, READS or WRITES."""
    found = Unmarked()
    _unmarked[mark].add(found)
    if mark not in _seen_marks:
        found.add(f"no view is marked @{mark}")
    return found


def marks_of(view: object) -> frozenset[str]:
    """Return the marks of a view, for `Endpoint.marks`.

    Looks through `functools.partial` and what the `as_view` of Django, Flask and REST framework leaves on the
    function. A mark on one method of a class is told as `writes:POST` and beats the class's own. A class
    inherits `writes` and not `reads`: what a subclass adds was not in sight of whoever wrote that mark.

    Args:
        view: Whatever the router would call.
    """
    view = getattr(view, "func", view)
    found: set[str] = set()
    if isinstance(view, type):
        cls: type | None = view
    else:
        own = getattr(view, _MARK, None)
        if own is not None:
            found.add(own)
        cls = getattr(view, "view_class", None) or getattr(view, "cls", None)
    if isinstance(cls, type):
        if cls.__dict__.get(_MARK) == READS:
            found.add(READS)
        elif getattr(cls, _MARK, None) == WRITES:
            found.add(WRITES)
        actions: dict[str, str] = getattr(view, "actions", None) or {name: name for name in _HANDLERS}
        for method, handler in actions.items():
            mark = getattr(getattr(cls, handler, None), _MARK, None)
            if mark is not None:
                found.add(f"{mark}:{method.upper()}")
    return frozenset(found)


def mark_for(endpoint: Endpoint | None, method: str) -> str:
    """Return `reads` or `writes` as the view is marked for a method, else "".

    The closer mark wins; of two equally close ones, `writes`.
    """
    if endpoint is None or not endpoint.marks:
        return ""
    marks = endpoint.marks
    names = (method, "GET") if method == "HEAD" else (method,)
    for mark in (f"{mark}:{name}" for name in names for mark in (WRITES, READS)):
        if mark in marks:
            return mark.partition(":")[0]
    return WRITES if WRITES in marks else READS if READS in marks else ""


def signs(facts: Facts, mark: str) -> bool:
    """Return whether the view is recognised as one that signs people in (`LOGIN`) or out (`LOGOUT`) by this method."""
    endpoint = facts.endpoint
    if endpoint is None or not endpoint.marks:
        return False
    marks, method = endpoint.marks, facts.method
    # A form for signing in is there to be read.
    if mark in marks and method not in SAFE_METHODS:
        return True
    return f"{mark}:{method}" in marks or (method == "HEAD" and f"{mark}:GET" in marks)
