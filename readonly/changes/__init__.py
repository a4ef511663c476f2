"""Changing the record in a store: read, change, write if unchanged, else read again (design rule 2).

Both sides use this, an application's switch in its thread and the operator's command in its own; it knows the store
and nothing of processes.
"""

from __future__ import annotations

from ._lifting import UNDO_GRACE, lift_exactly, turn_off, undo_in_time, would_lift
from ._operator import Operator
from ._rewriting import RACE_TIMEOUTS, TRIES, Change, read_in, rewrite
from ._setting import LONGEST_EXPECTED, fence_of, initialise, set_fence, start_run, turn_on
from ._surveying import SETTLE_SECONDS, settled, survey

__all__ = [
    "LONGEST_EXPECTED",
    "RACE_TIMEOUTS",
    "SETTLE_SECONDS",
    "TRIES",
    "UNDO_GRACE",
    "Change",
    "Operator",
    "fence_of",
    "initialise",
    "lift_exactly",
    "read_in",
    "rewrite",
    "set_fence",
    "settled",
    "start_run",
    "survey",
    "turn_off",
    "turn_on",
    "undo_in_time",
    "would_lift",
]
