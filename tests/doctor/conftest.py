"""A healthy site, in which faults are planted."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.doctoring import healthy
from support.fence_layouts import Shop as Postgres
from support.fence_layouts import two_roles
from support.operating import Shop, made
from support.postgres_server import PostgresPair


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose packages there are is asked once, and not for each look: it is most of what that takes."""
    monkeypatch.setattr(importlib.metadata, "packages_distributions", _owners)


@functools.cache
def _owners() -> Mapping[str, list[str]]:
    return _asked()


_asked = importlib.metadata.packages_distributions


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """Initialised, with two members that guard their databases."""
    found = made(tmp_path / "shop.db")
    healthy(found)
    yield found
    found.store.close()


@pytest.fixture
def postgresql(postgres_pair: PostgresPair) -> Iterator[Postgres]:
    """A database whose application has a role of its own."""
    with two_roles(postgres_pair.primary) as made:
        yield made
