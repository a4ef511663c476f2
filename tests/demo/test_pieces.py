"""The demo site's small parts: forms, the match day, passwords, and how pages speak of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from demo_app import forms, matchday, pages, passwords, story
from demo_app.settings import Settings
from demo_app.shown import ShownGoal


@pytest.mark.parametrize(
    "text", ["//elsewhere.example", "/\\elsewhere.example", "https://elsewhere.example", "", "/a\nb"]
)
def test_login_never_leads_to_another_site(text: str) -> None:
    """The address to go on to is one of this site, or the default."""
    assert forms.local_path(text, default="/account") == "/account"


def test_login_leads_back() -> None:
    """An address of this site is kept, query and all."""
    assert forms.local_path("/articles/some?page=2") == "/articles/some?page=2"


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (forms.comment, "  \n "),
        (forms.comment, "x" * (forms.LONGEST_COMMENT + 1)),
        (forms.display_name, ""),
        (forms.display_name, "x" * (forms.LONGEST_NAME + 1)),
        (forms.account_name, "-ab"),
        (forms.account_name, "a+b"),
        (forms.account_name, "ab"),
        (forms.password, "ab"),
    ],
)
def test_what_a_form_does_not_take(check: object, text: str) -> None:
    """A value that can't be stored is answered with a sentence for the visitor."""
    assert callable(check)
    with pytest.raises(forms.Problem, match=r"\.$"):
        check(text)


def test_forms_tidy_up() -> None:
    """Spaces around and between are not part of what was meant."""
    assert forms.comment("  a  b \n") == "a  b"
    assert forms.display_name("  Ada   L. ") == "Ada L."
    assert forms.account_name(" Ada-1 ") == "ada-1"


def test_a_password_matches_itself_only() -> None:
    """Each hash has its own salt, and an account without a password lets nobody in."""
    stored = passwords.hashed("tree")
    assert stored != passwords.hashed("tree")
    assert passwords.matches("tree", stored)
    assert not passwords.matches("treE", stored)
    assert not passwords.matches("", "")


@pytest.mark.parametrize(
    ("minutes", "phase", "minute"),
    [(0, "live", 1), (10, "live", 10), (45, "live", 45), (48, "half-time", 45), (51, "live", 45), (60, "live", 54),
     (96, "live", 90), (97, "full-time", 90), (119, "full-time", 90), (130, "live", 10)],
)  # fmt: skip
def test_the_match_clock(minutes: int, phase: str, minute: int) -> None:
    """A match is played, rests, ends, stands, and begins again."""
    assert matchday.clock(0, minutes * matchday.SECONDS_PER_MINUTE) == (phase, minute)
    assert matchday.clock(minutes, 0.0) == (phase, minute)


def test_a_score_counts_what_has_been_scored_by_now() -> None:
    """Goals that are still to come are in nobody's score."""
    goals = [ShownGoal(10, "home", "A"), ShownGoal(20, "away", "B"), ShownGoal(80, "home", "C")]
    match = matchday.as_it_stands(id=1, league="L", home="H", away="W", head_start=30, goals=goals, now=0.0)
    assert (match.minute, match.home_goals, match.away_goals, match.goals) == (30, 1, 1, (goals[0], goals[1]))


@pytest.mark.parametrize(
    ("passed", "said"),
    [(timedelta(seconds=20), "just now"), (timedelta(minutes=5), "5 min ago"), (timedelta(hours=7), "7 h ago"),
     (timedelta(days=2), "8 March")],
)  # fmt: skip
def test_ago(passed: timedelta, said: str) -> None:
    """How long ago, as one says it."""
    now = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
    assert pages.ago(now - passed, now=now) == said


def test_initials() -> None:
    """One or two letters for a name, and something for a name without letters."""
    assert [pages.initials(name) for name in ("Sam from Row F", "Noor", "…")] == ["SF", "N", "?"]


def test_the_story_holds_together() -> None:
    """Every section has an article, every comment an article and an author, every name is used once."""
    slugs = [article.slug for article in story.ARTICLES]
    readers = [reader.name for reader in story.all_readers()]
    assert len(set(slugs)) == len(slugs)
    assert len(set(readers)) == len(readers)
    assert {article.section for article in story.ARTICLES} == {section.slug for section in story.SECTIONS}
    assert {comment.article for comment in story.COMMENTS} <= set(slugs)
    assert {comment.by for comment in story.COMMENTS} <= set(readers)


def test_settings_go_through_the_environment(tmp_path: Path) -> None:
    """Worker processes read back what the parent was given; a missing variable is named."""
    settings = Settings.in_folder(tmp_path, secret="s")
    assert Settings.from_env(settings.as_env()) == settings
    assert settings.store == f"sqlite:///{tmp_path}/switch.sqlite?site=touchline"
    with pytest.raises(RuntimeError, match="DEMO_REPLICA, SECRET not set"):
        Settings.from_env({"DEMO_DATABASE": "x", "READONLY_STORE": "y"})
