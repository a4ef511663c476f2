"""Replicas: what they say of themselves, whether they do for a reader, and which one is read from.

`postgresql.look`, `mariadb.look` and `sqlite.look` ask a server, each over a connection of the caller's own; what they
return is a `Standing`. `has_reached` judges it by a position (a fence's), `why_unfit` by all that a reader needs.
Application and operator use the same ones.
"""

from __future__ import annotations

from ..fence.values import Position
from .choice import LEFT_OUT_CAP_SECONDS, LEFT_OUT_SECONDS, PROBE_SECONDS, STALE_SECONDS, Replica, Replicas
from .schema import Schema, alembic, query, schema_of
from .values import LAG_SECONDS, Need, Standing, has_reached, why_unfit

__all__ = [
    "LAG_SECONDS",
    "LEFT_OUT_CAP_SECONDS",
    "LEFT_OUT_SECONDS",
    "PROBE_SECONDS",
    "STALE_SECONDS",
    "Need",
    "Position",
    "Replica",
    "Replicas",
    "Schema",
    "Standing",
    "alembic",
    "has_reached",
    "query",
    "schema_of",
    "why_unfit",
]
