"""The fence: at the database server, no session of any client can write, but the one migration that was let in.

Middleware stops requests and the guard stops the site's own processes. A fence stops the cron job, the console, the
forgotten service, and the request that slept through it all. It is raised with the operator's privileges, remembers
at the server what it took away, and can be lifted from any machine that reaches the database, without the store.
"""

from .fence import Fence
from .values import (
    Fenced,
    FenceError,
    FenceRefused,
    FenceUnreachable,
    Holder,
    Holdup,
    Level,
    Lifted,
    NotOurFence,
    Pass,
    Position,
    Preflight,
    StillWriting,
    Strategy,
    Way,
)

__all__ = [
    "Fence",
    "FenceError",
    "FenceRefused",
    "FenceUnreachable",
    "Fenced",
    "Holder",
    "Holdup",
    "Level",
    "Lifted",
    "NotOurFence",
    "Pass",
    "Position",
    "Preflight",
    "StillWriting",
    "Strategy",
    "Way",
]
