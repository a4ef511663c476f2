"""Which databases and replicas does readonly.toml name, as what they are raised and frozen by?"""

from __future__ import annotations

from ..config import FenceConfig
from ..databases.fence import Fence
from ..databases.freeze import Standby
from ..databases.replicas import schema_of
from ..following import Followers


def followers_of(found: FenceConfig) -> Followers:
    """Return one configured fence with the replicas of its database.

    Raises:
        ConfigurationError: A setting can't be right.
    """
    where = f"fence.{found.name}"
    freezable = {url: Standby.from_url(url, where=f"{where}.freeze") for url in found.freeze}
    # One that stands in both lists is one.
    others = [Standby.from_url(url, where=f"{where}.replicas") for url in found.replicas if url not in freezable]
    return Followers(
        _fence(found),
        (*others, *freezable.values()),
        tuple(freezable.values()),
        schema_of(found.schema or None, setting=f"{where}.schema"),
    )


def _fence(found: FenceConfig) -> Fence:
    return Fence.from_url(
        found.url, writers=found.writers, migrators=found.migrators, name=found.name, strategy=found.strategy
    )
