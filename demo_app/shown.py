"""What templates and the JSON API are given: plain values, the same from every framework's queries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Phase = Literal["upcoming", "live", "half-time", "full-time"]


@dataclass(frozen=True, slots=True)
class ShownAccount:
    """Who is reading; `api_token` is shown on the account page and nowhere else."""

    id: int
    name: str
    display_name: str
    api_token: str
    provider: str | None


@dataclass(frozen=True, slots=True)
class ShownCard:
    """An article in a list."""

    id: int
    slug: str
    section: str
    kicker: str
    title: str
    standfirst: str
    author: str
    published_at: datetime
    comments: int


@dataclass(frozen=True, slots=True)
class ShownArticle:
    """An article on its own page; `views` is what the counter said before this reader came."""

    id: int
    slug: str
    section: str
    kicker: str
    title: str
    standfirst: str
    author: str
    published_at: datetime
    paragraphs: tuple[str, ...]
    views: int


@dataclass(frozen=True, slots=True)
class ShownComment:
    """One comment under an article."""

    id: int
    by: str
    body: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ShownGoal:
    """One goal that has been scored by now."""

    minute: int
    side: str
    scorer: str


@dataclass(frozen=True, slots=True)
class ShownMatch:
    """One match as it stands."""

    id: int
    league: str
    home: str
    away: str
    phase: Phase
    minute: int
    home_goals: int
    away_goals: int
    goals: tuple[ShownGoal, ...]
