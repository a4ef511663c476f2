"""What can go wrong, by cause. Nothing here imports anything of ours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime


class Error(Exception):
    """The root of every error this library raises."""


class ReadOnlyError(Error):
    """A write was refused because the site is read-only; never anything else.

    Attributes:
        reason: One sentence for the people who run the site.
        expected_end: When the read-only time is expected to be over, timezone-aware, or None.
        database: Name of the guarded database that refused, or None when it was not a database.
        table: The table that would have been written, where the driver tells it.
    """

    def __init__(
        self,
        reason: str = "the site is read-only",
        *,
        expected_end: datetime | None = None,
        database: str | None = None,
        table: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.expected_end = expected_end
        self.database = database
        self.table = table

    @property
    def extensions(self) -> dict[str, object]:
        """What GraphQL servers put beside the message when a resolver raises this."""
        found: dict[str, object] = {"code": "READ_ONLY"}
        if self.expected_end is not None:
            found["expected_end"] = f"{self.expected_end.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        return found


class ConfigurationError(Error, ValueError):
    """A setting can't be right. The message names it; start-up stops."""


class StoreUnreachable(Error):
    """The store did not answer, or did not take what it was told, in time."""


class NoRecord(Error):
    """The store answers and holds no record for the site."""


class UnreadableRecord(Error):
    """The store holds a record that this version of the library can't read, and so must not change.

    Attributes:
        why: What is the matter with it, and which version is needed where that is known.
        epoch: Its epoch, where at least that could be read.
        corrupt: True if no version could read it; False if a newer one can.
    """

    def __init__(self, why: str, *, epoch: int | None = None, corrupt: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.epoch = epoch
        self.corrupt = corrupt


class LostRace(Error):
    """Somebody else made a contradicting change first; nothing was changed.

    Attributes:
        by: Who made it.
        epoch: The epoch of the record that stands.
    """

    def __init__(self, message: str, *, by: str, epoch: int) -> None:
        super().__init__(message)
        self.by = by
        self.epoch = epoch


class NotYours(Error):
    """The causes that stand belong to others; nothing was changed.

    Attributes:
        causes: Ids of the causes that stand.
    """

    def __init__(self, message: str, *, causes: Sequence[str]) -> None:
        super().__init__(message)
        self.causes = tuple(causes)


class NotConfirmed(Error):
    """The change is set, but not proven everywhere.

    Attributes:
        missing: What is not there yet, one sentence each.
    """

    def __init__(self, message: str, *, missing: Sequence[str]) -> None:
        super().__init__(message)
        self.missing = tuple(missing)


class NoFitReplica(Error):
    """No replica can be read from, and reads are kept off the primary; nothing was read."""
