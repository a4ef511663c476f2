"""What does the store hold, what does that mean now, and where does every member stand? Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from .. import changes, history
from ..confirmation import Confirmation, Expected, accepting_leases
from ..errors import StoreUnreachable, UnreadableRecord
from ..hostfile import HostFile, state_folder
from ..proving import LOOK_AGAIN_SECONDS, Proving
from ..record import Record
from ..record_format import load
from ..state import State
from ..stores import Census, Store, redacted


@dataclass(frozen=True, slots=True)
class Look:
    """One atomic look at record and registry.

    Attributes:
        record: The record, or None where there is none, or none that this version can read.
        census: What was read.
        unreadable: Why the record that is there could not be read.
    """

    record: Record | None
    census: Census
    unreadable: UnreadableRecord | None = None

    @property
    def state(self) -> State:
        """What the record means now, by the store's clock."""
        why = self.unreadable.why if self.unreadable is not None else ""
        return State.at(self.census.reading.at, self.record, unknown_because=why)


class Looking:
    """One site, looked at: nothing here changes its record. Not thread-safe.

    Args:
        store: Where the record is.
        expect: How many members of each role must be there for a "safe".
        longest_transaction: Seconds after its end from which a process has nothing left that could commit.
    """

    def __init__(self, store: Store, *, expect: Mapping[str, Expected] | None, longest_transaction: float) -> None:
        self.store = store
        self.expect = dict(expect or {})
        self.longest_transaction = longest_transaction
        self._proving = Proving(store, expect=self.expect, longest_transaction=longest_transaction)
        self._memory = HostFile(store.url, store.site, state_folder())

    @property
    def name(self) -> str:
        """The site's name."""
        return self.store.site

    @property
    def shown_store(self) -> str:
        """The store's URL without its password."""
        return redacted(self.store.url)

    def look(self) -> Look:
        """Read record and registry; a record that can't be read is part of the answer.

        Raises:
            StoreUnreachable: The store did not answer.
            ConfigurationError: It holds another site's record.
        """
        census = self.store.census()
        try:
            record = changes.read_in(self.store, census.reading)
        except UnreadableRecord as error:
            return Look(None, census, error)
        self._memory.remember(census.reading.record)
        return Look(record, census)

    def judge(self, look: Look, *, expect: bool = True, accept_leases: bool = False) -> Confirmation:
        """Return where every member stands, seen from what is in force at a look.

        Args:
            look: What was read.
            expect: Whether members that are expected and not there are missing.
            accept_leases: As in `wait_closed`.
        """
        causes = [c.id for c in look.state.causes]
        closing = bool(causes)
        if not closing and look.record is not None:
            causes = list(look.record.lifted)
        found = self._proving.judged(look.record, look.census, causes, closing, expect=expect)
        return accepting_leases(found) if accept_leases else found

    def hint(self, seconds: float) -> None:
        """Wait until the store may hold something new, for `seconds` at most."""
        self._proving.hint(seconds)

    def last_seen(self) -> State | None:
        """Return what the record meant when this host saw it change last, by this host's clock; None if it never did.

        For the night on which the store does not answer. It opens and closes nothing.
        """
        last = self._memory.recall()
        if last is None:
            return None
        try:
            return State.at(datetime.now(UTC), load(last[0]))
        except UnreadableRecord:
            return None

    def warnings(self) -> tuple[str, ...]:
        """Return what in the store's settings can lose the record, one sentence each, as far as it tells."""
        try:
            return self.store.warnings()
        except StoreUnreachable:  # whoever asks is told by the next call
            return ()

    def history(self, *, last: int = history.KEEP) -> list[history.Entry]:
        """Return what was done to the site, oldest first: the store's history, and what this host remembers of it.

        Raises:
            StoreUnreachable: The store did not answer, and this host remembers nothing.
        """
        return history.read(self.store, state_folder(), last=last)

    def watch(self) -> Iterator[Look | StoreUnreachable]:
        """Yield what the store holds, again and again: at each hint, and at least twice a second. It never ends.

        What can't be read is yielded in its place, and asked for again.
        """
        while True:
            found: Look | StoreUnreachable
            try:
                found = self.look()
            except StoreUnreachable as error:
                found = error
            yield found
            self._proving.hint(LOOK_AGAIN_SECONDS)


def no_record(store: Store) -> str:
    """Say what an absent record means and what to type."""
    return (
        f"the store {redacted(store.url)} holds no record for the site {store.site}: its processes serve reads and "
        f"refuse writes. New installation? readonlyctl init {store.site}. Existing site? The store was emptied; any "
        "process that knew the state writes it back within seconds, and none has"
    )
