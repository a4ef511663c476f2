"""Where a match stands at a moment: a match day that never ends, and goes on while nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from demo_app.shown import Phase, ShownGoal, ShownMatch

SECONDS_PER_MINUTE: Final = 2.0
"""A playing minute takes this long, so that whoever looks at the page for a while sees something happen."""

HALF_TIME_AT: Final = 45
HALF_TIME_LASTS: Final = 6
SECOND_HALF_ENDS_AT: Final = 90 + HALF_TIME_LASTS
KICK_OFF_EVERY: Final = 120
"""In minutes: after the final whistle the result stands for a while, then the match starts again."""


def clock(head_start: int, now: float) -> tuple[Phase, int]:
    """Return phase and playing minute of a match.

    Args:
        head_start: By how many minutes this match is ahead of the others.
        now: Unix time in seconds.
    """
    elapsed = int(now / SECONDS_PER_MINUTE + head_start) % KICK_OFF_EVERY
    if elapsed <= HALF_TIME_AT:
        return "live", max(elapsed, 1)
    if elapsed < HALF_TIME_AT + HALF_TIME_LASTS:
        return "half-time", HALF_TIME_AT
    if elapsed <= SECOND_HALF_ENDS_AT:
        return "live", min(elapsed - HALF_TIME_LASTS, 90)
    return "full-time", 90


def as_it_stands(
    *, id: int, league: str, home: str, away: str, head_start: int, goals: Sequence[ShownGoal], now: float
) -> ShownMatch:
    """Return the match with those of its goals that have been scored at `now` (Unix time in seconds)."""
    phase, minute = clock(head_start, now)
    scored = tuple(goal for goal in goals if goal.minute <= minute)
    return ShownMatch(
        id=id,
        league=league,
        home=home,
        away=away,
        phase=phase,
        minute=minute,
        home_goals=sum(goal.side == "home" for goal in scored),
        away_goals=sum(goal.side == "away" for goal in scored),
        goals=scored,
    )
