"""Who may still lift what: has somebody decided the opposite meanwhile, and until when is a slip taken back?"""

from __future__ import annotations

from datetime import datetime, timedelta

from ..record import Cause, Record


def contradicts(
    base: Record | None, now: Record | None, *, closes: bool, windows: bool = False, after: datetime | None = None
) -> bool:
    """Return whether somebody made a change that contradicts ours since we read `base` (design rule 2).

    Args:
        base: The record our decision was based on.
        now: The record that stands.
        closes: True if ours closes (`on`), False if it opens (`off`).
        windows: Whether ours may end a window, so that one that was moved contradicts it.
        after: Only what was decided since then counts: the rest was decided before, lost by the store, and brought back
            by a member. None: all counts, since ours is about whatever stands.
    """
    if base is None or now is None:
        return False
    if closes:
        return any(key not in base.lifted and (after is None or lift.at >= after) for key, lift in now.lifted.items())
    before = {c.id: c for c in base.causes}
    known = {w.id: w.revision for w in base.windows}
    # What was planned for later, by a person or by a member that topped up a schedule, closes nothing yet.
    if windows and any(w.in_force(now.changed_at) and w.revision > known.get(w.id, 0) for w in now.windows):
        return True
    return any(
        c.revision > before[c.id].revision if c.id in before else after is None or c.since >= after for c in now.causes
    )


def undo_until(cause: Cause, *, grace: timedelta) -> datetime:
    """Return until when a cause can be taken back with its session cut-off."""
    return cause.since + grace
