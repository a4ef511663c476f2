"""A site that somebody has made read-only, in memory, and a bypass that lets through whoever has TOKEN."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from readonly.changes import Operator, initialise, turn_on
from readonly.record import Bypass, new_token, token_hash
from readonly.stores.memory import MemoryStore

ANN = Operator("ann", "desk-1")
NOW = datetime.now(UTC)
TOKEN = new_token()


def bypass(**fields: Any) -> Bypass:
    """Return a bypass that lets through whoever has TOKEN."""
    given: dict[str, Any] = {
        "id": "b1",
        "name": "ann",
        "by": "ann",
        "since": NOW,
        "until": NOW + timedelta(days=1),  # of which the whole of a slow run is a small part
        "causes": ("c1",),
        "keys": (token_hash(TOKEN),),
        **fields,
    }
    return Bypass(**given)


def closed_store() -> MemoryStore:
    """Return the store of a site that ANN has made read-only."""
    made = MemoryStore(site="shop")
    if made.read().record is None:
        initialise(made, ANN)
    turn_on(made, ANN)
    return made
