"""Whether an application is behind the read-only mode already: a second middleware around it would count all twice."""

from __future__ import annotations

from types import FunctionType
from typing import Any, Final

_MARK: Final = "is_read_only_middleware"
# By these names middleware, and a framework's application, keeps what it hands on to; and no chain is longer.
_NEXT: Final = ("wsgi_app", "app", "inner", "application", "_app")
_LONGEST: Final = 100


def mark(middleware: Any) -> None:
    """Let a middleware, which is a function, be known by `is_middleware`."""
    vars(middleware)[_MARK] = True


def is_middleware(application: object) -> bool:
    """Return whether this is an application behind the read-only mode: what `ReadOnlyMiddleware` returned."""
    # Only of functions: what anything else answers to being asked may be anything.
    return isinstance(application, FunctionType) and _MARK in vars(application)


def holds_another(application: object) -> bool:
    """Return whether an application, or what it hands on to, is behind the read-only mode."""
    for _ in range(_LONGEST):
        if application is None or is_middleware(application):
            break
        known = getattr(application, "__dict__", {})
        application = next((known[name] for name in _NEXT if name in known), None)
    return is_middleware(application)
