"""What the model found in the library, each in as few lines as it takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from readonly import changes
from readonly.changes import Operator
from readonly.confirmation import confirm
from readonly.errors import NoRecord
from readonly.follower import funerals, heartbeat
from readonly.members import Report
from readonly.record_format import load
from readonly.stores import Seen
from readonly.stores.memory import MemoryStore
from readonly.switch import Switch
from readonly.transitions import first_record, with_cause
from support.records import NOON, cause

from .replay import HandedClock


def test_nobody_is_confirmed_over_a_partial_record() -> None:
    """A worker's COMMIT is on its way when it dies; the store forgets both; its successor remembers neither."""
    partial = with_cause(None, cause("c0"), site="shop", at=NOON, by="ann")
    successor = Report(id="b", host="h", pid=2, role="web", causes=("c0",), closed=True)
    seen = [Seen("b", successor.dump(), NOON)]
    assert any("emptied" in problem for problem in confirm(partial, seen, causes=["c0"], closing=True, at=NOON).missing)
    whole = with_cause(first_record("shop", at=NOON, by="ann"), cause("c0"), site="shop", at=NOON, by="ann")
    there = [replace(seen[0], report=replace(successor, synced=True).dump())]
    assert confirm(whole, there, causes=["c0"], closing=True, at=NOON).safe


def test_a_waiting_command_makes_nothing_whole() -> None:
    """It read the record once: what others did since is lost with the store, and `off` would open the site for all."""
    store = MemoryStore()
    ann, bob = (Operator(name, "h") for name in ("ann", "bob"))
    mine = changes.turn_on(store, ann).record
    changes.turn_on(store, bob)
    store.lose()
    found, _ = changes.survey(store, mine)
    assert found is not None
    assert (found.partial, len(found.causes)) == (True, 1)
    with pytest.raises(NoRecord):
        changes.turn_off(store, ann)
    store.lose()
    changes.turn_on(store, Operator("carl", "h"))
    found, _ = changes.survey(store, mine)
    assert found is not None
    assert (found.partial, len(found.causes)) == (True, 2)


@pytest.mark.parametrize("writing", [False, True])
def test_who_leaves_with_a_write_in_flight_is_remembered(writing: bool) -> None:
    """By members, for the case that the store forgets it: its COMMIT may still be on its way then."""
    store = MemoryStore()
    leaving = Switch(store.peer())
    leaving.start()
    if writing:
        leaving.inflight.begin()
    member = leaving._follower().member
    leaving.close()
    near = store.report("z", b"{}", keep_seconds=60).neighbours
    assert near == ((member,) if writing else ())


@pytest.mark.parametrize(
    "last",
    [
        Report(id="a", host="h", pid=1, role="web", in_flight=1, synced=True),
        Report(id="a", host="h", pid=1, role="web", closed=False, synced=True),
        # It was closed when it spoke last; the cause may have been lifted after that.
        Report(id="a", host="h", pid=1, role="web", causes=("c0",), synced=True),
    ],
)
def test_who_was_found_over_is_remembered(last: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that died in the middle of a write is found by a member of its host; then the store forgets both."""
    monkeypatch.setattr(funerals, "is_gone", lambda report: report.id == "a")
    store = MemoryStore()
    store.report("a", last.dump(), keep_seconds=60)
    store._memory.members["a"] = replace(store._memory.members["a"], at=store.read().at - timedelta(seconds=30))
    finder = Switch(store.peer())
    heart = finder._follower()
    heart._funerals.due = float("-inf")
    heart._funerals.look(store)
    assert Report.load("a", store.census().reports[0].report).found_gone
    assert store.report("z", b"{}", keep_seconds=60).neighbours == ("a",)


def test_a_report_that_was_built_before_the_loss_was_known_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failover loses a member; the one that knew it stalls before it has asked after it, and looks obedient."""
    monkeypatch.setattr(heartbeat, "ROUNDS", 1)
    clock = HandedClock()
    store = MemoryStore(clock=clock)
    hearts = [Switch(store.peer(), clock=clock, inert=False)._follower() for _ in range(2)]
    for heart in (*hearts, *hearts):
        heart._heart.beat(heart.store)
    obeys, stands_still = hearts
    (mine,) = changes.turn_on(store, Operator("ann", "h")).causes
    record = store.read().record
    obeys._heart.beat(obeys.store)
    store.lose()
    store._memory.record = record
    clock.seconds += 3.0
    obeys._heart.beat(obeys.store)
    clock.seconds += 2.0

    def missing() -> tuple[str, ...]:
        census = store.census()
        return confirm(
            load(record or b""),
            census.reports,
            causes=[mine],
            closing=True,
            at=census.reading.at,
            registry=census.reading.registry,
            incarnation_seconds=census.reading.incarnation_seconds,
        ).missing

    (why,) = missing()
    assert "list of members" in why
    obeys._heart.beat(obeys.store)
    (why,) = missing()
    assert stands_still.member in why
    stands_still._heart.beat(stands_still.store)
    stands_still._heart.beat(stands_still.store)
    assert missing() == ()
