"""Every change of a record, as a pure function; the stores, the switch and the model checker run these very functions.

Records join, they do not overrule each other: a cause ends only by being lifted, never because a record with a
higher epoch does not mention it (design rule 3). The one exception is a greater lineage, which only a person
makes, by `init`.
"""

from __future__ import annotations

from ._changing import (
    BYPASS_AGE,
    changed,
    first_record,
    trimmed,
    with_bypass,
    with_cause,
    with_rehearsal,
    without_causes,
)
from ._contradicting import contradicts, undo_until
from ._joining import adds, join, lineage_made
from ._learning import Knowledge, lacks_whole, lapsed, learn, noted, recalled

__all__ = [
    "BYPASS_AGE",
    "Knowledge",
    "adds",
    "changed",
    "contradicts",
    "first_record",
    "join",
    "lacks_whole",
    "lapsed",
    "learn",
    "lineage_made",
    "noted",
    "recalled",
    "trimmed",
    "undo_until",
    "with_bypass",
    "with_cause",
    "with_rehearsal",
    "without_causes",
]
