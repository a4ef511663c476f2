"""A healthy site, in which faults are planted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.doctoring import healthy
from support.operating import Shop, made


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """Initialised, with two members that guard their databases."""
    found = made(tmp_path / "shop.db")
    healthy(found)
    yield found
    found.store.close()
