"""What `manage.py createsuperuser`, or any command that was about to write, says while the site is read-only.

The guard's refusal, or that of `switch.writing()`, leaves a command as an exception. On the command line it becomes
what a `CommandError` is there: a few lines on stderr and an exit code. Whoever uses `call_command` gets the exception.
"""

from __future__ import annotations

import functools
import sys
from typing import Final

from django.core.management.base import BaseCommand

from readonly.refused_commands import REFUSED, explained, refusal_behind

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
            refusal = refusal_behind(error)
            if refusal is None or "--traceback" in argv:
                raise
            self.stderr.write(explained(refusal, " ".join(argv[1:2]), program="manage.py readonly"))
            sys.exit(REFUSED)

    BaseCommand.run_from_argv = run_from_argv  # type: ignore[method-assign]
    setattr(BaseCommand, _DONE, True)
