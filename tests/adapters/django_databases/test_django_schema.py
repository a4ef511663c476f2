"""Django's migrations as a schema version: this code's own leaves, and a database that is there, behind, or ahead."""

from __future__ import annotations

import pytest

from readonly_django.schema import Migrations, own_migrations

NEWS = Migrations(
    {"news": {"0003_c": frozenset()}, "users": {"0001_squashed_0002": frozenset({"0001_a", "0002_b"})}},
    {
        "news": frozenset({"0001_a", "0002_b", "0003_c"}),
        "users": frozenset({"0001_squashed_0002", "0001_a", "0002_b"}),
    },
)
THERE = [("users", "0001_a"), ("users", "0002_b"), ("news", "0001_a"), ("news", "0002_b"), ("news", "0003_c")]


@pytest.mark.parametrize(
    ("rows", "differs"),
    [
        (THERE, ""),
        ([*THERE, ("users", "0001_squashed_0002")], ""),  # recorded when somebody migrates next
        ([("news", "0000_removed"), *THERE], ""),  # older than what this code has, and no longer on disk
        ([*THERE, ("other", "0009_x")], ""),  # an app that this process does not have
        (THERE[:-1], "news.0002_b"),
        ([*THERE, ("news", "0004_d")], "news.0004_d"),
        (THERE[1:], "users.0002_b"),
        ([], "news.(none)"),
    ],
)
def test_a_database_is_there_behind_or_ahead(rows: list[tuple[str, str]], differs: str) -> None:
    """It has the version where all leaves are applied, and nothing that this code has never heard of came later."""
    seen = NEWS.seen(rows)
    assert (seen == NEWS.wanted()) is (not differs)
    if differs:
        assert differs in seen


def test_the_migrations_of_this_process() -> None:
    """As they lie on disk; a database that has applied them in order is there."""
    own = own_migrations()
    assert any(part.startswith("auth.") for part in own.wanted())
    assert own.seen([tuple(part.split(".", 1)) for part in own.wanted()]) == own.wanted()
