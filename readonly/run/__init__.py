"""A run: on, confirm, fence, replicas, freeze, the command, look again, thaw, catch up, schema, lift, off.

What was done stands in the store's journal, step by step, before and after each; so any machine can say how far a run
came when the one that it ran on is gone, and go on from there. A run is a cause of its own: the site does not open
while it stands, and only its end, or a person who abandons it, lifts it.

The command's database sessions are named `readonly-run-ID`, so that a dead runner is not taken for a dead migration.
"""

from .calls import abandon, resume, run
from .command import VARIABLE, attach, environment, log_of
from .journal import Entry, Freezing, Journal, Progress, RunFailed, Step, Voice, read, standing_run
from .runner import Runner

__all__ = [
    "VARIABLE",
    "Entry",
    "Freezing",
    "Journal",
    "Progress",
    "RunFailed",
    "Runner",
    "Step",
    "Voice",
    "abandon",
    "attach",
    "environment",
    "log_of",
    "read",
    "resume",
    "run",
    "standing_run",
]
