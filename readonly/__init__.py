"""Puts a running site into read-only mode, and says when that can be trusted.

`import readonly` loads no web framework and no client library.
"""

from __future__ import annotations

from . import logs
from .errors import ReadOnlyError
from .marks import reads, writes
from .policy import Policy, SessionCookie
from .rules import rule
from .state import State
from .switch import Switch

logs.install()

__version__ = "0.1.0"

__all__ = [
    "Policy",
    "ReadOnlyError",
    "SessionCookie",
    "State",
    "Switch",
    "__version__",
    "reads",
    "rule",
    "writes",
]
