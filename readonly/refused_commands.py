"""What a command says that was about to write while the site is read-only, whichever framework has started it.

A guard's refusal, or that of `switch.writing()`, leaves a command as an exception. On a command line it becomes a few
lines on stderr and an exit code that cron takes for "try again later".
"""

from __future__ import annotations

from typing import Final

from .errors import ReadOnlyError

# EX_TEMPFAIL of sysexits.h, as a job that was skipped.
REFUSED: Final = 75


def refusal_behind(error: BaseException | None) -> ReadOnlyError | None:
    """Return the refusal that an error is, or was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, ReadOnlyError):
            return error
        seen.add(id(error))
        error = error.__cause__
    return None


def explained(refusal: ReadOnlyError, command: str, *, program: str) -> str:
    """Return what the operator of a refused command reads, in two lines.

    Args:
        refusal: Why.
        command: What was typed.
        program: How the group of `readonlyctl` is typed there: `manage.py readonly`.
    """
    ends = refusal.expected_end
    expected = "" if ends is None else f" (expected until {ends:%H:%M:%S %Z})"
    return (
        f"{command}: refused, since {refusal.reason}{expected}. What it was about to write was not written.\n"
        f"Try again when the site is open: `{program} status` says what it is waiting for. What has to be done "
        f"meanwhile is done inside of `{program} run -- COMMAND`."
    )
