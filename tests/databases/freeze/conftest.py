"""One primary and its standby for this folder: paused, restarted, and looked at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.following import Following
from support.postgres_server import PostgresPair


@pytest.fixture(scope="module")
def started() -> Iterator[Following]:
    """The pair, with a role that may pause and one that may not."""
    found = Following(PostgresPair())
    yield found
    found.close()


@pytest.fixture
def following(started: Following) -> Iterator[Following]:
    """The pair, replaying before and after the test."""
    yield started
    started.thawed()
