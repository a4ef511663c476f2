"""What `manage.py createsuperuser`, or any command that was about to write, says while the site is read-only.

The guard's refusal, or that of `switch.writing()`, leaves a command as an exception. On the command line it becomes
what a `CommandError` is there: a few lines on stderr and an exit code. Whoever uses `call_command` gets the exception.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any, Final

from django.core.management.base import BaseCommand

from readonly.errors import ReadOnlyError

from .migrating import REFUSED

_DONE: Final = "_readonly_explains_refusals"


def explain_refusals() -> None:
    """Have every command of this process explain one; twice does no harm. Django has no hook for it."""
    if hasattr(BaseCommand, _DONE):
        return
    original = BaseCommand.run_from_argv

    @functools.wraps(original)
    def run_from_argv(self: BaseCommand, argv: list[str]) -> None:
        try:
            original(self, argv)
        except Exception as error:
            refusal = _refusal_behind(error)
            if refusal is None or "--traceback" in argv:
                raise
            self.stderr.write(_said(argv[1:2], refusal))
            sys.exit(REFUSED)

    BaseCommand.run_from_argv = run_from_argv  # type: ignore[method-assign]
    setattr(BaseCommand, _DONE, True)


def _refusal_behind(error: BaseException | None) -> ReadOnlyError | None:
    """Return the refusal that an error is, or was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, ReadOnlyError):
            return error
        seen.add(id(error))
        error = error.__cause__
    return None


def _said(command: Sequence[Any], refusal: ReadOnlyError) -> str:
    ends = refusal.expected_end
    expected = "" if ends is None else f" (expected until {ends:%H:%M:%S %Z})"
    return (
        f"{' '.join(command)}: refused, since {refusal.reason}{expected}. "
        "What it was about to write was not written.\n"
        "Try again when the site is open: `manage.py readonly status` says what it is waiting for. What has to be done "
        "meanwhile is done inside of `manage.py readonly run -- COMMAND`."
    )
