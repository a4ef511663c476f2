"""A run from code: what `readonlyctl run`, `resume` and `abandon` do, for a site's own deploy script."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from ..site import Site
from .journal import Freezing, Voice
from .runner import Runner


def run(
    site: Site,
    command: Sequence[str],
    *,
    reason: str = "",
    message: str = "",
    expected: timedelta | None = None,
    sessions: str | None = None,
    timeout: float = 60.0,
    end_after: float | None = None,
    fence: bool = True,
    freezing: Freezing | None = None,
    voice: Voice | None = None,
) -> int:
    """Turn the site read-only, wait for proof, fence, run a command, lift, and open the site again.

    Args:
        site: What is switched, as `Site.from_config` makes it.
        command: A program and its arguments; no shell is between.
        reason: For colleagues.
        message: For visitors.
        expected: How long it is expected to take; it announces, and opens nothing.
        sessions: `end`, `suspend`, `keep`, or None for what each site's policy says.
        timeout: Seconds for the members, and again for the fences, and for the replicas.
        end_after: Seconds after which a fence ends the transactions that it waits for; None: never.
        fence: Whether the fences that are configured are raised.
        freezing: What is asked for of the replicas.
        voice: Who is told of each step, and gets the command's output; None: nobody, and a file keeps it.

    Returns:
        0: the command succeeded and the site is open again. Else the command's own code, and the site is read-only and
        fenced, for a person to decide: `resume` or `abandon`.

    Raises:
        NotYours: Another run stands; nothing was changed.
        ConfigurationError: There is no replica to freeze; nothing was changed.
        RunFailed: A step could not be done. Before the command everything was undone; after it the site stays closed.
            `code` is what `readonlyctl` would exit with.
    """
    return Runner(site, voice=voice, timeout=timeout, end_after=end_after, fence=fence).run(
        command, reason=reason, expected=expected, message=message, sessions=sessions, freezing=freezing
    )


def resume(
    site: Site,
    run_id: str,
    command: Sequence[str] = (),
    *,
    timeout: float = 60.0,
    end_after: float | None = None,
    voice: Voice | None = None,
) -> int:
    """Go on with a run whose runner is gone.

    Args:
        site: What is switched.
        run_id: The run; `standing_run` finds it.
        command: To be run (again) first; empty: it had succeeded, and what comes after it is done.
        timeout: As for `run`.
        end_after: As for `run`.
        voice: As for `run`.

    Returns:
        As `run` does.

    Raises:
        NotYours: It does not stand, its runner reports, or its command is still at work; nothing was changed.
        RunFailed: As for `run`; nothing is undone.
    """
    return Runner(site, voice=voice, timeout=timeout, end_after=end_after).resume(run_id, command)


def abandon(
    site: Site, run_id: str, *, end_sessions: bool = False, timeout: float = 60.0, voice: Voice | None = None
) -> None:
    """Lift what a run raised and open the site; the database is left as the command left it.

    Args:
        site: What is switched.
        run_id: The run; `standing_run` finds it.
        end_sessions: End the command's sessions at the database first.
        timeout: As for `run`.
        voice: As for `run`.

    Raises:
        NotYours: It does not stand, its runner reports, or its command is still at work.
        RunFailed: A fence could not be lifted; the site stays closed.
    """
    Runner(site, voice=voice, timeout=timeout).abandon(run_id, end_sessions=end_sessions)
